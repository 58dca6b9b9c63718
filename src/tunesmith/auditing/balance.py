"""How evenly the classes are filled."""

from __future__ import annotations

from collections import Counter

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.data.findings import Finding
from tunesmith.data.table import shown

NAME = "balance"
# How many times as many rows as the rarest class the most frequent one must have: from there on accuracy hides a class
# (He and Garcia 2009, section 1, speak of "significant" imbalance from 10:1 on and of 100:1 as usual).
RATIO = 10.0
CHANCE = 1e-4  # few rows drawn evenly can be as uneven as that by chance


def examine(material: Material) -> Examined:
    """Kinds: "imbalance" of the training rows, "untested" for classes that a given test or validation table lacks."""
    counts = {name: Counter(label for labels in material.labels(name) for label in labels) for name in material.tables}
    train = counts.get("train", Counter())
    if not train:
        return not_done(NAME, "does not apply: the targets are no classes", applies=False)
    most, least = train.most_common()[0], train.most_common()[-1]
    rows = len(material.tables["train"])
    said = f"{len(train)} classes of {least[1]:,} to {most[1]:,} training rows"
    findings = [*_uneven(material, train, rows), *_untested(material, counts)]
    return Examined(NAME, said, tuple(findings))


def _uneven(material: Material, train: Counter[str], rows: int) -> list[Finding]:
    from scipy.stats import chisquare

    (frequent, most), least = train.most_common()[0], min(train.values())
    if len(train) < 2 or most < RATIO * least or chisquare(list(train.values())).pvalue > CHANCE:
        return []
    rare = {label for label, count in train.items() if most >= RATIO * count}
    found = [Row("train", row) for row, labels in enumerate(material.labels("train")) if rare & set(labels)]
    named = ", ".join(
        f'"{shown(label, 30)}" {train[label]}' for label in sorted(rare, key=lambda one: (train[one], one))[:5]
    )
    more = ", ..." if len(rare) > 5 else ""
    share = f"; saying that of every row is right in {most / rows:.0%}" if material.one_class else ""
    what = (
        f'{"of the rarest classes" if len(rare) > 1 else "of the rarest class"} ({named}{more}), and "{shown(frequent, 30)}" '
        f"has {most:,}{share}"
    )
    advice = (
        "judge by a metric that counts classes alike (--set evaluation.metric=macro_f1), and add rows of the rare ones"
    )
    details = [" + ".join(material.labels("train")[row.row]) for row in found[:3]]
    return [material.finding("imbalance", found, what, advice, details)]


def _untested(material: Material, counts: dict[str, Counter[str]]) -> list[Finding]:
    findings = []
    for name in ("test",):
        if name not in material.given or name not in counts:
            continue
        lacking = sorted(set(counts["train"]) - set(counts[name]))
        if not lacking:
            continue
        found = [Row("train", row) for row, labels in enumerate(material.labels("train")) if set(labels) & set(lacking)]
        named = ", ".join(f'"{shown(label, 30)}"' for label in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        classes, them, these = (
            ("class", "it", "this class") if len(lacking) == 1 else ("classes", "them", "these classes")
        )
        what = f"of {len(lacking)} {classes} that no {name} row is of ({named}): the result says nothing about {them}"
        findings.append(material.finding("untested", found, what, f"add {name} rows of {these}"))
    return findings
