"""Checkpoints of others: averaged weights first, what lies beside a network is left out and named, nothing odd is taken for it."""

from __future__ import annotations

import argparse
import pathlib
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import images
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from robustlab import pickles
from robustlab.checks import MOST_CLASSES
from robustlab.errors import UserError
from robustlab.models.architectures import build
from robustlab.models.zoo import load

X = images(2, 3, 16, 16)
NORMALIZATION = ([0.5] * 3, [0.25] * 3)


def network(seed: int = 0, arch: str = "small", **more: Any) -> nn.Module:
    return build(arch, num_classes=4, seed=seed, mean=[0.5] * 3, std=[0.25] * 3, **more).eval()


def theirs(seed: int = 0) -> dict[str, Tensor]:
    """The weights under names of another project."""
    return {k.removeprefix("body.").replace("head.", "fc."): v for k, v in network(seed).state_dict().items()}


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def loaded(tmp_path: Path, content: Any, **how: Any) -> Tensor:
    torch.save(content, tmp_path / "m.pt")
    with torch.no_grad():
        return load(tmp_path / "m.pt", normalization=NORMALIZATION, **how)(X)


def expected(seed: int) -> Tensor:
    with torch.no_grad():
        return network(seed)(X)


AVERAGED = {
    "timm": lambda raw, average: {"arch": "small", "state_dict": raw, "state_dict_ema": average},
    "ema_state_dict": lambda raw, average: {"model_state_dict": raw, "ema_state_dict": average},
    "model_ema": lambda raw, average: {"model": raw, "model_ema": average, "epoch": 3},
    "torchvision's references": lambda raw, average: {
        "model": raw,
        "model_ema": {"n_averaged": torch.tensor(5), **under("module.", average)},
    },
    "ema with its decay": lambda raw, average: {"model": raw, "ema": {"decay": 0.99, "shadow": average}},
    "swa": lambda raw, average: {"state_dict": raw, "swa_state_dict": average},
    "two copies in one dict": lambda raw, average: {"state_dict": {**under("model.", raw), **under("ema_model.module.", average)}},
    "first the average": lambda raw, average: {**under("ema.", average), **under("net.", raw)},
}


@pytest.mark.parametrize("layout", AVERAGED.values(), ids=AVERAGED.keys())
@pytest.mark.filterwarnings("ignore:.*tensors beside the network's own were left out")
def test_averaged_weights_come_before_the_last_ones(tmp_path: Path, layout: Any) -> None:
    assert torch.equal(loaded(tmp_path, layout(theirs(1), theirs(2))), expected(2))


def test_an_average_without_names_is_told(tmp_path: Path) -> None:
    content = {"model": theirs(1), "ema": {"decay": 0.99, "shadow_params": list(theirs(2).values())}}
    with pytest.warns(UserWarning, match="averaged weights under 'ema' have no names"):
        assert torch.equal(loaded(tmp_path, content), expected(1))


def test_an_averaged_models_counter_is_no_weight(tmp_path: Path) -> None:
    assert torch.equal(loaded(tmp_path, AveragedModel(network(1)).state_dict()), expected(1))


BESIDE: dict[str, dict[str, Tensor]] = {
    "class weights": {"criterion.weight": torch.ones(4)},
    "a loss with a matrix": {"loss_fn.weight": torch.ones(4, 128)},
    "a metric's counter": {"train_acc.total": torch.tensor(3)},
    "a confusion matrix": {"val_confmat.confmat": torch.zeros(4, 4, dtype=torch.int64)},
    "a scale": {"temperature": torch.ones(1)},
    "a teacher": under("teacher.", theirs(9)),
}


@pytest.mark.parametrize("arch", [None, "small"])
@pytest.mark.parametrize("prefix", ["model.", "net.backbone."])
@pytest.mark.parametrize("extra", BESIDE.values(), ids=BESIDE.keys())
@pytest.mark.parametrize("first", [False, True])
def test_what_lies_beside_a_network_is_left_out_and_named(tmp_path: Path, extra: Any, prefix: str, arch: Any, first: bool) -> None:
    network_s = under(prefix, theirs(1))
    content = {"state_dict": {**extra, **network_s} if first else {**network_s, **extra}, "epoch": 3}
    with pytest.warns(UserWarning, match=f"m.pt: {len(extra)} tensors beside the network's own were left out: {next(iter(extra))}"):
        assert torch.equal(loaded(tmp_path, content, arch=arch), expected(1))


