"""What is said of test rows that fall into groups: rows of one group may be alike, so only groups are draws of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.data.findings import Finding
from tunesmith.evaluation.wording import rows_of
from tunesmith.tasks._weighted import each_of

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores

FEW = 10  # below which a 95 % interval covers 83 to 92 % where rows of a group are quite alike (docs/log.md)
FEW_ASTRAY = 5  # groups with mistakes, below which it covers about 90 %, however many groups there are (docs/log.md)
ONE = "these are all of one group, which says nothing of other groups"


def groups_tested(scores: Scores) -> int | None:
    """In how many groups the examples of the primary metric are drawn; None where they are drawn alone.

    1 where all are of one group, so that nothing can be told of others.
    """
    import numpy as np

    groups = scores.groups_of(scores.primary)
    count = 0 if groups is None else len(np.unique(groups))
    return None if groups is None or count == len(groups) else count


def drawn_in(groups: int | None) -> str:
    """What follows "intervals over test rows"."""
    if groups == 1:
        return f", and {ONE}"
    return "" if groups is None else f", drawn in their {rows_of(groups, 'group')}"


def too_few(groups: int | None) -> str:
    """What groups that are too few leave open; "" where they are enough, or there are none."""
    if groups is None or groups >= FEW:
        return ""
    if groups == 1:
        return "all test rows are of one group, so nothing can be told of rows of other groups"
    return (
        f"the test rows are of only {groups} groups, too few to tell how much groups differ: intervals may be too narrow; "
        f"hold out {FEW} groups or more (data.test; --folds, where rows are not split by time, tests all of them)"
    )


def grouped(scores: Scores, column: str | None) -> list[Finding]:
    """That intervals and p count groups of `column`, where the test rows are in groups."""
    groups, rows = groups_tested(scores), len(scores.columns["truth"])
    if groups is None:
        return []
    if groups == 1:
        message = (
            f'{rows_of(rows, "test row")} are all of one group of "{column}", which says nothing of other groups: intervals '
            "are those of rows drawn alone, and p is 1"
        )
        return [Finding("grouped", rows, message, ())]
    message = (
        f'{rows_of(rows, "test row")} are of {rows_of(groups, "group")} of "{column}": rows of one group may be alike, so '
        f"intervals and p draw and swap whole groups{_astray(scores, groups)}"
    )
    return [Finding("grouped", rows, message, ())]


def _astray(scores: Scores, groups: int) -> str:
    """That the rarer of hits and misses sit in too few groups, whose spread then tells little; "" where they do not."""
    import numpy as np

    name = scores.primary
    of = scores.groups_of(name)
    if of is None or name not in scores.shares or groups < FEW:  # of few groups `too_few` warns
        return ""
    hits = each_of(scores.metrics[name], scores.of(name)) > 0.5
    count, rare = min((len(np.unique(of[some])), what) for some, what in ((~hits, "mistakes"), (hits, "right answers")))
    if not 0 < count < FEW_ASTRAY:  # where there are none, the share that could have gone unseen is one of groups
        return ""
    few = rows_of(count, "group")
    return f"; all {rare} are in {few}, too few to tell how much groups differ: intervals may be too narrow"
