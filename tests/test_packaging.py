"""What installs: one version, readable requirements, pins that satisfy them, and a wheel that holds the package."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import robustlab

ROOT = Path(__file__).parents[1]
EXTRAS = {"web", "bias", "gnn", "timm", "docs", "test", "dev"}


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def floors(setup) -> dict[str, str]:
    """The floor of every requirement, ``dev`` apart, which names the other extras."""
    extras = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], *(extras[name] for name in extras if name != "dev")]
    return {name: floor for line in "\n".join(lines).split() for name, _, floor in [line.partition(">=")]}


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_the_core_is_small_and_the_extras_are_these(setup):
    core = {line.partition(">=")[0] for line in setup["options"]["install_requires"].split()}
    assert core == {"torch", "torchvision", "numpy", "tqdm", "tensorboard", "pillow", "safetensors", "matplotlib", "filelock"}
    assert set(setup["options.extras_require"]) == EXTRAS


def test_requirements_are_bare_floors(floors):
    """scripts/bootstrap.py compares them by hand; an upper bound would push out the torch of a cluster."""
    for name, floor in floors.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", name) and re.fullmatch(r"\d+(\.\d+)*", floor), f"{name}>={floor}"


def test_dev_has_every_extra(setup):
    names = re.search(r"robustlab\[(.+)\]", setup["options.extras_require"]["dev"])
    assert names and set(names[1].split(",")) == EXTRAS - {"dev"}


def test_what_bootstrap_installs_is_pinned_above_its_floor(setup, floors):
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    extras = setup["options.extras_require"]
    wanted = "\n".join([setup["options"]["install_requires"], extras["test"], extras["docs"]]).split()
    assert pins.keys() >= {line.partition(">=")[0] for line in wanted}
    for name, pin in pins.items():
        assert numbers(pin) >= numbers(floors[name]), name


def test_one_version_and_one_licence(setup):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {robustlab.__version__}\n" in citation
    assert f"\nlicense: {setup['metadata']['license']}\n" in citation
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_pyproject_agrees_with_setup_cfg(setup, project):
    assert project["project"]["name"] == setup["metadata"]["name"]
    assert project["project"]["requires-python"] == setup["options"]["python_requires"]
    assert {"version", "dependencies", "optional-dependencies", "scripts", "license"} <= set(project["project"]["dynamic"])
    assert "license-files" not in project["project"]["dynamic"], "setuptools cannot take it from setup.cfg"


def test_ci_runs_the_command_that_the_readme_gives():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    command = "python3 scripts/bootstrap.py test"
    assert command in script.read_text(encoding="utf-8")
    assert "python3 scripts/bootstrap.py docs" in script.read_text(encoding="utf-8")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    """Built with the setuptools at hand (torch depends on it), from a copy, offline."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools >= 77.0.3 to build, and pip fetches it; the one at hand is older")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "robustlab", source / "robustlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob(f"robustlab-{robustlab.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = archive.read(f"robustlab-{robustlab.__version__}.dist-info/METADATA").decode()
    assert {path.relative_to(source).as_posix() for path in (source / "robustlab").rglob("*.*")} <= held
    assert f"robustlab-{robustlab.__version__}.dist-info/licenses/LICENSE" in held
    assert "Requires-Dist: torch>=2.6" in metadata and "Provides-Extra: test" in metadata
