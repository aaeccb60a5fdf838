"""A measurement of several models that is kept batch by batch, so that it goes on where it was interrupted and any number of processes
share it, and all that it leaves behind: numbers, one line per image, a curve, a grid and the adversarial images."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustlab import files, pictures
from robustlab.attacks.lineup import LineUp
from robustlab.blocks import Blocks, is_finished, is_unfinished
from robustlab.constraints import ThreatModel
from robustlab.data.fingerprint import identity
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError
from robustlab.evaluation import Finding, Rate, Report, after_attacks, curve, diagnose, evaluate
from robustlab.evaluation.accuracy import FEW, AnyAttack, blocks_of, norm_of, prepared, proves_something, threat_of
from robustlab.evaluation.adversarial import AdversarialImages, saving_within
from robustlab.evaluation.grids import adversarial_grid
from robustlab.evaluation.report import Record
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.naming import short_names
from robustlab.norms import L0, Norm
from robustlab.progress import Progress, say
from robustlab.records import check_same, environment
from robustlab.reports.plots import Axes, accuracy_line, line_plot

SHOWN = 10  # images on a grid
LOOKED_AT = 100  # images that a model is diagnosed on
SHARES = 8  # blocks that a line-up's evaluation has at least, unless they would be very small: what a kill costs, what processes share
FREE = ("images.name",)  # of what was asked for: it may change before the work goes on


@dataclass(frozen=True)
class Measuring:
    """What to measure, and how.

    Attributes:
        attacks: at least one; the first gives the curve and the pictures.
        radii: of the curve, in pixel units; none for no curve.
        split: which part of the data it is, for the words.
        batch_size, seed, workers: as for ``evaluate``.
        bfloat16, compile: of the stand-in that takes the attacks' steps.
        settings: what else the report should say about itself, in values that JSON holds.
    """

    attacks: Sequence[AnyAttack]
    radii: Sequence[float] | None = None
    split: str = "test"
    batch_size: int = 250
    seed: int = 0
    workers: int = 0
    bfloat16: bool = False
    compile: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batches(self) -> dict[str, Any]:
        """How images are cut into batches."""
        return {"batch_size": self.batch_size, "seed": self.seed, "workers": self.workers}

    def block(self, n: int) -> int:
        """How many of ``n`` images make a block, which is attacked in one go and lost by a kill: a batch.

        Where a line-up attacks, what its first attacks leave is to fill batches again: up to four batches, but an eighth of all the images
        where that is less and still a quarter of a batch.
        """
        most = self.batch_size * blocks_of(self.attacks)
        return self.batch_size if most == self.batch_size else min(most, max(math.ceil(n / SHARES), self.batch_size // 4, 1))


@dataclass(frozen=True)
class Places:
    """Where a measurement leaves what it found; nothing is written where there is none.

    Attributes:
        out: folder of the report, the records, the curve and examples; several models have a folder each within it.
        adversarial: folder of the adversarial images.
        grid: PNG file with some images before and after the first attack, of one model.
    """

    out: Path | None = None
    adversarial: Path | None = None
    grid: Path | None = None

    def check(self, models: Sequence[str]) -> None:
        """Refuse places that are taken or cannot be written, before any work.

        Args:
            models: their names.

        Raises:
            UserError: which one, and why.
        """
        beside = ((self.out, False), (self.adversarial, True))
        goes_on = [place for place, hidden in beside if place and is_unfinished(place, beside=hidden)]
        for place in filter(None, (self.out, self.adversarial)):
            if not goes_on and not (place == self.out and is_finished(place, _results(models))):
                files.check_vacant(place, hidden_allowed=place == self.out)
        if self.grid is not None and (self.grid.suffix.lower() != ".png" or self.grid.is_dir()):
            raise UserError(f"`grid` takes a PNG file to write, such as sheet.png, got {self.grid}")
        if self.grid is not None and len(models) > 1:
            raise UserError("`grid` shows one model: give one by `model`")
        for place in filter(None, (self.out, self.adversarial, self.grid)):
            files.check_writable(place)


def measure_models(
    models: Mapping[str, Classifier], images: Images, measuring: Measuring, places: Places, *, tell: Callable[[str], object] = print
) -> None:
    """Attack every model, tell its numbers, and leave what was found in its places.

    What is found is kept batch by batch in ``places.out``, or beside ``places.adversarial``: after an interruption the same call goes on,
    and its files are those of an uninterrupted one. Processes that are called alike at the same time share the batches; whoever finds
    all of them there writes the files.

    Args:
        models: by name, all on one device.
        images: labelled.
        measuring: what to measure.
        places: see ``Places.check``, which is for the caller to ask first.
        tell: called with each line of the result.

    Raises:
        UserError: a place holds a measurement with other settings; and as for ``evaluate``.
    """
    asked = _identity(measuring, models, images, places.adversarial is not None)
    place, beside = (places.out, False) if places.out else (places.adversarial, True)
    results = _results(models) if places.out else []
    try:
        cut = {**asked, "block": measuring.block(len(images))}
        with Blocks.at(place, cut, FREE, what="measurement", results=results, beside=beside) as blocks:
            if blocks.is_finished:
                if places.grid:
                    pictures.save(places.grid, _examples(measuring, next(iter(models.values())), images))
            elif _shared(models, _Work(measuring, images, blocks, keeps=places.adversarial is not None), places, asked, tell):
                return
        if place and is_finished(place, results):
            _repeat(place, results, asked, tell)
        else:
            tell(f"other processes are at the rest; the last of them writes to {place}")
    except KeyboardInterrupt:
        if place:
            say("what was found is kept: the same command goes on from here")
        raise


def _shared(models: Mapping[str, Classifier], work: _Work, places: Places, asked: dict[str, Any], tell: Callable[[str], object]) -> bool:
    """Measure what nobody has measured; write and tell the results where that completes them, and say whether it does."""
    for k, model in enumerate(models.values()):
        work.measure(k, model)
    with work.blocks.finishing(work.parts(len(models))) as ready:
        if ready:
            _write_all(models, work, places, asked, tell)
    return ready


def _write_all(models: Mapping[str, Classifier], work: _Work, places: Places, asked: dict[str, Any], tell: Callable[[str], object]) -> None:
    """Write all that was asked for, and tell it."""
    measuring, images = work.measuring, work.images
    out, kept, grid = places.out, places.adversarial, places.grid
    short, curves = short_names(models), {}
    for k, (name, model) in enumerate(models.items()):
        report = work.report(k, model)
        curves[short[name]] = work.curve(k, report)
        findings = (*_diagnosed(measuring, model, images), *after_attacks(report.records))
        printed = _printed(measuring, name, images, report, curves[short[name]], findings)
        for text in printed:
            tell(text)
        sys.stdout.flush()
        if out:
            place = out / short[name] if len(models) > 1 else out
            more = {"findings": [finding.to_json() for finding in findings], "printed": printed, "asked": asked}
            _write(place, measuring, model, images, report, curves[short[name]], more)
        if grid:
            pictures.save(grid, _examples(measuring, model, images))
    if kept:
        _write_adversarial(kept, list(short.values()), work)
    if out and measuring.radii:
        norm = norm_of(measuring.attacks[0])
        unit = norm.unit if isinstance(norm, L0) else "pixels in [0, 1]"
        axes = Axes(f"{type(norm).__name__} eps, {unit}", "accuracy", percent=True)
        title = f"{images.name}: accuracy under {method(measuring.attacks[0])}"
        line_plot(out / "curve.png", [accuracy_line(name, rates) for name, rates in curves.items()], axes, title=title)
    for place in filter(None, (out, kept, grid)):
        tell(f"written to {place}")


def method(attack: AnyAttack) -> str:
    """An attack's name without its threat model: ``PGD-20``."""
    return str(attack).partition(" (")[0]


