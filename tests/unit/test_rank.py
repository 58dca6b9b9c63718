"""`tunesmith rank`: what it scores and by what, what it says, what it leaves for training, and what it refuses."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

import tunesmith
from families import WORDS, with_head
from shortruns import HINTS, recipe_for, rows, write_rows, write_tags
from tunesmith.catalog import build
from tunesmith.cli.main import run
from tunesmith.cli.rank import each_model_named, rank_lines, short_names
from tunesmith.cli.tables import terminal_width
from tunesmith.data.encode import Example
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.evaluation.intervals import Interval, bootstrap, compare_all
from tunesmith.pipeline import start
from tunesmith.preparing import prepare
from tunesmith.ranking import rank_bases
from tunesmith.selection.depths import chosen, depth_features
from tunesmith.selection.frozen import PENALTIES, FeatureFolds, nearest, probed, ridged
from tunesmith.selection.order import agreement, alike, disagreements, gain, ordered
from tunesmith.selection.transferability import leep
from tunesmith.tasks.base import Labels, Scores

Folder = Callable[[str], Path]
QUICK = {"evaluation.resamples": 200, "evaluation.baselines": False, "data.test": 0.1}


def recipe(data: Path, **settings: Any) -> Any:
    return recipe_for(Path("-"), data, "full", {**QUICK, **{key.replace("__", "."): settings[key] for key in settings}})


def rank(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run(["rank", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def held(count: int, seed: int = 0, classes: int = 3) -> FeatureFolds:
    """Rows of classes that lie about a standard deviation apart, in five folds."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(classes, size=count)
    features = 0.6 * draw.normal(size=(classes, 8))[truth] + draw.normal(size=(count, 8)) + 20.0
    names = tuple("abcdef"[:classes])
    task: Any = build("tasks", "classification")
    examples = [Example(row, {"input_ids": [1]}, int(truth[row])) for row in range(count)]
    labels = Labels(names, tuple(int((truth == place).sum()) for place in range(classes)))
    folds = np.arange(count) % 5
    return FeatureFolds(
        task, labels, examples, torch.tensor(features).float(), [names[place] for place in truth], folds
    )


def test_the_probe_is_logistic_regression_on_the_other_folds() -> None:
    given = held(150)
    found = probed(given)
    features, truth = given.features.double().numpy(), np.array(given.truth)
    said = np.empty(len(truth), dtype=object)
    for fold in range(5):
        learned = given.folds != fold
        middle = features[learned].mean(axis=0)
        length = np.linalg.norm(features[learned] - middle, axis=1).mean()
        model = LogisticRegression(C=found.strength, max_iter=2_000, tol=1e-8)
        model.fit((features[learned] - middle) / length, truth[learned])
        said[~learned] = model.predict((features[~learned] - middle) / length)
    assert found.scores.value() == pytest.approx((said == truth).mean(), abs=1e-9)
    assert 0.6 < found.scores.value() < 1.0


@pytest.mark.parametrize("wide", [3, 400])  # fewer columns than rows, and more
def test_the_map_on_all_depths_is_ridge_regression_on_the_other_folds(wide: int) -> None:
    given = held(150)
    other = torch.randn(150, wide, generator=torch.Generator().manual_seed(1)) * 5 + given.features[:, :1]
    found = ridged(given, [other])
    parts = [part.double().numpy() for part in (other, given.features)]
    parts = [part - part.mean(axis=0) for part in parts]
    x = np.concatenate([part / np.linalg.norm(part, axis=1).mean() for part in parts], axis=1)
    truth = np.array([given.labels.names.index(name) for name in given.truth])
    shares = []
    for penalty in PENALTIES:
        said = np.empty(len(truth), dtype=int)
        for fold in range(5):
            learned = given.folds != fold
            model = Ridge(penalty * (x**2).sum(axis=1).mean(), fit_intercept=False)
            middle = np.eye(3)[truth[learned]].mean(axis=0)
            model.fit(x[learned], np.eye(3)[truth[learned]] - middle)
            said[~learned] = (model.predict(x[~learned]) + middle).argmax(axis=1)
        shares.append((said == truth).mean())
    assert found.scores.value() == pytest.approx(max(shares), abs=1e-9)
    assert found.strength == pytest.approx(1 / PENALTIES[int(np.argmax(shares))])


