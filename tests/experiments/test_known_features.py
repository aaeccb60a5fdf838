"""On *shapes*, where the truth is known: a model of D_det follows the faint pattern and ignores the shape, one of D_R the reverse."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.known_features import Config, run
from robustlab.models import architectures

CONFIG = Config(
    sets=("D_det", "D_R"), source_n=3000, source_epochs=10, n=2500, inversion_steps=30, inversion_step=1.0, epochs=8, seeds=1, test=500
)
CHANCE = 0.1

pytestmark = pytest.mark.slow


class Strided(nn.Sequential):
    """Four convolutions that see a picture at half its resolution and less: trained in seconds."""

    num_features = 64

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for width, stride in ((16, 2), (32, 2), (64, 2), (64, 1)):
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.BODIES, "small", Strided)
        measurements: dict[str, Any] = run(ExperimentCache(tmp_path_factory.mktemp("known")), CONFIG).numbers["measurements"]
    return {kind: {what: Rate(**value).value for what, value in seeds[0].items()} for kind, seeds in measurements.items()}


def test_d_det_teaches_the_pattern_and_hides_the_shape(found: dict[str, dict[str, float]]) -> None:
    assert found["D_det"]["pattern"] > 0.5
    assert found["D_det"]["shape"] < CHANCE


def test_d_r_teaches_the_shape_and_hides_the_pattern(found: dict[str, dict[str, float]]) -> None:
    assert found["D_R"]["shape"] > 1.7 * CHANCE
    assert found["D_R"]["pattern"] < 1.3 * CHANCE


def test_only_the_feature_that_a_set_teaches_moves_its_model(found: dict[str, dict[str, float]]) -> None:
    assert found["D_det"]["moved_by_pattern"] > 0.5 > CHANCE > found["D_det"]["moved_by_shape"]
    assert found["D_R"]["moved_by_shape"] > 1.5 * found["D_R"]["moved_by_pattern"]


def test_what_a_set_teaches_tells_the_class_of_ordinary_pictures(found: dict[str, dict[str, float]]) -> None:
    assert found["D_det"]["clean"] > 0.5
    assert found["D_R"]["clean"] > 2 * CHANCE


def test_the_faint_pattern_is_within_what_robust_training_resists() -> None:
    assert (32 * 32 * 3) ** 0.5 * CONFIG.faint_amplitude * 2**0.5 / 2 < 0.5  # half the distance of two patterns