def test_a_known_name_beside_a_network_without_a_prefix(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 tensors beside .*: criterion.weight"):
        assert torch.equal(loaded(tmp_path, {**theirs(1), "criterion.weight": torch.ones(4)}), expected(1))


@pytest.mark.parametrize(
    "extra",
    [
        {"layer1.9.conv1.weight": torch.zeros(16, 16, 3, 3)},
        {"gate.bias": torch.zeros(3)},
        {"model.attention.weight": torch.zeros(3, 3)},
        {"head2.weight": torch.zeros(7, 4)},
    ],
    ids=str,
)
def test_what_may_be_a_layer_is_never_left_out(tmp_path: Path, extra: dict) -> None:
    prefix = "" if not next(iter(extra)).startswith(("model", "head2")) else "model."
    with pytest.raises(UserError, match="fits none of our architectures"):
        loaded(tmp_path, {**under(prefix, theirs()), **extra})


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({"state_dict": [theirs(1), theirs(2), theirs(3)]}, "holds 3 networks .'state_dict' is a list., and one is a model"),
        ({**under("a.", theirs(1)), **under("b.", theirs(2))}, r"holds 2 networks \(a., b.\), and one is a model"),
    ],
    ids=["a cascade", "two of a kind"],
)
def test_several_networks_are_named(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        loaded(tmp_path, content)


def test_a_programs_archive_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "m.pt")
    for trust in (False, True):
        with pytest.raises(UserError, match="is a TorchScript archive, which is a program"):
            load(tmp_path / "m.pt", trust=trust)


# The hub's safetensors


def test_a_safetensors_file_of_anybody_is_read_by_its_architecture(tmp_path: Path) -> None:
    save_file(under("model.", theirs(1)), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="cannot read .*model.json, which says what network"):
        load(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model.safetensors", arch="small", normalization=NORMALIZATION)(X), expected(1))
    with pytest.warns(UserWarning, match="no mean and std"):
        load(tmp_path / "model.safetensors", arch="small")
    with pytest.raises(UserError, match="does not fit the architecture mlp"):
        load(tmp_path / "model.safetensors", arch="mlp", normalization=NORMALIZATION)


# What trainers leave beside tensors


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_arrays_paths_and_namespaces_are_data(tmp_path: Path, zipped: bool) -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 3)), np.array(5.0)]
    arrays += [np.array([True, False]), np.array(["a", "bc"]), np.arange(3, dtype=">f4"), np.zeros(2, complex), np.uint8([1, 255])]
    args = argparse.Namespace(lr=0.1, out=Path("runs") / "a", seeds=[1, 2])
    content = {"arrays": arrays, "numbers": [np.float32(0.5), np.int64(-3), np.bool_(True)], "args": args, "o": OrderedDict(a=1)}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    found = pickles.load_pickle(tmp_path / "m.pt")
    for array, again in zip(arrays, found["arrays"], strict=True):
        assert array.dtype == again.dtype.newbyteorder(array.dtype.byteorder) and np.array_equal(array, again)
    assert found["numbers"] == content["numbers"] and vars(found["args"]) | {"out": 0} == vars(args) | {"out": 0}
    assert found["args"].out == pathlib.PurePosixPath("runs/a")


def test_weights_may_be_numpys(tmp_path: Path) -> None:
    assert torch.equal(loaded(tmp_path, {"state_dict": {k: v.numpy() for k, v in theirs(1).items()}}), expected(1))


def test_arrays_of_objects_are_not_read(tmp_path: Path) -> None:
    torch.save({"x": np.array([{}, None], dtype=object)}, tmp_path / "m.pt")
    with pytest.raises(UserError, match="only arrays of numbers and text are read"):
        pickles.load_pickle(tmp_path / "m.pt")


# Weights that are no numbers, and more than there is room for


def spoiled(weights: dict[str, Tensor], name: str, value: float) -> dict[str, Tensor]:
    weights[name].flatten()[0] = value
    return weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["fc.weight", "layer2.0.bn1.running_var", "conv1.weight"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, name: str, value: float) -> None:
    weights = {k: v.clone() for k, v in theirs(1).items()}
    if value == -1 and not name.endswith("running_var"):
        pytest.skip("a number like any other")
    with pytest.raises(UserError, match=rf"m.pt holds weights that are NaN, infinite, or a negative variance: .*{name.split('.')[-1]}"):
        loaded(tmp_path, spoiled(weights, name, value))


def test_one_number_that_stands_for_many_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    content = theirs(1) | {"fc.weight": torch.zeros(1).expand(200_000, 128), "fc.bias": torch.zeros(1).expand(200_000)}
    with pytest.raises(UserError, match="not stored number by number"):
        loaded(tmp_path, content)
    content = theirs(1) | {"fc.weight": torch.zeros(1).expand(4_000_000, 128), "fc.bias": torch.zeros(1).expand(4_000_000)}
    with pytest.raises(UserError, match="at most 250,000 classes, got 4,000,000"):
        loaded(tmp_path, content)


@pytest.mark.parametrize("classes", [MOST_CLASSES + 1, 10**9, 10**18])
def test_networks_of_no_known_size_are_not_built(classes: int) -> None:
    with pytest.raises(UserError, match="at most 250,000 classes"):
        build("small", num_classes=classes)
    with pytest.raises(UserError, match="1 to 1,024 channels"):
        build("small", num_classes=2, channels=classes)
