"""L10: a row with nothing to train on, a label that the split never saw, a text cut by the limit: refused or counted.

A classifier's row has nothing to train on when its text or its label is empty.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import recipe_for, rows
from tunesmith.errors import DataError, TunesmithError
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.preparing import Encoded, Prepared, encode, prepare

Folder = Callable[[str], Path]


def _table(folder: Path, name: str, content: list[tuple[str, str]]) -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *content])
    return folder / name


def _prepared(model: Path, data: Path, settings: dict[str, Any] | None = None) -> tuple[Prepared, Encoded]:
    recipe = recipe_for(model, data, "full", settings)
    prepared = prepare(recipe)
    backbone = load_backbone(resolve(recipe.model))
    return prepared, encode(prepared, backbone.processor, recipe.training.max_length)


def test_cut_texts_are_counted_with_their_tokens_and_places(model_folder: Folder, tmp_path: Path) -> None:
    content = rows(60)
    content[10] = ("good " * 45 + "card", "praise")
    content[20] = ("bad " * 100 + "bank", "blame")
    data = _table(tmp_path, "rows.csv", content)
    prepared, encoded = _prepared(model_folder("bert"), data, {"training.max_length": 32})
    (finding,) = encoded.findings
    cut = {prepared.table(split).place(row.row): row.cut for split, part in encoded.examples.items() for row in part}
    # 46 and 101 words, [CLS] and [SEP]: 16 and 71 tokens more than the limit.
    assert sorted(value for value in cut.values() if value) == [16, 71]
    assert finding.count == 2 and sorted(finding.places) == sorted(place for place, value in cut.items() if value)
    total = sum(row.length + row.cut for part in encoded.examples.values() for row in part)
    assert f"{87 / total:.1%} of all tokens are cut" in finding.message
    assert "training.max_length=" in finding.message
    assert _prepared(model_folder("bert"), _table(tmp_path, "short.csv", rows(60)))[1].findings == ()


@pytest.mark.parametrize(("text", "label"), [("", "praise"), ("   ", "praise"), ("a good film", ""), ("a film", "  ")])
def test_rows_with_nothing_to_learn_from_are_refused_or_counted(
    text: str, label: str, model_folder: Folder, tmp_path: Path
) -> None:
    data = _table(tmp_path, "rows.csv", [*rows(60), (text, label)])
    try:
        prepared = prepare(recipe_for(model_folder("bert"), data))
    except DataError as error:
        assert "62" in str(error), "the line is named"
    else:
        kept = sum(len(prepared.table(split)) for split in ("train", "validation", "test"))
        assert kept <= 60 and any(finding.count == 1 and "62" in str(finding) for finding in prepared.findings)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_never_saw_is_refused_or_counted(
    split: str, model_folder: Folder, tmp_path: Path
) -> None:
    _table(tmp_path, "train.csv", rows(60))
    for other in ("validation", "test"):
        _table(tmp_path, f"{other}.csv", rows(9, seed=2 if other == "test" else 3))
    _table(tmp_path, f"{split}.csv", [*rows(9, seed=4), ("a film of another kind", "unheard")])
    try:
        prepared = prepare(recipe_for(model_folder("bert"), tmp_path))
    except TunesmithError as error:
        assert "unheard" in str(error)
    else:
        assert any("unheard" in finding.message for finding in prepared.findings)
        assert "unheard" not in prepared.truth(split)


def test_control_a_clean_table_gives_no_finding(model_folder: Folder, tmp_path: Path) -> None:
    prepared, encoded = _prepared(model_folder("bert"), _table(tmp_path, "rows.csv", rows(60)))
    assert [finding.message for finding in (*prepared.findings, *encoded.findings)] == []
    assert sum(len(part) for part in encoded.examples.values()) == 60