def _identity(measuring: Measuring, models: Mapping[str, Classifier], images: Images, keeps: bool) -> dict[str, Any]:
    """What the numbers depend on, wherever models and images lie."""
    compute = {"seed": measuring.seed, "batch_size": measuring.batch_size, "amp": measuring.bfloat16, "compile": measuring.compile}
    return {
        "attacks": [_told(attack) for attack in measuring.attacks],
        "curve": None if measuring.radii is None else list(measuring.radii),
        "images": {**identity(images), "split": measuring.split},
        "models": [digest(model) for model in models.values()],
        "compute": compute | {"device": next(iter(models.values())).mean.device.type},
        "save_adversarial": keeps,
    }


def _told(attack: Any) -> dict[str, Any]:
    """An attack's settings in values that JSON holds; attacks within it are told in turn."""
    told: dict[str, Any] = {"name": str(attack)}
    for each in dataclasses.fields(attack):
        value = getattr(attack, each.name)
        if isinstance(value, ThreatModel):
            told[each.name] = {"norm": type(value.norm).__name__, "eps": value.eps}
        elif isinstance(value, Norm):
            told[each.name] = type(value).__name__
        elif dataclasses.is_dataclass(value):
            told[each.name] = _told(value)
        elif isinstance(value, tuple):
            told[each.name] = [_told(one) for one in value]
        elif each.name != "name":
            told[each.name] = getattr(value, "__name__", value)
    return told


