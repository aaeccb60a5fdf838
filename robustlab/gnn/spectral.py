"""Communities from eigenvectors: of which operator, and what that changes below and above the threshold."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency, BetheHessian, Laplacian

LEAST_R = 1.1  # nearer to 1 every tree apart has an eigenvalue near 0
SAMPLED = 50_000  # points among which starts of k-means are compared
SMALL = 64  # of a matrix: with fewer rows all its eigenvectors are worked out


@dataclass(frozen=True)
class Spectrum:
    """Some eigenvectors of an operator.

    Attributes:
        values: eigenvalues, float64 ``(m,)``, the most informative first.
        vectors: eigenvectors, ``(N, m)``, each of unit length; their signs mean nothing.
    """

    values: Tensor
    vectors: Tensor


def eigenvectors(matrix: Tensor, count: int, *, smallest: bool = True, seed: int = 0) -> Spectrum:
    """Eigenvectors of a symmetric sparse matrix at one end of its spectrum, by Lanczos (ARPACK); of a small one, all of them first.

    Args:
        matrix: sparse CSR, float64 ``(N, N)``.
        count: how many.
        smallest: those of the smallest eigenvalues, else of the largest.
        seed: of the start vector, so that the same matrix gives the same vectors.

    Raises:
        UserError: more vectors than rows, or no convergence.
    """
    n = len(matrix)
    if not 1 <= count <= n:
        raise UserError(f"a matrix of {n} rows has 1 to {n} eigenvectors, got {count}")
    if n <= SMALL or count >= n - 1:
        values, vectors = torch.linalg.eigh(matrix.to_dense())
        chosen = slice(0, count) if smallest else slice(n - count, n)
        found = Spectrum(values[chosen], vectors[:, chosen])
        return found if smallest else Spectrum(found.values.flip(0), found.vectors.flip(1))
    start = seeding.normal(seeding.example_keys(seed, torch.tensor([0])), (n,), torch.float64)[0]
    # The largest of a matrix converge faster than its smallest: turn the spectrum round within a bound on it.
    rows = as_scipy(matrix)
    shift = float(abs(rows).sum(1).max()) if smallest else 0.0
    shape: Any = {"shape": rows.shape, "dtype": np.float64, "matvec": lambda x: shift * x.ravel() - rows @ x.ravel()}
    turned = scipy_module("sparse.linalg").LinearOperator(**shape) if smallest else rows  # no second matrix: memory
    values, vectors = _lanczos(turned, count, start.numpy())
    order = np.argsort(-values)
    values = shift - values[order] if smallest else values[order]
    return Spectrum(torch.from_numpy(values.copy()), torch.from_numpy(vectors[:, order].copy()))


def _lanczos(matrix: Any, count: int, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues and their eigenvectors. Of many equal ones, as a graph in many pieces has, a larger subspace finds some."""
    linalg, n = scipy_module("sparse.linalg"), len(start)
    for subspace in (None, min(n, 8 * count + 80), min(n, 8 * count + 400)):
        try:
            found: tuple[np.ndarray, np.ndarray] = linalg.eigsh(matrix, k=count, which="LA", v0=start, tol=1e-8, ncv=subspace)
            return found
        except linalg.ArpackNoConvergence:
            continue
    raise UserError(f"the eigenvectors of a matrix of {n} rows did not converge")


def as_scipy(matrix: Tensor) -> Any:
    """A sparse CSR tensor as scipy's, sharing its memory."""
    parts = matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy()
    return scipy_module("sparse").csr_matrix(parts, shape=tuple(matrix.shape))


def grouped(points: Tensor, k: int, seed: int = 0, restarts: int = 10) -> Tensor:
    """Labels of ``k`` groups of points by k-means (scipy's, begun by k-means++), the best of ``restarts`` starts from a ``seed``: int64
    ``(N,)``, for ``points`` ``(N, m)``. Of more than ``SAMPLED`` points, as many drawn at random tell which start is the best."""
    if k == 1:
        return torch.zeros(len(points), dtype=torch.int64)
    values = points.numpy()
    many = len(values) > SAMPLED
    some = values[np.random.default_rng([seed, restarts]).choice(len(values), SAMPLED, replace=False)] if many else values
    best, centres, found = np.inf, values[:k], np.zeros(len(some), dtype=np.int64)
    for restart in range(restarts):
        source = np.random.default_rng([seed, restart])
        cost, reached, labels = _k_means(some, k, {"minit": "++", "seed": source})
        if cost < best:
            best, centres, found = cost, reached, labels
    return torch.from_numpy(_k_means(values, centres, {"minit": "matrix"})[2] if many else found)


def _k_means(values: np.ndarray, start: Any, how: dict[str, Any]) -> tuple[float, np.ndarray, np.ndarray]:
    """The cost, the centres and the labels of one start."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", UserWarning)  # a group without points: that start is not the best
        centres, labels = scipy_module("cluster.vq").kmeans2(values, start, **how)
    return float(((values - centres[labels]) ** 2).sum()), centres, labels.astype(np.int64)


def labelled(vectors: Tensor, k: int, seed: int = 0) -> Tensor:
    """Labels from eigenvectors ``(N, m)``: each node's row is scaled to unit length before k-means (Ng, Jordan and Weiss 2002), so that
    nodes of many and of few neighbours count alike; zero rows stay zero."""
    alone = vectors.shape[1] == 1 and k > 2  # of one number only its sign would be left
    return grouped(vectors if alone else torch.nn.functional.normalize(vectors, dim=1), k, seed)


def by_adjacency(graph: GraphBatch, k: int, *, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the ``k`` eigenvectors at the end of the adjacency matrix's spectrum; below a mean degree of ``log n`` they sit on
    the nodes of the highest degree. Other
    arguments see ``communities``."""
    count = k if assortative else k - 1
    return labelled(eigenvectors(Adjacency().sparse(graph), count, smallest=not assortative, seed=seed).vectors, k, seed)


