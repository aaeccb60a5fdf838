"""What each command can be told: groups of ``robustlab.settings`` put together, and what belongs to one command alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from inspect import cleandoc
from typing import Any, ClassVar

from robustlab.errors import UserError
from robustlab.options import count, count_or_files, counts, group, leaves, location, names, number, option, positive, radii, radius
from robustlab.paths import names_function
from robustlab.settings import Compute, Data, Machine, Model, Split, Threat, Training
from robustlab.synthesis.tasks import SPECIAL, TASKS, Task, check_has, named_task, no_task

AGAIN = "new or empty; the same command goes on there after an interruption"
OUT = f"folder for the results, {AGAIN}"


@dataclass(frozen=True)
class TrainData(Data):
    """Which images."""

    test_data: str | None = option(
        None,
        "where the test images are, if not beside the training images, or shapes; for a constructed set: the original data",
        location,
        metavar="PATH",
    )


@dataclass(frozen=True)
class TrainMachine(Machine):
    """Where to compute."""

    workers: int = option(2, "processes that read images, if these do not fit into memory", count)


@dataclass(frozen=True)
class TrainOutput:
    """What is written, and going on with a run."""

    out: str | None = option(None, "folder of the run", location, metavar="FOLDER", shown="runs/RECIPE-ARCH")
    resume: str | None = option(
        None, "go on with the run in this folder; without a folder, with that in --out", location, metavar="FOLDER", optional_value="auto"
    )
    no_test: bool = option(False, "do not evaluate on the test set at the end", None)


@dataclass(frozen=True)
class Train:
    """Train a standard or robust classifier, keep its best epoch by validation accuracy, and test that once."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab train --recipe fast-l2 --data datasets/cifar10 --out runs/robust",
        "robustlab train --resume runs/robust",
    )

    data: TrainData = group(TrainData)
    training: Training = group(Training)
    machine: TrainMachine = group(TrainMachine)
    output: TrainOutput = group(TrainOutput)


@dataclass(frozen=True)
class EvaluationAttack:
    """The attacks."""

    attack: str = option(
        "pgd",
        "attacks by name, with commas: standard, plus, rand (AutoAttack), apgd-ce, fab-t, square, pgd, pgd-20x5 (steps x restarts), fgsm; "
        "with + between them each gets what those before it left",
        metavar="NAME,...",
    )
    steps: int = option(20, "gradient steps of pgd", count)
    step_size: float | None = option(None, "length of a step in pixel units", radius, shown="2.5 eps / steps")
    restarts: int = option(1, "random starts of pgd; the first success counts, else the strongest attempt", positive)
    curve: list[float] | None = option(None, "also measure the accuracy at these radii: 0,0.25,0.5,1", radii, metavar="EPS,EPS,...")


@dataclass(frozen=True)
class Batched(Compute):
    """Where to compute, and with which random draws."""

    batch_size: int = option(250, "images in a batch", positive)
    amp: bool = option(False, "take the attack's steps in bfloat16; success is still judged in float32", None)
    compile: bool = option(False, "use torch.compile: slow to start, faster afterwards", None)
    workers: int = option(2, "processes that read images, if these do not fit into memory", count)


@dataclass(frozen=True)
class EvaluationOutput:
    """What is written."""

    out: str | None = option(None, OUT, location, metavar="FOLDER")
    save_adversarial: str | None = option(
        None,
        "folder for the adversarial images, as 8-bit PNG files within eps and as floats, with a record of each",
        location,
        metavar="FOLDER",
    )
    grid: str | None = option(
        None,
        "PNG file with some images before and after the attack, their labels and confidence, and the amplified change",
        location,
        metavar="FILE",
    )


