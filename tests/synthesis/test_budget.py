"""Laws of a search: it stays in its set, starts where it is told, and knows the published settings."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

import pytest
import torch
from laws import ALL_NORMS, assert_within, drawn, every_norm, images

from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf
from robustlab.options import leaves
from robustlab.synthesis.budget import PUBLISHED, TUNED, Search, published_search, resolved, search_of, tuned_search
from robustlab.synthesis.parameters import Fourier, Pixels
from robustlab.synthesis.tasks import TASKS

X = 0.3 + 0.4 * images(3, 2, 4, 4)
G = drawn(2, 4, 4).float()


def along(x):
    """Linear: descends along ``-G``."""
    return (x * G).flatten(1).sum(1)


@every_norm
def test_what_is_found_lies_in_the_ball(norm):
    search = Search(0.5, 0.2, 7, norm)
    assert_within(ThreatModel(norm, 0.5), X, search(along, X).x)
    center = images(3, 2, 4, 4, seed=9)
    assert_within(ThreatModel(norm, 0.5), center, search(along, X, center=center).x)


def test_a_straight_way_is_walked_in_steps_of_one_length_until_the_ball_ends():
    unit = G / G.norm()
    for steps in range(6):
        found = Search(0.2, 0.05, steps)(along, X)
        torch.testing.assert_close(found.x, X - min(0.05 * steps, 0.2) * unit)
        torch.testing.assert_close(found.value, along(found.x))


def test_without_a_radius_only_the_pixel_box_ends_it():
    found = Search(None, 1.0, 100)(along, X).x
    assert torch.equal(found, (G < 0).float().expand_as(X))


@pytest.mark.parametrize("eps", [0.0, 0.5, None])
def test_without_steps_or_gradient_the_start_comes_back(eps):
    x = images(3, 2, 4, 4)
    x[0] = 1
    for norm in ALL_NORMS:
        assert torch.equal(Search(eps, 0.1, 0, norm)(along, x).x, x)
        assert torch.equal(Search(eps, 0.1, 5, norm)(lambda z: 0 * along(z), x).x, x)
    assert Search(eps, 0.1, 3)(along, x[:0]).x.shape == (0, 2, 4, 4)


def test_the_best_is_kept_unless_the_last_is_wanted():
    def near(x):
        return (x - X).flatten(1).norm(dim=1)

    kept, last = (Search(None, 0.3, 4)(near, X.clone() + 0.1, keep_best=best).x for best in (True, False))
    assert (near(kept) <= near(last)).all() and (near(kept) < near(last)).any()


def test_every_step_shows_images_whatever_the_parameters():
    for parameters in (None, Pixels(), Fourier()):
        shown = []
        found = Search(None, 0.1, 3)(along, X, parameters=parameters, on_step=lambda t, x, value: shown.append((t, x, value)))  # noqa: B023
        assert [t for t, _, _ in shown] == [0, 1, 2, 3]
        for _, x, value in shown:
            assert x.shape == X.shape and not x.requires_grad
            torch.testing.assert_close(value, along(x))
        torch.testing.assert_close(shown[0][1], X)
        torch.testing.assert_close(found.x, shown[-1][1])
        assert (found.value < along(X)).all() and 0 <= found.x.min() and found.x.max() <= 1


def test_a_verdict_of_the_objective_is_passed_on():
    found = Search(None, 0.1, 3)(lambda x: (along(x), x.flatten(1).mean(1) > 2), X)
    assert torch.equal(found.achieved, torch.zeros(3, dtype=torch.bool))


@dataclass(frozen=True)
class Turning:
    """An objective for each step: even ones descend along ``-G``, odd ones back again; nobody may ask for one of no step."""

    noted: list[int] = field(default_factory=list)

    def at_step(self, step: int):
        self.noted.append(step)
        return lambda x: along(x) * (-1) ** step


@pytest.mark.parametrize("parameters", [None, Pixels(), Fourier()], ids=repr)
def test_an_objective_for_each_step_is_told_the_step_whatever_the_parameters(parameters):
    """The last point is judged by the objective of the step that would be taken there, as ``minimize`` says."""
    objective, shown = Turning(), []
    found = Search(None, 0.01, 4)(objective, X, keep_best=False, parameters=parameters, on_step=lambda t, x, value: shown.append(value))
    assert objective.noted == [0, 1, 2, 3]
    torch.testing.assert_close(torch.stack(shown[:2]).sign(), torch.stack([along(X), -along(X)]).sign())
    torch.testing.assert_close(found.x, X, atol=1e-3, rtol=0)  # forth and back, twice
    Search(None, 0.01, 4)(objective, X, parameters=parameters)
    assert objective.noted == [0, 1, 2, 3] + [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("norm", "power"), [(L2(), 1), (Linf(), 0), (L1(), 2)], ids=repr)
def test_lengths_grow_with_the_image_as_their_norm_does(norm, power):
    scaled = Search(0.3, 0.05, 60, norm).scaled(224, 32)  # a radius that has a meaning in every norm
    assert scaled.steps == 60 and scaled.norm == norm
    assert scaled.eps == pytest.approx(0.3 / 7**power) and scaled.step_size == pytest.approx(0.05 / 7**power)
    assert Search(None, 0.5, 60, norm).scaled(32, 64).eps is None


def test_the_same_even_change_is_inside_at_every_size():
    for norm in ALL_NORMS:
        search = Search(1.0, 0.1, 3, norm)
        for size in (3, 8):
            change = torch.full((1, 1, size, size), 1.0, dtype=torch.float64)
            change /= norm.measure(torch.ones(1, 5, 5).double())
            assert float(norm.measure(change)) == pytest.approx(search.scaled(5, size).eps)


def test_published_settings():
    assert published_search("generate", 224) == Search(40, 1, 60) and published_search("generate", 32) == Search(30, 0.5, 60)
    assert published_search("inpaint", 224) == Search(21.6, 0.1, 720)
    assert published_search("translate", 224) == Search(80, 0.5, 200)
    assert published_search("paint", 224) == Search(70, 1, 140)
    assert published_search("interpolate", 32).step_size == 0.1
    assert all(search.norm == L2() for known in PUBLISHED.values() for search in known.values())
    assert all(224 in known for known in PUBLISHED.values())
    # Where no radius is given, the published ones of 500 and 1000 cannot bind.
    assert math.sqrt(3 * 224 * 224) < 500


def test_other_sizes_are_scaled_from_the_nearest_published_one():
    assert published_search("generate", 64) == Search(30, 0.5, 60).scaled(32, 64)
    assert published_search("generate", 112) == Search(40, 1, 60).scaled(224, 112)
    small = published_search("translate", 32)
    assert small.eps == pytest.approx(80 / 7) and small.step_size == pytest.approx(0.5 / 7) and small.steps == 200
    for task in PUBLISHED:
        for size in (1, 8, 32, 224, 500):
            assert published_search(task, size).steps > 0


def test_tuned_settings_take_the_place_of_the_published_ones_at_every_size():
    assert set(TUNED) <= set(PUBLISHED) and all(search.norm == L2() for search in TUNED.values())
    for task in PUBLISHED:
        assert tuned_search(task, 32) == TUNED.get(task, published_search(task, 32))
        assert tuned_search(task, 224) == (TUNED[task].scaled(32, 224) if task in TUNED else published_search(task, 224))
        assert (tuned_search(task, 32).eps is None) == (PUBLISHED[task][224].eps is None), "a ball where there is one in the paper"


@pytest.mark.parametrize("task", PUBLISHED)
def test_what_settings_leave_open_is_tuned_or_on_demand_published(task: str) -> None:
    settings = TASKS[task].settings
    for size in (32, 64):
        assert search_of(task, settings(), size) == tuned_search(task, size)
        assert search_of(task, settings(published=True), size) == published_search(task, size)
    few = settings(steps=7, step_size=0.3)
    assert search_of(task, few, 64) == replace(tuned_search(task, 64), steps=7, step_size=0.3)
    assert getattr(resolved(task, settings(published=True), 32), "weight", None) == {"inpaint": 10.0, "paint": 900.0}.get(task)
    assert getattr(resolved(task, settings(), 32), "weight", None) == {"inpaint": math.inf, "paint": 900.0}.get(task)
    full = resolved(task, few, 64)
    assert search_of(task, full, 64) == search_of(task, few, 64) and resolved(task, full, 64) == full, "nothing is left open"


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_help_shows_the_defaults(task: str) -> None:
    """Read from the help: the numbers at 32 pixels, tuned and published."""
    for name, leaf in leaves(TASKS[task].settings).items():
        if name in ("eps", "step_size", "steps"):
            ours, theirs = (getattr(found(task, 32), name) for found in (tuned_search, published_search))
            numbers = [float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", leaf.option.shown.replace("at 32 pixels", ""))]
            expected = [] if ours is None else [ours] if f"{ours:.3g}" == f"{theirs:.3g}" else [ours, theirs]
            assert numbers == pytest.approx(expected, rel=5e-3), name


def test_an_unknown_task_is_met_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown task 'inpainting'. Did you mean 'inpaint'\?"):
        published_search("inpainting", 32)
    with pytest.raises(UserError, match=r"unknown task 'inpainting'. Did you mean 'inpaint'\?"):
        tuned_search("inpainting", 32)
    with pytest.raises(UserError, match="at least one pixel"):
        published_search("inpaint", 0)


@pytest.mark.parametrize(
    "change", [{"eps": -1.0}, {"eps": math.inf}, {"eps": math.nan}, {"steps": -1}, {"step_size": -0.1}, {"step_size": math.nan}], ids=repr
)
def test_settings_without_meaning_are_refused(change):
    with pytest.raises(UserError, match="eps must be|a search needs steps >= 0"):
        replace(Search(1.0, 0.1, 3), **change)


def test_what_is_no_image_is_refused():
    search = Search(1.0, 0.1, 3)
    with pytest.raises(UserError, match="0-255 values"):
        search(along, X * 255)
    with pytest.raises(UserError, match="found values from -0"):
        search(along, X, center=X - 1)
    with pytest.raises(UserError, match=r"the start's shape \(3, 2, 4, 4\), got \(1, 2, 4, 4\)"):
        search(along, X, center=X[:1])
    with pytest.raises(UserError, match="Fourier parameters know no radius around an image: set eps to None, not 1.0"):
        search(along, X, parameters=Fourier())
    with pytest.raises(UserError, match="at least one pixel"):
        search.scaled(0, 32)
