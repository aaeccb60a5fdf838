"""Learning rates: their values at both ends, their shape in between, and that there is no state in them to lose."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustlab.training.schedules import SCHEDULES, cosine, one_cycle, steps

GRID = [k / 1000 for k in range(1000)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_lie_between_zero_and_one_and_the_peak_is_reached(name: str) -> None:
    factors = [SCHEDULES[name](p) for p in GRID]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("schedule, warm_up", [(one_cycle, 0.2), (cosine, 0.05)])
def test_warm_up_starts_at_zero_rises_in_a_straight_line_to_one_and_falls_to_zero(schedule, warm_up: float) -> None:
    assert schedule(0.0) == 0
    assert schedule(warm_up) == 1
    assert schedule(1.0) == pytest.approx(0, abs=1e-15)
    assert schedule(warm_up / 4) == pytest.approx(0.25)
    rising = [schedule(p) for p in GRID if p <= warm_up]
    falling = [schedule(p) for p in GRID if p >= warm_up]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a > b for a, b in zip(falling, falling[1:], strict=False))


def test_one_cycle_and_cosine_are_half_way_down_half_way() -> None:
    assert one_cycle(0.6) == pytest.approx(0.5)
    assert cosine(0.525) == pytest.approx(0.5)


def test_steps_drop_at_half_and_at_three_quarters() -> None:
    assert [steps(p) for p in (0.0, 0.4999, 0.5, 0.7499, 0.75, 0.9999)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_of_a_run_has_a_learning_rate_above_zero(name: str) -> None:
    """The cyclic schedule of MadryLab's robustness trains its first epoch at 0 (train.py:92)."""
    rates = learning_rates(name, epochs=3, batches=4)
    assert len(rates) == 12
    assert min(rates) > 0


def test_a_run_of_one_single_step_trains() -> None:
    for name in SCHEDULES:
        assert learning_rates(name, epochs=1, batches=1)[0] > 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stopped_after", [1, 4, 6, 11])
def test_learning_rates_go_on_after_a_resume_as_if_there_had_been_none(name: str, stopped_after: int) -> None:
    """In MadryLab's robustness a resumed run lags one epoch behind (train.py:316-322)."""
    assert learning_rates(name, epochs=3, batches=4, stopped_after=stopped_after) == learning_rates(name, epochs=3, batches=4)


def learning_rates(schedule: str, epochs: int, batches: int, stopped_after: int | None = None) -> list[float]:
    """The rate that SGD used in each step of a run, which is stopped and resumed once where asked."""
    from robustlab.training import Optimization, Standard, TrainingState, fit

    optimization = Optimization(epochs=epochs, lr=0.3, schedule=SCHEDULES[schedule])
    rates: list[float] = []

    def note(state: TrainingState) -> None:
        rates.append(state.optimizer.param_groups[0]["lr"])

    state = TrainingState.fresh(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), optimization)
    data = Same(batches)
    if stopped_after:
        list(fit(state, data, Standard(), optimization, on_step=note, stop=lambda: len(rates) == stopped_after))
        assert len(rates) == stopped_after
        saved = state.state_dict()
        state = TrainingState.fresh(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), optimization)
        state.load_state_dict(saved)
    list(fit(state, data, Standard(), optimization, on_step=note))
    return rates


class Same:
    """The same batch, again and again."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def epoch(self, n: int, start: int = 0):
        from robustlab.data.batches import Batch

        for _ in range(start, self.batches):
            yield Batch(torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 1]), torch.arange(2), torch.arange(2))