def _results(models: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The reports of a measurement that ended, of each model, within its folder."""
    names = list(short_names(list(models)).values())
    return ["report.json" if len(names) == 1 else f"{name}/report.json" for name in names]


def _repeat(out: Path, results: Sequence[str], asked: dict[str, Any], tell: Callable[[str], object]) -> None:
    """Tell again what a measurement that ended found.

    Raises:
        UserError: it had other settings (the sentence names the differences), or it is no measurement.
    """
    reports = [files.read_json(out / name, "the report of a measurement") for name in results]
    for report in reports:
        if not isinstance(report.get("asked"), dict):
            raise UserError(f"{out} holds other results: name another folder with `out`")
        check_same(out, report["asked"], asked, FREE, what="measurement")
    for report in reports:
        for text in report.get("printed", []):
            tell(text)
    tell(f"this was finished before, in {out}")


@dataclass(frozen=True)
class _Work:
    """The measurement of some models in blocks of images, each of them a batch, or several where a line-up attacks.

    Attributes:
        measuring, images: what to measure, on what.
        blocks: where it is kept.
        keeps: whether adversarial images are kept too.
    """

    measuring: Measuring
    images: Images
    blocks: Blocks
    keeps: bool

    @cached_property
    def cuts(self) -> tuple[torch.Tensor, ...]:
        """The positions of the images of each block; one block of none where there are none."""
        return torch.arange(len(self.images)).split(self.measuring.block(len(self.images)))

    @property
    def counts(self) -> bool:
        """Whether the curve takes runs of its own: a minimum-norm attack tells all radii at once."""
        return bool(self.measuring.radii) and threat_of(self.measuring.attacks[0]) is not None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How images are cut into batches; positions in the whole split, and so draws, stay as they are."""
        return {"progress": False, **self.measuring.batches}

    def parts(self, models: int) -> dict[str, int]:
        """How many blocks each part has."""
        kinds = ("records", "curve") if self.counts else ("records",)
        return {f"{kind} {k}": len(self.cuts) for kind in kinds for k in range(models)}

    def measure(self, k: int, model: Classifier) -> None:
        """Attack the ``k``-th model on the blocks that are not done yet and that nobody else is at."""
        fast_model = accelerate(model, dtype=torch.bfloat16 if self.measuring.bfloat16 else None, compile=self.measuring.compile)
        title = method(self.measuring.attacks[0]) if len(self.measuring.attacks) == 1 else f"{len(self.measuring.attacks)} attacks"
        self._each(f"records {k}", title, partial(self._attack, model=model, fast_model=fast_model, prove=self._prove(model)))
        if self.counts:
            self._each(f"curve {k}", "curve", partial(self._count, model=model, fast_model=fast_model))

    def _prove(self, model: Classifier) -> bool:
        """Whether interval bounds prove anything of the first few images."""
        few = self.images.subset(torch.arange(min(FEW, len(self.images))))
        threats = list(filter(None, map(threat_of, self.measuring.attacks)))
        batches = prepared(model, few, device=None, batch_size=FEW, seed=0, workers=0)
        return any(proves_something(model, batch.x, batch.y, threats) for batch in batches)

    def _each(self, part: str, title: str, compute: Callable[[str, int, Progress], None]) -> None:
        done = sum(len(cut) for number, cut in enumerate(self.cuts) if self.blocks.is_done(part, number))
        with Progress(title, len(self.images), "img") as shown:
            shown.start_from(done)
            claimed = True
            while claimed:  # once more for blocks that others had claimed and did not finish
                claimed = False
                for number in [k for k in range(len(self.cuts)) if not self.blocks.is_done(part, k)]:
                    with self.blocks.claim(part, number) as mine:
                        if mine:
                            compute(part, number, shown)
                            claimed = True
                            shown.update(len(self.cuts[number]))

    def _attack(self, part: str, number: int, shown: Progress, model: Classifier, fast_model: nn.Module, prove: bool) -> None:
        def on_stage(name: str, left: int) -> None:
            shown.note(f"{name} on {left} of batch {number + 1}")
            shown.update(0)

        kept: list[AdversarialImages] = []
        some, tell = self.images.subset(self.cuts[number]), kept.append if self.keeps else None
        told: dict[str, Any] = {"on_adversarial": tell, "on_stage": on_stage, "prove": prove}
        found = evaluate(model, some, self.measuring.attacks, fast_model=fast_model, **told, **self.settings)
        made = [{"attack": one.attack, "classes": list(one.classes), "sources": list(one.sources)} for one in kept]
        tensors = {f"{i} {name}": tensor for i, one in enumerate(kept) for name, tensor in one.tensors().items()}
        line = {"records": [record.to_json() for record in found.records], "adversarial": made}
        self.blocks.put(part, number, line, tensors if kept else None)

    def _count(self, part: str, number: int, shown: Progress, model: Classifier, fast_model: nn.Module) -> None:
        some, first, radii = self.images.subset(self.cuts[number]), self.measuring.attacks[0], self.measuring.radii
        assert radii is not None
        rates = curve(model, some, first, radii, fast_model=fast_model, **self.settings)
        self.blocks.put(part, number, {str(eps): rate.count for eps, rate in rates.items()})

    def report(self, k: int, model: Classifier) -> Report:
        """Of all the blocks."""
        records = [Record.from_json(one) for number in range(len(self.cuts)) for one in self.found(k, number)["records"]]
        none = evaluate(model, self.images.subset(torch.arange(0)), self.measuring.attacks, **self.settings)
        return replace(none, records=tuple(records))

    def found(self, k: int, number: int) -> dict[str, Any]:
        """What was kept of a block of the ``k``-th model."""
        return dict(self.blocks.found(f"records {k}", number))

    def curve(self, k: int, report: Report) -> dict[float, Rate]:
        """Accuracy at each radius, ascending; empty where no curve was asked for."""
        if self.measuring.radii and not self.counts:
            return report.at(str(self.measuring.attacks[0]), self.measuring.radii)
        counts = [self.blocks.found(f"curve {k}", number) for number in range(len(self.cuts) if self.measuring.radii else 0)]
        radii = sorted(float(eps) for eps in counts[0]) if counts else []
        return {eps: Rate(sum(count[str(eps)] for count in counts), len(self.images)) for eps in radii}


def _write_adversarial(kept: Path, models: list[str], work: _Work) -> None:
    """Write the adversarial images of all blocks into their folder, all of it or nothing."""
    blocks = work.blocks
    # Written down first: a folder that is there later is ours, as it is put into its place whole.
    if blocks.is_done("adversarial", 0) and kept.exists() and any(not entry.name.startswith(".") for entry in kept.iterdir()):
        return
    files.check_vacant(kept)
    blocks.put("adversarial", 0, str(kept))
    norms = {str(attack): norm_of(attack) for attack in work.measuring.attacks}
    with files.atomic_folder(kept) as folder:
        for k, name in enumerate(models):
            place = folder / name if len(models) > 1 else folder
            place.mkdir(exist_ok=True)
            with saving_within(place) as save:
                for number in range(len(work.cuts)):
                    found = work.found(k, number)["adversarial"]
                    tensors = blocks.tensors(f"records {k}", number) if found else {}
                    for i, made in enumerate(found):
                        own = {key.partition(" ")[2]: value for key, value in tensors.items() if key.partition(" ")[0] == str(i)}
                        sources = tuple(made["sources"])
                        save(AdversarialImages(made["attack"], norms[made["attack"]], tuple(made["classes"]), **own, sources=sources))


def _diagnosed(measuring: Measuring, model: Classifier, images: Images) -> tuple[Finding, ...]:
    """Reasons not to believe what attacks within a threat model find, from some of the images."""
    threat = next(filter(None, map(threat_of, measuring.attacks)), None)
    if threat is None or not len(images):
        return ()
    looked_at = hold_out(images, min(LOOKED_AT, len(images)), seed=0)[1]
    (batch,) = prepared(model, images.subset(looked_at), device=None, batch_size=LOOKED_AT, seed=measuring.seed, workers=measuring.workers)
    return diagnose(model, batch.x, batch.y, threat=threat, keys=batch.keys)


def _printed(
    measuring: Measuring, name: str, images: Images, report: Report, rates: dict[float, Rate], findings: Sequence[Finding]
) -> list[str]:
    """What is told of a model."""
    lines = [(attack, str(rate)) for attack, rate in report.lines()]
    lines += [(attack, f"median distance {report.median_distance(attack):.4g}") for attack in report.minimum_norm]
    width = max(28, *(len(attack) for attack, _ in lines))
    return [
        f"{name} on {images.name} ({measuring.split})",
        *(f"  {attack:<{width}} {told}" for attack, told in lines),
        *(f"  {line}" for line in filter(None, [report.headline])),
        *(f"  note: {note}" for note in (*report.notes, *findings)),
        *(f"  at eps = {eps:<19.4g} {rate}" for eps, rate in rates.items()),
    ]


def _examples(measuring: Measuring, model: Classifier, images: Images) -> torch.Tensor:
    """Some images before and after an attack, the first of a line-up, one of each class where there are ten; float ``(3, H, W)``."""
    first = measuring.attacks[0]
    attack = first.attacks[0] if isinstance(first, LineUp) else first
    shown = hold_out(images, min(SHOWN, len(images)), seed=0)[1]
    some = evaluate(model, images.subset(shown), attack, keep=True, progress=False, **measuring.batches)
    if not some.adversarial:
        raise UserError("there is nothing to show: the model is wrong for all the images of the grid before any attack")
    return adversarial_grid(some.adversarial[str(attack)], len(shown))


def _write(
    out: Path,
    measuring: Measuring,
    model: Classifier,
    images: Images,
    report: Report,
    rates: dict[float, Rate],
    more: dict[str, Any],
) -> None:
    """Records first, the report last: a folder with a report is complete."""
    files.write_text(out / "records.jsonl", "".join(json.dumps(record.to_json()) + "\n" for record in report.records))
    first = measuring.attacks[0]
    if rates:
        points = [{"eps": eps, **rate.to_json()} for eps, rate in rates.items()]
        files.write_json(out / "curve.json", {"attack": method(first), "norm": type(norm_of(first)).__name__, "points": points})
    if report.clean.count:
        try:
            pictures.save(out / "examples.png", _examples(measuring, model, images))
        except UserError as error:
            say(f"note: no examples.png: {error}")
    accuracies = {name: rate.to_json() for name, rate in report.rates().items()}
    found: dict[str, Any] = {"environment": environment(), "dataset": images.name, "accuracies": accuracies, "notes": report.notes}
    if report.stages:
        stages = {name: {stage: rate.to_json() for stage, rate in report.after(name).items()} for name in report.stages}
        found |= {"stages": stages, "passes": {name: report.passes(name) for name in report.stages}}
        found["robustbench"] = [_entry(images, model, report, attack) for attack in measuring.attacks if isinstance(attack, LineUp)]
    files.write_json(out / "report.json", {"settings": dict(measuring.settings), **found, **more})


def _entry(images: Images, model: Classifier, report: Report, attack: LineUp) -> dict[str, Any]:
    """A line-up's numbers in the words of RobustBench (Croce et al. 2021), in percent, on as many images as there were."""
    key = "autoattack_acc" if str(attack).startswith("AutoAttack (") else str(attack)
    return {
        "dataset": images.name,
        "threat_model": type(attack.threat.norm).__name__,
        "eps": attack.threat.eps,
        "architecture": model.arch,
        "clean_acc": f"{100 * report.clean.value:.2f}",
        key: f"{100 * report.under(str(attack)).value:.2f}",
        "n_ex": len(images),
        "unreliable": bool(report.notes),
    }
