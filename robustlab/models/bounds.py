"""Interval bound propagation (Gowal et al. 2018): between what numbers a network's logits stay, whatever image of a ball it sees.

A margin that stays above zero is a proof: no attack within the ball changes the prediction. For networks that were not trained for it
the bounds of deep layers are wide, and most often they prove nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from robustlab.constraints import ThreatModel
from robustlab.models.classifier import normalized
from robustlab.models.folding import fold_batch_norm
from robustlab.norms import L0, Norm, expanded


class NoBounds(TypeError):
    """A network has a layer whose bounds are not known here, or cannot be traced."""


@dataclass(frozen=True, eq=False)
class _Within:
    """A ball that contains all inputs of the next linear layer.

    Attributes:
        center: shape ``(B, ...)``.
        eps: its radius, before the scaling: a number or ``(B,)``.
        norm: in which it is one.
        scale: by how much every value was multiplied since then, broadcasts against one example.
    """

    center: Tensor
    eps: float | Tensor
    norm: Norm
    scale: Tensor | float = 1.0


@dataclass(frozen=True, eq=False)
class _Interval:
    """All values between ``low`` and ``high``, shape ``(B, ...)`` both; before the first linear layer also within ``ball``."""

    low: Tensor
    high: Tensor
    ball: _Within | None = None


def margin_bounds(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """A lower bound on the logit of ``y`` minus the largest other, over all images that a threat model allows; in float64.

    The balls of L2 and L1 are taken as such by the first linear layer, later ones see boxes. The last layer, if it is linear, is bounded
    in the differences of its rows.

    Args:
        model: in evaluation mode it must be made of linear layers, convolutions, BatchNorm, sums, pooling and functions that never fall.
            It is copied, not touched.
        x: images, shape ``(B, ...)``.
        y: classes, int64 ``(B,)``.
        threat: what an adversary may do.

    Returns:
        float64 ``(B,)``; above zero no allowed image is classified otherwise.

    Raises:
        NoBounds: a layer of another kind, a model that ``torch.fx`` cannot trace, or L0, which has no dual norm.
    """
    if isinstance(threat.norm, L0):
        raise NoBounds("L0 has no dual norm")
    traced = fold_batch_norm(model)
    if not isinstance(traced, GraphModule):
        raise NoBounds("the model cannot be traced")
    traced = traced.double()
    x = x.detach().double()
    radius = threat.radius(x)
    reach = expanded(radius.double(), x) if isinstance(radius, Tensor) else radius
    start = _Interval(threat.box.project(x - reach), threat.box.project(x + reach), _Within(x, radius, threat.norm))
    with torch.no_grad():
        return _Margins(traced, y).run(start)


class _Margins(Interpreter):
    """Runs a traced network on intervals; what comes out is the lower bound of the margin of ``y``."""

    def __init__(self, traced: GraphModule, y: Tensor) -> None:
        super().__init__(traced)
        self.extra_traceback = False
        self.y = y
        output = next(node for node in traced.graph.nodes if node.op == "output")
        last = output.args[0]
        plain = isinstance(last, Node) and last.op == "call_module" and type(traced.get_submodule(str(last.target))) is nn.Linear
        self.last = last if plain else None

    def run_node(self, n: Node) -> Any:
        if n is self.last:
            inputs: Any = self.map_nodes_to_values(n.args, n)
            return _linear_margins(self.fetch_attr(str(n.target)), inputs[0], self.y)
        return super().run_node(n)

    def output(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = args[0]
        if not isinstance(found, _Interval):
            return found
        own = F.one_hot(self.y, found.low.shape[1]).bool()
        return found.low.gather(1, self.y[:, None])[:, 0] - found.high.masked_fill(own, -torch.inf).amax(1)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.fetch_attr(target)
        if not any(isinstance(arg, _Interval) for arg in args):
            return super().call_module(target, args, kwargs)
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and getattr(layer, "padding_mode", "zeros") == "zeros":
            return _linear(layer, args[0])
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.running_mean is not None:
            return _ends(args[0], layer)
        if isinstance(layer, (nn.Flatten, nn.Identity, nn.Dropout)):
            return _reshaped(args[0], layer)
        if isinstance(layer, RISING):
            return _rising(args[0], layer)
        raise NoBounds(f"no bounds are known for the layer {type(layer).__name__}")

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        intervals = [arg for arg in args if isinstance(arg, _Interval)]
        if not intervals:
            return super().call_function(target, args, kwargs)
        if target is normalized:
            mean, std = args[1:]
            found = _rising(intervals[0], lambda z: normalized(z, mean, std))
            ball = intervals[0].ball
            return (
                found if ball is None else replace(found, ball=replace(ball, center=normalized(ball.center, mean, std), scale=1 / std[0]))
            )
        if target in (operator.add, torch.add, operator.iadd) and not kwargs:
            low, high = ([arg if not isinstance(arg, _Interval) else getattr(arg, side) for arg in args] for side in ("low", "high"))
            return _Interval(low[0] + low[1], high[0] + high[1])
        if target is torch.flatten and isinstance(args[0], _Interval):
            return _reshaped(args[0], lambda z: torch.flatten(z, *args[1:], **kwargs))
        if target in RISING_FUNCTIONS and len(intervals) == 1 and args[0] is intervals[0]:
            return _rising(intervals[0], lambda z: target(z, *args[1:], **kwargs))
        raise NoBounds(f"no bounds are known for the function {getattr(target, '__name__', target)}")

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first, *rest = args
        if not isinstance(first, _Interval):
            return super().call_method(target, args, kwargs)
        if target in ("size", "dim"):
            return getattr(first.low, target)(*rest, **kwargs)
        if target in ("flatten", "view", "reshape"):
            return _reshaped(first, lambda z: getattr(z, target)(*rest, **kwargs))
        if target in RISING_METHODS:
            return _rising(first, lambda z: getattr(z, target)(*rest, **kwargs))
        raise NoBounds(f"no bounds are known for the method {target}")


# What never falls where no input falls: its bounds are its values at the bounds.
RISING = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d),
)
RISING_FUNCTIONS: set[Callable[..., Any]] = {
    *(F.relu, torch.relu, torch.sigmoid, torch.tanh, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
}
RISING_METHODS = {"relu", "contiguous", "sigmoid", "tanh"}


def _rising(x: _Interval, function: Callable[[Tensor], Any]) -> _Interval:
    return _Interval(function(x.low), function(x.high))


def _reshaped(x: _Interval, function: Callable[[Tensor], Tensor]) -> _Interval:
    """Of a function that puts the same values into another shape; a ball stays one."""
    found, ball = _rising(x, function), x.ball
    if ball is None:
        return found
    scale = function(torch.as_tensor(ball.scale).to(ball.center).expand(1, *ball.center.shape[1:]))[0]
    return replace(found, ball=replace(ball, center=function(ball.center), scale=scale))


def _ends(x: _Interval, function: Callable[[Tensor], Tensor]) -> _Interval:
    """Of a function that rises or falls in each value by itself."""
    one, other = function(x.low), function(x.high)
    return _Interval(torch.minimum(one, other), torch.maximum(one, other))


def _linear(layer: Any, x: _Interval) -> _Interval:
    """A linear layer or a convolution, with zeros around the image."""
    weight, bias = layer.weight, layer.bias

    def apply(z: Tensor, weights: Tensor, offset: Tensor | None) -> Tensor:
        return F.linear(z, weights, offset) if isinstance(layer, nn.Linear) else layer._conv_forward(z, weights, offset)

    center, reach = apply((x.low + x.high) / 2, weight, bias), apply((x.high - x.low) / 2, weight.abs(), None)
    low, high = center - reach, center + reach
    if x.ball is None:
        return _Interval(low, high)
    scale = torch.as_tensor(x.ball.scale).to(weight)
    scaled = weight * (scale.flatten() if isinstance(layer, nn.Linear) and scale.ndim else scale)
    rows = x.ball.norm.dual.measure(scaled)
    eps = torch.as_tensor(x.ball.eps).to(weight).reshape(-1, 1)
    reach = (eps * rows).reshape(-1, len(rows), *[1] * (center.ndim - 2))
    center = apply(x.ball.center, weight, bias)
    return _Interval(torch.maximum(low, center - reach), torch.minimum(high, center + reach))


def _linear_margins(layer: nn.Linear, x: _Interval, y: Tensor) -> Tensor:
    """The lower bound of the margin of ``y`` after a last linear layer: each difference of two rows is bounded as one."""
    weight = layer.weight[y][:, None] - layer.weight  # (B, K, D)
    bias = torch.zeros(len(layer.weight)).to(weight) if layer.bias is None else layer.bias
    offset = bias[y][:, None] - bias
    low, high = (side.flatten(1)[:, :, None] for side in (x.low, x.high))
    least = (weight.clamp_min(0) @ low + weight.clamp_max(0) @ high)[:, :, 0] + offset
    if x.ball is not None:
        center = (weight @ x.ball.center.flatten(1)[:, :, None])[:, :, 0] + offset
        scale = torch.as_tensor(x.ball.scale).to(weight).flatten()
        rows = x.ball.norm.dual.measure((weight * scale).flatten(0, 1)).reshape(weight.shape[:2])
        least = torch.maximum(least, center - torch.as_tensor(x.ball.eps).to(weight).reshape(-1, 1) * rows)
    return least.masked_fill(F.one_hot(y, len(layer.weight)).bool(), torch.inf).amin(1)
