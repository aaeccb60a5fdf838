"""Graphs, assignment problems, tours and metric spaces from files: graph6, ``.npz``, GML, rudy; QAPLIB; TSPLIB.

A damaged line is refused in one sentence with its file and number. Nothing larger than its file can account for is made.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import files
from robustlab.data.archive import Archive
from robustlab.data.limits import check_expansion
from robustlab.errors import UserError, unknown
from robustlab.gnn.assignment import QuadraticAssignment, inverse
from robustlab.gnn.extras import networkx
from robustlab.gnn.generators import triangle
from robustlab.gnn.graphs import GraphBatch, as_graphs, graph, side_by_side
from robustlab.gnn.metric_spaces import check_metric
from robustlab.gnn.tours import Cities, check_tour
from robustlab.paths import place_of, shown

WORD = re.compile(r"[^\s,]+")
Place = str | os.PathLike[str]


def read_graph(path: Place) -> GraphBatch:
    """Graphs without direction and weights from a file, which its ending tells: ``.g6`` (one graph a line), ``.npz`` (arrays
    ``edge_index``, ``(2, E)``, and where they are there ``n``, ``x`` and ``y``, see ``graph``), ``.gml`` (labels from the nodes' ``y`` or
    ``value``), ``.rudy``, ``.rud`` or ``.mc`` (nodes from 1, weights 1).

    Raises:
        UserError: another ending, a damaged line, a direction, weights, self-loops, double edges, or no node.
    """
    place = place_of(path)
    ending = place.suffix.lower()
    if ending not in GRAPH_FORMATS:
        raise unknown("ending of a file of graphs", ending or place.name, GRAPH_FORMATS)
    return GRAPH_FORMATS[ending](place)


def read_two(path: Place, other: Place | None = None) -> tuple[GraphBatch, GraphBatch]:
    """Two graphs, from a file each or both from one.

    Args:
        path: of a file that ``read_graph`` reads.
        other: of the second graph; where left out, the first file has two.

    Raises:
        UserError: what ``read_graph`` refuses, or another number of graphs.
    """
    found = [read_graph(place) for place in (path, other) if place is not None]
    for graphs, place in zip(found, (path, other), strict=False):
        if len(graphs) != (wanted := 2 if other is None else 1):
            raise UserError(f"{shown(place_of(place or path))} must hold {wanted} graph{'s' * (wanted - 1)} here, it holds {len(graphs)}")
    return (found[0].one(0), found[0].one(1)) if other is None else (found[0], found[1])


# Graphs


def _graph6(path: Path) -> GraphBatch:
    found = []
    for number, line in enumerate(files.read_text(path, "graphs in graph6").splitlines(), 1):
        text = line.strip().removeprefix(">>graph6<<")
        if text:
            with _at(path, number):
                found.append(_from_graph6(text))
    if not found:
        raise UserError(f"{shown(path)} holds no graph: graph6 has one on each line")
    return side_by_side(found)


def _from_graph6(text: str) -> GraphBatch:
    """One graph from its line (McKay): the number of nodes, and the upper triangle column by column, six bits in a letter."""
    if text[0] in "&:;":
        raise UserError("digraph6 and sparse6 are not read: only graph6, for undirected graphs")
    codes = np.array([ord(letter) - 63 for letter in text])
    wrong = np.flatnonzero((codes < 0) | (codes > 63))
    if len(wrong):
        raise UserError(f"graph6 has letters from '?' to '~', but letter {wrong[0] + 1} is {text[wrong[0]]!r}")
    skipped, size = (0, 1) if codes[0] < 63 else (1, 3) if len(codes) < 2 or codes[1] < 63 else (2, 6)
    head, bits = codes[skipped : skipped + size], codes[skipped + size :]
    n = int(sum(int(part) << 6 * place for place, part in enumerate(head[::-1])))
    pairs = n * (n - 1) // 2
    if len(head) < size or len(bits) != -(-pairs // 6):
        raise UserError(f"{n} nodes take {-(-pairs // 6)} letters after their number, but there are {len(bits)}")
    ones = np.flatnonzero(np.unpackbits(bits.astype(np.uint8)[:, None], axis=1)[:, 2:].ravel())
    if len(ones) and ones[-1] >= pairs:
        raise UserError("the bits after the last pair of nodes must be 0")
    rows, columns = (part.numpy() for part in triangle(torch.from_numpy(ones)))
    return graph(np.stack([rows, columns]), n)


def _npz(path: Path) -> GraphBatch:
    with Archive(path) as archive:
        edges = _native(archive.first(("edge_index",)))
        known = {name: _native(archive.first((name,))) for name in ("n", "x", "y") if archive.called((name,))}
        weights = next((archive.read(own) for name in ("edge_weight", "weight") if (own := archive.called((name,)))), np.ones(1))
    with _at(path):
        if not (weights == 1).all():
            raise UserError("graphs with weights are not meant here: leave out edge_weight")
        n = known.pop("n", None)
        if n is not None and (n.size != 1 or n.dtype.kind not in "iu"):
            raise UserError(f"n must be one whole number, got {n.dtype} {n.shape}")
        count = None if n is None else int(n.reshape(())[()])
        largest = int(edges.max()) + 1 if edges.size and edges.dtype.kind in "iu" else 0
        check_expansion(path, "an array of all nodes", 8 * max(count or 0, largest), path.stat().st_size)
        return graph(edges, count, **known)


def _native(array: np.ndarray) -> np.ndarray:
    """In this machine's byte order, which torch needs."""
    return array.astype(array.dtype.newbyteorder("="))


