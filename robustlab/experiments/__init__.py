"""One module per claim: a ``Config``, a ``FULL`` one for a GPU, and ``run(cache, config)``."""

from __future__ import annotations

# What `robustlab reproduce` knows, in the order of the talk; imported when asked for.
EXPERIMENTS: dict[str, str] = {
    "mislabelled": "train on D_rand and D_det, test on ordinary images",
    "two-classes": "dogs labelled cat and cats labelled dog, by their perturbations alone",
    "robustified": "standard training on D_R is robust, on D_NR it is not",
    "transfer": "adversarial examples across architectures, and what each learns from D_det",
    "data-size": "ordinary and robust accuracy over the number of training images",
    "known-features": "the same on shapes, where the features are known",
    "regimes": "where visible features win and where faint ones do: eps, source, augmentation",
}
