"""Which solution does an optimizer pick? Linear models, optimizers in every geometry, exact solutions and certificates.

    from robustlab import linear_bias as lb

    data = lb.separable(seeds=10, n=15, d=40)
    step = 1 / lb.largest(data, lb.L1()) ** 2
    path = lb.descend(lb.LinearObjective(data, lb.LogExponential()), lb.zeros(data), lb.Steepest(lb.L1(), step, scaled=True), 20_000)
    print(lb.certified_gap(data, path.last, lb.L1()))

Many seeds or step sizes run at once: points are rows ``(S, d)``, or ``(S, P)`` where a model has other parameters. Everything is float64.
"""

from robustlab.linear_bias.certificates import certified_gap, largest, margins
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.interpolants import (
    LassoPath,
    bregman_interpolant,
    flow_interpolant,
    lasso_at,
    lasso_path,
    nearest_interpolant,
    norm_interpolant,
    nuclear_interpolant,
    null_space_constant,
)
from robustlab.linear_bias.losses import (
    LOSSES,
    Exponential,
    LinearObjective,
    LogExponential,
    Logistic,
    LogLogistic,
    Loss,
    ModelObjective,
    OneExample,
    PolynomialTail,
    Squared,
    SquaredHinge,
)
from robustlab.linear_bias.optimizers import DualAcceleration, MirrorDescent, NaturalGradient, PrimalMomentum, RuleOptimizer, TorchRule
from robustlab.linear_bias.parametrizations import Difference, Direct, Parametrization, Product
from robustlab.linear_bias.potentials import Cosh, DiagonalFlow, Entropy, HypEntropy, PNorm, Potential, Quadratic, diagonal_flow
from robustlab.linear_bias.problems import Problem, problem, read_problem, regression, separable, zeros
from robustlab.norms import L1, L2, FourierL1, FourierLinf, Linf, Lp, Nuclear, Spectral
from robustlab.steps import Adam, Decaying, Relative, RunningMean, Steepest

__all__ = [
    "Adam",
    "Cosh",
    "Decaying",
    "DiagonalFlow",
    "Difference",
    "Direct",
    "DualAcceleration",
    "Entropy",
    "Exponential",
    "FourierL1",
    "FourierLinf",
    "HypEntropy",
    "L1",
    "L2",
    "LOSSES",
    "LassoPath",
    "LinearObjective",
    "Linf",
    "LogExponential",
    "LogLogistic",
    "Logistic",
    "Loss",
    "Lp",
    "MirrorDescent",
    "ModelObjective",
    "NaturalGradient",
    "Nuclear",
    "OneExample",
    "PNorm",
    "Parametrization",
    "Path",
    "PolynomialTail",
    "Potential",
    "PrimalMomentum",
    "Problem",
    "Product",
    "Quadratic",
    "Relative",
    "RuleOptimizer",
    "RunningMean",
    "Spectral",
    "Squared",
    "SquaredHinge",
    "Steepest",
    "TorchRule",
    "bregman_interpolant",
    "certified_gap",
    "descend",
    "diagonal_flow",
    "flow_interpolant",
    "largest",
    "lasso_at",
    "lasso_path",
    "margins",
    "moments",
    "nearest_interpolant",
    "norm_interpolant",
    "nuclear_interpolant",
    "null_space_constant",
    "problem",
    "read_problem",
    "regression",
    "separable",
    "zeros",
]
