"""Which solution does an optimizer pick? Linear models, optimizers in every geometry, exact solutions and certificates.

from robustlab import linear_bias as lb
from robustlab.norms import L1
from robustlab.steps import Steepest

data = lb.separable(seeds=10, n=15, d=40)
step = 1 / lb.largest(data, L1()) ** 2
path = lb.descend(lb.LinearObjective(data, lb.LogExponential()), data.X.new_zeros(10, 40), Steepest(L1(), step, scaled=True), 20_000)
print(lb.certified_gap(data, path.last, L1()))
"""
