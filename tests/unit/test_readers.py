"""Files and folders that are well formed, in all the ways that files are."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.columns import Columns, find_columns
from tunesmith.data.csv_text import read_csv, read_tsv
from tunesmith.data.preview import three_rows
from tunesmith.data.readers import read_data, read_table
from tunesmith.data.table import Table, write_parquet
from tunesmith.data.targets.one_class import OneClass
from tunesmith.errors import TunesmithWarning

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ROWS = {"text": ["one", "two"], "label": ["a", "b"]}


def shared(name: str) -> str:
    folder = SHARED / name
    if not folder.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is absent, and CI must have it")
        pytest.skip(f"needs {folder}, which is not here")
    return str(folder)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("x.csv", "text,label\none,a\ntwo,b\n", (2, 3)),
        ("x.csv", "\ufefftext,label\r\none,a\r\n\r\ntwo,b", (2, 4)),
        ("x.csv", '"text";"label"\none;a\n"two";b\n', (2, 3)),
        ("x.csv", "text|label\none|a\ntwo|b\n", (2, 3)),
        ("x.csv", "text\tlabel\none\ta\ntwo\tb\n", (2, 3)),
        ("x.CSV", " text , label \none,a\ntwo,b\n", (2, 3)),
        ("x.tsv", "text\tlabel\none\ta\ntwo\tb\n", (2, 3)),
        ("x.jsonl", '{"text": "one", "label": "a"}\n\n{"label": "b", "text": "two"}\n', (1, 3)),
        ("x.ndjson", '{"text": "one", "label": "a"}\r\n{"text": "two", "label": "b"}', (1, 2)),
        ("x.json", json.dumps([{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]), (1, 2)),
        ("x.json", json.dumps(ROWS, indent=1), (1, 2)),
        ("x.json", json.dumps({"version": 1, "data": ROWS}), (1, 2)),
        ("x.json", json.dumps({"data": [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]}), (1, 2)),
        ("x.json", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n', (1, 2)),
    ],
)
def test_the_same_rows_in_every_format(tmp_path: Path, name: str, content: str, lines: tuple[int, ...]) -> None:
    path = written(tmp_path, name, content)
    assert read_table(path) == Table(str(path), ROWS, lines)


def test_parquet(tmp_path: Path) -> None:
    table = Table("x", {"text": ["one", None], "label": [1, 2], "tags": [["a"], []]}, (1, 2))
    write_parquet(table, tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").columns == table.columns


def test_values_of_csv_stay_text_and_records_keep_their_first_line() -> None:
    table = read_csv(b'id,text\n007,"two\nlines, and ""quotes"""\n1.0,\n', "x.csv")
    assert table.columns == {"id": ["007", "1.0"], "text": ['two\nlines, and "quotes"', ""]}
    assert table.lines == (2, 4)


def test_the_delimiter_is_the_one_that_fits_all_rows() -> None:
    table = read_csv(b"text, as said;label\nyes, no, or maybe;a\nwell;b\n", "x.csv")
    assert table.columns == {"text, as said": ["yes, no, or maybe", "well"], "label": ["a", "b"]}
    assert read_csv(b"text\none; two\nthree\n", "x.csv").columns == {"text": ["one; two", "three"]}


def test_nameless_columns_get_their_position() -> None:
    assert list(read_csv(b",text,label\n0,a,b\n", "x.csv").columns) == ["column 1", "text", "label"]


def test_tab_separated_text_without_quoting() -> None:
    table = read_tsv(b'text\tlabel\n"Good" film\ta\n"open\tb\nshut"\ta\n', "x.tsv")
    assert table.columns == {"text": ['"Good" film', '"open', 'shut"'], "label": ["a", "b", "a"]}
    quoted = read_tsv(b'text\tlabel\n"a\ttab"\ta\n"two\nlines"\tb\n', "x.tsv")
    assert quoted.columns == {"text": ["a\ttab", "two\nlines"], "label": ["a", "b"]}


def test_a_field_longer_than_the_csv_module_allows_by_default() -> None:
    before = csv.field_size_limit()
    assert read_csv(b"text,label\n" + b"x" * 200_000 + b",a\n", "x.csv").columns["text"] == ["x" * 200_000]
    assert csv.field_size_limit() == before


FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None)
@given(
    st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6),
    # With "\n" for ending the csv module leaves a lone "\r" unquoted, which no reader can tell from a line's end.
    st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str]], style: tuple[str, int]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator=style[0], quoting=style[1]).writerows([("text", "label"), *rows])
    table = read_csv(out.getvalue().encode("utf-8"), "x.csv")
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == rows
    lines = io.StringIO(out.getvalue(), newline="").readlines()
    assert all(1 < line <= len(lines) for line in table.lines)