@pytest.mark.parametrize("wide", [3, 400])
def test_features_that_are_the_same_for_all_rows_are_ranked_as_such(wide: int) -> None:
    given = replace(held(150), features=torch.zeros(150, wide))  # word vectors that know none of the words, say
    assert ridged(given, []).scores.value() < 0.5


def test_depths_are_about_evenly_spaced_and_never_the_last() -> None:
    assert chosen(6) == [0, 1, 2, 3, 4]
    assert chosen(12) == [1, 3, 5, 7, 9]
    assert (chosen(0), chosen(1), chosen(2)) == ([], [], [0])
    for blocks in range(1, 60):
        found = chosen(blocks)
        assert len(found) == min(6, blocks) - 1 and all(0 <= place < blocks - 1 for place in found)


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert", "gpt2", "t5"])
def test_depths_are_the_means_of_what_the_blocks_give(family: str, model_folder: Folder, table_file: Path) -> None:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.network import sequence_network
    from tunesmith.models.resolve import resolve
    from tunesmith.preparing import encode, prepare

    prepared = prepare(recipe(table_file).model_copy(update={"model": str(model_folder(family))}))
    backbone = load_backbone(resolve(str(model_folder(family))))
    examples = encode(prepared, backbone.processor, "auto").examples["train"][:9]
    network = sequence_network(backbone, prepared.labels.names, "single_label_classification", False, 0)
    found = depth_features(network, examples, backbone.processor.pad)
    assert len(found) == 2
    for place, example in enumerate(examples):
        inputs = {name: torch.tensor([values]) for name, values in example.inputs.items()}
        with torch.no_grad():
            hidden = backbone.module(**inputs, output_hidden_states=True).hidden_states
        for depth, values in enumerate(found, 1):
            torch.testing.assert_close(values[place], hidden[depth][0].mean(dim=0), atol=1e-4, rtol=1e-4)
    block = network.get_submodule(network.layout.blocks[0])
    assert not block._forward_hooks  # nothing stays behind


def test_for_the_head_alone_only_what_leaves_the_base_last_counts(model_folder: Folder, table_file: Path) -> None:
    asked = recipe_for(Path("-"), table_file, "head", QUICK)
    (base,) = rank_bases(asked, [str(model_folder("bert"))])["bases"]
    assert base["better"] == "probe" and base["linear"] == base["probe"]


def test_no_row_is_judged_by_a_head_that_learned_from_it() -> None:
    """Of labels at random a probe that saw its rows would say most of them right."""
    given = held(120)
    draw = random.Random(1)
    mixed = [draw.choice(given.labels.names) for _ in given.truth]
    examples = [
        Example(example.row, example.inputs, given.labels.names.index(name))
        for example, name in zip(given.examples, mixed, strict=True)
    ]
    wide = torch.randn(120, 200, generator=torch.Generator().manual_seed(2))
    blind = FeatureFolds(given.task, given.labels, examples, wide, mixed, given.folds)
    assert probed(blind).scores.value() < 0.5
    assert ridged(blind, []).scores.value() < 0.5
    near = nearest(blind)
    assert near is not None and near.value() < 0.5


def test_the_nearest_are_those_of_the_other_folds_by_cosine() -> None:
    given = held(150)
    features, truth = given.features.double().numpy(), np.array(given.truth)
    features = features - features.mean(axis=0)
    said = np.empty(len(truth), dtype=object)
    for fold in range(5):
        learned = given.folds != fold
        model = KNeighborsClassifier(5, metric="cosine", weights="distance").fit(features[learned], truth[learned])
        said[~learned] = model.predict(features[~learned])
    found = nearest(given)
    assert found is not None
    assert found.value() == pytest.approx((said == truth).mean(), abs=1e-9)


