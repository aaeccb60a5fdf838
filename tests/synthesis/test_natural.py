"""Laws of what keeps pictures natural: variation is what it says, views are shifted and mirrored images, each by itself, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laws import images
from torch import Tensor

from robustlab.errors import UserError
from robustlab.seeding import example_keys
from robustlab.synthesis.budget import PUBLISHED, Search, search_of, tuned_search
from robustlab.synthesis.measures import calmness, saturated
from robustlab.synthesis.natural import variation, viewed
from robustlab.synthesis.parameters import Fourier
from robustlab.synthesis.tasks import TASKS

X = images(5, 3, 6, 7, dtype=torch.float64)
KEYS = example_keys(0, torch.arange(5))


def test_variation_is_the_mean_absolute_difference_of_neighbours() -> None:
    slope = torch.arange(4.0)[:, None] * 0.1 + torch.arange(5.0) * 0.02
    torch.testing.assert_close(variation(slope.expand(2, 3, 4, 5)), torch.tensor([0.12, 0.12]))
    assert variation(torch.full((2, 3, 4, 4), 0.7)).tolist() == [0, 0]
    assert variation(torch.rand(2, 3, 1, 1)).tolist() == [0, 0] and variation(torch.rand(0, 3, 4, 4)).shape == (0,)
    torch.testing.assert_close(variation(X), variation(X.flip(3))), "mirrored it is the same"


def test_saturated_values_are_black_or_white_in_eight_bits() -> None:
    x = torch.tensor([0.0, 1.0, 0.001, 0.999, 0.5, 0.1, 0.9, 0.01]).view(1, 1, 2, 4)
    assert saturated(x).tolist() == [0.5]
    assert set(calmness({", image": X})) == {"variation, image", "black or white, image"}


def test_without_jitter_and_flips_a_view_is_the_image_and_always_mirrored_is_its_mirror() -> None:
    assert torch.equal(viewed(X, KEYS, 0, 0.0), X) and torch.equal(viewed(X, KEYS, 0, 1.0), X.flip(3))


def test_a_view_is_one_of_the_shifted_and_mirrored_images_and_all_of_them_come() -> None:
    def shifted(x: Tensor, down: int, right: int, flip: bool) -> Tensor:
        rows, columns = (torch.arange(6) + down).clamp(0, 5), (torch.arange(7) + right).clamp(0, 6)
        return x[:, rows][:, :, columns.flip(0) if flip else columns]

    kinds = [(a, b, flip) for a in (-1, 0, 1) for b in (-1, 0, 1) for flip in (False, True)]
    many = X[:1].expand(400, -1, -1, -1)
    found = viewed(many, example_keys(1, torch.arange(400)), 1, 0.5)
    counts = {kind: sum(torch.equal(view, shifted(X[0], *kind)) for view in found) for kind in kinds}
    assert sum(counts.values()) == 400 and min(counts.values()) > 5, "the images are without symmetry"


def test_a_view_of_an_image_does_not_depend_on_the_others_and_lets_gradients_through() -> None:
    order = torch.tensor([3, 1])
    assert torch.equal(viewed(X[order], KEYS[order], 2, 0.5), viewed(X, KEYS, 2, 0.5)[order])
    x = X.clone().requires_grad_()
    viewed(x, KEYS, 2, 0.5).sum().backward()
    torch.testing.assert_close(x.grad.sum(), torch.tensor(float(X.numel()), dtype=torch.float64))


def score(x: Tensor) -> Tensor:
    weight = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return (x * weight).flatten(1).sum(1)


@pytest.mark.parametrize("parameters", [None, Fourier()])
def test_a_weight_on_the_variation_makes_calmer_pictures(parameters: Fourier | None) -> None:
    search = Search(None, 0.2, 30)
    wild, calm = (replace(search, tv=tv)(score, X, parameters=parameters) for tv in (0.0, 200.0))
    assert (variation(calm.x) < variation(wild.x)).all() and (score(calm.x) >= score(wild.x)).all()
    torch.testing.assert_close(calm.value, score(calm.x) + 200 * variation(calm.x))


def test_views_change_from_step_to_step_and_one_by_one_is_as_all_together() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return 0 * score(x)

    search = Search(1.0, 0.1, 4, jitter=2, flips=0.5)
    assert torch.equal(search(watched, X).x, X), "nothing to follow"
    assert len({tuple(one.flatten().tolist()) for one in seen}) > 2
    together = search(score, X).x
    torch.testing.assert_close(torch.cat([search(score, X[i : i + 1]).x for i in range(5)]), together)
    assert torch.equal(search(score, X).x, together) and not torch.equal(replace(search, jitter=0, flips=0.0)(score, X).x, together)


def test_what_is_seen_is_what_comes_back_and_the_penalty_sees_the_image_itself() -> None:
    left = torch.zeros(1, 1, 6, 7, dtype=torch.bool)
    left[..., :3] = True
    for parameters in (None, Fourier()):
        found = Search(None, 0.2, 6, tv=0.1, jitter=1)(score, X, parameters=parameters, seen=lambda x: torch.where(left, x, X)).x
        assert torch.equal(found.masked_fill(left, 0), X.masked_fill(left, 0)) and not torch.equal(found, X)
    held = Search(None, 0.2, 20, jitter=2)(score, X, penalty=lambda x: 1e6 * (x - X).square().flatten(1).sum(1)).x
    torch.testing.assert_close(held, X, rtol=0, atol=0.05)


@pytest.mark.parametrize("task", PUBLISHED)
def test_every_task_has_the_settings(task: str) -> None:
    settings = TASKS[task].settings
    found = search_of(task, settings(tv=0.3, jitter=2, flips=0.25), 32)
    assert (found.tv, found.jitter, found.flips) == (0.3, 2, 0.25)
    waves = search_of(task, settings(fourier=True), 32)
    assert waves == replace(tuned_search(task, 32), eps=None, parameters=Fourier())
    as_published = search_of(task, settings(published=True), 32)
    assert (as_published.tv, as_published.jitter, as_published.flips) == (0, 0, 0)


def test_jitter_grows_with_the_image() -> None:
    assert Search(1.0, 0.1, 3, jitter=2).scaled(32, 224).jitter == 14 and Search(1.0, 0.1, 3, tv=1.0).scaled(32, 64).tv == 1.0


@pytest.mark.parametrize("change", [{"tv": -1.0}, {"tv": float("nan")}, {"jitter": -1}, {"flips": 1.5}, {"flips": float("nan")}], ids=repr)
def test_settings_without_meaning_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match="tv and jitter must be >= 0 and flips a share from 0 to 1"):
        replace(Search(1.0, 0.1, 3), **change)
