"""Pictures made with one robust classifier: seeds, searches, representations, and what to measure of the results."""

from robustlab.synthesis.budget import PRESETS, Search, preset
from robustlab.synthesis.parameters import Fourier, Parameters, Pixels
from robustlab.synthesis.representations import layers, representation, straight_through_relu

__all__ = ["PRESETS", "Fourier", "Parameters", "Pixels", "Search", "layers", "preset", "representation", "straight_through_relu"]
