"""The four sets by name: the published settings, and which models they are made from."""

from __future__ import annotations

import pytest

from robustlab.constraints import ThreatModel
from robustlab.construction import KINDS, Inverted, Relabelled, SourceModel, kinds, next_class, published_construction, random_target
from robustlab.construction.kinds import kind_named, measure_source, mismatch
from robustlab.errors import UserError
from robustlab.evaluation import Rate, predictions
from robustlab.norms import L2, Linf
from robustlab.pixels import to_float


def test_the_published_settings_where_nothing_else_is_said():
    assert published_construction("D_rand") == Relabelled(random_target, ThreatModel(L2(), 0.5), 100, 0.1)
    assert published_construction("D_det") == Relabelled(next_class, ThreatModel(L2(), 0.5), 100, 0.1)
    assert published_construction("D_R") == published_construction("D_NR") == Inverted(1000, 0.1)


def test_settings_of_ones_own():
    threat = ThreatModel(Linf(), 0.1)
    assert published_construction("D_det", threat=threat, steps=7) == Relabelled(next_class, threat, 7, 0.1 / 5)
    assert published_construction("D_det", step_size=0.0) == Relabelled(next_class, ThreatModel(L2(), 0.5), 100, 0.0)
    assert published_construction("D_R", steps=0, step_size=0.2) == Inverted(0, 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_by_any_spelling(kind):
    assert kind_named(kind) == kind_named(kind.lower()) == kind_named(kind.replace("_", "").upper()) == kind


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="unknown kind 'D_dat'. Did you mean 'D_det'"):
        published_construction("D_dat")
    with pytest.raises(
        UserError, match="D_NR searches the whole pixel box for images with the same features, so it takes no norm and no eps"
    ):
        published_construction("D_NR", threat=ThreatModel(L2(), 1.0))


def test_a_source_model_is_measured_on_the_outputs_of_the_classes_names(source, classifier):
    found = measure_source(classifier, source, "it")
    outputs = [classifier.classes.index(name) for name in source.classes]
    right = sum(int(p) == outputs[y] for p, y in zip(predictions(classifier, to_float(source.pixels)), source.labels, strict=True))
    assert (found.name, found.clean) == ("it", Rate(right, 22)) and found.robust.count <= right and found.robust.n == 22
    assert found.attack == str(kinds.ATTACK)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("robust, count", [(True, 45), (False, 44)])
def test_a_model_that_does_not_fit_its_kind_is_named(kind, robust, count):
    """It counts as robust where it keeps half of its accuracy."""
    sentence = mismatch(kind, SourceModel("my-model", Rate(90, 100), Rate(count, 100), "PGD"))
    if robust == (kind == "D_R"):
        assert sentence is None
    else:
        needs = "a robust" if kind == "D_R" else "a standard"
        start = f"{kind} needs {needs} model, but my-model is right for 90 % of 100 images and for {count} % under PGD: "
        assert sentence is not None and sentence.startswith(start) and sentence.count("\n") == 0
