"""The page in a real browser: what a hand does on it, and the pixels that come of it.

Needs Chromium: ``$ROBUSTLAB_CHROMIUM`` or one on PATH. Without one these tests are skipped, or fail where ROBUSTLAB_REQUIRE_BROWSER is 1.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import labelled
import pytest
from page import SIZE, blind, classifier, served
from PIL import Image

from robustlab.demo import raster
from robustlab.demo.page import Page, make_page
from robustlab.demo.server import start_page
from robustlab.demo.session import Attribute, RunRequest, as_image, perform
from robustlab.demo.session import replay as replayed
from robustlab.demo.starters import Starter, sketches

pytestmark = pytest.mark.browser
VECTORS = Path(__file__).with_name("raster_vectors.json")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = os.environ.get("ROBUSTLAB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    try:
        if not program:
            raise RuntimeError("no Chromium on PATH, and ROBUSTLAB_CHROMIUM names none")
        playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing").sync_playwright().start()
    except (RuntimeError, pytest.skip.Exception) as missing:
        if os.environ.get("ROBUSTLAB_REQUIRE_BROWSER") == "1":
            pytest.fail(f"a browser is required: {missing}")
        pytest.skip(str(missing))
    try:
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=program, args=[*sandbox, "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()
    finally:
        playwright.stop()


def listening(page: Page, **options: Any) -> str:
    """The address of a server that runs until the tests end."""
    return start_page(page, "127.0.0.1", 0, **options).address


def until(what: Callable[[], Any], seconds: float = 15) -> Any:
    begun = time.monotonic()
    while not (found := what()):
        assert time.monotonic() - begun < seconds, "it did not happen"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def page(tiny, slow) -> Page:
    return Page({"tiny": tiny, "slow": slow}, SIZE, [Starter("empty", bytes(raster.blank(SIZE))), *sketches(SIZE)], "a test")


@pytest.fixture(scope="module")
def address(page) -> str:
    return listening(page)


class Hand:
    """One tab, and what can be done in it. At the end there must have been no complaint in its console."""

    def __init__(self, context: Any, address: str) -> None:
        self.tab = context.new_page()
        self.tab.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.tab.on("console", self._heard)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(address)
        self.ready()

    def _heard(self, message: Any) -> None:
        ours = "willReadFrequently" in message.text  # `pixels` reads canvases, the page never does
        if message.type in ("error", "warning") and not ours:
            self.complaints.append(message.text)

    def ready(self) -> None:
        self.wait_until("document.querySelectorAll('#starters button').length >= 7 && document.querySelector('.classes .top')")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tab, name)

    def pixels(self) -> bytes:
        """What the picture's canvas shows."""
        script = "() => Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, 1000, 1000).data)"
        self.settle()
        size = self.tab.evaluate("document.getElementById('picture').width")
        data = self.tab.evaluate(script.replace("1000, 1000", f"{size}, {size}"))
        assert set(data[3::4]) == {255}
        return bytes(value for k, value in enumerate(data) if k % 4 < 3)

    def wait_until(self, condition: str) -> None:
        """Asked from outside, since the page forbids itself to evaluate strings."""
        until(lambda: self.tab.evaluate(f"() => !!({condition})") or self.tab.wait_for_timeout(10))

    def settle(self) -> None:
        """Two frames of the display later everything asked for is painted."""
        self.tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def drag(self, *places: tuple[float, float], steps: int = 1) -> None:
        """Press the mouse at the first pixel and let go at the last; pixels may lie outside of the picture. What came of it is shown."""
        area = self.tab.locator("#picture").bounding_box()
        points = [(area["x"] + (x + 0.5) * area["width"] / SIZE, area["y"] + (y + 0.5) * area["height"] / SIZE) for x, y in places]
        self.tab.mouse.move(*points[0])
        self.tab.mouse.down()
        for point in points[1:]:
            self.tab.mouse.move(*point, steps=steps)
        self.tab.mouse.up()
        self.settle()

    def tool(self, name: str) -> None:
        self.tab.locator(f"input[name=tool][value={name}]").check(force=True)

    def set(self, control: str, value: float) -> None:
        self.tab.locator(f"#{control}").evaluate("(at, value) => { at.value = value; at.dispatchEvent(new Event('input')); }", str(value))

    def color(self, name: str) -> tuple[int, int, int]:
        self.set("color", name)  # type: ignore[arg-type]
        return tuple(int(name[k : k + 2], 16) for k in (1, 3, 5))  # type: ignore[return-value]

    def button(self, name: str) -> Any:
        return self.tab.locator(".classes button, .chips button").filter(has_text=name)

    def logit(self, name: str) -> float:
        return float(self.button(name).locator(".logit").inner_text())

    def idle(self) -> None:
        """Until no run is going on, the network has seen the picture, and that is shown."""
        self.wait_until("!['running', 'looking'].some(name => document.documentElement.classList.contains(name))")
        self.settle()

    def running(self) -> None:
        self.wait_until("document.documentElement.classList.contains('running')")

    def press(self, name: str) -> None:
        self.button(name).click()
        self.idle()

    def distance(self) -> float:
        return float(self.tab.locator("#distance").inner_text())

    def past(self) -> int:
        return self.tab.locator("#film button").count()


