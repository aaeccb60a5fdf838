"""What the tests of the page share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from page import SIZE, Answer, ask, served

from robustlab.demo.session import Served


@pytest.fixture(scope="session")
def tiny() -> Served:
    return served()


@pytest.fixture(scope="session")
def slow() -> Served:
    """Takes 30 ms a step."""
    return served("slow", pause=0.03)


@pytest.fixture
def picture() -> bytes:
    """Noise, so that no gradient is zero."""
    return bytes(torch.randint(0, 256, (3 * SIZE * SIZE,), generator=torch.Generator().manual_seed(0)).tolist())


@pytest.fixture(scope="session")
def call() -> Callable[..., Answer]:
    """``call(app, "GET", "/")`` outside an event loop."""

    def called(*words: Any, **options: Any) -> Answer:
        return asyncio.run(ask(*words, **options))

    return called
