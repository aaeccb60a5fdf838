"""The experiment on large cuts: losses by hand and by law, networks that learn without cuts to learn from, tables, one's own graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustlab.commands import main
from robustlab.errors import UserError
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.graphs.max_cut import (
    BOUND,
    Config,
    PolicyGradient,
    RegularGraphs,
    network_cuts,
    p_of,
    relaxed_cut,
    run,
    with_noise,
)
from robustlab.gnn.cuts import cut_size, p_value
from robustlab.gnn.generators import random_regular
from robustlab.gnn.networks import SGNN
from robustlab.gnn.operators import Adjacency, GraphMean, Identity

SMALL = Config(degrees=(3,), n=40, sizes=(20,), seeds=2, depth=1, width=4, graphs=32, training_n=20)


class Free(nn.Module):
    """A value at each node that does not depend on the graph."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.values = nn.Parameter(0.1 * torch.randn(n, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, graphs):
        return self.values


def test_the_relaxed_loss_is_that_of_the_cut_at_its_corners():
    graphs = random_regular(20, 3, graphs=2)
    model = Free(40)
    model.values.data *= 1e4
    outcome = relaxed_cut(model, graphs)
    sizes = cut_size(graphs, (model.values[:, 0] > 0).long())
    torch.testing.assert_close(outcome.loss.double(), (60 - 4 * sizes.double()) / 20 / 3**0.5, rtol=0, atol=1e-5)
    torch.testing.assert_close(outcome.metrics["P"].double(), p_value(graphs, (model.values[:, 0] > 0).long()), rtol=0, atol=1e-6)


def test_the_policy_gradient_is_that_of_the_expected_cut():
    """On average over many draws: the expected cut is a polynomial of the probabilities."""
    graphs, model = random_regular(10, 3), Free(10)
    (found,) = torch.autograd.grad(PolicyGradient(draws=200_000)(model, graphs).loss.sum(), model.values)
    mean = (2 * model.values.sigmoid() - 1).double()
    expected = (mean * Adjacency().apply(graphs, mean)).sum() / 10 / 3**0.5
    (right,) = torch.autograd.grad(expected, model.values)
    torch.testing.assert_close(found, right, rtol=0, atol=0.003)


def test_random_features_are_a_graphs_own_and_break_the_symmetry():
    source = RegularGraphs(20, 3)
    assert torch.equal(source(2, 1).x, source(0, 3).x[40:]) and not torch.equal(with_noise(source(0, 1), 1).x, source(0, 1).x)
    network = SGNN(1, (Identity(), Adjacency(), GraphMean()), features=4, width=4, depth=2)
    cuts = network_cuts(network, source(0, 2), tries=3)
    assert cuts.shape == (40, 3) and not torch.equal(cuts[:, 0], cuts[:, 1])


def test_tables_and_networks(tmp_path):
    found = run(ExperimentCache(tmp_path), SMALL)
    over_degree, over_n, verdict = found.tables
    names = [row[0] for row in over_degree.rows]
    assert {"relaxed + 1-opt, best of 20", "policy", BOUND, "extremal optimization"} <= set(names) and len(over_n.rows) == len(names)
    values = {entry["n"]: entry["P"] for entry in found.numbers["max-cut"]}
    for each in values.values():
        assert all(a <= b + 1e-9 for a, b in zip(each["relaxed"], each["relaxed + 1-opt"], strict=True))
        assert all(a <= b for a, b in zip(each["extremal optimization"], each[BOUND], strict=True))
    assert len(verdict.rows) == 2 * 8 and set(found.lines) == {"max-cut-degree", "max-cut-n"}
    assert len(list((tmp_path / "models").iterdir())) == 2  # one for each loss: the degree is the same
    again = run(ExperimentCache(tmp_path), SMALL)
    assert again.numbers == found.numbers
    fewer = run(ExperimentCache(tmp_path), replace(SMALL, methods=("relaxed", "greedy"))).tables[2]
    assert fewer.columns == ("n", "degree", "network", "less greedy") and len(fewer.rows) == 2 * 4
    for methods in (("relaxed",), ("greedy",)):
        assert len(run(ExperimentCache(tmp_path), replace(SMALL, methods=methods)).tables) == 2


def test_a_bound_is_above_every_cut():
    graphs = random_regular(60, 4, graphs=2)
    assert (p_of(graphs, BOUND) >= p_of(graphs, "extremal optimization")).all()


def test_ones_own_graphs_by_the_command(tmp_path, capsys):
    nodes = np.arange(30)
    np.savez(tmp_path / "cycle.npz", edge_index=np.stack([nodes, (nodes + 1) % 30]))
    assert main(["reproduce", "max-cut", "--data", str(tmp_path / "cycle.npz"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "| extremal optimization                    | 30" in shown and f"| {BOUND}" in shown


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown method 'gredy'. Did you mean 'greedy'"):
        run(ExperimentCache(tmp_path), Config(methods=("gredy",)))
