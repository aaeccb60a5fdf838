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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from robustlab import files
from robustlab.construction.made import Construction
from robustlab.data.constructed import DTYPES, FORMAT, MANIFEST, damaged, facts_of
from robustlab.data.fingerprint import fingerprint
from robustlab.data.imageset import Images
from robustlab.errors import UserError, unknown
from robustlab.evaluation import predictions
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.pixels import to_float, to_uint8
from robustlab.records import differences, environment
from robustlab.seeding import example_keys, fold

OnImages = Callable[[float], object]
OLD_TARGETS = {"drawn": "random_target", "following": "next_class"}  # in the settings of sets made before


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that the bytes of a set depend on.

    Attributes:
        seed: of every random draw.
        dtype: of the stored pixels: ``float32`` keeps them as they were found, the others round; by how much is reported.
        shard_size: images in a shard: what an interruption can cost.
        batch_size: images that are optimized at once, within a shard.
        compute_dtype: dtype to take the steps in; None is float32. What was reached is always judged in float32.
        device: where to compute.
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

    @property
    def bytes_per_image(self) -> int:
        return math.prod(self.source.shape) * DTYPES[self.dtype].itemsize + 64  # 64: the label and the facts

    def described(self) -> dict[str, Any]:
        """In values that JSON holds: two plans that are described alike make the same set."""
        source, model = self.source, self.model
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
                "mean": model.mean.flatten().tolist(),
                "std": model.std.flatten().tolist(),
                "sha256": digest(model, normalization=False),
            },
            "seed": self.seed,
            "dtype": self.dtype,
            "shard_size": self.shard_size,
            "batch_size": self.batch_size,
            "compute_dtype": str(self.compute_dtype or torch.float32).removeprefix("torch."),
            "device": self.device.type,
        }


