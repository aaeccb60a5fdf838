"""Tours through cities: a network that scores edges, with a beam search and 2-opt, beside heuristics that learn nothing and the shortest
tours; and any problem of TSPLIB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import shown
from robustlab.gnn.gated import GatedGNN, RandomCities, complete, edge_scores, tour_cross_entropy
from robustlab.gnn.generators import points
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.readers import read_tour, read_tsp
from robustlab.gnn.tours import HEURISTICS, Cities, beam_search, euclidean, length, optimal_tour, two_opt
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining
from robustlab.training.losses import Outcome

VERSION = 2  # of the measurements: another one measures again
TEST_SEED = 1  # of the cities to test on; those to train on have another
PROBLEMS = 100
EXACT = 120  # cities up to which the shortest tour of one's own problem is worked out where no file tells it
SHORTEST = "shortest"
PUBLISHED = (
    "Published for 20 cities: a mean gap of 2.7 % (Nowak et al. 2017, as Kool et al. 2019 quote them); the talk shows two problems, with "
    "the ratios 1.020 and 1.006."
)


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: problems to test on, ``PROBLEMS`` where left out.
    n: cities.
    width: of the beam.
    steps: of training of the network, with ``batch_size`` problems in each; 0 leaves it out.
    shown: how many problems to draw.
    """

    seeds: int | None = None
    n: int = 20
    width: int = 40
    steps: int = 1600
    batch_size: int = 16
    lr: float = 0.002
    channels: int = 32
    depth: int = 4
    shown: int = 2

    @property
    def problems(self) -> int:
        """How many to test on."""
        return self.seeds or PROBLEMS


FULL = Config(seeds=1000, steps=50_000, batch_size=64, channels=64, depth=8)


