"""`tunesmith predict`: use a finished run on new texts."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TextIO

import typer

from tunesmith.cli.options import Json, TextColumn, plain_warnings
from tunesmith.cli.progress import json_line
from tunesmith.errors import ArtifactError, DataError, Problems

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.data.table import Table

READ = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")
WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")
TOP = 3  # labels shown for one text


class Model(Protocol):
    """What `tunesmith.predictor.load` gives."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def text_column(self) -> str: ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray: ...  # [texts, labels]


@dataclass(frozen=True)
class Guess:
    """The labels of one text, most probable first; none for a row without a text."""

    ranked: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str | None:
        return self.ranked[0][0] if self.ranked else None

    @property
    def probability(self) -> float | None:
        return self.ranked[0][1] if self.ranked else None


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or its model/ folder.")],
    what: Annotated[
        str | None, typer.Argument(metavar="TEXT|FILE", help="A text, a table, a .txt file with a text a line, or - .")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Table to write: csv, tsv, jsonl or parquet.")
    ] = None,
    text: TextColumn = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file named by --out.")] = False,
    json_lines: Json = False,
) -> None:
    """Label a text, or the rows of a table.

    A table comes back with two more columns, label and probability: as CSV on standard output, or in the file of --out.
    """
    from tunesmith.predictor import load

    with plain_warnings():
        predict_with(lambda: load(run), what, out, text, force, json_lines, sys.stdin, sys.stdout)


def predict_with(
    load: Callable[[], Model],
    what: str | None,
    out: Path | None,
    text: str | None,
    force: bool,
    json_lines: bool,
    source: TextIO,
    stream: TextIO,
) -> None:
    """`predict`, its model and streams given. What is asked is checked before the model is loaded."""
    piped = what == "-" or (what is None and not source.isatty())
    if what is None and not piped:
        raise DataError(
            'nothing to predict: give a text or a file, as in `tunesmith predict RUN "some text"`, or - for lines'
        )
    if what is not None and not what.strip():
        raise DataError("the text is empty; there is nothing to predict from")
    file = None if what is None or piped else as_file(what)
    check_out(file, out, force)
    if file is None and not piped:
        if out is not None or text is not None:
            raise DataError("--out and --text: are for a table or lines; a single text is shown on the terminal")
        assert what is not None
        print_one(what, guesses(load(), [what])[0], json_lines, stream)
        return
    table = _lines_table("standard input", source.read()) if file is None else read_texts(file)
    model = load()
    column = next(iter(table.columns)) if _is_lines(table, file) else _text_column(table, text, model.text_column)
    found = guesses(model, table.columns[column])
    empty = [table.place(row) for row, guess in enumerate(found) if guess.label is None]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        told = f"warning: no text, hence no label, in {len(empty)} of {len(found)} rows"
        print(f"{told}: {', '.join(empty[:5])}{more}", file=sys.stderr)
    if json_lines and out is None:
        for value, guess in zip(table.columns[column], found, strict=True):
            print(json_line(_plain(value, guess)), file=stream)
    elif file is None and out is None:
        for value, guess in zip(table.columns[column], found, strict=True):
            label, probability = ("", "") if guess.label is None else (guess.label, f"{guess.probability:.4f}")
            print(f"{label}\t{probability}\t{value}", file=stream)
    else:
        columns = with_guesses(table.columns, found)
        if out is None:
            stream.write(csv_text(columns, ","))
        else:
            write_columns(columns, out)
            if json_lines:
                print(json_line({"out": str(out), "rows": len(found)}), file=stream)
            else:
                print(f"{len(found)} rows with a label written to {out}", file=stream)


def as_file(what: str) -> Path | None:
    """The file that `what` names, or None when it is a text, as a folder's name is.

    Raises DataError for what only looks like a file.
    """
    path = Path(what)
    try:
        folder = path.is_dir()
        if path.exists() and not folder:  # a pipe is as good as a file
            return path
    except (OSError, ValueError):  # longer than a file's name may be, or with a NUL
        return None
    if path.suffix.lower() in READ and not any(letter.isspace() for letter in what):
        if folder:
            raise DataError(f"{what}: is a folder where a file was expected; name a file in it")
        near = "" if path.parent.is_dir() else f"; there is no folder {path.parent}"
        raise DataError(f"{what}: no such file{near}; to predict this very text, put a space after it")
    return None


