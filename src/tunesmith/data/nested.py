"""Parts of the rows, each held in the next larger one, with the classes in their shares."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

from tunesmith.seeds import seed_of


def nested_order(classes: Sequence[Hashable], seed: int) -> list[int]:
    """All rows in an order of which every beginning holds each class by its share, to one row more or less.

    A function of the classes and the seed alone; of equal classes it is a plain shuffle.
    """
    draw = random.Random(seed_of(seed, "nested"))
    members: dict[Hashable, list[int]] = {}
    for row, name in enumerate(classes):
        members.setdefault(name, []).append(row)
    place = [0.0] * len(classes)
    for rows in members.values():
        draw.shuffle(rows)
        start = draw.random()  # or the first rows of all small classes would stand together
        for rank, row in enumerate(rows):
            place[row] = (rank + start) / len(rows)
    return sorted(range(len(classes)), key=place.__getitem__)
