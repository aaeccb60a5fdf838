"""What each command can be told. Field names are flags, see ``robustlab.commands.flags``; None means: decided by other settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Train:
    """Train a standard or robust classifier, keep its best epoch by validation accuracy, and test that once."""

    recipe: str = "standard"
    arch: str = "small"
    dataset: str | None = None
    data: str | None = None
    image_size: int | None = None
    download: bool = False
    limit: int | None = None
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
