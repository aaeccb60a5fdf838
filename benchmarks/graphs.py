"""What does a training step of the line-graph network cost, and what do graphs with a million nodes?

    python benchmarks/graphs.py                            # everything, about 10 minutes on one core
    python benchmarks/graphs.py --only step --repeats 3
    python benchmarks/graphs.py --only edges split

``step``: forward and backward pass on one of the published 5-community graphs (400 nodes, about 5,750 directed edges; Chen, Li and Bruna
2019), at the published depth of 30. Beside it the same formula with dense matrices, written here; and the 295 s that the authors' program
was seen to take for one such graph, scaled by a product of two dense 5752 x 5752 matrices in float64, which took 15.7 s on that machine.
``edges``: forward passes over numbers of edges. ``split``: the block model of a million nodes, and its two communities by the Bethe
Hessian. ``tensors``: the equivariant layer from order 2 to order 2, beside one written here in which all fifteen operations are made and
stacked before one product with the weights. ``messages``: five layers of GIN beside torch_geometric's with the same weights, on graphs the
size of molecules and on larger ones; ours are given a new batch each time, so that they keep nothing from the last. ``refinement``: rounds
of 1-WL over numbers of edges, and 2-FWL by products of matrices beside sorted multisets, on pairs of a file by ``--pairs``. Peak memory is
that of a process of its own for each, beside what it held before the work: the libraries.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.demo import peak_megabytes  # noqa: E402
from benchmarks.interleaved import Spread, clock, described, in_turn, table, timed  # noqa: E402
from robustlab import files, gnn  # noqa: E402
from robustlab.devices import choose_device  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.gnn.equivariant import TWO_TO_TWO, EquivariantLinear  # noqa: E402
from robustlab.gnn.layers import BatchNorm, GraphNorm, Groups, LineGraphLayer, MessageLayer, half_relu  # noqa: E402
from robustlab.gnn.losses import invariant_cross_entropy  # noqa: E402
from robustlab.gnn.sources import dissociative_five  # noqa: E402
from robustlab.options import positive  # noqa: E402
from robustlab.records import environment  # noqa: E402

RECORDED = 295.0  # seconds of the authors' program for one training graph: 40.6 of preparation, 39.6 forward, 214.8 backward; 4.8 GB
RECORDED_PRODUCT = 15.7  # seconds of a float64 product of two 5752 x 5752 matrices there
PRODUCT_SIZE = 5752
SORTED = "sorted multisets"
ROUNDS = 5  # of 1-WL
OURS, DENSE, STACKED = "ours", "dense copy", "stacked"
PYG, PYG_SPARSE = "torch_geometric, edge_index", "torch_geometric, sparse matrix"
NORMS = ("none", "batch")
LAYERS = 5  # of GIN


class DenseGraph:
    """The matrices of the published formula: of nodes ``A`` and ``min(1, A^2)``, of edges B and ``B^2``, and the incidences between."""

    def __init__(self, graphs: gnn.GraphBatch) -> None:
        edges = graphs.edge_index.shape[1]
        self.A = graphs.adjacency(torch.float32)
        self.walks = (self.A @ self.A).clamp(max=1)
        tail, head = (torch.zeros(graphs.n, edges).index_put((ends, torch.arange(edges)), torch.tensor(1.0)) for ends in graphs.edge_index)
        self.plus, self.minus = tail + head, tail - head
        self.B = head.T @ tail
        self.B[torch.arange(edges), graphs.reverse] = 0
        self.B2 = (self.B @ self.B).clamp(max=1)
        self.nodes = Groups(torch.tensor([0, graphs.n]))
        self.edges = Groups(torch.tensor([0, edges]))
        self.degree, self.line_degree = self.A.sum(1, keepdim=True), self.B.sum(1, keepdim=True)


def _normalized(norm: GraphNorm, groups: Groups, x: Tensor) -> Tensor:
    found: Tensor = norm(groups, half_relu(x))
    return found


def dense_layer(layer: LineGraphLayer, dense: DenseGraph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A layer of ``LGNN`` as the paper has it, with its weights."""
    x = layer.theta(torch.cat([x, dense.degree * x, dense.A @ x, dense.walks @ x, dense.plus @ y, dense.minus @ y], 1))
    x = _normalized(layer.node_norm, dense.nodes, x)
    parts = [y, dense.line_degree * y, dense.B @ y, dense.B2 @ y, dense.plus.T @ x, dense.minus.T @ x]
    return x, _normalized(layer.edge_norm, dense.edges, layer.gamma(torch.cat(parts, 1)))


