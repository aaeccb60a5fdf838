"""Which solution does an optimizer pick? Linear models, optimizers in every geometry, exact solutions and certificates.

    from robustlab import linear_bias as lb

    data = lb.separable(seeds=10, n=15, d=40)
    step = 1 / lb.largest(data, lb.L1()) ** 2
    path = lb.descend(lb.LinearObjective(data, lb.LogExponential()), lb.zeros(data), lb.Steepest(lb.L1(), step, scaled=True), 20_000)
    print(lb.certified_gap(data, path.last, lb.L1()))

Many seeds or step sizes run at once: points are rows ``(S, d)``, or ``(S, P)`` where a model has other parameters. Everything is float64.
"""

from robustlab.linear_bias.at_size import GameAcceleration, SparseProblem, sparse_problem, text_like
from robustlab.linear_bias.certificates import MeanMixture, certified_gap, largest, log_slope, margins, path_length
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.gaussian import Gaussian, RobustFit, best_robust_weights, pointwise_likelihood, robust_likelihood
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
    CrossEntropy,
    Exponential,
    LinearObjective,
    LogExponential,
    Logistic,
    LogLogistic,
    Loss,
    ModelObjective,
    MulticlassObjective,
    OneExample,
    PolynomialTail,
    Squared,
    SquaredHinge,
)
from robustlab.linear_bias.optimizers import DualAcceleration, MirrorDescent, NaturalGradient, PrimalMomentum, RuleOptimizer, TorchRule
from robustlab.linear_bias.parametrizations import (
    CircularConvolution,
    Difference,
    Direct,
    Homogeneous,
    LinearNetwork,
    MatrixProduct,
    Model,
    Parametrization,
    Product,
    ReLUNetwork,
)
from robustlab.linear_bias.potentials import Cosh, DiagonalFlow, Entropy, HypEntropy, PNorm, Potential, Quadratic, diagonal_flow
from robustlab.linear_bias.problems import Problem, problem, read_problem, regression, separable, zeros
from robustlab.linear_bias.separators import (
    Separator,
    Split,
    margin_path,
    max_margin,
    multiclass_max_margin,
    separator,
    split_nonseparable,
)
from robustlab.linear_bias.which import Answer, which_solution
from robustlab.norms import L1, L2, FourierL1, FourierLinf, Linf, Lp, Nuclear, Shaped, Spectral
from robustlab.steps import Adam, Decaying, Relative, RunningMean, Steepest

__all__ = [
    "Adam",
    "Answer",
    "CircularConvolution",
    "Cosh",
    "CrossEntropy",
    "Decaying",
    "DiagonalFlow",
    "Difference",
    "Direct",
    "DualAcceleration",
    "Entropy",
    "Exponential",
    "FourierL1",
    "FourierLinf",
    "GameAcceleration",
    "Gaussian",
    "Homogeneous",
    "HypEntropy",
    "L1",
    "L2",
    "LOSSES",
    "LassoPath",
    "LinearNetwork",
    "LinearObjective",
    "Linf",
    "LogExponential",
    "LogLogistic",
    "Logistic",
    "Loss",
    "Lp",
    "MatrixProduct",
    "MeanMixture",
    "MirrorDescent",
    "Model",
    "ModelObjective",
    "MulticlassObjective",
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
    "ReLUNetwork",
    "Relative",
    "RobustFit",
    "RuleOptimizer",
    "RunningMean",
    "Separator",
    "Shaped",
    "SparseProblem",
    "Spectral",
    "Split",
    "Squared",
    "SquaredHinge",
    "Steepest",
    "TorchRule",
    "best_robust_weights",
    "bregman_interpolant",
    "certified_gap",
    "descend",
    "diagonal_flow",
    "flow_interpolant",
    "largest",
    "lasso_at",
    "lasso_path",
    "log_slope",
    "margin_path",
    "margins",
    "max_margin",
    "moments",
    "multiclass_max_margin",
    "nearest_interpolant",
    "norm_interpolant",
    "nuclear_interpolant",
    "null_space_constant",
    "path_length",
    "pointwise_likelihood",
    "problem",
    "read_problem",
    "regression",
    "robust_likelihood",
    "separable",
    "separator",
    "sparse_problem",
    "split_nonseparable",
    "text_like",
    "which_solution",
    "zeros",
]
