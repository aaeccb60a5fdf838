"""Training of graph networks: it learns, it goes on to the same bytes, and its result is read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.sources import BlockModels, GivenGraphs
from robustlab.training import Stopped
from robustlab.training.graphs import GraphBatches, GraphTraining, classes_of_graphs, communities, halving, train_graphs

EASY = BlockModels(40, 2, 0.5, 0.05)
SHORT: dict[str, Any] = {"graphs": 24, "epochs": 3, "batch_size": 4}
ROOT = Path(__file__).parents[2]


def network(seed: int = 0) -> gnn.SGNN:
    return gnn.SGNN(2, width=4, depth=3, seed=seed)


def same(a: gnn.SGNN, b: gnn.SGNN) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def stop_after(steps: int) -> Any:
    left = [steps]

    def stop() -> bool:
        left[0] -= 1
        return left[0] <= 0

    return stop


def test_a_network_learns_communities_that_are_easy() -> None:
    before = network()
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    trained = train_graphs(before, EASY, graphs=320, epochs=2, lr=0.02)
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())
    assert trained.history[0]["train/overlap"] < trained.history[-1]["train/overlap"]
    unseen = BlockModels(40, 2, 0.5, 0.05, seed=1)(0, 20)
    assert communities(trained.network, unseen).metrics["overlap"].mean() > 0.8 > communities(before, unseen).metrics["overlap"].mean()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_training_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path, steps: int) -> None:
    whole = train_graphs(network(), EASY, out=tmp_path / "whole", **SHORT)
    with pytest.raises(Stopped):
        train_graphs(network(), EASY, out=tmp_path / "parts", stop=stop_after(steps), **SHORT)
    resumed = train_graphs(network(), EASY, out=tmp_path / "parts", resume=True, **SHORT)
    assert same(whole.network, resumed.network)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    clock = ("seconds", "graphs_per_second")
    lines = [[{k: v for k, v in line.items() if k not in clock} for line in each.history] for each in (whole, resumed)]
    assert lines[0] == lines[1] and [line["epoch"] for line in lines[0]] == [0, 1, 2]


def test_a_training_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    code = f"""
import torch
torch.set_num_threads(1)
from robustlab import gnn
from robustlab.gnn.sources import BlockModels, GivenGraphs
from robustlab.training import trainer
from robustlab.training.graphs import train_graphs
trainer.SAVE_EVERY = -1.0
train_graphs(gnn.SGNN(2, width=4, depth=3), BlockModels(40, 2, 0.5, 0.05), out={str(out)!r}, graphs=40000, epochs=2, batch_size=4)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        limit = time.monotonic() + 60
        while not (out / "last.pt").exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    saved = torch.load(out / "last.pt", weights_only=True)
    assert saved["epoch"] == 0 and saved["step"] > 0
    until, settings = saved["step"] + 2, {"graphs": 40000, "epochs": 2, "batch_size": 4}
    weights: list[dict[str, torch.Tensor]] = []
    for place, resume, left in ((out, True, 2), (tmp_path / "whole", False, until)):
        with pytest.raises(Stopped):
            train_graphs(network(), EASY, out=place, resume=resume, stop=stop_after(left), **settings)
        weights.append(torch.load(place / "last.pt", weights_only=True))
    assert weights[0]["step"] == weights[1]["step"] == until
    assert all(torch.equal(weights[0]["model"][name], value) for name, value in weights[1]["model"].items())


def test_the_result_is_read_back(tmp_path: Path) -> None:
    trained = train_graphs(network(), EASY, out=tmp_path / "run", **SHORT)
    graphs = EASY(100, 2)
    again = gnn.load_network(tmp_path / "run")
    assert torch.equal(again(graphs), trained.network(graphs)) and trained.folder == tmp_path / "run"
    about = json.loads((tmp_path / "run" / "model.json").read_text())["about"]
    assert about["source"] == {"kind": "BlockModels", "n": 40, "k": 2, "inside": 0.5, "between": 0.05, "seed": 0}
    assert about["training"]["graphs"] == 24 and about["loss"] == "communities"
    finished = train_graphs(network(), EASY, out=tmp_path / "run", resume=True, **SHORT)
    assert same(finished.network, trained.network) and len(finished.history) == 3


def test_without_a_folder_the_result_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_memory = train_graphs(network(), EASY, ema=0.9, **SHORT)
    assert not list(tmp_path.iterdir())
    assert same(in_memory.network, train_graphs(network(), EASY, ema=0.9, out="run", **SHORT).network)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_graphs(network(), EASY, out=out, **SHORT)
    with pytest.raises(UserError, match="other settings .*lr: 0.004 there, 0.01 here"):
        train_graphs(network(), EASY, out=out, resume=True, lr=0.01, **SHORT)
    with pytest.raises(UserError, match="source.between: 0.05 there, 0.1 here"):
        train_graphs(network(), BlockModels(40, 2, 0.5, 0.1), out=out, resume=True, **SHORT)
    with pytest.raises(UserError, match="holds a run already"):
        train_graphs(network(), EASY, out=out, **SHORT)


