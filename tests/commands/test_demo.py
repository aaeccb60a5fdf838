"""``robustlab demo``: what is served, and what is refused before anything listens."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import labelled
import numpy as np
import pytest
import torch

from robustlab.demo import launch, server
from robustlab.models.checkpoints import Provenance, pretrained, save_weights
from robustlab.models.zoo import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What ``serve_page`` would have been called with."""
    found: dict = {}

    def serve(page, host, port, *, token, on_ready):
        found.update(page=page, host=host, port=port, token=token)
        on_ready(f"http://{host}:{port}/")

    monkeypatch.setattr(server, "serve_page", serve)
    return found


def test_the_shipped_models_and_pictures_of_shapes_by_default(call, served) -> None:
    told = call("demo", "--device", "cpu")
    assert told.code == 0, told.err
    page = served["page"]
    known = pretrained()
    robust = [name for name in known if known[name]["threat"] != "none"]
    assert list(page.models) == [*robust, *(name for name in known if name not in robust)] and page.size == 32
    assert served["host"] == "127.0.0.1" and served["token"] is None and served["port"] == 8765
    names = [starter.name for starter in page.starters]
    assert "meadow" in names and "heart" in names
    assert "open http://127.0.0.1:8765/" in told.out
    assert "clean 76.9 %" in page.models["cifar10-small-l2"].note
    assert {attribute.name for attribute in page.models["cifar10-small-l2"].attributes} >= {"wings", "wheels"}


def test_one_model_and_other_pictures(call, served, tmp_path: Path) -> None:
    names = pretrained()["cifar10-small-l2"]["classes"]
    np.savez(tmp_path / "test.npz", x=np.zeros((10, 16, 16, 3), np.uint8), y=np.arange(10), classes=np.array(names))
    assert call("demo", "--model", "cifar10-small-l2", "--data", tmp_path, "--device", "cpu").code == 0
    assert list(served["page"].models) == ["cifar10-small-l2"] and served["page"].size == 16
    assert [starter.name for starter in served["page"].starters][-10:] == names


def test_pictures_with_attributes_bring_their_buttons(call, refused, served, tmp_path: Path) -> None:
    labelled.write_celeba(tmp_path, 60)
    words = ["demo", "--model", "cifar10-small-l2+cifar10-small-l2-eps1", "--data", tmp_path, "--device", "cpu"]
    told = call(*words)
    assert told.code == 0, told.err
    (model,) = served["page"].models.values()
    assert [each.name for each in model.attributes] == ["Bright Top", "Red"] and served["page"].size == 32
    assert call(*words, "--image-size", "24").code == 0 and served["page"].size == 24
    path = tmp_path / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace("60", "61", 1))
    assert "line 1 says that there are 61 pictures, but 60 follow" in refused(*words)


def test_models_of_ones_own_have_short_names_and_what_is_known_of_them(call, served, tmp_path: Path) -> None:
    for name in ("one", "two"):
        provenance = Provenance("shapes", "fast-l2", "L2 eps=0.5", {"clean": 88.0} if name == "one" else {}, 100, 0, "abc")
        save_weights(tmp_path / name / "model", build("mlp", num_classes=3), provenance)
    words = ["--model", f"{tmp_path}/one/model.json,{tmp_path}/two/model.safetensors", "--device", "cpu"]
    assert call("demo", *words).code == 0
    assert [(name, one.note) for name, one in served["page"].models.items()] == [
        ("one-model", "mlp on shapes, trained against L2 eps=0.5: clean 88.0 % (n = 100)"),
        ("two-model", "mlp on shapes, trained against L2 eps=0.5"),
    ]


def test_outputs_without_names_take_those_of_the_data(call, served, tmp_path: Path) -> None:
    theirs = build("mlp", num_classes=3).state_dict()
    torch.save({"state_dict": theirs}, tmp_path / "theirs.pt")
    np.savez(tmp_path / "test.npz", x=np.zeros((10, 32, 32, 3), np.uint8), y=np.arange(10) % 3, classes=np.array(["ant", "bee", "cow"]))
    words = ["demo", "--model", tmp_path / "theirs.pt", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2", "--device", "cpu"]
    assert call(*words, "--data", tmp_path).code == 0
    (model,) = (one.model for one in served["page"].models.values())
    assert model.classes == ("ant", "bee", "cow") and model.mean.flatten().tolist() == [0.5] * 3
    assert call(*words).code == 0
    assert next(iter(served["page"].models.values())).model.classes == ("0", "1", "2"), "the sketches' names are not theirs"


def test_another_host_gets_a_token_of_its_own(call, served) -> None:
    words = ["demo", "--model", "cifar10-small-l2", "--host", "0.0.0.0", "--device", "cpu"]
    told = call(*words)
    assert "warning: other machines can reach" in told.out and len(served["token"]) >= 20
    first = served["token"]
    call(*words)
    assert served["token"] != first
    call(*words, "--token", "open-sesame-123")
    assert served["token"] == "open-sesame-123"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--model", "cifar10-smal-l2"], "Did you mean 'cifar10-small-l2'"),
        (["--token", "short"], "at least 12"),
        (["--token", "spaces are no good"], "at least 12"),
        (["--port", "70000"], "up to 65535"),
        (["--data", "nowhere"], "nothing at nowhere"),
        (["--device", "abacus"], "unknown device"),
        (["--prot", "1"], "Did you mean '--port'"),
    ],
)
def test_mistakes(refused, served, words, sentence) -> None:
    assert sentence in refused("demo", *words)


def test_missing_packages_are_named(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    assert "pip install 'robustlab[web]'" in refused("demo")


def test_it_serves_until_ctrl_c() -> None:
    """The script, as a process of its own."""
    words = [sys.executable, "scripts/serve_demo.py", "--model", "cifar10-small-l2", "--port", "0", "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("open "))
        host = line.split()[1].removeprefix("http://").rstrip("/")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("GET", "/api/meta")
        assert json.loads(connection.getresponse().read())["size"] == 32
        connection.close()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (0, 130) and "Traceback" not in err
