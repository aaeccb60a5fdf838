"""One call from a model and images to a finished set: the same bytes as shard by shard, in a folder or in memory alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from laws import restless, untouched
from torch import nn

from robustlab.constraints import ThreatModel
from robustlab.construction import KINDS, Plan, Unfinished, build_set, construct, kinds, published_construction, sets
from robustlab.data import ImageSet
from robustlab.data.constructed import open_constructed
from robustlab.errors import UserError
from robustlab.evaluation import predictions
from robustlab.files import file_lock
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import load, pretrained
from robustlab.norms import L2
from robustlab.pixels import to_float

SMALL = {"steps": 3, "shard_size": 6, "batch_size": 4}
pytestmark = pytest.mark.filterwarnings("ignore:.* needs a:UserWarning")


def written(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("environment.json", None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_plan_with_the_published_settings(kind, source, classifier, tmp_path):
    made = construct(classifier, source, kind, out=tmp_path / "set", seed=3, dtype="uint8", **SMALL)
    plan = Plan(published_construction(kind, steps=3), source, classifier, seed=3, dtype="uint8", shard_size=6, batch_size=4)
    assert build_set(tmp_path / "plan", plan) == made.manifest
    assert written(tmp_path / "set") == written(tmp_path / "plan")
    assert made.kind == kind and made.folder == tmp_path / "set" and made.original is source
    opened = open_constructed(tmp_path / "set")
    assert torch.equal(opened.fetch(torch.arange(22)), made.images.fetch(torch.arange(22)))
    assert torch.equal(made.images.labels, made.facts["y"]) and torch.equal(made.facts["label"], source.labels)


def test_without_a_folder_it_is_the_same_set_in_memory(source, classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = construct(classifier, source, out=tmp_path / "set", **SMALL)
    made = construct(classifier, source, **SMALL)
    assert made.folder is None and made.manifest == kept.manifest and made.images.name == "D_det of noise"
    assert torch.equal(made.images.fetch(torch.arange(22)), kept.images.fetch(torch.arange(22)))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_no_temporary_files_are_left(source, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(sets.tempfile, "tempdir", str(tmp_path))
    construct(classifier, source, **SMALL)
    with pytest.raises(Unfinished):
        construct(classifier, source, **SMALL, stop=lambda: True)
    assert not list(tmp_path.iterdir())


def test_a_threat_model_and_steps_of_ones_own(source, classifier):
    made = construct(classifier, source, threat=ThreatModel(L2(), 2.0), steps=5, step_size=0.7, shard_size=6, batch_size=4)
    told = made.manifest["settings"]["construction"]
    assert (told["norm"], told["eps"], told["steps"], told["step_size"]) == ("L2", 2.0, 5, 0.7)


def test_a_model_by_its_name_and_data_by_their_path(tmp_path):
    name = "cifar10-small-standard"
    x = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(6), classes=np.array(pretrained()[name]["classes"]))
    made = construct(name, tmp_path, steps=1)
    assert made.model.name == name and made.model.record == pretrained()[name]
    assert predictions(load(name), to_float(made.images.fetch(torch.arange(6)))).tolist() == made.facts["predicted"].tolist()
    assert (
        repr(made)
        == f"<D_det: 6 images in memory, {100 * made.manifest['facts']['taken_for_label']:.1f} % classified as their label by {name}>"
    )


# Networks of one's own


@pytest.fixture
def ten(source) -> ImageSet:
    """As many classes as the network has outputs."""
    return ImageSet(source.pixels, source.labels, tuple("abcdefghij"), "ten")


@pytest.mark.parametrize("kind", ["D_rand", "D_det"])
def test_any_network_makes_what_the_same_network_as_a_classifier_makes(kind, ten, tiny_model):
    classifier = Classifier(tiny_model[:-1], tiny_model[-1], mean=[0.0] * 3, std=[1.0] * 3, classes="abcdefghij").eval()
    with untouched(restless(tiny_model), ten.pixels):
        made = construct(tiny_model, ten, kind, **SMALL)
    expected = construct(classifier, ten, kind, **SMALL)
    assert torch.equal(made.images.labels, expected.images.labels)
    torch.testing.assert_close(made.images.fetch(torch.arange(22)), expected.images.fetch(torch.arange(22)), rtol=0, atol=1e-5)
    assert made.model.name == "Sequential" == made.manifest["settings"]["model"]["arch"]
    assert torch.equal(made.facts["predicted"], predictions(tiny_model.eval(), made.images.fetch(torch.arange(22))))


def test_what_a_network_of_ones_own_cannot_do_is_one_sentence(source, ten, tiny_model):
    with pytest.raises(UserError, match=r"the model has 10 outputs, but noise has 4 classes$"):
        construct(tiny_model, source)
    with pytest.raises(
        UserError, match=r"D_R matches features, so its model must be a robustlab Classifier\(body, head\), not a Sequential$"
    ):
        construct(tiny_model, ten, "D_R")
    with pytest.raises(UserError, match="must return logits of shape"):
        construct(nn.Identity(), ten)


@pytest.mark.parametrize("kind", ["D_det", "D_R"])
def test_the_model_is_as_before(kind, source, classifier):
    with untouched(restless(classifier), source.pixels, source.labels):
        construct(classifier, source, kind, **SMALL)


# Interrupted, shared, damaged


def test_stopped_and_gone_on_with_it_is_the_same_set(source, classifier, tmp_path):
    whole = construct(classifier, source, out=tmp_path / "whole", **SMALL)
    questions = iter(range(100))
    with pytest.raises(Unfinished, match="^stopped before the set was finished$") as caught:
        construct(classifier, source, out=tmp_path / "set", **SMALL, stop=lambda: next(questions) >= 3)
    assert caught.value.stopped and len(list((tmp_path / "set").glob("shards/*.safetensors"))) == 1
    assert construct(classifier, source, out=tmp_path / "set", **SMALL).manifest == whole.manifest
    assert written(tmp_path / "set") == written(tmp_path / "whole")


def test_the_last_shards_in_other_hands_are_left_to_them(source, classifier, tmp_path):
    with pytest.raises(Unfinished):
        construct(classifier, source, out=tmp_path / "set", **SMALL, stop=lambda: True)
    with (
        file_lock(tmp_path / "set" / "shards" / ".00002.lock"),
        pytest.raises(Unfinished, match="nothing is left to begin in .*set: other processes make the last shards$") as caught,
    ):
        construct(classifier, source, out=tmp_path / "set", **SMALL)
    assert not caught.value.stopped
    assert len(construct(classifier, source, out=tmp_path / "set", **SMALL).images) == 22


def test_a_damaged_shard_is_told_and_made_again(source, classifier, tmp_path):
    construct(classifier, source, out=tmp_path / "set", **SMALL)
    before = written(tmp_path / "set")
    (tmp_path / "set" / "shards" / "00001.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of the shards in .*set were damaged, and are made again"):
        construct(classifier, source, out=tmp_path / "set", **SMALL)
    assert written(tmp_path / "set") == before


@pytest.mark.parametrize("robust, kind", [(0.0, "D_NR"), (1.1, "D_R")])
def test_a_model_that_the_kind_is_not_made_from_is_warned_about(robust, kind, source, classifier, monkeypatch):
    monkeypatch.setattr(kinds, "ROBUST", robust)
    with pytest.warns(UserWarning, match=f"^{kind} needs a .*, but my network is right for ") as caught:
        construct(classifier, source, kind, name="my network", **SMALL)
    assert [warning.filename for warning in caught] == [__file__], "it points at the caller"


def test_mistakes_are_told_before_anything_is_written(source, classifier, tmp_path):
    for wrong, sentence in (
        ({"kind": "D_dat"}, "unknown kind 'D_dat'"),
        ({"kind": "D_R", "threat": ThreatModel(L2(), 1.0)}, "takes no norm and no eps"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"steps": -1}, "relabelling needs steps >= 0"),
        ({"shard_size": 0}, "shard_size >= 1"),
    ):
        with pytest.raises(UserError, match=sentence):
            construct(classifier, source, **{"out": tmp_path / "set", **wrong})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no checkpoint nowhere.pt"):
        construct("nowhere.pt", source, out=tmp_path / "set")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "environment, first",
    [
        ({}, 0),
        ({"RANK": "1", "WORLD_SIZE": "4"}, 5),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}, 15),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, 15),
        ({"RANK": "x", "WORLD_SIZE": "4"}, 0),
        ({"RANK": "1", "WORLD_SIZE": "0"}, 0),
    ],
)
def test_processes_begin_in_different_places(environment, first, monkeypatch):
    for name in sum(sets.PROCESSES, ()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sets.first_shard(20) == first
