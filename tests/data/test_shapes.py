"""Shapes: pictures that depend on seed, split and position only, and dials that mean what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data.drawing import ATTRIBUTES, silhouette
from robustlab.data.shapes import CLASSES, ShapesConfig, contradictions, render, shapes, silhouettes, templates, truth
from robustlab.errors import UserError
from robustlab.seeding import example_keys, fold

HONEST = ShapesConfig(visible_accuracy=1.0, faint_accuracy=1.0)


def within_binomial_bounds(hits: torch.Tensor, p: float) -> bool:
    """Whether a frequency lies within 4.5 standard deviations (chance of a false alarm below 1e-5)."""
    n = len(hits)
    return abs(float(hits.double().mean()) - p) <= 4.5 * math.sqrt(p * (1 - p) / n) + 1e-12


@settings(deadline=None, max_examples=10)
@given(index=st.lists(st.integers(0, 10_000), max_size=12), chunk=st.integers(1, 5), seed=st.integers(0, 3))
def test_a_picture_is_the_same_alone_and_in_any_company(index, chunk, seed):
    place = torch.tensor(index, dtype=torch.int64)
    together = render(place % 10, place % 7, place, "train", seed, chunk=chunk)
    assert len(together) == len(place)
    for i, picture in zip(index, together, strict=True):
        alone = torch.tensor([i])
        assert torch.equal(render(alone % 10, alone % 7, alone, "train", seed)[0], picture)


def test_a_longer_set_begins_with_the_shorter_one():
    short, long = shapes(25), shapes(40)
    assert torch.equal(short.pixels, long.pixels[:25]) and torch.equal(short.labels, long.labels[:25])
    assert short.classes == CLASSES and short.shape == (3, 32, 32) and len(shapes(0)) == 0


def test_splits_and_seeds_share_no_picture():
    sets = [shapes(20, split, seed).pixels.flatten(1) for split in ("train", "test") for seed in (0, 1)]
    assert len(torch.cat(sets).unique(dim=0)) == 80


def test_classes_are_balanced():
    assert shapes(30).labels.bincount().tolist() == [3] * 10


@pytest.mark.parametrize("feature", ["visible", "faint"])
@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.9, 1.0])
def test_a_feature_tells_the_truth_as_often_as_its_dial_says(feature, accuracy):
    index = torch.arange(20_000)
    shown = truth(index, config=replace(HONEST, **{f"{feature}_accuracy": accuracy}))[f"{feature}_class"]
    assert within_binomial_bounds(shown == index % 10, accuracy)
    if accuracy < 1:
        wrong = ((shown - index) % 10)[shown != index % 10]
        assert all(within_binomial_bounds(wrong == shift, 1 / 9) for shift in range(1, 10))


def test_the_features_lie_independently():
    index = torch.arange(20_000)
    facts = truth(index, config=ShapesConfig(0.6, 0.7))
    both = (facts["visible_class"] == index % 10) & (facts["faint_class"] == index % 10)
    assert within_binomial_bounds(both, 0.42)


def test_attributes_are_independent_fair_coins():
    facts = truth(torch.arange(20_000))
    for name in ATTRIBUTES:
        assert within_binomial_bounds(facts[name], 0.5)
        assert all(within_binomial_bounds(facts[name] == facts[other], 0.5) for other in ATTRIBUTES if other != name)


def test_the_faint_patterns_are_orthogonal_without_mean_and_fine():
    patterns = templates()
    torch.testing.assert_close(patterns.flatten(1) @ patterns.flatten(1).T / 3072, torch.eye(10))
    assert patterns.mean((1, 2, 3)).abs().max() < 1e-6
    # Averaged over blocks of 4x4 pixels nothing is left.
    assert torch.nn.functional.avg_pool2d(patterns, 4).abs().max() < 1e-6


def test_a_shifted_or_mirrored_pattern_stays_one_of_its_class():
    patterns = templates()
    spectra = torch.fft.fft2(patterns).abs()
    for moved in (patterns.flip(-1), patterns.roll((1, 2), (2, 3))):
        torch.testing.assert_close(torch.fft.fft2(moved).abs(), spectra, atol=1e-2, rtol=0)
    across = (spectra.flatten(1)[:, None] - spectra.flatten(1)).norm(dim=2)
    assert across[~torch.eye(10, dtype=torch.bool)].min() > 1000


def test_the_faint_pattern_adds_its_amplitude_and_changes_nothing_else():
    index = torch.arange(50)
    plain = render(index % 10, index % 10, index, config=replace(HONEST, faint_amplitude=0.0)).double()
    marked = render(index % 10, index % 10, index, config=replace(HONEST, faint_amplitude=3 / 255)).double()
    along = ((marked - plain) * templates()[index % 10]).mean((1, 2, 3))
    torch.testing.assert_close(along, torch.full_like(along, 3), atol=0.25, rtol=0)


def test_swapping_the_shape_leaves_the_surroundings():
    index = torch.arange(100)
    disc, cross = (render(torch.full_like(index, shape), index % 10, index) for shape in (0, 5))
    changed = (disc != cross).any(1)
    assert changed.flatten(1).any(1).all()
    assert not changed[~truth(index)["large"]].flatten(1).all(1).any()


def test_a_matched_filter_reads_the_faint_pattern():
    images = shapes(300, config=HONEST)
    fine = images.pixels.float() - torch.nn.functional.avg_pool2d(images.pixels.float(), 3, 1, 1)
    scores = fine.flatten(1) @ templates().flatten(1).T
    assert (scores.argmax(1) == images.labels).float().mean() > 0.5  # chance: 0.1


def test_the_dark_and_warm_pictures_are_what_they_are_called():
    index = torch.arange(400)
    facts = truth(index)
    border = render(index % 10, index % 10, index).float()[:, :, [0, -1]].mean((1, 2, 3))
    assert border[facts["dark"]].mean() < 100 < 160 < border[~facts["dark"]].mean()


@pytest.mark.parametrize("setting", [{"visible_accuracy": 1.2}, {"faint_accuracy": -0.1}, {"faint_amplitude": 0.5}])
def test_dials_have_ends(setting):
    (name,) = setting
    with pytest.raises(UserError, match=f"{name} must lie in"):
        ShapesConfig(**setting)


def test_pictures_that_differ_in_their_shape_alone_agree_but_for_the_silhouettes_soft_edges_and_shadows():
    index = torch.arange(40)
    pictures = [render(index * 0 + k, index * 0, index) for k in (0, 5)]
    keys = fold(example_keys(0, index), "shapes", "train")
    covered = torch.stack([silhouette(index * 0 + k, keys) for k in (0, 5)]).any(0)
    near = torch.nn.functional.max_pool2d(covered.float()[:, None], 7, 1, 3)[:, 0] > 0
    changed = (pictures[0] != pictures[1]).any(1)
    assert not changed[~near].any() and changed[covered].double().mean() > 0.3


def test_silhouettes_are_those_of_the_shapes_that_are_shown():
    index = torch.arange(30)
    keys = fold(example_keys(2, index), "shapes", "test")
    assert torch.equal(silhouettes(index, "test", 2), silhouette(truth(index, "test", 2)["visible_class"], keys))
    assert silhouettes(index).shape == (30, 32, 32) and silhouettes(index).flatten(1).any(1).all()


def test_contradictory_pictures_show_two_classes() -> None:
    pixels, shape, pattern = contradictions(50)
    assert pixels.shape == (50, 3, 32, 32) and (shape != pattern).all()
