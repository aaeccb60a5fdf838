"""A network's weights: ``NAME.safetensors``, which can run no code, beside ``NAME.json``, which says what they are and what they reach.

Training writes them into its run folder; those in ``folder()`` are the pretrained models, which are loaded by name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from robustlab import files
from robustlab.errors import UserError, unknown
from robustlab.models.classifier import Classifier
from robustlab.models.description import FIELDS, check_description, check_weights, describe, from_description, load_weights
from robustlab.models.placement import apart, on_cpu

FORMAT = "robustlab-weights-1"
RECORD = {  # of what every record holds, beside the network's description
    "sha256": str,
    "dataset": str,
    "recipe": str,
    "threat": str,
    "accuracies": dict,
    "n": int,
}
LARGEST = 25 * 10**6  # bytes: what a repository can carry of one model


@dataclass(frozen=True)
class Provenance:
    """Where weights come from and what they reach."""

    dataset: str
    recipe: str
    threat: str  # what they were trained against, such as "L2 eps=0.5", or "none"
    accuracies: Mapping[str, float]  # the attack's full name, or "clean", to percent right
    n: int  # examples behind each accuracy
    seed: int
    commit: str  # of the code that trained them
    details: Mapping[str, Any] = field(default_factory=dict)  # anything else worth keeping: hardware, seconds, command
    also: Sequence[Mapping[str, Any]] = ()  # accuracies on other images, each with its own "accuracies" and "n": see ``also_measured``


def save_weights(
    stem: str | os.PathLike[str], model: Classifier, provenance: Provenance, *, half: bool = False, release: bool = False
) -> Path:
    """Write ``stem.safetensors`` and ``stem.json``; the weights first, so that the JSON's sha256 never lies about them.

    Args:
        stem: path without an ending; its last part becomes the name of the weights.
        model: a classifier made by name.
        provenance: goes into the JSON as it is. Weights read back and saved again give the same bytes, so measure
            accuracies on what was read back.
        half: store parameters as float16; the statistics of BatchNorm stay float32.
        release: the weights are to ship with the project, in ``folder()``, and must be small enough for that.

    Returns:
        Path of the JSON file.

    Raises:
        UserError: more than 25 MB of weights to release, or a weight that float16 cannot hold.
    """
    stem = Path(stem)
    description = describe(model)
    content = tensor_bytes(apart(_stored(model, half)))
    if release and len(content) > LARGEST:
        advice = "" if half else "; half precision would halve that"
        raise UserError(f"the weights of {stem.name} take {len(content) / 1e6:.1f} MB, more than the 25 MB that can be released{advice}")
    hashed = {"dtype": "float16" if half else "float32", "description_sha256": description_hash(description)}
    return write_beside(stem, content, {"format": FORMAT, **description, **hashed, **asdict(provenance)})


def write_beside(stem: Path, content: bytes, record: Mapping[str, Any]) -> Path:
    """Write ``stem.safetensors`` and then ``stem.json``, the record with the sha256 of the first; gives the path of the second."""
    files.write_bytes(_beside(stem, ".safetensors"), content)
    files.write_json(_beside(stem, ".json"), {**record, "sha256": hashlib.sha256(content).hexdigest()})
    return _beside(stem, ".json")


def tensors_beside(stem: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of ``stem.safetensors``, which ``record``, that of ``stem.json``, was written for.

    Raises:
        UserError: the file is missing or damaged, or not that one.
    """
    weights = _beside(stem, ".safetensors")
    content = _bytes_of(weights)
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["sha256"]:
        said = f"its sha256 is {digest[:12]}..., but {stem.name}.json says {str(record['sha256'])[:12]}..."
        raise UserError(f"{weights} is damaged or was exchanged: {said}")
    return _tensors(content, weights)


def _stored(model: Classifier, half: bool) -> dict[str, Tensor]:
    tensors = on_cpu(model.state_dict())
    if half:
        tensors |= {name: tensors[name].half() for name, _ in model.named_parameters()}
        if not all(torch.isfinite(t).all() for t in tensors.values()):
            raise UserError("a weight is too large for half precision (65504) or is not finite; store the weights in float32")
    return tensors


def read_weights(path: str | os.PathLike[str]) -> Classifier:
    """The classifier of saved weights, in float32, from the path of either of its two files.

    Raises:
        UserError: a file is missing, damaged, or not the one that the JSON was written for; or the JSON's description of the network, its
            mean for one, was changed.
    """
    stem = Path(path).with_suffix("")
    record = read_record(_beside(stem, ".json"))
    weights, tensors = _beside(stem, ".safetensors"), tensors_beside(stem, record)
    _check_description(record, f"{stem}.json")
    check_weights(record, tensors, str(weights))
    return load_weights(from_description(record, f"{stem}.json"), tensors, str(weights))


