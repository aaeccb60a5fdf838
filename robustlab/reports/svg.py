"""Figures of matplotlib as SVG whose bytes depend on the picture alone, and which may stand in the middle of an HTML page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+|(?<=^#).+")


def svg_element(figure: Figure, ids: str, **frame: Any) -> ET.Element:
    """A figure as one element, its names in the plain form that HTML takes too.

    matplotlib names parts of a drawing by a number drawn anew each time; here they are counted. What is in its file besides the drawing (a
    date, a style sheet that would reach beyond the picture) is left out.

    Args:
        figure: is drawn anew; its size in points becomes the element's.
        ids: what the ids in it begin with; two elements of one page must differ in it.
        frame: see ``Figure.savefig``.
    """
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None}, **frame)
    root = ET.fromstring(content.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        for name in [name for name in element.attrib if name.startswith(f"{{{XLINK}}}")]:
            element.set(f"xlink:{name.removeprefix(f'{{{XLINK}}}')}", element.attrib.pop(name))
    _count_ids(root, ids)
    for name, value in (("xmlns", SVG), ("xmlns:xlink", XLINK), ("stroke-linejoin", "round"), ("stroke-linecap", "butt")):
        root.set(name, value)
    return root


def document(root: ET.Element) -> str:
    """An element of ``svg_element`` as a file."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def inline(root: ET.Element, label: str) -> str:
    """An element of ``svg_element``, which is changed, for the middle of an HTML page; it becomes as wide as its place.

    Args:
        label: what a screen reader says instead of the picture.
    """
    for name in ("width", "height", "version", "xmlns", "xmlns:xlink"):
        root.attrib.pop(name, None)
    for element in root.iter("use"):
        element.set("href", element.attrib.pop("xlink:href"))
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")


def _count_ids(root: ET.Element, ids: str) -> None:
    """Rename the ids that something refers to, in order, and drop the others."""
    used = {name for element in root.iter() for value in element.attrib.values() for name in _REFERENCE.findall(value)}
    new: dict[str, str] = {}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", new.setdefault(str(old), f"{ids}-{len(new)}"))
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _REFERENCE.sub(lambda found: new[found[0]], value))
