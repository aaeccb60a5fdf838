"""The site: its Python runs as it stands, its commands are commands, and nothing is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

import documents
import pytest
from PIL import Image

from robustlab.commands import COMMANDS
from robustlab.data.shapes import shapes
from robustlab.synthesis.tasks import TASKS
from robustlab.training import RECIPES

DOCS = documents.ROOT / "docs"
WITH_PYTHON = [page for page in documents.PAGES if documents.blocks(page, "python")]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a stand-in for ``datasets/cifar10``: drawn pictures in folders named after its classes."""
    folder = tmp_path_factory.mktemp("clone")
    for split, n in (("train", 80), ("test", 40)):
        drawn = shapes(n, split)
        for i, (pixels, label) in enumerate(zip(drawn.pixels, drawn.labels.tolist(), strict=True)):
            place = folder / "datasets" / "cifar10" / split / CIFAR10[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{i}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, clone, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "cifar10").symlink_to(clone / "datasets" / "cifar10")
    documents.run(page, tmp_path)


def test_ten_natural_tasks_are_shown_in_the_guide():
    shown = "\n".join(documents.blocks(DOCS / "guide.md", "python"))
    for task in (
        "attack(model, x, y)",
        'rl.evaluate(model, loader, ["fgsm", "pgd-20"]',
        "rl.curve(",
        'rl.train(train, recipe="fast-l2"',
        "resume=True",
        'rl.construct(standard.model, train, "D_det"',
        "rl.train(d_det.images",
        'rl.synthesize("translate"',
        "report.grid()",
        "DataLoader(MyDataset()",
    ):
        assert task in shown


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"quickstart"}))
def test_every_command_is_shown_on_a_how_to_page(name):
    pages = [page for page in (DOCS / "how-to").glob("*.md")]
    assert any(line[:2] == ["robustlab", name] for page in pages for line in documents.commands(page))


@pytest.mark.parametrize(("page", "names"), [("train", RECIPES), ("synthesize", TASKS)], ids=["train", "synthesize"])
def test_every_recipe_and_task_is_described(page, names):
    text = (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in names)


def test_results_begin_with_the_claims():
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    head = re.search(r"^\|.*\|$", text, re.M)
    assert head and head[0] == "| claim | command | published | ours | holds? |"
