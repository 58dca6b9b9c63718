"""What to do next, from what was measured: more rows, cleaner rows, another base, another method, or nothing more.

Every rule reads figures of the report and says one sentence with them; where there are none it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tunesmith.errors import places_said
from tunesmith.evaluation.facts import Copies, Facts, Forecast, Weak
from tunesmith.evaluation.intervals import FEWEST, Interval
from tunesmith.evaluation.verdict import (
    CHEAPER,
    FLOORS,
    FREQUENT_ANSWER,
    FREQUENT_TARGET,
    FREQUENT_TOKEN,
    LEAD,
    PHRASES,
    PIXELS,
    PROBE,
    SCRATCH,
    TFIDF,
    TFIDF_LABELS,
    TFIDF_RIDGE,
)
from tunesmith.evaluation.wording import (
    count,
    figures,
    gain_in_words,
    gain_with_interval,
    metric_title,
    p_value,
    rows_of,
    sentence_case,
    short_count,
    with_interval,
)

MOST = 4  # recommendations: a person with a deadline does not read a fifth
PLACES = 3  # rows that are named, the most doubtful first
OF_TOKENS = (FREQUENT_ANSWER, FREQUENT_TOKEN, FREQUENT_TARGET, LEAD)
BASELESS = (TFIDF, TFIDF_LABELS, TFIDF_RIDGE, PIXELS)  # what a base's own features are to be better than
GAP = 0.05  # by which a share is surely better on training rows, from where on less change is worth a try
LOST = 0.25  # of what the base knew, from where on forgetting is told of
CUT = 0.01  # of all tokens: what is cut of fewer has hardly anything left to say
LITTLE = 0.005  # expected gain of cleaning below which it is not all that there is to say
LABELS = 0.5  # of the mistakes on test rows: as many of their labels likely wrong, and a better model hardly shows
DATA, CLEAN, BASE, METHOD, STOP, EVIDENCE = "data", "clean", "base", "method", "stop", "evidence"
ORDER = (CLEAN, DATA, METHOD, BASE, EVIDENCE)  # of those that are expected to bring as much


@dataclass(frozen=True)
class Recommendation:
    """One thing to do. kind: "data", "clean", "base", "method", "stop", or "evidence" for what would tell more."""

    kind: str
    sentence: str
    numbers: Mapping[str, float]
    expected: float = 0.0  # gain as a share of the metric's range, or of its value where it has none
    first: bool = False  # before anything else is concluded
    settled: bool = False  # it says what to take as things are, so that one may stop there


@dataclass(frozen=True)
class Advice:
    items: tuple[Recommendation, ...]

    @property
    def paragraph(self) -> str:
        return " ".join(item.sentence for item in self.items)

    @property
    def stop(self) -> bool:
        return any(item.kind == STOP for item in self.items)


def advise(facts: Facts) -> Advice:
    """At most four recommendations, what is expected to bring most first, and last whether to stop.

    What must be put right before the figures mean anything comes first of all: where test rows are copies of training rows
    nothing else is said. "stop" is never said beside more rows, cleaner rows or another training that are worth it.
    """
    if facts.copies is not None:
        return Advice((_copies(facts.copies),))  # a rival that copies gains more by them than one that learns
    said = [*_clean(facts), *_data(facts), *_trained_badly(facts), *_method(facts), *_base(facts), *_unmeasured(facts)]
    said.sort(key=lambda item: (not item.first, -item.expected, ORDER.index(item.kind)))
    stop = _stop(facts, [item for item in said if not item.settled])
    if stop is not None:
        said = [item for item in said if item.kind != DATA][: MOST - 1]
    found = [*said[:MOST], *([] if stop is None else [stop])]
    if stop is None and all(item.kind == CLEAN and item.expected < LITTLE for item in found):
        found.append(_evidence(facts, bool(found)))
    return Advice(tuple(found))


def _share(facts: Facts, gain: float) -> float:
    """A gain as what recommendations are put in order by."""
    known = facts.value is not None and facts.value.value != 0 and facts.free
    return gain / abs(facts.value.value) if known and facts.value is not None else gain


def _percent(share: float) -> str:
    """ "3.4 %", "0.042 %": never a share that is there as 0."""
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def _named(places: Sequence[str], rows: int) -> str:
    """Where the first rows stand, "file:line", each file without its folder, which is told elsewhere."""
    first = [PurePath(place).name for place in places]
    return f": {places_said(first, PLACES, rows)}" if first else ""


def _copies(found: Copies) -> Recommendation:
    without = with_interval(found.without)
    sentence = (
        f"Before you choose by these figures: {rows_of(found.rows, 'test row')} with nearly the same text in train move "
        f"them, from {without} without these rows to {figures(found.whole)[0]}; take their copies out of train, and run "
        f"again{_named(found.places, found.rows)}."
    )
    numbers = {"rows": found.rows, "whole": found.whole, "without": found.without.value}
    return Recommendation(CLEAN, sentence, numbers, first=True)


def _clean(facts: Facts) -> Iterator[Recommendation]:
    found = facts.doubted
    if found is not None:
        share = found.rows / found.among
        inside = f", {count(found.tested)} of them test rows" if found.tested else ""
        spared = f"; about {count(found.right)} of them may be right all the same" if found.right else ""
        sentence = (
            f"Read the labels of {count(found.rows)} of {rows_of(found.among, 'row')} ({_percent(share)}{inside}) that are "
            f"likely wrong, the most doubtful first{_named(found.places, found.rows)}{spared}."
        )
        numbers = {"rows": found.rows, "share": share, "test": found.tested, "right_all_the_same": found.right}
        yield Recommendation(CLEAN, sentence, numbers, (found.rows - found.right) / found.among)
    torn = facts.torn
    if torn is not None:
        share = torn.rows / torn.among
        sentence = (
            f"Decide which label is right in {rows_of(torn.rows, 'row')} ({_percent(share)}) whose text has another label "
            f"elsewhere{_named(torn.places, torn.rows)}."
        )
        yield Recommendation(CLEAN, sentence, {"rows": torn.rows, "share": share}, share / 2)


def _foretold(facts: Facts, found: Forecast) -> str:
    by = "the frozen features' curve" if found.of == "frozen" else "this method's own curve"
    much = gain_in_words(found.gain, facts.metric, facts.lower)
    return f"twice the training rows ({count(found.rows)}) are foretold to bring {much}, by {by}"


def _data(facts: Facts) -> Iterator[Recommendation]:
    found = facts.forecast
    first = "; ".join(_weak(facts, item) for item in facts.weak[:2])
    costs = {"costs": facts.weak[0].costs, "on_it": facts.weak[0].value.value} if facts.weak else {}
    expected = _share(facts, facts.weak[0].costs) if facts.weak else 0.0
    if found is not None and found.says in ("helps", "hardly"):
        numbers = {
            "gain": found.gain.value,
            "low": found.gain.low,
            "high": found.gain.high,
            "rows": found.rows,
            **costs,
        }
        if found.says == "helps":
            begin = f"; begin where it is worst, {first}" if first else ""
            sentence = f"Add rows to learn from: {_foretold(facts, found)}{begin}."
            yield Recommendation(DATA, sentence, numbers, _share(facts, max(found.gain.value, 0.0)))
        else:
            begin = f"; if you add any, begin where it is worst, {first}" if first else ""
            sentence = f"Do not add rows of the same kind: {_foretold(facts, found)}, which is hardly anything{begin}."
            yield Recommendation(DATA, sentence, numbers, expected, settled=not first)
    elif first:
        yield Recommendation(DATA, f"If you add rows, begin where it is worst: {first}.", costs, expected)


def _weak(facts: Facts, item: Weak) -> str:
    learned = "" if item.trained is None else f", {rows_of(item.trained, 'training row')}"
    value = f"{metric_title(item.metric or facts.metric)} {with_interval(item.value)}"
    others = f"{figures(item.others)[0]} on the others"
    return f"{item.what} ({value} on {rows_of(item.rows, 'test row')}, {others}{learned})"


def _trained_badly(facts: Facts) -> Iterator[Recommendation]:
    for item in facts.faults[:2]:
        seen = f"; {item.looked}: {item.figure}" if item.figure else ""
        sentence = f"Train again first, and {item.fix} ({item.rule}, {rows_of(facts.steps, 'step')}{seen})."
        yield Recommendation(METHOD, sentence, {"steps": facts.steps}, first=True)
    worse = "" if facts.gap is None else f"; {metric_title(facts.metric)} is {_gap(facts.gap)} better on training rows"
    numbers = {} if facts.gap is None else {"gap": facts.gap.value, "low": facts.gap.low, "high": facts.gap.high}
    if facts.heart is not None:
        heart = facts.heart
        sentence = f"{sentence_case(heart.fix)} ({heart.looked}: {heart.figure}){worse}."
        yield Recommendation(METHOD, sentence, {"steps": facts.steps, **numbers})


def _gap(gap: Interval) -> str:
    value, low, high = figures(gap.value, gap.low, gap.high)
    return f"{value} [{low}, {high}]"


def _method(facts: Facts) -> Iterator[Recommendation]:
    choice = facts.choice
    if choice is not None and choice.name != SCRATCH:
        numbers = {"gain": choice.gain.value, "low": choice.gain.low, "high": choice.gain.high, "p": choice.p}
        against = f"{gain_with_interval(choice.gain, facts.lower)}, {p_value(choice.p)}"
        what = PHRASES.get(choice.name, choice.name)
        floor = choice.name in FLOORS
        if choice.name in OF_TOKENS:
            sentence = (
                f"Train longer (training.epochs), raise training.rate, or give more text first: against {what} this model is "
                f"{against}."
            )
        elif floor:
            sentence = (
                "Check the label column, the learning rate and the number of epochs first: against "
                f"{what} this model is {against}."
            )
        else:
            few = (
                f", which leaves {short_count(facts.parameters)} parameters as they are" if choice.name == PROBE else ""
            )
            heart = ""
            if facts.gap is not None and facts.gap.low >= GAP and not facts.free:
                heart = f", and {_gap(facts.gap)} better on its training rows than on test rows"
            sentence = (
                f"For now the cheaper choice is {CHEAPER.get(choice.name, choice.name)}{few}: against it this model is "
                f"{against}{heart}."
            )
        expected = _share(facts, max(0.0, -choice.gain.value)) if choice.gain.high < 0 else 0.0
        yield Recommendation(METHOD, sentence, numbers, expected, first=floor, settled=not floor)
    if facts.cut is not None and facts.cut.share >= CUT:
        cut = facts.cut
        much = f"{100 * cut.share:.1f} % of all tokens are cut, in {count(cut.rows)} of {rows_of(cut.among, 'row')}"
        numbers = {"share": cut.share, "rows": cut.rows}
        if cut.longer:
            sentence = f"Read longer texts with --set training.max_length={cut.longer}: {much}."
            yield Recommendation(METHOD, sentence, numbers)
        else:
            sentence = f"Shorten the texts, or take a base that reads longer ones: {much}."
            yield Recommendation(BASE, sentence, numbers)
    yield from _forgotten(facts)
    if facts.climbed is not None:
        tried = rows_of(facts.climbed.rungs, "method")
        sentence = f"Of {tried} tried {facts.climbed.method} was taken: {facts.climbed.why}."
        yield Recommendation(METHOD, sentence, {"tried": facts.climbed.rungs}, expected=-1.0, settled=True)


def _forgotten(facts: Facts) -> Iterator[Recommendation]:
    if facts.lost is None:
        return
    numbers = {"lost": facts.lost} | ({} if facts.budget is None else {"budget": facts.budget})
    if facts.budget is not None:
        sentence = (
            f"The budget of {100 * facts.budget:g} % is not kept, with {100 * facts.lost:.3g} % lost: set retention.anchor "
            "or retention.distill, or train with a method that changes less."
        )
        yield Recommendation(METHOD, sentence, numbers, first=True)
    elif facts.lost >= LOST:
        sentence = (
            f"Where the base is to keep what it knew, give --set retention.keep=auto: {100 * facts.lost:.0f} % of what is "
            "measured of it is lost."
        )
        yield Recommendation(METHOD, sentence, numbers, settled=True)


def _base(facts: Facts) -> Iterator[Recommendation]:
    if facts.unknown is not None:
        sentence = (
            f"Choose a base that was made for this language and these signs: {100 * facts.unknown:.1f} % of all tokens are "
            "unknown to this one."
        )
        yield Recommendation(BASE, sentence, {"unknown": facts.unknown})
    probe, better = facts.rivals.get(PROBE), _without_base(facts)
    if facts.scratch is not None:
        gain = facts.scratch.gain
        sentence = (
            "Look for a base that knows more of such texts: over the same architecture from random weights this model is "
            f"{gain_with_interval(gain, facts.lower)}, {p_value(facts.scratch.p)}, so pretraining brought nothing that these "
            "rows can show."
        )
        yield Recommendation(BASE, sentence, {"gain": gain.value, "low": gain.low, "high": gain.high})
    elif facts.helped is not True and probe is not None and better is not None:
        name, value = better
        sentence = (
            f"Try another base (tunesmith rank compares some): a new head on this one's features has "
            f"{metric_title(facts.metric)} {with_interval(probe)}, no better than {PHRASES[name]} without any base, "
            f"{with_interval(value)}."
        )
        yield Recommendation(BASE, sentence, {"probe": probe.value, name: value.value})


def _without_base(facts: Facts) -> tuple[str, Interval] | None:
    """A rival without any base that is as good as the base's own features; None where there is none."""
    probe = facts.rivals.get(PROBE)
    for name in BASELESS:
        value = facts.rivals.get(name)
        if probe is not None and value is not None:
            best = value.value <= probe.value if facts.lower else value.value >= probe.value
            return (name, value) if best else None
    return None


