"""Classes that are never said, and numbers that are always the same: what a spoiled training, or too few rows, come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tunesmith.evaluation.health import Check, share_of

BY_CHANCE = 0.01  # probability, over all classes, that one of them is never said for its few test rows alone
RARE = 0.25  # of the median class's training rows: so many fewer are a cause by themselves
FLAT = 0.02  # of the spread of the true numbers: predictions with less are one number


@dataclass(frozen=True)
class Said:
    """How often one class is true among the test rows, and how often it is said."""

    name: str
    rows: int  # training rows
    truth: int
    predicted: int
    hits: int
    taken_for: str = ""  # what its test rows are most often said to be


def never_said(classes: Sequence[Said]) -> list[Said]:
    """Classes that the model hardly ever says, though it finds the others.

    One in fifty of its test rows at most; and not for having few of them: with half the recall of the other classes, all of
    them missed has a probability below `BY_CHANCE`, over all classes together (Bonferroni).
    """
    found = []
    hits, truth = sum(item.hits for item in classes), sum(item.truth for item in classes)
    for item in classes:
        others = truth - item.truth
        recall = (hits - item.hits) / others if others else 0.0
        missed = (1 - recall / 2) ** item.truth * len(classes)
        if item.rows > 0 and item.predicted <= item.truth / 50 and missed < BY_CHANCE:
            found.append(item)
    return found


def collapsed(classes: Sequence[Said], rate: str, split: str = "test") -> Check:
    """`rate`: what is to be done about a rate that is too high; "" where it is not. `split`: whose rows are counted."""
    looked, rule = f"what is said of the {split} rows", "collapsed class"
    said = sum(item.predicted > 0 for item in classes)
    figure = f"{said} of {len(classes)} classes are said"
    found = never_said(classes)
    if not found:
        return Check(rule, looked, figure)
    usual, names = median(item.rows for item in classes), ", ".join(f'"{item.name}"' for item in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    plural = "es are" if len(found) > 1 else " is"
    cause = f"{len(found)} class{plural} never said, or hardly ever: {names}{more}"
    worst = max(found, key=lambda item: item.truth)
    count = f'"{worst.name}" has {worst.truth:,} {split} rows and {worst.predicted:,} predictions'
    if rate:
        return Check(rule, looked, figure, f"{cause} ({count}), after training at too high a rate", rate)
    if worst.rows < RARE * usual:
        times = round(usual / worst.rows)
        cause += f" ({count}, and {worst.rows:,} training rows where the median class has {usual:g})"
        return Check(
            rule, looked, figure, cause, f'give more rows of "{worst.name}", or each of its training rows {times} times'
        )
    taken = f', and is taken for "{worst.taken_for}"' if worst.taken_for else ""
    with_it = f' and of "{worst.taken_for}"' if worst.taken_for else ""
    fix = f'read some training rows of "{worst.name}"{with_it}: mend their labels, or make one class of both'
    return Check(
        rule, looked, figure, f"{cause} ({count}{taken})", fix if with_it else f'look at the rows of "{worst.name}"'
    )


def constant(spread: Mapping[str, tuple[float, float]]) -> Check:
    """Of numbers: standard deviation of the truth and of the predictions, by target."""
    looked, rule = "spread of the predictions", "collapsed class"
    shares = {name: said / true for name, (true, said) in spread.items() if true > 0}
    figure = ", ".join(f"{name}: {share_of(value)} of the true values'" for name, value in shares.items())
    flat = [name for name, value in shares.items() if value < FLAT]
    if not flat:
        return Check(rule, looked, figure or "all true values are the same")
    cause = f"nearly the same number is predicted for every row of {', '.join(flat)}"
    return Check(rule, looked, figure, cause, "check that the text column holds what the number depends on")
