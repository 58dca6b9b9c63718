"""A sheet of pictures: of each class the surest mistakes and the surest right answers."""

from __future__ import annotations

from typing import Any

from tunesmith.data.images import Picture
from tunesmith.evidence.base import Subject

SIDE = 96  # pixels of the longer side
WRONG = 4  # pictures of a class
RIGHT = 2
BYTES = 200_000  # of all pictures, so that the page stays below 1 MB


def sheet(subject: Subject) -> dict[str, Any] | None:
    """{"classes": [{"label", "rows", "right", "pictures": [...]}], "left_out": classes}; None for what is no picture.

    Classes with the most mistakes come first; where the pictures would take too much room the others are left out, and
    counted. A picture: {"picture" (data URI), "said", "sure", "place", "right"}.
    """
    test, labels = subject.test, subject.labels
    if not subject.task.reads_pictures:
        return None
    rows: dict[str, list[int]] = {name: [] for name in labels.names}
    for row, true in enumerate(test.truth):
        rows[true].append(row)
    hits = {name: [row for row in some if test.predictions[row].value == name] for name, some in rows.items()}
    order = sorted((name for name in rows if rows[name]), key=lambda name: (len(hits[name]) - len(rows[name]), name))
    classes, room = [], BYTES
    for name in order:
        missed = [row for row in rows[name] if test.predictions[row].value != name]
        chosen = [*_surest(subject, missed)[:WRONG], *_surest(subject, hits[name])[:RIGHT]]
        shown = [_shown(subject, row, name) for row in chosen]
        room -= sum(len(item["picture"]) for item in shown)
        if room < 0 and classes:
            break
        classes.append({"label": name, "rows": len(rows[name]), "right": len(hits[name]), "pictures": shown})
    return {"classes": classes, "left_out": len(order) - len(classes)}


def _surest(subject: Subject, rows: list[int]) -> list[int]:
    return sorted(rows, key=lambda row: (-max(subject.test.predictions[row].evidence), row))


def _shown(subject: Subject, row: int, true: str) -> dict[str, Any]:
    picture, found = subject.test.texts[row], subject.test.predictions[row]
    assert isinstance(picture, Picture)
    return {
        "picture": picture.thumbnail(SIDE),
        "said": found.value,
        "sure": max(found.evidence),
        "place": subject.test.table.place(row),
        "right": found.value == true,
    }