def test_the_order_and_what_cannot_be_told_apart() -> None:
    draw = np.random.default_rng(0)
    truth = np.zeros(400, dtype=np.int64)

    def scores(share: float) -> Scores:
        said = (draw.random(400) > share).astype(np.int64)
        columns = {"truth": truth, "predicted": said, "probability": np.ones(400)}
        return Scores(columns, {"accuracy": lambda of: float((of["truth"] == of["predicted"]).mean())}, "accuracy")

    models = {"poor": scores(0.5), "good": scores(0.9), "nearly": scores(0.89)}
    found = compare_all(models, ["accuracy"], 300, 0.95, 0)
    order = ordered({name: of.value() for name, of in models.items()})
    assert order[-1] == "poor" and set(order[:2]) == {"good", "nearly"}
    assert alike(found, "accuracy", order) == [order[1]]
    better = gain(found, "accuracy", "good", "poor")
    worse = gain(found, "accuracy", "poor", "good")
    assert better.interval.low > 0.3
    assert (worse.interval.value, worse.interval.low) == (-better.interval.value, -better.interval.high)


def test_an_order_of_losses_and_undefined_values() -> None:
    assert ordered({"a": 2.0, "b": 1.0, "c": float("nan")}, lower=True) == ["b", "a", "c"]
    assert ordered({"a": float("nan"), "b": 1.0, "c": 1.0}) == ["b", "c", "a"]


def test_scores_that_disagree_are_told_unless_the_difference_is_nothing() -> None:
    probe = {"a": 0.9, "b": 0.8, "c": 0.5, "d": 0.2}
    turned = {name: -value for name, value in probe.items()}
    other = {"a": 0.5, "b": 0.6, "c": 0.4, "d": 0.1}
    assert disagreements("probe", {"probe": probe, "X": probe}, ["a", "b", "c", "d"], []) == []
    assert disagreements("probe", {"probe": probe, "X": other}, ["a", "b", "c", "d"], []) == [
        "X puts b first, and not a"
    ]
    assert disagreements("probe", {"probe": probe, "X": other}, ["a", "b", "c", "d"], ["b"]) == []
    assert disagreements("probe", {"probe": probe, "X": turned}, ["a", "b", "c", "d"], []) == [
        "X puts d first, and not a"
    ]
    (said,) = disagreements("probe", {"probe": probe, "X": turned}, ["a", "b", "c", "d"], ["d"])
    assert said.startswith("X orders the bases otherwise (weighted Kendall tau -1.00")
    assert agreement(probe, {**probe, "e": 3.0}) == pytest.approx(1.0)
    assert agreement({"a": 1.0}, {"a": 2.0}) != agreement({"a": 1.0}, {"a": 2.0})  # nothing to order


