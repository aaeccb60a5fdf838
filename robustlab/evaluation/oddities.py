"""What may be odd about a model's answers, check by check: each says what it saw, what follows for the accuracy, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from robustlab.evaluation.findings import Finding, short
from robustlab.evaluation.probes import TINY, Answers
from robustlab.evaluation.traces import attack_failures
from robustlab.goals import cross_entropy, margin

SAME = 1e-4  # of normalized logits: AutoAttack's limit for what is random
SOME = 0.05  # share of images from which on it is told
Check: TypeAlias = Callable[[Answers], Iterator[Finding]]


# Of images and outputs.


def narrow_range(a: Answers) -> Iterator[Finding]:
    """Images that were divided by 255 twice, say."""
    low, high = float(a.x.min()), float(a.x.max())
    if high - low < 0.1 and a.x[0].numel() > 1:
        yield Finding(
            "narrow-range",
            f"all pixels lie between {low:.4g} and {high:.4g}, where images use most of [0, 1]: they were perhaps divided by 255 twice, "
            "and a radius that is small for images is large for these; give images in [0, 1]",
            {"low": short(low), "high": short(high)},
        )


def scaling(a: Answers) -> Iterator[Finding]:
    """A model that is right far more often when pixels are scaled in another way."""
    base = a.logits.argmax(1) == a.y
    gains = {how: (int((right & ~base).sum()), int((base & ~right).sum()), int(right.sum())) for how, right in a.scaled.items()}
    better, worse, right = max(gains.values(), default=(0, 0, 0))
    if better - worse >= max(0.2 * a.n, 3 * (better + worse) ** 0.5):  # three standard deviations of a fair coin
        how = next(name for name, gain in gains.items() if gain == (better, worse, right))
        yield Finding(
            "scaling",
            f"{int(base.sum())} of {a.n} images are right as they are, and {right} when their pixels are {how}: the model was trained on "
            "other values, so neither its accuracy nor eps means what it says; put that scaling into the model, or take out one too many",
            {"right": int(base.sum()), "right_scaled": right, "n": a.n, "scale": how},
        )


def not_finite(a: Answers) -> Iterator[Finding]:
    """Logits that are NaN or infinite, on the images or near them; a class that is switched off by -inf for all of them is none."""
    off = (a.runs == -torch.inf).all(0).all(0)  # (K,)
    at = int((~(a.runs.isfinite() | off)).any(2).any(0).sum())
    beside = torch.stack([~(one.isfinite() | off).all(1) for one in (a.near_first, a.near_again, a.further, a.tenth, a.whole)]).any(0)
    runs = [run for run in (a.limited, a.unlimited) if run is not None]
    met = [(~torch.stack(run.trace.values).isfinite()).any(0) | ~_known(run.found.finite) for run in runs]
    near = int((torch.stack([beside, *met]).any(0)).sum())
    if at or near:
        yield Finding(
            "not-finite",
            f"logits are NaN or infinite at {at} of {a.n} images, and gradients or logits at points near {near} of them: an attack stops "
            "there, and a NaN compares as never fooled or always; find the operation that makes them (a logarithm of 0, a division, "
            "float16)",
            {"images": at, "near": near, "n": a.n},
        )


def probabilities(a: Answers) -> Iterator[Finding]:
    """Softmax outputs in place of logits; AutoAttack's limits."""
    z = a.logits
    if (z > -1e-5).all() and (z < 1 + 1e-5).all() and ((z.sum(1) - 1).abs() < 1e-5).all():
        yield Finding(
            "probabilities",
            f"outputs of all {a.n} images lie in [0, 1] and sum to 1: they are probabilities, not logits, and the softmax of the loss "
            "would flatten them once more, so that attacks are too weak; return the values before the last softmax",
            {"n": a.n},
        )


def constant(a: Answers) -> Iterator[Finding]:
    """The same answer to every image."""
    if _one_answer(a):
        yield Finding(
            "constant",
            f"the logits of all {a.n} images are the same: nothing can change what the model says, which is no robustness; look at whether "
            "its weights were loaded and its input reaches them",
            {"n": a.n},
        )


def quantized_logits(a: Answers) -> Iterator[Finding]:
    """Logits on a grid, by the smallest gap between two of many: among N numbers of range R it is about R / N^2.

    A network that computes in half precision has a grid too, and gradients with it: of that nothing is said.
    """
    if _one_answer(a) or (_is_half(a.logits) and _has_gradients(a)):
        return
    z = torch.cat([a.logits, a.near_first, a.further, a.whole]).double().flatten()
    values = z[z.isfinite()].unique()  # sorted
    if len(values) < 3 or len(z) < 20:
        return
    gap, span = float(values.diff().min()), float(values[-1] - values[0])
    if gap > 50 * span / len(z) ** 2:  # would happen by chance once in e^50 times
        yield Finding(
            "quantized-logits",
            f"{len(z)} logits take only {len(values)} different values, none nearer to another than {gap:.3g}: they are rounded, which "
            "leaves attacks without a gradient and no nearer to robustness; attack the logits before rounding, and without gradients too",
            {"values": len(values), "logits": len(z), "gap": short(gap)},
        )


