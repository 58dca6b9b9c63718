"""What gives the label away: another column that tells it nearly alone, or the text itself."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.auditing.flipped import CONFIDENCE, Reader, by_flips_alone, read_by_words, takes_away
from tunesmith.auditing.folds import folds_of
from tunesmith.data.findings import Finding, Instance
from tunesmith.data.table import shown

NAME = "giveaway"
# Of the mistakes that saying the most frequent class makes, the share that a column must take away, at the low end of its
# 99 % interval. 0.8 of them left to a text is what a good model itself takes away.
CLEARLY = 0.8
HELD = 0.5  # share of the rows whose text must hold exactly one label's name
RIGHT = 0.9  # share of these whose label it must be, at the low end of its interval
ONE_WORD = 0.9  # as CLEARLY, of one word for each class
FEWEST_ROWS = 40
VALUES, NAMED = "by its values", "it holds the label's name"
BINS = 32  # that a column of many different numbers is cut into
MOST_ROWS = 20_000  # a sample tells as much
SIGNS = re.compile(r"[\W_]+")
TOKEN = r"(?u)\w+|[^\w\s]+"


def examine(material: Material) -> Examined:
    """Kinds: "giveaway" for columns (the count is that of columns), "label_in_text" and "word_tells" for the text (rows).

    Each is told on rows that it was not read off: half of the rows give a table from values to labels, the others are
    looked up in it, and the other way about.
    """
    if not material.one_class:
        return not_done(NAME, "does not apply: the targets are no classes, one a row", applies=False)
    rows, truth = _sample(material)
    if len(rows) < FEWEST_ROWS:
        return not_done(NAME, f"fewer than {FEWEST_ROWS} rows are too few to tell")
    half = folds_of(_numbered(truth), 2, material.seed).tolist()
    read = {*material.columns.texts, *material.columns.parts, *material.columns.sources, material.columns.label}
    others = [name for name in material.names if name not in read | {material.columns.group}]
    findings = [*_columns(material, others, rows, truth, half)]
    if not material.pictures:
        findings += _in_text(material, rows, truth)
        findings += _by_word(material, rows, truth, half)
    looked = [] if material.pictures else ["the text"]
    looked += [f"the columns {', '.join(others)}"] if others else ["no further column, as there is none"]
    return Examined(NAME, f"looked in {' and '.join(looked)}", tuple(findings))


def _sample(material: Material) -> tuple[list[Row], list[str]]:
    import numpy as np

    from tunesmith.seeds import seed_of

    rows = [row for row in material.rows if row.split == "train"]
    if len(rows) > MOST_ROWS:
        drawn = np.random.default_rng(seed_of(material.seed, NAME)).choice(len(rows), MOST_ROWS, replace=False)
        rows = [rows[place] for place in sorted(drawn.tolist())]
    labels = material.truth("train") if rows else []
    return rows, [labels[row.row] for row in rows]


def _numbered(truth: Sequence[str]) -> Any:
    import numpy as np

    return np.unique(np.array(truth, dtype=object).astype(str), return_inverse=True)[1]


def _columns(
    material: Material, names: Sequence[str], rows: Sequence[Row], truth: Sequence[str], half: Sequence[int]
) -> list[Finding]:
    labels, common = sorted(set(truth)), Counter(truth).most_common(1)[0][0]
    told: list[tuple[float, str, str]] = []
    read = cache(
        lambda: None if material.pictures else read_by_words(list(map(material.text, rows)), truth, material.seed)
    )
    for name in names:
        values = [
            material.tables["train"].columns.get(name, [None] * len(material.tables["train"]))[row.row] for row in rows
        ]
        keys = _as_keys(values)
        by_name = [_named_in(str(value), labels) for value in values]
        holds = [found if found is not None else common for found in by_name]
        ways = ((keys, _looked_up(keys, truth, half), VALUES), (list(map(str, by_name)), holds, NAMED))
        how = _how(ways, truth, read)
        if how is not None:
            told.append((how[0] / len(truth), name, how[1]))
    if not told:
        return []
    told.sort(reverse=True)
    named = ", ".join(f'"{name}" tells {share:.1%} of the labels ({how})' for share, name, how in told[:5])
    plural = "1 column gives" if len(told) == 1 else f"{len(told)} columns give"
    examples = tuple(_values_of(material, name, rows, truth) for _, name, _ in told[:3])
    advice = (
        "never add it to the text or as --pair unless it is known before the label is; the model does not read it now"
    )
    return [Finding("giveaway", len(told), f"{plural} the label away: {named}", (), examples, advice)]


def _how(
    ways: Sequence[tuple[Sequence[str], Sequence[str], str]], truth: Sequence[str], read: Reader
) -> tuple[int, str] | None:
    """How many labels the first way tells that gives them away, and in words how; None where none does.

    ways: of each row what is looked up and the label that it tells, and the way in words.
    """
    for keys, guesses, how in ways:
        hits = sum(map(str.__eq__, guesses, truth))
        if takes_away(hits, truth, CLEARLY):
            return hits, how
        if by_flips_alone(keys, guesses, truth, read):
            return hits, f"{how}, and what it misses could be wrong labels"
    return None


def _values_of(material: Material, name: str, rows: Sequence[Row], truth: Sequence[str]) -> Instance:
    first: dict[str, str] = {}
    for row, label in zip(rows, truth, strict=True):
        first.setdefault(label, shown(material.tables["train"].columns[name][row.row], 20))
        if len(first) == 3:
            break
    return Instance(name, ", ".join(f"{value} = {shown(label, 20)}" for label, value in first.items()))


def _as_keys(values: Sequence[Any]) -> list[str]:
    """Values as they are looked up: of many different numbers the bin that each falls into."""
    import numpy as np

    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(set(known)) <= BINS or len(known) < len([value for value in values if value not in (None, "")]):
        return [repr(value) for value in values]
    edges = np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])
    return ["" if number is None else str(int(np.searchsorted(edges, number))) for number in numbers]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _looked_up(keys: Sequence[str], truth: Sequence[str], half: Sequence[int]) -> list[str]:
    """Of each row the other half's most frequent label of the same key; of a new key, of all its rows."""
    said = [""] * len(keys)
    for side in (0, 1):
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for key, label, where in zip(keys, truth, half, strict=True):
            if where != side:
                found[key][label] += 1
        common = sum(found.values(), Counter[str]()).most_common(1)[0][0]
        best = {key: counts.most_common(1)[0][0] for key, counts in found.items()}
        for row, (key, where) in enumerate(zip(keys, half, strict=True)):
            if where == side:
                said[row] = best.get(key, common)
    return said


