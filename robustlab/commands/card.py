"""What a constructed set says about itself: a card in Markdown, and a sheet of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from robustlab import pictures
from robustlab.data.constructed import facts, open_constructed
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.pixels import to_float

TITLES = {
    "D_rand": "perturbed towards a class drawn at random, and labelled as it",
    "D_det": "perturbed towards the class after their own, and labelled as it",
    "D_R": "with the features that a robust model sees in them, and their own labels",
    "D_NR": "with the features that a standard model sees in them, and their own labels",
}


@dataclass(frozen=True)
class Source:
    """The model behind a set.

    Attributes:
        clean, robust: what was measured on some images of the source data, clean and under ``attack``.
        record: what is known of released weights.
    """

    name: str
    clean: Rate
    robust: Rate
    attack: str
    record: dict[str, Any] | None


def render(kind: str, manifest: dict[str, Any], source: Source, command: str) -> str:
    """The card."""
    args, known = manifest["settings"], manifest["facts"]
    made, data = args["construction"], args["source"]
    size = "x".join(map(str, manifest["shape"]))
    lines = [
        f"# {kind}: {manifest['n']:,} images of {data['name']}, {TITLES[kind]}",
        "",
        f"Made by `{command}`. Method: Ilyas et al. (2019), Adversarial Examples Are Not Bugs, They Are Features.",
        "",
        "| | |",
        "| --- | --- |",
        f"| images | {manifest['n']:,} of {size}, stored as {manifest['dtype']}, in {len(manifest['shards'])} shards |",
        f"| classes | {_listed(manifest['classes'])} |",
        f"| construction | {', '.join(f'{name} {value}' for name, value in made.items())} |",
        f"| seed | {args['seed']} |",
        f"| steps taken in | {args['compute_dtype']} on {args['device']}; what was reached is judged in float32 |",
        f"| source model | {source.name} ({args['model']['arch']}), weights sha256 {args['model']['sha256'][:16]} |",
        f"| its accuracy on {source.clean.n} of them | clean {_percent(source.clean.value)}, {source.attack} "
        f"{_percent(source.robust.value)} |",
    ]
    if source.record:
        reached = ", ".join(f"{name} {value} %" for name, value in source.record["accuracies"].items())
        lines.append(f"| its record | {reached} (n = {source.record['n']}), trained against {source.record['threat']} |")
    before, after = known["taken_for_label_before_storing"], known["taken_for_label"]
    told = "fooling rate: the model takes the image for its new label" if "eps" in made else "the model takes the image for its label"
    lines += [
        f"| {told} | {_percent(before)} as found, {_percent(after)} as stored |",
        f"| taken for the original label, as stored | {_percent(known['taken_for_original_label'])} |",
        f"| label equals the original one | {_percent(known['label_is_original'])} |",
    ]
    names = {
        "added_by_storing": "L2 that storing added",
        "moved": f"moved, {made.get('norm', '')}",
        "distance_before": "relative feature distance at the start",
        "distance": "relative feature distance at the end",
    }
    lines += [
        f"| {names.get(name, name)} | mean {value['mean']:.4g}, largest {value['largest']:.4g} |"
        for name, value in known.items()
        if isinstance(value, dict)
    ]
    return "\n".join([*lines, f"| sha256 of the shards' hashes | {manifest['sha256']} |", ""])


def contact_sheet(folder: Path, manifest: dict[str, Any], source: Images, index: Tensor) -> Tensor:
    """Original, constructed and amplified difference of some images, a column each, with their labels.

    Args:
        index: positions in the source.
    """
    made = open_constructed(folder)
    columns = facts(folder)
    before, after = to_float(source.fetch(index).cpu()), to_float(made.fetch(index))
    rows = [("original", before), ("constructed", after), ("difference, amplified", pictures.amplified(after - before))]
    if "start" in columns:
        start = columns["start"][index]
        rows = [("features of", before), ("started from", to_float(source.fetch(start).cpu())), rows[1], rows[2]]
    classes = manifest["classes"]
    heads = [classes[int(old)] for old in columns["label"][index]]
    feet = [classes[int(new)] for new in columns["y"][index]]
    scale = max(1, 96 // before.shape[-1])
    return pictures.titled([(name, row) for name, row in rows], heads, [f"label: {name}" for name in feet], scale)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
