"""Images outside [0, 1] are refused at the door, with one sentence, in whatever form they come and whoever takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from robustlab import construct, evaluate, synthesize, train
from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.adapt import as_batches, as_images
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images, ImageSet, mean_std, relabelled
from robustlab.errors import UserError
from robustlab.models.architectures import build
from robustlab.models.classifier import Classifier
from robustlab.norms import L2

N = 40
X, Y = images(N, 3, 8, 8), torch.arange(N) % 2
NORMALIZED = (X - 0.5) / 0.25
OUT_OF_RANGE = r"images must .*in \[0, 1\], (found values|got floats) from -\d"


class Items(Dataset[Any]):
    """Single examples, as torchvision's datasets give them after Normalize."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], int(Y[i])


@dataclass(frozen=True, eq=False)
class Foreign:
    """Images of somebody's own, of which nobody has looked at the pixels."""

    pixels: Tensor
    labels: Tensor = Y
    classes: tuple[str, ...] = ("cat", "dog")
    name: str = "foreign"
    shape: tuple[int, int, int] = (3, 8, 8)

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels[index]

    def subset(self, index: Tensor) -> Foreign:
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def only_classes(self, names: Any) -> Foreign:
        index, labels = relabelled(self, names)
        return replace(self.subset(index), labels=labels, classes=tuple(names))

    def mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self)


def in_file(folder: Path, x: Tensor) -> Path:
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", x=x.numpy(), y=Y.numpy())
    return folder


FORMS: dict[str, Callable[[Tensor, Path], Any]] = {
    "a pair of tensors": lambda x, folder: (x, Y),
    "a pair of arrays": lambda x, folder: (x.numpy(), Y.numpy()),
    "a dictionary": lambda x, folder: {"image": x, "label": Y},
    "a TensorDataset": lambda x, folder: TensorDataset(x, Y),
    "a Dataset": lambda x, folder: Items(x),
    "a DataLoader": lambda x, folder: DataLoader(TensorDataset(x, Y), 8),
    "a DataLoader of a Dataset": lambda x, folder: DataLoader(Items(x), 8, shuffle=True, generator=torch.Generator()),
    "a DataLoader with a collate_fn": lambda x, folder: DataLoader(
        Items(x), 8, collate_fn=lambda items: default_collate(items), generator=torch.Generator()
    ),
    "batches": lambda x, folder: [(x[:20], Y[:20]), (x[20:], Y[20:])],
    "Images": lambda x, folder: Foreign(x),
    "Batches": lambda x, folder: Batches(Foreign(x), 8),
    "a path": lambda x, folder: in_file(folder, x),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def model() -> Classifier:
    return build("mlp", num_classes=2, classes=("cat", "dog"), mean=[0.5] * 3, std=[0.25] * 3).eval()


def trained(data: Any, out: Path) -> object:
    return train(
        data, arch="mlp", epochs=1, batch_size=8, out=out, device="cpu", progress=False, stop=lambda: pytest.fail("a step was taken")
    )


def judged(data: Any, out: Path) -> object:
    """Not the images to train on, but those to test on at the end."""
    options: dict[str, Any] = {"out": out, "device": "cpu", "progress": False, "stop": lambda: pytest.fail("a step was taken")}
    return train(ImageSet(X, Y, ("cat", "dog"), "fine"), test=data, arch="mlp", epochs=1, batch_size=8, **options)


def evaluated(data: Any, out: Path) -> object:
    return evaluate(model(), data, PGD(ThreatModel(L2(), 0.5), steps=1), progress=False)


def constructed(data: Any, out: Path) -> object:
    return construct(model(), data, "D_det", steps=1, out=out, progress=False)


def synthesized(data: Any, out: Path) -> object:
    return synthesize("translate", model(), data, steps=1, judge=False, progress=False)


@every_form
@pytest.mark.parametrize("task", [trained, judged, evaluated, constructed, synthesized])
def test_normalized_images_are_refused_before_anything_is_begun(form, task, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=OUT_OF_RANGE) as refused:
        task(form(NORMALIZED, tmp_path / "data"), tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@every_form
def test_images_in_range_are_taken(form, tmp_path):
    taken = as_images(form(X, tmp_path))
    assert torch.equal(taken.fetch(torch.arange(N)), X) and torch.equal(taken.labels, Y)


@every_form
def test_trained_weights_to_begin_with_change_nothing(form, tmp_path):
    """With them the mean and deviation of the images are not asked for, which reads all of the images."""
    with pytest.raises(UserError, match=OUT_OF_RANGE):
        train(form(NORMALIZED, tmp_path), init="cifar10-small-standard", epochs=1, batch_size=8, device="cpu", progress=False)


@pytest.mark.parametrize("make", [Foreign, Items])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_single_image_is_found_by_whoever_reads_it(make, workers):
    """Also in another process, which adds nothing to the sentence."""
    x = X.clone()
    x[30] = 2.5

    def read() -> Iterator[Any]:
        data = make(x)
        if isinstance(data, Dataset):
            yield from Batches(as_images(data), 8, workers=workers).epoch(0)
        else:
            evaluate(model(), as_images(data), workers=workers, progress=False)

    with pytest.raises(UserError) as refused:
        list(read())
    assert "found values from" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_finds_is_one_sentence(workers):
    class Uneven(Items):
        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return X[i][:, : 8 - i % 2], 0

    with pytest.raises(UserError) as refused:
        list(as_batches(Uneven(X), workers=workers))
    assert str(refused.value).startswith("images must be of one size, got (3, 7, 8) and (3, 8, 8)") and "\n" not in str(refused.value)


def test_images_of_whole_grey_levels_are_hardly_looked_at():
    read: list[int] = []

    class Noting(Foreign):
        def fetch(self, index: Tensor) -> Tensor:
            read.extend(index.tolist())
            return super().fetch(index)

    grey: Images = Noting((X * 255).to(torch.uint8))
    assert as_images(grey) is grey and read == [0]
