"""Near-duplicates: against brute force over all pairs, and against another library's MinHash."""

from __future__ import annotations

import random
import string
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import near
from tunesmith.data.columns import Columns
from tunesmith.data.images import Picture
from tunesmith.data.near import THRESHOLD, Pair, grouped, near_groups, near_pairs, nearest
from tunesmith.data.table import Table
from tunesmith.data.targets.one_class import OneClass

TALK = "card top up money transfer bank account please why how can the a my is pending fee cash app today"
WORDS = TALK.split()


@cache
def shingles(text: str, letters: int = 5) -> set[str]:
    """Of lower-case words without punctuation, written once more."""
    padded = f" {' '.join(text.lower().split())} "
    return {padded[start : start + letters] for start in range(max(1, len(padded) - letters + 1))}


def jaccard(one: str, other: str) -> float:
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right)


def varied(count: int, seed: int = 0) -> list[str]:
    """Sentences, each followed by one that changes it a little."""
    draw, found = random.Random(seed), []
    while len(found) < count:
        words = draw.choices(WORDS, k=draw.randint(4, 20))
        again = list(words)
        again[draw.randrange(len(words))] = draw.choice(WORDS)
        found += [" ".join(words), " ".join(again if draw.random() < 0.7 else [*words, draw.choice(WORDS)])]
    return found[:count]


def by_force(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    found = {}
    for other in range(len(texts)):
        for one in range(other):
            similarity = jaccard(texts[one], texts[other])
            if similarity >= threshold:
                found[one, other] = similarity
    return found


@pytest.mark.parametrize("threshold", [0.75, THRESHOLD, 0.9])
def test_the_pairs_are_those_of_all_pairs_compared(threshold: float) -> None:
    texts = list(dict.fromkeys(varied(300)))
    wanted = by_force(texts, threshold)
    assert len(wanted) > 30
    found = {(pair.one, pair.other): pair.similarity for pair in near_pairs(texts, threshold)[0]}
    assert found == pytest.approx(wanted)


def test_another_library_estimates_the_same_similarities() -> None:
    import datasketch

    texts = list(dict.fromkeys(varied(200, seed=1)))
    pairs = near_pairs(texts)[0]
    assert len(pairs) > 10
    for pair in pairs:
        sketches = [datasketch.MinHash(512) for _ in range(2)]
        for sketch, row in zip(sketches, (pair.one, pair.other), strict=True):
            sketch.update_batch([shingle.encode() for shingle in shingles(texts[row])])
        assert sketches[0].jaccard(sketches[1]) == pytest.approx(pair.similarity, abs=0.1)  # six standard errors


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(string.ascii_lowercase[:4] + "  ", max_size=30), max_size=12), st.randoms())
def test_the_order_of_rows_changes_nothing_but_their_places(texts: list[str], draw: random.Random) -> None:
    turned = list(range(len(texts)))
    draw.shuffle(turned)
    groups = {frozenset(group) for group in near_groups(texts)}
    again = {frozenset(turned[place] for place in group) for group in near_groups([texts[row] for row in turned])}
    assert again == groups


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("How do I top up?", "how do i TOP-UP", True),
        ("Where is my card payment?", "Where is my card payment??", True),
        ("Why can't I top up my account today?", "why cant I top up my account today", True),
        ("Is there a limit for top ups?", "Is there a limit for top up?", True),
        ("How do I change my address?", "How do I change my PIN?", False),
        ("Can I get a card in the EU?", "Can I get a card in the US?", False),
        ("What is the total of 17 and 25, please?", "What is the total of 18 and 25, please?", False),
        ("great film 😡", "great film 😍", False),
        ("yes", "no", False),
        ("我想知道我的银行卡什么时候可以送到家里来", "我想知道我的银行卡什么时候可以送到家里", True),
        ("我想知道我的银行卡什么时候到", "我想知道我的护照什么时候过期", False),
        ("!!!", "!!!", True),
        ("!!!", "???", False),
        ("", "", False),
    ],
)
def test_what_says_the_same(one: str, other: str, near: bool) -> None:
    assert (len(near_pairs([one, other])[0]) == 1) == near
    assert near_pairs([one, "something else altogether", other], threshold=1.0)[0] == [
        Pair(0, 2, 1.0) for _ in range(near and near_pairs([one, other])[0][0].similarity == 1)
    ]


