"""A graph network's files: read back as they were written, and refused when they were changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn import weights
from robustlab.gnn.weights import load_network, save_network


def saved(folder: Path) -> tuple[gnn.SGNN, Path]:
    network = gnn.SGNN(2, width=4, depth=2, seed=3)
    return network, save_network(folder / "model", network, {"graphs": 7})


def test_a_network_comes_back_from_either_file_or_the_folder(tmp_path: Path) -> None:
    network, path = saved(tmp_path)
    assert json.loads(path.read_text())["about"] == {"graphs": 7}
    graphs = gnn.erdos_renyi(20, 0.2)
    for place in (path, path.with_suffix(".safetensors"), tmp_path):
        again = load_network(place)
        assert not again.training and torch.equal(again(graphs), network(graphs))


def test_what_was_changed_or_is_missing_is_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    record = json.loads(path.read_text())
    tensors = path.with_suffix(".safetensors")

    def written(**changes: object) -> None:
        path.write_text(json.dumps({**record, **changes}))

    other = [*record["operators"][:-1], {"operator": "Identity"}]
    for changes, message in (
        ({"format": "x"}, "does not describe a graph network"),
        ({"operators": other}, "its description_sha256 is that of another network"),
        ({"sha256": "0" * 64}, "is damaged or was exchanged"),
        ({"depth": 3}, "its description_sha256"),
    ):
        written(**changes)
        with pytest.raises(UserError, match=message):
            load_network(path)
    written()
    gnn.save_network(tmp_path / "other", gnn.SGNN(2, width=5, depth=2))
    tensors.write_bytes((tmp_path / "other.safetensors").read_bytes())
    written(sha256=json.loads((tmp_path / "other.json").read_text())["sha256"])
    with pytest.raises(UserError, match="does not fit the graph network 'sgnn' that model.json describes"):
        load_network(path)
    tensors.unlink()
    with pytest.raises(UserError, match="cannot read the weights"):
        load_network(path)
    with pytest.raises(UserError, match="got .*last.pt"):
        load_network(tmp_path / "last.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a folder without model.json"):
        load_network(tmp_path / "empty")


def test_a_description_of_a_huge_network_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash can be made by anybody, so the weights decide first."""
    _, path = saved(tmp_path)
    huge = {**json.loads(path.read_text()), "width": 9_000, "depth": 900}
    description = {name: huge[name] for name in ("network", "out", "operators", "features", "width", "depth", "linear")}
    huge["description_sha256"] = weights._hash(description)
    path.write_text(json.dumps(huge))
    with pytest.raises(UserError, match="does not fit the graph network"):
        load_network(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    network = gnn.SGNN(2, width=4, depth=2)
    with torch.no_grad():
        network.last.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="NaN, infinite"):
        load_network(save_network(tmp_path / "model", network))
