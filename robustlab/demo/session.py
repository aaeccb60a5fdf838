"""What the page asks for, and how it is done: one run of ``minimize`` for each press of a button. Knows no network.

A picture is 8-bit RGB bytes, row by row, wherever it rests: in the page, in a request, in an answer. It is float32 for the length
of a run. Between the two nothing is lost: bytes become floats and the same bytes again.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from robustlab.constraints import Ball
from robustlab.demo.raster import apply
from robustlab.errors import UserError, unknown
from robustlab.goals import Goal, Targeted, Untargeted
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier, Features
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.optimize import minimize
from robustlab.pixels import to_uint8, to_uint8_within
from robustlab.steps import Steepest

LARGEST = {"eps": 1000.0, "step": 1000.0, "steps": 200}
SECONDS = 30.0  # after which a run ends with what it has


@dataclass(frozen=True, eq=False)
class Attribute:
    """A direction in the space of features: a button.

    Attributes:
        name: on the button.
        hint: what it is, in a few words.
        direction: shape ``(D,)``; the attribute's level is ``<direction, features(x)>``.
    """

    name: str
    hint: str
    direction: Tensor


@dataclass(frozen=True, eq=False)
class Served:
    """A model with its buttons.

    Attributes:
        name: in the page's list.
        note: one line on what it is.
        model: of three channels; never changed.
    """

    name: str
    note: str
    model: Classifier
    attributes: tuple[Attribute, ...] = ()
    search: nn.Module = field(init=False)  # a faster stand-in for model.features
    directions: Tensor = field(init=False)  # (A, D)

    def __post_init__(self) -> None:
        if self.model.channels != 3:
            raise UserError(f"{self.name} wants images of {self.model.channels} channels; the page draws in colour, with 3")
        weight = self.model.head.weight
        rows = [attribute.direction.to(weight) for attribute in self.attributes]
        object.__setattr__(self, "search", accelerate(Features(self.model)))
        object.__setattr__(self, "directions", torch.stack(rows) if rows else weight.new_zeros(0, weight.shape[1]))

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and levels of the attributes ``(B, A)``."""
        features = self.search(x)
        return self.model.head(features), features @ self.directions.T


@dataclass(frozen=True, eq=False)
class Order:
    """One press of a button.

    Attributes:
        picture: where to start, ``3 * size * size`` bytes.
        anchor: centre of the ball; the picture itself where None.
        target, attribute: which class or attribute to change; both None only looks, with no steps.
        minimize: make it less likely, or lower its level, rather than more.
        eps: radius of the ball, L2 in units of [0, 1] pixels.
        step: length of a step, in the same units.
    """

    served: Served
    picture: bytes
    anchor: bytes | None = None
    target: int | None = None
    attribute: int | None = None
    minimize: bool = False
    eps: float = 3.0
    step: float = 0.25
    steps: int = 20


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture on the way, and what the model says of it.

    Attributes:
        distance: from the centre of the ball, of the 8-bit picture, L2 in units of [0, 1] pixels.
    """

    step: int
    picture: bytes
    distance: float
    logits: tuple[float, ...]
    levels: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a run: the best picture met, seen by the model as the 8-bit picture that it is.

    Attributes:
        in_time: False where the run was cut short.
        stays: why the picture is still the one it was, in one sentence; empty where it is another.
    """

    frame: Frame
    in_time: bool
    stays: str = ""


class Abandoned(Exception):
    """Nobody waits for this run any more."""


class _OutOfTime(Exception):
    """Carries the picture so far."""


def carry_out(order: Order, on_frame: Callable[[Frame], object] | None = None, stopped: Callable[[], bool] | None = None) -> Outcome:
    """Do what a press asks for.

    Args:
        on_frame: called before every step and after the last.
        stopped: asked before every step.

    Raises:
        Abandoned: ``stopped`` said so.
        UserError: the model gives no numbers, or no gradient, on this picture.
    """
    served, begin = order.served, time.monotonic()
    device = served.model.head.weight.device
    start, center = (as_image(picture).to(device) for picture in (order.picture, order.anchor or order.picture))
    seen: dict[str, Tensor] = {}
    moved: list[Tensor] = []  # the first two pictures of the search
    y = torch.tensor([order.target or 0], device=device)
    # Of a class the cross-entropy and not the logit, which can rise while that of another class stays above it.
    goal: Goal = Untargeted(y) if order.minimize else Targeted(y)

    def objective(x: Tensor) -> Tensor:
        logits, levels = served.outputs(x)
        seen.update(logits=logits.detach(), levels=levels.detach())
        if order.target is not None:
            return goal.loss(logits)
        level = levels[:, order.attribute or 0]
        return level if order.minimize else -level

    def on_step(t: int, x: Tensor, value: Tensor) -> None:
        if stopped and stopped():
            raise Abandoned
        if not value.isfinite().all():  # at once: what follows would be no picture
            raise UserError(f"{served.name} gives NaN or infinity for this picture instead of a number")
        if t < 2:
            moved.append(x)
        if on_frame:
            on_frame(_frame(t, x, center, order.eps, seen))
        if time.monotonic() - begin > SECONDS:
            raise _OutOfTime(t, x)

    with frozen(served.model), frozen(served.search):
        step, x, in_time = 0, start, True
        if order.steps and (order.target is not None or order.attribute is not None):
            try:
                x = minimize(
                    objective, start, Ball(center, L2(), order.eps), Steepest(L2(), order.step), steps=order.steps, on_step=on_step
                ).x
                step = order.steps
            except _OutOfTime as cut:
                step, x = cut.args
                in_time = False
            final = _frame(step, x, center, order.eps, {})
        else:
            final = Frame(0, order.picture, _distance(to_uint8(start), to_uint8(center)), (), ())
        with torch.no_grad():
            logits, levels = served.outputs(as_image(final.picture).to(device))
    stays = _why(order, len(moved) == 2 and torch.equal(*moved)) if step and final.picture == order.picture else ""
    return Outcome(Frame(step, final.picture, final.distance, _numbers(logits), _numbers(levels)), in_time, stays)


