"""Writing files so that a reader, or a crash, never meets half of one; and reading JSON and TOML that anybody may have written."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock, FileLock, Timeout

from robustlab.errors import UserError, in_one_line
from robustlab.paths import place_of, shown

LARGEST_TEXT = 64 << 20  # bytes of a JSON or TOML file; parsed they take some twenty times as much memory
LARGEST_LOG = 1 << 30  # bytes of a file of JSON lines
DEEPEST = 100  # lists and objects within each other
TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp", re.DOTALL)  # what is being written: a dot, its name, the process
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # what file systems without locks answer


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it into place.

    The folder is made where it is missing. After an exception, also a full disk, ``path`` is what it was before
    and the temporary file is gone.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    path = place_of(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where the folder could not be made, there is nothing to take away
            temporary.unlink()


def check_vacant(path: str | os.PathLike[str], *, hidden_allowed: bool = False) -> None:
    """Refuse a place for a new folder where something is already; an empty folder is fine, and so is what a killed process of ours left.

    Args:
        hidden_allowed: whether files whose names begin with a dot, such as locks, count as nothing.

    Raises:
        UserError: something is there.
    """
    path = place_of(path)
    if path.exists() and (not path.is_dir() or any(not _is_nothing(entry.name, hidden_allowed) for entry in path.iterdir())):
        raise UserError(f"{path} is not an empty folder: name another one with `out`")


def _is_nothing(name: str, hidden_allowed: bool) -> bool:
    """Whether a file counts as nothing in a folder: our own lock, or half of a file; where that is allowed, whatever is hidden."""
    return name.startswith(".") and (hidden_allowed or name.endswith(".lock") or TEMPORARY.fullmatch(name) is not None)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a place that nothing can be written to, before the work whose results should go there.

    Args:
        path: a file or folder, there or not.

    Raises:
        UserError: it, or the folder that it would be made in, cannot be written; or what should be a folder above it is a file.
    """
    place = place_of(path).absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise UserError(f"cannot write {shown(path)}: {os.strerror(errno.EACCES)}")
    if place != place_of(path).absolute() and not place.is_dir():
        raise UserError(f"cannot write {shown(path)}: {shown(place)} is no folder")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success sync it to disk and rename it into place.

    After an exception, also a full disk or Ctrl-C, ``path`` is what it was before and the temporary folder is gone.

    Raises:
        UserError: ``path`` is not an empty folder, the disk is full, or the place cannot be written.
    """
    path = Path(os.path.realpath(place_of(path)))
    check_vacant(path)
    temporary, lock = path.with_name(f".{path.name}.{os.getpid()}.tmp"), path.with_name(f".{path.name}.lock")
    with file_lock(lock) as mine:
        if not mine:
            raise UserError(f"another process writes {path}: wait for its end, or name another folder with `out`")
        try:
            sweep(path.parent, path.name)  # of a process that was killed while it wrote the same folder
            temporary.mkdir(parents=True)
            yield temporary
            if hasattr(os, "sync"):
                os.sync()  # many small files: one call instead of one for each
            if path.is_dir():
                _take_leftovers(path)
                path.rmdir()  # which fails where something was put there in the meantime
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            remove_lock(lock)


def _take_leftovers(folder: Path) -> None:
    """Take away what counts as nothing in a folder: leftovers of a killed process of ours."""
    sweep(folder)
    for entry in folder.iterdir():
        if _is_nothing(entry.name, hidden_allowed=False):
            entry.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def append_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Add ``content`` to the end of ``path``, which is made where it is missing, and sync it to disk.

    After an exception, also a full disk, the file ends where it ended before; a process that is killed meanwhile may leave a part.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    try:
        with open(place_of(path), "ab", buffering=0) as file:
            end = file.tell()
            try:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_with(path: str | os.PathLike[str], save: Callable[[Path], object]) -> None:
    """Write ``path`` atomically by a function that saves to a path, such as ``image.save``."""
    with atomic_write(path) as temporary:
        save(temporary)


@contextmanager
def file_lock(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[bool]:
    """Yield whether the caller alone holds the name ``path``, among all processes and threads.

    The system frees the name when the process ends, however it ends. The file stays behind; ``remove_lock`` takes it away.
    On a file system without locks everybody holds every name, so use it only for work that may be done twice.

    Args:
        path: an empty file that is made where it is missing, with its folder.
        wait: until the name is free, instead of yielding False.

    Raises:
        UserError: the place cannot be written.
    """
    path = place_of(path)
    # A marker file in place of a lock would outlive a process that is killed, and nobody would ever do its work.
    lock = FileLock(path, fallback_to_soft=False)
    held = True
    try:
        _acquire(lock, path.parent, wait)
    except Timeout:
        held = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"cannot write in {path.parent}: {error.strerror or error}") from error
    try:
        yield held
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, folder: Path, wait: bool, tries: int = 20) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except FileNotFoundError:
        if not tries:
            raise
        _acquire(lock, folder, wait, tries - 1)  # another process took the folder away at this moment


def remove_lock(path: str | os.PathLike[str]) -> None:
    """Take away a lock's file once its work is done; not where another process still has it open and the system refuses."""
    with suppress(OSError):
        place_of(path).unlink()


