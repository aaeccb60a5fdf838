"""Laws of every construction: an image follows from its position, the seed and the model alone, and the model is only borrowed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from laws import restless, untouched

from robustlab.constraints import ThreatModel
from robustlab.construction import Inverted, Relabelled, next_class, random_target
from robustlab.norms import L2, Linf
from robustlab.seeding import example_keys

CONSTRUCTIONS = {
    "D_rand": Relabelled(random_target, ThreatModel(L2(), 0.5), 4, 0.2),
    "D_det": Relabelled(next_class, ThreatModel(Linf(), 8 / 255), 4, None),
    "D_R": Inverted(4, 0.3),
}
every_construction = pytest.mark.parametrize("construction", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS.keys())
INDEX = torch.tensor([3, 0, 21, 8, 14])
KEYS = example_keys(0, INDEX)


def assert_same(made, other):
    assert torch.equal(made.x, other.x) and torch.equal(made.y, other.y)
    assert made.facts.keys() == other.facts.keys() and all(torch.equal(made.facts[name], other.facts[name]) for name in made.facts)


@every_construction
def test_images_are_float32_pixels_with_a_label_and_facts_for_each(construction, source, classifier):
    made = construction(source, INDEX, KEYS, classifier)
    assert made.x.shape == (5, 3, 8, 8) and made.x.dtype == torch.float32
    assert 0 <= made.x.min() and made.x.max() <= 1
    assert made.y.dtype == torch.int64 and set(made.y.tolist()) <= set(range(4))
    assert all(fact.shape == (5,) and fact.dtype in (torch.int64, torch.float32) for fact in made.facts.values())
    assert not any(tensor.requires_grad for tensor in (made.x, made.y, *made.facts.values()))


@every_construction
def test_an_image_is_the_same_alone_and_in_any_company(construction, source, classifier):
    together = construction(source, INDEX, KEYS, classifier)
    backwards = construction(source, INDEX.flip(0), KEYS.flip(0), classifier)
    alone = [construction(source, INDEX[i : i + 1], KEYS[i : i + 1], classifier) for i in range(5)]
    for x, y in ((backwards.x.flip(0), backwards.y.flip(0)), (torch.cat([a.x for a in alone]), torch.cat([a.y for a in alone]))):
        assert torch.equal(y, together.y)
        torch.testing.assert_close(x, together.x, rtol=0, atol=1e-5)


@every_construction
def test_the_same_call_gives_the_same_bytes_whatever_was_drawn_before(construction, source, classifier):
    first = construction(source, INDEX, KEYS, classifier)
    torch.rand(7)
    assert_same(construction(source, INDEX, KEYS, classifier), first)


@pytest.mark.parametrize("name", ["D_rand", "D_R"])
def test_another_seed_gives_other_images(name, source, classifier):
    first, second = (CONSTRUCTIONS[name](source, INDEX, example_keys(seed, INDEX), classifier) for seed in (0, 1))
    assert not torch.equal(first.x, second.x)


@every_construction
def test_a_caller_without_gradients_gets_the_same_images(construction, source, classifier):
    made = construction(source, INDEX, KEYS, classifier)
    with torch.no_grad():
        assert_same(construction(source, INDEX, KEYS, classifier), made)


@every_construction
def test_a_stand_in_for_the_steps_changes_rounding_only(construction, source, classifier):
    made = construction(source, INDEX, KEYS, classifier)
    faster = construction(source, INDEX, KEYS, classifier, construction.fast_model(classifier, None))
    assert torch.equal(faster.y, made.y)
    torch.testing.assert_close(faster.x, made.x, rtol=0, atol=1e-4)


@every_construction
def test_floating_point_sources_are_taken_as_they_are(construction, source, classifier):
    floats = replace(source, pixels=source.pixels.float() / 255)
    assert_same(construction(floats, INDEX, KEYS, classifier), construction(source, INDEX, KEYS, classifier))


@every_construction
@pytest.mark.parametrize("searched", [False, True], ids=["itself", "stand-in"])
def test_nothing_but_the_answer_is_left(construction, searched, source, classifier):
    restless(classifier)
    with untouched(classifier, source.pixels, source.labels, INDEX, KEYS):
        fast_model = construction.fast_model(classifier, torch.bfloat16) if searched else None
        construction(source, INDEX, KEYS, classifier, fast_model)


@every_construction
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("passes", [0, 3])
def test_nothing_is_left_after_an_exception_either(construction, error, passes, source, classifier):
    left = iter([None] * passes)

    def fail(module, inputs):
        if next(left, error) is error:
            raise error("in the middle")

    restless(classifier).body.register_forward_pre_hook(fail)
    with untouched(classifier, source.pixels, source.labels), pytest.raises(error):
        construction(source, INDEX, KEYS, classifier)


@every_construction
def test_no_images_make_no_images(construction, source, classifier):
    made = construction(source, INDEX[:0], KEYS[:0], classifier)
    assert made.x.shape == (0, 3, 8, 8) and made.y.shape == (0,) and all(fact.shape == (0,) for fact in made.facts.values())


def test_a_description_is_json_and_changes_with_every_setting():
    threats = ThreatModel(L2(), 1.0), ThreatModel(Linf(), 0.5)
    relabelled = [CONSTRUCTIONS["D_rand"], *(replace(CONSTRUCTIONS["D_rand"], threat=threat) for threat in threats)]
    relabelled += [replace(relabelled[0], **other) for other in ({"targets": next_class}, {"steps": 5}, {"step_size": 0.1})]
    inverted = [CONSTRUCTIONS["D_R"], replace(CONSTRUCTIONS["D_R"], steps=5), replace(CONSTRUCTIONS["D_R"], step_size=0.1)]
    told = [construction.described() for construction in (*relabelled, *inverted)]
    assert [json.loads(json.dumps(one)) for one in told] == told
    assert all(told.count(one) == 1 for one in told)
