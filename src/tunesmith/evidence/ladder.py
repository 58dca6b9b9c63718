"""How the method was chosen, where the recipe left that open."""

from __future__ import annotations

from tunesmith.evidence.base import Found, Subject


def gather(subject: Subject) -> Found | None:
    """The rungs that were climbed, and why it ended; None where a method was asked for."""
    if subject.ladder is None:
        return None
    return Found(dict(subject.ladder))
