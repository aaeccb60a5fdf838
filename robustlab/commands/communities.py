"""``robustlab communities``: the communities of a graph of one's own; see ``robustlab.gnn.choice``."""

from __future__ import annotations

from pathlib import Path

from robustlab.commands import settings
from robustlab.errors import UserError
from robustlab.gnn.choice import find_communities
from robustlab.gnn.readers import read_graph
from robustlab.gnn.weights import load_network
from robustlab.reports.communities import check_place, table, write_communities


def run(args: settings.Communities) -> None:
    """Print the table, and write the files."""
    if args.data is None:
        raise UserError("of which graph? --data takes a file such as graph.npz")
    graph, name = read_graph(args.data), Path(args.data).name
    if args.out is not None:
        check_place(args.out, graph)
    networks = {args.model: load_network(args.model)} if args.model else {}
    answer = find_communities(graph, args.k, methods=args.methods or (), networks=networks, seed=args.seed)
    print(table(answer, name))
    if args.out is not None:
        print(f"\nlabels.csv, communities.md and communities.png are in {write_communities(answer, args.out, name)}")
