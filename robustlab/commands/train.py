"""``robustlab train``: one run, from its settings to a tested model; interrupted anywhere, it goes on as if it had not been."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from robustlab import files, pictures
from robustlab.attacks import PGD
from robustlab.commands import settings
from robustlab.commands.common import bar, choose_device, computes_bfloat16, interruptible, load_model, norm_name, open_data, threat_of
from robustlab.constraints import ThreatModel
from robustlab.data.augment import crop_flip
from robustlab.data.batches import Batches
from robustlab.data.catalog import only_for_training
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError, unknown
from robustlab.evaluation import Rate, evaluate
from robustlab.models.checkpoints import LARGEST, Provenance, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import TRAINING_FORMAT, build, describe, from_description, load
from robustlab.options import changed, flat, from_file, given, value_of
from robustlab.records import Run
from robustlab.training.distributed import ALONE, World, join, leave, synchronize_batch_norm
from robustlab.training.fit import Optimization, TrainingState, fit
from robustlab.training.losses import TrainingLoss
from robustlab.training.recipes import recipe
from robustlab.training.schedules import SCHEDULES

SAVE_EVERY = 600.0  # seconds between checkpoints within an epoch
OPTIMIZED = ("epochs", "batch_size", "lr", "weight_decay", "ema", "clip")  # what a recipe decides where no flag does
PLACES = ("data", "test_data", "out", "resume")  # on this machine, so not told with released weights
USUAL_ARCH = "small"
FREE = ("out", "resume", "device", "threads", "workers", "no_test")  # what may change when a run is resumed


def run(args: settings.Train) -> None:
    """The command."""
    # The threads of the run that is resumed: sums of another number of threads round otherwise.
    threads = args.machine.threads if args.output.resume is None else _as_it_was(args).machine.threads
    device = choose_device(args.machine.device, threads)
    world = join(device)
    try:
        train(args, device, world)
    finally:
        leave(world)


def complete(args: settings.Train, device: torch.device) -> settings.Train:
    """The settings with all that was left to the recipe, the norm or the device filled in: a rerun needs nothing else.

    Raises:
        UserError: an unknown recipe, or attack settings for a recipe that does not attack.
    """
    chosen = recipe(args.training.recipe)
    if args.training.network.init is None and (
        args.training.network.mean or args.training.network.std or args.training.network.trust_checkpoint
    ):
        raise UserError("--mean, --std and --trust-checkpoint say how to read the weights of --init, which is not given")
    args = changed(args, arch=_arch(args))
    if chosen.threat is None and (args.training.attack.steps is not None or args.training.attack.step_size is not None):
        raise UserError(f"the recipe {args.training.recipe!r} trains without an attack, so --steps and --step-size mean nothing to it")
    threat = threat_of(args.training.threat.norm, args.training.threat.eps, chosen.threat)
    filled: dict[str, Any] = {name: getattr(chosen.optimization, name) for name in OPTIMIZED}
    filled["schedule"] = next(name for name, schedule in SCHEDULES.items() if schedule is chosen.optimization.schedule)
    filled["amp"] = chosen.optimization.amp and computes_bfloat16(device)
    filled["steps"] = chosen.steps if chosen.threat else None
    filled["out"] = _usual_out(args)
    told = {name: value for name, value in flat(args).items() if value is not None}
    return changed(args, **{**filled, "norm": norm_name(threat), "eps": threat.eps, **told})


def _arch(args: settings.Train) -> str:
    """The architecture that is asked for; that of ``--init``, unless the run to resume knows it already."""
    if args.training.network.init is None or (args.training.network.arch is not None and args.output.resume is not None):
        return args.training.network.arch or USUAL_ARCH
    return load_model(args.training.network.init, args.training.network).arch


def _usual_out(args: settings.Train) -> str:
    return f"runs/{args.training.recipe}-{_arch(args)}"


@dataclass(frozen=True)
class Plan:
    """What the settings come to."""

    loss: TrainingLoss
    optimization: Optimization
    trained_against: ThreatModel | None
    judged_by: PGD  # on the validation part, after every epoch
    tested_by: PGD  # on the test set, once


def plan(args: settings.Train) -> Plan:
    """What complete settings come to."""
    chosen = recipe(args.training.recipe)
    optimization = replace(
        chosen.optimization,
        **{name: value_of(args, name) for name in OPTIMIZED},
        schedule=SCHEDULES[str(args.training.optimizing.schedule)],
        amp=bool(args.training.optimizing.amp),
    )
    threat = threat_of(args.training.threat.norm, args.training.threat.eps)
    against = threat if chosen.threat else None
    loss = chosen.make(
        against,
        args.training.attack.steps or 0,
        args.training.attack.step_size,
        args.training.optimizing.label_smoothing,
        args.training.attack.attack_in_train_mode,
    )
    return Plan(loss, optimization, against, PGD(threat, steps=10), PGD(threat, steps=20))


def train(args: settings.Train, device: torch.device, world: World = ALONE) -> Path:
    """Train, choose the best epoch, test it, and write everything to the run folder.

    Returns:
        The run folder; ``model.safetensors`` and ``model.json`` in it are the result.
    """
    args = complete(args if args.output.resume is None else _as_it_was(args), device)
    planned, out = plan(args), Path(str(args.output.out))
    everything = open_data(
        args.data.dataset,
        args.data.path,
        "train",
        image_size=args.data.image_size,
        download=args.data.download,
        classes=args.data.classes,
        limit=args.data.limit,
    )
    if len(everything.classes) < 2:
        raise UserError(f"training needs at least two classes, but {everything.name} has only {', '.join(everything.classes) or 'none'}")
    if not args.output.no_test and (args.data.test_data is not None or only_for_training(args.data.dataset, args.data.path)):
        _same_shape(everything, _test_images(args, everything.classes))  # now, rather than after hours of training
    keep, held_out = hold_out(everything, min(args.training.choosing.val_size, max(len(everything) // 5, 1)), args.training.seed)
    common: dict[str, Any] = {"device": device, "rank": world.rank, "world_size": world.size, "workers": args.machine.workers}
    training = Batches(
        everything.subset(keep),
        planned.optimization.batch_size,
        seed=args.training.seed,
        augment=None if args.training.optimizing.no_augment else crop_flip(max(everything.shape[1] // 8, 1)),
        shuffle=True,
        drop_last=True,
        **common,
    )
    validation = Batches(everything.subset(held_out), 250 * world.size, seed=args.training.seed, **common)
    model = (
        _fresh(args, everything)
        if args.training.network.init is None
        else _resumed(args, out) or _begun(args, everything, told=world.leads)
    )
    state = TrainingState.fresh(synchronize_batch_norm(model.to(device), world), planned.optimization)
    job = _Job(args, planned, out, device, world, state)
    job.open()
    with interruptible() as noted:
        if not job.go(training, validation, noted):
            raise KeyboardInterrupt
    # The other processes do not wait: testing may take longer than a collective may.
    if world.leads:
        job.finish(everything.name)
    return out


def _fresh(args: settings.Train, images: Images, normalization: tuple[Tensor, Tensor] | None = None) -> Classifier:
    """The untrained network for some images, normalized by their own statistics unless others are given."""
    mean, std = images.mean_std() if normalization is None else normalization
    return build(
        str(args.training.network.arch),
        num_classes=len(images.classes),
        mean=mean.tolist(),
        std=std.tolist(),
        channels=images.shape[0],
        classes=images.classes,
        seed=args.training.seed,
    )


def _resumed(args: settings.Train, out: Path) -> Classifier | None:
    """The network of the run to resume, so that it needs the file of ``--init`` no more; None where it has saved nothing yet."""
    saved = None if args.output.resume is None else Run(out, []).load("last", torch.device("cpu"))
    return None if saved is None else from_description(saved, str(out / "last.pt"))


def _begun(args: settings.Train, images: Images, *, told: bool) -> Classifier:
    """The network with the weights and the normalization of ``--init``, and of its last layer what knows the images' classes.

    Raises:
        UserError: those weights are for images of other channels.
    """
    given = load_model(str(args.training.network.init), args.training.network)
    if given.channels != images.shape[0]:
        raise UserError(
            f"{args.training.network.init} wants {given.channels} channels, but the images of {images.name} have {images.shape[0]}"
        )
    model = _fresh(args, images, (given.mean.flatten(), given.std.flatten()))
    model.body.load_state_dict(given.body.state_dict())
    try:
        outputs = given.outputs_for(images.classes, images.name)
    except UserError:
        if told:
            print(
                f"note: {args.training.network.init} knows other classes than {images.name}, so the last layer begins anew", file=sys.stderr
            )
        return model
    model.head.load_state_dict({name: tensor[outputs] for name, tensor in given.head.state_dict().items()})
    return model


class _Job:
    """A run under way: the training state, the best epoch so far, and the folder that both are saved to."""

    def __init__(self, args: settings.Train, planned: Plan, out: Path, device: torch.device, world: World, state: TrainingState) -> None:
        self.args, self.planned, self.out, self.device, self.world, self.state = args, planned, out, device, world, state
        self.best: dict[str, float] = {"value": -1.0, "epoch": -1}
        self.seconds = 0.0  # of training and validation, over all sittings
        self.clock = self.saved = time.monotonic()
        self.run: Run | None = None  # the leading process's only

    def open(self) -> None:
        """Create the run folder, or reopen it and take up the state."""
        described = flat(changed(self.args, resume=None))
        if self.world.leads:
            self.run = Run.reopen(self.out, described, FREE) if self.args.output.resume else Run.create(self.out, described)
        self.world.wait()
        saved = Run(self.out, []).load("last", self.device) if self.args.output.resume else None
        if saved is not None:
            self._take_up(saved)
        if self.run:
            self.run.keep_epochs_before(self.state.epoch)
        self.clock = self.saved = time.monotonic()

    def _take_up(self, saved: dict[str, Any]) -> None:
        try:
            self.state.load_state_dict(saved)
            self.best, self.seconds = saved["best"], saved["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.out / 'last.pt'} is not the checkpoint that this run wrote: what it holds does not fit") from error

    def go(self, training: Batches, validation: Batches, noted: list[int]) -> bool:
        """Train to the end, or to a note of interruption in any process; says whether the end was reached."""
        state, epochs = self.state, self.planned.optimization.epochs
        if self.patience_is_over:
            return True
        shown = bar(epochs * len(training), "training", "batch", leads=self.world.leads)
        shown.update(state.epoch * len(training) + state.step)
        validated, began, done = "", time.monotonic(), 0

        def on_step(state: TrainingState) -> None:
            nonlocal done
            done += training.batch_size
            shown.update()
            if state.step % 20 == 0 and not shown.disable:
                loss, correct, seen = state.sums.tolist()
                shown.set_postfix_str(f"epoch {state.epoch + 1} loss {loss / seen:.3f} train {100 * correct / seen:.1f}%{validated}")
            if time.monotonic() - self.saved > SAVE_EVERY:
                self.save("last")

        options: dict[str, Any] = {"world": self.world, "seed": self.args.training.seed, "compile": self.args.training.optimizing.compile}
        options |= {"stop": lambda: bool(noted), "on_step": on_step}
        for epoch in fit(state, training, self.planned.loss, self.planned.optimization, **options):
            speed, done = done / (time.monotonic() - began), 0
            clean, robust = self.validate(validation)
            validated = f" val {100 * clean.value:.1f}% clean {100 * robust.value:.1f}% under {self.planned.judged_by}"
            judged = (robust if self.planned.trained_against else clean).value
            if judged > self.best["value"]:
                self.best = {"value": judged, "epoch": epoch.number}
                self.save("best")
            self.log(
                {
                    "epoch": epoch.number,
                    "train/loss": epoch.loss,
                    "train/accuracy": epoch.accuracy,
                    "val/clean": clean.value,
                    f"val/{self.planned.judged_by}": robust.value,
                    "lr": epoch.lr,
                    "images_per_second": speed,
                },
                shown,
                validation,
            )
            self.save("last")
            if self.world.any(bool(noted)) or self.patience_is_over:
                break
            began = time.monotonic()
        shown.close()
        if state.epoch >= epochs or self.patience_is_over:
            return True
        self.save("last")
        if self.world.leads:
            print(f"stopped in epoch {state.epoch + 1} of {epochs}; go on with: {self.resume_command}", file=sys.stderr)
        return False

    def validate(self, validation: Batches) -> tuple[Rate, Rate]:
        """Clean and robust accuracy on the validation part, over all processes."""
        attack = self.planned.judged_by
        report = evaluate(self.state.result, validation.epoch(0), [attack])
        counts = [report.clean.count, report.under(str(attack)).count, report.clean.n]
        clean, robust, n = (int(v) for v in self.world.sum(torch.tensor(counts, dtype=torch.float64, device=self.device)).tolist())
        return Rate(clean, n), Rate(robust, n)

    def log(self, line: dict[str, Any], shown: tqdm, validation: Batches) -> None:
        """Numbers to the run folder and the terminal, pictures to TensorBoard."""
        if not self.run:
            return
        self.run.log({**line, "seconds": self.seconds + time.monotonic() - self.clock})
        numbers = "  ".join(f"{name} {100 * value:.2f}%" for name, value in line.items() if name.startswith(("val/", "train/acc")))
        text = f"epoch {line['epoch'] + 1:>3}/{self.planned.optimization.epochs}  loss {line['train/loss']:.4f}  {numbers}"
        shown.write(f"{text}  {line['images_per_second']:.0f} img/s", file=sys.stdout)
        batch = next(validation.epoch(0))
        x, y = batch.x[:8], batch.y[:8]
        x_adv = self.planned.judged_by(self.state.result, x, y, keys=batch.keys[:8])
        self.run.picture("clean, adversarial, difference", pictures.sheet([x, x_adv, pictures.amplified(x_adv - x)], 2), line["epoch"])

    def save(self, name: str) -> None:
        """Write a checkpoint that resumes training and that ``robustlab.load`` reads."""
        self.saved = time.monotonic()
        if self.run:
            seconds = self.seconds + self.saved - self.clock
            described = describe(self.state.model)  # type: ignore[arg-type]
            self.run.save(name, {"format": TRAINING_FORMAT, **described, **self.state.state_dict(), "best": self.best, "seconds": seconds})

    @property
    def patience_is_over(self) -> bool:
        """Whether the last epochs were no better than one before them."""
        patience = self.args.training.choosing.patience
        return patience is not None and self.state.epoch - 1 - self.best["epoch"] >= patience

    @property
    def resume_command(self) -> str:
        return shlex.join(["robustlab", "train", "--resume", str(self.out)])

    def finish(self, dataset: str) -> None:
        """Test the best epoch and write it as released weights; prints the numbers."""
        assert self.run
        self.run.close()
        model = load(self.out / "best.pt").to(self.device)
        args, best = self.args, int(self.best["epoch"])
        accuracies, n = {}, 0
        if not args.output.no_test:
            test = _test_images(args, model.classes)
            batches = Batches(test, 250, seed=args.training.seed, device=self.device, workers=args.machine.workers)
            with bar(len(test), "testing", "img") as shown:
                report = evaluate(model, batches.epoch(0), [self.planned.tested_by], on_batch=lambda found: shown.update(len(found)))
            for name, rate in report.rates().items():
                print(f"test {name}: {rate}")
            accuracies, n = {name: round(100 * rate.value, 2) for name, rate in report.rates().items()}, report.clean.n
        begun_with = files.read_json(self.out / "environment.json", "a run's environment")
        provenance = Provenance(
            dataset=dataset,
            recipe=args.training.recipe,
            threat=str(self.planned.trained_against or "none"),
            accuracies=accuracies,
            n=n,
            seed=args.training.seed,
            commit=begun_with["commit"] or "unknown",
            details={
                "best_epoch": best,
                "epochs": self.planned.optimization.epochs,
                "seconds": round(self.seconds + time.monotonic() - self.clock),
                "settings": {name: value for name, value in dataclasses.asdict(_placeless(args)).items() if name not in PLACES},
                "environment": {name: value for name, value in begun_with.items() if name != "command"},
            },
        )
        written = save_weights(self.out / "model", model, provenance, half=_too_large(model))
        print(f"best epoch {best + 1}; weights in {written.with_suffix('.safetensors')}")


def _placeless(args: settings.Train) -> settings.Train:
    """With what ``--init`` named, but not the place where it lies on this machine."""
    return args if args.training.network.init is None else changed(args, init=Path(args.training.network.init).name)


def _test_images(args: settings.Train, classes: Sequence[str]) -> Images:
    """The test images of the classes that are trained on, numbered as these are.

    Raises:
        UserError: they are of other classes.
    """
    limit, size = args.data.limit, args.data.image_size
    if args.data.test_data is None:
        images = open_data(args.data.dataset, args.data.path, "test", image_size=size, classes=args.data.classes, limit=limit)
        if images.classes == tuple(classes)[: len(images.classes)]:  # a small test set may lack the last of unnamed classes
            return images
    else:
        images = open_data(None, args.data.test_data, "test", image_size=size)
    for name in classes:
        if name not in images.classes:
            raise UserError(f"the test images do not know all classes of the training images: {unknown('class', name, images.classes)}")
    images = images.only_classes(classes)
    return images if limit is None or limit >= len(images) else images.subset(hold_out(images, limit, 0)[1])


def _same_shape(training: Images, test: Images) -> None:
    """Refuse test images of another size or with other channels."""
    if test.shape != training.shape:
        here, there = ("x".join(map(str, (*images.shape[1:][::-1], images.shape[0]))) for images in (test, training))
        raise UserError(f"the test images of {test.name} are {here} (width, height, channels), but those to train on are {there}")


def _too_large(model: Classifier) -> bool:
    """Whether float32 weights would take more than can be released."""
    return sum(tensor.numel() * 4 for tensor in model.state_dict().values()) > LARGEST


def _as_it_was(args: settings.Train) -> settings.Train:
    """The settings of the run to resume. Those that are free follow the command line; the others must agree with it.

    Raises:
        UserError: no run there, two folders named, or a flag that differs from the run's settings.
    """
    if args.output.resume != "auto" and args.output.out not in (None, args.output.resume):
        raise UserError(
            f"--resume names {args.output.resume} and --out {args.output.out}: a run is resumed in its own folder, so leave --out out"
        )
    out = Path((args.output.out or _usual_out(args)) if args.output.resume == "auto" else str(args.output.resume))
    found = files.read_json(out / "settings.json", "a run's settings")
    before = flat(from_file(settings.Train, found, str(out / "settings.json"), passed_over=True))
    told = given(args)
    for name, value in told.items():
        if name not in FREE and value != before.get(name):
            flag = "--" + name.replace("_", "-")
            advice = "leave the flag out, or start a run in another --out"
            raise UserError(f"{out} was started with {flag} {before.get(name)}, not {value}: {advice}")
    return changed(settings.Train(), **{**before, **told, "out": str(out), "resume": str(out)})
