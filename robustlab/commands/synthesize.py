"""``robustlab synthesize TASK``: pictures made and edited with classifiers, their numbers, and a recipe that makes the same bytes again."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from robustlab import __version__, files, pictures
from robustlab.commands import settings
from robustlab.commands.common import bar, check_fits, check_reads, choose_device, load_model, normalization_of, open_data, short_names
from robustlab.commands.flags import parse
from robustlab.commands.tasks import TASKS, Made, Subject, Task, Work, in_turn
from robustlab.data.fingerprint import fingerprint
from robustlab.data.folder import open_pictures
from robustlab.data.imageset import Images
from robustlab.errors import UserError, unknown
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.models.zoo import load, released
from robustlab.options import changed, flat, given, leaves, value_of, words
from robustlab.pixels import to_float
from robustlab.records import environment
from robustlab.synthesis.budget import Search

FORMAT = "robustlab-synthesis-1"
# Not of a recipe: what does not change the pictures, and what only the person at the command line may allow.
HERE = ("device", "threads", "grid", "out", "tensorboard", "download", "trust_checkpoint", "replay")
BY_TASK = frozenset(name for task in TASKS.values() for name in task.flags)  # settings that not every task has
VERSIONS = ("robustlab", "python", "torch", "torchvision", "pillow", "threads")  # that bytes may depend on


def run(args: settings.Synthesize) -> None:
    """The command."""
    recipe = None if args.output.replay is None else read_recipe(Path(args.output.replay))
    if recipe is not None:
        args = replayed(args, recipe)
    task = _task(args)
    grid, out = _places(args)
    device = choose_device(args.compute.device, args.compute.threads)
    models = _models(args, device)
    images = _images(args, args.data.split) if not _own(args) else _pictures(args, models)
    subjects = [_subject(name, model, images, args) for name, model in models.items()]
    named = {} if recipe is None else recipe.get("judges", {})
    judges = _judges(args, subjects, images, device, named) if task.judged else {s.name: s for s in subjects}
    weights = {s.name: digest(s.model) for s in (*subjects, *judges.values())}
    if recipe is not None:
        _check("models", recipe["models"], weights)
    index = _index(args, images, task)
    if _own(args) and args.task.target is None:
        told = ", ".join(images.classes[label] for label in images.labels.tolist())
        print(f"note: {subjects[0].name} takes the pictures for {told}; --target names another class", file=sys.stderr)
    args = _resolved(args, task, images)
    opened: list[Images] = []
    courses: dict[str, Course] = {}

    def training() -> Images:
        opened.append(opened[0] if opened else _images(args, "train"))
        return opened[0]

    made = {}
    for subject in subjects:
        search = task.search(args, images.shape[1])
        with bar(math.ceil(len(index) / args.compute.batch_size) * (search.steps + 1), f"{args.task.task} {subject.name}", "step") as shown:
            course = courses[subject.name] = Course(shown.update)
            work = Work(args, images, index, search, device, training, course)
            made[subject.name] = task.make(work, subject, judges[subject.name])
    data = {name: _described(some) for name, some in {args.data.split: images, **({"train": opened[0]} if opened else {})}.items()}
    if recipe is not None:
        _check("data", recipe["data"], data)
    sheet = sheet_of(made, args.output.columns)
    pictures.save(grid, sheet)
    judged_by = {name: judge.name for name, judge in judges.items()} if task.judged else {}
    known = {
        "format": FORMAT,
        "command": command(args),
        "settings": {name: _plain(value) for name, value in flat(args).items() if name not in HERE},
        "models": weights,
        "judges": judged_by,
        "data": data,
        "images": index.tolist(),
        "numbers": {name: {key: _number(value) for key, value in each.numbers.items()} for name, each in made.items()},
        "picture": files.sha256(grid),
        "versions": versions(),
    }
    if out is not None:
        _write(out, made)
        if args.output.tensorboard:
            _board(out / "tensorboard", args, sheet, made, courses)
    files.write_json(grid.with_suffix(".json"), known)
    print(_table(made, len(images) if args.task.task == "extremes" else len(index), images, judged_by))
    if task.preset is not None:
        for name, course in courses.items():
            _say_what_stays(name, course, task.search(args, images.shape[1]))
    print(f"pictures: {grid}\nrecipe: {grid.with_suffix('.json')}")
    if recipe is not None:
        _compare(recipe, known)


# What is asked


def _task(args: settings.Synthesize) -> Task:
    """The task, if every setting that was given means something to it."""
    if args.task.task is None:
        raise UserError(f"what to make? One of: {', '.join(f'{name} ({task.about})' for name, task in TASKS.items())}")
    if args.task.task not in TASKS:
        raise unknown("task", args.task.task, TASKS)
    task = TASKS[args.task.task]
    for name in _given(args):
        if name in BY_TASK and name not in task.flags:
            raise UserError(f"the task {args.task.task!r} has no {_flag(name)}; it has {', '.join(map(_flag, sorted(task.flags)))}")
    if not args.model.name:
        raise UserError(f"with which model? --model takes a checkpoint's path or one of: {', '.join(released()) or 'none released yet'}")
    if _own(args):
        _check_own(args, task)
    elif args.data.path is None and args.data.dataset is None:
        files_too = ", or --images FILE,FILE" if task.own else ""
        raise UserError(f"the task {args.task.task!r} needs images: --data PATH, or --dataset shapes{files_too}")
    if args.task.images is not None and args.task.positions is not None:
        raise UserError("--images and --positions both say which images to work on: give one of them")
    return task


def _own(args: settings.Synthesize) -> bool:
    """Whether the pictures are files of the user's own."""
    return isinstance(args.task.images, list)


