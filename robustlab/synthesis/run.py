"""``synthesize``: from a task, models and images to pictures, with their numbers under an independent judge."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustlab.blocks import Blocks
from robustlab.data.imageset import Images
from robustlab.errors import UserError, unknown
from robustlab.models.placement import device_of
from robustlab.options import flat, leaves
from robustlab.progress import Progress
from robustlab.synthesis import replay as replays
from robustlab.synthesis.budget import Search, resolved, search_of
from robustlab.synthesis.judges import judges_of, unjudged
from robustlab.synthesis.selection import MatchedModel, Selection, match, select
from robustlab.synthesis.sheets import Pictures
from robustlab.synthesis.sources import Model, labelled_images, named_models, numbered, open_own, picture_files, with_classes, with_names
from robustlab.synthesis.spared import spared
from robustlab.synthesis.tasks import TASKS, check_has, named_task


def synthesize(
    task: Any,
    model: Model | Sequence[Model] | Mapping[str, nn.Module],
    images: Any,
    *,
    n: int | None = None,
    positions: Sequence[int] | None = None,
    split: str = "test",
    image_size: int | None = None,
    judge: Model | Mapping[str, nn.Module] | Literal[False] | None = None,
    train: Any = None,
    seed: int = 0,
    batch_size: int = 50,
    device: str | torch.device | None = None,
    progress: bool = True,
    replay: Mapping[str, Any] | None = None,
    resumable: Blocks | None = None,
    **settings: Any,
) -> Pictures:
    """Pictures that a task makes with a model, or with several of the same images.

        robustlab.synthesize("translate", "cifar10-small-l2", "datasets/cifar10", target="dog").save("dogs.png")

    The same arguments make the same bytes, on one machine. A picture depends on its image, the model and ``seed``, not on the others.

    Args:
        task: a name in ``TASKS``, or settings of a task, such as ``Translate(target="dog")``.
        model: a network, the name of a pretrained one, or the path of a checkpoint; or several, also by names of your own. Best a
            ``Classifier``; of another network the outputs count in the order of the classes. ``"A+B"`` is the ensemble of two.
        images: labelled images of any kind that ``as_images`` takes: a path, an ``ImageSet``, a torch Dataset, a pair ``(x, y)``, ...;
            for many tasks also picture files, one or several, which are labelled as what the first model classifies them as.
        n: how many images to work on: the first of each class, then the second of each, and so on; where left out, as many as the task
            says.
        positions: work on the images at these places of their whole split instead.
        split: which part of the data at a path.
        image_size: resize and crop images at a path, and picture files, to this many pixels.
        judge: an independent classifier that judges the pictures; where left out, a pretrained one that did not make them, if there is
            one of these classes. False for none: the numbers that need one are then left out.
        train: training images, of any such kind, for a task that needs them; where left out, those at the path of ``images``.
        seed: of every random draw.
        batch_size: images that pass through a model at a time.
        device: where to compute; where the first model is, if left out.
        progress: show how far the work has come.
        replay: what a replay file holds, see ``replay.read_replay``: its judges judge, and other models or images are refused.
        resumable: keeps every batch of pictures as soon as it is made, and gives those that were made before an interruption.
        settings: of the task, by name.

    Returns:
        The pictures of the first model, with those of further ones in ``others``.

    Raises:
        UserError: what is asked for does not fit together; the sentence says what.
    """
    name, asked = _asked(task, settings)
    positions = None if positions is None else [int(position) for position in positions]
    files = picture_files(images)
    _check_amounts(name, n, positions, batch_size, bool(files))
    models = named_models(model, None if device is None else torch.device(device))
    place = device_of(next(iter(models.values())))
    judging = {} if judge is None or judge is False else named_models(judge, place)
    with spared([*models.values(), *judging.values()]):
        if files:
            labelled: Images = open_own(files, models, judging, image_size=image_size, batch_size=batch_size)
        else:
            labelled = with_names(labelled_images(images, split, image_size=image_size, progress=progress), models, judging)
        matched = [match(each, network, labelled) for each, network in models.items()]
        wanted = TASKS[name].judged and judge is not False
        recorded = None if replay is None else replay.get("judges", {})
        judges = judges_of(matched, labelled, judging, recorded) if wanted else {}
        trained_on = _training_images(name, images if train is None else train, labelled, image_size, progress, given=train is not None)
        used = {split: labelled} | ({} if trained_on is None else {"train": trained_on})
        weights, data = _hashes([*matched, *judges.values()], used, replay)
        asked = resolved(name, asked, labelled.shape[1])
        how: dict[str, Any] = {"training_images": trained_on, "seed": seed, "batch_size": batch_size, "device": place}
        chosen = range(len(labelled)) if files else positions
        within = replay is not None and not replays.counts_in_split(replay)
        selection = select(labelled, n or TASKS[name].n, positions=chosen, name=f"{labelled.name} ({split})", within=within, **how)
        blocks = Blocks(None) if resumable is None else resumable
        keeping = [(each, judges.get(each.name), partial(_Kept, blocks, f"pictures {k}")) for k, each in enumerate(matched)]
        first, *others = [_made(name, each, judge, selection, asked, progress, keep) for each, judge, keep in keeping]
        values: dict[str, Any] = {
            "task": name,
            "model": ",".join(models),
            "data": None if files or not isinstance(images, str | os.PathLike) else str(images),
            "split": None if files else split,
            "image_size": image_size,
            "images": files or (None if positions is not None else n or TASKS[name].n),
            "positions": positions,
            **flat(asked),
            "judge": next(iter(judging), None),
            "batch_size": batch_size,
            "seed": seed,
        }
        notes = [*_classification(matched[0], selection, asked, bool(files)), *(unjudged(matched, judges) if wanted else [])]
        notes += (note for each in (first, *others) for note in each.notes)
        numbers = {each.model: each.numbers for each in (first, *others)}
        judged_by = {each: one.name for each, one in judges.items()}
        record = replays.record_of(values, weights, judged_by, data, selection.index.tolist(), selection.places.tolist(), numbers)
        return replace(first, others=tuple(others), notes=tuple(notes), replay=record)


def _hashes(
    models: Sequence[MatchedModel], images: Mapping[str, Images], replay: Mapping[str, Any] | None
) -> tuple[dict[str, str], dict[str, Any]]:
    """What tells models from others, by their names, and images, by their splits; those of a replay file must be the same."""
    weights = {each.name: each.digest for each in models}
    data = {split: replays.data_of(some) for split, some in images.items()}
    if replay is not None:
        replays.check_same("models", replay["models"], weights)
        replays.check_same("data", replay["data"], data)
    return weights, data


def _asked(task: Any, values: Mapping[str, Any]) -> tuple[str, Any]:
    """The name of the task, and its settings."""
    if isinstance(task, str):
        name, settings = task, named_task(task).settings
    else:
        settings = type(task)
        name = next((name for name, known in TASKS.items() if known.settings is settings), "")
        if not name:
            raise UserError(f"a task is a name, one of {', '.join(TASKS)}, or its settings, got {settings.__name__}")
    for option in values:
        check_has(name, option)
        if option not in leaves(settings):
            raise unknown("setting", option, leaves(settings))
    return name, settings(**values) if isinstance(task, str) else replace(task, **values)


def _check_amounts(task: str, n: int | None, positions: Sequence[int] | None, batch_size: int, own: bool) -> None:
    if own and not TASKS[task].own:
        able = ", ".join(name for name, one in TASKS.items() if one.own)
        raise UserError(f"the task {task!r} needs a set of labelled images, by `data`; picture files are for {able}")
    if positions is not None:
        check_has(task, "positions")
    if own and (n is not None or positions is not None):
        raise UserError("all the picture files are worked on: leave out n and positions")
    if n is not None and positions is not None:
        raise UserError("n and positions both say which images to work on: give one of them")
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if positions is not None and not len(positions):
        raise UserError("positions must name at least one image")


def _training_images(task: str, source: Any, images: Images, image_size: int | None, progress: bool, *, given: bool) -> Images | None:
    """The training images of a task that needs them.

    Args:
        source: what was given, or else the images to work on, of which only a path leads to training images.
    """
    if not TASKS[task].training_images:
        return None
    if not given and not isinstance(source, str | os.PathLike):
        raise UserError(f"the task {task!r} needs training images, from which it draws its seeds: give them by `train`")
    found = labelled_images(source, "train", image_size=image_size, progress=progress)
    if numbered(found.classes) and len(found.classes) <= len(images.classes):
        found = with_classes(found, images.classes)
    if (found.classes, found.shape) != (images.classes, images.shape):
        raise UserError(f"the training images {found.name} must have the classes and the size of {images.name}")
    return found


@dataclass(eq=False)
class _SearchLog:
    """What is seen of a model's searches, step by step.

    Attributes:
        progress: counts the steps.
        objective: its mean at each step of the first search.
        searched: pictures that were searched for.
        unmoved: those of them that the first step left where they were.
    """

    progress: Progress
    objective: list[Tensor] = field(default_factory=list)
    searched: int = 0
    unmoved: int = 0
    start: Tensor | None = None

    def __call__(self, t: int, x: Tensor, value: Tensor) -> None:
        self.progress.update()
        if t == len(self.objective):
            self.objective.append(value.mean())
        if t == 0:
            self.start, self.searched = x, self.searched + len(x)
        elif t == 1 and self.start is not None:
            self.unmoved += int((x == self.start).flatten(1).all(1).sum())
            self.start = None


@dataclass(eq=False)
class _Kept:
    """The batches of one model's pictures, in the order in which they are made.

    Attributes:
        blocks: where they are kept.
        part: as which part of the work.
        log: what was seen of its searches, which is kept with them.
        place: where they are wanted.
        count: batches so far.
    """

    blocks: Blocks
    part: str
    log: _SearchLog
    place: torch.device
    count: int = 0

    def __call__(self, make: Callable[[], Tensor]) -> Tensor:
        k, log = self.count, self.log
        self.count += 1
        if self.blocks.is_done(self.part, k):
            log.searched, log.unmoved, steps = self.blocks.found(self.part, k)
            kept = self.blocks.tensors(self.part, k)
            log.objective = list(kept["objective"].to(self.place))
            log.progress.update(steps - log.progress.done)
            return kept["x"].to(self.place)
        x = make()
        if self.blocks.folder is not None:
            objective = torch.stack(log.objective) if log.objective else torch.zeros(0)
            self.blocks.put(self.part, k, [log.searched, log.unmoved, log.progress.done], {"x": x, "objective": objective})
        return x


def _made(
    task: str,
    model: MatchedModel,
    judge: MatchedModel | None,
    images: Selection,
    settings: Any,
    progress: bool,
    keeping: Callable[[_SearchLog, torch.device], _Kept],
) -> Pictures:
    """What one model makes, or what is missing of it."""
    known = TASKS[task]
    search = None if known.presets is None else search_of(task, settings, images.images.shape[1])
    steps = 0 if search is None else search.steps
    total = math.ceil(len(images.index) / images.batch_size) * (steps + 1)
    with Progress(f"{task} {model.name}", total, "step", shown=progress) as shown:
        log = _SearchLog(shown)
        keep = keeping(log, images.device)
        made = known.function(model, replace(images, on_step=log, keep=keep), settings, **({"judge": judge} if known.judged else {}))
    looked_at = len(images.images) if task == "extremes" else len(images.index)
    return replace(
        made,
        model=model.name,
        source=f"{looked_at} images of {images.images.name}",
        judge=None if judge is None else judge.name,
        notes=() if search is None else tuple(_unmoved(model.name, log, search)),
        objective=torch.stack(log.objective).cpu() if log.objective else torch.zeros(0),
    )


def _unmoved(name: str, log: _SearchLog, search: Search) -> list[str]:
    """Notes on pictures that are still their starts."""
    if 0 in (search.steps, search.step_size, search.eps):
        return [f"without steps, or with a step or radius of 0, the pictures of {name} are their starts"]
    if log.unmoved:
        why = "the feature is off there, or what was asked for is there already"
        return [f"{log.unmoved} of {log.searched} pictures of {name} are their starts, as the gradient is zero: {why}"]
    return []


def _classification(model: MatchedModel, images: Selection, settings: Any, own: bool) -> list[str]:
    """A note on how picture files are labelled, where no class was named."""
    if not own or getattr(settings, "target", None) is not None:
        return []
    more = "; `target` names another class" if hasattr(settings, "target") else ""
    return [f"{model.name} classifies the pictures as {', '.join(images.names(images.y))}{more}"]
