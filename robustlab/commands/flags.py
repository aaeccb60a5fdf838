"""Command-line flags from dataclasses of settings: one spelling, one type and one help text for each, everywhere.

Standard library only, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from robustlab.errors import UserError, unknown


def number(text: str) -> float:
    """A number, also written as a fraction: ``8/255``."""
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number like 0.5 or 8/255") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not finite")
    return value


def names(text: str) -> list[str]:
    """Words separated by commas, at least one."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return found


def radius(text: str) -> float:
    """A number that is not negative."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; it must be >= 0")
    return value


def weight(text: str) -> float:
    """A number that is not negative, or ``inf``."""
    return math.inf if text == "inf" else radius(text)


def radii(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [radius(part) for part in text.split(",")]


def count(text: str) -> int:
    """A whole number that is not negative."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; it must be >= 0")
    return value


def counts(text: str) -> list[int]:
    """Whole numbers that are not negative, separated by commas."""
    return [count(part) for part in text.split(",")]


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (value := count(text)) == 0:
        raise argparse.ArgumentTypeError("0 is too small; it must be >= 1")
    return value


def images(text: str) -> int | list[str]:
    """How many, or files separated by commas."""
    return positive(text) if text.lstrip("+-").isdigit() else names(text)


def times(text: str) -> float:
    """A number of at least 1."""
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; it must be >= 1")
    return value


@dataclass(frozen=True)
class Flag:
    """What a setting means and how it is read; ``type`` None is a switch, with a ``--no-`` form where its default is None."""

    help: str
    type: Callable[[str], Any] | None = str
    choices: Sequence[str] | None = None
    metavar: str | None = None
    optional_value: Any = None  # the value of a flag given without one


