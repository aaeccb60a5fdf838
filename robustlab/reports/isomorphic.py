"""What methods say of two graphs, as a table and as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from robustlab import files
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.isomorphisms import Comparison
from robustlab.reports.tables import Table

SHOWN = 40  # nodes up to which an isomorphism is printed


def table(found: Comparison) -> Table:
    """A row for each method; below it whether the graphs are isomorphic."""
    rows = [(each.method, "told apart" if each.told_apart else "not told apart", each.reason) for each in found.separations]
    notes = [_verdict(found), *(f"{name} did not answer: {why}." for name, why in found.failed.items())]
    return Table(
        "Are the graphs isomorphic?", f"{_size(found.graph)}; {_size(found.other)}.", ("method", "answer", "why"), tuple(rows), tuple(notes)
    )


def _size(graph: GraphBatch) -> str:
    return f"{graph.n:,} nodes, {graph.edge_index.shape[1] // 2:,} edges"


def _verdict(found: Comparison) -> str:
    """Whether the graphs are isomorphic, in a sentence."""
    if found.order is not None:
        told = ", ".join(map(str, found.order.tolist()))
        where = f"node i of the first is node {told} of the second, for i = 0, 1, ..." if found.graph.n <= SHOWN else "see `out` for it"
        return f"They are isomorphic: {where}"
    if found.isomorphic is None:
        return f"Undecided: no method tells them apart, and {found.tries:,} refinements found no isomorphism; `tries` allows more."
    if any(each.told_apart for each in found.separations):
        return "They are not isomorphic: what an isomorphism would keep differs."
    return "They are not isomorphic, though no method tells them apart: the search for an isomorphism went through all cases."


def numbers(found: Comparison) -> dict[str, Any]:
    """What ``isomorphic.json`` says."""
    answers = {each.method: {"told_apart": each.told_apart, "reason": each.reason} for each in found.separations}
    order = None if found.order is None else found.order.tolist()
    return {"isomorphic": found.isomorphic, "isomorphism": order, "methods": answers, "failed": dict(found.failed)}


def write_comparison(found: Comparison, out: str | os.PathLike[str]) -> Path:
    """Write ``isomorphic.md`` and ``isomorphic.json``, which has the isomorphism if there is one.

    Args:
        found: see ``gnn.compare``.
        out: folder, new or empty.

    Raises:
        UserError: the folder holds something.
    """
    folder = Path(out)
    files.check_vacant(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "isomorphic.md", f"{table(found)}\n")
    files.write_json(folder / "isomorphic.json", numbers(found))
    return folder
