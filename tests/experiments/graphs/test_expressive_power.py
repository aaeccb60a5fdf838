"""Expressive power: no network beyond its bound, the order of the classes, the protocol's test, and the experiment itself."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("networkx")

from robustlab.errors import UserError  # noqa: E402
from robustlab.experiments import reproduce  # noqa: E402
from robustlab.experiments.graphs import expressive_power  # noqa: E402
from robustlab.experiments.graphs.contrast import Copies, alike, judged_pair, t_squared  # noqa: E402
from robustlab.experiments.graphs.expressive_power import BOUND, NETWORKS, Config, asked, own_pairs  # noqa: E402
from robustlab.experiments.graphs.skip_links import TRAINED, link_copies  # noqa: E402
from robustlab.gnn import GIN, all_graphs, graph, refine, separates, side_by_side, skip_links, strongly_regular  # noqa: E402
from robustlab.gnn.separation import METHODS, by_network, clipped_powers  # noqa: E402

STAR, PATH = graph([[0, 0, 0], [1, 2, 3]]), graph([[0, 1, 2], [1, 2, 3]])
BOUNDS = {**METHODS, "clipped powers to 5": clipped_powers(5)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_network_tells_apart_what_its_bound_does_not(name, seed):
    """On all graphs of 6 nodes and the skip links; random weights tell apart nearly all that they may."""
    for graphs, share in ((all_graphs(6), 0.9), (skip_links(), 1.0)):
        found, bound = by_network(NETWORKS[name](seed))(graphs).labels, BOUNDS[BOUND[name]](graphs).labels
        assert bool(((found[:, None] == found) | (bound[:, None] != bound)).all())
        assert len(found.unique()) >= share * len(bound.unique())


def test_networks_of_all_kinds_answer_copies_alike():
    assert separates(NETWORKS["Ring-GNN"](0), skip_links().one(0), skip_links().one(1))
    for name, make in NETWORKS.items():
        assert not separates(make(0), *strongly_regular()), name


def test_own_pairs_are_not_isomorphic_and_hard():
    pairs = own_pairs()
    assert {category: len(some) for category, some in pairs.items()} == {
        "skip links": 45,
        "7 nodes": 154,
        "Cai-Fürer-Immerman": 8,
        "strongly regular": 1,
    }
    for category in ("skip links", "Cai-Fürer-Immerman"):
        assert all(refine(pair).labels.tolist() == [0, 0] for pair in pairs[category])
    assert all(METHODS["1-WL and spectrum"](pair).labels.unique().numel() == 2 for pair in pairs["7 nodes"])


def test_the_protocol_believes_differences_and_not_noise():
    """A star and a path differ to message passing, two skip links do not; nothing differs from itself."""
    assert judged_pair(GIN(16, width=16, depth=2), side_by_side([STAR, PATH])) == (True, False)
    links = skip_links()
    assert judged_pair(GIN(16, width=16, depth=2), side_by_side([links.one(0), links.one(1)])) == (False, False)


def test_copies_are_their_graphs_in_turn():
    copies = Copies(side_by_side([STAR, PATH]), count=3, seed=1)
    batch = copies(1, 4)
    degrees = [batch.one(which).degree.sort().values.tolist() for which in range(4)]
    assert degrees == [[1, 1, 2, 2], [1, 1, 1, 3], [1, 1, 2, 2], [1, 1, 1, 3]]
    assert torch.equal(copies(3, 1).edge_index, batch.one(2).edge_index) and torch.equal(copies(6, 2).edge_index, copies(0, 2).edge_index)
    assert copies.settings != Copies(side_by_side([STAR, PATH]), count=3, seed=2).settings
    outcome = alike(lambda graphs: torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), copies(0, 4))
    assert outcome.loss.tolist() == [1, 1, 0, 0]
    found = t_squared(
        lambda graphs: graphs.mean(graphs.degree.double()[:, None] ** torch.arange(1, 4)) + 1e-9 * graphs.sizes[:, None], copies
    )
    assert found == pytest.approx(0, abs=1e-6)  # copies differ in nothing, so there is no noise to compare with


def test_the_experiment(tmp_path, monkeypatch):
    few = {category: some[:12] for category, some in own_pairs().items()}
    monkeypatch.setattr(expressive_power, "own_pairs", lambda: few)
    parts, methods = ("small", "skip-links", "pairs", "order", "rates"), ("1-WL", "spectrum", "2-FWL", "GIN")
    asked_for = {"out": tmp_path, "parts": parts, "methods": methods, "nodes": (4, 6), "powers": 3}
    (tmp_path / "pairs.tsv").write_text("regular\tEhEG\tEwCW\nsame degrees\tDqK\tD{O\n")
    found = reproduce("expressive-power", tmp_path / "pairs.tsv", **asked_for)
    small = found.numbers["small"]
    assert [small["6"][name] for name in ("1-WL", "spectrum", "2-FWL", "GIN")] == [152, 151, 156, 152]
    assert found.numbers["skip links"] == {"1-WL": 1, "spectrum": 10, "2-FWL": 10, "GIN": 1}
    assert found.numbers["links by t"]["clipped powers without the diagonal"] == [1, 2, 4]
    assert found.numbers["pairs"]["2-FWL"] == {"regular": 1, "same degrees": 1} and found.numbers["pairs"]["1-WL"]["regular"] == 0
    sizes = found.numbers["order"]["sizes"]
    assert sizes["2-FWL"] > sizes["spectrum"] and any("1-WL" in name and "GIN" in name for name in sizes)
    assert (tmp_path / "expressive-power-order.png").exists() and (tmp_path / "expressive-power-rates.png").exists()
    kept = sorted((tmp_path / "measurements").iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    again = reproduce("expressive-power", tmp_path / "pairs.tsv", **asked_for)
    assert [path.stat().st_mtime_ns for path in kept] == times and json.dumps(again.numbers) == json.dumps(found.numbers)
    for changes, said in (({"methods": ("2-WL",)}, "unknown method '2-WL'"), ({"parts": ("all",)}, "unknown part 'all'")):
        with pytest.raises(UserError, match=said):
            reproduce("expressive-power", out=tmp_path, **changes)
    (tmp_path / "broken.tsv").write_text("regular\tEhEG\n")
    with pytest.raises(UserError, match="line 1: a pair is a category and two graphs"):
        reproduce("expressive-power", tmp_path / "broken.tsv", **asked_for)


def test_networks_are_trained_on_copies(tmp_path):
    copies = link_copies(0)
    assert len(copies) == 150 and torch.equal(copies.y, torch.arange(10).repeat(15))
    labels = (
        METHODS["2-FWL"](side_by_side([skip_links(), copies])).labels if copies.keys is None else METHODS["closed walks"](copies).labels
    )
    assert all(len(labels[copies.y == y].unique()) == 1 for y in range(10)) and len(labels.unique()) == 10
    found = reproduce("expressive-power", out=tmp_path, parts=("trained",), methods=("spectrum",), epochs=2)
    assert len(found.numbers["trained"]["spectrum"]) == 5 and set(TRAINED) >= {"GIN", "spectrum"}
    assert set(asked(Config(methods=("GIN", "1-WL")))) == {"GIN", "1-WL"}
