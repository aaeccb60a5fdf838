"""Who judges made pictures: a classifier that did not make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.placement import device_of
from robustlab.models.zoo import load, pretrained
from robustlab.synthesis.selection import MatchedModel, match


def judges_of(
    models: Sequence[MatchedModel], images: Images, named: Mapping[str, nn.Module], recorded: Mapping[str, str]
) -> dict[str, MatchedModel]:
    """Who judges the pictures of each model, by the models' names.

    Args:
        models: those that make the pictures.
        images: whose classes are judged.
        named: the judge that a person chose, by its name; empty where none was chosen.
        recorded: the names of pretrained judges in a replay file, by the models' names; empty where there is none.

    Raises:
        UserError: the chosen judge is one of the models, also under another name; or none is chosen, and no pretrained one fits.
    """
    for name, judge in named.items():
        one = match(name, judge, images)
        if one.digest in {matched.digest for matched in models}:
            raise UserError(f"{name} makes the pictures and cannot judge them: name another classifier by `judge`")
        return dict.fromkeys((matched.name for matched in models), one)
    device = device_of(models[0].model)
    if all(isinstance(recorded.get(matched.name), str) for matched in models):
        return {matched.name: match(recorded[matched.name], load(recorded[matched.name]).to(device), images) for matched in models}
    return independent_judges(models, images, device)


def independent_judges(models: Sequence[MatchedModel], images: Images, device: torch.device) -> dict[str, MatchedModel]:
    """For each model a pretrained classifier that judges its pictures: never itself, also under another name.

    First comes one that makes no pictures here, and of another architecture than those that do, which makes it more independent.

    Raises:
        UserError: no pretrained classifier fits.
    """
    making = {matched.digest for matched in models}
    architectures = {getattr(matched.model, "arch", "") for matched in models}
    fitting = [judge for name in pretrained() if (judge := _fitting(name, images, device)) is not None]
    fitting.sort(key=lambda judge: (judge.digest in making, getattr(judge.model, "arch", "") in architectures))
    found = {}
    for matched in models:
        others = [judge for judge in fitting if judge.digest != matched.digest]
        if not others:
            unnamed = all(not isinstance(one.model, Classifier) or one.model.unnamed for one in models)
            hint = ", whose outputs have no names" if unnamed else ""
            raise UserError(
                f"no pretrained classifier of these classes can judge the pictures of {matched.name}{hint}: name one by `judge`"
            )
        found[matched.name] = others[0]
    return found


def _fitting(name: str, images: Images, device: torch.device) -> MatchedModel | None:
    try:
        return match(name, load(name).to(device), images)
    except UserError:  # of other classes or channels
        return None
