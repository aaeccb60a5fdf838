"""Which graphs each method and each class of networks tells apart: all small graphs, skip links, hard pairs; the order of the classes, and
how it grows with depth and operators.

    found = reproduce("expressive-power", "pairs.tsv", out="runs/reproduce")
    print(found.tables[0])

``data`` is a file of pairs, see ``gnn.read_pairs``, such as the 400 of BREC (Wang and Zhang 2024); without it pairs are made here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial

import torch

from robustlab import seeding
from robustlab.errors import unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs.contrast import judged_pair
from robustlab.experiments.graphs.skip_links import TRAINED, trained
from robustlab.extras import networkx
from robustlab.gnn.families import all_graphs, cai_furer_immerman, skip_links, strongly_regular
from robustlab.gnn.generators import renumbered
from robustlab.gnn.graphs import GraphBatch, as_graphs, side_by_side
from robustlab.gnn.ign import IGN
from robustlab.gnn.networks import GraphNetwork, clipped
from robustlab.gnn.operators import HopRing, Reached
from robustlab.gnn.pooled import GIN, PooledSGNN
from robustlab.gnn.readers import Pair, read_pairs
from robustlab.gnn.ring import RingGNN
from robustlab.gnn.separation import (
    METHODS,
    Answers,
    Colours,
    Method,
    bare,
    by_network,
    clipped_powers,
    closed_walks,
    refinement_by,
)
from robustlab.reports.orders import ordered
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table

VERSION = 2  # of the measurements: another one measures again
PROTOCOL_VERSION = 1
PARTS = ("small", "skip-links", "pairs", "order", "rates", "trained", "protocol")
LARGEST = {"3-FWL": 16}  # nodes up to which a method is asked


# Networks with random weights, in float64, by name: what a class can tell apart, some network with weights drawn at random does.
NETWORKS: dict[str, Callable[[int], GraphNetwork]] = {
    "GIN": lambda seed: GIN(16, width=16, depth=4, norm="none", seed=seed),
    "2-IGN": lambda seed: IGN(16, width=8, depth=3, seed=seed),
    "sGNN, clipped powers to 5": lambda seed: PooledSGNN(16, clipped(5), width=16, depth=3, norm="none", seed=seed),
    "Ring-GNN": lambda seed: RingGNN(16, width=(8, 8), seed=seed),
}
BOUND = {"GIN": "1-WL", "2-IGN": "1-WL", "sGNN, clipped powers to 5": "clipped powers to 5", "Ring-GNN": "2-FWL"}
# Wang and Zhang 2024, of the 400 pairs.
PUBLISHED_PAIRS = {"GIN": "0", "2-FWL": "270"}


@dataclass(frozen=True)
class Config:
    """Attributes:
    parts: which tables to make, of ``PARTS``.
    methods: names of methods and networks; all if empty.
    nodes: of the graphs of which all are looked at.
    powers: largest clipped power, hop ring and length of walks over which the rates go.
    epochs: of the networks trained on skip links, and of the protocol of BREC.
    seeds: of the splits of the skip links.
    """

    parts: tuple[str, ...] = PARTS
    methods: tuple[str, ...] = ()
    nodes: tuple[int, ...] = (4, 5, 6, 7)
    powers: int = 8
    epochs: int = 60
    seeds: int = 1


FULL = Config(seeds=3)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Ask every method about every graph, or what is missing of it, and put the answers into tables.

    Raises:
        UserError: an unknown part or method, or a file that holds no pairs.
    """
    for part in config.parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for name in config.methods:
        if name not in {*asked(Config()), *TRAINED}:
            raise unknown("method", name, {*asked(Config()), *TRAINED})
    given = cache.own_file(read_pairs)
    pairs = own_pairs() if given is None else by_category(given)
    made = {
        "small": lambda: _small(cache, config),
        "skip-links": lambda: _links(cache, config),
        "pairs": lambda: _pairs(cache, config, pairs, given is not None),
        "order": lambda: _order(cache, config, pairs),
        "rates": lambda: _rates(cache, config, pairs),
        "trained": lambda: trained(cache, names_of(config, TRAINED), config.seeds, config.epochs),
        "protocol": lambda: _protocol(cache, config, pairs),
    }
    found = [made[part]() for part in config.parts]
    return Finding(
        tuple(table for each in found for table in each.tables),
        {name: value for each in found for name, value in each.numbers.items()},
        lines={name: plot for each in found for name, plot in each.lines.items()},
        orders={name: order for each in found for name, order in each.orders.items()},
    )


