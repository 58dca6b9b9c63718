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

MCNEMAR, PERMUTATION, OF_GROUPS = "mcnemar", "permutation", "permutation_of_groups"
TIED = 1e-9  # share of a difference by which another may be smaller and count as equal: rounding errors


@dataclass(frozen=True)
class Significance:
    """How likely a difference at least this large is, either way, were the two models equally good."""

    p: float
    test: str  # "mcnemar", "permutation" or "permutation_of_groups"
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

    The examples of one group (`Scores.groups` of `a`) are swapped together: they are no independent draws, and only whole
    groups are exchangeable (Winkler 2015, "Multi-level block permutation"; of signs Canay, Romano and Shaikh 2017). So n
    groups give no p below 2 / 2^n, and one group a p of 1.
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
    swapped = swapped_together(a, metric)
    if np.isnan(measured):
        return 1.0
    draw = np.random.default_rng(seed_of(seed, "permutation"))
    most, as_large, known = max(1, CELLS // (2 * rows)), 0, 0
    for done in range(0, permutations, most):
        size = (swapped.max() + 1, min(most, permutations - done))
        kept = draw.integers(2, size=size, dtype=np.int8).astype(np.float64)
        found = np.abs(differences(kept if len(kept) == rows else kept[swapped]))
        as_large += int((found >= measured * (1 - TIED)).sum())
        known += int((~np.isnan(found)).sum())
    return (1 + as_large) / (1 + known)


def swapped_together(scores: Scores, metric: str) -> np.ndarray:
    """[examples] that the metric counts: the number, from 0, of those that are one draw."""
    import numpy as np

    groups = scores.groups_of(metric)
    return np.arange(rows_in(scores.of(metric))) if groups is None else np.unique(groups, return_inverse=True)[1]


def test_of(scores: Scores, metric: str) -> str:
    """Which test of a difference is made: McNemar's where single examples are hits and misses, else by permutation."""
    swapped = swapped_together(scores, metric)
    if swapped.max(initial=0) + 1 < len(swapped):
        return OF_GROUPS
    return MCNEMAR if metric in scores.shares else PERMUTATION


def luck(a: Scores, b: Scores, metric: str, permutations: int, seed: int) -> float:
    """p by the test that `test_of` names."""
    if test_of(a, metric) == MCNEMAR:
        return mcnemar(*discordant(a, b, metric))
    return permutation(a, b, metric, permutations, seed)


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
    test = test_of(scores, metric)
    ps = {name: luck(scores, other, metric, permutations, seed) for name, other in baselines.items()}
    adjusted = holm(ps)
    return {name: Significance(p, test, adjusted[name]) for name, p in ps.items()}
