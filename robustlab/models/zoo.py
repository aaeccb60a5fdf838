"""The front door to the networks: build one by name, load a trained one from a file or by the name of a pretrained model."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from robustlab import pickles
from robustlab.errors import UserError
from robustlab.models import legacy
from robustlab.models.architectures import architectures, build
from robustlab.models.checkpoints import find_pretrained, pretrained, reached, read_tensors, read_weights
from robustlab.models.classifier import Classifier
from robustlab.models.description import describe, from_description, restored
from robustlab.models.others import is_other, load_other
from robustlab.paths import names_function, place_of
from robustlab.settings import Checkpoint, Network

__all__ = [
    "TRAINING_FORMAT",
    "architectures",
    "build",
    "describe",
    "from_description",
    "list_models",
    "load",
    "load_model",
    "pretrained",
]

TRAINING_FORMAT = "robustlab-training-1"  # under "format" in the checkpoints that training writes
RUN_WEIGHTS = "model.safetensors"  # what a run that ended leaves in its folder
ENDINGS = (".safetensors", ".json", ".pt", ".pth", ".ckpt", ".tar")  # what is meant as a file, even where there is none
OTHERS = "torchvision:NAME, timm:NAME, robustbench:NAME with their weights, or module:function of your own"


@dataclass(frozen=True, repr=False)
class ModelList:
    """What can be built, and what can be loaded.

    Attributes:
        architectures: names for ``build``; ``torchvision:NAME`` and ``timm:NAME`` come on top.
        pretrained: names for ``load``, each with what is known of the weights: ``arch``, ``dataset``, ``threat``,
            ``accuracies`` (by attack, in percent), ``n``, and more.
    """

    architectures: tuple[str, ...]
    pretrained: Mapping[str, Mapping[str, Any]]

    def __repr__(self) -> str:
        lines = [f"  {name:<24}{_reached(record)}" for name, record in self.pretrained.items()] + [f"  and {OTHERS}"]
        architectures = f"architectures: {', '.join(self.architectures)} and torchvision:NAME, timm:NAME"
        return "\n".join([architectures, "pretrained models:", *lines])

    def _repr_html_(self) -> str:
        rows = [("<b>build</b>", ", ".join(self.architectures) + " and torchvision:NAME, timm:NAME")]
        rows += [(f"<b>load</b> {html.escape(name)}", html.escape(_reached(record))) for name, record in self.pretrained.items()]
        rows.append(("<b>load</b>", html.escape(f"also {OTHERS}")))
        left = 'style="text-align:left"'
        return "<table>" + "".join(f"<tr><td {left}>{name}</td><td {left}>{text}</td></tr>" for name, text in rows) + "</table>"


def _reached(record: Mapping[str, Any]) -> str:
    return f"{record['arch']}, {record['dataset']}, trained against {record['threat']}: {reached(record)}"


def list_models() -> ModelList:
    """What can be built and what can be loaded, with what it reaches; prints as a table."""
    return ModelList(tuple(architectures()), pretrained())


def load(
    name_or_path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    trust: bool = False,
) -> Classifier:
    """A trained classifier on the CPU, in evaluation mode and float32.

    Args:
        name_or_path: a pretrained model's name; the folder of a run that ended; one of the two files of saved weights; a
            checkpoint of training; a checkpoint of another project (see ``legacy``), ``.safetensors`` among them; or a network of others
            by name, ``torchvision:NAME``, ``timm:NAME``, ``robustbench:NAME`` or ``module:function`` (see ``others.load_other``).
        arch: what it must be. Needed for another project's checkpoint only where none of our architectures fits exactly, and for
            a ``.safetensors`` file without our ``.json`` beside it.
        num_classes: how many classes it must have; any number where left out.
        normalization: mean and std per channel of another project's network that does not carry its own along.
        trust: also read files that run code while they are read.

    Raises:
        UserError: nothing there, damaged, would run code, or something else than asked for.
    """
    if is_other(name := os.fspath(name_or_path)) and not os.path.exists(name):
        return _as_asked(load_other(name, normalization), name, arch, num_classes)
    path = _find(name_or_path)
    if path.suffix == ".safetensors" and arch is not None and not path.with_suffix(".json").exists():
        model = legacy.classifier_from(read_tensors(path), str(path), arch, num_classes, normalization)
    elif path.suffix in (".json", ".safetensors"):
        model = read_weights(path)
    else:
        checkpoint = pickles.load_pickle(path, trust=trust)
        if isinstance(checkpoint, dict) and checkpoint.get("format") == TRAINING_FORMAT:
            model = _from_training(checkpoint, str(path))
        else:
            model = legacy.classifier_from(checkpoint, str(path), arch, num_classes, normalization)
    return _as_asked(model, str(path), arch, num_classes)


def _as_asked(model: Classifier, source: str, arch: str | None, num_classes: int | None) -> Classifier:
    if arch not in (None, model.arch):
        raise UserError(f"{source} holds a {model.arch or 'network without a name'}, not the {arch} asked for")
    if num_classes not in (None, model.num_classes):
        raise UserError(f"{source} has {model.num_classes} classes, not the {num_classes} asked for")
    return model.eval()


def load_model(name: str, how: Checkpoint | Network) -> Classifier:
    """A pretrained model or a checkpoint, as settings say how to read it.

    Raises:
        UserError: nothing there, or not what the settings say; to train on, a network that no name builds again.
    """
    start = isinstance(how, Network)
    settings: dict[str, Any] = {"arch": how.arch, "normalization": normalization_of(how), "trust": how.trust_checkpoint}
    found = None if start and names_function(name) else load(name, **settings)
    if found is None or start and not found.arch:
        raise UserError(f"training cannot start from {name}: its network has no name by which a run could build it again")
    return found


def normalization_of(how: Checkpoint | Network) -> tuple[list[float], list[float]] | None:
    """The mean and the deviation that settings name, for checkpoints that do not carry their own along.

    Raises:
        UserError: one without the other.
    """
    if (how.mean is None) != (how.std is None):
        raise UserError("`mean` and `std` belong together: give both or neither")
    return (how.mean, how.std) if how.mean and how.std else None


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    path = place_of(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / RUN_WEIGHTS).is_file():
            return path / RUN_WEIGHTS
        raise UserError(f"{path} is a folder without {RUN_WEIGHTS}, the weights of a run that ended; name a checkpoint in it")
    if path.suffix in ENDINGS or len(path.parts) > 1:
        raise UserError(f"there is no checkpoint {path}")
    return find_pretrained(path.name)


def _from_training(checkpoint: dict, source: str) -> Classifier:
    """The averaged weights where training kept an average, else the last ones."""
    weights = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise UserError(f"{source} is a checkpoint of training without weights")
    return restored(checkpoint, weights, source)
