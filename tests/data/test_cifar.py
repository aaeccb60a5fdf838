"""CIFAR in the official files, here with two images each: read, downloaded when asked, refused when damaged."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from robustlab.data.catalog import open_dataset
from robustlab.data.cifar import FOLDERS, open_cifar
from robustlab.errors import UserError

ROWS = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
KINDS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both datasets in the official format, whose checksums torchvision has been taught."""
    root = tmp_path / "data"
    for name, kind in KINDS.items():
        folder = root / FOLDERS[name]
        folder.mkdir(parents=True)

        def write(file: str, content: dict, folder: Path = folder) -> str:
            (folder / file).write_bytes(pickle.dumps(content))
            return hashlib.md5((folder / file).read_bytes()).hexdigest()

        for part in ("train_list", "test_list"):
            lists = [(file, write(file, {"data": ROWS, LABELS[name]: [1, 0]})) for file, _ in getattr(kind, part)]
            monkeypatch.setattr(kind, part, lists)
        meta = dict(kind.meta)
        meta["md5"] = write(meta["filename"], {meta["key"]: ["plane", "car"]})
        monkeypatch.setattr(kind, "meta", meta)
    return root


@pytest.mark.parametrize(("name", "n"), [("cifar10", 10), ("cifar100", 2)])
def test_images_and_labels_are_those_of_the_files(official, name, n):
    images = open_cifar(name, official, "train")
    assert len(images) == n and images.classes == ("plane", "car") and images.labels[:2].tolist() == [1, 0]
    assert torch.equal(images.pixels[:2], torch.from_numpy(ROWS).view(2, 3, 32, 32))
    assert len(open_cifar(name, official, "test")) == 2


def test_the_place_alone_tells_which_set_it_is(official):
    (official / FOLDERS["cifar100"]).rename(official.parent / FOLDERS["cifar100"])
    for place in (official, official / FOLDERS["cifar10"]):
        assert open_dataset(root=place, split="test").name == "cifar10"
    assert open_dataset(root=official.parent / FOLDERS["cifar100"], split="test").name == "cifar100"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A local web server of ``tmp_path``."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# torchvision unpacks without naming a filter, of which Python 3.12 warns.
@pytest.mark.filterwarnings("ignore:.*extract.*:DeprecationWarning")
def test_it_is_downloaded_when_asked_and_only_then(official, tmp_path, monkeypatch, address, capsys):
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(official / FOLDERS["cifar10"], arcname=FOLDERS["cifar10"])
    monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    empty = tmp_path / "empty"
    with pytest.raises(UserError, match="expected the folder .*cifar-10-batches-py; add `download=True`"):
        open_cifar("cifar10", empty, "train")
    assert not empty.exists()
    assert len(open_cifar("cifar10", empty, "train", download=True)) == 10
    assert capsys.readouterr().out == ""


def test_no_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(UserError, match="cannot download cifar10 in"):
        open_cifar("cifar10", tmp_path / "data", "train", download=True)


def test_a_damaged_file_is_one_sentence(official):
    (official / FOLDERS["cifar10"] / "test_batch").write_bytes(b"cut")
    with pytest.raises(UserError, match="incomplete or damaged; add `download=True`"):
        open_cifar("cifar10", official, "train")
