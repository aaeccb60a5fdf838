"""What a constructed set says about itself: a card in Markdown, and a sheet of pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from robustlab import files, pictures
from robustlab.construction import ConstructedSet, SourceModel
from robustlab.data.imageset import first_of_each_class, positions_of
from robustlab.markup import markdown_code, markdown_text
from robustlab.models.checkpoints import reached
from robustlab.pixels import to_float
from robustlab.reports.tables import markdown, percent

TITLES = {
    "D_rand": "perturbed towards a class drawn at random, and labelled as it",
    "D_det": "perturbed towards the class after their own, and labelled as it",
    "D_R": "with the features that a robust model sees in them, and their own labels",
    "D_NR": "with the features that a standard model sees in them, and their own labels",
}


def write_card(made: ConstructedSet, folder: str | os.PathLike[str], command: str) -> None:
    """Write ``card.md`` and ``contact.png`` beside a set.

    Args:
        made: the finished set.
        folder: where to write, usually the set's own.
        command: makes the set again.
    """
    folder = Path(folder)
    index = first_of_each_class(made.original)
    pictures.save(folder / "contact.png", contact_sheet(made, index))
    files.write_text(folder / "card.md", card(made.kind, made.manifest, made.model, command))


def card(kind: str, manifest: Mapping[str, Any], source: SourceModel, command: str) -> str:
    """The card of a constructed set, in Markdown.

    Args:
        kind: one of ``TITLES``.
        manifest: what the set's ``manifest.json`` holds, see ``robustlab.data.constructed``.
        source: the model that it was made through.
        command: makes the set again.
    """
    lines = [
        f"# {kind}: {manifest['n']:,} images of {markdown_text(manifest['settings']['source']['name'])}, {TITLES[kind]}",
        "",
        f"Made by {markdown_code(command)}. Method: Ilyas et al. (2019), Adversarial Examples Are Not Bugs, They Are Features.",
        "",
        markdown(("", ""), [*_settings(manifest), *_model(manifest, source), *_facts(manifest)]),
        "",
    ]
    return "\n".join(lines)


def contact_sheet(made: ConstructedSet, index: Tensor) -> Tensor:
    """Original, constructed and amplified difference of some images, a column each, with their labels.

    Args:
        made: the finished set.
        index: positions in it, int64 ``(B,)``.

    Returns:
        One picture, float ``(3, H, W)`` in [0, 1].
    """
    source, columns, classes = made.original, made.facts, made.images.classes
    before, after = to_float(source.fetch(index).cpu()), to_float(made.images.fetch(index))
    rows = [("original", before), ("constructed", after), ("difference, amplified", pictures.amplified(after - before))]
    if "start" in columns:
        start = (positions_of(source) == columns["start"][index][:, None]).int().argmax(1)
        rows = [("features of", before), ("started from", to_float(source.fetch(start).cpu())), rows[1], rows[2]]
    heads = [classes[int(old)] for old in columns["label"][index]]
    feet = [classes[int(new)] for new in columns["y"][index]]
    scale = max(1, 96 // before.shape[-1])
    return pictures.titled(rows, heads, [f"label: {name}" for name in feet], scale)


def _settings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the set was made."""
    args = manifest["settings"]
    size = "x".join(map(str, manifest["shape"]))
    return [
        ("images", f"{manifest['n']:,} of {size}, stored as {manifest['dtype']}, in {len(manifest['shards'])} shards"),
        ("classes", markdown_text(_listed(manifest["classes"]), pipes=False)),
        ("construction", ", ".join(f"{name} {value}" for name, value in args["construction"].items())),
        ("seed", str(args["seed"])),
        ("steps computed in", f"{args['compute_dtype']} on {args['device']}; success is judged in float32"),
    ]


def _model(manifest: Mapping[str, Any], source: SourceModel) -> list[tuple[str, str]]:
    """Through which model, and what that reaches."""
    model = manifest["settings"]["model"]
    measured = f"clean {percent(source.clean.value)}, {source.attack} {percent(source.robust.value)}"
    rows = [
        ("source model", f"{markdown_text(source.name, pipes=False)} ({model['arch']}), weights sha256 {model['sha256'][:16]}"),
        (f"its accuracy on {source.clean.n} of them", measured),
    ]
    if source.record:
        rows.append(("its record", f"{reached(source.record)}, trained against {source.record['threat']}"))
    return rows


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured on the images."""
    construction, known = manifest["settings"]["construction"], manifest["facts"]
    before, after = known["taken_for_label_before_storing"], known["taken_for_label"]
    success = "targeted success rate: classified as the new label" if "eps" in construction else "classified as its label"
    names = {
        "added_by_storing": "L2 that storing added",
        "moved": f"moved, {construction.get('norm', '')}",
        "distance_before": "relative feature distance at the start",
        "distance": "relative feature distance at the end",
    }
    return [
        (f"{success}, by the source model", f"{percent(before)} as found, {percent(after)} as stored"),
        ("classified as its original label, as stored", percent(known["taken_for_original_label"])),
        ("label equals the original one", percent(known["label_is_original"])),
        *(
            (names.get(name, name), f"mean {value['mean']:.4g}, largest {value['largest']:.4g}")
            for name, value in known.items()
            if isinstance(value, dict)
        ),
        ("sha256 of the shards' hashes", manifest["sha256"]),
    ]


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
