"""Graphs: batches of them, random ones, their operators, and communities.

    from robustlab import gnn

    graphs = gnn.stochastic_block_model(1000, 2, inside=0.0055, between=0.0005, graphs=10)
    found = gnn.communities(graphs, 2, "bethe hessian")
    print(gnn.overlap(graphs, found, 2).mean(), gnn.chance(graphs, 2))

Graphs are undirected and have no weights. Several of them lie side by side as one, ``GraphBatch``; networkx graphs, torch_geometric's
``Data`` and adjacency matrices become one by ``as_graphs``.
"""

from robustlab.gnn.assignment import QuadraticAssignment, matching, solve
from robustlab.gnn.choice import Answer, find_communities, likelihood
from robustlab.gnn.communities import METHODS, communities
from robustlab.gnn.cuts import CUTS, cut_size, max_cut, p_value
from robustlab.gnn.equivariant import EquivariantLinear, basis, dimension, set_partitions
from robustlab.gnn.families import all_graphs, cai_furer_immerman, skip_links, strongly_regular
from robustlab.gnn.flips import budgets, flipped, guided_flips, random_flips
from robustlab.gnn.gated import GatedGNN, RandomCities, edge_scores
from robustlab.gnn.generators import (
    degree_corrected_block_model,
    erdos_renyi,
    noisy_copies,
    planted_clique,
    points,
    random_regular,
    renumbered,
    signal_to_noise,
    stochastic_block_model,
)
from robustlab.gnn.graph_sets import read_tu
from robustlab.gnn.graphs import GraphBatch, as_graphs, from_adjacency, graph, side_by_side
from robustlab.gnn.ign import IGN, EquivariantIGN
from robustlab.gnn.isomorphisms import Comparison, compare, fractional_isomorphism, isomorphism
from robustlab.gnn.losses import invariant_cross_entropy, invariant_overlap
from robustlab.gnn.metric_spaces import entropic_gromov_wasserstein, gromov_hausdorff, gromov_wasserstein, sdp_bound
from robustlab.gnn.networks import LGNN, MPNN, SGNN, clipped, dyadic
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
from robustlab.gnn.pooled import GIN, PooledSGNN
from robustlab.gnn.propagation import Beliefs, Blocks, belief_propagation, learned_blocks
from robustlab.gnn.readers import read_graph, read_pairs, read_qap, read_spaces, read_tour, read_tsp
from robustlab.gnn.refinement import Colouring, refine, refine_pairs, refine_tuples
from robustlab.gnn.relaxed import RelaxedGraphs, relaxed
from robustlab.gnn.ring import RingGNN, RingLayer
from robustlab.gnn.sdp import Embedding, Relaxation, community_relaxation, cut_relaxation, solved
from robustlab.gnn.separation import Separation, separates
from robustlab.gnn.siamese import NoisyPairs, matching_network, similarities
from robustlab.gnn.sources import BlockModels, GivenGraphs, Mixture, dissociative_five
from robustlab.gnn.spectral import eigenvectors, estimated_k
from robustlab.gnn.spectral_network import SpectralNetwork
from robustlab.gnn.tours import Cities, beam_search, euclidean, optimal_tour
from robustlab.gnn.weights import load_network, save_network

__all__ = [
    "Adjacency",
    "Answer",
    "Beliefs",
    "BetheHessian",
    "BlockModels",
    "Blocks",
    "CUTS",
    "Cities",
    "Colouring",
    "CompactNonBacktracking",
    "Comparison",
    "Degree",
    "Embedding",
    "EquivariantIGN",
    "EquivariantLinear",
    "GIN",
    "GatedGNN",
    "GivenGraphs",
    "GraphBatch",
    "GraphMean",
    "HopRing",
    "IGN",
    "Identity",
    "LGNN",
    "Laplacian",
    "METHODS",
    "MPNN",
    "Mixture",
    "NoisyPairs",
    "NonBacktracking",
    "Operator",
    "PooledSGNN",
    "Power",
    "QuadraticAssignment",
    "RandomCities",
    "Reached",
    "Relaxation",
    "RelaxedGraphs",
    "RingGNN",
    "RingLayer",
    "SGNN",
    "Separation",
    "SpectralNetwork",
    "agreement",
    "all_graphs",
    "as_graphs",
    "basis",
    "beam_search",
    "belief_propagation",
    "budgets",
    "cai_furer_immerman",
    "chance",
    "clipped",
    "communities",
    "community_relaxation",
    "compare",
    "confusion",
    "cut_relaxation",
    "cut_size",
    "degree_corrected_block_model",
    "dimension",
    "dissociative_five",
    "dyadic",
    "edge_scores",
    "eigenvectors",
    "entropic_gromov_wasserstein",
    "erdos_renyi",
    "estimated_k",
    "euclidean",
    "find_communities",
    "flipped",
    "fractional_isomorphism",
    "from_adjacency",
    "graph",
    "gromov_hausdorff",
    "gromov_wasserstein",
    "guided_flips",
    "invariant_cross_entropy",
    "invariant_overlap",
    "isomorphism",
    "learned_blocks",
    "likelihood",
    "load_network",
    "matching",
    "matching_network",
    "max_cut",
    "noisy_copies",
    "optimal_tour",
    "overlap",
    "p_value",
    "planted_clique",
    "points",
    "random_flips",
    "random_regular",
    "read_graph",
    "read_pairs",
    "read_qap",
    "read_spaces",
    "read_tour",
    "read_tsp",
    "read_tu",
    "refine",
    "refine_pairs",
    "refine_tuples",
    "relaxed",
    "renumbered",
    "save_network",
    "sdp_bound",
    "separates",
    "set_partitions",
    "side_by_side",
    "signal_to_noise",
    "similarities",
    "skip_links",
    "solve",
    "solved",
    "stochastic_block_model",
    "strongly_regular",
    "to_edges",
    "to_nodes",
]