def _check_own(args: settings.Synthesize, task: Task) -> None:
    if not task.own:
        able = ", ".join(name for name, one in TASKS.items() if one.own)
        raise UserError(f"the task {args.task.task!r} needs a set of labelled images, --data PATH; files in --images are for {able}")
    for name in ("data", "dataset", "split", "classes", "limit", "download"):
        if name in _given(args):
            raise UserError(f"--images names files already, so {_flag(name)} means nothing: leave it out")


def _places(args: settings.Synthesize) -> tuple[Path, Path | None]:
    """Where the sheet goes, and the folder for everything else; checked before any work."""
    out = None if args.output.out is None else Path(args.output.out)
    if out is not None:
        files.check_vacant(out)
    if args.output.tensorboard and out is None:
        raise UserError("where to? --tensorboard writes into --out FOLDER")
    default = Path("runs/synthesize") / f"{args.task.task}.png" if out is None else out / "grid.png"
    if args.output.replay is not None and out is None:
        default = Path(args.output.replay).with_name(f"{Path(args.output.replay).stem}-replay.png")
    grid = default if args.output.grid is None else Path(args.output.grid)
    if grid.suffix.lower() != ".png" or grid.is_dir():
        raise UserError(f"--grid takes a PNG file to write, such as sheet.png, got {grid}")
    beside = grid.with_suffix(".json")
    if beside.exists() and (not beside.is_file() or files.read_json(beside, "a recipe").get("format") != FORMAT):
        raise UserError(f"{beside}, where the recipe would go, is something else: name another picture with --grid")
    return grid, out


def _models(args: settings.Synthesize, device: torch.device) -> dict[str, Classifier]:
    names = [name for name in str(args.model.name).split(",") if name]
    if len(set(names)) < len(names) or not names:
        raise UserError(f"--model takes the names of different models, got {args.model.name!r}")
    return {name: load_model(name, args.model).to(device) for name in names}


def _images(args: settings.Synthesize, split: str) -> Images:
    return open_data(
        args.data.dataset,
        args.data.path,
        split,
        image_size=args.data.image_size,
        download=args.data.download,
        classes=args.data.classes,
        limit=args.data.limit if split == args.data.split else None,
    )


