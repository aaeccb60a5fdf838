"""Several classifiers as one, whose logits are the mean of theirs: a picture that all of them believe suits none of them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robustlab.errors import UserError
from robustlab.models.classifier import Classifier

JOIN = "+"  # between the names of an ensemble's members


def ensemble(members: Sequence[Classifier], names: Sequence[str] = ()) -> Classifier:
    """One classifier of several: its features are theirs side by side, its logits the mean of theirs; the classes are the first one's.

    Args:
        members: at least one, all of the same classes and channels; used as they are, not copied.
        names: what a message calls them.

    Raises:
        UserError: none, a network that is no ``Classifier``, other classes or other channels.
    """
    names = names or [f"model {i + 1}" for i in range(len(members))]
    if not members:
        raise UserError("an ensemble needs at least one model")
    for name, member in zip(names, members, strict=True):
        if not isinstance(member, Classifier):
            raise UserError(f"an ensemble is made of Classifiers, but {name} is a {type(member).__name__}")
        if member.channels != members[0].channels or set(member.classes) != set(members[0].classes):
            raise UserError(f"the models of an ensemble must know the same classes and channels, but {name} differs from {names[0]}")
    classes = members[0].classes
    order = [member.outputs_for(classes, names[0]).to(member.head.weight.device) for member in members]
    weight = torch.cat([member.head.weight.detach()[rows] for member, rows in zip(members, order, strict=True)], 1) / len(members)
    head = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(torch.stack([_bias(member)[rows] for member, rows in zip(members, order, strict=True)]).mean(0))
    channels = members[0].channels
    found = Classifier(_SideBySide(members), head, mean=[0.0] * channels, std=[1.0] * channels, classes=classes)
    return found.to(weight.device).train(members[0].training)


def members_of(model: nn.Module) -> list[nn.Module]:
    """The members of an ensemble; of another network only itself."""
    body = getattr(model, "body", None)
    return list(body.members) if isinstance(body, _SideBySide) else [model]


def load_joined(name: str, load: Callable[[str], Classifier]) -> Classifier:
    """The model of a name, or the ensemble of several names joined by ``+``; a path that exists is taken whole.

    Args:
        name: such as ``cifar10-small-l2+cifar10-small-l2-eps1``.
        load: reads one model.

    Raises:
        UserError: as ``load`` and ``ensemble``.
    """
    parts = [part for part in name.split(JOIN) if part]
    if len(parts) < 2 or Path(name).exists():
        return load(name)
    return ensemble([load(part) for part in parts], parts)


class _SideBySide(nn.Module):
    """The features of classifiers side by side, of images as they are: ``(B, C, H, W)`` to ``(B, D1 + D2 + ...)``."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # Part of what the ensemble is, though a Classifier's own normalization travels beside its weights: so that it counts in a digest.
        self.register_buffer("normalizations", torch.stack([torch.cat([one.mean.flatten(), one.std.flatten()]) for one in members]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([member.features(x) for member in self.members], 1)  # type: ignore[operator]


def _bias(member: Classifier) -> Tensor:
    bias: Tensor | None = member.head.bias
    return member.head.weight.new_zeros(member.num_classes) if bias is None else bias.detach()
