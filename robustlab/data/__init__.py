"""Labelled images from many places, and the batches cut from them."""

from robustlab.data.adapt import as_batches, as_images
from robustlab.data.augment import Augment, crop_flip
from robustlab.data.batches import Batch, Batches
from robustlab.data.catalog import DATASETS, SPLITS, open_dataset
from robustlab.data.imageset import Images, ImageSet, hold_out
from robustlab.pixels import to_float

__all__ = [
    "DATASETS",
    "SPLITS",
    "Augment",
    "Batch",
    "Batches",
    "ImageSet",
    "Images",
    "as_batches",
    "as_images",
    "crop_flip",
    "hold_out",
    "open_dataset",
    "to_float",
]