def _pictures(args: settings.Synthesize, models: Mapping[str, Classifier]) -> Images:
    """The user's own files, each of the class that the first model takes it for."""
    assert isinstance(args.task.images, list)
    name, model = next(iter(models.items()))
    judges = [] if args.output.judge is None else [_judge(args, args.output.judge)]
    # Another project's network has numbers for outputs; then another one here may tell what they mean.
    alike = (one.classes for one in [*models.values(), *judges] if not one.unnamed and one.num_classes == model.num_classes)
    classes = next(alike, model.classes) if model.unnamed else model.classes
    images = open_pictures(args.task.images, classes, image_size=args.data.image_size)
    subject = _subject(name, model, images, args)
    with frozen(model), torch.no_grad():
        parts = [model(to_float(part).to(model.mean.device))[:, subject.outputs] for part in images.pixels.split(args.compute.batch_size)]
    return replace(images, labels=torch.cat(parts).argmax(1).cpu())


def _subject(name: str, model: Classifier, images: Images, args: settings.Synthesize) -> Subject:
    check_fits(model, images, name, chosen=bool(args.data.classes))
    with frozen(model):
        check_reads(model, images.shape, name, model.mean.device)
    return Subject(name, model, model.outputs_for(images.classes, images.name).to(model.mean.device))


def _judge(args: settings.Synthesize, name: str) -> Classifier:
    return load(name, normalization=normalization_of(args.model), trust=args.model.trust_checkpoint)


def _judges(
    args: settings.Synthesize, subjects: list[Subject], images: Images, device: torch.device, named: Mapping[str, str]
) -> dict[str, Subject]:
    """Who judges the pictures of each model: never the model itself, and the named judge none of its own pictures at all.

    Args:
        named: by a recipe, for each model; empty where there is none.

    Raises:
        UserError: the judge is one of the models, also under another name; or none is named, and no released one fits.
    """
    making = {digest(subject.model): subject.name for subject in subjects}
    if args.output.judge is not None:
        model = _judge(args, args.output.judge).to(device)
        if digest(model) in making:
            raise UserError(f"{args.output.judge} makes the pictures and cannot judge them: name another classifier with --judge")
        return dict.fromkeys((s.name for s in subjects), _subject(args.output.judge, model, images, args))
    if all(isinstance(named.get(subject.name), str) for subject in subjects):
        return {s.name: _subject(named[s.name], _judge(args, named[s.name]).to(device), images, args) for s in subjects}
    fitting = [judge for name in released() if (judge := _fitting(name, images, args, device)) is not None]
    # First one that makes no pictures here, and of another architecture than those that do, which makes it more independent.
    archs = {subject.model.arch for subject in subjects}
    fitting.sort(key=lambda judge: (digest(judge.model) in making, judge.model.arch in archs))
    chosen = {s.name: [judge for judge in fitting if digest(judge.model) != digest(s.model)] for s in subjects}
    for name, judges in chosen.items():
        if not judges:
            hint = ", whose outputs have no names" if all(subject.model.unnamed for subject in subjects) else ""
            raise UserError(f"no released classifier of these classes can judge the pictures of {name}{hint}: name one with --judge")
    return {name: judges[0] for name, judges in chosen.items()}


def _fitting(name: str, images: Images, args: settings.Synthesize, device: torch.device) -> Subject | None:
    try:
        return _subject(name, load(name).to(device), images, args)
    except UserError:  # of other classes or channels
        return None


def _index(args: settings.Synthesize, images: Images, task: Task) -> Tensor:
    """Positions of the images to work on."""
    if isinstance(args.task.images, list):
        return torch.arange(len(images))
    if args.task.positions is None:
        return in_turn(images.labels.cpu(), args.task.images or task.images)
    beyond = [position for position in args.task.positions if position >= len(images)]
    if beyond:
        raise UserError(f"there is no image at position {beyond[0]}: {images.name} ({args.data.split}) has {len(images)}, from 0 on")
    return torch.tensor(args.task.positions)