def asked(config: Config) -> dict[str, Method]:
    """The methods and networks of a configuration, by name."""
    known: dict[str, Method] = {**METHODS, "clipped powers to 5": clipped_powers(5)}
    known["clipped powers without the diagonal"] = refinement_by([Reached(t + 1, loops=False) for t in range(6)])
    known |= {name: partial(_by_random, name) for name in NETWORKS}
    return {name: known[name] for name in names_of(config, known)}


def names_of(config: Config, known: Iterable[str]) -> list[str]:
    """Those of some names that a configuration asks for."""
    return [name for name in known if not config.methods or name in config.methods]


@once
def _of_random(name: str) -> Method:
    return by_network(NETWORKS[name](0))


def _by_random(name: str, graphs: GraphBatch) -> Answers:
    return _of_random(name)(graphs)


# Graphs


def by_category(pairs: Sequence[Pair]) -> dict[str, list[GraphBatch]]:
    """The pairs of each category, both graphs of one side by side."""
    found: dict[str, list[GraphBatch]] = {}
    for pair in pairs:
        found.setdefault(pair.category, []).append(side_by_side([bare(pair.graph), bare(pair.other)]))
    return found


def own_pairs() -> dict[str, list[GraphBatch]]:
    """Pairs that are hard for some method, in categories."""
    links, small = bare(skip_links()), all_graphs(7)
    bases = {f"circle of {n}": networkx().cycle_graph(n) for n in (3, 4, 5, 6)}
    bases |= {"complete graph of 4": networkx().complete_graph(4), "prism": networkx().circular_ladder_graph(3)}
    bases |= {"bipartite graph of 3 and 3": networkx().complete_bipartite_graph(3, 3), "cube": networkx().hypercube_graph(3)}
    return {
        "skip links": [side_by_side([links.one(i), links.one(j)]) for i, j in itertools.combinations(range(len(links)), 2)],
        "7 nodes": [side_by_side([small.one(i), small.one(j)]) for i, j in _confused(small)],
        "Cai-Fürer-Immerman": [side_by_side(list(cai_furer_immerman(as_graphs(base)))) for base in bases.values()],
        "strongly regular": [side_by_side(list(strongly_regular()))],
    }


def _confused(graphs: GraphBatch) -> list[tuple[int, int]]:
    """Pairs of graphs that 1-WL or one of the spectra does not tell apart."""
    found: set[tuple[int, int]] = set()
    for name in ("1-WL", "spectrum", "laplacian spectrum"):
        labels = METHODS[name](graphs).labels
        for label in range(int(labels.max()) + 1):
            found |= set(itertools.combinations((labels == label).nonzero()[:, 0].tolist(), 2))
    return sorted(found)


# Measurements


@dataclass(frozen=True)
class Answered:
    """What a method says of the pairs of a category.

    Attributes:
        rounds: for each pair the round after which it is told apart, 0 where a method has none; -1 where it is not told apart, and None
            where the method was not asked.
        alarms: of how many first graphs a renumbered copy is told apart.
    """

    rounds: list[int | None]
    alarms: int

    @property
    def count(self) -> int:
        """Pairs told apart."""
        return self.within(10**9)

    def within(self, rounds: int) -> int:
        """Pairs told apart after so many rounds."""
        return sum(number is not None and 0 <= number <= rounds for number in self.rounds)


def _settings(name: str, **more: object) -> Values:
    made = {"network": NETWORKS[name](0).settings | {"operators": ""}} if name in NETWORKS else {}
    return {"method": name, "version": VERSION, **({"network": str(made["network"])} if made else {}), **more}


