"""Several processes that train as one: the same global batch, the same statistics, the same losses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

BACKENDS = {"cuda": "nccl", "xpu": "xccl"}  # how tensors on a device reach other processes


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes; by itself where there is only one."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag))) > 0)  # on the CPU, so that no GPU has to wait

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def join(device: torch.device) -> World:
    """Join the processes that ``torchrun`` started; alone without ``torchrun``.

    Tensors on a device go by the device's own backend, nccl on GPUs, and those on the CPU by gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    own = f",{device.type}:{BACKENDS[device.type]}" if device.type in BACKENDS else ""
    dist.init_process_group(f"cpu:gloo{own}")
    return World(dist.get_rank(), dist.get_world_size())


def leave(world: World) -> None:
    """Undo ``join``."""
    if world.size > 1:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, also on the CPU, where torch's ``SyncBatchNorm`` does not run.

    Same parameters, buffers and evaluation mode as ``BatchNorm2d``. Every process must hold as many examples.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        mean = self._averaged(wide.mean((0, 2, 3)))
        # Around the mean, since the difference of two large means of squares would have few correct digits.
        centred = wide - mean[:, None, None]
        variance = self._averaged(centred.square().mean((0, 2, 3)))
        count = x.numel() / x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @staticmethod
    def _averaged(values: Tensor) -> Tensor:
        """The mean over all processes, through which gradients flow."""
        return _Sum.apply(values) / dist.get_world_size()


def synchronize_batch_norm(model: nn.Module, world: World) -> nn.Module:
    """Let every BatchNorm see the global batch, so that training does not depend on the number of processes."""
    if world.size == 1:
        return model
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return model
