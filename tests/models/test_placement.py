"""A model on another device is a copy; the one that was lent stays where it is."""

from __future__ import annotations

import pytest
import torch
from laws import inventory
from torch import nn

from robustlab.models.architectures import meta_network
from robustlab.models.placement import likes_channels_last, on_device


def test_a_model_that_is_there_is_itself(tiny_model):
    assert on_device(tiny_model, "cpu") is tiny_model is on_device(tiny_model, torch.device("cpu"))


def test_a_model_elsewhere_is_copied(tiny_model):
    """A device without memory stands for a GPU."""
    before = inventory(tiny_model)
    copied = on_device(tiny_model, "meta")
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in tiny_model.state_dict().values()} == {"cpu"}
    assert before["objects"] == inventory(tiny_model)["objects"]
    assert [module.training for module in copied.modules()] == [module.training for module in tiny_model.modules()]


def test_a_model_without_weights_is_itself():
    flat = nn.Flatten()
    assert on_device(flat, "meta") is flat


@pytest.mark.parametrize("arch, likes", [("small", True), ("resnet18", True), ("small-4", False), ("small-8", True), ("mlp", True)])
def test_narrow_networks_are_not_trained_in_channels_last(arch: str, likes: bool) -> None:
    """On some CPUs the gradient of a narrow convolution's weights would write beyond their memory."""
    assert likes_channels_last(meta_network(arch, num_classes=2)) is likes
