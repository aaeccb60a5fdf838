"""Networks of others by their names, with their weights: torchvision's, timm's, RobustBench's, and what a function of the user's returns.

What the images need before the network is put inside, so that they stay in [0, 1] and eps means pixels.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustlab import extras
from robustlab.errors import UserError, in_one_line, unknown
from robustlab.models.architectures import timm_network, torchvision_network, unknown_of
from robustlab.models.classifier import Classifier
from robustlab.models.description import check_finite, check_shapes
from robustlab.models.frozen import frozen
from robustlab.paths import LIBRARIES, names_function
from robustlab.progress import say

Normalization = tuple[Sequence[float], Sequence[float]]
NONE: Normalization = ([0.0] * 3, [1.0] * 3)
# Their weights are for images mapped to [-1, 1], which they do by themselves only where torchvision loads the weights.
HALVES = {"googlenet": ([0.5] * 3, [0.5] * 3), "inception_v3": ([0.5] * 3, [0.5] * 3)}
OUTPUTS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}  # of RobustBench's data sets
SIDES = (32, 224, 28, 64, 96, 299)  # of images that an unknown network is tried on, in pixels


def is_other(name: str) -> bool:
    """Whether a name is one of these: ``torchvision:NAME``, ``timm:NAME``, ``robustbench:NAME`` or ``module:function``."""
    return name.startswith(tuple(f"{library}:" for library in LIBRARIES)) or names_function(name)


def load_other(name: str, normalization: Normalization | None = None) -> Classifier:
    """A classifier by the name that others gave it, on the CPU, in evaluation mode and float32.

    Args:
        name: ``torchvision:NAME`` or ``torchvision:NAME:WEIGHTS``; ``timm:NAME``; ``robustbench:NAME``, with ``:DATASET`` and
            ``:THREAT`` behind it where that alone is not one model; or ``module:function``, which is imported, also from the current
            folder, and called without arguments.
        normalization: mean and std per channel for ``module:function``, where its network wants normalized images; others have their own.

    Raises:
        UserError: no such name (says the nearest), weights that cannot be had, or what went wrong in a function and what it returned.
    """
    library, _, rest = name.partition(":")
    if library == "torchvision":
        model = _torchvision(rest)
    elif library == "timm":
        model = _timm(rest)
    elif library == "robustbench":
        model = _robustbench(rest)
    else:
        model = _function(name, normalization)
    return model.cpu().float().eval()


def _torchvision(name: str) -> Classifier:
    """A network of torchvision with its weights, by default the ones that it recommends."""
    arch, _, version = name.partition(":")
    known: Any = import_module("torchvision.models")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        network = torchvision_network(arch, 3)
    choices = known.get_model_weights(arch).__members__
    if version and version not in choices:
        raise unknown(f"weights of torchvision:{arch}", version, choices)
    if not choices:
        raise UserError(f"torchvision has no weights of {arch}")
    weights = choices[version or "DEFAULT"]
    _fill(network, _fetched(f"torchvision:{arch}", weights), f"torchvision:{arch}")
    way = weights.transforms()
    mean, std = HALVES.get(arch, (way.mean, way.std))
    _tell(f"torchvision:{arch}", weights.name, way.crop_size[0])
    return _classifier(network, f"torchvision:{arch}", (mean, std), way.crop_size[0], weights.meta["categories"])


def _fetched(name: str, weights: Any) -> dict[str, Tensor]:
    """Weights from torch's folder of downloads, or from their address."""
    place = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    here = place.exists()
    try:
        found: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # of the network, of the file, of what unpickles: the reasons are many, and the user needs one sentence
        if here:
            raise UserError(f"{place} is damaged, or holds other weights than those of {name}: delete it ({in_one_line(error)})") from error
        raise UserError(
            f"cannot download the weights of {name}: {in_one_line(error)}; {weights.url} belongs into {place.parent}"
        ) from error
    return found


def _fill(network: nn.Module, found: dict[str, Tensor], source: str) -> None:
    """Load weights whose names are those of the network, but for old files of DenseNets and for side branches that it lacks."""
    own = network.state_dict()
    old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
    named = {old.sub(r"\1\2", key): tensor for key, tensor in found.items()}
    kept = OrderedDict((key, tensor) for key, tensor in named.items() if key in own or not key.lower().startswith("aux"))
    kept._metadata = getattr(found, "_metadata", {})  # type: ignore[attr-defined]  # the version by which MnasNet reads its own
    check_shapes(network, kept, f"the file with weights of {source}", source)
    network.load_state_dict(kept, strict=False)
    check_finite(network.state_dict(), source)


