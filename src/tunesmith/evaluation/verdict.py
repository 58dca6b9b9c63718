"""Did it help? One paragraph that a person with a deadline can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

from tunesmith.evaluation.cost import Cost, beside_said, watt_hours
from tunesmith.evaluation.groups import drawn_in, too_few
from tunesmith.evaluation.intervals import Interval, best_of
from tunesmith.evaluation.significance import MCNEMAR, OF_GROUPS, PERMUTATION, Significance
from tunesmith.evaluation.wording import (
    count,
    duration,
    figures,
    gain_with_interval,
    memory,
    metric_title,
    p_value,
    rows_of,
    short_count,
    with_interval,
)

PROBE, TFIDF, MAJORITY = "probe", "tfidf", "majority"
TFIDF_LABELS, FREQUENT = "tfidf_labels", "frequent_labels"
TFIDF_RIDGE, MEDIAN = "tfidf_ridge", "median"
COSINE = "cosine"
NEIGHBOURS, ZERO_SHOT = "neighbours", "zero_shot"
PROMPT, OWN_HEAD = "prompt", "own_head"
FREQUENT_TAG = "frequent_tag"
BASE, FREQUENT_ANSWER, FREQUENT_TOKEN = "base", "frequent_answer", "frequent_token"
FREQUENT_TARGET, LEAD = "frequent_target", "lead"
TFIDF_COSINE = "tfidf_cosine"
SLIDING_WINDOW, NO_ANSWER = "sliding_window", "no_answer"
PIXELS = "pixels"
SCRATCH = "scratch"
PHRASES = {
    PROBE: "the frozen features with a new head",
    TFIDF: "TF-IDF with logistic regression",
    MAJORITY: "always the most frequent class",
    TFIDF_LABELS: "TF-IDF with logistic regression",
    FREQUENT: "every label by its frequency",
    TFIDF_RIDGE: "TF-IDF with ridge regression",
    MEDIAN: "always the median",
    COSINE: "the untouched base's cosine similarity",
    NEIGHBOURS: "the nearest training rows by the frozen features",
    ZERO_SHOT: "the label whose name is nearest by the untouched base",
    PROMPT: "the untouched base asked in words",
    OWN_HEAD: "the untouched base with its own head",
    FREQUENT_TAG: "the most frequent tag of every word",
    BASE: "the untouched base",
    FREQUENT_TOKEN: "every token by its frequency",
    FREQUENT_ANSWER: "the most frequent token and answer",
    FREQUENT_TARGET: "the most frequent token and target",
    LEAD: "the most frequent token, and the input's own first words",
    TFIDF_COSINE: "the cosine similarity of TF-IDF",
    SLIDING_WINDOW: "the words that stand nearest to the question's",
    NO_ANSWER: "never answering",
    PIXELS: "logistic regression on small pixels",
    SCRATCH: "the same architecture from random weights",
}
# They know nothing of the text, or of a word's neighbours.
FLOORS = (MAJORITY, FREQUENT, MEDIAN, FREQUENT_TAG, FREQUENT_ANSWER, FREQUENT_TOKEN, FREQUENT_TARGET, LEAD, NO_ANSWER)
OF_BASE = (PROBE, BASE, COSINE, OWN_HEAD, NEIGHBOURS, ZERO_SHOT, PROMPT)  # rivals that are the base as pretrained
CHEAPER = {  # after "For now the cheaper choice is"
    PROBE: "--method head",
    COSINE: "the base as it is, without any training",
    BASE: "the base as it is, without any training",
    NEIGHBOURS: "to look up the most similar training rows with the untouched base and copy what they have, without any "
    "training",
    ZERO_SHOT: "to take the label whose name the untouched base finds most similar, without any training",
    PROMPT: "to ask the untouched base in words, without any training",
    OWN_HEAD: "the base as it is, with the head that it came with",
    TFIDF: "TF-IDF with logistic regression, without a pretrained model",
    TFIDF_LABELS: "TF-IDF with logistic regression, without a pretrained model",
    TFIDF_RIDGE: "TF-IDF with ridge regression, without a pretrained model",
    TFIDF_COSINE: "the cosine similarity of TF-IDF, without a pretrained model",
    SLIDING_WINDOW: "to take the words that stand nearest to the question's, without a pretrained model",
    PIXELS: "logistic regression on small pixels, without a pretrained model",
}
TESTS = {
    MCNEMAR: "McNemar's exact test",
    PERMUTATION: "a paired permutation test",
    OF_GROUPS: "a paired permutation test of whole groups",
}
SMALL = 100  # test rows below which a single row moves the metric by more than 0.01
POWER = 0.8  # customary chance of seeing a difference that is there (Cohen 1988)
UNREACHABLE = 10_000_000  # test rows beyond which a number would be of no use to anyone


@dataclass(frozen=True)
class Choice:
    """A rival that it has not been shown to be worth taking the model before."""

    name: str
    gain: Interval  # of the model over it
    p: float


@dataclass(frozen=True)
class Verdict:
    helped: bool | None  # None: cannot tell
    paragraph: str  # all of what follows, in this order
    lead: str = ""  # what came of it, how good it is, and against what
    base: str = ""  # what it is against the base alone, where another rival decides
    doubt: str = ""  # why it cannot be told, and what it would take
    cost: str = ""
    warnings: tuple[str, ...] = ()
    brackets: str = ""  # what the figures in brackets are
    choice: Choice | None = None  # None where it helped, and where nothing can be compared


def verdict_of(
    helped: bool | None,
    lead: str,
    base: str,
    doubt: str,
    cost: str,
    warnings: Sequence[str],
    brackets: str,
    choice: Choice | None = None,
) -> Verdict:
    told = " ".join(part for part in (lead, base, doubt, cost, *warnings, brackets) if part)
    return Verdict(helped, told, lead, base, doubt, cost, tuple(warnings), brackets, choice)


@dataclass(frozen=True)
class _Words:
    """The same three answers, for a changed base and for a head on an unchanged one."""

    yes: str
    no: str
    unclear: str


_CHANGED = _Words("Fine-tuning helped", "Fine-tuning did not pay", "It cannot be told whether fine-tuning helped")
_FROZEN = _Words(
    "The pretrained features helped",
    "The pretrained features did not pay",
    "It cannot be told whether the pretrained features helped",
)


def judge(
    metric: str,
    result: Interval,
    baselines: Mapping[str, Interval],
    gains: Mapping[str, Interval],
    tests: Mapping[str, Significance],
    cost: Cost,
    rows_tested: int,
    method: str,
    confidence: float = 0.95,
    counted: bool = True,
    lower: bool = False,
    unchanged: str = "",
    groups: int | None = None,
) -> Verdict:
    """The verdict against the best baseline.

    metric: name of the metric that `result`, `baselines` (by name) and `gains` (result less baseline, paired) are in.
    tests: of each baseline whether its gain could be luck. A baseline of which the metric is undefined (nan) is no rival.
    method: "head" is itself the probe, so a baseline called "probe" is then left out.
    confidence: coverage of the intervals.
    counted: whether the metric is a share of the test rows, each a hit or a miss.
    lower: whether less of the metric is better; `gains` are then how much less.
    unchanged: why what is delivered is the state before the first step; "" where steps changed it.
    groups: into how many groups the test rows fall, where whole groups were drawn and swapped (`Scores.groups`).

    It helped, or did not pay, only when two agree: the paired interval leaves out 0, and p is below 1 - confidence. The
    bootstrap alone is too sure of a few rows, of which a test counts every way they could have fallen. Where they do not
    agree, it cannot be told, and the paragraph says which of them holds back. One comparison decides, that with the best
    baseline, so its p is the plain one; `Significance.adjusted` is for who reads all of them.
    """
    others = {name: interval for name, interval in baselines.items() if not (method == "head" and name == PROBE)}
    rivals = {name: interval for name, interval in others.items() if not math.isnan(gains[name].value)}
    measured = f"{metric_title(metric)} {with_interval(result)} on {rows_of(rows_tested, 'test row')}"
    closing = (
        _cost(cost),
        _warnings(result, rivals, gains, tests, rows_tested, counted, lower, confidence, groups),
        _brackets(confidence, [tests[name].test for name in rivals], groups),
    )
    best = best_of({name: interval.value for name, interval in rivals.items()}, lower)
    if best is None:
        return verdict_of(None, *_alone(metric, measured, result, others), *closing)
    gain, test = gains[best], tests[best]
    sure, told = test.p < 1 - confidence, _gain_said(gain, test, lower)
    words = _FROZEN if method == "head" else _CHANGED
    against = f"against {figures(rivals[best].value)[0]} for {PHRASES.get(best, best)}"
    # What changing the base brought is a question of its own where a model without any base is the best rival.
    frozen = (
        f"Against {PHRASES[PROBE]} it is {_gain_said(gains[PROBE], tests[PROBE], lower)}."
        if PROBE in rivals and best != PROBE
        else ""
    )
    needed = _sign_test_rows(confidence)
    if unchanged and method != "head":
        opening = f"{words.no}: {unchanged}, so what is delivered is the base as it was pretrained."
        says = f"This model: {measured}, {against} ({told})."
        own = next((own for own in OF_BASE if own in rivals), best)
        return verdict_of(False, opening, says, "", *closing, Choice(own, gains[own], tests[own].p))
    if gain.low > 0 and sure:
        opening = f"{words.yes}: {measured}, {against} ({told})."
        return verdict_of(True, opening, frozen, "", *closing)
    choice = Choice(best, gain, test.p)
    if gain.high < 0 and sure:
        opening = f"{words.no}: {measured}, {against} ({told})."
        return verdict_of(False, opening, frozen, "", *closing, choice)
    opening = f"{words.unclear}: {measured}, {against} ({told})."
    reason = _reason(gain, test, sure, rows_tested if groups is None else groups, needed, groups is not None)
    least = needed / abs(gain.value) if counted and gain.value and groups is None else needed
    more = _rows_to_tell(gain, rows_tested, least, confidence, groups)
    return verdict_of(None, opening, frozen, f"{reason} {more}", *closing, choice)


def _alone(metric: str, measured: str, result: Interval, others: Mapping[str, Interval]) -> tuple[str, str, str]:
    """Lead, base and doubt where nothing can be compared: no rival was run, or the metric is undefined of one side."""
    if math.isnan(result.value):
        said = f"{metric_title(metric)} is undefined of what the model says of the test rows"
        return f"It cannot be told whether it helped: {said}.", "", "It may say the same of all rows: train longer."
    if others:
        names = ", ".join(PHRASES.get(name, name) for name in others)
        return f"There is nothing to compare with: {measured}, which is undefined of {names}.", "", ""
    return f"There is nothing to compare with: {measured}, and no baseline was run.", "", ""


def rows_needed(gain: Interval, rows_tested: int, confidence: float = 0.95) -> float:
    """Test rows at which a true difference of `gain.value` would be seen with 80 % chance; inf when it is 0.

    Normal approximation: n ((z_confidence + z_power) standard error / gain)^2 (Cohen 1988, section 2.4), the
    standard error taken from the interval's width and assumed to shrink with the square root of the rows.
    """
    if gain.value == 0:
        return math.inf
    reach = NormalDist().inv_cdf((1 + confidence) / 2)
    error = (gain.high - gain.low) / 2 / reach
    return rows_tested * ((reach + NormalDist().inv_cdf(POWER)) * error / gain.value) ** 2


def _gain_said(gain: Interval, test: Significance, lower: bool) -> str:
    """ "+0.012 [+0.005, +0.018], p = 0.03" """
    return f"{gain_with_interval(gain, lower)}, {p_value(test.p)}"


def _reason(gain: Interval, test: Significance, sure: bool, drawn: int, needed: int, grouped: bool) -> str:
    """`drawn`: how many rows, or groups of them, were drawn."""
    if drawn < needed:
        return f"Fewer than {needed} {'groups of test rows' if grouped else 'test rows'} can all go one way by luck."
    if gain.low <= 0 <= gain.high:
        but = f", although {TESTS[test.test]} would call it no luck: only where both agree it is taken for one"
        return f"The interval of the difference holds 0{but if sure else ''}."
    return f"The interval of the difference leaves out 0, but by {TESTS[test.test]} it can still be luck."


def _rows_to_tell(gain: Interval, rows_tested: int, least: float, confidence: float, groups: int | None) -> str:
    if groups == 1:
        return "One group says nothing of how much groups differ, so it cannot be said how many it takes."
    tested, of = (rows_tested, "test rows") if groups is None else (groups, "groups of test rows")
    if gain.value <= 0 and rows_tested < SMALL:
        return "No gain was seen, on few test rows: more of them could still show one."
    if gain.value <= 0:
        return f"There is no sign of a gain, so more {of} would hardly show one."
    wanted = max(rows_needed(gain, tested, confidence), least)
    if wanted > UNREACHABLE:
        return f"A difference this small cannot be settled by more {of}."
    target = _rounded(max(wanted, tested + 1))
    return (
        f"If the true difference is the one measured, it takes about {count(target)} {of} "
        f"({count(target - tested)} more) to show it."
    )


def _rounded(rows: float) -> int:
    """Up to two leading digits: more would claim to know what an approximation cannot."""
    step = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return math.ceil(rows / step) * step


def _sign_test_rows(confidence: float) -> int:
    """Fewest rows, all in favour of one side, of which a two-sided exact test is sure: 2 / 2^rows < 1 - confidence."""
    return math.floor(math.log2(2 / (1 - confidence))) + 1


def _cost(cost: Cost) -> str:
    parameters = (
        f"all {short_count(cost.total)}"
        if cost.trainable == cost.total
        else f"{short_count(cost.trainable)} of {short_count(cost.total)}"
    )
    energy = "" if cost.energy is None else f", {watt_hours(cost.energy.wh, cost.energy.is_estimate)}"
    spent = (
        f"{duration(cost.cpu_seconds, 'CPU')} ({duration(cost.seconds)} by the clock, "
        f"{memory(cost.peak_memory_mb)} of memory{energy})"
    )
    trained = f"trained {parameters} parameters on {rows_of(cost.rows, 'row')}"
    parts = beside_said(asdict(cost))
    return (
        f"It cost {spent} in all: {parts}. The delivered one {trained}." if parts else f"It cost {spent} and {trained}."
    )


def _warnings(
    result: Interval,
    rivals: Mapping[str, Interval],
    gains: Mapping[str, Interval],
    tests: Mapping[str, Significance],
    rows_tested: int,
    counted: bool,
    lower: bool,
    confidence: float,
    groups: int | None,
) -> list[str]:
    lines = []
    name = next((name for name in FLOORS if name in rivals), None)
    if name is not None and (gains[name].low <= 0 or tests[name].p >= 1 - confidence):
        least = figures(rivals[name].value)[0]
        lines.append(f"Warning: it has not been shown to do better than {PHRASES[name]} ({least}); do not use it.")
    if result.value == (0.0 if lower else 1.0):
        lines.append(
            "Warning: not one mistake in the test rows; make sure that they are new to the model and that the text "
            "does not hold the label."
        )
    if result.low == result.high:
        lines.append(
            "Warning: its interval has no width, since all test rows say the same; how far it is off is not known."
        )
    if rows_tested < SMALL:
        worth = f", one row is worth {1 / rows_tested:.3f}" if counted else " only"
        lines.append(f"Warning: with {rows_of(rows_tested, 'test row')}{worth}; take every figure as rough.")
    few = too_few(groups)
    return [*lines, f"Warning: {few}."] if few else lines


def _brackets(confidence: float, tests: Sequence[str], groups: int | None) -> str:
    by = f"; p is by {TESTS[tests[0]]}" if tests else ""
    return f"Brackets are {100 * confidence:g} % intervals over test rows{drawn_in(groups)}{by}."
