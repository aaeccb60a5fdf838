"""What several tests share: one thread, a tiny network, real images where there are any."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

torch.set_num_threads(1)
# A shell that starts the tests in its background has Ctrl-C and a closed terminal ignored; tests send these signals.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)
os.environ["OMP_NUM_THREADS"] = "1"  # the same for commands that tests start


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last, one of them would run alone while the other processes wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def tiny_model() -> nn.Module:
    """A seeded convolutional network from images ``(B, 3, 8, 8)`` in [0, 1] to 10 logits, in evaluation mode.

    It has what an attack must leave alone: BatchNorm with running statistics of its own, and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 10),
        )
        for norm in model[1], model[4]:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
        for _ in range(3):
            model(torch.rand(32, 3, 8, 8))
    return model.eval()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real images, ``train/<class>/*`` and ``test/<class>/*``, in the folder that ROBUSTLAB_TEST_DATA names."""
    folder = os.environ.get("ROBUSTLAB_TEST_DATA")
    if not folder:
        pytest.skip("ROBUSTLAB_TEST_DATA names no folder of real images")
    return Path(folder)