def by_laplacian(graph: GraphBatch, k: int, *, tau: float | None = 0.0, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the normalized Laplacian, plain or regularized by ``tau`` (None: the mean degree). Other
    arguments see ``communities``."""
    found = eigenvectors(Laplacian(normalized=True, tau=tau).sparse(graph), k if assortative else k - 1, smallest=assortative, seed=seed)
    return labelled(found.vectors, k, seed)


def by_bethe_hessian(graph: GraphBatch, k: int, *, r: float | None = None, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the Bethe Hessian at ``r`` (None: the root of the mean degree), at ``-r`` where communities avoid each other. Other
    arguments see ``communities``."""
    r = BetheHessian(r).value(graph)
    count = k if assortative else k - 1
    return labelled(eigenvectors(BetheHessian(r if assortative else -r).sparse(graph), count, seed=seed).vectors, k, seed)


def informative_r(graph: GraphBatch, *, assortative: bool = True, which: int = 1, seed: int = 0) -> float:
    """The ``r`` between ``LEAST_R`` and the root of the mean degree at which the eigenvalue number ``which`` (from 0) of the Bethe Hessian
    is zero (Dall'Amico, Couillet and Tremblay 2019): at the end of that range where it is not zero within. For
    the other arguments see ``communities``."""
    sign = 1 if assortative else -1
    low, high = LEAST_R, max(graph.mean_degree, LEAST_R**2) ** 0.5
    number = which if assortative else which - 1
    core = without_trees(graph)  # has as many negative eigenvalues: to take a leaf off is a step of Gauss's elimination
    if core.n <= number:
        return high

    def value(r: float) -> float:
        return float(eigenvectors(BetheHessian(sign * r).sparse(core), number + 1, seed=seed).values[number])

    if value(high) >= 0:
        return high
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if value(middle) < 0 else (middle, high)
    return high


def without_trees(graph: GraphBatch) -> GraphBatch:
    """What is left of a graph when nodes with fewer than two neighbours are taken away until there are none: its 2-core, numbered anew."""
    while graph.n and bool((graph.degree < 2).any()):
        kept = graph.degree >= 2
        edges = kept[graph.tail] & kept[graph.head]
        graph = GraphBatch((kept.cumsum(0) - 1)[graph.edge_index[:, edges]], kept.sum().reshape(1))
    return graph


def by_zeta(graph: GraphBatch, k: int, *, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the Bethe Hessian at ``informative_r``; its last eigenvector alone where there are two communities. Other
    arguments see ``communities``."""
    r = informative_r(graph, assortative=assortative, which=k - 1, seed=seed)
    return by_bethe_hessian(graph, k, r=r, assortative=assortative, seed=seed)


def _compact(graph: GraphBatch) -> Any:
    """``CompactNonBacktracking`` as scipy's sparse matrix, ``(2 n, 2 n)``."""
    sparse, rows = scipy_module("sparse"), as_scipy(Adjacency().sparse(graph))
    above = sparse.diags(graph.degree.double().numpy() - 1)
    return sparse.bmat([[None, above], [-sparse.identity(graph.n), rows]], format="csr")


def by_non_backtracking(graph: GraphBatch, k: int, *, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the real eigenvectors at the end of the non-backtracking spectrum, of the form of size ``2 N``. Other
    arguments see ``communities``."""
    linalg, size, wanted = scipy_module("sparse.linalg"), 2 * graph.n, k if assortative else k - 1
    matrix, which = _compact(graph), "LR" if assortative else "SR"
    start = seeding.normal(seeding.example_keys(seed, torch.tensor([0])), (size,), torch.float64)[0].numpy()
    values, vectors = linalg.eigs(matrix, k=min(k + 4, size - 2), which=which, v0=start)
    outermost = np.argsort(-values.real if assortative else values.real)
    is_real = np.abs(values.imag[outermost]) < 1e-8 * (1 + np.abs(values[outermost]))
    columns = [vectors.real[graph.n :, i] for i in outermost[is_real][:wanted]]
    # Near the threshold an informative eigenvalue meets one of the bulk, and both leave the real line: their plane still tells.
    for i in outermost[~is_real & (values.imag[outermost] > 0)][: wanted - len(columns)]:
        columns += [vectors.real[graph.n :, i], vectors.imag[graph.n :, i]]
    return labelled(torch.from_numpy(np.stack(columns, 1)), k, seed)


def estimated_k(graph: GraphBatch, most: int = 20, seed: int = 0) -> tuple[int, bool]:
    """How many communities a graph seems to have, and whether they like each other: the negative eigenvalues of the Bethe Hessian at the
    root of the mean degree, and at minus that root (Saade, Krzakala and Zdeborová 2014)."""
    counts = []
    for sign in (1, -1):
        matrix = BetheHessian(sign * BetheHessian().value(graph)).sparse(graph)
        counts.append(int((eigenvectors(matrix, min(most, graph.n), seed=seed).values < 0).sum()))
    likes = counts[0] - 1 >= counts[1]  # one belongs to the mean degree
    return max(counts[0] if likes else counts[1] + 1, 1), likes
