"""What `tunesmith preview` shows is what a run would train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import rows
from tunesmith.cli.main import run
from tunesmith.cli.preview import preview_lines
from tunesmith.previewing import PreviewedRow, preview
from tunesmith.recipe import Recipe


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Callable[[str], Path]) -> Callable[[dict[str, object]], Recipe]:
    table = tmp_path / "t.jsonl"
    lines = [{"text": text, "label": label} for text, label in rows(40)]
    table.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    model = str(model_folder("bert"))

    def make(training: dict[str, object]) -> Recipe:
        return Recipe.parse({"model": model, "data": str(table), "training": training})

    return make


def test_rows_are_those_that_a_run_encodes(recipe: Callable[[dict[str, object]], Recipe]) -> None:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.preparing import encode, prepare

    asked = recipe({})
    found = preview(asked, 2)
    prepared = prepare(asked)
    processor = load_backbone(resolve(asked.model)).processor
    examples = encode(prepared, processor, "auto").examples["train"][:2]
    assert [list(row.tokens) for row in found.rows] == [
        processor.tokenizer.convert_ids_to_tokens(example.inputs["input_ids"]) for example in examples
    ]
    assert [row.cut_count for row in found.rows] == [0, 0]
    first = found.rows[0]
    place = prepared.labels.names.index(first.target)
    assert first.learned == f'output {place + 1} of {len(prepared.labels.names)}, "{first.target}", is right'
    assert first.place == prepared.splits.train.place(0)
    assert any(line.startswith("task: classification") for line in found.lines)


def test_what_is_cut_is_shown_and_counted(recipe: Callable[[dict[str, object]], Recipe]) -> None:
    whole, short = preview(recipe({}), 3), preview(recipe({"max_length": 5}), 3)
    assert short.limit == 5
    assert "are longer than 5 tokens" in short.findings[0]
    for full, row in zip(whole.rows, short.rows, strict=True):
        assert len(row.tokens) <= 5
        assert row.cut_count == len(full.tokens) - len(row.tokens)
        assert sorted([*row.tokens, *row.cut]) == sorted(full.tokens)


def test_lines_mark_what_is_cut() -> None:
    from tunesmith.previewing import Preview

    row = PreviewedRow("t.csv:2", "good", "output 1 of 2", ("[CLS]", "a", "[SEP]"), ("b", "c"), 5)
    found = Preview(("task: x",), (row,), 3, ())
    assert preview_lines(found, colours=False)[-3:] == [
        "  read (3 tokens): [CLS] a [SEP]",
        "  cut (5): [b c ...]",
        "  learned: output 1 of 2",
    ]
    assert "\x1b[31mb c ...\x1b[0m" in preview_lines(found, colours=True)[-2]


def test_one_token_is_no_tokens() -> None:
    from tunesmith.previewing import Preview

    row = PreviewedRow("t.csv:2", "good", "output 1 of 2", ("a",), (), 0)
    assert "  read (1 token): a" in preview_lines(Preview((), (row,), 3, ()), colours=False)


def test_the_command_prints_json_and_names_every_problem(
    recipe: Callable[[dict[str, object]], Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = recipe({})
    with pytest.raises(SystemExit) as end:
        run(["preview", asked.data.path, "--model", asked.model, "--rows", "2", "--json"])
    assert end.value.code == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(plain) == 2 and plain[0]["cut_count"] == 0
    with pytest.raises(SystemExit) as end:
        run(["preview", asked.data.path, "--model", "no/such/folder/", "--label", "lable"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "lable" in said and "no/such/folder" in said


def test_words_that_become_tokens_are_said(recipe: Callable[[dict[str, object]], Recipe]) -> None:
    asked = recipe({}).to_plain() | {"task": {"name": "masked_lm", "new_tokens": ["quokka"]}}
    assert (
        "tokens: 1 words made tokens, each from the mean of its pieces: quokka" in preview(Recipe.parse(asked), 1).lines
    )
