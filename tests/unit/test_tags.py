"""Tags and spans: conlleval's reading, schemes told apart and their breaks counted, columns and files of them read."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunesmith.choosing import choose
from tunesmith.data.audit import clean
from tunesmith.data.columns import find_columns
from tunesmith.data.conll import read_conll
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.data.targets.tags import Entity, Tags, breaks_of, entities_of, said_of, scheme_of, tags_of
from tunesmith.data.words import Words, bounds_of
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe


def conlleval(tags: list[str]) -> list[tuple[int, int, str]]:
    """Word by word as conlleval.pl has it: &endOfChunk and &startOfChunk, with the conditions in its order."""
    found, open_at = [], None
    before, old = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        letter, _, kind = tag.partition("-")
        end = (before, letter) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("B", "S"), ("I", "S")}
        end |= before in ("E", "S")
        end |= before != "O" and old != kind
        start = letter in ("B", "S")
        start |= before in ("O", "E", "S") and letter in ("I", "E")
        start |= letter != "O" and old != kind
        if end and open_at is not None:
            found.append((open_at, place, old))
            open_at = None
        if start:
            open_at = place
        before, old = letter, kind
    return found


def test_the_reading_is_conllevals_on_any_sequence() -> None:
    draw = random.Random(0)
    alphabet = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("x", "y"))]
    seen = Counter()
    for _ in range(4000):
        tags = [draw.choice(alphabet) for _ in range(draw.randint(0, 8))]
        assert entities_of(tags) == conlleval(tags), tags
        seen[len(conlleval(tags))] += 1
    assert len(seen) > 5


# seqeval 1.2.2, README and docstrings: default (conlleval) mode.
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("I-NP I-NP O", [(0, 2, "NP")]),
        ("O O B-MISC I-MISC I-MISC I-MISC O", [(2, 6, "MISC")]),
        ("B-x B-x I-y I-x", [(0, 1, "x"), (1, 2, "x"), (2, 3, "y"), (3, 4, "x")]),
        ("S-a B-b E-b E-b", [(0, 1, "a"), (1, 3, "b"), (3, 4, "b")]),
        ("B I O I", [(0, 2, "entity"), (3, 4, "entity")]),
        ("", []),
    ],
)
def test_hand_made(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert entities_of(tags.split()) == expected


@pytest.mark.parametrize(
    ("rows", "scheme"),
    [
        (["O B-x I-x", "B-x B-x"], "IOB2"),
        (["O I-x I-x", "I-x B-x O"], "IOB1"),
        (["O I-x", "B-x I-x"], "IOB2"),  # one B that IOB1 would not write: the bare I breaks IOB2
        (["B-x E-x", "S-x O"], "IOBES"),
        (["B-x L-x", "U-x O"], "IOBES"),  # BILOU
        (["O O"], "IOB2"),
    ],
)
def test_schemes(rows: list[str], scheme: str) -> None:
    assert scheme_of([row.split() for row in rows]) == scheme


@pytest.mark.parametrize(
    ("scheme", "tags", "breaks"),
    [
        ("IOB2", "I-x I-x O B-y I-x", ["I-x after O", "I-x after B-y"]),
        ("IOB1", "I-x B-x I-x O B-x", ["B-x after O"]),
        ("IOBES", "B-x O I-x E-x S-x B-x", ["O after B-x", "I-x after O", "the end after B-x"]),
        ("IOBES", "B-x I-x E-x S-y O", []),
    ],
)
def test_breaks(scheme: str, tags: str, breaks: list[str]) -> None:
    assert breaks_of(tags.split(), scheme) == breaks


def test_iob2_of_entities_comes_back() -> None:
    draw = random.Random(1)
    for _ in range(300):
        tags = [draw.choice(["O", "B-x", "I-x", "B-y", "I-y"]) for _ in range(draw.randint(1, 9))]
        words = Words.of("w" * draw.randint(1, 3) for _ in tags)
        bounds = bounds_of(words)
        entities = [Entity(bounds[a][0], bounds[b - 1][1], kind) for a, b, kind in entities_of(tags)]
        again = tags_of(bounds, entities)
        assert entities_of(again) == entities_of(tags) and breaks_of(again, "IOB2") == []


def cleaned(table: Table) -> tuple[Table, list[str]]:
    columns = find_columns(table)
    target = Tags(scheme_of(table.columns[columns.label]))
    tables, findings = clean({"train": table}, columns, target)
    return tables["train"], [finding.message for finding in findings]


def test_breaks_and_schemes_are_counted_and_named() -> None:
    rows = [["a", "b"], ["c"], ["d", "e"], ["f", "g", "h"]]
    tags = [["O", "I-x"], ["O"], ["B-x", "I-y"], ["B-x", "I-x", "O"]]
    table, findings = cleaned(table_of({"tokens": rows, "tags": tags}, "t"))
    (said,) = [line for line in findings if "breaks" in line]
    assert said.startswith(
        '2 rows: "tags" breaks IOB2 2 times: I-x after O (1), I-y after B-x (1), the first at word 2 of its row; '
    )
    assert table.columns["tags"] == [((2, 3, "x"),), (), ((0, 1, "x"), (2, 3, "y")), ((0, 3, "x"),)]
    _, findings = cleaned(table_of({"tokens": rows, "tags": [["O", "S-x"], ["O"], ["B-x", "E-x"], ["O"] * 3]}, "t"))
    assert [line for line in findings if "IOBES" in line] == ['4 rows: "tags" is written in IOBES, learned as IOB2']


def spans(*given: Any) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": kind} for start, end, kind in given]


def test_spans_are_held_against_the_text() -> None:
    texts = ["Ann Lee met Bob.", "Paris, France", "no one here", "in Rome  today"]
    given = [
        spans((0, 3, "part"), (0, 7, "person"), (12, 15, "person")),
        [[0, 5, "place"], [7, 11, "place"]],
        [],
        [json.dumps({"start": 7, "end": 9, "type": "place"}), json.dumps({"start": 3, "end": 7, "type": "place"})],
    ]
    table, findings = cleaned(table_of({"text": texts, "spans": given}, "t"))
    assert table.columns["spans"] == [
        ((0, 7, "person"), (12, 15, "person")),
        ((0, 5, "place"), (7, 13, "place")),
        (),
        ((3, 7, "place"),),
    ]
    told = [line.partition(': "spans" holds ')[2] for line in findings if '"spans" holds' in line]
    assert told == [
        "1 spans that begin or end inside a word; widened to whole words",
        "1 spans that overlap a longer one; left out, as a word has one tag",
        "1 spans that hold no word; left out",
    ]


def test_rows_that_cannot_be_read_are_named_all_at_once() -> None:
    rows = [["a", "b"], ["c"], ["d", "e"], ["f", ""], ["g"], ["h"]]
    tags = [["O", "B-x"], ["O"], ["O"], ["O", "O"], [3], ["B-x"]]
    columns = find_columns(table_of({"tokens": rows[:2], "tags": tags[:2]}, "t"))
    with pytest.raises(DataError) as found:
        clean({"train": table_of({"tokens": rows, "tags": tags}, "t")}, columns, Tags("IOB2"))
    told = "\n".join(found.value.problems)
    assert "t:3 (2 words, 1 tags)" in told
    assert '"tokens" holds an empty word' in told and "t:4" in told
    assert '"tags" cannot be read in 1 row (t:5 [3])' in told
    table = table_of({"text": ["ab", "cd", "ef"], "spans": [spans((0, 9, "x")), spans((1, 1, "x")), []]}, "t")
    with pytest.raises(DataError, match=r'2 spans .*t:1 \(0 to 9 "x" of 2 characters\), t:2 \(1 to 1'):
        clean({"train": table}, find_columns(table), Tags("spans"))


def test_types_that_training_never_saw_are_refused() -> None:
    words = [[f"w{place}"] for place in range(6)]
    table = table_of({"tokens": words, "tags": [["B-x"], ["O"], ["B-x"], ["O"], ["O"], ["B-x"]]}, "t")
    other = table_of({"tokens": [["z"]], "tags": [["B-y"]]}, "u")
    with pytest.raises(
        DataError, match=r'test: types of entities that no training row of t has: "y" \(1\), first at u:1'
    ):
        clean({"train": table, "test": other}, find_columns(table), Tags("IOB2"))
    with pytest.raises(DataError, match="names no entity in the training rows"):
        clean({"train": table_of({"tokens": words, "tags": [["O"]] * 6}, "t")}, find_columns(table), Tags("IOB2"))


def test_columns_of_tags_are_found_and_ties_are_errors() -> None:
    words, tags = [["a", "b"], ["c", "d"]], [["O", "B-x"], ["O", "O"]]
    found = find_columns(table_of({"id": [1, 2], "chunk_tags": tags, "words": words, "ner_tags": tags}, "t"))
    assert (found.text, found.label, found.words) == ("words", "ner_tags", True)
    with pytest.raises(DataError, match=r'"x" and "y" each hold a tag a word; say which with --label'):
        find_columns(table_of({"words": words, "y": tags, "x": tags}, "t"))
    found = find_columns(table_of({"words": words, "y": tags, "x": tags}, "t"), label="y")
    assert (found.text, found.label) == ("words", "y")
    plain = {"text": ["one two", "three four"], "labels": [["B", "I"], []]}  # no list of words: labels of the texts
    assert not find_columns(table_of(plain, "t")).words
    found = find_columns(
        table_of({"text": ["one two", "three"], "kind": ["u", "v"], "anns": [spans((0, 3, "n")), []]}, "t")
    )
    assert (found.text, found.label, found.words) == ("text", "anns", False)


SPAN = [{"start": 0, "end": 3, "label": "person"}]


def refused(columns: dict[str, list[Any]], task: str) -> str:
    recipe = Recipe.parse({"model": "m", "data": {"path": "t"}, "task": task})
    chosen = choose(recipe, {"train": table_of(columns, "t")}, lambda: "encoder")
    assert chosen.task.part_name() == "token_classification"
    with pytest.raises(DataError) as caught:
        clean(chosen.tables, chosen.columns, chosen.target)
    return " ".join(caught.value.problems)


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [("auto", 30, 1), ("token_classification", 30, 1), ("auto", 6, 4), ("token_classification", 1, 4)],
)
def test_bad_rows_among_good_ones_are_named_and_hide_no_format(task: str, good: int, bad: int) -> None:
    texts = [f"Ann lives in house {place}" for place in range(good + bad)]
    line = refused({"text": texts, "spans": [[{"start": 0, "end": 3}]] * bad + [SPAN] * good}, task)
    assert f'"spans" cannot be read in {bad} row' in line
    assert 't:1 {"start": 0, "end": 3} lacks "label"' in line
    rows = [["EU", str(place)] for place in range(good + bad)]
    line = refused({"tokens": rows, "tags": [["B-x", "O"]] * good + [["Q-X", "foo"]] * bad}, task)
    assert f't:{good + 1} "Q-X" is no tag' in line
    lines = [*[["EU", str(place)] for place in range(good)], *[["EU", "", "x"]] * bad]  # an empty word, and too many
    assert "an empty word" in refused({"tokens": lines, "tags": [["B-x", "O"]] * len(lines)}, task)


FORMS = 'expected a list of tags such as O, B-person, I-person (IOB1, IOB2 or IOBES), or of spans such as {"start": 0, '


@pytest.mark.parametrize("task", ["auto", "token_classification"])
def test_tags_and_spans_that_are_all_misread_are_named_with_their_lines(task: str) -> None:
    recipe = Recipe.parse({"model": "m", "data": {"path": "t"}, "task": task})
    table = read_conll(b"He\tO\nsaw\tO\nRome\tloc!\n\nAnn\tQ-person\n", "x.conll")
    with pytest.raises(DataError) as caught:
        choose(recipe, {"train": table}, lambda: "encoder")
    (line,) = caught.value.problems
    assert line.startswith('x.conll: column "tags" cannot be read in 2 rows (x.conll:3 "loc!" is no tag, x.conll:5 "Q-')
    assert FORMS in line
    texts = [f"Ann lives in house {place}" for place in range(3)]
    spans = [[{"start": 0, "end": 3}], [], [{"start": 0, "end": 3, "name": "x"}]]
    with pytest.raises(DataError) as caught:
        choose(recipe, {"train": table_of({"text": texts, "spans": spans}, "t")}, lambda: "encoder")
    (line,) = caught.value.problems
    assert 't:1 {"start": 0, "end": 3} lacks "label", t:3 {"start": 0, "end": 3, "name": "x"} lacks "label"' in line
    assert FORMS in line


def test_spans_without_labels_are_refused_as_a_label_and_passed_over_beside_one() -> None:
    table = table_of({"text": ["a b", "c d"] * 4, "spans": [[{"start": 0, "end": 1}]] * 8, "mood": [1, 2] * 4}, "t")
    with pytest.raises(DataError, match=r't:1 .*"end": 1} lacks "label"'):
        find_columns(table, label="spans")
    assert find_columns(table).label == "mood"


def test_few_rows_of_tags_say_nothing_where_others_are_labels() -> None:
    texts = [f"row {place}" for place in range(8)]
    labels = [["joy", "anger"], ["joy"]] * 3 + [["B"], ["O"]]
    chosen = choose(
        Recipe.parse({"model": "m", "data": {"path": "t"}}),
        {"train": table_of({"text": texts, "labels": labels}, "t")},
        lambda: "encoder",
    )
    assert chosen.task.part_name() == "multilabel"
    words = [["I", "go"], ["I"], ["it", "is"], ["so"]]  # "I" is a word, and a tag
    tags = [["O", "B-x"], ["O"], ["O", "O"], ["B-x"]]
    asked = Recipe.parse({"model": "m", "data": {"path": "t"}, "task": "token_classification"})
    columns = choose(asked, {"train": table_of({"x": words, "y": tags}, "t")}, lambda: "encoder").columns
    assert (columns.text, columns.label) == ("x", "y")


def test_tags_without_names_are_refused_with_the_way_out() -> None:
    table = table_of({"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 3], [0]]}, "t")
    for label in (None, "ner_tags"):
        with pytest.raises(
            DataError, match='t: column "ner_tags" holds numbers beside a list of words; write the tags by'
        ):
            find_columns(table, label=label)


@pytest.mark.parametrize("value", [["O", "B-x", "N-x"], [[0, 1]], [[0, True, "x"]], "O B-x", 3, [[0, 1, " "]], "[1"])
def test_what_is_neither_tags_nor_spans(value: Any) -> None:
    assert said_of(value) is None


CONLL = """-DOCSTART- -X- -X- O