FLAGS: dict[str, Flag] = {
    "model": Flag("a released model's name, or the path of a checkpoint; several with commas", metavar="NAME|PATH"),
    "data": Flag("folder, .npz or .safetensors file of the data, or a constructed set; not needed for shapes", metavar="PATH"),
    "dataset": Flag("shapes, cifar10, cifar100, folder, npz, safetensors, constructed or released; told from --data", metavar="NAME"),
    "split": Flag("which part of the data", choices=("train", "test", "val")),
    "image_size": Flag("resize and crop images to this many pixels", positive),
    "download": Flag("download the dataset if it is missing", None),
    "classes": Flag("only the images of these classes, in this order: dog,cat", names, metavar="NAME,NAME,..."),
    "limit": Flag("use this many images only, spread over the whole set", positive),
    "test_data": Flag("the test images, if not beside the training images: for a constructed set the original data", metavar="PATH"),
    "val_size": Flag("images cut from the training set to choose the best epoch by", positive),
    "mean": Flag("channel means of another project's model that does not carry them: 0.49,0.48,0.45", radii, metavar="M,M,M"),
    "std": Flag("channel deviations of such a model", radii, metavar="S,S,S"),
    "arch": Flag("architecture: small, resnet18, ..., torchvision:NAME, timm:NAME; else that of the weights, or small", metavar="NAME"),
    "init": Flag(
        "begin with the weights of a released model or a checkpoint; the last layer begins anew where the classes are others. With its "
        "own --seed the images held out to choose the epoch by are those that it was not trained on either",
        metavar="NAME|PATH",
    ),
    "norm": Flag("norm of the threat model", choices=("linf", "l2", "l1")),
    "eps": Flag("radius of the threat model in pixel units of [0, 1] images, such as 0.5 or 8/255", radius),
    "steps": Flag("steps of the attack", count),
    "step_size": Flag("length of a step in pixel units; 2.5 eps / steps where left out", radius),
    "restarts": Flag("random starts of the attack", positive),
    "curve": Flag("also measure the accuracy at these radii: 0,0.25,0.5,1", radii, metavar="EPS,EPS,..."),
    "recipe": Flag("how to train: standard, madry-linf, madry-l2, fast-linf, fast-l2, ema-linf, trades-linf, trades-l2", metavar="NAME"),
    "epochs": Flag("passes over the training set", positive),
    "batch_size": Flag("images in a batch, over all processes together", positive),
    "lr": Flag("peak learning rate", number),
    "schedule": Flag("course of the learning rate", choices=("one-cycle", "cosine", "steps")),
    "weight_decay": Flag("weight decay", radius),
    "label_smoothing": Flag("label smoothing, 0 to 1", radius),
    "ema": Flag("decay of the weight average; 0 for none", radius),
    "clip": Flag("largest norm of the gradient; 0 for no clipping", radius),
    "patience": Flag("stop after this many epochs without a better validation accuracy", positive),
    "attack_in_train_mode": Flag("attack the model in training mode while training (default: evaluation mode)", None),
    "no_augment": Flag("train without random crops and flips", None),
    "no_test": Flag("do not read the test set at the end", None),
    "seed": Flag("seed of every random draw", count),
    "device": Flag("auto, cpu, cuda or cuda:N", metavar="NAME"),
    "threads": Flag("CPU threads; torch's own choice where left out", positive),
    "amp": Flag("compute in bfloat16; success is still judged in float32", None),
    "compile": Flag("use torch.compile: slow to start, faster afterwards", None),
    "workers": Flag("processes that read images which do not fit into memory", count),
    "resume": Flag("go on with the run in --out, or in the folder given", str, metavar="FOLDER", optional_value="auto"),
    "kind": Flag("D_rand, D_det (relabelled), D_R (inverted through a robust model) or D_NR (through a standard one)", metavar="NAME"),
    "store": Flag("how pixels are stored; what rounding does is reported", choices=("float32", "float16", "uint8")),
    "shard_size": Flag("images in a shard: what an interruption can cost", positive),
    "format": Flag("the layout to write", choices=("folder", "huggingface", "npz", "safetensors", "released")),
    "experiment": Flag("which experiment; it may stand alone, without the flag", metavar="NAME"),
    "scale": Flag("small: for two CPU cores; full: for a GPU", choices=("small", "full")),
    "seeds": Flag("repetitions with different seeds", positive),
    "trust_checkpoint": Flag("also load a checkpoint that runs code while loading", None),
    "task": Flag(
        "what to make, as the first word: gradients, generate, inpaint, super-resolve, translate, sketch, paint, invert, interpolate, "
        "visualize, add-feature, extremes or sensitivity",
        metavar="TASK",
    ),
    "images": Flag(
        "how many images to work on, the first of each class, then the second, and so on; or pictures of your own: cat.png,dog.jpg",
        images,
        metavar="N|FILE,FILE,...",
    ),
    "positions": Flag("work on the images at these positions of the split instead: 3,17", counts, metavar="N,N,..."),
    "target": Flag("the class to aim at; where left out all in turn, the image's own, or the one after it", metavar="CLASS"),
    "layer": Flag(
        "look into this module of the network, such as body.layer3; the features before the last layer where left out", metavar="NAME"
    ),
    "units": Flag(
        "numbers of features: 3,7; where left out the first ones, or those that speak most for the target", counts, metavar="N,N,..."
    ),
    "published": Flag("radius, steps and weight as published, scaled to the images' size, also where our own are usual", None),
    "factor": Flag("how many times smaller the images are made before they are enlarged: any number from 1 on", times),
    "mask": Flag(
        "where to work: square, centre, left, right, top, bottom, or a picture of the images' size, white there", metavar="NAME|PATH"
    ),
    "weight": Flag(
        "weight of the mean squared change outside the mask, inf for no change: usual when inpainting; 900 when painting", weight
    ),
    "drawn": Flag("the images are sketches already; do not draw their outlines first", None),
    "start": Flag("start from faint noise on grey, or from an image", choices=("noise", "image")),
    "fourier": Flag("move Fourier coefficients instead of pixels; --step-size is then in their units", None),
    "points": Flag("pictures on the way from one image to the other", positive),
    "level": Flag("activation that a feature is to reach", number),
    "top": Flag("how many images, or features, from the top", positive),
    "judge": Flag(
        "independent classifier that judges the pictures; where left out a released one that did not make them", metavar="NAME|PATH"
    ),
    "grid": Flag("PNG file for the sheet of pictures; its recipe is written beside it, as .json", metavar="FILE"),
    "columns": Flag("pictures of a row that are shown on the sheet; the numbers are of all", positive),
    "tensorboard": Flag("also write pictures, numbers and the course of the search for TensorBoard, into --out", None),
    "replay": Flag("make again what a recipe describes, byte for byte", metavar="FILE"),
    "host": Flag("address to listen on; any but this machine's own needs a token", metavar="ADDRESS"),
    "port": Flag("port to listen on; 0 for any free one", count),
    "token": Flag("word that the page's address must carry; made up where one is needed and none given", metavar="WORD"),
    "out": Flag("folder for the results", metavar="FOLDER"),
}

