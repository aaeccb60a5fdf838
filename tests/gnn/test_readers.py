"""Files of graphs, assignment problems and tours: what is written comes back, rounding is TSPLIB's, and damage is one sentence with its
line."""

from __future__ import annotations

import re

import networkx
import numpy as np
import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.assignment import QuadraticAssignment
from robustlab.gnn.generators import erdos_renyi
from robustlab.gnn.graphs import side_by_side
from robustlab.gnn.readers import read_graph, read_qap, read_tour, read_tsp
from robustlab.gnn.tours import euclidean, length, optimal_tour


def as_networkx(one):
    made = networkx.Graph()
    made.add_nodes_from(range(one.n))
    made.add_edges_from(one.edge_index.T.tolist())
    return made


GRAPHS = [erdos_renyi(n, 0.3, seed=n) for n in (1, 2, 5, 62, 63, 70)]


@pytest.fixture
def write(tmp_path):
    def written(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


# Graphs


def test_graph6_is_what_networkx_writes(write):
    lines = [networkx.to_graph6_bytes(as_networkx(one), header=k == 0).decode() for k, one in enumerate(GRAPHS)]
    found = read_graph(write("some.g6", "".join(lines)))
    wanted = side_by_side(GRAPHS)
    assert torch.equal(found.edge_index, wanted.edge_index) and torch.equal(found.sizes, wanted.sizes)


def test_npz_keeps_isolated_nodes_features_and_labels(tmp_path):
    one = erdos_renyi(9, 0.2, seed=1)
    x, y = np.arange(22.0).reshape(11, 2), np.arange(11, dtype=">i4") % 3
    np.savez(tmp_path / "g.npz", edge_index=one.edge_index.numpy().astype(">i4"), n=11, x=x, y=y)
    found = read_graph(tmp_path / "g.npz")
    assert found.n == 11 and torch.equal(found.edge_index, one.edge_index)
    assert found.x.tolist() == x.tolist() and found.y.tolist() == y.tolist()


def test_gml_numbers_labels_in_order(write):
    one = GRAPHS[2]
    made = as_networkx(one)
    for node, value in enumerate("bacab"):
        made.nodes[node]["value"] = value
    found = read_graph(write("g.gml", "\n".join(networkx.generate_gml(made))))
    assert torch.equal(found.edge_index, one.edge_index) and found.y.tolist() == [1, 0, 2, 0, 1]


@pytest.mark.parametrize("weights", ["", " 1"])
def test_rudy(write, weights):
    one = GRAPHS[3]
    half = one.edge_index[:, one.tail < one.head].T + 1
    lines = "\n".join(f"{i} {j}{weights}" for i, j in half.tolist())
    assert torch.equal(read_graph(write("g.rudy", f"62 {len(half)}\n{lines}\n")).edge_index, one.edge_index)


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("g.g6", "D?{\nD?", "g.g6, line 2: 5 nodes take 2 letters after their number, but there are 1"),
        ("g.g6", "D?>", "graph6 has letters from '?' to '~', but letter 3 is '>'"),
        ("g.g6", "\n&C?", "line 2: digraph6 and sparse6 are not read"),
        ("g.g6", "A@", "the bits after the last pair of nodes must be 0"),
        ("g.g6", "?", "line 1: the graph has no nodes"),
        ("g.g6", "~~?????", "letters after their number"),
        ("g.g6", " \n", "holds no graph"),
        ("g.graph", "", "unknown ending of a file of graphs '.graph'"),
        ("g.rudy", "3 2\n1 2\n2 x\n", "line 3: an edge between two of the nodes 1 to 3, and its weight was expected, got 'x'"),
        ("g.rudy", "3 2\n1 2 1\n2 4 1\n", "line 3: an edge joins two of the nodes 1 to 3, got [2, 4]"),
        ("g.rudy", "3 2\n1 2 1\n2 3 -1\n", "line 3: graphs with weights are not meant here, got the weight -1"),
        ("g.rudy", "3 1\n1 2 1 4\n", "1 edges take 1 lines of two nodes and a weight, but 4 numbers follow"),
        ("g.rudy", "3 1\n2 2 1\n", "node 1 has an edge to itself"),
        ("g.rudy", "", "the numbers of nodes and edges was expected, but the file ends"),
        ("g.rudy", "100000000000 0\n", "at most 100 times as much is read"),
        ("g.rudy", "2 99999999999999999999\n", "got '99999999999999999999'"),
        ("g.gml", "graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 weight 2 ] ]", "graphs with weights are not meant"),
        ("g.gml", "graph [ directed 1 node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 ] ]", "must be undirected"),
        ("g.gml", "graph [ node [ id 0 ", "cannot read"),
    ],
)
def test_what_is_no_graph_is_refused_with_its_line(write, name, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_graph(write(name, text))


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"edges": np.zeros((2, 1), int)}, "has no array 'edge_index'"),
        ({"edge_index": np.array([[0, 1, 2], [1, 0, 1]])}, "one direction only"),
        ({"edge_index": np.array([[0.0], [1.0]])}, "whole numbers"),
        ({"edge_index": np.array([[0], [1]]), "n": 10**12}, "at most 100 times as much"),
        ({"edge_index": np.array([[0], [10**12]])}, "at most 100 times as much"),
        ({"edge_index": np.array([[0], [1]]), "n": 2.0}, "n must be one whole number"),
        ({"edge_index": np.array([[0], [1]]), "edge_weight": np.array([0.5])}, "weights"),
        ({"edge_index": np.array([[0], [1]]), "x": np.array([[1.0], [np.nan]])}, "finite"),
        ({"edge_index": np.array([[0], [1]]), "y": np.array([0.5, 1.0])}, "labels must hold whole numbers"),
        ({"edge_index": np.zeros((2, 0), int)}, "no nodes"),
    ],
)
def test_arrays_that_are_no_graph_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        read_graph(tmp_path / "g.npz")
    assert "g.npz" in str(error.value)


