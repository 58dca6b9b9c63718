"""Samples of the test rows: drawn again with replacement, alone or in whole groups, and with some rows left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.seeds import seed_of
from tunesmith.tasks._weighted import Weighed, weigh
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

CELLS = 100_000  # weights held at once, however many rows and samples there are: 0.8 MB, as a processor's cache holds
LEAST = 10  # rows of a stratum: with fewer its own spread is hardly known, so small ones are pooled
GROUPS = 1000  # values of the jackknife, at most: of more rows groups are left out, not single ones


@dataclass(frozen=True)
class Measured:
    """A metric of all rows that it counts, of many resamples, and with each row, or group of rows, left out in turn."""

    rows: int
    value: float
    resampled: np.ndarray  # [resamples]; nan where a resample has no value
    left_out: np.ndarray  # [groups]
    group_strata: np.ndarray  # [groups] the stratum of each group that was left out
    drawn: Drawn | None = None  # where whole groups of rows were drawn

    @property
    def draws(self) -> int:
        """How many were drawn independently of each other: rows, or groups of them."""
        return self.rows if self.drawn is None else self.drawn.groups

    def less(self, other: Measured, sign: float) -> Measured:
        """sign * (this - other), resample by resample; both must be of the same rows and draws."""
        return Measured(
            self.rows,
            sign * (self.value - other.value),
            sign * (self.resampled - other.resampled),
            sign * (self.left_out - other.left_out),
            self.group_strata,
            self.drawn,
        )


@dataclass(frozen=True)
class Drawn:
    """Groups of rows that are drawn whole, since rows of one group are no draws of their own."""

    place: np.ndarray  # [rows] the group of each, from 0
    groups: int  # two at least, and fewer than rows

    @property
    def freedom(self) -> float:
        """Of the t that takes the normal's place: as many groups of equal size as these are worth, less one.

        (sum of sizes)^2 / sum of squared sizes (Kish 1965, section 11.7; as the effective number of clusters of Carter,
        Schnepel and Steigerwald 2017, where the rows of a group are quite alike); 1 at least.
        """
        import numpy as np

        sizes = np.bincount(self.place).astype(np.float64)
        return max(1.0, float(sizes.sum() ** 2 / (sizes @ sizes)) - 1)


def drawn_groups(groups: np.ndarray | None) -> Drawn | None:
    """None where rows are drawn alone: each is of a group of its own, or all are of one, of which nothing can be drawn."""
    import numpy as np

    if groups is None:
        return None
    names, place = np.unique(groups, return_inverse=True)
    return Drawn(place, len(names)) if 1 < len(names) < len(place) else None


def measure(
    models: Sequence[Scores], metrics: Iterable[str], resamples: int, seed: int, strata: Sequence[int] | None = None
) -> list[dict[str, Measured]]:
    """For each of the models, each metric: on all rows, and on resamples that are the same for all models.

    strata: [rows] of whole numbers, as `weights_of` takes them; where the first model's examples are in groups
    (`Scores.groups`), whole groups are drawn instead. Raises ValueError when there are no examples.
    """
    import numpy as np

    found: list[dict[str, Measured]] = [{} for _ in models]
    together: dict[bytes | None, list[tuple[int, str]]] = {}  # by which rows are counted: these share the draws
    for metric in metrics:
        for place, scores in enumerate(models):
            counted = scores.rows_of.get(metric)
            together.setdefault(None if counted is None else counted.tobytes(), []).append((place, metric))
    for key, pairs in together.items():
        parts = [weigh(models[place].metrics[metric], models[place].of(metric)) for place, metric in pairs]
        place, metric = pairs[0]
        rows = len(models[place].of(metric)["truth"])
        if rows == 0:
            raise ValueError("no examples to score")
        groups, counted = models[0].groups, models[place].rows_of.get(metric)
        drawn = drawn_groups(groups if groups is None or counted is None else groups[counted])
        if strata is None or drawn is not None:
            alike = np.zeros(rows, np.int64)
        else:
            of_rows = np.asarray(strata)
            alike = pooled_strata(of_rows if key is None else of_rows[models[place].rows_of[metric]])
        apart = left_out_groups(rows, alike, drawn)
        group_strata = np.array([alike[some[0]] for some in apart])
        resampled = _values(parts, weights_of(rows, resamples, seed, alike, drawn))
        left_out = _values(parts, _left_out(rows, apart))
        for (place, metric), again, less in zip(pairs, resampled, left_out, strict=True):
            found[place][metric] = Measured(rows, models[place].value(metric), again, less, group_strata, drawn)
    return found


def _values(parts: Sequence[Weighed], weights: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Of each part its values of all samples."""
    import numpy as np

    found = zip(*([weighed(some) for weighed in parts] for some in weights), strict=True)
    return [np.concatenate(values) for values in found]


