"""Training of graph networks, on random graphs that are drawn as they are needed, or on a set of them: from a source and settings to a
network.

    trained = train_graphs(SGNN(5), dissociative_five(), communities, graphs=5000, batch_size=4, out="runs/five")
    trained.network

    train_graphs(GIN(2, features=7), GivenGraphs(graphs), classes_of_graphs, judge=lambda network: {"accuracy": ...})

A batch is a function of the source and the numbers of its graphs, so a training that was killed goes on as if it had not been.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from robustlab.devices import choose_device
from robustlab.errors import UserError
from robustlab.gnn.flips import guided_flips
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.losses import invariant_cross_entropy, invariant_overlap
from robustlab.gnn.networks import GraphNetwork, describe, from_description
from robustlab.gnn.sources import Source, described
from robustlab.gnn.weights import RUN_WEIGHTS, save_network
from robustlab.interrupts import interruptible
from robustlab.models.placement import on_cpu
from robustlab.paths import place_of
from robustlab.records import Run
from robustlab.training.fit import Epoch, Optimization, TrainingState
from robustlab.training.losses import Outcome, TrainingLoss
from robustlab.training.prepare import check_room
from robustlab.training.schedules import SCHEDULES, Schedule
from robustlab.training.trainer import Line, Trainer

Judge = Callable[[nn.Module], Mapping[str, float]]

FORMAT = "robustlab-graph-training-1"  # under "format" in the checkpoints


def flat(progress: float) -> float:
    """A learning rate that stays as it is."""
    return 1.0


def halving(progress: float) -> float:
    """A learning rate that is halved after each seventh of training (Xu et al. 2019: each 50 of 350 epochs)."""
    return 0.5 ** int(7 * progress)


GRAPH_SCHEDULES: dict[str, Schedule] = {"constant": flat, **SCHEDULES, "halving": halving}


@dataclass(frozen=True)
class GraphTraining:
    """How a graph network is trained.

    Attributes:
        graphs: to train on in all; of a source of random graphs each is seen once.
        epochs: parts of the training, of as many graphs each, after which it is logged and saved.
        batch_size: graphs of one step.
        lr, optimizer, clip, ema: as in ``Optimization``.
        schedule: ``constant``, ``halving``, or one of ``training.schedules``.
        seed: of what the network itself draws; the graphs' own is in their source.
    """

    graphs: int = 5000
    epochs: int = 10
    batch_size: int = 4
    lr: float = 0.004
    optimizer: str = "adamax"
    clip: float = 40.0
    ema: float = 0.0
    schedule: str = "constant"
    seed: int = 0

    @property
    def optimization(self) -> Optimization:
        """The same as the loop takes it."""
        schedule = GRAPH_SCHEDULES[self.schedule]
        how: dict[str, Any] = {"optimizer": self.optimizer, "clip": self.clip, "ema": self.ema, "schedule": schedule, "weight_decay": 0.0}
        return Optimization(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, **how)

    def __post_init__(self) -> None:
        if self.schedule not in GRAPH_SCHEDULES:
            raise UserError(f"`schedule` must be one of {', '.join(GRAPH_SCHEDULES)}, got {self.schedule!r}")
        if self.batch_size < 1 or self.graphs < self.batch_size * max(self.epochs, 1):
            raise UserError(f"{self.graphs} graphs in {self.epochs} epochs do not fill a batch of {self.batch_size}")


@dataclass(frozen=True)
class GraphBatches:
    """Batches of a source's graphs, each graph once: the ``k``-th step of the training takes the ``k``-th batch.

    Attributes:
        source: see ``gnn.sources``.
        batch_size: graphs of a batch.
        steps: batches of an epoch.
    """

    source: Source
    batch_size: int
    steps: int
    device: torch.device

    def __len__(self) -> int:
        return self.steps

    def epoch(self, n: int, start: int = 0) -> Iterator[GraphBatch]:
        """The batches of an epoch, from number ``start`` on."""
        for step in range(start, self.steps):
            yield self.source((n * self.steps + step) * self.batch_size, self.batch_size).to(self.device)


def communities(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The loss on communities: cross-entropy under the best names, with the ``overlap`` as a metric."""
    logits = model(batch)
    return Outcome(invariant_cross_entropy(batch, logits), {"overlap": invariant_overlap(batch, logits)})