# Reading text that this project, another version of it, or anybody else wrote: whatever is wrong with it is one sentence.


def read_text(path: str | os.PathLike[str], what: str, largest: int = LARGEST_TEXT) -> str:
    """The UTF-8 text in a file, without the byte order mark that some editors put before it.

    Args:
        what: what should be there, for messages.
        largest: bytes.

    Raises:
        UserError: no such file, a larger one, or no UTF-8.
    """
    content = _content(path, what, largest)
    try:
        return _decoded(content)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as {what}: {error}") from error


def parse_json(text: str | bytes, source: str | os.PathLike[str], what: str, *, finite: bool = True) -> Any:
    """The value that a JSON text describes. The one place where the project reads files of JSON.

    Args:
        text: bytes are UTF-8, and may begin with a byte order mark.
        source: where the text is from, for messages.
        what: what it should be, for messages.
        finite: refuse NaN and infinite numbers, which Python writes and JSON does not know.

    Raises:
        UserError: no JSON, a name that comes twice in one object, nesting deeper than ``DEEPEST``, a number beyond 64 bits.
    """
    return _parsed(
        text, lambda text: json.loads(text, object_pairs_hook=_object), f"{source} cannot be read as {what}: it is not JSON", finite
    )


def read_json_value(path: str | os.PathLike[str], what: str) -> Any:
    """Whatever JSON value is in a file.

    Raises:
        UserError: no such file, one of more than ``LARGEST_TEXT``, or no JSON; see ``parse_json``.
    """
    return parse_json(_content(path, what, LARGEST_TEXT), path, what)


