"""What a representation sees: inverted, interpolated, visualized, added to images, and made answerable for mistakes (Engstrom et al. 2019).

Every task gives back float images in [0, 1] and leaves the model as it was. ``layer`` and the units that it has are those of
``representations.representation``; None is the layer that the classifier's last one reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlab.checks import check_images, check_labels
from robustlab.data.imageset import Images, to_float
from robustlab.errors import UserError
from robustlab.models.frozen import frozen
from robustlab.objectives import Objective, feature_distance
from robustlab.optimize import OnStep
from robustlab.synthesis.budget import Search
from robustlab.synthesis.representations import representation


def invert(
    model: nn.Module, x: Tensor, start: Tensor, search: Search, layer: str | None = None, *, on_step: OnStep | None = None
) -> Tensor:
    """Images with the representation of ``x``, found from ``start``; both ``(B, C, H, W)``.

    Minimizes ``‖g(z) - g(x)‖ / ‖g(x)‖``. What differs from ``x`` in the result is what the representation does not see.
    """
    check_images(x)
    check_images(start)
    _check_alike(x, start, "the start")
    g = representation(model, layer)
    with frozen(model):
        with torch.no_grad():
            target = g(x)
        return search(feature_distance(g, target), start.detach(), on_step=on_step).x
