"""Where models and images for ``synthesize`` come from: objects, names and paths, and picture files without labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustlab.data.adapt import as_images
from robustlab.data.catalog import open_dataset
from robustlab.data.folder import open_pictures
from robustlab.data.imageset import Images, ImageSet
from robustlab.data.picturefiles import SUFFIXES
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.models.placement import device_of, on_device
from robustlab.models.zoo import load
from robustlab.pixels import to_float
from robustlab.synthesis.ensemble import load_joined
from robustlab.synthesis.selection import count_outputs, match

Model = nn.Module | str | os.PathLike[str]


def named_models(models: Model | Sequence[Model] | Mapping[str, nn.Module], device: torch.device | None) -> dict[str, nn.Module]:
    """Models by their names, all on one device.

    Args:
        models: a network, the name of a pretrained one or the path of a checkpoint; or several, also by names of your own. Names joined
            by + are one ensemble, see ``ensemble``. A network without a name is called by its architecture.
        device: where they go; where the first of them is, if None. A network that lies elsewhere is copied, not moved.

    Raises:
        UserError: none, the same name twice, something else, or nothing at a path.
    """
    if not isinstance(models, Mapping):
        several = list(models) if isinstance(models, Sequence) and not isinstance(models, str) else [models]
        pairs = [(_name(model), model) for model in several]
        if len({name for name, _ in pairs}) < len(pairs):
            raise UserError(f"models need different names, got {', '.join(name for name, _ in pairs)}: give them as {{name: model}}")
        models = {name: model if isinstance(model, nn.Module) else load_joined(os.fspath(model), load) for name, model in pairs}
    if not models:
        raise UserError("no model was given")
    place = device or device_of(next(iter(models.values())))
    return {name: on_device(model, place) for name, model in models.items()}


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
) -> Images:
    """Picture files, labelled as what the first model classifies them as.

    Args:
        paths: at least one file.
        models: by name; see ``with_names``.
        judges: further classifiers, by name.
        image_size: resize and crop the pictures to this many pixels.
        batch_size: images that pass through the model at a time.

    Raises:
        UserError: a file that is not there, cannot be read, or is of another size than the first; a size that the model cannot read.
    """
    images = with_names(open_pictures(paths, ("0",), image_size=image_size), models, judges)
    matched = match(*next(iter(models.items())), images)
    with frozen(matched.model), torch.no_grad():
        batches = torch.arange(len(images)).split(batch_size)
        parts = [matched.model(to_float(images.fetch(some)).to(device_of(matched.model)))[:, matched.outputs] for some in batches]
    assert isinstance(images, ImageSet)
    return replace(images, labels=torch.cat(parts).argmax(1).cpu())


def with_names(images: Images, models: Mapping[str, nn.Module], judges: Mapping[str, nn.Module]) -> Images:
    """Images whose classes have names where they are only numbered: the numbers are then those of the first model's outputs.

    Args:
        images: labelled.
        models: by name. The classes are called as the first one calls its outputs; where these are only numbered too, as another model or
            judge with as many outputs does.
        judges: further classifiers, by name.

    Raises:
        UserError: the first model cannot read the images.
    """
    name, model = next(iter(models.items()))
    outputs = model.num_classes if isinstance(model, Classifier) else count_outputs(name, model, images.shape)
    if not numbered(images.classes) or len(images.classes) > outputs:
        return images
    others = [one.classes for one in (*models.values(), *judges.values()) if isinstance(one, Classifier) and one.num_classes == outputs]
    return with_classes(images, next((names for names in others if not numbered(names)), tuple(map(str, range(outputs)))))


def numbered(classes: Sequence[str]) -> bool:
    """Whether classes have numbers for names."""
    return tuple(classes) == tuple(map(str, range(len(classes))))


def with_classes(images: Images, classes: Sequence[str]) -> Images:
    """The same images with other names for their classes, and perhaps with further classes.

    Raises:
        UserError: images of somebody else's kind.
    """
    if not is_dataclass(images) or isinstance(images, type):
        raise UserError(f"the classes of {images.name} have no names: give {type(images).__name__} those of the model as classes")
    return replace(images, classes=tuple(classes))


def labelled_images(images: Any, split: str, *, image_size: int | None, progress: bool) -> Images:
    """Labelled images of any data.

    Args:
        images: see ``robustlab.data.adapt``.
        split: which part of the data at a path.
        image_size: resize and crop images at a path to this many pixels.
        progress: show how many are read.

    Raises:
        UserError: something else, or nothing at the path.
    """
    if isinstance(images, str | os.PathLike):
        return open_dataset(images, split=split, image_size=image_size, progress=progress)
    return as_images(images)
