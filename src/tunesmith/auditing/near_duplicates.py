"""Rows that say nearly the same: within a split they count more than others, across splits they flatter the result."""

from __future__ import annotations

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.data.audit import row_key
from tunesmith.data.findings import Finding
from tunesmith.data.near import THRESHOLD, Pair, near_pairs
from tunesmith.data.table import shown

NAME = "near_duplicates"
MOST_ROWS = 200_000  # whose shingles fit into 4 GB at 12 words a row


def examine(material: Material) -> Examined:
    """Kinds: "near_duplicate" within a split, "near_leak" across splits, "near_conflict" of rows with other labels.

    Rows that differ in case and white space alone are left to `data.audit.clean`, which counts them as duplicates, leaks
    and conflicts.
    """
    rows = material.rows
    if material.pictures:
        return not_done(NAME, "does not apply: pictures are compared by their pixels alone, as exact duplicates")
    if len(rows) > MOST_ROWS:
        return not_done(NAME, f"not looked for in more than {MOST_ROWS:,} rows: it would take too much memory")
    texts = material.texts
    keys = [row_key((text,) if isinstance(text, str) else text) for text in texts]
    pairs = [pair for pair in near_pairs(texts, THRESHOLD, material.seed) if keys[pair.one] != keys[pair.other]]
    findings = [
        *_within(material, [pair for pair in pairs if rows[pair.one].split == rows[pair.other].split]),
        *_across(material, [pair for pair in pairs if rows[pair.one].split != rows[pair.other].split]),
        *_conflicts(material, pairs),
    ]
    said = f"{len(pairs):,} pairs of {len(rows):,} rows are at least {THRESHOLD:.0%} the same in their letters"
    return Examined(NAME, said, tuple(findings))


def near_in_train(material: Material, split: str) -> list[bool]:
    """Of each row of a split whether a training row says the same or nearly so: for `leak.leak_effect`."""
    from tunesmith.data.near import nearest

    texts = {
        name: [text for row, text in zip(material.rows, material.texts, strict=True) if row.split == name]
        for name in ("train", split)
    }
    found = nearest(texts[split], texts["train"], THRESHOLD, material.seed)
    return [row in found for row in range(len(texts[split]))]


def _within(material: Material, pairs: list[Pair]) -> list[Finding]:
    partner: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.similarity, pair.one)):
        partner.setdefault(pair.other, pair)
    if not partner:
        return []
    found = [(material.rows[row], _detail(material, pair.one, pair.similarity)) for row, pair in partner.items()]
    what = "nearly the text of an earlier row of its split; kept"
    advice = "keep one of each, or name with --group the column that says which rows belong together"
    return [material.finding("near_duplicate", [row for row, _ in found], what, advice, [said for _, said in found])]


def _across(material: Material, pairs: list[Pair]) -> list[Finding]:
    """Of each pair the row in the later of train, validation, test is counted: those that the result is measured on."""
    partner: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.similarity, pair.one)):
        partner.setdefault(pair.other, pair)  # `other` is the later, as splits stand in that order
    if not partner:
        return []
    found = [(material.rows[row], _detail(material, pair.one, pair.similarity)) for row, pair in partner.items()]
    what = "nearly the text of a row of an earlier split, so the result may say more than is true; kept"
    advice = "take one of the two out, or compare the score with and without these rows"
    return [material.finding("near_leak", [row for row, _ in found], what, advice, [said for _, said in found])]


def _conflicts(material: Material, pairs: list[Pair]) -> list[Finding]:
    target, found = material.target, dict[Row, str]()
    for pair in sorted(pairs, key=lambda pair: (-pair.similarity, pair.one)):
        one, other = material.rows[pair.one], material.rows[pair.other]
        first, second = (material.truth(row.split)[row.row] for row in (one, other))
        if target.disagree([first, second]):
            labels = (
                f'"{shown(target.name(second), 30)}", and "{shown(target.name(first), 30)}" at {material.place(one)}'
            )
            found.setdefault(other, labels)
    if not found:
        return []
    what = "nearly the text of another row, with another label; kept"
    advice = "read both: one label may be wrong, or a small difference may matter"
    return [material.finding("near_conflict", list(found), what, advice, list(found.values()))]


def _detail(material: Material, other: int, similarity: float) -> str:
    return f"{similarity:.0%} as {material.place(material.rows[other])}"
