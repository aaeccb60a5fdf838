"""``robustlab export``: a data set written in a layout that others read; see ``robustlab.data.exports``."""

from __future__ import annotations

from pathlib import Path

from robustlab import files
from robustlab.commands import settings
from robustlab.commands.common import open_images
from robustlab.data.constructed import is_constructed
from robustlab.data.exports import LAYOUTS, export
from robustlab.errors import UserError
from robustlab.progress import Progress


def run(args: settings.Export) -> None:
    """Write the set, and say what rounding changed."""
    if args.output.format is None:
        raise UserError(f"in which layout? --format takes one of: {', '.join(LAYOUTS)}")
    if args.output.out is None:
        raise UserError("where to? --out takes a folder that is new or empty")
    out = Path(args.output.out)
    files.check_vacant(out)
    images = open_images(args.data, args.data.split)
    with Progress("exporting", len(images), "img") as shown:
        facts, rounding = export(images, args.data.split, out, args.output.format, shown.update, _card(args.data.path))
    print(f"{facts['n']:,} images of {images.name} ({args.data.split}) in {out}, layout {args.output.format}")
    if rounding:
        added = f"added {rounding.mean:.4g} on average, at most {rounding.largest:.4g}, to an image (L2 norm, pixels in [0, 1])"
        print(f"pixels rounded from {facts['source_dtype']} to 8 bits: {added}")
    else:
        same = facts["dtype"] == facts["source_dtype"]
        print(f"pixels stored without loss: {facts['source_dtype']}{'' if same else ' as ' + facts['dtype']}")


def _card(data: str | None) -> str:
    """What a constructed set says of itself; of other data nothing."""
    folder = Path(data).expanduser() if data else Path()
    card = folder / "card.md"
    return card.read_text() if data and is_constructed(folder) and card.is_file() else ""
