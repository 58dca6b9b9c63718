"""Whether training did what it was meant to: rules over what a run left behind, each with its threshold.

Every rule takes plain numbers and gives a `Check`: what was looked at, the figure, and, where something is wrong, the cause
and one thing to change. Losses are only ever compared with one another, so that their unit does not matter. The thresholds
were measured with MiniLM on small cuts of Banking77 and SST-2 at the usual rate of five methods, a hundred times it and a
thousandth (docs/log.md, "Health").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.recipe import TrainingSpec

FEWEST = 8  # steps below which a curve says nothing
ENDS_ABOVE = 1.25  # times its start at which the training loss ends, from where on the rate is too high
PEAKS_AT = 2.0  # times its start that the training loss reaches on the way: it was thrown off, and came back or not
NEAR_NOTHING = 0.05  # of the loss of guessing: below that a loss may double for nothing
ERRORS = 2.0  # standard errors of a difference beyond which a metric has fallen
FAR_BELOW = 3.0  # times that the method's own rate is above the one given, for this to be what holds the base still
DEAD = 3.0  # times the way that weight decay alone goes: any gradient, through Adam, goes a hundred times as far
TIGHT = 1e-6  # of the usual gradient norm: clipped to less, Adam's own constant of 1e-8 is more than what is left
FAR_OFF = 10.0  # times the method's own rate, or less than it, from where on a poor course is held against the rate
STILL = 1e-9  # |w - w0| / |w0| that is none: float32 has 7 digits, and only weights of about 0 move by less
HARDLY = 1e-3  # |w - w0| / |w0| below which weights have hardly moved
SAME = 0.01  # share by which a validation loss differs at most where nothing was learned
NOISE = 3.0  # standard errors within which two levels of the training loss are the same
STILL_FALLS = 0.05  # share by which the validation loss falls in the last evaluation, where more epochs would pay
OF_ALL = 0.1  # and of all that it fell: the decaying rate leaves the last of 5 epochs 4 % of the way
VANISHED = 1e-3  # of its start that a gradient norm has left, while the loss has not fallen to half
EXPLODED = 10.0  # times its start that a gradient norm reaches, while the loss rose
WARN_AT = 3.0  # times its start at which the mean loss of a few steps is told of while the run is still going
WATCHED = 4  # steps in a row
LEFT = 0.02  # of what training changed that is delivered, below which it was for nothing


@dataclass(frozen=True)
class Check:
    """One rule's answer."""

    rule: str
    looked: str  # at what
    figure: str
    cause: str = ""  # "" where nothing is wrong
    fix: str = ""  # or, where nothing else is wrong, what it follows from

    @property
    def message(self) -> str:
        return f"{self.cause}; {self.fix}"


@dataclass(frozen=True)
class ValidationPoint:
    """One evaluation on the validation rows."""

    step: int
    epoch: float
    value: float
    error: float  # one standard error of `value`
    loss: float


