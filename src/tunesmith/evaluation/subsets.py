"""Whether a metric is worse on some of the rows than on all others, beyond what chance makes of any such part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation import significance
from tunesmith.evaluation.intervals import Interval
from tunesmith.evaluation.resampling import Drawn, drawn_groups
from tunesmith.seeds import seed_of
from tunesmith.tasks.base import CORRELATIONS, Scores

if TYPE_CHECKING:
    import numpy as np

MOST_LEFT_OUT = 4_000  # rows that a metric is taken without, one by one
DRAWS = (2_000, 10_000)  # fewest and most random parts that one is compared with
SHUFFLED = 20_000_000  # values that are shuffled in all, between these
BATCH = 100  # shuffles at once


def comparable(scores: Scores) -> Scores:
    """The scores with a primary metric that means the same on a part of the rows as on all.

    A correlation does not: it falls wherever the true numbers are alike. In its place comes an error (RMSE), or, where
    there is none, "rank_shift": by how many places a row stands off in the ranking, as a share of all rows.
    """
    if scores.primary not in CORRELATIONS:
        return scores
    error = next((name for name in scores.metrics if name in scores.lower), None)
    if error is not None:
        return replace(scores, primary=error)
    from scipy.stats import rankdata

    from tunesmith.tasks._metrics import mean_of

    ranks: list[Any] = [rankdata(scores.columns[side].reshape(-1)) for side in ("truth", "predicted")]
    off = abs(ranks[0] - ranks[1]) / len(ranks[0])
    return Scores(
        {"truth": scores.columns["truth"], "off": off},
        {"rank_shift": mean_of("off")},
        "rank_shift",
        lower=frozenset({"rank_shift"}),
        each={"rank_shift": off},
        groups=scores.groups,
    )


def narrowed(scores: Scores) -> Scores:
    """The primary metric alone, of the examples that it counts, with the columns that it reads."""
    read = _Read(scores.of(scores.primary))
    scores.metrics[scores.primary](read)
    kept = {name: values for name, values in read.items() if name in read.seen or name == "truth"}
    counted = scores.rows_of.get(scores.primary)
    each = {name: values if counted is None else values[counted] for name, values in scores.each.items()}
    metrics, groups = {scores.primary: scores.metrics[scores.primary]}, scores.groups_of(scores.primary)
    return replace(scores, columns=kept, metrics=metrics, written={}, rows_of={}, each=each, groups=groups)


class _Read(dict[str, Any]):
    """Columns that remember which of them were read."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        super().__init__(columns)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)


