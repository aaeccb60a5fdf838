"""The experiment on planted cliques: the loss, the source, the table, and what is refused."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.graphs.hidden_structure import LEARNED, Config, PlantedCliques, clique_size, members, run

SMALL = Config(n=64, cs=(1.0, 2.0), seeds=2, depth=1, width=4, graphs=16)


def test_the_loss_knows_the_clique():
    batch = PlantedCliques(64, 1.0, 2.0)(0, 3)
    right = members(lambda graphs: 20 * (2.0 * graphs.y - 1)[:, None], batch)
    wrong = members(lambda graphs: 20 * (1 - 2.0 * graphs.y)[:, None], batch)
    assert (right.loss < 1e-6).all() and (right.metrics["found"] == 1).all()
    assert (wrong.loss > 19).all() and (wrong.metrics["found"] == 0).all()


def test_graphs_are_drawn_by_number_and_sizes_lie_between():
    source = PlantedCliques(100, 0.5, 2.0)
    many = source(0, 12)
    assert torch.equal(source(3, 1).edge_index, many.one(3).edge_index)
    sizes = many.summed(many.y)
    assert 5 <= int(sizes.min()) < int(sizes.max()) <= 20 and clique_size(100, 1.25) == 12


def test_the_table(tmp_path):
    found = run(ExperimentCache(tmp_path), SMALL)
    (table,) = found.tables
    assert [row[:2] for row in table.rows] == [("1", "8"), ("2", "16")]
    assert set(found.numbers["found"]) == {"degrees", "second eigenvector", LEARNED}
    assert all(0 <= share <= 1 for each in found.numbers["found"].values() for values in each for share in values["cleaned"])
    assert run(ExperimentCache(tmp_path), SMALL).numbers == found.numbers


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown method 'degree'. Did you mean 'degrees'"):
        run(ExperimentCache(tmp_path), Config(methods=("degree",)))
    with pytest.raises(UserError, match="has 200 nodes: it must have 2 to 100"):
        run(ExperimentCache(tmp_path), Config(n=100, cs=(20.0,)))
    with pytest.raises(UserError, match="graphs of its own"):
        run(ExperimentCache(tmp_path, str(tmp_path)), SMALL)