@dataclass(frozen=True)
class History:
    """A run's curves."""

    losses: Sequence[float]  # of each step's rows
    norms: Sequence[float]  # of each step's gradient, before clipping
    held: Sequence[ValidationPoint]  # the first one from before the first step
    metric: str = ""  # of `held`, in words
    lower: bool = False  # whether less of it is better
    decay: float = 0.0  # |w - w0| / |w0| that weight decay alone gives
    chance: float = 0.0  # the loss of who knows the frequencies alone; 0 where nobody can say

    @property
    def before(self) -> ValidationPoint | None:
        return self.held[0] if self.held and self.held[0].step == 0 else None

    @property
    def fifth(self) -> int:
        return max(3, len(self.losses) // 5)

    @property
    def start(self) -> float:
        """The loss before anything has moved: the highest that the validation rows and the first steps allow.

        Of these as many as come at a quarter of the peak rate at most, with the usual warm-up.
        """
        first = list(self.losses[: 1 + len(self.losses) // 40])
        first += [] if self.before is None else [self.before.loss]
        return max(*first, NEAR_NOTHING * self.chance)

    @property
    def end(self) -> float:
        return median(self.losses[-self.fifth :])

    @property
    def noise(self) -> float:
        """By how much the loss of one step's rows differs from the next one's for the rows alone, as a standard deviation.

        By the median of the differences, which a curve's course and single strange steps hardly move.
        """
        late = self.losses[-max(FEWEST, len(self.losses) // 2) :]
        return 1.4826 * median(abs(after - before) for before, after in pairwise(late)) / math.sqrt(2)

    def fell(self) -> bool:
        """Whether the training loss of the last fifth of the steps is below that of the first, beyond their noise."""
        first, last = self.losses[: self.fifth], self.losses[-self.fifth :]
        error = math.hypot(stdev(first), stdev(last)) / math.sqrt(self.fifth)
        return fmean(first) - fmean(last) > max(NOISE * error, 0.02 * abs(fmean(first)))

    def told(self) -> str:
        return f"from {self.losses[0]:.3g} at the first step to {self.end:.3g} at the end, {self.peak():.3g} at most"

    def peak(self) -> float:
        """The highest level that several steps in a row hold."""
        size = max(3, len(self.losses) // 20)
        return max(median(self.losses[place : place + size]) for place in range(len(self.losses) - size + 1))


@dataclass(frozen=True)
class Moved:
    """How far a part of the model went, as |w - w0| / |w0|."""

    part: str  # "base" or "head"
    trained: float  # after the last step
    delivered: float  # what is delivered
    rate: float  # peak learning rate
    usual: float  # what the method takes by itself; 0 where nobody can say

    @property
    def setting(self) -> str:
        return "training.rate" if self.part == "base" else "training.head_rate"


def far_above(losses: Sequence[float], before: float | None) -> bool:
    """Whether the last steps stand so far above the start that the rate must be far too high: asked during a run.

    before: the validation loss before the first step; None where nobody measured it, and the loss of one step's rows is too
    little to go by.
    """
    last = losses[1:][-WATCHED:]
    if before is None or len(last) < WATCHED:
        return False
    start = max(before, losses[0])
    return fmean(last) > WARN_AT * start > 0 and median(last) > start


def too_high_already(losses: Sequence[float], step: int, training: TrainingSpec) -> str:
    """What is told when `far_above` finds it."""
    return (
        f"step {step}: the training loss stands at {losses[-1] / losses[0]:.1f} times its start ({losses[0]:.3g}, now "
        f"{losses[-1]:.3g}): the learning rate is too high; stop, and give a lower training.rate than {training.rate} or a "
        f"lower training.head_rate than {training.head_rate}"
    )


def too_high(history: History, moved: Sequence[Moved]) -> Check:
    """By the training loss, which begins at that of a fitted head, and by the metric before the first step."""
    looked = "training loss, and the validation metric before and after"
    if len(history.losses) < FEWEST:
        return Check("rate too high", looked, "too few steps to tell")
    start, said, unsure = history.start, "", NOISE * history.noise
    if moved and all(item.trained < HARDLY for item in moved):
        pass  # what has not moved was not thrown off
    elif history.end > max(ENDS_ABOVE * start, start + unsure):
        said = f"the training loss rose, {history.told()}"
    elif history.peak() > max(PEAKS_AT * start, start + unsure):
        said = f"the training loss was thrown to {history.peak() / start:.1f} times its start, {history.told()}"
    elif (fall := _metric_fell(history)) is not None:
        said = fall
    elif not history.fell() and any(item.rate > FAR_OFF * item.usual > 0 for item in moved):
        far = max(item.trained for item in moved)
        said = f"the training loss did not fall ({history.told()}) while the weights moved by {100 * far:.0f} % of their size"
    figure = f"loss {history.told()}{_of_metric(history)}"
    if not said:
        return Check("rate too high", looked, figure)
    return Check("rate too high", looked, figure, f"the learning rate is too high: {said}", _other_rate(moved, True))


def too_low(history: History, moved: Sequence[Moved], clip: float | None) -> Check:
    """By how little the weights moved, and both losses with them; at far less than the method's rate by the weights alone."""
    looked = "how far the weights moved, and the losses with them"
    figure = ", ".join(f"{item.part} by {share_of(item.trained)}" for item in moved)
    if len(history.losses) < FEWEST or not moved:
        return Check("rate too low", looked, figure or "nothing trained")
    slow = [item for item in moved if STILL <= item.trained < HARDLY]
    if any(item.part == "base" and FAR_BELOW * item.rate < item.usual for item in slow) and len(slow) < len(moved):
        base = next(item for item in slow if item.part == "base")
        cause = (
            f"the learning rate of the base is too low ({_plain(base.rate)}): over {len(history.losses):,} steps the base "
            f"moved by {share_of(base.trained)}, so that only the head learned, as with method head"
        )
        return Check("rate too low", looked, figure, cause, _other_rate([base], False))
    change = _loss_change(history)
    same = not history.fell() and (change is None or abs(change) <= SAME)
    if len(slow) < len(moved) or not (same or any(FAR_OFF * item.rate < item.usual for item in slow)):
        return Check("rate too low", looked, figure)
    held = "" if change is None else f", and the validation loss by {100 * abs(change):.2g} %"
    looser = _looser(history, clip)
    why = f"gradients are clipped to {clip:g}" if looser else "the learning rate is too low"
    cause = (
        f"{why}: over {len(history.losses):,} steps the weights moved by next to nothing ({figure}{held}): training itself "
        f"did {'nothing' if same else 'little'}, and what is delivered is in effect what it started from"
    )
    return Check("rate too low", looked, figure, cause, looser or _other_rate(moved, False))


def stopped_early(history: History, epochs: int) -> Check:
    """By the validation loss: lowest at the end, and falling there by much. Only of a run that did all its epochs."""
    looked = "validation loss of the last evaluations"
    held = history.held
    if len(held) < 4 or held[-1].epoch < epochs:
        return Check("stopped too early", looked, "no course to read" if len(held) < 4 else "stopped by patience")
    first, before, last = held[0], held[-2], held[-1]
    fall = 1 - last.loss / before.loss if before.loss > 0 else 0.0
    figure = f"{before.loss:.4g} and then {last.loss:.4g} ({_signed_share(-fall)})"
    lowest = last.loss < min(item.loss for item in held[:-1])
    falls = held[-3].loss > before.loss * (1 + SAME) and fall > STILL_FALLS
    whole = first.loss - last.loss
    better = (before.value - last.value if history.lower else last.value - before.value) > -last.error
    if not (lowest and falls and better and before.loss - last.loss > OF_ALL * whole):
        return Check("stopped too early", looked, figure)
    cause = (
        f"it stopped while it was still improving: the validation loss fell by {100 * fall:.0f} % from epoch "
        f"{before.epoch:g} to the last one, to {last.loss:.4g}, its lowest"
    )
    return Check("stopped too early", looked, figure, cause, f"give --set training.epochs={2 * epochs}")


def nothing_learned(history: History, moved: Sequence[Moved], keep: float, clip: float | None, epochs: int) -> Check:
    """By what did not move at all: no step, no gradient, or a change that is not delivered.

    keep: share of the base's own weights in the delivered ones. epochs: what the method takes by itself.
    """
    looked = "what trained, against what it was before"
    figure = ", ".join(
        f"{item.part} moved by {share_of(item.trained)}"
        + (f" ({share_of(item.delivered)} delivered)" if item.part == "base" and item.delivered != item.trained else "")
        for item in moved
    )
    rule, start = "nothing learned", "the model is the one before the first step"
    if not history.losses:
        fix = f"give --set training.epochs={epochs}"
        return Check(rule, looked, "no step was done", f"nothing was learned: no step was done, {start}", fix)
    if not any(history.norms):
        cause = "nothing was learned: no gradient reached what trains in any step (a dead adapter, or all frozen)"
        return Check(rule, looked, figure, cause, "leave method.targets out, or train with --method full")
    steps = f"in {len(history.losses):,} steps"
    if (dead := _dead(history, moved)) is not None:
        cause = (
            f"a dead adapter: what trains of the base moved by {share_of(dead.trained)} {steps}, no more than weight decay "
            f"gives, while the head moved by {share_of(moved[1].trained)}: no gradient reaches it"
        )
        fix = "train other parts of the base: leave method.targets and the like out"
        return Check(rule, looked, figure, cause, fix)
    still = [item for item in moved if item.trained < STILL]
    if still:
        what = start if len(still) == len(moved) else "only the rest of the model learned"
        cause = f"no weight of the {' and '.join(item.part for item in still)} moved {steps}: {what}"
        return Check(rule, looked, figure, cause, _looser(history, clip) or _other_rate(still, False))
    lost = [item for item in moved if item.part == "base" and item.delivered < LEFT * item.trained]
    if lost and keep > 1 - LEFT:
        cause = f"what was learned is not delivered: {keep:g} of the delivered weights are the base's own"
        return Check(rule, looked, figure, cause, "give --set retention.keep=0.5")
    if lost:
        cause = f"what was learned is not delivered: no later state was better on the validation rows, and {start}"
        return Check(rule, looked, figure, cause, _other_rate(lost, True))
    return Check(rule, looked, figure)


def _dead(history: History, moved: Sequence[Moved]) -> Moved | None:
    """What trains of the base, where only weight decay moved it, at a rate that moved the head."""
    if [item.part for item in moved] != ["base", "head"]:
        return None
    base, head = moved
    asleep = base.trained <= DEAD * history.decay and FAR_BELOW * base.rate >= base.usual
    return base if asleep and head.trained > HARDLY else None


def _looser(history: History, clip: float | None) -> str:
    """Where gradients are clipped to next to nothing, what to do about that."""
    return "give --set training.clip=1" if clip is not None and clip < TIGHT * median(history.norms) else ""


def gradients(history: History, moved: Sequence[Moved], clip: float | None) -> Check:
    """By the norm of the gradients, where the loss does not explain it."""
    looked, rule = "gradient norm", "gradients"
    norms = history.norms
    if len(norms) < FEWEST or not any(norms):
        return Check(rule, looked, "too few steps to tell" if len(norms) < FEWEST else "none")
    first, rest, last = median(norms[:5]), median(norms[history.fifth :]), median(norms[-history.fifth :])
    most = _brief(max(norms))
    figure = f"{_brief(first)} at the start, {_brief(last)} at the end, {most} at most"
    if max(rest, last) < VANISHED * first and history.end > 0.5 * history.losses[0]:
        cause = (
            f"the gradients vanished: their norm fell from {_brief(first)} to {_brief(last)} while the loss stayed at "
            f"{history.end:.3g}: what trains no longer reaches the output"
        )
        return Check(rule, looked, figure, cause, _other_rate(moved, True))
    if last > EXPLODED * first and history.end > history.start:
        cause = f"the gradients grew from {_brief(first)} to {_brief(last)}, and the loss with them"
        fix = "give --set training.clip=1" if clip is None else _other_rate(moved, True)
        return Check(rule, looked, figure, cause, fix)
    return Check(rule, looked, figure)


def _other_rate(moved: Sequence[Moved], down: bool) -> str:
    """The method's own rate where the given one is far from it, else a tenth or ten times."""
    known = [item for item in moved if item.usual > 0]
    off = [item for item in known if (item.rate > 3 * item.usual if down else 3 * item.rate < item.usual)]
    if off:
        sets = " ".join(f"--set {item.setting}={_plain(item.usual)}" for item in off)
        return f"give {sets}, what the method takes for this base by itself"
    if not moved:
        return "give another training.rate"
    first = moved[0]
    times, words = (0.1, "a tenth") if down else (10.0, "ten times as much")
    return f"give --set {first.setting}={_plain(first.rate * times)}, {words}"


def _metric_fell(history: History) -> str | None:
    before = history.before
    if before is None or len(history.held) < 2:
        return None
    last = history.held[-1]
    worse = last.value - before.value if history.lower else before.value - last.value
    if worse <= ERRORS * math.hypot(before.error, last.error) or worse <= 0:
        return None
    return f"{history.metric} on the validation rows went from {before.value:.3f} before the first step to {last.value:.3f}"


def _of_metric(history: History) -> str:
    if history.before is None or len(history.held) < 2:
        return ""
    return (
        f"; {history.metric} {history.before.value:.3f} before the first step, {history.held[-1].value:.3f} at the end"
    )


def _loss_change(history: History) -> float | None:
    before = history.before
    return (
        None if before is None or len(history.held) < 2 or before.loss == 0 else history.held[-1].loss / before.loss - 1
    )


def share_of(value: float) -> str:
    if value == 0:
        return "0 %"
    return "much" if math.isinf(value) else f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def _brief(norm: float) -> str:
    return f"{norm:,.0f}" if norm >= 100 else f"{norm:.2g}"


def _signed_share(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _plain(rate: float) -> str:
    """1e-4, 1.5e-3, 0.01."""
    if rate >= 0.01 or rate == 0:
        return f"{rate:.3g}"
    digits, _, power = f"{rate:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
