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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import files
from robustlab.constraints import Ball
from robustlab.demo.raster import apply
from robustlab.errors import UserError, unknown
from robustlab.goals import Goal, Targeted, Untargeted
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier, Features
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.optimize import minimize
from robustlab.pixels import to_float, to_uint8, to_uint8_within
from robustlab.steps import Steepest
from robustlab.synthesis.natural import variation
from robustlab.synthesis.representations import last_relu, straight_through_relu

LARGEST = {"eps": 1000.0, "step_size": 1000.0, "steps": 200, "tv": 1000.0}
OLD_NAMES = {"step": "step_size"}  # of fields, in histories that were saved before
LARGEST_SIDE = 1024  # pixels of a picture in a history
SECONDS = 30.0  # after which a run ends with what it has


@dataclass(frozen=True, eq=False)
class Attribute:
    """A direction in the space of features: a button.

    Attributes:
        name: on the button.
        hint: what it is, in a few words.
        direction: shape ``(D,)``; the attribute's level is ``<direction, features(x)>``.
        examples: pictures that show it best, ``3 * size * size`` bytes each; where there are none, the button shows none.
    """

    name: str
    hint: str
    direction: Tensor
    examples: tuple[bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class Served:
    """A model with its buttons.

    Attributes:
        name: in the page's list.
        note: one line on what it is.
        model: of three channels; never changed.
        attributes: the buttons beside those of the classes.
        fast_features: a faster stand-in for ``model.features``.
        directions: of the attributes, shape ``(A, D)``.

    Raises:
        UserError: a model of other channels.
    """

    name: str
    note: str
    model: Classifier
    attributes: tuple[Attribute, ...] = ()
    fast_features: nn.Module = field(init=False)
    directions: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.model.channels != 3:
            raise UserError(f"{self.name} wants images of {self.model.channels} channels; the page draws in colour, with 3")
        weight = self.model.head.weight
        rows = [attribute.direction.to(weight) for attribute in self.attributes]
        object.__setattr__(self, "fast_features", accelerate(Features(self.model)))
        object.__setattr__(self, "directions", torch.stack(rows) if rows else weight.new_zeros(0, weight.shape[1]))

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and levels of the attributes ``(B, A)``."""
        features = self.fast_features(x)
        return self.model.head(features), features @ self.directions.T


@dataclass(frozen=True, eq=False)
class RunRequest:
    """What one press of a button asks for.

    Attributes:
        served: the model to follow.
        picture: where to start, ``3 * size * size`` bytes.
        anchor: centre of the ball; the picture itself where None.
        target, attribute: which class or attribute to change; both None only looks, with no steps.
        minimize: make it less likely, or lower its level, rather than more.
        eps: radius of the ball, L2 norm in units of [0, 1] pixels.
        step_size: length of a step, in the same units.
        steps: how many, at most.
        tv: weight of the total variation beside what is asked for, see ``synthesis.natural.variation``: it keeps pictures calm.
        wake: let gradients of an attribute pass the features that are off, which have none else. Both are off where a request does
            not name them, so that histories that were saved before are made again as they were.
    """

    served: Served
    picture: bytes
    anchor: bytes | None = None
    target: int | None = None
    attribute: int | None = None
    minimize: bool = False
    eps: float = 3.0
    step_size: float = 0.25
    steps: int = 20
    tv: float = 0.0
    wake: bool = False


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture on the way, and what the model says of it.

    Attributes:
        step: how many steps led here.
        picture: 8-bit RGB, ``3 * size * size`` bytes.
        distance: of this picture from the centre of the ball, L2 norm in units of [0, 1] pixels.
        logits: of each class.
        levels: of each attribute.
    """

    step: int
    picture: bytes
    distance: float
    logits: tuple[float, ...]
    levels: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class RunResult:
    """The end of a run: the best picture met, seen by the model as the 8-bit picture that it is.

    Attributes:
        frame: the picture.
        in_time: False where the run was cut short.
        why_unchanged: why the picture is still the one that it was, in one sentence; empty where it is another.
    """

    frame: Frame
    in_time: bool
    why_unchanged: str = ""


class Abandoned(Exception):
    """Nobody waits for this run any more."""


def perform(request: RunRequest, on_frame: Callable[[Frame], object] | None = None, stopped: Callable[[], bool] | None = None) -> RunResult:
    """Make a run.

    Args:
        on_frame: called before every step and after the last.
        stopped: asked before every step.

    Raises:
        Abandoned: ``stopped`` said so.
        UserError: the model gives no numbers, or no gradient, on this picture.
    """
    served, began = request.served, time.monotonic()
    device = served.model.head.weight.device
    start, center = (as_image(picture).to(device) for picture in (request.picture, request.anchor or request.picture))
    runs = request.steps > 0 and (request.target is not None or request.attribute is not None)
    step = 0  # how many were taken
    seen: dict[str, Tensor] = {}
    first: list[Tensor] = []  # the first two pictures of the run
    y = torch.tensor([request.target or 0], device=device)
    # Of a class the cross-entropy and not the logit, which can rise while that of another class stays above it.
    goal: Goal = Untargeted(y) if request.minimize else Targeted(y)

    def objective(x: Tensor) -> Tensor:
        logits, levels = served.outputs(x)
        seen.update(logits=logits.detach(), levels=levels.detach())
        if request.target is not None:
            value = goal.loss(logits)
        else:
            value = levels[:, request.attribute or 0] * (1 if request.minimize else -1)
        return value + request.tv * variation(x) if request.tv else value

    def stop() -> bool:
        if stopped and stopped():
            raise Abandoned
        return time.monotonic() - began > SECONDS

    def on_step(t: int, x: Tensor, value: Tensor) -> None:
        nonlocal step
        step = t
        if not value.isfinite().all():  # at once: what follows would be no picture
            raise UserError(f"{served.name} gives NaN or infinity for this picture instead of a number")
        if t < 2:
            first.append(x)
        if on_frame:
            on_frame(_frame(t, x, center, request.eps, seen))

    with frozen(served.model), frozen(served.fast_features):
        if runs:
            ball, rule = Ball(center, L2(), request.eps), Steepest(L2(), request.step_size)
            with _awake(request):
                x = minimize(objective, start, ball, rule, steps=request.steps, stop=stop, on_step=on_step).x
            final = _frame(step, x, center, request.eps, {})
        else:
            final = Frame(0, request.picture, _distance(to_uint8(start), to_uint8(center)), (), ())
        with torch.no_grad():
            logits, levels = served.outputs(as_image(final.picture).to(device))
    unchanged = step > 0 and final.picture == request.picture
    why = _why_unchanged(request, len(first) == 2 and torch.equal(*first)) if unchanged else ""
    in_time = not runs or step == request.steps
    return RunResult(Frame(step, final.picture, final.distance, _numbers(logits), _numbers(levels)), in_time, why)


def _awake(request: RunRequest) -> AbstractContextManager[None]:
    """Inside, the last ReLU lets every gradient through, where that is asked for, so that features which are off can be woken."""
    relu = last_relu(request.served.fast_features) if request.wake and request.attribute is not None else None
    return nullcontext() if relu is None else straight_through_relu(relu)


def _why_unchanged(request: RunRequest, no_first_step: bool) -> str:
    """Why a run gave back the picture that it got."""
    if request.eps == 0 or request.step_size == 0:
        return f"nothing can change with {'an eps' if request.eps == 0 else 'a step size'} of 0"
    if no_first_step:
        return "the gradient is zero here, so there is no way to follow: draw something first"
    return "from here no such steps lead to a better picture: try smaller ones, a larger eps, or another anchor"


def _frame(step: int, x: Tensor, center: Tensor, eps: float, seen: Mapping[str, Tensor]) -> Frame:
    pixels = to_uint8_within(x, to_uint8(center), eps)
    numbers = {name: _numbers(value) for name, value in seen.items()}
    return Frame(step, as_bytes(pixels), _distance(pixels, to_uint8(center)), numbers.get("logits", ()), numbers.get("levels", ()))


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values[0].tolist())


