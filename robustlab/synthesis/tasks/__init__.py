"""The ways to make pictures: the settings of each, and the table of all.

A new task is a class of settings and a line in ``TASKS`` here, and its function in ``classes``, ``features`` or ``gradients``:

    def translation(model: MatchedModel, images: Selection, settings: Translate, *, judge: MatchedModel | None = None) -> Pictures: ...

Standard library only, so that ``--help`` answers at once: the functions are imported when they are first called.

Sources: Engstrom et al. 2019, "Adversarial Robustness as a Prior for Learned Representations"; Santurkar et al. 2019, "Image
Synthesis with a Single (Robust) Classifier". The published settings are those of their notebooks, at 224 pixels on Restricted ImageNet
or pairs of classes, and at 32 pixels on CIFAR-10. A radius of 500 or 1000 there is wider than the pixel box, whose diagonal is 388, and
left out here. The tuned settings were found at 32 pixels with the models that ship, those of inpaint and paint on training images: at the
published radius of 30 generated images saturate, at the scaled radii holes and painted patches become garish, and hardly anything of an
enlarged image changes; other published settings take hours on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from robustlab.errors import UserError, unknown
from robustlab.options import counts, leaves, number, option, positive, radius, times, weight
from robustlab.synthesis.presets import Natural, Presets, Steps

STARTS = ("noise", "image")
FILLS = ("harmonic", "mean")
ENLARGEMENTS = ("projected", "bicubic", "nearest")
WEIGHT_HELP = "weight of the mean squared change outside the mask; inf allows no change"
MASK_HELP = "where to work: square, centre, left, right, top, bottom, or a picture of the images' size that is white there"


def _target(text: str) -> Any:
    return option(None, text, metavar="CLASS")


def _layer() -> Any:
    help = "look into this module of the network, such as body.layer3; where left out, the features before the last layer"
    return option(None, help, metavar="NAME")


def _units(default: str) -> Any:
    return option(None, f"numbers of features: 3,7; where left out, {default}", counts, metavar="N,N,...")


def _start(image: str) -> Any:
    return option("noise", f"start from faint noise on grey, or from an image: {image}", choices=STARTS)


def _mask(default: str) -> Any:
    return option(default, MASK_HELP, metavar="NAME|PATH")


@dataclass(frozen=True)
class Gradients:
    """What the loss is sensitive to.

    The gradient of the cross-entropy at each image's label, plain and averaged over noisy copies (Smilkov et al. 2017).
    """


@dataclass(frozen=True)
class Generate(Natural):
    """Images of classes, from seeds.

    A seed is a draw from a Gaussian fitted to the training images of its class; the search lowers the cross-entropy to that
    class (Santurkar et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(40, 1, 60), 32: Steps(30, 0.5, 60)}, Steps(5, 0.25, 60, tv=1.0))

    target: str | None = _target("the class to make images of; where left out, all classes in turn")
    eps: float | None = presets.eps("the seed")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()


@dataclass(frozen=True)
class Inpaint(Natural):
    """A missing part, filled in.

    The part under the mask is filled smoothly from its edge, or with the mean colour of the rest; the search lowers the
    cross-entropy to the class and holds the rest in place (Santurkar et al. 2019).
    """

    presets: ClassVar = Presets(
        {224: Steps(21.6, 0.1, 720)},
        Steps(0.75, 0.05, 40, tv=1.0),
        choices={"start": ("harmonic", "mean"), "weight": (float("inf"), 10.0)},
    )

    target: str | None = _target("the class to fill in; where left out, the image's own")
    mask: str = _mask("square")
    start: str | None = presets.choice(
        "start", "what to fill the part with at first: harmonic, as a soap film hangs in it, or mean, one colour", choices=FILLS
    )
    weight: float | None = presets.choice("weight", WEIGHT_HELP, weight)
    eps: float | None = presets.eps("the image with the part filled")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_choice("start", self.start, FILLS)


