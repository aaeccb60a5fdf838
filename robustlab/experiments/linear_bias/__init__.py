"""Which solution does gradient descent pick? Every claim of the talk on optimization bias and geometry, each with the exact solution that
the theory names, the gap to it, the same gap to a wrong one, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module

from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding
from robustlab.experiments.linear_bias.claim import REGRESSION, TWO_CLASSES, Claim, Evidence, Row, Setting, spread
from robustlab.extras import check_installed
from robustlab.linear_bias.problems import Problem
from robustlab.reports.tables import Table

# In the order of the talk; each has a tuple CLAIMS.
MODULES = ("squared", "sparse_regression", "classification", "networks", "limits", "newer", "robustness", "gaussians")
VERSION = 1  # of the claims: another one measures again


@dataclass(frozen=True)
class Config:
    """Attributes:
    claims: names of those to test; all if empty.
    seeds: problems or starts of each, in one batch.
    """

    claims: tuple[str, ...] = ()
    seeds: int = 10


FULL = Config(seeds=50)


def all_claims() -> dict[str, Claim]:
    """Every claim by its name, in the order of the talk."""
    return {claim.name: claim for module in MODULES for claim in import_module(f"robustlab.experiments.linear_bias.{module}").CLAIMS}


def chosen(config: Config, data: Problem | None = None) -> list[Claim]:
    """The claims to test; with data of one's own those that can be tested on them.

    Raises:
        UserError: an unknown name, or a claim that cannot be tested on the data.
    """
    claims = all_claims()
    for name in config.claims:
        if name not in claims:
            raise unknown("claim", name, claims)
        if data is not None and not _fits(claims[name], data):
            wanted = f"needs {claims[name].takes}" if claims[name].takes else "has data of its own"
            raise UserError(f"the claim {name!r} {wanted}: leave out `data`, or name other claims")
    wanted_claims = [claims[name] for name in dict.fromkeys(config.claims)] or list(claims.values())
    return [claim for claim in wanted_claims if data is None or _fits(claim, data)]


def _fits(claim: Claim, data: Problem) -> bool:
    return claim.takes == REGRESSION or (claim.takes == TWO_CLASSES and data.two_classes)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Test the claims, or what is missing of them, and put the numbers into tables."""
    data = cache.problem()
    claims = chosen(config, data)
    if not config.claims:  # a single one may need neither
        check_installed(("scipy", "cvxpy"), "the experiment 'linear-bias' with all its claims")
    setting = Setting(config.seeds, data)
    settings = {"seeds": config.seeds, "version": VERSION}
    measurements = [Measurement(claim.name, settings, partial(_measured, claim, setting)) for claim in claims]
    found = [Evidence.from_values(values) for values in cache.measured("linear-bias", measurements)]
    tested = list(zip(claims, found, strict=True))
    told = [{"claim": claim.name, **evidence.as_values(), "verdicts": [row.verdict for row in evidence.rows]} for claim, evidence in tested]
    for values in told:
        del values["plots"]
    plots = {_file(claim, short): plot for claim, each in tested for short, plot in each.plots.items()}
    parts = dict.fromkeys(claim.part for claim in claims)
    return Finding(tuple(_table(part, tested, config) for part in parts), {"claims": told}, lines=plots)


def _file(claim: Claim, short: str) -> str:
    return "-".join(filter(None, ("linear-bias", claim.name, short)))


def _measured(claim: Claim, setting: Setting) -> Values:
    return claim.test(setting).as_values()


def _table(part: str, tested: list[tuple[Claim, Evidence]], config: Config) -> Table:
    here = [(claim, evidence) for claim, evidence in tested if claim.part == part]
    return Table(
        f"Which solution does the optimizer pick? {part[:1].upper()}{part[1:]}",
        f"{config.seeds} seeds: the median gap, and the worst in brackets. Control: the same distance to a wrong solution; where a claim "
        "is expected to fail, its distance in the case in which it holds. A claim holds if the worst gap is below the tolerance, and "
        "that below a third of every control.",
        ("claim", "case", "predicted", "distance", "gap", "control", "tolerance", "verdict", "note"),
        tuple((claim.name, *_cells(row)) for claim, evidence in here for row in evidence.rows),
        tuple(f"{claim.name}: {claim.says} ({claim.source})" for claim, _ in here),
    )


def _cells(row: Row) -> tuple[str, ...]:
    gaps = spread(row.gap), spread(row.control), f"{row.tolerance:g}"
    return row.case, row.predicted, row.measure, *gaps, row.verdict, row.note