def test_one_number_in_a_long_text_is_little() -> None:
    long = " ".join(varied(40))
    assert [pair.similarity > 0.95 for pair in near_pairs([f"{long} 17", f"{long} 18"])[0]] == [True]


def test_every_text_of_a_row_must_be_near() -> None:
    premise = "A man in a blue shirt is standing on a ladder cleaning a window of a tall house"
    assert near_pairs([(premise, "He is at work"), (premise, "He sleeps")])[0] == []
    assert near_pairs([(premise, "He is at work."), (premise + "s", "he is at work")])[0] != []
    assert near_pairs([(premise, "He is at work"), ("He is at work", premise)])[0] == []
    assert near_pairs([(premise, ""), (premise, "")])[0] == []
    assert near_pairs([(premise,), (premise, premise)])[0] == []


def test_pictures_are_near_where_their_pixels_are_the_same() -> None:
    pictures = [Picture(name) for name in ("a.png", "b.png", "c.png", "broken.png")]
    for picture, digest in zip(pictures, ("12", "12", "13", ""), strict=True):
        picture.__dict__["digest"] = digest
    assert near_pairs(pictures)[0] == [Pair(0, 1, 1.0)]


def test_groups_reach_through_chains_and_repeats() -> None:
    base = "the quick brown fox jumps over the lazy dog near the old stone bridge at noon"
    texts = [base, "nothing like it", base + " now", base.upper(), base + " now then", "nothing like it!"]
    assert jaccard(texts[0], texts[4]) < jaccard(texts[2], texts[4])
    assert near_groups(texts, jaccard(texts[2], texts[4])) == [(0, 2, 3, 4), (1, 5)]


def test_nearest_names_the_most_similar_row_of_another_table() -> None:
    base = "the quick brown fox jumps over the lazy dog near the old stone bridge"
    rows = [base, "alone", base + " today", base.upper()]
    among = ["unlike", base + " today at noon", base + " today", base + " today!"]
    found, crowded = nearest(rows, among)
    assert not crowded
    assert {row: there for row, (there, _) in found.items()} == {0: 2, 2: 2, 3: 2}
    assert found[2][1] == 1.0
    assert found[0][1] == found[3][1] == pytest.approx(jaccard(rows[0], among[2]))
    assert nearest(rows, []) == nearest([], among) == ({}, False)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 59))
def test_nearest_is_the_best_of_all_pairs(seed: int, cut: int) -> None:
    texts = varied(60, seed)
    rows, among = texts[:cut], texts[cut:]
    found, crowded = nearest(rows, among)
    assert not crowded
    for row, text in enumerate(rows):
        best = max((jaccard(text, other), -there) for there, other in enumerate(among))
        if best[0] >= THRESHOLD:
            assert found[row] == (-best[1], pytest.approx(best[0]))
        else:
            assert row not in found


def test_thousands_of_rows_of_one_pattern_take_no_longer() -> None:
    """All are candidates of each other: each is compared with a few of them only, which joins them all the same."""
    texts = [
        f"{' '.join(WORDS)} {word} ref" for word in map("".join, zip(*[iter(varied(800)[0] * 400)] * 3, strict=False))
    ]
    assert len(near_groups(texts)) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.0, 1.01])
def test_a_threshold_outside_its_bounds_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"above 0\.5 and at most 1"):
        near_pairs(["a", "b"], threshold)


ALIKE = [
    f"dear customer {name} your order of {what} is on its way to you" for name in WORDS[:12] for what in WORDS[:12]
]