@dataclass(frozen=True)
class Evaluate:
    """Measure a classifier's accuracy, clean and under PGD, with an interval and one record per image."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab evaluate --model cifar10-small-l2 --data datasets/cifar10 --eps 0.5",
        "robustlab evaluate --model runs/robust/best.pt --data datasets/cifar10 --norm linf --curve 0,2/255,4/255,8/255 --out runs/report",
    )

    model: Model = group(Model)
    data: Split = group(Split)
    threat: Threat = group(Threat)
    attack: EvaluationAttack = group(EvaluationAttack)
    compute: Batched = group(Batched)
    output: EvaluationOutput = group(EvaluationOutput)


@dataclass(frozen=True)
class Smoothing:
    """The noise, and what is to be proved."""

    sigma: float = option(0.25, "standard deviation of the noise, in pixel units; best that of the model's training", number)
    n0: int = option(100, "draws of the noise that choose an image's class", positive)
    n: int = option(100_000, "draws that bound its probability; the radius that can be proved grows with their number", positive)
    alpha: float = option(0.001, "how often a certificate may be wrong", number)
    radii: list[float] | None = option(
        None, "radii of the table, in pixel units: 0,0.25,0.5", radii, metavar="R,R,...", shown="0, sigma, ..."
    )


@dataclass(frozen=True)
class Drawing(Compute):
    """Where to compute, and with which random draws."""

    batch_size: int = option(250, "noisy images in a forward pass", positive)
    workers: int = option(2, "processes that read images, if these do not fit into memory", count)


@dataclass(frozen=True)
class CertificationOutput:
    """What is written."""

    out: str | None = option(None, OUT, location, metavar="FOLDER")


@dataclass(frozen=True)
class Certify:
    """Smooth a classifier with Gaussian noise, and prove within which L2 radius its answers stay."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab certify --model runs/noise --data datasets/cifar10 --sigma 0.25 --n 10000 --limit 200 --out runs/certified",
    )

    model: Model = group(Model)
    data: Split = group(Split)
    smoothing: Smoothing = group(Smoothing)
    compute: Drawing = group(Drawing)
    output: CertificationOutput = group(CertificationOutput)


@dataclass(frozen=True)
class Quick:
    """How long to train."""

    arch: str = option("small", "architecture of both networks: small, resnet18, ..., torchvision:NAME, timm:NAME", metavar="NAME")
    epochs: int | None = option(None, "passes over the training images", positive, shown="6 on shapes, else 10")
    batch_size: int | None = option(None, "images in a batch", positive, shown="128")


@dataclass(frozen=True)
class QuickMachine(Compute):
    """Where to compute, and with which random draws."""

    workers: int = option(2, "processes that read images, if these do not fit into memory", count)


@dataclass(frozen=True)
class QuickOutput:
    """What is written."""

    out: str = option("runs/quickstart", "folder for both models, the pictures and the page", location, metavar="FOLDER")


@dataclass(frozen=True)
class Quickstart:
    """Train a standard and a robust model, attack and compare them, and write one page about it."""

    examples: ClassVar[tuple[str, ...]] = ("robustlab quickstart", "robustlab quickstart --data PATH --out runs/mine")

    data: Data = group(Data)
    training: Quick = group(Quick)
    machine: QuickMachine = group(QuickMachine)
    output: QuickOutput = group(QuickOutput)


@dataclass(frozen=True)
class Models:
    """List the architectures and the pretrained models with what they reach."""

    examples: ClassVar[tuple[str, ...]] = ("robustlab models",)


@dataclass(frozen=True)
class TrainingSplit(Data):
    """Which images."""

    split: str = option("train", "which part of the data", choices=("train", "test", "val"))


@dataclass(frozen=True)
class ConstructionMethod:
    """How the images are changed; the defaults are the published settings."""

    kind: str | None = option(
        None, "D_rand, D_det (relabelled), D_R (inverted through a robust model) or D_NR (through a standard one)", metavar="NAME"
    )
    norm: str | None = option(None, "norm of the change, for D_rand and D_det", choices=("linf", "l2", "l1"), shown="l2")
    eps: float | None = option(None, "largest change in pixel units, for D_rand and D_det", radius, shown="0.5 in l2")
    steps: int | None = option(None, "gradient steps", count, shown="100 for D_rand and D_det, 1000 for D_R and D_NR")
    step_size: float | None = option(
        None, "length of a step in pixel units", radius, shown="eps / 5 for D_rand and D_det, 0.1 in L2 for D_R and D_NR"
    )


@dataclass(frozen=True)
class ConstructionCompute(Compute):
    """Where to compute, and with which random draws."""

    batch_size: int = option(250, "images that are changed at once; the last digits of the pixels depend on it", positive)
    amp: bool = option(False, "take the steps in bfloat16; what is reached is still judged in float32", None)


