"""What is said of test rows that fall into groups: rows of one group may be alike, so only groups are draws of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.data.findings import Finding
from tunesmith.evaluation.wording import rows_of

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores

FEW = 10  # below which a 95 % interval covers 83 to 92 % where rows of a group are quite alike (docs/log.md)


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
    return "" if groups is None else f", drawn in their {rows_of(groups, 'group')}"


def too_few(groups: int | None) -> str:
    """What groups that are too few leave open; "" where they are enough, or there are none."""
    if groups is None or groups >= FEW:
        return ""
    if groups == 1:
        return "all test rows are of one group, so nothing can be told of rows of other groups"
    return (
        f"the test rows are of only {groups} groups, too few to tell how much groups differ: intervals may be too narrow; "
        f"hold out {FEW} groups or more (data.test, or --folds to test all of them)"
    )


def grouped(scores: Scores, column: str | None) -> list[Finding]:
    """That intervals and p count groups of `column`, where the test rows are in groups."""
    groups, rows = groups_tested(scores), len(scores.columns["truth"])
    if groups is None:
        return []
    message = (
        f'{rows_of(rows, "test row")} are of {rows_of(groups, "group")} of "{column}": rows of one group may be alike, so '
        "intervals and p draw and swap whole groups"
    )
    return [Finding("grouped", rows, message, ())]
