"""A set made shard by shard, in a folder that any number of processes may work on, stop, and go on with.

Each shard is a pure function of the settings: fixed batches, seeds by position. So one process or twenty, at once or with
interruptions, write the same bytes; a manifest with their hashes is written last, by whoever finds all shards there.
Layout: see ``robustlab.data.constructed``.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from robustlab import files
from robustlab.construction.protocols import Construction
from robustlab.data.constructed import DTYPES, FORMAT, MANIFEST, damaged, facts_of
from robustlab.data.fingerprint import fingerprint
from robustlab.data.imageset import Images, positions_of
from robustlab.errors import UserError, unknown
from robustlab.evaluation import predictions
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest_of, weights_of
from robustlab.models.frozen import frozen
from robustlab.models.placement import on_cpu, on_device
from robustlab.norms import L2
from robustlab.paths import place_of
from robustlab.pixels import to_float, to_uint8
from robustlab.records import differences, environment
from robustlab.seeding import example_keys, fold

OnImages = Callable[[float], object]
OLD_TARGETS = {"drawn": "random_target", "following": "next_class"}  # in the settings of sets made before


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that the bytes of a set depend on.

    Attributes:
        construction: makes new images of old ones.
        source: the old ones.
        model: whose features the new ones hold.
        seed: of every random draw.
        dtype: of the stored pixels: ``float32`` keeps them as they were found, the others round; by how much is reported.
        shard_size: images in a shard: what an interruption can cost.
        batch_size: images that are optimized at once, within a shard.
        compute_dtype: dtype to take the steps in; None is float32. What was reached is always judged in float32.
        device: where to compute. A model that is elsewhere is copied there.

    Raises:
        UserError: no images, images that do not fit the model, or a setting out of range.
    """

    construction: Construction
    source: Images
    model: Classifier
    seed: int = 0
    dtype: str = "float32"
    shard_size: int = 500
    batch_size: int = 250
    compute_dtype: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.shard_size < 1 or self.batch_size < 1:
            raise UserError(f"a set needs shard_size >= 1 and batch_size >= 1, got {self.shard_size} and {self.batch_size}")
        if not len(self.source):
            raise UserError(f"{self.source.name}: there are no images to construct a set from")
        if self.source.shape[0] != self.model.channels:
            have = f"the images of {self.source.name} have {self.source.shape[0]}"
            raise UserError(f"the model wants {self.model.channels} channels, but {have}")
        self.model.outputs_for(self.source.classes, self.source.name)

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """The positions in the source that each shard is made from."""
        return torch.arange(len(self.source)).split(self.shard_size)

    @cached_property
    def places(self) -> Tensor:
        """The places of the source's images in their whole split, which records and random draws follow: int64 ``(N,)``."""
        return positions_of(self.source)

    @property
    def whole(self) -> bool:
        """Whether places and positions are the same; before, they were taken to be the same always."""
        return bool((self.places == torch.arange(len(self.source))).all())

    @property
    def bytes_per_image(self) -> int:
        """What an image takes on the disk, its label and facts included."""
        return math.prod(self.source.shape) * DTYPES[self.dtype].itemsize + 64  # 64: the label and the facts

    def described(self) -> dict[str, Any]:
        """In values that JSON holds: two plans that are described alike make the same set.

        A plan reads the weights for it once. After a change of the weights make a new plan.
        """
        return self._description

    @cached_property
    def _description(self) -> dict[str, Any]:
        source, model = self.source, self.model
        weights = weights_of(model)
        mean, std = (weights.pop(name).flatten().tolist() for name in ("mean", "std"))
        return {
            "format": FORMAT,
            "construction": self.construction.described(),
            "source": {
                "name": source.name,
                "n": len(source),
                "shape": list(source.shape),
                "classes": list(source.classes),
                "fingerprint": fingerprint(source),
            },
            "model": {
                "arch": model.arch,
                "classes": list(model.classes),
                "mean": mean,
                "std": std,
                "sha256": digest_of(weights),
            },
            **({} if self.whole else {"places": "in the whole split"}),
            "seed": self.seed,
            "dtype": self.dtype,
            "shard_size": self.shard_size,
            "batch_size": self.batch_size,
            "compute_dtype": str(self.compute_dtype or torch.float32).removeprefix("torch."),
            "device": self.device.type,
        }


def with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a set by their names of today; in sets made before, the dtype and the targets had others."""
    settings = dict(settings)
    if "search" in settings:
        settings["compute_dtype"] = settings.pop("search")
    construction = settings.get("construction")
    if isinstance(construction, dict) and str(construction.get("targets")) in OLD_TARGETS:
        settings["construction"] = {**construction, "targets": OLD_TARGETS[construction["targets"]]}
    return settings


def without_source_name(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a set without what its source is called, which is where it lies: its fingerprint says what it is."""
    source = settings.get("source")
    return {**settings, "source": {**source, "name": None}} if isinstance(source, dict) else settings