def _stop(facts: Facts, open_items: Sequence[Recommendation]) -> Recommendation | None:
    """`open_items`: what there is still to do."""
    value, found, wrong = facts.value, facts.forecast, facts.wrong
    if value is None:
        return None
    doubted = facts.doubted
    others = [item for item in open_items if item.kind != CLEAN]
    if wrong and doubted is not None and not others and (found is None or found.says != "helps"):
        likely = round(doubted.tested * (1 - doubted.right / doubted.rows))
        if likely < LABELS * wrong:
            return None
        sentence = (
            f"Beyond that stop: of {rows_of(facts.tested, 'test row')} {count(wrong)} are answered wrongly, and about "
            f"{count(likely)} have a label that is likely wrong."
        )
        return Recommendation(STOP, sentence, {"wrong": wrong, "doubted": likely})
    if open_items:
        return None
    if wrong == 0:
        most = 1 - 0.05 ** (1 / facts.tested)  # Clopper and Pearson 1934, one side
        more = "" if facts.tested >= FEWEST else ", or hold out more"
        sentence = (
            f"Stop here{more}: not one of {rows_of(facts.tested, 'test row')} is answered wrongly, so they show no better, "
            f"though up to {_percent(most)} of all such rows may be (95 %)."
        )
        return Recommendation(STOP, sentence, {"wrong": 0, "tested": facts.tested, "most": most})
    if found is None or found.says == "helps":
        return None
    reach = (value.high - value.low) / 2
    numbers = {"gain": found.gain.value, "low": found.gain.low, "high": found.gain.high, "reach": reach}
    itself = f"{metric_title(facts.metric)} is known to {with_interval(value)}"
    if found.says == "hardly":
        return Recommendation(STOP, f"Stop here: {_foretold(facts, found)}, and {itself}.", numbers)
    if 0 < found.gain.high < reach and not facts.weak:
        more = f"With {rows_of(facts.tested, 'test row')} stop here, or hold out more"
        sentence = f"{more}: {_foretold(facts, found)}, and {itself}."
        return Recommendation(STOP, sentence, numbers)
    return None


