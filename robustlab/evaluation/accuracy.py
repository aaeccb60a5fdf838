"""Accuracy under attack, with one record per example and an interval around every number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product, repeat
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks.by_name import any_attack
from robustlab.attacks.lineup import LineUp, OnStage
from robustlab.attacks.protocols import Attack, MinimumNormAttack, Model
from robustlab.checks import check_images, check_labels, with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.data.adapt import BatchStream, Data, as_batches
from robustlab.data.batches import Batch
from robustlab.errors import UserError
from robustlab.evaluation.adversarial import AdversarialImages, rounded
from robustlab.evaluation.report import Attacked, Record, Report, join_batches
from robustlab.models.bounds import NoBounds, margin_bounds
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.models.placement import on_cpu
from robustlab.norms import Norm
from robustlab.progress import Progress
from robustlab.seeding import fold

AnyAttack: TypeAlias = Attack | MinimumNormAttack
FEW = 4  # images that tell whether interval bounds prove anything
REFILL = 4  # batches in a block: what a line-up leaves of them is attacked together
VOTES = 10  # passes that decide each prediction of a model whose answers change between calls


class NoNumbers(UserError):
    """A model's answers to some images are NaN."""


def evaluate(
    model: Model,
    data: Data,
    attacks: str | AnyAttack | Iterable[str | AnyAttack] = (),
    *,
    threat: ThreatModel | None = None,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    fast_model: Model | None = None,
    keep: bool = False,
    on_adversarial: Callable[[AdversarialImages], object] | None = None,
    progress: bool | None = None,
    on_batch: Callable[[list[Record]], object] | None = None,
    on_stage: OnStage | None = None,
    prove: bool | None = None,
) -> Report:
    """Accuracy of a model, clean and under attacks: every correctly classified example is attacked with every attack.

        evaluate(model, "photos/", PGD(ThreatModel(Linf(), 8 / 255), steps=20))
        evaluate(model, loader, ["fgsm", "pgd-20"], threat=ThreatModel(L2(), 0.5))

        evaluate(model, loader, "standard", threat=ThreatModel(Linf(), 8 / 255))  # AutoAttack

    The model itself judges success, in evaluation mode and its own precision, on the very image that the attack returned. Where its
    answers change between calls, a prediction is the most frequent one of ten; it is asked twice at first to find that out.

    Args:
        model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``; any function. It is left as it was.
        data: images, a path, a torch ``Dataset`` or ``DataLoader``, an iterable of ``(x, y)``, or a pair of tensors or arrays;
            see ``robustlab.data.adapt``. Where both the data and a ``Classifier`` name their classes, labels are matched by name.
        attacks: one or several, as objects or by name, such as ``"pgd-20"``; their names (``str``) must differ. Those with a ``threat``
            must stay within it; those with only a ``norm`` look for the nearest adversarial image, see ``Report.at``.
        threat: the threat model of attacks that are given by name.
        batch_size: images attacked together, where the data do not come in batches. Line-ups are given four batches at once, so that
            what their first attacks leave fills batches again.
        seed: of the attacks' random draws. Each example's draws follow its position in the whole split, so that they
            depend neither on the batches nor on which images were chosen.
        device: where the images go; the model's own where left out.
        workers: processes that read images which are not in memory.
        fast_model: a faster stand-in for the attacks' steps, see ``robustlab.models.accelerate``.
        keep: hold what the attacks returned in ``report.adversarial``. It takes about nine bytes per pixel and attack in memory.
        on_adversarial: called with what each attack returned, batch by batch, to keep it elsewhere, see ``saving``.
        progress: show how far it is; where left out, unless ``on_batch`` is given.
        on_batch: called with the records of each batch.
        on_stage: called with the name of each attack of a line-up and how many images of the batch are left for it.
        prove: compute interval bounds, see ``Report.proved``; where left out, if they prove anything of the first few images.

    Raises:
        UserError: images outside [0, 1], wrong labels, NaN logits, an attack that is not known or that left its threat model.
    """
    chosen = attacks_of(attacks, threat)
    block = batch_size * blocks_of(chosen.values())
    stream = prepared(model, data, batch_size=block, seed=seed, device=device, workers=workers)
    kept: dict[str, list[AdversarialImages]] = {name: [] for name in chosen}
    told = [*([lambda one: kept[one.attack].append(one)] if keep else []), *([on_adversarial] if on_adversarial else [])]
    records: list[Record] = []
    votes = 0
    threats = list(dict.fromkeys(filter(None, map(threat_of, chosen.values()))))
    with frozen(model), Progress(_title(chosen), stream.n, "img", shown=on_batch is None if progress is None else progress) as shown:
        for batch in stream:
            votes = votes or _votes(model, batch.x[:batch_size])
            if votes > 1:  # what the model draws follows the batch, not what was computed before
                torch.manual_seed(int(fold(batch.keys[:1], "model")) & (2**63 - 1))
            judge = Judge(model, votes, batch_size if block > batch_size else None)
            found, adversarial = _evaluate_batch(judge, batch, chosen, fast_model, stream.classes if told else None, on_stage)
            prove = proves_something(model, batch.x, batch.y, threats) if prove is None else prove
            found = _with_proofs(found, judge, batch, threats) if prove else found
            found, adversarial = _with_files(found, adversarial, stream.files, len(records))
            for one, tell in product(adversarial, told):
                tell(one)
            if on_batch:
                on_batch(found)
            records += found
            shown.update(len(found))
    within = tuple(name for name, attack in chosen.items() if threat_of(attack))
    nearest = tuple(name for name in chosen if name not in within)
    stages = {name: attack.stages for name, attack in chosen.items() if isinstance(attack, LineUp)}
    return Report(within, tuple(records), nearest, stream.classes, join_batches(kept) if keep else None, stages)