def _why(order: Order, no_first_step: bool) -> str:
    """Why a run gave back the picture that it got."""
    if order.eps == 0 or order.step == 0:
        return f"nothing can change with {'eps' if order.eps == 0 else 'a step'} of 0"
    if no_first_step:
        return "the gradient is zero here, so there is no way to follow: draw something first"
    return "from here no such steps lead to a better picture: try smaller ones, a larger eps, or another anchor"


def _frame(step: int, x: Tensor, center: Tensor, eps: float, seen: Mapping[str, Tensor]) -> Frame:
    pixels = to_uint8_within(x, to_uint8(center), eps)
    told = {name: _numbers(value) for name, value in seen.items()}
    return Frame(step, as_bytes(pixels), _distance(pixels, to_uint8(center)), told.get("logits", ()), told.get("levels", ()))


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values[0].tolist())


# Pictures: bytes, and floats in [0, 1].


def as_image(picture: bytes) -> Tensor:
    """Bytes to float32 ``(1, 3, size, size)`` in [0, 1]."""
    side = round((len(picture) / 3) ** 0.5)
    pixels = torch.frombuffer(bytearray(picture), dtype=torch.uint8).view(side, side, 3)
    return pixels.permute(2, 0, 1)[None].float() / 255


def as_bytes(pixels: Tensor) -> bytes:
    """uint8 ``(1, 3, size, size)`` to bytes."""
    return pixels[0].permute(1, 2, 0).cpu().contiguous().numpy().tobytes()


def _distance(a: Tensor, b: Tensor) -> float:
    """Between two pictures, uint8, L2 in units of [0, 1] pixels."""
    return float(L2().measure(a.double() - b.double())) / 255


# Orders as they come from outside.


def read_order(body: bytes, models: Mapping[str, Served], size: int) -> Order:
    """The order in a request's JSON.

    Raises:
        UserError: it is no JSON, lacks something, has something unknown, or a value is out of range.
    """
    fields = _object(body)
    known = {"model", "image", "anchor", "target", "attribute", "minimize", "eps", "step", "steps"}
    for key in fields:
        if key not in known:
            raise unknown("field", key[:50], known)
    name: Any = fields.get("model")
    if not isinstance(name, str) or name not in models:
        raise unknown("model", name[:50] if isinstance(name, str) else "", models)
    served, anchor = models[name], fields.get("anchor")
    target = _index(fields, "target", served.model.num_classes)
    attribute = _index(fields, "attribute", len(served.attributes))
    steps = _whole(fields, "steps", int(LARGEST["steps"]))
    if target is not None and attribute is not None:
        raise UserError("name a target or an attribute, not both")
    if steps and target is None and attribute is None:
        raise UserError("name the class (target) or the attribute to change, or take no steps")
    minimizing = fields.get("minimize", False)
    if not isinstance(minimizing, bool):
        raise UserError("minimize must be true or false")
    return Order(
        served,
        _picture(fields.get("image"), "image", size),
        None if anchor is None else _picture(anchor, "anchor", size),
        target,
        attribute,
        minimizing,
        _number(fields, "eps", LARGEST["eps"]),
        _number(fields, "step", LARGEST["step"]),
        steps,
    )


def _object(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise UserError("the request is not JSON") from None
    if not isinstance(fields, dict):
        raise UserError("the request must be a JSON object")
    return fields


def _picture(text: Any, name: str, size: int) -> bytes:
    try:
        picture = base64.b64decode(text.encode("ascii"), validate=True) if isinstance(text, str) else b""
    except (binascii.Error, UnicodeEncodeError):
        picture = b""
    if len(picture) != 3 * size * size:
        raise UserError(f"{name} must be base64 of {size} x {size} RGB pixels, {3 * size * size} bytes")
    return picture


def _index(fields: Mapping[str, Any], name: str, count: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < count:
        raise UserError(f"{name} must be a whole number from 0 to {count - 1}" if count else f"this model has no {name}s")
    return value


def _whole(fields: Mapping[str, Any], name: str, largest: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= largest:
        raise UserError(f"{name} must be a whole number from 0 to {largest}")
    return value


def _number(fields: Mapping[str, Any], name: str, largest: float) -> float:
    value: Any = fields.get(name)
    if type(value) not in (int, float) or not 0 <= value <= largest:  # NaN compares false
        raise UserError(f"{name} must be a number from 0 to {largest:g}")
    return float(value)


# Recipes: how a picture came about.


def replay(recipe: Mapping[str, Any], models: Mapping[str, Served] | None = None) -> bytes:
    """The picture that a recipe of the page ends in.

    Args:
        recipe: what the page's "Recipe" button saves.
        models: where given, finished runs are done again; else their recorded results are taken, and the bytes are the page's own.
    """
    size, picture = recipe["size"], bytearray(3 * recipe["size"] ** 2)
    for action in recipe["actions"]:
        if action["do"] == "run" and models is not None and action["finished"]:
            fields = {**action["order"], "image": base64.b64encode(picture).decode()}
            picture[:] = carry_out(read_order(json.dumps(fields).encode(), models, size)).frame.picture
        elif action["do"] in ("run", "picture"):
            picture[:] = _picture(action["rgb"], "rgb", size)
        else:
            apply(picture, size, action)
    return bytes(picture)
