"""How wide lines may be, and a table that is too wide turned, so that every figure stays with its heading and its name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

GAP = "  "
NARROWEST = 20  # columns
TERMINAL, WIDEST = 40, 120  # columns that lines are made for at the least, and at the most


def terminal_width() -> int:
    """Columns that lines may have: those of the terminal within reason; the most where there is no terminal."""
    return min(max(get_terminal_size((WIDEST, 24)).columns, TERMINAL), WIDEST)


def wrapped(line: str, first: str, rest: str, width: int) -> list[str]:
    """Lines of at most `width` columns, which begin with `first` and then with `rest`; a longer word stands alone."""
    # Only at spaces: a path that is cut in two can no longer be copied.
    return textwrap.wrap(
        line, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


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
