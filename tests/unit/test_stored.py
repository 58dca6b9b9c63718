"""Rows kept on disk are the rows that were encoded, whoever reads them, and take no memory."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import FAMILIES
from tunesmith import catalog, encoding
from tunesmith.data import stored as module
from tunesmith.data.answer_columns import Answer
from tunesmith.data.encode import Example, collate
from tunesmith.data.stored import StoredExamples, can_store, in_parts, measures, stored, tidy, tokens_in
from tunesmith.data.targets.tags import Entity
from tunesmith.data.words import Window, Words
from tunesmith.encoding import encode_split
from tunesmith.files import cache_folder
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.models.text import TextProcessor
from tunesmith.tasks.base import Labels, Task
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.token_classification import TokenClassification


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> TextProcessor:
    return load_backbone(resolve(str(FAMILIES["bert"](tmp_path_factory.mktemp("bert"))))).processor  # type: ignore[return-value]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "FEW_ROWS", 3)
    monkeypatch.setattr(module, "PART_ROWS", 4)
    return tmp_path / "cache" / "encoded"


CLASSES = Labels(("bad", "good"), (5, 6))
NUMBERS = Labels(("up", "down"), (9, 9), center=(0.0, 1.0), scale=(1.0, 2.0), standardised=True)
TAGS = Labels(("O", "B-x", "I-x"), (9, 9, 9))
WORDS = ["the", "film", "was", "good", "and", "the", "play", "was", "bad", "because", "of", "all", "that", "noise"]
TEXTS = [" ".join(WORDS[place % 7 : place % 7 + 3 + place]) for place in range(11)]
CASES: dict[str, tuple[Task, list[Any], list[Any], Labels]] = {
    "classes": (Classification(), TEXTS, ["good", "bad"] * 5 + ["good"], CLASSES),
    "pairs of numbers": (
        Regression(),
        [(text, text[::-1]) for text in TEXTS],
        [(0.1 * place, 1 / 3) for place in range(11)],
        NUMBERS,
    ),
    "windows": (
        TokenClassification(),
        [Words.of(text.split()) if place % 2 else text for place, text in enumerate(TEXTS)],
        [(Entity(0, 3, "x"),) if text.startswith("the") else () for text in TEXTS],
        TAGS,
    ),
    "answers": (
        QuestionAnswering(),
        [("the film", text) for text in TEXTS],
        [(Answer(4, 8, text[4:8]),) if place % 3 else () for place, text in enumerate(TEXTS)],
        Labels(("start", "end"), (7, 4), (0.5,), longest=4),
    ),
    "texts to be learned": (CausalLm(), TEXTS, TEXTS, Labels((), ())),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_from_disk_are_the_rows_encoded(case: str, cache: Path, processor: TextProcessor) -> None:
    task, texts, truth, labels = CASES[case]
    wanted = task.encode(texts, truth, labels, processor, 8)
    found, said = encode_split(task, texts, truth, labels, processor, 8)
    assert isinstance(found, StoredExamples)
    assert said.startswith(f"kept in {cache}")
    assert list(found) == wanted
    assert found[-1] == wanted[-1] and found[2:5] == wanted[2:5]
    assert any(example.cut for example in wanted) or any(example.window for example in wanted)
    for mine, theirs in zip(measures(found), measures(wanted), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert tokens_in(found) == tokens_in(wanted)
    one, two = (collate(rows[:5], processor.pad) for rows in (found, wanted))
    assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in two.inputs)
    assert one.target is not None and two.target is not None and torch.equal(one.target, two.target)


def test_the_same_rows_are_encoded_once(cache: Path, processor: TextProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    task, texts, truth, labels = CASES["classes"]
    first, _ = encode_split(task, texts, truth, labels, processor, 8)
    asked: list[int] = []
    real = Classification.encode

    def counted(self: Classification, texts: Any, *more: Any) -> list[Example]:
        asked.append(len(texts))
        return real(self, texts, *more)

    monkeypatch.setattr(Classification, "encode", counted)
    again, said = encode_split(task, texts, truth, labels, processor, 8)
    assert (list(again), sum(asked)) == (list(first), 2)  # two rows show whether such examples can be kept
    assert said.startswith(f"read from {cache}")


@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_held_in_memory_are_found_again_too(
    case: str, cache: Path, processor: TextProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, texts, truth, labels = CASES[case]
    wanted = task.encode(texts, truth, labels, processor, 8)
    monkeypatch.setattr(encoding, "FEW_ROWS", len(texts))
    assert encode_split(task, texts, truth, labels, processor, 8) == (wanted, "")
    assert not cache.exists(), "so few are encoded anew"
    monkeypatch.setattr(encoding, "KEPT_ROWS", len(texts))
    asked: list[int] = []
    real = type(task).encode

    def counted(self: Any, texts: Any, *more: Any) -> list[Example]:
        asked.append(len(texts))
        return real(self, texts, *more)

    monkeypatch.setattr(type(task), "encode", counted)
    for said, encoded in (("kept in", 2 + len(texts)), ("read from", 2)):
        asked.clear()
        found, where = encode_split(task, texts, truth, labels, processor, 8)
        assert (type(found), found, sum(asked)) == (list, wanted, encoded)
        assert where.startswith(f"{said} {cache}")


def test_rows_that_could_be_kept_are_encoded_where_the_cache_cannot_be_written(
    cache: Path, processor: TextProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, texts, truth, labels = CASES["classes"]
    for name in ("FEW_ROWS", "KEPT_ROWS"):
        monkeypatch.setattr(encoding, name, len(texts))
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    found, said = encode_split(task, texts, truth, labels, processor, 8)
    assert found == task.encode(texts, truth, labels, processor, 8)
    assert said.startswith("kept in memory: ") and "cannot be written" in said


@pytest.mark.parametrize("changed", ["text", "target", "limit", "task", "tokenizer"])
def test_rows_that_would_be_encoded_otherwise_are_other_rows(
    changed: str, cache: Path, processor: TextProcessor, tmp_path: Path
) -> None:
    task, texts, truth, labels = CASES["classes"]
    encode_split(task, texts, truth, labels, processor, 8)
    other = load_backbone(resolve(str(FAMILIES["roberta"](tmp_path / "other")))).processor
    encode_split(
        Classification(label_smoothing=0.1) if changed == "task" else task,
        [*texts[:-1], "another"] if changed == "text" else texts,
        [*truth[:-1], "bad"] if changed == "target" else truth,
        labels,
        other if changed == "tokenizer" else processor,  # type: ignore[arg-type]
        9 if changed == "limit" else 8,
    )
    assert len(list(cache.iterdir())) == 2


TASK = """
from tunesmith.tasks.classification import Classification


