"""What installs: one version, readable requirements, pins that satisfy them, and a wheel that holds the package."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import robustlab
from robustlab.models import checkpoints

ROOT = Path(__file__).parents[1]
RELEASED = [path.name for path in (ROOT / "checkpoints").iterdir() if path.suffix in (".json", ".safetensors")]
EXTRAS = {"web", "bias", "gnn", "oracles", "timm", "robustbench", "docs", "test", "dev"}


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
    return [int(part.removeprefix("post")) for part in version.split(".")]


def test_the_core_is_small_and_the_extras_are_these(setup):
    core = {line.partition(">=")[0] for line in setup["options"]["install_requires"].split()}
    assert core == {"torch", "torchvision", "numpy", "tqdm", "tensorboard", "pillow", "safetensors", "matplotlib", "filelock"}
    assert set(setup["options.extras_require"]) == EXTRAS


def test_requirements_are_bare_floors(floors):
    """scripts/bootstrap.py compares them by hand; an upper bound would push out the torch of a cluster."""
    for name, floor in floors.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", name) and re.fullmatch(r"\d+(\.\d+)*", floor), f"{name}>={floor}"


def test_dev_has_every_extra_that_pins_nothing(setup):
    """RobustBench wants one version of timm alone, and its tests have a stand-in."""
    names = re.search(r"robustlab\[(.+)\]", setup["options.extras_require"]["dev"])
    assert names and set(names[1].split(",")) == EXTRAS - {"dev", "robustbench"}


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


def build(source: Path, target: Path, kind: str) -> Path:
    """A wheel or an sdist of a tree, by the build system at hand, offline."""
    target.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(target)!r})"
    # Without PYTHONPATH, so that nothing of this checkout helps along.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist of the tracked tree, and the wheel that is made of it, as ``pip install`` of either would."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools >= 77.0.3 to build, and pip fetches it; the one at hand is older")
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("robustlab", "checkpoints"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, source)
    shutil.copy(ROOT / "LICENSE", source)
    sdist = build(source, place / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    return sdist, build(unpacked, place / "wheel", "wheel")


def test_the_wheel_holds_every_file_of_the_package(built):
    """Built with the setuptools at hand (torch depends on it), from a copy, offline."""
    with zipfile.ZipFile(built[1]) as archive:
        held = set(archive.namelist())
        metadata = archive.read(f"robustlab-{robustlab.__version__}.dist-info/METADATA").decode()
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "robustlab").rglob("*.*") if "__pycache__" not in path.parts}
    assert package <= held
    assert {f"robustlab/pretrained/{name}" for name in RELEASED} <= held
    assert f"robustlab-{robustlab.__version__}.dist-info/licenses/LICENSE" in held
    assert "Requires-Dist: torch>=2.6" in metadata and "Provides-Extra: test" in metadata


def test_the_sdist_holds_what_the_wheel_is_made_of(built):
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"checkpoints/{name}" for name in RELEASED} | {"setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"} <= held


USE = """
import json, os, sys, urllib.request
import robustlab, torch
from robustlab import demo
torch.set_num_threads(1)
assert os.path.dirname(os.path.dirname(robustlab.__file__)) == sys.argv[1], robustlab.__file__
names = sorted(robustlab.list_models().pretrained)
shapes = [tuple(robustlab.load(name)(torch.rand(1, 3, 32, 32)).shape) for name in names]
page = demo.start(names[0])
files = {}
try:
    for path in ("", "static/app.js", "static/style.css", "static/raster.js", "api/meta"):
        with urllib.request.urlopen(page.address.rstrip("/") + "/" + path) as answer:
            files[path] = len(answer.read())
finally:
    page.stop()
print(json.dumps([names, shapes, files]))
"""


def test_installed_by_itself_it_loads_every_model_and_serves_the_page(built, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(tmp_path / "site")]
    done = subprocess.run([*pip, str(built[1])], capture_output=True, text=True, timeout=240)
    if "No module named pip" in done.stderr:  # a wheel is a zip archive of what goes there
        zipfile.ZipFile(built[1]).extractall(tmp_path / "site")
    else:
        assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("ROBUSTLAB_CHECKPOINTS", None)
    command = [sys.executable, "-c", USE, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    names, shapes, served = json.loads(done.stdout)
    assert {f"{name}.json" for name in names} == {name for name in RELEASED if name.endswith(".json")}
    assert all(shape == [1, 10] for shape in shapes) and all(served.values())


def test_an_editable_installation_takes_the_models_of_the_tree():
    assert checkpoints.folder() == ROOT / "checkpoints"
