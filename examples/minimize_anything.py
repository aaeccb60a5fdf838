"""The engine alone: the closest image to a target that differs from the start in one quarter only, within a budget of L2 or L1."""

import torch

from robustlab import L1, L2, ThreatModel, minimize
from robustlab.constraints import Masked
from robustlab.steps import Steepest

start = torch.full((2, 1, 8, 8), 0.5)
target = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def distance(x):
    return (x - target).flatten(1).square().sum(1)  # (B,): one value per example, never a mean over the batch


corner = torch.zeros(8, 8, dtype=torch.bool)
corner[:4, :4] = True
for threat, step_size in ((ThreatModel(L2(), 0.8), 0.05), (ThreatModel(L1(), 2.0), 0.02)):
    allowed = Masked(threat.around(start), start, corner)
    solution = minimize(distance, start, allowed, Steepest(threat.norm, step_size), steps=200)
    moved = (solution.x != start).flatten(1).sum(1).tolist()
    before, after = distance(start).tolist(), distance(solution.x).tolist()
    print(f"{threat}: from {before[0]:.3f} to {after[0]:.3f}, {moved[0]} of 64 pixels moved")
