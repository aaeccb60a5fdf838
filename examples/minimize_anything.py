"""The engine alone: the closest image to a target that differs from the start in one quarter only, within a budget of L2 or L1; and
images that leave the batch as soon as they are near their target.
"""

import torch

from robustlab import L1, L2, ThreatModel, minimize
from robustlab.constraints import Masked
from robustlab.steps import Steepest


class Distance:
    def __init__(self, target):
        self.target = target

    def __call__(self, x):
        return (x - self.target).flatten(1).square().sum(1)  # (B,): one value per example, never a mean over the batch

    def at(self, index):  # the same for some of the examples only: with this, those that are done can leave
        return Distance(self.target[index])


start = torch.full((2, 1, 8, 8), 0.5)
distance = Distance(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
corner = torch.zeros(8, 8, dtype=torch.bool)
corner[:4, :4] = True
for threat, step_size in ((ThreatModel(L2(), 0.8), 0.05), (ThreatModel(L1(), 2.0), 0.02)):
    allowed = Masked(threat.around(start), start, corner)
    solution = minimize(distance, start, allowed, Steepest(threat.norm, step_size), steps=200)
    moved = (solution.x != start).flatten(1).sum(1).tolist()
    before, after = distance(start).tolist(), distance(solution.x).tolist()
    print(f"{threat}: from {before[0]:.3f} to {after[0]:.3f}, {moved[0]} of 64 pixels moved")


def near(found):
    sizes.append(len(found.x))
    return found.value < 0.1


sizes: list[int] = []  # of the batch, at each step
rule = Steepest(L2(), torch.tensor([0.01, 0.1]))  # a step size for each example
solution = minimize(distance, start, ThreatModel(L2(), 8.0).around(start), rule, steps=400, done=near)
print(f"near: {(distance(solution.x) < 0.1).tolist()}, after {sizes.count(2)} steps together and {sizes.count(1)} of one alone")
