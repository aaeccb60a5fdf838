"""The front door to the networks: build one by name."""

from robustlab.models.architectures import architectures, build

__all__ = ["architectures", "build"]
