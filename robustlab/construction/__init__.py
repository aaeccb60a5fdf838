"""Datasets made of features: relabelled (D_rand, D_det) and inverted (D_R, D_NR), after Ilyas et al. (2019)."""

from robustlab.construction.inverted import Inverted
from robustlab.construction.kinds import KINDS, SourceModel, published_construction
from robustlab.construction.protocols import Constructed, Construction
from robustlab.construction.relabelled import Relabelled, next_class, random_target
from robustlab.construction.sets import ConstructedSet, Unfinished, construct
from robustlab.construction.shards import Building, Plan, build_set, without_source_name
from robustlab.data.fingerprint import fingerprint

__all__ = [
    "KINDS",
    "Building",
    "Constructed",
    "ConstructedSet",
    "Construction",
    "Inverted",
    "Plan",
    "Relabelled",
    "SourceModel",
    "Unfinished",
    "build_set",
    "construct",
    "fingerprint",
    "next_class",
    "published_construction",
    "random_target",
    "without_source_name",
]
