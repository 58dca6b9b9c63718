"""A task may know its rows by their shape, and make the columns it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith import choosing
from tunesmith.choosing import choose
from tunesmith.data.audit import clean
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.passages import PART, read_passages
from tunesmith.data.preview import three_rows
from tunesmith.data.split import make_splits
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError, ModelError, Problems, RecipeError
from tunesmith.preparing import prepare
from tunesmith.recipe import Recipe
from tunesmith.tasks.classification import Classification


class Reviews(Classification):
    """Rows of marks out of ten, which no column names as a class."""

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return f"rows of marks, for a {asked.base()}" if "marks" in table.columns else None

    def find(self, table: Table, asked: Asked) -> Columns:
        return Columns("body", "(liked)", why="marks from 6 on are liked")

    def read(self, table: Table, columns: Columns) -> Table:
        liked = ["yes" if mark >= 6 else "no" for mark in table.columns["marks"]]
        return Table(table.path, {**table.columns, columns.label: liked}, table.lines)


def encoder() -> str:
    return "encoder"


def recipe(**more: object) -> Recipe:
    return Recipe.parse({"model": "m", "data": {"path": "rows.csv"}, **more})


def rows(**columns: list[object]) -> dict[str, Table]:
    texts = ["a fine day", "a bad day", "so so", "good enough"]
    return {"train": Table("rows.csv", {"body": texts, **columns}, (1, 2, 3, 4))}


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    monkeypatch.setattr(choosing, "RECOGNISING", (Reviews,))
    return encoder


def test_a_task_knows_its_rows_and_makes_their_columns(knowing: Callable[[], str]) -> None:
    chosen = choose(recipe(), rows(marks=[9, 2, 5, 6]), knowing)
    assert (type(chosen.task), chosen.why) == (Reviews, "rows of marks, for a encoder")
    assert chosen.tables["train"].columns[chosen.columns.label] == ["yes", "no", "no", "yes"]


def test_rows_of_another_shape_are_known_by_their_labels(knowing: Callable[[], str]) -> None:
    chosen = choose(recipe(), rows(label=["up", "down", "up", "down"]), knowing)
    assert (chosen.task.part_name(), chosen.why) == ("classification", "one text column and one column of labels")


def test_what_was_asked_for_goes_before_what_the_rows_look_like(knowing: Callable[[], str]) -> None:
    asked = recipe(task="regression", data={"path": "rows.csv", "label": "marks"})
    chosen = choose(asked, rows(marks=[9, 2, 5, 6]), knowing)
    assert (chosen.task.part_name(), chosen.why, chosen.columns.label) == ("regression", "as asked", "marks")


@pytest.mark.parametrize(
    ("kind", "offered"),
    [
        ("encoder", ", or learn the texts themselves with --task masked_lm; "),
        ("decoder", ", or learn the texts themselves with --task causal_lm; "),
        ("", ", or learn the texts themselves with --task causal_lm or masked_lm; "),
        ("vision", "; the columns are"),
    ],
)
def test_texts_without_anything_else_are_offered_what_can_be_learned_of_them(kind: str, offered: str) -> None:
    with pytest.raises(DataError) as caught:
        choose(recipe(), rows(id=[1, 2, 3, 4]), lambda: kind)
    assert f"name one with --label{offered}" in caught.value.problems[0]
    with pytest.raises(DataError) as caught:
        choose(recipe(), rows(note=["what", "is", "this", "for"]), lambda: kind)
    assert "--task" not in str(caught.value)


def test_options_without_a_task_go_to_the_one_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choose(recipe(task={"label_smoothing": 0.25}), rows(label=["up", "down", "up", "down"]), encoder).task
    assert (type(found), found.to_plain()) == (Classification, {"name": "classification", "label_smoothing": 0.25})
    monkeypatch.setattr(choosing, "RECOGNISING", (Reviews,))
    known = choose(recipe(task={"label_smoothing": 0.25}), rows(marks=[9, 2, 5, 6]), encoder).task
    assert isinstance(known, Reviews)
    assert known.label_smoothing == 0.25


def test_options_that_the_task_found_does_not_have_are_refused() -> None:
    wanted = recipe(task={"error": "huber", "label_smoothing": 7})
    with pytest.raises(RecipeError) as caught:
        choose(wanted, rows(label=["up", "down", "up", "down"]), encoder)
    wrong, high = caught.value.problems
    assert wrong.startswith(
        "task.error: the rows look like task classification (one text column and one column of labels), which has no such "
        "option; "
    )
    assert "label_smoothing" in wrong
    assert wrong.endswith("; give --task regression, which has it")
    assert high.startswith("task.label_smoothing: ")
    assert "(given: 7)" in high
    assert "the rows look like task classification" in high


def test_no_task_that_knows_its_rows_is_left_out_of_the_catalog() -> None:
    from tunesmith import catalog

    for kind in choosing.RECOGNISING:
        assert kind.part_name() in catalog.names("tasks"), Path(kind.__module__)


@pytest.mark.parametrize(
    ("columns", "label", "lines"),
    [
        (
            {"body": ["Ann left", "it rains", "so so"], "label": [["joy", "anger"], [], None]},
            None,
            ["[joy, anger]  Ann left", "[(none)]  it rains", "[(empty)]  so so"],
        ),
        (
            {"body": ["Ann left", "it rains", "so so"], "joy": ["1", "0", ""], "anger": ["1", "0", ""]},
            ("joy", "anger"),
            ["[joy, anger]  Ann left", "[(none)]  it rains", "[(empty)]  so so"],
        ),
        (
            {"body": ["Ann left", "it rains", "so so"], "warm": ["1.5", "0", ""], "wet": [2, 0.5, 1]},
            ("warm", "wet"),
            ["[warm 1.5, wet 2]  Ann left", "[warm 0, wet 0.5]  it rains", "[warm (empty), wet 1]  so so"],
        ),
        (
            {
                "body": ["Ann left Oslo", "it rains", "Bob"],
                "spans": [
                    [{"start": 0, "end": 3, "label": "person"}, {"start": 9, "end": 13, "label": "city"}],
                    [],
                    '[[0, 3, "person"]]',
                ],
            },
            None,
            ['[person "Ann", city "Oslo"]  Ann left Oslo', "[(none)]  it rains", '[person "Bob"]  Bob'],
        ),
        (
            {"words": [["Ann", "left"], ["it"], ["so"]], "tags": [["B-x", "O"], ["O"], ["O"]]},
            None,
            ["[B-x O]  Ann left", "[O]  it", "[O]  so"],
        ),
        (
            {"body": ["Ann left", "it rains", "so so"], "label": ["[odd] one", 1, None]},
            None,
            ["[[odd] one]  Ann left", "[1]  it rains", "[(empty)]  so so"],
        ),
    ],
)
def test_labels_are_shown_as_a_person_writes_them(
    columns: dict[str, list[object]], label: tuple[str, ...] | None, lines: list[str]
) -> None:
    data = {"path": "rows"} if label is None else {"path": "rows", "label": list(label)}
    chosen = choose(recipe(data=data), {"train": table_of(columns, "rows")}, encoder)
    found = three_rows(chosen.tables["train"], chosen.columns, chosen.target)
    assert [line.partition("  ")[2] for line in found] == lines


def flagged(rain: list[object], wind: list[object], task: str = "auto") -> str:
    """The task that two columns mean."""
    table = {"body": [f"day number {day}" for day in range(len(rain))], "rain": rain, "wind": wind}
    asked = recipe(task=task, data={"path": "days.csv", "label": ["rain", "wind"]})
    return choose(asked, {"train": table_of(table, "days.csv")}, encoder).task.part_name()


def test_a_few_other_values_in_columns_of_0_and_1_are_mistakes_and_no_numbers() -> None:
    rain: list[object] = ["0", "1", "1", "0", "2", "", "1", "0", "1", "0", "1", "0"]
    with pytest.raises(DataError) as caught:
        flagged(rain, [0, 1] * 6)
    assert caught.value.problems == (
        '"rain" holds 0 and 1 but for 1 row (days.csv:5 "2"); correct it, or learn the columns as numbers with --task '
        "regression",
    )
    with pytest.raises(DataError) as caught:
        flagged(rain, [0, "no", "x", *[1] * 9])
    assert '"wind" holds 0 and 1 but for 2 rows (days.csv:2 "no", days.csv:3 "x"); ' in caught.value.problems[1]
    with pytest.raises(DataError, match="but for 5 rows"):
        flagged([0, 1] * 50, [*[3] * 5, *[0, 1] * 45, *[1] * 5])
    assert flagged(rain, [0, 1] * 6, "regression") == "regression"
    assert flagged([0, 1] * 6, [1, 0] * 6) == "multilabel"
    assert flagged([0, 1] * 50, [*[3] * 6, *[0, 1] * 47]) == "regression", "control: more than a twentieth are numbers"
    assert flagged(rain, [0.5, 3] * 6) == "regression", "control: the other column holds numbers"
    assert flagged(rain[1:6], [0, 1, 1, 0, 1]) == "regression", "control: too few rows to tell"


def test_classes_that_are_whole_numbers_are_offered_as_numbers() -> None:
    why = "one text column and one column of whole numbers; --task regression takes them as numbers"
    assert choose(recipe(), rows(stars=[1, 5, 3, 3]), encoder).why == why
    assert choose(recipe(), rows(stars=["1", "5", "3", "3"]), encoder).why == why
    for two in ([0, 1, 1, 0], [1, 5, "", 5]):  # control: nothing to order
        assert choose(recipe(), rows(stars=two), encoder).why == "one text column and one column of labels"


def prose() -> dict[str, Table]:
    passages = [f"Sentence {place} of some length, and another one. " * 60 for place in range(80)]
    return {"train": read_passages("\n\n".join(passages).encode(), "book.md")}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("encoder-decoder", 'm is of kind "encoder-decoder"; choose such a base, or give a table with labels'),
        ("word vectors", 'm is of kind "word vectors"; choose such a base, or give a table with labels'),
        ("", "m is of a kind that is not known here; say which with --task"),
    ],
)
def test_plain_text_is_refused_where_the_base_does_not_learn_it(kind: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        choose(recipe(), prose(), lambda: kind)
    takes = "a base of kind decoder (--task causal_lm) or kind encoder (--task masked_lm) learns"
    assert caught.value.problems == (f"book.md: is plain text, which {takes}, and {said}",)


@pytest.mark.parametrize("task", ["embedding", "seq2seq", "classification", "regression"])
def test_the_parts_of_plain_text_are_no_column_of_the_user_s(task: str) -> None:
    with pytest.raises(DataError) as caught:
        choose(recipe(task=task), prose(), lambda: "encoder-decoder" if task == "seq2seq" else "encoder")
    assert PART not in str(caught.value)


def test_plain_text_is_spoken_of_in_plain_words() -> None:
    chosen = choose(recipe(), prose(), lambda: "decoder")
    said = 'text = "text" (the passages of plain text); whole files or parts of them are held out'
    assert (chosen.columns.why, chosen.columns.group) == (said, PART)
    tables, _ = clean(chosen.tables, chosen.columns, chosen.target)
    splits = make_splits(tables, chosen.columns, chosen.target, 0.1, 0.1, 0)
    assert splits.why["test"] == "10 % of book.md, whole files, or consecutive parts of one, seed 0"


def choice(columns: dict[str, list[object]], base: Callable[[], str] = encoder, **data: object) -> choosing.Chosen:
    return choose(recipe(data={"path": "rows", **data}), {"train": table_of(columns, "rows")}, base)


def read_problems(chosen: choosing.Chosen) -> list[str]:
    problems = Problems()
    chosen.target.read(chosen.tables["train"], chosen.columns.label, problems)
    with pytest.raises(DataError) as caught:
        problems.raise_as(DataError)
    return list(caught.value.problems)


BODIES: list[object] = [f"what was said on day number {day}" for day in range(30)]


@pytest.mark.parametrize("odd", ["nan", "inf", "unknown"])
def test_one_value_that_is_no_number_is_named_and_changes_no_task(odd: object) -> None:
    chosen = choice({"body": BODIES, "length": [3.5 * day for day in range(29)] + [odd]})
    assert (chosen.task.part_name(), chosen.columns.label) == ("regression", "length")
    (problem,) = read_problems(chosen)
    assert 'column "length" holds no number in 1 row (rows:30 ' in problem


@pytest.mark.parametrize("odd", [[1.5], [], [1.5, 2.5, 3.5]])
def test_lists_of_decimals_are_numbers_whatever_one_row_lacks(odd: object) -> None:
    chosen = choice({"body": BODIES, "scores": [*[[0.25, float(day)] for day in range(29)], odd]})
    assert (chosen.task.part_name(), chosen.columns.label) == ("regression", "scores")
    (problem,) = read_problems(chosen)
    assert 'column "scores" holds other than 2 numbers in 1 row (rows:30 ' in problem and "or remove them" in problem
    ragged = choice({"body": BODIES, "labels": [*[[1, day] for day in range(29)], [7]]})
    assert ragged.task.part_name() == "multilabel", "control: whole numbers, not equally many, are numbers of labels"


def test_lists_with_nan_are_numbers_too() -> None:
    chosen = choice({"body": BODIES, "scores": [*[[0.25, 1.0] for _ in range(29)], [float("nan"), 1.0]]})
    assert chosen.task.part_name() == "regression"
    targets = chosen.target.read(chosen.tables["train"], "scores", Problems())
    assert targets[0] == (0.25, 1.0) and targets[29] is None, "an empty number: the row has nothing to learn"


def test_a_score_with_a_value_that_is_none_stays_a_score() -> None:
    pairs = {"sentence1": BODIES, "sentence2": BODIES[::-1], "score": [*[0.1 * day for day in range(29)], "nan"]}
    asked = recipe(task="embedding", data={"path": "rows"})
    chosen = choose(asked, {"train": table_of(pairs, "rows")}, encoder)
    assert chosen.columns.label == "score"
    assert "holds no number in 1 row (rows:30" in read_problems(chosen)[0]


def test_an_object_is_no_label() -> None:
    lists: list[object] = [["joy"], ["joy", "fear"]] * 14
    chosen = choice({"body": BODIES[:29], "labels": [*lists, {"joy": 1}]})
    assert chosen.task.part_name() == "multilabel"
    assert "cannot be read in 1 row (rows:29 " in read_problems(chosen)[0]
    chosen = choice({"body": BODIES[:29], "label": [*["a", "b"] * 14, {"joy": 1}]})
    assert "holds an object in 1 row (rows:29)" in read_problems(chosen)[0]


def test_a_mistake_in_columns_of_0_and_1_is_named_though_no_label_is() -> None:
    with pytest.raises(DataError, match=r'"fear" holds 0 and 1 but for 1 row \(rows:2 "2"\)'):
        choice({"body": BODIES, "joy": [0, 1] * 15, "fear": [1, 2, *[0, 1] * 14]})


def test_rows_for_another_base_are_told_with_what_is_wrong(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    answers: list[object] = [f"{text}, and so it was" for text in BODIES[::-1]]
    for columns, task, kind in (
        (("instruction", "output"), "instruction", "decoder"),
        (("question", "answer"), "instruction", "decoder"),
        (("document", "summary"), "seq2seq", "encoder-decoder"),
    ):
        table = table_of(dict(zip(columns, (BODIES, answers), strict=True)), "rows")
        wanted = f"--task {task} learns them, with a base of kind {kind}"
        assert any(wanted in line for line in choosing.other_bases(recipe(), table, encoder)), columns
        assert not any(wanted in line for line in choosing.other_bases(recipe(), table, lambda kind=kind: kind))
        assert choosing.other_bases(recipe(task="classification"), table, encoder) == []
        path = tmp_path / f"{columns[0]}.csv"
        lines = zip(BODIES, answers, strict=True)
        path.write_text(
            ",".join(columns) + "\n" + "".join(f'"{one}","{two}"\n' for one, two in lines), encoding="utf-8"
        )
        with pytest.raises(DataError, match=wanted):
            prepare(recipe(model=str(model_folder("bert")), data={"path": str(path)}))


def test_lists_of_names_that_repeat_are_labels_whatever_they_are_called() -> None:
    lists: list[object] = [["joy"], ["joy", "fear"], []] * 10
    chosen = choice({"body": BODIES, "emotions": lists})
    assert (chosen.task.part_name(), chosen.columns.label) == ("multilabel", "emotions")
    free: list[object] = [[f"w{day}", f"v{day}"] for day in range(30)]
    with pytest.raises(DataError, match="no column looks like a label"):
        choice({"body": BODIES, "parts": free})


def test_whole_numbers_with_a_point_are_measured() -> None:
    lists: list[object] = [*[[float(day), 2.0] for day in range(29)], [3.0]]
    chosen = choice({"body": BODIES, "score": lists})
    assert chosen.task.part_name() == "regression"
    assert "holds other than 2 numbers in 1 row (rows:30 " in read_problems(chosen)[0]


def test_decimals_that_repeat_are_numbers_and_a_few_grades_are_names() -> None:
    texts: list[object] = [f"what was said on day number {day}" for day in range(90)]
    repeated: list[object] = [*[0.25 * (day % 40) for day in range(89)], "nan"]
    chosen = choice({"body": texts, "length": repeated})
    assert chosen.task.part_name() == "regression", "40 different ones in 89 rows"
    assert "holds no number in 1 row (rows:90" in read_problems(chosen)[0]
    grades: list[object] = [*[1 + 0.5 * (day % 4) for day in range(88)], "n/a", "n/a"]
    assert choice({"body": texts, "grade": grades}, label="grade").task.part_name() == "classification"