def dense_network(network: gnn.LGNN, graphs: gnn.GraphBatch) -> Tensor:
    """``network(graphs)`` for one graph by dense matrices, which are made first, as for every new graph."""
    dense = DenseGraph(graphs)
    x = dense.degree
    y = dense.line_degree
    for layer in network.layers:
        x, y = dense_layer(layer, dense, x, y)  # type: ignore[arg-type]
    found: Tensor = network.last(x)
    return found


def one_step(network: gnn.LGNN, graphs: gnn.GraphBatch, forward: Callable[[gnn.LGNN, gnn.GraphBatch], Tensor]) -> float:
    """Loss and gradients on graphs that nothing is known of yet; gives the loss."""
    fresh = gnn.GraphBatch(graphs.edge_index, graphs.sizes, y=graphs.y)
    network.zero_grad(set_to_none=True)
    loss = invariant_cross_entropy(fresh, forward(network, fresh)).mean()
    loss.backward()
    return float(loss.detach())


def _ours(network: gnn.LGNN, graphs: gnn.GraphBatch) -> Tensor:
    found: Tensor = network(graphs)
    return found


def step(wanted: argparse.Namespace) -> dict[str, Any]:
    """Seconds of training steps, ours and dense in turn; and of a bare product, to scale what was recorded by."""
    graphs, network = dissociative_five(wanted.n)(0, 1), gnn.LGNN(5, depth=wanted.depth)
    forwards = {OURS: _ours, DENSE: dense_network}
    losses: dict[str, list[float]] = {name: [] for name in forwards}
    tasks = {name: (lambda number, forward=forward: one_step(network, graphs, forward)) for name, forward in forwards.items()}
    tasks[OURS](-1)
    seconds = in_turn(tasks, range(wanted.repeats), clock(torch.device("cpu")), lambda name, number, loss: losses[name].append(loss))
    size = wanted.product
    a = torch.rand(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = min(timed(lambda: a @ a, clock(torch.device("cpu")))[1] for _ in range(2)) * (PRODUCT_SIZE / size) ** 3
    return {
        "edges": graphs.edge_index.shape[1],
        "seconds": {name: vars(Spread.of(taken)) for name, taken in seconds.items()},
        "ratio": vars(Spread.ratio(seconds[DENSE], seconds[OURS])),
        "product": product,
        "recorded_ratio": RECORDED * product / RECORDED_PRODUCT / Spread.of(seconds[OURS]).median,
        "loss_difference": abs(losses[OURS][0] - losses[DENSE][0]),
    }


def memory(wanted: argparse.Namespace) -> dict[str, Any]:
    """The peak of a process that takes training steps of ours."""
    graphs, network, before = dissociative_five(wanted.n)(0, 1), gnn.LGNN(5, depth=wanted.depth), held()
    for _ in range(3):
        one_step(network, graphs, _ours)
    return {"peak_mb": peak(), "before_mb": before}


def held() -> float:
    """Megabytes that this process holds now; a peak before is forgotten, where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_megabytes()
    return float(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def peak() -> float:
    """The most megabytes since ``held`` was asked, or of the whole process where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_megabytes()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def over_edges(wanted: argparse.Namespace, run: Callable[[gnn.GraphBatch], object]) -> dict[str, Any]:
    """Seconds of a run over numbers of edges, at a mean degree of 3, and the exponent of a power law through them."""
    rows, before = [], held()
    for count in wanted.edges:
        n = max(2 * count // 3, 4)
        graphs = gnn.stochastic_block_model(n, 2, inside=min(5 / n, 1), between=min(1 / n, 1))
        with torch.no_grad():
            first, *taken = [timed(partial(run, graphs), clock(torch.device("cpu")))[1] for _ in range(1 + wanted.repeats)]
        there = graphs.edge_index.shape[1] // 2
        rows.append({"edges": there, "seconds": min(taken), "first": first, "us_per_edge": 1e6 * min(taken) / there})
    edges, seconds = (np.log(np.array([row[key] for row in rows], float)) for key in ("edges", "seconds"))
    exponent = float(np.polyfit(edges, seconds, 1)[0]) if len(rows) > 1 else math.nan
    return {"rows": rows, "exponent": exponent, "peak_mb": peak(), "before_mb": before}


def edges(wanted: argparse.Namespace) -> dict[str, Any]:
    """Forward passes of a line-graph network over numbers of edges."""
    return over_edges(wanted, gnn.LGNN(2, depth=3))


def refinement(wanted: argparse.Namespace) -> dict[str, Any]:
    """Rounds of 1-WL over numbers of edges, and 2-FWL on pairs of graphs, beside the exact one with sorted multisets."""
    found = over_edges(wanted, lambda graphs: gnn.refine(graphs, rounds=ROUNDS))
    pairs = [gnn.side_by_side([pair.graph, pair.other]) for pair in gnn.read_pairs(wanted.pairs)] if wanted.pairs else [skip_link_pair()]
    _, seconds = timed(lambda: [gnn.refine_pairs(pair) for pair in pairs], clock(torch.device("cpu")))
    link = skip_link_pair()
    runs = {OURS: lambda number: gnn.refine_pairs(link), SORTED: lambda number: gnn.refine_tuples(link, 2)}
    times = in_turn(runs, range(wanted.repeats), clock(torch.device("cpu")), lambda *seen: None)
    ratio = vars(Spread.ratio(times[SORTED], times[OURS]))
    return found | {"pairs": len(pairs), "pairs_seconds": seconds, "ratio": ratio}


def skip_link_pair() -> gnn.GraphBatch:
    """Two of the skip-link graphs."""
    return gnn.side_by_side([gnn.skip_links().one(which) for which in (0, 1)])


def naive_block_model(n: int, a: float, b: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two communities by numpy in the obvious way: as many pairs as a binomial draw says, repetitions and loops taken out, sorted."""
    source, half, parts = np.random.default_rng(seed), n // 2, []
    for i, j in ((0, 0), (1, 1), (0, 1)):
        pairs, p = (half * (half - 1) // 2, a / n) if i == j else (half * half, b / n)
        count = source.binomial(pairs, p)
        rows, columns = source.integers(0, half, (2, int(count * 1.01) + 10)) + np.array([[i], [j]]) * half
        low, high = np.minimum(rows, columns), np.maximum(rows, columns)
        codes = np.unique((low * n + high)[low != high])
        parts.append(source.permutation(codes)[:count])
    codes = np.concatenate(parts)
    order = source.permutation(n)
    tail, head = order[codes // n], order[codes % n]
    both = np.stack([np.concatenate([tail, head]), np.concatenate([head, tail])])
    labels = np.empty(n, dtype=np.int64)
    labels[order] = np.arange(n) // half
    return both[:, np.lexsort(both[::-1])], labels


def split(wanted: argparse.Namespace) -> dict[str, Any]:
    """Seconds to draw a large block model and to split it; numpy and ours take turns."""
    n, a, b = wanted.nodes, 8.0, 2.0
    tasks: dict[str, Callable[[int], Any]] = {
        "numpy": lambda number: naive_block_model(n, a, b, number),
        OURS: lambda number: gnn.stochastic_block_model(n, 2, inside=a / n, between=b / n, seed=number),
    }
    last: dict[str, Any] = {}
    seconds = in_turn(tasks, range(wanted.repeats), clock(torch.device("cpu")), lambda name, number, result: last.update({name: result}))
    graphs = last.pop(OURS)
    last.clear()
    found, taken = timed(lambda: gnn.communities(graphs, 2, "bethe hessian"), clock(torch.device("cpu")))
    return {
        "generated": {name: vars(Spread.of(each)) for name, each in seconds.items()},
        "ratio": vars(Spread.ratio(seconds["numpy"], seconds[OURS])),
        "split": taken,
        "overlap": float(gnn.overlap(graphs, found, 2)),
    }


def split_memory(wanted: argparse.Namespace) -> dict[str, Any]:
    """The peak of a process that draws and splits one."""
    n = wanted.nodes
    before = held()
    graphs = gnn.stochastic_block_model(n, 2, inside=8 / n, between=2 / n)
    drawn = peak()
    gnn.communities(graphs, 2, "bethe hessian")
    return {"peak_mb": peak(), "drawn_mb": drawn, "before_mb": before}


def stacked_layer(layer: EquivariantLinear, x: Tensor) -> Tensor:
    """The layer from order 2 to order 2 with its weights, by fifteen tensors ``(B, C, n, n)`` side by side and one product."""
    n, (rows, columns, straight) = x.shape[-1], (x.mean(3), x.mean(2), x.diagonal(dim1=2, dim2=3))
    across = [one[..., None].expand(-1, -1, -1, n) for one in (rows, columns, straight)]
    down = [one[:, :, None].expand(-1, -1, n, -1) for one in (rows, columns, straight)]
    diagonals = [one.diag_embed() for one in (rows, columns, straight)]
    constants = [one.mean(2, keepdim=True).expand(-1, -1, n) for one in (rows, straight)]
    everywhere, on_diagonal = [one[..., None].expand(-1, -1, -1, n) for one in constants], [one.diag_embed() for one in constants]
    operations = torch.cat([x, x.transpose(2, 3), *across, *down, *diagonals, *everywhere, *on_diagonal], 1)
    weight = layer.weight[list(TWO_TO_TWO)].transpose(0, 1).flatten(1)
    assert layer.bias is not None
    biases = layer.bias[1][:, None, None] + layer.bias[0][:, None, None] * torch.eye(n)
    return (weight @ operations.flatten(2)).unflatten(2, (n, n)) + biases


def _tensors_there(wanted: argparse.Namespace) -> tuple[EquivariantLinear, Tensor, dict[str, Callable[[int], Tensor]]]:
    source = torch.Generator().manual_seed(0)
    layer = EquivariantLinear(2, 2, wanted.channels, wanted.channels, source=source)
    x = torch.randn(wanted.tensors, wanted.channels, wanted.side, wanted.side, generator=source).requires_grad_()
    towards = torch.randn(x.shape, generator=source)

    def both_ways(act: Callable[[Tensor], Tensor]) -> Tensor:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        found = act(x)
        found.backward(towards)
        return found.detach()

    return layer, x, {OURS: lambda _: both_ways(layer), STACKED: lambda _: both_ways(lambda x: stacked_layer(layer, x))}


def tensors(wanted: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the layer from order 2 to order 2, forward and backward and forward alone; ours and stacked in turn."""
    layer, x, tasks = _tensors_there(wanted)
    last: dict[str, Tensor] = {}
    tasks[OURS](-1)
    both = in_turn(tasks, range(wanted.repeats), clock(torch.device("cpu")), lambda name, number, result: last.update({name: result}))
    alone: dict[str, Callable[[int], Tensor]] = {OURS: lambda _: layer(x), STACKED: lambda _: stacked_layer(layer, x)}
    with torch.no_grad():
        forward = in_turn(alone, range(wanted.repeats), clock(torch.device("cpu")), lambda name, number, result: None)
    return {
        "shape": list(x.shape),
        "rows": [
            {
                "pass": name,
                "seconds": {one: vars(Spread.of(each)) for one, each in taken.items()},
                "ratio": vars(Spread.ratio(taken[STACKED], taken[OURS])),
            }
            for name, taken in (("forward and backward", both), ("forward", forward))
        ],
        "difference": float((last[OURS] - last[STACKED]).abs().max()),
    }


def tensors_memory(wanted: argparse.Namespace, which: str = OURS) -> dict[str, Any]:
    """The peak of a process that does so in one of the ways; ``tensor_mb`` is what one tensor ``(B, C, n, n)`` takes."""
    _, x, tasks = _tensors_there(wanted)
    before = held()
    for _ in range(2):
        tasks[which](0)
    return {"peak_mb": peak(), "before_mb": before, "tensor_mb": x.numel() * x.element_size() / 1e6}


def small_graphs(count: int, low: int = 10, high: int = 28, degree: float = 2.2) -> gnn.GraphBatch:
    """Graphs the size of molecules: ``low`` to ``high`` nodes, with ``degree`` neighbours in the mean."""
    sizes = torch.randint(low, high + 1, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    drawn = [gnn.erdos_renyi(n, degree / (n - 1), seed=number) for number, n in enumerate(sizes)]
    return gnn.side_by_side([gnn.GraphBatch(one.edge_index, one.sizes) for one in drawn])


def messages(wanted: argparse.Namespace) -> dict[str, Any]:
    """Seconds of layers of GIN, forward and backward, ours and torch_geometric's in turn: without norms, and with BatchNorm in both. Its
    sparse matrix is made before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, at what torch_geometric does when it is imported
            from torch_geometric.nn import GINConv
    except ImportError:
        return {"missing": "torch_geometric", "rows": []}
    batches = {"molecules": small_graphs(wanted.molecules), "larger graphs": gnn.erdos_renyi(1000, 0.008, graphs=wanted.large)}
    rows = []
    for (name, graphs), norm in ((batch, norm) for batch in batches.items() for norm in NORMS):
        ours = [MessageLayer(wanted.channels, wanted.channels, norm=norm) for _ in range(LAYERS)]
        theirs = [GINConv(_two_linear_maps(layer), train_eps=True) for layer in ours]
        x = torch.randn(graphs.n, wanted.channels, generator=torch.Generator().manual_seed(1))
        ones = torch.ones(graphs.edge_index.shape[1])
        matrix = torch.sparse_csr_tensor(graphs.row_starts, graphs.head, ones, (graphs.n, graphs.n), check_invariants=False)
        tasks: dict[str, Callable[[int], Tensor]] = {
            OURS: lambda _, graphs=graphs, ours=ours, x=x: _through(ours, gnn.GraphBatch(graphs.edge_index, graphs.sizes), x),  # type: ignore[misc]
            PYG: lambda _, graphs=graphs, theirs=theirs, x=x: _through(theirs, graphs.edge_index, x, last=True),  # type: ignore[misc]
            PYG_SPARSE: lambda _, matrix=matrix, theirs=theirs, x=x: _through(theirs, matrix, x, last=True),  # type: ignore[misc]
        }
        last: dict[str, Tensor] = {one: task(-1) for one, task in tasks.items()}
        taken = in_turn(tasks, range(wanted.repeats), clock(torch.device("cpu")), lambda name, number, result: None)
        rows.append(
            {
                "graphs": f"{len(graphs)} {name}, {graphs.n:,} nodes, {len(ones):,} directed edges",
                "norm": norm,
                "seconds": {one: vars(Spread.of(each)) for one, each in taken.items()},
                "ratios": {one: vars(Spread.ratio(taken[one], taken[OURS])) for one in (PYG, PYG_SPARSE)},
                "difference": max(float((last[one] - last[OURS]).abs().max()) for one in (PYG, PYG_SPARSE)),
            }
        )
    return {"missing": None, "rows": rows}


def _two_linear_maps(layer: MessageLayer) -> torch.nn.Module:
    """The layer's own maps as one module of values alone."""
    inner, outer = (one.over if isinstance(one, BatchNorm) else torch.nn.Identity() for one in (layer.inner, layer.outer))
    return torch.nn.Sequential(layer.first, inner, torch.nn.ReLU(), layer.second, outer, torch.nn.ReLU())


def _through(layers: Sequence[torch.nn.Module], where: Any, x: Tensor, *, last: bool = False) -> Tensor:
    """Values after all layers, and their gradients; ``where`` is what a layer has of the graphs, its ``last`` argument or its first."""
    for layer in layers:
        x = layer(x, where) if last else layer(where, x)
    x.sum().backward()
    return x.detach()


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "step": step,
    "memory": memory,
    "edges": edges,
    "split": split,
    "split-memory": split_memory,
    "tensors": tensors,
    "tensors-memory": tensors_memory,
    "stacked-memory": partial(tensors_memory, which=STACKED),
    "messages": messages,
    "refinement": refinement,
}
TOGETHER = {  # what ``--only`` names
    "step": ("step", "memory"),
    "edges": ("edges",),
    "split": ("split", "split-memory"),
    "tensors": ("tensors", "tensors-memory", "stacked-memory"),
    "messages": ("messages",),
    "refinement": ("refinement",),
}


def apart(part: str, argv: Sequence[str]) -> dict[str, Any]:
    """What a part finds in a process of its own.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part.json"
        done = subprocess.run([sys.executable, __file__, *argv, "--part", part, "--out", str(out)], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the part {part} failed: {done.stderr.strip().splitlines()[-1]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"graphs: {error}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    wanted = _parser().parse_args(argv)
    choose_device("cpu", wanted.threads)
    if wanted.part:
        files.write_json(Path(wanted.out), PARTS[wanted.part](wanted))
        return 0
    here = environment()
    print(f"{described(here)}; {wanted.repeats} rounds\n", flush=True)
    found: dict[str, Any] = {"settings": vars(wanted), "environment": here}
    for name in wanted.only or TOGETHER:
        for part in TOGETHER[name]:
            found[part] = apart(part, argv)
        print(SHOWN[name](found) + "\n", flush=True)
    if wanted.out:
        files.write_json(Path(wanted.out), found)
    return 0


def _step_shown(found: dict[str, Any]) -> str:
    step, memory = found["step"], found["memory"]
    rows = [
        {f"a training step, {step['edges']} directed edges": name, "seconds": str(Spread(**each))} for name, each in step["seconds"].items()
    ]
    return "\n".join(
        [
            table(rows),
            f"\nthe dense copy takes {Spread(**step['ratio'])} times as long; the losses differ by {step['loss_difference']:.1g}",
            f"recorded: {RECORDED:g} s, here {RECORDED * step['product'] / RECORDED_PRODUCT:.0f} s by a product of {step['product']:.1f} s "
            f"(there {RECORDED_PRODUCT} s): {step['recorded_ratio']:.0f} times as long",
            f"peak memory {_memory(memory)}",
        ]
    )


def _memory(found: dict[str, Any]) -> str:
    return f"{found['peak_mb']:.0f} MB, of which {found['before_mb']:.0f} MB before the work"


def _edges_shown(found: dict[str, Any], part: str = "edges", what: str = "forward") -> str:
    rows = [
        {
            "edges": f"{row['edges']:,}",
            f"{what}, s": f"{row['seconds']:.3g}",
            "first, s": f"{row['first']:.3g}",
            "us/edge": f"{row['us_per_edge']:.3g}",
        }
        for row in found[part]["rows"]
    ]
    return f"{table(rows)}\n\ntime ~ edges^{found[part]['exponent']:.2f}; peak memory {_memory(found[part])}"


def _refinement_shown(found: dict[str, Any]) -> str:
    part = found["refinement"]
    pairs = f"2-FWL: {part['pairs']} pair{'s' * (part['pairs'] != 1)} of graphs in {part['pairs_seconds']:.2f} s"
    rounds = _edges_shown(found, "refinement", f"{ROUNDS} rounds of 1-WL")
    return f"{rounds}\n{pairs}; with sorted multisets {Spread(**part['ratio'])} times as long"


def _split_shown(found: dict[str, Any]) -> str:
    part, memory = found["split"], found["split-memory"]
    rows = [{"drawing the graph": name, "seconds": str(Spread(**each))} for name, each in part["generated"].items()]
    splitting = f"splitting by the Bethe Hessian takes {part['split']:.1f} s, overlap {part['overlap']:.3f}"
    took = f"numpy takes {Spread(**part['ratio'])} times as long; {splitting}"
    return f"{table(rows)}\n\n{took}\npeak memory {_memory(memory)}, {memory['drawn_mb']:.0f} MB after drawing"


def _tensors_shown(found: dict[str, Any]) -> str:
    part = found["tensors"]
    shape = " x ".join(map(str, part["shape"]))
    rows = [
        {f"from order 2 to order 2, {shape}": f"{row['pass']}, {name}", "seconds": str(Spread(**each))}
        for row in part["rows"]
        for name, each in row["seconds"].items()
    ]
    times = ", ".join(f"{Spread(**row['ratio'])} {row['pass']}" for row in part["rows"])
    taken = [(name, found[f"{key}-memory"]) for name, key in ((OURS, "tensors"), (STACKED, "stacked"))]
    memory = [f"{name} {(each['peak_mb'] - each['before_mb']) / each['tensor_mb']:.1f}" for name, each in taken]
    return "\n".join(
        [
            table(rows),
            f"\nstacked takes {times} times as long; the values differ by {part['difference']:.1g}",
            f"memory on top of the input, in tensors of its size ({taken[0][1]['tensor_mb']:.0f} MB): {', '.join(memory)}",
        ]
    )


def _messages_shown(found: dict[str, Any]) -> str:
    part = found["messages"]
    if part["missing"]:
        return f"{part['missing']} is not installed: no layers of its own to compare with"
    rows = [
        {
            f"{LAYERS} layers of GIN": row["graphs"],
            "norm": row["norm"],
            **{f"{name}, s": str(Spread(**each)) for name, each in row["seconds"].items()},
            **{f"{name.partition(', ')[2]} / ours": str(Spread(**each)) for name, each in row["ratios"].items()},
        }
        for row in part["rows"]
    ]
    return f"{table(rows)}\n\nthe values differ by {max(row['difference'] for row in part['rows']):.1g}"


SHOWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "step": _step_shown,
    "edges": _edges_shown,
    "split": _split_shown,
    "tensors": _tensors_shown,
    "messages": _messages_shown,
    "refinement": _refinement_shown,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TOGETHER, help="parts to run (default: all)")
    parser.add_argument("--repeats", type=positive, default=5, help="rounds (default: 5)")
    parser.add_argument("--n", type=positive, default=400, help="nodes of the graph of a training step (default: 400)")
    parser.add_argument("--depth", type=positive, default=30, help="layers of the network (default: 30)")
    parser.add_argument("--product", type=positive, default=PRODUCT_SIZE, help="rows of the bare product's matrices (default: 5752)")
    parser.add_argument("--edges", type=positive, nargs="+", default=[10_000, 100_000, 1_000_000], help="of the forward passes")
    parser.add_argument("--nodes", type=positive, default=1_000_000, help="of the graph that is split (default: 1000000)")
    parser.add_argument("--channels", type=positive, default=64, help="of tensors and messages (default: 64)")
    parser.add_argument("--side", type=positive, default=75, help="nodes of the graphs of the tensors (default: 75)")
    parser.add_argument("--tensors", type=positive, default=4, help="graphs of the tensors (default: 4)")
    parser.add_argument("--molecules", type=positive, default=128, help="small graphs that messages go through (default: 128)")
    parser.add_argument("--large", type=positive, default=20, help="graphs of 1000 nodes that messages go through (default: 20)")
    parser.add_argument("--pairs", help="file of pairs for 2-FWL, see gnn.read_pairs (default: one pair of skip links)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", help="JSON file for everything measured")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
