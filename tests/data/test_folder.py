"""Image folders: every layout, any size, memory and stream alike, and a sentence for each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab import progress
from robustlab.data.folder import FolderStream, open_folder, open_pictures
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError


def picture(seed: int, width: int = 6, height: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, three training and two test images each."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(tmp_path / split / name / f"{i}.png", picture(10 * label + i))
    return tmp_path


def test_images_come_sorted_with_the_labels_of_their_folders(root):
    images = open_folder(root, "train")
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.shape == (3, 6, 6) and len(images) == 6 and images.name == root.name
    expected = torch.from_numpy(np.stack([picture(seed) for seed in (0, 1, 2, 10, 11, 12)])).permute(0, 3, 1, 2)
    assert torch.equal(images.fetch(torch.arange(6)), expected)


def test_a_stream_promises_the_same_as_the_set_in_memory(root):
    stored, streamed = open_folder(root, "train"), open_folder(root, "train", memory_limit=6 * 108 - 1)
    assert isinstance(stored, ImageSet) and isinstance(streamed, FolderStream)
    index = torch.tensor([4, 1])
    for a, b in (
        (stored, streamed),
        (stored.subset(index), streamed.subset(index)),
        (stored.only_classes(["dog"]), streamed.only_classes(["dog"])),
    ):
        everything = torch.arange(len(a))
        assert torch.equal(a.fetch(everything), b.fetch(everything)) and torch.equal(a.labels, b.labels)
        assert (a.classes, a.name, a.shape, len(a)) == (b.classes, b.name, b.shape, len(b))
        assert all(torch.equal(p, q) for p, q in zip(a.mean_std(), b.mean_std(), strict=True))


@pytest.mark.parametrize(("folder", "split"), [("test", "test"), ("val", "test"), ("test", "val"), ("val", "val"), ("train", "train")])
def test_val_and_test_stand_in_for_each_other(tmp_path, folder, split):
    save(tmp_path / folder / "cat" / "0.png", picture(0))
    assert len(open_folder(tmp_path, split)) == 1


def test_with_three_parts_each_split_is_its_own(root):
    save(root / "val" / "cat" / "0.png", picture(0))
    save(root / "val" / "dog" / "0.png", picture(1))
    assert [len(open_folder(root, split)) for split in ("train", "val", "test")] == [6, 2, 4]


def test_class_folders_directly_in_the_root_count_as_any_split(root):
    assert len(open_folder(root / "train", "train")) == len(open_folder(root / "train", "test")) == 6


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".bmp"])
def test_every_format_is_read_and_other_files_are_passed_over(tmp_path, suffix):
    save(tmp_path / "cat" / f"0{suffix}", np.full((4, 4, 3), 200, dtype=np.uint8))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    images = open_folder(tmp_path, "train")
    assert images.classes == ("cat",) and (images.fetch(torch.tensor([0])).int() - 200).abs().max() <= 2


def test_grey_and_transparent_images_become_rgb(tmp_path):
    save(tmp_path / "a" / "grey.png", np.full((4, 4), 7, dtype=np.uint8))
    save(tmp_path / "a" / "rgba.png", np.full((4, 4, 4), 9, dtype=np.uint8))
    assert open_folder(tmp_path, "train").fetch(torch.arange(2)).amax((1, 2, 3)).tolist() == [7, 9]


@pytest.mark.parametrize("size", [(6, 6), (12, 6), (5, 13), (4, 2)])
def test_any_size_is_scaled_and_cropped_to_the_centre(tmp_path, size):
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None].round()
    pixels[..., 1] = np.linspace(0, 255, height)[:, None].round()
    save(tmp_path / "a" / "0.png", pixels)
    image = open_folder(tmp_path, "train", image_size=6).fetch(torch.tensor([0]))[0].float()
    assert image.shape == (3, 6, 6)
    assert (image[:2] - 127.5).mean((1, 2)).abs().max() < 12  # the crop lies in the middle both ways


def test_images_of_one_shape_need_not_be_square(tmp_path):
    save(tmp_path / "a" / "0.png", picture(0, width=7, height=4))
    assert open_folder(tmp_path, "train").shape == (3, 4, 7)


def test_decoding_reports_its_progress(root, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    open_folder(root, "train")
    assert capsys.readouterr().err.startswith("reading train: 6 of 6 img (100 %)")
    open_folder(root, "train", progress=False)
    assert capsys.readouterr().err == ""


def truncated(root: Path) -> str:
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-40])
    return f"cannot read the image {path}"


def not_an_image(root: Path) -> str:
    path = root / "train" / "dog" / "1.png"
    path.write_text("hello")
    return f"cannot read the image {path}"


def dangling(root: Path) -> str:
    path = root / "train" / "dog" / "1.png"
    path.unlink()
    path.symlink_to(root / "gone.png")
    return f"cannot read the image {path}"


def other_size(root: Path) -> str:
    save(root / "train" / "dog" / "1.png", picture(0, width=8))
    return f"{root / 'train' / 'dog' / '1.png'} is 8x6 but the images before it are 6x6; give `image_size`"


def sixteen_bits(root: Path) -> str:
    save(root / "train" / "dog" / "1.png", np.full((6, 6), 3000, dtype=np.uint16))
    return "more than 8 bits per channel"


def empty_class(root: Path) -> str:
    for path in (root / "train" / "dog").iterdir():
        path.unlink()
    return f"the class folder {root / 'train' / 'dog'} holds no images"


def other_classes(root: Path) -> str:
    (root / "test" / "dog").rename(root / "test" / "wolf")
    return f"{root / 'train'} and {root / 'test'} must hold the same class folders, but only one of them has 'dog'"


def no_classes(root: Path) -> str:
    for split in ("train", "test"):
        (root / split).rename(root / f".{split}")
    return f"{root} holds no class folders; expected ROOT/train/CLASS"


def no_train(root: Path) -> str:
    (root / "train").rename(root / "training")
    return f"{root} has no train/ folder"


@pytest.mark.parametrize("memory_limit", [1 << 30, 0], ids=["memory", "stream"])
@pytest.mark.parametrize(
    "damage", [truncated, not_an_image, dangling, other_size, sixteen_bits, empty_class, other_classes, no_classes, no_train]
)
def test_each_mistake_is_one_sentence_that_names_the_path(root, damage, memory_limit):
    sentence = damage(root)
    with pytest.raises(UserError) as caught:
        images = open_folder(root, "train", memory_limit=memory_limit)
        images.fetch(torch.arange(len(images)))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no folder .*nowhere"):
        open_folder(tmp_path / "nowhere", "train")


def test_pictures_of_ones_own_are_upright_and_on_white(tmp_path):
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[:, :3] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(np.ascontiguousarray(upright[::-1, ::-1])).save(tmp_path / "turned.png", exif=exif)
    glass = Image.new("RGBA", (6, 4), (10, 20, 30, 0))
    glass.putpixel((1, 2), (10, 20, 30, 255))
    glass.save(tmp_path / "glass.png")
    Image.new("L", (6, 4), 77).save(tmp_path / "grey.png")
    paths = [str(tmp_path / name) for name in ("turned.png", "glass.png", "grey.png")]
    found = open_pictures(paths, ("a", "b"))
    assert (
        found.pixels.dtype == torch.uint8 and found.shape == (3, 4, 6) and found.classes == ("a", "b") and found.labels.tolist() == [0] * 3
    )
    assert np.array_equal(found.pixels[0].permute(1, 2, 0).numpy(), upright)
    assert found.pixels[1, :, 2, 1].tolist() == [10, 20, 30] and int((found.pixels[1] == 255).all(0).sum()) == 23
    assert (found.pixels[2] == 77).all()
    assert open_pictures(paths, ("a",), image_size=2).shape == (3, 2, 2)
    Image.new("RGB", (4, 6)).save(tmp_path / "tall.png")
    with pytest.raises(UserError, match="tall.png is 4x6 but the images before it are 6x4; give `image_size`"):
        open_pictures([*paths, str(tmp_path / "tall.png")], ("a",))
