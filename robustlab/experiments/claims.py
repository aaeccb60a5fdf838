"""The claims of the talks by name, and the one way to test them: run the experiment, or what is missing of it, and write its tables."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from robustlab import files
from robustlab.devices import choose_device, computes_bfloat16
from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.finding import Finding
from robustlab.extras import check_installed
from robustlab.interrupts import interruptible
from robustlab.paths import place_of
from robustlab.records import environment
from robustlab.reports.orders import order_plot
from robustlab.reports.plots import heat_map, line_plot

# In the order of the talk; imported when asked for.
EXPERIMENTS: dict[str, str] = {
    "linear-bias": "which solution gradient descent picks: every claim on optimization bias and geometry, with its exact solution",
    "mislabelled": "train on D_rand and D_det, test on ordinary images",
    "two-classes": "train on dogs labelled cat and cats labelled dog, test on ordinary images",
    "robustified": "standard training on D_R gives a robust model, on D_NR it does not",
    "transfer": "adversarial examples across architectures, and what each learns from D_det",
    "data-size": "ordinary and robust accuracy over the number of training images",
    "capacity": "width of the network, for standard and for robust training",
    "usefulness": "how useful each feature is, with and without an adversary, in standard and robust networks",
    "known-features": "which features each constructed set teaches, on shapes, where the features are known",
    "smoothing": "why smoothing works: what a smoothed classifier goes by, on shapes, and with data what noise costs and what it proves",
    "regimes": "where robust features win and where non-robust ones do: eps, source, augmentation",
}
# Of graphs, in modules of ``experiments.graphs``; ``data`` is a file of one's own there.
GRAPHS: dict[str, str] = {
    "communities": "overlap of every method over the signal-to-noise ratio, five communities, Laplacians, a graph of one's own",
    "max-cut": "cuts of random regular graphs by every method, as P against .7632",
    "hidden-structure": "a clique of size c times the root of n: degrees, spectral, learned",
    "landscape": "linear graph networks from many starts: how far apart the local minima are, and how far from the spectral method",
    "matching": "find the same node in two noisy copies of a graph: every method of quadratic assignment, and a learned one",
    "edge-flips": "communities of graphs whose edges are flipped, at random or against a network: which method holds on longest",
    "tours": "short tours through cities: a network that scores edges, heuristics, and the shortest tours",
    "metric-spaces": "how far apart metric spaces are: Gromov-Hausdorff between its bounds, Gromov-Wasserstein",
    "expressive-power": "which graphs each method and class of networks tells apart: small graphs, skip links, hard pairs, and their order",
    "universality": "which functions of graphs each class of networks approximates: a ReLU layer on its functions, with the least error",
    "graph-classification": "classes of graphs by GIN, sGNN, 2-IGN and Ring-GNN: the papers' way to judge beside nested folds",
}
EXPERIMENTS |= GRAPHS
WITHOUT_DATA = ("known-features", "smoothing", "linear-bias", *GRAPHS)  # or with a part that needs none
# Packages of the extras that an experiment needs in the end.
NEEDS = {
    "communities": ("scipy", "networkx"),
    "max-cut": ("scipy",),
    "hidden-structure": ("scipy",),
    "landscape": ("scipy",),
    "matching": ("scipy",),
    "edge-flips": ("scipy",),
    "tours": ("scipy",),
    "metric-spaces": ("scipy", "cvxpy"),
    "expressive-power": ("scipy", "networkx"),
    "universality": ("scipy", "networkx"),
}
# What most experiments have, by the name that all share; an experiment with several of them calls them ``sources``, ``archs``.
SHARED = {
    "limit": "n",
    "model": "source",
    "eps": "eps",
    "steps": "steps",
    "arch": "arch",
    "epochs": "epochs",
    "seeds": "seeds",
    "claim": "claims",
}


def reproduce(
    name: str,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "runs/reproduce",
    scale: str = "small",
    device: str | torch.device | None = None,
    threads: int | None = None,
    bfloat16: bool | None = None,
    say: Callable[[str], object] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> Finding:
    """Run an experiment, or what is missing of it, and write its tables to ``out/NAME.md``, its numbers to ``out/NAME.json`` and its
    plots beside them.

    Stopped anywhere, the same call goes on where it was; several processes may share a folder.

    Args:
        name: one of ``EXPERIMENTS``.
        data: where the images lie; not needed by an experiment on *shapes*, on linear problems or on graphs, which take a file of
            one's own.
        out: folder of all experiments, which share what they train and construct.
        scale: ``small``, for two CPU cores, or ``full``, for a GPU.
        device: where to compute: a name for ``devices.choose_device``, or a device; the best one here where left out.
        bfloat16: train and attack in it; where left out, where that is fast. Success is judged in float32.
        say: called with a line of text when a piece of work begins.
        stop: asked between steps; after a true answer the work ends with KeyboardInterrupt.
        changes: settings of the experiment, by the names in ``SHARED`` or by those of its ``Config``: ``epochs=5, arch="resnet18"``.

    Raises:
        UserError: an unknown experiment or setting, or data, models and settings that do not fit.
    """
    check_experiment(name, data)
    config = configured(name, scale, changes)
    device, began, out = choose_device(device, threads), time.monotonic(), place_of(out)
    amp = computes_bfloat16(device) if bfloat16 is None else bfloat16
    with interruptible() as noted:
        cache = ExperimentCache(out, None if data is None else os.fspath(data), device, amp, say, lambda: bool(noted) or stop())
        found: Finding = _module(name).run(cache, config)
    files.write_text(out / f"{name}.md", "\n\n".join(str(table) for table in found.tables) + "\n")
    for title, grid in found.maps.items():
        heat_map(out / f"{title}.png", grid)
    for title, plot in found.lines.items():
        line_plot(out / f"{title}.png", plot.lines, plot.axes, title=plot.title, references=plot.references)
    for title, order in found.orders.items():
        order_plot(out / f"{title}.png", order)
    record = {"config": dataclasses.asdict(config), "found": found.numbers, "environment": environment()}
    files.write_json(out / f"{name}.json", {**record, "seconds_of_the_last_call": round(time.monotonic() - began)})
    return found


def check_experiment(name: str | None, data: object) -> None:
    """Refuse what is no experiment, one on images without any, and one that needs a package which is not installed.

    Raises:
        UserError: with the nearest name, or all of them; with the package.
    """
    if name is None:
        raise UserError(f"which experiment? One of: {', '.join(f'{name} ({what})' for name, what in EXPERIMENTS.items())}")
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    if data is None and name not in WITHOUT_DATA:
        raise UserError(f"the experiment {name!r} needs images: name their folder or file by `data`")
    check_installed(NEEDS.get(name, ()), f"the experiment {name!r}")


def configured(name: str, scale: str = "small", changes: Mapping[str, Any] | None = None) -> Any:
    """An experiment's configuration with some of its settings changed.

    Args:
        changes: by shared name or by field; one value also where the experiment has several; None changes nothing.

    Raises:
        UserError: an unknown scale, or a setting that this experiment does not have.
    """
    if scale not in ("small", "full"):
        raise unknown("scale", scale, ("small", "full"))
    module = _module(name)
    config = module.FULL if scale == "full" else module.Config()
    has = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    shared = {word: field if field in has else f"{field}s" for word, field in SHARED.items()}
    # A range of epochs is chosen from, not set.
    shared = {word: field for word, field in shared.items() if field in has and not (word == "epochs" and isinstance(has[field], tuple))}
    found = {}
    for word, value in (changes or {}).items():
        field = shared.get(word) or (word if word in has and word not in SHARED else None)
        if field is None and value is not None:
            raise UserError(f"the experiment {name!r} has no `{word}`; it has {', '.join(f'`{word}`' for word in shared)}")
        if field is not None and value is not None:
            found[field] = (value,) if isinstance(has[field], tuple) and not isinstance(value, tuple | list) else value
    return dataclasses.replace(config, **{field: tuple(value) if isinstance(value, list) else value for field, value in found.items()})


def _module(name: str) -> Any:
    package = "robustlab.experiments.graphs" if name in GRAPHS else "robustlab.experiments"
    return import_module(f"{package}.{name.replace('-', '_')}")