def test_pairs_are_the_same_however_little_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = near_pairs(ALIKE), near_groups(ALIKE), nearest(ALIKE[:40], ALIKE[40:])
    assert whole[0][0] and len(whole[1]) < len(ALIKE), "the control: there is something to find"
    for letters, pairs in ((1, 1), (500, 7)):
        monkeypatch.setattr(near, "AT_ONCE", letters)
        monkeypatch.setattr(near, "ESTIMATED", pairs)
        assert (near_pairs(ALIKE), near_groups(ALIKE), nearest(ALIKE[:40], ALIKE[40:])) == whole


def test_groups_are_pairs_joined() -> None:
    parent = list(range(len(ALIKE)))
    for pair in near_pairs(ALIKE)[0]:
        one, other = parent[pair.one], parent[pair.other]
        parent = [min(one, other) if place in (one, other) else place for place in parent]
    groups = {place: tuple(row for row, its in enumerate(parent) if its == place) for place in parent}
    assert near_groups(ALIKE) == sorted(rows for rows in groups.values() if len(rows) > 1)


FEW = ALIKE[:60]  # fewer than a bucket holds


def test_where_too_many_are_alike_fewer_are_compared_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, crowded = grouped(FEW)
    known = {frozenset((pair.one, pair.other)) for pair in near_pairs(FEW)[0]}
    assert not crowded and not near_pairs(FEW)[1] and not nearest(FEW[:9], FEW[9:])[1]
    monkeypatch.setattr(near, "MOST_PAIRS", 20)
    fewer, crowded = grouped(FEW)
    assert crowded and sum(map(len, fewer)) <= sum(map(len, whole))
    found, crowded = near_pairs(FEW)
    assert crowded and nearest(FEW[:9], FEW[9:])[1]
    assert {frozenset((pair.one, pair.other)) for pair in found} < known, "none that is not one"
    assert not grouped(["one text", "and quite another one of its own"])[1]


def rows_of(texts: list[str], when: list[str] | None = None) -> Table:
    columns = {"text": texts, "label": ["a", "b"] * (len(texts) // 2)} | ({} if when is None else {"when": when})
    return Table("rows.csv", columns, tuple(range(2, len(texts) + 2)))


def kinds_of(table: Table, columns: Columns, validation: float) -> list[str]:
    from tunesmith.data.split import make_splits

    return [item.kind for item in make_splits({"train": table}, columns, OneClass(), validation, 0.1, 0).findings]


def test_a_split_of_crowded_rows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    table, columns = rows_of(FEW), Columns("text", "label")
    assert "near_crowded" not in kinds_of(table, columns, 0.1)
    monkeypatch.setattr(near, "MOST_PAIRS", 20)
    assert "near_crowded" in kinds_of(table, columns, 0.1)


PATTERN = " ".join(WORDS)


def filled(count: int) -> list[str]:
    """Rows that are all alike, and fill whole buckets."""
    return [f"{PATTERN} {chr(97 + row // 26)}{chr(97 + row % 26)}" for row in range(count)]


def test_a_bucket_that_runs_over_is_told_by_all() -> None:
    few, many = filled(near.MOST_IN_BUCKET), filled(2 * near.MOST_IN_BUCKET)
    pairs, crowded = near_pairs(few)
    assert not crowded and len(pairs) == len(few) * (len(few) - 1) // 2
    assert not nearest(few[:9], few[9:])[1]
    pairs, crowded = near_pairs(many)
    assert crowded and len(pairs) < len(many) * (len(many) - 1) // 2, "some are missing"
    assert nearest(many[:40], many[40:])[1]
    assert grouped(many) == ([tuple(range(len(many)))], False), "joined all the same: none is missing"


def test_groups_say_where_a_bucket_that_runs_over_may_have_torn_them() -> None:
    _, crowded = grouped(ALIKE)
    assert crowded, "rows of one pattern, in several groups: some were not compared"


def test_a_split_by_time_says_where_not_all_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    when = [str(row) for row in range(len(ALIKE))]
    columns = Columns("text", "label", time="when")
    assert "near_crowded" not in kinds_of(rows_of(FEW, when[: len(FEW)]), columns, 0.1)
    assert "near_crowded" in kinds_of(rows_of(ALIKE, when), columns, 0.1)
