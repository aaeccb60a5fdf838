"""A folder in which experiments train, construct and measure, each piece once: several processes may share it, and stop any time.

    models/NAME/    a training run and the weights that came out
    sets/NAME/      a constructed set
    measurements/NAME.json one measurement

A name is made of the settings behind it, so a piece is found again by what it is. A piece that is there is not made again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from robustlab import files
from robustlab.attacks import PGD
from robustlab.construction import Building, Construction, Plan, without_source_name
from robustlab.data.batches import Batches
from robustlab.data.catalog import open_dataset
from robustlab.data.constructed import open_constructed
from robustlab.data.fingerprint import fingerprint
from robustlab.data.imageset import Images, hold_out
from robustlab.data.splits import matching
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, evaluate
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.sources import Source
from robustlab.gnn.weights import RUN_WEIGHTS, load_network
from robustlab.linear_bias.problems import Problem, read_problem
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.zoo import load
from robustlab.options import changed
from robustlab.paths import place_of
from robustlab.records import Run, environment
from robustlab.settings import Training
from robustlab.smoothing import Certificates, certify
from robustlab.training.graphs import GraphTraining, asked, train_graphs
from robustlab.training.losses import TrainingLoss
from robustlab.training.run import train

Say = Callable[[str], object]
Values = dict[str, Any]
T = TypeVar("T")
_TRAINED_HERE = re.compile(r"[\w-]+:\d+(:\d+)?")


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained in an experiment.

    Attributes:
        recipe: decides the loss and the threat model; all else is given here, and one cycle of the learning rate.
        bfloat16: compute in it where autocast finds that safe.
    """

    arch: str = "small"
    recipe: str = "standard"
    epochs: int = 15
    lr: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = 128
    augment: bool = True
    seed: int = 0
    bfloat16: bool = False

    @property
    def settings(self) -> Training:
        """The trainer's settings: one cycle, no average of the weights, and no validation, so that the last epoch is kept."""
        return changed(
            Training(),
            arch=self.arch,
            recipe=self.recipe,
            epochs=self.epochs,
            lr=self.lr,
            schedule="one-cycle",
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            ema=0.0,
            clip=0.0,
            no_augment=not self.augment,
            amp=self.bfloat16,
            val_size=0,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Measurement:
    """One measurement, with a name of its own within its experiment."""

    name: str
    settings: Mapping[str, Any]
    measure: Callable[[], Values]


@dataclass
class ExperimentCache:
    """Where experiments work.

    Attributes:
        out: the folder.
        data: where the images lie; None for an experiment on *shapes*.
        bfloat16: train and search in it; success is judged in float32.
        say: called with a line of text when a piece of work begins.
        stop: asked between steps; after a true answer the work ends with KeyboardInterrupt, and goes on at the next call.
    """

    out: Path
    data: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bfloat16: bool = False
    say: Say = lambda text: None
    stop: Callable[[], bool] = lambda: False
    _opened: dict[tuple[Any, ...], Images] = field(default_factory=dict)
    _identity: str | None = None  # of the data, once it is known

    def images(self, split: str, classes: Sequence[str] = (), limit: int | None = None) -> Images:
        """Some images of the data: ``limit`` of the named classes, the same share of each."""
        key = (split, *classes)
        if key not in self._opened:
            images = open_dataset(None, self.data, split)
            images = images.only_classes(classes) if classes else images
            apart = split != "train" and self.data is not None  # *shapes* are the same size everywhere
            self._opened[key] = matching(images, self.images("train", classes)) if apart else images
        images = self._opened[key]
        return images if limit is None or limit >= len(images) else images.subset(hold_out(images, limit, seed=0)[1])

    def without_data(self) -> ExperimentCache:
        """The same folder, for what does not depend on the data."""
        return replace(self, data=None, _opened={}, _identity=None)

    def problem(self) -> Problem | None:
        """The data as a linear problem, from a file of arrays ``X`` and ``y``; None where there are no data.

        Raises:
            UserError: no such file, or other arrays.
        """
        if self.data is None:
            return None
        found = read_problem(self.data)
        self._identity = found.digest
        return found

    @property
    def own_place(self) -> Path | None:
        """Where the data lie; None where there are none."""
        return None if self.data is None else place_of(self.data)

    def own_file(self, read: Callable[[Path], T], known_by: Callable[[T], str] | None = None) -> T | None:
        """The data as a file of any other kind, known by its bytes, or a folder; None where there are no data.

        Args:
            read: from the file's place to what it holds.
            known_by: from that to a digest of it; of a folder, which has no bytes of its own.

        Raises:
            UserError: what ``read`` refuses.
        """
        place = self.own_place
        if place is None:
            return None
        found = read(place)
        self._identity = files.sha256(place) if known_by is None else known_by(found)
        return found

    def source(self, name: str, arch: str = "small") -> Classifier:
        """A model by its name or path, or ``RECIPE:EPOCHS`` or ``RECIPE:EPOCHS:IMAGES``: trained here, on the data."""
        if not trained_here(name):
            return load(name).to(self.device)
        recipe, epochs, *n = name.split(":")
        images = self.images("train", limit=int(n[0]) if n else None)
        return self.trained(images, NetworkTraining(arch, recipe, int(epochs), lr=0.2), f"original n {len(images)}")

    def trained(self, images: Images, training: NetworkTraining, name: str) -> Classifier:
        """A network trained on some images, in evaluation mode; trained now, unless it was before.

        Args:
            name: tells these images from all others of the cache.
        """
        training = replace(training, bfloat16=self.bfloat16)
        settings = {
            "images": name,
            "n": len(images),
            "classes": list(images.classes),
            "fingerprint": fingerprint(images),
            **vars(training),
        }
        folder = self.out / "models" / _slug(f"{training.arch} {training.recipe} {name}", settings)
        with self._alone(folder):
            if not (folder / "model.json").exists():
                self.say(f"training {training.arch} ({training.recipe}, {training.epochs} epochs) on {name}, {len(images):,} images")
                self._train(images, training, folder, name)
        return load(folder / "model.json").to(self.device)

    def _train(self, images: Images, training: NetworkTraining, folder: Path, name: str) -> None:
        if Run.is_run(folder) and "training" not in Run.settings_of(folder):
            shutil.rmtree(folder)  # begun before there was one trainer; begun anew it ends with the same weights

        def on_epoch(line: Values) -> None:
            loss, accuracy = line["train/loss"], 100 * line["train/accuracy"]
            self.say(f"epoch {line['epoch'] + 1}/{training.epochs}: loss {loss:.3f}, accuracy {accuracy:.1f} %")

        watched: dict[str, Any] = {"stop": self.stop, "on_epoch": on_epoch, "progress": False}
        resume, about = Run.is_run(folder), {"experiment": {"set": name}}
        train(images, training.settings, out=folder, resume=resume, device=self.device, asked=about, **watched)
        (folder / "last.pt").unlink(missing_ok=True)  # three times as large as the weights, and nothing goes on from it

    def trained_on_graphs(
        self,
        network: GraphNetwork,
        source: Source,
        loss: TrainingLoss,
        training: GraphTraining,
        name: str,
        *,
        begun: Mapping[str, Any] | None = None,
    ) -> tuple[GraphNetwork, float]:
        """A network trained on random graphs, in evaluation mode, and the seconds that it took; trained now, unless it was before.

        Args:
            network: to begin with.
            source: of graphs.
            loss: see ``train_graphs``.
            training: how to train.
            name: what it learns, for a reader of the folder.
            begun: what the first weights depend on, where they are not those that a seed gives.
        """
        settings = asked(network, source, loss, training) | ({"begun": begun} if begun else {})
        folder = self.out / "models" / _slug(f"graphs {name}", settings)
        with self._alone(folder):
            if not (folder / f"{RUN_WEIGHTS}.json").exists():
                self.say(f"training a graph network ({name}) on {training.graphs:,} graphs")

                def on_epoch(line: Values) -> None:
                    told = ", ".join(f"{key.removeprefix('train/')} {value:.3f}" for key, value in line.items() if key.startswith("train/"))
                    self.say(f"epoch {line['epoch'] + 1}/{training.epochs}: {told}")

                train_graphs(
                    network, source, loss, training, out=folder, resume=True, device=self.device, stop=self.stop, on_epoch=on_epoch
                )
                (folder / "last.pt").unlink(missing_ok=True)
        about = files.read_json(folder / f"{RUN_WEIGHTS}.json", "what is known of a graph network").get("about", {})
        return load_network(folder).to(self.device), float(about.get("seconds", 0))

    def constructed(
        self, construction: Construction, source: Images, model: Classifier, name: str, *, seed: int = 0
    ) -> tuple[Images, dict[str, Any]]:
        """A set made from some images through a model, and what is known of it; made now, together with the other
        processes that ask for it, unless it was before.

        Args:
            name: tells source and model from all others of the cache.
        """
        plan = Plan(
            construction,
            source,
            model,
            seed=seed,
            dtype="float16",
            shard_size=250,
            compute_dtype=torch.bfloat16 if self.bfloat16 else None,
            device=self.device,
        )
        described = plan.described()
        # Under the name that older caches gave it, which told where the source lay too; else by what the source is.
        slugs = [_slug(f"{construction.described()['kind']} {name}", each) for each in (described, without_source_name(described))]
        folder = next((place for slug in slugs if (place := self.out / "sets" / slug).exists()), self.out / "sets" / slugs[1])
        building = Building(folder, plan)
        if building.done < len(source):
            self.say(f"constructing {len(source) - building.done:,} images ({name})")
        while True:
            whole = building.run(stop=self.stop)
            if self.stop():
                raise KeyboardInterrupt
            if whole and not building.check():
                break
            time.sleep(2)  # others make the last shards; if one of them is killed, its shard is ours
        manifest = building.finish()
        return open_constructed(folder), manifest["facts"]

    def tested(self, model: Classifier, images: Images, attacks: Sequence[PGD] = ()) -> Report:
        """Accuracy on some images, clean and under attacks."""
        fast_model = accelerate(model, dtype=torch.bfloat16) if self.bfloat16 else None
        return evaluate(model, Batches(images, 250, device=self.device).epoch(0), attacks, fast_model=fast_model)

    def certified(self, model: Classifier, images: Images, sigma: float, n: int, alpha: float) -> Certificates:
        """Certificates of some images, kept image by image, so that what was stopped goes on.

        Args:
            sigma: standard deviation of the noise, in pixel units.
            n: draws for each image.
            alpha: how often a certificate may be wrong.
        """
        settings = {"model": digest(model), "images": fingerprint(images), "sigma": sigma, "n": n, "alpha": alpha}
        place = self.out / "certificates" / _slug(f"sigma {sigma:g}", settings)
        return certify(model, images, sigma, n=n, alpha=alpha, out=place, progress=False)

    def measured(self, experiment: str, measurements: Iterable[Measurement]) -> list[Values]:
        """What each measurement found, in order. Those that another process is at are left to it until nothing else is to do."""
        measurements = list(measurements)
        for wait in (False, True):
            for measurement in measurements:
                self._measure(experiment, measurement, wait)
        return [self._found(self._file(experiment, measurement)) for measurement in measurements]

    def _found(self, path: Path) -> Values:
        """What a measurement's file holds."""
        kept = files.read_json(path, "a measurement")
        try:
            files.check_kinds(kept, {"found": dict}, path, "a measurement")
            if kept.get("sha256", _digest(kept["found"])) != _digest(kept["found"]):  # older files have none
                raise UserError(f"{path} is damaged or was changed: its sha256 is that of other numbers")
        except UserError as error:
            raise UserError(f"{error}; without the file it is measured again") from None
        return kept["found"]

    def _measure(self, experiment: str, measurement: Measurement, wait: bool) -> None:
        path = self._file(experiment, measurement)
        if path.exists():
            return
        lock = path.with_suffix(".lock")
        with files.file_lock(lock, wait=wait) as mine:
            if mine and not path.exists():
                if self.stop():
                    raise KeyboardInterrupt
                files.sweep(path.parent, path.name)
                self.say(f"{experiment}: {measurement.name}")
                began = time.monotonic()
                found = measurement.measure()
                kept: Values = {"settings": self._settings(measurement), "found": found, "sha256": _digest(found)}
                kept["seconds"] = round(time.monotonic() - began)
                files.write_json(path, {**kept, "environment": environment()})
        if path.exists():
            files.remove_lock(lock)

    def _file(self, experiment: str, measurement: Measurement) -> Path:
        name = f"{_slug(f'{experiment} {measurement.name}', self._settings(measurement))}.json"
        before = self.out / "cells" / name  # what the folder was called before
        return before if before.exists() else self.out / "measurements" / name

    def _settings(self, measurement: Measurement) -> dict[str, Any]:
        """A measurement's own, with what all measurements depend on: the data and the precision."""
        if self._identity is None:
            self._identity = fingerprint(self.images("train")) if self.data is not None else "none"
        return {**measurement.settings, "data": self._identity, "bfloat16": self.bfloat16}

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Inside, no other process works at this folder."""
        done = (folder / "model.json").exists()
        lock = folder.with_name(f".{folder.name}.lock")
        with nullcontext() if done else files.file_lock(lock, wait=True):
            yield
        files.remove_lock(lock)


def trained_here(source: str) -> bool:
    """Whether a source's name asks for a training, see ``ExperimentCache.source``."""
    return _TRAINED_HERE.fullmatch(source) is not None


def rate(value: Rate) -> Values:
    """A rate as a measurement keeps it."""
    return {"count": value.count, "n": value.n}


def _digest(found: Values) -> str:
    """SHA-256 of a measurement's numbers, as JSON has them: all names are text, and sorted as such."""
    as_read = files.parse_json(json.dumps(found), "it", "a measurement")
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _slug(name: str, settings: Mapping[str, Any]) -> str:
    """A file name that a person can read and that differs wherever the settings do."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:10]
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name).split())[:80] + f"-{digest}"
