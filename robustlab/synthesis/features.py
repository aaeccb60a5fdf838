"""What a representation sees: inverted, interpolated, visualized, added to images, and as the cause of mistakes (Engstrom et al. 2019).

Every search gives back images in [0, 1] whose objective is no higher than at their start. The model is left as it was. ``layer``
and its units are those of ``representations.representation``; None is the layer that the classifier's last one reads. A ``unit`` is
one number for all images, or int64 ``(B,)``. ``model`` is a classifier, ``x`` are images, float ``(B, C, H, W)`` in [0, 1], ``search`` says
how far to go and in which steps, and ``on_step`` is called with (step, images, value) at each of them.

Raises:
    UserError: images that are none, a layer or a unit that there is not, or shapes that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustlab.checks import check_images, check_labels, with_logit_checks
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.goals import recordable
from robustlab.models.frozen import frozen
from robustlab.models.placement import device_of
from robustlab.objectives import feature_distance
from robustlab.optimize import OnStep
from robustlab.pixels import to_float
from robustlab.synthesis.budget import Search
from robustlab.synthesis.parameters import Parameters
from robustlab.synthesis.representations import representation


def invert(
    model: nn.Module, x: Tensor, start: Tensor, search: Search, layer: str | None = None, *, on_step: OnStep | None = None
) -> Tensor:
    """Images with the representation of ``x``, found from ``start``; both of shape ``(B, C, H, W)``.

    Minimizes ``‖g(z) - g(x)‖ / ‖g(x)‖``. What differs from ``x`` in the result is what the representation does not see.
    """
    check_images(x)
    if start.shape != x.shape:
        raise UserError(f"the start must have the images' shape {tuple(x.shape)}, got {tuple(start.shape)}")
    g = representation(model, layer)
    with frozen(model):
        with torch.no_grad():
            target = g(x)
        return search(feature_distance(g, target), start, on_step=on_step).x


def interpolate(
    model: nn.Module,
    a: Tensor,
    b: Tensor,
    points: int,
    search: Search,
    layer: str | None = None,
    *,
    starts: tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A walk from one image to another through representation space, shape ``(points, C, H, W)``.

    Inverts evenly spaced mixtures of the two representations, each from the same mixture of two starts.

    Args:
        a, b: images, shape ``(C, H, W)``.
        starts: two images, shape ``(C, H, W)``, such as noise; ``a`` and ``b`` themselves where left out, and then the walk
            begins and ends with them.
    """
    if points < 2:
        raise UserError(f"an interpolation needs at least 2 points, got {points}")
    ends = torch.stack([_like(image, a) for image in (a, b, *(starts or (a, b)))])
    check_images(ends)
    g = representation(model, layer)
    share = torch.linspace(0, 1, points, dtype=ends.dtype, device=ends.device)
    with frozen(model):
        with torch.no_grad():
            left, right = g(ends[:2])
            targets = torch.lerp(left, right, share[:, None].to(left.dtype))  # (P, D)
        start = torch.lerp(ends[2], ends[3], share[:, None, None, None])
        return search(feature_distance(g, targets), start, on_step=on_step).x


