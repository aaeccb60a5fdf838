"""What a user may pass, and the sentence that comes back for everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from laws import images

from robustlab.checks import attack_inputs, check_images, check_labels, with_logit_checks
from robustlab.errors import UserError, unknown
from robustlab.goals import Untargeted

BAD_IMAGES = {
    "8-bit": ((images(2, 3, 4, 4) * 255).byte(), r"floating point in \[0, 1\], got torch.uint8: divide 8-bit values by 255"),
    "0 to 255": (torch.arange(256.0).reshape(1, 1, 16, 16), r"found values from 0 to 255: they look like 0-255 values, divide by 255"),
    "normalized": (images(2, 3, 4, 4) * 4 - 2, r"found values from -\S+ to \S+: normalize inside the model, not before it"),
    "a little above 1": (torch.tensor([[0.0, 1.0 + 1e-6]]), r"must lie in \[0, 1\], found values from 0 to 1"),
    "a little below 0": (torch.tensor([[-1e-30, 0.5]]), r"must lie in \[0, 1\], found values from -1e-30 to 0.5"),
    "NaN": (torch.tensor([[0.5, torch.nan]]), r"must lie in \[0, 1\], found NaN"),
    "infinite": (torch.tensor([[0.5, torch.inf]]), r"found values from 0.5 to inf"),
    "no batch": (images(5), r"must come as a batch \(B, \.\.\.\), got shape \(5,\)"),
}


@pytest.mark.parametrize("x, sentence", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_what_is_no_batch_of_images_is_refused(x, sentence):
    with pytest.raises(UserError, match=sentence):
        check_images(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=repr)
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 1, 2, 7), (3, 10), (0, 3, 4, 4)], ids=repr)
def test_images_of_any_shape_and_precision_pass_and_so_do_none_at_all(dtype, shape):
    check_images(images(*shape).to(dtype))
    check_images(torch.zeros(shape, dtype=dtype))
    check_images(torch.ones(shape, dtype=dtype))


BAD_LABELS = {
    "float": (torch.tensor([0.0, 1.0]), r"int64 of shape \(2,\), got torch.float32 of shape \(2,\)"),
    "int32": (torch.tensor([0, 1], dtype=torch.int32), r"got torch.int32"),
    "one hot": (torch.eye(2, dtype=torch.int64), r"got \(2, 2\): of one-hot rows pass y.argmax\(1\)"),
    "too few": (torch.tensor([0]), r"int64 of shape \(2,\), got torch.int64 of shape \(1,\)"),
    "a number": (torch.tensor(1), r"of shape \(\)"),
    "negative": (torch.tensor([0, -1]), r"class indices from 0, found -1"),
}


@pytest.mark.parametrize("y, sentence", BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_what_is_no_class_index_per_image_is_refused(y, sentence):
    with pytest.raises(UserError, match=sentence):
        check_labels(y, images(2, 5))


def test_the_highest_label_is_told():
    assert check_labels(torch.tensor([3, 0, 7]), images(3, 5)) == 7
    assert check_labels(torch.zeros(0, dtype=torch.int64), images(0, 5)) == -1


BAD_OUTPUT = {
    "a tuple": (lambda x: (x, x), r"must return logits of shape \(2, classes\), got tuple"),
    "nothing": (lambda x: None, r"got NoneType"),
    "one dimension": (lambda x: x[:, 0], r"got \(2,\)"),
    "a picture": (lambda x: x[:, None], r"got \(2, 1, 5\)"),
    "another batch": (lambda x: x[:1], r"got \(1, 5\)"),
    "too few classes": (lambda x: x[:, :3], r"labels go up to 3, but the model has 3 classes \(0 to 2\)"),
}


@pytest.mark.parametrize("model, sentence", BAD_OUTPUT.values(), ids=BAD_OUTPUT.keys())
def test_what_are_no_logits_for_these_labels_is_refused(model, sentence):
    with pytest.raises(UserError, match=sentence):
        with_logit_checks(model, 3)(images(2, 5))


def test_logits_pass_unchanged():
    x = images(2, 4)
    assert with_logit_checks(lambda x: x, 3)(x) is x


@pytest.mark.parametrize("wrong, guess", [("resnet81", "resnet18"), ("ResNet18", "resnet18"), ("wrn2810", "wrn-28-10")])
def test_a_name_that_is_not_known_brings_the_nearest_one(wrong, guess):
    error = unknown("architecture", wrong, ["wrn-28-10", "resnet18"])
    assert str(error) == f"unknown architecture {wrong!r}. Did you mean {guess!r}? Known: resnet18, wrn-28-10"


def test_a_name_like_no_other_brings_the_list():
    assert str(unknown("recipe", "qqqq", ["madry", "fast"])) == "unknown recipe 'qqqq'. Known: fast, madry"


def test_a_users_mistake_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_what_an_attack_is_given_comes_back_as_tensors():
    x, y = images(3, 5), torch.tensor([2, 0, 1])
    for given in (
        (x, y),
        (x.numpy(), y.numpy()),
        (x.double().numpy(), y.tolist()),
        (x.clone().requires_grad_(), tuple(y.tolist())),
        (x, y.to(torch.uint8)),
    ):
        found, labels, highest = attack_inputs(len, *given)
        assert torch.equal(found, x) and found.dtype == torch.float32 and not found.requires_grad
        assert torch.equal(labels, y) and labels.dtype == torch.int64 and highest == 2


def test_a_goal_comes_back_as_it_is_and_an_empty_batch_is_fine():
    goal = Untargeted(torch.tensor([0, 1]))
    assert attack_inputs(len, images(2, 5), goal)[1:] == (goal, -1)
    assert attack_inputs(len, images(0, 5), [])[2] == -1


@pytest.mark.parametrize(
    "model, sentence",
    [
        (
            "resnet18",
            r"^the model must be callable, from images to logits, got str: robustlab.load\('resnet18'\) gives a model by its name$",
        ),
        (None, "^the model must be callable, from images to logits, got NoneType$"),
    ],
)
def test_what_is_no_model_is_refused(model, sentence):
    with pytest.raises(UserError, match=sentence):
        attack_inputs(model, images(2, 5), torch.tensor([0, 1]))


def test_arrays_that_cannot_be_written_to_or_run_backwards_are_taken_too():
    x, y = images(3, 5).numpy(), np.array([2, 0, 1])
    for array in (x, y):
        array.flags.writeable = False
    assert torch.equal(attack_inputs(len, x, y)[0], images(3, 5))
    assert torch.equal(attack_inputs(len, x[::-1], y[::-1])[0], images(3, 5).flip(0))


def test_arrays_of_something_else_are_refused():
    with pytest.raises(UserError, match=r"^images must be numbers in \[0, 1\], got ndarray array\(\[\['a'"):
        attack_inputs(len, np.array([["a", "b"]]), [0])
    with pytest.raises(UserError, match=r"^labels must be one class index for each image, got list \['dog'\]$"):
        attack_inputs(len, images(1, 5), ["dog"])
    with pytest.raises(UserError, match=r"^labels must be one class index for each image, got list \[\[0, 1\], \[2\]\]$"):
        attack_inputs(len, images(2, 5), [[0, 1], [2]])