@pytest.mark.parametrize("name", ["dev.csv", "val.csv", "valid.csv", "data_validation.csv"])
def test_a_folder_is_read_by_the_names_of_its_files(tmp_path: Path, name: str) -> None:
    written(tmp_path, "Train.csv", "text,label\none,a\n")
    written(tmp_path, name, "text,label\ntwo,b\n")
    written(tmp_path, "test-00000-of-00001.jsonl", '{"text": "three", "label": "c"}')
    written(tmp_path, "README.md", "# not a table")
    tables = read_data(str(tmp_path))
    assert {role: table.columns["text"] for role, table in tables.items()} == {
        "train": ["one"],
        "validation": ["two"],
        "test": ["three"],
    }
    assert tables["train"].place(0) == f"{tmp_path / 'Train.csv'}:2"


def test_a_folder_with_a_single_table(tmp_path: Path) -> None:
    written(tmp_path, "reviews.csv", "text,label\none,a\n")
    assert list(read_data(str(tmp_path))) == ["train"]


def test_a_split_column_is_honoured_and_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "text,label,Split\none,a,train\ntwo,b, TEST\nthree,a,dev\nfour,b,training\n")
    tables = read_data(str(path))
    assert {role: (table.columns["text"], table.lines) for role, table in tables.items()} == {
        "train": (["one", "four"], (2, 5)),
        "validation": (["three"], (4,)),
        "test": (["two"], (3,)),
    }
    assert list(tables["train"].columns) == ["text", "label"]
    other = written(tmp_path, "y.csv", "text,split\none,left\ntwo,right\n")
    assert list(read_data(str(other))["train"].columns) == ["text", "split"]


def test_a_hub_name_goes_to_the_hub_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class ClassLabel:
        names = ("no", "yes")

    class Rows(list):
        features = {"text": None, "label": ClassLabel()}  # noqa: RUF012

    def load(path: str, configuration: str | None) -> dict[str, Rows]:
        assert (path, configuration) == ("owner/some.set-1", "plain")
        found = Rows([{"text": "a", "label": 1}, {"text": "b", "label": -1}])
        return {"train": found, "unsupervised": found}

    library = ModuleType("datasets")
    library.__dict__.update(
        vars(SimpleNamespace(load_dataset=load, ClassLabel=ClassLabel, Image=type("Image", (), {})))
    )
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(TunesmithWarning, match=r"not read, .*: unsupervised \(2 rows\)$"):
        tables = read_data("owner/some.set-1:plain")
    assert list(tables) == ["train"]
    assert tables["train"].columns == {"text": ["a", "b"], "label": ["yes", None]}


def test_three_rows_show_what_was_read() -> None:
    texts = ["first", "second\nline " + "x" * 100, "\x1b[2Jthird", "last"]
    table = Table("t.csv", {"text": texts, "label": ["a", "b", "c", None]}, (2, 3, 5, 6))
    assert three_rows(table, Columns("text", "label"), OneClass()) == [
        "t.csv:2  [a]  first",
        "t.csv:5  [c]  \\x1b[2Jthird",
        "t.csv:6  [(empty)]  last",
    ]
    assert three_rows(table.take([]), Columns("text", "label"), OneClass()) == []


@pytest.mark.parametrize(
    ("name", "sizes", "text", "label"),
    [
        ("banking77", {"train": 10003, "test": 3080}, "text", "category"),
        ("sst2_sentences", {"train": 6920, "validation": 872, "test": 1821}, "text", "label"),
        ("amazon_multidomain/books.csv", {"train": 1600, "test": 400}, "text", "label"),
        ("pubmedqa", {"train": 500, "test": 500}, "question", "label"),
    ],
)
def test_real_sets_are_read_whole(name: str, sizes: dict[str, int], text: str, label: str) -> None:
    tables = read_data(shared(name))
    assert {role: len(table) for role, table in tables.items()} == sizes
    found = find_columns(tables["train"])
    assert (found.text, found.label) == (text, label)


def test_a_table_beside_train_and_test_is_named(tmp_path: Path) -> None:
    for name in ("train", "test", "extra"):
        (tmp_path / f"{name}.csv").write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.warns(TunesmithWarning, match=r"not read, being named neither train, validation nor test: extra\.csv"):
        assert list(read_data(str(tmp_path))) == ["train", "test"]
