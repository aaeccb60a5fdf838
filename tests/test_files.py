"""Laws of writing: a reader meets the old file or the new one, whole, also when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

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


def test_bytes_are_added_at_the_end(tmp_path):
    for part in (b"one\n", b"", b"two\n"):
        files.append_bytes(tmp_path / "log", part)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_full_disk_adds_nothing(tmp_path):
    files.append_bytes(tmp_path / "log", b"x" * 900)
    with small_files(1000), pytest.raises(UserError, match="cannot write .*log: File too large"):
        files.append_bytes(tmp_path / "log", b"y" * 500)
    assert (tmp_path / "log").read_bytes() == b"x" * 900
    with pytest.raises(UserError, match="cannot write .*nowhere"):
        files.append_bytes(tmp_path / "nowhere" / "log", b"y")


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


# Folders


def test_a_folder_appears_with_all_its_files(tmp_path):
    with files.atomic_folder(tmp_path / "a" / "set") as temporary:
        (temporary / "x").write_text("1")
        (temporary / "inner").mkdir()
        (temporary / "inner" / "y").write_text("2")
        assert not (tmp_path / "a" / "set").exists() and temporary.parent == tmp_path / "a"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]
    assert (tmp_path / "a" / "set" / "x").read_text() == "1" and (tmp_path / "a" / "set" / "inner" / "y").read_text() == "2"


def test_an_empty_folder_is_replaced_also_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.atomic_folder(tmp_path / "link") as temporary:
        (temporary / "x").write_text("1")
    assert (tmp_path / "link").is_symlink() and left_in(tmp_path / "real") == {"x": "1"}


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
@pytest.mark.parametrize(
    "error, told", [(OSError(errno.ENOSPC, "No space left on device"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_folder_that_failed_leaves_nothing(tmp_path, there, error, told):
    if there:
        (tmp_path / "set").mkdir()
    with pytest.raises(told), files.atomic_folder(tmp_path / "set") as temporary:
        (temporary / "x").write_text("half of i")
        raise error
    assert list(tmp_path.rglob("*")) == ([tmp_path / "set"] if there else [])


def test_a_folder_that_filled_up_in_the_meantime_is_not_overwritten(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="cannot write .*set: Directory not empty"), files.atomic_folder(tmp_path / "set") as temporary:
        (temporary / "x").write_text("mine")
        (tmp_path / "set" / "y").write_text("somebody else's")
    assert left_in(tmp_path / "set") == {"y": "somebody else's"} and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_is_taken_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("also something")
    for name in ("file", "full"):
        with pytest.raises(UserError, match=f"{name} is not an empty folder: name another one with `out`"):
            files.check_vacant(tmp_path / name)
        with pytest.raises(UserError, match="is not an empty folder"), files.atomic_folder(tmp_path / name):
            pytest.fail("the folder was begun")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "full"}


def test_an_empty_folder_and_a_missing_one_are_vacant(tmp_path):
    files.check_vacant(tmp_path)
    files.check_vacant(tmp_path / "missing" / "set")
    assert not list(tmp_path.iterdir())


# Shared work


def test_a_name_is_held_by_one_at_a_time(tmp_path):
    name = tmp_path / "new" / ".lock"
    with files.file_lock(name) as first:
        with files.file_lock(name) as second, files.file_lock(tmp_path / "new" / ".other") as other:
            assert first and not second and other
        with files.file_lock(name) as third:
            assert not third, "who did not get it does not free it either"
    with files.file_lock(name) as again:
        assert again


def test_a_name_is_free_again_after_an_exception(tmp_path):
    with pytest.raises(KeyError), files.file_lock(tmp_path / ".lock"):
        raise KeyError
    with files.file_lock(tmp_path / ".lock") as again:
        assert again


HOLDER = "import sys; from robustlab import files\nwith files.file_lock(sys.argv[1]) as mine: print(mine, flush=True); sys.stdin.read()"


def test_a_name_is_free_again_when_its_process_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        with files.file_lock(tmp_path / ".lock") as mine:
            assert not mine
        holder.kill()
    with files.file_lock(tmp_path / ".lock", wait=True) as mine:
        assert mine


def test_who_waits_gets_the_name_when_it_is_free(tmp_path):
    order = []

    def late() -> None:
        with files.file_lock(tmp_path / ".lock", wait=True) as mine:
            order.append(("late", mine))

    with files.file_lock(tmp_path / ".lock"):
        thread = threading.Thread(target=late)
        thread.start()
        thread.join(0.1)
        order.append(("early", True))
    thread.join(10)
    assert order == [("early", True), ("late", True)]


@pytest.mark.parametrize("wait", [False, True])
def test_of_many_threads_one_at_a_time_holds_a_name(tmp_path, wait):
    inside, most, held = [], [], []

    def work() -> None:
        for _ in range(5):
            with files.file_lock(tmp_path / ".lock", wait=wait) as mine:
                if mine:
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()
                held.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) == 1 and len(held) == 20 and sum(held) == len(most)
    assert not wait or all(held), "who waits always gets it"


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
@pytest.mark.parametrize("wait", [False, True])
def test_where_there_are_no_locks_everybody_holds_everything(tmp_path, monkeypatch, code, wait):
    """As on Lustre mounted without locks, or an old NFS."""
    fcntl = pytest.importorskip("fcntl", reason="the locks of POSIX systems")

    def refuse(*args):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.file_lock(tmp_path / ".lock", wait=wait) as first, files.file_lock(tmp_path / ".lock", wait=wait) as second:
        assert first and second
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}, "no marker that could outlive this process"


def test_a_place_where_no_lock_can_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in .*file: "), files.file_lock(tmp_path / "file" / ".lock"):
        pass
    (tmp_path / "folder.lock").mkdir()
    with pytest.raises(UserError, match="cannot write in "), files.file_lock(tmp_path / "folder.lock"):
        pass


def test_a_lock_that_is_done_with_leaves_nothing(tmp_path):
    with files.file_lock(tmp_path / ".lock"):
        pass
    files.remove_lock(tmp_path / ".lock")
    files.remove_lock(tmp_path / ".lock")
    assert not list(tmp_path.iterdir())


# Reading, and room


def test_an_object_is_read_back(tmp_path):
    value = {"eps": 0.5, "classes": ["größer"], "inner": {"none": None}}
    files.write_json(tmp_path / "j", value)
    assert files.read_json(tmp_path / "j", "settings") == value


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, r"j does not exist; a set's settings should be there$"),
        (b"", "j cannot be read as a set's settings: "),
        (b'{"eps": 0.', "j cannot be read as a set's settings: "),
        (b"\xff\xfe", "j cannot be read as a set's settings: "),
        (b"[1]", r"j should hold a JSON object with a set's settings, not a list$"),
        (b"null", r"j should hold a JSON object with a set's settings, not a NoneType$"),
    ],
    ids=str,
)
def test_what_is_no_object_is_told_in_one_sentence(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "j").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        files.read_json(tmp_path / "j", "a set's settings")
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_read_as_an_object(tmp_path):
    with pytest.raises(UserError, match="cannot be read as settings: "):
        files.read_json(tmp_path, "settings")


def test_sweeping_takes_half_written_files_and_nothing_else(tmp_path):
    kept = ["f", ".hidden", "t.tmp", ".f.json"]
    for name in [*kept, ".f.123.tmp", ".set.9.tmp"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / ".f.123.tmp").write_text("of another folder")
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "inner"} and list((tmp_path / "inner").iterdir())
    files.sweep(tmp_path / "missing")


def test_what_a_killed_process_leaves_is_swept(tmp_path):
    with files.atomic_write(tmp_path / "f") as temporary:
        temporary.write_text("half of i")
        temporary.with_name(temporary.name.replace(str(os.getpid()), "1")).write_text("of a process that was killed")
    files.sweep(tmp_path)
    assert left_in(tmp_path) == {"f": "half of i"}


def test_room_is_measured_where_the_folder_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(place):
        asked.append(Path(place))
        return SimpleNamespace(free=1_500_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    files.check_space(tmp_path / "not" / "yet", 1_500_000_000)
    with pytest.raises(UserError, match=r"yet needs 2.25 GB more, but its disk has only 1.50 GB left$"):
        files.check_space(tmp_path / "not" / "yet", 2_250_000_000)
    assert asked == [tmp_path, tmp_path] and not list(tmp_path.iterdir())


def test_no_disk_has_room_for_everything(tmp_path):
    files.check_space(tmp_path, 0)
    with pytest.raises(UserError, match="GB more, but its disk has only"):
        files.check_space(tmp_path, 1 << 70)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b'{"a": 1, "a": 2}', "the name 'a' comes twice in one object$"),
        (b'{"a": NaN}', "a number in it is not finite$"),
        (b'{"a": 1e999}', "a number in it is not finite$"),
        (b'{"a": 18446744073709551616}', "a number in it is beyond 64 bits$"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": ' + b"[" * 100_000, "nested more than 100 deep$"),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than 100 deep$"),
        ('{"a": "é"}'.encode("latin-1"), "it is not UTF-8 text .byte 7 is wrong.$"),
        ('{"a": 1}'.encode("utf-16"), "its byte order mark is that of UTF-16"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_that_no_writer_of_ours_makes_is_refused(tmp_path, content, sentence):
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(UserError, match=f"j cannot be read as settings: it is not JSON: .*{sentence}") as caught:
        files.read_json(tmp_path / "j", "settings")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "j").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert files.read_json(tmp_path / "j", "settings") == files.read_toml(tmp_path / "t", "settings") == {"a": 1}


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "j", "wb") as file:
        file.truncate(files.LARGEST_TEXT + 1)
    with pytest.raises(UserError, match="it takes 67 MB, and at most 67 MB are allowed"):
        files.read_json(tmp_path / "j", "settings")


@pytest.mark.parametrize(
    "value, kind, right",
    [
        (1, int, True), (True, int, False), (1, float, True), (True, bool, True), (1.5, int, False), ("a", str, True),
        ([1, 2], [int], True), ([1, "a"], [int], False), ({"a": 1, "b": 2}, {"a": int}, True), ({"b": 2}, {"a": int}, False),
        ([], [int], True), (None, (str, None), True),
        ([{"a": [1]}], [{"a": [int]}], True), ("ab", [str], False), ({}, dict, True), (None, int, False),
    ],
)  # fmt: skip
def test_values_are_of_their_kind(value, kind, right):
    assert files.is_kind(value, kind) is right
    if not right:
        with pytest.raises(UserError, match="^j does not hold settings: x should be "):
            files.check_kinds({"x": value}, {"x": kind}, "j", "settings")
