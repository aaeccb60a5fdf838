"""``robustlab evaluate``: numbers, a curve, and one line per image."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from robustlab import files, pictures
from robustlab.attacks import PGD
from robustlab.commands import settings
from robustlab.commands.common import bar, check_fits, choose_device, load_model, open_data, short_names, threat_of
from robustlab.data.batches import Batch, Batches
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, curve, evaluate
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import released
from robustlab.options import changed
from robustlab.records import environment
from robustlab.reports.plots import Axes, accuracy_line, line_plot


def run(args: settings.Evaluate) -> None:
    """Print the accuracies of each model; with ``--out`` also write them, the records, pictures, and the curve."""
    if args.model.name is None:
        raise UserError(f"which model? --model takes a checkpoint's path or one of: {', '.join(released()) or 'none released yet'}")
    out = Path(args.output.out) if args.output.out else None
    if out:
        files.check_vacant(out)
    device = choose_device(args.compute.device, args.compute.threads)
    models = {name: load_model(name, args.model).to(device) for name in args.model.name.split(",")}
    images = open_data(
        args.data.dataset,
        args.data.path,
        args.data.split,
        image_size=args.data.image_size,
        download=args.data.download,
        classes=args.data.classes,
        limit=args.data.limit,
    )
    for name, model in models.items():
        check_fits(model, images, name, chosen=bool(args.data.classes))
    job = _Job(
        args,
        images,
        PGD(threat_of(args.threat.norm, args.threat.eps), args.attack.steps, args.attack.step_size, restarts=args.attack.restarts),
        device,
    )
    curves = {}
    for name, model in models.items():
        report, rates = job.measure(name, model)
        short = short_names(models)[name]
        if out:
            job.write(out / short if len(models) > 1 else out, model, report, rates)
        curves[short] = rates
    if out and args.attack.curve:
        lines = [accuracy_line(name, rates) for name, rates in curves.items()]
        axes = Axes(f"{type(job.attack.threat.norm).__name__} eps, pixels in [0, 1]", "accuracy", percent=True)
        line_plot(out / "curve.png", lines, axes, title=f"{images.name}: accuracy under PGD-{args.attack.steps}")
    if out:
        print(f"written to {out}")


class _Job:
    """One attack on one set of images, for one model after another."""

    def __init__(self, args: settings.Evaluate, images: Images, attack: PGD, device: torch.device) -> None:
        self.args, self.images, self.attack = args, images, attack
        self.batches = Batches(images, args.compute.batch_size, seed=args.compute.seed, device=device, workers=args.compute.workers)

    def measure(self, name: str, model: Classifier) -> tuple[Report, dict[float, Rate]]:
        """Attack, and print the numbers."""
        fast_model = accelerate(model, dtype=torch.bfloat16 if self.args.compute.amp else None, compile=self.args.compute.compile)
        with bar(len(self.images), str(self.attack), "img") as shown:
            report = evaluate(
                model, self._batches(model), [self.attack], fast_model=fast_model, on_batch=lambda found: shown.update(len(found))
            )
        print(f"{name} on {self.images.name} ({self.args.data.split})")
        for attack, rate in report.rates().items():
            print(f"  {attack:<28} {rate}")
        rates: dict[float, Rate] = {}
        if self.args.attack.curve:
            with bar(len(self.images), "curve", "img") as shown:
                again = partial(self._batches, model)
                rates = curve(model, again, self.attack, self.args.attack.curve, fast_model=fast_model, on_batch=shown.update)
        for eps, rate in rates.items():
            print(f"  at eps = {eps:<19.4g} {rate}")
        sys.stdout.flush()
        return report, rates

    def _batches(self, model: Classifier) -> Iterator[Batch]:
        """The images, with labels as the model numbers its classes."""
        outputs = model.outputs_for(self.images.classes, self.images.name).to(self.batches.device)
        return (replace(batch, y=outputs[batch.y]) for batch in self.batches.epoch(0))

    def write(self, out: Path, model: Classifier, report: Report, rates: dict[float, Rate]) -> None:
        """Records first, the report last: a folder with a report is complete."""
        files.write_text(out / "records.jsonl", "".join(json.dumps(record.to_json()) + "\n" for record in report.records))
        if rates:
            points = [{"eps": eps, **rate.to_json()} for eps, rate in rates.items()]
            norm = type(self.attack.threat.norm).__name__
            files.write_json(out / "curve.json", {"attack": f"PGD-{self.attack.steps}", "norm": norm, "points": points})
        shown = hold_out(self.images, min(10, len(self.images)), seed=0)[1]  # one of each class, where there are ten
        outputs = model.outputs_for(self.images.classes, self.images.name).to(self.batches.device)
        for batch in replace(self.batches, images=self.images.subset(shown)).epoch(0):
            x_adv = self.attack(model, batch.x, outputs[batch.y])
            scale = max(1, 96 // batch.x.shape[-1])
            pictures.save(out / "examples.png", pictures.sheet([batch.x, x_adv, pictures.amplified(x_adv - batch.x)], scale))
        files.write_json(
            out / "report.json",
            {
                "settings": dataclasses.asdict(changed(self.args, eps=self.attack.threat.eps)),
                "environment": environment(),
                "dataset": self.images.name,
                "accuracies": {name: rate.to_json() for name, rate in report.rates().items()},
            },
        )
