"""Every example runs and says something; notebooks run from top to bottom and are kept without outputs."""

from __future__ import annotations

import ast
import json
import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def strict(monkeypatch, tmp_path):
    """In an empty folder, without a display, and with warnings as errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def shown(code: str, name: str, names: dict[str, Any]) -> object:
    """Run a cell; its last expression is its value, as in Jupyter, unless a semicolon ends it."""
    tree = ast.parse(code)
    *body, last = tree.body
    if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
        body, value = tree.body, None
    else:
        value = ast.Expression(last.value)
    exec(compile(ast.Module(body, []), name, "exec"), names)
    return None if value is None else eval(compile(value, name, "eval"), names)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    names: dict[str, Any] = {"__name__": "__main__"}
    values = [shown("".join(cell["source"]), f"{path.name}, {cell['id']}", names) for cell in cells(path, "code")]
    for value in values:
        drawn = getattr(value, "_repr_html_", None) or getattr(value, "_repr_png_", None) or value.__repr__
        assert drawn() is not None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(path):
    assert cells(path, "markdown")[0]["source"][0].startswith("# ")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path, "code"))


def test_there_are_examples_of_the_promised_length():
    assert len(EXAMPLES) >= 5
    assert all(len(path.read_text().splitlines()) <= 45 for path in EXAMPLES)
    assert [path.stem for path in NOTEBOOKS] == [
        "attack_and_evaluate",
        "communities_of_a_graph",
        "learn_from_d_det",
        "play_with_a_robust_model",
        "which_solution",
    ]