def _resolved(args: settings.Synthesize, task: Task, images: Images) -> settings.Synthesize:
    """With what was left open filled in, so that a recipe does not depend on defaults."""
    search = task.search(args, images.shape[1])
    if task.preset is not None:
        args = changed(args, eps=search.eps, step_size=search.step_size, steps=search.steps, weight=task.weight(args))
    return args if args.task.positions is not None else changed(args, images=args.task.images or task.images)


def _given(args: settings.Synthesize) -> list[str]:
    """The settings that are not what they are where nothing is said."""
    return list(given(args))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# Recipes


def command(args: settings.Synthesize) -> str:
    """What to type for these settings."""
    values = {name: value_of(args, name) for name in _given(args) if name not in HERE and name != "task"}
    return shlex.join(["robustlab", "synthesize", str(args.task.task), *words(values)])


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe.

    Raises:
        UserError: there is none, or it is damaged.
    """
    recipe = files.read_json(path, "a recipe of robustlab synthesize")
    known = {"settings": dict, "models": dict, "data": dict, "versions": dict, "picture": str}
    if recipe.get("format") != FORMAT or not all(isinstance(recipe.get(name), kind) for name, kind in known.items()):
        raise UserError(f"{path} is no recipe of robustlab synthesize")
    return recipe


def replayed(args: settings.Synthesize, recipe: Mapping[str, Any]) -> settings.Synthesize:
    """The settings of a recipe, with the place of the data and what does not change pictures from the command line.

    Raises:
        UserError: a setting was given that the recipe decides; the recipe has settings that there are not.
    """
    told = _given(args)
    moved = ("data", "images") if _own(args) and isinstance(recipe["settings"].get("images"), list) else ("data",)
    for name in told:
        if name not in (*HERE, *moved) and not (name == "task" and args.task.task == recipe["settings"].get("task")):
            raise UserError(f"a replay brings its own settings: leave out {_flag(name)}")
    fields = leaves(settings.Synthesize).keys() - set(HERE)
    for name in recipe["settings"]:
        if name not in fields:
            raise UserError(f"{args.output.replay}: {unknown('setting', name, fields)}")
    found = parse(settings.Synthesize, words(recipe["settings"]), f"robustlab synthesize: {args.output.replay}")
    if found.task.weight is None and found.task.task in TASKS and (weights := TASKS[found.task.task].weights):
        found = changed(found, weight=weights[1])  # of a recipe from before weights were written down
    return changed(found, **{name: value_of(args, name) for name in told})


def _check(what: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    different = [name for name in here if there.get(name) != here[name]]
    if different:
        raise UserError(f"the recipe was made with other {what}: {different[0]} is not the same here")


def _compare(recipe: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Say whether a replay made the same bytes, and if not, what may be the cause."""
    if recipe["picture"] == known["picture"]:
        print("the picture is that of the recipe, byte for byte")
        return
    there, here = recipe["versions"], known["versions"]
    changed = [f"{name} {there.get(name)} there, {here[name]} here" for name in VERSIONS if there.get(name) != here[name]]
    cause = "; ".join(changed) or "the processors may compute differently"
    print(f"warning: the picture differs from that of the recipe ({cause})", file=sys.stderr)


def versions() -> dict[str, Any]:
    """Of everything that the bytes of a picture may depend on, as far as it is known."""
    return {**environment(), "robustlab": __version__, "pillow": PIL.__version__}


def _described(images: Images) -> dict[str, Any]:
    return {"name": images.name, "n": len(images), "fingerprint": fingerprint(images)}


# What comes out


@dataclass(eq=False)
class Course:
    """What is seen of a model's searches, step by step.

    Attributes:
        update: counts a step.
        objective: its mean at each step of the first search.
        searched: pictures that were searched for.
        unmoved: those of them that the first step left where they were.
    """

    update: Callable[[], object]
    objective: list[Tensor] = field(default_factory=list)
    searched: int = 0
    unmoved: int = 0
    start: Tensor | None = None

    def __call__(self, t: int, x: Tensor, value: Tensor) -> None:
        self.update()
        if t == len(self.objective):
            self.objective.append(value.mean())
        if t == 0:
            self.start, self.searched = x, self.searched + len(x)
        elif t == 1 and self.start is not None:
            self.unmoved += int((x == self.start).flatten(1).all(1).sum())
            self.start = None


