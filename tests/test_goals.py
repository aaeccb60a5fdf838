"""Laws of goals: what leaves a prediction alone leaves the loss alone, and a lower loss is nearer to success."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import drawn, seeded

from robustlab.attacks.boundaries import NearestBoundary
from robustlab.goals import Away, LeftFor, Signed, Targeted, Untargeted, cross_entropy, divergence, dlr, margin, targeted_dlr
from robustlab.norms import L2

SURROGATES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES.keys())
classes = st.integers(2, 6)
seeds = st.integers(0, 10_000)


def logits_and_labels(k: int, seed: int, n: int = 8):
    return 3 * drawn(n, k, seed=seed), torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


def test_surrogates_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0, -6.0], [1.0, 4.0, 2.0, -6.0]], dtype=torch.float64)
    y = torch.tensor([1, 3])
    torch.testing.assert_close(margin(logits, y), torch.tensor([-2.0, 10.0]).double())
    torch.testing.assert_close(dlr(logits, y), torch.tensor([-2 / 3, 10 / 3]).double())
    torch.testing.assert_close(cross_entropy(logits, y), -torch.log_softmax(logits, 1)[[0, 1], y])


@every_surrogate
@seeded
@given(k=classes, seed=seeds, shift=st.sampled_from([-100.0, -1.0, 50.0, 1000.0]))
def test_shifting_all_logits_changes_nothing(surrogate, k, seed, shift):
    """Also when all become negative, where a margin that multiplies by one-hot labels takes a zero for the best class."""
    logits, y = logits_and_labels(k, seed)
    torch.testing.assert_close(surrogate(logits + shift, y), surrogate(logits, y), rtol=1e-9, atol=1e-9)


@seeded
@given(k=st.integers(3, 6), seed=seeds, scale=st.sampled_from([1e-3, 0.1, 7.0, 1e4]))
def test_dlr_does_not_see_the_scale_of_logits(k, seed, scale):
    logits, y = logits_and_labels(k, seed)
    torch.testing.assert_close(dlr(scale * logits, y), dlr(logits, y), rtol=1e-6, atol=1e-9)


@seeded
@given(k=classes, seed=seeds)
def test_margin_and_dlr_are_positive_exactly_where_another_class_is_predicted(k, seed):
    logits, y = logits_and_labels(k, seed)
    wrong = logits.argmax(1) != y
    assert torch.equal(margin(logits, y) > 0, wrong) and torch.equal(dlr(logits, y) > 0, wrong)
    assert torch.equal(Untargeted(y).achieved(logits), wrong)


@every_surrogate
@seeded
@given(k=classes, seed=seeds)
def test_raising_the_right_logit_takes_an_untargeted_goal_farther_away_and_a_targeted_one_nearer(surrogate, k, seed):
    logits, y = logits_and_labels(k, seed)
    raised = logits.scatter_add(1, y[:, None], torch.full((len(y), 1), 0.1, dtype=torch.float64))
    # Not strictly: the ratio dlr stays where it is while the class is the third.
    assert (Untargeted(y, surrogate).loss(raised) >= Untargeted(y, surrogate).loss(logits) - 1e-12).all()
    assert (Targeted(y, surrogate).loss(raised) <= Targeted(y, surrogate).loss(logits) + 1e-12).all()
    assert torch.equal(Targeted(y, surrogate).achieved(logits), ~Untargeted(y, surrogate).achieved(logits))


@every_surrogate
def test_loss_has_one_value_per_example_and_examples_do_not_see_each_other(surrogate):
    logits, y = logits_and_labels(4, 0)
    loss = Untargeted(y, surrogate).loss(logits)
    alone = [Untargeted(y[i : i + 1], surrogate).loss(logits[i : i + 1]) for i in range(8)]
    assert loss.shape == (8,)
    torch.testing.assert_close(loss, torch.cat(alone), rtol=1e-14, atol=0)


def test_with_two_classes_dlr_is_the_margin():
    logits, y = logits_and_labels(2, 0)
    assert torch.equal(dlr(logits, y), margin(logits, y))


@every_surrogate
def test_three_equal_logits_give_finite_values_and_gradients(surrogate):
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = surrogate(logits, torch.tensor([0, 2]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and grad.isfinite().all()


@every_surrogate
def test_a_nan_among_the_logits_is_not_hidden(surrogate):
    logits = torch.eye(3)
    logits[[0, 1, 2], [2, 2, 0]] = torch.nan
    assert surrogate(logits, torch.arange(3)).isnan().all()


@seeded
@given(k=classes, seed=seeds)
def test_away_measures_the_divergence_from_the_prediction(k, seed):
    reference, _ = logits_and_labels(k, seed)
    logits = 3 * drawn(8, k, seed=seed + 1)
    p, q = reference.softmax(1), logits.softmax(1)
    torch.testing.assert_close(divergence(reference, logits), (p * (p / q).log()).sum(1), rtol=1e-9, atol=1e-12)
    goal = Away(reference)
    assert (goal.loss(logits) <= 1e-12).all() and goal.loss(reference).abs().max() < 1e-12
    assert torch.equal(goal.achieved(logits), logits.argmax(1) != reference.argmax(1))


def test_the_prediction_to_leave_is_a_constant():
    reference = drawn(2, 3).requires_grad_()
    logits = drawn(2, 3, seed=1).requires_grad_()
    Away(reference).loss(logits).sum().backward()
    assert reference.grad is None and logits.grad is not None


# The targeted DLR.


def test_targeted_dlr_by_hand():
    """Units of 5 - (1 - 2) / 2, of 5 - (3 + 1) / 2 with three classes, and of one with two."""
    logits, y, target = torch.tensor([[5.0, 3.0, 1.0, -2.0, -9.0]], dtype=torch.float64), torch.tensor([0]), torch.tensor([2])
    for k, expected in ((5, -4 / 5.5), (4, -4 / 5.5), (3, -4 / 3)):
        torch.testing.assert_close(targeted_dlr(logits[:, :k], y, target), torch.tensor([expected]).double())
    torch.testing.assert_close(targeted_dlr(logits[:, :2], y, torch.tensor([1])), torch.tensor([-2.0]).double())


@seeded
@given(k=classes, seed=seeds, shift=st.sampled_from([-100.0, 50.0]), scale=st.sampled_from([1e-3, 0.1, 7.0, 1e3]))
def test_targeted_dlr_sees_neither_shift_nor_scale_of_logits(k, seed, shift, scale):
    """With two classes it sees the scale, as it says."""
    logits, y = logits_and_labels(k, seed)
    target = (y + 1 + seed % (k - 1)) % k
    unit = scale if k == 2 else 1.0
    torch.testing.assert_close(
        targeted_dlr(scale * logits + shift, y, target), unit * targeted_dlr(logits, y, target), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_targeted_dlr_of_a_predicted_label_is_flat_for_no_target(k):
    logits = drawn(1, k).sort(descending=True).values.requires_grad_()
    for target in range(1, k):
        (grad,) = torch.autograd.grad(targeted_dlr(logits, torch.tensor([0]), torch.tensor([target])).sum(), logits)
        assert grad[0, target] > 0


def test_a_label_left_for_a_target_may_be_left_for_any_class():
    goal = LeftFor(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]))
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])
    assert goal.achieved(logits).tolist() == [False, True, True]
    assert torch.equal(goal.at(torch.tensor([2, 0])).loss(logits[[2, 0]]), goal.loss(logits)[[2, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_a_goal_is_clearly_achieved_only_beyond_rounding(dtype: torch.dtype, scale: float) -> None:
    """Among the images at a boundary, those that another batch could put on its other side do not count."""
    ulp = torch.finfo(dtype).eps
    ahead = torch.tensor([-1.0, -8 * ulp, 0.0, 8 * ulp, 64 * ulp, 1.0], dtype=dtype)
    logits = scale * torch.stack([torch.ones_like(ahead), 1 + ahead, -torch.ones_like(ahead)], 1)
    goal = Signed(Untargeted(torch.zeros(6, dtype=torch.int64), margin))
    assert goal.achieved(logits).tolist() == [False, False, False, False, True, True]
    value = goal.loss(logits)
    assert ((value <= 0) == goal.achieved(logits)).all()
    assert torch.allclose(value.abs(), (scale * ahead).abs(), rtol=1e-3, atol=float(scale * ulp))
    boundary = NearestBoundary(lambda x: x, torch.zeros(6, dtype=torch.int64), L2(), 2)
    for value, achieved in (boundary(logits), boundary.with_gradient(logits)[::2]):
        assert achieved.tolist() == goal.achieved(logits).tolist() and ((value <= 0) == achieved).all()


def test_classes_that_are_ruled_out_do_not_make_everything_unclear() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert Signed(Untargeted(torch.tensor([0]), margin)).achieved(logits).all()
