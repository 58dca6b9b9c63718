"""Could it be luck? Tests of the difference between two models on the same rows, and Holm's correction for several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.evaluation.resampling import CELLS
from tunesmith.seeds import seed_of
from tunesmith.tasks._weighted import Weighted, each_of, rows_in, weigh
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

MCNEMAR, PERMUTATION = "mcnemar", "permutation"
TIED = 1e-9  # share of a difference by which another may be smaller and count as equal: rounding errors


@dataclass(frozen=True)
class Significance:
    """How likely a difference at least this large is, either way, were the two models equally good."""

    p: float
    test: str  # "mcnemar" or "permutation"
    adjusted: float  # p by Holm's correction for the number of baselines


class Discordant(NamedTuple):
    """Rows that only one of two models gets right."""

    gained: int  # right by the first alone
    lost: int  # right by the second alone


def check_paired(a: Scores, b: Scores, metric: str) -> None:
    """Raises ValueError unless both score the same examples in the same order, and count the same of them."""
    import numpy as np

    same = np.array_equal(a.columns["truth"], b.columns["truth"])
    if not same or not np.array_equal(a.rows_of.get(metric, True), b.rows_of.get(metric, True)):
        raise ValueError("a paired difference needs two scores of the same examples in the same order")


def discordant(a: Scores, b: Scores, metric: str) -> Discordant:
    """For a metric of which each example is a hit or a miss (`Scores.shares`). Raises ValueError as `check_paired`."""
    check_paired(a, b, metric)
    first, second = (each_of(scores.metrics[metric], scores.of(metric)) > 0.5 for scores in (a, b))
    return Discordant(int((first & ~second).sum()), int((second & ~first).sum()))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p (McNemar 1947, by the binomial distribution): of the rows that only one model gets right,
    each would be either's with chance 1/2. 1 where there is none.
    """
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(min(gained, lost), gained + lost, 0.5)))


def permutation(a: Scores, b: Scores, metric: str, permutations: int, seed: int) -> float:
    """The two-sided p of a paired permutation test: (1 + as large) / (1 + permutations) (Phipson and Smyth 2010).

    Were the models equally good, what they say of an example might as well be swapped; so each example's is, with chance
    1/2, and both are measured again. Correlations, which know no unit, are swapped in one that both models share (ranks,
    or standard deviations): the cosines of two bases lie on different scales. 1 where the metric is undefined.
    Raises ValueError as `check_paired`.
    """
    import numpy as np

    check_paired(a, b, metric)
    function = a.metrics[metric]
    first, second = (
        function.common(scores.of(metric)) if isinstance(function, Weighted) else scores.of(metric) for scores in (a, b)
    )
    both = {name: np.concatenate([first[name], second[name]]) for name in first.keys() & second.keys()}
    rows, weighed = rows_in(first), weigh(function, both)

    def differences(kept: np.ndarray) -> np.ndarray:
        """[rows, samples] of 1 where each model keeps its own -> [samples]."""
        return weighed(np.vstack([kept, 1 - kept])) - weighed(np.vstack([1 - kept, kept]))

    (measured,) = np.abs(differences(np.ones((rows, 1))))
    if np.isnan(measured):
        return 1.0
    draw = np.random.default_rng(seed_of(seed, "permutation"))
    most, as_large, known = max(1, CELLS // (2 * rows)), 0, 0
    for done in range(0, permutations, most):
        size = (rows, min(most, permutations - done))
        found = np.abs(differences(draw.integers(2, size=size, dtype=np.int8).astype(np.float64)))
        as_large += int((found >= measured * (1 - TIED)).sum())
        known += int((~np.isnan(found)).sum())
    return (1 + as_large) / (1 + known)


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Each p adjusted for as many tests (Holm 1979): the smallest times their number, the next times one less, and none
    below one before it.
    """
    adjusted, reached = {}, 0.0
    for place, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        reached = max(reached, min(1.0, (len(ps) - place) * ps[name]))
        adjusted[name] = reached
    return {name: adjusted[name] for name in ps}


def significances(
    scores: Scores, baselines: Mapping[str, Scores], permutations: int, seed: int
) -> dict[str, Significance]:
    """Of the model against each baseline, in the primary metric: McNemar's test where it counts hits, else permutations."""
    metric = scores.primary
    test = MCNEMAR if metric in scores.shares else PERMUTATION
    ps = {
        name: mcnemar(*discordant(scores, other, metric))
        if test == MCNEMAR
        else permutation(scores, other, metric, permutations, seed)
        for name, other in baselines.items()
    }
    adjusted = holm(ps)
    return {name: Significance(p, test, adjusted[name]) for name, p in ps.items()}
