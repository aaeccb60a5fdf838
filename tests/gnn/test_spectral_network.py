"""A network on spectra: it sees the spectrum and nothing else, with gradients that move along with the nodes where eigenvalues coincide."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("networkx")

from robustlab.gnn import SpectralNetwork, all_graphs, side_by_side, skip_links, strongly_regular  # noqa: E402
from robustlab.gnn.networks import describe, from_description  # noqa: E402
from robustlab.gnn.separation import METHODS, bare, by_network  # noqa: E402


def test_it_tells_apart_what_the_spectrum_does_and_no_more():
    """On all graphs of up to 6 nodes, of all sizes at once."""
    graphs = side_by_side([all_graphs(n) for n in range(1, 7)])
    found, spectra = by_network(SpectralNetwork(16, width=128))(graphs).labels, METHODS["spectrum"](graphs).labels
    assert bool(((found[:, None] == found) == (spectra[:, None] == spectra)).all()) and len(found.unique()) == 202


def test_one_by_one_and_described():
    graphs = side_by_side([all_graphs(4), bare(skip_links(9, (2, 3)))])
    network = SpectralNetwork(3, width=8).double()
    alone = torch.cat([network(graphs.one(which)) for which in range(len(graphs))])
    torch.testing.assert_close(network(graphs), alone, rtol=1e-10, atol=1e-12)
    again = from_description(describe(network))
    assert describe(again) == describe(network) and torch.equal(again.last.weight, SpectralNetwork(3, width=8).last.weight)


@pytest.mark.parametrize("graph", [skip_links().one(1), *strongly_regular()], ids=["skip links", "rook", "shrikhande"])
def test_gradients_at_ties_move_along_with_the_nodes(graph):
    """These graphs have few different eigenvalues; an automorphism-like renumbering of the matrix renumbers the gradient."""
    network, n = SpectralNetwork(1, width=8).double(), graph.n
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))

    def gradient(matrix: torch.Tensor) -> torch.Tensor:
        matrix = matrix.clone().requires_grad_()
        network.answers(network.on_tensors(matrix[None, None])).sum().backward()
        return matrix.grad + matrix.grad.T  # of symmetric changes

    own, moved = gradient(graph.adjacency()), gradient(graph.adjacency()[order][:, order])
    scale = float(own.abs().max())
    assert scale > 1e-6 and float((moved - own[order][:, order]).abs().max()) < 1e-8 * scale


def test_pairs_with_one_spectrum_have_one_answer():
    graphs = all_graphs(6)
    labels = METHODS["spectrum"](graphs).labels
    same = [(i, j) for i, j in itertools.combinations(range(len(graphs)), 2) if labels[i] == labels[j]]
    answers = SpectralNetwork(4).double()(graphs)
    assert len(same) == 5 and all(torch.allclose(answers[i], answers[j], rtol=1e-10, atol=1e-12) for i, j in same)
