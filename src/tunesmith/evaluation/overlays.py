"""Charts of several runs: lines over each other, and cost against quality. As in charts.py, plain data in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunesmith.evaluation.charts import Scale, number, read_by, scale_of, text

COLOURS = 6  # that can be told apart; further runs take them again, dashed


@dataclass(frozen=True)
class Line:
    """One run's course."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Spot:
    """One run's cost and quality, with the interval of the latter."""

    name: str
    cost: float
    value: float
    low: float
    high: float
    best: bool  # whether nothing is both cheaper and better
    alone: float  # what of the cost the delivered model took


def colour(place: int) -> str:
    """The class names of the run at this place."""
    return f"c{place % COLOURS}" + (" dashed" if place // COLOURS % 2 else "")


def overlaid(title: str, across: str, lines: Sequence[Line]) -> str:
    """Lines of several runs on one scale; "" where none has two points. A line keeps its run's colour."""
    drawn = [(place, line) for place, line in enumerate(lines) if len(line.points) > 1]
    if not drawn:
        return ""
    along = Scale(0.0, max(x for _, line in drawn for x, _ in line.points) or 1.0)
    up = scale_of([y for _, line in drawn for _, y in line.points])
    body = "".join(
        f'<polyline class="line {colour(place)}" '
        f'points="{" ".join(f"{along.at(x)},{round(1000 - up.at(y), 1)}" for x, y in line.points)}">'
        f"<title>{text(line.name)}</title></polyline>"
        for place, line in drawn
    )
    return _figure(title, across, body, along, up, read_by(along, up, ("epoch", "")))


def cost_and_quality(title: str, across: str, spots: Sequence[Spot]) -> str:
    """Dots with intervals, over the cost on a scale of powers of ten; a line joins those that nothing beats both ways.

    Another line goes from each dot to what the delivered model took alone.
    """
    costs = [math.log10(max(spot.cost, 1e-3)) for spot in spots]
    least = min(math.log10(max(spot.alone, 1e-3)) for spot in spots)
    along, up = (
        scale_of([*costs, min(*costs, least) - 0.1, max(costs) + 0.1]),
        scale_of([e for s in spots for e in (s.low, s.high)]),
    )
    at = [(along.at(cost), round(1000 - up.at(spot.value), 1)) for cost, spot in zip(costs, spots, strict=True)]
    frontier = sorted(place for place, spot in zip(at, spots, strict=True) if spot.best)
    body = f'<polyline class="frontier" points="{" ".join(f"{x},{y}" for x, y in frontier)}"/>'
    for place, ((x, y), spot) in enumerate(zip(at, spots, strict=True)):
        said = f"{spot.name}: {number(spot.value)} [{number(spot.low)}, {number(spot.high)}], {spot.cost:.3g} {across}"
        said += f" in all, {spot.alone:.3g} for the delivered model"
        left = along.at(math.log10(max(spot.alone, 1e-3)))
        body += (
            f'<path class="whisker" d="M{x} {round(1000 - up.at(spot.low), 1)}V{round(1000 - up.at(spot.high), 1)}"/>'
            f'<path class="whisker" d="M{left} {round(1000 - up.at(spot.value), 1)}H{x}"/>'
            f'<path class="point {colour(place)}" d="M{x} {y}h0"><title>{text(said)}</title></path>'
        )
    return _figure(title, across, body, along, up, powers=True)


def _figure(title: str, across: str, body: str, along: Scale, up: Scale, read: str = "", powers: bool = False) -> str:
    ticks = up.ticks(4)
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=0.1)
    digits = min(6, max(0, -math.floor(math.log10(step) + 1e-9)))
    grid = "".join(f'<path class="grid" d="M0 {1000 - up.at(tick)}H1000"/>' for tick in ticks)
    left = "".join(f'<span style="top:{100 - up.at(t) / 10}%">{number(t, digits)}</span>' for t in ticks)
    marks = _powers(along) if powers else [(tick, f"{tick:g}") for tick in along.ticks(5)]
    below = "".join(f'<span style="left:{along.at(tick) / 10}%">{said}</span>' for tick, said in marks)
    return (
        f'<figure class="curve"><figcaption><b>{text(title)}</b> {text(across)}</figcaption>'
        f'<div class="plot"><div class="left">{left}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" {read} '
        f'aria-label="{text(title)}">{grid}{body}</svg>'
        f'<div class="below">{below}</div></div></figure>'
    )


def _powers(along: Scale) -> list[tuple[float, str]]:
    """Round numbers on a scale of powers of ten: 1, 2, 5 and 10; more of them where these are fewer than three."""
    low, high = math.floor(along.low), math.ceil(along.high)
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(place / 10 for place in range(10, 100))):
        numbers = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
        inside = [(math.log10(one), f"{one:,.6g}") for one in numbers if along.low <= math.log10(one) <= along.high]
        if len(inside) >= 3:
            break
    return inside[:: math.ceil(len(inside) / 8)]


def legend(names: Sequence[str]) -> str:
    """Each run's name beside its colour."""
    items = "".join(f'<li class="{colour(place)}"><span>{text(name)}</span></li>' for place, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'
