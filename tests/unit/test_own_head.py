"""A base that comes with a head for the same labels: what it says then is what the model before it said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from families import with_head
from shortruns import HINTS, recipe_for, rows, write_tags
from tunesmith.evaluation.verdict import CHEAPER, OF_BASE, OWN_HEAD, PHRASES
from tunesmith.models.loading import declared_head
from tunesmith.pipeline import start

Folder = Callable[[str], Path]
WITH = {"evaluation.baselines": True, "retention.measure": False, "evaluation.quick": True, "training.epochs": 1}


def _run(
    model: Path, data: Path, out: Path, more: dict[str, Any] | None = None, method: str = "full"
) -> dict[str, Any]:
    list(start(recipe_for(model, data, method, {**WITH, **(more or {})}), out).events())
    return json.loads((out / "report.json").read_text())


def _rivals(report: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in report["baselines"]}


def _said(run: Path) -> str:
    return (run / "events.jsonl").read_text()


def _table(path: Path, name: Callable[[str, str, int], Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        made = [(text, name(text, kind, place)) for place, (text, kind) in enumerate(rows(130))]
        csv.writer(out).writerows([("text", "label"), *made])
    return path


def _questions(path: Path) -> Path:
    entries = []
    for place, (text, kind) in enumerate(rows(130)):
        at = next((text.find(hint) for hint in HINTS[kind] if hint in text.split()), -1)
        word = text[at:].split()[0] if at >= 0 else ""
        answers = [{"text": word, "answer_start": at}] if at >= 0 else []
        asked = {"id": str(place), "question": f"which word tells {place}", "answers": answers, "is_impossible": at < 0}
        entries.append({"title": str(place), "paragraphs": [{"context": f"{text} .", "qas": [asked]}]})
    path.write_text(json.dumps({"version": "2.0", "data": entries}), encoding="utf-8")
    return path


def _pictures(folder: Path) -> Path:
    from PIL import Image

    for place, name in enumerate(("blue", "red")):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            array = np.random.default_rng((place, number)).integers(0, 170, (40, 40, 3)).astype(np.uint8)
            array[..., 2 * place] += 60
            Image.fromarray(array).save(folder / name / f"{number}.png")
    return folder


TASKS: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any]]] = {
    "classes": ("bert", lambda folder: _table(folder / "rows.csv", lambda text, kind, place: kind), {}),
    "classes of a decoder": ("llama", lambda folder: _table(folder / "rows.csv", lambda text, kind, place: kind), {}),
    "classes by vectors": ("sentence", lambda folder: _table(folder / "rows.csv", lambda text, kind, place: kind), {}),
    "few": (
        "sentence",
        lambda folder: _table(folder / "rows.csv", lambda text, kind, place: kind),
        {"task": "few_shot", "data.validation": 0.15},
    ),
    "labels": (
        "bert",
        lambda folder: _table(
            folder / "rows.csv", lambda text, kind, place: f"{kind}|{'even' if place % 2 else 'odd'}"
        ),
        {"task": "multilabel"},
    ),
    "numbers": (
        "bert",
        lambda folder: _table(folder / "rows.csv", lambda text, kind, place: len(text) + 0.5),
        {"task": "regression"},
    ),
    "tags": ("bert", lambda folder: write_tags(folder / "rows.conll", 130), {"task": "token_classification"}),
    "answers": ("bert", lambda folder: _questions(folder / "rows.json"), {"task": "question_answering"}),
    "pictures": ("vit", lambda folder: _pictures(folder / "rows"), {"task": "image_classification"}),
}


@pytest.mark.parametrize("kind", TASKS)
def test_it_says_what_the_model_before_it_said(model_folder: Folder, tmp_path: Path, kind: str) -> None:
    family, write, more = TASKS[kind]
    data = write(tmp_path)
    first = _run(model_folder(family), data, tmp_path / "first", {**more, "evaluation.baselines": False})
    second = _run(tmp_path / "first" / "model", data, tmp_path / "second", more, "full")
    rival = _rivals(second).get(OWN_HEAD)
    assert rival is not None, _said(tmp_path / "second")
    assert rival["what"] == PHRASES[OWN_HEAD] and OWN_HEAD in CHEAPER and OWN_HEAD in OF_BASE
    assert rival["metrics"].keys() == second["metrics"].keys()
    for name, metric in first["metrics"].items():
        assert rival["metrics"][name]["value"] == pytest.approx(metric["value"], abs=1e-4), name
    assert (tmp_path / "second" / "predictions" / "rivals" / "own_head.safetensors").exists()
    assert OWN_HEAD not in _rivals(_run(model_folder(family), data, tmp_path / "bare", more, "full"))


def test_outputs_are_found_by_their_names_whatever_their_order(model_folder: Folder, tmp_path: Path) -> None:
    import pandas as pd
    import torch
    import transformers
    from safetensors.numpy import load_file

    (tmp_path / "base").mkdir()
    own = ("Praise", "other", "MONEY", "blame", "LABEL_4")
    base = with_head(model_folder("bert"), tmp_path / "base", "AutoModelForSequenceClassification", own)
    data = _table(tmp_path / "rows.csv", lambda text, kind, place: kind)
    rivals = _rivals(_run(base, data, tmp_path / "run", method="head"))
    assert OWN_HEAD in rivals
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tested = pd.read_parquet(tmp_path / "run" / "predictions" / "test.parquet")
    kept = load_file(tmp_path / "run" / "predictions" / "rivals" / "own_head.safetensors")
    for row, text in enumerate(tested["text"]):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, [3, 2, 0]]  # blame, money, praise
        assert kept["column:predicted"][row] == int(logits.argmax())
        assert kept["column:probability"][row] == pytest.approx(float(logits.softmax(0).max()), abs=1e-4)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("praise", "money", "sorrow"), r"it knows 2 of the 3 labels, and not \"blame\""),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ""),
        (("x", "y", "z"), ""),
    ],
)
def test_a_head_of_other_labels_is_no_rival(
    model_folder: Folder, tmp_path: Path, own: tuple[str, ...], said: str
) -> None:
    (tmp_path / "base").mkdir()
    base = with_head(model_folder("bert"), tmp_path / "base", "AutoModelForSequenceClassification", own)
    data = _table(tmp_path / "rows.csv", lambda text, kind, place: kind)
    assert OWN_HEAD not in _rivals(_run(base, data, tmp_path / "run", method="head"))
    found = _said(tmp_path / "run")
    assert said in found and ("own head" in found) == bool(said)


def test_synonyms_name_pictures(model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    own = ("tench, Tinca tinca", "crimson, red, scarlet", "azure, blue")
    base = with_head(model_folder("vit"), tmp_path / "base", "AutoModelForImageClassification", own)
    rivals = _rivals(_run(base, _pictures(tmp_path / "rows"), tmp_path / "run", method="head"))
    assert OWN_HEAD in rivals and PHRASES[OWN_HEAD] == rivals[OWN_HEAD]["what"]


def test_a_head_whose_weights_are_not_there_is_told(model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    names = tuple(sorted(HINTS))
    base = with_head(model_folder("bert"), tmp_path / "base", "AutoModelForSequenceClassification", names)
    bare = (model_folder("bert") / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(bare)
    data = _table(tmp_path / "rows.csv", lambda text, kind, place: kind)
    assert OWN_HEAD not in _rivals(_run(base, data, tmp_path / "run", method="head"))
    assert "own head is not compared with" in _said(tmp_path / "run")


def test_a_base_too_large_to_be_read_once_more_is_not(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.zero_shot import common

    (tmp_path / "base").mkdir()
    names = tuple(sorted(HINTS))
    base = with_head(model_folder("bert"), tmp_path / "base", "AutoModelForSequenceClassification", names)
    data = _table(tmp_path / "rows.csv", lambda text, kind, place: kind)
    monkeypatch.setattr(common, "MEMORY_SHARE", 0.0)
    assert OWN_HEAD not in _rivals(_run(base, data, tmp_path / "run", method="head"))
    assert "the base's own head is not compared with: read once more it takes" in _said(tmp_path / "run")
    assert "own head is not compared with: read once more it takes" in (tmp_path / "run" / "report.html").read_text()


def test_a_validation_row_of_which_it_says_nothing_finite_is_named_by_its_own_place(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import loading
    from tunesmith.preparing import prepare

    (tmp_path / "base").mkdir()
    names = tuple(sorted(HINTS))
    base = with_head(model_folder("bert"), tmp_path / "base", "AutoModelForSequenceClassification", names)
    data = _table(tmp_path / "rows.csv", lambda text, kind, place: kind)
    whole = loading.load_network

    def broken(folder: Path) -> Any:
        network, card = whole(folder)
        if folder == base:  # and not the model that the run delivers
            network.last.weight.data.fill_(float("nan"))
        return network, card

    monkeypatch.setattr(loading, "load_network", broken)
    more = {"data.validation": 0.2, "data.test": 0.1}
    rows_of = prepare(recipe_for(base, data, "head", {**WITH, **more})).splits
    assert OWN_HEAD not in _rivals(_run(base, data, tmp_path / "run", more, "head"))
    count = len(rows_of.validation)
    assert count > len(rows_of.test), "more than could be looked up among test rows"
    assert f"not finite for {count} of {count} rows: {rows_of.validation.place(0)}, " in _said(tmp_path / "run")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"id2label": {"a": "b"}, "architectures": ["XForTokenClassification"]}']
)
def test_strange_files_declare_no_head(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert declared_head(tmp_path) is None
    assert declared_head(tmp_path / "none") is None