@dataclass(frozen=True)
class SuperResolve(Natural):
    """A small image, enlarged.

    The images are made smaller and enlarged again, smoothly; the search adds detail by lowering the cross-entropy to the class
    (Santurkar et al. 2019).
    """

    # Also published: (15, 1, 50), sevenfold, for CIFAR-10 seen by a model of Restricted ImageNet.
    presets: ClassVar = Presets(
        {224: Steps(8, 1, 40)},
        Steps(2.25, 0.1, 40, tv=8.0),
        choices={"start": ("projected", "nearest"), "consistency": (300.0, 0.0)},
    )

    factor: float = option(4.0, "how many times smaller the images are made before they are enlarged: any number from 1 on", times)
    target: str | None = _target("the class to add detail of; where left out, the image's own")
    start: str | None = presets.choice(
        "start",
        "how to enlarge the image at first: bicubic; projected, bicubic and true to the small image; or nearest, in blocks",
        choices=ENLARGEMENTS,
    )
    consistency: float | None = presets.choice(
        "consistency", "weight of the mean squared difference to the small image, of the picture made as small", radius
    )
    eps: float | None = presets.eps("the enlarged image")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_choice("start", self.start, ENLARGEMENTS)
        if not self.factor >= 1:
            raise UserError(f"factor must be >= 1, got {self.factor}")


@dataclass(frozen=True)
class Translate(Natural):
    """Images turned into another class.

    The search lowers the cross-entropy to the target class (Santurkar et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(80, 0.5, 200)}, Steps(80 / 7, 0.5 / 7, 200, tv=1.0))

    target: str | None = _target("the class to turn the images into; where left out, the class after the image's own")
    eps: float | None = presets.eps("the image")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()


@dataclass(frozen=True)
class Sketch(Natural):
    """Images from line drawings.

    The search starts at a drawing and lowers the cross-entropy to the class (Santurkar et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(40, 1, 60)})

    target: str | None = _target("the class of the drawing; where left out, that of its image")
    drawn: bool = option(False, "the images are line drawings already; do not draw their outlines first", None)
    eps: float | None = presets.eps("the drawing")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()


@dataclass(frozen=True)
class Paint(Natural):
    """A feature within a mask.

    The search raises the activation of a feature and holds the rest of the image in place (Santurkar et al. 2019).
    """

    # The weight is the ratio of the published terms, 0.1 times the activation and 90 times the change.
    presets: ClassVar = Presets({224: Steps(70, 1, 140)}, Steps(5, 0.1, 100), choices={"weight": (900.0, 900.0)})

    layer: str | None = _layer()
    units: Sequence[int] | None = _units("the one that speaks most for the target class")
    target: str | None = _target("paint the feature that speaks most for this class; where left out, for the class after the image's own")
    mask: str = _mask("centre")
    weight: float | None = presets.choice("weight", WEIGHT_HELP, weight)
    eps: float | None = presets.eps("the image")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()


@dataclass(frozen=True)
class Invert(Natural):
    """What a representation keeps.

    The search finds an image with the representation of another one (Engstrom et al. 2019; at 32 pixels Ilyas et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(None, 1, 10_000), 32: Steps(None, 0.1, 1000)}, Steps(None, 0.1, 200))

    layer: str | None = _layer()
    start: str = _start("the one before it")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_choice("start", self.start, STARTS)


@dataclass(frozen=True)
class Interpolate(Natural):
    """A walk between images.

    Images with evenly spaced mixtures of the representations of two images (Engstrom et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(None, 1, 10_000), 32: Steps(None, 0.1, 10_000)}, Steps(None, 0.1, 200))

    points: int = option(8, "pictures on the way from one image to the other", positive)
    layer: str | None = _layer()
    start: str = _start("the mixture of the two")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_choice("start", self.start, STARTS)


@dataclass(frozen=True)
class Visualize(Natural):
    """What a feature responds to.

    The search raises the activation of a feature (Engstrom et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(None, 1, 200)})

    layer: str | None = _layer()
    units: Sequence[int] | None = _units("the first ones, as many as there are images")
    start: str = _start("one of the set")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_choice("start", self.start, STARTS)


@dataclass(frozen=True)
class AddFeature(Natural):
    """A feature in an image.

    The search raises the activation of a feature until it reaches a level (Engstrom et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(None, 0.1, 800)}, Steps(None, 0.05, 200))

    layer: str | None = _layer()
    units: Sequence[int] | None = _units("the one that speaks most for the target class")
    target: str | None = _target("add the feature that speaks most for this class; where left out, for the class after the image's own")
    level: float = option(1.0, "the activation that the feature is to reach", number)
    eps: float | None = presets.eps("the image")
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()


