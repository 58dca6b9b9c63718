"""`tunesmith audit`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from tunesmith.cli.main import run

HEAD = ("text", "label", "id")
Lines = list[tuple[str, str, str]]


def audit(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run(["audit", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def write(path: Path, rows: Lines, head: tuple[str, ...] = HEAD) -> Path:
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([head, *rows])
    return path


def good(count: int = 60) -> Lines:
    words = (
        "river",
        "candle",
        "engine",
        "market",
        "violin",
        "saddle",
        "window",
        "pepper",
        "anchor",
        "meadow",
        "ticket",
    )
    return [
        (f"{words[row % 11]} {words[(row * 7 + row // 11) % 11]} {'sun warm' if row % 2 else 'ice cold'} {row * 977}",
         "hot" if row % 2 else "cold", str(row))
        for row in range(count)
    ]  # fmt: skip


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    rows = good()
    rows += [("", "hot", "60"), ("a text", "", "61"), rows[0], (rows[1][0], "cold", "63")]
    rows += [(f"{rows[2][0]}!", rows[2][1], "64")]
    return write(tmp_path / "dirty.csv", rows)


def test_it_tells_what_is_wrong_where_and_what_to_do(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dirty.read_bytes()
    assert audit(str(dirty)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    whole = " ".join(out.split())
    for said in (
        'empty text: 1 row: "text" is empty; dropped',
        f"{dirty}:62",
        'missing label: 1 row: "label" is empty; dropped',
        "duplicate: 1 row: repeats the text and label of an earlier row",
        f"- {dirty}:64 | ",
        "conflict: 2 rows: 1 text has more than one label",
        "near duplicate: 1 row: nearly the text of an earlier row",
        f"{dirty}:66 | ",
        "what to do: ",
        "drift: does not apply",
    ):
        assert said in whole, said
    assert out.splitlines()[-1].startswith("5 findings in 63 rows; ")
    assert all(len(line) <= 120 or str(dirty) in line for line in out.splitlines())
    assert dirty.read_bytes() == before
    assert [path.name for path in dirty.parent.iterdir()] == ["dirty.csv"]


def test_json_is_an_object_a_line_with_the_same_findings(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(str(dirty), "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [item for item in said if item["event"] == "finding"]
    assert [item["kind"] for item in found] == [
        "empty_text",
        "missing_label",
        "duplicate",
        "conflict",
        "near_duplicate",
    ]
    assert found[4]["examples"][0]["place"] == f"{dirty}:66"
    assert found[4]["advice"]
    assert {item["name"] for item in said if item["event"] == "examined"} >= {"drift", "label_errors", "languages"}
    assert said[-1] == {"event": "summary", "findings": 5, "said": said[-1]["said"]}


def test_fix_takes_off_spaces_around_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(text, f" {label} " if row in ("3", "8") else label, row) for text, label, row in good()]
    path, out = write(tmp_path / "spaces.csv", rows), tmp_path / "fixed.csv"
    assert audit(str(path), "--fix", str(out)) == 0
    assert "2 rows with spaces around the label, taken off" in " ".join(capsys.readouterr().out.split())
    with out.open(encoding="utf-8", newline="") as lines:
        assert {row["label"] for row in csv.DictReader(lines)} == {"hot", "cold"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_fix_writes_the_rows_without_what_is_surely_of_no_use(
    dirty: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith.data.readers import read_table

    before = dirty.read_bytes()
    out = dirty.with_name(f"fixed.{suffix}")
    assert audit(str(dirty), "--fix", str(out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{out}: 62 rows of 65 written, as they were" in said
    assert "2 rows left out: without text or label" in said
    assert "1 row left out that repeat" in said
    assert '3 rows doubtful, kept: see the column "audit"' in said
    assert dirty.read_bytes() == before
    written = read_table(out)
    assert list(written.columns) == [*HEAD, "audit"]
    assert written.columns["id"] == [*map(str, range(60)), "63", "64"]
    marks = {row: mark for row, mark in zip(written.columns["id"], written.columns["audit"], strict=True) if mark}
    assert set(marks) == {"1", "63", "64"}
    assert marks["1"] == marks["63"] == "conflict: this text has the labels hot (1) and cold (1)"
    assert marks["64"].startswith("near duplicate: ")
    assert sorted(path.name for path in dirty.parent.iterdir()) == sorted(["dirty.csv", out.name])
    if suffix == "csv":  # what was written is a table like any other
        assert audit(str(out), "--text", "text", "--label", "label") == 0
        assert "duplicate: 1 row: repeats" not in capsys.readouterr().out


def test_fix_of_a_folder_is_one_table_without_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = good(80)
    write(folder / "train.csv", rows[:60])
    write(folder / "test.csv", [*rows[60:], rows[5]])
    out = tmp_path / "fixed.jsonl"
    assert audit(str(folder), "--fix", str(out)) == 0
    assert 'told apart by the column "split"' in " ".join(capsys.readouterr().out.split())
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 80
    ids = [row["id"] for row in written if row["split"] == "train"]
    assert "5" not in ids and len(ids) == 59
    assert [row["id"] for row in written if row["split"] == "test"] == [*map(str, range(60, 80)), "5"]


def test_label_errors_are_suggested_beside_the_label_and_never_written_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = good(400)
    flipped = random.Random(0).sample(range(400), 30)
    for row in flipped:
        rows[row] = (rows[row][0], "cold" if rows[row][1] == "hot" else "hot", rows[row][2])
    table = write(tmp_path / "flipped.csv", rows)
    out = tmp_path / "fixed.csv"
    assert audit(str(table), "--fix", str(out)) == 0
    said = capsys.readouterr().out
    assert "label error: " in said
    with out.open(encoding="utf-8", newline="") as source:
        written = list(csv.DictReader(source))
    assert [(row["text"], row["label"], row["id"]) for row in written] == rows
    suggested = {int(row["id"]): row["suggested_label"] for row in written if row["suggested_label"]}
    assert len(suggested) >= 10
    assert set(suggested) <= set(flipped)
    assert all(label != rows[row][1] for row, label in suggested.items())
    assert all(row["audit"] == "likely label error" for row in written if row["suggested_label"])


def test_fix_overwrites_nothing_and_says_so_before_it_reads(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dirty.read_bytes()
    other = dirty.with_name("other.csv")
    other.write_text("mine")
    for out, said in (
        (dirty, "already exists, and nothing is ever overwritten"),
        (other, "already exists, and nothing is ever overwritten"),
        (dirty.with_name("x.xlsx"), "a table is written as .csv, .tsv, .jsonl, .parquet"),
        (dirty.parent / "no" / "x.csv", "there is no folder"),
        (dirty.parent, "already exists"),
    ):
        assert audit(str(dirty), "--fix", str(out)) == 2
        out_said, err = capsys.readouterr()
        assert out_said == ""
        assert said in " ".join(err.split())
        assert "--fix" in err
    assert dirty.read_bytes() == before
    assert other.read_text() == "mine"
    assert sorted(path.name for path in dirty.parent.iterdir()) == ["dirty.csv", "other.csv"]


def test_fix_is_refused_where_rows_are_not_those_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [[("user", f"ask {row}"), ("assistant", f"say {row * 7}")] for row in range(12)]
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in said]
    table = tmp_path / "chats.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert audit(str(table), "--task", "instruction") == 0
    assert "label errors: does not apply" in " ".join(capsys.readouterr().out.split())
    questions = [{"question": f"who is {row}?", "id": str(row), "answers": []} for row in range(8)]
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "Some words, and more of them.", "qas": questions}]}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad), encoding="utf-8")
    out = tmp_path / "out.csv"
    code = audit(str(path), "--fix", str(out))
    told, err = capsys.readouterr()
    assert "Traceback" not in err and "bug" not in err
    assert (code, out.exists()) in ((0, True), (2, False))
    assert code == 0 or err.startswith("error: ")
    assert told or code == 2


BAD: dict[str, tuple[Lines | None, tuple[str, ...], str]] = {
    "missing file": (None, (), "there is no such file"),
    "missing column": (good(), ("--label", "nope"), 'there is no column "nope"'),
    "missing group": (good(), ("--group", "nope"), 'there is no column "nope"'),
    "one class": ([(text, "hot", number) for text, _, number in good()], ("--label", "label"), "holds one class only"),
    "three rows": (good(3), (), "at least 4 are needed"),
    "all empty": ([("", "", "")] * 9, ("--text", "text", "--label", "label"), "0 rows of 9 can be used"),
    "no rows": ([], (), "no rows"),
    "missing time": (good(), ("--time", "nope"), 'there is no column "nope"'),
    "fixed in parts": (good(), ("--time", "id", "--fix", "out.csv"), "leave these two out"),
    "unknown task": (good(), ("--task", "classify"), "classification"),
    "unknown model": (good(), ("--model", "no/such/folder"), "no/such/folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, arguments, said = BAD[name]
    table = tmp_path / "table.csv"
    if rows is not None:
        write(table, rows)
    assert audit(str(table), *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())
    assert "Traceback" not in err and "bug" not in err


def test_without_a_table_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no table is named" in said and "`tunesmith audit reviews.csv`" in said and "recipe" not in said


def test_a_table_of_labels_alone_lacks_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label\n" + "hot\ncold\n" * 30, encoding="utf-8")
    assert audit(str(path)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert 'its only column, "label", looks like a label (2 distinct values in 60 rows)' in said
    assert "add the column of the texts" in said


def test_json_names_every_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = good()
    path = write(tmp_path / "repeated.csv", [*rows, *rows[:45]])
    assert audit(str(path), "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (found,) = [item for item in said if item.get("kind") == "duplicate"]
    assert found["places"] == [f"{path}:{line}" for line in range(62, 107)]


@pytest.mark.parametrize("option", ["--time", "--group"])
def test_rows_are_split_as_train_splits_them(option: str, tmp_path: Path) -> None:
    from tunesmith.auditing.inspecting import inspect
    from tunesmith.preparing import prepare
    from tunesmith.recipe import Recipe

    rows = [(text, label, str(int(number) // 3)) for text, label, number in good(240)]
    path = write(tmp_path / "dated.csv", rows)
    data = {"path": str(path), option.removeprefix("--"): "id"}
    trained = prepare(Recipe.parse({"model": "-", "method": "full", "data": data}))
    found = inspect(Recipe.parse({"model": "-", "method": "full", "data": data}))
    assert {name: table.lines for name, table in found.material.tables.items()} == {
        name: trained.table(name).lines for name in ("train", "validation", "test")
    }
    assert any(line.startswith("test: ") and "id" in line for line in found.lines)
    (drift,) = [part for part in found.examined if part.name == "drift"]
    assert drift.done == (option == "--time")


@pytest.mark.parametrize("count", [4, 5, 9, 11])
def test_a_few_rows_are_no_error(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(str(write(tmp_path / "few.csv", good(count))), "--label", "label", "--text", "text") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing found in ")
