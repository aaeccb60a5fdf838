"""CERTIFY and PREDICT of Cohen et al. 2019: what a model predicts under Gaussian noise, counted, and what the counts prove."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import files, seeding
from robustlab.attacks.protocols import Model
from robustlab.blocks import Blocks
from robustlab.checks import check_images, check_labels
from robustlab.data.adapt import BatchStream, Data
from robustlab.errors import UserError
from robustlab.evaluation.accuracy import predictions, prepared
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.paths import place_of
from robustlab.progress import Progress, say
from robustlab.records import check_same, environment
from robustlab.smoothing.bounds import certified_radius, lower_bound, two_sided_test
from robustlab.smoothing.certificates import Certificate, Certificates, Prediction, Predictions

READ = 250  # images that are read together
PAUSE = 0.2  # seconds between two looks whether other processes are done
WHAT, PART = "certification", "images"
RESULTS = RECORDS, REPORT = "records.jsonl", "report.json"


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
            image: after an interruption the same call goes on, and ends with the same records. Processes that make the same call at the
            same time share the images, and each has the answers of all of them; so the data must come in the same order to each.
        progress: show how far it is.

    Raises:
        UserError: numbers out of range; a folder that holds something else, other images or other settings; and as for ``evaluate``.
    """
    how = _Sampling(sigma, n, alpha, batch_size)
    _check_draws(n0, n, alpha)
    stream = prepared(model, data, batch_size=READ, seed=seed, device=device, workers=workers)
    known = digest(model) if isinstance(model, nn.Module) else None
    asked = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "seed": seed, "model": known}
    certifying = _Certifying(model, how, n0, stream, progress, Certificates((), sigma, n, alpha, stream.classes, n0))
    place = None if out is None else place_of(out)
    try:
        return certifying.found(place, asked)
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
    """One image ``(1, ...)``, with its label, its position in the split, its random key ``(1,)``, and the largest label of its batch.

    Its number counts the images as they come.
    """

    x: Tensor
    label: int
    index: int
    key: Tensor
    file: str | None
    highest: int
    number: int


def _images(stream: BatchStream) -> Iterator[_Image]:
    number = 0
    for batch in stream:
        check_images(batch.x)
        highest = check_labels(batch.y, batch.x)
        for i, (label, index) in enumerate(zip(batch.y.tolist(), batch.index.tolist(), strict=True)):
            file = stream.files[number] if stream.files is not None else None
            yield _Image(batch.x[i : i + 1], label, index, batch.keys[i : i + 1], file, highest, number)
            number += 1


def _check_draws(n0: int, n: int, alpha: float) -> None:
    if n0 < 1:
        raise UserError(f"`n0` is how many draws choose a class, at least 1, got {n0}")
    fewest = math.ceil(math.log(alpha) / math.log(0.5) + 1e-9)
    if n < fewest:
        raise UserError(f"{n} draws prove nothing at `alpha={alpha:g}`, even if all agree: `n` must be at least {fewest}")


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

    def found(self, place: Path | None, asked: dict[str, Any]) -> Certificates:
        """The certificates of all images: of this call, of equal ones before, and of those at the same time.

        Raises:
            UserError: the place holds something else, other settings or other images, or its files are damaged.
        """
        with Blocks.at(place, {**asked, "images": self.stream.n}, what=WHAT, results=RESULTS) as blocks:
            pictures = [_identity(one) for one in _images(self.stream)] if blocks.is_finished else self._certified(blocks)
            with blocks.finishing({PART: len(pictures)}) as ready:
                if ready:
                    lines = [blocks.found(PART, k)["record"] for k in range(len(pictures))]
                    found = replace(self.empty, records=tuple(map(Certificate.from_json, lines)))
                    if place is not None:
                        _write(place, found, {"asked": asked, "pictures": _joined(pictures)})
                    return found
        assert place is not None
        return self._read(place, asked, _joined(pictures))

    def _certified(self, blocks: Blocks) -> list[int]:
        """See to it that every image is certified, by this process or by others, and tell by which numbers the images are known."""
        pictures: list[int] = []
        waiting: list[_Image] = []  # for other processes
        with frozen(self.model), Progress("certifying", self.stream.n, "img", shown=self.progress) as shown:
            for one in _images(self.stream):
                pictures.append(_identity(one))
                waiting = [each for each in (*waiting, one) if not self._is_done(blocks, each, pictures[each.number], shown)]
            while waiting:
                time.sleep(PAUSE)
                waiting = [each for each in waiting if not self._is_done(blocks, each, pictures[each.number], shown)]
        return pictures

    def _is_done(self, blocks: Blocks, one: _Image, picture: int, shown: Progress) -> bool:
        """Whether an image is certified, which is done now where nobody is at it.

        Raises:
            UserError: another image was certified in its place.
        """
        with blocks.claim(PART, one.number) as mine:
            if mine:
                blocks.put(PART, one.number, {"image": picture, "record": self._certificate(one, shown).to_json()})
                return True
        if not blocks.is_done(PART, one.number):
            return False
        kept = blocks.found(PART, one.number)
        if kept is not None and kept["image"] != picture:
            raise UserError(f"image {one.number} is not the one that was certified before: name another folder with `out`")
        shown.skip(1)
        return True

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

    def _read(self, place: Path, asked: dict[str, Any], pictures: str) -> Certificates:
        """What equal calls have written, after a look whether it is of the same images."""
        report = files.read_json(place / REPORT, f"the report of a {WHAT}")
        if not isinstance(report.get("asked"), dict):
            raise UserError(f"{place} holds other results: name another folder with `out`")
        check_same(place, report["asked"], asked, what=WHAT)
        if report.get("pictures") != pictures:
            raise UserError(f"{place} holds a {WHAT} of other images: name another folder with `out`")
        text = files.read_text(place / RECORDS, "one JSON object per line")
        lines = [files.parse_json(line, place / RECORDS, "one JSON object per line") for line in text.splitlines()]
        return replace(self.empty, records=tuple(map(Certificate.from_json, lines)))


def _identity(one: _Image) -> int:
    """A number of an image's pixels and label, to know it by after an interruption."""
    return int(seeding.fold(seeding.content_keys(one.x), "label", one.label))


def _joined(identities: Any) -> str:
    return hashlib.sha256(json.dumps(list(identities)).encode()).hexdigest()


def _write(place: Path, found: Certificates, more: dict[str, Any]) -> None:
    """Records first, the report last: a folder with a report is complete."""
    files.write_text(place / RECORDS, "".join(json.dumps(record.to_json()) + "\n" for record in found.records))
    files.write_json(place / REPORT, {**found.to_json(), **more, "environment": environment()})
