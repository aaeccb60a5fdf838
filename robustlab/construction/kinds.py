"""The four sets of Ilyas et al. (2019), Adversarial Examples Are Not Bugs, They Are Features: their settings and their source models.

D_rand   perturbed towards a class drawn at random, and labelled as it     from a standard model
D_det    perturbed towards the class after their own, and labelled as it   from a standard model
D_R      with the features that a model sees in them, and their own labels from a robust model
D_NR     the same                                                          from a standard model
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.construction.inverted import Inverted
from robustlab.construction.protocols import Construction
from robustlab.construction.relabelled import Relabelled, next_class, random_target
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError, unknown
from robustlab.evaluation import Rate, evaluate
from robustlab.models.classifier import Classifier
from robustlab.norms import L2

KINDS = ("D_rand", "D_det", "D_R", "D_NR")
INVERTED = ("D_R", "D_NR")
EPS = 0.5  # L2, of D_rand and D_det
MEASURED = 200  # images on which a source model is measured before it is used
ATTACK = PGD(ThreatModel(L2(), 0.25), steps=10)
ROBUST = 0.5  # a model that keeps this share of its accuracy under ATTACK counts as robust, one that keeps less as standard


def kind_named(name: str) -> str:
    """One of ``KINDS``, also where it is written without the line or in small letters.

    Raises:
        UserError: another name; names the nearest.
    """
    kinds = {kind.lower().replace("_", ""): kind for kind in KINDS}
    if name.lower().replace("_", "") not in kinds:
        raise unknown("kind", name, KINDS)
    return kinds[name.lower().replace("_", "")]


def published_construction(
    kind: str, *, threat: ThreatModel | None = None, steps: int | None = None, step_size: float | None = None
) -> Construction:
    """The construction behind a set, with the settings published for CIFAR-10 where nothing else is said.

    Args:
        kind: one of ``KINDS``.
        threat: the ball of D_rand and D_det; L2 with eps 0.5 where left out.
        steps: 100 of D_rand and D_det, 1,000 of D_R and D_NR where left out.
        step_size: length of a step in units of [0, 1] pixels; ``eps / 5``, and 0.1 for D_R and D_NR, where left out.

    Raises:
        UserError: an unknown kind, a threat model for D_R or D_NR, or a setting out of range.
    """
    kind = kind_named(kind)
    if kind in INVERTED:
        if threat is not None:
            raise UserError(f"{kind} searches the whole pixel box for images with the same features, so it takes no norm and no eps")
        return Inverted(1000 if steps is None else steps, 0.1 if step_size is None else step_size)
    threat = threat or ThreatModel(L2(), EPS)
    targets = random_target if kind == "D_rand" else next_class
    return Relabelled(targets, threat, 100 if steps is None else steps, float(threat.eps) / 5 if step_size is None else step_size)


@dataclass(frozen=True)
class SourceModel:
    """The model behind a set.

    Attributes:
        name: what to call it.
        clean: accuracy on some of the source images.
        robust: accuracy on the same images under ``attack``.
        attack: the name of an attack.
        record: what is known of a pretrained model.
    """

    name: str
    clean: Rate
    robust: Rate
    attack: str
    record: dict[str, Any] | None = None

    @property
    def is_robust(self) -> bool:
        """Whether it keeps the share ``ROBUST`` of its accuracy under attack."""
        return self.robust.value >= ROBUST * self.clean.value


def measure_source(model: Classifier, images: Images, name: str, record: dict[str, Any] | None = None) -> SourceModel:
    """What a model reaches on ``MEASURED`` of the images, the same share of each class, clean and under ``ATTACK``.

    Args:
        model: on the device where it is to be measured.
        images: of classes that the model knows.
    """
    some = images.subset(hold_out(images, min(MEASURED, len(images)), seed=0)[1])
    device = model.mean.device
    outputs = model.outputs_for(images.classes, images.name).to(device)
    batches = (replace(batch, y=outputs[batch.y]) for batch in Batches(some, MEASURED, device=device).epoch(0))
    report = evaluate(model, batches, [ATTACK], progress=False)
    return SourceModel(name, report.clean, report.under(str(ATTACK)), str(ATTACK), record)


def mismatch(kind: str, source: SourceModel) -> str | None:
    """One sentence where a set of this kind is not made from such a model, else None."""
    needs_robust = kind == "D_R"
    if needs_robust == source.is_robust:
        return None
    consequence = {
        "D_R": "the set holds non-robust features, and is rather D_NR",
        "D_NR": "the set holds robust features, and is rather D_R",
    }.get(kind, "its perturbations are large visible changes and not small ones")
    return (
        f"{kind} needs {'a robust' if needs_robust else 'a standard'} model, but {source.name} is right for "
        f"{100 * source.clean.value:.0f} % of {source.clean.n} images and for {100 * source.robust.value:.0f} % under "
        f"{source.attack}: {consequence}"
    )
