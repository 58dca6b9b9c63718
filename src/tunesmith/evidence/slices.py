"""On which of the test rows the model does worse than on the others, beyond what chance makes of any such part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.findings import SHOWN_PLACES, Finding
from tunesmith.data.images import Picture
from tunesmith.data.table import shown
from tunesmith.evaluation.intervals import Interval, bootstrap
from tunesmith.evaluation.subsets import apart, by_row, chances, comparable, holm, narrowed
from tunesmith.evaluation.wording import figures, metric_title, rows_of, with_interval
from tunesmith.evidence._clusters import clusters
from tunesmith.evidence._families import Family, Slice, families
from tunesmith.evidence._sheet import sheet
from tunesmith.evidence.base import Found, Subject
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

FEWEST = 20  # rows of a slice that is compared, and of the rest
RESAMPLES = 500  # at most: there are many slices, and each interval is one of many
MATTERS = 0.01  # by so much the metric of all rows would be better, were a slice as good as the rest
WORST = 12  # slices that are listed as worse
TOLD = 3  # slices of one finding
EXCERPT = 140  # characters of an example
THUMBNAIL = 56  # pixels


@dataclass(frozen=True)
class Weighed:
    """A slice beside all other rows."""

    family: Family
    slice: Slice
    value: Interval
    others: float
    better: Interval  # than the others; below 0 where it is worse
    chance: float | None  # corrected for how many were compared; None where it was not

    def costs(self, rows: int) -> float:
        """By how much the metric of all rows would be better, were these rows as good as the others; about."""
        return -self.better.value * len(self.slice.rows) / rows


def gather(subject: Subject) -> Found | None:
    """Slices by kind, the worse ones first of all; None where there are too few test rows for two slices."""
    pictures = sheet(subject)
    scores, rows = _of_rows(subject.test.scores)
    if len(rows) < 2 * FEWEST:
        return None if pictures is None else Found({"sheet": pictures})
    groups = clusters(subject)
    ways = [*families(subject), *([] if groups is None or len(groups.slices) < 2 else [groups])]
    level = 1 - subject.recipe.evaluation.confidence
    values, taken = by_row(scores, subject.recipe.seed)
    each = dict(zip(rows[taken].tolist(), values.tolist(), strict=True))
    weighed = _weighed(subject, scores, rows, ways, values, taken)
    whole = scores.value()
    worse = sorted(
        (item for item in weighed if item.chance is not None and item.chance <= level and item.better.value < 0),
        key=lambda item: -item.costs(len(rows)),
    )
    data = {
        "metric": scores.primary,
        "lower": scores.primary in scores.lower,
        "value": whole,
        "rows": len(rows),
        "level": level,
        "compared": sum(item.chance is not None for item in weighed),
        "worst": [_plain(item, len(rows)) for item in worse[:WORST]],
        "more": max(0, len(worse) - WORST),
        "families": [_family(subject, way, weighed, len(rows)) for way in ways if way.listed],
        "sheet": pictures,
    }
    least = MATTERS * abs(whole) if scores.free(scores.primary) else MATTERS
    matter = [item for item in worse if item.family.told and item.costs(len(rows)) >= least]
    return Found(
        data, _findings(subject, scores, matter, each), _said(scores, [item for item in worse if item.family.told])
    )


def _of_rows(given: Scores) -> tuple[Scores, np.ndarray]:
    """The scores to compare by, and which rows of the test table they are of."""
    import numpy as np

    scores = comparable(given)
    counted = scores.rows_of.get(scores.primary)
    rows = np.arange(len(scores.columns["truth"])) if counted is None else np.flatnonzero(counted)
    return narrowed(scores), rows


def _weighed(
    subject: Subject, scores: Scores, rows: np.ndarray, ways: Sequence[Family], values: np.ndarray, taken: np.ndarray
) -> list[Weighed]:
    """Every slice; those of families that are not listed without an interval unless they are worse: it takes time.

    values: what each of the rows at `taken` among `rows` adds to the metric.
    """
    import numpy as np

    asked, every = subject.recipe.evaluation, [(way, item) for way in ways for item in way.slices]
    parts = [_inside(item.rows, rows) for _, item in every]
    tested = [place for place, part in enumerate(parts) if FEWEST <= len(part) <= len(rows) - FEWEST]
    seen = [_inside(parts[place], taken) for place in tested]
    groups = None if scores.groups is None else scores.groups[taken]
    chance = dict(zip(tested, holm(chances(values, seen, subject.recipe.seed, groups)), strict=True))

    def measured(some: np.ndarray) -> Interval:
        resamples = min(asked.resamples, RESAMPLES)
        return bootstrap(scores.take(some), scores.primary, resamples, asked.confidence, subject.recipe.seed)

    made = []
    for place, ((way, item), part) in enumerate(zip(every, parts, strict=True)):
        if not 0 < len(part) < len(rows):
            continue
        counted, rest = replace(item, rows=rows[part]), np.delete(np.arange(len(rows)), part)
        if way.listed or chance.get(place, 1.0) <= 1 - asked.confidence:
            one, other = measured(part), measured(rest)
            if math.isnan(one.value) or math.isnan(other.value):
                continue  # the metric says nothing of these rows
            better = apart(one, other, scores.primary in scores.lower)
        else:
            one, other = (_alone(scores.take(some).value()) for some in (part, rest))
            better = _alone((one.value - other.value) * (-1 if scores.primary in scores.lower else 1))
        made.append(Weighed(way, counted, one, other.value, better, chance.get(place)))
    return made


def _alone(value: float) -> Interval:
    return Interval(value, value, value)


def _inside(wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where the `wanted` stand among `rows`, which are sorted; those that are not there are left out."""
    import numpy as np

    return np.flatnonzero(np.isin(rows, wanted))