def by_row(scores: Scores, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(values, rows): what each of these rows adds to the primary metric, more is better; `scores` are `narrowed`.

    Where the metric is a mean of a value a row, that value. Elsewhere by how much the metric falls when the row is left out
    (the jackknife's values: Efron and Tibshirani 1993, section 11.2): of a ratio such as F1 or a loss a token, their sum
    over a part is below 0 exactly where the part's own ratio is below that of all. Of more than 4,000 rows that many are
    taken at random.
    """
    import numpy as np

    name, rows = scores.primary, len(scores.columns["truth"])
    sign, whole = -1.0 if name in scores.lower else 1.0, scores.value()
    own = scores.each.get(name)
    if own is not None and math.isclose(float(np.mean(own)), whole, abs_tol=1e-9):
        return sign * own, np.arange(rows)
    draw = np.random.default_rng(seed_of(seed, "slices", "rows"))
    taken = np.arange(rows) if rows <= MOST_LEFT_OUT else np.sort(draw.choice(rows, MOST_LEFT_OUT, replace=False))
    part = scores.take(taken)
    metric, columns = scores.metrics[name], part.columns
    all_of = metric(columns)
    values = [
        all_of - metric({key: np.delete(column, row, axis=0) for key, column in columns.items()})
        for row in range(len(taken))
    ]
    return sign * np.nan_to_num(np.array(values)), taken


def chances(
    values: np.ndarray, parts: Sequence[np.ndarray], seed: int, groups: np.ndarray | None = None
) -> list[float]:
    """For each part the chance that as many rows drawn at random have a sum of `values` as low or lower.

    `values` [rows]; a part holds indices into them. Of hits and misses it is exact (the hypergeometric distribution, as in
    Fisher's test, one-sided); else from up to 10,000 random orders of the rows (a permutation test), whose first n rows are
    the random part of size n, the part itself counted as one more draw (Phipson and Smyth 2010).

    groups: [rows] of whole numbers, where rows of one group are no draws of their own: then by `_by_groups`.
    """
    import numpy as np

    if not parts:
        return []
    rows, steps = len(values), np.unique(values)
    if len(steps) < 2:
        return [1.0] * len(parts)
    drawn = drawn_groups(groups)
    if drawn is not None:
        return _by_groups(values, parts, drawn, seed)
    if len(steps) == 2:
        from scipy.stats import hypergeom

        hits = values == steps[1]
        return [float(hypergeom.cdf(hits[part].sum(), rows, hits.sum(), len(part))) for part in parts]
    draw = np.random.default_rng(seed_of(seed, "slices"))
    draws = int(np.clip(SHUFFLED // rows, *DRAWS))
    centred = (values - values.mean()) / values.std()
    ends = np.array([len(part) - 1 for part in parts])
    # Sums of the same values in another order differ in their last digits: such a tie is as low.
    found = np.array([centred[part].sum() for part in parts]) + 1e-9 * rows
    lower = np.zeros(len(parts))
    for start in range(0, draws, BATCH):
        orders = draw.permuted(np.tile(centred, (min(BATCH, draws - start), 1)), axis=1)
        lower += (orders.cumsum(axis=1)[:, ends] <= found).sum(axis=0)
    return ((lower + 1) / (draws + 1)).tolist()


def _by_groups(values: np.ndarray, parts: Sequence[np.ndarray], drawn: Drawn, seed: int) -> list[float]:
    """The same of rows in groups, by turning the signs of whole groups: what a group adds to a part's sum, beyond what the
    means over all rows let expect, is as likely above as below 0 where the part is like the rest.

    The wild bootstrap of scores (Kline and Santos 2012; Cameron, Gelbach and Miller 2008), which draws no group anew and so
    holds with few of them. A part is then seldom told from the rest where fewer than five or so groups have rows of it.
    """
    import numpy as np

    inside = np.zeros((len(values), len(parts)))
    for place, part in enumerate(parts):
        inside[part, place] = 1.0
    off = (inside - inside.mean(axis=0)) * (values - values.mean())[:, None]
    added = np.zeros((drawn.groups, len(parts)))
    np.add.at(added, drawn.place, off)
    found = added.sum(axis=0) + 1e-9 * np.abs(added).sum(axis=0)
    draw = np.random.default_rng(seed_of(seed, "slices"))
    draws, lower = int(np.clip(SHUFFLED // drawn.groups, *DRAWS)), np.zeros(len(parts))
    for start in range(0, draws, BATCH):
        signs = 2.0 * draw.integers(2, size=(min(BATCH, draws - start), drawn.groups)) - 1
        lower += (signs @ added <= found).sum(axis=0)
    return ((lower + 1) / (draws + 1)).tolist()


def holm(found: Sequence[float]) -> list[float]:
    """p-values corrected for their number: how likely one as low is anywhere among them by chance (Holm 1979)."""
    corrected = significance.holm({f"{place}": p for place, p in enumerate(found)})
    return list(corrected.values())


def apart(one: Interval, other: Interval, lower: bool) -> Interval:
    """one - other of two sets of different rows, turned so that more is better; from both intervals.

    Distances to the ends of each are squared and added (Newcombe 1998, method 10; Zou and Donner 2008), so that it is as
    lopsided as they are.
    """
    low = math.hypot(one.value - one.low, other.high - other.value)
    high = math.hypot(one.high - one.value, other.value - other.low)
    gap = one.value - other.value
    return Interval(-gap, -gap - high, -gap + low) if lower else Interval(gap, gap - low, gap + high)
