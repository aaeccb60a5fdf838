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
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from robustlab.errors import UserError
from robustlab.models.architectures import BODIES, MOST_CHANNELS, architectures, build, meta_network
from robustlab.models.classifier import Classifier
from robustlab.models.description import check_shapes, in_words, load_weights

# Where the weights lie in a dictionary of several things: averaged and best weights before the others.
AVERAGED: tuple[str, ...] = (
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_state_dict_ema",
    "ema_model_state_dict",
)
AVERAGED += ("swa", "swa_model", "swa_state_dict", "averaged_model", "avg_model", "module_ema", "params_ema")
CONTAINERS: tuple[str, ...] = (
    *AVERAGED,
    "best",
    "last",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
)
CONTAINERS += ("weights", "shadow")
# Names of a normalization's buffers: MadryLab, RobustBench, and a plain first layer.
NORMALIZATIONS = (("new_mean", "new_std"), ("mu", "sigma"), ("mean", "std"))
# Copies of the network (MadryLab's attacker), the normalization, a block that WRN authors made and never used, counters of FLOPs.
SET_ASIDE = {"attacker", "normalizer", "normalize", "sub_block1", "total_ops", "total_params", "n_averaged"}
# What stands beside a network in a training module, by the words of its name: losses with their weights, metrics, and networks
# that are trained with or against it. No forward pass to the logits reads them.
BESIDE = re.compile(
    r"(^|_)(criterion|criteria|loss|losses|metric|metrics|acc|acc\d|accuracy|top\d|auroc|f1|confmat|confusion_matrix|meter|meters"
    r"|teacher|discriminator|lpips|projector|queue|queue_ptr|centers)(_|$)|(Loss|Accuracy|Metric|Criterion)$"
)
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
        UserError: no weights inside, no architecture that fits, another number of classes, weights that are no numbers.
    """
    weights = _weights(checkpoint, source)
    found = _network_in(weights, arch, source)
    outputs = len(found.head["weight"])
    if num_classes not in (None, outputs):
        raise UserError(f"{source} has {outputs} classes, not the {num_classes} asked for")
    arch, channels = arch or found.arch or _none_fits(source), found.channels
    network = meta_network(arch, num_classes=outputs, channels=channels)  # a file may say any size; it is compared before memory is taken
    names = _own_names(network.body)
    ours = {f"body.{names.get(name, name)}": w for name, w in found.body.items()} | {f"head.{name}": w for name, w in found.head.items()}
    check_shapes(network, ours, source, in_words(network))
    mean, std = _normalization(weights) or normalization or _no_normalization(channels, source)
    model = load_weights(build(arch, num_classes=outputs, mean=mean, std=std, channels=channels), ours, source)
    if found.left_out:
        some = f"{', '.join(found.left_out[:5])}{', ...' if len(found.left_out) > 5 else ''}"
        warnings.warn(f"{source}: {len(found.left_out)} tensors beside the network's own were left out: {some}", stacklevel=3)
    return model


def _weights(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, at most a few dictionaries deep."""
    found = _state_dict(checkpoint, source, 4)
    if found is not None:
        return found
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{source} holds no weights but a {type(checkpoint).__name__}")
    raise UserError(f"{source} holds no weights; it has {', '.join(map(str, list(checkpoint)[:5])) or 'nothing'}")


def _state_dict(value: Any, source: str, depth: int) -> dict[str, Tensor] | None:
    """The first state dict in a value, averaged ones before others; None where there is none."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, Mapping) or depth == 0:
        return None
    tensors = {str(key): torch.from_numpy(np.array(t)) if _is_array(t) else t for key, t in value.items()}
    tensors = {key: t for key, t in tensors.items() if isinstance(t, Tensor)}
    if any(key.endswith(".weight") for key in tensors):
        return tensors
    for name in CONTAINERS:
        inner = value.get(name)
        if isinstance(inner, list | tuple) and inner and all(isinstance(each, Mapping | nn.Module) for each in inner):
            raise UserError(f"{source} holds {len(inner)} networks ({name!r} is a list), and one is a model: save the one you mean alone")
        if (found := _state_dict(inner, source, depth - 1)) is not None:
            return found
        if name in AVERAGED and _holds_tensors(inner):
            warnings.warn(f"{source}: the averaged weights under {name!r} have no names, so the last ones are taken", stacklevel=2)
    return None


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype != np.longdouble


def _holds_tensors(value: Any) -> bool:
    """Whether tensors lie in a mapping or in one of its lists."""
    inner = value.values() if isinstance(value, Mapping) else ()
    return any(isinstance(t, Tensor) and t.dim() > 1 for each in inner for t in (each if isinstance(each, list | tuple) else [each]))


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


@dataclass(frozen=True)
class _Network:
    """The tensors of a file that are a network's, under common names.

    Attributes:
        arch: what they fit exactly; None where that is nothing of ours.
        left_out: names of the file's other tensors.
    """

    body: dict[str, Tensor]
    head: dict[str, Tensor]
    arch: str | None = None
    channels: int = 3
    left_out: tuple[str, ...] = ()


def _network_in(weights: Mapping[str, Tensor], arch: str | None, source: str) -> _Network:
    """The network among a file's tensors: all that are not known to be something else; else those under one prefix that fit exactly."""
    buffers = {name for pair in NORMALIZATIONS for name in pair}
    kept = {k: w for k, w in weights.items() if not SET_ASIDE & set(k.split(".")) and k.rpartition(".")[2] not in buffers}
    prefix = _shared_prefix(list(kept))
    if whole := _fitting(kept, prefix, arch):
        return whole
    parts = _parts(kept, arch)
    averaged = [part for prefix, part in parts.items() if set(re.split(r"[._]", prefix)) & {"ema", "swa", "averaged", "avg"}]
    candidates = averaged or list(parts.values())
    if len(candidates) > 1:
        raise UserError(f"{source} holds {len(candidates)} networks ({', '.join(parts)}), and one is a model: save the one you mean alone")
    if candidates:
        return candidates[0]
    if not (whole := _split(kept, prefix, arch)).head:
        raise UserError(f"{source} holds no matrix that could be the last layer of a classifier")
    return whole


