"""What does the project do with input that means harm, and what memory does that take?

    python benchmarks/hostile.py
    python benchmarks/hostile.py --only label,head

Each row is a file, an address or a request, which the project refuses in one sentence or takes without harm. Commands and the page run
as processes of their own, as a user runs them. A command's peak is all that its process held at most, Python and torch included: the
rows of good files say how much that is.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.interleaved import described, table  # noqa: E402
from robustlab.models.checkpoints import Provenance, save_weights  # noqa: E402
from robustlab.models.zoo import TRAINING_FORMAT, build, describe  # noqa: E402
from robustlab.records import environment  # noqa: E402

CLASSES = ("a", "b", "c")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(touched) (w) file closefile\nshowpage\n"
# As class folders: tags, a table's cells, links, code, headings, a spreadsheet's formula, a way out of the folder's own line.
NAMES = (
    "<script>alert(1)<!script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "[x](javascript:alert(1))",
    "![x](http:evil)",
    "`code` **bold** # head",
    "=HYPERLINK('http:evil','x')",
    'a,b;c"d',
    "$x^2$ & &lt;b&gt; ~~x~~",
)
# Runs a command and says how much memory its process held at most; asked of Linux, since others count what came before it was loaded.
WATCHED = (
    "import sys\nfrom robustlab.commands import main\ncode = main(sys.argv[1:])\n"
    "print('peak', next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)\n"
    "sys.exit(code)"
)


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes:
        given: what it is.
        happened: what was seen.
        held: whether it was refused in one sentence, or taken without harm.
        peak: memory in MB that the process held at most; None where it does not matter.
    """

    given: str
    happened: str
    held: bool
    peak: float | None = None

    def cells(self) -> dict[str, str]:
        """As a row of the table."""
        said = self.happened if self.held else f"**NOT HELD**: {self.happened}"
        return {"input": self.given, "what happened": said, "peak MB": "" if self.peak is None else f"{self.peak:.0f}"}


def command(given: str, *words: object, there: Path, code: int = 2) -> Row:
    """Run ``robustlab`` on an input.

    Args:
        there: the folder of the input, whose name is left out of what is shown.
        code: the exit code that is right.
    """
    light = ["--device", "cpu", "--threads", "1"] if words[0] != "export" else []
    asked = [sys.executable, "-c", WATCHED, *map(str, words), *light]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    said = [line for line in told.stderr.splitlines() if not line.startswith(("peak ", "warning: "))]
    sentence = said[-1] if said else "no word"
    happened = f"exit {told.returncode}" + (f": {without(sentence, there)}" if told.returncode else "")
    peak = next((int(line.split()[1]) / 1024 for line in told.stderr.splitlines() if line.startswith("peak ")), None)
    return Row(given, happened, told.returncode == code and len(said) == (1 if code else 0), peak)


def without(sentence: str, there: Path) -> str:
    """A sentence that a command said, without where its files lay."""
    return sentence.removeprefix("robustlab: ").replace(f"{there}/", "")