def description_hash(description: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of what a record says of its network: a changed digit of the mean would make another one in silence."""
    known = {name: description.get(name) for name in FIELDS}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _check_description(record: Mapping[str, Any], source: str) -> None:
    check_description(record, source)
    if record.get("description_sha256") not in (None, description_hash(record)):  # older records have none
        names = ", ".join(FIELDS)
        changed = f"{source} is damaged or was changed: its description_sha256 is not that of its {names}"
        raise UserError(f"{changed}; if the change is meant, take description_sha256 out of it")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors by name in a ``.safetensors`` file of anybody.

    Raises:
        UserError: no such file, or a damaged one.
    """
    return _tensors(_bytes_of(Path(path)), Path(path))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return tensors_from(content)
    # Beside its own, what torch and the library raise for types and shapes that there are not.
    except (SafetensorError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is not a safetensors file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """The JSON beside weights.

    Raises:
        UserError: the file is missing or damaged, or does not describe weights.
    """
    if not path.is_file():
        raise UserError(f"cannot read {path}, which says what network the weights are for: {os.strerror(errno.ENOENT)}")
    what = "what is known of weights"
    record = files.read_json_value(path, what)
    if not isinstance(record, dict) or record.get("format") != FORMAT or "sha256" not in record:
        raise UserError(f"{path} does not describe the weights of a network (it has no format {FORMAT!r} or no sha256)")
    check_description(record, str(path))
    files.check_kinds(record, RECORD, path, what)
    also = record.setdefault("also", [])  # older records have none
    files.check_kinds(record, {"also": [dict]}, path, what)
    for one in also:
        files.check_kinds(one, {"accuracies": dict, "n": int}, path, what)
    for accuracies in (record["accuracies"], *(one["accuracies"] for one in also)):
        files.check_kinds(accuracies, dict.fromkeys(accuracies, float), path, "accuracies")
    return record


def also_measured(path: str | os.PathLike[str], accuracies: Mapping[str, float], n: int) -> None:
    """Add accuracies on other images to the JSON beside weights, such as those of a line-up, for which fewer are affordable.

    They take the place of earlier ones under the same names.

    Args:
        path: the JSON file.
        accuracies: the attack's full name, or "clean", to percent right, all on the same images.
        n: images behind each.

    Raises:
        UserError: the file is no such record; no accuracy, or one outside 0 to 100; ``n`` below 1.
    """
    if not accuracies or n < 1 or not all(0 <= value <= 100 for value in accuracies.values()):
        raise UserError(f"accuracies are percentages from 0 to 100 of n >= 1 images, got {dict(accuracies)} and n = {n}")
    record = read_record(Path(path))
    kept = [one for one in record["also"] if set(one["accuracies"]) != set(accuracies)]
    files.write_json(Path(path), {**record, "also": [*kept, {"accuracies": dict(accuracies), "n": n}]})


def reached(record: Mapping[str, Any]) -> str:
    """What a network reaches, in words: its accuracies, and of those on other images what is not among them."""
    first = record["accuracies"]
    others = [({name: value for name, value in one["accuracies"].items() if name not in first}, one["n"]) for one in record.get("also", ())]
    return "; ".join(_numbers(accuracies, n) for accuracies, n in [(first, record["n"]), *others] if accuracies)


def _numbers(accuracies: Mapping[str, float], n: int) -> str:
    return ", ".join(f"{what} {value:.1f} %" for what, value in accuracies.items()) + f" (n = {n:,})"


def folder() -> Path:
    """Where the pretrained models lie.

    It is ``$ROBUSTLAB_CHECKPOINTS``; else ``pretrained/`` of the package, which a wheel brings along; else ``checkpoints/`` of the
    project's tree; else of the current folder.
    """
    chosen = os.environ.get("ROBUSTLAB_CHECKPOINTS")
    if chosen:
        return Path(chosen)
    package = Path(__file__).parents[1]
    places = [package / "pretrained", package.parent / "checkpoints"]
    return next((place for place in places if place.is_dir()), Path("checkpoints"))


def pretrained(place: str | os.PathLike[str] | None = None) -> dict[str, dict[str, Any]]:
    """Names of the pretrained models in a folder, ``folder()`` where left out, with what their JSON says."""
    paths = sorted((folder() if place is None else Path(place)).glob("*.json"))
    return {path.stem: read_record(path) for path in paths if path.with_suffix(".safetensors").exists()}


def find_pretrained(name: str) -> Path:
    """The JSON file of a pretrained model by its name.

    Raises:
        UserError: nothing of that name; the message gives the nearest.
    """
    place = folder()
    known = [path.stem for path in place.glob("*.json")]
    if not known:
        raise UserError(f"no checkpoint {name!r}: it is not a file, and there is no pretrained model in {place}")
    if name not in known:
        raise unknown("checkpoint", name, known)
    return place / f"{name}.json"


def _beside(stem: Path, ending: str) -> Path:
    """``stem`` with an ending added; a dot in the name is no ending."""
    return stem.with_name(stem.name + ending)
