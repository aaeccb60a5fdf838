"""What is checked and put together before the first step of a training: images, settings, batches, the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from robustlab import files
from robustlab.data.augment import Augment, crop_flip
from robustlab.data.batches import Batches
from robustlab.data.fingerprint import fingerprint, identity
from robustlab.data.imageset import Images, hold_out
from robustlab.data.splits import matching as matching
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.description import check_weights
from robustlab.models.matching import check_reads
from robustlab.models.zoo import from_description
from robustlab.options import by_name, changed, from_file, value_of
from robustlab.records import Run
from robustlab.settings import Training
from robustlab.training.distributed import World
from robustlab.training.fit import TrainingState
from robustlab.training.method import NO_STAND_IN, complete
from robustlab.training.recipes import RECIPES
from robustlab.training.start import network_for, pretrained_network_for

Settings = TypeVar("Settings")
EVALUATION_BATCH = 250  # images


def check_trainable(images: Images, settings: Training) -> None:
    """Refuse images of one class, and settings that contradict each other.

    Raises:
        UserError: one of these.
    """
    if len(images.classes) < 2:
        raise UserError(f"training needs at least two classes, but {images.name} has only {', '.join(images.classes) or 'none'}")
    if settings.choosing.patience is not None and not settings.choosing.val_size:
        raise UserError("`patience` counts epochs without a better validation accuracy, so it needs a `val_size` of at least 1")


def training_batches(
    images: Images, settings: Training, device: torch.device, world: World, workers: int
) -> tuple[Batches, Batches | None]:
    """The batches to train on; and those to choose the epoch by, None where the last one is kept.

    Args:
        images: all of them; a part is held out for the second.
        settings: complete ones.

    Raises:
        UserError: too few images, or a batch that cannot be divided as the settings or the processes want.
    """
    batch_size, parts = int(settings.optimizing.batch_size or 0), settings.optimizing.accumulate
    if batch_size % parts:
        raise UserError(f"`accumulate={parts}` cannot take `batch_size={batch_size}` in equal parts")
    common: dict[str, Any] = {"seed": settings.seed, "device": device, "rank": world.rank, "world_size": world.size, "workers": workers}
    augment = None if settings.optimizing.no_augment else _augment(images)
    held_out = None
    if settings.choosing.val_size:
        keep, chosen = hold_out(images, min(settings.choosing.val_size, max(len(images) // 5, 1)), settings.seed)
        images, held_out = images.subset(keep), images.subset(chosen)
    if len(images) < batch_size:
        raise UserError(f"{images.name}: {len(images)} images do not fill one batch of {batch_size}")
    training = Batches(images, batch_size // parts, augment=augment, shuffle=True, drop_last=True, **common)
    return training, None if held_out is None else Batches(held_out, EVALUATION_BATCH * world.size, **common)


def evaluation_batches(images: Images, settings: Training, device: torch.device, workers: int) -> Batches:
    """The batches of test ``images``, in their order, on ``device``; the seed is that of ``settings``, ``workers`` as for ``Batches``."""
    return Batches(images, EVALUATION_BATCH, seed=settings.seed, device=device, workers=workers, of_split=True)


def _augment(images: Images) -> Augment:
    """Crops by an eighth of the height, or of the width where images are too narrow for that."""
    _, height, width = images.shape
    pad = max(height // 8, 1)
    return crop_flip(pad if pad < min(height, width) else min(height, width) // 8)


def check_room(folder: Path, state: TrainingState) -> None:
    """Refuse to begin a run whose checkpoints the disk has no room for: the last, the best, and the next one while it is written.

    Raises:
        UserError: with what is needed and what is free.
    """
    network = sum(tensor.numel() * tensor.element_size() for tensor in state.model.state_dict().values())
    copies = 2 + len(state.optimizer.defaults.get("betas", "m")) + (state.average is not None)  # the optimizer's averages among them
    files.check_space(folder, 3 * copies * network + network)


def network_to_train(settings: Training, images: Images, saved: Any, source: str) -> Classifier:
    """The network that training begins with, on the CPU; one that can read the images.

    Args:
        saved: the checkpoint to go on with, so that a resumed run needs the file of ``init`` no more; None where there is none.
        source: what to call that checkpoint in a message.

    Raises:
        UserError: an unknown architecture, weights that are not there or do not fit, or images of a size that it cannot read.
    """
    if settings.network.init is None:
        network = network_for(images, str(settings.network.arch), seed=settings.seed)
    elif saved is not None:
        check_weights(saved, saved.get("model") or {}, source)
        network = from_description(saved, source)
    else:
        network = pretrained_network_for(images, settings.network, seed=settings.seed)
    check_reads(network.eval(), images.shape, network.arch, network.mean.device)
    return network


# The settings in a run folder


def recorded_threads(found: Mapping[str, Any]) -> int | None:
    """The CPU threads that a run was started with, from its ``settings.json``; in older files they are in no group."""
    machine = found.get("machine", found)
    return machine.get("threads") if isinstance(machine, Mapping) else None


def recorded_training(found: Mapping[str, Any], folder: Path) -> Training:
    """The training settings in ``settings.json``; in older files they are not in groups."""
    return recorded(Training, found.get("training", found), folder)


def recorded(cls: type[Settings], found: Mapping[str, Any], folder: Path) -> Settings:
    """Settings of a training from what ``settings.json`` holds, which may be older than some of them."""
    settings = from_file(cls, found, f"{folder}/settings.json", passed_over=True)
    chosen = RECIPES.get(value_of(settings, "recipe"))
    if chosen is None or chosen.threat is None or "stand_in" in by_name(cls, found):
        return settings
    return changed(settings, stand_in=NO_STAND_IN)  # before there was the setting, the network itself was searched


def written(settings: Training, images: Images, processes: int = 1, test: Images | None = None) -> dict[str, Any]:
    """What decides a training's result, as ``settings.json`` has it. Whether code in files is trusted is for each call to say.

    Args:
        settings: complete ones.
        images: to train on.
        processes: that train together.
        test: images to test on, where there are any.
    """
    known = {"training": asdict(changed(settings, trust_checkpoint=False)), "images": identity(images), "processes": processes}
    return known if test is None else {**known, "test_images": identity(test)}


def check_test_images(folder: Path, found: Mapping[str, Any], test: Images) -> None:
    """Refuse test images that are not those of the run in a folder.

    Args:
        found: what its ``settings.json`` holds. Older files do not say which they were.

    Raises:
        UserError: other images.
    """
    before = found.get("test_images")
    if before is not None and before.get("fingerprint") != fingerprint(test):
        raise UserError(f"{folder} was started with other test images: {test.name} here has other content; give those, or none")


def reopened(folder: Path, settings: Training, images: Images, processes: int = 1) -> Run:
    """The run in a folder, to go on with.

    Args:
        processes: that train together now.

    Raises:
        UserError: it was started with other settings, on other images or by another number of processes; names the differences.
    """
    before = Run.settings_of(folder).get("processes", processes)  # older files do not say
    if before != processes:
        why = "each process draws numbers of its own, and the sums of another number round otherwise"
        again = f"go on with torchrun --nproc-per-node {before}" if before != 1 else "go on without torchrun"
        raise UserError(f"{folder} was started by {before} processes, not {processes}: {why}, so {again}")

    def as_today(found: dict[str, Any]) -> dict[str, Any]:
        training = complete(recorded_training(found, folder), bfloat16=False, resumed=True)
        # Older files do not say which images.
        return {"training": asdict(training), "images": found.get("images", now["images"]), "processes": processes}

    now = written(settings, images, processes)
    return Run.reopen(folder, now, free=["images.name"], read=as_today)
