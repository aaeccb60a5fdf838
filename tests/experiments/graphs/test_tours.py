"""The experiment on tours: heuristics and a network beside the shortest, pictures, one's own cities; and the network that scores edges."""

from __future__ import annotations

import pytest
import torch

from robustlab.experiments import reproduce
from robustlab.experiments.graphs.tours import SHORTEST, tour_loss
from robustlab.gnn import gated
from robustlab.gnn.gated import EDGE_FEATURES, GatedGNN, RandomCities, complete, edge_features, edge_scores, tour_cross_entropy
from robustlab.gnn.generators import points
from robustlab.gnn.networks import describe, from_description
from robustlab.gnn.tours import HEURISTICS, check_tour

SMALL = {"device": "cpu", "threads": 1, "n": 7, "seeds": 3, "batch_size": 2, "steps": 4, "channels": 4, "depth": 1, "width": 3}
OWN = "TYPE: TSP\nDIMENSION: 5\nEDGE_WEIGHT_TYPE: EUC_2D\nNODE_COORD_SECTION\n1 0 0\n2 0 9\n3 9 9\n4 9 0\n5 4 -3\nEOF\n"


def test_every_method_is_measured_once_and_drawn(tmp_path):
    found = reproduce("tours", out=tmp_path, **SMALL)
    lengths = found.numbers["lengths"]
    assert {SHORTEST, *HEURISTICS} < set(lengths) and all(len(values) == 3 for values in lengths.values())
    for name, values in lengths.items():
        assert all(ours >= best - 1e-9 for ours, best in zip(values, lengths[SHORTEST], strict=True)), name
    for which in (1, 2):
        target, prediction = found.lines[f"tours-{which}"].lines
        assert len(target.x) == len(prediction.x) == 8 and (tmp_path / f"tours-{which}.png").exists()
    said = []
    assert reproduce("tours", out=tmp_path, say=said.append, **SMALL).numbers == found.numbers and not said


@pytest.mark.parametrize("tour", [None, "TOUR_SECTION\n1 2 3 4 5 -1\n"])
def test_cities_of_ones_own(tmp_path, tour):
    (tmp_path / "own.tsp").write_text(OWN)
    if tour:
        (tmp_path / "own.opt.tour").write_text(tour)
    found = reproduce("tours", tmp_path / "own.tsp", out=tmp_path / "out", **SMALL | {"steps": 0})
    assert found.numbers["lengths"][SHORTEST] == 9 * 3 + 5 + 6 and (tmp_path / "out" / "tours-own.png").exists()


def test_the_network_does_not_see_order_place_or_scale():
    place = points(6, graphs=2)
    graphs = complete(place)
    network = GatedGNN(width=6, depth=2)
    scores = edge_scores(network, graphs)
    assert torch.equal(scores, scores.mT) and scores.diagonal(0, 1, 2).eq(-torch.inf).all()
    assert torch.allclose(edge_scores(network, complete(3 * place + 5)), scores, atol=1e-4)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert torch.allclose(edge_scores(network, complete(place[:, order])), scores[:, order][:, :, order], atol=1e-5)
    assert torch.allclose(edge_scores(network, graphs.one(1)), scores[1:], atol=1e-5)


def test_ranks_are_counted_from_both_ends():
    graphs = complete(torch.tensor([[[0.0, 0], [1, 0], [3, 0]]]))
    found = edge_features(graphs)  # edges 01, 02, 10, 12, 20, 21
    assert found.shape == (6, EDGE_FEATURES)
    assert found[:, 2].tolist() == [1, 0.5, 1, 0.5, 0.5, 1] and found[:, 3].tolist() == [1, 0.5, 1, 1, 0.5, 0.5]
    assert found[0, 0] == pytest.approx(1 / (4 / 3))


def test_cities_come_with_a_tour_and_are_their_own():
    alone, of_many = RandomCities(8, 3, seed=2)(4, 1), RandomCities(8, 3, seed=2)(3, 3)
    assert torch.equal(alone.x, of_many.one(1).x) and torch.equal(alone.y, of_many.one(1).y)
    check_tour(alone.y.argsort(), 8)


def test_the_loss_is_least_for_the_tour_itself():
    cities = RandomCities(8)(0, 2)
    places = cities.y.reshape(2, 8)
    step = (places[:, :, None] - places[:, None]) % 8
    scores = torch.where((step == 1) | (step == 7), 30.0, 0.0)
    assert torch.allclose(tour_cross_entropy(scores, places), torch.tensor(2.0).log().expand(2), atol=1e-4)
    assert (tour_cross_entropy(torch.zeros(2, 8, 8), places) > 2).all()
    assert tour_loss(GatedGNN(width=4, depth=1), cities).metrics["right"].shape == (2,)


def test_a_gated_network_is_written_down_and_made_again():
    network = GatedGNN(width=6, depth=2)
    assert describe(from_description(describe(network))) == describe(network)
    with pytest.raises(ValueError, match="complete"):
        edge_scores(network, gated.GraphBatch(torch.tensor([[0, 1], [1, 0]]), torch.tensor([3]), x=torch.zeros(3, 2)))
