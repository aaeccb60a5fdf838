"""What a press does: laws of a run, of bytes and floats, and of what is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded, untouched
from page import SIZE, blind, classifier, fields, served

from robustlab.demo import session
from robustlab.demo.session import Abandoned, Attribute, RunRequest, Served, perform, read_request, replay
from robustlab.errors import UserError
from robustlab.pixels import to_uint8
from robustlab.synthesis.natural import variation


def distance(a: bytes, b: bytes) -> float:
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 / 255)


def test_every_byte_survives_floats():
    picture = bytes(range(256)) * 3
    assert session.as_bytes(to_uint8(session.as_image(picture))) == picture


def test_pixels_lie_where_they_should():
    picture = bytearray(3 * 16)
    picture[3 * (4 * 1 + 2) + 1] = 255  # row 1, column 2, green
    image = session.as_image(bytes(picture))
    assert image.shape == (1, 3, 4, 4) and image[0, 1, 1, 2] == 1 and image.sum() == 1


@pytest.mark.parametrize("goal", [{"target": 0}, {"target": 3}, {"attribute": 0}])
@pytest.mark.parametrize("minimize", [False, True])
def test_a_press_raises_or_lowers_what_was_asked_for(tiny, picture, goal, minimize):
    def level(bytes_: bytes) -> float:
        frame = perform(RunRequest(tiny, bytes_, steps=0)).frame
        return frame.logits[goal["target"]] if "target" in goal else frame.levels[0]

    result = perform(RunRequest(tiny, picture, **goal, minimize=minimize, eps=2.0, step_size=0.25, steps=10))
    gain = level(result.frame.picture) - level(picture)
    assert gain < -0.1 if minimize else gain > 0.1
    assert result.in_time and 0 < result.frame.distance <= 2.0


def test_levels_and_logits_are_the_models_own(tiny, picture):
    frame = perform(RunRequest(tiny, picture, steps=0)).frame
    with torch.no_grad():
        logits = tiny.model(session.as_image(picture))[0]
    assert frame.logits == pytest.approx(logits.tolist(), abs=1e-4)
    weight, bias = tiny.model.head.weight.detach(), tiny.model.head.bias.detach()
    assert frame.levels[0] == pytest.approx(float(logits[0] - logits[1] - bias[0] + bias[1]), abs=1e-3) and len(weight) == 4


@seeded
@given(eps=st.floats(0, 5), step_size=st.floats(0, 2), steps=st.integers(0, 4), far=st.booleans())
def test_every_frame_lies_in_the_ball_around_the_anchor(tiny, eps, step_size, steps, far):
    anchor = bytes([100] * (3 * SIZE * SIZE))
    start = bytes([250 if far else 101] * (3 * SIZE * SIZE))
    frames = []
    result = perform(RunRequest(tiny, start, anchor, target=2, eps=eps, step_size=step_size, steps=steps), frames.append)
    for frame in [*frames, result.frame] if steps else []:
        assert distance(frame.picture, anchor) <= eps + 1e-12
        assert frame.distance == pytest.approx(distance(frame.picture, anchor), abs=1e-9)


def test_without_an_anchor_the_ball_is_around_the_start(tiny, picture):
    first = perform(RunRequest(tiny, picture, target=2, eps=0.5, step_size=0.25, steps=8)).frame
    second = perform(RunRequest(tiny, first.picture, target=2, eps=0.5, step_size=0.25, steps=8)).frame
    assert distance(first.picture, picture) <= 0.5 and distance(second.picture, first.picture) <= 0.5
    assert distance(second.picture, picture) > 0.6, "presses walk on"
    held = perform(RunRequest(tiny, first.picture, picture, target=2, eps=0.5, step_size=0.25, steps=8)).frame
    assert distance(held.picture, picture) <= 0.5, "an anchor holds them"


def test_looking_changes_nothing_however_often(tiny, picture):
    seen = picture
    for _ in range(20):
        seen = perform(RunRequest(tiny, seen, steps=0)).frame.picture
    assert seen == picture


def test_steps_of_no_length_change_nothing_however_often(tiny, picture):
    seen = picture
    for _ in range(20):
        seen = perform(RunRequest(tiny, seen, target=0, step_size=0.0, steps=3)).frame.picture
    assert seen == picture


def test_there_and_back_again_costs_no_quality(tiny, picture):
    """Presses at the ball's surface move along it; they do not wear the picture down to the anchor or to grey."""
    seen = picture
    for k in range(12):
        seen = perform(RunRequest(tiny, seen, picture, target=k % 2, eps=1.0, step_size=0.1, steps=3)).frame.picture
    last = perform(RunRequest(tiny, seen, picture, target=0, eps=1.0, step_size=0.1, steps=40)).frame
    fresh = perform(RunRequest(tiny, picture, picture, target=0, eps=1.0, step_size=0.1, steps=40)).frame
    assert last.logits[0] == pytest.approx(fresh.logits[0], abs=0.05 * abs(fresh.logits[0]) + 0.1)


