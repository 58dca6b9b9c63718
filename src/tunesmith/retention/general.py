"""Text of no task: what is forgotten of it is measured, and the rest of it holds a network to its base."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tunesmith.errors import DataError
from tunesmith.preparing import Prepared

SHORTEST = 200  # characters that each text of the documentation has at least
DOCUMENTATION = "the standard library's documentation"
READ_BY_METERS = (60, 200)  # texts: by the perplexity, and by the order of neighbours


@dataclass(frozen=True)
class GeneralText:
    """Texts, evenly over all of which some are measured; those that training may use are others."""

    source: str  # where they are from, in words
    texts: tuple[str, ...]

    def measured(self, count: int) -> list[str]:
        """At most `count`, and of few texts three quarters."""
        return [self.texts[place] for place in self._places(count)]

    def held(self, count: int) -> list[str]:
        """At most `count` of those that no meter reads."""
        read = {place for one in READ_BY_METERS for place in self._places(one)}
        rest = [text for place, text in enumerate(self.texts) if place not in read]
        return [rest[place] for place in _spread(len(rest), min(count, len(rest)))]

    def _places(self, count: int) -> list[int]:
        return _spread(len(self.texts), min(count, len(self.texts) * 3 // 4))


def general_text(prepared: Prepared) -> GeneralText:
    """The user's, or the documentation of the running Python's standard library; no text where this carries no source."""
    if prepared.general is not None:
        path, texts = prepared.general
        return GeneralText(Path(path).name, texts)
    return GeneralText(DOCUMENTATION, _documentation())


@cache  # two seconds of reading, and always the same in one process
def _documentation() -> tuple[str, ...]:
    from tunesmith.data.stdlib_docs import stdlib_table

    try:
        return tuple(text for text in stdlib_table()["text"] if len(text) >= SHORTEST)
    except DataError:
        return ()


def _spread(length: int, count: int) -> list[int]:
    """So many places of a list, evenly over all of it."""
    return [place * length // count for place in range(count)]