def _findings(subject: Subject, scores: Scores, matter: Sequence[Weighed], each: Mapping[int, float]) -> list[Finding]:
    """One with the rows of the worst slice that went worst; none where no slice matters.

    each: what each row of the test table adds to the metric.
    """
    if not matter:
        return []
    title, worst = metric_title(scores.primary, scores.lower), matter[0]
    parts = [
        f"{with_interval(item.value)} on {item.slice.full} ({rows_of(len(item.slice.rows), 'test row')}) and "
        f"{figures(item.others)[0]} on the others"
        for item in matter[:TOLD]
    ]
    more = f"; {len(matter) - TOLD} more in report.html" if len(matter) > TOLD else ""
    message = f"{title} is worse on some rows than chance makes it: {'; '.join(parts)}{more}"
    inside = [row for row in worst.slice.rows.tolist() if row in each]
    lowest = sorted(inside, key=lambda row: (each[row], row))[:SHOWN_PLACES]
    places = tuple(subject.test.table.place(row) for row in lowest)
    return [Finding("slice", len(worst.slice.rows), message, places)]


def _said(scores: Scores, worse: Sequence[Weighed]) -> list[str]:
    """A sentence on the slice that costs most; none where no slice is worse beyond chance."""
    if not worse:
        return []
    title, worst = metric_title(scores.primary, scores.lower), worse[0]
    more = f" {len(worse) - 1} more such parts are in report.html." if len(worse) > 1 else ""
    return [
        f"It does worse on {worst.slice.full} ({rows_of(len(worst.slice.rows), 'test row')}): {title} "
        f"{with_interval(worst.value)}, against {figures(worst.others)[0]} on the others.{more}"
    ]


def _family(subject: Subject, way: Family, weighed: Sequence[Weighed], rows: int) -> dict[str, Any]:
    own = [_plain(item, rows) | _examples(subject, item.slice) for item in weighed if item.family is way]
    return {"kind": way.kind, "title": way.title, "slices": own}


def _plain(item: Weighed, rows: int) -> dict[str, Any]:
    return {
        "name": item.slice.name,
        "full": item.slice.full,
        "kind": item.family.kind,
        "rows": len(item.slice.rows),
        "value": asdict(item.value),
        "others": item.others,
        "better": asdict(item.better),
        "chance": item.chance,
        "costs": item.costs(rows),
    }


def _examples(subject: Subject, item: Slice) -> dict[str, Any]:
    """The texts, or small pictures, of the rows that stand for a slice; {} where none do."""
    if not item.typical:
        return {}
    read = [subject.task.readable(subject.test.texts[row]) for row in item.typical]
    if isinstance(read[0], Picture):
        return {"pictures": [text.thumbnail(THUMBNAIL) for text in read if isinstance(text, Picture)]}
    whole = [text if isinstance(text, str) else "  |  ".join(text) for text in read]
    return {"examples": [shown(text, EXCERPT) for text in whole], "words": list(item.words)}