def read_json(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: as ``read_json_value``, or it is not an object.
    """
    value = read_json_value(path, what)
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold a JSON object with {what}, not a {type(value).__name__}")
    return value


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """A TOML file.

    Raises:
        UserError: no such file, one of more than ``LARGEST_TEXT``, no TOML, nesting deeper than ``DEEPEST``, a number beyond 64 bits.
    """
    sentence = f"{path} cannot be read as {what}: it is not TOML"
    return _parsed(_content(path, what, LARGEST_TEXT), tomllib.loads, sentence, finite=False)


def _content(path: str | os.PathLike[str], what: str, largest: int) -> bytes:
    """The bytes of a file, unless they are more than ``largest``."""
    try:
        with open_regular(place_of(path)) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= largest else b""
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {what} should be there") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read as {what}: {in_one_line(error)}") from error
    if size > largest:
        raise UserError(f"{path} cannot be read as {what}: it takes {size / 1e6:.0f} MB, and at most {largest / 1e6:.0f} MB are allowed")
    return content


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "its byte order mark is that of UTF-16" if wide else f"byte {error.start} is wrong"
        raise ValueError(f"it is not UTF-8 text ({found})") from error


def _parsed(text: str | bytes, parse: Callable[[str], Any], sentence: str, finite: bool) -> Any:
    try:
        value = parse(_decoded(text) if isinstance(text, bytes) else text)
        reason = _why_refused(value, finite)
    except ValueError as error:
        reason = str(error)
    except RecursionError:
        reason = _TOO_DEEP
    if reason:
        raise UserError(f"{sentence}: {reason}")
    return value


_TOO_DEEP = f"it is nested more than {DEEPEST} deep"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice!r:.60} comes twice in one object")
    return found


def _why_refused(value: Any, finite: bool) -> str | None:
    """What is wrong with a value that could be parsed."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif type(each) is int and not -(1 << 63) <= each < 1 << 64:
                return "a number in it is beyond 64 bits"
            elif finite and isinstance(each, float) and not math.isfinite(each):
                return "a number in it is not finite"
        if not below:
            return None
        level = below
    return _TOO_DEEP


# What a value should be: ``str``, ``int``, ``float`` (any number), ``bool``, ``dict``, ``list``, ``None``; ``[int]`` for a list of
# these; ``{"name": str}`` for an object with these names; a tuple for one of several.
Kind = Any


def check_kinds(found: Mapping[str, Any], kinds: Mapping[str, Kind], source: str | os.PathLike[str], what: str) -> None:
    """Refuse an object from a file that lacks a name, or has something else under it than its readers expect.

    Args:
        found: the object; names that are not in ``kinds`` may be anything.
        source: the file, for the message.
        what: what the object should be, for the message.

    Raises:
        UserError: names the first that is missing or of another kind.
    """
    missing = [name for name in kinds if name not in found]
    if missing:
        raise UserError(f"{source} does not hold {what}: {', '.join(missing[:3])} missing")
    for name, kind in kinds.items():
        if not is_kind(found[name], kind):
            raise UserError(f"{source} does not hold {what}: {name} should be {_in_words(kind)}, got {found[name]!r:.60}")


def is_kind(value: Any, kind: Kind) -> bool:
    """Whether a value is of a kind, see ``Kind``."""
    if isinstance(kind, tuple):
        return any(is_kind(value, one) for one in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(is_kind(each, kind[0]) for each in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(name in value and is_kind(value[name], inner) for name, inner in kind.items())
    if kind is None or isinstance(value, bool):
        return value is None if kind is None else kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _in_words(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return " or ".join(_in_words(one) for one in kind)
    if isinstance(kind, list):
        return f"a list, each {_in_words(kind[0])}"
    if isinstance(kind, dict):
        return f"an object with {', '.join(kind)}"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}.get(
        kind, "null"
    )


# Reading with care


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes; a pipe or a device, which might keep a reader waiting for ever, is refused.

    Raises:
        OSError: as ``open`` does, and for what is no file.
        ValueError: a name that no file can have.
    """
    # Opened without waiting for a writer at the other end of a pipe, and looked at only then: nobody can exchange it in between.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Whatever a reader raises inside over a damaged file becomes one sentence.

    Args:
        path: the file, for the message.
        what: what it was read as: ``"an .npz file"``.

    Raises:
        UserError: in place of any other exception.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"there is no file {shown(path)}") from error
    except MemoryError as error:
        raise UserError(f"{shown(path)} takes more memory than there is") from error
    except Exception as error:  # the readers of large formats raise whatever they stumble over
        raise UserError(f"cannot read {shown(path)} as {what}: {in_one_line(error)}") from error


def sweep(folder: Path, *names: str) -> None:
    """Remove what a process that was killed while it wrote left behind; only for whoever alone writes these names meanwhile.

    Args:
        folder: where it wrote.
        names: of the files or folders that it wrote; all where left out. What is not named as ours are is left alone.
    """
    for left in folder.glob(".*.tmp"):
        found = TEMPORARY.fullmatch(left.name)
        if found is None or (names and found[1] not in names):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def check_space(folder: str | os.PathLike[str], size: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: where it is to be written; it need not exist yet.
        size: bytes.

    Raises:
        UserError: with what is needed and what is free.
    """
    place = place_of(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(f"{folder} needs {size / 1e9:.2f} GB more, but its disk has only {free / 1e9:.2f} GB left")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
