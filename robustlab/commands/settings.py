"""What each command can be told. Field names are flags, see ``robustlab.commands.flags``; None means: decided by other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Train:
    """Train a standard or robust classifier, keep its best epoch by validation accuracy, and test that once."""

    recipe: str = "standard"
    arch: str | None = None
    init: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    trust_checkpoint: bool = False
    dataset: str | None = None
    data: str | None = None
    image_size: int | None = None
    download: bool = False
    classes: list[str] | None = None
    limit: int | None = None
    test_data: str | None = None
    val_size: int = 1000
    norm: str | None = None
    eps: float | None = None
    steps: int | None = None
    step_size: float | None = None
    attack_in_train_mode: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    clip: float | None = None
    patience: int | None = None
    no_augment: bool = False
    no_test: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    amp: bool | None = None
    compile: bool = False
    workers: int = 2
    out: str | None = None
    resume: str | None = None


@dataclass(frozen=True)
class Evaluate:
    """Measure a classifier's accuracy, clean and under PGD, with an interval and one record per image."""

    model: str | None = None
    arch: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    dataset: str | None = None
    data: str | None = None
    split: str = "test"
    image_size: int | None = None
    download: bool = False
    classes: list[str] | None = None
    limit: int | None = None
    norm: str = "l2"
    eps: float | None = None
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    curve: list[float] | None = None
    batch_size: int = 250
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    amp: bool = False
    compile: bool = False
    workers: int = 2
    trust_checkpoint: bool = False
    out: str | None = None


@dataclass(frozen=True)
class Quickstart:
    """Train a standard and a robust model, attack and compare them, and write one page about it."""

    dataset: str | None = None
    data: str | None = None
    image_size: int | None = None
    download: bool = False
    limit: int | None = None
    arch: str = "small"
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    workers: int = 2
    out: str = "runs/quickstart"


@dataclass(frozen=True)
class Models:
    """List the architectures and the released models with what they reach."""


@dataclass(frozen=True)
class Construct:
    """Make a data set of features: D_rand or D_det (relabelled), D_R or D_NR (inverted), from images and a model."""

    kind: str | None = None
    model: str | None = None
    arch: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    dataset: str | None = None
    data: str | None = None
    split: str = "train"
    image_size: int | None = None
    download: bool = False
    classes: list[str] | None = None
    limit: int | None = None
    norm: str | None = None
    eps: float | None = None
    steps: int | None = None
    step_size: float | None = None
    store: str = "float32"
    shard_size: int = 500
    batch_size: int = 250
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    amp: bool = False
    trust_checkpoint: bool = False
    out: str | None = None


@dataclass(frozen=True)
class Export:
    """Write a data set as PNG folders, .npz, safetensors, the released tensors' files, or for Hugging Face."""

    dataset: str | None = None
    data: str | None = None
    split: str = "train"
    image_size: int | None = None
    download: bool = False
    classes: list[str] | None = None
    limit: int | None = None
    format: str | None = None
    out: str | None = None


@dataclass(frozen=True)
class Reproduce:
    """Run an experiment of the talks and print its table beside the published numbers."""

    alone: ClassVar[str] = "experiment"

    experiment: str | None = None
    scale: str = "small"
    data: str | None = None
    model: str | None = None
    limit: int | None = None
    eps: float | None = None
    steps: int | None = None
    arch: str | None = None
    epochs: int | None = None
    seeds: int | None = None
    device: str = "auto"
    threads: int | None = None
    amp: bool | None = None
    out: str = "runs/reproduce"


@dataclass(frozen=True)
class Synthesize:
    """Make and edit pictures with classifiers: gradients, generation, inpainting, inversion, features; see TASK."""

    alone: ClassVar[str] = "task"

    task: str | None = None
    model: str | None = None
    arch: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    dataset: str | None = None
    data: str | None = None
    split: str = "test"
    image_size: int | None = None
    download: bool = False
    classes: list[str] | None = None
    limit: int | None = None
    images: int | list[str] | None = None
    positions: list[int] | None = None
    target: str | None = None
    layer: str | None = None
    units: list[int] | None = None
    eps: float | None = None
    step_size: float | None = None
    steps: int | None = None
    published: bool = False
    factor: float = 4.0
    mask: str | None = None
    weight: float | None = None
    drawn: bool = False
    start: str = "noise"
    fourier: bool = False
    points: int = 8
    level: float = 1.0
    top: int = 5
    judge: str | None = None
    batch_size: int = 50
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    trust_checkpoint: bool = False
    grid: str | None = None
    columns: int = 10
    tensorboard: bool = False
    out: str | None = None
    replay: str | None = None


@dataclass(frozen=True)
class Demo:
    """Serve the interactive page: draw, press a class, and watch a model change the picture."""

    model: str | None = None
    arch: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    data: str | None = None
    dataset: str | None = None
    image_size: int | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    device: str = "auto"
    threads: int | None = None
    trust_checkpoint: bool = False
