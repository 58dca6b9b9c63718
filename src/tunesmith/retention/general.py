"""Text of no task: the documentation of the running Python's standard library."""

from __future__ import annotations

from functools import cache

from tunesmith.errors import DataError

SHORTEST = 200  # characters that each text has at least
DOCUMENTATION = "general text (the standard library's documentation)"


@cache  # two seconds of reading, and always the same in one process
def _documentation() -> tuple[str, ...]:
    from tunesmith.data.stdlib_docs import stdlib_table

    try:
        return tuple(text for text in stdlib_table()["text"] if len(text) >= SHORTEST)
    except DataError:
        return ()


def general_texts(count: int) -> list[str]:
    """Evenly over all of it; none where this Python carries no source."""
    long = _documentation()
    return [long[place * len(long) // count] for place in range(min(count, len(long)))]
