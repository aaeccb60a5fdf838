"""What stands at the top: the same names in ``__all__``, in the docstring, for type checkers and when the program runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import robustlab

SOURCE = ast.parse(Path(robustlab.__file__).read_text(encoding="utf-8"))


def typed() -> dict[str, str]:
    """From each name that type checkers see to the module it comes from."""
    (choice,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    assert ast.unparse(choice.test) == "TYPE_CHECKING"
    found = {}
    for node in choice.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names:
            assert alias.asname == alias.name, "written twice, so that type checkers take it for exported"
            found[alias.name] = node.module
    return found


def test_types_and_the_running_program_agree():
    assert typed() == robustlab._HOME
    assert sorted(robustlab.__all__) == sorted(robustlab._HOME)
    assert set(robustlab.__all__) <= set(dir(robustlab))


def test_help_has_a_line_for_each_name():
    lines = re.findall(r"^    (\w+): (.+)$", robustlab.__doc__, re.M)
    assert sorted(name for name, _ in lines) == sorted(robustlab.__all__)
    assert all(len(text) > 10 and not text.endswith(".") for _, text in lines)


@pytest.mark.parametrize("name", sorted(robustlab._HOME))
def test_public_names_load(name):
    found = getattr(robustlab, name)
    assert callable(found) and inspect.getdoc(found)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'FGSMM'"):
        _ = robustlab.FGSMM


def test_the_package_says_that_it_is_typed():
    assert (Path(robustlab.__file__).parent / "py.typed").is_file()
