"""The network that training begins with: a fresh one for some images, or one with the weights of another."""

from __future__ import annotations

import warnings

from torch import Tensor

from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import build, load_model
from robustlab.settings import Network


def network_for(images: Images, arch: str, *, seed: int = 0, normalization: tuple[Tensor, Tensor] | None = None) -> Classifier:
    """An untrained network for some images, on the CPU.

    Args:
        arch: see ``robustlab.models.zoo.architectures``.
        seed: of the first weights.
        normalization: mean and deviation per channel, ``(C,)`` each; those of the images where left out.

    Raises:
        UserError: an unknown architecture.
    """
    mean, std = images.mean_std() if normalization is None else normalization
    return build(
        arch,
        num_classes=len(images.classes),
        mean=mean.tolist(),
        std=std.tolist(),
        channels=images.shape[0],
        classes=images.classes,
        seed=seed,
    )


def pretrained_network_for(images: Images, network: Network, *, seed: int = 0) -> Classifier:
    """A network for some images with the weights and the normalization of ``network.init``, and of its last layer what knows their classes.

    Where that knows other classes, the last layer is a fresh one, and a warning says so.

    Raises:
        UserError: no such weights, or weights for images of other channels.
    """
    given = load_model(str(network.init), network)
    if given.channels != images.shape[0]:
        raise UserError(f"{network.init} wants {given.channels} channels, but the images of {images.name} have {images.shape[0]}")
    model = network_for(images, given.arch, seed=seed, normalization=(given.mean.flatten(), given.std.flatten()))
    model.body.load_state_dict(given.body.state_dict())
    try:
        outputs = given.outputs_for(images.classes, images.name)
    except UserError:
        warnings.warn(f"{network.init} knows other classes than {images.name}, so the last layer begins anew", stacklevel=2)
        return model
    model.head.load_state_dict({name: tensor[outputs] for name, tensor in given.head.state_dict().items()})
    return model
