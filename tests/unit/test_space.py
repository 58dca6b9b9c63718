"""Spaces in a recipe: what is one, what is refused and how, and that every value drawn from one makes a recipe."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.selection.space import Choices, Numbers, label_of, read_spaces
from tunesmith.selection.spec import SearchSpec

BASE = {"model": "m", "data": "d.csv"}


def refused(**asked: Any) -> str:
    with pytest.raises(RecipeError) as error:
        read_spaces({**BASE, **asked}).check()
    return "\n".join(error.value.problems)


def test_numbers_choices_and_lists_stand_where_values_do() -> None:
    found = read_spaces(
        {
            **BASE,
            "method": {"name": "lora", "rank": [4, 16, 64], "targets": ["query", "value"]},
            "training": {"rate": {"low": 1e-5, "high": 1e-3, "log": True}, "epochs": {"low": 1, "high": 5, "step": 2}},
        }
    )
    assert found.spaces == {
        "method.rank": Choices((4, 16, 64)),
        "training.rate": Numbers(1e-5, 1e-3, log=True),
        "training.epochs": Numbers(1, 5, step=2),
    }
    found.check()
    recipe = found.recipe({"method.rank": 16, "training.rate": 2e-4, "training.epochs": 3})
    asked = {
        **BASE,
        "method": {"name": "lora", "rank": 16, "targets": ["query", "value"]},
        "training": {"rate": 2e-4, "epochs": 3},
    }
    assert recipe == Recipe.parse(asked)


@pytest.mark.parametrize(
    "method",
    [
        {"layers": {"choices": [1, 2]}},
        {"name": "layers", "layers": {"choices": [1, 2]}},
        {"layers": {"layers": {"choices": [1, 2]}}},
    ],
)
def test_a_method_s_own_forms_have_one_key(method: dict[str, Any]) -> None:
    found = read_spaces({**BASE, "method": method})
    assert list(found.spaces) == ["method.layers"]
    assert found.recipe({"method.layers": 2}) == Recipe.parse({**BASE, "method": {"layers": 2}})


def test_a_list_is_the_value_of_a_field_that_takes_lists_and_choices_are_said_so() -> None:
    assert "choices: [...]" in refused(method={"layers": [1, 2]})
    found = read_spaces({**BASE, "method": {"name": "lora", "targets": {"choices": [["query"], ["query", "value"]]}}})
    assert found.recipe({"method.targets": ["query"]}).to_plain()["method"]["targets"] == ["query"]


def test_whole_methods_and_bases_are_choices() -> None:
    found = read_spaces({**BASE, "model": ["a", "b"], "method": ["head", {"name": "lora", "rank": 8}]})
    assert found.size == 4 and len(list(found.every())) == 4
    recipes = {found.recipe(values).id for values in found.every()}
    assert len(recipes) == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to search"),
        ({"training": {"rate": {"lo": 1e-5, "high": 1e-3}}}, 'unknown key "lo" of a space; did you mean "low"'),
        ({"training": {"rate": {"low": 1e-3, "high": 1e-5}}}, "training.rate: low has to be below high"),
        ({"training": {"rate": {"low": 0, "high": 1e-5, "log": True}}}, "low has to be above 0 where log is true"),
        ({"training": {"rate": {"low": "x", "high": 1}}}, "low: a number is expected"),
        ({"training": {"rate": {"low": 1e-5, "high": float("inf")}}}, "high: a number is expected"),
        ({"training": {"epochs": {"low": 1, "high": 6, "step": 2}}}, "make high 5"),
        ({"training": {"epochs": {"low": 1, "high": 6, "step": -1}}}, "step has to be above 0"),
        ({"training": {"epochs": {"choices": [1, 2], "low": 1}}}, "choices have no low"),
        ({"training": {"epochs": [1]}}, "1 is no choice"),
        ({"training": {"epochs": [1, 1]}}, "stands there 2 times"),
        ({"training": {"epochs": [1, {"low": 1, "high": 2}]}}, "a space within choices"),
        ({"training": {"epochs": {"low": 1, "high": 5.0}}}, "training.epochs"),  # 2.5 epochs are none
        ({"training": {"rat": [1e-3, 1e-4]}}, 'did you mean "rate"'),
        ({"seed": [1, 2]}, "search.repeats"),
        ({"data": {"path": "d.csv", "test": [0.1, 0.2]}}, "data.test: cannot be searched"),
        ({"evaluation": {"seeds": [1, 2]}}, "evaluation.seeds: cannot be searched"),
    ],
)  # fmt: skip
def test_what_is_no_space_is_refused_by_its_key(asked: dict[str, Any], said: str) -> None:
    assert said in refused(**asked)


def test_combinations_are_checked_before_any_trial() -> None:
    said = refused(training={"batch_size": [8, 64], "micro_batch": [4, 32], "rate": {"low": 1e-5, "high": 1e-3}})
    assert said.startswith("with training.batch_size=8 and training.micro_batch=32: training.micro_batch: 32 rows")
    assert len(said.splitlines()) == 1
    many = {"epochs": [1, 2, 3, 4], "warmup": [0.0, 0.1, 0.2, 0.3], "ema": [0.0, 0.5, 0.9], "clip": [1.0, 2.0, 3.0]}
    wide = {"batch_size": [8, 16, 64], "micro_batch": [4, 32], **many}
    assert "training.batch_size=8 and training.micro_batch=32" in refused(training=wide), "of many, every two"


def test_every_problem_of_several_spaces_is_told_at_once() -> None:
    said = refused(training={"rate": {"low": 2, "high": 1}, "epochs": [3], "warmup": {"low": 0.1}})
    assert all(key in said for key in ("training.rate", "training.epochs", "training.warmup"))


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()), min_size=2))
def test_labels_tell_apart_what_json_does(values: list[Any]) -> None:
    labels = [label_of(value) for value in values]
    for (a, la), (b, lb) in itertools.combinations(zip(values, labels, strict=True), 2):
        assert (la == lb) == (json.dumps(a) == json.dumps(b))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 7))
def test_whole_numbers_are_counted_as_they_are_listed(low: int, more: int, step: int) -> None:
    space = Numbers(low, low + more * step, step=step)
    assert space.whole and space.size == len(space.every()) == more + 1
    assert set(space.telling()) <= set(space.every())
    assert {space.low, space.high} <= set(space.telling())


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-6, 1e-2), st.floats(1.01, 100))
def test_any_value_between_makes_a_recipe(low: float, factor: float) -> None:
    found = read_spaces({**BASE, "training": {"rate": {"low": low, "high": low * factor}}})
    found.check()
    for value in found.spaces["training.rate"].telling():
        assert low <= value <= low * factor
        assert found.recipe({"training.rate": value}).training.rate == value


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"trails": 3}, 'did you mean "trials"'),
        ({"trials": 0}, "search.trials"),
        ({"time": "soon"}, "search.time"),
        ({"metrics": ["accuracy", "accuracy"]}, "named twice"),
        ({"metrics": ["accuracy", "loss"], "pruner": "hyperband"}, "goes by one metric"),
        ({"storage": "study.db"}, "no address of a database"),
        (5, "a group of keys is expected"),
    ],
)
def test_the_search_section_is_closed(asked: Any, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        SearchSpec.parse(asked)
    assert said in "\n".join(error.value.problems)


def test_times_have_units() -> None:
    found = [SearchSpec.parse({"time": value}).time for value in ("90s", "30m", "1.5h", 12)]
    assert found == [90, 1800, 5400, 12]
