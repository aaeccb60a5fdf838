"""Public functions say what they take, give and raise: a rule that can be checked, for what help() and the API pages show."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "robustlab"
MANY = 4  # parameters from which on each is explained


@dataclass(frozen=True)
class Function:
    """A public function or method of a public class."""

    place: str
    node: ast.FunctionDef
    owner: ast.ClassDef | None
    module: ast.Module

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def about(self) -> str:
        """Where its words may stand: its own docstring, its class's, and its module's for what all functions share."""
        return self.doc + (ast.get_docstring(self.owner) or "" if self.owner else "") + (ast.get_docstring(self.module) or "")

    @property
    def parameters(self) -> list[str]:
        arguments = self.node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return names[1:] if self.owner and names[:1] in (["self"], ["cls"]) else names

    @property
    def raises(self) -> bool:
        """Whether it raises an error of the user's itself."""
        for node in ast.walk(self.node):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                if node.exc.func.id in ("UserError", "unknown"):
                    return True
        return False


def public() -> Iterator[Function]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "commands" in path.parts:
            continue
        where = path.relative_to(PACKAGE.parent).as_posix()
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield Function(f"{where}:{node.lineno} {node.name}", node, None, module)
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield Function(f"{where}:{inner.lineno} {node.name}.{inner.name}", inner, node, module)


def overrides(function: Function) -> bool:
    """Whether a method stands for one that another class explains: of a base class, or of a protocol with the same name."""
    return function.owner is not None and (bool(function.owner.bases) or function.node.name in EXPLAINED)


EXPLAINED = {
    name
    for path in PACKAGE.rglob("*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
    for inner in node.body
    if isinstance(inner, ast.FunctionDef) and (name := inner.name) and ast.get_docstring(inner)
}


def test_public_functions_have_docstrings() -> None:
    found = [f.place for f in public() if not f.doc and not (f.owner and (overrides(f) or f.owner.name.endswith("Error")))]
    assert not found, "\n" + "\n".join(found)


def test_functions_of_many_parameters_explain_them() -> None:
    found = []
    for f in public():
        if len(f.parameters) >= MANY and not overrides(f) and not re.search("Args:|arguments see", f.doc):
            told = [name for name in f.parameters if f"``{name}``" not in f.about]
            if told:
                found.append(f"{f.place}: {', '.join(told)}")
    assert not found, "\n" + "\n".join(found)


def test_functions_that_refuse_say_so() -> None:
    found = [f.place for f in public() if f.raises and "Raises:" not in f.about and not overrides(f)]
    assert not found, "\n" + "\n".join(found)
