"""A table that is too wide for its terminal, turned, so that every figure stays with its heading and its name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = "  "
NARROWEST = 20  # columns


def turned(table: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of at most `width` columns: each heading with a block of its own, which has a line a name.

    The first row of `table` holds the headings, the first column the names. Where a name and its figure do not fit beside
    each other, each figure stands below its name.
    """
    names, figures = max(len(row[0]) for row in table), max(len(cell) for row in table[1:] for cell in row[1:])
    lines: list[str] = []
    for column in range(1, len(table[0])):
        lines += textwrap.wrap(table[0][column], max(width, NARROWEST), subsequent_indent=GAP, break_on_hyphens=False)
        for row in table[1:]:
            lines += _figure_lines(row[0], row[column], names, figures, width)
    return lines


def _figure_lines(name: str, figure: str, names: int, figures: int, width: int) -> list[str]:
    """A name and its figure below a heading: on one line if all of them are, so that the figures stay under each other."""
    if len(GAP) + names + len(GAP) + figures <= width:
        return [GAP + name.ljust(names) + GAP + figure]
    whole = textwrap.wrap(name, max(width, NARROWEST), initial_indent=GAP, subsequent_indent=GAP * 2)
    return [*whole, GAP * 2 + figure]
