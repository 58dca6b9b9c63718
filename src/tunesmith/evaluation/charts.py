"""Charts as HTML and SVG. All take plain data, escape every text, and stretch to the width they are given.

An SVG here has a stretched coordinate system (0 to 1000 across), so it holds no text, and its lines and dots keep
their thickness through `vector-effect`; a dot is a line of no length with round ends.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BINS = 120  # points of a line; more would be finer than the screen
NUMBERED = 12  # classes up to which a confusion matrix shows its numbers
CHARTED = 120  # classes up to which a confusion matrix shows all of them
SHEET = 700  # CSS pixels across a printed page, less its margins
NAMES = 220  # likewise, at most, of the names beside a map
CELLS = 3600  # cells that are not empty, up to which it does: 0.1 kB each
MINUS = "\N{MINUS SIGN}"
_OFF_LOW = '<path class="off" d="M8 50H40M8 50l14 -13M8 50l14 13"/>'
_OFF_HIGH = '<path class="off" d="M992 50H960M992 50l-14 -13M992 50l-14 13"/>'
LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def text(value: object) -> str:
    """Safe inside elements and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def breakable(value: object) -> str:
    """Safe, and with line breaks allowed after underscores: labels are often long identifiers."""
    return text(value).replace("_", "_<wbr>")


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else minus(f"{value:.{digits}f}")


def minus(figures: str) -> str:
    """With minus signs in place of hyphens."""
    return figures.replace("-", MINUS)


def small(value: float) -> str:
    """5e-05 -> "5e-5"; 1e-4 -> "1e-4"; 0.0123 -> "0.012"; 0 -> "0"."""
    return power(value) if 0 < abs(value) < 1e-3 else f"{value:.2g}".replace("-", MINUS, 1 if value < 0 else 0)


def power(value: float) -> str:
    """Two digits and a power of ten: 0.001 -> "1e-3"."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0').replace('-', MINUS)}e{int(exponent)}" if value else "0"


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, put on 0 to 1000."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return round(1000 * (value - self.low) / (self.high - self.low), 1)

    def ticks(self, about: int) -> list[float]:
        """Round values inside the scale, about as many as asked."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        # Rounded to figures, not to places: a gradient's norm may be anything, and two ticks are never the same.
        return [float(f"{place * step:.15g}") for place in range(first, last + 1)]