def test_a_frame_for_every_step_with_what_the_model_sees_there(tiny, picture):
    frames = []
    perform(RunRequest(tiny, picture, target=1, steps=6), frames.append)
    assert [frame.step for frame in frames] == list(range(7))
    assert frames[0].picture == picture and frames[0].distance == 0
    logits = [frame.logits[1] for frame in frames]
    assert logits == sorted(logits) and logits[-1] > logits[0]


def test_the_same_request_gives_the_same_picture(tiny, picture):
    request = RunRequest(tiny, picture, target=1, steps=5)
    assert perform(request).frame.picture == perform(request).frame.picture


def test_an_abandoned_run_stops_at_its_next_step_and_leaves_the_model_alone(picture):
    one = served()
    one.model.train()
    frames = []
    with untouched(one.model), pytest.raises(Abandoned):
        perform(RunRequest(one, picture, target=1, steps=100), frames.append, lambda: len(frames) >= 3)
    assert len(frames) == 3


def test_a_run_that_takes_too_long_ends_with_what_it_has(tiny, picture, monkeypatch):
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: next(times)))  # servers of other tests have a clock too
    result = perform(RunRequest(tiny, picture, target=1, steps=100))
    assert not result.in_time and result.frame.step == 3 and result.frame.picture != picture


def test_why_a_picture_stays_is_told(tiny, picture):
    assert perform(RunRequest(tiny, picture, target=1, steps=3)).why_unchanged == ""
    assert perform(RunRequest(tiny, picture, steps=0)).why_unchanged == ""
    for one, more, why in (
        (blind(), {}, "the gradient is zero here"),
        (tiny, {"eps": 0.0}, "nothing can change with an eps of 0"),
        (tiny, {"step_size": 0.0}, "nothing can change with a step size of 0"),
        (tiny, {"step_size": 1e-5}, "no such steps lead to a better picture"),  # lost in rounding to whole grey levels
    ):
        result = perform(RunRequest(one, picture, target=1, steps=3, **more))
        assert result.frame.picture == picture and why in result.why_unchanged
    outside = perform(RunRequest(blind(), picture, bytes(3 * SIZE * SIZE), target=1, steps=3, eps=1.0))
    assert outside.frame.picture != picture and outside.why_unchanged == "", "pulled into the ball"


def test_a_model_that_gives_no_numbers_is_named(picture):
    one = served()
    with torch.no_grad():
        one.model.head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        perform(RunRequest(one, picture, target=1, steps=2))


def test_models_of_other_channels_are_refused():
    with pytest.raises(UserError, match="1 channels"):
        session.Served("grey", "", classifier(channels=1))


# Requests from outside.


def read(tiny, **changed) -> RunRequest:
    return read_request(json.dumps(fields(**changed)).encode(), {"tiny": tiny}, SIZE)


