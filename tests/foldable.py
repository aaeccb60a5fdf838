"""Networks of every shape that a BatchNorm is found in, for what makes copies of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from laws import drawn, images
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

X = images(4, 3, 8, 8)


def lived_in(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with statistics, weights and biases of BatchNorm that matter."""
    for i, module in enumerate(model.modules()):
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.weight.data = 1 + drawn(module.num_features, seed=i, dtype=torch.float32) / 2
            module.bias.data = drawn(module.num_features, seed=i + 1, dtype=torch.float32) / 2
    model.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for seed in range(3):
            model(1.5 * images(16, 3, 8, 8, seed=seed))
    return model.eval()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lived_in(make())


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def assert_same(fast: nn.Module, model: nn.Module, x: Tensor = X) -> None:
    """Logits and input gradients within 1e-5 of the model's, in units of their largest."""
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    logits, expected = fast(ours), model(theirs)
    assert logits.dtype == expected.dtype and logits.shape == expected.shape
    into = drawn(*expected.shape, dtype=expected.dtype)  # some combination of the logits
    (grad,), (wanted,) = torch.autograd.grad((logits * into).sum(), ours), torch.autograd.grad((expected * into).sum(), theirs)
    for found, right in ((logits, expected), (grad, wanted)):
        assert (found - right).abs().max() <= 1e-5 * right.abs().max()


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten()
    )


class Shared(nn.Module):
    """One convolution, two BatchNorms: folding either into it would change the other's output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return (self.first(self.conv(x)) + self.second(self.conv(2 * x))).flatten(1)


class Reused(nn.Module):
    """Two convolutions, one BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.two(torch.relu(self.norm(self.one(x))))).flatten(1)


class TwoReaders(nn.Module):
    """What the convolution says is read by its BatchNorm and by somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        seen = self.conv(x)
        return (self.norm(seen) + seen.sigmoid()).flatten(1)


class NormOfTwoReaders(nn.Module):
    """What the BatchNorm says is read twice: it may be folded, and both must hear the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.left, self.right = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        seen = self.norm(self.conv(x))
        return (self.left(seen) * self.right(seen) + seen.mean()).flatten(1)


class ReadsWeights(nn.Module):
    """Looks at its layers' weights as well as calling them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return (self.norm(self.conv(x)) * self.norm.weight.view(-1, 1, 1) + self.conv.weight.sum()).flatten(1)


class ReadAgain(nn.Module):
    """ReLUs that must not write over their inputs, which are read again: by another layer, by a gradient, by another use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two, self.three = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        seen = self.conv(x) - 0.5
        total = seen + x
        return (self.one(total) + total + self.two(seen.tanh()) + self.three(x.tanh()) + self.three(self.conv(x))).flatten(1)


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(input=self.conv(input=x)).flatten(1)


class Undecided(nn.Module):
    """Its path depends on values, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x if x.mean() > 0.1 else 1 - x)).flatten(1)


def hooked() -> nn.Module:
    model = plain()
    model[0].register_forward_hook(lambda module, args, output: output.tanh())
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # with the number of BatchNorms that must remain
    "plain": (plain, 0),
    "one convolution, two norms": (Shared, 2),
    "two convolutions, one norm": (Reused, 1),
    "convolution with two readers": (TwoReaders, 1),
    "norm with two readers": (NormOfTwoReaders, 0),
    "reads its weights": (ReadsWeights, 1),
    "reads again what a ReLU reads": (ReadAgain, 0),
    "called by keyword": (ByKeyword, 1),
    "path depends on values": (Undecided, 1),
    "hooked": (hooked, 1),
    "no running statistics": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()), 1),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten()), 2),
    "strided, grouped, dilated": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, groups=3, dilation=2, padding=1), nn.BatchNorm2d(6), nn.Flatten()),
        0,
    ),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), nn.Flatten()), 1),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), nn.Flatten()), 1),
    "dropout": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.9), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.9)), 1),
    "no convolution": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)), 0),
}
every_network = pytest.mark.parametrize("make, left", NETWORKS.values(), ids=NETWORKS.keys())