# Pictures: bytes, and floats in [0, 1].


def as_image(picture: bytes) -> Tensor:
    """Bytes to float32 ``(1, 3, size, size)`` in [0, 1]."""
    side = round((len(picture) / 3) ** 0.5)
    pixels = torch.frombuffer(bytearray(picture), dtype=torch.uint8).view(side, side, 3)
    return to_float(pixels.permute(2, 0, 1)[None])


def as_bytes(pixels: Tensor) -> bytes:
    """uint8 ``(1, 3, size, size)`` to bytes."""
    return pixels[0].permute(1, 2, 0).cpu().contiguous().numpy().tobytes()


def _distance(a: Tensor, b: Tensor) -> float:
    """Between two pictures, uint8, L2 norm in units of [0, 1] pixels."""
    return float(L2().measure(a.double() - b.double())) / 255


# Requests as they come from outside.


def read_request(body: bytes, models: Mapping[str, Served], size: int) -> RunRequest:
    """What the JSON of a request asks for.

    Args:
        body: a JSON object with the fields of ``RunRequest``: the model by its name, pictures in base64.
        models: by name.
        size: height and width of all pictures.

    Raises:
        UserError: it is no JSON, lacks something, has something unknown, or a value is out of range.
    """
    fields = _object(body)
    known = {"model", "image", "anchor", "target", "attribute", "minimize", "eps", "step_size", "steps", "tv", "wake"}
    for old, new in OLD_NAMES.items():
        if old in fields and new not in fields:
            fields[new] = fields.pop(old)
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
    for switch in ("minimize", "wake"):
        if not isinstance(fields.get(switch, False), bool):
            raise UserError(f"{switch} must be true or false")
    return RunRequest(
        served,
        _picture(fields.get("image"), "image", size),
        None if anchor is None else _picture(anchor, "anchor", size),
        target,
        attribute,
        fields.get("minimize", False),
        _number(fields, "eps", LARGEST["eps"]),
        _number(fields, "step_size", LARGEST["step_size"]),
        steps,
        _number({"tv": 0, **fields}, "tv", LARGEST["tv"]),
        fields.get("wake", False),
    )


