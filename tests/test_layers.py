"""The import rule: every module stands on a floor and imports only from below, also inside functions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "robustlab"

# From the ground up. Modules of one row know nothing of each other; a package is one entry and may import itself.
FLOORS = (
    {"errors"},
    {"paths"},
    {"files", "seeding", "checks", "options", "pickles", "progress", "subsets", "interrupts", "markup", "extras", "sorting"},
    {"norms", "settings", "devices"},
    {"constraints", "goals", "hyperplanes", "pixels"},
    {"objectives", "pictures", "threats"},
    {"optimize", "records"},
    {"steps", "models", "data", "blocks"},
    {"attacks", "synthesis", "linear_bias", "gnn"},
    {"evaluation"},
    {"training", "smoothing"},
    {"construction"},
    {"reports"},
    {"experiments", "demo"},
    {"commands"},
    {"__init__", "__main__"},
)
TOP = FLOORS[-2] | FLOORS[-1]  # these alone parse arguments and print
PLOTS = {"reports"}  # and this alone plots
FLOOR = {name: height for height, row in enumerate(FLOORS) for name in row}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The entry of FLOORS to which a file belongs: the package's first folder, or the module."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(node: ast.AST) -> Iterator[str]:
    """The entries of FLOORS that an import statement reaches; the bare package counts as ``__init__``."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module == "robustlab":
        # The version is a constant and harmless; the other names of the bare package reach up to the attacks.
        names = [f"robustlab.{alias.name}" if alias.name in FLOOR else "robustlab" for alias in node.names if alias.name != "__version__"]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    else:
        names = []
    for name in names:
        package, _, rest = name.partition(".")
        if package == "robustlab":
            yield rest.partition(".")[0] or "__init__"


def violations(source: str, here: str, place: str) -> Iterator[str]:
    """Sentences, each with ``place:line``, on what a module of the entry ``here`` may not import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{place}:{node.lineno} imports relatively; write the whole name"
        for there in imported_rooms(node):
            if there not in FLOOR:
                yield f"{place}:{node.lineno} imports robustlab.{there}, which has no floor in tests/test_layers.py"  # type: ignore[attr-defined]
            elif there != here and FLOOR[there] >= FLOOR[here]:
                yield f"{place}:{node.lineno} imports robustlab.{there}, which is not below robustlab.{here}"  # type: ignore[attr-defined]


def talk(source: str, here: str, place: str) -> Iterator[str]:
    """Sentences on arguments, printing and plotting by a module of the entry ``here`` that may not."""
    forbidden = ({"argparse"} if here not in TOP else set()) | ({"matplotlib"} if here not in PLOTS else set())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] in forbidden for alias in node.names):
            yield f"{place}:{node.lineno} imports {node.names[0].name}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in forbidden:
            yield f"{place}:{node.lineno} imports {node.module}"
        elif here not in TOP and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{place}:{node.lineno} prints"


def flags_in_sentences(source: str, place: str) -> Iterator[str]:
    """Sentences on flags in what errors and warnings say: code that is called from Python knows settings, and only commands know flags."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "unknown", "warnings.warn", "warn"):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and re.search(r"(?<![\w-])--([a-z]|$)", part.value):
                    yield f"{place}:{part.lineno} names a flag: write the setting in backquotes"


def named(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def test_every_module_has_a_floor():
    assert {room(path) for path in MODULES} <= set(FLOOR), "give the new module its row in FLOORS"


def test_the_documents_say_the_same_of_every_floor():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(FLOORS) - 1))
    assert [set(re.findall(r"`(\w+)`", modules)) for _, modules in rows] == list(FLOORS[:-1])


def test_imports_go_strictly_downward():
    found = [line for path in MODULES for line in violations(path.read_text(encoding="utf-8"), room(path), named(path))]
    assert not found, "\n" + "\n".join(found)


def test_only_the_top_floors_parse_arguments_and_print_and_only_reports_plot():
    found = [line for path in MODULES for line in talk(path.read_text(encoding="utf-8"), room(path), named(path))]
    assert not found, "\n" + "\n".join(found)


def test_sentences_of_the_library_name_settings_and_no_flags():
    found = [
        line for path in MODULES if room(path) not in TOP for line in flags_in_sentences(path.read_text(encoding="utf-8"), named(path))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source, expected",
    [
        ('raise UserError(f"{x} is there: name another by --out")', 1),
        ('warnings.warn("slow; try --batch-size 8", stacklevel=2)', 1),
        ('raise UserError("name another by `out`: a -- b, x--y")', 0),
        ('raise UserError(f"there is no --{word}; try another")', 1),
        ('words = ["train", "--out", "here"]', 0),
    ],
)
def test_the_rule_on_flags(source, expected):
    assert len(list(flags_in_sentences(source, "x.py"))) == expected


@pytest.mark.parametrize(
    "source",
    [
        "from robustlab.attacks.pgd import PGD",
        "import robustlab.attacks",
        "from robustlab import attacks",
        "from robustlab import PGD",
        "import robustlab",
        "def late():\n    from robustlab.training.fit import fit",
        "from robustlab.data.folder import read",
        "from .norms import L2",
        "from robustlab.nowhere import x",
    ],
)
def test_the_rule_sees(source):
    assert len(list(violations(source, "models", "robustlab/models/zoo.py"))) == 1


@pytest.mark.parametrize(
    "source", ["from robustlab import norms", "from robustlab.models.resnet import resnet18", "from robustlab import __version__"]
)
def test_the_rule_allows(source):
    assert not list(violations(source, "models", "robustlab/models/zoo.py"))


@pytest.mark.parametrize(
    "here, source, expected",
    [
        ("models", "import argparse", 1),
        ("models", "print(1)", 1),
        ("models", "from matplotlib.figure import Figure", 1),
        ("commands", "import argparse\nprint(1)", 0),
        ("commands", "import matplotlib.pyplot as plt", 1),
        ("reports", "from matplotlib.figure import Figure", 0),
        ("reports", "print(1)", 1),
    ],
)
def test_the_rule_on_talking_and_plotting(here, source, expected):
    assert len(list(talk(source, here, "x.py"))) == expected


def test_the_command_line_answers_without_torch():
    """``robustlab --help`` must not wait seconds for packages that it does not use."""
    code = """
import sys
import robustlab
from robustlab.commands import main
print(*{"torch", "torchvision", "numpy", "matplotlib"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
