"""Where models and images for ``synthesize`` come from: objects, names and paths, and picture files without labels."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustlab.data.catalog import open_dataset
from robustlab.data.folder import SUFFIXES, open_pictures
from robustlab.data.imageset import Images, ImageSet
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.models.zoo import load
from robustlab.pixels import to_float
from robustlab.progress import Progress
from robustlab.synthesis.selection import device_of, match

Model = nn.Module | str | os.PathLike[str]


def named_models(models: Model | Sequence[Model] | Mapping[str, nn.Module], device: torch.device | None) -> dict[str, nn.Module]:
    """Models by their names, all on one device.

    Args:
        models: a network, the name of a pretrained one or the path of a checkpoint; or several, also by names of your own. A network
            without a name is called by its architecture.
        device: where they go; where the first of them is, if None. A network that lies elsewhere is copied, not moved.

    Raises:
        UserError: none, the same name twice, something else, or nothing at a path.
    """
    if not isinstance(models, Mapping):
        several = list(models) if isinstance(models, Sequence) and not isinstance(models, str) else [models]
        pairs = [(_name(model), model) for model in several]
        if len({name for name, _ in pairs}) < len(pairs):
            raise UserError(f"models need different names, got {', '.join(name for name, _ in pairs)}: give them as {{name: model}}")
        models = {name: model if isinstance(model, nn.Module) else load(model) for name, model in pairs}
    if not models:
        raise UserError("no model was given")
    place = device or device_of(next(iter(models.values())))
    return {name: model if device_of(model) == place else copy.deepcopy(model).to(place) for name, model in models.items()}


def _name(model: Any) -> str:
    if isinstance(model, str | os.PathLike):
        return str(model)
    if not isinstance(model, nn.Module):
        raise UserError(f"a model must be a network, a name or a path, got {type(model).__name__}")
    return getattr(model, "arch", "") or type(model).__name__


def picture_files(images: Any) -> list[str]:
    """The files, if that is what the images are: one picture file, or several; else an empty list."""
    several = images if isinstance(images, list | tuple) else [images]
    if not several or not all(isinstance(one, str | os.PathLike) for one in several):
        return []
    if isinstance(images, list | tuple) or Path(images).suffix.lower() in SUFFIXES:
        return [str(one) for one in several]
    return []


def open_own(
    paths: Sequence[str], models: Mapping[str, nn.Module], judges: Mapping[str, nn.Module], *, image_size: int | None, batch_size: int
) -> ImageSet:
    """Picture files, labelled as what the first model classifies them as.

    Args:
        paths: at least one file.
        models: by name. The classes are called as the first one calls them; where its outputs are only numbered, as another model or judge
            with as many outputs does.
        judges: further classifiers, by name.
        image_size: resize and crop the pictures to this many pixels.
        batch_size: images that pass through the model at a time.

    Raises:
        UserError: a file that is not there, cannot be read, or is of another size than the first; a size that the model cannot read.
    """
    name, model = next(iter(models.items()))
    images = open_pictures(paths, _class_names(model, [*models.values(), *judges.values()]), image_size=image_size)
    matched = match(name, model, images)
    with frozen(model), torch.no_grad():
        parts = [model(to_float(part).to(device_of(model)))[:, matched.outputs] for part in images.pixels.split(batch_size)]
    return replace(images, labels=torch.cat(parts).argmax(1).cpu())


def _class_names(model: nn.Module, others: Sequence[nn.Module]) -> tuple[str, ...]:
    if not isinstance(model, Classifier):
        raise UserError(f"picture files need a Classifier, which knows its classes, not a {type(model).__name__}")
    alike = (one.classes for one in others if isinstance(one, Classifier) and not one.unnamed and one.num_classes == model.num_classes)
    return next(alike, model.classes) if model.unnamed else model.classes


def open_images(images: Any, split: str, *, image_size: int | None, progress: bool) -> Images:
    """A labelled set as it is, or the one at a path.

    Args:
        split: which part of the data at a path.
        image_size: resize and crop images at a path to this many pixels.
        progress: show how many are read.

    Raises:
        UserError: something else, or nothing at the path.
    """
    if isinstance(images, str | os.PathLike):
        with Progress(f"reading {split}", None, "img", shown=progress) as shown:
            return open_dataset(None, Path(images), split, image_size=image_size, progress=shown.at)
    if not hasattr(images, "fetch"):
        raise UserError(f"images must be a labelled set, the path of one, or picture files, got {type(images).__name__}")
    return images
