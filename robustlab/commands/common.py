"""What several commands do: open the images that settings name, ask for a model; and doors to what the library does for them."""

from __future__ import annotations

from collections.abc import Mapping

from robustlab.data.catalog import fetchable, open_dataset
from robustlab.data.imageset import Images
from robustlab.data.shapes import CLASSES
from robustlab.devices import choose_device as choose_device
from robustlab.devices import computes_bfloat16 as computes_bfloat16
from robustlab.errors import UserError
from robustlab.interrupts import interruptible as interruptible
from robustlab.models.classifier import Classifier
from robustlab.models.matching import check_reads as check_reads
from robustlab.models.naming import short_names as short_names
from robustlab.models.zoo import load_model as load_model
from robustlab.models.zoo import normalization_of as normalization_of
from robustlab.models.zoo import pretrained
from robustlab.paths import place_of, shown
from robustlab.settings import Data, Model
from robustlab.threats import named_threat as named_threat
from robustlab.threats import norm_name as norm_name


def required_model(settings: Model, question: str = "which model?") -> str:
    """What ``--model`` names.

    Raises:
        UserError: nothing; names the pretrained models.
    """
    if settings.name is None:
        known = ", ".join(pretrained()) or "none, as no pretrained model is at hand"
        raise UserError(f"{question} --model takes a checkpoint's path or one of: {known}")
    return settings.name


def images_for(models: Mapping[str, Classifier], data: Data, split: str) -> Images:
    """One split of the images that settings name, for models that are at hand; where there are none it says which ones the models need.

    Args:
        models: by name.
        data: as the settings say.
        split: ``train``, ``test`` or ``val``.

    Raises:
        UserError: no images are named and the models do not know the classes of *shapes*, nothing is there, or it is damaged.
    """
    for name, model in models.items():
        if data.path is None and data.dataset is None and not model.unnamed and not set(CLASSES) & set(model.classes):
            raise UserError(f"which images? {needs(name, model)}")
        if data.path is not None and data.dataset is None and not place_of(data.path).exists():
            raise UserError(f"there is nothing at {shown(data.path)}; {needs(name, model)}")
    return open_images(data, split)


def needs(name: str, model: Classifier) -> str:
    """Which images a model was trained on, and how to get them."""
    about = str(pretrained().get(name, {}).get("dataset", ""))
    known = f"{name} was trained on {about}" if about else f"{name} knows the classes {', '.join(model.classes[:4])}, ..."
    fetched = fetchable(about)
    fetch = f", or --dataset {fetched} --download fetches them" if fetched else ""
    return f"{known}: --data PATH takes their folder or file{fetch}"


def open_images(data: Data, split: str, *, limit: int | None = None) -> Images:
    """One split of the images that settings name.

    Args:
        split: ``train``, ``test`` or ``val``.
        limit: in place of the settings' own.
    """
    return open_dataset(
        data.dataset,
        data.path,
        split,
        image_size=data.image_size,
        download=data.download,
        classes=data.classes,
        limit=data.limit if limit is None else limit,
        cache=data.cache,
    )
