"""Figures from records: medians and spreads, how many times our time another took, and straight lines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from _common import Spread

from .turns import Plain
from .works import DEFAULTS, FURTHER, OURS, TUNED

CLOCKS = ("cpu", "wall")
FLAGS = ("at_least", "missed")  # of a record whose work was stopped before its end, or did not come to what was wanted
ORDER = (OURS, DEFAULTS, TUNED, FURTHER)


@dataclass(frozen=True)
class Line:
    """y = start + slope * x by least squares."""

    slope: float
    start: float
    explained: float  # R^2
    off: float  # the largest |y - line| / y

    @classmethod
    def through(cls, xs: Sequence[float], ys: Sequence[float]) -> Line:
        """Raises ValueError for fewer than two different xs."""
        if len(set(xs)) < 2:
            raise ValueError(f"a line through points at {len(set(xs))} places")
        slope, start = statistics.linear_regression(xs, ys)
        rests = [y - (start + slope * x) for x, y in zip(xs, ys, strict=True)]
        mean = statistics.fmean(ys)
        spread = sum((y - mean) ** 2 for y in ys)
        explained = 1 - sum(rest**2 for rest in rests) / spread if spread > 0 else 1.0
        return cls(slope, start, explained, max(abs(rest) / y for rest, y in zip(rests, ys, strict=True)))


def summary(measured: Sequence[Plain]) -> list[Plain]:
    """One entry a work and contender, ours first: spreads of both clocks, and of their ratios to ours.

    The ratio's median is that of the medians; its least and most are those of the rounds, each with our time in that round.
    """
    out = []
    for work in dict.fromkeys(record["work"] for record in measured):
        own = [record for record in measured if record["work"] == work]
        names = dict.fromkeys(record["contender"] for record in sorted(own, key=lambda record: ORDER.index(record["part"])))
        rounds = {name: sorted((r for r in own if r["contender"] == name), key=lambda r: r["round"]) for name in names}
        ours = next(records for records in rounds.values() if records[0]["part"] == OURS)
        out += [entry(work, name, records, ours) for name, records in rounds.items()]
    return out


def entry(work: str, name: str, records: Sequence[Plain], ours: Sequence[Plain]) -> Plain:
    found: Plain = {"work": work, "contender": name, "part": records[0]["part"]}
    for clock in CLOCKS:
        key = f"{clock}_seconds"
        times, own = Spread.of([record[key] for record in records]), Spread.of([record[key] for record in ours])
        ratios = [record[key] / mine[key] for record, mine in zip(records, ours, strict=True)]
        found[clock] = asdict(times)
        found[f"{clock}_ratio"] = asdict(Spread(times.median / own.median, min(ratios), max(ratios)))
    for flag in FLAGS:
        found[flag] = any(record.get(flag, False) for record in records)
    return {**found, "extrapolated": records[0].get("extrapolated", "")}


def lines(measured: Sequence[Plain]) -> list[Plain]:
    """Of each axis of `scaling` the line of CPU seconds and that of peak memory."""
    out = []
    for axis in dict.fromkeys(record["axis"] for record in measured):
        points = [record for record in measured if record["axis"] == axis]
        xs = [float(record["amount"]) for record in points]
        for key in ("cpu_seconds", "peak_mb"):
            found: dict[str, Any] = asdict(Line.through(xs, [record[key] for record in points]))
            out.append({"axis": axis, "of": key, **found})
    return out
