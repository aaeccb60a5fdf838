"""Laws of per-example randomness: a draw belongs to its key, whatever is drawn beside it, before it or after it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import images, seeded
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError

MASK = (1 << 64) - 1
int64s = st.integers(-(1 << 63), (1 << 63) - 1)


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator (Steele, Lea, Flood 2014) in Python's integers."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def test_splitmix64_as_published():
    """The oracle itself, against the first outputs that the reference implementation gives for the state 1234567."""
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@seeded
@given(key=int64s, size=st.integers(1, 9))
def test_uniform_numbers_are_the_upper_and_middle_bits_of_splitmix64(key, size):
    halves = [(word >> shift) & 0xFFFFFF for word in splitmix64(key & MASK, size) for shift in (40, 8)]
    expected = torch.tensor(halves[:size], dtype=torch.float64) / 2**24
    assert torch.equal(seeding.uniform(torch.tensor([key]), (size,), torch.float64)[0], expected)


DRAWS = {
    "uniform": lambda keys: seeding.uniform(keys, (2, 3)),
    "normal": lambda keys: seeding.normal(keys, (3,)),
    "integers": lambda keys: seeding.integers(keys, 10, (5,)),
    "fold": lambda keys: seeding.fold(keys, "start", 3),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


@every_draw
@seeded
@given(keys=st.lists(int64s, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_a_draw_is_the_same_alone_in_a_batch_and_in_any_order(draw, keys, order):
    batch = torch.tensor(keys)
    together = draw(batch)
    assert all(torch.equal(draw(batch[i : i + 1])[0], together[i]) for i in range(len(keys)))
    shuffled = list(range(len(keys)))
    order.shuffle(shuffled)
    assert torch.equal(draw(batch[shuffled]), together[shuffled])


@every_draw
def test_no_keys_no_draws(draw):
    assert len(draw(torch.zeros(0, dtype=torch.int64))) == 0


def test_example_keys_follow_the_position_in_the_dataset_and_the_seed():
    whole = seeding.example_keys(7, torch.arange(1000))
    assert torch.equal(seeding.example_keys(7, torch.tensor([5, 900])), whole[[5, 900]])
    assert len(whole.unique()) == 1000
    assert not set(whole.tolist()) & set(seeding.example_keys(8, torch.arange(1000)).tolist())


def test_names_of_purposes_give_independent_streams():
    keys = seeding.example_keys(0, torch.arange(4))
    folded = [seeding.fold(keys, *names) for names in [("a",), ("b",), ("a", 0), ("a", 1), ("a", "1"), (1, "a"), ()]]
    assert len(torch.cat(folded).unique()) == 4 * len(folded)


def z_scores(sample: Tensor, mean: float, variance: float) -> float:
    return float((sample.double().mean() - mean).abs() / (variance / sample.numel()) ** 0.5)


def test_uniform_numbers_are_uniform():
    u = seeding.uniform(seeding.example_keys(1, torch.arange(500)), (40,))
    assert 0 <= float(u.min()) and float(u.max()) < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())
    assert z_scores(u, 1 / 2, 1 / 12) < 5 and z_scores(u**2, 1 / 3, 4 / 45) < 5
    counts = (u * 16).long().flatten().bincount(minlength=16)
    assert (counts - u.numel() / 16).abs().max() < 5 * (u.numel() * 15) ** 0.5 / 16


def test_normal_numbers_are_standard_and_uncorrelated():
    v = seeding.normal(seeding.example_keys(2, torch.arange(500)), (40,), torch.float64)
    assert z_scores(v, 0, 1) < 5 and z_scores(v**2, 1, 2) < 5 and z_scores(v**4, 3, 96) < 5
    assert z_scores(v[:, ::2] * v[:, 1::2], 0, 1) < 5, "the two numbers of a Box-Muller pair"
    assert z_scores(v[:-1] * v[1:], 0, 1) < 5, "examples with neighbouring keys"


@pytest.mark.parametrize("high", [2, 7, 1 << 40])
def test_integers_lie_below_their_bound_and_are_uniform(high):
    k = seeding.integers(seeding.example_keys(3, torch.arange(4000)), high, (2,))
    assert k.dtype == torch.int64 and int(k.min()) >= 0 and int(k.max()) < high
    assert z_scores(k / high, (1 - 1 / high) / 2, (1 - 1 / high**2) / 12) < 5
    assert not seeding.integers(seeding.example_keys(3, torch.arange(9)), 1).any()


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_has_every_position_once(n):
    order = seeding.permutation(0, n, "epoch", 1)
    assert torch.equal(order.sort().values, torch.arange(n))
    assert torch.equal(order, seeding.permutation(0, n, "epoch", 1))
    assert n < 1000 or not torch.equal(order, seeding.permutation(0, n, "epoch", 2))


def test_a_generator_is_its_seed_and_its_name():
    def first(*names) -> int:
        return int(torch.randint(1 << 40, (), generator=seeding.generator(*names)))

    assert first(0, "a") == first(0, "a")
    assert len({first(0, "a"), first(1, "a"), first(0, "b"), first(0)}) == 4


def test_no_global_random_state_is_read_or_changed():
    def everything() -> list[Tensor]:
        keys = seeding.content_keys(images(3, 2, 2))
        draws = [draw(keys) for draw in DRAWS.values()]
        return [keys, *draws, seeding.permutation(0, 9), torch.rand(2, generator=seeding.generator(4))]

    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    before = everything()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state and (np.random.get_state()[1] == numpy_state).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert all(map(torch.equal, before, everything()))


def test_equal_images_have_equal_keys_however_they_are_stored():
    x = images(4, 3, 5, 5)
    keys = seeding.content_keys(x)
    ways = [x.clone(), x.double(), x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT, x.repeat_interleave(2, 0)[::2]]
    assert all(torch.equal(seeding.content_keys(same), keys) for same in ways)
    assert torch.equal(seeding.content_keys(-torch.zeros(1, 3)), seeding.content_keys(torch.zeros(1, 3))), "0.0 == -0.0"


@seeded
@given(position=st.integers(0, 11), value=st.floats(0, 1, width=32), seed=st.integers(0, 100))
def test_images_that_differ_in_one_value_have_different_keys(position, value, seed):
    x = images(1, 3, 2, 2, seed=seed)
    other = x.clone()
    other.view(-1)[position] = value
    assert torch.equal(seeding.content_keys(x), seeding.content_keys(other)) == torch.equal(x, other)


def test_content_keys_see_positions_and_the_seed():
    x = images(1, 3, 4, 4)
    variants = [x, x.flip(3), x.flip(2), x.flip(1), x.mT, 1 - x]
    keys = torch.cat([seeding.content_keys(v) for v in variants] + [seeding.content_keys(x, seed=1)])
    assert len(keys.unique()) == len(keys)
    assert len(seeding.content_keys(images(500, 1)).unique()) == 500


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, 10**30, 0.5, True, "1", None])
def test_seeds_beyond_64_bits_are_refused(seed):
    for draw in (
        lambda: seeding.generator(seed),
        lambda: seeding.permutation(seed, 3),
        lambda: seeding.example_keys(seed, torch.arange(3)),
        lambda: seeding.content_keys(torch.zeros(1, 2), seed),
    ):
        with pytest.raises(UserError, match=r"^a seed must be a whole number from -9223372036854775808 to 9223372036854775807, got "):
            draw()
