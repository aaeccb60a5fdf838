"""Data in every form: the same images, labels and draws however they come, and a sentence for what they cannot be."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from robustlab.data.adapt import DatasetImages, as_batches, as_images
from robustlab.data.batches import Batch, Batches
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import generator

N, SHAPE, NAMES = 23, (3, 6, 5), ("cat", "dog", "owl")
PIXELS = torch.randint(0, 256, (N, *SHAPE), generator=generator(0, "pixels"), dtype=torch.uint8)
LABELS = torch.arange(N) * 7 % 3
IMAGES = ImageSet(PIXELS, LABELS, NAMES, "noise")
X = to_float(PIXELS)
SINGLES = [(x, int(y)) for x, y in zip(X, LABELS, strict=True)]


class Pictures(Dataset):
    """What torchvision's datasets are: PIL images, a list of targets, names of classes."""

    classes = list(NAMES)

    def __init__(self, transform: Callable[[Any], Any] = lambda picture: picture) -> None:
        self.targets, self.transform = LABELS.tolist(), transform

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy())), self.targets[i]


class Rows:
    """What Hugging Face's datasets are: rows that are dictionaries, read by their numbers."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= N:
            raise IndexError(i)
        return {"image": Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy()), "label": int(LABELS[i])}


class Flow(IterableDataset):
    """Examples one after another."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(x, int(y)) for x, y in zip(X, LABELS, strict=True)])


