"""Weights come back as they went, files of other projects give the same logits, and nothing in a file runs unasked."""

from __future__ import annotations

import json
import os
import warnings
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.errors import UserError
from robustlab.models import checkpoints
from robustlab.models.accelerate import accelerate
from robustlab.models.architectures import BODIES
from robustlab.models.checkpoints import Provenance, also_measured, pretrained, reached, read_record, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.models.zoo import TRAINING_FORMAT, build, describe, from_description, load

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PROVENANCE = Provenance(
    dataset="shapes", recipe="madry-l2", threat="L2 eps=0.5", accuracies={"clean": 91.25, "PGD-20": 60.5}, n=1000, seed=3, commit="abc123"
)


def images(count: int = 4, size: int = 32, channels: int = 3) -> Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(1))


def trained(arch: str = "small", **settings: Any) -> Classifier:
    """A network whose BatchNorm statistics are not the initial ones, in evaluation mode."""
    model = build(arch, **{"num_classes": 4, "mean": MEAN, "std": STD, "classes": ["ant", "bee", "cat", "dog"], "seed": 5} | settings)
    model.train()(images(8, 16, model.channels))
    return model.eval()


def logits(model: nn.Module, x: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(images() if x is None else x)


# Weights and what they are


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model = trained()
    path = save_weights(tmp_path / "shapes-l2.v1", model, PROVENANCE)
    for name in (path, tmp_path / "shapes-l2.v1.safetensors"):
        again = load(name)
        assert torch.equal(logits(again), logits(model))
        assert describe(again) == describe(model)
        assert not again.training


def test_the_json_says_what_the_weights_are(tmp_path: Path) -> None:
    record = json.loads(save_weights(tmp_path / "w", trained(), PROVENANCE, half=True).read_text())
    assert record["arch"] == "small" and record["classes"] == ["ant", "bee", "cat", "dog"] and record["mean"] == list(MEAN)
    assert record["threat"] == "L2 eps=0.5" and record["accuracies"]["PGD-20"] == 60.5 and (record["n"], record["seed"]) == (1000, 3)
    assert record["dtype"] == "float16" and len(record["sha256"]) == 64


def test_half_precision_halves_the_file_and_barely_moves_the_logits(tmp_path: Path) -> None:
    model = trained()
    save_weights(tmp_path / "full", model, PROVENANCE)
    save_weights(tmp_path / "half", model, PROVENANCE, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.53 * sizes[0]
    again = load(tmp_path / "half.json")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    torch.testing.assert_close(logits(again), logits(model), rtol=0.02, atol=0.02)


def test_half_precision_loses_only_once(tmp_path: Path) -> None:
    save_weights(tmp_path / "one", trained(), PROVENANCE, half=True)
    save_weights(tmp_path / "two", load(tmp_path / "one.json"), PROVENANCE, half=True)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = trained()
    nn.init.constant_(model.head.bias, 1e6)
    with pytest.raises(UserError, match="too large for half precision"):
        save_weights(tmp_path / "w", model, PROVENANCE, half=True)
    assert list(tmp_path.iterdir()) == []


def test_weights_over_the_limit_are_not_released(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"44\.7 MB, more than the 25 MB that can be released; half precision would halve that"):
        save_weights(tmp_path / "w", trained("resnet18"), PROVENANCE, release=True)
    assert list(tmp_path.iterdir()) == []
    assert save_weights(tmp_path / "w", trained("resnet18"), PROVENANCE, half=True, release=True).exists()


def test_weights_of_any_size_are_saved_as_they_are(tmp_path: Path) -> None:
    model = trained("resnet18")
    record = json.loads(save_weights(tmp_path / "w", model, PROVENANCE).read_text())
    assert record["dtype"] == "float32"
    weights = load(tmp_path / "w.json").state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_network_without_a_name_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="build it by robustlab.build"):
        save_weights(tmp_path / "w", Classifier(nn.Flatten(), nn.Linear(4, 2), mean=[0.0], std=[1.0]), PROVENANCE)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(**changes: Any):
    def change(path: Path) -> None:
        record = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("ending", "damage", "message"),
    [
        (".safetensors", truncate, "is damaged or was exchanged: its sha256 is"),
        (".safetensors", Path.unlink, "cannot read the weights .*: No such file"),
        (".json", Path.unlink, "cannot read .*json, which says what network"),
        (".json", truncate, "is not JSON"),
        (".json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not JSON"),
        (".json", lambda path: path.write_text("[1, 2]"), "does not describe the weights of a network"),
        (".json", edit(sha256=None), "does not describe the weights of a network"),
        (".json", edit(sha256="0" * 64), "w.json says 000000000000"),
        (".json", edit(arch="smal", description_sha256=None), "Did you mean 'small'"),
        (".json", edit(arch=None, mean=None), "does not say what network it holds: arch, mean missing"),
        (".json", edit(num_classes="4"), "does not say what network it holds"),
        (".json", edit(arch=7), "does not say what network it holds"),
        (".json", edit(mean=["a", "b", "c"]), "does not say what network it holds"),
        (".json", edit(arch="mlp", description_sha256=None), "does not fit the architecture mlp"),
        (".json", edit(classes=["a"], description_sha256=None), "4 outputs, but 1 class names"),
    ],
)
def test_damaged_weights(tmp_path: Path, ending: str, damage: Any, message: str) -> None:
    save_weights(tmp_path / "w", trained(), PROVENANCE)
    damage(tmp_path / f"w{ending}")
    rest = ".json" if ending == ".safetensors" else ".safetensors"
    with pytest.raises(UserError, match=message):
        load(tmp_path / f"w{rest}")