class Building:
    """A folder in which a set is being made, by this process and perhaps by others.

    Raises:
        UserError: the folder holds something else, or a set of other settings (the sentence names the differences); or
            the disk has no room.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Plan) -> None:
        self.folder, self.plan = place_of(folder), plan
        plan.described()  # before the lock, since it may take a while
        existed = self.folder.exists()
        try:
            with files.file_lock(self.folder / ".opening", wait=True):
                self._open()
        except UserError:
            files.remove_lock(self.folder / ".opening")
            if not existed:
                with suppress(OSError):  # it was never made, or another process has just put something there
                    self.folder.rmdir()
            raise
        self._missing = [k for k in range(len(plan.parts)) if not self._is_done(k)]
        files.check_space(self.folder, sum(len(plan.parts[k]) for k in self._missing) * plan.bytes_per_image)

    def _open(self) -> None:
        """Begin a set in an empty folder, or see that the one that is there has the same settings."""
        settings, described = self.folder / "settings.json", self.plan.described()
        files.sweep(self.folder, "settings.json", "environment.json")  # of whoever was killed in here
        if settings.exists():
            different = differences(*(without_source_name(each) for each in (self._settings(), described)))
            if different:
                raise UserError(f"{self.folder} holds a set with other settings ({different}): name another folder with `out`")
        else:
            files.check_vacant(self.folder, hidden_allowed=True)
            # No room for the set: nothing is begun.
            files.check_space(self.folder, len(self.plan.source) * self.plan.bytes_per_image)
            files.write_json(settings, described)
        if not (self.folder / "environment.json").exists():
            files.write_json(self.folder / "environment.json", environment())

    def _settings(self) -> dict[str, Any]:
        """What ``settings.json`` holds, by the names of today."""
        return with_current_names(files.read_json(self.folder / "settings.json", "a set's settings"))

    @property
    def done(self) -> int:
        """Images in the shards that were there at the start."""
        return len(self.plan.source) - sum(len(self.plan.parts[k]) for k in self._missing)

    def shard(self, k: int) -> Path:
        """The file of shard ``k``."""
        return self.folder / "shards" / f"{k:05}.safetensors"

    def _is_done(self, k: int) -> bool:
        return self._hash_file(k).is_file() and self.shard(k).is_file()

    def _hash_file(self, k: int) -> Path:
        """What is written after a shard, beside it: its hash."""
        return self.shard(k).with_suffix(".json")

    def run(self, *, first: int = 0, on_images: OnImages = lambda n: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Make the shards that are missing and that nobody else is making.

        Args:
            first: the shard to begin with, so that several processes do not all begin with the same.
            on_images: called with the number of images that were done since its last call, by this process or another; a
                number with a fraction, since a step of an image is a part of it.
            stop: asked before every batch; after a true answer the shard that was begun is given up.

        Returns:
            Whether all shards are there now; False where others are still at work, or after a stop.
        """
        order = [*(k for k in self._missing if k >= first), *(k for k in self._missing if k < first)]
        with _ShardMaker(self.plan, on_images) as maker:
            for k in order:
                if not self._run_one(k, maker, stop):
                    return False
        self._missing = [k for k in order if not self._is_done(k)]
        return not self._missing

    def _run_one(self, k: int, maker: _ShardMaker, stop: Callable[[], bool]) -> bool:
        """Make a shard, unless it is there or another process is at it; False after a stop."""
        with files.file_lock(self.folder / "shards" / f".{k:05}.lock") as mine:
            if not mine or self._is_done(k):
                maker.on_images(len(self.plan.parts[k]))
                return True
            files.sweep(self.folder / "shards", self.shard(k).name, self._hash_file(k).name)
            tensors = maker.make(self.plan.parts[k], stop)
            if tensors is None:
                return False
            content = tensor_bytes(tensors)
            files.write_bytes(self.shard(k), content)
            files.write_json(self._hash_file(k), {"sha256": hashlib.sha256(content).hexdigest(), "n": len(self.plan.parts[k])})
        return True

    def check(self, on_images: OnImages = lambda n: None) -> list[int]:
        """Read every shard and compare its hash; those that are damaged are taken away, to be made again by ``run``.

        Args:
            on_images: called with the number of images that were checked since its last call.

        Returns:
            The numbers of the damaged shards.
        """
        before = 0

        def progress(done: int, total: int) -> None:
            nonlocal before
            on_images(done - before)
            before = done

        wrong = damaged(self.folder, {"shards": self._shards(), "n": len(self.plan.source)}, progress)
        self._missing = sorted(int(Path(file).stem) for file in wrong)
        for k in self._missing:
            self.shard(k).unlink(missing_ok=True)
            self._hash_file(k).unlink(missing_ok=True)
        return self._missing

    def _shards(self) -> list[dict[str, Any]]:
        """The shards as a manifest lists them; where a hash cannot be read, it is one that no file has."""
        listed = []
        for k, part in enumerate(self.plan.parts):
            try:
                sha256 = str(files.read_json(self._hash_file(k), "a shard's hash").get("sha256"))
            except UserError:
                sha256 = ""
            listed.append({"file": self.shard(k).name, "sha256": sha256, "n": len(part)})
        return listed

    def finish(self) -> dict[str, Any]:
        """Write the manifest of a set whose shards are all there; returns it."""
        shards = self._shards()
        manifest = {
            "format": FORMAT,
            "n": len(self.plan.source),
            "shape": list(self.plan.source.shape),
            "classes": list(self.plan.source.classes),
            "dtype": self.plan.dtype,
            "sha256": hashlib.sha256("".join(f"{s['file']} {s['sha256']}\n" for s in shards).encode()).hexdigest(),
            "facts": _summary(facts_of([self.shard(k) for k in range(len(shards))]), self.plan),
            "settings": self._settings(),  # of whoever began the set: its source may be called otherwise here
            "shards": shards,
        }
        with files.file_lock(self.folder / ".opening", wait=True):
            files.sweep(self.folder, MANIFEST)
            files.write_json(self.folder / MANIFEST, manifest)
        for lock in [self.folder / ".opening", *(self.folder / "shards").glob(".*.lock")]:
            files.remove_lock(lock)
        files.sweep(self.folder / "shards")
        return manifest


