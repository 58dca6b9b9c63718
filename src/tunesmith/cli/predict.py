"""`tunesmith predict`: use a finished run on new texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TextIO

import typer

from tunesmith.cli.options import Json, TextColumn, plain_warnings
from tunesmith.cli.progress import json_line
from tunesmith.cli.written import WRITTEN, csv_text, write_columns
from tunesmith.data.images import SUFFIXES, pictures_in
from tunesmith.errors import DataError, Problems

if TYPE_CHECKING:
    from tunesmith.calibration import Step
    from tunesmith.data.encode import Text
    from tunesmith.data.table import Table

READ = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".npz", ".conll", ".txt")
TOP = 3  # labels shown for one text
LISTED = 20  # thresholds


class Model(Protocol):
    """What `tunesmith.predictor.load` gives."""

    @property
    def text_column(self) -> str: ...

    @property
    def pair_column(self) -> str | None: ...

    @property
    def reads_pictures(self) -> bool: ...

    @property
    def thresholds(self) -> dict[str, float]: ...  # of each label the probability from which on it is said; mostly {}

    def asked_in(self, table: Table, text: str | None) -> list[str] | None: ...  # where its text is no column

    def threshold(self, precision: float) -> Step: ...  # above which so many answers are right

    def read(self, given: Any) -> Any: ...  # a list of words as a text, where the model reads words

    # Columns; "p:<label>" hold probabilities.
    def said(
        self, texts: Sequence[Text], precision: float | None = None, sets: float | None = None
    ) -> dict[str, list[Any]]: ...


@dataclass(frozen=True)
class Guess:
    """What is said of one row; nothing of a row without a text."""

    columns: dict[str, Any]  # such as label and probability, or labels, or value; the same for every row
    ranked: tuple[tuple[str, float], ...]  # labels with their probabilities, most probable first
    known: bool = True


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or its model/ folder.")],
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT|FILE",
            help="A text, a table, a .txt file with a text a line, a picture, a folder of them, or - .",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Table to write: csv, tsv, jsonl or parquet.")
    ] = None,
    text: TextColumn = None,
    pair: Annotated[
        str | None,
        typer.Option("--pair", metavar="TEXT|COLUMN", help="The second text, or the column that holds it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file named by --out.")] = False,
    json_lines: Json = False,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision", metavar="SHARE", help="Leave out labels that are less sure than this many are right."
        ),
    ] = None,
    sets: Annotated[
        float | None,
        typer.Option(
            "--sets",
            metavar="SHARE",
            help="Also sets of classes, or ranges of numbers, that so often hold the true one.",
        ),
    ] = None,
) -> None:
    """Predict from a text, a picture, or the rows of a table.

    A table comes back with what is said in further columns, such as label and probability: as CSV on standard output, or
    in the file of --out. --precision 0.95 leaves the label empty where the model is not sure enough, so that 95 % of
    those it gives are right; --sets 0.9 adds all the classes among which the true one is 90 % of the times.
    """
    from tunesmith.runs import check_there

    check_there(run)  # before what takes seconds to import
    from tunesmith.predictor import load

    with plain_warnings():
        predict_with(
            lambda: load(run), what, Asked(out, text, pair, force, json_lines, precision, sets), sys.stdin, sys.stdout
        )


@dataclass(frozen=True)
class Asked:
    """What the options of `predict` say."""

    out: Path | None = None
    text: str | None = None
    pair: str | None = None
    force: bool = False
    json_lines: bool = False
    precision: float | None = None
    sets: float | None = None


def predict_with(load: Callable[[], Model], what: str | None, asked: Asked, source: TextIO, stream: TextIO) -> None:
    """`predict`, its model and streams given. What is asked is checked before the model is loaded."""
    piped = what == "-" or (what is None and not source.isatty())
    if what is None and not piped:
        raise DataError(
            'nothing to predict: give a text or a file, as in `tunesmith predict RUN "some text"`, or - for lines'
        )
    if what is not None and not what.strip():
        raise DataError("the text is empty; there is nothing to predict from")
    file = None if what is None or piped else as_file(what)
    check_out(file, asked.out, asked.force)
    if file is None and not piped:
        assert what is not None
        folder = _is_folder(what)
        if not folder:
            _refuse_for_one(asked)
        model = load()
        if not (folder and model.reads_pictures):  # a folder's name may be the text that is meant
            _refuse_for_one(asked)
            guess = guesses(model, [_one_row(model, what, asked.pair)], asked)[0]
            print_one(guess, what, asked, stream)
            if guess.columns.get("answered") is False and not asked.json_lines:
                print(f"not answered: {_sure_of(model, asked)}", file=stream)
            return
        if asked.text is not None:
            raise DataError("--text: a folder of pictures has no columns; leave it out")
        table = pictures_in(Path(what))
    else:
        table = _lines_table("standard input", source.read()) if file is None else read_texts(file)
        model = load()
    _predict_rows(model, table, file, asked, stream)


def _refuse_for_one(asked: Asked) -> None:
    if asked.out is not None or asked.text is not None:
        raise DataError("--out and --text: are for a table or lines; a single text is shown on the terminal")


def _predict_rows(model: Model, table: Table, file: Path | None, asked: Asked, stream: TextIO) -> None:
    prompts = None if _is_lines(table, file) else model.asked_in(table, asked.text)
    if prompts is None:
        columns = _columns_of(table, file, model, asked)
        rows = list(zip(*(table.columns[column] for column in columns), strict=True))
    else:
        rows = [(prompt,) for prompt in prompts]
    texts = _pictures(table, rows) if model.reads_pictures else [_text_of_row(model, row) for row in rows]
    found = guesses(model, texts, asked)
    named = [f" {row[0] or ''}".rstrip() if model.reads_pictures else "" for row in rows]
    empty = [f"{table.place(row)}{named[row]}" for row, guess in enumerate(found) if not guess.known]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        missing = "picture that can be read" if model.reads_pictures else "text"
        told = f"warning: no {missing}, hence no prediction, in {len(empty)} of {len(found)} rows"
        print(f"{told}: {', '.join(empty[:5])}{more}", file=sys.stderr)
    if asked.json_lines and asked.out is None:
        for row, guess in zip(rows, found, strict=True):
            print(json_line(_plain(row, guess)), file=stream)
    elif file is None and asked.out is None:
        for row, guess in zip(rows, found, strict=True):
            print("\t".join([*map(_shown, guess.columns.values()), str(row[0])]), file=stream)
    else:
        _give_table(with_guesses(table.columns, found), len(found), model.thresholds, asked, stream)
    if asked.precision is not None and not asked.json_lines:
        answered = sum(guess.columns["answered"] is True for guess in found)
        told = f"{answered:,} of {len(found):,} rows answered, the label of the others left empty: {_sure_of(model, asked)}"
        print(told, file=sys.stderr if asked.out is None else stream)


def _sure_of(model: Model, asked: Asked) -> str:
    """From which probability on an answer is given, and why from there."""
    assert asked.precision is not None
    above = model.threshold(asked.precision).above
    return (
        f"at a precision of {asked.precision:g}, proven on validation rows, the probability must be above {above:.4g}"
    )


def _give_table(
    columns: dict[str, list[Any]], rows: int, thresholds: Mapping[str, float], asked: Asked, stream: TextIO
) -> None:
    if asked.out is None:
        stream.write(csv_text(columns, ","))
    else:
        write_columns(columns, asked.out)
    if asked.out is not None and asked.json_lines:
        more = {"thresholds": thresholds} if thresholds else {}
        print(json_line({"out": str(asked.out), "rows": rows, **more}), file=stream)
        return
    if asked.out is not None:
        print(f"{rows} row{'' if rows == 1 else 's'} with a prediction written to {asked.out}", file=stream)
    if thresholds:
        listed = ", ".join(f"{name} {threshold:.4g}" for name, threshold in list(thresholds.items())[:LISTED])
        more = ", ... (all under thresholds in the model's tunesmith.json)" if len(thresholds) > LISTED else ""
        # Beside the table on standard output it would be no line of it.
        place = sys.stderr if asked.out is None else stream
        print(f"a label is said from its threshold on: {listed}{more}", file=place)


def _is_folder(what: str) -> bool:
    try:
        return Path(what).is_dir()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        return False


def as_file(what: str) -> Path | None:
    """The file that `what` names, or None when it is a text, as a folder's name is.

    Raises DataError for what only looks like a file.
    """
    path = Path(what)
    if path.suffix.lower() in SUFFIXES:
        return None  # a picture: read as one where the model reads pictures, else refused
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


def _columns_of(table: Table, file: Path | None, model: Model, asked: Asked) -> tuple[str, ...]:
    """The columns that the model reads: one, or two for a model of pairs."""
    from tunesmith.data.columns import find_text

    trained = model.pair_column
    lines = _is_lines(table, file)
    if trained is None:
        if asked.pair is not None:
            raise DataError("--pair: this model was trained on one text a row; leave it out")
        return (
            (next(iter(table.columns)),)
            if lines
            else (find_text(table, asked.text, model.text_column, model.reads_pictures),)
        )
    if lines:
        raise DataError("this model reads two texts a row; give a table with both columns, or one text and --pair")
    if asked.pair is None and trained not in table.columns:
        raise DataError(f'{table.path}: there is no column "{trained}", the second text; name it with --pair COLUMN')
    pair = find_text(table, asked.pair, trained)
    return find_text(table, asked.text, model.text_column), pair


def _one_row(model: Model, what: str, pair: str | None) -> Text:
    if model.pair_column is None and pair is not None:
        raise DataError("--pair: this model was trained on one text a row; leave it out")
    if not model.reads_pictures and Path(what).suffix.lower() in SUFFIXES and Path(what).is_file():
        raise DataError(f"{what}: is a picture, and this model reads text; give a text or a table")
    if model.pair_column is None:
        return what
    if pair is None or not pair.strip():
        raise DataError('this model reads two texts; give the second one too, as in --pair "another text"')
    return what, pair


def _pictures(table: Table, rows: Sequence[Sequence[Any]]) -> list[Text]:
    """The pictures that the rows name; "" for one that cannot be read."""
    from tunesmith.data.images import Pictures

    read = Pictures(table.path).of
    found = [read(row[0] if isinstance(row[0], str) else str(row[0])) if row[0] else None for row in rows]
    return ["" if picture is None or picture.fault else picture for picture in found]


def _text_of_row(model: Model, values: Sequence[Any]) -> Text:
    """Numbers are read as their text."""
    read = [model.read(value) if isinstance(value, list) and len(values) == 1 else value for value in values]
    texts = ["" if value is None else value if isinstance(value, str) else str(value) for value in read]
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def guesses(model: Model, texts: Sequence[Text], asked: Asked) -> list[Guess]:
    """What is said of each row; of a blank one, nothing."""
    told = [row for row, text in enumerate(texts) if all(part.strip() for part in _parts(text))]
    said = model.said([texts[row] for row in told], asked.precision, asked.sets)
    plain = {name: values for name, values in said.items() if not name.startswith("p:")}
    shares = {name.removeprefix("p:"): values for name, values in said.items() if name.startswith("p:")}
    found = [Guess(dict.fromkeys(plain), (), known=False)] * len(texts)
    for place, row in enumerate(told):
        probabilities = {name: round(values[place], 6) for name, values in shares.items()}
        ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])  # equals stay in the order of the labels
        found[row] = Guess({name: _rounded(values[place]) for name, values in plain.items()}, tuple(ranked))
    return found


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return (
            "|".join(value) if all(isinstance(item, str) for item in value) else json.dumps(value, ensure_ascii=False)
        )
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(row: Sequence[Any], guess: Guess) -> dict[str, Any]:
    texts = dict(zip(("text", "pair"), row, strict=False))
    shares = {"probabilities": dict(guess.ranked)} if guess.ranked else {}
    return {**texts, **guess.columns, **shares}


def print_one(guess: Guess, what: str, asked: Asked, stream: TextIO) -> None:
    """The most probable labels of one text, or its numbers; as JSON all of them."""
    if asked.json_lines:
        row = (what,) if asked.pair is None else (what, asked.pair)
        print(json_line(_plain(row, guess)), file=stream)
        return
    said, spans = guess.columns.get("labels"), guess.columns.get("spans")
    if isinstance(spans, list):
        lines = _span_lines(spans)
    elif {"answer", "score", "start"} <= guess.columns.keys():
        lines = [_answer_line(guess.columns)]
    elif not guess.ranked:
        said_of = {name: value for name, value in guess.columns.items() if value is not None}
        if not said_of:
            print("nothing is said: the text leaves nothing open", file=stream)
            return
        names = {name: value if isinstance(value, str) else f"{value:.6g}" for name, value in said_of.items()}
        width = max(map(len, names))
        lines = list(names.values()) if len(names) == 1 else [f"{name:<{width}}  {names[name]}" for name in names]
    else:
        shown = guess.ranked[: TOP if said is None else max(TOP, len(said))]
        width = max(len(label) for label, _ in shown)
        lines = [
            f"{label:<{width}}  {probability:.4f}" + ("" if said is None or label in said else "  (not said)")
            for label, probability in shown
        ]
        if isinstance(guess.columns.get("set"), list):
            lines.append(f"set: {', '.join(guess.columns['set'])}")
    print("\n".join(lines), file=stream)


def _span_lines(spans: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line an entity: its type, probability, place and text."""
    from tunesmith.data.table import shown

    if not spans:
        return ["no entity"]
    labels, places = (max(len(str(one)) for one in many) for many in zip(*map(_label_and_place, spans), strict=True))
    return [
        f"{label:<{labels}}  {span['score']:.4f}  {place:<{places}}  {shown(span['text'])}"
        for span, (label, place) in zip(spans, map(_label_and_place, spans), strict=True)
    ]


def _answer_line(said: Mapping[str, Any]) -> str:
    """The answer with its place and probability, its own line feeds escaped."""
    from tunesmith.data.table import shown

    if not said["answer"]:
        return f"no answer  ({said['score']:.4f} that there is one, which is less than it takes to say it)"
    return f"{shown(said['answer'], 10_000)}  {said['score']:.4f}  {said['start']}-{said['end']}"


def _label_and_place(span: Mapping[str, Any]) -> tuple[str, str]:
    return span["label"], f"{span['start']}-{span['end']}"


def with_guesses(columns: dict[str, list[Any]], found: Sequence[Guess]) -> dict[str, list[Any]]:
    """The columns and what is said in more, named predicted_... where the table has such columns already.

    Of several labels a row, with the probability of each as "p:<label>", as in a run's predictions.
    """
    said = {name: [guess.columns[name] for guess in found] for name in (found[0].columns if found else ())}
    if "labels" in said:
        shares = [dict(guess.ranked) for guess in found]
        labels = sorted({label for share in shares for label in share})
        said |= {f"p:{label}": [share.get(label) for share in shares] for label in labels}
    added = dict(columns)
    for name, values in said.items():
        free = name
        while free in columns:
            free = f"predicted_{free}"
        added[free] = values
    return added
