"""Laws of PGD: exact where the answer is known, inside its set always, the same for an example wherever it stands, and invisible."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import assert_within, every_norm, images, restless, seeded, threat_of, untouched
from oracles import Counting, halfway
from torch import Tensor, nn

from robustlab.attacks import FGSM, MIFGSM, NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Away, Goal, Targeted, Untargeted, cross_entropy, divergence, dlr, margin
from robustlab.models.accelerate import accelerate
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys, fold

THREATS = [ThreatModel(Linf(), 8 / 255), ThreatModel(L2(), 0.5), ThreatModel(L1(), 6.0)]
every_threat = pytest.mark.parametrize("threat", THREATS, ids=repr)
KEYS = example_keys(0, torch.arange(12))
LABELS = torch.arange(12) % 3


def middling(n: int = 12, width: int = 27) -> Tensor:
    """Images so far from black and white that no box is in the way of what follows."""
    return 0.45 + images(n, width, dtype=torch.float64) / 10


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Judged independently: a fresh forward pass in evaluation mode."""
    with torch.no_grad():
        return model.eval()(x_adv).argmax(1) != y


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y, reduction="none")


class Whole:
    """A goal that belongs to a whole batch, so that no example leaves it."""

    def __init__(self, goal: Goal) -> None:
        self.loss, self.achieved = goal.loss, goal.achieved


# What is known in closed form.


@every_norm
@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize("steps", [1, 7])
def test_from_the_image_it_reaches_the_worst_case_of_a_linear_model(norm, steps, keep_best):
    x = middling()
    model, y = halfway(x)
    attack = PGD(ThreatModel(norm, 0.2), steps=steps, step_size=0.2, random_start=False, keep_best=keep_best)
    torch.testing.assert_close(loss(model, attack(model, x, y), y), model.worst_loss(x, y, norm, 0.2), rtol=1e-11, atol=0)


@every_norm
def test_one_step_of_length_eps_is_all_that_a_linear_model_needs(norm):
    x = middling()
    model, y = halfway(x)
    found = loss(model, FGSM(ThreatModel(norm, 0.1))(model, x, y), y)
    torch.testing.assert_close(found, model.worst_loss(x, y, norm, 0.1), rtol=1e-11, atol=0)


@every_norm
def test_random_starts_come_close_to_the_worst_case_and_never_beyond(norm):
    x = middling()
    model, y = halfway(x)
    worst = model.worst_loss(x, y, norm, 0.2)
    found = loss(model, PGD(ThreatModel(norm, 0.2), steps=40, step_size=0.1, restarts=2)(model, x, y), y)
    assert (found <= worst * (1 + 1e-12)).all() and (found >= worst * 0.99).all()


@every_norm
@pytest.mark.parametrize("surrogate", [cross_entropy, margin, dlr])
def test_it_succeeds_exactly_where_the_decision_boundary_is_within_eps(norm, surrogate):
    x = middling()
    model, y = halfway(x)
    with torch.no_grad():
        distances = model.distance(x, norm).tolist()
    for i, distance in enumerate(distances):
        for factor in (1 - 1e-6, 1 + 1e-6):
            attack = PGD(ThreatModel(norm, factor * distance), steps=3, random_start=False, surrogate=surrogate)
            x_adv = attack(model, x[i : i + 1], y[i : i + 1])
            assert bool(fooled(model, x_adv, y[i : i + 1])) == (factor > 1)


@pytest.mark.parametrize("threat", [ThreatModel(L2(), 2.0), ThreatModel(L1(), 6.0), ThreatModel(L1(), 12.0)], ids=repr)
def test_pixels_at_the_end_of_their_range_do_not_hold_the_others_up(threat):
    """Many black and white pixels, a linear model, and the best of all points of ball and box. Stepping along the one value of
    the largest gradient, as L1's steepest descent does, spends 1 of 12 and then stands still."""
    x = (1.4 * images(4, 3072, dtype=torch.float64) - 0.2).clamp(0, 1)
    model, y = halfway(x)
    x_adv = PGD(threat, steps=40)(model, x, y)
    gain = (model.advantage(x, y) - model.advantage(x_adv, y)).detach()
    assert (gain >= 0.85 * model.largest_gain(x, y, threat.norm, threat.eps)).all()


# The set, exactly.


