"""Attack a network of your own: any nn.Module that maps images in [0, 1] to logits, without wrapping it."""

import torch
from torch import nn

from robustlab import L2, PGD, Linf, Targeted, ThreatModel

network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(1024, 10))
x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
y = network(x).argmax(1)  # what it predicts now

for threat in (ThreatModel(Linf(), 8 / 255), ThreatModel(L2(), 0.5)):
    attack = PGD(threat, steps=20, restarts=2)
    x_adv = attack(network, x, y)
    distance = threat.norm.measure(x_adv.double() - x.double())
    fooled = network(x_adv).argmax(1) != y
    print(f"{attack}: {int(fooled.sum())} of {len(x)} fooled, at most {float(distance.max()):.6f} away")
    assert (distance <= threat.eps).all()  # exactly, not up to rounding

# A goal instead of labels: make everything class 3.
wanted = torch.full_like(y, 3)
x_adv = PGD(ThreatModel(L2(), 2.0), steps=20)(network, x, Targeted(wanted))
print(f"class 3 reached by {int((network(x_adv).argmax(1) == wanted).sum())} of {len(x)}")
