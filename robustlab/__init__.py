"""robustlab: attack, train, evaluate and look at image classifiers under bounded perturbations.

    import robustlab as rl

    model, test = rl.load("cifar10-small-l2"), rl.open_dataset("photos/", split="test")
    print(rl.evaluate(model, test, rl.PGD(rl.ThreatModel(rl.L2(), 0.5), steps=20)))

Images are tensors ``(B, C, H, W)`` in [0, 1], and eps is in those units: ``8 / 255``, not 8. A model is any function from images
to logits ``(B, K)``, and data are images, a path, a torch Dataset or DataLoader, pairs ``(x, y)``, or two arrays.

Data:
    open_dataset: one split of a dataset, by its path or its name
    as_images: any data as images, to train on or to make new ones of
    ImageSet: labelled images in memory

Models:
    load: a trained classifier, by its name or from a file
    build: a new network by name
    list_models: what can be built, and what can be loaded with what it reaches
    Classifier: a network with its normalization inside and names for its classes
    frozen: borrow a network in evaluation mode, and give it back as it was
    accelerate: a faster stand-in for the steps of an attack

Tasks:
    train: train a standard or robust classifier
    evaluate: accuracy of a model, clean and under attacks
    curve: accuracy over radii
    diagnose: reasons not to believe an accuracy under attack
    certify: radii within which a smoothed classifier's answers are proved to stay
    construct: make a dataset of robust or non-robust features
    synthesize: make and edit pictures with a classifier

Results:
    Report: all examples of an evaluation, and the numbers counted from them
    Rate: a share of examples with its 95 % interval

Attacks:
    PGD: projected gradient descent, with restarts and momentum
    FGSM: one step of length eps
    MIFGSM: steps with momentum
    Transfer: steps whose gradients carry over to other networks, and their parts
    NFGSM: noise and one step, for training only
    APGD: Auto-PGD, which finds its own step size
    FAB: the nearest adversarial image, from boundary to boundary
    Square: random search on logits alone
    SparseRS: random search for few pixels, on logits alone
    autoattack: AutoAttack, the line-up that robust accuracies are believed by
    LineUp: attacks one after another, each on what is left
    named_attack: an attack by its name, such as pgd-20
    with_eps: the same attack with another radius
    ThreatModel: what an adversary may do: a norm and a radius

Norms:
    L0: the number of pixels
    L1: the sum of absolute values
    L2: the Euclidean norm
    Linf: the largest absolute value

Goals:
    Untargeted: any class but the label
    Targeted: the class that is asked for
    Away: away from a prediction
    margin: the logit margin, a loss that goals can take
    dlr: the difference of logits ratio, another one

The engine under them:
    minimize: projected descent of any function with one value per example
    Solution: the points that it found, with what is known of them
    when_achieved: lets examples leave as soon as their goal is achieved
    goal_objective: a model and a goal as a function to minimize
    feature_distance: the distance of representations as a function to minimize
    Steepest: the step rule of PGD
    Momentum: the step rule of MI-FGSM
    Adam: the step rule of Adam
    Everywhere: no constraint
    Box: all points between two bounds
    Ball: all points of a box within eps of a centre
    Masked: points that differ from a centre only where a mask allows it
    Search: radius, step size and steps of a synthesis
    example_keys: random keys of examples by their positions

Errors:
    UserError: a mistake that the user can mend, told in one sentence

Names are loaded when they are first used, so that ``import robustlab`` and ``robustlab --help`` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "L0",
    "L1",
    "L2",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "Adam",
    "Away",
    "Ball",
    "Box",
    "Classifier",
    "Everywhere",
    "ImageSet",
    "LineUp",
    "Linf",
    "Masked",
    "Momentum",
    "Rate",
    "Report",
    "Search",
    "Solution",
    "SparseRS",
    "Square",
    "Steepest",
    "Targeted",
    "ThreatModel",
    "Transfer",
    "Untargeted",
    "UserError",
    "accelerate",
    "as_images",
    "autoattack",
    "build",
    "certify",
    "construct",
    "curve",
    "diagnose",
    "dlr",
    "evaluate",
    "example_keys",
    "feature_distance",
    "frozen",
    "goal_objective",
    "list_models",
    "load",
    "margin",
    "minimize",
    "named_attack",
    "open_dataset",
    "synthesize",
    "train",
    "when_achieved",
    "with_eps",
]

if TYPE_CHECKING:
    from robustlab.attacks.apgd import APGD as APGD
    from robustlab.attacks.autoattack import autoattack as autoattack
    from robustlab.attacks.by_name import named_attack as named_attack
    from robustlab.attacks.fab import FAB as FAB
    from robustlab.attacks.lineup import LineUp as LineUp
    from robustlab.attacks.nfgsm import NFGSM as NFGSM
    from robustlab.attacks.pgd import FGSM as FGSM
    from robustlab.attacks.pgd import MIFGSM as MIFGSM
    from robustlab.attacks.pgd import PGD as PGD
    from robustlab.attacks.protocols import with_eps as with_eps
    from robustlab.attacks.sparse_rs import SparseRS as SparseRS
    from robustlab.attacks.square import Square as Square
    from robustlab.attacks.transfer import Transfer as Transfer
    from robustlab.constraints import Ball as Ball
    from robustlab.constraints import Box as Box
    from robustlab.constraints import Everywhere as Everywhere
    from robustlab.constraints import Masked as Masked
    from robustlab.constraints import ThreatModel as ThreatModel
    from robustlab.construction import construct as construct
    from robustlab.data.adapt import as_images as as_images
    from robustlab.data.catalog import open_dataset as open_dataset
    from robustlab.data.imageset import ImageSet as ImageSet
    from robustlab.errors import UserError as UserError
    from robustlab.evaluation import Rate as Rate
    from robustlab.evaluation import Report as Report
    from robustlab.evaluation import curve as curve
    from robustlab.evaluation import diagnose as diagnose
    from robustlab.evaluation import evaluate as evaluate
    from robustlab.goals import Away as Away
    from robustlab.goals import Targeted as Targeted
    from robustlab.goals import Untargeted as Untargeted
    from robustlab.goals import dlr as dlr
    from robustlab.goals import margin as margin
    from robustlab.models.accelerate import accelerate as accelerate
    from robustlab.models.classifier import Classifier as Classifier
    from robustlab.models.frozen import frozen as frozen
    from robustlab.models.zoo import build as build
    from robustlab.models.zoo import list_models as list_models
    from robustlab.models.zoo import load as load
    from robustlab.norms import L0 as L0
    from robustlab.norms import L1 as L1
    from robustlab.norms import L2 as L2
    from robustlab.norms import Linf as Linf
    from robustlab.objectives import feature_distance as feature_distance
    from robustlab.objectives import goal_objective as goal_objective
    from robustlab.optimize import Solution as Solution
    from robustlab.optimize import minimize as minimize
    from robustlab.optimize import when_achieved as when_achieved
    from robustlab.seeding import example_keys as example_keys
    from robustlab.smoothing import certify as certify
    from robustlab.steps import Adam as Adam
    from robustlab.steps import Momentum as Momentum
    from robustlab.steps import Steepest as Steepest
    from robustlab.synthesis import Search as Search
    from robustlab.synthesis.run import synthesize as synthesize
    from robustlab.training.run import train as train
else:
    _HOME = {
        "APGD": "robustlab.attacks.apgd",
        "FAB": "robustlab.attacks.fab",
        "FGSM": "robustlab.attacks.pgd",
        "L0": "robustlab.norms",
        "L1": "robustlab.norms",
        "L2": "robustlab.norms",
        "MIFGSM": "robustlab.attacks.pgd",
        "NFGSM": "robustlab.attacks.nfgsm",
        "PGD": "robustlab.attacks.pgd",
        "Adam": "robustlab.steps",
        "Away": "robustlab.goals",
        "Ball": "robustlab.constraints",
        "Box": "robustlab.constraints",
        "Classifier": "robustlab.models.classifier",
        "Everywhere": "robustlab.constraints",
        "ImageSet": "robustlab.data.imageset",
        "LineUp": "robustlab.attacks.lineup",
        "Linf": "robustlab.norms",
        "Masked": "robustlab.constraints",
        "Momentum": "robustlab.steps",
        "Rate": "robustlab.evaluation",
        "Report": "robustlab.evaluation",
        "Search": "robustlab.synthesis",
        "Solution": "robustlab.optimize",
        "SparseRS": "robustlab.attacks.sparse_rs",
        "Square": "robustlab.attacks.square",
        "Steepest": "robustlab.steps",
        "Targeted": "robustlab.goals",
        "ThreatModel": "robustlab.constraints",
        "Transfer": "robustlab.attacks.transfer",
        "Untargeted": "robustlab.goals",
        "UserError": "robustlab.errors",
        "accelerate": "robustlab.models.accelerate",
        "as_images": "robustlab.data.adapt",
        "autoattack": "robustlab.attacks.autoattack",
        "build": "robustlab.models.zoo",
        "certify": "robustlab.smoothing",
        "construct": "robustlab.construction",
        "curve": "robustlab.evaluation",
        "diagnose": "robustlab.evaluation",
        "dlr": "robustlab.goals",
        "evaluate": "robustlab.evaluation",
        "example_keys": "robustlab.seeding",
        "feature_distance": "robustlab.objectives",
        "frozen": "robustlab.models.frozen",
        "goal_objective": "robustlab.objectives",
        "list_models": "robustlab.models.zoo",
        "load": "robustlab.models.zoo",
        "margin": "robustlab.goals",
        "minimize": "robustlab.optimize",
        "named_attack": "robustlab.attacks.by_name",
        "open_dataset": "robustlab.data.catalog",
        "synthesize": "robustlab.synthesis.run",
        "train": "robustlab.training.run",
        "when_achieved": "robustlab.optimize",
        "with_eps": "robustlab.attacks.protocols",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *_HOME])
