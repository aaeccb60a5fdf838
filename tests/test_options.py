"""Settings in groups: every option has one name, and a file may say it nested or flat."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given as draw
from hypothesis import strategies as st
from laws import seeded

from robustlab import norms
from robustlab.errors import UserError
from robustlab.models.architectures import architectures
from robustlab.options import by_name, changed, flat, from_file, given, group, leaves, option, radius, value_of, words
from robustlab.settings import NORMS, SCHEDULES, Data, Training
from robustlab.training import RECIPES, schedules


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    eps: float | None = option(None, "a radius", radius)
    path: str | None = option(None, "a place", name="data")


@dataclass(frozen=True)
class Outer:
    """What is outside."""

    data: Inner = group(Inner)
    lr: float = option(0.1, "a rate", float)


def test_options_are_found_in_their_groups() -> None:
    assert {name: leaf.path for name, leaf in leaves(Outer).items()} == {"eps": ("data", "eps"), "data": ("data", "path"), "lr": ("lr",)}
    assert leaves(Outer)["data"].flag == "--data" and leaves(Outer)["eps"].group is Inner


def test_an_option_is_changed_by_its_name_wherever_it_is() -> None:
    settings = changed(Outer(), eps=2.0, data="here", lr=0.2)
    assert settings == Outer(Inner(2.0, "here"), 0.2)
    assert flat(settings) == {"eps": 2.0, "data": "here", "lr": 0.2} and value_of(settings, "data") == "here"
    assert given(changed(Outer(), eps=2.0)) == {"eps": 2.0} and given(Outer()) == {}


def test_a_name_that_is_not_known_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'ep'\. Did you mean 'eps'\?"):
        changed(Outer(), ep=2.0)
    with pytest.raises(UserError, match=r"^here: unknown setting 'epz'\. Did you mean 'eps'\?"):
        from_file(Outer, {"data": {"epz": 1}}, "here")
    assert from_file(Outer, {"epz": 1, "eps": 3.0}, "here", passed_over=True) == changed(Outer(), eps=3.0)


def test_two_options_of_one_name_are_a_mistake_of_ours() -> None:
    @dataclass(frozen=True)
    class Twice:
        data: Inner = group(Inner)
        eps: float = option(1.0, "again", float)

    with pytest.raises(TypeError, match="two options called 'eps'"):
        leaves(Twice)


def test_a_group_and_an_option_of_one_name_are_told_apart_by_their_values() -> None:
    assert by_name(Outer, {"data": "here"}) == {"data": "here"}
    assert by_name(Outer, {"data": {"path": "here", "eps": 1}}) == {"data": "here", "eps": 1}
    assert by_name(Outer, {"data": {"data": "here"}}) == {"data": "here"}


@pytest.mark.parametrize("settings", [Training(), changed(Training(), eps=0.5, lr=0.3, mean=[0.1, 0.2], init="x", no_augment=True)])
def test_settings_survive_a_file_nested_and_flat(settings: Training) -> None:
    nested = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert from_file(Training, nested, "here") == settings == from_file(Training, flat(settings), "here")


@pytest.mark.parametrize("cls", [Training, Data, Outer], ids=lambda cls: cls.__name__)
def test_every_option_has_its_help_and_a_default_that_its_own_type_would_read(cls: type) -> None:
    for leaf in leaves(cls).values():
        assert leaf.option.help and leaf.option.help[-1] not in ".;,"
        if leaf.option.type is None:
            assert leaf.default in (False, None)
        elif leaf.default is not None:
            assert leaf.option.type(str(leaf.default)) == leaf.default
            assert leaf.option.choices is None or leaf.default in leaf.option.choices


def test_words_say_what_was_given() -> None:
    values: dict[str, Any] = {"eps": 0.5, "no_test": True, "download": False, "init": None, "classes": ["dog", "cat"], "out": "a b"}
    assert words(values) == ["--eps=0.5", "--no-test", "--classes=dog,cat", "--out=a b"]


def test_names_in_settings_are_those_of_the_library() -> None:
    assert set(NORMS) == set(norms.NORMS) and set(SCHEDULES) == set(schedules.SCHEDULES)
    told = leaves(Training)["recipe"].option.help
    assert all(name in told for name in RECIPES) and {"small", "resnet18"} <= set(architectures())


@seeded
@draw(st.floats(0, 1e9), st.floats(1e-3, 1e9))
def test_a_radius_may_be_a_fraction(top: float, bottom: float) -> None:
    assert radius(f"{top!r}/{bottom!r}") == top / bottom


ODD_VALUES = {"seed": [-1, 1 << 63, 10**30, 1.5, True, "1", [1], {}], "epochs": [0, 10**30, "ten"], "threads": [0, 1025, 100_000, 10**30]}
ODD_VALUES |= {
    "eps": [-1.0, math.nan, math.inf, "8/255", True],
    "norm": ["l3", 2, ["l2"]],
    "download": [1, "yes"],
    "classes": ["dog", 3, [], {}],
}
ODD_VALUES |= {"recipe": [3, None, ["a"]], "accumulate": [None]}


@pytest.mark.parametrize("name, value", [(name, value) for name, some in ODD_VALUES.items() for value in some], ids=str)
def test_odd_values_meet_the_same_check_in_python_and_in_files(name, value):
    from robustlab.commands.settings import Train

    with pytest.raises(UserError, match=name):
        changed(Train(), **{name: value})
    with pytest.raises(UserError, match=f"^settings.json: .*{name}"):
        from_file(Train, {name: value}, "settings.json")
