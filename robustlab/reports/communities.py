"""Communities of a graph of one's own as a table, as files, and as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab import files
from robustlab.evaluation import Rate
from robustlab.extras import check_installed, networkx
from robustlab.gnn.choice import Answer
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency
from robustlab.gnn.overlap import agreement, chance
from robustlab.gnn.spectral import as_scipy
from robustlab.reports.plots import graph_plot
from robustlab.reports.tables import Table

MOST = 1_000  # different true labels that are compared with
DRAWN = 2_000  # nodes up to which a graph is drawn with its edges
PICTURE = "communities.png"


def table(answer: Answer, name: str) -> Table:
    """Every method with the sizes of its communities and its likelihood, and where true labels are known its overlap with them.

    Args:
        answer: see ``gnn.find_communities``.
        name: of the graph.
    """
    graph, true = answer.graph, true_labels(answer.graph)
    known = true is not None
    columns = ("method", "nodes in each", "likelihood", *(("overlap", "95 % interval", "wrong nodes") if known else ()), "seconds")
    rows = []
    for method in sorted(answer.labels, key=lambda method: -answer.likelihoods[method]):
        sizes = torch.bincount(answer.labels[method], minlength=answer.k).tolist()
        told = ", ".join(map(str, sizes[:8])) + (", ..." if len(sizes) > 8 else "")
        scored = () if true is None else _scored(answer, true, method)
        rows.append((method, told, f"{answer.likelihoods[method]:.4f}", *scored, f"{answer.seconds[method]:.2f}"))
    kind = "like" if answer.assortative else "avoid"
    sought = "1 community" if answer.k == 1 else f"{answer.k} communities that {kind} each other"
    regime = (
        f"{graph.n:,} nodes, {graph.edge_index.shape[1] // 2:,} edges, {sought}; the Bethe Hessian "
        f"counts {answer.estimated}. Likelihood: of the edges, given the labels and degrees (0 for one community)."
    )
    if true is not None:
        level = chance(graph.labelled(true), _classes(answer, true), draws=50)
        regime += f" Labels at random have an overlap of {level:.3f}."
    notes = [_why(answer)] if len(rows) > 1 else []
    if answer.k == 1 == answer.estimated:
        notes.append("No more than one community can be told from chance here; `k` makes the methods look for more all the same.")
    notes += [f"`{method}` found nothing: {why}." for method, why in answer.failed.items()]
    return Table(f"Communities of {name}", regime, columns, tuple(rows), tuple(notes))


def _why(answer: Answer) -> str:
    """Which labels to believe."""
    best = answer.labels[answer.best]
    same = [method for method, labels in answer.labels.items() if method != answer.best and torch.equal(labels, best)]
    agree = f", and {len(same)} more found the same" if same else ""
    return f"Believe the labels of `{answer.best}`: of all that were found they make the edges likeliest{agree}."


def true_labels(graph: GraphBatch) -> Tensor | None:
    """The nodes' own labels, called 0, 1, ... in their order; None where there are none, or more than ``MOST`` different ones."""
    if graph.y is None or len(graph.y) != graph.n:
        return None
    names, labels = graph.y.unique(return_inverse=True)
    return labels if len(names) <= MOST else None


def _classes(answer: Answer, true: Tensor) -> int:
    """Names that found and true labels need together."""
    return max(answer.k, int(true.max()) + 1, 2)


def _scored(answer: Answer, true: Tensor, method: str) -> tuple[str, str, str]:
    """Overlap, its interval over the nodes, and the wrong nodes under the best names."""
    k, n = _classes(answer, true), answer.graph.n
    rate = Rate(round(agreement(answer.labels[method], true, k) * n), n)
    value, low, high = ((share - 1 / k) / (1 - 1 / k) for share in (rate.value, *rate.interval))
    return f"{value:.3f}", f"{low:.3f} to {high:.3f}", str(n - rate.count)


def numbers(answer: Answer) -> dict[str, Any]:
    """What ``communities.json`` says."""
    told: dict[str, Any] = {"nodes": answer.graph.n, "edges": answer.graph.edge_index.shape[1] // 2, "k": answer.k}
    told |= {"estimated_k": answer.estimated, "assortative": answer.assortative, "best": answer.best}
    told["methods"] = {name: {"likelihood": answer.likelihoods[name], "seconds": answer.seconds[name]} for name in answer.labels}
    return told | {"failed": dict(answer.failed)}


def check_place(out: str | os.PathLike[str], graph: GraphBatch) -> None:
    """Refuse, before the work, what could not be written after it.

    Args:
        out: folder for ``write_communities``.
        graph: whose communities are looked for.

    Raises:
        UserError: the folder holds something, or the picture needs a package that is not installed.
    """
    files.check_vacant(Path(out))
    if graph.n <= DRAWN:
        check_installed(("scipy", "networkx"), "the picture of the graph")


def write_communities(answer: Answer, out: str | os.PathLike[str], name: str) -> Path:
    """Write ``labels.csv`` (node, the best labels, and those of each method), ``communities.json``, ``communities.md`` and a picture.

    Args:
        answer: see ``gnn.find_communities``.
        out: folder, new or empty.
        name: of the graph.

    Raises:
        UserError: see ``check_place``.
    """
    folder = Path(out)
    check_place(folder, answer.graph)
    folder.mkdir(parents=True, exist_ok=True)
    methods = [answer.best, *(method for method in answer.labels if method != answer.best)]
    columns = [answer.labels[method].tolist() for method in methods]
    lines = [",".join(["node", *methods]), *(",".join(map(str, row)) for row in zip(range(answer.graph.n), *columns, strict=True))]
    files.write_text(folder / "labels.csv", "\n".join(lines) + "\n")
    files.write_text(folder / "communities.md", f"{table(answer, name)}\n")
    draw(answer, folder / PICTURE, f"{name}: {answer.k} communities, {answer.best}")
    files.write_json(folder / "communities.json", numbers(answer))
    return folder


def draw(answer: Answer, path: str | os.PathLike[str], title: str) -> None:
    """Up to ``DRAWN`` nodes as points with their edges, in colours of the best labels; of more the matrix of edges, sorted by community."""
    graph, labels = answer.graph, answer.labels[answer.best]
    if graph.n > DRAWN:
        order = labels.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(graph.n)
        ends = torch.bincount(labels, minlength=answer.k).cumsum(0).tolist()
        graph_plot(path, place[graph.edge_index].T.tolist(), labels.tolist(), title=title, ends=ends)
        return
    found = networkx().spring_layout(networkx().from_scipy_sparse_array(as_scipy(Adjacency().sparse(graph))), seed=0)
    half = graph.edge_index[:, graph.tail < graph.head].T.tolist()
    graph_plot(path, half, labels.tolist(), title=title, positions=[tuple(found[node]) for node in range(graph.n)])