@dataclass(frozen=True)
class ConstructionOutput:
    """What is written."""

    store: str = option("float32", "how pixels are stored; the effect of rounding is reported", choices=("float32", "float16", "uint8"))
    shard_size: int = option(500, "images in a shard; an interruption loses only the shard in progress", positive)
    out: str | None = option(
        None, "folder of the set; an unfinished set in it is continued", location, metavar="FOLDER", shown="datasets/KIND-MODEL"
    )


@dataclass(frozen=True)
class Construct:
    """Make a data set of features: D_rand or D_det (relabelled), D_R or D_NR (inverted), from images and a model."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab construct --kind D_det --model cifar10-small-standard --data datasets/cifar10 --eps 1 --steps 20 --out datasets/d_det",
        "robustlab construct --kind D_R --model cifar10-small-l2 --data datasets/cifar10 --limit 5000",
    )

    method: ConstructionMethod = group(ConstructionMethod)
    model: Model = group(Model)
    data: TrainingSplit = group(TrainingSplit)
    compute: ConstructionCompute = group(ConstructionCompute)
    output: ConstructionOutput = group(ConstructionOutput)


@dataclass(frozen=True)
class ExportOutput:
    """What is written."""

    format: str | None = option(None, "the layout to write", choices=("folder", "huggingface", "npz", "safetensors", "released"))
    out: str | None = option(None, "folder to write; it must be new or empty", location, metavar="FOLDER")


@dataclass(frozen=True)
class Export:
    """Write a data set as PNG folders, .npz, safetensors, the released tensors' files, or for Hugging Face."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab export --data datasets/d_det --format folder --out datasets/d_det-png",
        "robustlab export --dataset shapes --limit 100 --format npz --out datasets/shapes",
    )

    data: TrainingSplit = group(TrainingSplit)
    output: ExportOutput = group(ExportOutput)


@dataclass(frozen=True)
class ExperimentSettings:
    """What to change in the experiment; the other settings are those of --scale."""

    scale: str = option("small", "small: for two CPU cores; full: for a GPU", choices=("small", "full"))
    model: str | None = option(None, "the source model: a name, a path, or RECIPE:EPOCHS to train one", location, metavar="NAME|PATH")
    limit: int | None = option(None, "training images", positive)
    eps: float | None = option(None, "radius in pixel units", radius)
    steps: int | None = option(None, "gradient steps", count)
    arch: str | None = option(None, "architecture of the networks", metavar="NAME")
    epochs: int | None = option(None, "passes over the training images", positive)
    seeds: int | None = option(None, "repetitions with different seeds", positive)
    claim: Any = option(None, "of linear-bias: test these claims only", names, metavar="NAME,...", shown="all")


@dataclass(frozen=True)
class ExperimentMachine(Machine):
    """Where to compute."""

    amp: bool | None = option(
        None, "train and attack in bfloat16; success is still judged in float32", None, shown="if the device is fast at it"
    )


@dataclass(frozen=True)
class Reproduce:
    """Run an experiment of the talks and print its table beside the published numbers."""

    first_words: ClassVar[tuple[str, ...]] = ("experiment",)
    examples: ClassVar[tuple[str, ...]] = (
        "robustlab reproduce mislabelled --data datasets/cifar10",
        "robustlab reproduce known-features --seeds 1",
    )

    experiment: str | None = option(None, "which experiment; its name may also come first, without the flag", metavar="NAME")
    data: str | None = option(None, "folder or file of the images; or of one's own linear problem or graph", location, metavar="PATH")
    settings: ExperimentSettings = group(ExperimentSettings)
    machine: ExperimentMachine = group(ExperimentMachine)
    out: str = option("runs/reproduce", "folder of all experiments; unfinished ones in it are continued", location, metavar="FOLDER")


