"""Comma, semicolon, tab or bar separated text. Values stay text: "007" is not a number here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError, Problems

DELIMITERS = ",;\t|"
SAMPLE_ROWS = 50
SHARED = 1_000  # different values of a column that are kept once
LISTED = 10  # bad lines shown one by one; the rest are counted
MOSTLY_HIGH = 0.25  # share of bytes beyond ASCII from which a file holds another alphabet than the Latin one
EXPECTED = "a table with a header and rows"
Records = list[tuple[int, list[str]]]  # (line where the record starts, its fields)


def read_csv(data: bytes, path: str) -> Table:
    """A table from CSV bytes; the delimiter is the one of `DELIMITERS` that cuts the header and the rows alike."""
    text = decode(data, path, EXPECTED)
    return _table(text, _sniff(text), path)


def read_tsv(data: bytes, path: str) -> Table:
    """A table from tab separated bytes."""
    return _table(decode(data, path, EXPECTED), "\t", path)


def decode(data: bytes, path: str, expected: str) -> str:
    """UTF-8 text, less a byte order mark. Raises DataError naming the first broken lines (and NUL bytes, other formats).

    expected: what an empty file should have held.
    """
    if not data.strip():
        raise DataError(f"{path}: the file is empty; expected {expected}")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: is UTF-16; save it as UTF-8, e.g. iconv -f utf-16 -t utf-8 {path} > fixed")
    if data[:4] in (b"PK\x03\x04", b"PAR1") or data[:2] == b"\x1f\x8b":
        kind = {b"P": "a zip file or spreadsheet", b"\x1f": "a gzip file"}[data[:1]]
        kind = "Parquet" if data[:4] == b"PAR1" else kind
        raise DataError(f"{path}: is {kind}, not text; export it as CSV (UTF-8), unpack it, or rename it")
    problems = Problems()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(_broken(data, path))
        text = ""
    if b"\0" in data:
        lines = [number for number, line in enumerate(data.split(b"\n"), 1) if b"\0" in line]
        problems.add(
            f"{path}:{lines[0]}: holds a NUL byte, which no text does ({counted(len(lines), 'such line')}); "
            f"remove them, e.g. tr -d '\\000' < {path} > fixed, or export the file again"
        )
    problems.raise_as(DataError)
    return text


def _broken(data: bytes, path: str) -> str:
    """The one problem of bytes that are not UTF-8: the first lines, and the encoding that the file likely has."""
    start, first, broken, whole = 0, "", [], 0
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            whole += not line.decode("utf-8").isascii()
        except UnicodeDecodeError as error:
            place = start + error.start
            first = (
                first if first else f"{path}:{number} (byte 0x{line[error.start]:02x} at offset {place} of the file)"
            )
            broken.append(str(number))
        start += len(line) + 1
    more = ", ..." if len(broken) > LISTED else ""
    listed = f"{first}, {', '.join(broken[1:LISTED])}{more}" if len(broken) > 1 else first
    if whole > 0:
        fix = f"{counted(whole, 'other line')} of letters beyond ASCII in UTF-8: so correct these one by one"
    else:
        said, encoding = _likely(data)
        fix = f"{said}; save it as UTF-8, e.g. iconv -f {encoding} -t utf-8 {path} > fixed"
    return f"{path}: {counted(len(broken), 'line')} not in UTF-8: {listed}; {fix}"


def _likely(data: bytes) -> tuple[str, str]:
    """What is said of the encoding of a file that is not UTF-8, and its name for iconv."""
    high = sum(byte > 0x7F for byte in data)
    if high > MOSTLY_HIGH * len(data):  # of Latin letters only a few are beyond ASCII
        return "it is likely of another alphabet than the Latin one: find out its encoding", "ENCODING"
    if not any(0x80 <= byte <= 0x9F for byte in data):
        return "it is likely Latin-1", "latin1"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "find out its encoding", "ENCODING"
    return "it is likely Windows-1252", "cp1252"


def counted(count: int, word: str) -> str:
    """ "1 line", "2 lines"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _table(text: str, delimiter: str, path: str) -> Table:
    records = _records(text, delimiter, path)
    header = [name.strip() for name in records[0][1]]
    names = [name if name else f"column {position}" for position, name in enumerate(header, 1)]
    rows, problems = records[1:], Problems()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        listed = ", ".join(f'"{name}"' for name in twice)
        problems.add(f"{path}:{records[0][0]}: columns named more than once: {listed}; rename them in the header")
    if not rows:
        problems.add(f"{path}: holds a header ({', '.join(names)}) but no rows")
    _list_ragged(rows, len(names), delimiter, path, problems)
    problems.raise_as(DataError)
    columns = {name: _shared(fields[place] for _, fields in rows) for place, name in enumerate(names)}
    return Table(path, columns, tuple(line for line, _ in rows))