def _labelled(cache: ExperimentCache, what: str, graphs: GraphBatch, methods: Mapping[str, Method]) -> dict[str, Values]:
    """Of every method the labels of some graphs, after every round where it has rounds."""

    def measure(method: Method) -> Values:
        began = time.process_time()
        answers = method(graphs)
        rounds = [labels.tolist() for labels in answers.found.history] if isinstance(answers, Colours) else []
        return {"labels": answers.labels.tolist(), "rounds": rounds, "seconds": round(time.process_time() - began, 2)}

    wanted = [name for name in methods if int(graphs.sizes.max()) <= LARGEST.get(name, 10**9)]
    measurements = [Measurement(f"{what} {name}", _settings(name, graphs=what), partial(measure, methods[name])) for name in wanted]
    return dict(zip(wanted, cache.measured("expressive-power", measurements), strict=True))


def _apart(
    cache: ExperimentCache, pairs: Mapping[str, Sequence[GraphBatch]], methods: Mapping[str, Method]
) -> dict[str, dict[str, Answered]]:
    """Of every method the answers to every category."""

    def measure(name: str, category: str) -> Values:
        began, found, alarms = time.process_time(), [], 0
        for pair in pairs[category]:
            fresh = bare(pair)  # which takes with it what is worked out for it
            answered = int(pair.sizes.max()) <= LARGEST.get(name, 10**9)
            found.append(_round(methods[name], fresh) if answered else None)
            alarms += answered and _round(methods[name], _with_copy(pair)) >= 0
        return {"rounds": found, "alarms": alarms, "seconds": round(time.process_time() - began, 2)}

    keys = list(itertools.product(methods, pairs))
    measurements = [
        Measurement(f"{category} {name}", _settings(name, pairs=category, count=len(pairs[category])), partial(measure, name, category))
        for name, category in keys
    ]
    found: dict[str, dict[str, Answered]] = {name: {} for name in methods}
    for (name, category), values in zip(keys, cache.measured("expressive-power", measurements), strict=True):
        found[name][category] = Answered(values["rounds"], values["alarms"])
    return found


def _with_copy(pair: GraphBatch) -> GraphBatch:
    """The first graph of a pair beside a renumbered copy of itself."""
    one = bare(pair.one(0))
    return side_by_side([one, bare(renumbered(replace(one, keys=seeding.example_keys(0, torch.tensor([one.n]))))[0])])


def _round(method: Method, pair: GraphBatch) -> int:
    answers = method(pair)
    if answers.labels[0] == answers.labels[1]:
        return -1
    counted = answers.counts(0, 1) if isinstance(answers, Colours) else None
    return counted[0] if counted else 0


# Tables


def _small(cache: ExperimentCache, config: Config) -> Finding:
    found = {n: _labelled(cache, f"graphs of {n} nodes", all_graphs(n), asked(config)) for n in config.nodes}
    rows = [
        (name, BOUND.get(name, ""), *(str(len(set(found[n][name]["labels"]))) if name in found[n] else "" for n in config.nodes))
        for name in asked(config)
    ]
    sizes = ", ".join(f"{len(all_graphs(n)):,} of {n} nodes" for n in config.nodes)
    table = Table(
        "All small graphs: how many each method tells apart",
        f"Of all isomorphism classes ({sizes}): the number of different answers. Networks have random weights, in float64.",
        ("method", "never more than", *(f"{n} nodes" for n in config.nodes)),
        tuple(rows),
    )
    told = {str(n): {name: len(set(values["labels"])) for name, values in found[n].items()} for n in config.nodes}
    return Finding((table,), {"small": told})


