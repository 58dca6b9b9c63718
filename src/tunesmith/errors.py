"""Every error a user can cause, and the tools to report all of its problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence


class TunesmithError(Exception):
    """Something the user can put right. Each problem is one line: the place, what is wrong, the fix."""

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = problems
        super().__init__("\n".join(problems))


class RecipeError(TunesmithError):
    """What was asked for is unknown, out of range, or contradicts itself."""


class DataError(TunesmithError):
    """The rows cannot be read, or cannot be learned from."""


class ModelError(TunesmithError):
    """The pretrained model cannot be found, read, or used for this."""


class TrainingError(TunesmithError):
    """The run cannot go on: non-finite numbers, not enough memory, no room on the disk."""


class ArtifactError(TunesmithError):
    """A run directory, checkpoint or saved model is missing, damaged, or does not say what it should."""


class TunesmithWarning(UserWarning):
    """Something about a result that its reader must know, said where there is no report to say it in."""


class Problems:
    """Gathers problems so that one error can name them all."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    @property
    def some(self) -> bool:
        """Whether there is any so far."""
        return bool(self._lines)

    def raise_as(self, kind: type[TunesmithError]) -> None:
        """Raises `kind` with every problem gathered so far; does nothing when there is none."""
        if self._lines:
            raise kind(*self._lines)


def places_said(places: Sequence[str], most: int = 40, rows: int | None = None) -> str:
    """Where rows stand: "a.csv:7, 12, b.csv:3 and 2 more", each file once for rows of it that follow one another.

    rows: how many there are, where not all places are known.
    """
    said, before = list[str](), ""
    for place in places[:most]:
        path, _, line = place.rpartition(":")
        said.append(line if path and path == before else place)
        before = path
    further = (len(places) if rows is None else rows) - len(said)
    return ", ".join(said) + (f" and {further:,} more" if further > 0 else "")


def did_you_mean(word: str, choices: Iterable[str], said: Mapping[str, str] | None = None) -> str:
    """A clause to append to "unknown X": the nearest choices, or the whole (short) list.

    `said` holds what stands behind some of the choices, such as the values that each takes.
    """
    behind = said or {}
    known = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(f'"{name}"{behind.get(name, "")}' for name in near) + "?"
    if not known:
        return "there are none to choose from"
    shown = ", ".join(name + behind.get(name, "") for name in known[:20]) + (", ..." if len(known) > 20 else "")
    return f"the choices are: {shown}"
