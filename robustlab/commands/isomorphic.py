"""``robustlab isomorphic``: which methods tell two graphs apart; see ``robustlab.gnn.isomorphisms``."""

from __future__ import annotations

from pathlib import Path

from robustlab import files
from robustlab.commands import settings
from robustlab.errors import UserError
from robustlab.gnn.isomorphisms import compare
from robustlab.gnn.readers import read_two
from robustlab.gnn.weights import load_network
from robustlab.reports.isomorphic import table, write_comparison


def run(args: settings.Isomorphic) -> None:
    """Print the table, and write the files."""
    if args.graph is None:
        raise UserError("which graphs? Two files, such as A.npz B.npz, or one file with two graphs")
    if args.out is not None:
        files.check_vacant(Path(args.out))
    graph, other = read_two(args.graph, args.other)
    networks = {args.model: load_network(args.model)} if args.model else {}
    found = compare(graph, other, methods=args.methods or (), networks=networks, tries=args.tries)
    print(table(found))
    if args.out is not None:
        print(f"\nThe table and isomorphic.json are in {write_comparison(found, args.out)}")
