"""What the report of a run holds as evidence for advice, and the advice that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.table import shown
from tunesmith.evaluation.advice import DATA, STOP, Advice, advise
from tunesmith.evaluation.facts import Chosen, Climbed, Copies, Cut, Doubted, Facts, Fault, Forecast, Weak
from tunesmith.evaluation.intervals import Interval, binomial
from tunesmith.evaluation.verdict import FLOORS, SCRATCH
from tunesmith.tasks.base import CORRELATIONS

CURVE = "learning_curve"  # the panel of what more rows would bring
HEART = "overfitting"  # the rule of health by which training rows were learned by heart
MATTERS = 0.01  # of the metric, or of its value where it has no bounds, that a part of the rows must cost
FEWEST = 3  # test rows of a class that is named for its recall
NAMED = 2  # parts that are named
NAME = 60  # characters of a class's name that are shown


def advised(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with its advice: whether to stop, the paragraph, and each recommendation with its numbers.

    report: plain data, as `build_report` makes it; of a run without test rows what is known without them.
    """
    try:
        found = _plain(advise(facts_of(report)))
    except Exception as error:  # a model that is trained and measured is to have its report
        said = f"What to do next could not be told ({type(error).__name__}: {error}); please report it."
        found = {"stop": False, "paragraph": said, "items": []}
    return {**report, "advice": found}


def _plain(found: Advice) -> dict[str, Any]:
    items = [{"kind": item.kind, "sentence": item.sentence, "numbers": dict(item.numbers)} for item in found.items]
    return {"stop": found.stop, "paragraph": found.paragraph, "items": items}


