"""Near-duplicates: rows that say the same in nearly the same letters. Found with MinHash, each then compared exactly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.images import Picture
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

# Chosen by eye, on the 10,003 questions of Banking77 (12 words each). Of the 196 pairs that are at least this similar, all
# but two say the same: words in another order or left out, "top up" and "top-ups", a typing error. (The two: "get my card"
# and "get my card PIN", and an extra charge of £1 and of €1.) Just below, from 0.75, every tenth asks for something else:
# "a card in the EU" and "in the US", "arrive" and "post", "by card" and "my card".
THRESHOLD = 0.8
LETTERS = 5  # of a shingle
FEWER_LETTERS = 2  # of a shingle of a text without spaces, of which each letter says more
LONG_WORD = 14  # letters a word on average, from which on a text counts as one without spaces
NUMBER = 10  # shingles that a number counts for: texts that differ in a number alone are different texts, unless long
NUMBERS = re.compile(r"\d+")
PICTURE = "\n"  # before a digest: no text as `_plain` writes it holds one
PERMUTATIONS, BAND = 100, 4  # 25 bands of 4: at a similarity of 0.8 a pair is missed twice in a million times
DOUBT = 0.2  # five standard errors of a similarity that a signature estimates
MOST_IN_BUCKET = 64  # rows that a row is compared with in each band
MOST_PAIRS = 8_000_000  # candidates that are looked at, after which each row meets the next one in each band alone
AT_ONCE = 2_000_000  # letters whose shingles are in memory: about 200 MB
CROWDED = "so many rows are alike that not all of them were compared with each other"
ESTIMATED = 100_000  # pairs whose signatures are compared at once: 80 MB


@dataclass(frozen=True)
class Pair:
    """Two rows, by their places, and how similar they are."""

    one: int
    other: int  # after `one`
    similarity: float  # of the two rows' least similar texts; 1 where they differ in case and punctuation at most


Row = str | Sequence[str]


def near_pairs(rows: Sequence[Row], threshold: float = THRESHOLD, seed: int = 0) -> tuple[list[Pair], bool]:
    """Pairs of rows whose every text is at least `threshold` similar, in order of their places; and whether some may lack.

    A row is one text, or several, each compared with the one in its place. Similarity is the Jaccard index of shingles:
    runs of 5 letters of the words in lower case, without punctuation (of 2 where a text has no spaces); a number that only
    one of the two texts has counts as 10 shingles that differ. Pictures are similar where their pixels are the same. A row
    that lacks a text is near none. Of rows that differ in case and punctuation alone each is paired with the first, at 1,
    and only the first with other rows: `near_groups` and `nearest` see through that.

    Candidates come from MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
    section 3.4), and are then compared exactly: no pair is there that should not be. One that should be is missed twice in a
    million times at 0.8, once in 1,000 at 0.7; and more often where more than 64 rows share a band, or 8 million pairs of
    rows are alike, which the second result says (`CROWDED` in words). A function of the rows' contents, the threshold and
    the seed: the order of rows changes nothing but their places. Takes 0.3 s for the rows of Banking77; 16 s and 450 MB for
    400,000 rows of 12 words. Raises ValueError where the threshold is not above 0.5 and at most 1.
    """
    distinct = _distinct(rows)
    found = [Pair(same[0], row, 1.0) for same in distinct.places for row in same[1:]]
    candidates = _candidates(distinct.texts, threshold, seed)
    for one, other, similarity in _similar(distinct, candidates, threshold):
        first, second = sorted((distinct.places[one][0], distinct.places[other][0]))
        found.append(Pair(first, second, similarity))
    return sorted(found, key=lambda pair: (pair.one, pair.other)), candidates.crowded


def near_groups(rows: Sequence[Row], threshold: float = THRESHOLD, seed: int = 0) -> list[tuple[int, ...]]:
    """Rows joined by pairs of `near_pairs`, directly or through others: groups of two and more, by their first row.

    Rows at the two ends of a chain can differ more than the threshold says. Raises as `near_pairs` does.
    """
    return grouped(rows, threshold, seed)[0]


def grouped(rows: Sequence[Row], threshold: float = THRESHOLD, seed: int = 0) -> tuple[list[tuple[int, ...]], bool]:
    """`near_groups`, and whether so many rows are alike that not all could be compared, and some may lack."""
    distinct = _distinct(rows)
    parent = list(range(len(distinct.places)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    found = _candidates(distinct.texts, threshold, seed)
    for one, other, _ in _similar(distinct, found, threshold, lambda one, other: root(one) != root(other)):
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    together: dict[int, list[int]] = {}
    for place, same in enumerate(distinct.places):
        together.setdefault(root(place), []).extend(same)
    groups = [tuple(sorted(group)) for group in together.values() if len(group) > 1]
    apart = (root(one) != root(other) for one, other in (divmod(pair, found.count) for pair in found.left.tolist()))
    return sorted(groups), found.many or any(apart)


def nearest(
    rows: Sequence[Row], among: Sequence[Row], threshold: float = THRESHOLD, seed: int = 0
) -> tuple[dict[int, tuple[int, float]], bool]:
    """For each of `rows` that is near one of `among`: the place there of the most similar, and how similar it is.

    The second result as that of `near_pairs`: a more similar one, or any at all, may then have been missed. Of equally
    similar ones the first is named. Equal rows count, at 1. Raises as `near_pairs` does.
    """
    distinct = _distinct([*rows, *among])
    near: list[list[tuple[float, int]]] = [[(-1.0, index)] for index in range(len(distinct.places))]
    candidates = _candidates(distinct.texts, threshold, seed)
    for one, other, similarity in _similar(distinct, candidates, threshold):
        near[one].append((-similarity, other))
        near[other].append((-similarity, one))
    first_among = [
        next((place - len(rows) for place in places if place >= len(rows)), None) for places in distinct.places
    ]
    found: dict[int, tuple[int, float]] = {}
    for places, others in zip(distinct.places, near, strict=True):
        reached = [(worth, there) for worth, other in others if (there := first_among[other]) is not None]
        if reached:
            worth, there = min(reached)
            found |= {place: (there, -worth) for place in places if place < len(rows)}
    return dict(sorted(found.items())), candidates.crowded


@dataclass(frozen=True)
class _Distinct:
    """Rows that differ in more than case and punctuation, in an order of their own: that of the table does not matter."""

    places: list[list[int]]  # of each, the rows that are it
    texts: list[tuple[str, ...]]  # of each, as `_plain` writes them


def _distinct(rows: Sequence[Row]) -> _Distinct:
    marks = _Marks()
    found: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        texts = tuple(_plain(text, marks) for text in ((row,) if isinstance(row, str) else row))
        if texts and all(texts):
            found.setdefault(texts, []).append(place)
    ordered = sorted(found)
    return _Distinct([found[texts] for texts in ordered], ordered)


class _Marks(dict[int, str | None]):
    """For `str.translate`: white space instead of punctuation, nothing instead of an apostrophe, all else as it is."""

    def __missing__(self, code: int) -> str | None:
        letter = chr(code)
        mark = unicodedata.category(letter).startswith("P")
        self[code] = None if letter in "'\u2019" else " " if mark else letter
        return self[code]


def _plain(text: str, marks: _Marks) -> str:
    """Words in lower case, without punctuation where there is anything else; of a picture its digest."""
    if isinstance(text, Picture):
        return PICTURE + text.digest if text.digest else ""
    folded = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(folded.translate(marks).split() or folded.split())


@dataclass(frozen=True)
class _Candidates:
    """Pairs of distinct rows that may be similar."""

    pairs: np.ndarray  # int64, each the first place times `count` and the second, ascending
    count: int
    many: bool  # whether there were more than `MOST_PAIRS`, so that some are missing
    left: np.ndarray  # int64, as `pairs`: the nearest of those that `MOST_IN_BUCKET` kept apart

    @property
    def crowded(self) -> bool:
        """Whether some pairs were not looked at."""
        return self.many or len(self.left) > 0


def _similar(
    distinct: _Distinct, candidates: _Candidates, threshold: float, wanted: Callable[[int, int], bool] = lambda *_: True
) -> Iterator[tuple[int, int, float]]:
    """Pairs of distinct rows, by their places there, and their similarity; without those not `wanted` in their turn."""
    kept: dict[str, tuple[set[str], set[str]]] = {}
    letters = 0

    def read(text: str) -> tuple[set[str], set[str]]:
        nonlocal letters
        if text not in kept:
            if letters > AT_ONCE:
                kept.clear()
                letters = 0
            kept[text] = set(_shingles(text)), set(NUMBERS.findall(text))
            letters += len(text)
        return kept[text]

    def similarity(one: str, other: str) -> float:
        if min(len(one), len(other)) < 0.5 * threshold * max(len(one), len(other)):
            return 0.0
        (left, some), (right, others) = read(one), read(other)
        shared = len(left & right)
        return shared / (len(left) + len(right) - shared + NUMBER * len(some ^ others))

    for start in range(0, len(candidates.pairs), ESTIMATED):
        for pair in candidates.pairs[start : start + ESTIMATED].tolist():
            one, other = divmod(pair, candidates.count)
            if len(distinct.texts[one]) == len(distinct.texts[other]) and wanted(one, other):
                least = min(map(similarity, distinct.texts[one], distinct.texts[other]))
                if least >= threshold:
                    yield one, other, least


def _shingles(text: str) -> list[str]:
    """Of a text as `_plain` writes it; not each once."""
    if text.startswith(PICTURE):
        return [text]
    spaces = text.count(" ")
    letters = LETTERS if len(text) < LONG_WORD * (spaces + 1) else FEWER_LETTERS
    padded = f" {text} "
    return [padded[start : start + letters] for start in range(max(1, len(padded) - letters + 1))]


def _candidates(rows: list[tuple[str, ...]], threshold: float, seed: int) -> _Candidates:
    """Pairs with the same signature in a band, whose whole signatures do not say that they are far from similar."""
    import numpy as np

    if not 0.5 < threshold <= 1:
        raise ValueError(f"a threshold is above 0.5 and at most 1, not {threshold}")
    count, found, looked = len(rows), np.array([], np.int64), 0
    left = [found]
    if count < 2:
        return _Candidates(found, count, False, found)
    signatures = _signatures(rows, seed)
    least = (threshold - DOUBT) * PERMUTATIONS
    for start in range(0, PERMUTATIONS, BAND):
        keys = np.zeros(count, np.uint64)
        for column in range(start, start + BAND):
            keys = (keys ^ signatures[:, column]) * np.uint64(0x9E3779B97F4A7C15)  # Knuth's, by the golden ratio
        order = np.argsort(keys, kind="stable")
        ranked, alike = keys[order], [found]
        for lag in range(1, min(MOST_IN_BUCKET, count - 1) + 1):
            same = np.flatnonzero(ranked[lag:] == ranked[:-lag])
            if not len(same):
                break
            if looked > MOST_PAIRS and lag > 1:
                break
            pairs = order[same] * count + order[same + lag]  # a stable order: the first is the smaller
            pairs = pairs[~_within(found, pairs)]
            looked += len(pairs)
            alike.append(_alike(signatures, pairs, least))
        found = np.unique(np.concatenate(alike))
        beyond = np.flatnonzero(ranked[MOST_IN_BUCKET + 1 :] == ranked[: -MOST_IN_BUCKET - 1])
        left.append(order[beyond] * count + order[beyond + MOST_IN_BUCKET + 1])
    unmet = np.unique(np.concatenate(left))
    return _Candidates(found, count, looked > MOST_PAIRS, unmet[~_within(found, unmet)])


def _signatures(rows: list[tuple[str, ...]], seed: int) -> np.ndarray:
    """[rows, permutations] uint32: the shingles of `AT_ONCE` letters at a time."""
    import numpy as np
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - compiled, without types

    made = np.empty((len(rows), PERMUTATIONS), np.uint32)
    first = letters = 0
    for place, row in enumerate(rows):
        letters += sum(map(len, row))
        if letters < AT_ONCE and place < len(rows) - 1 and place - first < ESTIMATED:
            continue
        # A text's place in its row is part of its shingles: the Jaccard of all is then no less than the least similar's.
        sets = (
            [f"{at}{shingle}" if at else shingle for at, text in enumerate(texts) for shingle in _shingles(text)]
            for texts in rows[first : place + 1]
        )
        matrix = RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, seed_of(seed, "near") & 0xFFFFFFFF)
        made[first : place + 1] = np.array(matrix.to_rows(), np.uint32)
        first, letters = place + 1, 0
    return made


def _within(known: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Bool [pairs]: whether each is in `known`, which is ascending."""
    import numpy as np

    if not len(known):
        return np.zeros(len(pairs), bool)
    return known[np.minimum(np.searchsorted(known, pairs), len(known) - 1)] == pairs


def _alike(signatures: np.ndarray, pairs: np.ndarray, least: float) -> np.ndarray:
    """Those whose signatures are the same in `least` of their columns."""
    import numpy as np

    near = [np.array([], np.int64)]
    for start in range(0, len(pairs), ESTIMATED):
        some = pairs[start : start + ESTIMATED]
        ones, others = np.divmod(some, len(signatures))
        near.append(some[(signatures[ones] == signatures[others]).sum(axis=1) >= least])
    return np.concatenate(near)