Settings = TypeVar("Settings")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(settings: type[Settings], argv: Sequence[str], prog: str) -> Settings:
    """Settings from a command line and, below it, ``--config FILE.toml``; unset ones keep the dataclass's default.

    Raises:
        UserError: an unknown flag or key, with the nearest one.
    """
    first = getattr(settings, "alone", None)  # the one flag whose value may stand alone, as the first word
    if first and argv and not argv[0].startswith("-"):
        argv = [f"--{first}", *argv]
    parser = build(settings, prog)
    given, rest = parser.parse_known_args(argv)
    if rest:
        if rest[0].startswith("-"):
            raise unknown("flag", rest[0].partition("=")[0], [f"--{f}" for f in _names(settings)])
        raise UserError(f"unexpected argument {rest[0]!r}: every setting is a flag, such as --out FOLDER")
    values = vars(given)
    config = values.pop("config", None)
    from_file = read_config(Path(config), settings, build(settings, f"{prog}: {config}")) if config else {}
    return settings(**{**from_file, **values})


def build(settings: type, prog: str) -> argparse.ArgumentParser:
    """The parser for a dataclass of settings, each of whose fields is named in ``FLAGS``."""
    parser = Parser(prog=prog, description=settings.__doc__, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; flags given here win over it")
    for field in dataclasses.fields(settings):
        flag = FLAGS[field.name]
        name = "--" + field.name.replace("_", "-")
        shown = "" if field.default in (None, False, dataclasses.MISSING) else f" (default: {field.default})"
        if flag.type is None:
            parser.add_argument(name, action=argparse.BooleanOptionalAction if field.default is None else "store_true", help=flag.help)
        elif flag.optional_value is not None:
            parser.add_argument(name, nargs="?", const=flag.optional_value, type=flag.type, metavar=flag.metavar, help=flag.help)
        else:
            parser.add_argument(name, type=flag.type, choices=flag.choices, metavar=flag.metavar, help=flag.help + shown)
    return parser


def read_config(path: Path, settings: type, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The settings in a TOML file, checked as those on the command line are. Keys may be written with - or _."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    for key in table:
        if key.replace("_", "-") not in _names(settings):
            raise UserError(f"{path}: {unknown('setting', key, _names(settings))}")
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    argv: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        try:
            argv += _as_on_the_command_line(name, value, defaults[name])
        except TypeError as error:
            raise UserError(f"{path}: {key} must be {error}, got {value!r}") from None
    return vars(parser.parse_args(argv))


def _as_on_the_command_line(name: str, value: Any, default: Any) -> list[str]:
    """A TOML value as words of a command line; raises a TypeError that says what it should be."""
    flag, word = FLAGS[name], "--" + name.replace("_", "-")
    if isinstance(value, bool) and (flag.type is None or flag.optional_value is not None):
        return [word] if value else ["--no-" + word[2:]] if default is None and flag.type is None else []
    if flag.type is None:
        raise TypeError("true or false")
    if flag.type is str and not isinstance(value, str):
        raise TypeError("text in quotes")
    if isinstance(value, bool | dict):
        raise TypeError("a number")
    return [f"{word}={','.join(map(str, value)) if isinstance(value, list) else value}"]


def _names(settings: type) -> list[str]:
    return [field.name.replace("_", "-") for field in dataclasses.fields(settings)]
