"""Laws of seeds: the mean and covariance that were fitted, and draws that belong to a label and a key."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laws import drawn, images

from robustlab.data import ImageSet
from robustlab.errors import UserError
from robustlab.seeding import example_keys
from robustlab.synthesis.seeds import ClassGaussians, default_grain

CLASSES = ("grey", "slanted", "one")


def two_shapes() -> ImageSet:
    """Two classes around mid-grey with covariances of their own, so faint that no draw is clamped, and one single image."""
    n = 12
    even = 0.5 + 0.02 * drawn(n, 8, seed=1)
    slanted = 0.4 + 0.05 * drawn(n, 1, seed=2) * torch.linspace(-1, 1, 8) + 0.01 * drawn(n, 8, seed=3)
    x = torch.cat([even, slanted, torch.full((1, 8), 0.7)]).float().reshape(-1, 2, 2, 2)
    y = torch.tensor([0] * n + [1] * n + [2])
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return ImageSet(x[order], y[order], CLASSES, "two shapes")


@pytest.mark.parametrize("label", [0, 1])
def test_draws_have_the_mean_and_covariance_of_the_class(label):
    """Every entry within five standard deviations of its estimate, ``X^T X / n + 1e-4 I`` from the images themselves."""
    data = two_shapes()
    x = data.pixels[data.labels == label].flatten(1).double()
    mean, wanted = x.mean(0), torch.cov(x.T, correction=0) + 1e-4 * torch.eye(8)
    count = 1500
    drawings = ClassGaussians.fit(data).sample(torch.full((count,), label), example_keys(0, torch.arange(count))).flatten(1).double()
    variances = wanted.diagonal()
    assert ((drawings.mean(0) - mean).abs() < 5 * (variances / count).sqrt()).all()
    errors = ((variances[:, None] * variances + wanted.square()) / count).sqrt()
    assert ((torch.cov(drawings.T) - wanted).abs() < 5 * errors).all()


def test_without_noise_draws_are_mixtures_of_the_images():
    data = two_shapes()
    gaussians = replace(ClassGaussians.fit(data, per_class=3), noise=0.0)
    drawings = gaussians.sample(torch.zeros(20, dtype=torch.int64), example_keys(0, torch.arange(20))).flatten(1)
    assert torch.linalg.matrix_rank(drawings - gaussians.mean[0], tol=1e-4) == 2  # three images span a plane


def test_a_draw_belongs_to_its_label_and_key_bit_by_bit():
    gaussians, y = ClassGaussians.fit(two_shapes()), torch.arange(30) % 3
    keys = example_keys(5, torch.arange(30))
    together = gaussians.sample(y, keys)
    assert together.shape == (30, 2, 2, 2) and together.dtype == torch.float32
    assert all(torch.equal(gaussians.sample(y[i : i + 1], keys[i : i + 1])[0], together[i]) for i in range(30))
    assert torch.equal(gaussians.sample(y.flip(0), keys.flip(0)), together.flip(0))
    assert len(torch.unique(gaussians.sample(torch.zeros_like(y), keys), dim=0)) == 30
    assert gaussians.sample(y[:0], keys[:0]).shape == (0, 2, 2, 2)


def test_a_single_image_is_drawn_with_the_noise_alone():
    drawings = ClassGaussians.fit(two_shapes()).sample(torch.full((500,), 2), example_keys(0, torch.arange(500)))
    assert (drawings - 0.7).abs().max() < 0.06
    assert float(drawings.std()) == pytest.approx(0.01, rel=0.05)


def test_draws_lie_in_the_range_also_for_glaring_images():
    data = ImageSet((images(20, 3, 4, 4) > 0.5).float(), torch.zeros(20, dtype=torch.int64), ("noise",), "noise")
    drawings = ClassGaussians.fit(data).sample(torch.zeros(50, dtype=torch.int64), example_keys(0, torch.arange(50)))
    assert drawings.min() == 0 and drawings.max() == 1


def test_a_grain_fits_averages_and_draws_squares():
    data = ImageSet((images(9, 3, 8, 12) * 255).to(torch.uint8), torch.zeros(9, dtype=torch.int64), ("noise",), "noise")
    small = ImageSet(
        data.pixels.float().div(255).unflatten(2, (2, 4)).unflatten(4, (3, 4)).mean((3, 5)), data.labels, data.classes, "small"
    )
    y, keys = torch.zeros(4, dtype=torch.int64), example_keys(0, torch.arange(4))
    coarse = ClassGaussians.fit(data, grain=4)
    assert coarse.mean.shape == (1, 3 * 2 * 3)
    drawings = coarse.sample(y, keys)
    assert drawings.shape == (4, 3, 8, 12)
    torch.testing.assert_close(drawings[:, :, ::4, ::4], ClassGaussians.fit(small).sample(y, keys))
    assert torch.equal(drawings, drawings[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_the_default_grain_is_the_published_one_and_divides_the_image():
    assert [default_grain(side, side) for side in (32, 64, 96, 112, 224, 299, 448)] == [1, 1, 2, 2, 4, 1, 8]
    for height, width in ((224, 320), (90, 60), (1, 1), (8, 12)):
        grain = default_grain(height, width)
        assert height % grain == 0 and width % grain == 0


def test_classes_that_will_not_be_drawn_are_not_read():
    data, keys = two_shapes(), example_keys(0, torch.arange(2))
    some = ClassGaussians.fit(data, classes=[1])
    assert [len(x) for x in some.centred] == [0, 12, 0]
    y = torch.tensor([1, 1])
    assert torch.equal(some.sample(y, keys), ClassGaussians.fit(data).sample(y, keys))
    with pytest.raises(UserError, match="the class 'grey' had no images"):
        some.sample(torch.tensor([0]), keys[:1])


def test_of_each_class_some_images_are_used_the_same_ones_again():
    data = two_shapes()
    first, again = (ClassGaussians.fit(data, per_class=5) for _ in range(2))
    assert [len(x) for x in first.centred] == [5, 5, 1]
    assert all(map(torch.equal, first.centred, again.centred))
    own = data.pixels[data.labels == 0].flatten(1)
    for row in first.centred[0] + first.mean[0]:
        assert (own - row).abs().amax(1).min() < 1e-6
    for centred in first.centred:
        assert centred.mean(0).abs().max() < 1e-6
    everything = ClassGaussians.fit(data, per_class=1000)
    assert all(map(torch.equal, everything.centred, ClassGaussians.fit(data).centred))


def test_a_fit_to_more_images_than_one_chunk_is_the_same_fit():
    data = ImageSet(images(600, 1, 2, 2), torch.zeros(600, dtype=torch.int64), ("noise",), "noise")
    torch.testing.assert_close(ClassGaussians.fit(data).mean[0], data.pixels.flatten(1).mean(0))


def test_a_class_without_images_is_refused_only_when_it_is_drawn():
    data = two_shapes()
    gaussians = ClassGaussians.fit(data.subset((data.labels != 1).nonzero()[:, 0]))
    keys = example_keys(0, torch.arange(2))
    gaussians.sample(torch.tensor([0, 2]), keys)
    with pytest.raises(UserError, match="the class 'slanted' had no images"):
        gaussians.sample(torch.tensor([0, 1]), keys)
    with pytest.raises(UserError, match="label 3 is out of range, 3 classes allow 0 to 2"):
        gaussians.sample(torch.tensor([0, 3]), keys)
    with pytest.raises(UserError, match="one key per label"):
        gaussians.sample(torch.tensor([0]), keys)


@pytest.mark.parametrize("settings", [{"grain": 3}, {"grain": 0}, {"per_class": 0}], ids=repr)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError, match="grain must divide the size 2 x 2|per_class must be at least 1"):
        ClassGaussians.fit(two_shapes(), **settings)
