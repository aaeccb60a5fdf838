"""Devices by name: any of torch's that has float64, which exact projection and the random draws need."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

import torch

from robustlab.errors import UserError
from robustlab.options import threads as read_threads

NAMES = "auto, cpu, cuda or cuda:N"


def choose_device(name: str | torch.device | None = "auto", threads: int | None = None) -> torch.device:
    """The device of that name, made the current one; under torchrun, each process its own.

    Args:
        name: ``auto``, or None, is CUDA where there is a GPU, else the CPU; ``cpu``, ``cuda``, ``cuda:1``, ``xpu``, ...; a device
            is taken as it is.
        threads: CPU threads that torch may use from now on; as many as before where left out.

    Raises:
        UserError: no such device, none on this machine, or one without float64; too many threads.
    """
    if threads is not None:
        torch.set_num_threads(read_threads(str(threads)))
    if isinstance(name, torch.device):
        return name
    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: use {NAMES}") from None
    if device.type == "cpu":
        _keep_memory()
        return device
    return _accelerator(device, name)


def _accelerator(device: torch.device, name: str) -> torch.device:
    """The device with its number, made the current one of its kind."""
    if device.type == "mps":
        raise UserError(f"device {name!r} is not supported: use {NAMES}")
    backend = _backend(device)
    if backend is None or not backend.is_available():
        raise UserError(f"device {name!r} is not available on this machine; try `device=auto`")
    device = torch.device(device.type, device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0")))
    if device.index >= backend.device_count():
        raise UserError(f"there is no {device}: this machine has {backend.device_count()} GPUs")
    backend.set_device(device.index)
    if not _has_float64(device):
        raise UserError(f"device {name!r} is not supported, as it has no float64: use {NAMES}")
    return device


def _backend(device: torch.device) -> Any:
    """torch's module for a kind of device, such as ``torch.cuda``; None where this torch has none."""
    try:
        return torch.get_device_module(device)
    except RuntimeError:
        return None


def _has_float64(device: torch.device) -> bool:
    try:
        return (torch.ones(1, dtype=torch.float64, device=device) + 2.0**-40).item() > 1
    except (RuntimeError, TypeError):  # what backends raise for a dtype that they do not have
        return False


def _keep_memory() -> None:
    """Let glibc keep the memory that tensors free, which it would else return to the system and ask back, page by page, at every
    step. Training `small` on one CPU core then takes 15 to 20 % less CPU time. Elsewhere than on glibc nothing happens."""
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there. CPUs without instructions for it emulate it, up to twelve times slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    supported = getattr(_backend(device), "is_bf16_supported", None)
    return supported is not None and supported(including_emulation=False)
