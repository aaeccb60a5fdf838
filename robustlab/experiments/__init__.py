"""One module per claim: a ``Config``, a ``FULL`` one for a GPU, and ``run(cache, config)``; see ``reproduce``."""

from robustlab.experiments.claims import EXPERIMENTS, reproduce

__all__ = ["EXPERIMENTS", "reproduce"]
