"""Which share of the base's own weights to deliver: the curve over shares, and the one that a rule takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.retention.meter import Meter
from tunesmith.retention.probe import Probe
from tunesmith.training.loop import Measured

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the base's own weights
NEARER = 0.95  # and where a limit asks for more than these give


@dataclass(frozen=True)
class Point:
    """The network with such a share of the base's own weights."""

    share: float
    measured: Measured | None  # on the validation rows, where there are any
    lost: float | None  # of what the base knew, where a meter reads it


@dataclass(frozen=True)
class Sweep:
    """All that was tried, and what was taken."""

    points: tuple[Point, ...]
    chosen: float
    why: str
    loses: str  # what `Point.lost` is of; "" where nothing reads it
    met: bool = True  # whether the limit is kept


def keeps(lost: float, budget: float) -> bool:
    """Whether so much may be lost; a difference of two shares is not exact in its last digits."""
    return lost <= budget + 1e-9


def limiting(meters: Sequence[Meter]) -> tuple[Meter, ...]:
    """Those that a limit holds for: the probe where the user named one, which is what they care about; else all."""
    named = tuple(meter for meter in meters if isinstance(meter, Probe))
    return named or tuple(meters)


def cheapest(points: Sequence[Point], loses: str) -> Sweep:
    """The largest share up to which none is worse than none on the validation rows.

    Worse is a lower value or a higher loss: on few rows many shares have the same value by luck, of which the largest would
    cost (Banking77, 154 validation rows: 0.9 by the value alone, and then 0.897 rather than 0.909 on the test rows).
    """
    none = points[0].measured
    if none is None:
        said = "nothing of the base's own weights kept: there are no validation rows to choose a share on"
        return Sweep((), 0.0, said, loses)
    costs = [
        point.share
        for point in points
        if point.measured is not None and (point.measured.rank < none.rank or point.measured.loss > none.loss)
    ]
    chosen = max(point.share for point in points if point.share < min(costs, default=1.0))
    read = any(point.lost is not None for point in points)
    why = (
        f"trained weights averaged with the base's own, which count {chosen:g}: the largest share that costs nothing on the "
        f"validation rows ({none.metric} and loss{f', and {loses},' if read else ''} by share: {_curve(points)})"
    )
    return Sweep(tuple(points), chosen, why, loses)


def within(points: Sequence[Point], loses: str, budget: float) -> Sweep:
    """Of the shares that keep the loss within the budget, that with the best value on the validation rows, then loss.

    Every point has been read by a meter. Without validation rows the smallest of the shares is taken; where none keeps the
    budget, the one that loses least, and `met` is false.
    """
    lost = {point.share: point.lost for point in points if point.lost is not None}
    fitting = [point for point in points if keeps(lost[point.share], budget)]
    metric = "" if points[0].measured is None else f"{points[0].measured.metric} and loss on the validation rows, and "
    curve = f"({metric}{loses} by share: {_curve(points)})"
    if not fitting:
        least = min(points, key=lambda point: (lost[point.share], point.share))
        why = (
            f"retention.budget: no share of the base's own weights up to {points[-1].share:g} keeps the {loses} within "
            f"{100 * budget:g} %; the delivered weights hold {least.share:g} of them, with which it is "
            f"{100 * lost[least.share]:.1f} % {curve}; give a larger budget, set retention.anchor, or use a method that "
            "changes less"
        )
        return Sweep(tuple(points), least.share, why, loses, met=False)
    best = min(fitting, key=_quality)
    which = "the best on the validation rows" if metric else "the smallest"
    why = (
        f"trained weights averaged with the base's own, which count {best.share:g}: {which} of those "
        f"that keep the {loses} within {100 * budget:g} % {curve}"
    )
    return Sweep(tuple(points), best.share, why, loses)


def tried(
    set_share: Callable[[float], None],
    evaluate: Callable[[], Measured] | None,
    read: Callable[[], float] | None,
    enough: Callable[[Point], bool],
) -> list[Point]:
    """Every share of `SHARES`, and `NEARER` where none of them is `enough`."""

    def at(share: float) -> Point:
        set_share(share)
        return Point(share, None if evaluate is None else evaluate(), None if read is None else read())

    points = [at(share) for share in SHARES]
    return points if any(map(enough, points)) else [*points, at(NEARER)]


def _quality(point: Point) -> tuple[float, float, float]:
    """Less is better."""
    if point.measured is None:
        return (0.0, 0.0, point.share)
    return (-point.measured.rank, point.measured.loss, point.share)


def _curve(points: Sequence[Point]) -> str:
    return ", ".join(f"{point.share:g}: {_figures(point)}" for point in points)


def _figures(point: Point) -> str:
    said = [] if point.measured is None else [f"{point.measured.value:.4f}", f"{point.measured.loss:.4f}"]
    return ", ".join([*said, *([] if point.lost is None else [f"{100 * point.lost:.1f} %"])])
