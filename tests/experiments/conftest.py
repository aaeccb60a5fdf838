"""What the tests of experiments share: tiny data, tiny architectures, a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

from robustlab.experiments.cache import ExperimentCache


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="module")
def architectures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tiny.add_architectures(patch)
        yield


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> tiny.Work:
    return tiny.count_work(monkeypatch)


@pytest.fixture
def open_cache(data: Path, tmp_path: Path) -> Callable[..., ExperimentCache]:
    """A cache on the tiny data; ``stop_after`` so many questions whether to stop, the answer is yes."""

    def opened(out: str = "out", stop_after: int | None = None, bfloat16: bool = False) -> ExperimentCache:
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return stop_after is not None and asked >= stop_after

        return ExperimentCache(tmp_path / out, str(data), bfloat16=bfloat16, stop=stop)

    return opened