@every_norm
@seeded
@given(
    eps=st.one_of(st.sampled_from([0.0, 1e-12, 8 / 255, 1.0, 100.0]), st.floats(0, 2)),
    steps=st.integers(0, 4),
    step_size=st.sampled_from([None, 0.0, 1e-9, 0.1, 50.0]),
    restarts=st.integers(1, 2),
    momentum=st.sampled_from([0.0, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    extreme=st.booleans(),
)
def test_what_it_returns_and_all_it_tries_is_within_the_threat_model(norm, eps, steps, step_size, restarts, momentum, dtype, extreme):
    """Also the starts: a first iterate outside the set that is returned as the best would be no solution."""
    x = images(3, 2, 2, 3)
    x = (x.round() if extreme else x).to(dtype)
    model, tried = Counting(12).to(dtype), []
    model.register_forward_pre_hook(lambda module, args: tried.append(args[0].detach()))
    threat = threat_of(norm, eps)
    x_adv = PGD(threat, steps, step_size, restarts, momentum=momentum)(model, x, Whole(Untargeted(LABELS[:3])))
    assert_within(threat, x, PGD(threat, steps, step_size, restarts, momentum=momentum)(Counting(12).to(dtype), x, LABELS[:3]))
    for point in [x_adv, *tried]:
        assert_within(threat, x, point)


@every_norm
def test_eps_zero_returns_the_image(norm, tiny_model):
    x = images(4, 3, 8, 8)
    for attack in (PGD(ThreatModel(norm, 0.0), restarts=2), FGSM(ThreatModel(norm, 0.0)), PGD(ThreatModel(norm, 0.0), step_size=1.0)):
        assert torch.equal(attack(tiny_model, x, LABELS[:4]), x)


def test_no_steps_from_the_image_return_the_image(tiny_model):
    x = images(4, 3, 8, 8)
    assert torch.equal(PGD(THREATS[0], steps=0, random_start=False)(tiny_model, x, LABELS[:4]), x)


@every_threat
def test_black_and_white_pixels_move(threat, tiny_model):
    """A change of variables that maps them to infinity would leave binary images as they are."""
    x = images(6, 3, 8, 8).round()
    x_adv = PGD(threat, random_start=False)(tiny_model, x, LABELS[:6])
    assert ((x_adv != x).flatten(1).sum(1) > 1).all()
    assert (loss(tiny_model, x_adv, LABELS[:6]) > loss(tiny_model, x, LABELS[:6])).all()


# An example by itself.


@pytest.fixture
def exact(tiny_model) -> nn.Module:
    return tiny_model.double()


EVERY_SETTING = {
    "last": {"keep_best": False},
    "best": {},
    "restarts": {"restarts": 3},
    "momentum": {"momentum": 1.0},
    "from the image": {"keep_best": False, "random_start": False},
}
every_setting = pytest.mark.parametrize("setting", EVERY_SETTING.values(), ids=EVERY_SETTING.keys())


@every_threat
@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "content"])
def test_an_example_gets_the_same_attack_alone_in_a_batch_and_in_any_order(threat, keyed, exact):
    x, y = images(12, 3, 8, 8, dtype=torch.float64), LABELS
    attack = PGD(threat, steps=4, restarts=2)

    def run(rows: Tensor) -> Tensor:
        return attack(exact, x[rows], y[rows], keys=KEYS[rows] if keyed else None)

    whole = run(torch.arange(12))
    assert not torch.equal(whole, x)
    for rows in ([5], [11, 0, 3], list(range(11, -1, -1)), [2, 2, 2]):
        torch.testing.assert_close(run(torch.tensor(rows)), whole[rows], rtol=0, atol=1e-12)


