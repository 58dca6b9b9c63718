"""`tunesmith predict`: texts, lines and tables in, labels out, and nothing of the user's lost."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyarrow import parquet

from tunesmith.calibration import Step
from tunesmith.cli.options import plain_warnings
from tunesmith.cli.predict import Asked, Guess, as_file, check_out, predict_with, print_one
from tunesmith.data.encode import Text
from tunesmith.data.readers import read_table
from tunesmith.errors import DataError, TunesmithWarning


class Colours:
    """A model that knows two colours: the share of each letter decides."""

    text_column = "words"
    pair_column = None
    reads_pictures = False
    thresholds: ClassVar[dict[str, float]] = {}

    def asked_in(self, table: object, text: str | None) -> None:
        return None

    def threshold(self, precision: float) -> Step:
        return Step(precision - 0.2, 100, 99)

    def said(
        self, texts: Sequence[Text], precision: float | None = None, sets: float | None = None
    ) -> dict[str, list[Any]]:
        assert all(isinstance(text, str) and text.strip() for text in texts)
        red = [str(text).count("r") / len(text) for text in texts]
        said: dict[str, list[Any]] = {
            "label": ["red" if share > 0.5 else "blue" for share in red],
            "probability": [max(share, 1 - share) for share in red],
        }
        if precision is not None:
            said["answered"] = [share > self.threshold(precision).above for share in said["probability"]]
            said["label"] = [
                label if sure else None for label, sure in zip(said["label"], said["answered"], strict=True)
            ]
        if sets is not None:
            said["set"] = [["red"] if share == 1 else ["red", "blue"] for share in red]
        return said | {
            "p:blue": [1 - share for share in red],
            "p:red": red,
        }


class Flags(Colours):
    """A model of several labels a row: those of which a third of the letters are."""

    thresholds: ClassVar[dict[str, float]] = {"blue": 0.333333333, "red": 0.3}

    def said(
        self, texts: Sequence[Text], precision: float | None = None, sets: float | None = None
    ) -> dict[str, list[Any]]:
        shares = super().said(texts)
        labels = [
            [name for name, share in (("blue", blue), ("red", red)) if share >= self.thresholds[name]]
            for blue, red in zip(shares["p:blue"], shares["p:red"], strict=True)
        ]
        return {"labels": labels, "p:blue": shares["p:blue"], "p:red": shares["p:red"]}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def predicted(
    what: str | None, source: str | None = None, out: Path | None = None, text: str | None = None, **flags: bool
) -> str:
    stream = io.StringIO()
    stdin = Terminal() if source is None else io.StringIO(source)
    predict_with(Colours, what, Asked(out, text, **flags), stdin, stream)
    return stream.getvalue()


def test_one_text_is_not_answered_where_the_model_is_not_sure_enough() -> None:
    told = {}
    for text in ("rrrr", "rrrb", "rrbb"):
        stream = io.StringIO()
        predict_with(Colours, text, Asked(precision=0.8, sets=0.9), Terminal(), stream)
        told[text] = stream.getvalue().splitlines()
    held = "not answered: at a precision of 0.8, proven on validation rows, the probability must be above 0.6"
    assert told["rrrr"] == ["red   1.0000", "blue  0.0000", "set: red"]
    assert told["rrrb"] == ["red   0.7500", "blue  0.2500", "set: red, blue"]
    assert told["rrbb"] == ["blue  0.5000", "red   0.5000", "set: red, blue", held]
    stream = io.StringIO()
    predict_with(Colours, "rrbb", Asked(precision=0.8, json_lines=True), Terminal(), stream)
    assert json.loads(stream.getvalue())["label"] is None


def test_rows_that_are_not_answered_are_left_empty_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("words\nrrrr\nrrbb\n", encoding="utf-8")
    stream = io.StringIO()
    predict_with(Colours, str(table), Asked(precision=0.8, sets=0.9), Terminal(), stream)
    assert stream.getvalue().splitlines() == [
        "words,label,probability,answered,set",
        'rrrr,red,1.0,True,"[""red""]"',
        'rrbb,,0.5,False,"[""red"", ""blue""]"',
    ]
    assert "1 of 2 rows answered, the label of the others left empty" in capsys.readouterr().err


def test_what_is_not_said_of_a_text_is_left_out() -> None:
    stream = io.StringIO()
    for columns in ({"said": "whole", "loss": None}, {"said": None}):
        print_one(Guess(columns, ()), "a text", Asked(), stream)
    assert stream.getvalue() == "whole\nnothing is said: the text leaves nothing open\n"


def test_a_text_gets_its_labels_the_most_probable_first() -> None:
    assert predicted("rrrb") == "red   0.7500\nblue  0.2500\n"
    assert json.loads(predicted("rrrb", json_lines=True)) == {
        "text": "rrrb",
        "label": "red",
        "probability": 0.75,
        "probabilities": {"red": 0.75, "blue": 0.25},
    }


def test_lines_from_a_pipe_get_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "red\t1.0000\trr\n\t\t\nblue\t1.0000\tbb\n"
    assert predicted("-", "rr\n\nbb\n") == expected
    assert predicted(None, "rr\n\nbb") == expected
    assert "no text, hence no prediction, in 1 of 3 rows: standard input:2" in capsys.readouterr().err
    assert [json.loads(line)["label"] for line in predicted("-", "rr\nbb\n", json_lines=True).splitlines()] == [
        "red",
        "blue",
    ]


def test_a_table_comes_back_with_two_more_columns(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text('id,words,label\n007,"rr, b",x\n2,bb,y\n')
    expected = [["007", "rr, b", "x", "blue"], ["2", "bb", "y", "blue"]]
    text = predicted(str(file))
    assert text == 'id,words,label,predicted_label,probability\n007,"rr, b",x,blue,0.6\n2,bb,y,blue,1.0\n'
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        out = tmp_path / f"out.{suffix}"
        assert predicted(str(file), out=out) == f"2 rows with a prediction written to {out}\n"
        assert not list(tmp_path.glob(".*"))
        if suffix == "parquet":
            rows = [list(row.values())[:4] for row in parquet.read_table(out).to_pylist()]
        elif suffix == "jsonl":
            rows = [list(json.loads(line).values())[:4] for line in out.read_text().splitlines()]
        else:
            rows = [list(row)[:4] for row in zip(*read_table(out).columns.values(), strict=True)]
        assert rows == expected
    lines = tmp_path / "in.txt"
    lines.write_text("rr\nbb\n")
    assert predicted(str(lines)) == "text,label,probability\nrr,red,1.0\nbb,blue,1.0\n"


def test_a_table_of_several_labels_gets_the_probability_of_each_and_the_thresholds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, said = tmp_path / "in.csv", tmp_path / "out.jsonl", "a label is said from its threshold on: "
    file.write_text("words,p:red\nrrb,x\nbbb,y\n,z\n")
    stream = io.StringIO()
    predict_with(Flags, str(file), Asked(), Terminal(), stream)
    head, *rows = stream.getvalue().splitlines()
    assert head == "words,p:red,labels,p:blue,predicted_p:red"
    assert rows[:2] == ['rrb,x,"[""blue"", ""red""]",0.333333,0.666667', 'bbb,y,"[""blue""]",1.0,0.0']
    assert rows[2] == ",z,,,"
    assert capsys.readouterr().err.endswith(f"{said}blue 0.3333, red 0.3\n")
    stream = io.StringIO()
    predict_with(Flags, str(file), Asked(out), Terminal(), stream)
    assert stream.getvalue().splitlines()[1] == f"{said}blue 0.3333, red 0.3"
    first = json.loads(out.read_text().splitlines()[0])
    assert (first["labels"], first["p:blue"], first["predicted_p:red"]) == (["blue", "red"], 0.333333, 0.666667)
    stream = io.StringIO()
    predict_with(Flags, str(file), Asked(out, force=True, json_lines=True), Terminal(), stream)
    assert json.loads(stream.getvalue())["thresholds"] == Flags.thresholds
    predicted(str(file))  # control: of one class a row nothing is to be said
    assert said not in capsys.readouterr().err


def test_lists_and_objects_come_out_as_they_went_in(tmp_path: Path) -> None:
    spans, meta = [{"start": 0, "end": 2, "label": "é"}, {"start": 3, "end": 4, "label": None}], {"a": [1, {"b": 2.5}]}
    rows = [{"words": "rr", "spans": spans, "meta": meta}, {"words": "bb", "spans": [], "meta": {}}]
    given = tmp_path / "in.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = [{"label": "red", "probability": 1.0}, {"label": "blue", "probability": 1.0}]
    expected = [row | more for row, more in zip(rows, added, strict=True)]
    predicted(str(given), out=tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == expected
    predicted(str(given), out=tmp_path / "out.csv")
    cells = read_table(tmp_path / "out.csv").columns
    assert [json.loads(cell) for cell in cells["spans"]] == [spans, []]
    assert [json.loads(cell) for cell in cells["meta"]] == [meta, {}]
    predicted(str(given), out=tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet")["spans"].to_pylist() == [spans, []]
    again = tmp_path / "again.jsonl"  # what was read from a CSV was text, and stays text
    predicted(str(tmp_path / "out.csv"), out=again)
    assert json.loads(json.loads(again.read_text().splitlines()[0])["meta"]) == meta


def test_what_cannot_be_read_or_written_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("words\nrr\n")
    with pytest.raises(DataError, match="no such file"):
        as_file("missing.csv")
    assert as_file("what is missing.csv") is None
    assert as_file("a" * 5000) is None
    for out, said in (
        (file, "never overwritten"),
        (tmp_path / "x.xlsx", "a table is written as"),
        (tmp_path / "no" / "x.csv", "no folder"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(DataError, match=said):
            check_out(file, out, force=True)
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    with pytest.raises(DataError, match="--force"):
        predicted(str(file), out=taken)
    assert taken.read_text() == "mine"
    predicted(str(file), out=taken, force=True)
    assert taken.read_text() == "words,label,probability\nrr,red,1.0\n"
    with pytest.raises(DataError, match="nothing to predict"):
        predicted(None)
    with pytest.raises(DataError, match="is empty"):
        predicted("-", "")


def test_a_folder_s_name_is_a_text_and_an_empty_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rrrb", "table.csv"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert predicted("rrrb") == "red   0.7500\nblue  0.2500\n"
    with pytest.raises(DataError, match=r"table\.csv: is a folder where a file was expected"):
        predicted("table.csv")

    def unread() -> Colours:
        raise AssertionError("the model was loaded")

    for blank in ("", " \n"):
        with pytest.raises(DataError, match="the text is empty"):
            predict_with(unread, blank, Asked(), Terminal(), io.StringIO())


def test_our_warnings_are_plain_lines_and_others_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(DeprecationWarning, match="not ours") as caught, plain_warnings():
        for text in ("one", "two", "one"):
            warnings.warn(text, TunesmithWarning, stacklevel=1)
        warnings.warn("not ours", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: one\nwarning: two\n"
    assert [str(item.message) for item in caught] == ["not ours"]
    with pytest.warns(TunesmithWarning, match="outside"):  # control: only inside
        warnings.warn("outside", TunesmithWarning, stacklevel=1)
