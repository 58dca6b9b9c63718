"""Questions with answers that stand in a context: SQuAD's files and flat tables, what is found, mended, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.choosing import choose
from tunesmith.data.answer_columns import Located, find_answers, means_answers, read_answers
from tunesmith.data.columns import Asked
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe

CONTEXT = "Rollo came from Denmark. The Normans lived in Normandy, a region in France. France is old."


def squad(*qas: dict[str, Any], context: Any = CONTEXT) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def question(text: str, *answers: tuple[str, int], **further: Any) -> dict[str, Any]:
    return {"question": text, "id": text, "answers": [{"text": a, "answer_start": at} for a, at in answers], **further}


def read(columns: dict[str, list[Any]], asked: Asked | None = None) -> list[Located | None]:
    table = table_of(columns, "rows")
    found = find_answers(table, Asked() if asked is None else asked)
    return read_answers(table, found).columns[found.label]


def answers(found: Located | None) -> list[tuple[int, str]]:
    assert found is not None
    return [(answer.start, answer.text) for answer in found.answers]


def problems(columns: dict[str, list[Any]], asked: Asked | None = None) -> str:
    with pytest.raises(DataError) as raised:
        read(columns, asked)
    return "\n".join(raised.value.problems)


def test_squad_files_become_one_row_a_question(tmp_path: Path) -> None:
    some = question("Where?", ("France", CONTEXT.index("France")), ("a region", CONTEXT.index("a region")))
    none = question("Who else?", is_impossible=True)
    bare = {"question": "Not known?", "id": "3"}  # a test file without its answers
    (tmp_path / "train.json").write_text(json.dumps(squad(some, none, bare)))
    (tmp_path / "dev.json").write_text(json.dumps(squad(some)["data"]))  # the articles alone
    tables = read_data(str(tmp_path))
    assert {name: len(table) for name, table in tables.items()} == {"train": 3, "validation": 1}
    train = tables["train"]
    assert means_answers(train, Asked()) == "questions with a context and answers with their places"
    columns = find_answers(train, Asked())
    assert (columns.text, columns.pair, columns.label) == ("question", "context", "answers")
    located = read_answers(train, columns).columns["answers"]
    at = CONTEXT.index
    assert answers(located[0]) == [(at("France"), "France"), (at("a region"), "a region")]
    assert located[1] == Located(()) and located[2] is None
    assert train.columns["title"] == ["Normans"] * 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (squad("where?"), 'qas[0]: has no text under "question"'),  # type: ignore[arg-type]
        (squad({"question": "Where?", "answers": {"text": "x"}}), '"answers" is an object, not a list'),
        (squad(question("Where?"), context=["a"]), '"context" is a list, not a text'),
        ({"data": [{"title": "x", "paragraphs": {"context": "y"}}]}, '"paragraphs" is an object, not a list'),
        ({"data": [{"paragraphs": [{"context": "y"}]}]}, '"qas" is missing, not a list'),
        (
            {"data": [{"paragraphs": [{"context": "x", "qas": []}, "y"]}]},
            "data[0].paragraphs[1] is a text, not a paragraph",
        ),
        ({"data": [{"paragraphs": []}]}, "holds no question"),
    ],
)
def test_wrong_nesting_is_named_by_its_place(value: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError) as raised:
        read_data(str(path))
    assert said in "\n".join(raised.value.problems) and '"paragraphs": [{"context"' in str(raised.value)


def test_a_column_called_paragraphs_is_no_nesting(tmp_path: Path) -> None:
    rows = [{"paragraphs": "a text", "label": "x"}, {"paragraphs": "another", "label": "y"}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert read_data(str(tmp_path / "train.json"))["train"].columns["paragraphs"] == ["a text", "another"]
    (tmp_path / "lists.json").write_text(json.dumps([{"paragraphs": ["a", "b"], "label": "x"}]))
    assert read_data(str(tmp_path / "lists.json"))["train"].columns["paragraphs"] == [["a", "b"]]


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["France"], "answer_start": [68]},
        '{"text": ["France"], "answer_start": [68]}',
        "{'text': ['France'], 'answer_start': [68]}",
        "{'text': array(['France'], dtype=object), 'answer_start': array([68], dtype=int32)}",
        [{"text": "France", "answer_start": 68}],
        {"text": "France", "answer_start": 68},
        [{"text": " France", "start": 67}],
    ],
)
def test_each_form_of_an_answer_is_read(value: Any) -> None:
    assert CONTEXT.startswith("France", 68)
    empty = {"text": [], "answer_start": []}
    found = read({"question": ["Where?", "Who?", "?"], "context": [CONTEXT] * 3, "answers": [value, empty, None]})
    assert answers(found[0]) == [(68, "France")]
    assert found[1] == Located(()) and found[2] is None


def test_two_columns_and_bare_texts_are_read() -> None:
    whole = {"question": ["Where?", "Who?"], "context": [CONTEXT] * 2}
    found = read({**whole, "answer": ["France", ""], "answer_start": ["76", ""]})
    assert answers(found[0]) == [(76, "France")] and found[1] == Located(())
    found = read({**whole, "answer": ["France", "rollo  CAME"]})
    assert found[0] == Located(found[0].answers, False, 2) and answers(found[0]) == [(68, "France")]  # type: ignore
    assert found[1] == Located(found[1].answers, True) and answers(found[1]) == [(0, "Rollo came")]  # type: ignore
    named = {"q": ["Where?"], "c": [CONTEXT], "a": ["Normandy"], "at": [46]}
    assert answers(read(named, Asked("q", ("a", "at"), None, "c"))[0]) == [(46, "Normandy")]


def test_a_start_that_is_off_is_mended_to_the_nearest_place() -> None:
    value = {"text": ["France", "Norman"], "answer_start": [79, 40]}
    (found,) = read({"question": ["Where?"], "context": [CONTEXT], "answers": [value]})
    assert found is not None and found.moved
    # "Norman" stands in "Normans" and "Normandy" only, never as a word of its own
    assert answers(found) == [(76, "France"), (46, "Norman")]


def test_answers_that_are_not_in_their_context_are_refused_together() -> None:
    value = {"text": ["Spain"], "answer_start": [3]}
    rows = {"question": ["Where?"] * 3, "context": [CONTEXT] * 3, "answers": [value, {"text": [1]}, value]}
    said = problems(rows)
    assert 'answers that do not stand in their context in 2 rows: rows:1 "Spain" to "Where?", rows:3' in said
    assert "answers that cannot be read in 1 row: rows:2" in said
    assert "start soon" in problems({"question": ["?"], "context": [CONTEXT], "answer": ["France"], "start": ["soon"]})
    # one of several that stands there is enough
    rows = {
        "question": ["?"],
        "context": [CONTEXT],
        "answers": [{"text": ["Spain", "France"], "answer_start": [0, 68]}],
    }
    assert answers(read(rows)[0]) == [(68, "France")]


def test_is_impossible_wins_over_answers() -> None:
    value = {"text": ["France"], "answer_start": [68]}
    rows = {"question": ["?"] * 2, "context": [CONTEXT] * 2, "answers": [value] * 2, "is_impossible": [True, "false"]}
    found = read(rows)
    assert found[0] == Located((), overruled=True) and answers(found[1]) == [(68, "France")]


def test_rows_of_other_tasks_are_not_taken_for_answers() -> None:
    def rows(answer: list[Any], **further: list[Any]) -> Table:
        size = len(answer)
        return table_of({"question": ["?"] * size, "context": [CONTEXT] * size, "answer": answer, **further}, "rows")

    assert means_answers(rows(["yes", "no"] * 10), Asked()) is None
    assert means_answers(rows(["a", "the"] * 10 + ["in"]), Asked()) is not None
    assert means_answers(rows(["a", "in"] * 10), Asked()) is None  # the letters of a choice, and of any text
    assert means_answers(rows(["Spain", "Rollo", "a", "old"]), Asked()) is None  # a free answer
    words = CONTEXT.split()
    assert means_answers(rows(words), Asked()) == "questions with a context, and answers that stand in it"
    assert means_answers(rows(["Rollo", "Rollo"], start=[0, 0]), Asked()) is not None
    assert means_answers(table_of({"text": ["a"], "label": ["b"]}, "rows"), Asked()) is None


def test_few_different_answers_that_stand_in_their_contexts_are_no_classes() -> None:
    contexts = [f"Town {place} is in Denmark, near the sea." for place in range(10)]
    rows = {
        "question": [f"Where is town {place}?" for place in range(11)],
        "context": [*contexts, "Nothing of it."],
        "answer": ["Denmark"] * 10 + ["Sweden"],
    }
    recipe = Recipe.parse({"model": "m", "data": {"path": "rows"}})
    with pytest.raises(DataError, match=r'do not stand in their context in 1 row: rows:11 "Sweden"'):
        choose(recipe, {"train": table_of(rows, "rows")}, lambda: "encoder")
    rows["context"][10] = "Sweden has towns."
    chosen = choose(recipe, {"train": table_of(rows, "rows")}, lambda: "encoder")
    assert chosen.task.part_name() == "question_answering"
    assert chosen.why.endswith("answers that stand in it; --task classification takes them as names")
    rows["context"] = ["Nothing of it."] * 11
    chosen = choose(recipe, {"train": table_of(rows, "rows")}, lambda: "encoder")
    assert chosen.task.part_name() == "classification"  # "Denmark" in no text is a name


def test_questions_of_one_context_are_kept_together() -> None:
    def group(contexts: list[str], asked: Asked | None = None) -> str | None:
        rows = {"question": ["?"] * len(contexts), "context": contexts, "answer": ["a"] * len(contexts)}
        return find_answers(table_of({**rows, "id": list(range(len(contexts)))}, "rows"), asked or Asked()).group

    repeated = [f"a {place // 2}" for place in range(20)]
    assert group(repeated) == "context"
    assert group([f"a {place}" for place in range(20)]) is None  # none repeats
    assert group(["a 1", "a 2"] * 10) is None  # two contexts cannot be held out
    assert group(repeated, Asked(group="id")) == "id"
    with pytest.raises(DataError) as raised:
        find_answers(table_of({"text": ["a"]}, "rows"), Asked(label="nothing"))
    said = "\n".join(raised.value.problems)
    assert 'no column "nothing"' in said and "no column holds the question; name one with --text" in said


def test_an_answer_that_is_not_there_is_counted_where_others_are() -> None:
    from tunesmith.data.findings import Finding, Rows
    from tunesmith.data.targets.answers import Answers

    given = {"text": ["zebra crossing", "Denmark"], "answer_start": [3, 16]}
    (found,) = read({"question": ["where from"], "context": [CONTEXT], "answers": [given]})
    assert found is not None and answers(found) == [(16, "Denmark")] and found.absent == ("zebra crossing",)
    table = Table("rows", {"question": ["where from"], "context": [CONTEXT], "answers": [found]}, (2,))
    findings: list[Finding] = []
    Answers().notice(
        "answers", {"train": Rows(table, {"question": ["where from"]}, [found.answers], ["where from"], [0])}, findings
    )
    (said,) = [finding.message for finding in findings]
    assert "an answer does not stand in its context, and others of the question do" in said