@every_setting
def test_the_batch_size_changes_nothing_in_any_setting(setting, exact):
    """Sums over the batch, never means: a mean makes each example's step depend on how many there are."""
    x = images(12, 3, 8, 8, dtype=torch.float64)
    attack = PGD(THREATS[1], steps=4, **setting)
    halves = [attack(exact, x[half], LABELS[half], keys=KEYS[half]) for half in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(torch.cat(halves), attack(exact, x, LABELS, keys=KEYS), rtol=0, atol=1e-12)


def test_the_keys_alone_choose_the_start(tiny_model):
    x, attack = images(4, 3, 8, 8), PGD(THREATS[0], steps=2)
    first = attack(tiny_model, x, LABELS[:4], keys=KEYS[:4])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        assert torch.equal(attack(tiny_model, x, LABELS[:4], keys=KEYS[:4]), first)
    assert not torch.equal(attack(tiny_model, x, LABELS[:4], keys=KEYS[4:8]), first)


# Restarts.


def reaching_some(model: nn.Module, x: Tensor, y: Tensor) -> PGD:
    """An attack with an eps at which a single start fools some examples and not all."""
    for eps in torch.linspace(0.002, 0.06, 30).tolist():
        attack = PGD(ThreatModel(Linf(), eps), steps=1, step_size=eps / 4)
        if len(x) // 6 < int(fooled(model, attack(model, x, y, keys=example_keys(0, torch.arange(len(x)))), y).sum()) < len(x):
            return attack
    raise AssertionError("no such eps")


def test_more_restarts_fool_no_fewer_examples_and_never_lose_one(tiny_model):
    x = images(96, 3, 8, 8)  # many, so that restarts find something whatever weights this torch has drawn
    y = tiny_model(x).argmax(1)
    attack, keys = reaching_some(tiny_model, x, y), example_keys(0, torch.arange(len(x)))
    found = [fooled(tiny_model, replace(attack, restarts=r)(tiny_model, x, y, keys=keys), y) for r in (1, 2, 4, 8, 16)]
    for fewer, more in zip(found, found[1:], strict=False):
        assert (more | ~fewer).all(), "an example that was fooled is lost with more restarts"
    assert found[-1].sum() > found[0].sum()


@every_threat
def test_the_best_restart_is_kept_not_the_last(threat, tiny_model):
    """Without steps a restart is its start, so the answer can be worked out: of all starts, a fooling one of the highest loss."""
    x = images(12, 3, 8, 8)
    y = tiny_model(x).argmax(1)
    starts = [x + threat.norm.sample(fold(KEYS, "start", r), x.shape[1:], threat.eps) for r in range(5)]
    starts = [threat.around(x).project(start) for start in starts]
    rank = torch.stack([loss(tiny_model, s, y) + 1e6 * fooled(tiny_model, s, y) for s in starts])
    expected = torch.stack([starts[r][i] for i, r in enumerate(rank.argmax(0).tolist())])
    assert len(rank.argmax(0).unique()) > 2
    assert torch.equal(PGD(threat, steps=0, restarts=5)(tiny_model, x, y, keys=KEYS), expected)


@pytest.fixture
def hard(tiny_model) -> tuple[PGD, Tensor, Tensor, Tensor]:
    """An attack whose first start fools some, images, labels and keys."""
    x = images(48, 3, 8, 8)
    y = tiny_model(x).argmax(1)
    return replace(reaching_some(tiny_model, x, y), restarts=4), x, y, example_keys(0, torch.arange(48))


def sizes_seen(model: nn.Module) -> list[int]:
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


@pytest.mark.parametrize("fast_model", [False, True])
def test_restarts_run_only_what_is_unsolved(fast_model, hard, tiny_model):
    attack, x, y, keys = hard
    standing = [48]
    for restarts in (1, 2, 3):
        x_adv = replace(attack, restarts=restarts)(tiny_model, x, y, keys=keys)
        standing.append(48 - int(fooled(tiny_model, x_adv, y).sum()))
    assert standing == sorted(standing, reverse=True) and standing[1] < 48 and standing[3] > 0
    stand_in = copy.deepcopy(tiny_model) if fast_model else None
    seen = sizes_seen(stand_in or tiny_model)
    attack(tiny_model, x, y, keys=keys, fast_model=stand_in)
    assert seen == [n for n in standing for _ in range(attack.steps + 1)]


@pytest.mark.parametrize("fast_model", [False, True])
def test_running_only_what_is_unsolved_finds_what_running_all_finds(fast_model, hard, exact):
    """Up to rounding; between two runs not a bit differs."""
    attack, x, y, keys = hard
    x, stand_in = x.double(), copy.deepcopy(exact) if fast_model else None
    some = attack(exact, x, Untargeted(y), keys=keys, fast_model=stand_in)
    every = attack(exact, x, Whole(Untargeted(y)), keys=keys, fast_model=stand_in)
    torch.testing.assert_close(some, every, rtol=0, atol=1e-12)
    assert torch.equal(attack(exact, x, y, keys=keys, fast_model=stand_in), some)


def test_an_example_keeps_the_first_start_that_fools_else_the_best(hard, tiny_model):
    """Without steps a restart is its start, so the answer can be worked out."""
    attack, x, y, keys = hard
    threat = ThreatModel(Linf(), 2 * attack.threat.eps)
    attack = PGD(threat, steps=0, restarts=4)
    starts = [threat.around(x).project(x + Linf().sample(fold(keys, "start", r), x.shape[1:], threat.eps)) for r in range(4)]
    won = torch.stack([fooled(tiny_model, s, y) for s in starts])
    first = torch.where(won.any(0), won.int().argmax(0), torch.stack([loss(tiny_model, s, y) for s in starts]).argmax(0))
    assert torch.equal(attack(tiny_model, x, y, keys=keys), torch.stack([starts[r][i] for i, r in enumerate(first.tolist())]))


def test_in_training_mode_every_restart_sees_the_whole_batch(hard, tiny_model):
    """Batch statistics of some of the images would make it another model."""
    attack, x, y, keys = hard
    seen = sizes_seen(tiny_model)
    replace(attack, training_mode=True)(tiny_model, x, y, keys=keys)
    assert set(seen) == {48}


def test_when_all_are_fooled_no_restart_is_run():
    model, x = Counting(27), middling().float()
    PGD(WIDE, steps=5, restarts=9)(model, x, model(x).argmax(1))
    assert model.counts["forward"] == 1 + 6


# What it costs.


@pytest.mark.parametrize(
    "setting, forward, backward",
    [
        ({"steps": 10}, 11, 10),
        ({"steps": 10, "keep_best": False}, 10, 10),
        ({"steps": 10, "restarts": 3}, 33, 30),
        ({"steps": 10, "surrogate": margin}, 11, 10),
        ({"steps": 5, "momentum": 1.0, "keep_best": False}, 5, 5),
        ({"steps": 0}, 1, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_k_steps_cost_k_passes_forward_and_backward_and_no_gradient_of_a_weight(setting, forward, backward):
    model = Counting(27)
    PGD(THREATS[0], **setting)(model, middling().float(), LABELS)
    assert model.counts == {"forward": forward, "input": backward, "weights": 0}
    assert all(p.grad is None for p in model.parameters())


def test_fgsm_costs_one_pass():
    model = Counting(27)
    FGSM(THREATS[0])(model, middling().float(), LABELS)
    assert model.counts == {"forward": 1, "input": 1, "weights": 0}


def test_a_loss_of_ones_own_costs_no_forward_more_and_works_with_restarts():
    def second_logit(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, 1]

    model, x = Counting(27), middling().float()
    x_adv = PGD(THREATS[0], steps=4, restarts=2, surrogate=second_logit)(model, x, LABELS)
    assert model.counts == {"forward": 10, "input": 8, "weights": 0}
    with torch.no_grad():
        assert (model(x_adv)[:, 1] > model(x)[:, 1]).all()


def test_with_a_stand_in_the_model_is_asked_once_per_restart():
    model, stand_in = Counting(27), Counting(27)
    PGD(THREATS[0], steps=4, restarts=3)(model, middling().float(), LABELS, fast_model=stand_in)
    assert model.counts == {"forward": 3, "input": 0, "weights": 0}
    assert stand_in.counts == {"forward": 15, "input": 12, "weights": 0}


# What it leaves behind: nothing.


class Bystander(nn.Module):
    """Draws from the global random state at each forward pass, as functional dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.1, training=True)


ATTACKS = {
    "PGD": PGD(THREATS[1], steps=2),
    "last iterate": PGD(THREATS[1], steps=2, keep_best=False),
    "restarts": PGD(THREATS[1], steps=2, restarts=2),
    "training mode": PGD(THREATS[1], steps=2, training_mode=True),
    "FGSM": FGSM(THREATS[0]),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_model_arguments_and_random_state_are_bit_identical_afterwards(attack, tiny_model):
    model = restless(nn.Sequential(Bystander(), *tiny_model))
    x, y, keys = images(4, 3, 8, 8), LABELS[:4].clone(), KEYS[:4].clone()
    with untouched(model, x, y, keys):
        x_adv = attack(model, x, y, keys=keys)
    assert not x_adv.requires_grad and x_adv.grad_fn is None and x_adv.data_ptr() != x.data_ptr()


def test_the_stand_in_is_left_alone_too(tiny_model):
    stand_in = restless(accelerate(tiny_model))
    with untouched(stand_in), untouched(tiny_model):
        PGD(THREATS[1], steps=2, restarts=2)(tiny_model, images(4, 3, 8, 8), LABELS[:4], fast_model=stand_in)


def test_a_model_left_in_training_mode_is_attacked_in_evaluation_mode(tiny_model):
    x, attack = images(4, 3, 8, 8), PGD(THREATS[0], steps=3)
    expected = attack(tiny_model.eval(), x, LABELS[:4])
    assert torch.equal(attack(tiny_model.train(), x, LABELS[:4]), expected)
    assert not torch.equal(replace(attack, training_mode=True)(tiny_model, x, LABELS[:4]), expected)


def test_a_stand_in_left_in_training_mode_searches_in_evaluation_mode_too(tiny_model):
    x, attack = images(4, 3, 8, 8), PGD(THREATS[0], steps=3, restarts=2)
    expected = attack(tiny_model, x, LABELS[:4])
    assert torch.equal(attack(tiny_model, x, LABELS[:4], fast_model=copy.deepcopy(tiny_model).train()), expected)


def test_gradients_that_the_caller_tracks_are_not_touched(tiny_model):
    x = images(2, 3, 8, 8).requires_grad_()
    before = tiny_model(x).sum()
    x_adv = PGD(THREATS[0], steps=2)(tiny_model, x, LABELS[:2])
    assert x.requires_grad and x.grad is None and not x_adv.requires_grad
    before.backward()  # a graph that was there before can still be used
    assert x.grad is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_attack(mode, tiny_model):
    attack = PGD(THREATS[1], steps=3, restarts=2)
    expected = attack(tiny_model, images(4, 3, 8, 8), LABELS[:4])
    with mode(), untouched(tiny_model):
        assert torch.equal(attack(tiny_model, images(4, 3, 8, 8), LABELS[:4].clone()), expected)


# Goals.


WIDE = ThreatModel(L2(), 4.0)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("surrogate", [cross_entropy, margin, dlr])
def test_in_a_wide_ball_every_label_can_be_left_with_two_classes_and_with_more(classes, surrogate):
    x, model = middling().float(), Counting(27, classes)
    y = model(x).argmax(1)
    assert fooled(model, PGD(WIDE, 20, surrogate=surrogate)(model, x, y), y).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("surrogate", [cross_entropy, margin])
def test_in_a_wide_ball_every_target_can_be_reached(classes, surrogate):
    x, model = middling().float(), Counting(27, classes)
    y = model(x).argmax(1)
    for shift in range(1, classes):
        target = (y + shift) % classes
        assert not fooled(model, PGD(WIDE, 20)(model, x, Targeted(target, surrogate)), target).any()


def test_a_targeted_attack_goes_towards_its_target_also_where_it_does_not_arrive(tiny_model):
    x = images(12, 3, 8, 8)
    for t in range(10):
        target = torch.full((12,), t)
        x_adv = PGD(THREATS[0], steps=5)(tiny_model, x, Targeted(target))
        assert (loss(tiny_model, x_adv, target) < loss(tiny_model, x, target)).all()


def test_away_from_a_prediction_goes_far_though_the_gradient_at_the_prediction_itself_is_zero(tiny_model):
    x = images(12, 3, 8, 8)
    with torch.no_grad():
        reference = tiny_model(x)
        x_adv = PGD(THREATS[0], steps=5)(tiny_model, x, Away(reference))
        at_random = x + THREATS[0].norm.sample(KEYS, x.shape[1:], THREATS[0].eps)
        assert (divergence(reference, tiny_model(x_adv)) > 3 * divergence(reference, tiny_model(at_random))).all()


def test_plain_labels_mean_an_untargeted_goal(tiny_model):
    x, attack = images(4, 3, 8, 8), PGD(THREATS[0], steps=2, surrogate=dlr)
    assert torch.equal(attack(tiny_model, x, LABELS[:4]), attack(tiny_model, x, Untargeted(LABELS[:4], dlr)))


class Shifted(nn.Module):
    def __init__(self, model: nn.Module, shift: float) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + self.shift


@pytest.mark.parametrize("surrogate", [cross_entropy, margin, dlr])
def test_all_logits_negative_is_the_same_problem(surrogate, exact):
    x = images(6, 3, 8, 8, dtype=torch.float64)
    attack = PGD(THREATS[1], steps=4, surrogate=surrogate)
    torch.testing.assert_close(attack(Shifted(exact, -100.0), x, LABELS[:6]), attack(exact, x, LABELS[:6]), rtol=0, atol=1e-9)


# Shapes and layouts.


@every_threat
@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("shape", [(3, 5, 9), (1, 8, 8), (1, 1, 1), (12,), (4, 3)], ids=repr)
def test_images_of_any_shape_work_and_any_number_of_them(threat, n, shape):
    x = images(n, *shape)
    x_adv = PGD(threat, steps=2, restarts=2)(Counting(math.prod(shape)), x, LABELS[:n])
    assert_within(threat, x, x_adv) if n else None
    assert x_adv.shape == x.shape and (n == 0 or not torch.equal(x_adv, x))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second of a larger batch": lambda x: x.repeat_interleave(2, 0)[::2],
}


@every_threat
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_layout_in_memory_changes_nothing(threat, layout, exact):
    x = images(3, 3, 8, 8, dtype=torch.float64)
    same = layout(x)
    attack = PGD(threat, steps=3, restarts=2)
    torch.testing.assert_close(attack(exact, same, LABELS[:3]), attack(exact, x, LABELS[:3]), rtol=0, atol=1e-12)


@every_threat
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=repr)
def test_models_of_other_precisions(threat, dtype, tiny_model):
    x = images(4, 3, 8, 8).to(dtype)
    x_adv = PGD(threat, steps=3)(tiny_model.to(dtype), x, LABELS[:4])
    assert_within(threat, x, x_adv)
    assert not torch.equal(x_adv, x)


def test_a_stand_in_finds_what_the_model_finds(tiny_model):
    x = images(12, 3, 8, 8)
    y, threat = tiny_model(x).argmax(1), ThreatModel(L2(), 0.4)
    own = PGD(threat, restarts=2)(tiny_model, x, y)
    lent = PGD(threat, restarts=2)(tiny_model, x, y, fast_model=accelerate(tiny_model))
    assert_within(threat, x, lent)
    torch.testing.assert_close(loss(tiny_model, lent, y), loss(tiny_model, own, y), rtol=0.02, atol=0.02)


# A radius for each image.


@every_norm
@pytest.mark.parametrize("setting", [{}, {"restarts": 3}, {"momentum": 1.0, "keep_best": False}], ids=repr)
def test_a_radius_for_each_image_is_the_attack_with_that_radius_on_each(norm, setting, exact):
    x, eps = images(6, 3, 8, 8, dtype=torch.float64), [0.0, 8 / 255, 0.1, 0.5, 0.7, 1.0]
    x_adv = PGD(ThreatModel(norm, eps), steps=3, **setting)(exact, x, LABELS[:6], keys=KEYS[:6])
    for i, radius in enumerate(eps):
        row = slice(i, i + 1)
        alone = PGD(ThreatModel(norm, radius), steps=3, **setting)(exact, x[row], LABELS[row], keys=KEYS[row])
        # Starts are float32 numbers, times the radius in the precision that it has.
        torch.testing.assert_close(x_adv[row], alone, rtol=0, atol=1e-6)
        assert_within(ThreatModel(norm, radius), x[row], x_adv[row])


def test_fgsm_and_momentum_take_a_radius_for_each_image(exact):
    x, eps = images(4, 3, 8, 8, dtype=torch.float64), [0.0, 0.1, 0.2, 0.3]
    for attack in (FGSM(ThreatModel(Linf(), eps)), MIFGSM(ThreatModel(Linf(), eps))):
        moved = Linf().measure(attack(exact, x, LABELS[:4]) - x)
        torch.testing.assert_close(moved, torch.tensor(eps, dtype=torch.float64), rtol=0, atol=1e-9)


def test_radii_for_another_number_of_images_are_refused(tiny_model):
    with pytest.raises(UserError, match="^eps has 3 radii for 4 images: give one number, or one for each image$"):
        PGD(ThreatModel(Linf(), [0.1, 0.2, 0.3]))(tiny_model, X, Y)
    assert str(PGD(ThreatModel(Linf(), [0.1, 0.2, 0.3]), restarts=2)) == "PGD-10x2 (Linf eps=0.1 to 0.3)"


# Bad input.


class Broken(nn.Module):
    """Passes its logits through a function first."""

    def __init__(self, model: nn.Module, spoil: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.model, self.spoil = model, spoil

    def forward(self, x: Tensor) -> object:
        return self.spoil(self.model(x))


X = images(4, 3, 8, 8)
Y = LABELS[:4]
BAD_CALLS = {
    "0-255": (X * 255, Y, "0-255 values, divide by 255"),
    "uint8": ((X * 255).byte(), Y, "floating point .* divide 8-bit values by 255"),
    "normalized": ((X - 0.5) / 0.2, Y, "normalize inside the model"),
    "NaN": (X.masked_fill(X > 0.99, torch.nan), Y, "found NaN"),
    "label too high": (X, Y + 8, "labels go up to 10, but the model has 10 classes"),
    "label negative": (X, Y - 1, "class indices from 0, found -1"),
    "labels missing": (X, Y[:3], r"int64 of shape \(4,\), got torch.int64 of shape \(3,\)"),
    "float labels": (X, Y.float(), "int64 .* got torch.float32"),
    "a list of floats": (X, [0.5, 1, 2, 0], "int64 .* got torch.float64"),
    "a list of names": (X, ["dog", "cat", "dog", "cat"], r"one class index for each image, got list \['dog', 'cat', 'dog', 'cat'\]$"),
    "no label": (X, None, "labels must be class indices, .* or a goal, got NoneType$"),
    "one image and its label": (X[0], Y[:1], r"as a batch \(B, \.\.\.\), got one image of shape \(3, 8, 8\): pass x\[None\]$"),
    "one image and a number": (X[0], 3, r"got one image of shape \(3, 8, 8\): pass x\[None\]$"),
    "8-bit array": ((X * 255).byte().numpy(), Y, "floating point .* divide 8-bit values by 255"),
    "a list of images": (X.tolist(), Y, r"a tensor or a numpy array of shape \(B, \.\.\.\), got list$"),
    "one-hot labels": (X, torch.eye(10, dtype=torch.int64)[Y], r"of one-hot rows pass y.argmax\(1\)$"),
}


@pytest.mark.parametrize("x, y, sentence", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_what_it_cannot_attack_is_refused_and_nothing_has_changed(x, y, sentence, tiny_model):
    restless(tiny_model)
    with untouched(tiny_model), pytest.raises(UserError, match=sentence):
        PGD(THREATS[0], steps=2)(tiny_model, x, y)


BAD_MODELS = {
    "a tuple": (lambda logits: (logits, logits), "must return logits of shape .* got tuple"),
    "a picture": (lambda logits: logits[:, :, None], r"got \(4, 10, 1\)"),
    "one number": (lambda logits: logits.sum(1), r"got \(4,\)"),
    "fewer classes": (lambda logits: logits[:, :2], "labels go up to 2, but the model has 2 classes"),
    "NaN": (lambda logits: logits * torch.tensor([1.0, torch.nan, 1.0, 1.0])[:, None], r"1 of 4 examples \(positions 1\)"),
    "NaN later": (lambda logits: logits.masked_fill(logits == logits.max(), torch.nan), "NaN or infinite for . of 4 examples"),
    "infinite": (lambda logits: logits + torch.inf, "NaN or infinite for 4 of 4 examples"),
    "no gradient": (lambda logits: logits.detach(), "no gradient"),
}


@pytest.mark.parametrize("spoil, sentence", BAD_MODELS.values(), ids=BAD_MODELS.keys())
@pytest.mark.parametrize("keep_best", [True, False])
def test_a_model_that_gives_no_logits_is_refused_and_nothing_has_changed(spoil, sentence, keep_best, tiny_model):
    model = Broken(restless(tiny_model), spoil)
    with untouched(model, X), pytest.raises(UserError, match=sentence):
        PGD(THREATS[0], steps=2, keep_best=keep_best)(model, X, Y)


# Doors.


def test_without_checks_it_gives_the_same_images_and_what_is_known_of_them(tiny_model):
    for attack in (PGD(THREATS[1], steps=2), PGD(THREATS[1], steps=2, restarts=2)):
        found = attack.solve(tiny_model, X, Y, keys=KEYS[:4])
        assert torch.equal(found.x, attack(tiny_model, X, Y, keys=KEYS[:4]))
        torch.testing.assert_close(-found.value, loss(tiny_model, found.x, Y))
        assert torch.equal(found.achieved, fooled(tiny_model, found.x, Y)) and found.finite.all()


def test_without_checks_logits_that_are_no_numbers_are_told_and_the_others_attacked(tiny_model):
    spoil = torch.tensor([1.0, torch.nan, 1.0, 1.0])[:, None]
    found = PGD(THREATS[1], steps=2, keep_best=False).solve(Broken(tiny_model, lambda logits: logits * spoil), X, Y, keys=KEYS[:4])
    assert found.finite.tolist() == [True, False, True, True] and found.x.isfinite().all()
    assert torch.equal(found.x[found.finite], PGD(THREATS[1], steps=2, keep_best=False)(tiny_model, X, Y, keys=KEYS[:4])[found.finite])


CALLABLES: dict[str, Callable[[nn.Module], object]] = {
    "a function": lambda model: lambda x: model(x),
    "a bound method": lambda model: model.forward,
    "TorchScript": lambda model: torch.jit.trace(model, X),
    "frozen TorchScript": lambda model: torch.jit.freeze(torch.jit.trace(model, X)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("form", CALLABLES.values(), ids=CALLABLES)
@pytest.mark.parametrize("attack", [PGD(THREATS[0], steps=3, restarts=2), NFGSM(THREATS[0])], ids=str)
def test_any_callable_is_attacked_like_a_module(form, attack, tiny_model):
    model, expected = form(tiny_model), attack(tiny_model, X, Y)
    torch.testing.assert_close(attack(model, X, Y), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(attack(tiny_model, X, Y, fast_model=model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attack", [PGD(THREATS[0], steps=3), NFGSM(THREATS[0])], ids=str)
def test_lists_and_arrays_are_taken_too(attack, tiny_model):
    expected = attack(tiny_model, X, Y)
    for x, y in ((X, Y.tolist()), (X, Y.numpy()), (X, Y.numpy().astype("uint8")), (X.numpy(), Y), (X.double().numpy(), tuple(Y.tolist()))):
        assert torch.equal(attack(tiny_model, x, y), expected)


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ({"steps": -1}, "steps >= 0 .* got -1"),
        ({"restarts": 0}, "restarts >= 1, got 10 and 0"),
        ({"step_size": -0.1}, "step_size must be >= 0 in pixel units, got -0.1"),
        ({"step_size": math.nan}, "step_size must be >= 0 in pixel units, got nan"),
        ({"restarts": 2, "random_start": False}, "more than one restart needs random_start"),
        ({"restarts": 2, "keep_best": False}, "more than one restart needs .* keep_best"),
    ],
    ids=repr,
)
def test_settings_that_make_no_sense_are_refused_when_they_are_made(setting, sentence):
    with pytest.raises(UserError, match=sentence):
        PGD(THREATS[0], **setting)


def test_an_attack_is_named_by_what_it_does():
    assert str(PGD(ThreatModel(Linf(), 8 / 255), steps=20)) == "PGD-20 (Linf eps=0.03137)"
    assert str(PGD(ThreatModel(L2(), 0.5), restarts=5)) == "PGD-10x5 (L2 eps=0.5)"


class InPlace(nn.Module):
    """Normalizes over its input, as some published models do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.sub_(0.5).div_(0.25))


class OutOfPlace(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - 0.5) / 0.25)


IN_PLACE = {
    "pgd": PGD(THREATS[0], steps=3),
    "restarts": PGD(THREATS[1], steps=2, restarts=3),
    "last": PGD(THREATS[1], steps=2, keep_best=False),
    "training": PGD(THREATS[2], steps=2, training_mode=True),
    "n-fgsm": NFGSM(THREATS[1]),
}


@pytest.mark.filterwarnings("ignore:the model writes over its input")
@pytest.mark.parametrize("attack", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_a_model_that_writes_over_its_input_is_attacked_like_one_that_does_not(tiny_model, attack):
    x = images(12, 3, 8, 8)
    given_images = x.clone()
    assert torch.equal(attack(InPlace(tiny_model), x, LABELS), attack(OutOfPlace(tiny_model), x, LABELS))
    assert torch.equal(x, given_images)
    first = nn.Sequential(nn.ReLU(inplace=True), *tiny_model)
    assert torch.equal(attack(first, x, LABELS), attack(nn.Sequential(nn.ReLU(), *tiny_model), x, LABELS))
    assert torch.equal(x, given_images)


def test_a_model_that_writes_over_its_input_is_told(tiny_model):
    with pytest.warns(UserWarning, match="the model writes over its input"):
        PGD(THREATS[0], steps=2)(InPlace(tiny_model), images(12, 3, 8, 8), LABELS)


@pytest.mark.parametrize("attack", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_one_output_is_refused(attack):
    """The largest of one number never changes, so an attack could not succeed, and any model would be robust."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    for y in (torch.zeros(12, dtype=torch.int64), Targeted(torch.zeros(12, dtype=torch.int64))):
        with untouched(model), pytest.raises(UserError, match="one number for each image"):
            attack(model, images(12, 3, 8, 8), y)
