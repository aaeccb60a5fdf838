"""``robustlab construct``: a data set made of a model's features, with a card and a contact sheet; see ``robustlab.construction``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from robustlab.commands import settings
from robustlab.commands.common import choose_device, images_for, interruptible, load_model, named_threat, required_model, short_names
from robustlab.construction import KINDS, Unfinished, construct, published_construction
from robustlab.construction.kinds import kind_named
from robustlab.errors import UserError
from robustlab.models.matching import check_fits
from robustlab.options import changed, given, words
from robustlab.reports.cards import write_card


def run(args: settings.Construct) -> None:
    """Make the set, or what is missing of it; called again it checks the set and prints its card."""
    method, compute = args.method, args.compute
    if method.kind is None:
        raise UserError(f"which set? --kind takes one of: {', '.join(KINDS)}")
    kind, name = kind_named(method.kind), required_model(args.model, "through which model?")
    threat = None if method.norm is None and method.eps is None else named_threat(method.norm, method.eps)
    how: dict[str, Any] = {"threat": threat, "steps": method.steps, "step_size": method.step_size}
    published_construction(kind, **how)  # a mistake in these is told before anything is read
    out = Path(args.output.out or f"datasets/{kind}-{short_names([name])[name]}")
    device = choose_device(compute.device, compute.threads)
    model = load_model(name, args.model)
    images = images_for({name: model}, args.data, args.data.split)
    check_fits(model, images, name, chosen=bool(args.data.classes))
    how |= {"seed": compute.seed, "dtype": args.output.store, "shard_size": args.output.shard_size, "batch_size": compute.batch_size}
    how |= {"compute_dtype": torch.bfloat16 if compute.amp else None, "device": device, "name": name}
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


def _command(args: settings.Construct, out: Path) -> str:
    """The command that makes this set, without what does not change it."""
    return shlex.join(["robustlab", "construct", *words(given(changed(args, device="auto", threads=None, out=str(out))))])
