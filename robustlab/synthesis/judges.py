"""Who judges made pictures: a classifier that did not make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.placement import device_of
from robustlab.models.zoo import load, pretrained
from robustlab.synthesis.ensemble import members_of
from robustlab.synthesis.selection import MatchedModel, match


def judges_of(
    models: Sequence[MatchedModel], images: Images, named: Mapping[str, nn.Module], recorded: Mapping[str, str] | None
) -> dict[str, MatchedModel]:
    """Who judges the pictures of each model, by the models' names; without those that nobody at hand can judge.

    Args:
        models: those that make the pictures.
        images: whose classes are judged.
        named: the judge that a person chose, by its name; empty where none was chosen.
        recorded: the names of pretrained judges in a replay file, by the models' names; None where there is no such file.

    Raises:
        UserError: the chosen judge is one of the models, also under another name or as part of an ensemble.
    """
    for name, judge in named.items():
        one = match(name, judge, images)
        if one.digest in set().union(*(_makers(matched) for matched in models)):
            raise UserError(f"{name} makes the pictures and cannot judge them: name another classifier by `judge`")
        return dict.fromkeys((matched.name for matched in models), one)
    device = device_of(models[0].model)
    if recorded is not None:
        kept = {matched.name: recorded[matched.name] for matched in models if isinstance(recorded.get(matched.name), str)}
        return {made: match(name, load(name).to(device), images) for made, name in kept.items()}
    return independent_judges(models, images, device)


def independent_judges(models: Sequence[MatchedModel], images: Images, device: torch.device) -> dict[str, MatchedModel]:
    """For each model a pretrained classifier that judges its pictures: never itself, also under another name or as part of an ensemble.

    First comes one that makes no pictures here, and of another architecture than those that do, which makes it more independent. A model
    whose pictures none can judge is left out.
    """
    makers = {matched.name: _makers(matched) for matched in models}
    making = set().union(*makers.values())
    architectures = {getattr(one, "arch", "") for matched in models for one in members_of(matched.model)}
    fitting = [judge for name in pretrained() if (judge := _fitting(name, images, device)) is not None]
    fitting.sort(key=lambda judge: (judge.digest in making, getattr(judge.model, "arch", "") in architectures))
    found = {}
    for name, own in makers.items():
        others = [judge for judge in fitting if judge.digest not in own]
        if others:
            found[name] = others[0]
    return found


def unjudged(models: Sequence[MatchedModel], judges: Mapping[str, MatchedModel]) -> list[str]:
    """Notes on the models whose pictures nobody judges."""
    alone = [matched for matched in models if matched.name not in judges]
    if not alone:
        return []
    unnamed = all(not isinstance(one.model, Classifier) or one.model.unnamed for one in alone)
    hint = ", whose outputs have no names" if unnamed else ""
    names = ", ".join(one.name for one in alone)
    return [
        f"no pretrained classifier of these classes can judge the pictures of {names}{hint}: --judge names one, for the numbers left out"
    ]


def _makers(matched: MatchedModel) -> set[str]:
    """Digests of a model and, where it is an ensemble, of its members."""
    return {digest(one) for one in (matched.model, *members_of(matched.model))}


def _fitting(name: str, images: Images, device: torch.device) -> MatchedModel | None:
    try:
        return match(name, load(name).to(device), images)
    except UserError:  # of other classes or channels
        return None
