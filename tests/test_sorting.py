"""Rows in order: by numpy or by torch, the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.sorting import rows_in_order, sorted_rows

NUMBERS = st.floats(allow_nan=False, width=32) | st.sampled_from([0.0, -0.0, 1.0, float("inf")])


def rows(width: int) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=4)


@given(st.integers(0, 40).flatmap(rows), st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_it_is_torch_s_order(values: list[list[float]], descending: bool, dtype: torch.dtype) -> None:
    x = torch.tensor(values, dtype=dtype)
    expected = x.sort(1, descending=descending).values
    found, order = rows_in_order(x, descending=descending)
    assert torch.equal(found, expected) and torch.equal(sorted_rows(x, descending=descending), expected)
    assert torch.equal(x.gather(1, order), expected)
    assert torch.equal(order.sort(1).values, torch.arange(x.shape[1]).expand_as(order))


@pytest.mark.parametrize("descending", [False, True])
def test_nan_stands_where_torch_puts_it(descending: bool) -> None:
    x = torch.tensor([[0.0, float("nan"), -1.0, float("inf")]])
    expected = x.sort(1, descending=descending).values
    assert torch.equal(sorted_rows(x, descending=descending).isnan(), expected.isnan())
    assert torch.equal(rows_in_order(x, descending=descending)[0].isnan(), expected.isnan())


def test_equal_values_come_in_an_order_that_other_rows_do_not_change() -> None:
    x = torch.randint(0, 5, (20, 300), generator=torch.Generator().manual_seed(0)).float()
    _, order = rows_in_order(x)
    alone = torch.cat([rows_in_order(row[None])[1] for row in x])
    assert torch.equal(order, alone)


def test_gradients_and_half_precision_are_torch_s() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    rows_in_order(x)[0][0, 0].backward()
    assert x.grad is not None and x.grad.tolist() == [[0, 1, 0]]
    assert sorted_rows(x.detach().bfloat16()).tolist() == [[1, 2, 3]]
    with torch.inference_mode():
        assert sorted_rows(x.detach().clone(), descending=True).tolist() == [[3, 2, 1]]
