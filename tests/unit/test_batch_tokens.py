"""`training.batch_tokens`: what a run makes of it, what it goes with, and how the rest is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, Bench, bench, differences, facts, recipe_for, rows, same_model
from tunesmith.cli.main import run as command
from tunesmith.cli.plan import less
from tunesmith.data.order import LengthOrder
from tunesmith.data.token_order import TokenOrder
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.pipeline import resume, start
from tunesmith.preparing import prepare
from tunesmith.recipe import Recipe, set_value
from tunesmith.training import preflight
from tunesmith.training.events import Evaluated, StepDone
from tunesmith.training.loop import set_mode, train
from tunesmith.training.ordering import batches_told
from tunesmith.training.preflight import halvings, micro_batches
from tunesmith.training.source import FixedRows
from tunesmith.training.step import Objective, StepResult, optimizer_step

Folder = Callable[[str], Path]
GOOD = {"model": "m", "data": "d.csv"}
TOKENS: dict[str, Any] = {"training.batch_size": None, "training.batch_tokens": 120, "training.micro_batch": "auto"}


def _problems(plain: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as found:
        Recipe.parse(plain)
    return found.value.problems


def test_it_stands_in_the_place_of_a_number_of_rows() -> None:
    plain: dict[str, Any] = dict(GOOD)
    set_value(plain, "training.batch_tokens=2048")
    recipe = Recipe.parse(plain)
    assert (recipe.training.batch_tokens, recipe.training.batch_size) == (2048, None)
    again = Recipe.parse(recipe.to_plain())
    assert (again, again.id) == (recipe, recipe.id), "as recipe.yaml and resolved.yaml hold it"
    assert Recipe.parse(GOOD).training.batch_size == 32 and Recipe.parse(GOOD).id != recipe.id


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (
            {"batch_tokens": 512, "batch_size": 16},
            "training.batch_tokens: a step holds so many tokens or 16 rows, not both; leave training.batch_size out, or set "
            "it to null",
        ),
        (
            {"batch_size": None},
            "training.batch_size: nothing says what a step holds; give it, or training.batch_tokens",
        ),
        (
            {"batch_tokens": 512, "step_in_backward": True, "clip": None, "micro_batch": 4},
            "training.micro_batch: a step in backward takes all its rows at once; leave it out and lower "
            "training.batch_tokens, or leave training.step_in_backward out",
        ),
    ],
)
def test_what_contradicts_it_is_named(training: dict[str, Any], said: str) -> None:
    assert _problems({**GOOD, "training": training}) == (said,)


@pytest.mark.parametrize("value", [0, -5, 1.5, "many"])
def test_numbers_that_are_no_tokens(value: Any) -> None:
    (found,) = _problems({**GOOD, "training": {"batch_tokens": value}})
    assert found.startswith("training.batch_tokens")


@pytest.mark.parametrize("name", ["embedding", "few_shot"])
def test_a_loss_over_the_rows_of_a_step_wants_a_number_of_them(name: str, table_file: Path) -> None:
    settings = {**TOKENS, "task": name} | ({"data.text": "text", "data.pair": "label"} if name == "embedding" else {})
    with pytest.raises(RecipeError, match=rf"training.batch_tokens: task {name} .*; give training.batch_size"):
        prepare(recipe_for(Path("no-such-model"), table_file, "full", settings))


def test_pictures_have_no_tokens(tmp_path: Path) -> None:
    from PIL import Image

    for label in ("dark", "light"):
        (tmp_path / label).mkdir()
        for index in range(20):
            Image.new("RGB", (8, 8), (index, 9, 200 * (label == "light"))).save(tmp_path / label / f"{index}.png")
    with pytest.raises(
        RecipeError, match=r"training.batch_tokens: pictures have no tokens.*; give training.batch_size"
    ):
        prepare(recipe_for(Path("no-such-model"), tmp_path, "full", TOKENS))


def _order(made: Bench) -> TokenOrder:
    order = made.run.source.order
    assert isinstance(order, TokenOrder)
    return order


def _derived(made: Bench) -> dict[str, tuple[Any, str]]:
    return {item.key: (item.value, item.why) for item in made.built.derived}


@pytest.mark.parametrize("batches", ["similar", "random"])
def test_a_run_takes_what_the_order_gives(batches: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {**TOKENS, "training.batches": batches, "training.epochs": 4, "training.evaluations": 2}
    made = bench(recipe_for(model_folder("bert"), table_file, "full", settings), tmp_path)
    order, events = _order(made), list(train(made.run))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert order.similar == (batches == "similar") and len(steps) == order.first(4) == made.run.steps
    assert [event.rows for event in steps] == [len(order.batch(step)) for step in range(made.run.steps)]
    assert sum(event.rows for event in steps) == 4 * len(order.lengths)
    assert all(event.tokens <= 120 or event.rows == 1 for event in steps)
    ends = {event.step for event in events if isinstance(event, Evaluated)}
    assert {order.first(epoch) for epoch in range(5)} <= ends and len(ends) == 9
    assert [event.epoch for event in steps if event.step in {order.first(1), order.first(3)}] == [1.0, 3.0]
    value, why = _derived(made)["training.batch_tokens"]
    assert value == 120
    assert (
        why
        == f"{4 * len(order.lengths) / made.run.steps:.1f} rows a step on the mean, {made.run.steps} steps in 4 epochs"
    )


def _one_step(made: Bench, source: FixedRows) -> StepResult:
    run = made.run
    run.network.train()
    return optimizer_step(
        Objective(run.task, lambda batch: run.trunk.forward("train", batch)),
        source.batch(0), run.masters, 1.0, None, 0, 0,
    )  # fmt: skip


@pytest.mark.parametrize("micro_batch", [2, 100])
def test_a_step_is_that_of_the_same_rows_by_number(
    micro_batch: int, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """With plain gradient descent, so that a gradient of another size would move the weights another way."""
    settings = {"training.optimizer": "sgd", "training.dropout": 0.0, "training.rate": 0.1, "training.head_rate": 0.1}
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**TOKENS, **settings})
    ours, plain = bench(recipe, tmp_path / "ours"), bench(recipe, tmp_path / "plain")
    before = plain.tensors()
    source = ours.run.source
    taken = source.order.batch(0)
    assert 3 <= len(taken) < 100
    lengths = tuple(source.order.lengths[row] for row in taken)
    examples = [source.examples[row] for row in taken]
    by_rows = FixedRows(examples, LengthOrder(lengths, len(taken), 0), len(taken), source.pad, "cpu")
    found = _one_step(ours, replace(source, micro_batch=micro_batch))
    expected = _one_step(plain, by_rows)
    assert found.rows == expected.rows == len(taken)
    assert found.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.norm == pytest.approx(expected.norm, rel=1e-5)
    moved, wanted = ours.tensors(), plain.tensors()
    assert differences(before, wanted) != []
    assert max(float((moved[name] - wanted[name]).abs().max()) for name in wanted) < 1e-6


@pytest.mark.parametrize("bound", [9, 12])
def test_rows_that_are_longer_are_counted(bound: int, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(
        recipe_for(model_folder("bert"), table_file, "full", {**TOKENS, "training.batch_tokens": bound}), tmp_path
    )
    order = _order(made)
    longer = sum(length > bound for length in order.lengths)
    assert 1 < longer < len(order.lengths)
    said = f"{longer} of {len(order.lengths)} rows are longer by themselves, and each is a step of its own"
    assert _derived(made)["training.batch_tokens"][1].endswith(said)
    training = made.built.training
    (told,) = batches_told(TokenOrder((5, 30, 4), 12, 0), training)
    assert told.why.endswith("; 1 of 3 rows is longer by itself, and is a step of its own")
    assert batches_told(TokenOrder((5, 30, 4), 12, 0), training.model_copy(update={"epochs": 0})) == []


def test_sizes_that_need_as_much_are_not_tried_twice() -> None:
    recipe = Recipe.parse({**GOOD, "training": {"batch_tokens": 512}})
    order = TokenOrder((8,) * 100 + (128,) * 10, 512, 0)
    assert order.most_rows == 64 and len(order.longest()) == 4
    assert micro_batches(recipe.training, order, "auto") == [64, 2, 1]
    assert micro_batches(recipe.training, order, 16) == [16]
    backward = recipe.training.model_copy(update={"step_in_backward": True})
    assert micro_batches(backward, order, "auto") == [64]
    by_rows = Recipe.parse(GOOD).training
    assert micro_batches(by_rows, LengthOrder((8,) * 9, 32, 0), "auto") == halvings(32)


@pytest.mark.parametrize("family", ["bert", "sentence"])  # two texts joined, and read apart
def test_what_is_offered_where_memory_is_short_can_be_set_and_fits(
    family: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of = rows(60)
    table = tmp_path / "pairs.csv"
    lines = [f"{one},{other},{label}" for (one, label), (other, _) in zip(made_of, reversed(made_of), strict=True)]
    table.write_text("\n".join(["first,second,label", *lines]) + "\n", encoding="utf-8")
    asked = {
        **TOKENS,
        "training.batch_tokens": 240,
        "training.step_in_backward": True,
        "training.clip": None,
        "training.checkpointing": False,
        "data.text": "first",
        "data.pair": "second",
    }
    recipe = recipe_for(model_folder(family), table, "full", asked)
    run = bench(recipe, tmp_path / "run").run
    free = [1 << 40]
    monkeypatch.setattr(preflight, "free_memory", lambda most: free[0])
    set_mode(run.network, run.plan)
    whole = preflight._Room(run.network, run.task, run.trunk, run.source, run.training, None)
    assert whole._footprint is not None
    many = len(run.source.longest_rows)
    assert many >= 4
    half, less = (whole._bytes(whole._footprint, count) + whole._reserved(run.source) for count in (many // 2, 0.5))
    start = r"not even (\d+) row\(s\) .*training\.batch_tokens, or .*; (training\.batch_tokens=\d+) "
    for free[0], end in ((half, "would fit$"), (less, r"with (training\.max_length=\d+) would fit$")):
        with pytest.raises(TrainingError) as refused:
            bench(recipe, tmp_path / "short")
        found = re.search(start + end, refused.value.problems[0])
        assert found is not None and int(found[1]) == many, refused.value
        told = dict(part.split("=") for part in found.groups()[1:])
        fits = recipe_for(model_folder(family), table, "full", {**asked, **{key: int(told[key]) for key in told}})
        assert bench(fits, tmp_path / "fits").run.steps > run.steps


def test_memory_settings_are_those_that_the_recipe_knows() -> None:
    keys = [
        Recipe.parse({**GOOD, "training": training}).training.at_once
        for training in (
            {},
            {"batch_tokens": 99},
            {"step_in_backward": True, "clip": None},
            {"batch_tokens": 99, "step_in_backward": True, "clip": None},
        )
    ]
    advice = [less(Recipe.parse({**GOOD, "training": {"checkpointing": way}})) for way in ("auto", True)]
    begun = [line.startswith("set training.checkpointing=true, a smaller training.micro_batch or") for line in advice]
    assert begun == [True, False]
    assert keys == ["training.micro_batch"] * 2 + ["training.batch_size", "training.batch_tokens"]


def test_the_documented_rate_counts_the_steps_there_are(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """LoRA's depends on how many there are."""
    for tokens, times in ((120, 15), (10, 10)):
        settings = {**TOKENS, "training.batch_tokens": tokens, "training.rate": "auto"}
        made = bench(recipe_for(model_folder("bert"), table_file, "lora", settings), tmp_path / str(tokens))
        why = _derived(made)["training.rate"][1]
        assert why.startswith(f"{times} * ") and f"for LoRA ({made.run.steps} steps)" in why
        assert (made.run.steps < 100) == (times == 15)