def _object(body: bytes) -> dict[str, Any]:
    fields = files.parse_json(body, "the request", "a run")
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


# Histories: how a picture came about.


def replay(history: Mapping[str, Any], models: Mapping[str, Served] | None = None) -> bytes:
    """The picture that a history of the page ends in.

    Args:
        history: what the page's "Save history" button saves, or its "Save recipe" button did before.
        models: where given, finished runs are made again; else their recorded results are taken, and the bytes are the page's own.

    Raises:
        UserError: it is no history of the page.
    """
    try:
        files.check_kinds(history, {"size": int, "actions": [{"do": str}]}, "the file", "a history of the page")
        if not 1 <= history["size"] <= LARGEST_SIDE or any(_beyond(action) for action in history["actions"]):
            raise UserError(f"the history has a number beyond {LARGEST_SIDE}")
        return _replayed(history, models)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the file does not hold a history of the page: {type(error).__name__} {error}") from error


def _beyond(action: Mapping[str, Any]) -> bool:
    """Whether a drawing has a number that no picture has, which would take forever to draw."""
    left = [action.get(name) for name in ("points", "from", "to", "width", "color")]
    while left:
        each = left.pop()
        if isinstance(each, list):
            left += each
        elif each is not None and (not isinstance(each, int) or abs(each) > 4 * LARGEST_SIDE):
            return True
    return False


def _replayed(history: Mapping[str, Any], models: Mapping[str, Served] | None) -> bytes:
    size, picture = history["size"], bytearray(3 * history["size"] ** 2)
    for action in history["actions"]:
        if action["do"] == "run" and models is not None and action["finished"]:
            fields = {**(action.get("request") or action["order"]), "image": base64.b64encode(picture).decode()}
            picture[:] = perform(read_request(json.dumps(fields).encode(), models, size)).frame.picture
        elif action["do"] in ("run", "picture"):
            picture[:] = _picture(action["rgb"], "rgb", size)
        else:
            apply(picture, size, action)
    return bytes(picture)