@pytest.fixture
def open_(browser, address) -> Iterator[Callable[..., Hand]]:
    hands: list[Hand] = []
    contexts = []

    def opened(at: str = address, **options: Any) -> Hand:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        hands.append(Hand(contexts[-1], at))
        return hands[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [line for hand in hands for line in hand.complaints] == []


@pytest.fixture
def hand(open_) -> Hand:
    return open_()


def blank() -> bytearray:
    return raster.blank(SIZE)


# Drawing.


def test_both_rasterizers_give_the_same_pixels(hand):
    vectors = json.loads(VECTORS.read_text())
    script = """async (vectors) => {
        const raster = await import("/static/raster.js");
        return vectors.map(({ size, actions }) => {
            const picture = raster.blank(size);
            for (const action of actions) raster.apply(picture, size, action);
            return raster.toBase64(picture);
        });
    }"""
    found = hand.evaluate(script, vectors)
    assert {vector["name"]: rgb for vector, rgb in zip(vectors, found, strict=True)} == {
        vector["name"]: vector["rgb"] for vector in vectors
    }


@pytest.mark.parametrize("tool", ["brush", "rectangle", "circle", "eraser"])
def test_shapes_are_drawn_in_every_direction(hand, tool):
    red = hand.color("#c01030")
    hand.locator("#fill").click()
    blue = hand.color("#103080")
    hand.set("width", 3)
    for a, b in [((3, 4), (9, 12)), ((9, 4), (3, 12)), ((3, 12), (9, 4)), ((9, 12), (3, 4)), ((5, 5), (5, 5))]:
        wanted = raster.blank(SIZE, red)
        color = raster.BLANK if tool == "eraser" else blue
        stroke: dict[str, Any] = {"do": tool, "from": a, "to": b}
        if tool in ("brush", "eraser"):
            stroke = {"do": "brush", "points": [a, b], "width": 3}
        raster.apply(wanted, SIZE, {**stroke, "color": color})
        hand.tool(tool)
        hand.drag(a, b)
        assert hand.pixels() == wanted, (a, b)
        hand.locator("#undo").click()
        assert hand.pixels() == raster.blank(SIZE, red)


@pytest.mark.parametrize("tool", ["rectangle", "circle", "brush"])
def test_drawing_may_leave_the_picture(hand, tool):
    color = hand.color("#206020")
    hand.set("width", 2)
    hand.tool(tool)
    hand.drag((10, 8), (22, 19))
    wanted = blank()
    stroke = {"points": [(10, 8), (22, 19)], "width": 2} if tool == "brush" else {"from": (10, 8), "to": (22, 19)}
    raster.apply(wanted, SIZE, {"do": tool, "color": color, **stroke})
    assert hand.pixels() == wanted


def test_a_fast_brush_leaves_no_gaps(hand):
    color = hand.color("#000000")
    hand.set("width", 1)
    places = [(1, 1), (14, 3), (2, 12)]
    hand.drag(*places)
    wanted = blank()
    raster.brush(wanted, SIZE, places, color, 1)
    assert hand.pixels() == wanted


def test_undo_and_redo_and_the_film(hand):
    seen = [hand.pixels()]
    for k in range(3):
        hand.drag((4 * k, 2), (4 * k + 2, 9))
        seen.append(hand.pixels())
    assert len(set(seen)) == 4
    for k in (2, 1, 0):
        hand.keyboard.press("Control+z")
        assert hand.pixels() == seen[k]
    assert hand.locator("#undo").is_disabled()
    hand.keyboard.press("Control+z")
    for k in (1, 2):
        hand.locator("#redo").click()
        assert hand.pixels() == seen[k]
    hand.locator("#film button").nth(1).click()
    assert hand.pixels() == seen[1]
    hand.drag((0, 15), (15, 15))
    assert hand.past() == 3 and hand.locator("#redo").is_disabled(), "what was undone is gone once something new is drawn"


def test_colours_by_swatch_picker_and_pipette(hand):
    hand.locator(".swatches button").nth(2).click()
    swatch = hand.locator(".swatches button").nth(2).get_attribute("data-color")
    assert hand.locator("#color").input_value() == swatch
    hand.tool("rectangle")
    hand.drag((0, 0), (5, 5))
    assert hand.pixels()[:3] == bytes.fromhex(swatch[1:])
    hand.color("#112233")
    hand.tool("pipette")
    hand.drag((2, 2))
    assert hand.locator("#color").input_value() == swatch
    assert hand.locator("input[value=brush]").is_checked()


def test_reset_fill_and_starters(hand, page):
    hand.locator("#starters button").nth(3).click()
    assert hand.pixels() == page.starters[3].picture
    hand.locator("#reset").click()
    assert hand.pixels() == blank()
    color = hand.color("#445566")
    hand.locator("#fill").click()
    assert hand.pixels() == raster.blank(SIZE, color)
    hand.locator("#dice").click()
    assert len(set(zip(*[iter(hand.pixels())] * 3, strict=True))) > 1


# Runs.


def test_a_press_raises_the_logit_and_minimize_lowers_it(hand):
    hand.locator("#starters button").nth(2).click()
    hand.idle()
    hand.locator("#presets button", has_text="Wild").click()
    before, start = hand.logit("boat"), hand.pixels()
    hand.press("boat")
    raised = hand.logit("boat")
    assert raised > before + 0.5 and hand.pixels() != start and hand.past() == 3
    hand.locator("#minimize").check(force=True)
    hand.press("boat")
    assert hand.logit("boat") < raised - 0.5
    hand.locator("#minimize").uncheck(force=True)


def test_what_the_page_shows_is_what_the_model_says(hand, tiny):
    hand.locator("#starters button").nth(4).click()
    hand.press("drum")
    frame = perform(RunRequest(tiny, hand.pixels(), steps=0)).frame
    assert [hand.logit(name) for name in tiny.model.classes] == pytest.approx(frame.logits, abs=0.006)


def test_attributes_can_be_pressed(hand):
    hand.locator("#starters button").nth(2).click()
    hand.idle()
    level = hand.button("round").locator(".level")
    before = float(level.inner_text())
    hand.press("round")
    assert float(level.inner_text()) > before


def test_holding_repeats_as_one_entry_of_the_past(hand):
    hand.set("steps", 4)
    hand.set("eps", 0.5)
    hand.locator("#starters button").nth(2).click()
    start, past = hand.pixels(), hand.past()
    runs: list[str] = []
    hand.on("request", lambda request: "/api/run" in request.url and '"steps":4' in (request.post_data or "") and runs.append(request.url))
    hand.button("drum").hover()
    hand.mouse.down()
    until(lambda: hand.wait_for_timeout(20) or len(runs) >= 4)
    hand.mouse.up()
    hand.idle()
    moved = sum((a - b) ** 2 for a, b in zip(hand.pixels(), start, strict=True)) ** 0.5 / 255
    assert 0.4 < moved <= 0.5, "one ball for the length of the hold"
    assert hand.past() == past + 1
    hand.press("drum")
    moved = sum((a - b) ** 2 for a, b in zip(hand.pixels(), start, strict=True)) ** 0.5 / 255
    assert moved > 0.6, "the next press goes on from there"
    hand.locator("#undo").click()
    hand.locator("#undo").click()
    assert hand.pixels() == start


def test_an_anchor_holds_the_distance(hand):
    hand.set("eps", 1)
    hand.locator("#starters button").nth(1).click()
    anchor = hand.pixels()
    hand.locator("#set-anchor").click()
    for name in ("boat", "drum", "boat"):
        hand.press(name)
        distance = sum((a - b) ** 2 for a, b in zip(hand.pixels(), anchor, strict=True)) ** 0.5 / 255
        assert distance <= 1 and abs(hand.distance() - distance) < 0.006
    hand.locator("#clear-anchor").click()
    hand.press("drum")
    hand.press("drum")
    assert sum((a - b) ** 2 for a, b in zip(hand.pixels(), anchor, strict=True)) ** 0.5 / 255 > 1


def test_a_picture_outside_the_ball_is_said_to_be_so_and_pulled_in(hand):
    hand.set("eps", 1)
    hand.locator("#set-anchor").click()
    hand.tool("rectangle")
    hand.color("#000000")
    hand.drag((0, 0), (9, 9))
    assert "outside the ball" in hand.locator("#from").inner_text() and hand.distance() > 5
    hand.press("boat")
    assert hand.distance() <= 1 and "outside" not in hand.locator("#from").inner_text()
    hand.locator("#to-anchor").click()
    assert hand.pixels() == blank()


def test_stop_keeps_what_was_reached(hand):
    hand.locator("#model").select_option("slow")
    hand.idle()
    hand.set("steps", 120)
    start = hand.pixels()
    hand.button("boat").click()
    hand.wait_until("document.getElementById('seen').textContent.includes('step 3')")
    hand.locator("#stop").click()
    assert not hand.evaluate("document.documentElement.classList.contains('running')")
    stopped = hand.pixels()
    hand.wait_for_timeout(200)
    assert hand.pixels() == stopped != start
    hand.keyboard.press("Control+z")
    assert hand.pixels() == start


def test_frames_are_live_and_drawing_interrupts_a_run(hand):
    hand.locator("#model").select_option("slow")
    hand.set("steps", 120)
    hand.button("boat").click()
    seen = set()
    until(lambda: seen.add(hand.pixels()) or len(seen) >= 4)
    hand.tool("rectangle")
    color = hand.color("#123456")
    hand.drag((0, 0), (3, 3))
    hand.idle()
    assert hand.pixels()[:3] == bytes(color)
    assert hand.locator("#stop").is_disabled()


def test_another_press_takes_over(hand):
    hand.locator("#model").select_option("slow")
    hand.set("steps", 120)
    hand.button("boat").click()
    hand.running()
    hand.locator("#model").select_option("tiny")
    hand.set("steps", 10)
    hand.idle()
    before = hand.logit("drum")
    hand.press("drum")
    assert hand.logit("drum") > before


def test_a_reload_in_the_middle_of_a_run_keeps_the_picture_and_frees_the_place(hand):
    hand.drag((2, 2), (12, 12))
    drawn = hand.pixels()
    hand.locator("#model").select_option("slow")
    hand.set("steps", 120)
    hand.button("boat").click()
    hand.running()
    hand.reload()
    hand.ready()
    assert hand.pixels() != blank() and hand.locator("#model").input_value() == "slow"
    hand.set("steps", 2)
    begun = time.monotonic()
    hand.press("drum")
    assert time.monotonic() - begun < 5 and len(drawn) == 768


def test_five_tabs_press_at_once_and_each_keeps_its_own(open_):
    hands = [open_() for _ in range(5)]
    for k, one in enumerate(hands):
        one.color("#" + f"{40 * k:02x}" * 3)
        one.locator("#fill").click()
        one.set("eps", 1)
        one.idle()
    for one in hands:
        one.button("boat").click(no_wait_after=True)
    for k, one in enumerate(hands):
        one.idle()
        assert one.past() == 3
        assert sum((value - 40 * k) ** 2 for value in one.pixels()) ** 0.5 / 255 <= 1


# Files.


def test_the_saved_picture_and_history_are_what_is_shown(hand, page, tiny, tmp_path):
    hand.locator("#starters button").nth(5).click()
    hand.tool("circle")
    hand.drag((2, 3), (9, 8))
    hand.press("drum")
    hand.tool("brush")
    hand.drag((15, 0), (4, 14), (6, 2))
    shown = hand.pixels()
    with hand.expect_download() as saved:
        hand.locator("#save").click()
    with Image.open(saved.value.path()) as image:
        assert image.format == "PNG" and image.mode == "RGB" and image.size == (SIZE, SIZE) and image.tobytes() == shown
    with hand.expect_download() as saved:
        hand.locator("#history").click()
    history = json.loads(Path(saved.value.path()).read_text())
    assert [action["do"] for action in history["actions"]] == ["picture", "circle", "run", "brush"]
    assert replayed(history) == shown
    assert replayed(history, {"tiny": tiny}) == shown, "on the same machine the runs give the same pictures again"
    for name, content in (("history", history), ("recipe", as_it_was_saved_before(history))):
        hand.locator("#reset").click()
        assert hand.pixels() == blank()
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        hand.locator("#file").set_input_files(tmp_path / f"{name}.json")
        until(lambda: hand.pixels() == shown)
        assert hand.locator("#film button").last.get_attribute("aria-label").endswith(": brush")
        hand.locator("#undo").click()


def as_it_was_saved_before(history: dict[str, Any]) -> dict[str, Any]:
    """By the names that fields had then."""
    actions = []
    for action in history["actions"]:
        if action["do"] == "run":
            fields = dict(action["request"])
            fields["step"] = fields.pop("step_size")
            action = {name: value for name, value in action.items() if name != "request"} | {"order": fields}
        actions.append(action)
    return {"format": "robustlab-recipe-1", "size": history["size"], "actions": actions}


def test_an_uploaded_picture_is_shown_exactly(hand, picture, tmp_path):
    Image.frombytes("RGB", (SIZE, SIZE), picture).save(tmp_path / "mine.png")
    hand.locator("#file").set_input_files(tmp_path / "mine.png")
    until(lambda: hand.pixels() == picture)
    hand.locator("#undo").click()
    assert hand.pixels() == blank()


def test_a_dropped_picture_is_taken(hand, picture):
    stream = io.BytesIO()
    Image.frombytes("RGB", (SIZE, SIZE), picture).save(stream, "PNG")
    script = """(text) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "mine.png", { type: "image/png" }));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    hand.evaluate(script, base64.b64encode(stream.getvalue()).decode())
    until(lambda: hand.pixels() == picture)


def test_what_is_no_picture_is_said_to_be_none(hand, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"no picture at all")
    hand.locator("#file").set_input_files(tmp_path / "mine.png")
    hand.wait_for_selector("#alert:visible")
    assert "no picture" in hand.locator("#alert").inner_text()
    assert all("422" in line for line in hand.complaints)
    hand.complaints.clear()
    (tmp_path / "x.json").write_text('{"format": "something"}')
    hand.locator("#file").set_input_files(tmp_path / "x.json")
    hand.wait_until("document.getElementById('alert').textContent.includes('no history')")


# Hands of other kinds.


def test_by_keyboard_alone(hand):
    """Tab to everything; draw, press, stop and undo without a pointer."""
    hand.locator("#picture").focus()
    hand.keyboard.press("b")
    hand.set("width", 1)
    color = hand.color("#305070")
    hand.locator("#picture").focus()
    for key in ["ArrowLeft", "ArrowUp", "Space", "ArrowRight", "ArrowRight", "ArrowDown", "Space"]:
        hand.keyboard.press(key)
    wanted = blank()
    raster.brush(wanted, SIZE, [(7, 7), (8, 7), (9, 7), (9, 8)], color, 1)
    assert hand.pixels() == wanted
    hand.keyboard.press("r")
    hand.keyboard.press("Space")
    hand.keyboard.press("Shift+ArrowRight")
    hand.keyboard.press("Shift+ArrowDown")
    hand.keyboard.press("Space")
    raster.rectangle(wanted, SIZE, (9, 8), (13, 12), color)
    assert hand.pixels() == wanted
    hand.idle()
    before = hand.logit("boat")
    hand.keyboard.press("2")
    hand.idle()
    raised = hand.logit("boat")
    assert raised > before
    hand.button("boat").focus()
    hand.keyboard.press("Enter")
    hand.idle()
    assert hand.logit("boat") > raised
    hand.keyboard.press("m")
    assert hand.locator("#minimize").is_checked()
    hand.keyboard.press("Control+z")
    hand.keyboard.press("Control+z")
    assert hand.pixels() == wanted


def test_everything_can_be_reached_by_tab_and_has_a_name(hand):
    names = hand.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas[tabindex]")]
            .filter((at) => at.offsetParent && at.id !== "file")
            .map((at) => at.getAttribute("aria-label") || at.title || at.textContent.trim() || at.labels?.[0]?.textContent.trim() || "")"""
    )
    assert len(names) > 40 and all(names)
    hand.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(90):
        hand.keyboard.press("Tab")
        reached.add(hand.evaluate("document.activeElement.id || document.activeElement.dataset.target || document.activeElement.name"))
    assert {
        "model",
        "picture",
        "tool",
        "color",
        "width",
        "upload",
        "save",
        "history",
        "set-anchor",
        "minimize",
        "0",
        "3",
        "eps",
        "steps",
    } <= reached


