"""Pictures with attributes in CelebA's form: what is read of both forms, and what is damaged."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from labelled import NAMES, write_celeba

from robustlab.data import celeba, open_dataset
from robustlab.data.celeba import AttributeStream
from robustlab.data.picturefiles import decode
from robustlab.errors import UserError

PARTS = [0] * 30 + [1] * 10 + [2] * 20
FORMS = [".txt", ".csv"]


@pytest.fixture(params=FORMS)
def written(request, tmp_path) -> tuple[Path, torch.Tensor]:
    return tmp_path, write_celeba(tmp_path, form=request.param, parts=PARTS)


def test_parts_facts_and_pixels(written):
    root, has = written
    for split, first, count in (("train", 0, 30), ("val", 30, 10), ("test", 40, 20)):
        found = open_dataset(root, split=split)
        assert isinstance(found, AttributeStream) and len(found) == count and found.shape == (3, 30, 24)
        assert found.attributes == ("Bright Top", "Red") and torch.equal(found.facts, has[first : first + count])
        assert found.files[0] == f"{first + 1:06}.jpg" and found.positions.tolist() == list(range(first, first + count))
        raw = decode(str(root / "img_align_celeba" / found.files[-1]))
        assert torch.equal(found.fetch(torch.tensor([count - 1]))[0], torch.from_numpy(raw.copy()).permute(2, 0, 1))
        images, facts = found.to_learn_from(progress=False)
        assert len(images) == 30 and torch.equal(torch.stack(list(facts.values()), 1), has[:30]), "only training pictures are learned from"


def test_pictures_are_brought_to_a_square(written):
    small = open_dataset(written[0], split="test", image_size=16)
    resized = open_dataset(written[0], split="test").resized(16)
    assert small.shape == resized.shape == (3, 16, 16) and resized.training.shape == small.training.shape == (3, 16, 16)
    assert torch.equal(small.fetch(torch.arange(5)), resized.fetch(torch.arange(5)))


def test_at_most_so_many_are_learned_from_spread_over_all(written):
    root, has = written
    images, facts = open_dataset(root, split="test", image_size=8).to_learn_from(10, progress=False)
    assert len(images) == 10 and images.files[0] == "000001.jpg" and images.files[-1] == "000030.jpg"
    places = [int(name[:6]) - 1 for name in images.files]
    assert torch.equal(facts["Red"], has[places, 1])


def test_what_would_take_too_much_memory_is_read_on_demand(written, monkeypatch):
    monkeypatch.setattr(celeba, "MEMORY", 1000)
    images, _ = open_dataset(written[0], split="test", image_size=8).to_learn_from(progress=False)
    assert isinstance(images, AttributeStream)


@pytest.mark.parametrize("parts", [None, [0] * 60, [2] * 60])
def test_without_parts_a_tenth_is_shown_and_the_rest_is_learned_from(tmp_path, parts):
    has = write_celeba(tmp_path, parts=parts)
    train, test = (open_dataset(tmp_path, split=split) for split in ("train", "test"))
    assert len(train) == 54 and len(test) == 6 and not set(train.files) & set(test.files)
    assert torch.equal(test.facts, has[test.positions]) and test.training.files == train.files
    assert train.to_learn_from(progress=False)[0].files == train.files


def test_folders_of_torchvision_and_kaggle(tmp_path):
    write_celeba(tmp_path / "a" / "celeba", inner="")
    write_celeba(tmp_path / "b", form=".csv", inner="img_align_celeba")
    assert len(open_dataset(tmp_path / "a")) == len(open_dataset(tmp_path / "b")) == 54
    assert len(open_dataset("celeba", tmp_path / "b")) == 54


def test_some_of_the_pictures_keep_their_facts(written):
    found = open_dataset(written[0], split="train")
    some = found.subset(torch.tensor([4, 2]))
    assert torch.equal(some.facts, found.facts[[4, 2]]) and some.files == (found.files[4], found.files[2])
    assert torch.equal(some.only_classes(("picture",)).facts, some.facts)
    assert len(open_dataset(written[0], split="train", limit=7).facts) == 7


def test_names_are_made_readable(tmp_path):
    write_celeba(tmp_path, names=("5_o_Clock_Shadow", "<b>Caf\u00e9\x1b[31m</b>"))
    assert open_dataset(tmp_path).attributes == ("5 o Clock Shadow", "<b>Caf\u00e9\\x1b[31m</b>")


def lines(change: Callable[[list[str]], None]) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        found = path.read_text().split("\n")
        change(found)
        path.write_text("\n".join(found))

    return changed


def replaced(number: int, text: str) -> Callable[[Path], None]:
    return lines(lambda found: found.__setitem__(number - 1, text))


DAMAGES = [
    (".txt", replaced(1, "sixty"), "list_attr_celeba.txt, line 1: the number of pictures should stand here, got 'sixty'"),
    (".txt", replaced(1, "59"), "line 1 says that there are 59 pictures, but 60 follow"),
    (".txt", lines(lambda found: found.pop(0)), "line 1: the number of pictures should stand here, got 'Bright_Top Red'"),
    (".txt", lines(lambda found: found.pop(1)), "line 2: a picture's name|line 2: the names of the attributes|line 3: a picture's name"),
    (".txt", replaced(2, "Red Red"), "line 2: two attributes are called 'Red'"),
    (".txt", replaced(2, "A_B A__B"), "line 2: two attributes are called 'A B'"),
    (".txt", replaced(7, "000005.jpg 1"), "line 7: a picture's name and 2 values should stand here, got 1 values"),
    (".txt", replaced(7, "000005.jpg 1 1 1"), "line 7: a picture's name and 2 values should stand here, got 3 values"),
    (".txt", replaced(7, "000005.jpg 1 0"), "line 7: the values must be 1 or -1, got '0'"),
    (".txt", replaced(7, "000005.jpg 1 \x1b[31m"), r"line 7: the values must be 1 or -1, got '\\x1b\[31m'"),
    (".txt", replaced(7, "000004.jpg 1 1"), "line 7: the picture 000004.jpg stands in line 6 already"),
    (".txt", replaced(7, "000099.jpg 1 1"), "line 7: there is no picture 000099.jpg in"),
    (".txt", replaced(7, "../../x.jpg 1 1"), "line 7: there is no picture ../../x.jpg in"),
    (".txt", lambda path: path.write_text("2\nA B\n"), "lists no pictures"),
    (".txt", lambda path: path.write_text("1\nA\n000001.jpg 1\n"), "lists one picture"),
    (".txt", lambda path: path.write_text(""), "line 1: the number of pictures"),
    (".txt", lambda path: path.write_bytes(b"1\nA\xff\n"), "cannot be read as a list of attributes"),
    (".csv", replaced(1, "image_id"), "line 1: the names of 1 to 1,000 attributes should stand here, got 0"),
    (".csv", replaced(5, "000004.jpg,1,yes"), "list_attr_celeba.csv, line 5: the values must be 1 or -1, got 'yes'"),
    (".csv", replaced(5, "000004.jpg,1"), "line 5: a picture's name and 2 values"),
    (".csv", replaced(5, "000099.jpg,1,1"), "line 5: there is no picture 000099.jpg"),
]


@pytest.mark.parametrize(("form", "damage", "sentence"), DAMAGES)
def test_a_damaged_list_is_one_sentence(tmp_path, form, damage, sentence):
    write_celeba(tmp_path, form=form)
    damage(tmp_path / f"list_attr_celeba{form}")
    with pytest.raises(UserError, match=sentence) as error:
        open_dataset(tmp_path)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_partition_is_one_sentence(tmp_path, form):
    write_celeba(tmp_path, form=form, parts=PARTS)
    path, first = tmp_path / f"list_eval_partition{form}", 1 + (form == ".csv")
    between = "," if form == ".csv" else " "
    for text, sentence in (
        (f"000001.jpg{between}3", f"list_eval_partition{form}, line {first}: the values must be 0, 1 or 2, got '3'"),
        ("000001.jpg", f"line {first}: a picture's name and 1 values"),
        (f"000077.jpg{between}1", "does not say which part the picture 000001.jpg is of"),
    ):
        before = path.read_text()
        replaced(first, text)(path)
        with pytest.raises(UserError, match=sentence):
            open_dataset(tmp_path)
        path.write_text(before)


def test_pictures_that_are_not_there_or_damaged(tmp_path):
    write_celeba(tmp_path)
    (tmp_path / "img_align_celeba" / "000060.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot read the image .*000060.jpg"):
        for split in ("train", "test"):
            found = open_dataset(tmp_path, split=split)
            found.fetch(torch.arange(len(found)))
    os.rename(tmp_path / "img_align_celeba", tmp_path / "others")
    with pytest.raises(UserError, match="has a list of attributes and no folder img_align_celeba"):
        open_dataset(tmp_path)


def test_reading_warns_of_nothing(written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(NAMES) == len(open_dataset(written[0]).attributes)
