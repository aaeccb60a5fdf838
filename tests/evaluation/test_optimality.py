"""Optimality: areas that can be worked out by hand, and what must hold of any distances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab import UserError
from robustlab.evaluation import optimality

FAR = st.floats(1 / 64, 8, width=32) | st.just(math.inf)


def test_areas_by_hand() -> None:
    """Best 1 and 3: it takes 2 of the rectangle of 2 x 3. The first attack takes 1 (at 2) and 0 (none found), the second 0 and 0."""
    found = {"first": torch.tensor([2.0, math.inf]), "second": torch.tensor([math.inf, 3.0]), "third": torch.tensor([1.0, 5.0])}
    assert optimality(found) == {"first": 0.5, "second": 0.0, "third": 1.0}


@given(st.lists(st.lists(FAR, min_size=5, max_size=5), min_size=1, max_size=4), st.floats(0.1, 10))
def test_the_best_of_each_image_has_1_and_nothing_is_outside_0_and_1(rows: list[list[float]], unit: float) -> None:
    distances = {str(number): torch.tensor(row, dtype=torch.float64) for number, row in enumerate(rows)}
    best = torch.stack(list(distances.values())).min(0).values
    if not best.isfinite().any():
        with pytest.raises(UserError, match="no best to compare with"):
            optimality(distances)
        return
    found = optimality({**distances, "best": best})
    assert found["best"] == 1 and all(0 <= share <= 1 for share in found.values())
    scaled = optimality({name: row * unit for name, row in {**distances, "best": best}.items()})
    assert scaled == pytest.approx(found, abs=1e-9)
    without = optimality(distances)
    assert without == pytest.approx({name: found[name] for name in without})  # the best is already among the others


def test_it_is_the_area_between_curves() -> None:
    generator = torch.Generator().manual_seed(0)
    best = torch.rand(40, generator=generator, dtype=torch.float64) + 0.2
    worse = best * (1 + torch.rand(40, generator=generator, dtype=torch.float64))
    radii = torch.linspace(0, float(best.max()), 20_001, dtype=torch.float64)
    standing = {name: (far[None] > radii[:, None]).double().mean(1) for name, far in (("best", best), ("worse", worse))}
    area = {name: float(torch.trapezoid(1 - curve, radii)) for name, curve in standing.items()}
    assert optimality({"best": best, "worse": worse})["worse"] == pytest.approx(area["worse"] / area["best"], abs=1e-3)


@pytest.mark.parametrize(
    "distances, sentence",
    [
        ({}, "at least one"),
        ({"a": torch.ones(3), "b": torch.ones(4)}, r"same images for each attack.*a: \(3,\), b: \(4,\)"),
        ({"a": torch.zeros(0)}, r"N >= 1"),
        ({"a": torch.tensor([math.nan])}, "those of a are not"),
        ({"a": torch.tensor([-1.0])}, "those of a are not"),
    ],
)
def test_what_is_no_distance_is_refused(distances: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        optimality(distances)


def test_one_image_is_found_or_not() -> None:
    assert optimality({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}) == {"a": 1.0, "b": 0.0}