def classes_of_graphs(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The loss on classes of whole graphs: cross-entropy to the labels ``y``, ``(B,)``, with the ``accuracy`` as a metric.

    Raises:
        UserError: no label for each graph.
    """
    logits, y = model(batch), batch.y
    if y is None or len(y) != len(batch):
        raise UserError("the loss on classes of graphs needs the true label of each graph in `y`")
    return Outcome(cross_entropy(logits, y, reduction="none"), {"accuracy": logits.detach().argmax(1) == y})


@dataclass(frozen=True)
class CommunitiesUnderFlips:
    """The loss on communities of graphs whose edges are flipped against the network as it is (adversarial training); see
    ``gnn.guided_flips`` for the attributes."""

    share: float = 0.05
    steps: int = 4
    draws: int = 0

    def __call__(self, model: nn.Module, batch: GraphBatch) -> Outcome:
        return communities(model, guided_flips(model, batch, self.share, steps=self.steps, draws=self.draws))


@dataclass(frozen=True, eq=False)
class TrainedGraphs:
    """A trained graph network, and how it came to be.

    Attributes:
        network: after the last step (its weight average where there is one), in evaluation mode.
        settings: with which it was trained.
        history: the numbers of each epoch: ``epoch``, ``train/loss``, ``train/`` and the loss's metrics, ``val/`` and what was judged,
            ``lr``, ``graphs_per_second``, ``seconds``.
        folder: of the run, which ``gnn.load_network`` reads; None where nothing was written.
    """

    network: GraphNetwork
    settings: GraphTraining
    history: tuple[Mapping[str, Any], ...]
    folder: Path | None = None


@dataclass(kw_only=True)
class GraphTrainer(Trainer):
    """A training on graphs under way; the last epoch is kept.

    Attributes:
        judge: see ``train_graphs``.
    """

    unit: ClassVar[str] = "graphs"
    judge: Judge = lambda network: {}

    def judged(self, epoch: Epoch) -> Line:
        """What ``judge`` says, under ``val/``."""
        with torch.no_grad():
            found = self.judge(self.state.result.eval())  # the next epoch begins with train()
        return {**super().judged(epoch), **{f"val/{name}": value for name, value in found.items()}}

    def described(self) -> dict[str, Any]:
        """The network's description."""
        return {"format": FORMAT, **describe(self.network)}

    @property
    def network(self) -> GraphNetwork:
        """That is trained."""
        assert isinstance(self.state.model, GraphNetwork)
        return self.state.model

    def finish(self, settings: GraphTraining, about: Mapping[str, Any]) -> TrainedGraphs:
        """Write the weights, and give the network back."""
        network = from_description(describe(self.network))
        network.load_state_dict(on_cpu(self.state.result.state_dict()))
        if self.run:
            self.run.close()
            last = {name: value for name, value in self.history[-1].items() if name.startswith("train/")} if self.history else {}
            environment = {name: value for name, value in self.run.environment.items() if name != "command"}
            told = {**about, "seconds": round(self.seconds_so_far), **last, "environment": environment}
            save_network(self.run.folder / RUN_WEIGHTS, network, told)
        return TrainedGraphs(network.eval(), settings, tuple(self.history), self.folder)


def train_graphs(
    network: GraphNetwork,
    source: Source,
    loss: TrainingLoss = communities,
    settings: GraphTraining | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[Line], object] = lambda line: None,
    judge: Judge = lambda network: {},
    progress: bool = False,
    **changes: Any,
) -> TrainedGraphs:
    """Train a graph network. In the main thread, Ctrl-C, SIGTERM and SIGHUP end it after the step that it is at.

    Args:
        network: to begin with; it is not changed.
        source: of graphs.
        loss: from the network and a ``GraphBatch`` to an ``Outcome`` with a loss for each graph; a function of a module, or a frozen
            dataclass.
        settings: how to train.
        out: folder to write the run to; where left out, nothing is written.
        resume: go on with the run in ``out`` where there is one.
        device: where to compute.
        stop: asked after every step; after a true answer the training is saved and ends.
        on_epoch: called with the numbers of each epoch.
        judge: called after each epoch with the network, in evaluation mode; the shares of 1 that it gives by name go into the epoch's
            numbers, with ``val/`` before the name. The weights do not depend on it.
        progress: show a bar, and a line for each epoch.
        changes: settings by name, in place of those in ``settings``.

    Raises:
        UserError: settings or a folder that do not fit; another process works in the folder; or training diverged.
        Stopped: a signal or ``stop`` ended it.
    """
    settings = GraphTraining(**{**asdict(settings or GraphTraining()), **changes})
    folder = None if out is None else place_of(out)
    where = choose_device(device)
    about = asked(network, source, loss, settings)
    begun = bool(resume and folder and Run.is_run(folder))
    with ExitStack() as held:
        if folder:
            held.enter_context(Run.alone(folder))
        run = Run.reopen(folder, about, what="training of a graph network") if folder and begun else None
        copy = from_description(describe(network))
        copy.load_state_dict(on_cpu(network.state_dict()))
        state = TrainingState.fresh(copy.to(where), settings.optimization)
        steps = settings.graphs // settings.epochs // settings.batch_size
        batches = GraphBatches(source, settings.batch_size, steps, where)
        how: dict[str, Any] = {"loss": loss, "optimization": settings.optimization, "seed": settings.seed, "folder": folder}
        trainer = GraphTrainer(state=state, training=batches, on_epoch=on_epoch, judge=judge, progress=progress, **how)
        if folder and run is None:
            check_room(folder, state)
            run = Run.create(folder, about)
        trainer.take_up(run, run.load("last") if run and begun else None)
        with interruptible() as noted:
            trainer.go(lambda: bool(noted) or stop())
        return trainer.finish(settings, about)


def asked(network: GraphNetwork, source: Source, loss: TrainingLoss, settings: GraphTraining) -> dict[str, Any]:
    """Everything that a training's weights depend on, in values that JSON holds; for the arguments see ``train_graphs``."""
    return {"network": describe(network), "source": described(source), "loss": _named(loss), "training": asdict(settings)}


def _named(loss: TrainingLoss) -> Any:
    """What a loss is, in values that JSON holds."""
    name = getattr(loss, "__name__", type(loss).__name__)
    return name if not hasattr(loss, "__dataclass_fields__") else {"kind": name, **asdict(loss)}  # type: ignore[call-overload]