def _unmeasured(facts: Facts) -> Iterator[Recommendation]:
    """What has to be measured before anything can be said of its worth."""
    floor = facts.floor
    if floor is not None and (facts.choice is None or facts.choice.name not in FLOORS):
        numbers = {"gain": floor.gain.value, "low": floor.gain.low, "high": floor.gain.high, "p": floor.p}
        how = "--folds 5 would test it on all rows" if facts.foldable else "test it on more rows"
        sentence = (
            f"Do not use it before it is shown to be better than {PHRASES[floor.name]}: on "
            f"{rows_of(facts.tested, 'test row')} it is {gain_with_interval(floor.gain, facts.lower)}, {p_value(floor.p)}; "
            f"{how}."
        )
        yield Recommendation(EVIDENCE, sentence, numbers, first=True)
    if not facts.tested:
        sentence = (
            f"Hold some of the {rows_of(facts.trained, 'row')} out with data.test, or measure it on labelled rows that it "
            "has not seen: tunesmith evaluate."
        )
        yield Recommendation(EVIDENCE, sentence, {"trained": facts.trained})
    elif not facts.compared:
        sentence = (
            "Set evaluation.baselines to true to learn whether it was worth it: nothing was compared on the "
            f"{rows_of(facts.tested, 'test row')}."
        )
        yield Recommendation(EVIDENCE, sentence, {"tested": facts.tested})


def _evidence(facts: Facts, more: bool) -> Recommendation:
    """Which option would tell more, where nothing that was measured points anywhere; `more`: but to a few rows."""
    if facts.quick:
        how = "without --quick a run tells what more rows would bring, which labels are likely wrong, and where it is worse"
    elif "evaluation.curve" in facts.curve:
        how = "evaluation.curve=method tells what more rows would bring"
    elif facts.foldable:
        how = "--folds 5 would test all rows, so that more can be told"
    else:
        how = "more rows to test on would tell more"
    nothing = "Nothing more" if more else "Nothing"
    sentence = f"{nothing} that was measured on {rows_of(facts.tested, 'test row')} says what to do next: {how}."
    return Recommendation(EVIDENCE, sentence, {"tested": facts.tested})