# Of calls: the same answer to the same question.


def random_answers(a: Answers) -> Iterator[Finding]:
    """AutoAttack's check of randomized defences."""
    difference, right = _spread(a)
    if _is_random(a):
        waking = f" ({', '.join(a.waking[:3])} still in training mode)" if a.waking else ""
        yield Finding(
            "random",
            f"{len(a.runs)} calls with the same {a.n} images gave different logits{waking}, up to {difference:.3g} of their length apart, "
            f"with {min(right)} to {max(right)} right: one lucky draw counts as robust or broken; switch the draws off (dropout in "
            "evaluation mode), or attack the average of many draws",
            {"difference": short(difference), "fewest_right": min(right), "most_right": max(right), "calls": len(a.runs), "n": a.n},
        )


def remembers(a: Answers) -> Iterator[Finding]:
    """Answers that differ though the random state is the same: the model keeps something between calls."""
    difference = _apart(a.near_first, a.near_again)
    if float(difference.max()) > SAME:
        changed = int((difference > SAME).sum())
        yield Finding(
            "remembers",
            f"answers to {changed} of {a.n} images changed after other calls, with all random states put back: the model remembers what "
            "it was asked, or draws from a generator of its own, so what an attack sees is not what is judged; make its answer depend on "
            "the image alone",
            {"images": changed, "difference": short(float(difference.max())), "n": a.n},
        )


def batch(a: Answers) -> Iterator[Finding]:
    """Answers that depend on the other images of the batch, as BatchNorm's do on batch statistics."""
    if _is_random(a) or _one_answer(a):
        return
    difference = _apart(a.logits[: len(a.company)], a.company)
    changed = int((difference > 10 * SAME).sum())
    if changed:
        names = f" ({', '.join(a.waking[:3])})" if a.waking else ""
        yield Finding(
            "batch",
            f"answers to {changed} of {len(a.company)} images depend on the other images of the batch{names}: accuracy then depends on how "
            "images are put together, and attacks help each other; use running statistics (BatchNorm in evaluation mode)",
            {"images": changed, "difference": short(float(difference.max())), "n": len(a.company)},
        )


def known_images(a: Answers) -> Iterator[Finding]:
    """Answers that jump as soon as an image is not exactly itself: a table of known images."""
    if _is_random(a):
        return
    jump, slope = (a.near_first - a.logits).abs().amax(1), (a.further - a.near_first).abs().amax(1)
    size = _finite(a.logits.std(1))
    jumps = int(((slope > 0) & (jump > 20 * slope) & (jump > 0.05 * size)).sum())
    if jumps:
        yield Finding(
            "known-images",
            f"for {jumps} of {a.n} images logits jump when pixels change by {TINY:g}, and hardly change with the next such change: the "
            "model answers these very images from memory, so its clean accuracy is not its own; judge it on images changed by that little",
            {"images": jumps, "n": a.n, "change": TINY},
        )


def unstable(a: Answers) -> Iterator[Finding]:
    """Pintor et al.'s indicator of unstable predictions: the loss near the images is not that at the images."""
    if _is_random(a):
        return
    here, there = (_finite(margin(z, _own(a))) for z in (a.logits, a.tenth))
    change = float(((there - here).abs() / here.abs().clamp_min(1e-12)).median())
    if change > 0.25:
        yield Finding(
            "unstable",
            f"noise of a tenth of eps changes the margin by {change:.0%} of itself for half of the images: the loss is too rough for its "
            "gradient to lead anywhere, so attacks that follow it fail; average gradients over noise, and attack without gradients too",
            {"change": short(change), "n": a.n},
        )


# Of gradients.


def dynamic(a: Answers) -> Iterator[Finding]:
    """AutoAttack's check of dynamic defences."""
    if a.dynamic:
        yield Finding(
            "dynamic",
            "the model takes gradients within its forward pass (it optimizes something for each input): standard attacks see such a model "
            "badly, and its answer may depend on the batch; attack the static network, and adapt the attack to the inner loop",
            {"n": a.n},
        )


def no_gradient(a: Answers) -> Iterator[Finding]:
    """Nothing to follow: the model is cut between its input and its logits."""
    why = [f"{name}: {one}" for name, one in a.gradients.items() if isinstance(one, str)]
    if why:
        reason = a.gradients["cross-entropy"] if isinstance(a.gradients["cross-entropy"], str) else why[0]
        yield Finding(
            "no-gradient",
            f"logits have no gradient with respect to the images ({reason}): attacks that follow gradients cannot start; take out what "
            "cuts the graph (`detach`, `no_grad`, numpy, rounding to integers), or give its backward pass a stand-in, and attack without "
            "gradients",
            {"n": a.n, "reason": str(reason)},
        )


