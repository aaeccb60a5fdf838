"""``robustlab synthesize TASK``: pictures made and edited with classifiers, and a replay file that makes the same bytes again."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robustlab import files
from robustlab.blocks import is_finished, is_unfinished
from robustlab.commands.common import choose_device, load_model, normalization_of, open_images, required_model
from robustlab.commands.flags import parse, with_flags
from robustlab.commands.settings import synthesize_settings
from robustlab.data.imageset import Images
from robustlab.errors import UserError, unknown
from robustlab.models.matching import check_fits
from robustlab.models.zoo import load
from robustlab.options import changed, flat, given, leaves, paths, words
from robustlab.reports.tables import markdown
from robustlab.synthesis import replay
from robustlab.synthesis.ensemble import load_joined
from robustlab.synthesis.finished import NAME, Said, made_once
from robustlab.synthesis.presets import before_there_were
from robustlab.synthesis.run import synthesize
from robustlab.synthesis.sheets import Pictures
from robustlab.synthesis.tasks import SPECIAL, TASKS, no_task
from robustlab.synthesis.tensorboard import write_tensorboard

# Not in a replay file: what does not change the pictures, and what only the person at the command line may allow.
HERE = ("device", "threads", "cache", "grid", "out", "tensorboard", "download", "trust_checkpoint", "replay")


def run(args: Any) -> None:
    """The command; ``args`` are those of ``settings.synthesize_settings``, or of ``settings.Synthesize`` with a replay file."""
    before = None if args.output.replay is None else replay.read_replay(Path(args.output.replay))
    if before is not None:
        args = replayed(args, before)
    if args.task is None:
        raise no_task()
    check(args)
    grid, out = places(args)
    what = ingredients(args)
    shown = {"columns": args.output.columns, "tensorboard": args.output.tensorboard, "replay": before and before["picture"]}
    make = partial(synthesize, args.task, **what, replay=before)
    said = made_once(out, grid, replay.identity_of(args.task, what), shown, lambda parts: written(args, make(resumable=parts), grid, out))
    tell(args, before, said, grid)


def written(args: Any, made: Pictures, grid: Path, out: Path | None) -> Said:
    """Write the pictures and the replay file; returns the numbers and notes."""
    record: dict[str, Any] = made.replay or {}
    chosen = [*leaves(TASKS[args.task].settings), *([] if flat(args).get("positions") else ["images"])]
    args = changed(args, **{name: record["settings"][name] for name in chosen})  # nothing is left to a default
    typed, settings = ({name: value for name, value in some.items() if name not in HERE} for some in (given(args), flat(args)))
    record |= {"command": replay.command({"task": args.task, **typed}), "settings": replay.plain(settings)}
    made = replace(made, replay=record)
    made.save(grid, columns=args.output.columns, singly=None if out is None else out / "pictures")
    if args.output.tensorboard and out is not None:
        shutil.rmtree(out / "tensorboard", ignore_errors=True)  # of this call before it was interrupted
        write_tensorboard(out / "tensorboard", args.task, made, args.output.columns)
    return Said(*made.table(), list(made.notes))


def tell(args: Any, before: dict[str, Any] | None, said: Said, grid: Path) -> None:
    """Print numbers, notes and places, and whether a replay made the same bytes."""
    print(markdown(said.heads, said.rows))
    for note in said.notes:
        print(f"note: {with_flags(note, type(args))}", file=sys.stderr)
    print(f"pictures: {grid}\nreplay file: {grid.with_suffix('.json')}")
    if before is not None:
        cause = replay.difference(before, replay.read_replay(grid.with_suffix(".json")))
        if cause is None:
            print("the picture is that of the replay file, byte for byte")
        else:
            print(f"warning: the picture differs from that of the replay file ({cause})", file=sys.stderr)


def ingredients(args: Any) -> dict[str, Any]:
    """What ``synthesize`` needs: models, images and judge, opened as the settings say, and the task's settings."""
    device = choose_device(args.compute.device, args.compute.threads)
    names = paths(args.model.name)
    if len(set(names)) < len(names) or not names:
        raise UserError(f"--model takes the names of different models, got {args.model.name!r}")
    models = {name: load_joined(name, lambda one: load_model(one, args.model)).to(device) for name in names}
    own = isinstance(args.chosen.images, list)
    images: Any = args.chosen.images if own else opened(args, args.data.split)
    name = flat(args).get("judge")
    how: dict[str, Any] = {"normalization": normalization_of(args.model), "trust": args.model.trust_checkpoint}
    judge = None if name is None else {name: load(name, **how).to(device)}
    if args.data.classes:
        for name, model in {**models, **(judge or {})}.items():
            check_fits(model, images, name, chosen=True)
    return {
        "model": models,
        "images": images,
        "n": None if own else args.chosen.images,
        "positions": flat(args).get("positions"),
        "split": args.data.split,
        "image_size": args.data.image_size,
        "judge": judge,
        "train": opened(args, "train") if TASKS[args.task].training_images else None,
        "seed": args.compute.seed,
        "batch_size": args.compute.batch_size,
        "device": device,
        **flat(args.settings),
    }


