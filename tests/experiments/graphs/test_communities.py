"""The experiment on communities: every part makes its table, nothing is measured twice, a graph of one's own, a network that joins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustlab.commands import main
from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.graphs import communities
from robustlab.experiments.graphs.communities import GIVEN, Config, Learned, Task, finders, karate, run, without_root
from robustlab.gnn.generators import stochastic_block_model
from robustlab.gnn.networks import SGNN
from robustlab.training.graphs import train_graphs

SMALL = Config(n=100, degree=4.0, differences=(7.0, 6.0), seeds=2, five=1, methods=("bethe hessian", "adjacency"))


def test_every_part_makes_its_table(tmp_path):
    found = run(ExperimentCache(tmp_path), SMALL)
    titles = [table.title for table in found.tables]
    assert len(titles) == 5 and titles[-1].endswith("karate club")
    assert set(found.lines) == {"communities-assortative", "communities-dissociative"}
    ratios, five, laplacians, second, own = found.tables
    assert ratios.columns == ("communities", "ratio", "adjacency", "bethe hessian") and len(ratios.rows) == 4
    assert [row[0] for row in five.rows if row[3] == "here"] and ("GNN", ".17 ± .012", "", "Chen, Li and Bruna 2019") in five.rows
    assert len(laplacians.rows) == 6 and len(second.rows) == 4 and len(own.rows) == 2
    assert found.numbers["chance of five"] > 0 and len(found.numbers["five"]["adjacency"]) == 2


def test_nothing_is_measured_twice_and_the_model_is_given(tmp_path):
    config = Config(**{**vars(SMALL), "parts": ("ratios", "own"), "methods": (GIVEN, "bethe hessian")})
    first = run(ExperimentCache(tmp_path), config)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "measurements").iterdir()}
    assert run(ExperimentCache(tmp_path), config).numbers == first.numbers and len(made) == 9
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "measurements").iterdir()}
    assert min(first.numbers["ratios"][2]["overlaps"][GIVEN]) > 0.5


def test_a_trained_network_joins_where_it_is_for_the_task(tmp_path, monkeypatch):
    small = Learned(lambda k: SGNN(k, depth=2, width=4), (40, 0))
    monkeypatch.setattr(communities, "NETWORKS", {"small": small})
    config = Config(**{**vars(SMALL), "parts": ("ratios",), "methods": ("small",)})
    found = run(ExperimentCache(tmp_path), config)
    assert found.tables[0].columns[-1] == "small" and len(found.tables[0].rows) == 4
    trained = [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()]
    assert len(trained) == 1 and trained[0].startswith("graphs-small-2-communities-")
    five = Task(400, 5, 0.0, 18.0, 1)
    assert "small" not in finders(ExperimentCache(tmp_path), config, five)
    without = Config(**{**vars(config), "methods": (), "networks": False})
    assert "small" not in finders(ExperimentCache(tmp_path), without, config.tasks[0])


def test_a_network_goes_on_from_another_on_one_ratio(tmp_path, monkeypatch):
    def made(k):
        return SGNN(k, depth=2, width=4)

    monkeypatch.setattr(communities, "NETWORKS", {"all": Learned(made, (40, 0)), "one": Learned(made, (40, 0), "all")})
    config = Config(n=100, differences=(6.0, 4.5), seeds=2, parts=("ratios",), methods=("all", "one"))
    found, cache = run(ExperimentCache(tmp_path), config), ExperimentCache(tmp_path)
    assert [bool(row[-1]) for row in found.tables[0].rows] == [False, True, False, True]  # ratios 3 and 1.69
    assert len([path for path in (tmp_path / "models").iterdir() if path.is_dir()]) == 3
    first, second = communities.NETWORKS.values()
    hard = config.tasks[1]
    _, source, training = second.asked(hard)
    expected = train_graphs(first.trained(cache, hard, "all"), source, settings=training).network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.trained(cache, hard, "one").state_dict().items())
    other = Learned(made, (80, 0))
    before = second.settings(hard)
    monkeypatch.setattr(communities, "NETWORKS", {"all": other, "one": second})
    assert second.settings(hard) != before  # a change of the first is a change of the second


def test_the_reference_is_compared_where_the_graphs_are_the_same(tmp_path):
    config = Config(parts=("ratios",), methods=("regularized laplacian", "bethe hessian"), differences=(5.0,), seeds=3)
    table = run(ExperimentCache(tmp_path), config).tables[1]
    assert [row[1] for row in table.rows] == ["regularized laplacian", "bethe hessian", "bethe hessian"]
    assert all(row[-1] == "1 of 1" for row in table.rows) and "(0.76)" in table.rows[0][4]


def test_the_karate_club():
    one = karate()
    assert one.n == 34 and one.edge_index.shape[1] == 156 and one.y.sum() == 17
    assert without_root(one) == pytest.approx(float((one.degree.double() ** 2).mean() / one.degree.double().mean()) - 1)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_graph_of_ones_own_by_the_command(tmp_path, capsys, labelled):
    one = stochastic_block_model(90, 3, inside=0.5, between=0.02)
    arrays = {"edge_index": one.edge_index.numpy(), **({"y": one.y.numpy()} if labelled else {})}
    np.savez(tmp_path / "own.npz", **arrays)
    assert main(["reproduce", "communities", "--data", str(tmp_path / "own.npz"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "counts 3 communities that like each other; 3 are looked for" in shown and ("1.000" in shown) == labelled
    assert "| belief propagation" in shown and "30, 30, 30" in shown


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown part 'karate'"):
        reproduce("communities", out=tmp_path, parts=("karate",), threads=1)
    with pytest.raises(UserError, match="unknown method 'bethe'. Did you mean 'bethe hessian'"):
        finders(ExperimentCache(tmp_path), Config(methods=("bethe",)), SMALL.tasks[0])
    assert torch.equal(SMALL.tasks[0].drawn().edge_index, SMALL.tasks[0].drawn().edge_index)