def test_bytes_that_are_no_safetensors_under_a_right_hash(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w", trained(), PROVENANCE)
    truncate(tmp_path / "w.safetensors")
    edit(sha256=checkpoints.files.sha256(tmp_path / "w.safetensors"))(path)
    with pytest.raises(UserError, match="is not a safetensors file"):
        load(path)


def test_names_in_the_folder_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTLAB_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UserError, match="no pretrained model in"):
        load("cifar10-l2")
    save_weights(tmp_path / "cifar10-l2", trained(), PROVENANCE)
    save_weights(tmp_path / "cifar10-standard", trained(), PROVENANCE)
    assert list(pretrained()) == ["cifar10-l2", "cifar10-standard"]
    assert pretrained(tmp_path)["cifar10-l2"]["recipe"] == "madry-l2"
    assert load("cifar10-l2").classes == ("ant", "bee", "cat", "dog")
    save_weights(tmp_path / "shapes-0.5", trained(), PROVENANCE)
    assert load("shapes-0.5").arch == "small"
    with pytest.raises(UserError, match="unknown checkpoint 'cifar10_l2'. Did you mean 'cifar10-l2'"):
        load("cifar10_l2")


def test_without_the_variable_the_projects_own_folder_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBUSTLAB_CHECKPOINTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert checkpoints.folder() == Path(checkpoints.__file__).parents[2] / "checkpoints"


# Checkpoints of training


def training_checkpoint(model: Classifier, **more: Any) -> dict[str, Any]:
    return {"format": TRAINING_FORMAT, **describe(model), "model": model.state_dict(), "epoch": 3, **more}


def test_a_training_checkpoint_gives_the_averaged_weights_where_there_are_any(tmp_path: Path) -> None:
    last, average = trained(seed=1), trained(seed=2)
    for ema, expected in ((None, last), (average.state_dict(), average)):
        torch.save(training_checkpoint(last, ema=ema), tmp_path / "last.pt")
        assert torch.equal(logits(load(tmp_path / "last.pt")), logits(expected))


def test_a_description_makes_the_same_network() -> None:
    model = trained(channels=1, mean=[0.1307], std=[0.3081])
    again = from_description(json.loads(json.dumps(describe(model))))
    assert describe(again) == describe(model)
    assert torch.equal(again.mean, model.mean) and torch.equal(again.std, model.std)


