"""One module per claim: a ``Config``, a ``FULL`` one for a GPU, and ``run(cache, config)``."""

from __future__ import annotations

# What `robustlab reproduce` knows, in the order of the talk; imported when asked for.
EXPERIMENTS: dict[str, str] = {
    "mislabelled": "train on D_rand and D_det, test on ordinary images",
    "two-classes": "train on dogs labelled cat and cats labelled dog, test on ordinary images",
    "robustified": "standard training on D_R gives a robust model, on D_NR it does not",
    "transfer": "adversarial examples across architectures, and what each learns from D_det",
    "data-size": "ordinary and robust accuracy over the number of training images",
    "known-features": "which features each constructed set teaches, on shapes, where the features are known",
    "regimes": "where robust features win and where non-robust ones do: eps, source, augmentation",
}