def tour_loss(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The cross-entropy of each city's edges, with a metric: the share of a tour's edges among each city's two best, ``right``."""
    scores = edge_scores(model, batch)
    assert batch.y is not None
    places, n = batch.y.reshape(len(batch), -1), scores.shape[1]
    best = scores.detach().topk(2, 2).indices
    step = (places.gather(1, best.flatten(1)).reshape(best.shape) - places[:, :, None]) % n
    return Outcome(tour_cross_entropy(scores, places), {"right": ((step == 1) | (step == n - 1)).double().mean((1, 2))})


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Measure what is missing, and put the numbers into a table; on a problem of TSPLIB where the cache has one."""
    cities = cache.own_file(read_tsp)
    network, seconds = _trained(cache, config) if config.steps else (None, 0.0)
    if cities is not None:
        return _on_own(cache, config, cities, network)
    settings = {"version": VERSION, "n": config.n, "problems": config.problems, "beam": config.width}
    measurements = [Measurement(f"{config.n} cities", settings, partial(_heuristics, config))]
    if network is not None:
        trained = {"steps": config.steps, "batch": config.batch_size, "lr": config.lr, **network.settings}
        measurements.append(Measurement(f"{config.n} cities network", {**settings, **trained}, partial(_network, config, network)))
    found: dict[str, list[float]] = {}
    tours: dict[str, list[list[int]]] = {}
    for values in cache.measured("tours", measurements):
        found |= values["lengths"]
        tours |= values["tours"]
    return Finding((_table(config, found, seconds),), {"lengths": found, "training": seconds}, lines=_pictures(config, found, tours))


def _trained(cache: ExperimentCache, config: Config) -> tuple[GraphNetwork, float]:
    epochs = max(1, config.steps // 200)
    problems = config.steps // epochs * epochs * config.batch_size
    how = {"optimizer": "adam", "clip": 1.0, "schedule": "one-cycle"}
    training = GraphTraining(problems, epochs, config.batch_size, config.lr, **how)  # type: ignore[arg-type]
    network = GatedGNN(width=config.channels, depth=config.depth)
    found, seconds = cache.trained_on_graphs(network, RandomCities(config.n), tour_loss, training, f"tours {config.n}")
    return found, seconds


# Random cities


def _problems(config: Config) -> list[tuple[Cities, Tensor]]:
    """The problems to test on, each with its key."""
    keys = seeding.example_keys(TEST_SEED, torch.arange(config.problems))
    places = points(config.n, graphs=config.problems, seed=TEST_SEED)
    return [(euclidean(one), key) for one, key in zip(places, keys, strict=True)]


def _heuristics(config: Config) -> Values:
    """Lengths of the shortest tours and of those of every heuristic; the tours of the problems that are drawn."""
    lengths: dict[str, list[float]] = {SHORTEST: []}
    drawn: list[list[int]] = []
    for cities, key in _problems(config):
        best = optimal_tour(cities.distances)
        drawn.append(best.tolist())
        lengths[SHORTEST].append(float(length(cities.distances, best)))
        tours = {name: heuristic(cities.distances, key) for name, heuristic in HEURISTICS.items()}
        for name, tour in (tours | unlearned_tours(cities, config.width)).items():
            lengths.setdefault(name, []).append(float(length(cities.distances, tour)))
    return {"lengths": lengths, "tours": {SHORTEST: drawn[: config.shown]}}


def unlearned_tours(cities: Cities, width: int) -> dict[str, Tensor]:
    """The tours of the same beam on scores that nobody learned: minus the distances, in units of the mean distance to a nearest city."""
    apart = torch.where(torch.eye(cities.n, dtype=torch.bool), torch.inf, cities.distances)
    unit = apart.amin(1).mean().clamp(min=1e-12)
    scores = (-apart / unit).log_softmax(1)
    tour = beam_search((scores + scores.T) / 2, cities.distances, width)
    name = f"distances, beam {width}"
    return {name: tour, f"{name} + 2-opt": two_opt(cities.distances, tour)}


def network_tours(network: nn.Module, cities: Cities, width: int) -> dict[str, Tensor]:
    """The tours that a network's scores lead to, by name: of a beam of one and of ``width`` beginnings, and improved by 2-opt.

    Raises:
        UserError: cities that have no points to look at.
    """
    if cities.points is None:
        raise UserError("the network looks at points, and these cities have distances only")
    with torch.no_grad():
        scores = edge_scores(network, complete(cities.points[None]))[0].log_softmax(1)
    scores = ((scores + scores.T) / 2).double()
    beams = {"GNN, greedy": 1, f"GNN, beam {width}": width}
    found = {name: beam_search(scores, cities.distances, beam) for name, beam in beams.items()}
    return found | {f"{name} + 2-opt": two_opt(cities.distances, tour) for name, tour in found.items()}


def _network(config: Config, network: nn.Module) -> Values:
    lengths: dict[str, list[float]] = {}
    drawn: dict[str, list[list[int]]] = {}
    for which, (cities, _) in enumerate(_problems(config)):
        for name, tour in network_tours(network, cities, config.width).items():
            lengths.setdefault(name, []).append(float(length(cities.distances, tour)))
            if which < config.shown:
                drawn.setdefault(name, []).append(tour.tolist())
    return {"lengths": lengths, "tours": drawn}


def _table(config: Config, found: Mapping[str, list[float]], seconds: float) -> Table:
    rows = []
    for name, lengths in found.items():
        ratios = [ours / best for ours, best in zip(lengths, found[SHORTEST], strict=True)]
        exact = sum(ratio < 1 + 1e-9 for ratio in ratios) / len(ratios)
        rows.append((name, shown(lengths), shown(ratios, 4), f"{max(ratios):.3f}", f"{100 * exact:.0f} %"))
    training = f"The network was trained for {config.steps} steps of {config.batch_size} problems, in {seconds:.0f} s here."
    return Table(
        f"Tours through {config.n} cities",
        f"{config.problems} problems, cities uniform in the unit square; shortest tours by an integer program with subtour cuts. Means "
        "with their 95 % intervals.",
        ("method", "length", "ratio to the shortest", "worst ratio", "shortest found"),
        tuple(rows),
        (PUBLISHED, training) if config.steps else (PUBLISHED,),
    )


def _pictures(config: Config, found: Mapping[str, list[float]], tours: Mapping[str, list[list[int]]]) -> dict[str, LinePlot]:
    """The first problems: the shortest tour, and beside it the network's, as in the talk."""
    name = f"GNN, beam {config.width}"
    plots = {}
    for which in range(min(config.shown, config.problems)) if name in tours else ():
        place, best, ours = points(config.n, seed=TEST_SEED, first=which)[0], found[SHORTEST][which], found[name][which]
        lines = (
            _drawn(f"target: length {best:.3f}", place, tours[SHORTEST][which]),
            _drawn(f"prediction: length {ours:.3f}, ratio {ours / best:.3f}", place + torch.tensor([1.25, 0.0]), tours[name][which]),
        )
        title = f"Problem {which + 1}: the shortest tour, and the network's by a beam of {config.width}"
        plots[f"tours-{which + 1}"] = LinePlot(title, lines, Axes(equal=True))
    return plots


def _drawn(name: str, places: Tensor, tour: list[int]) -> Line:
    x, y = places[[*tour, tour[0]]].T.tolist()
    return Line(name, x, y)


# One's own cities


def _on_own(cache: ExperimentCache, config: Config, cities: Cities, network: nn.Module | None) -> Finding:
    settings = {"version": VERSION, "beam": config.width, "steps": config.steps}
    (values,) = cache.measured("tours", [Measurement(cities.name, settings, partial(_own, cache, config, cities, network))])
    lengths: dict[str, float] = values["lengths"]
    best = lengths.get(SHORTEST)
    rows = tuple((name, f"{one:,.10g}", f"{one / best:.4f}" if best else "") for name, one in lengths.items())
    notes = [] if best else [f"No tour lies beside the file, and with more than {EXACT} cities the shortest is not worked out."]
    if network is not None and cities.points is None:
        notes.append("The network is left out: it looks at points, and the file has distances only.")
    regime = f"{cities.n} cities, distances as the file rounds them."
    table = Table(f"Tours: {cities.name}", regime, ("method", "length", "ratio to the shortest"), rows, tuple(notes))
    plots = {}
    if cities.points is not None:
        shortest_here = min(values["tours"], key=lambda name: lengths[name])
        line = _drawn(f"{shortest_here}: length {lengths[shortest_here]:,.10g}", cities.points, values["tours"][shortest_here])
        plots["tours-own"] = LinePlot(f"Tours: {cities.name}", (line,), Axes(equal=True))
    return Finding((table,), {"lengths": lengths}, lines=plots)


def _own(cache: ExperimentCache, config: Config, cities: Cities, network: nn.Module | None) -> Values:
    tours = dict(_known(cache, cities))
    key = seeding.example_keys(0, torch.tensor([0]))[0]
    tours |= {name: heuristic(cities.distances, key) for name, heuristic in HEURISTICS.items()}
    tours |= unlearned_tours(cities, config.width)
    if network is not None and cities.points is not None:
        tours |= network_tours(network, cities, config.width)
    lengths = {name: float(length(cities.distances, tour)) for name, tour in tours.items()}
    return {"lengths": lengths, "tours": {name: tour.tolist() for name, tour in tours.items()}}


def _known(cache: ExperimentCache, cities: Cities) -> dict[str, Tensor]:
    """The shortest tour: from ``NAME.opt.tour`` beside the file, or worked out where that is quick."""
    beside = cache.own_place.with_suffix(".opt.tour") if cache.own_place else None
    if beside is not None and beside.exists():
        return {SHORTEST: read_tour(beside, cities.n)}
    return {SHORTEST: optimal_tour(cities.distances)} if cities.n <= EXACT else {}