def _timm(name: str) -> Classifier:
    """A network of timm with its weights; a tag, as in ``resnet50.a1_in1k``, chooses among several."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        network = timm_network(name, 3, pretrained=True)
    about: Any = network.pretrained_cfg
    mean, std, size = about["mean"], about["std"], about["input_size"][-1]
    _tell(f"timm:{name}", about.get("tag") or "", size)
    return _classifier(network, f"timm:{name.partition('.')[0]}", (mean, std), size, about.get("label_names") or ())


def _robustbench(name: str) -> Classifier:
    """A model of RobustBench, downloaded by its own code; it normalizes by itself."""
    package = extras.robustbench(f"robustbench:{name}")
    model, dataset, threat = _robustbench_entry(name, package.model_zoo.model_dicts)
    full = f"robustbench:{model}:{dataset}:{threat}"
    folder = Path("models") if Path("models", dataset, threat, f"{model}.pt").exists() else Path(torch.hub.get_dir(), "robustbench")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        try:
            network = import_module("robustbench.utils").load_model(model, model_dir=folder, dataset=dataset, threat_model=threat)
        except Exception as error:  # its code, its downloads
            again = f"; if {folder / dataset / threat} holds a damaged file of it, delete that" if folder.exists() else ""
            raise UserError(f"RobustBench could not load {full}: {in_one_line(error)}{again}") from error
    return _whole(network, OUTPUTS.get(dataset), NONE, None, full)


def _robustbench_entry(name: str, zoo: Any) -> tuple[str, str, str]:
    """The model, the data set and the threat model of ``NAME[:DATASET[:THREAT]]``, as RobustBench spells them."""
    model, dataset, threat = [*name.split(":"), "", ""][:3]
    tables = {(one.value, other.value): names for one, inner in zoo.items() for other, names in inner.items()}
    if dataset:
        chosen = _spelled("data set of RobustBench", dataset, {one for one, _ in tables})
        tables = {key: names for key, names in tables.items() if key[0] == chosen}
    if threat:
        chosen = _spelled(f"threat model of RobustBench's {dataset}", threat, {other for _, other in tables})
        tables = {key: names for key, names in tables.items() if key[1] == chosen}
    places = [key for key, names in tables.items() if model in names]
    if not places:
        raise unknown_of("robustbench", model, sorted({one for names in tables.values() for one in names}), "model")
    if len(places) > 1:
        which = ", ".join(f"robustbench:{model}:{one}:{other}" for one, other in places)
        raise UserError(f"RobustBench has several models of the name {model}, say which: {which}")
    return (model, *places[0])


def _spelled(kind: str, word: str, known: Iterable[str]) -> str:
    found = {one.lower(): one for one in known}
    if word.lower() not in found:
        raise unknown(kind, word, found.values())
    return found[word.lower()]


def _function(name: str, normalization: Normalization | None) -> Classifier:
    """The network that ``module:function`` returns."""
    module, _, function = name.partition(":")
    made = _called(name, _attribute(_imported(module, name), function, name))
    if isinstance(made, Classifier):
        return made
    if not isinstance(made, nn.Module):
        raise UserError(f"{name} returned {made!r:.60}, not a network (torch.nn.Module)")
    if any(is_lazy(weight) for weight in (*made.parameters(), *made.buffers())):
        raise UserError(f"{name} returned a network with lazy layers: run it once on an image before it is returned")
    first = next((part for part in made.modules() if isinstance(part, nn.Conv2d)), None)
    channels = [len(normalization[0])] if normalization else [first.in_channels] if first is not None else [3, 1]
    outputs, channel = _tried(made.cpu().float(), channels, name)
    return _whole(made, outputs, normalization or ([0.0] * channel, [1.0] * channel), None, name)


def _imported(module: str, name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # and it stays: a network may import more when it is called
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{name}: importing {module} raised ModuleNotFoundError: {in_one_line(error)}") from error
        known = [*LIBRARIES, *(path.stem for path in Path(here).glob("*.py"))]
        near = difflib.get_close_matches(module, known, n=1)
        guess = f" Did you mean {name.replace(module, near[0], 1)!r}?" if near else ""
        raise UserError(f"{name}: there is no module {error.name!r}, neither in {here} nor installed.{guess}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{name}: importing {module} raised {type(error).__name__}: {in_one_line(error)}") from error


def _attribute(module: Any, function: str, name: str) -> Any:
    if not hasattr(module, function):
        known = [one for one in dir(module) if callable(getattr(module, one)) and not one.startswith("_")]
        near = difflib.get_close_matches(function, known, n=1, cutoff=0.4)
        guess = f" Did you mean {name.replace(f':{function}', f':{near[0]}')!r}?" if near else ""
        raise UserError(f"{name}: {module.__name__} has no function {function!r}.{guess}")
    return getattr(module, function)


def _called(name: str, function: Any) -> Any:
    if isinstance(function, nn.Module):
        return function
    if not callable(function):
        raise UserError(f"{name} is {function!r:.60}, not a function that returns a network")
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} raised {type(error).__name__}: {in_one_line(error)}") from error


def _tried(network: nn.Module, channels: Sequence[int], name: str) -> tuple[int, int]:
    """How many logits a network gives for black images, and for images of how many channels."""
    reason = ""
    with frozen(network), torch.no_grad():
        for channel in channels:
            for side in SIDES:
                try:
                    logits = network(torch.zeros(2, channel, side, side))
                except Exception as error:  # whatever a stranger's network raises for images of another size
                    reason = reason or f"{type(error).__name__}: {in_one_line(error, 150)}"
                    continue
                if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
                    shape = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                    raise UserError(f"{name}: the network must return logits (B, classes), and for 2 images it returned {shape}")
                return logits.shape[1], channel
    last = [part.out_features for part in network.modules() if isinstance(part, nn.Linear)]
    if not last:
        raise UserError(f"{name}: the network reads no images of {SIDES} pixels ({reason}): return a robustlab.Classifier, which says more")
    return last[-1], channels[0]


def _classifier(network: nn.Module, arch: str, normalization: Normalization, size: int, names: Sequence[str]) -> Classifier:
    """A network of a library as features and a head, where its last layer is one; else as a whole."""
    probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with frozen(network), torch.no_grad():
        expected = network(probe)
    found = _split(network, expected.shape[1], probe, expected)
    classes = _distinct(names) if len(names) == expected.shape[1] else None
    if found is None:
        return _whole(network, expected.shape[1], normalization, classes, arch, size)
    model = Classifier(network, found, mean=normalization[0], std=normalization[1], arch=arch, classes=classes)
    model.image_size = size
    return model


def _split(network: nn.Module, outputs: int, probe: Tensor, expected: Tensor) -> nn.Linear | None:
    """Take the last layer off, unless something comes after it or beside it."""
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear) and part.out_features == outputs]
    if len(layers) != 1:
        return None
    name, last = layers[0]
    network.set_submodule(name, nn.Identity())
    with frozen(network), frozen(last), torch.no_grad():
        features = network(probe)
        if features.shape == (1, last.in_features) and torch.allclose(last(features), expected, rtol=1e-4, atol=1e-5):
            return last
    network.set_submodule(name, last)
    return None


class _AsIs(nn.Linear):
    """A last layer that changes nothing: behind a network that cannot be divided, whose logits stand for the features."""

    def __init__(self, outputs: int) -> None:
        super().__init__(outputs, outputs, bias=False)
        nn.init.eye_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x


def _whole(
    network: nn.Module, outputs: int | None, normalization: Normalization, names: Sequence[str] | None, source: str, size: int | None = None
) -> Classifier:
    if outputs is None or outputs < 2:
        raise UserError(f"{source}: a classifier needs at least two classes, got {outputs}")
    mean, std = normalization
    with torch.random.fork_rng(devices=[]):
        model = Classifier(network, _AsIs(outputs), mean=mean, std=std, classes=names)
    model.image_size = size
    return model


def _distinct(names: Sequence[str]) -> list[str]:
    """ImageNet has two cranes: of names that come twice each gets its number."""
    many = Counter(names)
    return [f"{name} ({place})" if many[name] > 1 else name for place, name in enumerate(names)]


def _tell(name: str, weights: str, size: int) -> None:
    say(f"{name}{f' ({weights})' if weights else ''}: trained on images of {size}x{size} pixels")
