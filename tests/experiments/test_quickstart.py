"""The quickstart from Python: one call, and what it returns is what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustlab.errors import UserError
from robustlab.experiments.quickstart import Settings, quickstart


def test_one_call_compares_two_models_and_says_so_in_words_numbers_and_a_page(data: Path, tmp_path: Path, capsys) -> None:
    said: list[str] = []
    found = quickstart(data=str(data), arch="tiny", epochs=1, batch_size=64, limit=120, out=tmp_path / "out", workers=0, say=said.append)
    assert found.results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert found.page == tmp_path / "out" / "index.html" and found.page.is_file()
    assert set(found.results["models"]) == {"standard", "robust"}
    for model in found.results["models"].values():
        assert all(f"{100 * rate['accuracy']:.1f} %" in str(found) for rate in model["accuracies"].values())
    assert [text.split(" (")[0] for text in said] == [
        "training the standard model",
        "training the robust model",
        "attacking both: PGD-20",
    ]


def test_changes_and_settings_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    for given in ((Settings(epochs=3),), ()):
        with pytest.raises(UserError, match="is not an empty folder"):
            quickstart(*given, out=tmp_path, **({} if given else {"epochs": 3}))


def test_a_setting_that_there_is_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'epochs'?"):
        quickstart(epoch=3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shapes_are_the_embedded_ones_only() -> None:
    assert Settings().on_shapes and Settings(dataset="shapes").on_shapes
    assert not Settings(data="shapes").on_shapes and not Settings(dataset="cifar10").on_shapes