def _title(attacks: Mapping[str, AnyAttack]) -> str:
    """What the progress bar says."""
    return next(iter(attacks), "predicting") if len(attacks) < 2 else f"{len(attacks)} attacks"


def _with_files(
    records: list[Record], adversarial: list[AdversarialImages], files: Sequence[str] | None, start: int
) -> tuple[list[Record], list[AdversarialImages]]:
    """Records of the images from ``start`` on, and what attacks returned, with the files that they come from, where there are any."""
    if files is None:
        return records, adversarial
    named = [replace(record, file=file) for record, file in zip(records, files[start:], strict=False)]
    attacked = tuple(file for record, file in zip(records, files[start:], strict=False) if record.prediction == record.label)
    return named, [replace(one, sources=attacked) for one in adversarial]


def attacks_of(attacks: str | AnyAttack | Iterable[str | AnyAttack], threat: ThreatModel | None = None) -> dict[str, AnyAttack]:
    """Attacks by the names that their numbers carry.

    Args:
        attacks: one or several, as objects or by name.
        threat: the threat model of those that are given by name.

    Raises:
        UserError: a name without a threat model, a name that is not known, two attacks of one name, or something else.
    """
    listed = [attacks] if isinstance(attacks, str) or not isinstance(attacks, Iterable) else list(attacks)
    made = [_made(attack, threat) for attack in listed]
    names = [str(attack) for attack in made]
    if len(set(names)) != len(names):
        raise UserError(f"two attacks have the same name: {', '.join(names)}")
    return dict(zip(names, made, strict=True))


def _made(attack: str | AnyAttack, threat: ThreatModel | None) -> AnyAttack:
    if isinstance(attack, str):
        if threat is None:
            raise UserError(f"the attack {attack!r} needs a threat model, such as threat=ThreatModel(L2(), 0.5)")
        return any_attack(attack, threat)
    if isinstance(attack, type) or not callable(attack) or not (hasattr(attack, "threat") or hasattr(attack, "norm")):
        shown = attack.__name__ if isinstance(attack, type) else type(attack).__name__
        raise UserError(f"an attack is a name or an object with a threat model, such as PGD(ThreatModel(L2(), 0.5)), got {shown}")
    return attack


def threat_of(attack: AnyAttack) -> ThreatModel | None:
    """The threat model of an attack; None for one that looks for the nearest adversarial image."""
    return getattr(attack, "threat", None)


def prepared(model: Model, data: Data, *, device: torch.device | str | None, **options: Any) -> BatchStream:
    """Any data as batches where the model is, with labels as it numbers its classes, and its names for them.

    Args:
        device: None is the model's own.
        options: as for ``as_batches``.

    Raises:
        UserError: a class that the model does not know, or a device that is not the model's.
    """
    stream = as_batches(data, device=_device(model, device), **options)
    if not isinstance(model, Classifier):
        return stream
    if not stream.classes or stream.classes == tuple(map(str, range(len(stream.classes)))):
        return replace(stream, classes=model.classes)  # numbers are the model's own
    outputs = model.outputs_for(stream.classes, stream.name)

    def numbered() -> Iterator[Batch]:
        for batch in stream:
            yield Batch(batch.x, outputs.to(batch.y.device)[batch.y], batch.index, batch.keys)

    return replace(stream, make=numbered, classes=stream.classes if model.unnamed else model.classes)


