"""``robustlab construct``: a data set made of a model's features, with a card and a contact sheet; see ``robustlab.construction``."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import torch

from robustlab import files, pictures
from robustlab.attacks import PGD
from robustlab.commands import settings
from robustlab.commands.common import bar, check_fits, choose_device, interruptible, load_model, open_data, threat_of
from robustlab.constraints import ThreatModel
from robustlab.construction import Building, Construction, Inverted, Plan, Relabelled, next_class, random_target
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError, unknown
from robustlab.evaluation import evaluate
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import released
from robustlab.norms import L2
from robustlab.options import changed, given, words
from robustlab.reports.cards import Source, card, contact_sheet

KINDS = ("D_rand", "D_det", "D_R", "D_NR")
PROBED = 200  # images on which the source model is measured before it is used
PROBE = PGD(ThreatModel(L2(), 0.25), steps=10)
ROBUST = 0.5  # a model that keeps this share of its accuracy under PROBE counts as robust, one that keeps less as standard


def run(args: settings.Construct) -> None:
    """Make the set, or what is missing of it; called again it checks the set and prints its card."""
    kind, out = _kind(args.method.kind), Path(args.output.out or _default_out(args))
    if args.model.name is None:
        raise UserError(f"through which model? --model takes a checkpoint's path or one of: {', '.join(released()) or 'none released yet'}")
    construction = _construction(kind, args)
    device = choose_device(args.compute.device, args.compute.threads)
    model = load_model(args.model.name, args.model).to(device)
    images = open_data(
        args.data.dataset,
        args.data.path,
        args.data.split,
        image_size=args.data.image_size,
        download=args.data.download,
        classes=args.data.classes,
        limit=args.data.limit,
    )
    check_fits(model, images, args.model.name, chosen=bool(args.data.classes))
    plan = Plan(
        construction,
        images,
        model,
        seed=args.compute.seed,
        dtype=args.output.store,
        shard_size=args.output.shard_size,
        batch_size=args.compute.batch_size,
        compute_dtype=torch.bfloat16 if args.compute.amp else None,
        device=device,
    )
    building = Building(out, plan)
    source = _probed(args, kind, model, images, device)
    if not _built(building, args, out):
        return
    manifest = building.finish()
    index = _shown(images)
    pictures.save(out / "contact.png", contact_sheet(out, manifest, images, index))
    files.write_text(out / "card.md", card(kind, manifest, source, _command(args, out)))
    print((out / "card.md").read_text())
    print(f"{len(images):,} images in {out}, sha256 {manifest['sha256']}\npictures: {out / 'contact.png'}")


def _kind(name: str | None) -> str:
    if name is None:
        raise UserError(f"which set? --kind takes one of: {', '.join(KINDS)}")
    kinds = {kind.lower().replace("_", ""): kind for kind in KINDS}
    if name.lower().replace("_", "") not in kinds:
        raise unknown("kind", name, KINDS)
    return kinds[name.lower().replace("_", "")]


def _default_out(args: settings.Construct) -> str:
    model = Path(str(args.model.name)).stem
    return f"datasets/{_kind(args.method.kind)}-{model}"


def _construction(kind: str, args: settings.Construct) -> Construction:
    """Published settings (Ilyas et al. 2019) where no flag says otherwise."""
    if kind in ("D_R", "D_NR"):
        if args.method.norm is not None or args.method.eps is not None:
            raise UserError(f"{kind} matches features wherever in the pixel box that leads, so --norm and --eps mean nothing to it")
        return Inverted(
            1000 if args.method.steps is None else args.method.steps, 0.1 if args.method.step_size is None else args.method.step_size
        )
    threat = threat_of(args.method.norm, args.method.eps)
    size = threat.eps / 5 if args.method.step_size is None else args.method.step_size
    return Relabelled(
        random_target if kind == "D_rand" else next_class, threat, 100 if args.method.steps is None else args.method.steps, size
    )


def _probed(args: settings.Construct, kind: str, model: Classifier, images: Images, device: torch.device) -> Source:
    """What the model reaches on some of the images; says so where it is not the model that this kind of set is made from."""
    some = images.subset(hold_out(images, min(PROBED, len(images)), seed=0)[1])
    outputs = model.outputs_for(images.classes, images.name).to(device)
    batches = (replace(batch, y=outputs[batch.y]) for batch in Batches(some, PROBED, device=device).epoch(0))
    report = evaluate(model, batches, [PROBE])
    clean, robust = report.clean, report.under(str(PROBE))
    wants_robust = kind == "D_R"
    is_robust = robust.value >= ROBUST * clean.value
    if wants_robust != is_robust:
        why = {
            "D_R": "what it holds are features that are not robust, and the set is rather D_NR",
            "D_NR": "what it holds are robust features, and the set is rather D_R",
        }.get(kind, "its perturbations are visible changes rather than faint ones")
        wants = "a robust model" if wants_robust else "a standard one"
        print(
            f"warning: {kind} wants {wants}, but {args.model.name} is right for {100 * clean.value:.0f} % of {clean.n} images and for "
            f"{100 * robust.value:.0f} % under {PROBE}: {why}",
            file=sys.stderr,
        )
    record = next((known for name, known in released().items() if name == args.model.name), None)
    return Source(str(args.model.name), clean, robust, str(PROBE), record)


def _built(building: Building, args: settings.Construct, out: Path) -> bool:
    """Make what is missing and check everything; False where other processes make the rest."""
    total = len(building.plan.source)
    with interruptible() as noted:
        while True:
            with bar(total, "constructing", "img") as shown:
                shown.update(building.done)
                whole = building.run(first=_first(building), on_images=shown.update, stop=lambda: bool(noted))
            if noted:
                print(f"the shards that are there stay; go on with the same command: {_command(args, out)}", file=sys.stderr)
                raise KeyboardInterrupt
            if not whole:
                print(f"nothing is left to begin in {out}: other processes make the last shards, and the last of them finishes the set")
                return False
            with bar(total, "checking", "img") as shown:
                wrong = building.check(shown.update)
            if not wrong:
                return True
            print(f"{len(wrong)} of the shards in {out} were damaged, and are made again", file=sys.stderr)


def _first(building: Building) -> int:
    """Where to begin, so that the processes of torchrun or of a SLURM array begin in different places."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"), ("SLURM_PROCID", "SLURM_NTASKS")):
        place, processes = os.environ.get(rank, ""), os.environ.get(size, "")
        if place.isdigit() and processes.isdigit() and int(processes) > 0:
            return len(building.plan.parts) * (int(place) % int(processes)) // int(processes)
    return 0


def _shown(images: Images, most: int = 12) -> torch.Tensor:
    """The first image of each class, of at most so many classes spread over all of them."""
    labels = images.labels.cpu()
    classes = torch.linspace(0, len(images.classes) - 1, min(most, len(images.classes))).round().long().tolist()
    found = [(labels == k).nonzero()[:1, 0] for k in classes]
    return torch.cat(found)


def _command(args: settings.Construct, out: Path) -> str:
    """The command that makes this set, without what does not change it."""
    return shlex.join(["robustlab", "construct", *words(given(changed(args, device="auto", threads=None, out=str(out))))])
