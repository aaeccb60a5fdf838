"""Networks by name: ours for small images, ``torchvision:NAME``, and with the extra ``timm:NAME``; always freshly initialized."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from robustlab import seeding
from robustlab.checks import MOST_CLASSES
from robustlab.errors import UserError, in_one_line, unknown
from robustlab.models.classifier import Classifier
from robustlab.models.mlp import MLP
from robustlab.models.preact_resnet import PreActResNet
from robustlab.models.resnet import BasicBlock, Bottleneck, ResNet
from robustlab.models.vgg import VGG

MOST_CHANNELS = 1_024


def wide_resnet(depth: int, factor: int, channels: int) -> PreActResNet:
    """WRN-depth-factor: three stages of (depth - 4) / 6 blocks, ``factor`` times as wide as 16, 32, 64."""
    return PreActResNet([(depth - 4) // 6] * 3, [16 * factor, 32 * factor, 64 * factor], stem=16, channels=channels)


def small(width: int, channels: int) -> ResNet:
    """``small`` with ``width`` channels in its first stage, and twice as many in each that follows; it has 16."""
    return ResNet(BasicBlock, (1, 1, 1, 1), (width, 2 * width, 4 * width, 8 * width), channels)


# `small` has 309 thousand parameters; of eight shapes of about that size it was the fastest to train on two CPU cores
# (bfloat16, channels_last, batches of 128: 1,500 to 2,100 images per second forward and backward).
BODIES: dict[str, Callable[[int], ResNet | PreActResNet | VGG | MLP]] = {
    "mlp": MLP,
    "small": lambda channels: small(16, channels),
    # 1.1 million: the widest that two hours of one core train to a good robust model, and 2.3 MB in half precision.
    "medium": lambda channels: ResNet(BasicBlock, (1, 1, 1, 1), (32, 64, 128, 240), channels),
    "preact_small": lambda channels: PreActResNet((1, 1, 1, 1), (16, 32, 64, 128), stem=16, channels=channels),
    "vgg_small": lambda channels: VGG((16, 32, 64, 128), channels),
    "resnet18": lambda channels: ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), channels),
    "resnet34": lambda channels: ResNet(BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512), channels),
    "resnet50": lambda channels: ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), channels),
    "preact_resnet18": lambda channels: PreActResNet((2, 2, 2, 2), (64, 128, 256, 512), stem=64, channels=channels),
    "wrn-28-10": lambda channels: wide_resnet(28, 10, channels),
    "wrn-34-10": lambda channels: wide_resnet(34, 10, channels),
}
WIDTH = re.compile(r"small-([1-9]\d{0,2})")  # `small` with so many channels in its first stage


def architectures() -> list[str]:
    """The names of our own networks; ``small-WIDTH``, ``torchvision:NAME`` and ``timm:NAME`` come on top."""
    return list(BODIES)


def build(
    arch: str,
    *,
    num_classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """A freshly initialized network on the CPU, in training mode: the same name and seed give the same weights.

    Args:
        arch: a name of ``architectures()``, ``small-WIDTH`` such as ``small-8``, or ``torchvision:NAME`` or ``timm:NAME``.
        num_classes: number of outputs, at least two.
        mean: average of each channel, in [0, 1] units; 0 where left out.
        std: deviation of each channel; 1 where left out.
        channels: channels of the images.
        classes: names of the outputs.
        seed: chooses the initial weights; the global random state is neither read nor changed.

    Raises:
        UserError: an unknown architecture, classes or channels out of range, or a mean and deviation of other channels.
    """
    check_sizes(num_classes, channels)
    mean = [0.0] * channels if mean is None else mean
    std = [1.0] * channels if std is None else std
    if len(mean) != channels:
        raise UserError(f"images of {channels} channels need a mean and std of {channels} numbers, got {len(mean)}")
    # Libraries initialize from the global state of the CPU only; borrow it, set it, and give it back.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.generator(seed, "init", arch).initial_seed())
        body, head = _body_and_head(arch, channels, num_classes)
        return Classifier(body, head, mean=mean, std=std, arch=arch, classes=classes)


def meta_network(arch: str, *, num_classes: int, channels: int = 3) -> Classifier:
    """The network without its values, on the meta device: names and shapes at next to no cost.

    Raises:
        UserError: an unknown architecture, or classes or channels out of range.
    """
    check_sizes(num_classes, channels)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        body, head = _body_and_head(arch, channels, num_classes)
        return Classifier(body, head, mean=[0.0] * channels, std=[1.0] * channels, arch=arch)


def check_sizes(num_classes: int, channels: int) -> None:
    """Refuse numbers that a file may say and that no network here has, before anything of that size is made.

    Raises:
        UserError: with what is allowed.
    """
    if num_classes < 2:
        raise UserError(f"a classifier needs at least two classes, got {num_classes}")
    if num_classes > MOST_CLASSES:
        raise UserError(f"a classifier may have at most {MOST_CLASSES:,} classes, got {num_classes:,}")
    if not 1 <= channels <= MOST_CHANNELS:
        raise UserError(f"images may have 1 to {MOST_CHANNELS:,} channels, got {channels:,}")


def _body_and_head(arch: str, channels: int, num_classes: int) -> tuple[nn.Module, nn.Linear]:
    library, _, name = arch.rpartition(":")
    if library == "torchvision":
        return _split(torchvision_network(name, channels), num_classes, arch)
    if library == "timm":
        return _split(timm_network(name, channels), num_classes, arch)
    width = WIDTH.fullmatch(arch)
    if arch not in BODIES and not width:
        raise unknown("architecture", arch, [*BODIES, "small-WIDTH", "torchvision:NAME", "timm:NAME"])
    body = small(int(width[1]), channels) if width else BODIES[arch](channels)
    _initialize(body)
    return body, nn.Linear(body.num_features, num_classes)


def _initialize(body: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out for convolutions (He et al. 2015), which keeps the gradients' size over depth.

    Not on the meta device: there is no value to set, and torch would take two seconds to load what it draws nothing with.
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def torchvision_network(name: str, channels: int) -> nn.Module:
    """A network of torchvision, freshly initialized from the global random state.

    Raises:
        UserError: no such name; says the nearest.
    """
    models = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown_of("torchvision", name, known)
    # These two return tuples in training unless their side branches are left out.
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network = models.get_model(name, weights=None, **options)
    if channels != 3:
        _read_channels(network, channels)
    return network


def _read_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution fresh weights for images of ``channels`` channels."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = channels
    first.weight = nn.Parameter(torch.empty(first.out_channels, channels, *first.kernel_size))
    first.reset_parameters()


def timm_network(name: str, channels: int, *, pretrained: bool = False) -> nn.Module:
    """A network of timm, freshly initialized from the global random state or with weights that timm downloads.

    Args:
        name: with weights also with a tag that chooses them, as in ``resnet50.a1_in1k``.

    Raises:
        UserError: timm is not installed, no such name (says the nearest), or no weights to be had.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise UserError(f"timm:{name} needs the package timm; install it by: pip install timm") from error
    known = [*timm.list_models(), *(timm.list_models(pretrained=True) if pretrained else ())]
    if name not in known:
        raise unknown_of("timm", name, known)
    if not pretrained:
        return timm.create_model(name, pretrained=False, in_chans=channels)
    try:
        return timm.create_model(name, pretrained=True, in_chans=channels)
    except Exception as error:  # of the network, of a hub, of files: the reasons are many, and the user needs one sentence
        raise UserError(f"timm could not load the weights of {name}: {in_one_line(error)}") from error


def unknown_of(library: str, name: str, known: Sequence[str], kind: str = "architecture") -> UserError:
    """The error for a name that a library does not have: its names are too many for one sentence, and the nearest will do.

    Args:
        library: what stands before the colon.
        name: what the user wrote behind it.
        known: the library's names.
        kind: what was looked up.
    """
    near = difflib.get_close_matches(name, known, n=5, cutoff=0)
    return UserError(f"unknown {kind} '{library}:{name}'. Did you mean {', '.join(f'{library}:{n}' for n in near)}?")


def _split(network: nn.Module, num_classes: int, arch: str) -> tuple[nn.Module, nn.Linear]:
    """Any network as a body and a fresh head: its last linear layer makes way for the identity."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(f"{arch} does not end in a linear layer, so it cannot be split into features and a head")
    name, last = layers[-1]
    if any(module.out_features == last.out_features for _, module in layers[:-1]):
        raise UserError(f"{arch} has more than one last layer, so it cannot be split into features and a head")
    network.set_submodule(name, nn.Identity())
    return network, nn.Linear(last.in_features, num_classes, bias=last.bias is not None)
