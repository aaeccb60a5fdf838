#!/usr/bin/env python3
"""From a fresh clone to a result with one command; standard library only.

    python3 scripts/bootstrap.py quickstart [options]    train, attack and compare two models on the embedded data
    python3 scripts/bootstrap.py test [pytest options]   run the tests
    python3 scripts/bootstrap.py lint [mypy options]     run ruff and mypy
    python3 scripts/bootstrap.py docs [mkdocs options]   build the documentation's site into site/
    python3 scripts/bootstrap.py serve-docs [the same]   show the site at http://127.0.0.1:8000 and follow changes

A Python that already has what setup.cfg asks for is used as it is. Otherwise .venv is made, and filled again only when
setup.cfg, pyproject.toml or constraints.txt changed or an extra is missing. The exit code is the command's own, or 2
after one sentence that says why it could not start.

The syntax is that of Python 3.6, so that an old interpreter says what it lacks instead of stumbling over this file.
"""

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Iterable, List, NoReturn, Optional, Set, Union

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".robustlab-stamp"
OLDEST = (3, 11)
NEEDED = f"Python {OLDEST[0]}.{OLDEST[1]} or newer"
GIGABYTES = 7  # torch's default wheels carry CUDA: 5.9 GB once installed, with the test tools

# For each verb the extras it needs, and the modules to run one after the other.
VERBS = {
    "quickstart": ((), ["robustlab quickstart"]),
    "test": (("test",), ["pytest"]),
    "lint": (("test",), ["ruff check .", "mypy"]),
    "docs": (("docs",), ["mkdocs build --strict"]),
    "serve-docs": (("docs",), ["mkdocs serve"]),
}


class Trouble(Exception):
    """Why nothing can be started, in one sentence."""


def main(argv: List[str]) -> int:
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        if not argv or argv[0] not in VERBS:
            raise Trouble(f"say what to run, one of {', '.join(VERBS)}" + (f"; not {argv[0]!r}" if argv else ""))
        if sys.version_info < OLDEST:
            hand_over([newer_python(), __file__, *argv])
        extras, modules = VERBS[argv[0]]
        return run(interpreter(extras), modules, argv[1:])
    except (Trouble, OSError) as trouble:
        say(str(trouble))
        return 2
    except KeyboardInterrupt:
        return 130


def interpreter(extras: Iterable[str]) -> str:
    """A Python that has what setup.cfg and its ``extras`` ask for: this one, or that of .venv, filled where needed."""
    if all(map(satisfied, requirements(extras))):
        return sys.executable
    present = stamped_extras()
    if present is None or not present.issuperset(extras) or not PYTHON.exists():
        install({*extras, *(present or ())})
    return str(PYTHON)


def run(python: str, modules: List[str], options: List[str]) -> int:
    """Run each module until one fails; the last also gets ``options`` and takes this process's place.

    The tools find their settings beside setup.cfg. For robustlab the working directory stays the user's, so that paths
    among the options mean what was meant.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # else mkdocs-material advertises its successor at each build
    if not modules[0].startswith("robustlab"):
        os.chdir(ROOT)
    *first, last = ([python, "-m", *module.split()] for module in modules)
    for command in first:
        code = subprocess.call(command)
        if code:
            return code
    hand_over([*last, *options])


def requirements(extras: Iterable[str]) -> List[str]:
    """Lines such as ``torch>=2.6``: the core's and those of the extras."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    return "\n".join(lists).split()


def satisfied(requirement: str) -> bool:
    """Whether this interpreter has the distribution, at its floor or above."""
    from importlib import metadata  # not at the top: Python 3.7 has none, and must still reach its sentence

    name, _, floor = requirement.partition(">=")
    try:
        return release(metadata.version(name)) >= release(floor)
    except metadata.PackageNotFoundError:
        return False


def release(version: str) -> List[int]:
    """Four leading numbers: ``"2.6.0a0+nv25.1"`` is [2, 6, 0, 0]. A vendor's pre-release counts as its release."""
    digits = "".join(c if c in "0123456789." else " " for c in version).split(" ")[0]
    return ([int(part) for part in digits.split(".") if part] + [0] * 4)[:4]


def stamped_extras() -> Optional[Set[str]]:
    """The extras in .venv; None where it was filled for other files, by other means, or not to the end."""
    try:
        mark, *extras = STAMP.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return set(extras) if mark == fingerprint() else None


def fingerprint() -> str:
    """SHA-256 of the files that decide what .venv holds."""
    names = ("setup.cfg", "pyproject.toml", "constraints.txt")
    return hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in names)).hexdigest()


def install(extras: Set[str]) -> None:
    """Make .venv where there is none and install robustlab into it, in place, with ``extras``."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES and not any(VENV.glob("lib/python*/site-packages/torch")):
        raise Trouble(f"installing takes about {GIGABYTES} GB and {ROOT} has {free:.1f} GB free; make room, or use a Python with torch")
    make_venv()
    STAMP.unlink(missing_ok=True)  # an installation that breaks off must not pass for a finished one
    pip = [str(PYTHON), "-m", "pip"]
    if not succeeds([*pip, "--version"]):  # uv makes environments without pip
        succeeds([str(PYTHON), "-m", "ensurepip"])
    what = f".[{','.join(sorted(extras))}]" if extras else "."
    say(f"installing {what} into {VENV}; the first time takes some minutes and 6 GB, most of it torch")
    if subprocess.call([*pip, "install", "-c", "constraints.txt", "-e", what], cwd=ROOT):
        raise Trouble(f"pip could not install robustlab into {VENV}; its last lines above say why, and the same command tries again")
    STAMP.write_text("\n".join([fingerprint(), *sorted(extras)]) + "\n", encoding="utf-8")


def make_venv() -> None:
    if VENV.exists():
        if not is_modern(PYTHON):
            raise Trouble(f"{VENV} holds no working {NEEDED}; move it away, then run this again")
        return
    if not (find_spec("venv") and find_spec("ensurepip")):
        raise Trouble(f"{sys.executable} lacks venv or ensurepip; on Debian and Ubuntu `apt install python3-venv` brings both")
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]):
        shutil.rmtree(VENV, ignore_errors=True)
        raise Trouble(f"{sys.executable} could not make {VENV}; its last lines above say why")


def newer_python() -> str:
    """An interpreter that is new enough: that of .venv, or one on PATH."""
    names = [str(PYTHON), *(f"python3.{minor}" for minor in range(OLDEST[1], 15))]
    for candidate in filter(None, map(shutil.which, names)):
        if is_modern(candidate):
            return candidate
    raise Trouble(
        f"robustlab needs {NEEDED}, this is {sys.version.split()[0]} and PATH has no other; "
        "install one, for example with `uv python install 3.12`, pyenv or your system's packages"
    )


def is_modern(python: Union[str, Path]) -> bool:
    """Whether it runs (PATH may name shims that do not) and is new enough."""
    return succeeds([str(python), "-c", f"import sys; sys.exit(sys.version_info < {OLDEST})"])


def succeeds(command: List[str]) -> bool:
    try:
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def hand_over(command: List[str]) -> NoReturn:
    """Become ``command``: signals reach it, and its exit code is ours."""
    if os.name == "nt":  # where exec returns to the shell before the command has ended
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def say(sentence: str) -> None:
    print(f"bootstrap: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
