"""scripts/bootstrap.py: a Python that suffices is used, .venv is filled once, and what cannot work is said in one sentence."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bootstrap.py"
PIP_INSTALL = ["-m", "pip", "install", "-c", "constraints.txt", "-e"]


class Machine:
    """A pretended machine: a repository in an empty folder, and a subprocess.call that notes commands and runs none."""

    def __init__(self, root: Path) -> None:
        self.commands: list[list[str]] = []
        self.failing: tuple[str, ...] = ()  # commands that contain one of these words exit with 1
        self.python = root / ".venv" / "bin" / "python"
        for name, text in {
            "setup.cfg": "[options]\ninstall_requires =\n    torch>=2.6\n[options.extras_require]\ntest =\n    pytest>=8\n",
            "pyproject.toml": "[project]\n",
            "constraints.txt": "torch==2.15.0\n",
        }.items():
            (root / name).write_text(text)

    def call(self, command: list[str], **_: object) -> int:
        self.commands.append(command[1:])
        if command[1:3] == ["-m", "venv"]:
            self.make_venv()
        return int(any(word in command for word in self.failing))

    def make_venv(self) -> None:
        self.python.parent.mkdir(parents=True)
        self.python.touch()

    @property
    def installed(self) -> list[str]:
        """What pip was asked to install, once per installation."""
        return [command[-1] for command in self.commands if command[:-1] == PIP_INSTALL]


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(bootstrap, monkeypatch, tmp_path) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "PYTHON", machine.python)
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / ".robustlab-stamp")
    monkeypatch.setattr(bootstrap, "satisfied", lambda requirement: False)
    monkeypatch.setattr(bootstrap.subprocess, "call", machine.call)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(100e9))
    return machine


def sentence(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The last line on stderr of a run that must end with exit code 2."""
    assert bootstrap.main(list(argv)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("bootstrap: ")
    return last


# Which Python


def test_an_interpreter_that_suffices_is_used_as_it_is(bootstrap, machine, monkeypatch):
    monkeypatch.setattr(bootstrap, "satisfied", lambda requirement: True)
    assert bootstrap.interpreter(["test"]) == sys.executable
    assert machine.commands == []


def test_the_core_needs_no_extra_and_tests_need_theirs(bootstrap, machine):
    assert bootstrap.requirements([]) == ["torch>=2.6"]
    assert bootstrap.requirements(["test"]) == ["torch>=2.6", "pytest>=8"]


@pytest.mark.parametrize(
    ("found", "floor", "enough"),
    [
        ("2.6", "2.6.0", True),
        ("2.6.0", "2.6", True),
        ("2.15.0+cu132", "2.6", True),  # as numbers: as strings 2.15 would be older
        ("2.6.0a0+ecf3bae40a.nv25.01", "2.6", True),  # NVIDIA's containers
        ("2.5.1", "2.6", False),
        ("13", "10.3", True),
        ("4.70.0.20261106", "4.66", True),
        ("unknown", "1.0", False),
    ],
)
def test_versions_compare_as_numbers(bootstrap, monkeypatch, found, floor, enough):
    monkeypatch.setattr(metadata, "version", lambda name: found)
    assert bootstrap.satisfied(f"anything>={floor}") is enough


def test_what_is_not_installed_does_not_satisfy(bootstrap):
    assert bootstrap.satisfied("pytest>=1")
    assert not bootstrap.satisfied("no-such-distribution>=0.0")


# Filling .venv


def test_a_bare_machine_makes_and_fills_venv_once(bootstrap, machine):
    assert bootstrap.interpreter(["test"]) == str(machine.python)
    assert machine.installed == [".[test]"]
    assert bootstrap.interpreter(["test"]) == str(machine.python)
    assert bootstrap.interpreter([]) == str(machine.python), "what holds the tests' extra also holds the core"
    assert machine.installed == [".[test]"]


def test_a_venv_made_by_hand_is_filled_but_not_made_again(bootstrap, machine):
    machine.make_venv()
    bootstrap.interpreter([])
    assert machine.installed == ["."]
    assert ["-m", "venv", str(machine.python.parents[1])] not in machine.commands


def test_extras_add_up(bootstrap, machine):
    for extras in ([], ["test"], [], ["test"]):
        bootstrap.interpreter(extras)
    assert machine.installed == [".", ".[test]"]


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_asked_for_fills_it_again(bootstrap, machine, tmp_path, name):
    bootstrap.interpreter(["test"])
    with open(tmp_path / name, "a") as file:
        file.write("# changed\n")
    bootstrap.interpreter(["test"])
    assert machine.installed == [".[test]"] * 2


def test_an_installation_that_broke_off_is_done_again(bootstrap, machine, capsys):
    bootstrap.interpreter([])
    machine.failing = ("install",)
    assert "pip could not install" in sentence(bootstrap, capsys, "test")
    machine.failing = ()
    bootstrap.interpreter([])
    assert machine.installed == [".", ".[test]", "."]


def test_a_venv_without_pip_gets_it(bootstrap, machine):
    machine.make_venv()
    machine.failing = ("--version",)
    bootstrap.interpreter([])
    assert ["-m", "ensurepip"] in machine.commands


# What cannot work


def test_an_unknown_command_names_the_known_ones(bootstrap, capsys):
    assert "quickstart, test, lint, docs, serve-docs; not 'tset'" in sentence(bootstrap, capsys, "tset")
    assert "quickstart, test, lint, docs, serve-docs" in sentence(bootstrap, capsys)


def test_an_old_python_without_another_on_path(bootstrap, machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert "needs Python 3.11 or newer" in sentence(bootstrap, capsys, "test")
    assert machine.commands == []


def test_an_old_python_hands_over_to_one_that_runs(bootstrap, monkeypatch, tmp_path):
    for name, text in {"python3.11": "#!/bin/sh\nexit 127\n", "python3.13": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / "none" / "python")
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    handed: list[list[str]] = []

    def hand_over(command: list[str]) -> None:
        handed.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(bootstrap, "hand_over", hand_over)
    with pytest.raises(SystemExit):
        bootstrap.main(["test", "-k", "norms"])
    assert handed == [[str(tmp_path / "python3.13"), str(SCRIPT), "test", "-k", "norms"]]


def test_no_ensurepip(bootstrap, machine, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: None if name == "ensurepip" else name)
    assert "apt install python3-venv" in sentence(bootstrap, capsys, "quickstart")
    assert not machine.python.exists()


def test_no_disk_matters_only_where_torch_is_still_to_come(bootstrap, machine, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(2.5e9))
    assert "2.5 GB free" in sentence(bootstrap, capsys, "test")
    machine.make_venv()
    (machine.python.parents[1] / "lib" / "python3.11" / "site-packages" / "torch").mkdir(parents=True)
    bootstrap.interpreter(["test"])
    assert machine.installed == [".[test]"]


def test_a_venv_that_could_not_be_made_leaves_nothing(bootstrap, machine, capsys):
    machine.failing = ("venv",)
    assert "could not make" in sentence(bootstrap, capsys, "test")
    assert not machine.python.parents[1].exists()


def test_a_broken_venv_is_named_and_left_alone(bootstrap, machine, capsys):
    machine.python.parents[1].mkdir()
    machine.failing = ("-c",)
    assert "move it away" in sentence(bootstrap, capsys, "test")
    assert machine.python.parents[1].exists()


# Running


def test_options_reach_the_command_and_its_exit_code_comes_back(tmp_path):
    """Two truths of one run: only pytest knows --no-such-option, and 4 is its code for a wrong usage."""
    run = subprocess.run([sys.executable, SCRIPT, "test", "--no-such-option"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 4, run.stderr
    assert "--no-such-option" in run.stderr


def test_a_failing_tool_ends_the_run_with_its_code(bootstrap, machine):
    machine.failing = ("first",)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SCRIPT.parent)
        patch.setenv("PYTHONPATH", "")
        assert bootstrap.run("python", ["first", "second"], []) == 1
    assert machine.commands == [["-m", "first"]]


# The file itself


def test_an_old_python_can_parse_it():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_it_imports_the_standard_library_only():
    imports = [node for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
