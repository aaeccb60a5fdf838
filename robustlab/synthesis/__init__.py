"""Pictures made with one robust classifier: seeds, searches, representations, and what to measure of the results."""

from robustlab.synthesis.budget import PRESETS, USUAL, Search, preset, usual
from robustlab.synthesis.gradients import alignment, energy_inside, loss_gradient, smooth_grad
from robustlab.synthesis.measures import diversity, frechet_distance, inception_score, psnr, ssim
from robustlab.synthesis.parameters import Fourier, Parameters, Pixels
from robustlab.synthesis.representations import last_relu, layers, representation, straight_through_relu
from robustlab.synthesis.seeds import ClassGaussians, default_grain

__all__ = [
    "PRESETS",
    "USUAL",
    "ClassGaussians",
    "Fourier",
    "Parameters",
    "Pixels",
    "Search",
    "alignment",
    "default_grain",
    "diversity",
    "energy_inside",
    "frechet_distance",
    "inception_score",
    "last_relu",
    "layers",
    "loss_gradient",
    "preset",
    "psnr",
    "representation",
    "smooth_grad",
    "ssim",
    "straight_through_relu",
    "usual",
]