def zero_gradient(a: Answers) -> Iterator[Finding]:
    """AutoAttack's check of zero gradients, for both of its losses."""
    found = {name: int((one == 0).flatten(1).all(1).sum()) for name, one in a.gradients.items() if isinstance(one, Tensor)}
    if max(found.values(), default=0) > SOME * a.n:
        seen = ", ".join(f"{zeros} for the {name} loss" for name, zeros in found.items())
        yield Finding(
            "zero-gradient",
            f"of {a.n} images the gradient is exactly zero at the image: {seen}; there an attack has no direction, and the image counts as "
            "robust; use the loss that has gradients, a random start, or an attack without gradients",
            {**{f"share_{name}": short(zeros / a.n) for name, zeros in found.items()}, "n": a.n},
        )


def saturated(a: Answers) -> Iterator[Finding]:
    """Cross-entropy that float32 rounds to exactly 0."""
    loss = cross_entropy(_finite(a.logits).float(), _own(a))
    zeros = int((loss == 0).sum())
    if zeros > SOME * a.n and not _one_answer(a):
        far = float(-_finite(margin(a.logits, _own(a))).median())
        yield Finding(
            "saturated",
            f"the cross-entropy of {zeros} of {a.n} images is exactly 0 in float32 (half of the margins are above {far:.3g}): its gradient "
            "is rounding or nothing, so attacks by it stop early; use a loss that does not saturate (`dlr` or `margin`), or divide the "
            "logits",
            {"images": zeros, "n": a.n, "margin": short(far)},
        )


def quantized_input(a: Answers) -> Iterator[Finding]:
    """Answers that do not feel tiny changes of the image, though they feel large ones."""
    if _one_answer(a) or next(quantized_logits(a), None):
        return
    same = int((a.near_first == a.further).all(1).sum())
    moved = int((a.whole != a.logits).any(1).sum())
    if same > 0.5 * a.n:
        yield Finding(
            "quantized-input",
            f"logits of {same} of {a.n} images stay exactly the same when pixels change by {TINY:g}, while those of {moved} change within "
            "eps and different images get different ones: the input is rounded or looked up, which hides the gradient; attack through the "
            "rounding as if it were the identity (BPDA, Athalye et al. 2018), and without gradients too",
            {"images": same, "moved": moved, "n": a.n, "change": TINY},
        )


def run_failures(a: Answers) -> Iterator[Finding]:
    """What the short attack within the threat model tells: gradients that vanish on the way."""
    if a.limited is not None:
        yield from (one for one in attack_failures(a.limited.trace, a.limited.found.value) if one.name == "transient-gradient")


def unconstrained(a: Answers) -> Iterator[Finding]:
    """Pintor et al.'s last indicator: an attack that may do anything to the image must succeed."""
    if a.unlimited is None or _one_answer(a):
        return
    held = int((~_known(a.unlimited.found.achieved)).sum())
    if held > 0.1 * a.n:
        yield Finding(
            "unconstrained",
            f"{held} of {a.n} images hold against an attack that may make any image of them: it is the attack that fails there, not the "
            "adversary, and a robust accuracy by such attacks says nothing; find out why gradients do not lead away from the class",
            {"images": held, "n": a.n, "share": short(held / a.n)},
        )


CHECKS: tuple[Check, ...] = (
    narrow_range,
    scaling,
    not_finite,
    probabilities,
    constant,
    quantized_logits,
    random_answers,
    remembers,
    batch,
    known_images,
    unstable,
    dynamic,
    no_gradient,
    zero_gradient,
    saturated,
    quantized_input,
    run_failures,
    unconstrained,
)


def _own(a: Answers) -> Tensor:
    """The predicted classes, which attacks are to leave."""
    return a.logits.nan_to_num(-torch.inf).argmax(1)


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(0.0, 0.0, 0.0)


def _known(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """How far two answers are apart in units of their length, ``(B,)``; what is not finite has its own check."""
    one, other = (_finite(z) / torch.linalg.vector_norm(_finite(z), dim=1, keepdim=True).clamp_min(1e-10) for z in (one, other))
    return torch.linalg.vector_norm(one - other, dim=1)


def _is_half(z: Tensor) -> bool:
    """Whether all numbers are of half precision, of either kind."""
    return any(bool((z == z.to(dtype).to(z.dtype)).all()) for dtype in (torch.float16, torch.bfloat16))


def _has_gradients(a: Answers) -> bool:
    """Whether more than half of the images have a gradient of the cross-entropy that is not zero."""
    grad = a.gradients["cross-entropy"]
    return isinstance(grad, Tensor) and int((grad != 0).flatten(1).any(1).sum()) > 0.5 * a.n


def _spread(a: Answers) -> tuple[float, list[int]]:
    """The largest difference between two calls with the same images, and how many images each call had right."""
    pairs = [(i, j) for i in range(len(a.runs)) for j in range(i)]
    return max(float(_apart(a.runs[i], a.runs[j]).max()) for i, j in pairs), [int((run.argmax(1) == a.y).sum()) for run in a.runs]


def _is_random(a: Answers) -> bool:
    difference, right = _spread(a)
    return difference > SAME or len(set(right)) > 1


def _one_answer(a: Answers) -> bool:
    return a.n > 1 and bool((a.logits == a.logits[:1]).all() and (a.whole == a.logits[:1]).all())
