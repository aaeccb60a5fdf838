"""Networks of others by name: their weights, what images need put inside, names and mistakes; no byte comes from the network."""

from __future__ import annotations

import json
import sys
import types
import urllib.error
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from laws import images
from torch import nn

from robustlab.commands import main
from robustlab.errors import UserError
from robustlab.models.description import describe, from_description
from robustlab.models.naming import short_names
from robustlab.models.zoo import list_models, load, load_model
from robustlab.paths import names_function
from robustlab.settings import Network
from robustlab.synthesis.replay import FORMAT, read_replay

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
URL = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty folder of torch's downloads, and no network."""

    def unreachable(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def small_weights(hub: Path) -> nn.Module:
    """The smallest network of torchvision, with weights that lie where a download would have put them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = torchvision.models.mobilenet_v3_small()
    torch.save(network.state_dict(), hub / URL.rpartition("/")[2])
    return network.eval()


# torchvision


def test_weights_of_torchvision_are_read_with_their_normalization_and_classes(hub, capsys):
    theirs, x, before = small_weights(hub), images(2, 3, 64, 64), torch.get_rng_state()
    model = load("torchvision:mobilenet_v3_small")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert torch.allclose(model(x), theirs((x - MEAN) / STD), atol=1e-6)
        again = from_description(describe(model))
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.eval()(x), model(x))
    assert model.classes[:2] == ("tench", "goldfish") and model.image_size == 224 and not model.training
    assert "IMAGENET1K_V1): trained on images of 224x224 pixels" in capsys.readouterr().err
    assert load("torchvision:mobilenet_v3_small:IMAGENET1K_V1").num_classes == 1000


def test_a_download_that_fails_is_one_sentence(hub):
    with pytest.raises(
        UserError, match=rf"cannot download the weights of torchvision:mobilenet_v3_small: .*not known>; {URL} belongs into {hub}"
    ):
        load("torchvision:mobilenet_v3_small")


@pytest.mark.parametrize("content", [b"<html>too many requests</html>", b""], ids=["a page", "nothing"])
def test_a_damaged_download_is_named(hub, content):
    (hub / URL.rpartition("/")[2]).write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or holds other weights than those of torchvision:mobilenet_v3_small: delete it"):
        load("torchvision:mobilenet_v3_small")


def test_weights_of_another_network_are_refused(hub):
    torch.save(nn.Linear(2, 2).state_dict(), hub / URL.rpartition("/")[2])
    with pytest.raises(UserError, match="the file with weights of torchvision:mobilenet_v3_small does not fit"):
        load("torchvision:mobilenet_v3_small")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision:resnet81", "unknown architecture 'torchvision:resnet81'. Did you mean torchvision:resnet18, "),
        ("torchvision:mobilenet_v3_small:V2", "unknown weights of torchvision:mobilenet_v3_small 'V2'. .*IMAGENET1K_V1"),
        ("torchvison:resnet18", "no module 'torchvison', .* Did you mean 'torchvision:resnet18'?"),
    ],
)
def test_a_name_with_a_mistake_is_answered_with_the_nearest(name, says):
    with pytest.raises(UserError, match=says):
        load(name)


def test_evaluate_takes_a_model_of_torchvision(hub, tmp_path, capsys):
    small_weights(hub)
    x, y = (255 * images(4, 3, 32, 32)).byte(), torch.arange(4)
    classes = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.meta["categories"][:4]
    np.savez(tmp_path / "test.npz", x=x.numpy(), y=y.numpy(), classes=np.array(classes))
    words = [
        "evaluate",
        "--model",
        "torchvision:mobilenet_v3_small",
        "--data",
        str(tmp_path),
        "--attack",
        "fgsm",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) in (0, None)
    assert "FGSM" in capsys.readouterr().out and (tmp_path / "out").is_dir()


# timm


def test_weights_of_timm_are_read_with_their_normalization_and_classes(monkeypatch):
    """With a stand-in of the same interface, so that the extra need not be installed."""

    class Net(nn.Sequential):
        pretrained_cfg = {
            "mean": (0.5,) * 3,
            "std": (0.25,) * 3,
            "input_size": (3, 16, 16),
            "tag": "a1",
            "label_names": ("cat", "crane", "crane"),
        }

    def create_model(name: str, pretrained: bool, in_chans: int) -> nn.Module:
        if name == "gone_net":
            raise RuntimeError("No pretrained\nweights exist for gone_net.")
        assert pretrained
        return Net(nn.Conv2d(in_chans, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))

    fake: Any = types.ModuleType("timm")
    fake.list_models = lambda pretrained=False: ["tiny_net.a1"] if pretrained else ["tiny_net", "gone_net"]
    fake.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", fake)
    for name in ("timm:tiny_net", "timm:tiny_net.a1"):
        model = load(name)
        assert model.arch == "timm:tiny_net" and model.classes == ("cat", "crane (1)", "crane (2)") and model.image_size == 16
        assert model.features(images(2, 3, 16, 16)).shape == (2, 6) and model.mean.flatten().tolist() == [0.5] * 3
    with pytest.raises(UserError, match="Did you mean timm:tiny_net"):
        load("timm:tinynet")
    with pytest.raises(UserError, match="timm could not load the weights of gone_net: No pretrained weights exist for gone_net."):
        load("timm:gone_net")


# RobustBench


class BenchmarkDataset(Enum):
    cifar_10 = "cifar10"
    cifar_100 = "cifar100"


class Threat(Enum):
    Linf = "Linf"
    L2 = "L2"


@pytest.fixture
def robustbench(monkeypatch, tmp_path) -> list[tuple[Any, ...]]:
    """A stand-in for the package, whose files are those that a test makes; the calls of its loader."""
    calls: list[tuple[Any, ...]] = []

    def load_model(name: str, *, model_dir: Path, dataset: str, threat_model: str) -> nn.Module:
        calls.append((name, dataset, threat_model))
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, OUTPUTS[dataset]))
        network.load_state_dict(torch.load(Path(model_dir, dataset, threat_model, f"{name}.pt")))
        return network

    OUTPUTS = {"cifar10": 10, "cifar100": 100}
    package, zoo, utils = (types.ModuleType(f"robustbench{part}") for part in ("", ".model_zoo", ".utils"))
    zoo.model_dicts = {  # type: ignore[attr-defined]
        BenchmarkDataset.cifar_10: {Threat.Linf: {"Wong2020Fast": 0, "Standard": 0}, Threat.L2: {"Rice2020Overfitting": 0, "Standard": 0}},
        BenchmarkDataset.cifar_100: {Threat.Linf: {"Rice2020Overfitting": 0}},
    }
    utils.load_model, package.model_zoo = load_model, zoo  # type: ignore[attr-defined]
    for module in (package, zoo, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize("folder", ["home/hub/robustbench", "models"], ids=["torch's folder", "RobustBench's own"])
def test_a_model_of_robustbench_is_loaded_by_its_own_code(robustbench, tmp_path, folder):
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    place = tmp_path / folder / "cifar10" / "Linf" / "Wong2020Fast.pt"
    place.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), place)
    x = images(2, 3, 8, 8)
    for name in ("Wong2020Fast", "Wong2020Fast:cifar10", "Wong2020Fast:CIFAR10:linf"):
        model = load(f"robustbench:{name}")
        assert torch.equal(model(x), theirs(x)) and model.num_classes == 10 and model.unnamed and model.arch == ""
    assert robustbench == [("Wong2020Fast", "cifar10", "Linf")] * 3
    assert torch.equal(model.features(x), theirs(x))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Wong2020", "unknown model 'robustbench:Wong2020'. Did you mean robustbench:Wong2020Fast"),
        ("Standard", "several models of the name Standard, say which: robustbench:Standard:cifar10:Linf, robustbench:Standard:cifar10:L2"),
        ("Standard:cifar", "unknown data set of RobustBench 'cifar'. Did you mean 'cifar10'?"),
        ("Standard:cifar10:L1", "unknown threat model of RobustBench's cifar10 'L1'"),
        ("Rice2020Overfitting:cifar100", "could not load robustbench:Rice2020Overfitting:cifar100:Linf: No such file"),
    ],
)
def test_what_robustbench_does_not_have_is_told(robustbench, name, says):
    with pytest.raises(UserError, match=says):
        load(f"robustbench:{name}")


def test_without_robustbench_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo", None)
    with pytest.raises(
        UserError, match=r"robustbench:Standard needs robustbench, which is not installed: pip install robustlab\[robustbench\]"
    ):
        load("robustbench:Standard")


# module:function

MINE = """
from torch import nn
import robustlab
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 15 * 15, 10)).double().train()
def grey():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 5))
def ours():
    return robustlab.build("small", num_classes=4)