def _named_in(text: str, labels: Sequence[str]) -> str | None:
    """The one label whose name a text holds as whole words; of names within names the longest. None for none or several."""
    plain = _plain(text)
    found = [label for label in labels if (name := _plain(label)).strip() and name in plain]
    found = [one for one in found if not any(one != other and _plain(one) in _plain(other) for other in found)]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return f" {SIGNS.sub(' ', text.casefold()).strip()} "


def _in_text(material: Material, rows: Sequence[Row], truth: Sequence[str]) -> list[Finding]:
    from tunesmith.evaluation.intervals import binomial

    labels = sorted(set(truth))
    telling = [label for label in labels if len(_plain(label).strip()) > 1]  # "0" and "1" stand in any text
    if not telling:
        return []
    names = {label: _plain(label) for label in telling}
    found: list[tuple[int, bool]] = []
    for place, row in enumerate(rows):
        plain = _plain(_joined(material, row))
        if any(name in plain for name in names.values()):
            label = _named_in(plain, telling)
            if label is not None:
                found.append((place, label == truth[place]))
    right = sum(hit for _, hit in found)
    if len(found) < HELD * len(rows) or binomial(right, len(found), CONFIDENCE).low < RIGHT:
        return []
    held = [rows[place] for place, hit in found if hit]
    what = f"the text holds the name of its label, and of no other: {right / len(rows):.0%} of the rows looked at"
    advice = "take the names out of the texts, unless the texts to come will hold them too"
    return [material.finding("label_in_text", held, what, advice, [truth[place] for place, hit in found if hit][:3])]


def _joined(material: Material, row: Row) -> str:
    text = material.text(row)
    return text if isinstance(text, str) else " ".join(text)


def _by_word(material: Material, rows: Sequence[Row], truth: Sequence[str], half: Sequence[int]) -> list[Finding]:
    """One word or sign for each class, and none for one of them, by which nearly all rows are told."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    texts = [_joined(material, row) for row in rows]
    vectorizer = CountVectorizer(token_pattern=TOKEN, binary=True, min_df=min(5, max(1, len(rows) // 20)))
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # no word is in that many texts
        return []
    labels, target = np.unique(np.array(truth).astype(str), return_inverse=True)
    where = np.array(half)
    hits, chosen = 0, []
    for side in (0, 1):
        learn, held = where != side, where == side
        words_of = _best_words(words[learn], target[learn], len(labels))
        there = np.asarray(words[held][:, words_of].todense()).astype(bool)  # [rows, classes]
        seen = np.asarray(words[learn][:, words_of].todense()).astype(bool)
        bare = target[learn][~seen.any(axis=1)]
        rest = (
            int(np.bincount(bare, minlength=len(labels)).argmax()) if len(bare) else int(np.bincount(target).argmax())
        )
        said = np.where(there.any(axis=1), there.argmax(axis=1), rest)
        hits += int(((said == target[held]) & (there.sum(axis=1) <= 1)).sum())
        chosen = [(labels[place], words_of[place]) for place in range(len(labels)) if place != rest]
    if not takes_away(hits, truth, ONE_WORD):
        return []
    spelled = vectorizer.get_feature_names_out()
    named = ", ".join(f'"{shown(spelled[word], 20)}" = {shown(str(label), 20)}' for label, word in chosen[:5])
    what = f"one word tells the label of {hits / len(rows):.1%} of the rows looked at ({named})"
    advice = "if the word was put there with the label, take it out; if not, a rule does the work of a model here"
    return [material.finding("word_tells", list(rows), what, advice, list(truth[:3]))]


def _best_words(words: Any, target: Any, classes: int) -> list[int]:
    """Of each class the word whose presence has the best F1 for it."""
    import numpy as np

    member = np.eye(classes, dtype=np.float32)[target]  # [rows, classes]
    both = np.asarray(words.T @ member)  # [words, classes]
    total = np.asarray(words.sum(axis=0)).ravel()[:, None] + member.sum(axis=0)[None, :]
    return (2 * both / np.maximum(total, 1)).argmax(axis=0).tolist()