def test_a_screen_readers_press_is_one_run(hand):
    hand.locator("#starters button").nth(2).click()
    hand.idle()
    past = hand.past()
    hand.button("boat").evaluate("at => at.click()")
    hand.running()
    hand.idle()
    assert hand.past() == past + 1
    assert "more boat: the network sees" in hand.locator("#status").inner_text()


def test_on_a_phone(open_):
    hand = open_(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    assert hand.evaluate("document.documentElement.scrollWidth") == 360, "nothing sticks out"
    small = hand.evaluate(
        """() => [...document.querySelectorAll("button, .tools label, select")].filter((at) => at.offsetParent)
            .map((at) => at.getBoundingClientRect()).filter((area) => area.width < 24 || area.height < 24).length"""
    )
    assert small == 0
    area = hand.locator("#picture").bounding_box()
    assert area["width"] > 250 and area["x"] >= 0
    hand.touchscreen.tap(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    drawn = hand.pixels()
    assert drawn != blank()
    hand.idle()
    share = "document.querySelectorAll('.classes .share')[1].textContent"
    before = hand.evaluate(share)
    hand.button("boat").tap()
    hand.wait_for_timeout(250)
    hand.idle()
    assert hand.pixels() != drawn
    assert hand.evaluate(share) != before
    top = hand.locator("#easel").bounding_box()["y"]
    hand.evaluate("window.scrollTo(0, 500)")
    hand.settle()
    assert -5 < hand.locator("#easel").bounding_box()["y"] <= top, "the picture stays in sight"


def test_a_token_is_asked_for_and_taken(browser, page, open_):
    address = listening(page, token="open-sesame-123")
    assert address.endswith("#token=open-sesame-123")
    open_(address)
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address.partition("#")[0])
    tab.locator("#token").fill("open-sesame-123")
    tab.locator("#locked button").click()
    tab.wait_for_selector(".classes .top")
    context.close()


def test_a_server_that_has_gone_is_said_to_be_gone(hand):
    hand.route("**/api/run", lambda route: route.abort())
    hand.button("boat").click()
    hand.wait_for_selector("#alert:visible")
    assert "does not answer" in hand.locator("#alert").inner_text()
    hand.unroute("**/api/run")
    hand.press("drum")
    assert hand.past() == 2
    hand.complaints.clear()


def test_a_busy_server_is_asked_again(hand):
    refused = []

    def once(route):
        if len(refused) < 2:
            refused.append(route)
            route.fulfill(status=503, headers={"retry-after": "0.1"}, json={"error": "busy"})
        else:
            route.continue_()

    hand.route("**/api/run", once)
    hand.button("boat").click()
    hand.wait_for_selector("#busy:visible")
    until(lambda: hand.wait_for_timeout(20) or hand.past() == 2)
    hand.complaints.clear()


def test_a_picture_that_stays_is_said_to_and_holding_ends(open_):
    hand = open_(listening(Page({"blind": blind()}, SIZE, [Starter("empty", bytes(raster.blank(SIZE))), *sketches(SIZE)], "a test")))
    button, before = hand.button("boat"), hand.pixels()
    button.hover()
    hand.mouse.down()
    hand.wait_for_selector("#alert:visible")
    assert "the gradient is zero here" in hand.locator("#alert").inner_text()
    hand.idle()
    assert hand.pixels() == before and hand.past() == 2, "one run, though the button is still held"
    hand.mouse.up()


@pytest.mark.parametrize(
    "size, eps, step_size", [(16, 2.5, 0.125), (32, 5, 0.25), (33, 5.156, 0.2578), (56, 8.75, 0.4375), (224, 35, 1.75)]
)
def test_lengths_are_those_of_the_pictures_size(open_, size, eps, step_size):
    hand = open_(listening(Page({"tiny": served()}, size, [Starter("empty", bytes(raster.blank(size))), *sketches(size)], "a test")))
    for name in ("Gentle", "Bold", "Wild"):
        hand.locator("#presets button", has_text=name).click()
        assert hand.locator("#presets .pressed").inner_text() == name, "the sliders can stand where the preset wants them"
    hand.locator("#bold").click()
    assert [float(hand.locator(f"#{name}").input_value()) for name in ("eps", "step_size")] == pytest.approx([eps, step_size], rel=1e-3)
    assert float(hand.locator("#eps").get_attribute("max")) == pytest.approx(20 * size / 32)


def test_a_model_of_many_classes_can_be_searched(browser, open_):
    many = served("many", classes=tuple(f"thing {k}" for k in range(40)))
    hand = open_(listening(Page({"many": many}, SIZE, sketches(SIZE) + sketches(SIZE)[:1], "a test")))
    hand.locator("#filter").fill("thing 39")
    assert hand.locator(".classes button:visible").count() == 1
    hand.press("thing 39")
    assert hand.past() == 2


def test_it_begins_wild_and_calm(hand):
    assert hand.locator("#wild").evaluate("node => node.classList.contains('pressed')") and hand.locator("#tv").input_value() == "0.5"
    sent: list[dict[str, Any]] = []
    hand.on("request", lambda request: "/api/run" in request.url and sent.append(json.loads(request.post_data)))
    hand.set("tv", 1.5)
    hand.press("drum")
    assert [(one["tv"], one["wake"]) for one in sent if one["steps"]] == [(1.5, True)]


def test_a_mistake_stands_there_until_something_succeeds(hand, tmp_path):
    (tmp_path / "none.png").write_bytes(b"nothing")
    hand.locator("#file").set_input_files(tmp_path / "none.png")
    hand.locator("#alert").wait_for(state="visible")
    hand.complaints.clear()  # the browser tells of the answer 422 itself
    hand.wait_for_timeout(300)
    assert hand.locator("#alert").is_visible()
    hand.press("drum")
    assert not hand.locator("#alert").is_visible()
    hand.locator("#file").set_input_files(tmp_path / "none.png")
    hand.locator("#alert").wait_for(state="visible")
    hand.locator("#put-away").click()
    assert not hand.locator("#alert").is_visible()
    hand.complaints.clear()


def test_a_part_of_an_upload_is_chosen(hand, tmp_path):
    image = Image.new("RGB", (96, 48), "red")
    image.paste("blue", (48, 0, 96, 48))
    image.save(tmp_path / "wide.png")
    before = hand.pixels()
    hand.locator("#file").set_input_files(tmp_path / "wide.png")
    hand.locator("#crop-box").wait_for(state="visible")
    hand.locator("#crop button", has_text="Cancel").click()
    assert hand.pixels() == before
    hand.locator("#file").set_input_files(tmp_path / "wide.png")
    hand.locator("#crop-box").wait_for(state="visible")
    hand.locator("#crop-size").evaluate("node => { node.value = 0.8; node.dispatchEvent(new Event('input')); }")
    hand.locator("#crop-stage").focus()
    for _ in range(30):
        hand.keyboard.press("ArrowRight")
    hand.locator("#crop button", has_text="Use this part").click()
    until(lambda: hand.pixels() == bytes((0, 0, 255)) * SIZE * SIZE)
    hand.locator("#file").set_input_files(tmp_path / "wide.png")
    box = hand.locator("#crop-stage").bounding_box()
    hand.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    hand.mouse.down()
    hand.mouse.move(box["x"] - 300, box["y"] + 5)
    hand.mouse.up()
    hand.locator("#crop button", has_text="Use this part").click()
    until(lambda: hand.pixels() == bytes((255, 0, 0)) * SIZE * SIZE)


def test_pictures_are_saved_enlarged_and_runs_as_films(hand, tmp_path):
    hand.locator("#starters button").nth(2).click()
    with hand.expect_download() as coming:
        hand.locator("#save-large").click()
    coming.value.save_as(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (512, 512)
        assert large.resize((SIZE, SIZE), Image.Resampling.NEAREST).tobytes() == hand.pixels()
        assert large.crop((0, 0, 32, 32)).getcolors() is not None and len(large.crop((0, 0, 32, 32)).getcolors()) == 1
    hand.locator("#save-film").click()
    assert "there is no run yet" in hand.locator("#alert").inner_text()
    hand.set("steps", 8)
    hand.press("drum")
    with hand.expect_download() as coming:
        hand.locator("#save-film").click()
    coming.value.save_as(tmp_path / "run.gif")
    with Image.open(tmp_path / "run.gif") as film:
        assert film.format == "GIF" and film.n_frames >= 2 and film.size == (256, 256)


def test_the_past_survives_a_reload(hand):
    hand.set("steps", 3)
    hand.locator("#starters button").nth(1).click()
    hand.press("drum")
    last = hand.pixels()
    hand.press("boat")
    hand.locator("#undo").click()
    past = hand.past()
    names = [button.get_attribute("aria-label") for button in hand.locator("#film button").all()]
    hand.reload()
    hand.ready()
    assert hand.pixels() == last and hand.past() == past
    assert [button.get_attribute("aria-label") for button in hand.locator("#film button").all()] == names
    hand.locator("#redo").click()
    assert hand.pixels() != last
    hand.locator("#undo").click()
    hand.locator("#undo").click()
    with hand.expect_download() as coming:
        hand.locator("#history").click()
    assert json.loads(Path(coming.value.path()).read_text())["actions"][-1]["do"] == "picture"


def test_an_attribute_shows_its_best_pictures(open_):
    one = served()
    shown = replace(one, attributes=(replace(one.attributes[0], examples=(bytes(range(256)) * 3,) * 2),))
    hand = open_(listening(Page({"tiny": shown}, SIZE, [*sketches(SIZE), Starter("empty", bytes(raster.blank(SIZE)))], "a test")))
    hand.button("round").hover()
    hand.locator("#tip").wait_for(state="visible")
    assert hand.locator("#tip canvas").count() == 2 and "apple rather than boat" in hand.locator("#tip").inner_text()
    hand.locator("h1").hover()
    assert not hand.locator("#tip").is_visible()


def test_the_attributes_of_own_pictures_are_buttons_with_a_minus(open_, tmp_path):
    """What the pixels do: the upper half gets lighter by one button and darker by its minus, the picture redder by the other."""
    labelled.write_celeba(tmp_path, 300)
    page = make_page("cifar10-small-l2", tmp_path)
    size = page.size
    hand = open_(listening(page))
    assert [line.split("\n")[0] for line in hand.locator("#attributes .name").all_inner_texts()] == ["Bright Top", "Red"]

    def measured() -> dict[str, float]:
        x = as_image(hand.pixels())[0]
        return {"Bright Top": float(x[:, : size // 2].mean() - x[:, size // 2 :].mean()), "Red": float(x[0].mean() - x[1:].mean())}

    hand.set("eps", 4)
    for name in ("Bright Top", "Red"):
        hand.locator("#starters button").last.click()
        hand.idle()
        seen, level = [measured()[name]], hand.button(name).locator(".level")
        for button in (hand.button(name), hand.get_by_label(f"less {name}", exact=True)):
            hand.locator("#starters button").last.click()
            hand.idle()
            before = float(level.inner_text())
            button.click()
            hand.idle()
            seen.append(measured()[name])
            assert (float(level.inner_text()) > before) == (len(seen) == 2)
        start, more, less = seen
        assert less < start - 0.01 and more > start + 0.01, name
    assert not hand.locator("#minimize").is_checked()


def test_of_many_attributes_one_is_found_by_its_name(open_, tiny):
    many = tuple(Attribute(f"<i>trait</i> {k}", "hint", tiny.model.head.weight[0]) for k in range(40))
    pictures = [Starter("empty", bytes(raster.blank(SIZE))), *sketches(SIZE)]
    hand = open_(listening(Page({"tiny": replace(tiny, attributes=many)}, SIZE, pictures, "a test")))
    hand.locator("#filter").fill("trait</i> 17")
    visible = [text for text in hand.locator("#attributes .name:visible").all_inner_texts()]
    assert visible == ["<i>trait</i> 17"], "names are text"
    assert hand.locator("#attributes .less:visible").count() == 1
    hand.locator("#filter").fill("")
    assert hand.locator("#attributes .name:visible").count() == 40


def test_attributes_are_in_sight_on_a_low_screen(browser, tiny):
    """As many as the released models have."""
    many = replace(tiny, model=classifier(tuple("abcdefghij")), attributes=())
    rows = tuple(Attribute(f"like something or other {k}", "hint", many.model.head.weight[0]) for k in range(4))
    few = tuple(Attribute(name, "hint", many.model.head.weight[0]) for name in ("alive", "wings", "wheels", "hooves", "pet"))
    address = listening(Page({"many": replace(many, name="many", attributes=(*few, *rows))}, SIZE, sketches(SIZE), "a test"))
    with browser.new_context(viewport={"width": 1280, "height": 720}) as context:
        tab = context.new_page()
        tab.goto(address)
        tab.locator("#classes .top").wait_for()
        bottoms = [button.bounding_box() for button in tab.locator("#attributes button").all()]
        assert len(bottoms) == 2 * 9 and max(box["y"] + box["height"] for box in bottoms) <= 720