def check_out(file: Path | None, out: Path | None, force: bool) -> None:
    """Raises DataError, with every problem, when the table cannot be written where --out says."""
    if out is None:
        return
    problems = Problems()
    if out.suffix.lower() not in WRITTEN:
        problems.add(f"--out {out}: a table is written as {', '.join(WRITTEN)}; end its name with one of them")
    if out.is_dir():
        problems.add(f"--out {out}: is a folder; name a file in it")
    elif not out.parent.is_dir():
        problems.add(f"--out {out}: there is no folder {out.parent}; make it first")
    elif file is not None and out.exists() and out.samefile(file):
        problems.add(f"--out {out}: is the file to be read, which is never overwritten; name another")
    elif out.exists() and not force:
        problems.add(f"--out {out}: already exists; name another, or replace it with --force")
    problems.raise_as(DataError)


def read_texts(file: Path) -> Table:
    """The rows of a table, or the lines of a .txt file. Raises DataError."""
    from tunesmith.data.readers import read_table

    if file.suffix.lower() != ".txt":
        return read_table(file)
    try:
        return _lines_table(str(file), file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: is not UTF-8 (byte {error.start}); convert it, e.g. iconv -f latin1 -t utf-8 {file}"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def _lines_table(name: str, text: str) -> Table:
    from tunesmith.data.table import Table

    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        raise DataError(f"{name}: is empty; expected a text a line")
    return Table(name, {"text": [line.rstrip("\r") for line in lines]}, tuple(range(1, len(lines) + 1)))


def _is_lines(table: Table, file: Path | None) -> bool:
    return file is None or file.suffix.lower() == ".txt"


def _text_column(table: Table, text: str | None, trained: str) -> str:
    from tunesmith.data.columns import find_text

    return find_text(table, text, trained)


def guesses(model: Model, values: Sequence[Any]) -> list[Guess]:
    """The labels of each value; numbers are read as their text, and a missing or blank value has none."""
    texts = ["" if value is None else str(value) for value in values]
    told = [row for row, text in enumerate(texts) if text.strip()]
    found = [Guess(())] * len(texts)
    if told:
        table = model.predict_proba([texts[row] for row in told]).tolist()
        for row, probabilities in zip(told, table, strict=True):
            order = sorted(range(len(model.labels)), key=lambda index: (-probabilities[index], index))
            found[row] = Guess(tuple((model.labels[index], round(probabilities[index], 6)) for index in order))
    return found


def _plain(value: Any, guess: Guess) -> dict[str, Any]:
    return {
        "text": value,
        "label": guess.label,
        "probability": guess.probability,
        "probabilities": dict(guess.ranked),
    }


def print_one(text: str, guess: Guess, json_lines: bool, stream: TextIO) -> None:
    """The most probable labels of one text, or all of them as JSON."""
    if json_lines:
        print(json_line(_plain(text, guess)), file=stream)
        return
    shown = guess.ranked[:TOP]
    width = max(len(label) for label, _ in shown)
    for label, probability in shown:
        print(f"{label:<{width}}  {probability:.4f}", file=stream)


def with_guesses(columns: dict[str, list[Any]], found: Sequence[Guess]) -> dict[str, list[Any]]:
    """The columns and two more: label and probability, or predicted_... where the table has such columns already."""
    added = dict(columns)
    for name, values in (
        ("label", [guess.label for guess in found]),
        ("probability", [guess.probability for guess in found]),
    ):
        free = name
        while free in columns:
            free = f"predicted_{free}"
        added[free] = values
    return added


def csv_text(columns: dict[str, list[Any]], delimiter: str) -> str:
    """The columns as CSV, rows ended by a line feed; a missing value is an empty field, a list is JSON."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in row])
    return out.getvalue()


def write_columns(columns: dict[str, list[Any]], out: Path) -> None:
    """Writes the columns in the format of the file's suffix: whole or not at all. Raises ArtifactError."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        if out.suffix.lower() == ".parquet":
            from tunesmith.data.table import Table, write_parquet

            rows = len(next(iter(columns.values())))
            write_parquet(Table(str(out), columns, tuple(range(1, rows + 1))), unfinished)
        else:
            unfinished.write_text(_text_of(columns, out.suffix.lower()), encoding="utf-8", newline="")
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _text_of(columns: dict[str, list[Any]], suffix: str) -> str:
    if suffix == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        return "".join(json_line(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    return csv_text(columns, "\t" if suffix == ".tsv" else ",")
