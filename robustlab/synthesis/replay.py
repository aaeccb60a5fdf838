"""Replay files: the JSON beside a picture that holds what makes its bytes again, and the checks that nothing else is taken instead.

A replay file names the task with all its settings, none of them left to a default; the hashes of models, images and the picture; the
judges; and the versions that bytes may depend on.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL
import torch

from robustlab import __version__, files
from robustlab.data.fingerprint import fingerprint, identity
from robustlab.data.imageset import Images, positions_of
from robustlab.errors import UserError
from robustlab.models.digest import digest
from robustlab.options import words
from robustlab.paths import names_function, place_of
from robustlab.records import environment

FORMAT = "robustlab-synthesis-1"
IN_SPLIT = "in the whole split"
VERSIONS = ("robustlab", "python", "torch", "torchvision", "pillow", "threads")  # that bytes may depend on
KINDS = {"settings": dict, "models": dict, "data": dict, "versions": dict, "picture": str}  # of what every replay file holds


def read_replay(path: Path) -> dict[str, Any]:
    """What a replay file holds.

    Raises:
        UserError: there is none, or it is damaged.
    """
    found = files.read_json(path, "a replay file of robustlab synthesize")
    if found.get("format") != FORMAT or not all(isinstance(found.get(name), kind) for name, kind in KINDS.items()):
        raise UserError(f"{path} is no replay file of robustlab synthesize")
    judges = found.get("judges", {})  # older files have none
    files.check_kinds({"judges": judges}, {"judges": dict}, path, "a replay file of robustlab synthesize")
    files.check_kinds(judges, dict.fromkeys(judges, str), path, "the names of judges")
    for name in (found["settings"].get("model"), found["settings"].get("judge"), *judges.values()):
        if names_function(name):
            raise UserError(f"{path} names {name}, a function, and no file may say what is run: make the picture by its own command again")
    return found


def checked_place(path: str | os.PathLike[str]) -> Path:
    """A place for a picture with a replay file beside it.

    Raises:
        UserError: no PNG file, or something else lies where the replay file would go.
    """
    place = place_of(path)
    if place.suffix.lower() != ".png" or place.is_dir():
        raise UserError(f"a sheet of pictures is a PNG file, such as sheet.png, not {place}")
    beside = place.with_suffix(".json")
    if beside.exists() and (not beside.is_file() or files.read_json(beside, "a replay file").get("format") != FORMAT):
        raise UserError(f"{beside}, where the replay file would go, is something else: choose another name for the picture")
    return place


def record_of(
    settings: Mapping[str, Any],
    models: Mapping[str, str],
    judges: Mapping[str, str],
    data: Mapping[str, Any],
    images: Sequence[int],
    places: Sequence[int],
    numbers: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What a replay file holds, but for the hash of the picture.

    Args:
        settings: all of them, by name.
        models: digests, by the names of models and judges.
        judges: who judged each model's pictures, by their names.
        data: the sets of images, see ``data_of``.
        images: positions of the images that were worked on.
        places: those by which images are known, and random draws made: in their whole split, see ``counts_in_split``.
        numbers: what was measured, by model.
    """
    place = settings.get("data") is not None or isinstance(settings.get("images"), list)
    return {
        "format": FORMAT,
        "command": command(settings) if place else None,  # a set in memory has no place that could be typed
        "settings": plain(settings),
        "models": dict(models),
        "judges": dict(judges),
        "data": dict(data),
        "images": list(places),
        **({} if list(images) == list(places) else {"places": IN_SPLIT}),
        "numbers": {name: {key: _finite(value) for key, value in each.items()} for name, each in numbers.items()},
        "picture": "",
        "versions": versions(),
    }


def counts_in_split(record: Mapping[str, Any]) -> bool:
    """Whether a replay file counts images in their whole split, where that differs from the images that were given; older ones count in
    these, random draws too."""
    return record.get("places") == IN_SPLIT


def command(settings: Mapping[str, Any]) -> str:
    """What to type for these settings, ``task`` among them."""
    rest = {name: value for name, value in settings.items() if name != "task"}
    return shlex.join(["robustlab", "synthesize", str(settings["task"]), *words(rest)])


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them and a command line reads them: infinity is a word."""
    return {name: "inf" if value == math.inf else list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _finite(value: float) -> float | None:
    """JSON has no infinity, which is the PSNR of equal images."""
    return value if math.isfinite(value) else None


def data_of(images: Images) -> dict[str, Any]:
    """What tells one set of images from another."""
    return {"name": images.name, "n": len(images), "fingerprint": fingerprint(images)}


def versions() -> dict[str, Any]:
    """Of everything that the bytes of a picture may depend on, as far as it is known."""
    return {**environment(), "robustlab": __version__, "pillow": PIL.__version__}


def check_same(what: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to make pictures again of other models or data.

    Args:
        what: ``"models"`` or ``"data"``.
        there: their hashes in the replay file.
        here: their hashes now, by the same names.

    Raises:
        UserError: with the first that is not the same.
    """
    different = [name for name in here if there.get(name) != here[name]]
    if different:
        raise UserError(f"the replay file was made with other {what}: {different[0]} is not the same here")


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Why the picture of one replay file differs from that of another, in words; None where the bytes are the same."""
    if there["picture"] == here["picture"]:
        return None
    before, now = there["versions"], here["versions"]
    changed = [f"{name} {before.get(name)} there, {now[name]} here" for name in VERSIONS if before.get(name) != now[name]]
    return "; ".join(changed) or "the processors may compute differently"


def identity_of(task: str, what: Mapping[str, Any]) -> dict[str, Any]:
    """What pictures depend on, wherever models and images lie, in values that JSON holds.

    Args:
        task: its name.
        what: the arguments of ``synthesize``, with models and judge by name, and images opened or a list of picture files.
    """
    own = isinstance(what["images"], list)
    rest = {name: value for name, value in what.items() if name not in ("model", "images", "judge", "train", "device")}
    return {
        "task": task,
        "settings": plain(rest),
        "models": [digest(model) for model in what["model"].values()],
        "judge": [digest(model) for model in (what["judge"] or {}).values()],
        "images": [_sha256(file) for file in what["images"]] if own else identity(what["images"]),
        **({} if own or _is_whole(what["images"]) else {"places": IN_SPLIT}),  # before, they were counted within the images
        "train": None if what["train"] is None else identity(what["train"]),
        "device": what["device"].type,
    }


def _is_whole(images: Images) -> bool:
    return bool((positions_of(images) == torch.arange(len(images))).all())


def _sha256(file: str) -> str | None:
    """Of a picture file; None where it cannot be read, which whoever opens the picture tells."""
    try:
        return files.sha256(file)
    except (OSError, ValueError):
        return None
