"""Cards of constructed sets: every fact in a row of its own, whatever the classes are called."""

from __future__ import annotations

from typing import Any

import pytest

from robustlab.construction import SourceModel
from robustlab.evaluation import Rate
from robustlab.reports.cards import TITLES, card

SOURCE = SourceModel("my-model", Rate(180, 200), Rate(60, 200), "PGD-10 (L2 eps=0.25)", None)


def manifest(**construction: Any) -> dict[str, Any]:
    share = {"taken_for_label_before_storing": 0.9, "taken_for_label": 0.875, "taken_for_original_label": 0.125, "label_is_original": 0.1}
    return {
        "n": 1200,
        "shape": [3, 8, 8],
        "dtype": "float16",
        "shards": ["a", "b"],
        "classes": ["a|b", "c"],
        "sha256": "f" * 64,
        "settings": {
            "construction": construction,
            "source": {"name": "photographs"},
            "model": {"arch": "small", "sha256": "0" * 64},
            "seed": 0,
            "compute_dtype": "float32",
            "device": "cpu",
        },
        "facts": {**share, "moved": {"mean": 0.4, "largest": 0.5}},
    }


def rows(text: str) -> dict[str, str]:
    """From the first cell to the second; a ``|`` within a cell is escaped."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    assert all(len(line) == 2 for line in cells)
    return {name: value.replace("\0", "|") for name, value in cells}


@pytest.mark.parametrize("kind", TITLES)
def test_a_card_says_what_the_set_is_and_what_is_known_of_it(kind: str) -> None:
    construction = {"eps": 0.5, "norm": "L2"} if kind in ("D_rand", "D_det") else {"steps": 1000}
    text = card(kind, manifest(**construction), SOURCE, "robustlab construct")
    assert text.startswith(f"# {kind}: 1,200 images of photographs, {TITLES[kind]}\n") and text.endswith("|\n")
    found = rows(text)
    assert found["classes"] == "a|b, c"
    assert found["its accuracy on 200 of them"] == "clean 90.0 %, PGD-10 (L2 eps=0.25) 30.0 %"
    assert found["classified as its original label, as stored"] == "12.5 %"
    success = [name for name in found if name.startswith("targeted success rate")]
    assert len(success) == ("eps" in construction)
    name = success[0] if success else "classified as its label, by the source model"
    assert found[name] == "90.0 % as found, 87.5 % as stored"


def test_the_record_of_released_weights_is_on_the_card() -> None:
    record = {"accuracies": {"clean": 90.1, "PGD-20": 55.2}, "n": 1000, "threat": "L2 eps=0.5"}
    source = SourceModel("my-model", SOURCE.clean, SOURCE.robust, SOURCE.attack, record)
    assert (
        rows(card("D_det", manifest(), source, "x"))["its record"] == "clean 90.1 %, PGD-20 55.2 % (n = 1,000), trained against L2 eps=0.5"
    )