def _gml(path: Path) -> GraphBatch:
    text = files.read_text(path, "a graph in GML")
    with files.reading(path, "a graph in GML"):
        found = networkx().parse_gml(text, label="id")
    with _at(path):
        for _, _, known in found.edges(data=True):
            if any(known.get(name, 1) != 1 for name in ("weight", "value")):
                raise UserError("graphs with weights are not meant here: leave out the edges' weight and value")
        made = as_graphs(found)
        for name in ("y", "value"):
            labels = [known.get(name) for _, known in found.nodes(data=True)]
            if all(label is not None for label in labels):
                names = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
                return made.labelled(torch.tensor([names.index(label) for label in labels]))
        return made


def _rudy(path: Path) -> GraphBatch:
    words = Words.of(path, "a graph in rudy's format")
    n, m = (int(value) for value in words.take(2, "the numbers of nodes and edges", whole=True, low=0))
    line, left = words.line, words.left
    if left not in (2 * m, 3 * m):
        raise UserError(f"{shown(path)}, line {line}: {m} edges take {m} lines of two nodes and a weight, but {left} numbers follow")
    check_expansion(path, "an array of all nodes", 8 * n, path.stat().st_size)
    width = left // m if m else 3
    rows = [words.take(width, f"an edge between two of the nodes 1 to {n}, and its weight", whole=True) for _ in range(m)]
    table = np.array(rows, dtype=np.int64).reshape(m, width)
    outside = np.flatnonzero((table[:, :2] < 1).any(1) | (table[:, :2] > n).any(1))
    if len(outside):
        raise words.wrong(f"an edge joins two of the nodes 1 to {n}, got {table[outside[0], :2].tolist()}", 2 + width * int(outside[0]))
    if width == 3 and (table[:, 2] != 1).any():
        place = int(np.flatnonzero(table[:, 2] != 1)[0])
        raise words.wrong(f"graphs with weights are not meant here, got the weight {table[place, 2]}", 2 + 3 * place + 2)
    with _at(path):
        return graph(table[:, :2].T - 1, n)