def weights_of(
    rows: int, resamples: int, seed: int, strata: np.ndarray, groups: Drawn | None = None
) -> Iterator[np.ndarray]:
    """[rows, some] in turn, `resamples` columns in all: how often each row is drawn. The same for as many rows.

    Without strata (all of one) as many rows are drawn as there are (Efron 1979). Within each of several strata one row
    fewer than it has, each counting n / (n - 1): drawing all n would take the spread within a stratum for smaller than
    it is, by 1 / n (Rao and Wu 1988), which adds up where strata are small. The strata keep their shares so. Of `groups` as
    many are drawn as there are, each with all its rows (the cluster bootstrap: Davison and Hinkley 1997, section 3.8; Field
    and Welsh 2007), without strata.
    """
    import numpy as np

    draw = np.random.default_rng(seed_of(seed, "bootstrap"))
    parts = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for count in _chunks(rows, resamples):
        if groups is not None:
            yield _counts(draw, groups.groups, groups.groups, count)[groups.place]
            continue
        if len(parts) == 1:
            yield _counts(draw, rows, rows, count)
            continue
        weights = np.empty((rows, count))
        for part in parts:
            size, drawn = len(part), max(len(part) - 1, 1)
            weights[part] = _counts(draw, size, drawn, count) * (size / drawn)
        yield weights


def _counts(draw: np.random.Generator, rows: int, drawn: int, samples: int) -> np.ndarray:
    """[rows, samples] how often each row is among `drawn`."""
    import numpy as np

    taken = draw.integers(rows, size=(samples, drawn))
    taken += rows * np.arange(samples)[:, None]
    counts = np.bincount(taken.ravel(), minlength=rows * samples).reshape(samples, rows)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def _chunks(rows: int, samples: int) -> Iterator[int]:
    most = max(1, CELLS // rows)
    yield from (min(most, samples - done) for done in range(0, samples, most))


def pooled_strata(strata: np.ndarray) -> np.ndarray:
    """[rows] -> [rows]: strata of fewer than 10 rows are made one; were that still as small, the next smallest joins it."""
    import numpy as np

    names, inverse, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    order = np.argsort(sizes, kind="stable")
    pool = int((sizes < LEAST).sum())
    while 0 < pool < len(names) and sizes[order[:pool]].sum() < LEAST:
        pool += 1
    named = np.arange(1, len(names) + 1)
    named[order[:pool]] = 0
    return named[inverse]


def left_out_groups(rows: int, strata: np.ndarray, drawn: Drawn | None = None) -> list[np.ndarray]:
    """The rows that the jackknife leaves out together: one each, or of more than 1,000 rows groups of one stratum.

    Of rows that are drawn in groups whole ones, or several of more than 1,000.
    """
    import numpy as np

    if drawn is not None:
        apart = left_out_groups(drawn.groups, np.zeros(drawn.groups, np.int64))
        rows_of = np.split(np.argsort(drawn.place, kind="stable"), np.bincount(drawn.place).cumsum()[:-1])
        return [np.concatenate([rows_of[group] for group in together]) for together in apart]
    mixed = np.random.default_rng(seed_of(0, "jackknife")).permutation(rows)  # rows that stand together may be alike
    return np.array_split(mixed[np.argsort(strata[mixed], kind="stable")], min(rows, GROUPS))


def _left_out(rows: int, groups: list[np.ndarray]) -> Iterator[np.ndarray]:
    """[rows, some] in turn: 1 for each row, 0 for those of the group that is left out."""
    import numpy as np

    done = 0
    for count in _chunks(rows, len(groups)):
        weights = np.ones((rows, count))
        for place, group in enumerate(groups[done : done + count]):
            weights[group, place] = 0.0
        done += count
        yield weights


def spread(values: np.ndarray) -> float:
    """Standard deviation of those that are known; 0 of fewer than two."""
    import numpy as np

    known = values[~np.isnan(values)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def jackknife_error(measured: Measured) -> float:
    """Standard error by leaving out each group in turn (Efron and Tibshirani 1993, equation 11.5); 0 of fewer than two."""
    import numpy as np

    known = measured.left_out[~np.isnan(measured.left_out)]
    return float(np.sqrt((len(known) - 1) ** 2 / len(known)) * spread(known)) if len(known) > 1 else 0.0
