"""Which solution does gradient descent pick? Every claim of the talk on optimization bias and geometry, each with the exact solution that
the theory names, the gap to it, the same gap to a wrong one, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module

from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding
from robustlab.experiments.linear_bias.claim import Claim, Evidence, Setting, spread
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


def chosen(config: Config, with_data: bool) -> list[Claim]:
    """The claims to test.

    Raises:
        UserError: an unknown name, or with data of one's own a claim that has data of its own.
    """
    claims = all_claims()
    for name in config.claims:
        if name not in claims:
            raise unknown("claim", name, claims)
        if with_data and not claims[name].takes:
            raise UserError(f"the claim {name!r} has data of its own: leave out `data`, or name other claims")
    wanted = [claims[name] for name in config.claims] or list(claims.values())
    return [claim for claim in wanted if claim.takes or not with_data]


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Test the claims, or what is missing of them, and put the numbers into tables."""
    data = cache.problem()
    claims = chosen(config, data is not None)
    setting = Setting(config.seeds, data)
    settings = {"seeds": config.seeds, "version": VERSION}
    measurements = [Measurement(claim.name, settings, partial(_measured, claim, setting)) for claim in claims]
    found = [Evidence.from_values(values) for values in cache.measured("linear-bias", measurements)]
    tested = list(zip(claims, found, strict=True))
    told = [{"claim": claim.name, **evidence.as_values(), "verdicts": [row.verdict for row in evidence.rows]} for claim, evidence in tested]
    for values in told:
        del values["plots"]
    plots = {
        f"linear-bias-{claim.name}{f'-{short}' if short else ''}": plot
        for claim, evidence in tested
        for short, plot in evidence.plots.items()
    }
    return Finding((_table(tested, config),), {"claims": told}, lines=plots)


def _measured(claim: Claim, setting: Setting) -> Values:
    return claim.test(setting).as_values()


def _table(tested: list[tuple[Claim, Evidence]], config: Config) -> Table:
    return Table(
        "Which solution does the optimizer pick?",
        f"{config.seeds} seeds: the median gap, and the worst in brackets. Control: the same distance to a wrong solution; where a claim is "
        "expected to fail, the same distance in the case in which it holds. A claim holds if the worst gap is below the tolerance, and the "
        "tolerance below a third of every control.",
        ("claim", "case", "predicted", "distance", "gap", "control", "tolerance", "verdict", "note"),
        tuple(
            (
                claim.name,
                row.case,
                row.predicted,
                row.measure,
                spread(row.gap),
                spread(row.control),
                f"{row.tolerance:g}",
                row.verdict,
                row.note,
            )
            for claim, evidence in tested
            for row in evidence.rows
        ),
        tuple(f"{claim.name}: {claim.says} ({claim.source})" for claim, _ in tested),
    )