def tensor(picture: Image.Image) -> Tensor:
    """What torchvision's ToTensor does."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def cut(*columns: Any, size: int = 4) -> Iterator[tuple[Any, ...]]:
    return (tuple(column[i : i + size] for column in columns) for i in range(0, N, size))


def saved(tmp_path: Path) -> Path:
    np.savez(tmp_path / "test.npz", x=PIXELS.permute(0, 2, 3, 1).numpy(), y=LABELS.numpy(), classes=np.array(NAMES))
    (tmp_path / "train.npz").write_bytes((tmp_path / "test.npz").read_bytes())
    return tmp_path


FORMS: dict[str, Callable[[Path], Any]] = {
    "images": lambda _: IMAGES,
    "batches of images": lambda _: Batches(IMAGES, 6, seed=3),
    "a path": saved,
    "a path as text": lambda place: str(saved(place)),
    "two tensors": lambda _: (PIXELS, LABELS),
    "two tensors of floats": lambda _: [X, LABELS.int()],
    "doubles": lambda _: (PIXELS.double() / 255, LABELS),
    "labels in a column": lambda _: (PIXELS, LABELS[:, None]),
    "a list of labels": lambda _: (X, LABELS.tolist()),
    "two arrays": lambda _: (PIXELS.numpy(), LABELS.numpy()),
    "channels last": lambda _: (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS.numpy()),
    "a dictionary": lambda _: {"images": PIXELS, "labels": LABELS},
    "a dataset of PIL images": lambda _: Pictures(),
    "a dataset of tensors": lambda _: Pictures(tensor),
    "a dataset of arrays": lambda _: Pictures(np.array),
    "a dataset of rows": lambda _: Rows(),
    "a tensor dataset": lambda _: TensorDataset(X, LABELS),
    "three tensors": lambda _: TensorDataset(PIXELS, LABELS, torch.arange(N)),
    "a subset": lambda _: Subset(Pictures(), list(range(N))),
    "a flow": lambda _: Flow(),
    "a loader": lambda _: DataLoader(Pictures(tensor), batch_size=5),
    "a loader of tensors": lambda _: DataLoader(TensorDataset(X, LABELS), batch_size=5),
    "a loader of single images": lambda _: DataLoader(Pictures(tensor), batch_size=None),
    "a loader of a flow": lambda _: DataLoader(Flow(), batch_size=5),
    "a list of batches": lambda _: list(cut(X, LABELS)),
    "an iterator of batches": lambda _: cut(PIXELS, LABELS),
    "batches of lists": lambda _: cut(list(PIXELS.numpy()), list(LABELS)),
    "batches with more": lambda _: cut(PIXELS, LABELS, torch.arange(N)),
    "batches in dictionaries": lambda _: ({"img": x, "target": y} for x, y in cut(PIXELS, LABELS)),
    "single examples": lambda _: [(x, int(y)) for x, y in zip(PIXELS, LABELS, strict=True)],
    "single pictures": lambda _: [Pictures()[i] for i in range(N)],
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def joined(batches: Any) -> Batch:
    found = list(batches)
    return Batch(*(torch.cat([getattr(batch, field) for batch in found]) for field in ("x", "y", "index", "keys")))


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in ("x", "y", "index", "keys"))


@every_form
def test_the_same_batches_come_of_every_form(form, tmp_path):
    expected = joined(Batches(IMAGES, 10, seed=3).epoch(0))
    stream = as_batches(form(tmp_path), batch_size=10, seed=3)
    found = joined(stream)
    assert same(found, expected)
    assert (found.x.dtype, found.y.dtype, found.index.dtype, found.keys.dtype) == (torch.float32, *[torch.int64] * 3)
    assert stream.n in (None, N) and stream.classes in ((), NAMES)


@every_form
def test_the_same_images_come_of_every_form(form, tmp_path):
    found = as_images(form(tmp_path))
    order = torch.arange(N).flip(0)
    assert len(found) == N and found.shape == SHAPE and torch.equal(found.labels, LABELS)
    assert torch.equal(to_float(found.fetch(order)), X[order])
    assert found.classes in (NAMES, ("0", "1", "2"))
    some = found.subset(order[:7]).only_classes([found.classes[2], found.classes[0]])
    expected = IMAGES.subset(order[:7]).only_classes(["owl", "cat"])
    assert torch.equal(some.labels, expected.labels) and torch.equal(
        to_float(some.fetch(torch.arange(len(some)))), to_float(expected.pixels)
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.mean_std(), IMAGES.mean_std(), strict=True))
    assert found.fetch(order[:0]).shape == (0, *SHAPE)


@seeded
@given(batch_size=st.integers(1, 30), size=st.integers(1, 30), seed=st.integers(0, 3))
def test_draws_follow_the_place_of_an_image_whatever_the_batches(batch_size, size, seed):
    expected = joined(Batches(IMAGES, N, seed=seed).epoch(0))
    for data in (cut(PIXELS, LABELS, size=size), SINGLES, (PIXELS, LABELS)):
        assert same(joined(as_batches(data, batch_size=batch_size, seed=seed)), expected)


@pytest.mark.parametrize("data", [(PIXELS, LABELS), Pictures(), SINGLES], ids=["pair", "dataset", "list"])
def test_data_without_batches_are_cut_into_batches(data):
    assert [len(batch.y) for batch in as_batches(data, batch_size=10)] == [10, 10, 3]


def test_a_loader_s_batches_are_taken_as_they_come():
    assert [len(batch.y) for batch in as_batches(DataLoader(TensorDataset(X, LABELS), batch_size=7), batch_size=10)] == [7, 7, 7, 2]


def test_a_stream_is_read_again_where_the_data_can_be():
    stream = as_batches((X, LABELS), batch_size=10)
    assert same(joined(stream), joined(stream)) and (stream.n, stream.name) == (N, "the data")


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(TensorDataset(X, LABELS), batch_size=5, shuffle=True),
        lambda: DataLoader(TensorDataset(X, LABELS), batch_size=5, sampler=SubsetRandomSampler(range(N))),
        lambda: DataLoader(TensorDataset(X, LABELS), batch_sampler=[[i] for i in range(N)]),
    ],
    ids=["shuffled", "sampled", "batches of its own"],
)
def test_where_the_order_is_not_known_draws_follow_the_content(loader):
    """The same image gets the same draws whenever it comes; ``index`` only counts."""
    first, second = (joined(as_batches(loader(), seed=3)) for _ in range(2))
    by_content = [{x.numpy().tobytes(): int(key) for x, key in zip(one.x, one.keys, strict=True)} for one in (first, second)]
    assert by_content[0] == by_content[1] and len(set(by_content[0].values())) == N
    assert first.index.tolist() == list(range(N))
    other = joined(as_batches(loader(), seed=4))
    assert not set(other.keys.tolist()) & set(first.keys.tolist())


def test_batches_with_keys_of_their_own_are_taken_as_they_are():
    batch = Batch(X.double(), LABELS, torch.arange(N) + 100, torch.arange(N) * 3)
    (found,) = as_batches([batch], device=None)
    assert found is batch
    (found,) = as_batches(iter([batch]), device="cpu")
    assert same(found, batch) and found.x.dtype == torch.float64


class Counted:
    """A long flow of batches that counts how many of them are alive."""

    def __init__(self, count: int) -> None:
        self.count, self.alive, self.most = count, 0, 0

    def _gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(self.count):
            x = torch.full((4, 3, 2, 2), i % 256, dtype=torch.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(x, self._gone)
            yield x, torch.zeros(4, dtype=torch.int64)
            del x


def test_memory_does_not_grow_with_the_data():
    for count in (5, 50):
        data = Counted(count)
        assert sum(len(batch.y) for batch in as_batches(data)) == 4 * count
        assert data.most <= 3 and data.alive <= 1


class Items(Dataset):
    """Any items, with anything else that a dataset may say of itself."""

    def __init__(self, items: list[Any], **more: Any) -> None:
        self.items = items
        vars(self).update(more)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


FIVE = SINGLES[:5]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"targets": [2] * 5},
        {"targets": [0, 1]},
        {"targets": ["cat"] * 5},
        {"labels": LABELS[:5].numpy()},
        {"targets": [0, 0, 2, 0, 1], "target_transform": str},
    ],
    ids=["none", "wrong", "too few", "text", "right", "changed when read"],
)
def test_labels_are_those_that_the_items_have(more):
    assert as_images(Items(FIVE, **more)).labels.tolist() == LABELS[:5].tolist()


def test_a_list_of_labels_saves_reading_the_items():
    read: list[int] = []

    class Slow(Pictures):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            read.append(i)
            return super().__getitem__(i)

    assert torch.equal(as_images(Slow()).labels, LABELS)
    assert torch.equal(as_images(Subset(Slow(), [4, 9, 2])).labels, LABELS[[4, 9, 2]])
    assert len(read) <= 8


def test_names_of_classes_come_along():
    assert as_images(Subset(Pictures(), [0, 1])).classes == NAMES
    assert as_images(DataLoader(Pictures(tensor))).classes == NAMES
    assert as_images((X, LABELS), classes=["a", "b", "c"], name="mine").classes == ("a", "b", "c")
    assert as_images((X, LABELS), name="mine").name == "mine" and as_images(Pictures()).name == "Pictures"
    assert as_images(Items(FIVE, classes=[("tench", "Tinca"), ("goldfish",), "shark"])).classes == ("tench, Tinca", "goldfish", "shark")


def test_what_a_loader_chooses_is_kept_to():
    """The dataset behind a loader stands for it only where the loader gives all of it."""
    half = DataLoader(TensorDataset(PIXELS, LABELS), batch_size=4, sampler=SubsetRandomSampler(range(10)))
    assert len(as_images(half)) == 10
    mirrored = DataLoader(Pictures(tensor), collate_fn=lambda items: (torch.stack([x.flip(-1) for x, _ in items]), [y for _, y in items]))
    assert torch.equal(as_images(mirrored).fetch(torch.arange(N)), X.flip(-1))
    assert isinstance(as_images(DataLoader(Pictures(tensor), shuffle=True)), DatasetImages)


def test_random_transforms_stay_random():
    images = as_images(Pictures(lambda picture: torch.rand(3, 6, 5)))
    assert not torch.equal(images.fetch(torch.arange(3)), images.fetch(torch.arange(3)))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_pictures_of_every_mode(mode, channels):
    found = as_images(Items([(Image.new("RGB", (4, 4), (9, 9, 9)).convert(mode), 0)]))
    assert found.shape == (channels, 4, 4)


def test_two_tensors_are_not_copied():
    assert as_images((PIXELS, LABELS)).pixels.data_ptr() == PIXELS.data_ptr()


# Python 3.12 warns of every fork beside threads, and pytest-xdist has some.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_other_processes_read_the_same():
    assert same(joined(as_batches(Pictures(), batch_size=5, workers=2)), joined(as_batches(IMAGES)))


ONE_HOT = torch.nn.functional.one_hot(LABELS)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: 3, "data must be images of robustlab, a path, a torch Dataset or DataLoader"),
    "no labels": (lambda: X, "labels are missing: give a pair (x, y) of images and class numbers"),
    "no pairs": (lambda: [X, X, X], "data must give pairs (x, y) of images and labels, got Tensor"),
    "normalized": (lambda: (2 * X - 1, LABELS), "found values from -1 to 1: take Normalize out of the data's transform"),
    "a normalized loader": (lambda: DataLoader(TensorDataset(X - 0.5, LABELS)), "nn.Sequential(Normalize(mean, std), model)"),
    "0 to 255": (lambda: (PIXELS.float(), LABELS), "give them as uint8 or divide them by 255"),
    "no number": (lambda: (X * torch.nan, LABELS), "images must lie in [0, 1], found NaN"),
    "whole numbers": (lambda: (PIXELS.int(), LABELS), "images must be uint8 or floating point in [0, 1], got torch.int32"),
    "text for images": (lambda: [("cat.png", 0)], "images must be tensors, arrays or PIL images, got str"),
    "text for labels": (lambda: [(X[0], "cat")], "a label must be a class number, got 'cat'"),
    "fewer labels": (lambda: (X, LABELS[:9]), "there are 23 images, but labels of shape (9,)"),
    "one-hot": (lambda: (X, ONE_HOT), "labels must be class numbers of shape (23,), got shape (23, 3): of one-hot rows take y.argmax(1)"),
    "float labels": (lambda: (X, LABELS.float()), "labels must be whole numbers, got torch.float32"),
    "names": (lambda: (X, ["cat"] * N), "labels must be class numbers, got 'cat'"),
    "two sizes": (lambda: [(X[0], 0), (X[0, :, :4], 1)], "images must be of one size, got (3, 4, 5) and (3, 6, 5): resize and crop"),
    "two types": (lambda: [(X[0], 0), (PIXELS[0], 1)], "images must be of one type, got torch.float32 and torch.uint8"),
    "16 bits": (lambda: Items([(Image.new("I;16", (4, 4)), 0)]), "more than 8 bits per channel"),
    "other words": (lambda: [{"picture": X, "label": LABELS}], "examples need an image and a label"),
    "no such path": (lambda: "nowhere/at/all", "there is nothing at nowhere/at/all"),
}


@pytest.mark.parametrize("read", [lambda data: list(as_batches(data)), lambda data: as_images(data).mean_std()], ids=["batches", "images"])
@pytest.mark.parametrize(("data", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_is_one_sentence(data, sentence, read):
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read(data())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [[], (X[:0], LABELS[:0]), Items([]), iter([])], ids=["list", "pair", "dataset", "iterator"])
def test_no_images_make_no_batches_and_no_set(data):
    assert sum(len(batch.y) for batch in as_batches(data)) == 0
    with pytest.raises(UserError, match="holds no images"):
        as_images(data)


@pytest.mark.parametrize("batch_size", [0, -1])
@pytest.mark.parametrize("data", [IMAGES, (X, LABELS)], ids=["images", "pair"])
def test_impossible_batches_are_refused(data, batch_size):
    with pytest.raises(UserError, match="batch size must be"):
        list(as_batches(data, batch_size=batch_size))


def test_sets_show_what_they_hold_and_no_tensors(tmp_path):
    for images in (IMAGES, as_images(Pictures())):
        assert re.fullmatch(r"\w+: 23 images, 5x6 pixels, RGB, 3 classes \(cat, dog, owl\)", repr(images))
        assert images._repr_html_().count("<img") == 1
    strange = ImageSet(PIXELS[:, :2], LABELS, ("<b>", "b", "c"), "<script>")
    assert "<script>" not in strange._repr_html_() and "&lt;script&gt;" in strange._repr_html_() and "2 channels" in repr(strange)
    many = ImageSet(PIXELS, LABELS, tuple(map(str, range(100))), "many")
    assert repr(many).endswith("100 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, ...)") and "<img" in many._repr_html_()
    assert "0 images" in repr(IMAGES.subset(torch.arange(0))) and IMAGES.subset(torch.arange(0))._repr_html_().startswith("<p>")
