"""What long work can be told, in groups: where images lie, which model, which threat model, how to train. Standard library only.

Each group is a frozen dataclass whose fields say what they mean (``robustlab.options``). Commands put groups together; run folders
keep them; from Python they are built like any dataclass: ``Training(recipe="fast-l2", threat=Threat(eps=1.0))``.
"""

from __future__ import annotations

from dataclasses import dataclass

from robustlab.options import count, group, location, names, number, option, positive, radii, radius, several, threads
from robustlab.paths import names_function

NORMS = ("linf", "l2", "l1", "l0")
TRAINING_NORMS = NORMS[:3]
SCHEDULES = ("one-cycle", "cosine", "steps")
STAND_INS = ("none", "float32", "bfloat16")
OPTIMIZERS = ("sgd", "adam", "adamw", "adamax")


@dataclass(frozen=True)
class Data:
    """Which images."""

    dataset: str | None = option(
        None, "shapes, cifar10, cifar100, folder, npz, safetensors, constructed or released; inferred from --data", metavar="NAME"
    )
    path: str | None = option(
        None,
        "folder, .npz or .safetensors file of the data, or a constructed set; not needed for shapes",
        location,
        metavar="PATH",
        name="data",
    )
    image_size: int | None = option(None, "width and height to which images are resized and cropped, in pixels", positive)
    download: bool = option(False, "download the dataset if it is missing", None)
    classes: list[str] | None = option(None, "only the images of these classes, in this order: dog,cat", names, metavar="NAME,NAME,...")
    limit: int | None = option(None, "use only this many images, spread over the whole set", positive)
    cache: str | None = option(
        None,
        "folder in which decoded images are kept for the next run",
        location,
        metavar="FOLDER",
        shown="a hidden one beside the images",
    )


@dataclass(frozen=True)
class Split(Data):
    """Which images."""

    split: str = option("test", "which part of the data", choices=("train", "test", "val"))


@dataclass(frozen=True)
class Checkpoint:
    """How another project's checkpoint is read."""

    arch: str | None = option(
        None,
        "architecture, for a checkpoint whose file does not name it: small, resnet18, ..., torchvision:NAME, timm:NAME",
        metavar="NAME",
    )
    mean: list[float] | None = option(
        None, "channel means, for another project's checkpoint that does not hold them: 0.49,0.48,0.45", radii, metavar="M,M,M"
    )
    std: list[float] | None = option(None, "channel standard deviations, for such a checkpoint", radii, metavar="S,S,S")
    trust_checkpoint: bool = option(
        False, "also load a checkpoint that runs code when it is loaded; only from a source that you trust", None, only_typed=True
    )


@dataclass(frozen=True)
class Model(Checkpoint):
    """Which model."""

    name: str | None = option(
        None,
        "a pretrained model's name, a run's folder, or the path of a checkpoint; torchvision:NAME, timm:NAME or robustbench:NAME with "
        "their weights; module:function of yours, which is called; several with commas",
        several,
        metavar="NAME|PATH",
        name="model",
        only_typed=names_function,
    )


@dataclass(frozen=True)
class Threat:
    """What the adversary may do."""

    norm: str | None = option(None, "norm of the threat model", choices=NORMS, shown="l2")
    eps: float | None = option(
        None,
        "radius in pixel units of [0, 1] images, such as 0.5 or 8/255; in l0 a number of pixels",
        radius,
        shown="8/255 in linf, 0.5 in l2, 12 in l1, 10 in l0",
    )