def _device(model: Model, device: torch.device | str | None) -> torch.device | None:
    """Where images must be for the model; None where nobody knows."""
    tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    own = next((tensor.device for tensor in tensors), None)
    if device is None:
        return own
    asked = torch.device(device)
    if own is not None and (asked.type != own.type or asked.index not in (None, own.index)):
        raise UserError(f"the model is on {own}, not on {asked}: move it with model.to({str(asked)!r})")
    return own or asked


def _evaluate_batch(
    judge: Judge,
    batch: Batch,
    attacks: Mapping[str, AnyAttack],
    fast_model: Model | None,
    classes: tuple[str, ...] | None,
    on_stage: OnStage | None,
) -> tuple[list[Record], list[AdversarialImages]]:
    """The records of a batch; and what the attacks returned, unless ``classes`` is None."""
    x, y = batch.x, batch.y
    check_images(x)
    highest = check_labels(y, x)
    if len(x) == 0:
        return [], []
    logits = judge(x, highest)
    right = (logits.argmax(1) == y).nonzero()[:, 0]
    within: list[dict[str, Attacked]] = [{} for _ in range(len(x))]
    nearest: list[dict[str, Attacked]] = [{} for _ in range(len(x))]
    adversarial = []
    for name, attack in attacks.items() if len(right) else ():
        options: dict[str, Any] = {"keys": batch.keys[right], "fast_model": fast_model}
        x_adv, told = _attack(attack, judge, x[right], y[right], options, highest, on_stage)
        distance = checked_distance(attack, x[right], x_adv)
        after = judge(x_adv, highest)
        rows = within if threat_of(attack) else nearest
        found = zip(right.tolist(), after.argmax(1).tolist(), y[right].tolist(), distance.tolist(), told, strict=True)
        for row, prediction, label, far, (by, passes) in found:
            rows[row][name] = Attacked(prediction, far, by if prediction != label else None, passes)
        if classes is not None:
            adversarial.append(_adversarial(judge, batch, right, attack, x_adv, distance, logits, after, classes))
    single = (logits.isfinite().sum(1) < 2).tolist()
    known = zip(batch.index.tolist(), y.tolist(), logits.argmax(1).tolist(), within, nearest, single, strict=True)
    return [replace(Record(*row), votes=judge.votes) for row in known], adversarial


def proves_something(model: Model, x: Tensor, y: Tensor, threats: Iterable[ThreatModel]) -> bool:
    """Whether interval bounds prove the label of any of the first few images, for any of the threat models.

    Args:
        model: maps images to logits; bounds are known for networks of usual layers alone.
        x: images in [0, 1], shape ``(B, ...)``.
        y: labels, int64 ``(B,)``.
        threats: what adversaries may do; those with a radius for each image are passed over.
    """
    return any(bool(_proved(model, x[:FEW], y[:FEW], threat).any()) for threat in threats)


def _with_proofs(records: list[Record], judge: Judge, batch: Batch, threats: Iterable[ThreatModel]) -> list[Record]:
    """The records of a batch with the threat models in which interval bounds prove their right prediction."""
    for threat in threats if judge.votes == 1 else ():
        for row in _proved(judge.model, batch.x, batch.y, threat).nonzero()[:, 0].tolist():
            records[row] = replace(records[row], proved=(*records[row].proved, str(threat)))
    return records