@dataclass(frozen=True)
class Communities:
    """Find the communities of a graph by every method, say which labels to believe, and draw them."""

    examples: ClassVar[tuple[str, ...]] = (
        "robustlab communities --data graph.npz --out runs/communities",
        "robustlab communities --data graph.gml --k 3 --methods semidefinite",
    )

    data: str | None = option(None, "file with a graph: .npz with edge_index (2, E), .gml, .g6, .rudy", location, metavar="FILE")
    k: int | None = option(None, "how many communities", positive, shown="as many as the Bethe Hessian counts")
    methods: Any = option(None, "only these methods", names, metavar="NAME,...", shown="all; on more than 20,000 nodes the fastest")
    model: str | None = option(None, "folder of a trained graph network, which joins in", location, metavar="PATH")
    seed: int = option(0, "of the random draws", count)
    out: str | None = option(None, "folder for labels.csv, a table and a picture; new or empty", location, metavar="FOLDER")


@dataclass(frozen=True)
class Isomorphic:
    """Say which methods tell two graphs apart, and by what; and whether they are isomorphic."""

    first_words: ClassVar[tuple[str, ...]] = ("graph", "other")
    examples: ClassVar[tuple[str, ...]] = (
        "robustlab isomorphic A.npz B.npz",
        "robustlab isomorphic both.g6 --methods 1-WL,2-FWL,spectrum --out runs/isomorphic",
    )

    graph: str | None = option(None, "file with a graph: .npz with edge_index (2, E), .gml, .g6, .rudy", location, metavar="FILE")
    other: str | None = option(None, "file with the other one", location, metavar="FILE", shown="the second graph of the first file")
    methods: Any = option(None, "only these methods", names, metavar="NAME,...", shown="all")
    model: str | None = option(None, "folder of a trained network with one answer for a graph, which joins in", location, metavar="PATH")
    tries: int = option(10_000, "refinements at most of the search for an isomorphism", positive)
    out: str | None = option(None, "folder for the table, and the isomorphism if there is one; new or empty", location, metavar="FOLDER")


def chosen_settings(task: Task | None = None) -> type:
    """Which images a task works on; None is any task."""
    many = "how many images to work on: the first of each class, then the second of each, and so on"
    shown = "" if task is None else str(task.n)
    if task is None or task.own:
        many, metavar = f"{many}; or picture files of your own: cat.png,dog.jpg", "N|FILE,FILE,..."
    else:
        metavar = "N"
    fields = [("images", Any, option(None, many, count_or_files, metavar=metavar, shown=shown))]
    if task is None or task.positions:
        help = "work on the images at these positions of the split instead: 3,17"
        fields.append(("positions", Any, option(None, help, counts, metavar="N,N,...")))
    return make_dataclass("Chosen", fields, frozen=True, namespace={"__doc__": "What to work on."})


@dataclass(frozen=True)
class Judging:
    """Who judges the pictures."""

    judge: str | None = option(
        None,
        "independent classifier",
        location,
        metavar="NAME|PATH",
        shown="a pretrained one that did not make the pictures",
        only_typed=names_function,
    )


@dataclass(frozen=True)
class Searching(Compute):
    """Where to compute, and with which random draws."""

    batch_size: int = option(50, "images that are changed at once", positive)


@dataclass(frozen=True)
class SynthesisOutput:
    """What is written."""

    grid: str | None = option(
        None,
        "PNG file for the sheet of pictures; a replay file is written beside it, as .json",
        location,
        metavar="FILE",
        shown="runs/synthesize/TASK.png, or grid.png in --out",
    )
    columns: int = option(10, "at most so many pictures in a row of the sheet; the numbers are still those of all pictures", positive)
    out: str | None = option(None, f"folder for every picture in a file of its own, {AGAIN}", location, metavar="FOLDER")
    tensorboard: bool = option(False, "also write pictures, numbers and the objective by step for TensorBoard, into --out", None)
    replay: str | None = option(None, "make again what a replay file describes, byte for byte", location, metavar="FILE")


