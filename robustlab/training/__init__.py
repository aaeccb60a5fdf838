"""Training: the one trainer, the loop below it, its losses, and recipes by name."""

from robustlab.training.fit import Epoch, Optimization, TrainingState, fit
from robustlab.training.graphs import GraphTraining, TrainedGraphs, train_graphs
from robustlab.training.losses import (
    MART,
    TRADES,
    Adversarial,
    AttackedLoss,
    Consistency,
    ImageOutcome,
    Noise,
    Outcome,
    SmoothAdv,
    Standard,
    TrainingLoss,
)
from robustlab.training.optimizers import decay_groups
from robustlab.training.recipes import RECIPES, Recipe, recipe
from robustlab.training.run import train
from robustlab.training.start import network_for
from robustlab.training.trained import Stopped, Trained

__all__ = [
    "MART",
    "RECIPES",
    "TRADES",
    "Adversarial",
    "AttackedLoss",
    "Consistency",
    "Epoch",
    "GraphTraining",
    "ImageOutcome",
    "Noise",
    "Optimization",
    "Outcome",
    "Recipe",
    "SmoothAdv",
    "Standard",
    "Stopped",
    "Trained",
    "TrainedGraphs",
    "TrainingLoss",
    "TrainingState",
    "decay_groups",
    "fit",
    "network_for",
    "recipe",
    "train",
    "train_graphs",
]
