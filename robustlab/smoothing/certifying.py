"""CERTIFY and PREDICT of Cohen et al. 2019: what a model predicts under Gaussian noise, counted, and what the counts prove."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import files, seeding
from robustlab.attacks.protocols import Model
from robustlab.checks import check_images, check_labels
from robustlab.data.adapt import BatchStream, Data
from robustlab.errors import UserError
from robustlab.evaluation.accuracy import predictions, prepared
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.paths import place_of
from robustlab.progress import Progress, say
from robustlab.records import Resumable, Run, check_same, environment
from robustlab.smoothing.bounds import certified_radius, lower_bound, two_sided_test
from robustlab.smoothing.certificates import Certificate, Certificates, Prediction, Predictions

READ = 250  # images that are read together
WHAT = "certification"


def certify(
    model: Model,
    data: Data,
    sigma: float,
    *,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Certificates:
    """The smoothed classifier's answer for each image, and the L2 radius within which no change of the image changes it.

        certify(model, "photos/", 0.25, n=10_000)

    For each image ``n0`` draws choose the class that is predicted most often under noise, ``n`` others bound its probability from below
    (Clopper and Pearson 1934), and the bound gives the radius. Where it is not above 1/2 the classifier abstains. For each image the
    radius is too large with probability ``alpha`` at most, whatever the model is.

    Draws belong to an image and have numbers: those of a smaller ``n`` are the first of a larger one, and neither batches nor order
    change them. Noisy images leave [0, 1] on purpose, as the proof is one of noise that is not clipped; so the model has to answer for
    such images too, and a model that was not trained with noise seldom answers well.

    Args:
        model: maps images, shape ``(B, ...)``, to one number per class ``(B, K)``, of which the largest counts; probabilities will
            do. Any function. It is left as it was, and runs in evaluation mode and its own precision.
        data: as for ``evaluate``: images, a path, a torch ``Dataset`` or ``DataLoader``, pairs ``(x, y)``, or two arrays.
        sigma: standard deviation of the noise, in pixel units of [0, 1] images.
        n0: draws that choose a class.
        n: draws that bound its probability.
        alpha: how often a certificate may be wrong.
        batch_size: draws in a forward pass; memory depends on this, and on nothing else here.
        seed: of the draws; each image's follow its position in the whole split.
        device: where the images go; the model's own where left out.
        workers: processes that read images which are not in memory.
        out: new or empty folder for ``records.jsonl``, one line per image, and ``report.json``. What is found is kept there image by
            image: after an interruption the same call goes on, and ends with the same records.
        progress: show how far it is.

    Raises:
        UserError: numbers out of range; a folder that holds something else, other images or other settings; and as for ``evaluate``.
    """
    how = _Sampling(sigma, n, alpha, batch_size)
    if n0 < 1:
        raise UserError(f"`n0` is how many draws choose a class, at least 1, got {n0}")
    fewest = math.ceil(math.log(alpha) / math.log(0.5) + 1e-9)
    if n < fewest:
        raise UserError(f"{n} draws prove nothing at `alpha={alpha:g}`, even if all agree: `n` must be at least {fewest}")
    stream = prepared(model, data, batch_size=READ, seed=seed, device=device, workers=workers)
    known = digest(model) if isinstance(model, nn.Module) else None
    asked = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "seed": seed, "model": known}
    certified = _Certifying(model, how, n0, stream, progress, Certificates((), sigma, n, alpha, stream.classes, n0))
    place = None if out is None else place_of(out)
    if place is not None and (place / "report.json").is_file() and not Run.is_run(Resumable.folder_of(place)):
        return certified.finished(place, asked)
    try:
        with Resumable.at(place, asked, what=WHAT) as parts:
            found = certified.run(parts)
            if place is not None:
                _write(place, found, {"asked": asked, "pictures": _joined(line["image"] for line in parts.found("images"))})
            parts.finish()
            return found
    except KeyboardInterrupt:
        if place is not None:
            say("what was found is kept: the same again goes on from here")
        raise


def predict(
    model: Model,
    data: Data,
    sigma: float,
    *,
    n: int = 1000,
    alpha: float = 0.001,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Predictions:
    """The smoothed classifier's answer for each image, without a radius: for that fewer draws will do.

    It is the class that was predicted most often in ``n`` draws, unless the exact binomial test finds that the second most frequent
    may be as likely: then the classifier abstains. For each image the answer is another than the class that is truly most likely
    with probability ``alpha`` at most.

    Args:
        model, data, sigma, n, alpha, batch_size, seed, device, workers, progress: as for ``certify``. The draws are those that bound the
            probability there.

    Raises:
        UserError: numbers out of range; and as for ``evaluate``.
    """
    how = _Sampling(sigma, n, alpha, batch_size)
    stream = prepared(model, data, batch_size=READ, seed=seed, device=device, workers=workers)
    records = []
    with frozen(model), Progress("predicting", stream.n, "img", shown=progress) as shown:
        for one in _images(stream):
            counts = how.counts(model, one, "bound", n, lambda drawn: shown.update(drawn / n))
            (top, most), (_, second) = [*counts.most_common(2), (0, 0)][:2]
            told = two_sided_test(most, second) <= alpha
            records.append(Prediction(one.index, one.label, top if told else None, _sorted(counts), one.file))
    return Predictions(tuple(records), sigma, n, alpha, stream.classes)


@dataclass(frozen=True, eq=False)
class _Image:
    """One image ``(1, ...)``, with its label, its position in the split, its random key ``(1,)``, and the largest label of its batch."""

    x: Tensor
    label: int
    index: int
    key: Tensor
    file: str | None
    highest: int


def _images(stream: BatchStream) -> Iterator[_Image]:
    number = 0
    for batch in stream:
        check_images(batch.x)
        highest = check_labels(batch.y, batch.x)
        for i, (label, index) in enumerate(zip(batch.y.tolist(), batch.index.tolist(), strict=True)):
            file = stream.files[number] if stream.files is not None else None
            yield _Image(batch.x[i : i + 1], label, index, batch.keys[i : i + 1], file, highest)
            number += 1


@dataclass(frozen=True)
class _Sampling:
    """How noise is drawn, checked."""

    sigma: float
    n: int
    alpha: float
    batch_size: int

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise UserError(f"`sigma` is the noise's standard deviation in pixel units, above 0, got {self.sigma}")
        if not 0 < self.alpha < 1:
            raise UserError(f"`alpha` is how often an answer may be wrong, between 0 and 1, got {self.alpha}")
        if self.n < 1 or self.batch_size < 1:
            raise UserError(f"`n` and `batch_size` count draws, at least 1, got {self.n} and {self.batch_size}")

    def counts(self, model: Model, one: _Image, purpose: str, n: int, on_drawn: Any) -> Counter[int]:
        """How often each class is predicted in the first ``n`` draws of a purpose, which is told how many were drawn, pass by pass."""
        key, found = seeding.fold(one.key, purpose), Counter[int]()
        for first in range(0, n, self.batch_size):
            numbers = torch.arange(first, min(first + self.batch_size, n), device=one.x.device)
            noise = seeding.normal(seeding.fold(seeding.fold(numbers, "draw") ^ key, "noise"), one.x.shape[1:], one.x.dtype)
            found.update(predictions(model, one.x + self.sigma * noise, one.highest).tolist())
            on_drawn(len(numbers))
        return found


def _sorted(counts: Counter[int]) -> dict[int, int]:
    return {label: counts[label] for label in sorted(counts)}


@dataclass(frozen=True, eq=False)
class _Certifying:
    """One call of ``certify``."""

    model: Model
    how: _Sampling
    n0: int
    stream: BatchStream
    progress: bool
    empty: Certificates

    def run(self, parts: Resumable) -> Certificates:
        """Certify the images that are not done yet.

        Raises:
            UserError: those that are done were others.
        """
        done = parts.found("images")
        records = [Certificate.from_json(line["record"]) for line in done]
        with frozen(self.model), Progress("certifying", self.stream.n, "img", shown=self.progress) as shown:
            shown.start_from(len(done))
            number = -1
            for number, one in enumerate(_images(self.stream)):
                image = _identity(one)
                if number < len(done):
                    _check_same_image(done[number]["image"], image, number)
                    continue
                records.append(self._certificate(one, shown))
                parts.add("images", {"image": image, "record": records[-1].to_json()})
        if number + 1 < len(done):
            raise UserError(f"{len(done)} images were certified before the interruption, and now there are only {number + 1}")
        return self._with(records)

    def _certificate(self, one: _Image, shown: Progress) -> Certificate:
        total = self.n0 + self.how.n

        def drawn(count: int) -> None:
            shown.update(count / total)

        chosen = self.how.counts(self.model, one, "choice", self.n0, drawn)
        candidate = min(chosen, key=lambda label: (-chosen[label], label))
        counts = self.how.counts(self.model, one, "bound", self.how.n, drawn)
        p = lower_bound(counts[candidate], self.how.n, self.how.alpha)
        radius = certified_radius(p, self.how.sigma)
        return Certificate(one.index, one.label, candidate if radius > 0 else None, _sorted(counts), one.file, candidate, p, radius)

    def finished(self, place: Path, asked: dict[str, Any]) -> Certificates:
        """What an equal call found before, after a look whether it was of the same images.

        Raises:
            UserError: it had other settings or other images, or its files are damaged.
        """
        report = files.read_json(place / "report.json", f"the report of a {WHAT}")
        if not isinstance(report.get("asked"), dict):
            raise UserError(f"{place} holds other results: name another folder with `out`")
        check_same(place, report["asked"], asked, what=WHAT)
        if report.get("pictures") != _joined(map(_identity, _images(self.stream))):
            raise UserError(f"{place} holds a {WHAT} of other images: name another folder with `out`")
        text = files.read_text(place / "records.jsonl", "one JSON object per line")
        lines = [files.parse_json(line, place / "records.jsonl", "one JSON object per line") for line in text.splitlines()]
        return self._with([Certificate.from_json(line) for line in lines])

    def _with(self, records: list[Certificate]) -> Certificates:
        return replace(self.empty, records=tuple(records))


def _identity(one: _Image) -> int:
    """A number of an image's pixels and label, to know it by after an interruption."""
    return int(seeding.fold(seeding.content_keys(one.x), "label", one.label))


def _joined(identities: Any) -> str:
    return hashlib.sha256(json.dumps(list(identities)).encode()).hexdigest()


def _check_same_image(before: int, now: int, number: int) -> None:
    if before != now:
        raise UserError(f"image {number} is not the one that was certified before the interruption: name another folder with `out`")


def _write(place: Path, found: Certificates, more: dict[str, Any]) -> None:
    """Records first, the report last: a folder with a report is complete."""
    files.write_text(place / "records.jsonl", "".join(json.dumps(record.to_json()) + "\n" for record in found.records))
    files.write_json(place / "report.json", {**found.to_json(), **more, "environment": environment()})
