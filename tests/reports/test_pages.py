"""The quickstart's page: any picture, any text; the plot says its numbers and follows the page's colours."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import torch
from markup import Page

from robustlab.reports.comparison import CaptionedPicture, PictureRow
from robustlab.reports.pages import quickstart_page


def rate(value: float, half: float) -> dict:
    return {"accuracy": value, "interval95": [value - half, value + half], "n": 100}


def page(dataset: str = "photographs", curve: tuple[float, ...] = (0.5,), commands: tuple[tuple[str, str], ...] = ()) -> str:
    points = [{"eps": 0.25 * i, **rate(value, 0.1)} for i, value in enumerate(curve)]
    model = {"accuracies": {"clean": rate(0.5, 0.1), "a": rate(0.5, 0.1)}, "curve": points, "follows": {}}
    results = {"image": [1, 9, 7], "eps": 0.5, "attack": "a", "models": {"standard": model, "robust": model}, "made": {}}
    rows = [PictureRow("title", (CaptionedPicture(torch.rand(1, 9, 7), "caption", "alt"),))]
    return quickstart_page({**results, "dataset": dataset}, {"attacks": rows, "gradients": rows}, commands)


def test_any_picture_and_any_text_can_be_shown():
    found = Page(page("<b>&amp;", commands=(("a < b", "c > d"),)))
    assert found.alts == ["alt", "alt"] and all(text in found.text for text in ("<b>&amp;", "a < b", "c > d"))


def test_the_plot_says_every_number_to_a_screen_reader():
    text = page(curve=(0.9, 0.612, 0.25))
    plot = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + len("</svg>")])
    assert plot.get("role") == "img"
    numbers = "90.0\N{NO-BREAK SPACE}% at 0, 61.2\N{NO-BREAK SPACE}% at 0.25, 25.0\N{NO-BREAK SPACE}% at 0.5"
    assert plot.get("aria-label") == f"Accuracy in percent over eps: standard model {numbers}; robust model {numbers}"


def test_the_plot_has_the_colours_of_the_page_in_light_and_dark():
    text = page(curve=(0.9, 0.6))
    plot = text[text.index("<svg") : text.index("</svg>")]
    assert all(colour in plot for colour in ("var(--standard)", "var(--robust)", "currentColor"))
    assert "#0" not in plot and "#f" not in plot, "a colour that is the same in light and dark"