class Prefixed(Classification):
    def encode(self, texts, targets, labels, processor, limit):
        return super().encode(["the " + text for text in texts], targets, labels, processor, limit)
"""


def test_a_task_whose_code_changed_is_another_task(
    cache: Path, processor: TextProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One named by its dotted path has the same name and version before and after."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    _, texts, truth, labels = CASES["classes"]
    seen = []
    for word in ("the", "film", "film"):
        (tmp_path / "own_task.py").write_text(TASK.replace("the ", f"{word} "))
        sys.modules.pop("own_task", None)
        task = catalog.build("tasks", "own_task:Prefixed")
        assert isinstance(task, Task)
        found, said = encode_split(task, texts, truth, labels, processor, 8)
        assert list(found) == task.encode(texts, truth, labels, processor, 8)
        seen.append(said.split()[0])
    sys.modules.pop("own_task")
    assert seen == ["kept", "kept", "read"]


def test_a_class_without_a_file_is_told_by_its_functions() -> None:
    def typed(code: str) -> type[Task]:
        scope: dict[str, Any] = {"__name__": "typed_in"}
        exec(compile(TASK.replace("the ", code), "<stdin>", "exec"), scope)
        return scope["Prefixed"]

    assert encoding.code_of(typed("the ")) == encoding.code_of(typed("the ")) != encoding.code_of(typed("film "))


@pytest.mark.parametrize(
    "file", ["data/table.py", "data/targets/tags.py", "models/text.py", "models/chat.py", "models/vision.py"]
)
def test_code_that_reads_rows_counts_too(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(encoding.__file__).parent, tmp_path / "tunesmith", ignore=shutil.ignore_patterns("*.pyc"))
    before = encoding.code_of(Classification)
    monkeypatch.setattr(encoding, "__file__", str(tmp_path / "tunesmith" / "encoding.py"))
    assert encoding.code_of(Classification) == before != encoding.code_of(Regression)
    with (tmp_path / "tunesmith" / file).open("a") as changed:
        changed.write("# edited")
    assert encoding.code_of(Classification) != before


@pytest.mark.parametrize(
    ("case", "labels"),
    [
        ("classes", Labels(("good", "bad"), (5, 6))),
        ("pairs of numbers", replace(NUMBERS, center=(0.5, 1.0))),
        ("pairs of numbers", replace(NUMBERS, scale=(1.0, 3.0))),
        ("pairs of numbers", replace(NUMBERS, names=("down", "up"))),
    ],
)
def test_other_outputs_are_other_rows(case: str, labels: Labels, cache: Path, processor: TextProcessor) -> None:
    task, texts, truth, before = CASES[case]
    encode_split(task, texts, truth, before, processor, 8)
    found, said = encode_split(task, texts, truth, labels, processor, 8)
    assert said.startswith("kept") and list(found) == task.encode(texts, truth, labels, processor, 8)


def test_the_same_text_of_other_words_is_another_row(cache: Path, processor: TextProcessor) -> None:
    task, _, _, labels = CASES["windows"]
    for words in (["the film", "was"], ["the", "film was"]):
        texts, truth = [Words.of(words)] * 4, [(Entity(0, len(words[0]), "x"),)] * 4
        found, said = encode_split(task, texts, truth, labels, processor, 8)
        assert said.startswith("kept") and list(found) == task.encode(texts, truth, labels, processor, 8)


def test_numbers_are_told_apart_where_one_ends_and_the_next_begins(cache: Path, processor: TextProcessor) -> None:
    labels = Labels((1, 11), (10, 1))  # type: ignore[arg-type]
    for truth in ([1, 11, 1, 1], [11, 1, 1, 1]):
        found, said = encode_split(Classification(), ["the film"] * 4, truth, labels, processor, 8)
        assert said.startswith("kept") and [item.target for item in found] == [int(name == 11) for name in truth]


def test_a_tokenizer_is_told_by_what_it_does_not_by_what_it_did_last(processor: TextProcessor) -> None:
    before = processor.fingerprint()
    processor.tokenizer("a text", truncation=True, max_length=4, padding="max_length")
    assert processor.fingerprint() == before


def test_a_folder_that_is_not_whole_is_made_anew(cache: Path, processor: TextProcessor) -> None:
    task, texts, truth, labels = CASES["classes"]
    wanted = list(encode_split(task, texts, truth, labels, processor, 8)[0])
    folder = next(cache.iterdir())
    for spoil in (
        lambda: (folder / "input_ids.0").write_bytes(b"1234"),
        lambda: (folder / "rest").unlink(),
        lambda: (folder / "index.json").write_text("{"),
        lambda: (folder / "index.json").write_text(json.dumps({"version": 0})),
    ):
        spoil()
        assert list(encode_split(task, texts, truth, labels, processor, 8)[0]) == wanted


def test_another_chat_template_makes_other_rows(processor: TextProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    before = processor.fingerprint()
    monkeypatch.setattr(processor.tokenizer, "chat_template", "{{ messages[0].content }}")
    assert processor.fingerprint() != before


def test_where_nothing_can_be_written_rows_stay_in_memory(
    cache: Path, processor: TextProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    task, texts, truth, labels = CASES["classes"]
    found, said = encode_split(task, texts, truth, labels, processor, 8)
    assert list(found) == task.encode(texts, truth, labels, processor, 8)
    assert said.startswith(f"kept in memory: {cache} cannot be written (")


def test_a_run_that_ends_in_the_middle_leaves_nothing(cache: Path) -> None:
    def parts() -> Iterator[list[Example]]:
        yield [Example(0, {"input_ids": [1, 2]}, 0)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(cache / "key", ["a"], parts)
    assert list(cache.iterdir()) == []


def test_few_rows_stay_in_memory(tmp_path: Path, processor: TextProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    task, texts, truth, labels = CASES["classes"]
    found, said = encode_split(task, texts, truth, labels, processor, 8)
    assert (type(found), said, list(tmp_path.iterdir())) == (list, "", [])


@pytest.mark.parametrize(
    "example",
    [
        Example(0, {"input_ids": [0.5]}, 0),  # type: ignore[dict-item,list-item]
        Example(0, {"input_ids": np.zeros(3)}, 0),  # type: ignore[dict-item,arg-type]
        Example(0, {"input_ids": [1]}, {"a": 1}),
        Example(0, {"input_ids": [1]}, [[1], [2]]),
    ],
)
def test_what_the_files_could_not_give_back_is_not_kept(example: Example) -> None:
    assert not can_store(example)
    assert can_store(Example(0, {"input_ids": [1]}, [1, 2], window=Window(0, "a", (0,))))


@given(st.lists(st.integers(0, 3), max_size=30))
def test_rows_are_numbered_through_whatever_the_parts(sizes: list[int]) -> None:
    """`sizes`: windows that each text becomes."""

    def encode(first: int, last: int) -> list[Example]:
        found: list[Example] = []
        for row in range(first, last):
            for _ in range(sizes[row]):
                found.append(Example(len(found), {"input_ids": [row]}, None, window=Window(row - first, "")))
        return found

    parts = [example for part in in_parts(encode, len(sizes), 10_000) for example in part]
    assert [(example.row, example.source) for example in parts] == [
        (place, row) for place, row in enumerate(row for row, count in enumerate(sizes) for _ in range(count))
    ]


def test_folders_not_used_longest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 250)
    for age, name in enumerate(("now", "new", "old", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (time.time() - 1000 * age, time.time() - 1000 * age))
    tidy(tmp_path, [tmp_path / "now"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "now"]


def test_the_cache_stands_where_it_was_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNESMITH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tunesmith"
    monkeypatch.setenv("TUNESMITH_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_rows_that_were_let_go_are_read_again(cache: Path, processor: TextProcessor) -> None:
    task, texts, truth, labels = CASES["windows"]
    found, _ = encode_split(task, texts, truth, labels, processor, 8)
    assert isinstance(found, StoredExamples)
    before = list(found)
    found.let_go()
    assert list(found) == before
