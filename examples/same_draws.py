"""Randomness that belongs to the example: alone, in a batch, in another order, the attack finds the same image."""

import torch

from robustlab import PGD, Linf, ThreatModel
from robustlab.models.zoo import build
from robustlab.seeding import example_keys

model = build("mlp", num_classes=10).double()
x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
y = torch.tensor([0, 1, 2, 3, 4, 5])
keys = example_keys(0, torch.arange(6))  # the run's seed and each image's place in its dataset
attack = PGD(ThreatModel(Linf(), 8 / 255), steps=5)

together = attack(model, x, y, keys=keys)
order = torch.tensor([5, 0, 4, 1, 3, 2])
shuffled = attack(model, x[order], y[order], keys=keys[order])
alone = torch.cat([attack(model, x[i : i + 1], y[i : i + 1], keys=keys[i : i + 1]) for i in range(6)])
print("another order:", float((together[order] - shuffled).abs().max()))
print("one by one:   ", float((together - alone).abs().max()))