# QAPLIB


def numbers(matrix):
    return "\n".join(" ".join(map(str, row)) for row in matrix)


A, B = np.arange(9).reshape(3, 3), np.array([[0, 7, 1], [2, 0, 5], [9, 3, 0]])
ORDER = torch.tensor([1, 2, 0])
VALUE = QuadraticAssignment(torch.from_numpy(A).double(), torch.from_numpy(B).double()).value(ORDER)


@pytest.fixture
def problem(write):
    return write("tiny3.dat", f"3\n\n{numbers(A)}\n\n{numbers(B)}\n")


@pytest.mark.parametrize("written", [ORDER, ORDER.argsort()], ids=["ours", "exchanged"])
def test_a_permutation_is_read_in_either_convention(problem, write, written):
    write("tiny3.sln", f"3 {VALUE:.0f}\n {', '.join(str(i + 1) for i in written.tolist())}\n")
    found = read_qap(problem)
    assert found.name == "tiny3" and found.problem.A.tolist() == A.tolist() and found.problem.B.tolist() == B.tolist()
    assert found.value == VALUE and found.problem.value(found.best) == VALUE and torch.equal(found.best, ORDER)


def test_a_problem_needs_no_solution(problem):
    found = read_qap(problem)
    assert found.best is None and found.value is None


