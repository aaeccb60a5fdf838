"""What the page shows: models with their buttons, and pictures to begin with."""

from __future__ import annotations

import base64
import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from robustlab import __version__
from robustlab.data.adapt import Data, as_images
from robustlab.data.catalog import open_dataset
from robustlab.data.celeba import AttributeStream
from robustlab.demo.attributes import attributes_of, attributes_of_data, with_examples
from robustlab.demo.raster import BLANK
from robustlab.demo.session import LARGEST_SIDE, Served
from robustlab.demo.starters import Starter, examples, shipped, starters
from robustlab.errors import UserError
from robustlab.models import zoo
from robustlab.models.checkpoints import reached, read_record
from robustlab.models.classifier import Classifier
from robustlab.models.matching import check_reads
from robustlab.models.naming import short_names
from robustlab.models.placement import on_device
from robustlab.records import Run
from robustlab.synthesis.ensemble import JOIN, load_joined, members_of

Model = Classifier | str | os.PathLike[str]
Models = Model | Iterable[Model] | Mapping[str, Model]


@dataclass(frozen=True)
class Page:
    """What is served.

    Attributes:
        models: by name, the first one chosen at the start.
        size: height and width of all pictures.
        starters: pictures to begin with.
        device: in words, for the page's foot.
    """

    models: Mapping[str, Served]
    size: int
    starters: Sequence[Starter] = ()
    device: str = "cpu"

    def described(self) -> dict[str, Any]:
        """What the page needs to know at the start, in values that JSON holds."""
        return {
            "version": __version__,
            "size": self.size,
            "blank": BLANK,
            "device": self.device,
            "starters": [starter.name for starter in self.starters],
            "models": [
                {
                    "name": served.name,
                    "note": served.note,
                    "classes": served.model.classes,
                    "attributes": [
                        {"name": one.name, "hint": one.hint, "examples": [base64.b64encode(each).decode() for each in one.examples]}
                        for one in served.attributes
                    ],
                }
                for served in self.models.values()
            ],
        }


def make_page(
    models: Models | None = None,
    images: Data | None = None,
    *,
    device: torch.device | str | None = None,
    load: Callable[[str], Classifier] = zoo.load,
) -> Page:
    """A page on which models change pictures.

    Args:
        models: a ``Classifier``, the name or path of one, several of these, or a mapping from names to them; where left out all
            pretrained models, robust ones first.
        images: square images in colour to begin with, in any form, see ``robustlab.data.adapt``; their size is the page's. Pictures
            with attributes, see ``robustlab.data.celeba``, bring their own buttons along, and are cut to the first model's size. Outputs
            without names take the names of their classes, if these are as many. Where left out they are pictures of *shapes*.
        device: where to compute; where left out each model computes where it is.
        load: reads a model that is given by its name or path.

    Raises:
        UserError: no model, none of that name, images that are not square or not in colour, or that a model cannot read.
    """
    shown = open_dataset("shapes", split="test", limit=10) if images is None else as_images(images, split="test")
    named = _named(models)
    loaded = {name: given if isinstance(given, Classifier) else load_joined(os.fspath(given), load) for name, given in named.items()}
    if isinstance(shown, AttributeStream) and shown.image_size is None:
        first = next(iter(named))
        shown = shown.resized(_usual_size(named[first], loaded[first]))
    size = shown.shape[-1]
    offered = [*starters(size), *examples(shown)]
    learned_from = shown.to_learn_from() if isinstance(shown, AttributeStream) else None
    # The pictures that show a button best come from the images; where there are none, from those that ship.
    looked_at = learned_from[0] if learned_from else shipped(size) if images is None else shown
    found: dict[str, Served] = {}
    for name, given in named.items():
        model = loaded[name] if device is None else on_device(loaded[name], device)
        if images is not None and model.unnamed and model.num_classes == len(shown.classes):
            model = copy.copy(model)  # the weights are the same; the names are this page's alone
            model.classes = shown.classes
        served = Served(name, _note(model, _record(given)), model)
        check_reads(served.outputs, (3, *shown.shape[1:]), name, model.mean.device)
        buttons = attributes_of(model) if learned_from is None else attributes_of_data(model, *learned_from, name)
        found[name] = replace(served, attributes=with_examples(model, buttons, looked_at))
    return Page(found, size, offered, _device_name(next(iter(found.values())).model.mean.device))


def _named(models: Models | None) -> dict[str, Model]:
    """The models by short names."""
    if isinstance(models, Mapping):
        return dict(models)
    known = zoo.pretrained()
    if models is None:
        # Robust ones first: the first is chosen when the page opens, and others draw only noise.
        models = [
            *(name for name in known if known[name]["threat"] != "none"),
            *(name for name in known if known[name]["threat"] == "none"),
        ]
    one = isinstance(models, Classifier | str | os.PathLike)
    several: list[Model] = [models] if one else list(models)  # type: ignore[list-item, arg-type]
    if not several:
        raise UserError("which model? Name one by `model`: a checkpoint's path or a pretrained model, of which there is none yet")
    names = short_names(dict.fromkeys(os.fspath(model) for model in several if not isinstance(model, Classifier)))
    found: dict[str, Model] = {}
    for model in several:
        if not isinstance(model, Classifier):
            found[names[os.fspath(model)]] = model
            continue
        word = model.arch or "model"
        found[next(name for k in count(1) if (name := word if k == 1 else f"{word}-{k}") not in found)] = model
    return found


def _record(model: Model) -> dict[str, Any] | None:
    """What is known of pretrained weights, or lies beside weights of one's own, which is more than a checkpoint says."""
    if isinstance(model, Classifier):
        return None
    path = Path(model)
    beside = path.suffix in (".json", ".safetensors") and path.exists()
    return zoo.pretrained().get(os.fspath(model)) or (read_record(path.with_suffix(".json")) if beside else None)


def _usual_size(given: Model, model: Classifier) -> int:
    """Height and width of the pictures that a model was trained on, as far as is known: else 224 for ImageNet's networks, 32 for others."""
    if len(members_of(model)) > 1 and not isinstance(given, Classifier):
        given = os.fspath(given).split(JOIN)[0]
    record, size = _record(given), None
    if record is not None:
        size = _within(record, "details", "settings", "image_size")
    elif not isinstance(given, Classifier):
        runs = [folder for folder in (Path(given), Path(given).parent) if Run.is_run(folder)]
        size = _within(Run.settings_of(runs[0]), "data", "image_size") if runs else None
    if type(size) is int and 1 <= size <= LARGEST_SIDE:
        return size
    if model.image_size is not None:
        return model.image_size
    return 224 if record is None and model.arch.startswith(("torchvision:", "timm:")) else 32


def _within(values: Any, *names: str) -> Any:
    """What nested mappings hold under these names; None where something on the way is missing or is no mapping."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _note(model: Classifier, record: Mapping[str, Any] | None) -> str:
    """What is known of a model, in one line."""
    members = members_of(model)
    if len(members) > 1:
        return f"the mean of {len(members)} networks: {', '.join(str(getattr(one, 'arch', '')) or 'one of your own' for one in members)}"
    if record is None:
        return model.arch or "a network of your own"
    threat = "not trained against attacks" if record["threat"] == "none" else f"trained against {record['threat']}"
    numbers = reached(record)
    return f"{record['arch']} on {record['dataset']}, {threat}" + (f": {numbers}" if numbers else "")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    return "1 CPU thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} CPU threads"