class _ShardMaker:
    """Makes shards one after another with one fast model, and says how far it is."""

    def __init__(self, plan: Plan, on_images: OnImages) -> None:
        self.plan, self.on_images = plan, on_images
        self.model = on_device(plan.model, plan.device)
        self.fast_model: nn.Module = plan.construction.fast_model(self.model, plan.compute_dtype)
        self.steps = int(plan.construction.described().get("steps", 0))
        self._reported = 0.0  # images of the batch in hand that ``on_images`` knows of

    def __enter__(self) -> _ShardMaker:
        self._hook = self.fast_model.register_forward_hook(self._on_forward)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hook.remove()

    def _on_forward(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Every pass of the fast model is a step of each image in its batch."""
        images = len(inputs[0])
        self._report(min(images / (self.steps + 2), images - self._reported))

    def _report(self, images: float) -> None:
        self._reported += images
        self.on_images(images)

    def make(self, index: Tensor, stop: Callable[[], bool]) -> dict[str, Tensor] | None:
        """The tensors of a shard; None after a stop.

        Args:
            index: positions in the source, int64 ``(B,)``.
        """
        parts: list[dict[str, Tensor]] = []
        for batch in index.split(self.plan.batch_size):
            if stop():
                return None
            self._reported = 0.0
            parts.append(self._batch(batch))
            self._report(len(batch) - self._reported)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _batch(self, index: Tensor) -> dict[str, Tensor]:
        plan = self.plan
        keys = fold(example_keys(plan.seed, plan.places[index]), "construct").to(plan.device)
        made = plan.construction(plan.source, index, keys, self.model, self.fast_model)
        stored = to_uint8(made.x) if plan.dtype == "uint8" else made.x.to(DTYPES[plan.dtype])
        restored = to_float(stored)
        with frozen(self.model):
            before, after = predictions(self.model, made.x), predictions(self.model, restored)
        found = {
            "x": stored,
            "y": made.y,
            "index": plan.places[index],
            "label": plan.source.labels.cpu()[index],
            "predicted_before_storing": before,
            "predicted": after,
            "added_by_storing": L2().measure(restored.double() - made.x.double()).float(),
            **{name: plan.places[fact.cpu()] if name == "start" else fact for name, fact in made.facts.items()},
        }
        return on_cpu(found)


def _summary(columns: dict[str, Tensor], plan: Plan) -> dict[str, Any]:
    """What is known of a set as a whole, from what is known of each image.

    Args:
        columns: ``(N,)`` by name, see ``robustlab.data.constructed.facts``.

    Returns:
        Shares in [0, 1] by name, among them ``taken_for_label``, the share that the model classifies as its label as stored; and
        of each column of floats its mean and largest value.
    """
    outputs = plan.model.outputs_for(plan.source.classes, plan.source.name)
    new, old = outputs[columns["y"]], outputs[columns["label"]]
    shares = {
        "taken_for_label_before_storing": columns["predicted_before_storing"] == new,
        "taken_for_label": columns["predicted"] == new,
        "taken_for_original_label": columns["predicted"] == old,
        "label_is_original": columns["y"] == columns["label"],
    }
    known: dict[str, Any] = {name: float(share.double().mean()) for name, share in shares.items()}
    for name, column in columns.items():
        if column.is_floating_point():
            known[name] = {"mean": float(column.double().mean()), "largest": float(column.max())}
    return known


def build_set(folder: str | os.PathLike[str], plan: Plan, *, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """Make a set, or what is missing of it, check every shard, and write the manifest.

    Args:
        folder: where the set is, or is to be.
        stop: asked before every batch.

    Returns:
        The manifest; None where other processes are still at work, or after a stop.

    Raises:
        UserError: the folder holds something else, or the disk has no room.
    """
    building = Building(folder, plan)
    while building.run(stop=stop):
        if not building.check():
            return building.finish()
    return None