def test_bases_are_ranked_and_one_that_cannot_be_read_is_in_its_line(
    model_folder: Folder, table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    names = [str(model_folder("bert")), str(broken), str(model_folder("glove")), str(model_folder("vit"))]
    assert rank(str(table_file), "--models", *names, "--set", "evaluation.resamples=200", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {base["name"] for base in found["bases"]} == {names[0], names[2]}
    assert [base["place"] for base in found["bases"]] == [1, 2]
    probes = [base["linear"]["value"] for base in found["bases"]]
    assert probes == sorted(probes, reverse=True)
    # Words tell the classes: a table of them gives them away, whatever random blocks make of it.
    assert found["best"] == names[2]
    for base in found["bases"]:
        for score in ("linear", "probe", "depths", "nearest", "logme", "h_score"):
            assert base[score]["low"] <= base[score]["value"] <= base[score]["high"]
        assert base["linear"] == base[base["better"]]
        assert base["linear"]["value"] == max(base["probe"]["value"], base["depths"]["value"])
        assert base["leep"] is None and base["left_out"]["leep"] == "no classifier"
        assert base["parameters"] > 0 and base["disk_bytes"] > 0 and base["cpu_seconds"] > 0
    assert [item["name"] for item in found["refused"]] == [names[1], names[3]]
    assert "model.safetensors" in found["refused"][0]["problems"][0]
    assert "reads pictures" in found["refused"][1]["problems"][0]
    assert found["differences"][0]["better"] == names[2]


def test_the_same_is_said_in_forty_columns_and_in_a_pipe(
    model_folder: Folder, table_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    places = [str(model_folder(name)) for name in ("bert", "glove")]
    found = rank_bases(recipe(table_file), places)
    said = f"tunesmith train {table_file} --model {found['best']}"
    *narrow, command = rank_lines(found, 40, said)
    wide = rank_lines(found, 120, said)
    assert max(map(len, narrow)) <= 40
    assert max(map(len, wide[:-1])) <= 120
    assert command == f"  {said}", "whole, to be copied"
    for name in short_names(places).values():
        assert "/" not in name
        assert any(name in line for line in narrow) and any(name in line for line in wide)
    assert sum(line.startswith("base ") for line in wide) == 1
    assert rank(str(table_file), "--models", *places, "--set", "evaluation.resamples=200") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "closest to this task" in out and "72 training rows" in " ".join(out.split())


@pytest.mark.parametrize("by_recipe", [False, True])
def test_the_next_command_works_as_it_is_pasted(
    by_recipe: bool,
    model_folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Columns that a shell or an option would take for something else, and two that could be the label."""
    folder = tmp_path / "my rows"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = tmp_path / "a 'base'"
    shutil.copytree(model_folder("bert"), model)
    heads = ["--what is said?", "the $label", 'its "other" label']
    with (folder / "-it's.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([heads, *((text, name, name[::-1]) for text, name in rows(90))])
    quick = ["evaluation.quick=true", "training.epochs=1", "training.device=cpu"]
    settings = [word for setting in quick for word in ("--set", setting)]
    (folder / "my recipe.yaml").write_text('data: "./-it\'s.csv"\n', encoding="utf-8")
    given = ["--recipe", "my recipe.yaml"] if by_recipe else ["--", "-it's.csv"]
    columns = ["--text", heads[0], "--label", heads[1], "--task", "classification", "--method", "head"]
    assert rank("--models", str(model), "./nothing", *columns, *settings, "--rows", "50", *given) == 0
    command = capsys.readouterr().out.rstrip().splitlines()[-1]
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    program, *words = shown.stdout.splitlines()
    assert (program, words[0]) == ("tunesmith", "train")
    with pytest.raises(SystemExit) as end:
        run([*words, "--out", str(tmp_path / "run")])
    assert end.value.code == 0, capsys.readouterr().err
    asked = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"))
    assert asked["data"]["text"] == heads[0] and asked["data"]["label"] == heads[1]
    assert asked["model"] == str(model) and asked["training"]["epochs"] == 1 and asked["evaluation"]["quick"]
    assert "head" in str(asked["method"]) and "classification" in str(asked["task"])


def test_every_word_after_models_is_a_base(
    model_folder: Folder, table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert each_model_named(["rank", "--models", "a", "b", "--models=c", "d", "--text", "e"]) == [
        "rank", "--models", "a", "--models", "b", "--models=c", "--models", "d", "--text", "e",
    ]  # fmt: skip
    assert each_model_named(["rank", "--models", "a", "--", "b", "c"]) == ["rank", "--models", "a", "--", "b", "c"]
    asked = tmp_path / "r.yaml"
    asked.write_text(f"data: {table_file}\nevaluation: {{resamples: 200}}\n", encoding="utf-8")
    places = [str(model_folder(name)) for name in ("bert", "glove")]
    assert rank("--recipe", str(asked), "--json", "--models", *places) == 0
    assert {base["name"] for base in json.loads(capsys.readouterr().out)["bases"]} == set(places)
    assert rank("--models", *places, str(table_file)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "DATA: no table is named; give it first, as in `tunesmith rank reviews.csv --models A B`" in said
    assert rank(str(table_file), "other", "--models", *places) == 2
    assert "other" in capsys.readouterr().err, "no word is a base that does not follow --models"


def test_lines_are_as_wide_as_the_terminal_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("30", 40), ("80", 80), ("300", 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal_width() == width
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("os.get_terminal_size", Mock(side_effect=OSError))
    assert terminal_width() == 120, "a pipe has no width"


def test_folders_are_called_by_as_much_of_their_paths_as_tells_them_apart(tmp_path: Path) -> None:
    for place in ("a/model", "b/model", "c"):
        (tmp_path / place).mkdir(parents=True)
    names = [str(tmp_path / "a" / "model"), str(tmp_path / "b" / "model"), str(tmp_path / "c"), "org/model"]
    short = short_names(names)
    assert [short[name] for name in names[:2]] == ["a/model", "b/model"]
    assert short["org/model"] == "org/model"  # of the hub: the whole is its name
    assert short_names(names[1:3]) == {names[1]: "b/model", names[2]: "c"}


def test_many_rows_are_a_sample_with_each_class_in_its_share(model_folder: Folder, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "many.csv", 300)
    found = rank_bases(recipe(table), [str(model_folder("glove"))], rows=60)
    assert found["rows"] == 60
    assert found["rows_said"].startswith("60 of the ") and found["rows_said"].endswith("each label in its share")
    again = rank_bases(recipe(table), [str(model_folder("glove"))], rows=60)
    assert again["bases"][0]["probe"] == found["bases"][0]["probe"]


def test_words_count_as_rows_where_outputs_are_one_a_word(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.ranking.MOST_WORDS", 300)
    found = rank_bases(recipe(write_tags(tmp_path / "tags.conll", 80)), [str(model_folder("bert"))])
    assert 20 <= found["rows"] < 40
    assert re.search(r"training rows \((2\d\d|300) words\), each label in its share", found["rows_said"])


@pytest.mark.parametrize("method", ["full", "head"])
def test_training_finds_the_features_that_ranking_has_kept(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    settings = {**QUICK, "training.cache": "disk", "training.epochs": 1, "retention.measure": False}
    asked = recipe_for(model_folder("bert"), table_file, method, settings)
    found = rank_bases(asked, [str(model_folder("bert"))])
    assert "kept in" in found["bases"][0]["features"]
    files = set((tmp_path / "cache" / "frozen").glob("*.safetensors"))
    assert len(files) == 1
    said = [json.dumps(event.to_plain()) for event in start(asked, tmp_path / "run").events()]
    assert any("MB read from" in line for line in said)


def numbers(path: Path) -> Path:
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as out:
        lines = []
        for _ in range(90):
            good = draw.randint(0, 8)
            words = [draw.choice(HINTS["praise"]) for _ in range(good)] + [draw.choice(WORDS) for _ in range(9 - good)]
            lines.append((" ".join(words), good / 8 + 0.01 * draw.random()))
        csv.writer(out).writerows([("text", "score"), *lines])
    return path


def labels(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        made = [
            (text, "|".join(kind for kind, hints in HINTS.items() if set(hints) & set(text.split())) or "none")
            for text, _ in rows(120)
        ]
        csv.writer(out).writerows([("text", "labels"), *made])
    return path


def pairs(path: Path) -> Path:
    texts = random.Random(5).sample(rows(160), 160)
    with path.open("w", newline="", encoding="utf-8") as out:
        made = [
            (one, two, "same" if kind == other else "other") for (one, kind), (two, other) in itertools.pairwise(texts)
        ]
        csv.writer(out).writerows([("one", "two", "label"), *made])
    return path


CASES: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any], tuple[str, ...]]] = {
    "regression": (numbers, "numbers.csv", {}, ("sentence", "glove")),
    "multilabel": (labels, "labels.csv", {"task": "multilabel"}, ("bert", "glove")),
    "classification": (pairs, "pairs.csv", {"data.text": "one", "data.pair": "two"}, ("sentence", "gpt2", "model2vec")),
    "token_classification": (lambda path: write_tags(path, 80), "tags.conll", {}, ("bert", "llama", "glove")),
    "few_shot": (lambda path: write_rows(path, 60), "few.csv", {"task": "few_shot"}, ("sentence", "t5")),
}


@pytest.mark.parametrize("task", CASES)
def test_every_task_of_frozen_features_is_ranked(task: str, model_folder: Folder, tmp_path: Path) -> None:
    write, name, settings, bases = CASES[task]
    asked = recipe_for(Path("-"), write(tmp_path / name), "full", {**QUICK, **settings})
    found = rank_bases(asked, [str(model_folder(base)) for base in bases])
    assert found["task"] == task
    ranked = {base["name"] for base in found["bases"]}
    expected = {str(model_folder(base)) for base in bases if (task, base) != ("token_classification", "glove")}
    assert ranked == expected
    assert all(np.isfinite(base[score]["value"]) for base in found["bases"] for score in ("logme", "h_score"))
    if task == "regression":  # the words that count are the number
        assert found["metric"] == "spearman" and found["bases"][-1]["probe"]["value"] > 0.6


def test_vision_bases_are_ranked_on_pictures(model_folder: Folder, tmp_path: Path) -> None:
    for place, name in enumerate(("red", "green")):
        (tmp_path / name).mkdir()
        for number in range(16):
            array = np.random.default_rng((place, number)).integers(0, 170, (24, 24, 3)).astype(np.uint8)
            array[..., place] += 60
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    asked = recipe_for(Path("-"), tmp_path, "full", {**QUICK, "data.validation": 0.0})
    found = rank_bases(asked, [str(model_folder(name)) for name in ("vit", "resnet", "bert")])
    assert found["task"] == "image_classification"
    assert len(found["bases"]) == 2
    assert "reads text" in found["refused"][0]["problems"][0]


def test_leep_is_of_the_bases_own_classifier(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    with_head(model_folder("bert"), tuned, "AutoModelForSequenceClassification", ("x", "y", "z", "w"))
    found = rank_bases(recipe(table_file), [str(tuned), str(model_folder("bert"))])
    by_name = {base["name"]: base for base in found["bases"]}
    own = by_name[str(tuned)]["leep"]
    assert by_name[str(model_folder("bert"))]["leep"] is None
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    prepared = prepare(recipe(table_file).model_copy(update={"model": str(tuned)}))
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tuned).eval(),
        AutoTokenizer.from_pretrained(tuned),
    )
    with torch.no_grad():
        given = [
            model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0] for text in prepared.texts("train")
        ]
    truth = np.array([prepared.labels.names.index(name) for name in prepared.truth("train")])
    assert own["value"] == pytest.approx(leep(torch.stack(given).numpy(), truth).mean(), abs=1e-5)
    assert own["low"] < own["value"] < own["high"] <= 0


@pytest.mark.parametrize("what", ["words", "groups", "rows"])
def test_leep_draws_words_of_a_row_and_rows_of_a_group_together(
    what: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    if what == "words":
        asked = recipe(write_tags(tmp_path / "tags.conll", 60))
        kind = "AutoModelForTokenClassification"
    else:
        kind, data = "AutoModelForSequenceClassification", tmp_path / "rows.csv"
        made = [(text, name, f"of {place // 6}") for place, (text, name) in enumerate(rows(90))]
        with data.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label", "author"), *made])
        asked = recipe(data, **({"data__group": "author"} if what == "groups" else {}))
    with_head(model_folder("bert"), tuned, kind, ("x", "y", "z"))
    drawn: list[tuple[Scores, Interval]] = []

    def watched(scores: Scores, metric: str, *more: Any) -> Interval:
        found = bootstrap(scores, metric, *more)
        if metric == "leep":
            drawn.append((scores, found))
        return found

    monkeypatch.setattr("tunesmith.ranking.bootstrap", watched)
    found = rank_bases(asked, [str(tuned)])
    ((scores, interval),) = drawn
    (base,) = found["bases"]
    assert base["leep"]["low"] == interval.low < base["leep"]["value"] == interval.value
    prepared = prepare(asked.model_copy(update={"model": str(tuned)}))
    train = prepared.splits.train
    assert scores.groups is not None
    sizes = np.unique(scores.groups, return_counts=True)[1].tolist()
    if what == "groups":
        assert sorted(sizes) == sorted(Counter(train.columns["author"]).values()) and max(sizes) == 6
    elif what == "words":
        assert sizes == [prepared.task.units(text) for text in prepared.texts("train")] and max(sizes) > 6
    else:
        assert sizes == [1] * len(train)


def test_what_cannot_be_ranked_is_refused_with_every_problem(
    model_folder: Folder, table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = str(model_folder("bert"))
    with pytest.raises(RecipeError) as wrong:
        rank_bases(recipe(table_file), [bert, bert], rows=3)
    assert len(wrong.value.problems) == 2
    with pytest.raises(ModelError) as none:
        rank_bases(recipe(table_file), ["./nothing", "./nowhere", str(model_folder("vit"))])
    names = ["./nothing", "./nowhere", str(model_folder("vit"))]
    assert [problem.partition(":")[0] for problem in none.value.problems] == names
    with pytest.raises(RecipeError, match=r"task: rank scores bases .* not for masked_lm"):
        rank_bases(recipe(table_file, task="masked_lm"), [bert])
    with pytest.raises(DataError, match="too few to tell bases apart"):
        rank_bases(recipe(write_rows(tmp_path / "few.csv", 15)), [bert])
    with pytest.raises(DataError) as both:
        rank_bases(recipe(tmp_path / "none.csv"), [bert, "./nothing"])
    assert len(both.value.problems) == 2
    assert rank(str(table_file), "--set", "training.epoks=1") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert 'did you mean "epochs"' in said and "--models: no base is named" in said and "Traceback" not in said


def test_the_front_door_takes_rows_of_a_python_caller(model_folder: Folder) -> None:
    table = [{"text": text, "label": name} for text, name in rows(90)]
    found = tunesmith.rank(
        [str(model_folder("glove")), str(model_folder("bert"))], table, settings={"evaluation.resamples": 200}
    )
    assert found["best"] == str(model_folder("glove"))
    assert found["bases"][0]["probe"]["value"] > found["bases"][1]["probe"]["value"]


def test_words_that_a_table_of_vectors_does_not_know_are_told(model_folder: Folder) -> None:
    table = [{"text": f"{text} xylophone", "label": name} for text, name in rows(90)]
    names = [str(model_folder("glove")), str(model_folder("bert"))]
    found = tunesmith.rank(names, table, settings={"evaluation.resamples": 200})
    (said,) = (line for line in found["warnings"] if "no vector" in line)
    assert said.startswith(f"{names[0]}: ") and "% of all tokens have no vector in this table" in said


def test_a_base_that_breaks_is_told_and_the_others_go_on(
    model_folder: Folder, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import ranking

    scored = ranking._scored

    def breaking(asked: Any, prepared: Any, source: Any, folds: Any, groups: Any) -> Any:
        if source.name == str(model_folder("bert")):
            raise RuntimeError("an operator is missing\nmore of it")
        return scored(asked, prepared, source, folds, groups)

    monkeypatch.setattr(ranking, "_scored", breaking)
    told = SimpleNamespace(lines=[])
    found = rank_bases(
        recipe(table_file), [str(model_folder("bert")), str(model_folder("glove"))], listen=told.lines.append
    )
    (refused,) = found["refused"]
    assert refused["problems"] == [f"{model_folder('bert')}: cannot be used (RuntimeError: an operator is missing)"]
    assert len(told.lines) == 2