def test_settings_that_make_no_training_are_refused() -> None:
    with pytest.raises(UserError, match="10 graphs in 3 epochs do not fill a batch of 4"):
        GraphTraining(graphs=10, epochs=3)
    with pytest.raises(UserError, match="`schedule` must be one of constant, one-cycle"):
        GraphTraining(schedule="linear")


def test_a_learning_rate_is_halved_six_times() -> None:
    factors = [halving(k / 700) for k in range(700)]
    assert [factors.count(0.5**k) for k in range(7)] == [100] * 7


def test_every_graph_is_seen_once_and_batches_can_begin_anywhere() -> None:
    batches = GraphBatches(EASY, 2, 3, torch.device("cpu"))
    keys = [batch.keys.tolist() for n in range(2) for batch in batches.epoch(n)]
    assert keys == [EASY(2 * i, 2).keys.tolist() for i in range(6)] and len({k for pair in keys for k in pair}) == 12
    assert [batch.keys.tolist() for batch in batches.epoch(1, start=1)] == keys[4:]


# A finite set of graphs with a class each


def sparse_and_dense(count: int = 20) -> gnn.GraphBatch:
    """Graphs of 8 to 12 nodes, every second one dense."""
    graphs = [gnn.erdos_renyi(8 + i % 5, 0.5 if i % 2 else 0.25, seed=i) for i in range(count)]
    return gnn.side_by_side(graphs).labelled(torch.arange(count) % 2)


def gin(seed: int = 0) -> gnn.GIN:
    return gnn.GIN(2, width=8, depth=2, seed=seed)


def judge(model: torch.nn.Module) -> dict[str, float]:
    assert not model.training and not torch.is_grad_enabled()
    outcome = classes_of_graphs(model, sparse_and_dense(40))
    return {"accuracy": float(outcome.metrics["accuracy"].double().mean())}


def test_graphs_are_told_apart_by_their_class_and_judged_after_every_epoch(tmp_path: Path) -> None:
    source = GivenGraphs(sparse_and_dense())
    asked: dict[str, Any] = {"graphs": 400, "epochs": 4, "batch_size": 10, "lr": 0.01, "optimizer": "adam"}
    trained = train_graphs(gin(), source, classes_of_graphs, judge=judge, out=tmp_path / "run", **asked)
    last = trained.history[-1]
    with torch.no_grad():
        assert last["train/accuracy"] > 0.8 and last["val/accuracy"] == judge(trained.network)["accuracy"] > 0.7
    assert [line["epoch"] for line in trained.history] == [0, 1, 2, 3] and all("val/accuracy" in line for line in trained.history)
    told = json.loads((tmp_path / "run" / "model.json").read_text())["about"]
    assert told["source"]["count"] == 20 and told["loss"] == "classes_of_graphs"
    blind = train_graphs(gin(), source, classes_of_graphs, **asked)
    assert all(torch.equal(a, b) for a, b in zip(blind.network.state_dict().values(), trained.network.state_dict().values(), strict=True))


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_training_on_given_graphs_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path, steps: int) -> None:
    """Batches of 8 do not divide 20 graphs; BatchNorm has statistics of its own to keep."""
    asked: dict[str, Any] = {"graphs": 72, "epochs": 3, "batch_size": 8, "judge": judge}
    source = GivenGraphs(sparse_and_dense())
    whole = train_graphs(gin(), source, classes_of_graphs, out=tmp_path / "whole", **asked)
    with pytest.raises(Stopped):
        train_graphs(gin(), source, classes_of_graphs, out=tmp_path / "parts", stop=stop_after(steps), **asked)
    resumed = train_graphs(gin(), source, classes_of_graphs, out=tmp_path / "parts", resume=True, **asked)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()
    lines = [[line["val/accuracy"] for line in each.history] for each in (whole, resumed)]
    assert lines[0] == lines[1]
    other = GivenGraphs(sparse_and_dense().some(torch.arange(19)))
    with pytest.raises(UserError, match="source.count: 20 there, 19 here"):
        train_graphs(gin(), other, classes_of_graphs, out=tmp_path / "parts", resume=True, **asked)


def test_classes_of_graphs_need_a_label_of_each() -> None:
    for graphs in (EASY(0, 2), gnn.erdos_renyi(5, 0.5)):
        with pytest.raises(UserError, match="needs the true label of each graph"):
            classes_of_graphs(gin(), graphs)
