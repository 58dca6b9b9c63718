"""The ladder of methods: which rungs there are, what a rung gained over the last one, and when climbing ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.intervals import FEWEST, paired_difference, standard_error
from tunesmith.tasks._certainty import SURPRISE

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores

PROMPT, HEAD, LAYERS, LORA, FULL = "prompt", "head", "layers", "lora", "full"
# One standard error to each side, paired: what the validation rows can tell apart, as the loop takes it for checkpoints.
NOISE = 0.683
RESAMPLES = 2_000
COARSE = 0.01  # half of an interval of noise, from which on a gain worth having may lie within it: a point
BLIND = 0.05  # the same, from which on the rows say nothing but that something is plainly worse
SMALL_ROWS = 50  # training rows below which no part of them can be spared to choose by
FEW_OF_CLASS = 12  # training rows of a class, on the mean, up to which contrast is the better teacher (docs/log.md)

SHORT_ROWS = 1_000  # training rows of a short trial
SHORT_SHARE = 1 / 8  # of all rows, at most: with fewer than eight times `SHORT_ROWS` there are no short trials
CERTAIN = 0.95  # confidence from which on a short trial speaks against what is documented
MANY_STEPS = 100_000  # of a whole run, from which on a model of one's own from the start competes


@dataclass(frozen=True)
class Gain:
    """What one training is better by than another on the same validation rows; paired, more is better."""

    metric: str
    value: float
    low: float  # one standard error below
    high: float
    surprise: float | None = None  # nats a row by which it expects the true targets more; None where that is not known
    surprise_error: float = 0.0
    bounded: bool = True  # whether the metric is counted in points
    rows: int = FEWEST  # that it was measured on

    @property
    def beyond_noise(self) -> bool:
        """Whether it is a gain that the rows can tell from none: in the metric, or, that not falling, in the surprise."""
        return self.low > 0 or (self.high > 0 and self.surer > 1)

    @property
    def likely(self) -> bool:
        """Whether the rows are too few to tell a point, and say rather a gain than none."""
        return self.bounded and self.high - self.low > 2 * COARSE and self.value > 0

    @property
    def blind(self) -> bool:
        """Whether the rows are too few to choose by, and not two errors against it: then it goes by what is usual.

        Ten validation rows of 100 reviews kept the frozen head, accuracy 0.705 on the test rows; training the whole base has
        0.776.
        """
        unclear = self.rows < FEWEST or self.high - self.low > 2 * BLIND
        return self.bounded and unclear and self.value + 2 * (self.high - self.value) >= 0

    @property
    def taken(self) -> bool:
        """Whether climbing goes on from it."""
        return self.beyond_noise or self.likely or self.blind

    @property
    def loses(self) -> bool:
        """Whether it is plainly worse, in the metric and not better by surprise."""
        return self.high < 0 and self.surer <= 0

    @property
    def surer(self) -> float:
        """The gain in surprise in its standard errors; 0 where it is not known."""
        if self.surprise is None:
            return 0.0
        return self.surprise / max(self.surprise_error, 1e-12)

    def said(self) -> str:
        ends = f"{self.value:+.4f} {self.metric} ({self.low:+.4f} to {self.high:+.4f})"
        if self.surprise is None:
            return ends
        return (
            f"{ends}, {self.surprise:+.3f} nats a row nearer to the labels (standard error {self.surprise_error:.3f})"
        )


def gain_over(a: Scores, b: Scores, metric: str, seed: int) -> Gain:
    """Of `a` over `b`. Raises ValueError unless both score the same rows in the same order.

    Where rows are in groups, both errors are those of whole groups; of one row, or one group, the surprise tells nothing.
    """
    import numpy as np

    found = paired_difference(a, b, metric, RESAMPLES, NOISE, seed)
    bounded, rows = a.bounds(metric) is not None, count_of(a)
    groups = np.arange(rows) if a.groups is None else np.unique(a.groups, return_inverse=True)[1]
    count = int(groups.max()) + 1
    if SURPRISE not in a.each or SURPRISE not in b.each or count < 2:
        return Gain(metric, found.value, found.low, found.high, bounded=bounded, rows=rows)
    less = np.asarray(b.each[SURPRISE]) - np.asarray(a.each[SURPRISE])
    # Rows of a group err together (Liang and Zeger 1986); of rows alone it is the standard error of their mean.
    sums = np.bincount(groups, weights=less - less.mean())
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / rows
    return Gain(metric, found.value, found.low, found.high, float(less.mean()), error, bounded, rows)


@dataclass(frozen=True)
class Trial:
    """One training of the ladder, judged on the validation rows."""

    method: str
    times: float  # the rate, as times the method's own
    rate: float | None  # peak, of the base; None where the method trains none of it, or the training came to nothing
    share: float  # of the training rows
    epochs: int
    metric: str = ""
    value: float = 0.0
    error: float = 0.0  # one standard error of `value`
    loss: float = 0.0
    trainable: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    why: str = ""  # it came to nothing; "" where it did not


@dataclass(frozen=True)
class Rung:
    """A method that was trained whole, with the short trials that chose it and its rate."""

    trial: Trial
    short: tuple[Trial, ...] = ()
    gain: Gain | None = None  # over the best rung before it; None for the first
    taken: bool = True  # whether it is the best so far

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Floor:
    """Methods of which one is to be tried next."""

    methods: tuple[str, ...]
    times: tuple[float, ...] = (1.0,)  # of the method's own rate, tried each


def floors(writes: bool, static: bool, headless: bool = False, rows: int = SMALL_ROWS) -> tuple[Floor, ...]:
    """From the cheapest to the dearest; `writes`: what is learned are tokens; `static`: word vectors.

    headless: the base's own outputs are trained, without a head on them. rows: that are there to learn from; a language model
    is not trained whole on a few, and a prompt is tried first: by itself it is behind on a small base (42 dialogues, 0.26 M
    parameters: token accuracy 0.107, LoRA 0.250, untouched 0.119) and level on a large one (Lester 2021, figure 1).

    The rate is sought where that is cheap, on top of blocks that are computed once; what is found there, as times the
    method's own rate, is tried beside that further up.
    """
    if static:
        return (Floor((FULL,)),) if headless else (Floor((HEAD,)), Floor((FULL,)))
    if writes:
        return (Floor((PROMPT,)), Floor((LORA,))) if rows < SMALL_ROWS else (Floor((LORA,)), Floor((FULL,)))
    first = () if headless else (Floor((HEAD,)),)
    return (*first, Floor((LAYERS,), (1.0, 1 / 3, 3.0)), Floor((LORA, FULL)))


def few(rows: int, classes: int | None) -> bool:
    """Whether `rows` are too few to choose by; `classes`: how many there are to tell apart, None where that means nothing."""
    return rows < SMALL_ROWS or (classes is not None and rows <= FEW_OF_CLASS * classes)


def short(rows: int) -> float | None:
    """The share of the training rows that a short trial learns from, for as many epochs; None where none is short.

    Fewer rows, and not fewer epochs: after few steps a low rate looks best, since it has done the least harm yet to the head
    that training starts from (Banking77, 2,400 rows, top layers after one epoch: accuracy 0.870 with a third of the
    documented rate, 0.860 with that, 0.900 for the head alone). With fewer rows it costs about what it is to spare.
    """
    share = SHORT_ROWS / max(rows, 1)
    return share if share <= SHORT_SHARE else None


def picked(trials: Sequence[Trial], scores: Mapping[int, Scores], seed: int) -> int:
    """Which of short trials to go by: the place of the best, or of one nearer to the method's own rate that is alike.

    trials: those that ended, one at least. Of trials that the rows cannot surely tell from the best the one whose rate is
    nearest to the method's own, and of these the last method: where nothing speaks against it, the one that most people take.
    """
    order = sorted(range(len(trials)), key=lambda place: _key(trials[place], scores[place]), reverse=True)
    best, metric = order[0], trials[order[0]].metric
    alike = [
        place
        for place in order
        if place == best or paired_difference(scores[best], scores[place], metric, RESAMPLES, CERTAIN, seed).low <= 0
    ]
    return min(alike, key=lambda place: (abs(math.log(trials[place].times)), -place))


def _key(trial: Trial, scores: Scores) -> tuple[float, float]:
    value = -trial.value if trial.metric in scores.lower else trial.value
    return value, -trial.loss


def perfect(scores: Scores, metric: str) -> bool:
    """Whether nothing is left to gain that the rows could tell, which takes enough of them."""
    bounds, rows = scores.bounds(metric), count_of(scores)
    return bounds is not None and rows >= FEWEST and scores.value(metric) + standard_error(scores, metric) >= bounds[1]


def count_of(scores: Scores) -> int:
    """How many examples are scored."""
    return len(next(iter(scores.columns.values())))