def opened(args: Any, split: str) -> Images:
    """The images of a split, as the settings say; ``--limit`` is of the one that is worked on."""
    return open_images(args.data if split == args.data.split else replace(args.data, limit=None), split)


def check(args: Any) -> None:
    """Refuse settings without a model or images, or with two ways to say which images."""
    task, own = TASKS[args.task], isinstance(args.chosen.images, list)
    required_model(replace(args.model, name=args.model.name or None), "with which model?")
    for name in ("data", "dataset", "split", "classes", "limit", "download"):
        if own and task.own and name in given(args):
            raise UserError(f"--images names files already, so --{name} means nothing: leave it out")
    if not own and args.data.path is None and args.data.dataset is None:
        files_too = ", or --images FILE,FILE" if task.own else ""
        raise UserError(f"the task {args.task!r} needs images: --data PATH, or --dataset shapes{files_too}")
    if args.chosen.images is not None and flat(args).get("positions") is not None:
        raise UserError("--images and --positions both say which images to work on: give one of them")


def places(args: Any) -> tuple[Path, Path | None]:
    """Where the sheet goes, and the folder for everything else; checked before any work."""
    output, out = args.output, None if args.output.out is None else Path(args.output.out)
    if out is not None and not is_unfinished(out) and not is_finished(out, (NAME,)):
        files.check_vacant(out, hidden_allowed=True)
    if output.tensorboard and out is None:
        raise UserError("where to? --tensorboard writes into --out FOLDER")
    default = Path("runs/synthesize") / f"{args.task}.png" if out is None else out / "grid.png"
    if output.replay is not None and out is None:
        default = Path(output.replay).with_name(f"{Path(output.replay).stem}-replay.png")
    grid = replay.checked_place(default if output.grid is None else output.grid)
    for place in filter(None, (grid, out)):
        files.check_writable(place)
    return grid, out


def replayed(args: Any, before: dict[str, Any]) -> Any:
    """The settings in a replay file, with the place of the images and what does not change pictures from the command line."""
    settings = before["settings"]
    typed = given(args) if args.task in (None, settings.get("task")) else {"task": args.task}
    moved = ("data", "images") if isinstance(args.chosen.images, list) and isinstance(settings.get("images"), list) else ("data",)
    for name in typed:
        if name not in (*HERE, *moved):
            raise UserError(f"a replay brings its own settings: leave out --{name.replace('_', '-')}")
    found = synthesize_settings(str(settings.get("task")))
    known = set(leaves(found)) - set(HERE)
    for name in settings:
        if name not in known | SPECIAL:  # older files hold the options of all tasks
            raise UserError(f"{args.output.replay}: {unknown('setting', name, known | SPECIAL)}")
    own = {name: value for name, value in settings.items() if name in known}
    own = before_there_were(TASKS[own["task"]].presets, own)
    return changed(parse(found, words(own), f"robustlab synthesize: {args.output.replay}"), **typed)
