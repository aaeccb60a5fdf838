"""``robustlab certify``: radii that are proved by randomized smoothing; see ``robustlab.smoothing``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustlab import files
from robustlab.commands import settings
from robustlab.commands.common import choose_device, images_for, load_model, required_model, short_names
from robustlab.models.matching import check_fits
from robustlab.reports.smoothing import certified_plot
from robustlab.smoothing import certify


def run(args: settings.Certify) -> None:
    """Print the certified accuracies; with ``--out`` also write them, a record of each image, and the curve."""
    noise, compute, out = args.smoothing, args.compute, args.output.out
    name = required_model(args.model)
    if out is not None:
        files.check_writable(out)
    device = choose_device(compute.device, compute.threads)
    model = load_model(name, args.model).to(device)
    images = images_for({name: model}, args.data, args.data.split)
    check_fits(model, images, name, chosen=bool(args.data.classes))
    drawn: dict[str, Any] = {
        "n0": noise.n0,
        "n": noise.n,
        "batch_size": compute.batch_size,
        "seed": compute.seed,
        "workers": compute.workers,
    }
    found = certify(model, images, noise.sigma, alpha=noise.alpha, out=out, **drawn)
    print(f"{name} on {images.name} ({args.data.split}), sigma {noise.sigma:g}, {noise.n:,} draws, alpha {noise.alpha:g}")
    print(found.lines(found.rows(noise.radii)))
    if out is not None:
        curves = {f"{short_names([name])[name]}, sigma {noise.sigma:g}": found}
        certified_plot(Path(out) / "curve.png", curves, title=f"{images.name}: certified accuracy")
        print(f"written to {out}")
