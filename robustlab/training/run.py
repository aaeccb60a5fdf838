"""The one trainer: from images and settings to a tested network. Interrupted anywhere, it goes on as if it had not been.

    trained = train(images, recipe="fast-l2", eps=1.0, epochs=5, test=test_images, out="runs/robust")
    trained.model, trained.report

A part of the images chooses the epoch that is kept; the test images are looked at once, at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustlab.data.adapt import Data, as_images
from robustlab.data.imageset import Images
from robustlab.data.splits import matching, note_empty_classes
from robustlab.devices import choose_device, computes_bfloat16
from robustlab.errors import UserError
from robustlab.evaluation.accuracy import Attack
from robustlab.interrupts import interruptible
from robustlab.models.placement import likes_channels_last
from robustlab.options import changed
from robustlab.paths import place_of
from robustlab.records import Run
from robustlab.settings import Training
from robustlab.training.distributed import ALONE, World, synchronize_batch_norm
from robustlab.training.fit import TrainingState
from robustlab.training.image_trainer import ImageTrainer
from robustlab.training.method import complete, method_of
from robustlab.training.prepare import (
    check_room,
    check_trainable,
    evaluation_batches,
    network_to_train,
    recorded_threads,
    recorded_training,
    reopened,
    training_batches,
    written,
)
from robustlab.training.trained import Trained
from robustlab.training.trainer import Line


def train(
    data: Data,
    settings: Training | None = None,
    *,
    test: Data | None = None,
    test_attack: Attack | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    threads: int | None = None,
    workers: int = 0,
    world: World = ALONE,
    stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[Line], object] = lambda line: None,
    progress: bool = True,
    asked: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Trained:
    """Train a network, keep its best epoch by validation accuracy, and test that once.

    In the main thread, Ctrl-C, SIGTERM and SIGHUP end it after the step that it is at. Two trainings at the same time need two
    processes: layers such as dropout can draw from nowhere but torch's one random state.

    Args:
        data: images to train on, in any form of ``robustlab.data.adapt``; a part of them, ``settings.choosing.val_size``, is held out
            to choose the epoch by.
        settings: how to train; where left out, the recipe ``standard``, or with ``resume`` what the run was started with.
        test: images to test the network on at the end; none where left out. They may be of more classes, in any order.
        test_attack: where left out, PGD-20 in the threat model.
        out: folder to write the run to; where left out, nothing is written.
        resume: go on with the run in ``out``.
        device: where to compute: a name for ``devices.choose_device``, or a device; the best one here where left out.
        threads: CPU threads; where left out, as many as torch has, or with ``resume`` as the run was started with.
        workers: processes that read images not in memory.
        world: this process's place among those that train together; only the leading one writes and tests.
        stop: asked after every step; after a true answer the training is saved and ends.
        on_epoch: called with the numbers of each epoch.
        progress: show a bar, and a line for each epoch.
        asked: settings of the caller's own, in groups, for ``settings.json`` and the record beside the weights.
        changes: settings by name, in place of those in ``settings``: ``recipe="fast-l2", eps=1.0, epochs=5``.

    Raises:
        UserError: settings, images or a folder that do not fit, said before the first step; another process works in the folder or,
            of those that train together, has gone; or training diverged.
        Stopped: a signal or ``stop`` ended it.
    """
    folder, before = _folder(out, resume)
    device = choose_device(device, threads or recorded_threads(before))
    if settings is None:
        settings = recorded_training(before, folder) if folder and resume else Training()
    settings = complete(changed(settings, **changes), bfloat16=computes_bfloat16(device), resumed=resume)
    images = as_images(data, split="train")
    tested = None if test is None else matching(as_images(test, split="test"), images)
    if world.leads:
        note_empty_classes(images, "training")
    if world.leads and tested is not None:
        note_empty_classes(tested, "test", images.classes)
    asked = asked or {"machine": {"threads": threads, "workers": workers}}
    with world.answering(), ExitStack() as held:
        trainer = _trainer(images, tested, settings, folder, before, device, workers, world, asked, held)
        trainer.on_epoch, trainer.progress = on_epoch, progress and world.leads
        with interruptible() as noted:
            trainer.go(lambda: bool(noted) or stop())
        tests = evaluation_batches(tested, settings, device, workers) if tested is not None and world.leads else None
        return trainer.finish(tests, test_attack or trainer.method.test_attack)


def _folder(out: str | os.PathLike[str] | None, resume: bool) -> tuple[Path | None, dict[str, Any]]:
    """The run folder, and what its ``settings.json`` holds; nothing for a new run."""
    if resume and out is None:
        raise UserError("resume goes on with the run in a folder: name it by `out`")
    folder = None if out is None else place_of(out)
    return folder, Run.settings_of(folder) if folder and resume else {}


def _trainer(
    images: Images,
    tested: Images | None,
    settings: Training,
    folder: Path | None,
    before: Mapping[str, Any],
    device: torch.device,
    workers: int,
    world: World,
    asked: Mapping[str, Mapping[str, Any]],
    held: ExitStack,
) -> ImageTrainer:
    """Everything for the first step, all of it checked; only then is the folder made.

    Args:
        before: what the ``settings.json`` of the run to go on with holds; nothing for a new run.
        held: keeps other processes out of the folder until it is closed.
    """
    run = None
    if folder and before and world.leads:
        held.enter_context(Run.alone(folder))
        run = reopened(folder, settings, images, world.size)
    method = method_of(settings)
    check_trainable(images, settings)
    training, validation = training_batches(images, settings, device, world, workers)
    saved = Run(folder).load("last") if folder and before else None
    network = network_to_train(settings, images, saved, f"{folder}/last.pt").to(device)
    if likes_channels_last(network):
        network.to(memory_format=torch.channels_last)
        training = replace(training, channels_last=True)
    state = TrainingState.fresh(synchronize_batch_norm(network, world), method.optimization)
    trainer = ImageTrainer(
        settings=settings,
        method=method,
        state=state,
        training=training,
        validation=validation,
        loss=method.loss,
        optimization=method.optimization,
        seed=settings.seed,
        compile=settings.optimizing.compile,
        device=device,
        world=world,
        folder=folder,
        asked=asked,
        dataset=images.name,
    )
    if folder and world.leads and run is None:
        check_room(folder, state)
        held.enter_context(Run.alone(folder))
        run = Run.create(folder, {**asked, **written(settings, images, world.size, tested)})
    world.wait()
    trainer.take_up(run, saved)
    return trainer
