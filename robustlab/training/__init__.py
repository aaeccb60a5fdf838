"""Training: the loop, its losses, and recipes by name."""

from robustlab.training.fit import Epoch, Optimization, TrainingState, fit
from robustlab.training.losses import TRADES, Adversarial, Standard
from robustlab.training.recipes import RECIPES, Recipe, recipe

__all__ = ["RECIPES", "TRADES", "Adversarial", "Epoch", "Optimization", "Recipe", "Standard", "TrainingState", "fit", "recipe"]
