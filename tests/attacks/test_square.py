"""Laws of Square Attack: its moves are the published ones, its set is exact, its draws are the example's own, a model is only borrowed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import ALL_NORMS, assert_within, every_norm, images, restless, seeded, threat_of, untouched
from oracles import Counting, halfway
from torch import Tensor, nn

from robustlab.attacks import Square
from robustlab.attacks.windows import Frame, moves_for
from robustlab.constraints import Box, ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Targeted, margin
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys, uniform

THREATS = [ThreatModel(Linf(), 0.03), ThreatModel(L2(), 0.5), ThreatModel(L1(), 3.0)]
every_threat = pytest.mark.parametrize("threat", THREATS, ids=repr)
KEYS = example_keys(0, torch.arange(12))
LABELS = torch.arange(12) % 3


def own_labels(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


# The published moves.


@pytest.mark.parametrize("rescale, place", [(False, 1), (True, 0.5)])
def test_the_share_of_pixels_falls_as_published(rescale, place):
    attack = Square(THREATS[0], rescale_schedule=rescale)
    ends = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256, 8000: 256, 8001: 512}
    for query, halved in ends.items():
        assert attack.share(math.ceil(query * place)) == 0.8 / halved


def old_bump(s: int, decay: int, power: int) -> Tensor:
    """The bump of a square window, rectangle by rectangle as in the paper's section 3.3."""
    parts = []
    for rows in (s // 2, s - s // 2):
        part = torch.zeros(rows, s, dtype=torch.float64)
        for k in range(max(rows // 2, s // 2) + 1):
            part[max(rows // 2 - k, 0) : rows // 2 + k + 1, max(s // 2 - k, 0) : s // 2 + k + 1] += (k + 1.0) ** -decay
        parts.append(part / part.pow(power).sum() ** (1 / power))
    whole = torch.cat([parts[0], -parts[1]])
    return whole / whole.abs().pow(power).sum() ** (1 / power)


@pytest.mark.parametrize("norm, power", [(L2(), 2), (L1(), 1)], ids=["L2", "L1"])
@pytest.mark.parametrize("share", [0.4, 0.05])
def test_a_move_of_a_bump_is_the_published_one(norm, power, share):
    """On whole images, one example at a time: norms of the windows by channel, the bump, and the way back into the set."""
    x = 0.3 + 0.4 * images(4, 3, 12, 12, dtype=torch.float64)
    eps = 0.5 if power == 2 else 3.0
    moves, s = moves_for(ThreatModel(norm, eps), x), {0.4: 9, 0.05: 3}[share]
    start, spent = moves.start(KEYS[:4])
    draws = uniform(KEYS[:4], (moves.draws,), torch.float64)
    proposal, found = moves.propose(start, spent, share, draws), start.clone()
    for places, values in proposal.patches:
        found.scatter_(1, places, values)
    for i, u in enumerate(draws.tolist()):
        (r, c, r2, c2), delta = (int(v * (13 - s)) for v in u[:4]), (start[i] - x[i].flatten()).reshape(3, 12, 12)
        union = torch.zeros(12, 12, dtype=torch.bool)
        union[r : r + s, c : c + s] = union[r2 : r2 + s, c2 : c2 + s] = True
        old, held = delta[:, r : r + s, c : c + s], (delta * union).abs().pow(power).sum((1, 2), keepdim=True)
        left = max(eps**power - float(delta.abs().pow(power).sum()), 0)
        bump = old_bump(s, {2: 2, 1: 4}[power], power)
        new = (bump if u[4] >= 0.5 else bump.T) * torch.tensor([1.0 if v < 0.5 else -1.0 for v in u[5:]]).reshape(3, 1, 1)
        new = new + old / (old.abs().pow(power).sum((1, 2), keepdim=True) ** (1 / power) + 1e-12)
        size = new.abs().pow(power).sum((1, 2), keepdim=True) ** (1 / power)
        new = new / size * (left / 3 + held) ** (1 / power) * (3 if power == 1 else 1)
        delta[:, r2 : r2 + s, c2 : c2 + s] = 0
        delta[:, r : r + s, c : c + s] = new
        wanted = ThreatModel(norm, eps).around(x[i : i + 1]).project(x[i : i + 1] + delta)
        torch.testing.assert_close(found[i], wanted.flatten(), rtol=0, atol=1e-6)
    length = norm.measure(found.reshape(x.shape) - x) ** power
    torch.testing.assert_close(proposal.spent, length, rtol=1e-9, atol=0)


def test_a_colour_is_one_end_of_the_range_in_each_channel():
    x = images(4, 2, 6, 6)
    moves, bounds = moves_for(ThreatModel(Linf(), 0.1), x), ThreatModel(Linf(), 0.1).around(x)
    assert isinstance(bounds, Box)
    start, spent = moves.start(KEYS[:4])
    up = start.reshape(x.shape) == bounds.hi
    assert (up | (start.reshape(x.shape) == bounds.lo)).all() and (up == up[:, :, :1]).all() and up.any() and not up.all()
    ((places, values),) = moves.propose(start, spent, 9 / 36, uniform(KEYS[:4], (4,), torch.float64)).patches
    up = values.reshape(4, 2, 9) == bounds.hi.flatten(1).gather(1, places).reshape(4, 2, 9)
    assert (up == up[:, :, :1]).all() and places.shape == (4, 18)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9), (2, 3, 20), (7, 4), (30,)], ids=str)
@pytest.mark.parametrize("share", [0.8, 0.1, 0.001])
def test_windows_reach_every_pixel_and_take_up_their_share(shape, share):
    x = torch.zeros(400, *shape)
    frame = Frame.of(x)
    for odd in (False, True):
        size = frame.window(share, odd=odd)
        places = frame.places(size, frame.corners(size, uniform(example_keys(0, torch.arange(400)), (2,), torch.float64)))
        assert set(places.flatten().tolist()) == set(range(x[0].numel())) and (places.sort(1).values.diff(dim=1) > 0).all()
        assert size[0] * size[1] >= (math.sqrt(share * frame.height * frame.width) - 0.5) ** 2  # a side is rounded


# The set, exactly.


@every_norm
@settings(seeded, max_examples=8)
@given(
    eps=st.one_of(st.sampled_from([0.0, 1e-12, 8 / 255, 1.0, 100.0, 1e300]), st.floats(0, 2)),
    shape=st.sampled_from([(1, 7, 7), (3, 5, 8), (12,), (1, 1, 1), (2, 1, 9)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    extreme=st.booleans(),
)
def test_what_it_returns_and_all_it_tries_is_within_the_threat_model(norm, eps, shape, dtype, extreme):
    x = images(3, *shape)
    x = (x.round() if extreme else x).to(dtype)
    model, tried = Counting(x[0].numel()).to(dtype), []
    threat = threat_of(norm, eps)
    model.register_forward_pre_hook(lambda module, args: tried.append(args[0].detach()) if len(args[0]) == 3 else None)
    x_adv = Square(threat, queries=12, restarts=2)(model, x, LABELS[:3])
    for point in [x_adv, *tried]:
        assert_within(threat, x, point)
    assert eps > 0 or torch.equal(x_adv, x)


@every_threat
def test_after_hundreds_of_queries_what_is_spent_is_what_is_spent(threat):
    """The loss is another one at every query, so that half of the changes are kept."""
    x, seen = images(2, 1, 9, 9), []

    def model(z: Tensor) -> Tensor:
        seen.append(z)
        return torch.tensor([0.0, -float(len(seen))]).repeat(len(z), 1)

    found = Square(threat, queries=600).solve(lambda z: -model(z), x, torch.tensor([1, 1]), keys=KEYS[:2])
    assert found.passes.tolist() == [601, 601] and not found.achieved.any()
    assert_within(threat, x, found.x)
    assert_within(threat, x, seen[-1])
    assert torch.equal(threat.around(x).project(found.x), found.x)


# What is known in closed form.


@pytest.mark.parametrize("norm", ALL_NORMS, ids=repr)
def test_a_linear_boundary_is_crossed_where_eps_is_large_and_never_below_the_distance(norm):
    x = 0.45 + images(8, 1, 5, 5, dtype=torch.float64) / 10
    model, y = halfway(x)
    with torch.no_grad():
        distances = model.distance(x, norm)
    for factor in (1 - 1e-6, 3.0):
        found = Square(ThreatModel(norm, factor * distances), queries=200).solve(model, x, y, keys=KEYS[:8])
        assert (found.achieved == (factor > 1)).all() and (own_labels(model, found.x) != y).equal(found.achieved)


# An example by itself.


@every_threat
def test_an_example_gets_the_same_attack_alone_in_a_batch_and_in_any_order(threat, tiny_model):
    """Some are fooled on the way and leave, at other times alone than in the batch: later draws stay the same."""
    model, x = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64)
    y, attack = own_labels(model, x), Square(threat, queries=45, restarts=2)
    whole = attack.solve(model, x, y, keys=KEYS)
    assert 0 < whole.achieved.sum() < 12
    for rows in ([5], [11, 0, 3], list(range(11, -1, -1))):
        part = attack.solve(model, x[rows], y[rows], keys=KEYS[rows])
        torch.testing.assert_close(part.x, whole.x[rows], rtol=0, atol=1e-11)
        assert torch.equal(part.passes, whole.passes[rows]) and torch.equal(part.achieved, whole.achieved[rows])
    torch.testing.assert_close(attack(model, x, y, keys=KEYS), whole.x, rtol=0, atol=0)


def test_a_radius_for_each_image_is_the_attack_with_that_radius_on_each(tiny_model):
    model, x, eps = tiny_model.double(), images(3, 3, 8, 8, dtype=torch.float64), [0.0, 0.02, 0.8]
    for norm in ALL_NORMS:
        x_adv = Square(ThreatModel(norm, eps), queries=15)(model, x, LABELS[:3], keys=KEYS[:3])
        for i, radius in enumerate(eps):
            alone = Square(ThreatModel(norm, radius), queries=15)(model, x[i : i + 1], LABELS[i : i + 1], keys=KEYS[i : i + 1])
            torch.testing.assert_close(x_adv[i : i + 1], alone, rtol=0, atol=1e-6)


@every_threat
def test_more_queries_never_raise_the_loss_and_go_on_where_fewer_stopped(threat, tiny_model):
    x = images(12, 3, 8, 8)
    y, found = own_labels(tiny_model, x), None
    for queries in (0, 7, 20, 21, 60):
        further = Square(threat, queries=queries).solve(tiny_model, x, y, keys=KEYS)
        with torch.no_grad():
            torch.testing.assert_close(further.value, -margin(tiny_model(further.x), y), rtol=1e-4, atol=1e-5)
        if found is not None:
            assert (further.value <= found.value + 1e-5).all() and (further.achieved | ~found.achieved).all()
            assert torch.equal(further.x[found.achieved], found.x[found.achieved])  # what is fooled stays as it is
        first, found = found or further, further
    assert found.value.sum() < first.value.sum()


# What it costs, and who leaves.


def test_what_it_costs_and_that_nobody_asks_for_a_gradient():
    model, x = Counting(27, 5), images(6, 3, 3, 3)
    y = own_labels(model, x)
    found = Square(ThreatModel(Linf(), 1e-6), queries=25, restarts=2).solve(model, x, y)
    assert model.counts == {"forward": 1 + 2 * 26, "input": 0, "weights": 0}
    assert found.passes.tolist() == [52] * 6 and not found.achieved.any()


def test_who_is_fooled_leaves_and_with_a_goal_that_belongs_to_a_batch_nobody_does(tiny_model):
    x, seen = images(12, 3, 8, 8), []
    y, attack = own_labels(tiny_model, x), Square(THREATS[0], queries=60)
    hook = tiny_model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = attack.solve(tiny_model, x, y, keys=KEYS)
    assert seen == sorted(seen, reverse=True) and 0 < seen[-1] < 12 == seen[0] and sum(seen) == found.passes.sum()
    hook.remove()

    class Whole:
        def loss(self, logits: Tensor) -> Tensor:
            return -margin(logits, y)

        def achieved(self, logits: Tensor) -> Tensor:
            return logits.argmax(1) != y

    together = attack.solve(tiny_model, x, Whole(), keys=KEYS)
    torch.testing.assert_close(together.x, found.x, rtol=0, atol=1e-5)
    assert torch.equal(together.achieved, found.achieved)


def test_a_stand_in_that_is_wrongly_fooled_costs_nothing_but_passes(tiny_model):
    x = images(12, 3, 8, 8)
    y, attack = own_labels(tiny_model, x), Square(THREATS[0], queries=30)
    alone = attack.solve(tiny_model, x, y, keys=KEYS)
    lent = attack.solve(tiny_model, x, y, keys=KEYS, fast_model=lambda z: -tiny_model(z))
    assert torch.equal(lent.x, alone.x) and torch.equal(lent.achieved, alone.achieved)
    assert torch.equal(lent.passes, alone.passes + 2)  # the stand-in's start fools it, and the model judges that


# Goals, classes, names, and what it leaves behind: nothing.


@every_norm
@pytest.mark.parametrize("classes", [2, 5])
def test_with_two_classes_and_with_more_labels_are_left_and_targets_reached(norm, classes):
    model, x = Counting(36, classes), images(12, 1, 6, 6)
    y, attack = own_labels(model, x), Square(ThreatModel(norm, {Linf(): 1.0, L2(): 4.0, L1(): 20.0}[norm]), queries=300)
    assert attack.solve(model, x, y).achieved.all()
    assert (own_labels(model, attack(model, x, Targeted((y + 1) % classes))) == (y + 1) % classes).sum() >= 9


@pytest.mark.parametrize("options, name", [({}, "Square (L2 eps=0.5)"), ({"queries": 50, "restarts": 2}, "Square-50x2 (L2 eps=0.5)")])
def test_its_name_says_what_it_does(options, name):
    assert str(Square(THREATS[1], **options)) == name


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"restarts": 0}, "^Square needs queries >= 0 and restarts >= 1, got 5000 and 0$"),
        ({"p_init": 0.0}, "^p_init is a share of the pixels, above 0 and at most 1, got 0.0$"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        Square(THREATS[0], **options)


@every_threat
def test_model_arguments_and_random_state_are_bit_identical_afterwards(threat, tiny_model):
    model = restless(tiny_model)
    x, y, keys = images(4, 3, 8, 8), LABELS[:4].clone(), KEYS[:4].clone()
    with untouched(model, x, y, keys):
        x_adv = replace(Square(threat), queries=15)(model, x, y, keys=keys)
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()
    channels_last = Square(threat, queries=15)(model, x.to(memory_format=torch.channels_last), y, keys=keys)
    assert torch.equal(channels_last, x_adv)


@every_norm
def test_no_image_at_all(norm):
    for shape in ((1, 5, 9), (12,)):
        found = Square(ThreatModel(norm, 0.5), queries=3, restarts=2).solve(Counting(12), torch.zeros(0, *shape), LABELS[:0])
        assert found.x.shape == (0, *shape) and found.achieved.shape == found.passes.shape == (0,)


def test_an_example_whose_logits_are_no_numbers_ends_there_alone(tiny_model):
    """From the 17th call on the second example has NaN; the others are what they are without it."""
    x, calls = images(3, 3, 8, 8), []
    y, attack = own_labels(tiny_model, x), Square(ThreatModel(Linf(), 1e-4), queries=40)

    def spoilt(z: Tensor) -> Tensor:
        calls.append(len(z))
        return tiny_model(z) * (torch.tensor([1.0, torch.nan, 1.0])[:, None] if len(z) == 3 and len(calls) > 16 else 1)

    found, plain = (attack.solve(model, x, y, keys=KEYS[:3]) for model in (spoilt, tiny_model))
    assert found.finite.tolist() == [True, False, True] and calls == [3] * 21 + [2] * 20
    torch.testing.assert_close(found.x[[0, 2]], plain.x[[0, 2]], rtol=0, atol=1e-5)
    assert torch.equal(found.x[1], Square(attack.threat, queries=15).solve(tiny_model, x, y, keys=KEYS[:3]).x[1])
    calls.clear()
    with pytest.raises(UserError, match=r"NaN or infinite for 1 of 3 examples \(positions 1\)"):
        attack(spoilt, x, y, keys=KEYS[:3])
