"""The page that ``quickstart`` writes: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from PIL import Image

from robustlab import pictures
from robustlab.commands.comparison import Cell, Row
from robustlab.data.shapes import DEFAULT

WIDEST = 128  # pixels: larger pictures are shrunk for the page
MARKS = {"right": "\N{CHECK MARK} ", "wrong": "\N{BALLOT X} "}  # so that nothing is told by colour alone
UNCLEAR = "too little training, too few test images, or changes too small to matter on these data"

# The plot's own units; it grows and shrinks with the page.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 270, 46, 12, 12, 40


def render(results: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], commands: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        results: what ``results.json`` holds; every number on the page comes from it.
        rows: pictures by section: ``attacks``, ``gradients``, and for shapes ``contradictions``.
        commands: what to type next, each with what it does.
    """
    attack, models = results["attack"], results["models"]
    channels, height, width = results["image"]
    numbers = {
        f"{name}_{what}": percent(model["accuracies"][key])
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


def percent(rate: Mapping[str, Any]) -> str:
    """A share as the page writes it, such as ``96.2 %``."""
    return f"{100 * rate['accuracy']:.1f}\N{NO-BREAK SPACE}%"


def interval(rate: Mapping[str, Any]) -> str:
    """Its 95 % interval."""
    low, high = rate["interval95"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def clear(models: Mapping[str, Any], attack: str) -> bool:
    """Whether the robust model is better under attack beyond doubt: the 95 % intervals do not touch."""
    standard, robust = (models[name]["accuracies"][attack]["interval95"] for name in ("standard", "robust"))
    return robust[0] > standard[1]


def _template(name: str) -> Template:
    return Template(files("robustlab.commands").joinpath(name).read_text(encoding="utf-8"))


def _verdict(models: Mapping[str, Any], attack: str) -> str:
    if clear(models, attack):
        return "The pictures and the networks are the same; what differs is how they were trained."
    return f"Under attack the two do not differ beyond doubt: {UNCLEAR}."


def _meters(name: str, model: Mapping[str, Any], attack: str) -> str:
    bars = ""
    for title, key in (("untouched", "clean"), ("attacked", attack)):
        rate = model["accuracies"][key]
        bars += (
            f'<div class="meter"><span>{title}</span><span class="track"><span class="fill" style="width:{100 * rate["accuracy"]:.1f}%">'
            f"</span></span><b>{percent(rate)}</b></div>"
        )
    return f'<div class="card {name}"><h2>The {name} model</h2>{bars}</div>'


def _row(row: Row) -> str:
    cells = "".join(f"<li>{_cell(cell)}</li>" for cell in row.cells)
    return f"<figure><figcaption>{escape(row.title)}</figcaption><ol>{cells}</ol></figure>"


def _cell(cell: Cell) -> str:
    image = f'<img src="{_png(cell)}" alt="{escape(cell.alt)}">' if cell.picture is not None else ""
    words = f'<span class="{cell.tone}">{MARKS.get(cell.tone, "")}{escape(cell.caption)}</span>' if cell.caption else ""
    return image + words


def _png(cell: Cell) -> str:
    assert cell.picture is not None
    image = pictures.to_image(cell.picture.detach().cpu().float().expand(3, -1, -1))
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _contradictions(results: Mapping[str, Any], rows: Sequence[Row]) -> str:
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
        f'<b class="{part}">{part} {percent(follows[part])}</b> <small>({interval(follows[part])})</small>' for part in ("shape", "pattern")
    )
    return f'<div class="split"><p>The {name} model goes by the {words}</p><div class="parts">{bar}</div></div>'


def _plot(models: Mapping[str, Any]) -> str:
    """Accuracy over eps as SVG: a line per model, its 95 % intervals as bars."""
    widest = max(point["eps"] for point in models["standard"]["curve"])

    def at(eps: float, accuracy: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - RIGHT) * eps / widest, TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy)

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        (left, y), (right, _) = at(0, share), at(widest, share)
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" class="end">{100 * share:.0f}</text>')
        x, y = at(share * widest, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" class="mid">{share * widest:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" class="mid">length of the change (L2 eps)</text>')
    for name, model in models.items():
        points = [at(point["eps"], point["accuracy"]) for point in model["curve"]]
        bars = "".join(
            f"M{at(p['eps'], 0)[0]:.1f} {at(0, p['interval95'][0])[1]:.1f}V{at(0, p['interval95'][1])[1]:.1f}" for p in model["curve"]
        )
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{name}, eps {p["eps"]:g}: {percent(p)}</title></circle>'
            for (x, y), p in zip(points, model["curve"], strict=True)
        )
        parts.append(f'<g class="{name}"><path d="{bars}"/><polyline points="{line}"/>{dots}</g>')
    spoken = "; ".join(
        f"{name} model " + ", ".join(f"{percent(p)} at {p['eps']:g}" for p in model["curve"]) for name, model in models.items()
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy in percent over eps: {spoken}">{"".join(parts)}</svg>'


def _table(models: Mapping[str, Any]) -> str:
    """Every number with its n and interval; one line per measurement, one pair of columns per model."""
    lines = [(attack, [model["accuracies"][attack] for model in models.values()]) for attack in models["standard"]["accuracies"]]
    for place, point in enumerate(models["standard"]["curve"]):
        lines.append((f"curve, eps = {point['eps']:g}", [model["curve"][place] for model in models.values()]))
    for feature in models["standard"]["follows"]:
        lines.append((f"goes by the {feature}", [model["follows"][feature] for model in models.values()]))
    return "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td><b>{percent(rate)}</b> <small>{interval(rate)}</small></td>" for rate in rates)
        + f"<td>{rates[0]['n']:,}</td></tr>"
        for title, rates in lines
    )
