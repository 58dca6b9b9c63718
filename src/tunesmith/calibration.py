"""What validation rows tell of a finished model's certainty: its temperature, when it is sure enough, what may be true.

Formulas alone: plain numbers in, plain numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np

    Losses = Callable[[np.ndarray], Callable[[float], np.ndarray]]

FEWEST, MISTAKES = 100, 10  # validation rows, and wrong ones among them, from which on a temperature is fitted
FOLDS = 5
SURE = 1.645  # standard errors by which a temperature must lower the loss to be kept: 95 %, one-sided
COLDEST, HOTTEST = 0.1, 10.0
MOST = 2_000_000  # probabilities that a temperature is fitted on; of more, rows are drawn
SHARES = 50  # thresholds tried: those that the surest 2 %, 4 %, ... of the validation rows pass
KEPT = 1000  # order statistics stored of the scores of sets


class Step(NamedTuple):
    """A threshold of certainty that was tried on the validation rows."""

    above: float  # rows whose probability is above it are answered
    rows: int  # validation rows that are
    right: int  # of them answered rightly


@dataclass(frozen=True)
class Calibration:
    """What is stored of it with a model."""

    rows: int  # validation rows it was found on
    temperature: float = 1.0  # by which outputs were divided
    why: str = ""  # how that came about
    confidence: float = 0.95  # of the bounds on precision
    steps: tuple[Step, ...] = ()  # one class a row: thresholds tried, from the surest rows to all
    # How unlike each validation row's true answer is, ascending: 1 less its probability, or standard deviations off.
    # Of more than `KEPT` every so many-th: see `order_statistics`.
    scores: tuple[float, ...] = ()

    def threshold(self, precision: float) -> Step | None:
        """The lowest threshold above which answers are right with this precision; None where none was proven.

        Fixed sequence testing (Angelopoulos 2021, Learn then Test, arXiv 2110.01052, section 2.3): from the surest rows
        on, each threshold must pass an exact binomial test at the stored confidence (its one-sided Clopper-Pearson lower
        bound is at least `precision`), until one fails. So with this confidence the precision above the threshold, of all
        rows of their kind, is not lower than asked for. Given the k-th highest probability the rows above it are
        independent draws of all rows above it, so each test is exact; stopping at the first failure keeps the error of
        all of them together where surer rows are not less often right. The first threshold tested is one that twice
        `fewest` rows pass, so that it may forgive a mistake; `fewest` where that is over a quarter of all.
        """
        return self._tested(precision)[0]

    def _tested(self, precision: float) -> tuple[Step | None, Step | None]:
        """The last threshold that passed, and the one that failed; None where there is none."""
        from scipy.stats import binom

        found, fewest = None, self.fewest(precision)
        first = 2 * fewest if 8 * fewest <= self.rows else fewest
        for step in self.steps:
            if step.rows < first:
                continue
            if binom.sf(step.right - 1, step.rows, precision) > 1 - self.confidence:
                return found, step
            found = step
        return found, None

    def fewest(self, precision: float) -> int:
        """Answered validation rows that it takes at least to prove a threshold, all of them right."""
        return math.ceil(math.log(1 - self.confidence) / math.log(precision) - 1e-9)

    def unproven(self, precision: float) -> str:
        """Why no threshold for this precision was found."""
        fewest = self.fewest(precision)
        if fewest > self.rows:
            return f"it takes {fewest:,} validation rows even if all are right, and there were {self.rows:,}"
        _, failed = self._tested(precision)
        if failed is None:
            return f"too few of its {self.rows:,} validation rows have a probability of their own"
        return (
            f"{failed.rows - failed.right:,} of the {failed.rows:,} surest of its {self.rows:,} validation rows are wrong, "
            "which is too many for that; look whether their labels are right"
        )

    def highest(self) -> tuple[float, Step] | None:
        """The highest precision in whole percent that a threshold is proven for, with the lowest such threshold."""
        found = ((share / 100, self.threshold(share / 100)) for share in range(99, 0, -1))
        return next(((precision, step) for precision, step in found if step is not None), None)

    def instead(self) -> str:
        """What to ask for in place of a precision that is not proven."""
        best = self.highest()
        if best is None:
            return "no other precision is proven either"
        precision, step = best
        return (
            f"the highest that is proven is {precision:g}, above a probability of {step.above:.4g}, which {step.rows:,} of "
            f"the {self.rows:,} validation rows pass"
        )

    def most_coverage(self) -> float:
        """The highest coverage that sets can promise with so many validation rows."""
        return self.rows / (self.rows + 1)

    def quantile(self, coverage: float) -> float | None:
        """The score up to which answers belong to the set; None where so many rows cannot promise this coverage.

        The k-th smallest of n scores, k = ceil((n + 1) coverage): a new row's score is at most that with a probability of
        at least `coverage`, where it is exchangeable with the validation rows (Vovk 2005; Lei 2018, arXiv 1604.04173,
        theorem 2.2; for classes Sadinle 2019, arXiv 1609.00451).
        """
        rank = math.ceil((self.rows + 1) * coverage - 1e-9)
        if not self.scores or rank > self.rows:
            return None
        stored = _stored_ranks(self.rows)
        return next(score for kept, score in zip(stored, self.scores, strict=True) if kept >= rank)

    def to_plain(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "temperature": self.temperature,
            "why": self.why,
            "confidence": self.confidence,
            "steps": [list(step) for step in self.steps],
            "scores": list(self.scores),
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any] | None) -> Calibration | None:
        """What `to_plain` gave; None of None. Raises ArtifactError, KeyError, TypeError or ValueError for anything else."""
        if plain is None:
            return None
        scores, rows = tuple(float(score) for score in plain["scores"]), int(plain["rows"])
        if scores and len(scores) != len(_stored_ranks(rows)):
            raise ArtifactError(f"calibration: {len(scores)} scores of {rows} rows")
        steps = tuple(Step(float(above), int(count), int(right)) for above, count, right in plain["steps"])
        return cls(rows, float(plain["temperature"]), str(plain["why"]), float(plain["confidence"]), steps, scores)


def ranks(rows: int) -> list[int]:
    """Of so many rows, the ranks of the surest 2 %, 4 %, ... 100 %; those that differ."""
    return sorted({share * rows // SHARES for share in range(1, SHARES + 1)} - {0})


def steps(probability: np.ndarray, right: np.ndarray) -> tuple[Step, ...]:
    """[rows] the probability of what is said and whether it is right -> thresholds, and the last one for all rows."""
    import numpy as np

    order = np.argsort(-probability, kind="stable")
    found = []
    for rank in ranks(len(order)):
        above = float(probability[order[rank - 1]]) if rank < len(order) else 0.0
        answered = probability > above
        found.append(Step(above, int(answered.sum()), int(right[answered].sum())))
    return tuple(found)


def order_statistics(scores: np.ndarray) -> tuple[float, ...]:
    """[rows] -> ascending, at most `KEPT` of them, the largest among them; rounded up, so that coverage is kept."""
    import numpy as np

    ascending = np.sort(scores)
    return tuple(float(math.ceil(ascending[rank - 1] * 1e6) / 1e6) for rank in _stored_ranks(len(ascending)))


def _stored_ranks(rows: int) -> list[int]:
    count = min(rows, KEPT)
    return [-(-place * rows // count) for place in range(1, count + 1)]


def class_set(probabilities: Sequence[float], quantile: float) -> list[int]:
    """Places of the classes whose score, 1 less the probability, is at most `quantile`: the most probable first.

    The most probable is always among them, so that no set is empty: that can only add to the coverage (Sadinle 2019,
    section 4, on null regions).
    """
    ranked = sorted(range(len(probabilities)), key=lambda place: -probabilities[place])
    return [place for at, place in enumerate(ranked) if at == 0 or 1 - probabilities[place] <= quantile]


class Tempered(NamedTuple):
    """A temperature, 1 where none was found to be better, and the line that says why."""

    temperature: float
    why: str


def fit_temperature(losses: Losses, rows: int, wrong: int, draw: Any) -> Tempered:
    """The temperature of lowest loss on validation rows (Guo 2017, arXiv 1706.04599, section 4.2), where it is of use.

    losses: rows' numbers -> temperature -> the loss of each; `wrong`: rows that are answered wrongly; draw: a numpy
    Generator. None is fitted on fewer than 100 rows, or with fewer than 10 wrong ones among them: how sure to be is learned
    from mistakes. It is kept where it lowers the loss of rows that it was not fitted on (5 folds) by more than 1.645
    standard errors.
    """
    import numpy as np

    if rows < FEWEST:
        return Tempered(1.0, f"none fitted: {rows:,} validation rows, and it takes {FEWEST}")
    if wrong < MISTAKES:
        return Tempered(1.0, f"none fitted: {wrong} of the {rows:,} validation rows are wrong, and it takes {MISTAKES}")
    every = np.arange(rows)
    folds = np.array_split(draw.permutation(rows), FOLDS)
    gained = np.zeros(rows)
    for fold in folds:
        there = _lowest(losses, np.setdiff1d(every, fold))
        gained[fold] = losses(fold)(1.0) - losses(fold)(there)
    mean, error = float(gained.mean()), float(gained.std(ddof=1)) / math.sqrt(rows)
    found = _lowest(losses, every)
    told = f"loss of validation rows it was not fitted on {abs(mean):.4f} {'lower' if mean > 0 else 'higher'}"
    bar = f"the {SURE * error:.4f} that it takes ({SURE} standard errors, which chance alone exceeds in 5 % of cases)"
    if not mean > SURE * error:
        why = f", less than {bar}" if mean > 0 else ""
        return Tempered(1.0, f"none kept: {found:.3g} makes the {told}{why}")
    return Tempered(
        round(found, 6), f"{found:.3g}, fitted on {rows:,} validation rows: it makes the {told}, more than {bar}"
    )


def _lowest(losses: Losses, rows: np.ndarray) -> float:
    """The loss is convex in 1 / temperature, so that its one minimum is found by bracketing."""
    from scipy.optimize import minimize_scalar

    at = losses(rows)
    found: Any = minimize_scalar(
        lambda log: float(at(math.exp(log)).mean()),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return math.exp(float(found.x))


def class_losses(probabilities: np.ndarray, truth: np.ndarray) -> Losses:
    """Cross-entropy in nats of [rows, classes] against the true classes [rows], by temperature."""
    from scipy.special import logsumexp

    logs = log_of(probabilities)

    def losses(rows: np.ndarray) -> Callable[[float], np.ndarray]:
        kept, true = logs[rows], logs[rows, truth[rows]]
        return lambda temperature: logsumexp(kept / temperature, axis=1) - true / temperature

    return losses


def label_losses(probabilities: np.ndarray, truth: np.ndarray) -> Losses:
    """Binary cross-entropy in nats of [rows, labels] against bool [rows, labels], summed over a row's labels."""
    import numpy as np

    logits = logits_of(probabilities)

    def losses(rows: np.ndarray) -> Callable[[float], np.ndarray]:
        kept, true = logits[rows], (truth[rows] * logits[rows]).sum(axis=1)
        return lambda temperature: np.logaddexp(0.0, kept / temperature).sum(axis=1) - true / temperature

    return losses


def tempered_classes(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """[rows, classes] as they are where the outputs behind them are divided by `temperature`."""
    from scipy.special import softmax

    return softmax(log_of(probabilities) / temperature, axis=1)


def tempered_labels(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Likewise where each probability is of a label by itself."""
    from scipy.special import expit

    return expit(logits_of(probabilities) / temperature)


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits but for a constant a row. What a float32 holds as 0 counts as the smallest that it holds in full."""
    import numpy as np

    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), np.finfo(np.float32).tiny))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """The inverse of the sigmoid; what a float32 holds as 1 counts as the largest below."""
    import numpy as np

    kept = np.clip(
        np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny, 1 - float(np.finfo(np.float32).epsneg)
    )
    return np.log(kept) - np.log1p(-kept)