def test_training_checkpoints_without_weights_or_architecture(tmp_path: Path) -> None:
    torch.save(training_checkpoint(trained()) | {"model": None}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="without weights"):
        load(tmp_path / "last.pt")
    torch.save({"format": TRAINING_FORMAT, "model": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="does not say what network it holds"):
        load(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"arch": "mlp"}, "holds a small, not the mlp asked for"), ({"num_classes": 10}, "has 4 classes, not the 10 asked for")],
)
def test_another_network_than_asked_for(tmp_path: Path, asked: dict, message: str) -> None:
    torch.save(training_checkpoint(trained()), tmp_path / "last.pt")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "last.pt", **asked)


# Checkpoints of other projects


def torchvision_cifar(name: str) -> nn.Module:
    """torchvision's own ResNet, with the stem of a CIFAR network: an implementation independent of ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, num_classes=4)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        model.train()(images(8, 16))
    return model.eval()


def named_as_madry(weights: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The keys of a ``robustness`` checkpoint saved under DataParallel, of which half are the attacker's copies."""
    theirs = {k.replace("downsample", "shortcut").replace("fc.", "linear."): v for k, v in weights.items()}
    named: OrderedDict[str, Tensor] = OrderedDict()
    normalization = {"new_mean": torch.tensor(MEAN).view(3, 1, 1), "new_std": torch.tensor(STD).view(3, 1, 1)}
    named.update({f"module.normalizer.{k}": v for k, v in normalization.items()})
    named.update({f"module.model.{k}": v for k, v in theirs.items()})
    named.update({f"module.attacker.normalize.{k}": v for k, v in normalization.items()})
    named.update({f"module.attacker.model.{k}": v for k, v in theirs.items()})
    return named


