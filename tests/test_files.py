"""Laws of writing: a reader meets the old file or the new one, whole, also when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from laws import small_files

from robustlab import files
from robustlab.errors import UserError


def left_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_written_is_read_and_folders_are_made(tmp_path):
    place = tmp_path / "a" / "b"
    files.write_text(place / "t.txt", "größer\n")
    files.write_bytes(place / "b.bin", b"\x00\xff")
    files.write_json(place / "j.json", {"eps": 0.5})
    files.write_with(place / "w.txt", lambda path: path.write_text("by a function"))
    assert (place / "t.txt").read_bytes() == "größer\n".encode()
    assert (place / "b.bin").read_bytes() == b"\x00\xff"
    assert (place / "j.json").read_text() == '{\n  "eps": 0.5\n}\n'
    assert (place / "w.txt").read_text() == "by a function"
    assert len(list(place.iterdir())) == 4


def test_a_file_is_replaced(tmp_path):
    files.write_text(tmp_path / "f", "old and long")
    files.write_text(tmp_path / "f", "new")
    assert left_in(tmp_path) == {"f": "new"}


def full_disk(path: Path) -> None:
    path.write_text("half of i")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def mistake(path: Path) -> None:
    path.write_text("half of i")
    raise KeyError("a bug in the function that writes")


@pytest.mark.parametrize("old", [{}, {"f": "old"}], ids=["new file", "old file"])
@pytest.mark.parametrize("save, told", [(full_disk, UserError), (mistake, KeyError)])
def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path, old, save, told):
    for name, content in old.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(told):
        files.write_with(tmp_path / "f", save)
    assert left_in(tmp_path) == old


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^cannot write .*f: No space left on device$"):
        files.write_with(tmp_path / "f", full_disk)


def test_a_disk_that_refuses_the_write_itself(tmp_path):
    """The same by the operating system, in the middle of the bytes."""
    (tmp_path / "f").write_text("old")
    with small_files(1000), pytest.raises(UserError, match="cannot write .*f: File too large"):
        files.write_bytes(tmp_path / "f", bytes(100_000))
    assert left_in(tmp_path) == {"f": "old"}


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("old")

    def refuse(*args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="cannot write .*f: Permission denied"):
        files.write_text(tmp_path / "f", "new")
    assert left_in(tmp_path) == {"f": "old"}


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*x.json: (File exists|Not a directory)"):
        files.write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(UserError, match=r"cannot write .*folder: "):
        files.write_text(tmp_path / "folder", "")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_function_that_saved_nothing_is_no_success(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        files.write_with(tmp_path / "f", lambda path: None)
    assert not left_in(tmp_path)


def test_numbers_that_json_does_not_know_are_refused_before_anything_is_written(tmp_path):
    files.write_json(tmp_path / "j", [1])
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "j", {"loss": value})
    assert left_in(tmp_path) == {"j": "[\n  1\n]\n"}


def test_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert files.sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()