def in_todays_words(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a set as they are called now; before, the dtype and the targets had other names."""
    settings = dict(settings)
    if "search" in settings:
        settings["compute_dtype"] = settings.pop("search")
    construction = settings.get("construction")
    if isinstance(construction, dict) and construction.get("targets") in OLD_TARGETS:
        settings["construction"] = {**construction, "targets": OLD_TARGETS[construction["targets"]]}
    return settings


class Building:
    """A folder in which a set is being made, by this process and perhaps by others.

    Raises:
        UserError: the folder holds something else, or a set of other settings (the sentence names the differences); or
            the disk has no room.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Plan) -> None:
        self.folder, self.plan = Path(folder), plan
        described = plan.described()
        existed = self.folder.exists()
        with files.file_lock(self.folder / ".opening", wait=True):
            try:
                self._open(described)
            except UserError:
                (self.folder / ".opening").unlink(missing_ok=True)
                if not existed:
                    self.folder.rmdir()
                raise
        self._missing = [k for k in range(len(plan.parts)) if not self._is_there(k)]
        files.check_space(self.folder, sum(len(plan.parts[k]) for k in self._missing) * plan.bytes_per_image)

    def _open(self, described: dict[str, Any]) -> None:
        settings = self.folder / "settings.json"
        if settings.exists():
            different = differences(in_todays_words(files.read_json(settings, "a set's settings")), described)
            if different:
                raise UserError(f"{self.folder} holds a set with other settings ({different}): name another folder with --out")
        elif any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
            raise UserError(f"{self.folder} is not an empty folder: name another one with --out")
        else:
            # No room for the set: nothing is begun.
            files.check_space(self.folder, len(self.plan.source) * self.plan.bytes_per_image)
            files.write_json(settings, described)
        if not (self.folder / "environment.json").exists():
            files.write_json(self.folder / "environment.json", environment())

    @property
    def done(self) -> int:
        """Images in the shards that were there at the start."""
        return len(self.plan.source) - sum(len(self.plan.parts[k]) for k in self._missing)

    def shard(self, k: int) -> Path:
        return self.folder / "shards" / f"{k:05}.safetensors"

    def _is_there(self, k: int) -> bool:
        return self._note(k).is_file() and self.shard(k).is_file()

    def _note(self, k: int) -> Path:
        """The file beside a shard that is written after it, with its hash."""
        return self.shard(k).with_suffix(".json")

    def run(self, *, first: int = 0, on_images: OnImages = lambda n: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Make the shards that are missing and that nobody else is making.

        Args:
            first: the shard to begin with, so that several processes do not all begin with the same.
            on_images: told how many images were done since it was last told, by this process or another, in fractions.
            stop: asked before every batch.

        Returns:
            Whether all shards are there now; False where others are still at work, or after a stop.
        """
        order = [*(k for k in self._missing if k >= first), *(k for k in self._missing if k < first)]
        maker = _Maker(self.plan, on_images)
        try:
            for k in order:
                if not self._run_one(k, maker, stop):
                    return False
        finally:
            maker.close()
        self._missing = [k for k in order if not self._is_there(k)]
        return not self._missing

    def _run_one(self, k: int, maker: _Maker, stop: Callable[[], bool]) -> bool:
        """Make a shard, unless it is there or another process is at it; False after a stop."""
        with files.file_lock(self.folder / "shards" / f".{k:05}.lock") as mine:
            if not mine or self._is_there(k):
                maker.skip(len(self.plan.parts[k]))
                return True
            tensors = maker.make(self.plan.parts[k], stop)
            if tensors is None:
                return False
            content = tensor_bytes(tensors)
            files.write_bytes(self.shard(k), content)
            files.write_json(self._note(k), {"sha256": hashlib.sha256(content).hexdigest(), "n": len(self.plan.parts[k])})
        return True

    def check(self, on_images: OnImages = lambda n: None) -> list[int]:
        """Read every shard and compare its hash; those that are damaged are taken away, to be made again by ``run``."""
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            on_images(done - told)
            told = done

        wrong = damaged(self.folder, {"shards": self._shards(), "n": len(self.plan.source)}, progress)
        self._missing = sorted(int(Path(file).stem) for file in wrong)
        for k in self._missing:
            self.shard(k).unlink(missing_ok=True)
            self._note(k).unlink(missing_ok=True)
        return self._missing

    def _shards(self) -> list[dict[str, Any]]:
        """The shards as a manifest lists them; of one whose note cannot be read, the hash is one that no file has."""
        listed = []
        for k, part in enumerate(self.plan.parts):
            try:
                sha256 = str(files.read_json(self._note(k), "a shard's hash").get("sha256"))
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
            "facts": summary(facts_of([self.shard(k) for k in range(len(shards))]), self.plan),
            "settings": self.plan.described(),
            "shards": shards,
        }
        files.write_json(self.folder / MANIFEST, manifest)
        for left in [self.folder / ".opening", *(self.folder / "shards").glob(".*.lock")]:
            left.unlink(missing_ok=True)
        files.sweep(self.folder / "shards")
        return manifest


class _Maker:
    """Makes shards one after another with one fast model, and tells how far it is."""

    def __init__(self, plan: Plan, on_images: OnImages) -> None:
        self.plan, self.on_images = plan, on_images
        self.model = plan.model.to(plan.device)
        self.stepped: nn.Module = plan.construction.fast_model(self.model, plan.compute_dtype)
        self.told, self.steps = 0.0, int(plan.construction.described().get("steps", 0))
        self._hook = self.stepped.register_forward_hook(self._on_forward)

    def close(self) -> None:
        self._hook.remove()

    def _on_forward(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Every pass of the fast model is a step of each image in its batch."""
        images = len(inputs[0])
        self._tell(min(images / (self.steps + 2), images - self.told))

    def _tell(self, images: float) -> None:
        self.told += images
        self.on_images(images)

    def skip(self, images: int) -> None:
        self.on_images(images)

    def make(self, index: Tensor, stop: Callable[[], bool]) -> dict[str, Tensor] | None:
        """The tensors of a shard; None after a stop."""
        parts: list[dict[str, Tensor]] = []
        for batch in index.split(self.plan.batch_size):
            if stop():
                return None
            self.told = 0.0
            parts.append(self._batch(batch))
            self._tell(len(batch) - self.told)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _batch(self, index: Tensor) -> dict[str, Tensor]:
        plan = self.plan
        keys = fold(example_keys(plan.seed, index), "construct").to(plan.device)
        made = plan.construction(plan.source, index, keys, self.model, self.stepped)
        stored = to_uint8(made.x) if plan.dtype == "uint8" else made.x.to(DTYPES[plan.dtype])
        restored = to_float(stored)
        with frozen(self.model):
            before, after = predictions(self.model, made.x), predictions(self.model, restored)
        columns = {
            "y": made.y,
            "index": index,
            "label": plan.source.labels.cpu()[index],
            "predicted_before_storing": before,
            "predicted": after,
            "added_by_storing": L2().measure(restored.double() - made.x.double()).float(),
            **made.facts,
        }
        return {"x": stored.cpu().contiguous(), **{name: column.cpu() for name, column in columns.items()}}


def summary(columns: dict[str, Tensor], plan: Plan) -> dict[str, Any]:
    """What is known of a set as a whole, from what is known of each image."""
    outputs = plan.model.outputs_for(plan.source.classes, plan.source.name)
    wanted, old = outputs[columns["y"]], outputs[columns["label"]]
    shares = {
        "taken_for_label_before_storing": columns["predicted_before_storing"] == wanted,
        "taken_for_label": columns["predicted"] == wanted,
        "taken_for_original_label": columns["predicted"] == old,
        "label_is_original": columns["y"] == columns["label"],
    }
    known: dict[str, Any] = {name: float(share.double().mean()) for name, share in shares.items()}
    for name, column in columns.items():
        if column.is_floating_point():
            known[name] = {"mean": float(column.double().mean()), "largest": float(column.max())}
    return known


def build(folder: str | os.PathLike[str], plan: Plan, *, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """Make a set, or what is missing of it, check every shard, and write the manifest.

    Returns:
        The manifest; None where other processes are still at work, or after a stop.
    """
    building = Building(folder, plan)
    while building.run(stop=stop):
        if not building.check():
            return building.finish()
    return None
