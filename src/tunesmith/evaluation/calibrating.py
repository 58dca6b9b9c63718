"""How far probabilities can be taken at their word: calibration error, reliability, risk and coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.evaluation.intervals import Interval, share_of, unseen_share
from tunesmith.evaluation.resampling import drawn_groups, weights_of
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

BINS = 15  # of equal mass, for the calibration error: as many as Guo 2017 takes
DRAWN = 10  # of equal width, for the diagram: where most rows are surest, bins of equal mass would hide the others
POINTS = 120  # of a curve
DRAWS = 2000  # of errors that chance alone would show


class Units(NamedTuple):
    """Probabilities and what became of them, each of `row`: of a class one a row, of labels one for each label and row."""

    probability: np.ndarray  # [units] float64
    right: np.ndarray  # [units] bool
    row: np.ndarray  # [units] int
    rows: int
    groups: np.ndarray | None = None  # [rows] of whole numbers, where rows of one group are no draws of their own


class Bin(NamedTuple):
    """Of units with like probabilities how many were right."""

    low: float
    high: float
    units: int
    probability: float  # mean
    right: np.ndarray  # [units] bool
    groups: np.ndarray | None  # [units], as `Units.groups`


def equal_mass(probability: np.ndarray) -> np.ndarray:
    """[units] -> the bin of each, from 0 to `BINS` - 1, as many in each (Nguyen 2015; Nixon 2019, arXiv 1904.01685)."""
    import numpy as np

    place = np.empty(len(probability), dtype=np.int64)
    place[np.argsort(probability, kind="stable")] = np.arange(len(probability))
    return place * BINS // max(1, len(probability))


def calibration_error(units: Units) -> float:
    """Expected calibration error (Naeini 2015; Guo 2017, section 2): mean over units of how far a bin's share of right
    ones is from its mean probability, in 15 bins of equal mass."""
    import numpy as np

    off = units.probability - units.right
    return float(np.abs(np.bincount(equal_mass(units.probability), off, BINS)).sum() / len(off))


def error_of_the_calibrated(units: Units) -> float:
    """What the calibration error of perfectly calibrated probabilities like these would be, on so many rows.

    Never 0: a bin's share of right ones varies (Roelofs 2022, arXiv 2012.08668). In a bin the sum of what varies is about
    normal, so that its mean size is sqrt(2 / pi) standard deviations. Rows of a group vary together, by as much as is seen.
    """
    import numpy as np

    return float(np.sqrt(2 * _variances(units) / np.pi).sum() / len(units.probability))


def error_interval(units: Units, resamples: int, confidence: float, seed: int) -> Interval:
    """`calibration_error` and a basic bootstrap interval over rows, the bins held fixed (Davison and Hinkley 1997, 5.2).

    A resample's error is too high by about as much as the measured one itself, which the basic interval takes off, and the
    percentile interval would add: it may therefore lie wholly below the measured value, and then is widened to hold it.
    It reaches down to 0 where calibrated probabilities like these would show as large an error often enough (Broecker and
    Smith 2007, on consistency): near 0, where sizes of sums bend, no bootstrap is to be trusted.

    Where all units are right, or none, resamples hold no mistake either: each side is then as wide as the share that could
    have gone unseen (`unseen_share`), by which a mistake that does not show can move the error at most. Rows in groups are
    drawn in whole groups, and the ends lie as much further away as the t quantile of so many groups is beyond the normal's.
    """
    import numpy as np
    from scipy.stats import norm, t

    value = calibration_error(units)
    drawn, by_draw = drawn_groups(units.groups), _by_draw(units)
    draws = len(by_draw)
    draw = np.random.default_rng(seed_of(seed, "calibration"))
    errors = [
        np.abs(weights.T @ by_draw).sum(axis=1) / len(units.probability)  # [some]
        for weights in weights_of(draws, resamples, seed, np.zeros(draws, np.int64))
    ]
    tail = (1 - confidence) / 2
    high, low = (2 * value - float(edge) for edge in np.quantile(np.concatenate(errors), [tail, 1 - tail]))
    if drawn is not None:
        further = float(t.ppf(tail, drawn.freedom) / norm.ppf(tail)) * math.sqrt(draws / (draws - 1))
        low, high = (value + further * (edge - value) for edge in (low, high))
    spread = np.sqrt(_variances(units))
    chance = np.abs(draw.normal(size=(DRAWS, BINS)) * spread).sum(axis=1) / len(units.probability)
    if value <= np.quantile(chance, 1 - tail):
        low = 0.0
    if len(np.unique(units.right)) < 2:
        unseen = unseen_share(draws, confidence)
        low, high = min(low, value - unseen), max(high, value + unseen)
    return Interval(value, max(0.0, min(low, value)), min(1.0, max(high, value)))


def _by_draw(units: Units) -> np.ndarray:
    """[draws, bins] the sum of what is off in each bin, of each row, or each group of rows."""
    import numpy as np

    drawn = drawn_groups(units.groups)
    draws, place = (units.rows, units.row) if drawn is None else (drawn.groups, drawn.place[units.row])
    found = np.zeros((draws, BINS))
    np.add.at(found, (place, equal_mass(units.probability)), units.probability - units.right)
    return found


def _variances(units: Units) -> np.ndarray:
    """[bins] of the sum of what is off in each, were the probabilities calibrated."""
    import numpy as np

    alone = np.bincount(equal_mass(units.probability), units.probability * (1 - units.probability), BINS)
    if drawn_groups(units.groups) is None:
        return alone
    return np.maximum(alone, (_by_draw(units) ** 2).sum(axis=0))  # rows of a group go astray together


def reliability(units: Units) -> list[Bin]:
    """Ten bins of equal width over the probabilities, those that hold any (Niculescu-Mizil and Caruana 2005)."""
    import numpy as np

    place = np.minimum((units.probability * DRAWN).astype(np.int64), DRAWN - 1)
    count = np.bincount(place, minlength=DRAWN)
    total = np.bincount(place, units.probability, DRAWN)
    groups = None if units.groups is None else units.groups[units.row]
    return [
        Bin(
            at / DRAWN,
            (at + 1) / DRAWN,
            int(count[at]),
            float(total[at] / count[at]),
            units.right[place == at],
            None if groups is None else groups[place == at],
        )
        for at in range(DRAWN)
        if count[at]
    ]


def risk_coverage(units: Units) -> list[tuple[float, float]]:
    """(share of rows answered, share of these that are right), the surest first, at most 120 points.

    From 2 % of the rows, or 20, on: of fewer the share says nothing (El-Yaniv and Wiener 2010, section 2).
    """
    import numpy as np

    order = np.argsort(-units.probability, kind="stable")
    hits = units.right[order].cumsum()
    rows = len(order)
    first = min(rows, max(20, rows // 50))
    taken = np.unique(np.linspace(first, rows, POINTS).round().astype(np.int64)) if rows else []
    return [(float(count / rows), float(hits[count - 1] / count)) for count in taken]


def covered_range(rows: int, tested: int, coverage: float, confidence: float) -> tuple[float, float]:
    """Between which shares of `tested` rows the coverage of sets lies, if validation and test rows are of one kind.

    Given n validation rows the coverage of sets made by their k-th smallest score is Beta(k, n + 1 - k), so that the test
    rows covered are beta-binomial (Vovk 2012; Angelopoulos and Bates 2021, arXiv 2107.07511, section 3.2). Ties, rounding
    up and sets that are never empty only add to it, so that the upper end may be passed.
    """
    from scipy.stats import betabinom

    rank = math.ceil((rows + 1) * coverage - 1e-9)
    tail = (1 - confidence) / 2
    low, high = betabinom.ppf([tail, 1 - tail], tested, rank, rows + 1 - rank)
    return float(low) / tested, float(high) / tested


def plain_bins(bins: Sequence[Bin], confidence: float) -> list[dict[str, float]]:
    """Bins as plain data, with the exact interval of the share that is right (`share_of`)."""
    plain = []
    for item in bins:
        share = share_of(item.right, item.groups, confidence)
        plain.append(
            {
                "from": item.low, "to": item.high, "units": item.units, "probability": item.probability,
                "right": share.value, "right_low": share.low, "right_high": share.high,
            }
        )  # fmt: skip
    return plain