def visualize(
    model: nn.Module,
    units: int | Tensor,
    start: Tensor,
    search: Search,
    layer: str | None = None,
    parameters: Parameters | None = None,
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images that activate the units as strongly as the search finds, from ``start``, noise or images, ``(B, C, H, W)``.

    A unit that is off everywhere in its start has no gradient, and its start comes back: at noise or grey most units of a small
    network are off. Search within ``straight_through_relu(last_relu(model, layer))`` to wake them.

    Args:
        parameters: what the steps move, such as ``parameters.Fourier()``; pixels where left out.
    """
    check_images(start)
    active = activation(model, units, start, layer)
    with frozen(model):
        return search(lambda z: -active(z), start, parameters=parameters, on_step=on_step).x


def add_feature(
    model: nn.Module,
    x: Tensor,
    unit: int | Tensor,
    search: Search,
    layer: str | None = None,
    level: float = 1.0,
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images ``(B, C, H, W)`` with a feature added: changed until the unit's activation reaches ``level``, and then left alone."""
    check_images(x)
    active = activation(model, unit, x, layer)
    with frozen(model):
        return search(lambda z: (level - active(z)).clamp_min(0), x, on_step=on_step).x


def extremes(model: nn.Module, images: Images, unit: int, k: int, layer: str | None = None, *, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """Where in a set the ``k`` images lie that activate a unit most, strongest first, and those that do so least, weakest first.

    Args:
        chunk: images that pass through the model at a time.

    Returns:
        Two times positions, int64, shape ``(k,)``, on the CPU; of equally active images the earlier comes first.
    """
    if not 1 <= k <= len(images):
        raise UserError(f"k must lie between 1 and the number of images, {len(images)}, got {k}")
    device = device_of(model)
    found = []
    with frozen(model), torch.no_grad():
        for index in torch.arange(len(images)).split(chunk):
            x = to_float(images.fetch(index)).to(device)
            found.append(activation(model, unit, x, layer)(x).cpu())
    values = torch.cat(found)
    return values.argsort(descending=True, stable=True)[:k], values.argsort(stable=True)[:k]


def contributions(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What each feature does for the predicted class rather than the true one, shape ``(B, D)``, in logits.

    ``g(x)_d (W[predicted] - W[true])_d``. An image's values add up to the difference of its two logits, but for the biases;
    they are zero where the prediction is right. The largest are the features that cause a mistake.

    Args:
        y: true classes, int64 ``(B,)``.
    """
    check_images(x)
    head, highest = head_of(model), check_labels(y, x)
    with frozen(model), torch.no_grad():
        features = representation(model)(x)
        predicted = with_logit_checks(head, highest)(features.to(head.weight.dtype)).argmax(1)
        return features * (head.weight[predicted] - head.weight[y])


def damped(model: nn.Module, x: Tensor, units: Tensor, factor: float | Tensor) -> Tensor:
    """Logits ``(B, K)`` of images whose features at ``units`` are multiplied by ``factor``: 1 changes nothing, 0 takes them out.

    Args:
        units: int64, shape ``(k,)``, the same for all images, or ``(B, k)``, such as the largest ``contributions``.
    """
    check_images(x)
    head = head_of(model)
    with frozen(model), torch.no_grad():
        features = representation(model)(x)
        _bounds(units)(features.shape[1])
        if units.ndim not in (1, 2) or (units.ndim == 2 and len(units) != len(x)):
            raise UserError(f"units must have shape (k,) or ({len(x)}, k), got {tuple(units.shape)}")
        chosen = torch.zeros_like(features, dtype=torch.bool).scatter_(1, units.expand(len(x), -1), True)
        return head(torch.where(chosen, features * factor, features).to(head.weight.dtype))


def activation(model: nn.Module, unit: int | Tensor, x: Tensor, layer: str | None = None) -> Callable[[Tensor], Tensor]:
    """How active a unit is in images like ``x``, or for each image its own unit, as a function from ``(B, C, H, W)`` to ``(B,)``.

    Raises:
        UserError: units that are not whole numbers, one or ``(B,)``; in a call, a unit that the layer does not have.
    """
    g = representation(model, layer)
    units = torch.as_tensor(unit)
    if units.dtype != torch.int64 or units.shape not in ((), (len(x),)):
        raise UserError(f"units must be one int or int64 of shape ({len(x)},), got {units.dtype} of shape {tuple(units.shape)}")
    index, check = recordable(units.to(x.device).expand(len(x))[:, None]), _bounds(units)

    def active(z: Tensor) -> Tensor:
        features = g(z)
        check(features.shape[1])
        return features.gather(1, index)[:, 0]

    return active


def _bounds(units: Tensor) -> Callable[[int], None]:
    """Refuses a width that has not all of the units; looks at them once, as that makes a device wait."""
    low, high = torch.stack(torch.aminmax(units)).tolist() if units.numel() else (0, 0)

    def check(width: int) -> None:
        if low < 0 or high >= width:
            raise UserError(f"there is no feature unit {low if low < 0 else high}: the layer has {width} (0 to {width - 1})")

    return check


def head_of(model: nn.Module) -> nn.Linear:
    """The classifier's last layer.

    Raises:
        UserError: the network has no linear ``head``.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{type(model).__name__} has no linear head that reads its features, as a Classifier has")
    return head


def _like(image: Tensor, first: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape != first.shape:
        raise UserError(f"an interpolation is between images of one shape (C, H, W), got {tuple(first.shape)} and {tuple(image.shape)}")
    return image.detach()
