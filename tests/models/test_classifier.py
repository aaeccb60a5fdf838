"""Laws of Classifier: normalization inside and unclamped, features and head, and a hook-friendly body."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from robustlab.errors import UserError
from robustlab.models.classifier import Classifier, Features
from robustlab.models.zoo import build


@pytest.fixture
def small() -> Classifier:
    return build("small", num_classes=5, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_normalization_is_inside(small: Classifier) -> None:
    x = images(4, 3, 32, 32)
    by_hand = (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    assert torch.equal(small(x), small.head(small.body(by_hand)))


def test_nothing_is_clamped_so_the_gradient_outside_the_box_lives() -> None:
    linear = Classifier(nn.Flatten(), nn.Linear(12, 2), mean=[0.5] * 3, std=[0.5] * 3)
    x = torch.tensor([-0.5, 0.5, 1.5]).repeat(4).view(1, 3, 2, 2).requires_grad_()
    gradient = torch.autograd.grad(linear(x)[0, 0], x)[0]
    torch.testing.assert_close(gradient.flatten(), 2 * linear.head.weight[0])


def test_logits_are_the_head_of_the_features(small: Classifier) -> None:
    x = images(3, 3, 24, 40)
    assert small.features(x).shape == (3, small.head.in_features)
    assert torch.equal(small(x), small.head(small.features(x)))


def test_state_dict_holds_weights_only(small: Classifier) -> None:
    assert {key.split(".")[0] for key in small.state_dict()} == {"body", "head"}


def test_normalization_follows_the_dtype(small: Classifier) -> None:
    assert small.double()(images(2, 3, 16, 16).double()).dtype == torch.float64


def test_names_of_classes() -> None:
    model = Classifier(nn.Flatten(), nn.Linear(4, 2), mean=[0.0], std=[1.0], classes=["cat", "dog"])
    assert (model.classes, model.num_classes, model.channels) == (("cat", "dog"), 2, 1)
    assert build("mlp", num_classes=3).classes == ("0", "1", "2")


def test_zero_images_give_zero_rows(small: Classifier) -> None:
    assert small(images(0, 3, 32, 32)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 4, 8, 8), (3, 8, 8), (2, 192)])
def test_other_shapes_are_refused_rather_than_broadcast(small: Classifier, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"wants images of shape \(B, 3, H, W\)"):
        small(images(*shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "2 outputs, but 3 class names"),
        ({"std": [0.0]}, "std must be positive"),
        ({"std": [1.0, 1.0]}, "one number per channel"),
    ],
)
def test_settings_that_disagree(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classifier(nn.Flatten(), nn.Linear(4, 2), **{"mean": [0.0], "std": [1.0]} | settings)


def test_hooks_see_every_activation_unchanged(small: Classifier) -> None:
    """An in-place ReLU would overwrite what a hook on the layer before it kept."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str):
        return lambda module, inputs, output: seen.__setitem__(name, (output, output.clone()))

    hooks = [module.register_forward_hook(keep(name)) for name, module in small.named_modules()]
    small(images(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert sum(isinstance(module, nn.ReLU) for module in small.modules()) == 9
    assert all(torch.equal(output, copy) for output, copy in seen.values())


def linear(classes: list[str] | None, outputs: int = 3) -> Classifier:
    return Classifier(nn.Flatten(), nn.Linear(4, outputs), mean=[0.5], std=[0.5], classes=classes)


@pytest.mark.parametrize(
    ("outputs", "classes", "expected"),
    [
        (["cat", "dog", "eel"], ["cat", "dog", "eel"], [0, 1, 2]),
        (["cat", "dog", "eel"], ["eel", "cat", "dog"], [2, 0, 1]),
        (["cat", "dog", "eel"], ["dog"], [1]),
        (None, ["2", "0"], [2, 0]),
        (None, ["0", "1", "2"], [0, 1, 2]),
        (None, ["red", "green", "blue"], [0, 1, 2]),
        (["2", "1", "0"], ["0", "1", "2"], [2, 1, 0]),
    ],
)
def test_outputs_are_found_by_name_or_else_by_their_order(outputs: list[str] | None, classes: list[str], expected: list[int]) -> None:
    found = linear(outputs).outputs_for(classes, "pets")
    assert found.dtype == torch.int64 and found.tolist() == expected


@pytest.mark.parametrize(
    ("outputs", "classes", "message"),
    [
        (["cat", "dog", "eel"], ["dog", "cow"], "does not know all classes of pets: unknown class 'cow'"),
        (["cat", "dog", "eel"], ["catt"], "Did you mean 'cat'?"),
        (["cat", "dog", "eel"], ["0", "1", "2"], "unknown class '0'"),
        (None, ["red", "green"], "the model has 3 unnamed classes, but pets has 2"),
        (None, ["0", "1", "2", "3"], "the model has 3 unnamed classes, but pets has 4"),
    ],
)
def test_classes_that_no_output_stands_for_are_named(outputs: list[str] | None, classes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        linear(outputs).outputs_for(classes, "pets")
    assert "\n" not in str(caught.value)


def test_features_alone_are_the_classifiers_with_its_weights_modes_and_refusals(small: Classifier) -> None:
    features, x = Features(small), images(2, 3, 16, 16)
    assert torch.equal(features(x), small.features(x)) and features(x).shape == (2, small.head.in_features)
    assert [id(p) for p in features.parameters()] == [id(p) for p in small.parameters()]
    features.train()
    assert small.training and small.body.training
    with pytest.raises(UserError, match=r"wants images of shape \(B, 3, H, W\)"):
        features(images(2, 1, 16, 16))


def test_two_classes_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="the model has two classes called 'crane', numbers 0 and 2: give each a name of its own"):
        build("mlp", num_classes=3, classes=["crane", "dog", "crane"])
    model = build("mlp", num_classes=3, classes=["heron", "dog", "crane"])
    with pytest.raises(UserError, match="birds has two classes called 'crane'"):
        model.outputs_for(["crane", "crane"], "birds")
    model.classes = ("crane", "dog", "crane")  # as the page names outputs
    with pytest.raises(UserError, match="the model has two classes called 'crane'"):
        model.outputs_for(["crane"], "birds")