GRAPH_FORMATS: dict[str, Callable[[Path], GraphBatch]] = {
    ".g6": _graph6,
    ".npz": _npz,
    ".gml": _gml,
    ".rudy": _rudy,
    ".rud": _rudy,
    ".mc": _rudy,
}


@dataclass(frozen=True, eq=False)
class Pair:
    """Two graphs to tell apart, of a ``category``."""

    category: str
    graph: GraphBatch
    other: GraphBatch


def read_pairs(path: Place) -> list[Pair]:
    """Pairs of graphs from a file with a category and two graphs in graph6 on each line, with tabs between, such as the 400 of BREC (Wang
    and Zhang 2024) can be written.

    Raises:
        UserError: a damaged line, or none.
    """
    place, found = place_of(path), []
    for number, line in enumerate(files.read_text(place, "pairs of graphs").splitlines(), 1):
        if not line.strip():
            continue
        with _at(place, number):
            words = line.rstrip("\n").split("\t")
            if len(words) != 3:
                raise UserError(f"a pair is a category and two graphs in graph6, with tabs between: got {len(words)} of the three")
            found.append(Pair(words[0], *(_from_graph6(word.strip()) for word in words[1:])))
    if not found:
        raise UserError(f"{shown(place)} holds no pair of graphs")
    return found


# QAPLIB


@dataclass(frozen=True, eq=False)
class Instance:
    """A problem of QAPLIB (Burkard, Karisch and Rendl 1997).

    Attributes:
        name: of its file.
        problem: to be made small.
        best: the best known permutation, int64 ``(n,)``, and
        value: what it costs, where a ``.sln`` file says so.
    """

    name: str
    problem: QuadraticAssignment
    best: Tensor | None = None
    value: float | None = None


def read_qap(path: Place, solution: Place | None = None) -> Instance:
    """A problem from a ``.dat`` file: ``n``, then the matrices A and B.

    Args:
        path: the file.
        solution: a ``.sln`` file; where left out, the one that lies beside it, if there is one.

    Raises:
        UserError: a damaged line, another number of values, or a permutation that does not cost what its file says in either convention.
    """
    place = place_of(path)
    words = Words.of(place, "a problem of QAPLIB")
    n = int(words.take(1, "the number n of facilities", whole=True, low=1)[0])
    if words.left != 2 * n * n:
        at = f"{shown(place)}, line {words.line}"
        raise UserError(f"{at}: matrices A and B of n = {n} take {2 * n * n} numbers, but {words.left} follow")
    A, B = (torch.from_numpy(words.take(n * n, f"a number of the matrix {name}").reshape(n, n)) for name in "AB")
    found = Instance(place.stem, QuadraticAssignment(A, B))
    beside = place.with_suffix(".sln") if solution is None else place_of(solution)
    if solution is None and not beside.exists():
        return found
    return Instance(found.name, found.problem, *_qap_solution(beside, found.problem))


def _qap_solution(path: Path, problem: QuadraticAssignment) -> tuple[Tensor, float]:
    """The permutation in our convention, whatever the file's, and its value."""
    words = Words.of(path, "a solution of QAPLIB")
    n = int(words.take(1, "the number n of facilities", whole=True, low=1)[0])
    if n != problem.n:
        raise UserError(f"{shown(path)}, line {words.line}: a solution of a problem of n = {problem.n} is needed, got n = {n}")
    value = float(words.take(1, "the value of the solution")[0])
    if words.left != n:
        raise UserError(f"{shown(path)}, line {words.line}: a permutation of n = {n} takes {n} numbers, but {words.left} follow")
    given = torch.from_numpy(words.take(n, f"one of the numbers 1 to {n}", whole=True, low=1, high=n)).long() - 1
    if len(given.unique()) < n:
        raise UserError(f"{shown(path)}: a permutation has each of the numbers 1 to {n} once")
    costs = []
    for order in (given, inverse(given)):
        costs.append(problem.value(order))
        if math.isclose(costs[-1], value, rel_tol=1e-12):
            return order, value
    raise UserError(
        f"{shown(path)}: the permutation should cost {value:g}, but it costs {costs[0]:g}, and {costs[1]:g} with A and B exchanged"
    )


