"""What several commands do: choose a device, open data, show progress, name a threat."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from robustlab.constraints import ThreatModel
from robustlab.data.catalog import open_dataset
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import ENDINGS, load, released
from robustlab.norms import L2, NORMS
from robustlab.settings import Checkpoint, Data, Model, Network

USUAL_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}


def choose_device(name: str, threads: int | None = None) -> torch.device:
    """The device of that name; ``auto`` is the best one here. Under torchrun, each process its own GPU."""
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from None
    # Exact projection and the draws need float64, which rules out Apple's mps.
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} is not available on this machine; try --device auto")
    if device.type == "cuda":
        device = torch.device("cuda", device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            raise UserError(f"there is no {device}: this machine has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(device)
    else:
        _keep_memory()
    return device


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
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def required_model(settings: Model, question: str = "which model?") -> str:
    """What ``--model`` names.

    Raises:
        UserError: nothing; names the pretrained models.
    """
    if settings.name is None:
        known = ", ".join(released()) or "none, as no pretrained model is at hand"
        raise UserError(f"{question} --model takes a checkpoint's path or one of: {known}")
    return settings.name


def load_model(name: str, args: Checkpoint | Network) -> Classifier:
    """A released model or a checkpoint, as the settings say how to read it.

    Raises:
        UserError: nothing there, or not what the settings say.
    """
    return load(name, arch=args.arch, normalization=normalization_of(args), trust=args.trust_checkpoint)


def normalization_of(args: Checkpoint | Network) -> tuple[list[float], list[float]] | None:
    """``--mean`` and ``--std``, for checkpoints that do not carry their own along.

    Raises:
        UserError: one without the other.
    """
    if (args.mean is None) != (args.std is None):
        raise UserError("--mean and --std belong together: give both or neither")
    return (args.mean, args.std) if args.mean and args.std else None


def short_names(names: Iterable[str]) -> dict[str, str]:
    """For each model, given by its name or path, a word: the file's name without its ending, and of the folders before it as many as
    tell it from the others."""
    paths = {name: Path(name) for name in names}
    stems = {name: path.with_suffix("") if path.suffix in ENDINGS else path for name, path in paths.items()}
    parts = {name: [part for part in stem.parts if part.strip("/\\.")] for name, stem in stems.items()}

    def tail(name: str, length: int) -> str:
        return "-".join(parts[name][-length:])

    def word(name: str) -> str:
        lengths = range(1, len(parts[name]) + 1)
        alone = (tail(name, k) for k in lengths if sum(tail(other, k) == tail(name, k) for other in parts) == 1)
        return next(alone, "-".join(parts[name]))

    found: dict[str, str] = {}
    for name in parts:
        found[name] = next(one for k in count(1) if (one := word(name) if k == 1 else f"{word(name)}-{k}") not in found.values())
    return found


def check_fits(model: Classifier, images: Images, name: str, *, chosen: bool) -> None:
    """Refuse images of classes or channels that a model does not know, and a choice of classes that it cannot tell apart by name."""
    if images.shape[0] != model.channels:
        raise UserError(f"{name} wants {model.channels} channels, but the images of {images.name} have {images.shape[0]}")
    model.outputs_for(images.classes, images.name)
    if chosen and not set(images.classes) <= set(model.classes):
        raise UserError(f"{name} does not name its classes, so that --classes cannot say which of its outputs are meant")


def check_reads(network: Callable[[Tensor], Any], shape: Sequence[int], name: str, device: torch.device) -> None:
    """Refuse images ``(C, H, W)`` of a size that a network cannot read, before anything is made of them."""
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=device))
    except RuntimeError as error:
        raise UserError(f"{name} cannot read images of {shape[2]}x{shape[1]} pixels; --data or --image-size gives others") from error


def threat_of(norm: str | None, eps: float | None, default: ThreatModel | None = None) -> ThreatModel:
    """The threat model of the flags; what they leave out is ``default``'s, or usual for the norm."""
    default = default or ThreatModel(L2(), USUAL_EPS["l2"])
    if norm is None or NORMS[norm] == default.norm:
        return ThreatModel(default.norm, default.eps if eps is None else eps)
    return ThreatModel(NORMS[norm], USUAL_EPS[norm] if eps is None else eps)


def norm_name(threat: ThreatModel) -> str:
    """The flag's value for a threat's norm."""
    return next(name for name, norm in NORMS.items() if norm == threat.norm)


def open_images(data: Data, split: str) -> Images:
    """One split of the images that settings name."""
    options: dict[str, Any] = {"image_size": data.image_size, "download": data.download, "cache": data.cache}
    return open_dataset(data.dataset, data.path, split, classes=data.classes, limit=data.limit, **options)


def open_data(
    dataset: str | None,
    data: str | None,
    split: str,
    *,
    image_size: int | None,
    download: bool = False,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> Images:
    """The images that the settings name."""
    options: dict[str, Any] = {"image_size": image_size, "download": download, "classes": classes, "limit": limit}
    return open_dataset(dataset, data, split, **options)


def bar(total: int | None, title: str, unit: str, *, leads: bool = True) -> tqdm:
    """The one progress bar: on a terminal only, gone when done."""
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=None if leads else True, file=sys.stderr, dynamic_ncols=True)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Inside, the first Ctrl-C or SIGTERM is only noted, in the list that is yielded; a second one acts at once."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
