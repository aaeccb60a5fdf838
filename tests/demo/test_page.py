"""What a page is made of: models by any name, pictures to begin with, and what does not fit."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import labelled
import numpy as np
import pytest
import torch
from laws import images, untouched
from page import SIZE, classifier
from torch import nn

from robustlab import demo, files
from robustlab.data import ImageSet, open_dataset
from robustlab.demo import launch, make_page
from robustlab.demo.page import Page
from robustlab.errors import UserError
from robustlab.models import zoo
from robustlab.models.checkpoints import Provenance, pretrained, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import build


@pytest.fixture
def pictures() -> ImageSet:
    return ImageSet((images(4, 3, SIZE, SIZE) * 256).to(torch.uint8), torch.arange(4), ("ant", "bee", "cow", "dog"), "animals")


def test_one_model_is_enough(pictures):
    model = classifier()
    page = make_page(model, pictures)
    assert list(page.models) == ["tiny"] and page.models["tiny"].model is model and page.size == SIZE
    assert [starter.name for starter in page.starters][-4:] == list(pictures.classes)
    assert page.device == "1 CPU thread"


def test_several_models_have_names_of_their_own(pictures, tmp_path):
    save_weights(
        tmp_path / "robust" / "model", build("mlp", num_classes=3), Provenance("shapes", "fast-l2", "L2 eps=0.5", {}, 100, 0, "abc")
    )
    page = make_page([classifier(), classifier(), tmp_path / "robust" / "model.json", "cifar10-small-l2"])
    assert list(page.models) == ["tiny", "tiny-2", "model", "cifar10-small-l2"] and page.size == 32
    assert page.models["model"].note == "mlp on shapes, trained against L2 eps=0.5" and page.models["tiny"].note == "tiny"
    assert list(make_page({"mine": classifier(), "theirs": "cifar10-small-l2"}).models) == ["mine", "theirs"]


def test_all_released_models_where_none_is_named():
    page = make_page()
    assert set(page.models) == set(pretrained())
    assert pretrained()[next(iter(page.models))]["threat"] != "none", "a robust one is shown first"


def test_outputs_without_names_take_those_of_the_pictures_on_the_page_alone(pictures):
    model = classifier(classes=tuple("0123"))
    with untouched(model):
        page = make_page(model, pictures)
    assert page.models["tiny"].model.classes == pictures.classes and model.classes == tuple("0123")
    assert page.models["tiny"].model.head is model.head, "the weights are the same"
    assert make_page(classifier(), pictures).models["tiny"].model.classes == classifier().classes
    assert make_page(model).models["tiny"].model.classes == tuple("0123")


def test_a_model_by_name_is_read_as_it_is_said(pictures):
    asked: list[str] = []

    def read(name: str) -> Any:
        asked.append(name)
        return classifier()

    assert list(make_page("runs/one.pt", pictures, load=read).models) == ["one"] and asked == ["runs/one.pt"]


def test_a_path_to_the_pictures(tmp_path):
    np.savez(tmp_path / "test.npz", x=np.zeros((3, SIZE, SIZE, 3), np.uint8), y=np.arange(3), classes=np.array(["ant", "bee", "cow"]))
    assert [starter.name for starter in make_page(classifier(), tmp_path).starters][-3:] == ["ant", "bee", "cow"]


def test_pictures_with_attributes_are_cut_to_the_first_model(tmp_path):
    labelled.write_celeba(tmp_path / "data", 60)
    record = Provenance("own", "fast-l2", "L2 eps=0.5", {}, 100, 0, "abc", {"settings": {"image_size": 20}})
    save_weights(tmp_path / "small", build("small-4", num_classes=3), record)
    run = tmp_path / "run"
    files.write_json(run / "settings.json", {"data": {"image_size": 24}})
    saved = save_weights(tmp_path / "other", build("small-4", num_classes=3), record)
    save_weights(tmp_path / "odd", build("small-4", num_classes=3), replace(record, details={"settings": "image_size"}))
    for models, size in (
        (classifier(), 32),
        (tmp_path / "small.json", 20),
        ({"one": run / "best.pt"}, 24),
        ({"one": run}, 24),
        (tmp_path / "odd.json", 32),
        ({"one": f"{run / 'best.pt'}+{run / 'best.pt'}"}, 24),
        ([tmp_path / "small.json", classifier()], 20),
    ):
        page = make_page(
            models, tmp_path / "data", load=lambda name: classifier() if name.endswith(("best.pt", "run")) else zoo.load(saved)
        )
        assert page.size == size
        for one in page.models.values():
            assert [each.name for each in one.attributes] == ["Bright Top", "Red"]
    assert make_page(classifier(), open_dataset(tmp_path / "data", split="test", image_size=18)).size == 18
    assert classifier().classes == page.models["tiny"].model.classes, "what the pictures show is no class"


def test_an_ensemble_is_one_model():
    names = "cifar10-small-l2+cifar10-small-standard"
    (one,) = make_page(names).models.values()
    both = [zoo.load(name) for name in names.split("+")]
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        logits, _ = one.outputs(x)
        assert torch.allclose(logits, (both[0](x) + both[1](x)) / 2, atol=1e-4)
    assert one.note == "the mean of 2 networks: small, small" and one.name == names
    assert {"wings", "wheels"} <= {each.name for each in one.attributes}


def test_what_does_not_fit_is_one_sentence(pictures):
    grey = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2), ("a", "b"), "grey")
    wide = ImageSet(torch.zeros(2, 3, 8, 16, dtype=torch.uint8), torch.arange(2), ("a", "b"), "wide")
    dots = ImageSet(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.arange(2), ("a", "b"), "dots")
    wide_kernel = Classifier(nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten()), nn.Linear(4, 2), mean=[0.5] * 3, std=[0.5] * 3)
    for models, some, sentence in (
        ([], pictures, "which model"),
        ("cifar10-smal-l2", pictures, "Did you mean 'cifar10-small-l2'"),
        (classifier(), grey, "square pictures in colour, but grey has"),
        (classifier(), wide, "square pictures in colour, but wide has 16x8 pixels"),
        (classifier(channels=1), pictures, "wants images of 1 channels"),
        (wide_kernel, dots, "cannot read images of 2x2 pixels"),
    ):
        with pytest.raises(UserError, match=sentence):
            make_page(models, some)


def test_pictures_in_other_forms(pictures):
    pair = make_page(classifier(), (pictures.pixels, pictures.labels))
    assert [starter.picture for starter in pair.starters] == [starter.picture for starter in make_page(classifier(), pictures).starters]
    assert [starter.name for starter in pair.starters][-4:] == ["0", "1", "2", "3"]


# From Python in three lines.


def test_a_page_is_started_with_one_call(pictures):
    with demo.start(classifier(), pictures) as page, urllib.request.urlopen(page.address + "api/meta", timeout=20) as answer:
        assert json.loads(answer.read())["models"][0]["name"] == "tiny"


def test_serving_says_where_and_makes_up_a_token_where_one_is_needed(pictures, monkeypatch):
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("robustlab.demo.server.serve_page", lambda *words, **options: calls.append((*words, options["token"])))
    demo.serve(classifier(), pictures, port=0)
    demo.serve(classifier(), pictures, host="0.0.0.0")
    demo.serve(classifier(), pictures, host="0.0.0.0", token="open-sesame-123")
    (page, host, port, token), (_, _, usual_port, made_up), (*_, given) = calls
    assert isinstance(page, Page) and (host, port, token) == ("127.0.0.1", 0, None)
    assert usual_port == 8765 and len(made_up) >= 20 and given == "open-sesame-123"


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    for call in (demo.serve, demo.start):
        with pytest.raises(UserError, match=r"pip install 'robustlab\[web\]'"):
            call()


def test_the_package_needs_no_server_to_be_imported():
    """A press can be made without starlette."""
    assert "starlette" not in Path(launch.__file__).read_text().partition("def ")[0]
