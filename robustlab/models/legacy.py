"""Checkpoints of other projects: MadryLab's ``robustness``, RobustBench's models, and plain state dicts of CIFAR networks.

They hold our networks' tensors under other names. Both sides are brought to common names: wrappers' prefixes go, the
few words on which projects differ are settled, and the last matrix of a file is its head, whatever it is called.

Names cannot tell everything: RobustBench's pre-activation networks without a last BatchNorm take their shortcuts from
elsewhere; they miss ``bn`` and are refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from robustlab.errors import UserError
from robustlab.models.architectures import architectures, build, meta_network
from robustlab.models.classifier import Classifier
from robustlab.models.description import load_weights

# Where the weights lie in a dictionary of several things; averaged and best weights before the others.
CONTAINERS = ("ema", "model_ema", "ema_state_dict", "best", "last", "state_dict", "model_state_dict", "model", "net")
# Names of a normalization's buffers: MadryLab, RobustBench, and a plain first layer.
NORMALIZATIONS = (("new_mean", "new_std"), ("mu", "sigma"), ("mean", "std"))
# Copies of the network (MadryLab's attacker), the normalization, a block that WRN authors made and never used, counters of FLOPs.
SET_ASIDE = {"attacker", "normalizer", "normalize", "sub_block1", "total_ops", "total_params"}
RENAMED = (
    (r"\bdownsample\b", "shortcut"),
    (r"\bconvShortcut\b", "shortcut.0"),
    (r"^block(\d)\.layer\.", r"layer\1."),
    (r"^bn1\.", "bn."),
)
# The ImageNet networks that MadryLab released weights of.
IMAGENET = ("torchvision:resnet18", "torchvision:resnet50", "torchvision:wide_resnet50_2")


def classifier_from(
    checkpoint: Any,
    source: str,
    arch: str | None = None,
    num_classes: int | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Classifier:
    """The classifier in another project's checkpoint.

    Args:
        checkpoint: what the file held: a state dict, a dictionary around one, or (from a trusted file) a module.
        source: the file's name, for messages.
        arch: its architecture; left out, the one of ours that fits.
        num_classes: how many classes are expected; left out, any number.
        normalization: mean and std per channel, where the checkpoint carries none along; left out, with a warning none.

    Raises:
        UserError: no weights inside, no architecture that fits, another number of classes.
    """
    weights = _weights(checkpoint, source)
    body, head = _common_names(weights)
    if not head:
        raise UserError(f"{source} holds no matrix that could be the last layer of a classifier")
    outputs = len(head["weight"])
    if num_classes not in (None, outputs):
        raise UserError(f"{source} has {outputs} classes, not the {num_classes} asked for")
    channels = next((w.shape[1] for w in body.values() if w.dim() == 4), 3)
    mean, std = _normalization(weights) or normalization or _no_normalization(channels, source)
    arch = arch or _guess(body, channels, source)
    model = build(arch, num_classes=outputs, mean=mean, std=std, channels=channels)
    names = _own_names(model.body)
    ours = {f"body.{names.get(name, name)}": w for name, w in body.items()}
    return load_weights(model, ours | {f"head.{name}": w for name, w in head.items()}, source)


def _weights(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, at most a few dictionaries deep."""
    inner = checkpoint
    for _ in range(4):
        if isinstance(inner, nn.Module):
            inner = inner.state_dict()
        if not isinstance(inner, Mapping):
            raise UserError(f"{source} holds no weights but a {type(checkpoint).__name__}")
        if any(str(key).endswith(".weight") for key in inner):
            return {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
        deeper = [name for name in CONTAINERS if isinstance(inner.get(name), (Mapping, nn.Module))]
        if not deeper:
            break
        inner = inner[deeper[0]]
    raise UserError(f"{source} holds no weights; it has {', '.join(map(str, list(inner)[:5])) or 'nothing'}")


def _normalization(weights: Mapping[str, Tensor]) -> tuple[list[float], list[float]] | None:
    """Mean and std per channel, where the network carried them along as buffers."""
    for mean_name, std_name in NORMALIZATIONS:
        for key, mean in weights.items():
            prefix, _, last = key.rpartition(".")
            std = weights.get(f"{prefix}.{std_name}" if prefix else std_name)
            if last == mean_name and std is not None:
                return mean.flatten().tolist(), std.flatten().tolist()
    return None


def _no_normalization(channels: int, source: str) -> tuple[list[float], list[float]]:
    # Many networks read pixels as they are, but some projects keep the numbers in their code and not in the file.
    warnings.warn(f"{source} holds no mean and std: its network is taken to read pixels in [0, 1] as they are", stacklevel=4)
    return [0.0] * channels, [1.0] * channels


def _common_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the body under common names, and those of the head."""
    buffers = {name for pair in NORMALIZATIONS for name in pair}
    kept = {k: w for k, w in weights.items() if not SET_ASIDE & set(k.split(".")) and k.rpartition(".")[2] not in buffers}
    prefix = _shared_prefix(list(kept))
    kept = {key.removeprefix(prefix): w for key, w in kept.items()}
    matrices = [key for key, w in kept.items() if w.dim() == 2 and key.endswith(".weight")]
    head = matrices[-1].removesuffix("weight") if matrices else "head."
    return (
        {_common_name(key): w for key, w in kept.items() if not key.startswith(head)},
        {key.removeprefix(head): w for key, w in kept.items() if key.startswith(head)},
    )


def _shared_prefix(keys: list[str]) -> str:
    """What wrappers put before every name, such as ``module.model.``; the last part of a name is never a prefix."""
    prefix = ""
    while len({key[len(prefix) :].partition(".")[0] for key in keys}) == 1 and all("." in key[len(prefix) :] for key in keys):
        prefix += keys[0][len(prefix) :].partition(".")[0] + "."
    return prefix


def _common_name(key: str) -> str:
    key = key.removeprefix("body.")
    for pattern, name in RENAMED:
        key = re.sub(pattern, name, key)
    return key


def _own_names(body: nn.Module) -> dict[str, str]:
    """Common name to our name, for each tensor of a body."""
    return {_common_name(key): key for key in body.state_dict()}


def _guess(weights: Mapping[str, Tensor], channels: int, source: str) -> str:
    """The architecture whose body has exactly these tensors; no two of ours have the same."""
    shapes = {key: w.shape for key, w in weights.items() if not key.endswith("num_batches_tracked")}
    for arch in (*architectures(), *IMAGENET):
        body = meta_network(arch, num_classes=2, channels=channels).body
        own = {_common_name(key): w.shape for key, w in body.state_dict().items() if not key.endswith("num_batches_tracked")}
        if own == shapes:
            return arch
    raise UserError(f"{source} fits none of our architectures; name the nearest one by `arch`: {', '.join(architectures())}")
