"""One call from a model and some images to a finished set: made shard by shard, checked, and opened."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.checks import with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.construction.kinds import INVERTED, SourceModel, kind_named, measure_source, mismatch, published_construction
from robustlab.construction.shards import Building, Plan
from robustlab.data.adapt import Data, as_images
from robustlab.data.constructed import facts, open_constructed
from robustlab.data.imageset import Images, ImageSet
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.models.placement import on_device
from robustlab.models.zoo import load, pretrained
from robustlab.paths import place_of
from robustlab.pixels import to_float
from robustlab.progress import Progress

# Which of several processes this is, and of how many: under torchrun, and in a SLURM array or step.
PROCESSES = (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"), ("SLURM_PROCID", "SLURM_NTASKS"))


class Unfinished(Exception):
    """The call ends before the set is finished; the same call goes on with what is in the folder.

    Attributes:
        stopped: whether ``stop`` said so. Else other processes still make the last shards.
    """

    def __init__(self, sentence: str, stopped: bool) -> None:
        super().__init__(sentence)
        self.stopped = stopped


@dataclass(frozen=True, eq=False)
class ConstructedSet:
    """A finished set.

    Attributes:
        kind: one of ``KINDS``.
        images: the new images with their labels.
        original: the images that they were made from, in the same order.
        facts: what is known of each image, tensors ``(N,)`` by name, see ``robustlab.data.constructed.facts``.
        manifest: what is known of the set as a whole: its settings, shards, hash, and shares such as ``taken_for_label``.
        model: what is known of the model behind it.
        folder: where the set lies; None for one in memory only.
    """

    kind: str
    images: Images
    original: Images
    facts: dict[str, Tensor]
    manifest: dict[str, Any]
    model: SourceModel
    folder: Path | None

    def __repr__(self) -> str:
        share, place = self.manifest["facts"]["taken_for_label"], self.folder or "memory"
        return f"<{self.kind}: {len(self.images):,} images in {place}, {100 * share:.1f} % classified as their label by {self.model.name}>"


def construct(
    model: nn.Module | str | os.PathLike[str],
    data: Data,
    kind: str = "D_det",
    *,
    out: str | os.PathLike[str] | None = None,
    threat: ThreatModel | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    shard_size: int = 500,
    batch_size: int = 250,
    compute_dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
    progress: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> ConstructedSet:
    """Make a data set of a model's features after Ilyas et al. (2019), or go on with it where it is there in part.

        made = construct("cifar10-small-standard", images, "D_det", out="datasets/d_det")
        train(made.images, test=test_images)

    Several processes with one folder make one set together, and a call after an interruption goes on; the bytes are the same. For a
    construction of your own see ``Plan`` and ``build_set``.

    Args:
        model: a ``Classifier``, or the name or path of one. For D_rand and D_det also any network from images in [0, 1] to
            logits, whose outputs are the data's classes in order. It is left as it was.
        data: labelled images in any form, see ``robustlab.data.adapt``.
        kind: D_rand, D_det, D_R or D_NR.
        out: the set's folder. Where left out the set is kept in memory only.
        threat, steps, step_size: in place of the published settings, see ``published_construction``.
        seed: of every random draw.
        dtype: of the stored pixels: float32, float16 or uint8.
        shard_size: images in a shard: what an interruption can cost.
        batch_size: images that are optimized at once.
        compute_dtype: dtype to take the steps in; None is float32. What was reached is always judged in float32.
        device: where to compute; where the model is if left out.
        name: what to call the model.
        progress: show how far it is.
        stop: asked before every batch.

    Raises:
        UserError: an unknown name, settings that do not fit the kind, images that do not fit the model, a folder in use, a full disk.
        Unfinished: ``stop`` said so, or other processes still make the last shards.

    Warns:
        UserWarning: the model is robust where the kind needs a standard one, or the other way round; or shards were damaged.
    """
    construction, kind = published_construction(kind, threat=threat, steps=steps, step_size=step_size), kind_named(kind)
    images = as_images(data)
    classifier, known_as = _classifier(model, images, kind, device)
    plan = Plan(construction, images, classifier, seed, dtype, shard_size, batch_size, compute_dtype, classifier.mean.device)
    with _folder(out) as folder:
        building = Building(folder, plan)
        source = _measured(kind, classifier, images, name or known_as)
        _make_shards(building, progress, stop)
        return _opened(building, kind, source, place_of(out) if out else None)


def _measured(kind: str, model: Classifier, images: Images, name: str) -> SourceModel:
    """What the model reaches; warns where a set of this kind is made from others."""
    source = measure_source(model, images, name, pretrained().get(name))
    if sentence := mismatch(kind, source):
        warnings.warn(sentence, stacklevel=3)
    return source


def _opened(building: Building, kind: str, source: SourceModel, out: Path | None) -> ConstructedSet:
    """The set of a building whose shards are all there; read into memory where it is to have no folder."""
    manifest, images = building.finish(), building.plan.source
    made = open_constructed(building.folder, memory_limit=4 << 30 if out else sys.maxsize, verify=False)
    if isinstance(made, ImageSet) and not out:
        made = replace(made, name=f"{kind} of {images.name}")
    return ConstructedSet(kind, made, images, facts(building.folder), manifest, source, out)


def _classifier(
    model: nn.Module | str | os.PathLike[str], images: Images, kind: str, device: torch.device | str | None
) -> tuple[Classifier, str]:
    """The model as a classifier on a device, and its name: loaded by name or path, or a network that is no ``Classifier`` made into one."""
    if not isinstance(model, nn.Module):
        found = load(model)
    elif isinstance(model, Classifier):
        found = model
    elif kind not in INVERTED:
        found = _as_classifier(model, images)
    else:
        raise UserError(f"{kind} matches features, so its model must be a robustlab Classifier(body, head), not a {type(model).__name__}")
    name = (found.arch or type(model).__name__) if isinstance(model, nn.Module) else os.fspath(model)
    return on_device(found, device or found.mean.device), name


def _as_classifier(network: nn.Module, images: Images) -> Classifier:
    """A network of pixels in [0, 1] whose outputs are the images' classes in order. Its logits stand for the features."""
    one = next(network.parameters(), torch.empty(0))
    x = to_float(images.fetch(torch.arange(min(1, len(images))))).to(one.device)
    with frozen(network), torch.no_grad():
        outputs = with_logit_checks(network, len(images.classes) - 1)(x).shape[1]
    if outputs != len(images.classes):
        raise UserError(f"the model has {outputs} outputs, but {images.name} has {len(images.classes)} classes")
    head = torch.nn.utils.skip_init(nn.Linear, outputs, outputs, bias=False)  # without a draw from the global generator
    nn.init.eye_(head.weight)  # changes no logit
    normalization = {"mean": [0.0] * images.shape[0], "std": [1.0] * images.shape[0]}  # none
    return Classifier(network, head, **normalization, arch=type(network).__name__, classes=images.classes).to(one.device)


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The set's folder; where there is to be none, one that is gone at the end."""
    if out:
        yield place_of(out)
        return
    with tempfile.TemporaryDirectory(prefix="robustlab-") as temporary:
        yield Path(temporary)


def _make_shards(building: Building, progress: bool, stop: Callable[[], bool]) -> None:
    """Make what is missing, and check every shard until none is damaged."""
    total = len(building.plan.source)
    while True:
        with Progress("constructing", total, "img", shown=progress) as shown:
            shown.start_from(building.done)
            whole = building.run(first=first_shard(len(building.plan.parts)), on_images=shown.update, stop=stop)
        if not whole and stop():
            raise Unfinished("stopped before the set was finished", True)
        if not whole:
            raise Unfinished(f"nothing is left to begin in {building.folder}: other processes make the last shards", False)
        with Progress("checking", total, "img", shown=progress) as shown:
            wrong = building.check(shown.update)
        if not wrong:
            return
        warnings.warn(f"{len(wrong)} of the shards in {building.folder} were damaged, and are made again", stacklevel=3)


def first_shard(shards: int) -> int:
    """Where this process begins among so many shards, so that the processes of torchrun or SLURM begin in different places."""
    for rank, size in PROCESSES:
        place, processes = os.environ.get(rank, ""), os.environ.get(size, "")
        if place.isdigit() and processes.isdigit() and int(processes) > 0:
            return shards * (int(place) % int(processes)) // int(processes)
    return 0