@dataclass(frozen=True)
class Machine:
    """Where to compute."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N, or another device of torch that has float64, such as xpu", metavar="NAME")
    threads: int | None = option(None, "CPU threads", threads, shown="torch's own choice")


@dataclass(frozen=True)
class Compute(Machine):
    """Where to compute, and with which random draws."""

    seed: int = option(0, "seed of every random draw", count)


@dataclass(frozen=True)
class Network:
    """The network that is trained."""

    arch: str | None = option(
        None, "architecture: small, resnet18, ..., torchvision:NAME, timm:NAME", metavar="NAME", shown="that of --init, else small"
    )
    init: str | None = option(
        None,
        "start from the weights of a pretrained model or a checkpoint; for other classes the last layer starts anew. Give the --seed of "
        "its training too: then the images held out for validation are those that it was not trained on",
        location,
        metavar="NAME|PATH",
    )
    mean: list[float] | None = option(None, "channel means for --init, if its file has none", radii, metavar="M,M,M")
    std: list[float] | None = option(None, "channel standard deviations for --init, if its file has none", radii, metavar="S,S,S")
    trust_checkpoint: bool = option(
        False, "also load an --init that runs code when it is loaded; only from a source that you trust", None, only_typed=True
    )


@dataclass(frozen=True)
class TrainingThreat:
    """What the network is trained against, and judged under."""

    norm: str | None = option(None, "norm of the threat model", choices=TRAINING_NORMS, shown="the recipe's")
    eps: float | None = option(
        None,
        "radius in pixel units of [0, 1] images, such as 0.5 or 8/255",
        radius,
        shown="the recipe's; for another norm 8/255 in linf, 0.5 in l2, 12 in l1",
    )


@dataclass(frozen=True)
class TrainingAttack:
    """The attack within each training step.

    The network is judged by PGD-10 after each epoch and by PGD-20 at the end.
    """

    steps: int | None = option(
        None, "gradient steps of the attack", count, shown="10 for madry, ema, trades, mart and smoothadv, 1 for fast"
    )
    step_size: float | None = option(
        None, "length of a step in pixel units", radius, shown="2.5 eps / steps, 2 eps / steps for smoothadv, eps for fast"
    )
    attack_in_train_mode: bool = option(False, "attack the network in training mode instead of evaluation mode", None)
    stand_in: str | None = option(
        None,
        "what the attack searches on: with none the network itself, else a copy with BatchNorm folded in, in float32 or bfloat16; the copy "
        "takes up the network's weights at each step",
        choices=STAND_INS,
        shown="none",
    )


@dataclass(frozen=True)
class TrainingNoise:
    """The noise of a network that is to be smoothed: for noise, smoothadv-l2 and consistency."""

    sigma: float | None = option(None, "standard deviation of the noise, in pixel units", number, shown="0.25")
    noises: int | None = option(None, "noisy copies of each image in a step", positive, shown="1 for noise, else 2")
    consistency: float | None = option(
        None, "lambda of consistency, the weight of how far an image's noisy copies are predicted apart", radius, shown="20"
    )
    entropy: float | None = option(None, "eta of consistency, the weight of the entropy of their mean prediction", radius, shown="0.5")


@dataclass(frozen=True)
class Optimizing:
    """How the weights move."""

    epochs: int | None = option(None, "passes over the training set", positive, shown="the recipe's, 30 to 200")
    batch_size: int | None = option(None, "images in one step, all processes together", positive, shown="128")
    accumulate: int = option(1, "split the images of a step into this many parts, one after another; it needs less memory", positive)
    optimizer: str = option("sgd", "sgd (with Nesterov momentum), adam, adamw or adamax", choices=OPTIMIZERS)
    lr: float | None = option(
        None, "peak learning rate", number, shown="the recipe's for sgd, 0.1 or 0.2; 0.001 for adam and adamw, 0.002 for adamax"
    )
    schedule: str | None = option(None, "schedule of the learning rate", choices=SCHEDULES, shown="the recipe's")
    weight_decay: float | None = option(None, "weight decay", radius, shown="5e-4")
    label_smoothing: float = option(0.0, "label smoothing of the cross-entropy, 0 to 1; 0.2 helps robustness (Pang et al. 2021)", radius)
    ema: float | None = option(
        None, "decay of the averaged weights, which are then validated and kept; 0 for no averaging", radius, shown="the recipe's"
    )
    awp: float = option(
        0.0,
        "adversarial weight perturbation: how far weights move to make the loss larger before the gradient is taken, as a share of each "
        "layer's norm (Wu et al. 2020: 0.01, with trades 0.005); for recipes that attack; 0 for none",
        radius,
    )
    clip: float | None = option(None, "largest norm of the gradient; 0 for no clipping", radius, shown="0")
    no_augment: bool = option(False, "train without random crops and flips", None)
    amp: bool | None = option(None, "compute in bfloat16", None, shown="where the recipe says so and the device is fast at it")
    compile: bool = option(False, "use torch.compile: slow to start, faster afterwards", None)


@dataclass(frozen=True)
class Choosing:
    """Which epoch is kept."""

    val_size: int = option(
        1000, "training images held out to choose the best epoch, at most a fifth of them; with 0 the last epoch is kept", count
    )
    patience: int | None = option(None, "stop after this many epochs without a better validation accuracy", positive)


@dataclass(frozen=True)
class Training:
    """How to train."""

    recipe: str = option(
        "standard",
        "how to train: standard, madry-linf, madry-l2, fast-linf, fast-l2, ema-linf, trades-linf, trades-l2, mart-linf, noise, "
        "smoothadv-l2, consistency",
        metavar="NAME",
    )
    network: Network = group(Network)
    threat: TrainingThreat = group(TrainingThreat)
    attack: TrainingAttack = group(TrainingAttack)
    noise: TrainingNoise = group(TrainingNoise)
    optimizing: Optimizing = group(Optimizing)
    choosing: Choosing = group(Choosing)
    seed: int = option(0, "seed of every random draw: the first weights, the order, the augmentation, the attacks", count)
