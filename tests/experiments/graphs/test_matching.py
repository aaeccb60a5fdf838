"""The experiment on matching: every method on every pair once, published numbers beside it, problems of one's own, and no second work."""

from __future__ import annotations

import json

import pytest
import torch

from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.graphs import half_width, mean_line, shown
from robustlab.experiments.graphs.matching import LEARNED, PUBLISHED, UNLEARNED, matching_loss, pairs_to_match
from robustlab.gnn.assignment import QuadraticAssignment
from robustlab.gnn.graphs import side_by_side
from robustlab.gnn.siamese import NoisyPairs, matching_network, similarities, with_local_counts

SMALL = {"device": "cpu", "threads": 1, "n": 12, "noises": (0.05,), "seeds": 2, "batch_size": 2, "depth": 2, "width": 4, "steps": 2}


def test_both_families_are_measured_and_nothing_twice(tmp_path):
    said = []
    found = reproduce("matching", out=tmp_path, say=said.append, **SMALL)
    assert [len(table.rows) for table in found.tables] == [len(UNLEARNED) + len(LEARNED) + len(PUBLISHED["regular"])] * 2
    for family in PUBLISHED:
        assert set(found.numbers[family]["0.05"]) == {*UNLEARNED, *LEARNED}
        assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in found.numbers[family]["0.05"].values())
    assert sum("training" in line for line in said) == 2 and (tmp_path / "matching-regular.png").exists()
    again = []
    assert reproduce("matching", out=tmp_path, say=again.append, **SMALL).numbers == found.numbers and not again


def test_a_pair_without_noise_is_one_graph_twice():
    first, second, true = pairs_to_match(NoisyPairs(n=10, noise=0.0), 3)
    for k in range(3):
        assert torch.equal(first.one(k).permuted(true[k]).edge_index, second.one(k).edge_index)
    assert not torch.equal(true[0], true[1])


@pytest.mark.parametrize("family", ["erdos-renyi", "regular"])
def test_similarities_follow_the_names_of_the_nodes(family):
    pairs = NoisyPairs(family, n=20, degree=4, mixed=True)(0, 2)
    network = matching_network(3, 6)
    scores = similarities(network, pairs)
    halves = [side_by_side([pairs.one(k) for k in part]) for part in ((0, 1), (2, 3))]
    order = torch.cat([torch.randperm(20, generator=torch.Generator().manual_seed(k)) + 20 * k for k in range(2)])
    moved = similarities(network, side_by_side([halves[0], halves[1].permuted(order)]))
    for k in range(2):
        assert torch.allclose(moved[k][:, order[20 * k : 20 * k + 20] - 20 * k], scores[k], atol=1e-4)
    assert matching_loss(network, pairs).loss.shape == (2,)


def test_pairs_are_their_own_and_features_count():
    source = NoisyPairs("regular", n=16, degree=4, mixed=True, seed=3)
    alone, of_many = source(5, 1), source(3, 4)
    assert torch.equal(alone.one(1).edge_index, of_many.one(6).edge_index) and torch.equal(alone.one(0).x, of_many.one(2).x)
    one = alone.one(0)
    steps = one.adjacency() @ one.adjacency()
    near = one.adjacency() + torch.eye(16)
    wanted = [one.degree, (steps.fill_diagonal_(0) > 0).sum(1), ((steps > 0) & (near == 0)).sum(1)]
    assert torch.equal(with_local_counts(one).x, torch.stack(wanted, 1).float())


def test_a_problem_of_ones_own(tmp_path):
    A, B = torch.randint(0, 9, (2, 5, 5), generator=torch.Generator().manual_seed(0)).double()
    order = torch.tensor([3, 1, 4, 0, 2])
    value = QuadraticAssignment(A, B).value(order)
    rows = "\n".join(" ".join(f"{number:.0f}" for number in row) for row in torch.cat([A, B]).tolist())
    (tmp_path / "own5.dat").write_text(f"5\n{rows}\n")
    (tmp_path / "own5.sln").write_text(f"5 {value:.0f}\n{' '.join(str(i + 1) for i in order.tolist())}\n")
    found = reproduce("matching", tmp_path / "own5.dat", out=tmp_path / "out", device="cpu", threads=1, seeds=3)
    (table,) = found.tables
    assert "own5" in table.title and "3 starts" in table.regime and table.rows[-1][0] == "best known"
    assert found.numbers["best"] == value and set(found.numbers["methods"]) == {"spectral", "grampa", "faq", "2-opt"}
    for values in found.numbers["methods"].values():
        assert values["improved"] <= values["value"]
        assert QuadraticAssignment(A, B).value(torch.tensor(values["permutation"])) == values["improved"]
    assert json.loads((tmp_path / "out" / "matching.json").read_text())["found"] == found.numbers
    (tmp_path / "own5.sln").write_text("5 1\n1 2 3 4 5\n")
    with pytest.raises(UserError, match="the permutation should cost 1, but it costs"):
        reproduce("matching", tmp_path / "own5.dat", out=tmp_path / "out", device="cpu", threads=1)


def test_means_are_told_with_their_intervals():
    assert half_width([0.0, 2.0]) == pytest.approx(12.71) and shown([0.5]) == "0.500" and shown([1.0, 1.0], 2) == "1.00 ± 0.00"
    line = mean_line("x", {2: [0.5, 0.7], 1: [1.0]}, 0, 1)
    assert line.x == [1, 2] and line.y == [1.0, pytest.approx(0.6)] and line.low[1] == 0 and line.high[1] == 1
