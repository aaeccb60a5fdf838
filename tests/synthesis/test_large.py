"""At 224 pixels, through a ResNet-50 of a user's own: shapes, and as many images in memory as a batch has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from laws import images
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from robustlab.commands import main
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import load
from robustlab.synthesis import Fourier, Search, edit, features
from robustlab.synthesis.budget import published_search

SIZE, CLASSES = 224, ("hill", "lake", "wood")
ONE_STEP = Search(1.0, 0.5, 1)
FREE_STEP = Search(None, 0.5, 1)


def saved(path: Path, network: Callable[..., nn.Module]) -> Path:
    """A checkpoint as a training script of somebody else's leaves it: of a wrapped torchvision network, without its normalization."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = network(num_classes=len(CLASSES)).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("large") / "theirs.pt", torchvision.models.resnet50)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Classifier:
    return load(checkpoint, normalization=([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@pytest.fixture
def batches() -> Iterator[list[int]]:
    """How many images each pass through a classifier had."""
    seen: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            seen.append(len(inputs[0]))

    handle = register_module_forward_pre_hook(note)
    yield seen
    handle.remove()


def mask() -> Tensor:
    hole = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    hole[..., 60:120, 60:120] = True
    return hole


SEARCHES: dict[str, Callable[[Classifier, Tensor], Tensor]] = {
    "translate": lambda model, x: edit.translate(model, x, torch.tensor([1]), ONE_STEP),
    "super-resolve": lambda model, x: edit.super_resolve(model, x[..., ::7, ::7], torch.tensor([1]), SIZE, ONE_STEP),
    "inpaint": lambda model, x: edit.inpaint(model, x, mask(), torch.tensor([1]), ONE_STEP),
    "paint": lambda model, x: edit.paint(model, x, mask(), 5, ONE_STEP, "body.layer4"),
    "invert": lambda model, x: features.invert(model, x, 1 - x, FREE_STEP, "body.layer3"),
    "visualize": lambda model, x: features.visualize(model, 5, x, FREE_STEP, "body.layer2", Fourier()),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_searches_give_images_of_the_same_size(search: str, model: Classifier) -> None:
    assert model.arch == "torchvision:resnet50"
    x = images(1, 3, SIZE, SIZE)
    found = SEARCHES[search](model, x)
    assert found.shape == x.shape and found.min() >= 0 and found.max() <= 1


def test_a_batch_is_all_that_is_in_the_network_at_a_time(checkpoint: Path, tmp_path: Path, batches: list[int], capsys) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.fromarray(random.integers(0, 256, (240, 260, 3), dtype=np.uint8)).save(tmp_path / "data" / split / name / "0.png")
    judge = saved(tmp_path / "judge.pt", torchvision.models.resnet18)
    words = ["--model", checkpoint, "--judge", judge, "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2", "--data", tmp_path / "data"]
    words += ["--image-size", SIZE, "--images", 3, "--batch-size", 2, "--steps", 1, "--device", "cpu", "--threads", 1]
    words += ["--grid", tmp_path / "sheet.png", "--out", tmp_path / "out"]
    assert main(["synthesize", "translate", *map(str, words)]) == 0, capsys.readouterr().err
    assert max(batches) == 2 and sum(batches) >= 3 * 3  # two passes of the search and one of the judge for each image
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert len(pictures) == 3
    with Image.open(pictures[0]) as picture:
        assert picture.size == (SIZE, SIZE)
    assert f"--eps={published_search('translate', SIZE).eps:g}" in (tmp_path / "sheet.json").read_text(), (
        "the settings are those of this size"
    )