# TSPLIB


def read_tsp(path: Place) -> Cities:
    """Cities and their distances from a TSPLIB file (Reinelt 1991), with the rounding of its ``EDGE_WEIGHT_TYPE``: EUC_2D, CEIL_2D, GEO,
    ATT or EXPLICIT.

    Raises:
        UserError: a damaged line, another type, or other numbers of cities or distances than it says.
    """
    place = place_of(path)
    parts = _Sections.of(place, "a problem of TSPLIB")
    if (kind := parts.said("TYPE", "TSP").split()[0]) != "TSP":
        raise UserError(f"{shown(place)}: TYPE must be TSP, the symmetric travelling salesman, got {kind:.40}")
    if "FIXED_EDGES_SECTION" in parts.sections:
        raise UserError(f"{shown(place)}: fixed edges are not read")
    n, kind = parts.count("DIMENSION"), parts.said("EDGE_WEIGHT_TYPE")
    check_expansion(place, "the distances of all cities", 8 * n * n, place.stat().st_size)
    drawn = next((parts.points(name, n) for name in ("NODE_COORD_SECTION", "DISPLAY_DATA_SECTION") if name in parts.sections), None)
    if kind == "EXPLICIT":
        distances = _explicit(parts, n)
    elif kind in TSP_DISTANCES:
        distances = TSP_DISTANCES[kind](parts.points("NODE_COORD_SECTION", n))
        np.fill_diagonal(distances, 0)
    else:
        raise UserError(f"{shown(place)}: {unknown('EDGE_WEIGHT_TYPE', kind[:40], (*TSP_DISTANCES, 'EXPLICIT'))}")
    return Cities(torch.from_numpy(distances), None if drawn is None else torch.from_numpy(drawn), parts.said("NAME", place.stem))


def read_tour(path: Place, n: int) -> Tensor:
    """A tour of ``n`` cities from a TSPLIB file, counted from 0: int64 ``(n,)``.

    Raises:
        UserError: a damaged line, or no tour of so many cities.
    """
    place = place_of(path)
    parts = _Sections.of(place, "a tour of TSPLIB")
    words = parts.section("TOUR_SECTION")
    numbers = words.take(words.left, f"one of the cities 1 to {n}, and -1 at the end", whole=True)
    end = np.flatnonzero(numbers == -1)
    tour = torch.from_numpy(numbers[: end[0]] if len(end) else numbers).long() - 1
    with _at(place):
        return check_tour(tour, n)


def _planar(points: np.ndarray) -> np.ndarray:
    return np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))


def _att(points: np.ndarray) -> np.ndarray:
    exact = _planar(points) / math.sqrt(10)
    rounded = np.floor(exact + 0.5)
    return rounded + (rounded < exact)


def _geo(points: np.ndarray) -> np.ndarray:
    """On a sphere, with TSPLIB's own pi, from degrees and minutes written as DDD.MM."""
    degrees = np.trunc(points)
    latitude, longitude = (3.141592 * (degrees + 5 * (points - degrees) / 3) / 180).T
    q1 = np.cos(longitude[:, None] - longitude)
    q2, q3 = np.cos(latitude[:, None] - latitude), np.cos(latitude[:, None] + latitude)
    return np.floor(6378.388 * np.arccos(np.clip(0.5 * ((1 + q1) * q2 - (1 - q1) * q3), -1, 1)) + 1)


