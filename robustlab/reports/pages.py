"""The page that ``quickstart`` writes about a standard and a robust model: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from PIL import Image
from torch import Tensor

from robustlab import pictures
from robustlab.data.shapes import DEFAULT
from robustlab.reports.comparison import UNCLEAR, CaptionedPicture, PictureRow, clear
from robustlab.reports.plots import Axes, Line, line_svg

WIDEST = 128  # pixels: larger pictures are shrunk for the page
MARKS = {"right": "\N{CHECK MARK} ", "wrong": "\N{BALLOT X} "}  # so that nothing is told by colour alone


def quickstart_page(results: Mapping[str, Any], rows: Mapping[str, Sequence[PictureRow]], commands: Sequence[tuple[str, str]]) -> str:
    """The whole page, as HTML.

    Args:
        results: what a quickstart's ``results.json`` holds; every number on the page comes from it.
        rows: pictures by section: ``attacks``, ``gradients``, and for shapes ``contradictions``; see ``robustlab.reports.comparison``.
        commands: what to type next, each with what it does.
    """
    attack, models = results["attack"], results["models"]
    channels, height, width = results["image"]
    numbers = {
        f"{name}_{what}": accuracy_percent(model["accuracies"][key])
        for name, model in models.items()
        for what, key in (("clean", "clean"), ("attacked", attack))
    }
    return _template("quickstart.html").substitute(
        numbers,
        dataset=escape(results["dataset"]),
        attack=escape(attack),
        n=f"{models['standard']['accuracies']['clean']['n']:,}",
        verdict=_verdict(models, attack),
        meters="".join(_meters(name, model, attack) for name, model in models.items()),
        values=f"{channels * height * width:,}",
        grey_levels=f"{255 * results['eps'] / (channels * height * width) ** 0.5:.1f}",
        eps=f"{results['eps']:g}",
        attacks="".join(map(_row, rows["attacks"])),
        gradients="".join(map(_row, rows["gradients"])),
        standard_gradient="fine ripples all over the picture" if "contradictions" in rows else "noise",
        contradictions=_contradictions(results, rows["contradictions"]) if "contradictions" in rows else "",
        plot=_plot(models),
        curve_n=f"{models['standard']['curve'][0]['n']:,}",
        table=_table(models),
        commands="".join(f"<li><p>{escape(what)}</p><pre><code>{escape(command)}</code></pre></li>" for command, what in commands),
        made="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in results["made"].items()),
    )


def accuracy_percent(rate: Mapping[str, Any]) -> str:
    """A rate, as ``Rate.to_json`` gives it, in the page's form: ``96.2 %``, which no line break divides."""
    return f"{100 * rate['accuracy']:.1f}\N{NO-BREAK SPACE}%"


def interval(rate: Mapping[str, Any]) -> str:
    """Its 95 % interval."""
    low, high = rate["interval95"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _template(name: str) -> Template:
    return Template(files("robustlab.reports").joinpath(name).read_text(encoding="utf-8"))


def _verdict(models: Mapping[str, Any], attack: str) -> str:
    if clear(models, attack):
        return "The pictures and the networks are the same; what differs is how they were trained."
    return f"Under attack the two do not differ beyond doubt: {UNCLEAR}."


def _meters(name: str, model: Mapping[str, Any], attack: str) -> str:
    bars = ""
    for title, key in (("clean", "clean"), ("attacked", attack)):
        rate = model["accuracies"][key]
        bars += (
            f'<div class="meter"><span>{title}</span><span class="track"><span class="fill" style="width:{100 * rate["accuracy"]:.1f}%">'
            f"</span></span><b>{accuracy_percent(rate)}</b></div>"
        )
    return f'<div class="card {name}"><h2>The {name} model</h2>{bars}</div>'


def _row(row: PictureRow) -> str:
    items = "".join(f"<li>{_captioned(each)}</li>" for each in row.pictures)
    return f"<figure><figcaption>{escape(row.title)}</figcaption><ol>{items}</ol></figure>"


def _captioned(shown: CaptionedPicture) -> str:
    image = "" if shown.picture is None else f'<img src="{_png(shown.picture)}" alt="{escape(shown.alt)}">'
    words = f'<span class="{shown.tone}">{MARKS.get(shown.tone, "")}{escape(shown.caption)}</span>' if shown.caption else ""
    return image + words


def _png(picture: Tensor) -> str:
    """A picture as the address of an image that holds it."""
    image = pictures.to_image(picture.detach().cpu().float().expand(3, -1, -1))
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _contradictions(results: Mapping[str, Any], rows: Sequence[PictureRow]) -> str:
    """The section on *shapes*, where the truth about both features is known."""
    return _template("quickstart_shapes.html").substitute(
        visible=f"{100 * DEFAULT.visible_accuracy:.0f}",
        faint=f"{100 * DEFAULT.faint_accuracy:.0f}",
        shape_length=f"{results['exchange_lengths']['shape']:.0f}",
        pattern_length=f"{results['exchange_lengths']['pattern']:.1f}",
        eps=f"{results['eps']:g}",
        n=f"{results['models']['standard']['follows']['shape']['n']:,}",
        rows="".join(map(_row, rows)),
        bars="".join(_split_bar(name, model["follows"]) for name, model in results["models"].items()),
    )


def _split_bar(name: str, follows: Mapping[str, Any]) -> str:
    neither = 1 - follows["shape"]["accuracy"] - follows["pattern"]["accuracy"]
    parts = {"shape": follows["shape"]["accuracy"], "pattern": follows["pattern"]["accuracy"], "neither": max(neither, 0.0)}
    bar = "".join(f'<span class="{part}" style="width:{100 * share:.1f}%"></span>' for part, share in parts.items())
    words = ", ".join(
        f'<b class="{part}">{part} {accuracy_percent(follows[part])}</b> <small>({interval(follows[part])})</small>'
        for part in ("shape", "pattern")
    )
    return f'<div class="split"><p>The {name} model follows the {words}</p><div class="parts">{bar}</div></div>'


def _plot(models: Mapping[str, Any]) -> str:
    """Accuracy over eps: a line per model, its 95 % intervals as bars, and all numbers for screen readers."""
    lines, spoken = [], []
    for name, model in models.items():
        points = model["curve"]
        low, high = ([point["interval95"][end] for point in points] for end in (0, 1))
        lines.append(Line(name, [point["eps"] for point in points], [point["accuracy"] for point in points], low, high))
        spoken.append(f"{name} model " + ", ".join(f"{accuracy_percent(point)} at {point['eps']:g}" for point in points))
    return line_svg(
        lines,
        Axes(x="length of the change (L2 eps)", percent=True),
        label=f"Accuracy in percent over eps: {'; '.join(spoken)}",
        colours={name: f"var(--{name})" for name in models},
        bars=True,
        size=(4.6, 3.0),
    )


def _table(models: Mapping[str, Any]) -> str:
    """Every number with its n and interval; one line per measurement, one pair of columns per model."""
    lines = [(attack, [model["accuracies"][attack] for model in models.values()]) for attack in models["standard"]["accuracies"]]
    for place, point in enumerate(models["standard"]["curve"]):
        lines.append((f"the same attack, L2 eps = {point['eps']:g}", [model["curve"][place] for model in models.values()]))
    for feature in models["standard"]["follows"]:
        lines.append((f"follows the {feature}", [model["follows"][feature] for model in models.values()]))
    return "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td><b>{accuracy_percent(rate)}</b> <small>{interval(rate)}</small></td>" for rate in rates)
        + f"<td>{rates[0]['n']:,}</td></tr>"
        for title, rates in lines
    )