def good(folder: Path) -> list[object]:
    """A model and images that fit: ``--model`` and ``--data`` with what follows each."""
    model = build("mlp", num_classes=3, classes=CLASSES)
    save_weights(folder / "good", model, Provenance("three", "standard", "none", {"clean": 33.3}, 3, 0, "none"))
    np.savez(folder / "good.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.array([0, 1, 2, 1]), classes=np.array(CLASSES))
    return ["evaluate", "--model", folder / "good.json", "--steps", "1", "--data", folder / "good.npz"]


def postscript(folder: Path) -> Iterator[Row]:
    """A program for printers under the name of a picture."""
    words = good(folder)
    (folder / "pictures" / "test" / "a").mkdir(parents=True)
    file = folder / "pictures" / "test" / "a" / "0.png"
    file.write_bytes(POSTSCRIPT)
    yield command("PostScript named `0.png`, in a data folder", *words[:-1], folder / "pictures", there=folder)
    yield command("the same for `synthesize`", "synthesize", "translate", *words[1:3], "--images", file, "--target", "b", there=folder)


def label(folder: Path) -> Iterator[Row]:
    """One label that stands for ten million classes."""
    words = good(folder)
    yield command("three classes in a `.npz`, for comparison", *words, there=folder, code=0)
    np.savez(folder / "label.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.array([0, 1, 2, 10**7]))
    yield command("label 10,000,000 in a `.npz`", *words[:-1], folder / "label.npz", there=folder)


def head(folder: Path) -> Iterator[Row]:
    """Networks that say that they have millions of classes."""
    words = good(folder)
    data, many = words[-2:], 4 * 10**6
    model = build("mlp", num_classes=3, classes=CLASSES)
    torch.save({"state_dict": model.state_dict()}, folder / "theirs.pt")
    normal = ["--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
    asked = ["evaluate", "--steps", "1", *data]
    yield command("another project's checkpoint, for comparison", *asked, "--model", folder / "theirs.pt", *normal, there=folder, code=0)
    weights = dict(model.state_dict())
    weight, bias = list(weights)[-2:]
    repeated = {weight: torch.zeros(1, 1).expand(many, 256), bias: torch.zeros(1).expand(many)}
    torch.save({"state_dict": {**weights, **repeated}}, folder / "repeated.pt")
    yield command(
        "a head of 4,000,000 classes, one number repeated, 800 kB", *asked, "--model", folder / "repeated.pt", *normal, there=folder
    )
    torch.save({"state_dict": {**weights, weight: torch.zeros(many, 1), bias: torch.zeros(many)}}, folder / "real.pt")
    yield command("a head of 4,000,000 classes that is there, 32 MB", *asked, "--model", folder / "real.pt", *normal, there=folder)
    for number in (many, 10**9):
        record = json.loads((folder / "good.json").read_text())
        (folder / "many.json").write_text(json.dumps({**record, "num_classes": number, "classes": None, "description_sha256": None}))
        (folder / "many.safetensors").write_bytes((folder / "good.safetensors").read_bytes())
        yield command(f"`num_classes` {number:,} in a model's `.json`", *asked, "--model", folder / "many.json", there=folder)
        kept = {"format": TRAINING_FORMAT, **describe(model), "num_classes": number, "classes": None, "model": weights, "ema": None}
        torch.save(kept, folder / "best.pt")
        yield command(f"`num_classes` {number:,} in `best.pt`", *asked, "--model", folder / "best.pt", there=folder)


@contextlib.contextmanager
def page(*words: object, model: str | None = "cifar10-small-l2") -> Iterator[tuple[str, int, int]]:
    """The page as a process of its own: its host, port and process."""
    light = ["--port", "0", "--threads", "1", "--device", "cpu", *(["--model", model] if model else [])]
    asked = [sys.executable, "-m", "robustlab", "demo", *light]
    process = subprocess.Popen([*asked, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = next(found for line in process.stdout if (found := re.match(r"open http://([\w.]+):(\d+)/", line)))
        yield found[1], int(found[2]), process.pid
    finally:
        process.terminate()
        process.wait()


def answer(host: str, port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of what the page answers."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=60)) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


def held_mb(process: int, name: str) -> float:
    """``VmRSS``, what a process holds of memory, or ``VmHWM``, the most since ``forget``; in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def connections(folder: Path) -> Iterator[Row]:
    """More connections than the page has places, which say nothing; then somebody asks."""
    with page() as (host, port, process), contextlib.ExitStack() as stack:
        before = held_mb(process, "VmRSS")
        for _ in range(140):
            stack.enter_context(socket.create_connection((host, port), timeout=10))
        found = [answer(host, port, path)[0] for path in ("/healthz", "/", "/api/meta", "/api/starter/0")]
        more = held_mb(process, "VmRSS") - before
    yield Row("140 silent connections to the page, then four requests", f"answers {found}; {more:.0f} MB more", found == [200] * 4)


def loopback(folder: Path) -> Iterator[Row]:
    """Another name of this machine, and one that others reach."""
    with page("--host", "127.0.0.2") as (host, port, _):
        status = answer(host, port, "/api/meta")[0]
    yield Row("`--host 127.0.0.2`", f"serves http://127.0.0.2, without a token: answer {status}", (host, status) == ("127.0.0.2", 200))
    with page("--host", "0.0.0.0", "--token", "open-sesame-123") as (_, port, _):
        status = answer("127.0.0.1", port, "/api/meta")[0]
    yield Row("`--host 0.0.0.0`, asked without its token", f"answer {status}", status == 401)


def number(folder: Path) -> Iterator[Row]:
    """A number that Python refuses to read."""
    with page() as (host, port, _):
        status, body = answer(host, port, f"/api/starter/{'9' * 5000}")
        after, _ = answer(host, port, "/healthz")
    yield Row("a starter's number of 5,000 digits", f"answer {status}: {json.loads(body)['error']}", (status, after) == (404, 200))


def pictures() -> Iterator[tuple[str, bytes, int]]:
    """Large uploads, each with the status that is right."""
    sizes: list[tuple[str, str, tuple[int, int], int]] = [
        ("PNG", "RGB", (8000, 5000), 200),
        ("PNG", "RGBA", (8000, 5000), 200),
        ("PNG", "I;16", (8000, 5000), 200),
        ("GIF", "P", (8000, 5000), 200),
        ("JPEG", "RGB", (8000, 5000), 200),
        ("BMP", "1", (8000, 5000), 200),
        ("WEBP", "RGB", (8000, 5000), 422),
        ("PNG", "RGB", (8001, 5000), 422),
    ]
    for format, mode, size, status in sizes:
        stream = io.BytesIO()
        Image.new(mode, size).save(stream, format)
        content = stream.getvalue()
        megapixels = f"{size[0] * size[1] / 1e6:.3f}".rstrip("0").rstrip(".")
        yield f"upload of {megapixels} megapixels, {mode} as {format}, {len(content) / 1000:.0f} kB", content, status


def upload(folder: Path) -> Iterator[Row]:
    """Pictures of as many pixels as are read, and more."""
    with page() as (host, port, process):
        stream = io.BytesIO()
        Image.new("RGB", (64, 64)).save(stream, "PNG")
        answer(host, port, "/api/upload", stream.getvalue())  # so that what is loaded for the first is not counted
        for given, content, right in pictures():
            Path(f"/proc/{process}/clear_refs").write_text("5")
            before = held_mb(process, "VmRSS")
            status, body = answer(host, port, "/api/upload", content)
            peak, kept = held_mb(process, "VmHWM"), held_mb(process, "VmRSS") - before
            said = f"answer {status}" + (f": {json.loads(body)['error']}" if status != 200 else "")
            happened = (
                f"{said}; at most {max(peak - before, 0):.0f} MB more than the {before:.0f} before, {max(kept, 0):.0f} more afterwards"
            )
            yield Row(given, happened, status == right and peak - before < 300 and kept < 30, peak)
        status, body = answer(host, port, "/api/upload", POSTSCRIPT)
        yield Row("upload of PostScript", f"answer {status}: {json.loads(body)['error']}", status == 422)


def names(folder: Path) -> Iterator[Row]:
    """Class names that would be tags, cells, links and code where they were not shown as they are."""
    documents = {
        "the card of a constructed set": ("construct --kind D_det --steps 1 --norm l2 --eps 0.5 --model MODEL", "card.md"),
        "the card for Hugging Face": ("export --format huggingface", "README.md"),
        "the page of `quickstart`": ("quickstart --arch mlp --epochs 1 --batch-size 16", "index.html"),
    }
    for kind, chosen in (("plain", [f"class{k}" for k in range(len(NAMES))]), ("odd", sorted(NAMES))):
        _write_classes(folder / kind, chosen)
    for what, (words, name) in documents.items():
        tags: list[set[str] | None] = []
        for kind in ("plain", "odd"):
            asked = [folder / kind / "model.json" if word == "MODEL" else word for word in words.split()]
            out = folder / kind / words.split()[0]
            given = f"class names of Markdown, HTML and a spreadsheet: {what}"
            row = command(given, *asked, "--data", folder / kind / "data", "--out", out, there=folder, code=0)
            if row.held:
                tags.append(_tags(out / name))
        if not row.held:
            yield row
        elif tags[0] is None or tags[1] is None:
            yield replace(row, happened="written; not rendered, as markdown-it-py is not installed")
        else:
            more = ", ".join(sorted(tags[1] - tags[0])) or "none"
            yield replace(row, happened=f"written; tags and attributes that plain names do not make: {more}", held=more == "none")
    with page("--data", folder / "odd" / "data", "--model", folder / "odd" / "model.json", model=None) as (host, port, _):
        status, body = answer(host, port, "/api/meta")
    shown = status == 200 and all(json.dumps(name)[1:-1] in body.decode() for name in NAMES)
    yield Row("the same: the interactive page", f"answer {status}, the names as JSON text", shown)


def _write_classes(folder: Path, classes: Sequence[str]) -> None:
    """Some images of each class, and a network for them, whose record has a name too."""
    pixels = np.arange(len(classes) * 8 * 192, dtype=np.int64).astype(np.uint8).reshape(-1, 8, 8, 3)
    for split in ("train", "test"):
        for k, name in enumerate(classes):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(8):
                Image.fromarray(pixels[8 * k + i]).save(folder / "data" / split / name / f"{i}.png")
    model = build("mlp", num_classes=len(classes), classes=classes)
    save_weights(folder / "model", model, Provenance(classes[0], "standard", "none", {"clean": 11.1}, 72, 0, "none"))


class _Tags(HTMLParser):
    """The tags of a page, each with its attributes' names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{tag} {name}" for name, _ in attrs)}


def _tags(path: Path) -> set[str] | None:
    """The tags and attributes of a page, or of a Markdown file as GitHub and Hugging Face show it; None without markdown-it-py."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        if find_spec("markdown_it") is None:
            return None
        body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
        text = import_module("markdown_it").MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
    return _Tags(text).found


CASES: dict[str, Callable[[Path], Iterator[Row]]] = {
    each.__name__: each for each in (postscript, label, head, connections, loopback, number, upload, names)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns 1 where a row does not hold, 2 after a mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help=f"some of: {', '.join(CASES)}")
    wanted = parser.parse_args(argv)
    chosen = wanted.only.split(",") if wanted.only else list(CASES)
    if not set(chosen) <= set(CASES):
        print(f"hostile: --only takes some of {', '.join(CASES)}", file=sys.stderr)
        return 2
    if not Path("/proc/self/clear_refs").exists():
        print("hostile: memory is asked of Linux", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows += CASES[name](Path(folder))
    found: dict[str, Any] = environment()
    print(f"{described(found)}\n\n{table([row.cells() for row in rows])}")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
