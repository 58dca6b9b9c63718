"""Rows that say nearly the same: within a split they count more than others, across splits they flatter the result."""

from __future__ import annotations

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.data.audit import row_key
from tunesmith.data.findings import Finding
from tunesmith.data.near import CROWDED, THRESHOLD, Pair, near_pairs
from tunesmith.data.table import shown

NAME = "near_duplicates"
WITHIN = "nearly the text of an earlier row of its split; kept"
KEEP_ONE = "keep one of each, or name with --group the column that says which rows belong together"
ACROSS = "nearly the text of a row of an earlier split, so the result may say more than is true; kept"
KEEP_APART = "take one of the two out, or compare the score with and without these rows"
TORN = "nearly the text of another row, with another label; kept"
THIN = "keep a few rows of each pattern, or name with --group the column that says which rows belong together"
READ_BOTH = "read both: one label may be wrong, or a small difference may matter"
MOST_ROWS = 200_000  # whose shingles fit into 4 GB at 12 words a row


def examine(material: Material) -> Examined:
    """Kinds: "near_duplicate" within a split, "near_leak" across splits, "near_conflict" of rows with other labels.

    Rows that differ in case and white space alone are left to `data.audit.clean`, which counts them as duplicates, leaks
    and conflicts.
    """
    rows = material.rows
    if material.pictures:
        return not_done(
            NAME, "does not apply: pictures are compared by their pixels alone, as exact duplicates", applies=False
        )
    if len(rows) > MOST_ROWS:
        return not_done(NAME, f"not looked for in more than {MOST_ROWS:,} rows: it would take too much memory")
    texts = material.texts
    keys = [row_key((text,) if isinstance(text, str) else text) for text in texts]
    near, crowded = near_pairs(texts, THRESHOLD, material.seed)
    pairs = [pair for pair in near if keys[pair.one] != keys[pair.other]]
    pairs.sort(key=lambda pair: (-pair.similarity, pair.one, pair.other))
    within = _partners(material, [pair for pair in pairs if rows[pair.one].split == rows[pair.other].split])
    across = _partners(material, [pair for pair in pairs if rows[pair.one].split != rows[pair.other].split])
    named = any(material.labels(split) for split in material.tables)
    # Of answers, tags and numbers a small difference is their point.
    torn = _conflicts(material, pairs) if named else {}
    findings = [
        material.finding(kind, list(found), what, advice, list(found.values()))
        for kind, found, what, advice in (
            ("near_duplicate", within, WITHIN, KEEP_ONE),
            ("near_leak", across, ACROSS, KEEP_APART),
            ("near_conflict", torn, TORN, READ_BOTH),
        )
        if found
    ]
    if crowded:
        what = f"{CROWDED}: there may be more that say nearly the same"
        findings.append(Finding("near_crowded", len(rows), what, (), (), THIN))
    marks: dict[Row, str] = {}
    for found, what in ((within, "near duplicate"), (across, "near leak"), (torn, "near conflict")):
        for row, detail in found.items():
            marks[row] = f"{marks[row]}; {what}: {detail}" if row in marks else f"{what}: {detail}"
    said = f"{len(pairs):,} pairs of {len(rows):,} rows are at least {THRESHOLD:.0%} the same in their letters"
    said += f"; {CROWDED}, so there may be more" if crowded else ""
    return Examined(NAME, said, tuple(findings), marks=marks)


def _partners(material: Material, pairs: list[Pair]) -> dict[Row, str]:
    """Of each pair the later row, once, with what it is near: across splits the one that results are measured on."""
    found: dict[Row, str] = {}
    for pair in pairs:
        near = f"{pair.similarity:.0%} the same as {material.place(material.rows[pair.one])}"
        found.setdefault(material.rows[pair.other], near)  # the later, as train, validation and test follow each other
    return found


def _conflicts(material: Material, pairs: list[Pair]) -> dict[Row, str]:
    """Of each pair with contradicting targets the later row, once, with both."""
    target, found = material.target, dict[Row, str]()
    for pair in pairs:
        one, other = material.rows[pair.one], material.rows[pair.other]
        first, second = (material.truth(row.split)[row.row] for row in (one, other))
        if target.disagree([first, second]):
            said = f'"{shown(target.name(second), 40)}", but "{shown(target.name(first), 40)}" at {material.place(one)}'
            found.setdefault(other, said)
    return found


def near_in_train(material: Material, split: str) -> tuple[list[bool], bool]:
    """Of each row of a split whether a training row says the same or nearly so: for `leak.leak_effect`.

    And whether so many rows are alike that not all could be compared.
    """
    from tunesmith.data.near import nearest

    texts = {
        name: [text for row, text in zip(material.rows, material.texts, strict=True) if row.split == name]
        for name in ("train", split)
    }
    found, crowded = nearest(texts[split], texts["train"], THRESHOLD, material.seed)
    return [row in found for row in range(len(texts[split]))], crowded
