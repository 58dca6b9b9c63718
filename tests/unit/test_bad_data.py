"""Bad input: a clear error with the place and the fix, all problems at once, and nothing lost in silence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audit import Finding, clean
from tunesmith.data.columns import find_columns
from tunesmith.data.csv_text import read_csv, read_tsv
from tunesmith.data.json_text import read_json, read_json_lines
from tunesmith.data.readers import read_data, read_table
from tunesmith.data.table import Table
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.targets.one_class import OneClass
from tunesmith.errors import DataError

GOOD = "text,label\n" + "".join(f"row number {i},{'ab'[i % 2]}\n" for i in range(6))


def problems(path: Path | str) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_data(str(path))
    return list(caught.value.problems)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def audited(folder: Path, content: str) -> tuple[dict[str, Table], list[Finding]]:
    tables = read_data(str(written(folder, "train.csv", content)))
    return clean(tables, find_columns(tables["train"]), OneClass())


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "train.csv", GOOD)
    assert problems(tmp_path / "tran.csv") == [
        f'{tmp_path / "tran.csv"}: there is no such file; in {tmp_path}: did you mean "train.csv"?'
    ]
    assert f"no folder {tmp_path / 'no'}" in problems(tmp_path / "no" / "train.csv")[0]


def test_hub_name_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    assert problems("owner/name") == [
        'owner/name: there is no such file or folder; to read it as a hub data set, pip install "tunesmith[hub]"'
    ]
    (tmp_path / "owner").mkdir()
    assert "there is no such file" in problems("owner/name")[0]
    assert "hub" not in problems("owner/name")[0]
    assert "hub" not in problems("reviews.csv")[0]
    written(tmp_path, "reviews.csv", GOOD)
    assert problems("reviews")[1] == 'reviews: if a file or folder is meant, did you mean "reviews.csv"?'
    assert problems(" ") == ["data.path is empty; name a table, a folder with tables, or a hub data set"]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.parquet"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (line,) = problems(written(tmp_path, name, content))
    assert line.startswith(f"{tmp_path / name}: ")
    assert "empty" in line or (name == "x.parquet" and "not a readable Parquet file" in line)


def test_header_without_rows(tmp_path: Path) -> None:
    assert problems(written(tmp_path, "x.csv", "text,label\n")) == [
        f"{tmp_path / 'x.csv'}: holds a header (text, label) but no rows"
    ]
    assert "holds no rows" in problems(written(tmp_path, "x.json", "[]"))[0]


def test_no_such_column_names_the_nearest(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "x.csv", GOOD))
    with pytest.raises(DataError, match=r'no column "lable".*did you mean "label"'):
        find_columns(table, label="lable")


def test_two_columns_of_one_name_and_ragged_rows_together(tmp_path: Path) -> None:
    first, second, third = problems(written(tmp_path, "x.csv", "text,label,text\na,b,c\nd,e\n"))
    assert first == f'{tmp_path / "x.csv"}:1: columns named more than once: "text"; rename them in the header'
    assert second == f"{tmp_path / 'x.csv'}:3: 2 fields where the header has 3: d,e"
    assert "1 row of 2 without exactly 3 fields" in third


def test_ragged_rows_are_all_counted_and_ten_named(tmp_path: Path) -> None:
    bad = "".join(f"well, number {i},a\n" for i in range(14))
    found = problems(written(tmp_path, "x.csv", 'text,label\n"two\nlines",a\n' + bad))
    assert len(found) == 11
    assert found[0] == f"{tmp_path / 'x.csv'}:4: 3 fields where the header has 2: well, number 0,a"
    assert "14 rows of 15" in found[-1]
    assert 'put double quotes around a text that holds a comma ("one, two")' in found[-1]


def test_quote_left_open_names_where_it_starts(tmp_path: Path) -> None:
    (line,) = problems(written(tmp_path, "x.csv", 'text,label\n"a\nb",x\n"never closed,y\nmore,z\n'))
    assert line.startswith(f"{tmp_path / 'x.csv'}:4: the quotes of this record do not pair up")


def test_broken_utf8_names_lines_byte_and_likely_encoding_at_once(tmp_path: Path) -> None:
    content = "text,label\nfine,a\ncafé,b\nfine,a\nnaïve,b\n".encode("latin-1")
    path = written(tmp_path, "x.csv", content)
    assert content[21] == 0xE9
    assert problems(path) == [
        f"{path}: 2 lines not in UTF-8: {path}:3 (byte 0xe9 at offset 21 of the file), 5; it is likely Latin-1; save "
        f"it as UTF-8, e.g. iconv -f latin1 -t utf-8 {path} > fixed"
    ]
    (many,) = problems(written(tmp_path, "m.csv", content * 9))
    assert "18 lines not in UTF-8: " in many
    assert "of the file), 5, 8, 10, 13, 15, 18, 20, 23, 25, ...; it is likely" in many


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "text\n“a long quoted one”\n".encode("cp1252"),
            "it is likely Windows-1252; save it as UTF-8, e.g. iconv -f cp1252 ",
        ),
        (
            "text\nдлинный русский текст\n".encode("cp1251"),
            "another alphabet than the Latin one: find out its encoding; save",
        ),
        (b"text\na long line of letters \x81\n", "; find out its encoding; save it as UTF-8, e.g. iconv -f ENCODING "),
        (
            "text\ncafé\n".encode() + b"na\xefve\n",
            "; 1 other line of letters beyond ASCII in UTF-8: so correct",
        ),
    ],
)
def test_the_likely_encoding_follows_from_the_bytes(content: bytes, said: str, tmp_path: Path) -> None:
    (line,) = problems(written(tmp_path, "x.csv", content))
    assert said in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.csv", "a table with a header and rows"),
        ("x.jsonl", 'one object a line, such as {"text": "...", "label": "..."}'),
        ("x.json", '[{"text": ..., "label": ...}, ...] or {"text": [...]'),
        ("x.conll", "a word and its tag a line, with a TAB or spaces between"),
        ("x.txt", "text, or a word and its tag a line"),
        ("x.md", "text"),
    ],
)
def test_an_empty_file_is_told_what_its_format_holds(name: str, expected: str, tmp_path: Path) -> None:
    (line,) = problems(written(tmp_path, name, ""))
    assert line.startswith(f"{tmp_path / name}: the file is empty; expected {expected}")
    assert ("header" in line) == (name == "x.csv")


def test_other_encodings_and_formats_under_a_text_suffix(tmp_path: Path) -> None:
    assert "is UTF-16" in problems(written(tmp_path, "a.csv", GOOD.encode("utf-16")))[0]
    assert "x.csv:2: holds a NUL byte" in problems(written(tmp_path, "x.csv", "text,label\na\0b,c\n"))[0]
    assert "zip file or spreadsheet" in problems(written(tmp_path, "b.csv", b"PK\x03\x04rest"))[0]
    assert "is Parquet" in problems(written(tmp_path, "c.csv", b"PAR1rest"))[0]
    assert "is not a readable Parquet file" in problems(written(tmp_path, "d.parquet", GOOD))[0]


def test_formats_that_are_not_read_say_which_are(tmp_path: Path) -> None:
    assert "export the sheet as CSV" in problems(written(tmp_path, "x.xlsx", "x"))[0]
    assert "unpack it first" in problems(written(tmp_path, "x.csv.gz", "x"))[0]
    assert 'files ending in ".doc" are not read' in problems(written(tmp_path, "x.doc", "x"))[0]
    read = "csv, tsv, jsonl, ndjson, json, parquet, npz (pictures), conll (a word and its tag a line), and txt or md (text)"
    assert read in problems(tmp_path / "x.doc")[0]


def test_values_that_cannot_be_read_are_told_once(tmp_path: Path) -> None:
    tables = read_data(str(written(tmp_path, "x.csv", "text,score\na,NaN\nb,x\nc,\n")))
    with pytest.raises(DataError) as caught:
        clean(tables, find_columns(tables["train"], label="score"), Numbers(("score",)))
    assert len(caught.value.problems) == 1, "not also that 0 rows can be used"
    assert "holds no number in 2 rows" in caught.value.problems[0]


def test_bad_json_lines_are_named(tmp_path: Path) -> None:
    content = '{"text": "a", "label": "b"}\n{"text": \n\n[1, 2]\n"x"\n'
    second, fourth, fifth, fix = problems(written(tmp_path, "x.jsonl", content))
    assert second.startswith(f"{tmp_path / 'x.jsonl'}:2: is not JSON")
    assert fourth == f"{tmp_path / 'x.jsonl'}:4: is a list, not an object: [1, 2]"
    assert fifth.startswith(f"{tmp_path / 'x.jsonl'}:5: is a text")
    assert "3 bad lines in all; expected one object a line" in fix
    assert "give it the suffix .json" in problems(written(tmp_path, "y.jsonl", '[{"text": "a"},\n{"text": "b"}]'))[-1]


def test_bad_json_is_named(tmp_path: Path) -> None:
    assert ".json:2: is not JSON" in problems(written(tmp_path, "x.json", '[\n{"a": }]'))[0]
    assert "holds a number where a table was expected" in problems(written(tmp_path, "x.json", "3"))[0]
    assert "x.json:2 (null)" in problems(written(tmp_path, "x.json", '[{"text": "a"}, null]'))[0]
    assert "differ in length" in problems(written(tmp_path, "x.json", '{"text": ["a"], "label": ["b", "c"]}'))[0]
    assert "half of a surrogate pair" in problems(written(tmp_path, "x.json", '[{"text": "a\\ud83d"}]'))[0]


def test_deeply_nested_json_is_no_traceback(tmp_path: Path) -> None:
    assert "is not JSON" in problems(written(tmp_path, "x.json", "[" * 100_000))[0]
    assert "x.jsonl:1: is not JSON" in problems(written(tmp_path, "x.jsonl", "[" * 100_000))[0]


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.text(st.sampled_from('ab,;"\t|\n\r {}[]:1\\\0é'), max_size=30).map(str.encode),
    )
)
def test_no_bytes_give_anything_but_a_table_or_a_data_error(content: bytes) -> None:
    for read in (read_csv, read_tsv, read_json, read_json_lines):
        try:
            table = read(content, "x")
        except DataError:
            continue
        assert len(table) > 0
        assert {len(column) for column in table.columns.values()} == {len(table)}
        assert len(table.fingerprint()) == 64


def test_folders_that_cannot_be_told(tmp_path: Path) -> None:
    assert "there is no table in this folder" in problems(tmp_path)[0]
    written(tmp_path, "books.csv", GOOD)
    written(tmp_path, "music.csv", GOOD)
    assert "It holds: books.csv, music.csv; name one of them" in problems(tmp_path)[0]
    written(tmp_path, "dev.csv", GOOD)
    written(tmp_path, "valid.json", "[]")
    assert "more than one file could be validation (dev.csv, valid.json)" in problems(tmp_path)[0]
    (tmp_path / "sub.csv").mkdir()
    with pytest.raises(DataError, match="is a folder where a file was expected"):
        read_table(tmp_path / "sub.csv")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "x.csv", GOOD)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert problems(path) == [f"{path}: cannot be read (Permission denied); check its permissions"]


def test_a_split_column_with_gaps(tmp_path: Path) -> None:
    content = "text,label,split\na,b,train\nc,d,test\ne,f,\n"
    assert (
        'column "split" says train, validation or test in most rows but not in 1'
        in problems(written(tmp_path, "x.csv", content))[0]
    )


def test_one_class_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'holds one class only \("a", 6 rows\).*--label'):
        audited(tmp_path, GOOD.replace(",b", ",a"))


def test_a_class_with_one_row(tmp_path: Path) -> None:
    _, (found,) = audited(tmp_path, GOOD + "something,rare\n")
    assert (found.kind, found.count, found.places) == ("rare_class", 1, (f"{tmp_path / 'train.csv'}:8",))


def test_empty_texts_and_stray_spaces(tmp_path: Path) -> None:
    tables, findings = audited(tmp_path, GOOD + '"  ",a\nanother, b \n')
    assert tables["train"].columns["label"] == ["a", "b", "a", "b", "a", "b", "b"]
    assert [(found.kind, found.places) for found in findings] == [
        ("label_space", (f"{tmp_path / 'train.csv'}:9",)),
        ("empty_text", (f"{tmp_path / 'train.csv'}:8",)),
    ]


def test_texts_with_two_labels_and_numbers_for_labels(tmp_path: Path) -> None:
    _, findings = audited(tmp_path, "text,label\none,1\nONE,0\ntwo,0\nthree,1\n")
    assert [(found.kind, found.count) for found in findings] == [("conflict", 2)]
    with pytest.raises(DataError, match=r"regression.*name the right column by --label"):
        audited(tmp_path, "text,label\n" + "".join(f"row {i},{i / 7:.3f}\n" for i in range(30)))


def test_the_same_text_in_train_and_test(tmp_path: Path) -> None:
    written(tmp_path, "train.csv", GOOD)
    written(tmp_path, "test.csv", "text,label\nRow  number 2,a\nnew,b\n")
    tables = read_data(str(tmp_path))
    tables, (found,) = clean(tables, find_columns(tables["train"]), OneClass())
    assert len(tables["train"]) == 5
    assert (found.kind, found.places) == ("leak", (f"{tmp_path / 'train.csv'}:4",))
    assert "dropped from train" in found.message
