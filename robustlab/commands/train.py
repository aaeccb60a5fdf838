"""``robustlab train``: the trainer's settings from flags, a TOML file or a run folder; see ``robustlab.training.run``."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from robustlab import training
from robustlab.commands import settings
from robustlab.commands.common import choose_device, computes_bfloat16, open_images
from robustlab.data.imageset import Images, hold_out
from robustlab.data.splits import matching
from robustlab.errors import UserError
from robustlab.options import by_name, changed, flat, from_file, given, words
from robustlab.paths import place_of
from robustlab.progress import say
from robustlab.records import Run
from robustlab.training import method
from robustlab.training.distributed import ALONE, Lost, World, is_first_to_tell, join, launch_words, leave
from robustlab.training.prepare import check_test_images, recorded

# In a run that is resumed; trust is for each call to give.
MAY_CHANGE = ("out", "resume", "device", "threads", "workers", "no_test", "cache", "trust_checkpoint")
PLACES = ("data", "test_data", "cache")  # settings that lead somewhere from the working directory


def run(args: settings.Train) -> None:
    """The command. Of several processes that train together one tells what went wrong."""
    world = ALONE
    try:
        # The threads of the run that is resumed: sums of another number of threads round otherwise.
        threads = (args if args.output.resume is None else settings_of_run(args)).machine.threads
        device = choose_device(args.machine.device, threads)
        world = join(device)
        train_run(args, device, world)
    except UserError:
        if not is_first_to_tell():
            raise SystemExit(2) from None
        raise
    except KeyboardInterrupt:
        if not world.leads:
            raise SystemExit(130) from None
        raise
    finally:
        leave(world)


def train_run(args: settings.Train, device: torch.device, world: World = ALONE) -> Path:
    """Train as the flags say, print what came out, and return the run folder."""
    resume = args.output.resume is not None
    args = completed(settings_of_run(args) if resume else args, device)
    out, images = Path(str(args.output.out)), open_images(args.data, "train")
    test = None if args.output.no_test else _same_test_images(args, images) if resume else _test_images(args, images)
    groups = {"data": asdict(_lasting(args.data)), "machine": asdict(args.machine), "output": asdict(replace(args.output, resume=None))}
    machine: dict[str, Any] = {"device": device, "threads": args.machine.threads, "workers": args.machine.workers, "world": world}
    try:
        trained = training.train(images, args.training, test=test, out=out, resume=resume, asked=groups, **machine)
    except training.Stopped as stopped:
        if world.leads:
            say(f"{stopped}; go on with: {_resuming(args, world)}")
        raise
    except Lost as lost:
        raise UserError(f"{lost}; go on with: {_resuming(args, world)}") from lost
    if world.leads:
        for name, rate in (trained.report.rates() if trained.report else {}).items():
            print(f"test {name}: {rate}")
        print(f"best epoch {trained.best_epoch + 1}; weights in {out / 'model.safetensors'}")
    return out


def _resuming(args: settings.Train, world: World) -> str:
    """What to type to go on with a run, with the places that are no longer those it was started with."""
    out, here = str(args.output.out), flat(_lasting(args.data))
    before = by_name(settings.TrainData, Run.settings_of(out).get("data", {})) if Run.is_run(out) else {}
    moved = {name: here[name] for name in PLACES if here[name] != before.get(name, here[name])}
    return shlex.join([*launch_words(world), "train", "--resume", out, *words(moved)])


def completed(args: settings.Train, device: torch.device) -> settings.Train:
    """The settings with all that was left open filled in."""
    resumed = args.output.resume is not None
    filled = method.complete(args.training, bfloat16=computes_bfloat16(device), resumed=resumed)
    out = args.output.out or f"runs/{filled.recipe}-{filled.network.arch}"
    return replace(args, training=filled, output=replace(args.output, out=out))


def _lasting(data: settings.TrainData) -> settings.TrainData:
    """The same places by paths that lead there from any working directory."""
    found = {name: place for name in PLACES if (place := flat(data)[name]) is not None}
    return changed(data, **{name: place if _is_shapes(name, place) else os.path.abspath(place_of(place)) for name, place in found.items()})


def _is_shapes(name: str, place: str) -> bool:
    """Whether ``--test-data shapes`` means the set that is drawn, which lies nowhere."""
    return name == "test_data" and place == "shapes" and not place_of(place).exists()


def _test_images(args: settings.Train, images: Images) -> Images:
    """The test images beside the training images, or from elsewhere; as many as ``--limit`` says, after the classes are chosen."""
    if args.data.test_data is None:
        test = open_images(replace(args.data, download=False), "test")
        if test.classes == images.classes[: len(test.classes)]:
            return test
    else:
        drawn = _is_shapes("test_data", args.data.test_data)
        source: dict[str, Any] = {"dataset": "shapes", "path": None} if drawn else {"dataset": None, "path": args.data.test_data}
        elsewhere = replace(args.data, **source, download=False, classes=None, limit=None)
        test = open_images(elsewhere, "test")
    test, limit = matching(test, images, may_lack=False), args.data.limit
    return test if limit is None or limit >= len(test) else test.subset(hold_out(test, limit, 0)[1])


def _same_test_images(args: settings.Train, images: Images) -> Images:
    """The test images of a run that goes on, which may have moved.

    Raises:
        UserError: they are others.
    """
    out, place = Path(str(args.output.out)), args.data.test_data
    found = Run.settings_of(out)
    try:
        test = _test_images(args, images)
        check_test_images(out, found, test)
    except UserError as error:
        before = flat(from_file(settings.Train, found, f"{out}/settings.json", passed_over=True))["test_data"]
        if place == before:
            raise
        raise UserError(f"{out} was started with --test-data {before}, and {place} does not hold the same images: {error}") from error
    return test


def settings_of_run(args: settings.Train) -> settings.Train:
    """The settings of the run to resume. Those that may change follow the command line; the others must agree with it.

    Raises:
        UserError: no run there, two folders named, or a flag that differs from the run's settings.
    """
    resume, out = args.output.resume, args.output.out
    if resume != "auto" and out not in (None, resume):
        raise UserError(f"--resume names {resume} and --out {out}: a run is resumed in its own folder, so leave --out out")
    folder = Path((out or f"runs/{args.training.recipe}-{method.arch_of(args.training.network)}") if resume == "auto" else str(resume))
    found = Run.settings_of(folder)
    if "training" in found and "data" not in found:
        raise UserError(f"{folder} was trained from Python, on images of its own: go on there, by train(images, out=..., resume=True)")
    before, said = flat(recorded(settings.Train, found, folder)), given(args)
    said |= {name: place for name, place in flat(_lasting(args.data)).items() if name in PLACES and name in said}
    said |= {"init": method.lasting(said["init"])} if "init" in said else {}
    # The fingerprints show whether they are the same images.
    moved = [place for place, images in (("data", "images"), ("test_data", "test_images")) if images in found]
    for name, value in said.items():
        if name not in (*MAY_CHANGE, *moved) and value != before.get(name):
            flag, advice = f"--{name.replace('_', '-')}", "leave the flag out, or start a run in another --out"
            raise UserError(f"{folder} was started with {flag} {before.get(name)}, not {value}: {advice}")
    return changed(settings.Train(), **{**before, **said, "out": str(folder), "resume": str(folder)})
