"""Ways to tell test rows apart: by length, by what is true of them, by columns that the user names, by brightness."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import PIXELS, Example, Text
from tunesmith.data.table import shown
from tunesmith.data.targets.numbers import number_of
from tunesmith.evidence.base import Subject

if TYPE_CHECKING:
    import numpy as np

QUARTERS = 4
FEW_NUMBERS = 10  # distinct numbers up to which each is a part of its own
MOST_VALUES = 20  # parts of a column of texts, the last of them "other"
NAME = 60  # characters of a value that is shown
SPACED = 3  # words of the middle text, below which texts are measured in characters
ASKING = ("what", "who", "whom", "whose", "when", "where", "why", "how", "which")
ASKED = 0.5  # share of the questions that hold one of these, below which they are in another language
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Slice:
    """Some of the test rows."""

    name: str  # as it stands in a list of its kind
    full: str  # as it stands alone
    rows: np.ndarray  # places in the test table, in order
    words: tuple[str, ...] = ()  # that set its texts apart
    typical: tuple[int, ...] = ()  # rows that stand for it


@dataclass(frozen=True)
class Family:
    """One way to tell rows apart."""

    kind: str
    title: str
    slices: tuple[Slice, ...]
    listed: bool = True  # whether the report shows all of them, rather than the worst
    told: bool = True  # whether a slice of it is worth a finding


def families(subject: Subject) -> list[Family]:
    """All but clusters; those with one slice only say nothing and are left out."""
    texts = [subject.task.readable(text) for text in subject.test.texts]
    found = [*_columns(subject)]
    if not subject.task.reads_pictures:
        found.append(_by_length(texts))
    elif subject.frozen is not None and "test" in subject.frozen.examples:
        found.append(_by_brightness(subject.frozen.examples["test"], len(texts)))
    found += [_by_question(texts)] if subject.task.part_name() == "question_answering" else []
    found += _by_truth(subject)
    return [family for family in found if len(family.slices) > 1]


def _by_length(texts: Sequence[Text]) -> Family:
    """Quarters by words, or by characters where texts hold hardly a space; of several texts all together."""
    import numpy as np

    whole = [text if isinstance(text, str) else " ".join(text) for text in texts]
    words = [len(text.split()) for text in whole]
    unit, sizes = ("words", words) if np.median(words) >= SPACED else ("characters", [len(text) for text in whole])
    made = quarters(np.array(sizes, dtype=np.float64), "texts of {} " + unit, f"{{}} {unit}", whole=True)
    return Family("length", f"By length, in {unit}", made)


def _by_brightness(examples: Sequence[Example], rows: int) -> Family:
    """Quarters by the mean of all pixels, in per cent of white."""
    import numpy as np

    light = np.full(rows, np.nan)
    for example in examples:
        light[example.source] = 100 * float(example.inputs[PIXELS].float().mean()) / 255
    return Family(
        "brightness", "By brightness, in % of white", quarters(light, "pictures of {} % of white", "{} %", whole=True)
    )


def _by_question(texts: Sequence[Text]) -> Family:
    """By the first word that asks, of English questions."""
    import numpy as np

    kinds = [_asking(text if isinstance(text, str) else text[0]) for text in texts]
    if sum(kind != "other" for kind in kinds) < ASKED * len(kinds):
        return Family("question", "", ())
    made = [
        Slice(kind, f'questions with "{kind}"' if kind != "other" else "other questions", rows)
        for kind in (*ASKING, "other")
        if len(rows := np.flatnonzero(np.array(kinds) == kind))
    ]
    return Family("question", "By question word", tuple(made))


def _asking(question: str) -> str:
    return next((word for word in WORD.findall(question.lower()) if word in ASKING), "other")


def _by_truth(subject: Subject) -> list[Family]:
    """By true class or label, and by true number; none where the truth is a text or a place in one."""
    import numpy as np

    truth, labels = subject.test.truth, subject.labels
    if labels.scale:
        numbers = np.array(truth, dtype=np.float64).reshape(len(truth), -1)
        return [
            Family(
                "value", f"By true {name}", quarters(numbers[:, place], f"true {name} {{}}", "{}"), told=False
            )
            for place, name in enumerate(labels.names)
            if place < MOST_VALUES
        ]  # fmt: skip
    known = set(labels.names)
    if all(isinstance(item, str) and item in known for item in truth):
        held, what = [(item,) for item in truth], "true class"
    elif labels.thresholds and all(isinstance(item, tuple) and set(item) <= known for item in truth):
        held, what = list(truth), "label"
    else:
        return []
    rows: dict[str, list[int]] = {name: [] for name in labels.names}
    for row, names in enumerate(held):
        for name in names:
            rows[name].append(row)
    made = [Slice(name, f"{what}: {shown(name, NAME)}", np.array(some)) for name, some in rows.items() if some]
    return [Family("class", f"By {what}", tuple(made), listed=False)]


def _columns(subject: Subject) -> list[Family]:
    """One for each column that the user names."""
    return [
        Family("column", f"By {name}", by_value(name, subject.test.table.columns[name]))
        for name in subject.recipe.data.sliced
        if name in subject.test.table.columns
    ]


def by_value(column: str, values: Sequence[Any]) -> tuple[Slice, ...]:
    """Of many numbers quarters; else one slice a value, of more than 20 the most frequent ones and "other"."""
    import numpy as np

    numbers = [number_of(value) for value in values]
    known = {number for number in numbers if number is not None}
    empty = np.array([value is None or value == "" for value in values])
    every = all(number is not None or gap for number, gap in zip(numbers, empty, strict=True))
    if every and len(known) > FEW_NUMBERS:
        sizes = np.array([np.nan if number is None else float(number) for number in numbers])
        made = quarters(sizes, f"{column}: {{}}", "{}", whole=all(number == int(number) for number in known))
        return (*made, Slice("(empty)", f"{column}: (empty)", np.flatnonzero(empty))) if empty.any() else made
    names = ["(empty)" if gap else str(value).strip() for value, gap in zip(values, empty, strict=True)]
    counts = Counter(names).most_common()
    kept = counts if len(counts) <= MOST_VALUES else counts[: MOST_VALUES - 1]
    if every:  # few numbers, such as stars: in their order
        kept = sorted(kept, key=lambda pair: math.inf if (size := number_of(pair[0])) is None else size)
    rows: dict[str | None, list[int]] = {name: [] for name, _ in kept}
    for row, name in enumerate(names):
        rows.setdefault(name if name in rows else None, []).append(row)
    others = f"other ({len(counts) - len(kept):,} values)"
    return tuple(
        Slice(said := others if name is None else shown(name, NAME), f"{shown(column, NAME)}: {said}", np.array(some))
        for name, some in rows.items()
    )


def quarters(values: np.ndarray, full: str, short: str, whole: bool = False) -> tuple[Slice, ...]:
    """Rows by the quarter of the values that they are in, each named by its lowest and highest value; nan is in none.

    Equal values stay together, so that there may be fewer than four. `full` and `short` have a place for the range.
    """
    import numpy as np

    filled = values[~np.isnan(values)]
    if not len(filled):
        return ()
    edges = np.unique(np.quantile(filled, np.arange(1, QUARTERS) / QUARTERS, method="lower"))
    side = np.searchsorted(edges, values, side="left")
    made = []
    for place in range(len(edges) + 1):
        rows = np.flatnonzero((side == place) & ~np.isnan(values))
        if len(rows):
            said = _range(float(values[rows].min()), float(values[rows].max()), whole)
            made.append(Slice(short.replace("{}", said), full.replace("{}", said), rows))
    return tuple(made)


def _range(low: float, high: float, whole: bool) -> str:
    one, other = (f"{value:,.0f}" if whole else f"{value:.4g}" for value in (low, high))
    return one if one == other else f"{one} to {other}"
