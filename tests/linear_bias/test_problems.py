"""Problems: their shapes, their draws, files of one's own, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias import Problem, problem, read_problem, regression, separable, zeros


def test_a_seeds_problem_is_its_own_whatever_the_others():
    for make in (regression, separable):
        many, one = make(5, 4, 7), make(1, 4, 7, first=3)
        assert torch.equal(many.X[3:4], one.X) and torch.equal(many.y[3:4], one.y)
        assert not torch.equal(many.X[0], many.X[1])


def test_separable_problems_have_both_classes_and_the_margin_asked_for():
    data = separable(20, 9, 5, margin=0.5)
    assert data.two_classes
    for signed in data.signed:
        # A separator of unit length with margin 0.5 exists: the drawn direction; a bound on any separator is the least norm of a mixture.
        assert torch.linalg.vector_norm(signed.mean(0)) >= 0.5


def test_sparse_targets_have_as_many_signs_as_asked_for():
    data = regression(6, 30, 20, nonzero=3)
    w = torch.linalg.lstsq(data.X, data.y[..., None]).solution[..., 0]
    assert ((w.abs() > 1e-8).sum(1) == 3).all()
    torch.testing.assert_close(w.abs().amax(1), torch.ones(6).double())


def test_outputs_and_their_adjoint():
    for data in (regression(3, 4, 5), Problem(drawn(1, 4, 5), drawn(1, 4))):
        w, slope = drawn(3, 5, seed=1), drawn(3, 4, seed=2)
        by_hand = torch.stack([X @ one for X, one in zip(data.X.expand(3, -1, -1), w, strict=True)])
        torch.testing.assert_close(data.outputs(w), by_hand)
        torch.testing.assert_close((data.outputs(w) * slope).sum(1), (data.pulled_back(slope) * w).sum(1))


def test_some_of_the_seeds():
    data, index = regression(5, 3, 4), torch.tensor([4, 1])
    assert torch.equal(data.at(index).X, data.X[index]) and zeros(data.at(index)).shape == (2, 4)
    shared = problem(drawn(3, 4), drawn(3))
    assert shared.at(index) is shared


@pytest.mark.parametrize("labels", [[0, 1, 1], [False, True, True], np.array([0, 1, 1], dtype=np.uint8)])
def test_whole_labels_of_two_classes_become_signs(labels):
    assert problem(drawn(3, 4), labels).y.tolist() == [[-1.0, 1.0, 1.0]]


def test_lists_keep_their_digits_as_arrays_do():
    X, y = [[0.1, 1 / 3], [1e-12, 1e10 + 0.1]], [0.1, 2 / 3]
    ours, theirs = problem(X, y), problem(np.array(X), np.array(y))
    assert torch.equal(ours.X, theirs.X) and torch.equal(ours.y, theirs.y) and ours.X[0].tolist() == X and ours.y[0].tolist() == y


def test_numbers_to_fit_stay_as_they_are():
    assert problem([[1, 2], [3, 4]], [0.0, 1.0]).y.tolist() == [[0.0, 1.0]]
    assert problem([[1, 2], [3, 4]], [1, 3]).y.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize(
    "X, y, said",
    [
        ([[1.0, 2.0]], [[1.0]], "X must have the shape (n, d) and y (n,), got (1, 2) and (1, 1)"),
        ([[1.0, 2.0]], [1.0, 2.0], "X must have the shape (n, d) and y (n,), got (1, 2) and (2,)"),
        ([[1.0, float("nan")]], [1.0], "X must be finite, but example 0 is not"),
        ([[1.0], [2.0]], [1.0, float("inf")], "y must be finite, but example 1 is not"),
        (np.zeros((0, 3)), np.zeros(0), "at least one example of one value, got X of shape (1, 0, 3)"),
        ([["a"]], [1.0], "X and y must be arrays of numbers"),
    ],
)
def test_what_is_no_problem_is_refused(X, y, said):
    with pytest.raises(UserError, match=re.escape(said)):
        problem(X, y)


@pytest.mark.parametrize(
    "X, y, said",
    [
        ([[1.0], [2.0]], [1.0, 3.0], "two classes need the labels -1 and 1, got [1.0, 3.0]"),
        ([[1.0], [2.0]], [1.0, 1.0], "a margin needs examples of both classes, and a problem has one class only"),
        ([[1.0], [0.0]], [1.0, -1.0], "example 1 is all zero: no separator has a margin there"),
    ],
)
def test_what_has_no_margin_is_refused(X, y, said):
    with pytest.raises(UserError, match=re.escape(said)):
        problem(X, y).signed  # noqa: B018


def test_a_file_of_arrays(tmp_path):
    X, y = drawn(5, 3).numpy(), np.array([0, 1, 0, 1, 1])
    np.savez(tmp_path / "xy.npz", X=X, y=y)
    data = read_problem(tmp_path / "xy.npz")
    assert np.array_equal(data.X[0].numpy(), X) and data.two_classes
    np.savez(tmp_path / "other.npz", X=X + 1e-12, y=y)
    assert data.digest == problem(X, y).digest != read_problem(tmp_path / "other.npz").digest


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"X": np.zeros((2, 2))}, "has no array 'y'; it has X"),
        ({"X": np.array([["a", "b"]]), "y": np.zeros(1)}, "X must hold numbers, got <U1"),
        ({"X": np.zeros((2, 2)), "y": np.zeros(3)}, "X must have the shape (n, d) and y (n,), got (2, 2) and (3,)"),
        ({"X": np.array([[np.nan, 0]]), "y": np.zeros(1)}, "X must be finite, but example 0 is not"),
    ],
)
def test_files_that_are_no_problem_are_named(tmp_path, arrays, said):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        read_problem(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)


def test_numbers_in_lists_keep_all_their_digits():
    assert problem([[0.1, 0.2]], [0.3]).X.tolist() == [[[0.1, 0.2]]]
    assert problem([[0.1, 0.2]], [0.3]).y.tolist() == [[0.3]]
