"""Write ``docs/linear_bias.md``: the tables and plots of ``robustlab reproduce linear-bias``, each table under what it is about.

    python docs/make_linear_bias.py --out runs/reproduce

What was measured before in that folder is not measured again. The text above the first table stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from robustlab.experiments import reproduce
from robustlab.experiments.linear_bias import all_claims
from robustlab.reports.tables import Table, markdown

HERE = Path(__file__).parent
PAGE, PICTURES = HERE / "linear_bias.md", HERE / "images" / "linear-bias"
MARK = "<!-- made by docs/make_linear_bias.py from here on -->"
WIDTH = 640  # pixels of a plot on the page


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", default="runs/reproduce", help="folder of the experiments")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    found = reproduce("linear-bias", out=args.out, seeds=args.seeds, threads=1, say=print)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    for title in found.lines:
        small(Path(args.out) / f"{title}.png", PICTURES / f"{title.removeprefix('linear-bias-')}.png")
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(text + MARK + "\n\n" + "\n\n".join(part(table) for table in found.tables) + "\n", encoding="utf-8")


def part(table: Table) -> str:
    """A table with the sentences of its claims before it, and their plots after it."""
    claims = all_claims()
    names = list(dict.fromkeys(row[0] for row in table.rows))
    said = [f"- **{name}**: {claims[name].says} ({claims[name].source})" for name in names]
    plots = [path for name in names for path in sorted(PICTURES.glob(f"{name}*.png")) if owner(path.stem, names) == name]
    shown = [f"![{path.stem.replace('-', ' ')}](images/linear-bias/{path.name})" for path in plots]
    heading = f"## {table.title.rpartition('? ')[2]}"
    return "\n\n".join([heading, "\n".join(said), table.regime, markdown(table.columns, table.rows), *shown])


def owner(stem: str, names: list[str]) -> str:
    """The claim to which a plot belongs: the longest name with which it begins."""
    return max((name for name in names if stem == name or stem.startswith(f"{name}-")), key=len, default="")


def small(source: Path, target: Path) -> None:
    """A plot of at most ``WIDTH`` pixels and 192 colours."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(192).save(target, optimize=True)


if __name__ == "__main__":
    main()
