"""Write the pages of experiments, ``docs/linear_bias.md`` and ``docs/graphs.md``: tables and plots of ``robustlab reproduce``.

    python docs/make_experiments.py --page graphs --out runs/reproduce --data expressive-power=pairs.tsv graph-classification=MUTAG
    python docs/make_experiments.py --page graphs --out runs/reproduce --only landscape

What was measured before in that folder is not measured again. The text above the first table stays as it is, and with ``--only`` all that
is about other experiments.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from robustlab.experiments import reproduce
from robustlab.experiments.claims import GRAPHS
from robustlab.experiments.finding import Finding
from robustlab.experiments.linear_bias import all_claims
from robustlab.reports.tables import Table, markdown

HERE = Path(__file__).parent
MARK = "<!-- made by docs/make_experiments.py from here on -->"
WIDTH = 640  # pixels of a plot on a page


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--page", choices=tuple(PAGES), required=True)
    parser.add_argument("--out", default="runs/reproduce", help="folder of the experiments")
    parser.add_argument("--only", default="", help="of graphs: write these experiments anew, NAME,...")
    parser.add_argument("--data", nargs="*", default=[], help="files for experiments, NAME=PATH; one with several is run on each")
    args = parser.parse_args()
    page = HERE / f"{args.page.replace('-', '_')}.md"
    pictures = HERE / "images" / args.page
    pictures.mkdir(parents=True, exist_ok=True)
    text, _, before = page.read_text(encoding="utf-8").partition(MARK)
    only = [name for name in args.only.split(",") if name]
    for old in () if only else pictures.glob("*.png"):
        old.unlink()
    data = [tuple(pair.split("=", 1)) for pair in args.data]
    body = PAGES[args.page](Path(args.out), pictures, only, data, before)
    page.write_text(f"{text}{MARK}\n\n{body}\n", encoding="utf-8")


def linear_bias(out: Path, pictures: Path, only: list[str], data: list[tuple[str, ...]], before: str) -> str:
    """All claims, each table with the sentences of its claims before it and their plots after it."""
    found = reproduce("linear-bias", out=out, seeds=10, threads=1, say=print)
    for title in found.lines:
        small(out / f"{title}.png", pictures / f"{title.removeprefix('linear-bias-')}.png")
    return "\n\n".join(claims(table, pictures) for table in found.tables)


def claims(table: Table, pictures: Path) -> str:
    """A table of claims."""
    known = all_claims()
    names = list(dict.fromkeys(row[0] for row in table.rows))
    said = [f"- **{name}**: {known[name].says} ({known[name].source})" for name in names]
    plots = [path for name in names for path in sorted(pictures.glob(f"{name}*.png")) if owner(path.stem, names) == name]
    heading = f"## {table.title.rpartition('? ')[2]}"
    return "\n\n".join([heading, "\n".join(said), table.regime, markdown(table.columns, table.rows), *map(shown, plots)])


def owner(stem: str, names: list[str]) -> str:
    """The claim to which a plot belongs: the longest name with which it begins."""
    return max((name for name in names if stem == name or stem.startswith(f"{name}-")), key=len, default="")


def graphs(out: Path, pictures: Path, only: list[str], data: list[tuple[str, ...]], before: str) -> str:
    """Every experiment on graphs: what it asks, its tables, its plots."""
    parts, kept = [], dict(re.findall(r"^(## `[\w-]+`)\n(.*?)(?=^## |\Z)", before, re.DOTALL | re.MULTILINE))
    for name, about in GRAPHS.items():
        title = f"## `{name}`"
        if only and name not in only:
            parts += [f"{title}\n{kept[title].rstrip()}"] if title in kept else []
            continue
        parts.append(f"{title}\n\n{about[0].upper()}{about[1:]}.")
        given: list[str | None] = [path for owner, path in data if owner == name]
        for path in given or [None]:
            found: Finding = reproduce(name, path, out=out, threads=1, say=print)
            parts += [f"{table}".replace("## ", "### ", 1) for table in found.tables]
            for plot in (*found.lines, *found.maps, *found.orders):
                small(out / f"{plot}.png", pictures / f"{plot}.png")
                parts.append(shown(pictures / f"{plot}.png"))
    return "\n\n".join(parts)


def shown(plot: Path) -> str:
    """A plot in Markdown."""
    return f"![{plot.stem.replace('-', ' ')}](images/{plot.parent.name}/{plot.name})"


def small(source: Path, target: Path) -> None:
    """A plot of at most ``WIDTH`` pixels and 192 colours."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(192).save(target, optimize=True)


PAGES: dict[str, Callable[[Path, Path, list[str], list[tuple[str, ...]], str], str]] = {"linear-bias": linear_bias, "graphs": graphs}


if __name__ == "__main__":
    main()
