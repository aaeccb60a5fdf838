"""What several commands do: open the images that settings name, ask for a model; and doors to what the library does for them."""

from __future__ import annotations

from robustlab.data.catalog import open_dataset
from robustlab.data.imageset import Images
from robustlab.devices import choose_device as choose_device
from robustlab.devices import computes_bfloat16 as computes_bfloat16
from robustlab.errors import UserError
from robustlab.interrupts import interruptible as interruptible
from robustlab.models.matching import check_reads as check_reads
from robustlab.models.naming import short_names as short_names
from robustlab.models.zoo import load_model as load_model
from robustlab.models.zoo import normalization_of as normalization_of
from robustlab.models.zoo import pretrained
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