def scale_of(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Scale:
    """A scale with a little room on both sides of the values, within `least` and `most`."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) if high > low else max(0.05 * abs(high), 1e-3)
    return Scale(max(least, low - room), min(most, high + room))


def _round_step(rough: float) -> float:
    power = 10 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.75)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    step = min((b - a for a, b in pairwise(ticks) if b > a), default=abs(value) or 1.0)
    most = max(abs(tick) for tick in ticks)
    if step < 1e-3 and most < 0.01:
        return power(value)
    if most >= 1e5:  # such as "1.5 M": a million's digits would run into those of its neighbour
        unit, name = next((unit, name) for unit, name in LARGE if most >= unit)
        shown = tick_text(value / unit, [tick / unit for tick in ticks])
        return f"{shown}\N{NO-BREAK SPACE}{name}" if value else "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return number(value, digits)


@dataclass(frozen=True)
class Whisker:
    """One row of a dot-and-whisker chart."""

    label: str
    value: float
    low: float
    high: float
    figure: str  # what is printed beside it
    strong: bool = False
    bad: bool = False  # in the colour of what is wrong


def whiskers(rows: Sequence[Whisker], scale: Scale, zero: bool = False, line: float | None = None) -> str:
    """Dots with intervals on a common scale; what lies off the scale is an arrow at its edge.

    `line`: a value to compare all with, drawn through all rows.
    """
    ticks = scale.ticks(5)
    grid = "".join(f'<path class="grid" d="M{scale.at(tick)} -2V102"/>' for tick in ticks)
    if zero:
        grid += f'<path class="zero" d="M{scale.at(0)} -2V102"/>'
    if line is not None:
        grid += f'<path class="level" d="M{scale.at(line)} -2V102"/>'
    lines = []
    for row in rows:
        strong = " strong" * row.strong + " bad" * row.bad
        lines.append(
            f'<div class="w-row"><div class="w-label{strong}">{text(row.label)}</div>'
            f'<div class="w-track" title="{text(row.label)}: {text(row.figure)}">'
            f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{grid}'
            f"{_mark(row, scale, strong)}</svg></div>"
            f'<div class="w-figure{strong}">{text(row.figure)}</div></div>'
        )
    axis = "".join(f'<span style="left:{scale.at(tick) / 10}%">{tick_text(tick, ticks)}</span>' for tick in ticks)
    return f'<div class="whiskers">{"".join(lines)}<div class="w-axis">{axis}</div></div>'


def read_by(across: Scale, up: Scale, names: tuple[str, str]) -> str:
    """Attributes of an SVG from which page.js reads the figures of the point that is pointed at."""
    scales = f'data-x="{across.low!r} {across.high!r}" data-y="{up.low!r} {up.high!r}"'
    return f'{scales} data-names="{text("|".join(names))}"'


def _mark(row: Whisker, scale: Scale, strong: str) -> str:
    if row.high < scale.low:
        return _OFF_LOW
    if row.low > scale.high:
        return _OFF_HIGH
    low, high = (min(1000.0, max(0.0, scale.at(edge))) for edge in (row.low, row.high))
    line = f'<path class="whisker{strong}" d="M{low} 50H{high}"/>'
    if row.value < scale.low:
        return line + _OFF_LOW
    if row.value > scale.high:
        return line + _OFF_HIGH
    return f'{line}<path class="dot{strong}" d="M{scale.at(row.value)} 50h0"/>'


@dataclass(frozen=True)
class Curve:
    """Points of a line, and how to draw them."""

    title: str
    caption: str
    points: Sequence[tuple[float, float]]  # (epoch, value), in order
    across: str = "epoch"  # what the first of a point is
    dots: bool = False  # few points that each count, rather than a noisy line
    marked: int | None = None  # index of the point that was kept
    from_zero: bool = False


def curve(drawn: Curve) -> str:
    """A small line chart, over epochs unless said: the mean of up to 120 bins, with the range inside each bin as a band."""
    across = Scale(0.0, max(max(x for x, _ in drawn.points), 1e-9))
    bins = _bins(drawn.points)
    values = [edge for _, low, _, high in bins for edge in (low, high)] + ([0.0] if drawn.from_zero else [])
    up = scale_of(
        values, 0.0 if min(values) >= 0 else -math.inf, 1.0 if 0 <= min(values) <= max(values) <= 1 else math.inf
    )
    ticks = up.ticks(4)
    body = "".join(f'<path class="grid" d="M0 {1000 - up.at(tick)}H1000"/>' for tick in ticks)
    if any(low < high for _, low, _, high in bins):
        over = " ".join(f"{across.at(x)},{1000 - up.at(high)}" for x, _, _, high in bins)
        under = " ".join(f"{across.at(x)},{1000 - up.at(low)}" for x, low, _, _ in reversed(bins))
        body += f'<polygon class="band" points="{over} {under}"/>'
    line = " ".join(f"{across.at(x)},{1000 - up.at(mean)}" for x, _, mean, _ in bins)
    body += f'<polyline class="line" points="{line}"/>'
    if drawn.dots:
        for place, (x, value) in enumerate(drawn.points):
            kept = " kept" if place == drawn.marked else ""
            said = f"{drawn.across} {x:.2f}: {value:.4f}" + (" (kept)" if kept else "")
            body += (
                f'<path class="point{kept}" d="M{across.at(x)} {1000 - up.at(value)}h0"><title>{said}</title></path>'
            )
    left = "".join(f'<span style="top:{100 - up.at(tick) / 10}%">{tick_text(tick, ticks)}</span>' for tick in ticks)
    epochs = across.ticks(6)
    below = "".join(f'<span style="left:{across.at(x) / 10}%">{tick_text(x, epochs)}</span>' for x in epochs)
    return (
        f'<figure class="curve"><figcaption><b>{text(drawn.title)}</b> {text(drawn.caption)}</figcaption>'
        f'<div class="plot"><div class="left">{left}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" {read_by(across, up, (drawn.across, ""))} '
        f'aria-label="{text(drawn.title)}">{body}</svg>'
        f'<div class="below">{below}</div></div></figure>'
    )


def scatter(title: str, points: Sequence[Sequence[float]]) -> str:
    """Dots of (true, predicted) on one scale both ways, with the line where they are equal."""
    scale = scale_of([value for point in points for value in point])
    ticks = scale.ticks(7)
    body = "".join(
        f'<path class="grid" d="M0 {1000 - scale.at(tick)}H1000M{scale.at(tick)} 0V1000"/>' for tick in ticks
    )
    body += '<path class="zero" d="M0 1000L1000 0"/>'
    body += "".join(f'<path class="speck" d="M{scale.at(x)} {round(1000 - scale.at(y), 1)}h0"/>' for x, y in points)
    left = "".join(f'<span style="top:{100 - scale.at(tick) / 10}%">{tick_text(tick, ticks)}</span>' for tick in ticks)
    below = "".join(f'<span style="left:{scale.at(tick) / 10}%">{tick_text(tick, ticks)}</span>' for tick in ticks)
    return (
        f'<figure class="curve square"><figcaption><b dir="auto">{text(title)}</b></figcaption>'
        f'<div class="plot"><div class="left">{left}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" {read_by(scale, scale, ("true", "predicted"))} '
        f'aria-label="{text(title)}">{body}</svg>'
        f'<div class="below">{below}</div></div></figure>'
    )


def _bins(points: Sequence[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """(x, lowest, mean, highest) of runs of points, at most 120 of them."""
    size = math.ceil(len(points) / BINS)
    bins = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part]
        bins.append((sum(x for x, _ in part) / len(part), min(values), sum(values) / len(values), max(values)))
    return bins


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """True classes down, predicted classes across. Up to 12 classes with numbers; more as a map of shares."""
    return _numbered(labels, matrix) if len(labels) <= NUMBERED else _heat_map(labels, matrix)


def _shade(cell: int, row_total: int) -> float:
    """Square root of the share: one mistake in fifty must still be seen."""
    return round(math.sqrt(cell / row_total), 3) if cell else 0.0


def _cell_text(labels: Sequence[str], truth: int, said: int, cell: int, total: int) -> str:
    right = "rightly called" if truth == said else "called"
    return text(f"{labels[truth]} {right} {labels[said]}: {cell} of {total}")


def _numbered(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    upright = " upright" if len(labels) > 4 else ""
    heads = "".join(
        f'<th scope="col"><span dir="auto" title="{text(name)}">{breakable(name)}</span></th>' for name in labels
    )
    lines = []
    for truth, row in enumerate(matrix):
        total = sum(row)
        cells = []
        for said, cell in enumerate(row):
            kind = "right" if truth == said else "wrong"
            share = round(100 * (0.08 + 0.92 * _shade(cell, total))) if cell else 0
            cells.append(
                f'<td class="{kind}{" deep" if share > 62 else ""}" style="--share:{share}%" '
                f'title="{_cell_text(labels, truth, said, cell, total)}">{cell if cell else "·"}</td>'
            )
        name = labels[truth]
        head = f'<th scope="row"><span dir="auto" title="{text(name)}">{breakable(name)}</span></th>'
        lines.append(f"<tr>{head}{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table class="matrix{upright}"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heat_map(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A cell holds its count alone, and page.js adds the names that stand beside it: in each cell they would be long."""
    shown = _most_mistaken(matrix)
    size = 22 if len(shown) <= 30 else 16 if len(shown) <= 50 else 12
    side = size * len(shown)
    longest = max(len(labels[place]) for place in shown)
    fit = min(1.0, SHEET / (side + NAMES))
    cells, names, heads = [], [], []
    for down, truth in enumerate(shown):
        total = sum(matrix[truth])
        names.append(f'<span dir="auto" title="{text(labels[truth])}">{text(labels[truth])}</span>')
        heads.append(f'<span dir="auto" title="{text(labels[truth])}">{text(labels[truth])}</span>')
        for across, said in enumerate(shown):
            cell = matrix[truth][said]
            if cell:
                kind = "right" if truth == said else "wrong"
                cells.append(
                    f'<rect class="{kind}" x="{across * size}" y="{down * size}" '
                    f'width="{size - 1}" height="{size - 1}" fill-opacity="{0.28 + 0.72 * _shade(cell, total):.2f}">'
                    f"<title>{cell} of {total}</title></rect>"
                )
    guides = "".join(f"M0 {at - 0.5}H{side}M{at - 0.5} 0V{side}" for at in range(5 * size, side, 5 * size))
    cells.insert(0, f'<path class="guide" d="{guides}"/>')
    note = (
        f'<p class="note">The {len(shown)} classes with the most mistakes, of {len(labels)}; report.json holds all.</p>'
        if len(shown) < len(labels)
        else ""
    )
    sizes = f"--cell:{size}px;--side:{side}px;--longest:{longest};--paper-fit:{fit:.2f}"
    return (
        f'{note}<div class="scroll wide"><div class="heat" style="{sizes}">'
        f'<div class="heat-heads">{"".join(heads)}</div><div class="heat-names">{"".join(names)}</div>'
        f'<svg class="heat-map" width="{side}" height="{side}" viewBox="0 0 {side} {side}" role="img" '
        f'aria-label="Confusion matrix" data-cell="{size}">{"".join(cells)}</svg></div></div>'
        '<p class="readout" aria-live="polite">Rows are true classes, columns what was said.</p>'
    )


def _most_mistaken(matrix: Sequence[Sequence[int]]) -> list[int]:
    """Indices of the classes to show, in label order."""
    classes = range(len(matrix))
    if len(matrix) <= CHARTED and sum(cell > 0 for row in matrix for cell in row) <= CELLS:
        return list(classes)
    wrong = [sum(matrix[c]) - matrix[c][c] + sum(row[c] for row in matrix) - matrix[c][c] for c in classes]
    return sorted(sorted(classes, key=lambda c: (-wrong[c], c))[: math.isqrt(CELLS)])
