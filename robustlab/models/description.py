"""How a classifier is written down and made again: a small dictionary of plain values, and its weights by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import files
from robustlab.errors import UserError
from robustlab.models.architectures import build, meta_network
from robustlab.models.classifier import Classifier

FIELDS = {"arch": str, "num_classes": int, "classes": ([str], None), "mean": [float], "std": [float], "channels": int}


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
    check_description(description, source)
    try:
        return build(**{name: description[name] for name in FIELDS})
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} does not say what network it holds: {error}") from error


def restored(description: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> Classifier:
    """The network that ``describe`` wrote down with its weights. Shapes are compared before anything of their size is made.

    Args:
        description: at least the fields of ``describe``.
        weights: by name.
        source: the file they came from, for messages.

    Raises:
        UserError: the description makes no network, or the weights are not its own; see ``load_weights``.
    """
    check_weights(description, weights, source)
    return load_weights(from_description(description, source), weights, source)


def check_weights(description: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not of the network that a description makes, without making it.

    Raises:
        UserError: the description makes no network, or a name or a shape does not agree.
    """
    check_description(description, source)
    try:
        network = meta_network(description["arch"], num_classes=description["num_classes"], channels=description["channels"])
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    check_shapes(network, weights, source, in_words(network))


def check_description(description: Mapping[str, Any], source: str) -> None:
    """Refuse what does not describe a network.

    Args:
        description: at least the fields of ``describe``.
        source: the file it came from, for the message.

    Raises:
        UserError: a field is missing, or is of another kind.
    """
    missing = [name for name in FIELDS if name not in description]
    if missing:
        raise UserError(f"{source} does not say what network it holds: {_some(missing)} missing")
    if wrong := [name for name, kind in FIELDS.items() if not files.is_kind(description[name], kind)]:
        raise UserError(f"{source} does not say what network it holds: {wrong[0]} cannot be {description[wrong[0]]!r:.60}")


def load_weights(model: Classifier, weights: Mapping[str, Tensor], source: str) -> Classifier:
    """Copy ``weights`` into ``model``, in the model's precision; every name and shape must agree.

    Raises:
        UserError: names the first few that do not, or that are no numbers. Counters of BatchNorm may be missing, as in files before 2018.
    """
    check_shapes(model, weights, source, in_words(model))
    own = model.state_dict()
    model.load_state_dict({k: weights.get(k, own[k]) for k in own})
    check_finite(model.state_dict(), source)
    return model


def check_finite(weights: Mapping[str, Any], source: str) -> None:
    """Refuse weights and statistics that are NaN or infinite, and variances below zero, which a forward pass makes NaN.

    Args:
        weights: tensors by name; what is none is passed over. Those of one device are looked at together.
        source: where they came from, for the message.

    Raises:
        UserError: names the first few.
    """
    found = {k: t for k, t in weights.items() if isinstance(t, Tensor) and t.is_floating_point() and t.numel()}
    good = [(t.detach().min() >= 0 if k.endswith("running_var") else True) & t.detach().isfinite().all() for k, t in found.items()]
    if good and not torch.stack(good).all():
        wrong = [k for k, fine in zip(found, good, strict=True) if not fine]
        raise UserError(f"{source} holds weights that are NaN, infinite, or a negative variance: {_some(wrong)}")


def check_shapes(model: nn.Module, weights: Mapping[str, Tensor], source: str, what: str) -> None:
    """Refuse weights of other names or shapes than a network's, or that are not stored as plain numbers.

    Args:
        model: may be on the meta device.
        weights: by name.
        source: where they came from, for the message.
        what: the network, in words.

    Raises:
        UserError: names the first few.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in weights if k not in own]
    both = [k for k in own if k in weights]
    clashes = [f"{k} ({_shape(weights[k])}, not {_shape(own[k])})" for k in both if weights[k].shape != own[k].shape]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", clashes)]
    if any(names for _, names in problems):
        found = "; ".join(f"{what}: {_some(names)}" for what, names in problems if names)
        raise UserError(f"{source} does not fit {what}: {found}")
    if odd := [k for k in both if not _is_plain(weights[k])]:
        raise UserError(f"{source} holds weights that are not stored number by number (sparse, quantized, or repeated): {_some(odd)}")


def in_words(model: Classifier) -> str:
    """A network's architecture, for messages."""
    return f"the architecture {model.arch} with {model.num_classes} classes"


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has as many numbers as it says, and not one that stands for thousands."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex() and not tensor.is_meta
    return dense and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _decimals(values: Tensor) -> list[float]:
    """The shortest decimals that give the same float32 numbers: 0.4914, not 0.49140000343."""
    return [float(str(value)) for value in values.flatten().cpu().numpy()]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