TSP_DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "EUC_2D": lambda points: np.floor(_planar(points) + 0.5),
    "CEIL_2D": lambda points: np.ceil(_planar(points)),
    "ATT": _att,
    "GEO": _geo,
}
# Which entries stand in the file, row by row: (row, column) of them for n cities. The upper triangle by columns is the lower one by rows.
TRIANGLES: dict[str, Callable[[int], tuple[np.ndarray, ...]]] = {
    "UPPER_ROW": lambda n: np.triu_indices(n, 1),
    "LOWER_COL": lambda n: np.triu_indices(n, 1),
    "LOWER_ROW": lambda n: np.tril_indices(n, -1),
    "UPPER_COL": lambda n: np.tril_indices(n, -1),
    "UPPER_DIAG_ROW": lambda n: np.triu_indices(n),
    "LOWER_DIAG_COL": lambda n: np.triu_indices(n),
    "LOWER_DIAG_ROW": lambda n: np.tril_indices(n),
    "UPPER_DIAG_COL": lambda n: np.tril_indices(n),
    "FULL_MATRIX": lambda n: tuple(np.indices((n, n)).reshape(2, -1)),
}


def _explicit(parts: _Sections, n: int) -> np.ndarray:
    form = parts.said("EDGE_WEIGHT_FORMAT")
    if form not in TRIANGLES:
        raise UserError(f"{shown(parts.path)}: {unknown('EDGE_WEIGHT_FORMAT', form[:40], TRIANGLES)}")
    where, words = TRIANGLES[form](n), parts.section("EDGE_WEIGHT_SECTION")
    if words.left != len(where[0]):
        raise UserError(f"{shown(parts.path)}: {n} cities take {len(where[0])} distances in {form}, but there are {words.left}")
    distances = np.zeros((n, n))
    distances[where] = words.take(len(where[0]), "a distance, at least 0", low=0)
    if form != "FULL_MATRIX":
        distances = np.maximum(distances, distances.T)
    elif not (distances == distances.T).all():
        i, j = np.argwhere(distances != distances.T)[0] + 1
        raise UserError(f"{shown(parts.path)}: distances must be as long forth as back, but those of the cities {i} and {j} differ")
    np.fill_diagonal(distances, 0)
    return distances


@dataclass(frozen=True)
class _Sections:
    """A TSPLIB file: what its head says, and the words of its sections."""

    path: Path
    head: dict[str, str]
    sections: dict[str, Words]

    @classmethod
    def of(cls, path: Path, what: str) -> _Sections:
        head: dict[str, str] = {}
        sections: dict[str, Words] = {}
        inside: Words | None = None
        for number, line in enumerate(files.read_text(path, what).splitlines(), 1):
            name, colon, value = (part.strip() for part in line.partition(":"))
            if name == "EOF":
                break
            if re.fullmatch(r"[A-Z_]+_SECTION", name):
                inside = sections[name] = Words(path, [], number)
            elif colon or (inside is None and name):
                if not re.fullmatch(r"[A-Z_]+", name) or not colon:
                    raise UserError(
                        f"{shown(path)}, line {number}: a line NAME : VALUE or a section was expected, got {line.strip()!r:.60}"
                    )
                head[name], inside = value, None
            elif inside is not None:
                inside.words += [(number, word) for word in line.split()]
        return cls(path, head, sections)

    def said(self, name: str, default: str | None = None) -> str:
        """The value of a line of the head."""
        found = self.head.get(name) or default
        if found is None:
            raise UserError(f"{shown(self.path)} has no line {name}")
        return found

    def count(self, name: str) -> int:
        """A whole number of the head, at least 1."""
        value = self.said(name)
        if not re.fullmatch(r"0*[1-9]\d{0,8}", value):
            raise UserError(f"{shown(self.path)}: {name} must be a whole number of at least 1, got {value!r:.40}")
        return int(value)

    def section(self, name: str) -> Words:
        """The words of a section."""
        if name not in self.sections:
            raise UserError(f"{shown(self.path)} has no {name}")
        return self.sections[name]

    def points(self, name: str, n: int) -> np.ndarray:
        """Coordinates of the cities 1 to ``n``, each on a line of its own in any order: float64 ``(n, 2)``."""
        words = self.section(name)
        words.at = 0
        if words.left != 3 * n:
            raise UserError(f"{shown(self.path)}: {n} cities take {3 * n} numbers in {name}, but there are {words.left}")
        found, seen = np.zeros((n, 2)), set()
        for _ in range(n):
            place, x, y = words.take(3, "a city's number and its two coordinates")
            if place != int(place) or not 1 <= place <= n or int(place) in seen:
                raise words.wrong(f"each of the cities 1 to {n} has one line, got {place:g}", words.at - 3)
            seen.add(int(place))
            found[int(place) - 1] = x, y
        return found