def _links(cache: ExperimentCache, config: Config) -> Finding:
    links = bare(skip_links())
    found = _labelled(cache, "skip links", links, asked(config))
    rows = [(name, str(len(set(values["labels"])))) for name, values in found.items()]
    sweeps = {
        "clipped powers": lambda t: clipped_powers(t),
        "clipped powers without the diagonal": lambda t: refinement_by([Reached(s + 1, loops=False) for s in range(t)]),
        "dyadic powers, 1 to 2^(t-1)": lambda t: clipped_powers(min(t, 5), dyadic=True),
        "hop rings": lambda t: refinement_by([HopRing(s + 1) for s in range(t)]),
        "closed walks": lambda t: closed_walks(t),
    }
    counts = {name: [len(make(t)(links).labels.unique()) for t in range(1, config.powers + 1)] for name, make in sweeps.items()}
    tables = (
        Table(
            "Circular skip links: classes told apart, of ten",
            "41 nodes, skips 2, 3, 4, 5, 6, 9, 11, 12, 13, 16. Networks have random weights.",
            ("method", "classes"),
            tuple(rows),
        ),
        Table(
            "Circular skip links: classes told apart by the first t",
            "Colour refinement with the operators up to t, or closed walks up to length t.",
            ("operators", *(f"t = {t}" for t in range(1, config.powers + 1))),
            tuple((name, *map(str, values)) for name, values in counts.items()),
        ),
    )
    return Finding(tables, {"skip links": {name: len(set(values["labels"])) for name, values in found.items()}, "links by t": counts})


def _pairs(cache: ExperimentCache, config: Config, pairs: Mapping[str, list[GraphBatch]], given: bool) -> Finding:
    found = _apart(cache, pairs, asked(config))
    rows = []
    for name, answers in found.items():
        open_ = sum(one.rounds.count(None) for one in answers.values())
        total = f"{sum(one.count for one in answers.values())}" + (f" ({open_} not asked)" if open_ else "")
        published = (PUBLISHED_PAIRS.get(name, ""),) if given else ()
        alarms = str(sum(one.alarms for one in answers.values()))
        rows.append((name, BOUND.get(name, ""), *(str(one.count) for one in answers.values()), total, *published, alarms))
    size = sum(map(len, pairs.values()))
    heads = (*(f"{category} ({len(some)})" for category, some in pairs.items()), "all", *(("published",) if given else ()))
    table = Table(
        "Pairs told apart",
        f"{size} pairs of graphs that are not isomorphic. Networks have random weights, in float64: a pair is told apart where answers "
        "differ by more than 1e-10 of the largest, and by more than a hundred times what renumbered copies differ by. A false alarm is a "
        "renumbered copy of the first graph that is told from it.",
        ("method", "never more than", *heads, "false alarms"),
        tuple(rows),
    )
    told = {name: {category: one.count for category, one in answers.items()} for name, answers in found.items()}
    return Finding((table,), {"pairs": told, "false alarms": sum(one.alarms for some in found.values() for one in some.values())})


def _order(cache: ExperimentCache, config: Config, pairs: Mapping[str, list[GraphBatch]]) -> Finding:
    """Methods by which pairs they tell apart; of those that were asked about every pair."""
    own = {**own_pairs(), **pairs}
    found = _apart(cache, own, asked(config))
    sets = {}
    for name, answers in found.items():
        rounds = [number for category in own for number in answers[category].rounds]
        if None not in rounds:
            sets[name] = frozenset(i for i, number in enumerate(rounds) if number is not None and number >= 0)
    places = [f"{category} {i}" for category, some in own.items() for i in range(len(some))]
    title = f"Which of {len(places):,} pairs each method tells apart, by inclusion"
    order = ordered(title, sets)
    rows = []
    for a, b in itertools.combinations(sets, 2):
        only_a, only_b = sorted(sets[a] - sets[b]), sorted(sets[b] - sets[a])
        if only_a and only_b:
            rows.append((a, b, f"{len(only_a)}, such as {places[only_a[0]]}", f"{len(only_b)}, such as {places[only_b[0]]}"))
    table = Table(
        "Methods of which neither tells apart all that the other does",
        f"{len(places):,} pairs: " + ", ".join(f"{len(some)} {category}" for category, some in own.items()) + ".",
        ("one", "other", "pairs that only the one tells apart", "pairs that only the other tells apart"),
        tuple(rows),
        ("All other methods are in the order of the picture.",),
    )
    return Finding(
        (table,), {"order": {"sizes": dict(order.sizes), "covers": list(order.covers)}}, orders={"expressive-power-order": order}
    )


