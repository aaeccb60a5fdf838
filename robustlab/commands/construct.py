"""``robustlab construct``: a data set made of a model's features, with a card and a contact sheet; see ``robustlab.construction``."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.commands import settings
from robustlab.commands.card import Source, contact_sheet, render
from robustlab.commands.common import check_fits, choose_device, interruptible, load_model, open_data, threat_of
from robustlab.construction import KINDS, ConstructedSet, Unfinished, construct, published
from robustlab.construction.kinds import kind_named
from robustlab.data.imageset import first_of_each_class
from robustlab.errors import UserError
from robustlab.models.zoo import released


def run(args: settings.Construct) -> None:
    """Make the set, or what is missing of it; called again it checks the set and prints its card."""
    if args.kind is None:
        raise UserError(f"which set? --kind takes one of: {', '.join(KINDS)}")
    kind = kind_named(args.kind)
    if args.model is None:
        raise UserError(f"through which model? --model takes a checkpoint's path or one of: {', '.join(released()) or 'none released yet'}")
    threat = None if args.norm is None and args.eps is None else threat_of(args.norm, args.eps)
    how: dict[str, Any] = {"threat": threat, "steps": args.steps, "step_size": args.step_size}
    published(kind, **how)  # a mistake in these is told before anything is read
    out, device = Path(args.out or f"datasets/{kind}-{Path(args.model).stem}"), choose_device(args.device, args.threads)
    model = load_model(args.model, args)
    options = {"image_size": args.image_size, "download": args.download, "classes": args.classes, "limit": args.limit}
    images = open_data(args.dataset, args.data, args.split, **options)  # type: ignore[arg-type]
    check_fits(model, images, args.model, chosen=bool(args.classes))
    how |= {"seed": args.seed, "dtype": args.store, "shard_size": args.shard_size, "batch_size": args.batch_size}
    how |= {"compute_dtype": torch.bfloat16 if args.amp else None, "device": device, "name": args.model}
    with interruptible() as noted:
        try:
            made = construct(model, images, kind, out=out, **how, stop=lambda: bool(noted))
        except Unfinished as unfinished:
            if not unfinished.stopped:
                print(f"{unfinished}, and the last of them finishes the set")
                return
            print(f"the shards that are there stay; go on with the same command: {_command(args, out)}", file=sys.stderr)
            raise KeyboardInterrupt from None
    write_card(made, out, _command(args, out))
    print((out / "card.md").read_text())
    print(f"{len(images):,} images in {out}, sha256 {made.manifest['sha256']}\npictures: {out / 'contact.png'}")


def write_card(made: ConstructedSet, folder: Path, command: str) -> None:
    """A card and a contact sheet beside a set."""
    index = first_of_each_class(made.original)
    pictures.save(folder / "contact.png", contact_sheet(folder, made.manifest, made.original, index))
    files.write_text(folder / "card.md", render(made.kind, made.manifest, Source(**vars(made.model)), command))


def _command(args: settings.Construct, out: Path) -> str:
    """The command that makes this set, without what does not change it."""
    defaults = settings.Construct()
    given = dataclasses.asdict(replace(args, device="auto", threads=None, out=str(out)))
    words = ["robustlab", "construct"]
    for name, value in given.items():
        if value == getattr(defaults, name):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [text])
    return shlex.join(words)
