"""Encoded rows on disk, mapped into memory: what a large table becomes takes no memory, and is made once.

A folder holds one split: the numbers of each model input end to end (of pictures their bytes), how long each row is, and
beside them what else an Example has. Rows are read from it one at a time, so they stand in memory only while they are used.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, overload

from tunesmith.data.encode import PIXELS, BadRows, Example, Text, tokens_of
from tunesmith.data.words import Passage, Window
from tunesmith.files import clear_partials, evict, own_partial

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

VERSION = 5
INDEX = "index.json"
KEPT_BYTES = 8_000_000_000  # of all stored rows on a machine; the folders that were not used longest go first
PART_ROWS = 10_000  # encoded at a time: enough for every core, and 60 MB of Python numbers at 20 tokens a row
PART_PICTURES = 500  # 75 MB at 224x224 pixels
APART = ("row", "inputs", "second", "more", "cut", "window")  # of an Example: kept as arrays, or in a form of its own
WINDOW, TUPLE = "window", "tuple"
MASK = ("attention_mask", "token_type_ids")  # inputs that hold small numbers only


class Measures(NamedTuple):
    """Of each encoded row of a split, as arrays of int64."""

    lengths: np.ndarray  # tokens after the cut
    cuts: np.ndarray  # tokens that the length limit took away
    sources: np.ndarray  # row of the table


class MeasuredExamples(Sequence[Example], ABC):
    """Rows that are made while they are used, and were measured before."""

    measures: Measures

    @abstractmethod
    def row(self, row: int) -> Example: ...

    def __len__(self) -> int:
        return len(self.measures.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self.row(row) for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.row(index % len(self))

    def __iter__(self) -> Iterator[Example]:
        return (self.row(row) for row in range(len(self)))


def measures(examples: Sequence[Example]) -> Measures:
    """Without making an Example of each stored row."""
    import numpy as np

    if isinstance(examples, MeasuredExamples):
        return examples.measures
    found = np.array([(row.length, row.cut, row.source) for row in examples], dtype=np.int64).reshape(-1, 3)
    return Measures(*found.T)


def tokens_in(examples: Sequence[Example]) -> set[int]:
    """Every token number that the rows hold."""
    if isinstance(examples, StoredExamples):
        return examples.tokens
    return {token for example in examples for side in example.sides for token in side.get("input_ids", ())}


class StoredExamples(MeasuredExamples):
    """The rows of one folder, each a `kind`. `texts` are what the rows were encoded from, by source: windows show them."""

    def __init__(self, folder: Path, texts: Sequence[Text], kind: type[Example] = Example) -> None:
        """Raises ValueError where the folder is not whole, and FileNotFoundError where it is not there."""
        import numpy as np

        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["version"] != VERSION:
            raise ValueError(f"{folder}: is of version {index['version']}, and this release reads {VERSION}")
        for name, size in index["bytes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name}: is not as long as it was when it was written")

        self._maps: list[mmap.mmap] = []

        def mapped(name: str, kind: Any) -> np.ndarray:
            if index["bytes"][name] == 0:
                return np.empty(0, kind)
            with (folder / name).open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return np.frombuffer(self._maps[-1], kind)

        self.folder, self.texts, self._kind = folder, texts, kind
        self._shape = tuple(index["shape"])  # of every picture; () of what is no picture
        self._sides, self._names = index["sides"], index["inputs"]
        self._inputs = {key: mapped(key, _kind(key.split(".")[0])) for key in _keys(self._names, self._sides)}
        lengths = [mapped(f"lengths.{side}", np.int32).astype(np.int64) for side in range(self._sides)]
        self._ends = [np.concatenate([[0], np.cumsum(row)]) for row in lengths]
        self._rest = mapped("rest", np.uint8)
        self._rest_ends = np.concatenate([[0], mapped("rest_ends", np.int64)])
        cuts, sources = (mapped(name, np.int32).astype(np.int64) for name in ("cuts", "sources"))
        self.measures = Measures(np.maximum.reduce(lengths), cuts, sources)

    def let_go(self) -> None:
        """Gives what was read back to the system, which reads it again where it is asked for; on Windows does nothing."""
        if sys.platform != "win32":
            for pages in self._maps:
                pages.madvise(mmap.MADV_DONTNEED)

    @property
    def tokens(self) -> set[int]:
        import numpy as np

        found: set[int] = set()
        if self._shape:
            return found
        for side in range(self._sides):
            ids = self._inputs[f"input_ids.{side}"]
            for start in range(0, len(ids), 1 << 22):  # a part at a time: to sort them all takes as much again
                found.update(np.unique(ids[start : start + (1 << 22)]).tolist())
        return found

    def row(self, row: int) -> Example:
        first, *others = [self._side(side, row) for side in range(self._sides)]
        kept = json.loads(self._rest[self._rest_ends[row] : self._rest_ends[row + 1]].tobytes())
        window = self._window(kept.pop(WINDOW, None), int(self.measures.sources[row]))
        second, *more = others or (None,)
        return self._kind(
            row=row, inputs=first, cut=int(self.measures.cuts[row]), second=second, more=tuple(more), window=window,
            **{name: _unpacked(value) for name, value in kept.items()},
        )  # fmt: skip

    def _side(self, side: int, row: int) -> dict[str, Any]:
        if self._shape:
            return {PIXELS: self._picture(side, row)}
        first, last = self._ends[side][row], self._ends[side][row + 1]
        return {name: self._inputs[f"{name}.{side}"][first:last].tolist() for name in self._names}

    def _picture(self, side: int, row: int) -> Tensor:
        import torch

        return torch.from_numpy(self._inputs[f"{PIXELS}.{side}"].reshape(-1, *self._shape)[row].copy())

    def _window(self, kept: list[Any] | None, source: int) -> Window | None:
        if kept is None:
            return None
        places, spans, told = kept
        text = self.texts[source] if told else ""
        if isinstance(text, tuple):
            text = text[-1]  # of a question and its context, the context
        if spans is None:
            return Window(source, text, tuple(places))
        return Passage(source, text, tuple(places), tuple(zip(spans[::2], spans[1::2], strict=True)))


def can_store(example: Example, kind: type[Example] = Example) -> bool:
    """Whether an example is a `kind`, and holds only lists of whole numbers or a picture, plain values, and a window."""
    return (
        type(example) is kind
        and all(_is_plain_side(side) for side in example.sides)
        and (example.window is None or type(example.window) in (Window, Passage))
        and all(_is_plain(value) for name, value in vars(example).items() if name not in APART)
    )


def _is_plain_side(side: dict[str, Any]) -> bool:
    if set(side) == {PIXELS}:
        return True
    return all(
        isinstance(numbers, list) and all(isinstance(number, int) for number in numbers) for numbers in side.values()
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, list | tuple) for item in value)
    return value is None or isinstance(value, int | float | str)


def part_rows(pictures: bool) -> int:
    """How many rows are encoded at a time."""
    return PART_PICTURES if pictures else PART_ROWS


def in_parts(encode: Callable[[int, int], list[Example]], rows: int, size: int) -> Iterator[list[Example]]:
    """What `encode(0, rows)` gives, `size` rows at a time; `encode(first, last)` numbers the rows of each part from 0.

    Raises BadRows at the end, with those of all parts.
    """
    made = 0
    bad: dict[int, str] = {}
    for first in range(0, rows, size):
        try:
            part = encode(first, min(first + size, rows))
        except BadRows as error:
            bad |= {first + row: said for row, said in error.rows.items()}
            continue
        if not bad:
            yield [_shifted(example, made, first) for example in part]
        made += len(part)
    if bad:
        raise BadRows(bad)


def _shifted(example: Example, made: int, first: int) -> Example:
    window = example.window
    moved = None if window is None else replace(window, source=window.source + first)
    return replace(example, row=example.row + made, window=moved)


def stored(
    folder: Path, texts: Sequence[Text], parts: Callable[[], Iterable[list[Example]]], kind: type[Example] = Example
) -> StoredExamples:
    """The rows kept in `folder`, each a `kind`; where there are none yet, or not whole, `parts` makes them.

    Written beside and moved into place, so that a folder is whole or not there, whoever else writes it meanwhile.
    Raises OSError where it cannot be written.
    """
    with suppress(OSError, ValueError, KeyError):
        found = StoredExamples(folder, texts, kind)
        os.utime(folder)
        return found
    shutil.rmtree(folder, ignore_errors=True)
    partial = own_partial(folder)
    try:
        partial.mkdir(parents=True)
        _write(partial, parts())
        with suppress(OSError):  # another run was faster: its folder is as good
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return StoredExamples(folder, texts, kind)


def tidy(cache: Path, kept: Collection[Path]) -> None:
    """Takes away the folders of `cache` that were not used longest, until the rest fits `KEPT_BYTES`; never any of `kept`."""
    clear_partials(cache)
    evict(cache, kept, KEPT_BYTES)


def _write(folder: Path, parts: Iterable[list[Example]]) -> None:
    import numpy as np

    parts = iter(parts)
    first = list(islice((part for part in parts if part), 1))
    sides, names = (len(first[0][0].sides), sorted(first[0][0].inputs)) if first else (1, ["input_ids"])
    shape = list(first[0][0].inputs[PIXELS].shape) if names == [PIXELS] else []
    fixed = [*(f"lengths.{side}" for side in range(sides)), "rest", "rest_ends", "cuts", "sources"]
    files = {name: (folder / name).open("wb") for name in [*_keys(names, sides), *fixed]}
    count = end = 0
    try:
        for part in chain(first, parts):
            for side in range(sides):
                rows = [example.sides[side] for example in part]
                files[f"lengths.{side}"].write(np.array([tokens_of(row) for row in rows], np.int32).tobytes())
                for name in names:
                    _write_input(files[f"{name}.{side}"], name, [row[name] for row in rows])
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
    index = {"version": VERSION, "rows": count, "sides": sides, "inputs": names, "shape": shape, "bytes": sizes}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _write_input(file: BinaryIO, name: str, rows: Sequence[Any]) -> None:
    import numpy as np

    if name == PIXELS:  # one size for all: see `load_image_processor`
        for picture in rows:
            file.write(picture.numpy().tobytes())
    else:
        file.write(np.fromiter((number for row in rows for number in row), _kind(name)).tobytes())


def _packed(example: Example) -> dict[str, Any]:
    """What an Example holds beside its numbers, less what is as it usually is.

    A window is [places, spans, told]; told: whether it names its text. One that does not was encoded to be learned from only.
    """
    kept = {
        field.name: value
        for field in fields(example)
        if field.name not in APART and (value := vars(example)[field.name]) != field.default
    }
    window = example.window
    if window is not None:
        spans = [edge for span in window.spans for edge in span] if isinstance(window, Passage) else None
        kept[WINDOW] = [window.places, spans, bool(window.text)]
    return {name: {TUPLE: value} if isinstance(value, tuple) else value for name, value in kept.items()}


def _unpacked(value: Any) -> Any:
    return tuple(value[TUPLE]) if isinstance(value, dict) else value


def _keys(names: Sequence[str], sides: int) -> list[str]:
    return [f"{name}.{side}" for side in range(sides) for name in names]


def _kind(name: str) -> Any:
    import numpy as np

    return np.int8 if name in MASK else np.uint8 if name == PIXELS else np.int32
