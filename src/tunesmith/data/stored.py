"""Encoded rows on disk, mapped into memory: what a large table becomes takes no memory, and is made once.

A folder holds one split: the numbers of each model input end to end, how long each row is, and beside them what else an
Example has. Rows are read from it one at a time, so they stand in memory only while they are used.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from tunesmith.data.encode import Example, Text
from tunesmith.data.words import Passage, Window

if TYPE_CHECKING:
    import numpy as np

VERSION = 4
INDEX = "index.json"
KEPT_BYTES = 8_000_000_000  # of all stored rows on a machine; the folders that were not used longest go first
PART_ROWS = 10_000  # encoded at a time: enough for every core, and 60 MB of Python numbers at 20 tokens a row
MASK = ("attention_mask", "token_type_ids")  # inputs that hold small numbers only


class Measures(NamedTuple):
    """Of each encoded row of a split, as arrays of int64."""

    lengths: np.ndarray  # tokens after the cut
    cuts: np.ndarray  # tokens that the length limit took away
    sources: np.ndarray  # row of the table


def measures(examples: Sequence[Example]) -> Measures:
    """Without making an Example of each stored row."""
    import numpy as np

    if isinstance(examples, StoredExamples):
        return examples.measures
    found = np.array([(row.length, row.cut, row.source) for row in examples], dtype=np.int64).reshape(-1, 3)
    return Measures(*found.T)


def tokens_in(examples: Sequence[Example]) -> set[int]:
    """Every token number that the rows hold."""
    if isinstance(examples, StoredExamples):
        return examples.tokens
    return {token for example in examples for side in example.sides for token in side.get("input_ids", ())}


class StoredExamples(Sequence[Example]):
    """The rows of one folder. `texts` are those that the rows were encoded from, by source: windows show them."""

    def __init__(self, folder: Path, texts: Sequence[Text]) -> None:
        """Raises ValueError where the folder is not whole, and FileNotFoundError where it is not there."""
        import numpy as np

        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["version"] != VERSION:
            raise ValueError(f"{folder}: is of version {index['version']}, and this release reads {VERSION}")
        for name, size in index["bytes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name}: is not as long as it was when it was written")

        def mapped(name: str, kind: Any) -> np.ndarray:
            if index["bytes"][name] == 0:
                return np.empty(0, kind)
            return np.memmap(folder / name, kind, "r").view(np.ndarray)

        self.texts = texts
        self._sides, self._names = index["sides"], index["inputs"]
        self._inputs = {key: mapped(key, _kind(key.split(".")[0])) for key in _keys(self._names, self._sides)}
        lengths = [mapped(f"lengths.{side}", np.int32).astype(np.int64) for side in range(self._sides)]
        self._ends = [np.concatenate([[0], np.cumsum(row)]) for row in lengths]
        self._rest = mapped("rest", np.uint8)
        self._rest_ends = np.concatenate([[0], mapped("rest_ends", np.int64)])
        cuts, sources = (mapped(name, np.int32).astype(np.int64) for name in ("cuts", "sources"))
        self.measures = Measures(np.maximum.reduce(lengths), cuts, sources)

    @property
    def tokens(self) -> set[int]:
        import numpy as np

        found: set[int] = set()
        for side in range(self._sides):
            ids = self._inputs[f"input_ids.{side}"]
            for start in range(0, len(ids), 1 << 22):  # a part at a time: to sort them all takes as much again
                found.update(np.unique(ids[start : start + (1 << 22)]).tolist())
        return found

    def __len__(self) -> int:
        return len(self.measures.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._row(row) for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._row(index % len(self))

    def __iter__(self) -> Iterator[Example]:
        return (self._row(row) for row in range(len(self)))

    def _row(self, row: int) -> Example:
        sides = []
        for side in range(self._sides):
            first, last = self._ends[side][row], self._ends[side][row + 1]
            sides.append({name: self._inputs[f"{name}.{side}"][first:last].tolist() for name in self._names})
        kept = self._rest[self._rest_ends[row] : self._rest_ends[row + 1]].tobytes()
        target, window, second_cut, unknown = self._unpacked(json.loads(kept), int(self.measures.sources[row]))
        second = sides[1] if self._sides > 1 else None
        cut = int(self.measures.cuts[row])
        more = tuple(sides[2:])
        return Example(
            row, sides[0], target, cut, second, window, more=more, second_cut=second_cut, unknown=unknown
        )  # fmt: skip

    def _unpacked(self, kept: list[Any], source: int) -> tuple[Any, Window | None, int, int]:
        target, is_tuple, places, spans, told, second_cut, unknown = kept
        window, text = None, self.texts[source] if told else ""
        if isinstance(text, tuple):
            text = text[-1]  # of a question and its context, the context
        if spans is not None:
            window = Passage(source, text, tuple(places), tuple(zip(spans[::2], spans[1::2], strict=True)))
        elif places is not None:
            window = Window(source, text, tuple(places))
        return tuple(target) if is_tuple else target, window, second_cut, unknown


def can_store(example: Example) -> bool:
    """Whether an example holds nothing but lists of whole numbers, a plain target, and a window at most."""
    plain = all(isinstance(numbers, list) for side in example.sides for numbers in side.values())
    return (
        type(example) is Example
        and plain
        and not example.rest
        and all(isinstance(number, int) for side in example.sides for numbers in side.values() for number in numbers)
        and (example.window is None or type(example.window) in (Window, Passage))
        and _is_plain(example.target)
    )


def _is_plain(target: Any) -> bool:
    if isinstance(target, list | tuple):
        return all(_is_plain(item) and not isinstance(item, list | tuple) for item in target)
    return target is None or isinstance(target, int | float | str)


def in_parts(encode: Callable[[int, int], list[Example]], rows: int) -> Iterator[list[Example]]:
    """What `encode(0, rows)` gives, a part at a time; `encode(first, last)` numbers the rows of each part from 0."""
    made = 0
    for first in range(0, rows, PART_ROWS):
        part = encode(first, min(first + PART_ROWS, rows))
        yield [_shifted(example, made, first) for example in part]
        made += len(part)


def _shifted(example: Example, made: int, first: int) -> Example:
    window = example.window
    moved = None if window is None else replace(window, source=window.source + first)
    return replace(example, row=example.row + made, window=moved)


def stored(folder: Path, texts: Sequence[Text], parts: Callable[[], Iterable[list[Example]]]) -> StoredExamples:
    """The rows kept in `folder`; where there are none yet, or not whole, `parts` makes them.

    Written beside and moved into place, so that a folder is whole or not there, whoever else writes it meanwhile.
    Raises OSError where it cannot be written.
    """
    with suppress(OSError, ValueError, KeyError):
        found = StoredExamples(folder, texts)
        os.utime(folder)
        return found
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _write(partial, parts())
        with suppress(OSError):  # another run was faster: its folder is as good
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return StoredExamples(folder, texts)


def tidy(cache: Path, kept: Path) -> None:
    """Takes away the folders of `cache` that were not used longest, until the rest fits `KEPT_BYTES`; never `kept`."""
    with suppress(OSError):
        folders = sorted((path for path in cache.iterdir() if path != kept), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in folders}
        room = KEPT_BYTES - sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
        for path in reversed(folders):
            room -= sizes[path]
            if room < 0 and time.time() - path.stat().st_mtime > 60:  # not one that is being used right now
                shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, parts: Iterable[list[Example]]) -> None:
    import numpy as np

    parts = iter(parts)
    first = list(islice((part for part in parts if part), 1))
    sides, names = (len(first[0][0].sides), sorted(first[0][0].inputs)) if first else (1, ["input_ids"])
    fixed = [*(f"lengths.{side}" for side in range(sides)), "rest", "rest_ends", "cuts", "sources"]
    files = {name: (folder / name).open("wb") for name in [*_keys(names, sides), *fixed]}
    count = end = 0
    try:
        for part in chain(first, parts):
            for side in range(sides):
                rows = [example.sides[side] for example in part]
                files[f"lengths.{side}"].write(np.array([len(row["input_ids"]) for row in rows], np.int32).tobytes())
                for name in names:
                    flat = np.fromiter((number for row in rows for number in row[name]), _kind(name))
                    files[f"{name}.{side}"].write(flat.tobytes())
            rest = [json.dumps(_packed(example)).encode("ascii") for example in part]
            ends = end + np.cumsum([len(kept) for kept in rest], dtype=np.int64)
            end = int(ends[-1]) if len(ends) else end
            files["rest"].write(b"".join(rest))
            files["rest_ends"].write(ends.tobytes())
            files["cuts"].write(np.array([example.cut for example in part], np.int32).tobytes())
            files["sources"].write(np.array([example.source for example in part], np.int32).tobytes())
            count += len(part)
    finally:
        for file in files.values():
            file.close()
    sizes = {name: (folder / name).stat().st_size for name in files}
    index = {"version": VERSION, "rows": count, "sides": sides, "inputs": names, "bytes": sizes}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _packed(example: Example) -> list[Any]:
    """What an Example holds beside its numbers: target, whether it is a tuple, places, spans, told, second cut, unknown.

    told: whether its window names its text; one that does not was encoded to be learned from only.
    """
    window = example.window
    places, told = (None, False) if window is None else (list(window.places), bool(window.text))
    spans = [edge for span in window.spans for edge in span] if isinstance(window, Passage) else None
    return [example.target, isinstance(example.target, tuple), places, spans, told, example.second_cut, example.unknown]


def _keys(names: Sequence[str], sides: int) -> list[str]:
    return [f"{name}.{side}" for side in range(sides) for name in names]


def _kind(name: str) -> Any:
    import numpy as np

    return np.int8 if name in MASK else np.int32