EU NNP I-NP B-ORG
rejects VBZ I-VP O

\t \nPeter NNP I-NP B-PER
"""


def test_columns_files() -> None:
    table = read_conll(CONLL.encode(), "x.conll")
    assert table.columns == {"tokens": [["EU", "rejects"], ["Peter"]], "tags": [["B-ORG", "O"], ["B-PER"]]}
    assert table.lines == (3, 7)
    table = read_conll("\ufeffNew York\tB-x\r\n#\tO\r\n".encode(), "x.txt")
    assert table.columns == {"tokens": [["New York", "#"]], "tags": [["B-x", "O"]]}
    assert read_conll(b"one\ntwo\n", "x").columns == {"tokens": [["one", "two"]]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a O\nb\nc O\n", 'x:2: 1 column where 2 are usual: "b"'),
        ("a\tO\n\tO\n", "x:2: no word before the TAB"),
        ("a\tO\nb\t\n", "x:2: no tag after the TAB"),
        ("-DOCSTART- O\n\n", "x: holds no words"),
    ],
)
def test_bad_columns_files(text: str, problem: str) -> None:
    with pytest.raises(DataError) as found:
        read_conll(text.encode(), "x")
    assert found.value.problems[0].startswith(problem)


def test_a_note_beside_tables_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na b,x\n", encoding="utf-8")
    (tmp_path / "readme.txt").write_text("This is a note.\n", encoding="utf-8")
    assert [*read_data(str(tmp_path))] == ["train"]
