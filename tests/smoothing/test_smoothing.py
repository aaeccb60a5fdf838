"""Laws of smoothing: bounds are those of the textbook, certificates fail no more often than alpha, and draws belong to images."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from statistics import NormalDist
from threading import Thread

import pytest
import torch
from killing import Killed, dying
from scipy.stats import beta, binom, binomtest
from torch import Tensor, nn

from robustlab import files
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.smoothing import Certificates, certify, predict
from robustlab.smoothing.bounds import certified_radius, lower_bound, two_sided_test

SIGMA = 0.25


class Halfspace(nn.Module):
    """Class 1 where the first pixel is above 1/2: an image's distance from the border is its first pixel's, and all is known."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-z, z], 1)


def at_distances(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, 1, 2)`` so far on the side of class 1, with their labels."""
    x = torch.full((len(distances), 1, 1, 2), 0.5)
    x[:, 0, 0, 0] += distances
    return x, torch.ones(len(distances), dtype=torch.int64)


def some_images(n: int = 6) -> ImageSet:
    pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 10, tuple("abcdefghij"), "some")


# Bounds.


def test_bounds_are_the_quantiles_and_tests_of_the_textbook() -> None:
    """Clopper and Pearson's own example, 5 of 10 at 95 %, reaches from .1871 to .8129."""
    assert lower_bound(5, 10, 0.025) == pytest.approx(0.18709, abs=5e-6)
    assert lower_bound(10_000, 10_000, 0.001) == pytest.approx(0.001 ** (1 / 10_000), rel=1e-12) and lower_bound(0, 10, 0.1) == 0
    for count, n, alpha in [(1, 1, 0.3), (3, 7, 0.9), (60, 100, 0.001), (99_000, 100_000, 0.001), (51_000, 100_000, 0.05)]:
        assert lower_bound(count, n, alpha) == pytest.approx(beta.ppf(alpha, count, n - count + 1), rel=1e-10)
        assert two_sided_test(count, n - count) == pytest.approx(binomtest(count, n).pvalue, rel=1e-8)
    assert two_sided_test(50, 50) == two_sided_test(0, 0) == 1
    assert certified_radius(NormalDist().cdf(1.5), SIGMA) == pytest.approx(1.5 * SIGMA) and certified_radius(0.5, SIGMA) == 0


# What is proved.


def test_a_certificate_is_wrong_no_more_often_than_alpha_and_not_much_less() -> None:
    """Under noise class 1 has the probability Phi(distance / sigma), and the true radius is the distance."""
    alpha, n = 0.2, 400
    distances = torch.rand(n, generator=torch.Generator().manual_seed(1)) * SIGMA + 0.1 * SIGMA
    found = certify(Halfspace(), at_distances(distances), SIGMA, n0=30, n=100, alpha=alpha, progress=False)
    true = [
        NormalDist().cdf(far / SIGMA * (1 if r.candidate == 1 else -1)) for far, r in zip(distances.tolist(), found.records, strict=True)
    ]
    too_high = sum(record.p > p for record, p in zip(found.records, true, strict=True))
    too_far = sum(r.radius > (far if r.prediction == 1 else 0) for far, r in zip(distances.tolist(), found.records, strict=True))
    assert binom.sf(too_high - 1, n, alpha) > 1e-3 and too_far <= too_high
    assert too_high > alpha * n / 2  # a bound that is never wrong would be a bad one


def test_many_draws_prove_nearly_the_true_radius_and_the_border_none() -> None:
    found = certify(Halfspace(), at_distances(torch.tensor([0.2, 0.0, -0.2])), SIGMA, n=20_000, batch_size=5000, progress=False)
    near, border, wrong = found.records
    assert 0.185 < near.radius < 0.2 and near.is_right
    assert border.prediction is None and border.radius == 0 and 0.45 < border.p <= 0.5
    assert wrong.prediction == 0 and 0.185 < wrong.radius < 0.2 and not wrong.is_right
    counts = [rate.count for rate in found.at([0.0, 0.1, 0.2]).values()]
    assert counts == [1, 1, 0] and found.abstained.count == 1 and found.median_radius == 0


def test_an_answer_is_another_than_the_likeliest_no_more_often_than_alpha() -> None:
    alpha, n = 0.2, 200
    close = torch.full((n,), 0.02 * SIGMA)
    found = predict(Halfspace(), at_distances(close), SIGMA, n=60, alpha=alpha, progress=False)
    wrong = sum(record.prediction == 0 for record in found.records)
    assert binom.sf(wrong - 1, n, alpha) > 1e-3
    assert 0 < found.abstained.value < 1 and found.accuracy.count + wrong + found.abstained.count == n


# Draws.


