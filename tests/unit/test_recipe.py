"""Recipes: the same id through YAML and JSON (L8), all problems at once, nearest names, contradictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import catalog
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe, TrainingSpec, read_recipe_file, set_key, set_value, yaml_text
from tunesmith.suiting import patience_told

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
RATE = st.floats(1e-12, 10.0, allow_nan=False)
METHODS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["full", "head"]),
    st.builds(lambda layers: {"layers": layers}, st.one_of(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=1))),
    st.builds(
        lambda rank, alpha, drop, targets: {
            "lora": {"rank": rank, "alpha": alpha, "dropout": drop, "targets": targets}
        },
        st.integers(1, 512),
        st.floats(1e-3, 1e4),
        st.floats(0, 0.99),
        st.lists(TEXT, max_size=3),
    ),
)
RECIPES = st.fixed_dictionaries(
    {"model": TEXT, "data": st.fixed_dictionaries({"path": TEXT}), "method": METHODS},
    optional={
        "seed": st.integers(0, 2**63),
        "task": st.sampled_from(["auto", "classification", {"classification": {"label_smoothing": 0.1}}]),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "rate": st.one_of(RATE, st.just("auto")),
                "epochs": st.one_of(st.integers(0, 99), st.just("auto")),
                "clip": st.one_of(st.none(), RATE),
                "dropout": st.one_of(st.none(), st.floats(0, 0.99)),
                "probe": st.booleans(),
                "optimizer": st.sampled_from(["adamw", "sgd", "adamw_8bit"]),
            },
        ),
    },
)
GOOD = {"model": "m", "data": {"path": "d.csv"}}


@settings(max_examples=60, deadline=None)
@given(RECIPES)
def test_yaml_and_json_keep_the_id(plain: dict[str, Any]) -> None:
    import tempfile

    recipe = Recipe.parse(plain)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("r.yaml", recipe.to_yaml()), ("r.json", json.dumps(recipe.to_plain()))):
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8", newline="")
            again = Recipe.parse(read_recipe_file(path))
            assert again == recipe and again.id == recipe.id, text


@pytest.mark.parametrize(
    "word",
    [
        "1e-4",
        "no",
        "null",
        "~",
        "0x1F",
        " a ",
        "a: b",
        "- a",
        "#a",
        "%",
        "@",
        "\t",
        "a\nb",
        "a\x85b",
        "\u2028",
        "é\x85",
    ],
)
def test_yaml_keeps_texts_that_look_like_something_else(word: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml_text({"a": word}), encoding="utf-8")
    assert read_recipe_file(tmp_path / "r.yaml") == {"a": word}


def test_the_id_does_not_change_between_releases_and_names_exactly_this_recipe() -> None:
    recipe = Recipe.parse(GOOD)
    assert recipe.id == Recipe.parse({**GOOD, "method": "auto"}).id
    assert recipe.id == Recipe.parse({"model": "m", "data": "d.csv"}).id
    changed = [{"seed": 1}, {"method": "head"}, {"training": {"rate": 1e-4}}, {"evaluation": {"baselines": False}}]
    ids = {Recipe.parse({**GOOD, **change}).id for change in changed} | {recipe.id}
    assert len(ids) == len(changed) + 1
    assert Recipe.parse({**GOOD, "training": {"rate": 1}}).id == Recipe.parse({**GOOD, "training": {"rate": 1.0}}).id


@pytest.mark.parametrize(
    "asked",
    [
        "lora",
        {"name": "lora"},
        {"lora": {}},
        {"lora": "auto"},
        {"name": "lora", "alpha": 32},
        {"lora": {"rank": "auto"}},
    ],
)
def test_one_method_in_several_words(asked: Any) -> None:
    assert Recipe.parse({**GOOD, "method": asked}).id == Recipe.parse({**GOOD, "method": "lora"}).id


ASKED: dict[str, Any] = {"peft": {"name": "peft", "kind": "LOHA"}}  # methods that a name alone does not choose


@pytest.mark.parametrize("method", catalog.names("methods"))
def test_every_method_survives_alone(method: str) -> None:
    asked = ASKED.get(method, method)
    recipe = Recipe.parse({**GOOD, "method": asked})
    assert recipe.to_plain()["method"] == asked
    assert Recipe.parse(recipe.to_plain()) == recipe


def _problems(plain: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as found:
        Recipe.parse(plain)
    return found.value.problems


def test_all_problems_at_once() -> None:
    found = _problems(
        {
            "modle": "m",
            "data": {"path": "d.csv", "txt": "a"},
            "method": {"name": "lora", "rnk": 3, "alpha": -1},
            "task": "clasification",
            "training": {"epochs": -1, "optimizer": "adam", "cache": 3},
            "seed": -1,
        }
    )
    said = "\n".join(found)
    for part in (
        'modle: unknown key; did you mean "model" or',
        "model: is required",
        'data.txt: unknown key; did you mean "text"',
        'method.rnk: unknown key; did you mean "rank"?',
        "method.alpha:",
        'task: unknown name "clasification"; did you mean "classification"',
        "training.epochs",
        "training.optimizer",
        "training.cache",
        "seed:",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"training": {"micro_batch": 64, "batch_size": 32}}, "training.micro_batch"),
        ({"data": {"path": "d", "validation": 0.5, "test": 0.5}}, "data.validation"),
        ({"data": {"path": "d", "text": "a", "label": "a"}}, "data.label"),
        ({"training": {"checkpointing": True}, "method": "head"}, "training.checkpointing"),
    ],
)
def test_contradictions(change: dict[str, Any], word: str) -> None:
    (found,) = _problems({**GOOD, **change})
    assert found.startswith(word)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value: float) -> None:
    assert "training.rate" in _problems({**GOOD, "training": {"rate": value}})[0]


@pytest.mark.parametrize("method", [3, None, [], {"rank": 4}, {"name": "no.such.module:Thing"}, {"name": "json:loads"}])
def test_what_is_no_method(method: Any) -> None:
    assert _problems({**GOOD, "method": method})[0].startswith("method")


@pytest.mark.parametrize("name", ["tunesmith.tasks.classification:Classification", "tunesmith.methods.base:Method"])
def test_a_class_of_another_kind_or_an_unfinished_one_is_no_method(name: str) -> None:
    expected = f'method: "{name}" is not a method class; expected a complete subclass of tunesmith.methods.base:Method'
    assert _problems({**GOOD, "method": {"name": name}}) == (expected,)
    assert _problems({**GOOD, "method": name}) == (expected,)


def test_a_part_goes_where_its_kind_goes() -> None:
    full, task = catalog.build("methods", "full"), catalog.build("tasks", "classification")
    assert catalog.build("methods", full) is full
    dotted = catalog.build("methods", "tunesmith.methods.full:Full")
    assert (dotted, dotted.part_name()) == (full, "full")
    with pytest.raises(RecipeError) as found:
        catalog.build("methods", task)
    assert found.value.problems == ("method: classification is not a method",)


@pytest.mark.parametrize("name", [":Full", ".full:Full", "tunesmith.methods.full:", "tunesmith.methods.full:Fool"])
def test_a_dotted_path_that_leads_nowhere(name: str) -> None:
    assert f'method: cannot import "{name}"' in _problems({**GOOD, "method": name})[0]


def test_setting_keys() -> None:
    plain: dict[str, Any] = {"model": "m", "data": "d.csv", "method": "lora"}
    for line in ("training.rate=1e-4", "method.rank=8", "data.text=body", "training.clip=null", "training.probe=false"):
        set_value(plain, line)
    recipe = Recipe.parse(plain)
    assert (recipe.training.rate, recipe.training.clip, recipe.training.probe) == (1e-4, None, False)
    assert recipe.method.model_dump()["rank"] == 8 and recipe.data.text == "body"
    for wrong in ("training.rate", "=3", "model.x=3"):
        with pytest.raises(RecipeError):
            set_value(plain, wrong)
    set_key(plain, "task.label_smoothing", 0.1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.yaml", "model: [1\n", "r.yaml:2"),
        ("r.json", '{"model":\n oops}', "r.json:2"),
        ("r.yaml", "- a\n- b\n", "a recipe is a mapping"),
        ("r.yaml", "", "a recipe is a mapping"),
        ("r.yaml", "a: 1\na: 2\n", "r.yaml:2"),
    ],
)
def test_files_that_are_no_recipe(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        read_recipe_file(tmp_path / name)
    with pytest.raises(RecipeError, match="no such recipe file"):
        read_recipe_file(tmp_path / "missing.yaml")


def test_a_set_option_wins_over_the_one_inside_the_method_s_name() -> None:
    plain = {"model": "m", "data": "d.csv", "method": {"lora": {"rank": 8, "alpha": 16}}}
    set_value(plain, "method.rank=4")
    method = Recipe.parse(plain).method
    assert method.to_plain() == {"name": "lora", "rank": 4, "alpha": 16.0}


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method\.rank: is given twice"):
        Recipe.parse({"model": "m", "data": "d.csv", "method": {"lora": {"rank": 8}, "rank": 4}})


def test_a_key_that_is_no_text_is_named_beside_the_other_problems() -> None:
    plain = {
        "model": "m",
        "data": {"path": "x", 1: 2},
        "method": {"name": "lora", "rank": 4, None: 1, ("a", "b"): 3},
        "training": {"epochs": -1},
        5: {"a": 1},
    }
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(plain)
    said = "\n".join(caught.value.problems)
    for place in ("data.1: a key must be text, not int", "method.None: a key", "method.('a', 'b'): a key", "5: a key"):
        assert place in said
    assert "training.epochs" in said and len(caught.value.problems) == 5


def test_a_part_with_a_key_that_is_no_text_is_refused() -> None:
    from tunesmith.catalog import build

    with pytest.raises(RecipeError, match=r"method\.1: a key must be text"):
        build("methods", {"name": "lora", 1: 2})


@pytest.mark.parametrize("task", [{"mixup": 0.2}, {"name": "auto", "mixup": 0.2}])
def test_options_without_a_task_are_kept_as_given(task: dict[str, Any]) -> None:
    recipe = Recipe.parse({"model": "m", "data": "rows.csv", "task": task})
    assert recipe.task == {"mixup": 0.2}
    again = Recipe.parse(recipe.to_plain())
    assert (again, again.id) == (recipe, recipe.id)
    assert Recipe.parse({"model": "m", "data": "rows.csv", "task": {}}).task == "auto"


def test_setting_options_before_a_task_is_found_needs_no_name() -> None:
    plain: dict[str, Any] = {"model": "m", "data": "rows.csv"}
    set_value(plain, "task.versions=4")
    set_value(plain, "task.mixup=0.2")
    assert Recipe.parse(plain).task == {"versions": 4, "mixup": 0.2}
    plain = {"model": "m", "data": "rows.csv", "task": "auto"}
    set_key(plain, "task.new_tokens", ("a", "b"))
    assert Recipe.parse(plain).task == {"new_tokens": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("summarize: ", "summarize: "),
        ("summarize:", "summarize:"),
        ("translate English to German: ", "translate English to German: "),
        ("####", "####"),
        ("a # b", "a # b"),
        ("'# ' ", "# "),
        ("{a: 1}", {"a": 1}),
        ("[a, '#']", ["a", "#"]),
        ("a#b", "a#b"),
        ("1e-4", 1e-4),
        ("", None),
        ("null", None),
    ],
)
def test_values_that_look_like_mappings_and_comments_are_texts(text: str, value: object) -> None:
    plain: dict[str, Any] = {}
    set_value(plain, f"task.prefix={text}")
    assert plain == {"task": {"prefix": value}}


def test_a_prefix_is_set_before_the_task_is_found() -> None:
    plain: dict[str, Any] = {"model": "m", "data": "rows.csv"}
    set_value(plain, "task.prefix=summarize: ")
    set_value(plain, "task.beams=4")
    assert Recipe.parse(plain).task == {"prefix": "summarize: ", "beams": 4}


def test_options_that_no_task_has_are_refused_at_once() -> None:
    problems = _problems({"model": "m", "data": "rows.csv", "task": {"mixupp": 0.2, "regresion": {"error": "huber"}}})
    assert problems == (
        'task.mixupp: no task has this option; did you mean "mixup" or "cutmix"?',
        'task.regresion: no task has this option; did you mean "regression"?',
    )


@pytest.mark.parametrize("task", [{"name": "regression", "loss": "huber"}, {"loss": "huber"}])
def test_an_unknown_key_whose_value_another_takes_is_told_that_one(task: dict[str, Any]) -> None:
    (problem,) = _problems({"model": "m", "data": "rows.csv", "task": task})
    assert problem.endswith('; did you mean "error" (squared, huber)?')


def test_unknown_keys_are_told_the_values_of_the_others_where_these_are_few() -> None:
    settings = {"task": {"name": "regression", "penalty": 3}, "training": {"optimizr": "adam"}}
    assert _problems({"model": "m", "data": "rows.csv", **settings}) == (
        "task.penalty: unknown key; the choices are: error (squared, huber)",
        'training.optimizr: unknown key; did you mean "optimizer" (adamw, sgd, adamw_8bit)?',
    )
    (problem,) = _problems({"model": "m", "data": {"path": "rows.csv", "txt": "a"}})
    assert problem == 'data.txt: unknown key; did you mean "text" or "test"?', "what takes any value has none listed"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("qlora", 'pip install "tunesmith[bits]"'),
        ("dora", "--set method.dora=true"),
        ({"name": "full", "rank": 8}, "full has no such option (lora"),
    ],
)
def test_what_another_method_has_is_told_where_to_find(method: object, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({"model": "m", "data": "rows.csv", "method": method})
    assert said in caught.value.problems[0]


@pytest.mark.parametrize(
    ("asked", "epochs", "said"),
    [
        ({}, 5, None),
        ({"patience": 0, "evaluations": 4}, 5, None),
        ({"patience": 6}, 5, "the run has 5 evaluations in all, so that it never stops early"),
        ({"evaluations": 4}, 5, "of 20 evaluations in all: it stops after 0.75 epochs without progress"),
    ],
)
def test_patience_says_what_it_comes_to(asked: dict[str, int], epochs: int, said: str | None) -> None:
    found = patience_told(TrainingSpec.model_validate(asked), epochs, True)
    assert [item.why for item in found] == ([] if said is None else [said])
    assert not patience_told(TrainingSpec.model_validate(asked), epochs, False)


def test_exact_settles_number_format_and_batches() -> None:
    spec = TrainingSpec(exact=True)
    assert (spec.precision, spec.batches) == ("float32", "random")
    assert TrainingSpec.model_validate(spec.model_dump()) == spec, "as resolved.yaml holds it"
    assert TrainingSpec().precision == "auto"
    for nearly in (1, "true", "yes"):
        with pytest.raises(ValueError, match="valid boolean"):
            TrainingSpec(exact=nearly)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave out precision=bfloat16 and batches=similar"):
        TrainingSpec(exact=True, precision="bfloat16", batches="similar")