def _shared(values: Iterable[str]) -> list[str]:
    """The values, of the first different ones each once: a million labels are a few objects, not a million."""
    seen: dict[str, str] = {}
    return [seen.setdefault(value, value) if len(seen) < SHARED else seen.get(value, value) for value in values]


def _list_ragged(rows: Records, width: int, delimiter: str, path: str, problems: Problems) -> None:
    ragged = [(line, fields) for line, fields in rows if len(fields) != width]
    for line, fields in ragged[:LISTED]:
        problems.add(
            f"{path}:{line}: {counted(len(fields), 'field')} where the header has {width}: "
            f"{shown(delimiter.join(fields), 60)}"
        )
    if ragged:
        mark = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}[delimiter]
        problems.add(
            f"{path}: {counted(len(ragged), 'row')} of {len(rows)} without exactly {counted(width, 'field')}; put "
            f'double quotes around a text that holds a {mark} ("one{delimiter if mark != "tab" else "<tab>"} two"), '
            "and give every row all its fields"
        )


def _sniff(text: str) -> str:
    """The delimiter under which the first rows have the most regular width above one; a comma where none has."""
    best, best_share = ",", 0.0
    for delimiter in DELIMITERS:
        widths = []
        with _long_fields(len(text)):
            for _, fields in _parse(text, delimiter, quoted=True, strict=False):
                widths.append(len(fields))
                if len(widths) > SAMPLE_ROWS:
                    break
        share = sum(width == widths[0] for width in widths) / len(widths) if widths and widths[0] > 1 else 0.0
        if share > best_share:
            best, best_share = delimiter, share
    return best


def _records(text: str, delimiter: str, path: str) -> Records:
    """Every record with the line where it starts, blank lines left out. Raises DataError on a quote left open."""
    with _long_fields(len(text)):
        records: Records = []
        failure = ""
        try:
            records.extend(_parse(text, delimiter, quoted=True, strict=True))
        except csv.Error as error:
            last = _last_line(records)
            failure = (
                f"{path}:{last}: the quotes of this record do not pair up ({error}); double every quote inside a "
                'quoted text ("say ""yes"""), and close it'
            )
        if delimiter == "\t" and (failure or _quotes_join_lines(records)):
            # Tab separated files are often written without quoting, where a quote is a letter like any other.
            bare = list(_parse(text, delimiter, quoted=False, strict=False))
            if len({len(fields) for _, fields in bare}) == 1:
                return bare
        if failure:
            raise DataError(failure)
        if not records:
            raise DataError(f"{path}: holds blank lines only; expected a header and rows")
        return records


def _quotes_join_lines(records: Records) -> bool:
    return any("\n" in field or "\t" in field for _, fields in records for field in fields)


def _last_line(records: Records) -> int:
    """The first line after the records read so far: the csv module tells only where it gave up."""
    if not records:
        return 1
    line, fields = records[-1]
    return line + 1 + sum(field.count("\n") for field in fields)


def _parse(text: str, delimiter: str, quoted: bool, strict: bool) -> Iterator[tuple[int, list[str]]]:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=strict)
    start = 1
    for fields in reader:
        if fields:
            yield start, fields
        start = reader.line_num + 1


@contextmanager
def _long_fields(length: int) -> Iterator[None]:
    """Inside, a field may be as long as the file: the csv module refuses more than 131,072 characters by default."""
    before = csv.field_size_limit(max(length, 1) + 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
