"""Every file that the project reads, damaged at random: one sentence, or what was there; never a traceback, never other weights.

ROBUSTLAB_MUTATIONS=600 python -m pytest tests/test_fuzz.py    # of each file; 10,800 over all
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from robustlab import files
from robustlab.blocks import Blocks
from robustlab.commands import settings
from robustlab.commands.flags import parse
from robustlab.commands.synthesize import replayed
from robustlab.construction import construct
from robustlab.data.constructed import open_constructed
from robustlab.data.imageset import ImageSet
from robustlab.data.released import open_released
from robustlab.data.tensors import open_safetensors
from robustlab.demo import session
from robustlab.demo.page import _note
from robustlab.errors import UserError
from robustlab.experiments import quickstart
from robustlab.experiments.cache import ExperimentCache, _digest
from robustlab.models.checkpoints import Provenance, pretrained, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import TRAINING_FORMAT, _reached, build, describe, load
from robustlab.options import from_file
from robustlab.records import Run
from robustlab.synthesis import finished, replay
from robustlab.training.prepare import recorded_threads, recorded_training

MUTATIONS = int(os.environ.get("ROBUSTLAB_MUTATIONS", "60"))  # of each file
ODD: list[Any] = [None, True, -1, 0, 3.5, 10**9, 2**63, 2**70, float("nan"), float("inf"), "", "a", "\0", "\ud800", "../x", "9" * 5000]
ODD += [[], {}, [[]], [None], {"a": {}}, {"": None}, ["a", 1], [1.5], "x" * 300, [0] * 40]


def mlp(seed: int = 0) -> Classifier:
    return build("mlp", num_classes=3, channels=1, classes=["a", "b", "c"], seed=seed).eval()


def small_set(n: int = 6) -> ImageSet:
    x = torch.arange(n * 3 * 64, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(n, 3, 8, 8)
    return ImageSet(x, torch.arange(n) % 3, ("a", "b", "c"), "small")


# Files and who reads them. Each writer leaves a file in a folder and returns it, with its reader.

Read = Callable[[], object]


def settings_file(folder: Path) -> tuple[Path, Read]:
    Run.create(folder, {name: value for name, value in asdict(settings.Train()).items()})

    def read() -> None:
        found = Run.settings_of(folder)
        recorded_threads(found)
        recorded_training(found, folder)
        from_file(settings.Train, found, "settings.json", passed_over=True)
        Run.reopen(folder, settings.Train())

    return folder / "settings.json", read


def environment_file(folder: Path) -> tuple[Path, Read]:
    run = Run.create(folder, {"a": 1})
    return folder / "environment.json", lambda: run.environment


def metrics_file(folder: Path) -> tuple[Path, Read]:
    run = Run.create(folder, {"a": 1})
    files.write_text(run.log_file, "".join(json.dumps({"epoch": k, "val/clean": 0.5, "lr": 0.1}) + "\n" for k in range(4)))

    def read() -> None:
        found = Run.reopen(folder, {"a": 1})
        assert all("epoch" in line or "step" in line for line in found.metrics)

    return run.log_file, read


def model_file(folder: Path) -> tuple[Path, Read]:
    path = save_weights(folder / "m", mlp(), Provenance("shapes", "standard", "none", {"clean": 91.0}, 10, 0, "abc", {"a": [1, {}]}))

    def read() -> None:
        load(path)
        for record in pretrained(folder).values():
            _reached(record), _note("mlp", record)

    return path, read


def manifest_file(folder: Path) -> tuple[Path, Read]:
    model = build("mlp", num_classes=3, classes=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        construct(model, small_set(), "D_det", out=folder, steps=1, progress=False)
    return folder / "manifest.json", lambda: len(open_constructed(folder, progress=False))


def export_file(folder: Path) -> tuple[Path, Read]:
    images = small_set()
    torch.save([images.pixels.float() / 255], folder / "S_ims")
    torch.save([images.labels], folder / "S_lab")
    files.write_json(folder / "export.json", {"classes": ["a", "b", "c"], "name": "small"})
    return folder / "export.json", lambda: open_released(folder)


def replay_file(folder: Path) -> tuple[Path, Read]:
    path = folder / "sheet.json"
    given = {
        "task": "translate",
        "model": "m",
        "data": "d",
        "images": 4,
        "target": "dog",
        "eps": 2.0,
        "steps": 10,
        "weight": "inf",
        "seed": 0,
    }
    kept = {
        "format": replay.FORMAT,
        "settings": given,
        "models": {"m": "ab"},
        "judges": {"m": "j"},
        "data": {},
        "versions": {},
        "picture": "ab",
    }
    files.write_json(path, kept)

    def read() -> None:
        args: Any = parse(settings.Synthesize, ["--replay", str(path)], "robustlab synthesize")
        replayed(args, replay.read_replay(path))
        replay.checked_place(folder / "sheet.png")

    return path, read


def finished_file(folder: Path) -> tuple[Path, Read]:
    said = finished.Said(["4 images", "m"], [["PSNR", "20.1"]], ["a note"])
    given: dict[str, Any] = {"task": "translate", "settings": {"eps": 2.0, "weight": "inf"}, "models": ["ab"], "images": {"name": "d"}}
    (folder / "sheet.png").write_bytes(b"sheet")

    def make(blocks: Blocks) -> finished.Said:
        return said

    def read() -> None:
        again = finished.made_once(folder / "out", folder / "sheet.png", given, {"columns": 10}, make)
        assert (again.heads, again.rows, again.notes[:1]) == (said.heads, said.rows, said.notes), "other numbers than were measured"

    read()
    return folder / "out" / "finished.json", read


def quickstart_file(folder: Path) -> tuple[Path, Read]:
    args = quickstart.Settings()
    quickstart._claim(folder, args)
    (folder / next(iter(quickstart.RECIPES))).mkdir()
    content = (folder / "quickstart.json").read_bytes()

    def read() -> None:
        quickstart._claim(folder, args)
        (folder / "quickstart.json").write_bytes(content)

    return folder / "quickstart.json", read


def measurement_file(folder: Path) -> tuple[Path, Read]:
    found = {"clean": {"count": 3, "n": 4}, "curve": [[0.0, 0.5], [1.0, 0.25]]}
    files.write_json(folder / "m.json", {"settings": {}, "found": found, "sha256": _digest(found), "seconds": 1})

    def read() -> None:
        again = ExperimentCache(folder)._found(folder / "m.json")
        if "sha256" in json.loads((folder / "m.json").read_bytes()):
            assert again == found, "other numbers than were measured"

    return folder / "m.json", read


def history_file(folder: Path) -> tuple[Path, Read]:
    brush = {"do": "brush", "points": [[0, 0], [3, 4]], "color": [1, 2, 3], "width": 2}
    box = {"do": "rectangle", "from": [1, 1], "to": [3, 3], "color": [9, 9, 9]}
    files.write_json(folder / "history.json", {"size": 8, "actions": [{"do": "fill", "color": [7, 7, 7]}, brush, box]})
    return folder / "history.json", lambda: session.replay(files.read_json(folder / "history.json", "a history of the page"))


def config_file(folder: Path) -> tuple[Path, Read]:
    text = (
        'recipe = "fast-l2"\nepochs = 3\nclasses = ["a", "b"]\n[training.threat]\neps = 0.5\n[training.optimizing]\nlr = 0.1\namp = true\n'
    )
    (folder / "c.toml").write_text(text)
    return folder / "c.toml", lambda: parse(settings.Train, ["--config", str(folder / "c.toml")], "robustlab train")


def images_file(folder: Path) -> tuple[Path, Read]:
    images = small_set()
    save_file({"x": images.pixels, "y": images.labels}, folder / "i.safetensors", metadata={"classes": json.dumps(list(images.classes))})
    return folder / "i.safetensors", lambda: open_safetensors(folder / "i.safetensors")


FILES = {
    write.__name__: write
    for write in (
        settings_file, environment_file, metrics_file, model_file, manifest_file, export_file, replay_file, finished_file, quickstart_file,
        measurement_file, history_file, config_file, images_file,
    )
}  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A flipped bit, a piece lost, doubled or foreign, a byte order mark, other brackets."""
    at, length = draw.randrange(len(content)), draw.choice([1, 2, 8, 40])
    foreign = draw.choice(
        [b"\xff", b"\0", b"9" * 25, b"1e999", b"NaN", b"-", b'"', b"[" * 3000, b"{}", b"\n", "é".encode("latin-1"), b"null"]
    )
    return draw.choice(
        [
            content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :],
            content[:at] + content[at + length :],
            content[:at] + content[at : at + length] * 2 + content[at + length :],
            content[:at] + foreign + content[at:],
            content[:at] + foreign + content[at + length :],
            content[:at],
            draw.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]) + content,
            content.decode("latin-1").encode("utf-16"),
        ]
    )


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list and object within a value, with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(content: bytes, draw: random.Random) -> bytes:
    """Another value, a name lost, doubled or new, in one of the file's JSON texts."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    at = draw.choice([k for k, line in enumerate(lines) if line.strip()])
    value = json.loads(lines[at])
    inner, key = draw.choice(list(places(value)))
    odd = draw.choice(ODD)
    what = draw.randrange(6)
    if what == 0 and isinstance(inner, dict):
        del inner[key]
    elif what == 1:
        value = odd
    elif what == 2 and isinstance(inner, list):
        inner.append(odd)
    else:
        inner[key] = odd
    text = json.dumps(value)
    if what == 3 and isinstance(value, dict) and value:
        name = json.dumps(next(iter(value)))
        text = "{" + f"{name}: 1, " + text[1:]
    return b"\n".join([*lines[:at], text.encode(), *lines[at + 1 :]])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_damaged_anywhere_ends_in_one_sentence(name: str, tmp_path: Path) -> None:
    path, read = FILES[name](tmp_path)
    read()
    content = path.read_bytes()
    draw = random.Random(name)
    is_json = path.suffix in (".json", ".jsonl")
    for k in range(MUTATIONS):
        other = changed(content, draw) if is_json and k % 2 else damaged(content, draw)
        path.write_bytes(other)
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
        except UserError as error:
            assert "\n" not in str(error), f"mutation {k}: {error}"
        except SystemExit as end:  # what argparse says of a value in a file
            assert end.code == 2 and said.getvalue().count("\n") == 1, f"mutation {k}: {said.getvalue()}"
        except BaseException as error:
            raise AssertionError(f"mutation {k} of {name}, {other[:2000]!r}: {type(error).__name__} {error}") from error
        path.write_bytes(content)


# Weights


def checkpoint(seed: int) -> dict[str, Any]:
    model = mlp(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(2, 1, 32, 32)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "ema": None, "optimizer": optimizer.state_dict(), "epoch": 3, "best": {"value": 0.5, "epoch": 2}}
    return {"format": TRAINING_FORMAT, **describe(model), **state}


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "theirs.pt", "model.safetensors", "model.json"])
def test_a_flipped_bit_is_told_or_does_nothing(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save("last", checkpoint(1))
    run.save("best", checkpoint(2))
    torch.save({"state_dict": build("mlp", num_classes=3).state_dict()}, tmp_path / "theirs.pt")
    save_weights(tmp_path / "model", mlp(4), Provenance("shapes", "standard", "none", {"clean": 91.0}, 10, 0, "abc"))
    path = tmp_path / name
    whole = path.read_bytes()

    def weights() -> dict[str, torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load(path).state_dict()
            resumed = run.load(path.stem) if name in ("last.pt", "best.pt") else None
        optimizer = resumed["optimizer"]["state"] if resumed else {}
        return {**found, **{f"momentum {k}": state["momentum_buffer"] for k, state in optimizer.items()}}

    right, told = weights(), 0
    draw = random.Random(name)
    for k in range(max(MUTATIONS, 100)):
        near = draw.choice([len(whole), len(whole), 2000])  # the beginning and the end hold what is no weight
        at = draw.randrange(near) if draw.random() < 0.8 else len(whole) - 1 - draw.randrange(min(2000, len(whole)))
        bits = bytearray(whole)
        bits[min(at, len(whole) - 1)] ^= 1 << draw.randrange(8)
        path.write_bytes(bits)
        try:
            found = weights()
        except UserError as error:
            assert "\n" not in str(error)
            told += 1
            continue
        assert found.keys() == right.keys() and all(torch.equal(found[each], right[each]) for each in right), f"flip {k} at byte {at}"
    assert told > (0.5 if path.suffix != ".json" else 0.1) * max(MUTATIONS, 100)
