"""Work in blocks that any number of processes share, stop, and go on with, without talking to each other.

Evaluations, certificates and pictures are kept in this way until they are finished. A block is claimed by a lock that dies with its
owner, and kept in a file of its own, in a hidden run folder in the place of the results:

    .unfinished/settings.json            what was asked
    .unfinished/records 0/00003.json     what was found for block 3 of the part "records 0", and perhaps tensors beside it
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from robustlab import files
from robustlab.errors import UserError
from robustlab.records import LOCK, Run, emptied

HIDDEN = ".unfinished"
Found = tuple[Any, dict[str, Tensor]]  # values that JSON holds, and tensors by name


def folder_of(place: Path, *, beside: bool = False) -> Path:
    """Where the blocks of unfinished work are kept; for the arguments see ``Blocks.at``."""
    return place.with_name(f".{place.name}{HIDDEN}") if beside else place / HIDDEN


def is_unfinished(place: Path, *, beside: bool = False) -> bool:
    """Whether work was begun and its results are not all there; for the arguments see ``Blocks.at``."""
    return Run.is_run(folder_of(place, beside=beside))


def is_finished(place: Path, results: Collection[str]) -> bool:
    """Whether a place holds the results of some work, to the last file; False where no results are named."""
    return bool(results) and all((place / name).is_file() for name in results) and not is_unfinished(place)


class Blocks:
    """Numbered blocks of parts, as they are finished.

        with Blocks.at(out, settings, what="measurement") as blocks:
            for k in range(n):
                with blocks.claim("records", k) as mine:
                    if mine:
                        blocks.put("records", k, measure(k))
            with blocks.finishing({"records": n}) as ready:
                if ready:
                    write(out, [blocks.found("records", k) for k in range(n)])

    Without a place the same is kept in memory only.

    Attributes:
        folder: where the blocks are kept; None for memory.
        is_finished: whether all results were there already.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.is_finished = folder, False
        self._memory: dict[tuple[str, int], Found] = {}
        self._lock = folder / LOCK if folder else Path()

    @classmethod
    @contextmanager
    def at(
        cls,
        place: Path | None,
        settings: Mapping[str, Any],
        free: Collection[str] = (),
        *,
        what: str,
        results: Collection[str] = (),
        beside: bool = False,
        alone: bool = False,
    ) -> Iterator[Blocks]:
        """Begin some work, go on with it, join other processes that are at it, or find that it is finished.

        Args:
            place: the folder of the results, new or empty but for hidden files; None keeps nothing.
            settings: what the results depend on, in values that JSON holds.
            free: settings that may change meanwhile, by their names.
            what: what the work is called in messages.
            results: files within the place that are there when the work is finished; then ``is_finished`` is true, and nothing is to be
                computed. Whether they are results of the same settings is for the caller to say.
            beside: keep the blocks beside the place, which is only made when all is done.
            alone: let no other process join.

        Raises:
            UserError: the place holds something else, or the same work with other settings (the sentence names the differences), or
                another process is at it, where only one may be.
        """
        if place is None:
            yield cls(None)
            return
        folder, made = folder_of(place, beside=beside), not place.exists()
        blocks = cls(folder)
        if is_finished(place, results) and not folder.exists():
            blocks.is_finished = True  # and nothing is written, as perhaps nothing can be
            yield blocks
            return
        try:
            with ExitStack() as until_the_end:
                with blocks._alone_for_a_moment():
                    blocks._begin(place, settings, free, what, results, alone)
                    until_the_end.enter_context(blocks._present())
                yield blocks
        finally:
            with suppress(UserError), files.file_lock(blocks._lock) as mine:
                if mine and not Run.is_run(folder):
                    files.remove_lock(blocks._lock)
            for one in (folder, place) if made and not beside else (folder,):
                with suppress(OSError):  # which keeps a folder that holds something
                    one.rmdir()

    def _begin(
        self, place: Path, settings: Mapping[str, Any], free: Collection[str], what: str, results: Collection[str], alone: bool
    ) -> None:
        assert self.folder is not None
        others = self._others()
        if others and alone:
            raise UserError(f"another process works on the {what} in {place}: wait for its end, or name another folder with `out`")
        self.is_finished = is_finished(place, results)
        if not (self.is_finished or Run.is_run(self.folder)):
            files.check_vacant(place, hidden_allowed=True)
        if not others and (self.is_finished or not self._kept()):
            emptied(self.folder)  # what was killed before anything was kept, or while it took itself away
        if not self.is_finished:
            Run.open(self.folder, settings, free, what=what)
            if not others:
                self._sweep(place)

    @contextmanager
    def _present(self) -> Iterator[None]:
        """Inside, other processes see that this one is at the work; the last to leave takes away what nothing was kept of."""
        assert self.folder is not None
        presence = self.folder / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.worker"
        try:
            with files.file_lock(presence):
                yield
        finally:
            files.remove_lock(presence)
            with self._alone_for_a_moment():
                if self.folder.is_dir() and not self._others() and not self._kept():
                    emptied(self.folder)

    @contextmanager
    def _alone_for_a_moment(self) -> Iterator[None]:
        """While blocks are begun or taken away."""
        with files.file_lock(self._lock, wait=True):
            yield

    def _others(self) -> bool:
        """Whether another process is at this work."""
        assert self.folder is not None
        for path in self.folder.glob(".*.worker"):
            with files.file_lock(path) as free:
                if not free:
                    return True
            files.remove_lock(path)
        return False

    def _kept(self) -> bool:
        assert self.folder is not None
        return any(self.folder.glob("*/*.json"))

    def _sweep(self, place: Path) -> None:
        """Take away what a process that was killed left behind; nobody else is at work."""
        assert self.folder is not None
        for written in [*self.folder.glob("*/"), *((place, *place.glob("*/")) if place.is_dir() else ())]:
            files.sweep(written)

    @contextmanager
    def claim(self, part: str, k: int) -> Iterator[bool]:
        """Yield whether the caller is to compute a block: it is not there yet, and nobody else is at it."""
        if self.folder is None or self.is_done(part, k):
            yield not self.is_done(part, k)
            return
        lock = self.folder / part / f".{k:05}.lock"
        with files.file_lock(lock) as mine:
            yield mine and not self.is_done(part, k)
            if mine:
                files.remove_lock(lock)

    def is_done(self, part: str, k: int) -> bool:
        """Whether a block was computed, as all were where others have written the results."""
        if self.folder is None:
            return (part, k) in self._memory
        return self._file(part, k).is_file() or not Run.is_run(self.folder)  # in this order: the latter goes first

    def put(self, part: str, k: int, found: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keep what was found for a block, values that JSON holds, and perhaps tensors, by name."""
        if self.folder is None:
            self._memory[part, k] = found, dict(tensors or {})
            return
        if tensors is not None:
            content = tensor_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
            files.write_bytes(self._file(part, k).with_suffix(".safetensors"), content)
        files.write_json(self._file(part, k), {"found": found})

    def found(self, part: str, k: int) -> Any:
        """What was found for a block; None where others have written the results since, so that it is gone.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self.folder is None:
            return self._memory[part, k][0]
        try:
            return files.read_json(self._file(part, k), "a block of results")["found"]
        except UserError:
            if Run.is_run(self.folder):
                raise
            return None

    def tensors(self, part: str, k: int) -> dict[str, Tensor]:
        """The tensors that were kept with a block.

        Raises:
            UserError: they are missing or damaged.
        """
        if self.folder is None:
            return self._memory[part, k][1]
        path = self._file(part, k).with_suffix(".safetensors")
        with files.reading(path, "a safetensors file"):
            return load_file(path)

    def _file(self, part: str, k: int) -> Path:
        assert self.folder is not None
        return self.folder / part / f"{k:05}.json"

    @contextmanager
    def finishing(self, parts: Mapping[str, int]) -> Iterator[bool]:
        """Yield whether all blocks are there, so that the caller alone is to write the results; afterwards what was kept is gone.

        False where others are still at some of them, or have written the results already.

        Args:
            parts: how many blocks each part has.
        """
        if self.folder is None or self.is_finished:
            yield not self.is_finished
            return
        with self._alone_for_a_moment():
            ready = Run.is_run(self.folder) and all(self.is_done(part, k) for part, n in parts.items() for k in range(n))
            yield ready
            if ready:
                emptied(self.folder)