def _parts(kept: Mapping[str, Tensor], arch: str | None) -> dict[str, _Network]:
    """The networks under prefixes of a file's names that fit exactly, where what lies beside them is no part of one."""
    firsts = {key: key.split(".") for key, w in kept.items() if w.dim() > 1 and key.endswith(".weight")}
    prefixes = {"".join(f"{part}." for part in parts[:length]) for parts in firsts.values() for length in range(min(len(parts) - 1, 4))}
    found: dict[str, _Network] = {}
    for prefix in sorted(prefixes):
        if _is_beside(prefix) or any(prefix.startswith(other) for other in found if other):
            continue
        inside = {key: w for key, w in kept.items() if key.startswith(prefix) and not _is_beside(key.removeprefix(prefix), 1)}
        if part := _fitting(inside, prefix, arch):
            found[prefix] = replace(part, left_out=tuple(key for key in kept if key not in inside))
    networks = tuple(prefix for prefix in found if prefix)
    return {prefix: part for prefix, part in found.items() if all(_may_be_left_out(key, kept[key], networks) for key in part.left_out)}


def _is_beside(key: str, parts: int = 2) -> bool:
    """Whether one of the first parts of a name says that it is no part of a network."""
    return any(BESIDE.search(part) for part in key.split(".")[:parts])


def _may_be_left_out(key: str, tensor: Tensor, networks: tuple[str, ...]) -> bool:
    """Whether a tensor beside a network is certainly no layer of it: a known name, a number or a list of them, or another whole network."""
    return _is_beside(key) or tensor.dim() <= 1 or not tensor.is_floating_point() or key.startswith(networks)


def _split(weights: Mapping[str, Tensor], prefix: str, arch: str | None) -> _Network:
    """Body and head under common names, where nothing fits exactly; the last matrix is taken for the head."""
    kept = {key.removeprefix(prefix): w for key, w in weights.items()}
    matrices = [key for key, w in kept.items() if w.dim() == 2 and key.endswith(".weight")]
    head = matrices[-1].removesuffix("weight") if matrices else "head."
    body = {_common_name(key): w for key, w in kept.items() if not key.startswith(head)}
    first = next((w.shape[1] for w in body.values() if w.dim() == 4), 3)
    channels = first if arch is None else _channels(body, arch)
    return _Network(body, {key.removeprefix(head): w for key, w in kept.items() if key.startswith(head)}, None, channels)


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


def _fitting(weights: Mapping[str, Tensor], prefix: str, arch: str | None) -> _Network | None:
    """The network that has exactly these tensors and one matrix more, its head; of all architectures or only of ``arch``.

    No two of ours have the same. The order of the tensors means nothing: the hub's files have none.
    """
    common = {_common_name(key.removeprefix(prefix)): w for key, w in weights.items()}
    shapes = _shapes(common)
    for each in (*architectures(), *IMAGENET) if arch is None else (arch,):
        channels = _channels(common, each)
        own = _shapes_of(each, channels) if 1 <= channels <= MOST_CHANNELS else {}
        rest = shapes.keys() - own.keys()
        name = next(iter(rest), "").rpartition(".")[0]
        is_head = f"{name}.weight" in rest and len(shapes[f"{name}.weight"]) == 2 and rest <= {f"{name}.weight", f"{name}.bias"}
        if own and is_head and all(shapes.get(key) == shape for key, shape in own.items()):
            head = {part: common[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in rest}
            return _Network({key: w for key, w in common.items() if key not in rest}, head, each, channels)
    return None


def _channels(weights: Mapping[str, Tensor], arch: str) -> int:
    """The channels of the images that an architecture with some weights reads: what its first convolution has."""
    stem = next((key for key, shape in _shapes_of(arch, 3).items() if len(shape) == 4), "")
    return weights[stem].shape[1] if stem in weights and weights[stem].dim() == 4 else 3


def _none_fits(source: str) -> NoReturn:
    raise UserError(f"{source} fits none of our architectures; name the nearest one by `arch`: {', '.join(architectures())}")


def _shapes_of(arch: str, channels: int) -> dict[str, tuple[int, ...]]:
    return _found_shapes(arch, channels, BODIES.get(arch))


@lru_cache(64)
def _found_shapes(arch: str, channels: int, make: object) -> dict[str, tuple[int, ...]]:
    """The shapes of an architecture; ``make`` tells two of one name apart."""
    body = meta_network(arch, num_classes=2, channels=channels).body
    return _shapes({_common_name(key): w for key, w in body.state_dict().items()})


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(w.shape) for key, w in weights.items() if not key.endswith("num_batches_tracked")}