@pytest.mark.parametrize(
    "text, said",
    [
        (f"3 {VALUE + 1:.0f} 2 3 1", f"the permutation should cost {VALUE + 1:g}, but it costs {VALUE:g}, and "),
        (f"3 {VALUE:.0f} 2 3 3", "each of the numbers 1 to 3 once"),
        (f"3 {VALUE:.0f}\n2 3 4", "line 2: one of the numbers 1 to 3 was expected, got '4'"),
        (f"3 {VALUE:.0f}\n2 3", "line 1: a permutation of n = 3 takes 3 numbers, but 2 follow"),
        (f"4 {VALUE:.0f} 2 3 1 4", "a solution of a problem of n = 3 is needed, got n = 4"),
        ("3 nan 2 3 1", "the value of the solution was expected, got 'nan'"),
    ],
)
def test_a_permutation_that_does_not_fit_is_refused(problem, write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_qap(problem, write("other.sln", text))


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "line 1: the number n of facilities was expected, but the file ends"),
        ("0", "line 1: the number n of facilities was expected, got '0'"),
        ("2\n1 2 3 4\n1 2 3\n", "line 1: matrices A and B of n = 2 take 8 numbers, but 7 follow"),
        ("2\n1 2 3 4\n1 2 z 4\n", "line 3: a number of the matrix B was expected, got 'z'"),
        ("2\n1 2 inf 4\n1 2 3 4\n", "line 2: a number of the matrix A was expected, got 'inf'"),
        ("1_0\n", "got '1_0'"),
    ],
)
def test_a_damaged_problem_is_refused_with_its_line(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_qap(write("p.dat", text))


# TSPLIB

COORDINATES = "1 0 0\n3 10.5 0\n2 3.5 4\n"
PLANAR = "NAME: five\nTYPE : TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE : {}\nNODE_COORD_SECTION\n" + COORDINATES + "EOF\n"


@pytest.mark.parametrize(
    "kind, wanted",
    [
        ("EUC_2D", [5, 11, 8]),  # sqrt(28.25) = 5.315, 10.5, sqrt(65) = 8.06
        ("CEIL_2D", [6, 11, 9]),
        ("ATT", [2, 4, 3]),  # 1.68, 3.32 and 2.55: to the nearest, and up where that is less
    ],
)
def test_distances_are_rounded_as_their_type_says(write, kind, wanted):
    found = read_tsp(write("p.tsp", PLANAR.format(kind)))
    d = found.distances
    assert [d[0, 1], d[0, 2], d[1, 2]] == wanted and found.name == "five" and found.points[1].tolist() == [3.5, 4]


def test_distances_on_the_sphere(write):
    """Two cities of ulysses16 and their distance, worked out by the rule in the documentation; the shortest tour of three is all of it."""
    head = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: GEO\nNODE_COORD_SECTION\n"
    found = read_tsp(write("p.tsp", head + "1 38.24 20.42\n2 39.57 26.15\n3 38.24 20.42\n"))
    assert found.distances.tolist() == [[0, 509, 1], [509, 0, 509], [1, 509, 0]]


D = np.array([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
FORMATS = {
    "FULL_MATRIX": D.ravel(),
    "UPPER_ROW": D[np.triu_indices(4, 1)],
    "LOWER_ROW": D[np.tril_indices(4, -1)],
    "UPPER_DIAG_ROW": D[np.triu_indices(4)],
    "LOWER_DIAG_ROW": D[np.tril_indices(4)],
    "UPPER_COL": D.T[np.tril_indices(4, -1)],
    "LOWER_DIAG_COL": D.T[np.triu_indices(4)],
}
EXPLICIT = "TYPE: TSP\nDIMENSION: 4\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: {}\nEDGE_WEIGHT_SECTION\n{}\nEOF"


@pytest.mark.parametrize("form", FORMATS)
def test_explicit_distances(write, form):
    found = read_tsp(write("p.tsp", EXPLICIT.format(form, " ".join(map(str, FORMATS[form])))))
    assert found.distances.tolist() == D.tolist() and found.points is None and found.name == "p"


def test_a_tour_is_read_and_is_as_long_as_the_shortest(write):
    made = read_tsp(write("p.tsp", PLANAR.format("EUC_2D")))
    tour = read_tour(write("p.opt.tour", "TYPE: TOUR\nDIMENSION: 3\nTOUR_SECTION\n2\n1 3\n-1\nEOF\n"), 3)
    assert tour.tolist() == [1, 0, 2] and length(made.distances, tour) == length(made.distances, optimal_tour(made.distances))


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("3 10.5 0", "3 10.5 zero", "line 7: a city's number and its two coordinates was expected, got 'zero'"),
        ("3 10.5 0", "2 10.5 0", "line 8: each of the cities 1 to 3 has one line, got 2"),
        ("3 10.5 0\n", "", "3 cities take 9 numbers in NODE_COORD_SECTION, but there are 6"),
        ("DIMENSION: 3", "DIMENSION: many", "DIMENSION must be a whole number of at least 1, got 'many'"),
        ("DIMENSION: 3", "DIMENSION: 99999999", "the distances of all cities would take"),
        ("DIMENSION: 3\n", "", "has no line DIMENSION"),
        ("NODE_COORD_SECTION", "DISPLAY_DATA_SECTION", "has no NODE_COORD_SECTION"),
        ("TYPE : TSP", "TYPE : ATSP", "TYPE must be TSP, the symmetric travelling salesman, got ATSP"),
        ("EUC_2D", "EUC_3D", "unknown EDGE_WEIGHT_TYPE 'EUC_3D'. Did you mean 'EUC_2D'?"),
        ("NAME: five", "what is this", "line 1: a line NAME : VALUE or a section was expected, got 'what is this'"),
    ],
)
def test_a_damaged_problem_of_cities_is_refused(write, before, after, said):
    text = PLANAR.format("EUC_2D")
    assert before in text
    with pytest.raises(UserError, match=re.escape(said)):
        read_tsp(write("p.tsp", text.replace(before, after)))


@pytest.mark.parametrize(
    "form, values, said",
    [
        ("UPPER_ROW", "1 2 3", "4 cities take 6 distances in UPPER_ROW, but there are 3"),
        ("UPPER_ROW", "1 2 3 4 5 -6", "line 6: a distance, at least 0 was expected, got '-6'"),
        ("FULL_MATRIX", "0 1 2 3 1 0 4 5 2 4 0 6 3 5 7 0", "those of the cities 3 and 4 differ"),
        ("FUNCTION", "1", "unknown EDGE_WEIGHT_FORMAT 'FUNCTION'"),
    ],
)
def test_damaged_distances_are_refused(write, form, values, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_tsp(write("p.tsp", EXPLICIT.format(form, values)))


@pytest.mark.parametrize(
    "text, said",
    [
        ("TOUR_SECTION\n1 2 2 -1", "number 2 2 times"),
        ("TOUR_SECTION\n1 2 4 -1", "visits number 1 to 3, got 4"),
        ("TOUR_SECTION\n1 2 -1", "a tour of 3 cities visits 3, got 2"),
        ("TOUR_SECTION\n1 2 x -1", "line 2: one of the cities 1 to 3, and -1 at the end was expected, got 'x'"),
        ("TYPE: TOUR", "has no TOUR_SECTION"),
    ],
)
def test_what_is_no_tour_is_refused(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_tour(write("p.tour", text), 3)


def test_missing_and_other_files_are_one_sentence(tmp_path):
    for read in (read_graph, read_qap, read_tsp):
        with pytest.raises(UserError, match="nothing.g6"):
            read(tmp_path / "nothing.g6")
    with pytest.raises(UserError, match="UTF-8"):
        (tmp_path / "p.tsp").write_bytes(b"\xff\xfe\x00")
        read_tsp(tmp_path / "p.tsp")


def test_distances_of_points_are_exact():
    d = euclidean(torch.tensor([[0.0, 0], [3, 4], [0, 4]], dtype=torch.float64)).distances
    assert d.tolist() == [[0, 5, 4], [5, 0, 3], [4, 3, 0]]