def _say_what_stays(name: str, course: Course, search: Search) -> None:
    """Say it where pictures are their starts."""
    if 0 in (search.steps, search.step_size, search.eps):
        print(f"note: without steps, or with a step or radius of 0, the pictures of {name} are their starts", file=sys.stderr)
    elif course.unmoved:
        why = "the feature is off there, or what was asked for is there already"
        which = f"{course.unmoved} of {course.searched} pictures of {name}"
        print(f"note: {which} are their starts, as the gradient is zero: {why}", file=sys.stderr)


def sheet_of(made: Mapping[str, Made], columns: int) -> Tensor:
    """The first columns with their titles; what does not depend on the model only once, if the columns mean the same for all."""
    first, words = next(iter(made.values())), short_names(made)
    if all((list(each.heads), list(each.feet)) == (list(first.heads), list(first.feet)) for each in made.values()):
        rows = first.given + [(f"{title}\n{_last(words[name])}", x) for name, each in made.items() for title, x in each.rows]
        return _sheet(rows, first, columns)
    rows_of = {name: each.given + [(f"{title}\n{_last(words[name])}", x) for title, x in each.rows] for name, each in made.items()}
    sheets = [_sheet(rows_of[name], each, columns) for name, each in made.items()]
    width = max(sheet.shape[2] for sheet in sheets)
    return torch.cat([torch.nn.functional.pad(sheet, (0, width - sheet.shape[2]), value=1.0) for sheet in sheets], 1)


def _sheet(rows: Sequence[tuple[str, Tensor]], made: Made, columns: int) -> Tensor:
    cut = [(title, x[:columns].expand(-1, 3, -1, -1)) for title, x in rows]
    return pictures.titled(cut, made.heads[:columns], made.feet[:columns], scale=max(1, 96 // cut[0][1].shape[-1]))


def _last(name: str, most: int = 22) -> str:
    return name if len(name) <= most else "\N{HORIZONTAL ELLIPSIS}" + name[1 - most :]


def _write(out: Path, made: Mapping[str, Made]) -> None:
    """Every picture in a file of its own."""
    for name, each in made.items():
        for title, x in each.rows:
            for i, picture in enumerate(x):
                stem = "-".join("".join(c if c.isalnum() else " " for c in f"{title} {name}").split())
                pictures.save(out / "pictures" / f"{stem}-{i:04}.png", picture.detach().cpu().clamp(0, 1).expand(3, -1, -1))


def _board(place: Path, args: settings.Synthesize, sheet: Tensor, made: Mapping[str, Made], courses: Mapping[str, Course]) -> None:
    try:
        with SummaryWriter(str(place)) as board:
            board.add_image(str(args.task.task), sheet, 0)
            for name, each in made.items():
                for key, value in each.numbers.items():
                    board.add_scalar(f"{name}/{key}", value, 0)
                for t, objective in enumerate(courses[name].objective):
                    board.add_scalar(f"{name}/objective", float(objective), t)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    """A setting as JSON holds it and a command line reads it: infinity is a word."""
    return "inf" if value == math.inf else value


def _number(value: float) -> float | None:
    """JSON has no infinity, which is the PSNR of equal images."""
    return value if math.isfinite(value) else None


def _table(made: Mapping[str, Made], n: int, images: Images, judges: Mapping[str, str]) -> str:
    """The numbers in Markdown, a column for each model."""
    keys = list(dict.fromkeys(key for each in made.values() for key in each.numbers))
    lines = [f"| {n} images of {images.name} | {' | '.join(made)} |", "| --- " * (len(made) + 1) + "|"]
    lines += [f"| {key} | {' | '.join(_shown(each.numbers.get(key)) for each in made.values())} |" for key in keys]
    if judges:
        lines.append(f"| judged by | {' | '.join(judges[name] for name in made)} |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
