"""``robustlab evaluate``: numbers, a curve, one line per image, and the adversarial images themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from robustlab.attacks import PGD
from robustlab.attacks.by_name import any_attack
from robustlab.commands import settings
from robustlab.commands.common import choose_device, images_for, load_model, named_threat, required_model
from robustlab.errors import UserError
from robustlab.evaluation.accuracy import AnyAttack
from robustlab.models.matching import check_fits
from robustlab.options import changed, given, names, paths
from robustlab.reports.measurement import Measuring, Places, measure_models


def run(args: settings.Evaluate) -> None:
    """Print the accuracies of each model; with ``--out`` also write them, the records, pictures, and the curve."""
    chosen = paths(required_model(args.model))
    written = (args.output.out, args.output.save_adversarial, args.output.grid)
    places = Places(*(Path(place) if place else None for place in written))
    places.check(chosen)
    attacks = _attacks(args)
    device = choose_device(args.compute.device, args.compute.threads)
    models = {name: load_model(name, args.model).to(device) for name in chosen}
    images = images_for(models, args.data, args.data.split)
    for name, model in models.items():
        check_fits(model, images, name, chosen=bool(args.data.classes))
    measuring = Measuring(
        attacks,
        args.attack.curve,
        args.data.split,
        args.compute.batch_size,
        args.compute.seed,
        args.compute.workers,
        args.compute.amp,
        args.compute.compile,
        dataclasses.asdict(changed(args, eps=named_threat(args.threat.norm, args.threat.eps).eps)),
    )
    measure_models(models, images, measuring, places)


def _attacks(args: settings.Evaluate) -> list[AnyAttack]:
    """The attacks of ``--attack``; ``--steps``, ``--step-size`` and ``--restarts`` are those of ``pgd``.

    Raises:
        UserError: no such attack, or settings of PGD where there is no ``pgd``.
    """
    threat = named_threat(args.threat.norm, args.threat.eps)
    pgd = PGD(threat, args.attack.steps, args.attack.step_size, restarts=args.attack.restarts)
    chosen = names(args.attack.attack)
    own = [name for name in ("steps", "step_size", "restarts") if name in given(args)]
    if own and "pgd" not in chosen:
        raise UserError(f"--{own[0].replace('_', '-')} belongs to the attack pgd, and --attack names {', '.join(chosen)}")
    return [pgd if name == "pgd" else any_attack(name, threat) for name in chosen]