def normalized(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_madrylab_files_compute_what_they_computed(tmp_path: Path, name: str, zipped: bool) -> None:
    net = torchvision_cifar(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    file = {
        "model": named_as_madry(net.state_dict()),
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 50).state_dict(),
        "epoch": 150,
        "amp": None,
        "nat_prec1": torch.tensor(93.0),
        "adv_prec1": np.float64(70.17),  # the zoo's trainers left NumPy numbers behind
    }
    torch.save(file, tmp_path / "cifar_l2_0_5.pt", _use_new_zipfile_serialization=zipped)
    model = load(tmp_path / "cifar_l2_0_5.pt")
    assert model.arch == name and model.num_classes == 4
    torch.testing.assert_close(logits(model), logits(net, normalized(images())), rtol=1e-4, atol=1e-5)


def test_a_normalization_that_a_checkpoint_carries_is_its_own_whatever_is_said(tmp_path: Path) -> None:
    carried = {"normalizer.new_mean": torch.tensor(MEAN).view(3, 1, 1), "normalizer.new_std": torch.tensor(STD).view(3, 1, 1)}
    torch.save({"model": trained().state_dict() | carried}, tmp_path / "m.pt")
    model = load(tmp_path / "m.pt", normalization=([0.0] * 3, [1.0] * 3))
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(model.std.flatten(), torch.tensor(STD))


def test_numbers_of_an_older_numpy_are_read(tmp_path: Path) -> None:
    """NumPy 1 called the same function by another name; the old format holds that name as plain text."""
    path = tmp_path / "old.pt"
    torch.save(trained().state_dict() | {"best_prec1": np.float64(70.17)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert load(path, normalization=(MEAN, STD)).arch == "small"


def test_madrylab_imagenet_networks_are_torchvisions(tmp_path: Path) -> None:
    net = torchvision.models.resnet18(weights=None, num_classes=9)
    torch.save({"model": {f"module.model.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "rin.pt")
    model = load(tmp_path / "rin.pt", normalization=(MEAN, STD))
    assert model.arch == "torchvision:resnet18"
    torch.testing.assert_close(logits(model, images(2, 64)), logits(net.eval(), normalized(images(2, 64))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("container", ["state_dict", "model", "last", "best", "ema", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "1."])
def test_robustbench_wrappers_do_not_matter(tmp_path: Path, container: str | None, prefix: str) -> None:
    model = trained()
    weights: dict[str, Any] = {f"{prefix}{k.removeprefix('body.').replace('head.', 'linear.')}": v for k, v in model.state_dict().items()}
    weights |= {"mu": torch.tensor(MEAN).view(1, 3, 1, 1), "sigma": torch.tensor(STD).view(1, 3, 1, 1)}
    torch.save({container: weights, "epoch": 7} if container else weights, tmp_path / "Model.pt")
    assert torch.equal(logits(load(tmp_path / "Model.pt")), logits(model))


def test_a_normalizing_first_layer_is_taken_over(tmp_path: Path) -> None:
    model = trained()
    weights = {k.replace("body.", "model.").replace("head.", "model.fc."): v for k, v in model.state_dict().items()}
    weights |= {"normalize.mean": model.mean, "normalize.std": model.std}
    torch.save(weights, tmp_path / "m.pt")
    assert torch.equal(logits(load(tmp_path / "m.pt")), logits(model))


def preactivation_forward(w: dict[str, Tensor], x: Tensor, blocks: list[str], last: str) -> Tensor:
    """A pre-activation network written as a formula (He et al. 2016), from a state dict in TRADES' names."""

    def active(x: Tensor, bn: str) -> Tensor:
        return F.relu(F.batch_norm(x, *(w[f"{bn}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))))

    x = F.conv2d(x, w["conv1.weight"], padding=1)
    for block in blocks:
        a = active(x, f"{block}.bn1")
        stride = 2 if block[5] != "1" and block.endswith("0") else 1
        out = F.conv2d(a, w[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(active(out, f"{block}.bn2"), w[f"{block}.conv2.weight"], padding=1)
        direct = f"{block}.convShortcut.weight"
        x = out + (F.conv2d(a, w[direct], stride=stride) if direct in w else x)
    return F.linear(active(x, last).mean((2, 3)), w["fc.weight"], w["fc.bias"])


def test_trades_wide_resnets_compute_what_they_computed(tmp_path: Path) -> None:
    model = trained("wrn-28-10")
    theirs = {}
    for key, value in model.state_dict().items():
        key = key.removeprefix("body.").replace("shortcut.0", "convShortcut").replace("head.", "fc.")
        for stage in "123":
            key = key.replace(f"layer{stage}.", f"block{stage}.layer.")
        theirs["bn1." + key.removeprefix("bn.") if key.startswith("bn.") else key] = value
    unused = {f"sub_block1.layer.0.{k}": torch.zeros(16) for k in ("bn1.weight", "bn1.bias")}
    torch.save({f"module.{k}": v for k, v in (theirs | unused).items()}, tmp_path / "model_cifar_wrn.pt")
    with pytest.warns(UserWarning, match="holds no mean and std: its network is taken to read pixels"):
        again = load(tmp_path / "model_cifar_wrn.pt")
    assert again.arch == "wrn-28-10"
    blocks = [f"block{stage}.layer.{i}" for stage in (1, 2, 3) for i in range(4)]
    x = images(1, 16)
    torch.testing.assert_close(logits(again, x), preactivation_forward(theirs, x, blocks, "bn1"), rtol=1e-4, atol=1e-5)


def test_our_own_bare_state_dict_is_read_too(tmp_path: Path) -> None:
    model = trained("preact_resnet18", mean=[0.0] * 3, std=[1.0] * 3)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.warns(UserWarning, match="no mean and std"):
        assert torch.equal(logits(load(tmp_path / "weights.pt")), logits(model))


def test_checkpoints_before_batchnorm_counted(tmp_path: Path) -> None:
    model = trained()
    weights = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    torch.save(weights, tmp_path / "m.pt")
    assert torch.equal(logits(load(tmp_path / "m.pt", normalization=(MEAN, STD))), logits(model))


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, {"num_classes": 10}, "has 4 classes, not the 10 asked for"),
        ({"layer1.0.bn1.weight": None}, {}, "fits none of our architectures; name the nearest one by `arch`"),
        ({"layer1.0.bn1.weight": None}, {"arch": "small"}, r"does not fit the architecture small.*missing: body.layer1.0.bn1.weight$"),
        ({"gate.bias": torch.zeros(3)}, {"arch": "small"}, "unexpected: body.gate.bias$"),
        ({"conv1.weight": torch.zeros(16, 3, 5, 5)}, {"arch": "small"}, r"another shape: body.conv1.weight \(16x3x5x5, not 16x3x3x3\)"),
        ({}, {"arch": "wrn-28-10"}, r"missing: .* and \d+ more; unexpected: .* and \d+ more"),
    ],
)
def test_networks_that_do_not_fit(tmp_path: Path, change: dict, asked: dict, message: str) -> None:
    weights = {k.removeprefix("body.").replace("head.", "linear."): v for k, v in trained().state_dict().items()}
    weights = {k: v for k, v in {**change, **{k: v for k, v in weights.items() if k not in change}}.items() if v is not None}
    torch.save(weights, tmp_path / "m.pt")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "m.pt", normalization=(MEAN, STD), **asked)


LOOP: dict[str, Any] = {}
LOOP["model"] = LOOP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights but a list"),
        ({"epoch": 3, "loss": 0.1}, "holds no weights; it has epoch, loss"),
        ({}, "it has nothing"),
        (LOOP, "it has model"),
        ({"conv1.weight": torch.zeros(16, 3, 3, 3)}, "no matrix that could be the last layer"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "m.pt")


# Files that are damaged or dangerous


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_code_in_a_checkpoint_does_not_run_without_trust(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "it-ran"
    torch.save({"model": trained().state_dict(), "x": Malicious(mark)}, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"would run code when read \((posix|nt)\.system\); if you trust .*, give `trust=True`$"):
        load(tmp_path / "bad.pt")
    assert not mark.exists()
    load(tmp_path / "bad.pt", normalization=(MEAN, STD), trust=True)
    assert mark.exists()


def test_a_whole_module_is_read_with_trust_only(tmp_path: Path) -> None:
    torch.save({"model": torchvision_cifar("resnet18"), "args": Namespace(lr=0.1)}, tmp_path / "m.pt")
    with pytest.raises(UserError, match="torchvision.models.resnet") as caught:
        load(tmp_path / "m.pt")
    assert "Namespace" not in str(caught.value), "it is data"
    assert load(tmp_path / "m.pt", trust=True, normalization=(MEAN, STD)).arch == "resnet18"


def test_a_trusted_file_whose_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(os)("vanished_package")
    module.Thing = type("Thing", (), {"__module__": "vanished_package"})
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "vanished_package", module)
        torch.save({"x": module.Thing()}, tmp_path / "m.pt")
    with pytest.raises(UserError, match="needs the package vanished_package, which is not installed"):
        load(tmp_path / "m.pt", trust=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "is not a PyTorch checkpoint: it looks like a web page"),
        (b"cat,dog\n1,2\n", "is not a PyTorch checkpoint: it begins with b'ca'"),
        (b"PK\x03\x04 and no more", "is a damaged or incomplete checkpoint"),
        (b"\x80\x02}q\x00", "is a damaged or incomplete checkpoint"),
        (b"\x80\x02\xff\xff\xff", "is a damaged or incomplete checkpoint"),
    ],
    ids=["empty", "web page", "text", "half a zip", "half a pickle", "garbage"],
)
@pytest.mark.parametrize("trust", [False, True])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, message: str, trust: bool) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "m.pt", trust=trust)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_checkpoints(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save(training_checkpoint(trained()), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with warnings.catch_warnings(), pytest.raises(UserError, match="is a damaged or incomplete checkpoint") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.filterwarnings("ignore:.*holds no mean and std")  # where the name of our format was hit
def test_flipped_bytes_end_in_a_sentence_or_in_a_network(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save(training_checkpoint(trained("mlp", channels=1, mean=[0.0], std=[1.0])), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in generator.integers(0, 4000, 3):  # the beginning holds the pickle; the rest is weights
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.pt", "there is no checkpoint .*gone.pt"),
        (".", "is a folder without model.safetensors, the weights of a run that ended; name a checkpoint in it"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize("change", [{"mean": [0.4, 0.5, 0.5]}, {"std": [0.2, 0.2, 0.25]}, {"classes": ["a", "b", "c", "d"]}])
def test_a_changed_description_is_told_and_an_older_record_has_no_hash_of_it(tmp_path: Path, change: dict[str, Any]) -> None:
    path = save_weights(tmp_path / "w", trained(), PROVENANCE)
    edit(**change)(path)
    with pytest.raises(UserError, match="w.json is damaged or was changed: its description_sha256 is not that of its arch, num_classes"):
        load(path)
    edit(description_sha256=None)(path)
    assert load(path).arch


def test_every_model_that_ships_has_a_hash_of_its_description() -> None:
    for path in checkpoints.folder().glob("*.json"):
        record = checkpoints.read_record(path)
        assert record["description_sha256"] == checkpoints.description_hash(record)


def test_tied_weights_have_an_identity_of_their_own() -> None:
    """Two names of one tensor: safetensors refuses them as they are."""
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    apart = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    apart.load_state_dict(tied.state_dict())
    assert digest(tied) == digest(apart)
    with torch.no_grad():
        tied[0].weight[0, 0] += 1
    assert digest(tied) != digest(apart)
    with frozen(tied):
        assert not tied[2].weight.requires_grad
    assert tied[2].weight is tied[0].weight and tied[0].weight.requires_grad
    fast = accelerate(tied, dtype=torch.float32)
    x = torch.rand(3, 4)
    torch.testing.assert_close(fast(x), tied(x))


def test_tied_weights_are_saved_loaded_and_accelerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tied(torch.nn.Module):
        num_features = 12

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(channels, channels, 3, padding=1), torch.nn.Conv2d(channels, channels, 3, padding=1)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(self.two(self.one(x).relu()), 2).flatten(1)

    monkeypatch.setitem(BODIES, "tied", Tied)
    model = build("tied", num_classes=3, seed=1).eval()
    x = torch.rand(2, 3, 8, 8)
    for half in (False, True):
        again = load(save_weights(tmp_path / "tied", model, PROVENANCE, half=half))
        assert again.body.two.weight is again.body.one.weight
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=2e-3 if half else 0)
    torch.testing.assert_close(accelerate(model)(x), model(x), rtol=0, atol=1e-5)


def test_accuracies_on_other_images_stand_beside_the_first_and_replace_earlier_ones(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "model", build("mlp", num_classes=3), PROVENANCE)
    first = read_record(path)
    also_measured(path, {"clean": 90.0, "AutoAttack (L2 eps=0.5)": 41.0}, 200)
    also_measured(path, {"PGD-20 (L2 eps=1)": 30.0}, 500)
    also_measured(path, {"AutoAttack (L2 eps=0.5)": 40.0, "clean": 89.5}, 1000)
    record = read_record(path)
    assert [(one["n"], sorted(one["accuracies"].values())) for one in record["also"]] == [(500, [30.0]), (1000, [40.0, 89.5])]
    assert {**record, "also": []} == first and isinstance(load(path), Classifier)
    assert reached(record) == (
        "clean 91.2 %, PGD-20 60.5 % (n = 1,000); PGD-20 (L2 eps=1) 30.0 % (n = 500); AutoAttack (L2 eps=0.5) 40.0 % (n = 1,000)"
    )


@pytest.mark.parametrize("accuracies, n", [({}, 10), ({"clean": 101.0}, 10), ({"clean": 50.0}, 0)])
def test_what_is_no_accuracy_is_not_added(tmp_path: Path, accuracies: dict[str, float], n: int) -> None:
    path = save_weights(tmp_path / "model", build("mlp", num_classes=3), PROVENANCE)
    before = path.read_bytes()
    with pytest.raises(UserError, match="percentages from 0 to 100 of n >= 1 images"):
        also_measured(path, accuracies, n)
    assert path.read_bytes() == before


def test_a_record_whose_other_accuracies_are_none_is_refused(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "model", build("mlp", num_classes=3), PROVENANCE)
    record = json.loads(path.read_text())
    for wrong in ("none", ["clean"], [{"accuracies": {"clean": 90.0}}], [{"accuracies": {"clean": "90"}, "n": 10}]):
        path.write_text(json.dumps({**record, "also": wrong}))
        with pytest.raises(UserError, match="model.json does not hold"):
            read_record(path)