class Noting(nn.Module):
    """Keeps what it is shown, and answers by the pixels' mean."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.clone())
        mean = x.flatten(1).mean(1)
        return torch.stack([mean - 0.5, 0.5 - mean], 1)


def test_draws_are_gaussian_unclipped_and_the_first_of_more() -> None:
    x, y = torch.full((1, 3, 8, 8), 0.02), torch.zeros(1, dtype=torch.int64)
    shown = {}
    for n, batch_size in ((40, 7), (200, 200)):
        model = Noting()
        predict(model, (x, y), SIGMA, n=n, batch_size=batch_size, progress=False)
        assert max(map(len, model.shown)) <= batch_size
        shown[n] = torch.cat(model.shown)
    assert torch.equal(shown[200][:40], shown[40])
    noise = ((shown[200] - x) / SIGMA).flatten()
    assert abs(noise.mean()) < 4 / math.sqrt(len(noise)) and abs(noise.var() - 1) < 4 * math.sqrt(2 / len(noise))
    assert (shown[200] < 0).any() and len(shown[200].unique(dim=0)) == 200


def test_images_alone_together_in_another_order_and_after_a_kill_get_the_same_bytes(
    tiny_model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = some_images(), {"n0": 10, "n": 40, "alpha": 0.05, "progress": False}
    whole = certify(tiny_model, images, SIGMA, out=tmp_path / "whole", **options)
    assert len({record.candidate for record in whole.records}) > 1
    order = torch.tensor([4, 0, 5])
    some = certify(tiny_model, images.subset(order), SIGMA, batch_size=13, **options)
    assert list(some.records) == [whole.records[i] for i in order.tolist()]
    softmax = nn.Sequential(tiny_model, nn.Softmax(1))
    assert certify(softmax, images, SIGMA, **options).records == whole.records

    after, deaths = dying(monkeypatch), 0
    for number in range(1, 60, 4):
        after(number)
        try:
            again = certify(tiny_model, images, SIGMA, out=tmp_path / "killed", **options)
        except Killed:
            deaths += 1
            continue
        break
    after(10**6)
    assert deaths > 2 and again.records == whole.records
    assert (tmp_path / "killed" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()
    report = json.loads((tmp_path / "killed" / "report.json").read_text())
    assert report["images"] == 6 and {path.name for path in (tmp_path / "killed").iterdir()} == {"records.jsonl", "report.json"}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its name there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fails", [False, True])
def test_others_share_the_images_and_take_over_what_fails_elsewhere(tiny_model: nn.Module, tmp_path: Path, fails: bool) -> None:
    """One is still at the first image when another comes, who does all the rest and waits for it, or does it after a failure."""
    images, options = some_images(), {"n0": 10, "n": 40, "alpha": 0.05, "batch_size": 50, "progress": False}
    whole, other, passes = certify(tiny_model, images, SIGMA, out=tmp_path / "whole", **options), deepcopy(tiny_model), []
    found: list[Certificates] = []
    thread = Thread(target=lambda: found.append(certify(other, images, SIGMA, out=tmp_path / "out", **options)))

    def meanwhile(model: nn.Module, given: tuple[Tensor]) -> None:
        passes.append(model)
        if len(passes) == 1:
            thread.start()
            while len(list((tmp_path / "out" / ".unfinished" / "images").glob("*.json"))) < len(images) - 1:
                thread.join(0.002)
            assert thread.is_alive()
            if fails:
                raise UserError("as if it was killed")

    for model in (tiny_model, other):
        model.register_forward_pre_hook(meanwhile)
    if fails:
        with pytest.raises(UserError, match="as if it was killed"):
            certify(tiny_model, images, SIGMA, out=tmp_path / "out", **options)
    else:
        assert certify(tiny_model, images, SIGMA, out=tmp_path / "out", **options) == whole
    thread.join()
    assert found == [whole] and len(passes) == 2 * len(images) + fails
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_is_finished_is_read_again_and_nothing_else_is_taken_for_it(tiny_model: nn.Module, tmp_path: Path) -> None:
    images, options = some_images(2), {"n0": 5, "n": 20, "out": tmp_path / "out", "progress": False}
    found = certify(tiny_model, images, SIGMA, **options)
    made = content(tmp_path / "out")
    files.write_bytes(tmp_path / "out" / ".unfinished" / "images" / "00000.json", b"{}")  # killed while it took itself away
    for _ in range(2):
        assert certify(tiny_model, images, SIGMA, batch_size=3, **options) == found
        assert content(tmp_path / "out") == made and not (tmp_path / "out" / ".unfinished").exists()
    with pytest.raises(UserError, match="n: 20 there, 21 here"):
        certify(tiny_model, images, SIGMA, **{**options, "n": 21})
    with pytest.raises(UserError, match="of other images"):
        certify(tiny_model, some_images(3), SIGMA, **options)


def test_what_is_begun_with_other_images_or_settings_is_refused(
    tiny_model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = some_images(), {"n0": 5, "n": 20, "out": tmp_path / "out", "progress": False}
    after = dying(monkeypatch)
    after(12)
    with pytest.raises(Killed):
        certify(tiny_model, images, SIGMA, **options)
    after(10**6)
    with pytest.raises(UserError, match="n: 20 there, 21 here"):
        certify(tiny_model, images, SIGMA, **{**options, "n": 21})
    with pytest.raises(UserError, match="images: 6 there, 5 here"):
        certify(tiny_model, some_images(5), SIGMA, **options)
    with pytest.raises(UserError, match="image 0 is not the one that was certified before"):
        certify(tiny_model, images.subset(torch.arange(5, -1, -1)), SIGMA, **options)
    assert len(certify(tiny_model, images, SIGMA, **options).records) == 6


# Mistakes.


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"sigma": 0.0}, "`sigma` is the noise's standard deviation in pixel units, above 0, got 0.0"),
        ({"sigma": float("nan")}, "`sigma` .* got nan"),
        ({"alpha": 0.0}, "`alpha` is how often an answer may be wrong, between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "`alpha` .* got 1.0"),
        ({"n0": 0}, "`n0` is how many draws choose a class, at least 1, got 0"),
        ({"n": 0}, "`n` and `batch_size` count draws, at least 1, got 0 and 250"),
        ({"n": 9}, "9 draws prove nothing at `alpha=0.001`, even if all agree: `n` must be at least 10"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_told_in_one_sentence(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        certify(Halfspace(), at_distances(torch.zeros(1)), **{"sigma": SIGMA, **change})  # type: ignore[arg-type]
