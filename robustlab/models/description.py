"""How a classifier is written down and made again: a small dictionary of plain values, and its weights by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from robustlab.errors import UserError
from robustlab.models.architectures import build
from robustlab.models.classifier import Classifier

FIELDS = ("arch", "num_classes", "classes", "mean", "std", "channels")


def describe(model: Classifier) -> dict[str, Any]:
    """What ``from_description`` needs to make the network again, in values that JSON and safe pickles hold.

    Raises:
        UserError: the network was not made by name.
    """
    if not model.arch:
        raise UserError("only a network made by name can be saved and loaded again; build it by robustlab.build")
    return {
        "arch": model.arch,
        "num_classes": model.num_classes,
        "classes": list(model.classes),
        "mean": _decimals(model.mean),
        "std": _decimals(model.std),
        "channels": model.channels,
    }


def from_description(description: Mapping[str, Any], source: str = "the description") -> Classifier:
    """The network that ``describe`` wrote down, freshly initialized.

    Args:
        description: at least the fields of ``describe``; others are passed over.
        source: the file it came from, for the message.

    Raises:
        UserError: a field is missing, or no network can be made of them.
    """
    missing = [name for name in FIELDS if name not in description]
    if missing:
        raise UserError(f"{source} does not say what network it holds: {_some(missing)} missing")
    try:
        return build(**{name: description[name] for name in FIELDS})
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} does not say what network it holds: {error}") from error


def load_weights(model: Classifier, weights: Mapping[str, Tensor], source: str) -> Classifier:
    """Copy ``weights`` into ``model``, in the model's precision; every name and shape must agree.

    Raises:
        UserError: names the first few that do not. Counters of BatchNorm may be missing, as in files before 2018.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in weights if k not in own]
    both = [k for k in own if k in weights]
    clashes = [f"{k} ({_shape(weights[k])}, not {_shape(own[k])})" for k in both if weights[k].shape != own[k].shape]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", clashes)]
    if any(names for _, names in problems):
        found = "; ".join(f"{what}: {_some(names)}" for what, names in problems if names)
        raise UserError(f"{source} does not fit the architecture {model.arch} with {model.num_classes} classes: {found}")
    model.load_state_dict({k: weights.get(k, own[k]) for k in own})
    return model


def _decimals(values: Tensor) -> list[float]:
    """The shortest decimals that give the same float32 numbers: 0.4914, not 0.49140000343."""
    return [float(str(value)) for value in values.flatten().cpu().numpy()]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