@dataclass(frozen=True)
class Synthesize:
    """Make and edit pictures with classifiers: generate, inpaint, translate, invert, ...; TASK --help lists a task's options."""

    first_words: ClassVar[tuple[str, ...]] = ("task",)
    topics: ClassVar[dict[str, str]] = {name: task.about for name, task in TASKS.items()}
    examples: ClassVar[tuple[str, ...]] = (
        "robustlab synthesize generate --model cifar10-small-l2 --data datasets/cifar10 --out runs/generated",
        "robustlab synthesize translate --model cifar10-small-l2 --images photograph.jpg --image-size 32 --target dog --grid dog.png",
    )

    task: str | None = option(None, "what to make, as the first word", metavar="TASK")
    chosen: Any = group(chosen_settings())
    model: Model = group(Model)
    data: Split = group(Split)
    judging: Judging = group(Judging)
    compute: Searching = group(Searching)
    output: SynthesisOutput = group(SynthesisOutput)

    @staticmethod
    def for_words(argv: Sequence[str]) -> type:
        """The settings of the task that a command line names.

        Raises:
            UserError: an unknown task, or an option that the task has not; without a task, one that not every task has.
        """
        name, config = _task_and_config(argv)
        options = [each.replace("-", "_") for each in (*config, *(word[2:].partition("=")[0] for word in argv if word.startswith("--")))]
        if name is None:
            if set(options) & SPECIAL - set(leaves(Synthesize)):
                raise no_task()
            return Synthesize
        found = synthesize_settings(name)
        for each in options:
            check_has(name, each, lambda known: f"--{known.replace('_', '-')}")
        return found


def _task_and_config(argv: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The task, as the first word, by ``--task`` or by the file of ``--config``, and what that file holds."""
    values = {}
    for name in ("task", "config"):
        values[name] = next((word.partition("=")[2] for word in argv if word.startswith(f"--{name}=")), None)
        if f"--{name}" in argv[:-1]:
            values[name] = argv[argv.index(f"--{name}") + 1]
    config: dict[str, Any] = {}
    if values["config"]:
        from robustlab import files  # only here, since it imports more than the standard library

        with suppress(UserError):  # which the reader of the whole file tells
            config = files.read_toml(values["config"], "settings")
    if argv and not argv[0].startswith("-"):
        return argv[0], config
    return values["task"] or config.get("task"), config


def synthesize_settings(name: str) -> type:
    """``Synthesize`` with the options of one task.

    Raises:
        UserError: there is no such task.
    """
    task = named_task(name)
    groups: dict[str, type] = {"settings": task.settings, "chosen": chosen_settings(task), "model": Model, "data": Split}
    groups |= {"judging": Judging} if task.judged else {}
    groups |= {"compute": Searching, "output": SynthesisOutput}
    example = f"robustlab synthesize {name} --model cifar10-small-standard,cifar10-small-l2 --data datasets/cifar10 --grid {name}.png"
    own = (f"robustlab synthesize {name} --model cifar10-small-l2 --images cat.png,dog.png --image-size 32",) if task.own else ()
    fields = [("task", str | None, option(name, "what to make, as the first word", metavar="TASK"))]
    return make_dataclass(
        "Synthesize",
        [*fields, *((each, cls, group(cls)) for each, cls in groups.items())],
        frozen=True,
        namespace={"first_words": ("task",), "examples": (example, *own), "__doc__": cleandoc(task.settings.__doc__ or "")},
    )


@dataclass(frozen=True)
class DemoData:
    """Which pictures to offer as a start."""

    dataset: str | None = option(None, "shapes, cifar10, folder, ...; inferred from --data", metavar="NAME")
    path: str | None = option(None, "folder or file of images, one of each class is offered", location, metavar="PATH", name="data")
    image_size: int | None = option(None, "width and height of the page's pictures, in pixels", positive)


@dataclass(frozen=True)
class DemoServer:
    """Where the page is served."""

    host: str = option("127.0.0.1", "address to listen on; others than 127.0.0.1 need a token", metavar="ADDRESS")
    port: int = option(8765, "port to listen on; 0 for any free one", count)
    token: str | None = option(None, "password in the page's address; if one is needed and none is given, it is made up", metavar="WORD")


@dataclass(frozen=True)
class Demo:
    """Serve the interactive page: draw, press a class, and watch a model change the picture."""

    examples: ClassVar[tuple[str, ...]] = ("robustlab demo", "robustlab demo --model cifar10-small-l2,runs/mine/best.pt --port 9000")

    model: Model = group(Model)
    data: DemoData = group(DemoData)
    server: DemoServer = group(DemoServer)
    machine: Machine = group(Machine)
