"""Which feature of shapes a model follows, on models of which it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.data.shapes import templates
from robustlab.evaluation.features import follows, moved_by

N = 60


class Matched(nn.Module):
    """Classifies by the faint pattern: how much of each class's is in the image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, templates())


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(10)[torch.zeros(len(x), dtype=torch.int64)]


def test_a_model_of_the_pattern_follows_the_pattern() -> None:
    found = follows(Matched(), N, "cpu")
    assert found["pattern"].value > 0.9 and found["shape"].value < 0.1
    assert found["pattern"].n == found["shape"].n == N


def test_only_an_exchange_of_what_it_follows_moves_a_model() -> None:
    found = moved_by(Matched(), N, "cpu")
    assert found["pattern"].value > 0.9 and found["shape"].value < 0.1


@pytest.mark.parametrize("measured", [follows, moved_by])
def test_a_model_that_always_says_the_same_is_at_chance(measured) -> None:
    found = measured(Constant(), 100, "cpu")
    assert all(abs(rate.value - 0.1) < 0.09 for rate in found.values())
