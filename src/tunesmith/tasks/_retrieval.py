"""How well related texts find each other: each row's positive among all others of its split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.audit import text_key
from tunesmith.tasks._weighted import mean

if TYPE_CHECKING:
    import numpy as np

DEPTH = 10  # ranks beyond are not told apart: accuracy@1, MRR@10 and nDCG@10 need no more
NONE = -2.0  # below every cosine: where there is no text
CHUNK, BLOCK = 1024, 4096  # anchors and positives compared at once: 50 MB, however many there are


def text_id(text: str) -> int:
    """A number of 63 bits, equal for equal texts (case and white space set aside)."""
    digest = hashlib.blake2b(text_key(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rivals(ids: Sequence[Sequence[int]], similarity: Callable[[range, Sequence[int]], Any]) -> np.ndarray:
    """[rows, 10]: the similarities of each row's anchor to the ten most similar positives of other rows, highest first.

    ids: of each row those of its anchor and of its positive. Every distinct positive counts once. Left out are texts
    equal to the row's own anchor or positive, and every positive that the same anchor has in another row.
    `similarity(rows, places)` gives [rows, places], of these rows' anchors with the positives of the rows `places`.
    """
    import numpy as np

    first: dict[int, int] = {}  # a positive's id -> the first row that has it
    own: dict[int, set[int]] = {}  # an anchor's id -> all its positives
    for row, (anchor, positive, *_) in enumerate(ids):
        first.setdefault(positive, row)
        own.setdefault(anchor, {anchor}).add(positive)
    places = list(first.values())
    column = {positive: place for place, positive in enumerate(first)}
    found = np.full((len(ids), DEPTH), NONE)
    for start in range(0, len(ids), CHUNK):
        rows = range(start, min(start + CHUNK, len(ids)))
        mine = [[column[name] for name in own[ids[row][0]] if name in column] for row in rows]
        best = found[start : start + len(rows)]
        for begin in range(0, len(places), BLOCK):
            part = places[begin : begin + BLOCK]
            table = np.asarray(similarity(rows, part)).copy()
            for line, columns in enumerate(mine):
                table[line, [at - begin for at in columns if begin <= at < begin + len(part)]] = NONE
            kept = min(DEPTH, len(part))
            top = np.partition(table, len(part) - kept, axis=1)[:, -kept:]
            best[:] = np.sort(np.concatenate([best, top], axis=1), axis=1)[:, : -DEPTH - 1 : -1]
    return found


def rank_of(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[rows] the place of a row's positive, from 1 to 11; a tie counts against it. own: [rows], others: [rows, 10]."""
    return 1 + (others >= own[:, None]).sum(axis=1)


# Share of the anchors whose own positive is the most similar one.
accuracy_at_1 = mean(lambda columns: columns["rank"] == 1)


def reciprocal_ranks(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[rows] 1 / rank, 0 beyond rank 10."""
    import numpy as np

    rank = columns["rank"]
    return np.where(rank <= DEPTH, 1 / rank, 0.0)


def discounted_gains(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[rows] 1 / log2(1 + rank), 0 beyond rank 10: with one right text the ideal gain is 1 (Jarvelin 2002)."""
    import numpy as np

    rank = columns["rank"]
    return np.where(rank <= DEPTH, 1 / np.log2(1 + rank), 0.0)


mrr_at_10 = mean(reciprocal_ranks)
ndcg_at_10 = mean(discounted_gains)
# Share of the rows whose positive is nearer to the anchor than each of their own negatives.
triplet_accuracy = mean(lambda columns: columns["similarity"] > columns["negative"])
