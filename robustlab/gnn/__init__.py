"""Graphs: batches of them, random ones, their operators, and communities.

    from robustlab import gnn

    graphs = gnn.stochastic_block_model(1000, 2, inside=0.0055, between=0.0005, graphs=10)
    found = gnn.communities(graphs, 2, "bethe hessian")
    print(gnn.overlap(graphs, found, 2).mean(), gnn.chance(graphs, 2))

Graphs are undirected and have no weights. Several of them lie side by side as one, ``GraphBatch``; networkx graphs, torch_geometric's
``Data`` and adjacency matrices become one by ``as_graphs``.
"""

from robustlab.gnn.generators import erdos_renyi, planted_clique, points, random_regular, signal_to_noise, stochastic_block_model
from robustlab.gnn.graphs import GraphBatch, as_graphs, from_adjacency, graph, side_by_side
from robustlab.gnn.networks import LGNN, MPNN, SGNN, dyadic
from robustlab.gnn.operators import (
    Adjacency,
    BetheHessian,
    CompactNonBacktracking,
    Degree,
    GraphMean,
    HopRing,
    Identity,
    Laplacian,
    NonBacktracking,
    Operator,
    Power,
    Reached,
    to_edges,
    to_nodes,
)
from robustlab.gnn.overlap import agreement, chance, confusion, overlap
from robustlab.gnn.spectral import METHODS, communities, eigenvectors, estimated_k
from robustlab.gnn.weights import load_network, save_network

__all__ = [
    "Adjacency",
    "BetheHessian",
    "CompactNonBacktracking",
    "Degree",
    "GraphBatch",
    "GraphMean",
    "HopRing",
    "Identity",
    "LGNN",
    "Laplacian",
    "METHODS",
    "MPNN",
    "NonBacktracking",
    "Operator",
    "Power",
    "Reached",
    "SGNN",
    "agreement",
    "as_graphs",
    "chance",
    "communities",
    "confusion",
    "dyadic",
    "eigenvectors",
    "erdos_renyi",
    "estimated_k",
    "from_adjacency",
    "graph",
    "load_network",
    "overlap",
    "planted_clique",
    "points",
    "random_regular",
    "save_network",
    "side_by_side",
    "signal_to_noise",
    "stochastic_block_model",
    "to_edges",
    "to_nodes",
]