class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3072, 3))
class Odd(nn.Module):
    def forward(self, x):
        raise RuntimeError("odd")
def bad():
    raise OSError("no file\\nweights.pt")
def number():
    return 3
def maps():
    return nn.Conv2d(3, 4, 3)
def lazy():
    return nn.LazyLinear(3)
made = grey()
text = "x"
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mynets.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import nothing_there")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mynets", "broken", "ends"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_function_of_the_current_folder_gives_a_network(mine):
    found = {name: load(f"mynets:{name}") for name in ("net", "grey", "ours", "Plain", "made")}
    assert {name: (model.num_classes, model.channels, model.training) for name, model in found.items()} == {
        "net": (10, 3, False),
        "grey": (5, 1, False),
        "ours": (4, 3, False),
        "Plain": (3, 3, False),
        "made": (5, 1, False),
    }
    assert found["ours"].arch == "small" and all(p.dtype == torch.float32 for p in found["net"].parameters())
    x = images(2, 3, 32, 32)
    normalized = load("mynets:Plain", normalization=([0.5] * 3, [0.25] * 3))
    normalized.body.load_state_dict(found["Plain"].body.state_dict())
    assert torch.allclose(normalized(x), found["Plain"]((x - 0.5) / 0.25), atol=1e-5)
    with torch.no_grad():
        odd = found["Plain"].body[1].bias.fill_(-torch.inf)  # a head that multiplied would make NaN of this
    assert torch.equal(found["Plain"](x), odd.expand(2, 3))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mynet:net", r"there is no module 'mynet', neither in .* nor installed. Did you mean 'mynets:net'\?"),
        ("mynets:nett", r"mynets has no function 'nett'. Did you mean 'mynets:net'\?"),
        ("broken:net", "importing broken raised ModuleNotFoundError: No module named 'nothing_there'"),
        ("ends:net", "importing ends raised SystemExit: 3"),
        ("mynets:bad", "mynets:bad raised OSError: no file weights.pt"),
        ("mynets:number", r"mynets:number returned 3, not a network \(torch.nn.Module\)"),
        ("mynets:text", "mynets:text is 'x', not a function that returns a network"),
        ("mynets:maps", r"the network must return logits \(B, classes\), and for 2 images it returned shape \(2, 4, 30, 30\)"),
        ("mynets:lazy", "a network with lazy layers"),
        ("mynets:Odd", r"reads no images of .* \(RuntimeError: odd\)"),
    ],
)
def test_a_mistake_in_a_function_is_one_sentence(mine, name, says):
    with pytest.raises(UserError, match=says):
        load(name)


