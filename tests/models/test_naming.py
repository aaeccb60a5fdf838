"""Short names for models."""

from __future__ import annotations

import pytest

from robustlab.models.naming import short_names


@pytest.mark.parametrize(
    "names, words",
    [
        (["cifar10-small-l2"], ["cifar10-small-l2"]),
        (["small-0.5", "small-0.25"], ["small-0.5", "small-0.25"]),
        (["runs/a/model.json"], ["model"]),
        (["runs/standard/model.json", "runs/robust/model.json", "other.pt"], ["standard-model", "robust-model", "other"]),
        (["/x/1/best.pt", "/y/1/best.pt", "/y/2/best.pt"], ["x-1-best", "y-1-best", "2-best"]),
        (["a-2.json", "a.json", "a.pt"], ["a-2", "a", "a-3"]),
        (["a/model.pt", "model.pt", "../model.pt"], ["a-model", "model", "model-2"]),
    ],
)
def test_models_have_short_names(names: list[str], words: list[str]) -> None:
    assert short_names(names) == dict(zip(names, words, strict=True))
