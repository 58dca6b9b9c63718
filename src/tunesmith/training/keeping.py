"""Frozen activations by what decides them: found on disk where any run has computed them, else computed, and kept.

The key of a file holds the weights that are read, how they are used, the rows, number format, machine and code. A wrong key
would be training on wrong numbers, so what is found is also proven on eight rows before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.encode import Example
from tunesmith.data.stored import MeasuredExamples, StoredExamples
from tunesmith.phases import NOTHING, Time, now
from tunesmith.training.keys import code_digest, machine, rows_digest
from tunesmith.training.reading import PROOFS, Reading, agrees, by_place, collected, streamed, write
from tunesmith.training.shelf import SUFFIX, Shelf, read

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 20 * PROOFS  # rows below which the proof takes more than a twentieth of computing them all
# Bytes of weights and values a second of CPU: both are hashed, values are written, and read and proven later. Measured:
# sha256 1.1 GB/s, checksum 2.2 GB/s, writing 4 GB/s; with MiniLM on 13,000 rows finding took 0.2 s for 110 MB (docs/log.md).
RATE = 0.5e9
WORTH = 20  # times what keeping takes, that computing must have taken: keeping and finding are 5 % of it at most
UNNAMED = "what decides these numbers cannot be told whole, so that they have no name"


@dataclass
class Kept:
    """What was read, by split and place; where it stands on disk, in words, and what finding it there has saved."""

    values: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    saved: Time = NOTHING


def keep(shelf: Shelf, reading: Reading, splits: Mapping[str, Sequence[Example]], stream: bool = False) -> Kept:
    """Reads every split, from the disk where it can. `stream`: nothing is held in memory, all of it goes through the disk.

    On disk is kept what took 20 times as long to compute as keeping takes, and rows of 160 on; with `shelf.always` all.
    Raises OSError with `stream` where the disk takes nothing more.
    """
    work = _Work(shelf, reading)
    for name, examples in splits.items():
        if len(examples):
            work.one(name, examples, stream)
    work.settle()
    return work.kept


class _Work:
    """One call of `keep`, during which no weight moves."""

    def __init__(self, shelf: Shelf, reading: Reading) -> None:
        self._shelf, self._reading, self.kept = shelf, reading, Kept()
        self._looks, self._remarks = shelf.always or shelf.used, list[str]()
        self._found: dict[Path, int] = {}
        self._written: dict[Path, int] = {}
        self._fresh: list[tuple[str, Sequence[Example], Time]] = []
        self._stems: dict[str, str] = {}  # by split: rows are hashed once, whether they are found or not

    def one(self, name: str, examples: Sequence[Example], stream: bool) -> None:
        named = self._structure is not None if stream else self._looks and self._shareable(examples)
        if named:
            found = self._find(name, examples)
            if found is not None:
                self.kept.values[name] = found
                return
        if stream:
            path = self._path(name, examples)
            if path is None:
                raise OSError(UNNAMED)
            self.kept.values[name] = self._through_disk(path, examples)
        else:
            begun = now()
            self.kept.values[name] = collected(self._reading, examples)
            self._fresh.append((name, examples, now().plus(begun.times(-1))))

    def settle(self) -> None:
        """Keeps what was computed, where that pays, and says what was done."""
        fresh = [item for item in self._fresh if self._shareable(item[1])]
        if fresh and (self._shelf.always or self._pays(fresh)):
            for name, examples, took in fresh:
                if why := self._store(name, examples, took):
                    self._remarks.append(f"not kept on disk: {why}")
                    break
        elif self._fresh and self._shelf.always:
            self._remarks.append(f"not kept on disk: {UNNAMED}")
        if self._written:
            self._shelf.tidy([*self._found, *self._written])
        self.kept.said = self._said()

    def _shareable(self, examples: Sequence[Example]) -> bool:
        if self._shelf.folder is None or self._structure is None:
            return False
        # Rows that are made each time they are asked for would be made twice.
        made = isinstance(examples, MeasuredExamples) and not isinstance(examples, StoredExamples)
        return self._shelf.always or (len(examples) >= FEWEST and not made)

    def _pays(self, fresh: Sequence[tuple[str, Sequence[Example], Time]]) -> bool:
        from tunesmith.models.fingerprint import weights_bytes

        reading = self._reading
        on_cpu = reading.network.sample.device.type == "cpu"
        took = sum(time.cpu_seconds if on_cpu else time.seconds for _, _, time in fresh)
        size = weights_bytes(reading.network, reading.spared)
        size += sum(reading.nbytes(self.kept.values[name]) for name, _, _ in fresh)
        return took >= WORTH * size / RATE

    @cached_property
    def _structure(self) -> str | None:
        from tunesmith.models.fingerprint import structure

        self._reading.network.eval()
        return structure(self._reading.network, self._reading.spared)

    @cached_property
    def _weights(self) -> str | None:
        from tunesmith.models.fingerprint import weights_digest

        return weights_digest(self._reading.network, self._reading.spared)

    def _stem(self, name: str, examples: Sequence[Example]) -> str:
        if name not in self._stems:
            self._stems[name] = self._named(examples)
        return self._stems[name]

    def _named(self, examples: Sequence[Example]) -> str:
        reading = self._reading
        plain = [__version__, reading.name, reading.settings, self._structure, machine(reading.network), code_digest()]
        digest = hashlib.sha256(json.dumps(plain, default=str).encode())
        digest.update(rows_digest(examples))
        return digest.hexdigest()[:32]

    def _path(self, name: str, examples: Sequence[Example]) -> Path | None:
        if self._shelf.folder is None or self._structure is None or self._weights is None:
            return None
        return self._shelf.folder / f"{self._stem(name, examples)}-{self._weights[:32]}{SUFFIX}"

    def _find(self, name: str, examples: Sequence[Example]) -> Tensor | list[Tensor] | None:
        """What was kept of the rows, proven; None where there is none."""
        stem = self._stem(name, examples)
        assert self._shelf.folder is not None
        if not any(self._shelf.folder.glob(f"{stem}-*")):  # before the weights are hashed
            return None
        path = self._path(name, examples)
        if path is None or not path.exists():
            return None
        try:
            entry = read(path)
            values = by_place(self._reading, examples, entry.values)
        except OSError:
            return None
        except ValueError as error:
            return self._thrown_away(path, str(error))
        if not agrees(self._reading, examples, values):
            return self._thrown_away(path, f"{path}: is not what this network gives of the {name} rows")
        self._found[path] = entry.values.nbytes
        self.kept.saved = self.kept.saved.plus(entry.took)
        return values

    def _thrown_away(self, path: Path, why: str) -> None:
        with suppress(OSError):
            path.unlink()
        self._remarks.append(f"{why}: thrown away and computed anew")

    def _store(self, name: str, examples: Sequence[Example], took: Time) -> str:
        """Why it could not be; "" where it was."""
        path, values = self._path(name, examples), self.kept.values[name]
        if path is None:
            return UNNAMED
        if why := self._shelf.refuses(self._reading.nbytes(values)):
            return why
        try:
            write(path, values, took)
        except OSError as error:
            return f"{path.parent} cannot be written ({error})"
        self._written[path] = self._reading.nbytes(values)
        return ""

    def _through_disk(self, path: Path, examples: Sequence[Example]) -> Tensor | list[Tensor]:
        streamed(self._reading, examples, path)
        entry = read(path)
        self._written[path] = entry.values.nbytes
        return by_place(self._reading, examples, entry.values)

    def _said(self) -> str:
        found, written = (sum(sizes.values()) / 1e6 for sizes in (self._found, self._written))
        said = []
        if self._found:
            said.append(f"{found:,.1f} MB read from {self._shelf.folder}")
        if self._written:
            said.append(f"{written:,.1f} MB kept in {self._shelf.folder}")
        return "; ".join([*said, *self._remarks])