def test_a_file_of_that_name_comes_first(mine):
    (mine / "a:b").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="a:b"):
        load("a:b")
    assert not names_function("a:b")


@pytest.mark.parametrize(
    ("name", "runs"),
    [("a:b", True), ("a.b:c", True), ("x.pt,a:b", True), ("m+a:b", True), ("torchvision:resnet18", False), ("a/b:c", False), (None, False)],
)
def test_which_names_run_code(name, runs):
    assert names_function(name) == runs


def test_no_file_may_say_which_function_runs(mine, capsys):
    (mine / "config.toml").write_text('model = "mynets:net"\n')
    assert main(["evaluate", "--config", "config.toml", "--dataset", "shapes"]) == 2
    assert "model cannot stand in a file: give --model on the command line" in capsys.readouterr().err
    with pytest.raises(UserError, match="training cannot start from mynets:net"):
        load_model("mynets:net", Network())
    settings = {"model": "mynets:net", "judge": None}
    for record in (settings, {"model": None, "judge": "mynets:net"}):
        (mine / "sheet.json").write_text(
            json.dumps({"format": FORMAT, "settings": record, "models": {}, "data": {}, "versions": {}, "picture": ""})
        )
        with pytest.raises(UserError, match="sheet.json names mynets:net, a function, and no file may say what is run"):
            read_replay(mine / "sheet.json")
    assert "mynets" not in sys.modules


def test_their_names_make_names_of_folders():
    assert short_names(["torchvision:resnet18", "mine:net"]) == {"torchvision:resnet18": "torchvision-resnet18", "mine:net": "mine-net"}
    assert "robustbench:NAME" in repr(list_models()) and "module:function" in list_models()._repr_html_()