def _rates(cache: ExperimentCache, config: Config, pairs: Mapping[str, list[GraphBatch]]) -> Finding:
    steps = range(1, config.powers + 1)
    families: dict[str, Callable[[int], Method]] = {
        "clipped powers": clipped_powers,
        "clipped powers without the diagonal": lambda t: refinement_by([Reached(s + 1, loops=False) for s in range(t)]),
        "hop rings": lambda t: refinement_by([HopRing(s + 1) for s in range(t)]),
        "closed walks": closed_walks,
    }
    methods = {f"{name} up to {t}": make(t) for name, make in families.items() for t in steps}
    found = _apart(cache, pairs, methods)
    total = sum(map(len, pairs.values()))
    counts = {name: [sum(one.count for one in found[f"{name} up to {t}"].values()) for t in steps] for name in families}
    lines = tuple(Line(name, list(steps), [count / total for count in values]) for name, values in counts.items())
    deep = _apart(cache, pairs, {name: METHODS[name] for name in ("1-WL", "clipped powers", "2-FWL")})
    depth = range(max(number or 1 for answers in deep.values() for one in answers.values() for number in one.rounds) + 1)
    by_round = {name: [sum(one.within(r) for one in answers.values()) for r in depth] for name, answers in deep.items()}
    tables = (
        Table(
            "Pairs told apart over the operators",
            f"{total} pairs; refinement with the operators up to t until no colour splits, or closed walks up to length t.",
            ("operators", *(f"t = {t}" for t in steps)),
            tuple((name, *map(str, values)) for name, values in counts.items()),
        ),
        Table(
            "Pairs told apart over the rounds",
            f"{total} pairs, after so many rounds of refinement: the depth that a network needs at least.",
            ("method", *(f"round {r}" for r in depth)),
            tuple((name, *map(str, values)) for name, values in by_round.items()),
        ),
    )
    axes = Axes("largest power, distance or length t", f"share of {total} pairs told apart", percent=True)
    plot = LinePlot("Pairs told apart over the operators", lines, axes)
    return Finding(tables, {"rates": counts, "rounds": by_round}, lines={"expressive-power-rates": plot})


# Networks that are trained for each pair

PROTOCOL: dict[str, Callable[[int], GraphNetwork]] = {"GIN": lambda seed: GIN(16, width=16, depth=4, norm="batch", seed=seed)}


def _protocol(cache: ExperimentCache, config: Config, pairs: Mapping[str, list[GraphBatch]]) -> Finding:
    names = names_of(config, PROTOCOL)
    keys = list(itertools.product(names, pairs))

    def measure(name: str, category: str) -> Values:
        began = time.process_time()
        judged = [judged_pair(PROTOCOL[name](i), pair, seed=i, stop=cache.stop) for i, pair in enumerate(pairs[category])]
        return {"apart": [one[0] for one in judged], "alarms": [one[1] for one in judged], "seconds": round(time.process_time() - began)}

    measurements = [
        Measurement(
            f"protocol {category} {name}",
            _settings(f"protocol {name}", pairs=category, count=len(pairs[category]), version=PROTOCOL_VERSION),
            partial(measure, name, category),
        )
        for name, category in keys
    ]
    found = dict(zip(keys, cache.measured("expressive-power", measurements), strict=True))
    rows = [
        (
            name,
            *(str(sum(found[name, category]["apart"])) for category in pairs),
            str(sum(sum(found[name, category]["apart"]) for category in pairs)),
            str(sum(sum(found[name, category]["alarms"]) for category in pairs)),
        )
        for name in names
    ]
    table = Table(
        "Trained to tell each pair apart: BREC's protocol",
        "For each pair a network is trained on 32 renumbered copies of both graphs, 20 epochs; it tells them apart if Hotelling's T^2 is "
        "above 72.34. A false alarm is the same for two sets of copies of one graph.",
        ("network", *(f"{category} ({len(some)})" for category, some in pairs.items()), "all", "false alarms"),
        tuple(rows),
    )
    told = {name: {category: sum(found[name, category]["apart"]) for category in pairs} for name in names}
    return Finding((table,), {"protocol": told})
