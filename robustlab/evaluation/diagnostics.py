"""Reasons not to believe an accuracy under attack: AutoAttack's checks (Croce and Hein 2020), the indicators of attack failure
(Pintor et al. 2022), and what else makes attacks fail without robustness."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Model
from robustlab.checks import attack_inputs
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation.findings import Finding
from robustlab.evaluation.oddities import CHECKS
from robustlab.evaluation.probes import probe, random_states_kept
from robustlab.models.frozen import frozen

MOST = 100  # images that are looked at


def diagnose(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    keys: Tensor | None = None,
    seed: int = 0,
    num_classes: int | None = None,
    targets: int | None = None,
) -> tuple[Finding, ...]:
    """What about a model would make its accuracy under attack a wrong number; empty where nothing was found.

    Costs 13 forward passes without a gradient (17 where more than a tenth of the images are wrong), and 10 forward and backward passes,
    of at most 100 images. The order of the images changes nothing.

    Args:
        model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``; left as it was, and looked at in evaluation mode.
        x: images in [0, 1], shape ``(B, ...)``; of more than 100 some 100 are taken.
        y: labels, int64 ``(B,)``.
        threat: what the adversary may do.
        keys: one key per image from ``robustlab.seeding``; without them each image's own pixels give its key.
        seed: changes those keys.
        num_classes: how many classes the data have, where that is known.
        targets: how many target classes an attack is to try for each image.

    Raises:
        UserError: images, labels or logits that are none.
    """
    x, y, highest = attack_inputs(model, x, y)
    if not isinstance(y, Tensor):
        raise UserError(f"labels must be class indices, int64 of shape (B,), got {type(y).__name__}")
    if not len(x):
        return ()
    content = seeding.content_keys(x, seed)
    order = y.argsort(stable=True)
    order = order[content[order].argsort(stable=True)][:MOST]  # one order, in which ever they come
    eps = threat.radius(x)
    threat = ThreatModel(threat.norm, eps[order] if isinstance(eps, Tensor) else eps, threat.box)
    with frozen(model), random_states_kept(x):
        answers = probe(model, x[order], y[order], (content if keys is None else keys)[order], threat, highest)
    found = [finding for check in CHECKS for finding in check(answers)]
    return (*found, *sizes(answers.logits.shape[1], num_classes, targets))


def sizes(outputs: int, num_classes: int | None, targets: int | None) -> Iterator[Finding]:
    """Numbers of outputs, classes and targets that do not agree."""
    if num_classes is not None and outputs > num_classes:
        yield Finding(
            "classes",
            f"the model has {outputs} outputs and the data {num_classes} classes: an attack may end in a class that no image has, and "
            "labels may mean other classes to the model; compare the two lists of classes",
            {"outputs": outputs, "classes": num_classes},
        )
    if targets is not None and targets > outputs - 1:
        yield Finding(
            "targets",
            f"{targets} target classes are asked for, and there are only {outputs - 1} beside the predicted one: every one of them is "
            f"tried, and no more; ask for {outputs - 1}",
            {"targets": targets, "outputs": outputs},
        )