def test_a_request_is_read(tiny, picture):
    anchor = b64encode(picture).decode()
    request = read(tiny, anchor=anchor, target=None, attribute=0, minimize=True, eps=3, step_size=0.5, steps=7)
    assert request.served is tiny and request.picture == bytes([204] * 768)
    assert request.anchor == picture
    assert (request.target, request.attribute, request.minimize) == (None, 0, True)
    assert (request.eps, request.step_size, request.steps) == (3.0, 0.5, 7)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"model": "tinny"}, "Did you mean 'tiny'"),
        ({"model": None}, "unknown model"),
        ({"model": ["tiny"]}, "unknown model"),
        ({"model": "../../etc/passwd"}, "unknown model"),
        ({"image": "AAAA"}, "image must be base64 of 16 x 16"),
        ({"image": None}, "image must be"),
        ({"image": "\u00e9" * 1024}, "image must be"),
        ({"image": "*" * 1024}, "image must be"),
        ({"anchor": "AAAA"}, "anchor must be"),
        ({"anchor": 3}, "anchor must be"),
        ({"target": 4}, "target must be a whole number from 0 to 3"),
        ({"target": -1}, "target must be"),
        ({"target": True}, "target must be"),
        ({"target": 1.0}, "target must be"),
        ({"target": None}, "name the class"),
        ({"attribute": 0}, "not both"),
        ({"target": None, "attribute": 1}, "attribute must be a whole number from 0 to 0"),
        ({"minimize": 1}, "minimize must be"),
        ({"eps": -1}, "eps must be a number from 0 to 100"),
        ({"eps": 1001}, "eps must be"),
        ({"eps": True}, "eps must be"),
        ({"eps": "1"}, "eps must be"),
        ({"step_size": None}, "step_size must be"),
        ({"step_size": 10**400}, "a number in it is beyond 64 bits"),
        ({"step": 0.2}, "unknown field 'step'. Did you mean 'steps'"),
        ({"steps": 201}, "steps must be a whole number from 0 to 200"),
        ({"steps": 1.5}, "steps must be"),
        ({"steps": True}, "steps must be"),
        ({"stpes": 1}, "Did you mean 'steps'"),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_in_one_sentence(tiny, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        read(tiny, **changed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b'{"eps": NaN}',
        b'{"eps": Infinity}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_what_is_no_json_object_is_refused(tiny, body):
    with pytest.raises(UserError, match="JSON"):
        read_request(body, {"tiny": tiny}, SIZE)


@pytest.mark.parametrize("value", ["NaN", "1e999", "-1e999", "9" * 5000])
def test_numbers_that_are_none_are_refused(tiny, value):
    body = json.dumps(fields()).replace('"eps": 2.0', f'"eps": {value}').encode()
    with pytest.raises(UserError):
        read_request(body, {"tiny": tiny}, SIZE)


def test_a_step_size_by_its_old_name_is_still_read(tiny):
    old = {("step" if name == "step_size" else name): value for name, value in fields(step_size=0.7).items()}
    assert read_request(json.dumps(old).encode(), {"tiny": tiny}, SIZE).step_size == 0.7


# Histories.


@pytest.mark.parametrize("request_field, step_field", [("request", "step_size"), ("order", "step")], ids=["today", "saved before"])
def test_a_history_gives_its_picture_again(tiny, request_field, step_field):
    fill, disc = {"do": "fill", "color": [90, 120, 30]}, {"do": "circle", "from": [2, 2], "to": [12, 9], "color": [200, 40, 40]}
    drawn = replay({"size": SIZE, "actions": [fill, disc]})
    run = perform(RunRequest(tiny, drawn, target=1, eps=2.0, step_size=0.2, steps=5)).frame.picture
    asked = {(step_field if name == "step_size" else name): value for name, value in fields().items() if name != "image"}
    action = {"do": "run", "finished": True, request_field: asked, "rgb": b64encode(run).decode()}
    line = {"do": "brush", "points": [[0, 0], [15, 15]], "width": 2, "color": [0, 0, 0]}
    history = {"size": SIZE, "actions": [fill, disc, action, line]}
    assert replay(history) == replay(history, {"tiny": tiny}) != drawn


def test_a_weight_on_the_variation_makes_a_calmer_picture(tiny, picture):
    wild, calm = (perform(RunRequest(tiny, picture, target=2, eps=4.0, step_size=0.25, steps=12, tv=tv)).frame for tv in (0.0, 20.0))
    assert variation(session.as_image(calm.picture)) < variation(session.as_image(wild.picture))
    assert (
        perform(RunRequest(tiny, picture, target=2, steps=5)).frame.picture
        == perform(RunRequest(tiny, picture, target=2, steps=5, tv=0.0)).frame.picture
    )


def test_a_feature_that_is_off_is_woken_where_that_is_asked_for():
    model = classifier()
    with torch.no_grad():
        model.body[3].bias[5] = -0.5  # off on anything like grey
    one = torch.zeros(24)
    one[5] = 1
    dead = Served("dead", "for tests", model, (Attribute("feature", "off", one),))
    grey = bytes([128] * (3 * SIZE * SIZE))
    asleep, awake = (perform(RunRequest(dead, grey, attribute=0, eps=30.0, step_size=1.0, steps=40, wake=wake)) for wake in (False, True))
    assert asleep.why_unchanged and asleep.frame.levels[0] == 0
    assert not awake.why_unchanged and awake.frame.levels[0] > 0
    looked = perform(RunRequest(dead, grey, target=1, steps=5)).frame.picture
    assert perform(RunRequest(dead, grey, target=1, steps=5, wake=True)).frame.picture == looked, "classes are as they were"


def test_requests_from_before_have_no_variation_and_wake_nothing(tiny):
    request = read_request(json.dumps(fields()).encode(), {"tiny": tiny}, SIZE)
    assert request.tv == 0 and request.wake is False
    request = read_request(json.dumps(fields(tv=0.5, wake=True)).encode(), {"tiny": tiny}, SIZE)
    assert request.tv == 0.5 and request.wake is True
    for wrong in ({"tv": -1}, {"tv": "1"}, {"tv": 1e9}, {"wake": 1}):
        with pytest.raises(UserError, match="tv must be a number from 0 to 1000|wake must be true or false"):
            read_request(json.dumps(fields(**wrong)).encode(), {"tiny": tiny}, SIZE)
