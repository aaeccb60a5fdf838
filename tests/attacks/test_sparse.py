"""Laws of attacks in L0: pixels are counted exactly, projections are the best of all choices, a linear model's best pixels are found."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import anything, batches, drawn, images, pixels, restless, seeded, untouched
from oracles import Counting, Linear, halfway
from torch import Tensor, nn

from robustlab.attacks import APGD, FMN, MIFGSM, PGD, LineUp, SigmaZero, SparseRS, Square, Transfer, named_attack, with_eps
from robustlab.attacks.sparse_rs import PixelMoves, free_pixels
from robustlab.attacks.windows import ends
from robustlab.constraints import Ball, Box, ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Targeted, margin
from robustlab.norms import L0, L1
from robustlab.seeding import example_keys, uniform
from robustlab.steps import attack_directions
from robustlab.threats import named_threat

KEYS, Y = example_keys(0, torch.arange(6)), torch.arange(6) % 3
THREAT = ThreatModel(L0(), 4)
ATTACKS = {
    "PGD": PGD(THREAT, steps=5),
    "restarts": PGD(THREAT, steps=5, restarts=2),
    "MI-FGSM": MIFGSM(THREAT),
    "transfer": Transfer(THREAT, 3, nesterov=True, neighbours=2, kernel=3),
    "Sparse-RS": SparseRS(THREAT, 30, restarts=2),
    "line-up": LineUp([PGD(THREAT, 3), SparseRS(THREAT, 30)]),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def changed(x: Tensor, x_adv: Tensor) -> Tensor:
    """How many pixels differ in any channel."""
    return (x != x_adv).flatten(1, -3).any(1).flatten(1).sum(1)


# What is counted.


def test_a_pixel_is_all_channels_of_a_place_and_a_vector_a_row_of_pixels():
    v = torch.zeros(2, 3, 4, 5)
    v[0, :, 1, 1], v[0, 2, 3, 4], v[1, 0, 0, 0] = 1, -1, 1e-30
    assert L0().measure(v).tolist() == [2, 1] and L0(pixels=False).measure(v).tolist() == [4, 1]
    assert L0().measure(v.flatten(1)).tolist() == [4, 1] and L0().measure(v[:, 0]).tolist() == [1, 1]
    assert L0().measure(torch.zeros(0, 3, 4, 5)).shape == (0,) and L0().measure(torch.zeros(2, 3, 0, 5)).tolist() == [0, 0]


@pytest.mark.parametrize("in_box", [False, True])
@pytest.mark.parametrize("shape", [(3, 2, 3), (1, 2, 3), (5,)], ids=str)
def test_the_projection_is_the_nearest_of_all_choices_of_pixels(shape, in_box):
    v, norm = 0.8 * drawn(6, *shape), L0()
    low, high = (-images(6, *shape, dtype=torch.float64), images(6, *shape, seed=1, dtype=torch.float64)) if in_box else (-v.abs(), v.abs())
    inside, count = v.clamp(low, high), norm.units(v).shape[2]
    for k in range(count + 1):
        best = torch.full((6,), torch.inf, dtype=torch.float64)
        for chosen in combinations(range(count), k):
            mask = torch.zeros(count, dtype=torch.bool)
            mask[list(chosen)] = True
            candidate = torch.where(mask.expand_as(norm.units(v)).reshape(v.shape), inside, 0)
            best = torch.minimum(best, (candidate - v).square().flatten(1).sum(1))
        found = norm.project_in_box(v, k, low, high) if in_box else norm.project(v, k)
        assert (norm.measure(found) <= k).all() and ((low <= found) & (found <= high)).all()
        torch.testing.assert_close((found - v).square().flatten(1).sum(1), best, rtol=0, atol=1e-12)


def test_what_is_all_but_nothing_is_still_something():
    v = torch.tensor([[0.0, 1e-300, 1.0], [0.0, 0.0, 1e-300]], dtype=torch.float64)
    assert torch.equal(L0().project(v, 2), v)
    assert L0().project(v, torch.tensor([1.0, 0.0])).tolist() == [[0, 0, 1], [0, 0, 0]]


@seeded
@given(
    pair=batches(pixels, anything),
    eps=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_what_the_threat_model_allows_is_exact_and_what_is_inside_stays_as_it_is(pair, eps, dtype):
    x, wanted = (v.to(dtype) for v in pair)
    allowed = ThreatModel(L0(), eps).around(x)
    once = allowed.project(wanted)
    assert (L0().measure(once.double() - x.double()) <= eps).all() and (once >= 0).all() and (once <= 1).all() and once.dtype == dtype
    assert torch.equal(allowed.project(once), once) and torch.equal(allowed.project(x), x)
    inside = L0().measure(wanted.double() - x.double()) <= eps
    assert torch.equal(once[inside], wanted[inside].clamp(0, 1))


def test_draws_change_as_many_pixels_as_they_may_and_all_of_them_alike():
    noise = L0().sample(example_keys(0, torch.arange(2000)), (2, 2, 3), 2)
    assert (L0().measure(noise) == 2).all() and (noise.abs() <= 1).all()
    share = (noise != 0).any(1).flatten(1).float().mean(0)
    assert ((share - 1 / 3).abs() < 4 * (2 / 9 / 2000) ** 0.5).all()


# Attacks by gradients.


def test_pgd_finds_the_best_pixels_of_a_linear_model():
    """From grey images the best pixels are those of the largest weights, each as far as it goes."""
    w, x, y = drawn(30), torch.full((4, 1, 5, 6), 0.5, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    model = Linear(w, 0.3)
    x_adv = PGD(ThreatModel(L0(), 3), steps=20, random_start=False)(model, x, y)
    best = w.abs().topk(3).values.sum() / 2
    gain = (model.advantage(x, y) - model.advantage(x_adv, y)).detach()
    torch.testing.assert_close(gain, best.expand(4), rtol=1e-12, atol=0)
    assert changed(x, x_adv).tolist() == [3] * 4


def test_directions_in_l0_are_the_gradient_scaled_to_a_mean_size_of_one():
    g = drawn(3, 2, 4, 4)
    found = attack_directions(L0()).steepest(g)
    torch.testing.assert_close(found.abs().flatten(1).mean(1), torch.ones(3).double())
    torch.testing.assert_close(nn.functional.cosine_similarity(found.flatten(1), g.flatten(1)), torch.ones(3).double())
    assert not attack_directions(L0()).steepest(torch.zeros(2, 3)).any()
    assert THREAT.default_step_size(20) == 0.15


@every_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_more_than_k_pixels_change_and_the_model_is_left_alone(attack, dtype, tiny_model):
    x = images(6, 3, 8, 8).to(dtype)
    model = restless(tiny_model.to(dtype))
    with untouched(model, x):
        x_adv = attack(model, x, Y, keys=KEYS)
    assert (changed(x, x_adv) <= 4).all() and (x_adv >= 0).all() and (x_adv <= 1).all() and x_adv.dtype == dtype
    assert torch.equal(with_eps(attack, 0)(model, x, Y, keys=KEYS), x)


@every_attack
def test_an_example_gets_the_same_attack_alone_and_in_a_batch(attack, tiny_model):
    model, x = tiny_model.double(), images(6, 3, 8, 8, dtype=torch.float64)
    whole = attack(model, x, Y, keys=KEYS)
    for rows in ([4], [5, 0, 3]):
        torch.testing.assert_close(attack(model, x[rows], Y[rows], keys=KEYS[rows]), whole[rows], rtol=0, atol=1e-11)


# The nearest image.


@pytest.mark.parametrize("attack", [FMN(L0(), 30), SigmaZero(steps=60)], ids=str)
def test_minimum_norm_attacks_count_pixels_or_values_which_are_the_same_with_one_channel(attack, tiny_model):
    grey, (model, y) = images(6, 1, 5, 5), halfway(images(6, 1, 5, 5))
    by_value = replace(attack, norm=L0(pixels=False))
    assert torch.equal(attack(model, grey, y), by_value(model, grey, y))
    x = images(6, 3, 8, 8)
    y = tiny_model(x).argmax(1)
    found, values = attack.solve(tiny_model, x, y), by_value.solve(tiny_model, x, y)
    assert found.achieved.all() and torch.equal(found.value, changed(x, found.x).double())
    assert torch.equal(values.value, (values.x != x).flatten(1).sum(1).double())
    assert found.value.sum() <= changed(x, values.x).sum(), "who counts pixels finds fewer of them"


# Sparse-RS.


def test_pixels_that_are_free_are_drawn_alike_and_without_repetition():
    taken = torch.tensor([[4, 0, 2]]).expand(3000, 3)
    found = free_pixels(taken, 6, uniform(example_keys(1, torch.arange(3000)), (2,), torch.float64))
    counts = {pair: int((found == torch.tensor(pair)).all(1).sum()) for pair in [(1, 3), (1, 5), (3, 1), (3, 5), (5, 1), (5, 3)]}
    assert sum(counts.values()) == 3000
    assert all(abs(n - 500) < 4 * (3000 * 5 / 36) ** 0.5 for n in counts.values())
    assert free_pixels(taken[:1], 6, torch.full((1, 3), 1 - 1e-16, dtype=torch.float64)).tolist() == [[5, 3, 1]]


def test_the_share_of_pixels_that_move_falls_as_published():
    """The public code counts the start as query 0, and all of 10,000."""
    attack = SparseRS(THREAT, 10_000)
    published = {0: 1, 1: 2, 50: 2, 51: 4, 200: 4, 201: 5, 501: 6, 1001: 8, 2001: 10, 4001: 12, 6001: 15, 8000: 15, 8001: 20}
    assert all(attack.share(query) == 0.8 / divided for query, divided in published.items())
    assert all(replace(attack, queries=1000).share(math.ceil(query / 10)) == 0.8 / divided for query, divided in published.items())
    assert replace(attack, queries=1000, rescale_schedule=False).share(999) == 0.8 / 6


@pytest.mark.parametrize("shape, count", [((3, 4, 5), 6), ((2, 2, 2), 3), ((7,), 3), ((3, 2, 2), 4), ((3, 4, 4), 0)], ids=str)
def test_a_move_takes_some_pixels_back_and_colours_as_many_new_ones(shape, count):
    x = 0.3 + 0.4 * images(20, *shape)
    units, keys = L0().units(x), example_keys(0, torch.arange(20))
    moves = PixelMoves(units, count, ends(Box(), x))
    point, places = moves.start(keys)
    for step in range(12):
        draws = uniform(example_keys(step, torch.arange(20)), (moves.draws,), torch.float64)
        where = (point.reshape(units.shape) != units).any(1)
        assert (where.sum(1) == count).all() and where.gather(1, places).all()
        values = point.reshape(units.shape)[where[:, None].expand_as(units)]
        assert ((values == 0) | (values == 1)).all()
        proposal = moves.propose(point, places, 0.5, draws)
        moved = point.clone()
        for index, new in proposal.patches:
            moved = moved.scatter(1, index, new)
        gone = (where & ~(moved.reshape(units.shape) != units).any(1)).sum(1)
        assert (gone == min(max(count // 2, 1), count, units.shape[2] - count)).all()
        point, places = moved, proposal.spent
    colours = point.reshape(units.shape).transpose(1, 2)[(point.reshape(units.shape) != units).any(1)]
    assert count == 0 or colours.mean() == pytest.approx(0.5, abs=0.3)


def test_random_search_finds_the_best_pixels_and_colours_of_a_linear_model():
    """The boundary is so far that nobody is fooled, so the search ends with the best that k pixels can do. With several channels it may end
    with other colours, since a pixel that stays keeps its own."""
    x, w = 0.2 + 0.6 * images(4, 1, 5, 6, dtype=torch.float64), drawn(30)
    model, y = Linear(w, 50.0), torch.ones(4, dtype=torch.int64)
    x_adv = SparseRS(ThreatModel(L0(), 3), 1500)(model, x, y)
    room = torch.where(w > 0, x.flatten(1), 1 - x.flatten(1)) * w.abs()
    gain = (model.advantage(x, y) - model.advantage(x_adv, y)).detach()
    torch.testing.assert_close(gain, room.topk(3, 1).values.sum(1), rtol=1e-12, atol=0)


def test_more_queries_never_raise_the_loss_and_the_first_start_is_kept(tiny_model):
    x = images(6, 3, 8, 8)
    y = tiny_model(x).argmax(1)
    attack = SparseRS(ThreatModel(L0(), 1), 1, rescale_schedule=False)
    found = [replace(attack, queries=queries).solve(tiny_model, x, y, keys=KEYS) for queries in (0, 5, 20, 80)]
    for fewer, more in zip(found, found[1:], strict=False):
        assert (more.value <= fewer.value).all() and (more.achieved | ~fewer.achieved).all()
    with torch.no_grad():
        torch.testing.assert_close(found[-1].value, -margin(tiny_model(found[-1].x), y), rtol=1e-5, atol=1e-6)


def test_what_sparse_rs_costs_and_that_nobody_asks_for_a_gradient():
    model = Counting(27)
    x = images(6, 27)
    with torch.no_grad():
        y = model(x).argmax(1)
    found = SparseRS(ThreatModel(L0(), 0), 30).solve(model, x, y)
    assert found.passes.tolist() == [31] * 6 and not found.achieved.any()
    assert model.counts["input"] == 0 and model.counts["weights"] == 0


def test_a_target_is_reached_by_sparse_rs(tiny_model):
    x = images(6, 3, 8, 8)
    target = (tiny_model(x).argmax(1) + 1) % 10
    found = SparseRS(ThreatModel(L0(), 16), 300).solve(tiny_model, x, Targeted(target), keys=KEYS)
    with torch.no_grad():
        assert torch.equal(tiny_model(found.x).argmax(1) == target, found.achieved) and found.achieved.any()


# What is refused.


@pytest.mark.parametrize("eps", [0.5, [3.0, 1.5]], ids=str)
def test_eps_is_a_whole_number_of_pixels(eps):
    with pytest.raises(UserError, match=r"^L0 eps is a whole number of pixels, got [01].5$"):
        ThreatModel("l0", eps)


def test_names_say_what_is_counted():
    assert str(SparseRS(ThreatModel(L0(), 10))) == "Sparse-RS (L0 eps=10 pixels)" == str(named_attack("sparse-rs", ThreatModel("l0", 10)))
    assert str(PGD(ThreatModel(L0(pixels=False), [2, 5]))) == "PGD-10 (L0 eps=2 to 5 values)"
    assert (str(FMN(L0(), 50)), str(SigmaZero(L0(pixels=False)))) == ("FMN-50 (L0 in pixels)", "sigma-zero-1000 (L0 in values)")
    assert named_threat("l0", None) == ThreatModel(L0(), 10)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: SparseRS(ThreatModel(L1(), 3.0)), "^Sparse-RS attacks in L0, a number of pixels, not in L1 eps=3$"),
        (lambda: SparseRS(ThreatModel(L0(pixels=False), 3)), "^Sparse-RS attacks in L0, a number of pixels, not in L0 eps=3 values$"),
        (lambda: SparseRS(ThreatModel(L0(), [3, 4])), "^Sparse-RS changes the same number of pixels in all images: give one eps$"),
        (lambda: SparseRS(THREAT, alpha_init=0), "^alpha_init is a share of the k pixels, above 0 and at most 1, got 0$"),
        (lambda: SparseRS(THREAT, -1), "^Sparse-RS needs queries >= 0 and restarts >= 1, got -1 and 1$"),
        (lambda: APGD(THREAT), "^Auto-PGD attacks in Linf, L2 and L1, not in L0$"),
        (lambda: Square(THREAT), "^Square attacks in Linf, L2 and L1, not in L0$"),
        (lambda: named_attack("fab", THREAT), r"^FAB.* is known in Linf\(\), L2\(\), L1\(\), got L0\(pixels=True\)$"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_made(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_ball_in_a_box_of_ones_own_stays_in_it():
    x = 0.5 * torch.ones(3, 2, 3, 3, dtype=torch.float64)
    box = Box(torch.tensor(0.4).double(), torch.full((3, 2, 3, 3), 0.7, dtype=torch.float64))
    found = Ball(x, L0(), torch.tensor([0.0, 1, 5]).double(), box).project(x + drawn(3, 2, 3, 3))
    assert changed(x, found).tolist() == [0, 1, 5] and (found >= 0.4).all() and (found <= 0.7).all()