def _proved(model: Model, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Whose label interval bounds prove, bool ``(B,)``; nobody's where none are known."""
    if isinstance(model, nn.Module) and len(x) and not isinstance(threat.eps, Tensor):
        with suppress(NoBounds):
            return margin_bounds(model, x, y, threat) > 0
    return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def _attack(
    attack: AnyAttack, judge: Judge, x: Tensor, y: Tensor, options: dict[str, Any], highest: int, on_stage: OnStage | None
) -> tuple[Tensor, Iterable[tuple[str | None, int | None]]]:
    """What an attack returns, and for each image which attack of a line-up broke it and how many passes that took."""
    if not isinstance(attack, LineUp):
        parts = zip(*(part.split(judge.batch_size or len(x)) for part in (x, y, options["keys"])), strict=True)
        attacked = [attack(judge.model, a, b, keys=keys, fast_model=options["fast_model"]) for a, b, keys in parts]
        return torch.cat(attacked), repeat((None, None), len(x))
    size = judge.batch_size
    broken = attack.run(judge.model, x, y, **options, highest_label=highest, on_stage=on_stage, batch_size=size)
    by = [None if stage < 0 else attack.stages[stage] for stage in broken.by.tolist()]
    return broken.x, zip(by, broken.passes.sum(1).tolist(), strict=True)


def _adversarial(
    judge: Judge,
    batch: Batch,
    right: Tensor,
    attack: AnyAttack,
    x_adv: Tensor,
    distance: Tensor,
    before: Tensor,
    after: Tensor,
    classes: tuple[str, ...],
) -> AdversarialImages:
    """What an attack returned, with the model's answers to it and to the same images in 8 bits."""
    x, threat, norm = batch.x[right], threat_of(attack), norm_of(attack)
    pixels, distance_8bit = rounded(x, x_adv, threat.eps if threat else distance, norm)
    found: dict[str, Any] = {
        "index": batch.index[right],
        "label": batch.y[right],
        "x": x.float(),
        "confidence": before[right].softmax(1).amax(1),
        "x_adv": x_adv.float(),
        "prediction_adv": after.argmax(1),
        "confidence_adv": after.softmax(1).amax(1),
        "distance": distance,
        "pixels_adv": pixels,
        "prediction_8bit": judge(pixels.to(x.dtype) / 255).argmax(1),
        "distance_8bit": distance_8bit,
    }
    return AdversarialImages(str(attack), norm, classes, **cast(dict[str, Any], on_cpu(found)))


def norm_of(attack: AnyAttack) -> Norm:
    """The norm in which an attack measures distance."""
    threat = threat_of(attack)
    return threat.norm if threat else cast(MinimumNormAttack, attack).norm


def checked_distance(attack: AnyAttack, x: Tensor, x_adv: Tensor) -> Tensor:
    """Distances in the attack's norm, in pixel units, float64 ``(B,)``.

    Raises:
        UserError: the attack returned no images in [0, 1], or left its threat model by however little.
    """
    distance = norm_of(attack).measure(x_adv.double() - x.double())
    check_images(x_adv)
    threat = threat_of(attack)
    if threat is not None and (distance > threat.eps).any():
        raise UserError(f"{attack} returned an image at distance {float(distance.max())!r}, farther than eps = {threat.eps!r}")
    return distance


@dataclass(frozen=True)
class Judge:
    """A model's answers to images.

    Attributes:
        model: maps images to logits.
        votes: how often it is asked for each answer; several for a model whose answers change between calls.
        batch_size: images that it gets at once; all where that is None.
    """

    model: Model
    votes: int = 1
    batch_size: int | None = None

    def __call__(self, x: Tensor, highest_label: int = -1) -> Tensor:
        """Logits ``(B, K)``, whose largest is the prediction; with several votes logarithms of their shares, the more frequent the larger.

        Raises:
            UserError: too few classes, or logits that are NaN.
        """
        if self.votes == 1 or not len(x):
            return self._logits(x, highest_label)
        answers = [self._logits(x, highest_label) for _ in range(self.votes)]
        counts = sum(F.one_hot(answer.argmax(1), answer.shape[1]) for answer in answers)
        return ((torch.as_tensor(counts).double() + 1e-6) / self.votes).log()

    def _logits(self, x: Tensor, highest_label: int) -> Tensor:
        return torch.cat([_logits(self.model, part, highest_label) for part in x.split(self.batch_size or max(len(x), 1))])


def blocks_of(attacks: Iterable[AnyAttack]) -> int:
    """How many batches are evaluated together: several where an attack is a line-up."""
    return REFILL if any(isinstance(attack, LineUp) for attack in attacks) else 1


def _votes(model: Model, x: Tensor) -> int:
    """How often a model must be asked: more than once where two answers to the same images differ."""
    if not len(x):
        return 0
    first, second = (_logits(model, x).double().softmax(1) for _ in range(2))
    return VOTES if first.shape == second.shape and float((first - second).abs().max()) > 1e-4 else 1


@torch.no_grad()
def _logits(model: Model, x: Tensor, highest_label: int = -1) -> Tensor:
    """Logits ``(B, K)``; of a copy of the images, since a model may write over them."""
    logits = with_logit_checks(model, highest_label)(x.clone())
    if logits.isnan().any():
        raise NoNumbers(f"the model returned NaN logits for {int(logits.isnan().any(1).sum())} of {len(x)} images")
    return logits


def predictions(model: Model, x: Tensor, highest_label: int = -1) -> Tensor:
    """The predicted class of each image, int64 ``(B,)``.

    Args:
        model: maps ``x`` to logits ``(B, K)``.
        x: images in [0, 1], shape ``(B, ...)``.
        highest_label: the model must have more classes than this.

    Raises:
        UserError: too few classes, or logits that are NaN: their largest entry would mean nothing.
    """
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.int64, device=x.device)
    return _logits(model, x, highest_label).argmax(1)
