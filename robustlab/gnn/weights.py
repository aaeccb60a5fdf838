"""A graph network's weights: ``NAME.safetensors``, which can run no code, beside ``NAME.json``, which says what network they are of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes

from robustlab import files
from robustlab.errors import UserError
from robustlab.gnn.networks import GraphNetwork, describe, from_description
from robustlab.models.checkpoints import tensors_beside, write_beside
from robustlab.models.description import check_finite, check_shapes
from robustlab.models.placement import apart, on_cpu
from robustlab.paths import place_of

FORMAT = "robustlab-graph-weights-1"
RUN_WEIGHTS = "model"  # what a training that ended leaves in its folder, without an ending


def save_network(stem: str | os.PathLike[str], network: GraphNetwork, about: Mapping[str, Any] | None = None) -> Path:
    """Write ``stem.safetensors`` and ``stem.json``.

    Args:
        stem: path without an ending.
        about: what else the JSON is to say, in values that it holds.

    Returns:
        Path of the JSON file.
    """
    description = describe(network)
    record = {"format": FORMAT, **description, "description_sha256": _hash(description), "about": dict(about or {})}
    return write_beside(place_of(stem), tensor_bytes(apart(on_cpu(network.state_dict()))), record)


def load_network(path: str | os.PathLike[str]) -> GraphNetwork:
    """A trained graph network, on the CPU and in evaluation mode.

    Args:
        path: either of the two files, or the folder of a training that ended.

    Raises:
        UserError: a file is missing or damaged, is not the one that the JSON was written for, or holds something else.
    """
    stem = _stem(place_of(path))
    source = stem.with_name(f"{stem.name}.json")
    record = files.read_json(source, "what is known of a graph network")
    if record.get("format") != FORMAT or not isinstance(record.get("sha256"), str):
        raise UserError(f"{source} does not describe a graph network (it has no format {FORMAT!r} or no sha256)")
    with torch.device("meta"):  # nothing of the size that a file says is made before its weights were seen to have it
        described = from_description(record, str(source))
    if record.get("description_sha256") != _hash(describe(described)):
        raise UserError(f"{source} is damaged or was changed: its description_sha256 is that of another network")
    weights = tensors_beside(stem, record)
    check_shapes(described, weights, f"{stem}.safetensors", f"the graph network {record['network']!r} that {source.name} describes")
    check_finite(weights, f"{stem}.safetensors")
    network = from_description(record, str(source))
    network.load_state_dict(weights)
    return network.eval()


def _stem(path: Path) -> Path:
    if path.is_dir():
        if not (path / f"{RUN_WEIGHTS}.json").is_file():
            raise UserError(f"{path} is a folder without {RUN_WEIGHTS}.json, which a training leaves there when it ends")
        return path / RUN_WEIGHTS
    if path.suffix not in (".json", ".safetensors"):
        raise UserError(f"a graph network is a .json or .safetensors file, or the folder of a training, got {path}")
    return path.with_suffix("")


def _hash(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
