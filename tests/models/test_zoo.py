"""Networks by name: every one runs on any image, starts from its seed alone, and is known by its number of parameters."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import torch
import torch.fx
from torch import nn

from robustlab.errors import UserError
from robustlab.models.architectures import meta_network
from robustlab.models.zoo import architectures, build

# Parameters for ten classes and three channels: the published sizes of the published networks.
PARAMETERS = {
    "mlp": 855_050,
    "small": 308_826,
    "medium": 1_136_810,
    "preact_small": 308_378,
    "vgg_small": 295_290,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "preact_resnet18": 11_172_170,
    "wrn-28-10": 36_479_194,
    "wrn-34-10": 46_160_474,
}
LIGHT = [
    "mlp",
    "small",
    "medium",
    "preact_small",
    "vgg_small",
    "resnet18",
    "preact_resnet18",
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_number_of_parameters() -> None:
    counted = {arch: sum(p.numel() for p in meta_network(arch, num_classes=10).parameters()) for arch in architectures()}
    assert counted == PARAMETERS


def test_names_and_shapes_need_no_symbolic_algebra() -> None:
    code = "import sys; import robustlab.models.architectures as a; a.meta_network('small', num_classes=10); print('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("arch", LIGHT)
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (1, 3, 32, 48), (2, 4, 64, 33)], ids=str)
def test_any_height_width_and_channels(arch: str, shape: tuple[int, ...]) -> None:
    model = build(arch, num_classes=2, mean=[0.5] * shape[1], std=[0.25] * shape[1], channels=shape[1]).eval()
    with torch.no_grad():
        assert model(images(*shape)).shape == (shape[0], 2)


@pytest.mark.parametrize("arch", ["wrn-28-10", "resnet50"])
def test_large_networks_run(arch: str) -> None:
    with torch.no_grad():
        assert build(arch, num_classes=10).eval()(images(1, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize("arch", LIGHT)
def test_traced_networks_compute_the_same(arch: str) -> None:
    model = build(arch, num_classes=3).eval()
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("arch", LIGHT)
def test_initial_weights_depend_on_the_seed_alone(arch: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(build(arch, num_classes=3, seed=seed).parameters())

    before = torch.random.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_a_default_device_does_not_matter() -> None:
    with torch.device("meta"):
        model = build("small", num_classes=3)
    assert torch.equal(model.body.conv1.weight, build("small", num_classes=3).body.conv1.weight)
    assert model.mean.device.type == "cpu"


@pytest.mark.parametrize("arch", ["small", "resnet18", "preact_resnet18"])
def test_signals_neither_die_nor_explode_at_the_start(arch: str) -> None:
    model = build(arch, num_classes=10, mean=[0.5] * 3, std=[0.25] * 3).train()
    x = images(8, 3, 32, 32).requires_grad_()
    logits = model(x)
    gradient = torch.autograd.grad(logits.square().sum(), x)[0]
    assert 0.1 < logits.std() < 10
    assert 1e-3 < gradient.flatten(1).norm(dim=1).min() and gradient.flatten(1).norm(dim=1).max() < 1e3


def test_torchvision_networks_end_in_our_head() -> None:
    for name in ("vgg11", "densenet121", "googlenet", "swin_t"):
        model = meta_network(f"torchvision:{name}", num_classes=7)
        assert model.head.out_features == 7
        assert sum(isinstance(m, nn.Linear) and m.out_features == 1000 for m in model.modules()) == 0


def test_timm_networks_end_in_our_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of the same interface, so that the extra need not be installed."""

    def create_model(name: str, pretrained: bool, in_chans: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_chans, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1000))

    fake = types.ModuleType("timm")
    vars(fake).update(list_models=lambda: ["tiny_net"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", fake)
    model = build("timm:tiny_net", num_classes=4, mean=[0.5], std=[0.5], channels=1)
    assert model(images(2, 1, 9, 7)).shape == (2, 4)
    assert model.features(images(2, 1, 9, 7)).shape == (2, 6)
    with pytest.raises(UserError, match="unknown architecture 'timm:tinynet'. Did you mean timm:tiny_net?"):
        build("timm:tinynet", num_classes=4)


def test_without_timm_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs the package timm; install it by: pip install timm"):
        build("timm:convnext_tiny", num_classes=10)


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("resnet-18", {}, "unknown architecture 'resnet-18'. Did you mean 'resnet18'"),
        ("torchvision:resnet81", {}, r"'torchvision:resnet81'. Did you mean torchvision:resnet18, torchvision:"),
        ("keras:vgg", {}, "unknown architecture 'keras:vgg'"),
        ("torchvision:squeezenet1_0", {}, "does not end in a linear layer"),
        ("small", {"num_classes": 1}, "at least two classes, got 1"),
        ("small", {"mean": [0.5]}, "images of 3 channels need a mean and std of 3 numbers, got 1"),
    ],
)
def test_what_cannot_be_built(arch: str, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(arch, **{"num_classes": 10} | settings)
