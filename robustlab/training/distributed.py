"""Several processes that train as one: the same global batch, the same statistics, the same losses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustlab.errors import UserError

PATIENCE = timedelta(minutes=10)  # how long a process waits for the others
START = "start with torchrun, which sets both, or with neither"
BACKENDS = {"cuda": "nccl", "xpu": "xccl"}  # how tensors on a device reach other processes


class Lost(UserError):
    """Another of the processes that train together has gone, or does not answer."""


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

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Say in a sentence, inside, that another process has gone or does not answer.

        Raises:
            Lost: what waited for the others has failed.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _comes_from_others(error):
                raise
            raise Lost(f"another of the {self.size} processes has gone, or has not answered for {_minutes(PATIENCE)}") from error


def _comes_from_others(error: RuntimeError) -> bool:
    """Whether an exception tells of other processes: gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or any(name in str(error).lower() for name in ("gloo", "nccl", "xccl"))


def _minutes(time: timedelta) -> str:
    return f"{time.total_seconds() / 60:g} minutes"


ALONE = World()


def join(device: torch.device) -> World:
    """Join the processes that ``torchrun`` started; alone without ``torchrun``.

    Tensors on a device go by the device's own backend, nccl on GPUs, and those on the CPU by gloo.

    Raises:
        UserError: the variables of the environment that ``torchrun`` sets are missing or no numbers, or the others did not come.
    """
    size = _number("WORLD_SIZE", 1, "the number of processes")
    if size == 1:
        return ALONE
    rank = _number("RANK", 0, "this process's number", below=size)
    if "MASTER_ADDR" not in os.environ:
        raise UserError(f"WORLD_SIZE is {size}, but MASTER_ADDR does not say where the processes meet: {START}")
    _number("MASTER_PORT", 1, "the port where the processes meet", below=1 << 16)
    own = f",{device.type}:{BACKENDS[device.type]}" if device.type in BACKENDS else ""
    try:
        dist.init_process_group(f"cpu:gloo{own}", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        why = "one of them may not have been started, or has gone"
        raise Lost(f"process {rank} of {size} did not meet the others at {where} within {_minutes(PATIENCE)}: {why}") from error
    return World(dist.get_rank(), dist.get_world_size())


def _number(name: str, least: int, what: str, below: int | None = None) -> int:
    """A whole number of the environment; 1 for a number of processes that is not given."""
    text = os.environ.get(name, "1" if name == "WORLD_SIZE" else "")
    with suppress(ValueError):
        value = int(text)
        if least <= value and (below is None or value < below):
            return value
    raise UserError(f"{name}, {what}, is {text!r}: it must be a whole number of at least {least}; torchrun sets it")


def launch_words(world: World) -> list[str]:
    """The words that start ``robustlab`` as it was started now: alone, or by ``torchrun`` with as many processes on as many machines."""
    if world.size == 1:
        return ["robustlab"]
    here, machines = os.environ.get("LOCAL_WORLD_SIZE", str(world.size)), os.environ.get("GROUP_WORLD_SIZE", "1")
    where = ["--standalone"]
    if machines != "1":
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        where = ["--nnodes", machines, "--rdzv-backend", "c10d", "--rdzv-endpoint", place]
    return ["torchrun", *where, "--nproc-per-node", here, "-m", "robustlab"]


def leave(world: World) -> None:
    """Undo ``join``."""
    if world.size > 1:
        with suppress(RuntimeError):  # the others may have gone
            dist.destroy_process_group()


def _is_number_below(text: str, size: str) -> bool:
    return text.isdigit() and (not size.isdigit() or int(text) < int(size))


def is_first_to_tell() -> bool:
    """Whether this process should tell of a mistake: of several that train together the first one that asks, and no other.

    The processes count at the place where they meet, which ``torchrun`` keeps. Where that is not known, the first of them tells; where
    it does not answer, each does.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        return os.environ.get("RANK", "0") in ("", "0") or not _is_number_below(os.environ["RANK"], os.environ["WORLD_SIZE"])
    try:
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False)
        return bool(store.add(f"robustlab/told/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1)
    except (RuntimeError, ValueError):
        return True


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

    batch_norm_in_evaluation = True  # so it can be folded into a convolution, see ``robustlab.models.folding``

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