@dataclass(frozen=True)
class Extremes(Natural):
    """The images that a feature responds to.

    The images of the set that activate a feature most and least, beside a picture raised from grey (Engstrom et al. 2019).
    """

    presets: ClassVar = Presets({224: Steps(None, 0.5, 1500)}, Steps(None, 0.07, 200))

    layer: str | None = _layer()
    units: Sequence[int] | None = _units("the first three")
    top: int = option(5, "how many of the most and of the least activating images to show", positive)
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_top(self.top)


@dataclass(frozen=True)
class Sensitivity(Natural):
    """Features that cause mistakes.

    Of each image that is classified wrongly, the features that contribute most to the mistake: taken out, and raised in the
    image by a search (Engstrom et al. 2019).
    """

    presets: ClassVar = Visualize.presets

    top: int = option(5, "how many of the features that contribute most to take out together", positive)
    step_size: float | None = presets.step_size()
    steps: int | None = presets.steps()
    published: bool = presets.switch()

    def __post_init__(self) -> None:
        _check_top(self.top)


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise unknown(name, value, known)


def _check_top(top: int) -> None:
    if top < 1:
        raise UserError(f"top must be at least 1, got {top}")


@dataclass(frozen=True)
class Task:
    """A way to make pictures.

    Attributes:
        settings: the class of its settings.
        place: of its function, as module and name.
        n: how many images to work on where nothing else is said.
        positions: whether the images to work on may be chosen by their positions.
        judged: whether an independent classifier judges the pictures.
        training_images: whether it needs them.
        own: whether the images may be picture files without labels.
    """

    settings: type
    place: str
    n: int = 10
    positions: bool = True
    judged: bool = False
    training_images: bool = False
    own: bool = False

    @property
    def about(self) -> str:
        """What it makes, in a few words."""
        first = (self.settings.__doc__ or "").splitlines()[0].rstrip(".")
        return first[0].lower() + first[1:]

    @property
    def presets(self) -> Presets | None:
        """The settings of its search; None where it searches for nothing."""
        return getattr(self.settings, "presets", None)

    @property
    def function(self) -> Callable[..., Any]:
        """From a ``MatchedModel``, a ``Selection`` and settings to ``Pictures``."""
        module, _, name = self.place.partition(".")
        return getattr(import_module(f"{__name__}.{module}"), name)


TASKS: dict[str, Task] = {
    "gradients": Task(Gradients, "gradients.gradients"),
    "generate": Task(Generate, "classes.generation", positions=False, judged=True, training_images=True),
    "inpaint": Task(Inpaint, "classes.inpainting", judged=True, own=True),
    "super-resolve": Task(SuperResolve, "classes.super_resolution", judged=True, own=True),
    "translate": Task(Translate, "classes.translation", judged=True, own=True),
    "sketch": Task(Sketch, "classes.sketching", judged=True, own=True),
    "paint": Task(Paint, "features.painting", judged=True, own=True),
    "invert": Task(Invert, "features.inversion", own=True),
    "interpolate": Task(Interpolate, "features.interpolation", n=4, own=True),
    "visualize": Task(Visualize, "features.visualization"),
    "add-feature": Task(AddFeature, "features.feature_addition", own=True),
    "extremes": Task(Extremes, "features.extreme_images", positions=False),
    "sensitivity": Task(Sensitivity, "features.sensitivity", n=500),
}


def named_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def no_task() -> UserError:
    """The error where no task is named: says which there are."""
    return UserError(f"what to make? One of: {', '.join(f'{name} ({task.about})' for name, task in TASKS.items())}")


def options_of(task: Task) -> list[str]:
    """The names of the options that not every task has and that this one has."""
    known = [*leaves(task.settings), *(["positions"] if task.positions else []), *(["judge"] if task.judged else [])]
    return sorted(known)


SPECIAL = frozenset(name for task in TASKS.values() for name in options_of(task))  # options that not every task has


def check_has(task: str, name: str, written: Callable[[str], str] = str) -> None:
    """Refuse an option of other tasks.

    Args:
        task: name of a task.
        name: of an option.
        written: how to write options in the message.

    Raises:
        UserError: an option that other tasks have and this one has not; names those that it has.
    """
    known = options_of(TASKS[task])
    if name in SPECIAL and name not in known:
        has = f"it has {', '.join(map(written, known))}" if known else "it has none of its own"
        raise UserError(f"the task {task!r} has no {written(name)}; {has}")
