"""How an error falls with the training rows: floor + drop * (rows / most)^-exponent, and how surely that is known.

Learning curves of one learner on growing parts of one data set mostly follow such a law (Hestness 2017, arXiv 1712.00409;
Viering and Loog 2022, arXiv 2103.10948, section 3), and a few points tell its exponent only roughly. So the exponent is
held to what such curves have, loosely, and how far it may be off is part of the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.evaluation.intervals import Interval

if TYPE_CHECKING:
    import numpy as np

LEAST_SIZES = 3  # of parts, below which a law of three numbers says nothing
EXPONENTS = (0.05, 2.0)  # from hardly any fall to one faster than any statistical rate
# Of the exponent, and how far from it in its logarithm: 0.07 to 0.35 (Hestness 2017); heads on frozen features up to 0.8.
USUAL = (0.35, 0.8)
GRID = 40  # exponents tried, twice
# The power of the rows by which the variance over draws of them falls: that of what a head learns falls with the rows, and
# that of which of the test rows near the border it gets right more slowly (docs/log.md).
SLOWLY = 0.5
DRAWS = 600  # laws that an interval is read from


@dataclass(frozen=True)
class Points:
    """Errors measured on parts of the training rows: less is better, and 0 is the least there can be.

    rows: [points] training rows of each part, several parts of one size being draws of their own; errors: [points];
    resampled: [resamples, points] the same on resampled test rows, one resample for all points.
    """

    rows: np.ndarray
    errors: np.ndarray
    resampled: np.ndarray


@dataclass(frozen=True)
class Law:
    """error(rows) = floor + drop * (rows / most)^-exponent."""

    floor: float
    drop: float
    exponent: float
    most: int  # rows of the largest part

    def at(self, rows: float) -> float:
        return self.floor + self.drop * (rows / self.most) ** -self.exponent


@dataclass(frozen=True)
class Extrapolation:
    law: Law
    errors: list[Interval]  # at each of the sizes asked for
    gains: list[Interval]  # by how much less than at the size `now`


def extrapolate(
    points: Points, asked: Sequence[float], now: float, confidence: float, seed: int
) -> Extrapolation | None:
    """The law through the points, and the errors at other sizes with intervals; None of fewer than three sizes.

    An interval holds what may differ: the test rows, the rows drawn for each part, the law's own numbers, and the draw of
    the rows that are yet to come. Randomised fits (Bardsley 2014, SIAM J. Sci. Comput. 36, A1895): each is of errors with
    other noise, held to another usual exponent.
    """
    import numpy as np

    sizes = np.unique(points.rows).astype(float)
    if len(sizes) < LEAST_SIZES:
        return None
    most, tail = sizes[-1], (1 - confidence) / 2
    of_size = np.stack([points.rows == size for size in sizes])  # [sizes, points]
    counts = of_size.sum(1)
    mean = of_size / counts[:, None]
    noise, freedom = _noise(points, sizes, of_size)
    across = sizes / most
    # What a part shares with the whole moves both errors alike: left is the variance of drawing a part from the whole.
    variance = noise * across**-SLOWLY * (1 - across) / counts + _least(points, noise)
    centre = mean @ points.errors
    usual = np.log(np.array([USUAL[0]]))
    fitted = _fit(across, centre[None], variance, usual)
    misfit = ((fitted.at(across)[0] - centre) ** 2 / variance).sum() / max(1, len(sizes) - 2)
    variance = variance * max(1.0, misfit)
    fitted = _fit(across, centre[None], variance, usual)
    law = Law(float(fitted.floor[0]), float(fitted.drop[0]), float(fitted.exponent[0]), int(most))
    draw = np.random.default_rng(seed)
    unsure = np.sqrt(freedom / draw.chisquare(freedom, size=DRAWS))  # of the noise itself, known from few draws
    picked = np.arange(DRAWS) % len(points.resampled)
    off = draw.normal(size=(DRAWS, len(sizes))) * np.sqrt(variance) * unsure[:, None]
    laws = _fit(across, points.resampled[picked] @ mean.T + off, variance, usual + USUAL[1] * draw.normal(size=DRAWS))
    errors, gains, aside = [], [], draw.normal(size=DRAWS) * unsure
    here = laws.at(np.array([now / most]))[:, 0]
    for size in asked:
        fewer, more = min(now, size), max(now, size)
        ahead = aside * np.sqrt(noise * (fewer / most) ** -SLOWLY * (1 - fewer / more))
        there = laws.at(np.array([size / most]))[:, 0] + ahead
        errors.append(_interval(law.at(size), there, tail))
        gains.append(_interval(law.at(now) - law.at(size), here - there, tail))
    return Extrapolation(law, errors, gains)


@dataclass(frozen=True)
class _Laws:
    floor: np.ndarray  # [laws]
    drop: np.ndarray
    exponent: np.ndarray

    def at(self, across: np.ndarray) -> np.ndarray:
        """[sizes] as shares of the largest -> [laws, sizes]"""
        return self.floor[:, None] + self.drop[:, None] * across[None] ** -self.exponent[:, None]


def _fit(across: np.ndarray, errors: np.ndarray, variance: np.ndarray, usual: np.ndarray) -> _Laws:
    """Weighted least squares of each row of `errors` [laws, sizes], floor and drop 0 at least.

    usual: [laws] the logarithm of the exponent that each is held to.
    """
    import numpy as np

    weight = 1 / variance
    grid = np.geomspace(*EXPONENTS, GRID)
    steps = np.linspace(np.log(grid[0] / grid[1]), np.log(grid[1] / grid[0]), GRID)
    found = _Laws(*np.zeros((3, len(errors))))
    for tried in (grid, np.exp(steps)):  # all exponents, then those about the best of each
        about = found.exponent if tried is not grid else np.ones(len(errors))
        best = np.full(len(errors), np.inf)
        kept = np.zeros((3, len(errors)))
        for times in tried:
            exponent = about * times
            curve = across ** -exponent[:, None]  # [laws, sizes]
            floor, drop = _line(curve, errors, weight)
            left = ((errors - floor[:, None] - drop[:, None] * curve) ** 2 * weight).sum(1)
            left = left + ((np.log(exponent) - usual) / USUAL[1]) ** 2
            kept[:, left < best] = np.stack([floor, drop, exponent])[:, left < best]
            best = np.minimum(best, left)
        found = _Laws(*kept)
    return found


def _line(curve: np.ndarray, errors: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """floor + drop * curve by weighted least squares, neither below 0; curve and errors [laws, sizes]."""
    import numpy as np

    total = weight.sum()
    middle, level = curve @ weight / total, errors @ weight / total
    off = curve - middle[:, None]
    drop = np.maximum(((errors - level[:, None]) * off) @ weight / ((off**2) @ weight), 0.0)
    floor = level - drop * middle
    alone = np.maximum((errors * curve) @ weight / ((curve**2) @ weight), 0.0)
    return np.maximum(floor, 0.0), np.where(floor < 0, alone, drop)


def _noise(points: Points, sizes: np.ndarray, of_size: np.ndarray) -> tuple[float, int]:
    """The variance of the error over draws of as many rows as the largest part, and from how many free draws it is known.

    By the sizes that were drawn more than once; parts of one whole share rows, so that they differ less than parts of the
    world do, by 1 less their share of the whole. Where none was drawn twice, what other test rows would change between two
    sizes stands in for it.
    """
    import numpy as np

    squares, freedom = 0.0, 0
    for size, own in zip(sizes, of_size, strict=True):
        if own.sum() > 1 and size < sizes[-1]:
            share = size / sizes[-1]
            squares += (
                float(((points.errors[own] - points.errors[own].mean()) ** 2).sum()) * share**SLOWLY / (1 - share)
            )
            freedom += int(own.sum()) - 1
    if not freedom:
        apart = np.diff(points.resampled @ (of_size / of_size.sum(1)[:, None]).T, axis=1)  # [resamples, sizes - 1]
        return float(np.var(apart, axis=0).mean()), LEAST_SIZES
    return squares / freedom, freedom


def _least(points: Points, noise: float) -> float:
    """The least variance of a point: a hundredth of what the test rows leave open, and half of that of a draw of all rows."""
    import numpy as np

    return 0.01 * float(np.var(points.resampled, axis=0).mean()) + 0.5 * noise + 1e-16


def _interval(value: float, drawn: np.ndarray, tail: float) -> Interval:
    import numpy as np

    low, high = (float(edge) for edge in np.quantile(drawn, [tail, 1 - tail]))
    return Interval(value, min(low, value), max(high, value))