def told_beside(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the evidence has to say beside the verdict, each line with its panel; not what the advice says anyway."""
    items = report["advice"]["items"]
    known = any(item["kind"] in (DATA, STOP) and "gain" in item["numbers"] for item in items)
    lines = zip(report["beside_of"], report["beside"], strict=True)
    return [(name, line) for name, line in lines if name != CURVE or not known]


def facts_of(report: Mapping[str, Any]) -> Facts:
    """What there is; what a report does not hold, as that of a quick run, is left out."""
    findings = {item["kind"]: item for item in reversed(report["findings"])}
    evidence, lower = report["evidence"], frozenset(report["lower"])
    rows = {split["name"]: split["rows"] for split in report["data"]["splits"]}
    metric = report.get("primary", "")
    folds = evidence.get("folds")
    values = _values(report, folds)
    curve = evidence.get(CURVE, {})
    faults, heart = _faults(evidence)
    value = values.pop("")
    choice = _choice(report["verdict"].get("choice"))
    return Facts(
        metric=metric,
        lower=metric in lower,
        free=_free(metric, lower, [value, *values.values()]),
        value=value,
        tested=(report.get("rows_tested", 0) if folds is None else folds["rows"]),
        trained=rows.get("train", 0),
        wrong=_wrong(report),
        steps=len(report["curves"]["losses"]),
        parameters=report["cost"]["total"],
        helped=report["verdict"]["helped"],
        choice=choice,
        floor=_floor(report, folds),
        compared=bool(report["baselines"]),
        rivals={name: known for name, known in values.items() if known is not None},
        scratch=_scratch(report, choice),
        copies=_copies(findings.get("leak_effect")),
        doubted=_doubted(findings.get("label_error")),
        torn=_torn([item for item in report["findings"] if item["kind"] in ("conflict", "near_conflict")], rows),
        forecast=_forecast(curve),
        weak=_weak(report),
        faults=faults,
        heart=heart,
        gap=_gap(findings.get("overfitting")),
        unknown=findings["unknown_tokens"]["numbers"]["share"] if "unknown_tokens" in findings else None,
        cut=_cut(findings.get("cut_text")),
        lost=_lost(report["findings"]),
        budget=findings["unkept"]["numbers"]["budget"] if "unkept" in findings else None,
        climbed=_climbed(evidence.get("ladder")),
        quick=bool(report["recipe"].get("evaluation", {}).get("quick", False)),
        curve=curve.get("unmeasured", ""),
        foldable=folds is None and _foldable(report),
    )


def _known(plain: Mapping[str, float | None]) -> Interval | None:
    """None of a metric that is undefined, or has no bounds."""
    edges = [plain[key] for key in ("value", "low", "high")]
    known = [edge for edge in edges if edge is not None]
    return Interval(*known) if len(known) == len(edges) else None


def _values(report: Mapping[str, Any], folds: Mapping[str, Any] | None) -> dict[str, Interval | None]:
    """The primary metric of the model (""), and of each rival; over all folds where there are folds."""
    if not report["metrics"]:
        return {"": None}
    primary = report["primary"]
    if folds is not None:
        return {"": _known(folds["metric"])} | {item["name"]: _known(item["metric"]) for item in folds["rivals"]}
    rivals = {item["name"]: _known(item["metrics"][primary]) for item in report["baselines"]}
    return {"": _known(report["metrics"][primary]), **rivals}


def _free(metric: str, lower: frozenset[str], values: Sequence[Interval | None]) -> bool:
    """Whether the metric has no bounds of its own, so that a difference says little without its value."""
    known = [item for item in values if item is not None]
    return metric not in CORRELATIONS and (metric in lower or any(item.high > 1 or item.low < 0 for item in known))


def _gains(report: Mapping[str, Any], folds: Mapping[str, Any] | None) -> dict[str, tuple[Interval, float]]:
    """Of each rival what the model has over it, and p."""
    if folds is not None:
        pairs = [(item["name"], item["gain"], item["p"]) for item in folds["rivals"]]
    else:
        pairs = [(name, gain, report["tests"][name]["p"]) for name, gain in report.get("gains", {}).items()]
    known = [(name, _known(gain), p) for name, gain, p in pairs]
    return {name: (gain, p) for name, gain, p in known if gain is not None}


def _floor(report: Mapping[str, Any], folds: Mapping[str, Any] | None) -> Chosen | None:
    """As the verdict warns: a rival that knows nothing of the text, and that the model is not shown to be better than."""
    gains = _gains(report, folds)
    name = next((name for name in FLOORS if name in gains), None)
    if name is None:
        return None
    gain, p = gains[name]
    return Chosen(name, gain, p) if gain.low <= 0 or p >= 1 - report["confidence"] else None


def _choice(plain: Mapping[str, Any] | None) -> Chosen | None:
    gain = None if plain is None else _known(plain["gain"])
    return None if plain is None or gain is None else Chosen(plain["name"], gain, plain["p"])


def _scratch(report: Mapping[str, Any], choice: Chosen | None) -> Chosen | None:
    """The same architecture from random weights, where pretraining is not shown to be better."""
    if choice is not None and choice.name == SCRATCH:
        return choice
    found = _gains(report, report["evidence"].get("folds")).get(SCRATCH)
    if found is None or (found[0].low > 0 and found[1] < 1 - report["confidence"]):
        return None
    return Chosen(SCRATCH, *found)


def _wrong(report: Mapping[str, Any]) -> int | None:
    """Test rows that are answered wrongly, of tasks with one class a row."""
    lines = report.get("per_class")
    if lines is None or "folds" in report["evidence"]:
        return None
    return sum(line["support"] - round(line["recall"] * line["support"]) for line in lines)


def _copies(found: Mapping[str, Any] | None) -> Copies | None:
    if found is None:
        return None
    numbers = found["numbers"]
    without = Interval(*(numbers[key] for key in ("without", "without_low", "without_high")))
    return Copies(found["count"], numbers["whole"], without, found["places"])


def _doubted(found: Mapping[str, Any] | None) -> Doubted | None:
    if found is None:
        return None
    numbers = found["numbers"]
    return Doubted(found["count"], numbers["rows"], found["places"], numbers["test"], numbers["right_all_the_same"])


def _torn(found: Sequence[Mapping[str, Any]], rows: Mapping[str, int]) -> Doubted | None:
    named = [place for item in found for place in item["places"]]
    places = list(dict.fromkeys(named))  # a copy of one row may be nearly the same as another
    count = sum(item["count"] for item in found) - (len(named) - len(places))
    among = max(sum(rows.values()), count)
    return Doubted(count, among, places) if count else None


def _forecast(curve: Mapping[str, Any]) -> Forecast | None:
    if not curve.get("ahead"):
        return None
    twice = curve["ahead"][0]
    gain = _known(twice["gain"])
    return None if gain is None else Forecast(curve["says"], curve["of"], gain, twice["times"] * curve["rows"])


def _weak(report: Mapping[str, Any]) -> list[Weak]:
    """Parts that are worse beyond chance; classes by their recall where no class has rows enough to be such a part."""
    slices, trained = report["evidence"].get("slices", {}), _trained(report)
    least = MATTERS * abs(slices.get("value", 0.0)) if slices.get("lower") else MATTERS
    found = [
        Weak(
            item["full"],
            value,
            item["others"],
            item["rows"],
            trained.get(item["name"]) if item["kind"] == "class" else None,
            item["costs"],
        )
        for item in slices.get("worst", ())
        if item["kind"] != "value" and item["costs"] >= least and (value := _known(item["value"])) is not None
    ]
    classes = [] if any(item.trained is not None for item in found) else _weak_classes(report)
    return sorted([*found, *classes], key=lambda item: -item.costs)[:NAMED]


def _weak_classes(report: Mapping[str, Any]) -> list[Weak]:
    """Classes too small to be a part of their own whose recall is below that of the others, beyond what is left open.

    By the exact intervals of both recalls, at a level that is shared out among the classes (Bonferroni).
    """
    lines = [line for line in report.get("per_class", ()) if line["support"]]
    tested = sum(line["support"] for line in lines)
    if "slices" not in report["evidence"] or not tested:
        return []
    hits = [round(line["recall"] * line["support"]) for line in lines]
    level = report["confidence"]
    found: list[Weak] = []
    for line, right in zip(lines, hits, strict=True):
        rows = line["support"]
        if rows < FEWEST or rows == tested:
            continue
        sure = 1 - (1 - level) / len(lines)
        own, others = (binomial(*of, sure) for of in ((right, rows), (sum(hits) - right, tested - rows)))
        costs = (others.value - own.value) * rows / tested
        if own.high < others.low and costs >= MATTERS:
            name, value = f"class {shown(line['label'], NAME)}", binomial(right, rows, level)
            found.append(Weak(name, value, others.value, rows, line.get("trained"), costs, "recall"))
    return found


def _trained(report: Mapping[str, Any]) -> dict[str, int]:
    """Of each class or label how many training rows have it."""
    lines = report.get("per_class", report.get("per_label", ()))
    return {line["label"]: line["trained"] for line in lines if "trained" in line}


def _faults(evidence: Mapping[str, Any]) -> tuple[list[Fault], Fault | None]:
    """The rules of health that are broken, and learning by heart, which is put right in another way."""
    checks = [item for item in evidence.get("health", {}).get("checks", ()) if item["cause"]]
    found = {item["rule"]: Fault(item["rule"], item["looked"], item["figure"], item["fix"]) for item in checks}
    return [fault for rule, fault in found.items() if rule != HEART], found.get(HEART)


def _gap(found: Mapping[str, Any] | None) -> Interval | None:
    if found is None or "gap" not in found["numbers"]:
        return None
    edges = [found["numbers"][key] for key in ("gap", "low", "high")]
    return None if None in edges else Interval(*edges)


def _cut(found: Mapping[str, Any] | None) -> Cut | None:
    if found is None:
        return None
    numbers = found["numbers"]
    return Cut(found["count"], numbers["rows"], numbers["share"], numbers["longer"])


def _lost(findings: Sequence[Mapping[str, Any]]) -> float | None:
    """The largest share that is lost of what the base knew; of a budget that is not kept what counts against it."""
    budgeted = [item["numbers"]["lost"] for item in findings if item["kind"] == "unkept"]
    measured = [item["numbers"].get("lost") for item in findings if item["kind"] == "retention"]
    known = [lost for lost in (budgeted or measured) if lost is not None]
    return max(known, default=None)


def _foldable(report: Mapping[str, Any]) -> bool:
    """Folds are made of one table, and not of rows in the order of time."""
    given = [split["name"] for split in report["data"]["splits"] if split["why"].startswith("given")]
    return not {"validation", "test"} & set(given) and report["recipe"].get("data", {}).get("time") is None


def _climbed(found: Mapping[str, Any] | None) -> Climbed | None:
    return Climbed(found["chosen"], len(found["rungs"]), found["why"]) if found is not None and found["rungs"] else None