# Metric spaces


def read_spaces(path: Place) -> tuple[Tensor, Tensor]:
    """Two metric spaces from an ``.npz`` file with their distances ``X``, ``(n, n)``, and ``Y``, ``(m, m)``: float64.

    Raises:
        UserError: no such arrays, or no metric spaces.
    """
    place = place_of(path)
    with Archive(place) as archive:
        found = [_native(archive.first((name,))) for name in ("x", "y")]
    with _at(place):
        spaces = []
        for name, values in zip("XY", found, strict=True):
            if values.dtype.kind not in "biuf":
                raise UserError(f"{name} must hold numbers, got {values.dtype}")
            spaces.append(torch.from_numpy(values.astype(np.float64)))
            check_metric(spaces[-1], name)
        return spaces[0], spaces[1]


# Words and lines


@dataclass
class Words:
    """The words of a file, with the line of each.

    Attributes:
        path: the file, for messages.
        words: number of the line, and word.
        last: the line to name where the words end too early.
        at: position of the next word.
    """

    path: Path
    words: list[tuple[int, str]] = field(repr=False)
    last: int = 1
    at: int = 0

    @classmethod
    def of(cls, path: Path, what: str) -> Words:
        """All words of a text file; commas count as blanks."""
        lines = files.read_text(path, what).splitlines()
        return cls(path, [(number, word) for number, line in enumerate(lines, 1) for word in WORD.findall(line)], max(len(lines), 1))

    @property
    def left(self) -> int:
        """How many words are left."""
        return len(self.words) - self.at

    @property
    def line(self) -> int:
        """The line of the word that was read last."""
        return self.words[self.at - 1][0] if self.words else self.last

    def take(self, count: int, what: str, *, whole: bool = False, low: float = -math.inf, high: float = math.inf) -> np.ndarray:
        """The next words as numbers, float64 ``(count,)``; int64 where they must be whole.

        Args:
            what: what each should be, for the message.
            low, high: the smallest and largest that is allowed.

        Raises:
            UserError: too few words, or one that is no such number.
        """
        if self.left < count:
            raise UserError(
                f"{shown(self.path)}, line {self.words[-1][0] if self.words else self.last}: {what} was expected, but the file ends"
            )
        some = [word for _, word in self.words[self.at : self.at + count]]
        read = int if whole else float
        values = np.zeros(count, dtype=np.int64 if whole else np.float64)
        for place, word in enumerate(some):
            try:
                value: Any = read(word)
                values[place] = value
                fine = math.isfinite(value) and low <= value <= high and "_" not in word
            except (ValueError, OverflowError):
                fine = False
            if not fine:
                raise self.wrong(f"{what} was expected, got {word!r:.40}", self.at + place)
        self.at += count
        return values

    def wrong(self, sentence: str, place: int) -> UserError:
        """The error about the word at a place."""
        return UserError(f"{shown(self.path)}, line {self.words[place][0]}: {sentence}")


@contextmanager
def _at(path: Path, line: int | None = None) -> Iterator[None]:
    """Inside, the sentence of a UserError begins with the file and the line."""
    try:
        yield
    except UserError as error:
        place = shown(path) + ("" if line is None else f", line {line}")
        raise UserError(str(error) if str(error).startswith(shown(path)) else f"{place}: {error}") from None
