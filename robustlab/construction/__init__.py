"""Datasets made of features: relabelled (D_rand, D_det) and inverted (D_R, D_NR), after Ilyas et al. (2019)."""

from robustlab.construction.inverted import Inverted
from robustlab.construction.made import Construction, Made
from robustlab.construction.relabelled import Relabelled, next_class, random_target
from robustlab.construction.shards import Building, Plan, build, fingerprint

__all__ = ["Building", "Construction", "Inverted", "Made", "Plan", "Relabelled", "build", "random_target", "fingerprint", "next_class"]