def test_two_texts_read_apart_count_both(model_folder: Folder, tmp_path: Path) -> None:
    made_of = rows(60)
    table = tmp_path / "pairs.csv"
    lines = [f"{one},{other},{label}" for (one, label), (other, _) in zip(made_of, reversed(made_of), strict=True)]
    table.write_text("\n".join(["first,second,label", *lines]) + "\n", encoding="utf-8")
    settings = {**TOKENS, "data.text": "first", "data.pair": "second"}
    found = {}
    for family in ("sentence", "bert"):
        run = bench(recipe_for(model_folder(family), table, "full", settings), tmp_path / family).run
        batches = [run.source.batch(step) for step in range(run.steps)]
        assert all(sum(part.tokens for part in parts) <= 120 or len(parts[0].rows) == 1 for parts in batches)
        found[family] = len(run.source.examples[0].sides)
    assert found == {"sentence": 2, "bert": 1}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"task": {"name": "causal_lm"}}),
        ("llama", {"task": {"name": "causal_lm", "packing": True}}),
        ("bert", {"task": {"name": "masked_lm"}}),
        ("bert", {"training.exact": True, "training.precision": "float32"}),
        ("bert", {"training.step_in_backward": True, "training.clip": None}),
        ("model2vec", {}),
        ("bert", {"method": {"name": "layers", "layers": "auto"}}),
        ("gpt2", {"task": {"name": "causal_lm"}, "retention.replay": 0.2}),
    ],
    ids=["causal", "packed", "masked", "exact", "backward", "static", "measured", "replay"],
)
def test_it_goes_with(
    family: str, settings: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    asked = {key: value for key, value in settings.items() if key != "method"}
    recipe = recipe_for(model_folder(family), table_file, settings.get("method", "full"), {**TOKENS, **asked})
    made = bench(recipe, tmp_path)
    events = list(train(made.run))
    assert sum(event.rows for event in events if isinstance(event, StepDone)) == 2 * len(made.run.source.examples)
    assert events[-1].kind == "finished"


def test_what_is_kept_of_frozen_blocks_serves_other_batches(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """Kept by row, so that the same rows in other batches find them."""
    found = {}
    for cache in ("memory", "off"):
        settings = {**TOKENS, "training.cache": cache, "training.epochs": 3}
        made = bench(recipe_for(model_folder("bert"), table_file, METHODS["layers"], settings), tmp_path / cache)
        found[cache] = (type(made.trunk).__name__, facts(train(made.run)), made.tensors())
    assert (found["memory"][0], found["off"][0]) == ("HiddenCache", "Live")
    losses = [[fact["loss"] for fact in found[cache][1] if fact["kind"] == "step"] for cache in found]
    assert len(losses[0]) > 10 and losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_run_gone_on_with_leaves_the_same_model(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """Through resolved.yaml: rows at once are those of before."""
    recipe = recipe_for(model_folder("sentence"), table_file, "full", {**TOKENS, "evaluation.quick": True})
    assert list(start(recipe, tmp_path / "whole").events())[-1].kind == "finished"
    asked = iter([False, False, False, True])
    assert list(start(recipe, tmp_path / "cut", stop=lambda: next(asked)).events())[-1].kind == "stopped"
    assert list(resume(tmp_path / "cut").events())[-1].kind == "finished"
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")


def test_by_the_command_line(model_folder: Folder, table_file: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    quick = ("training.epochs=1", "evaluation.quick=true", "evaluation.baselines=false", "retention.measure=false")
    arguments = ["train", str(table_file), "--model", str(model_folder("bert")), "--out", str(out)]
    for setting in ("training.batch_tokens=150", *quick):
        arguments += ["--set", setting]
    with pytest.raises(SystemExit) as end:
        command(arguments)
    said = capsys.readouterr().out
    assert end.value.code == 0 and "training.batch_tokens = 150: " in said and "rows a step on the mean" in said
    resolved = (out / "resolved.yaml").read_text(encoding="utf-8")
    assert "batch_tokens: 150" in resolved and "batch_size: null" in resolved
    events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(event["tokens"] <= 150 for event in events if event["kind"] == "step")
    with pytest.raises(SystemExit) as end:
        command([*arguments[:4], "--set", "training.batch_tokens=150", "--set", "training.batch_size=4"])
    assert end.value.code != 0 and "set it to null" in capsys.readouterr().err


def test_the_estimator_takes_it() -> None:
    from tunesmith.estimator import TextClassifier

    texts, labels = zip(*rows(40), strict=True)
    wrong = TextClassifier("no-such-model", settings={"training.batch_tokens": 90}, validation=0.0)
    with pytest.raises(ValueError, match=r"training.batch_tokens: a step holds so many tokens or 32 rows"):
        wrong.fit(list(texts), list(labels))
