"""Which columns hold texts that belong together: anchor and positive, negatives, or a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.data.columns import LABEL_NAMES, NOT_LABELS, PAIRS, Asked, Columns, check_named, simple
from tunesmith.data.passages import PART
from tunesmith.data.table import Table
from tunesmith.data.targets.numbers import number_of
from tunesmith.data.targets.related import RELATED
from tunesmith.errors import DataError, Problems

MADE = f"({RELATED})"  # the column that says so, where no score does
POSITIVES = ("positive", "pos", "positives")
# Names that mean a text and what it is to be found with; a name beside "positive" or a negative says more.
TOGETHER = (
    *((anchor, positive) for anchor in ("anchor", "query", "question", "sentence", "text") for positive in POSITIVES),
    ("query", "document"), ("query", "passage"), ("query", "answer"), ("query", "response"), ("query", "doc"),
    ("query", "text"), ("query", "title"), ("title", "abstract"), ("title", "body"), ("anchor", "entailment"),
)  # fmt: skip
NEGATIVES = ("negative", "neg", "hard_negative", "contradiction", "negatives")
SCORES = ("score", "similarity", "similarity_score", "relatedness_score", "relatedness", "sim", "label", "labels")
# Two texts of which one is to be written, or looked up in the other: learned by other tasks unless asked.
WRITTEN = ("answer", "answers", "response", "output", "completion", "summary", "target", "context", "translation")
LEAST_SPACED = 0.5  # share of the rows in which a text holds white space
FEW = 0.5  # share of different values below which a column holds names, not texts


def looks_related(table: Table, asked: Asked) -> str | None:
    """Why the rows are texts that belong together, with no label beside; None where they do not look so."""
    if asked.label is not None:
        return None
    names = {simple(name): name for name in table.columns if name not in (asked.group, PART)}
    free = {name for name in names if name not in NOT_LABELS}
    pair = _usual(names)
    if pair is not None and simple(pair[1]) in (*POSITIVES, "entailment"):
        return f'columns "{pair[0]}" and "{pair[1]}"'
    if asked.text is not None and asked.pair is not None:
        pair = (asked.text, asked.pair)
    if pair is not None and simple(pair[0]) == "question" and simple(pair[1]) in WRITTEN:
        return None
    rest = [names[name] for name in free if pair is None or names[name] not in pair]
    if pair is not None:
        there = all(name in table.columns for name in pair)
        return (
            "two columns of texts that belong together, and no label" if there and all(map(_negative, rest)) else None
        )
    if len(rest) != 2 or not all(_is_text(table.columns[name]) for name in rest):
        return None
    learned = (*WRITTEN, *(name for names in LABEL_NAMES for name in names))
    return None if any(simple(name) in learned for name in rest) else "two columns of texts, and no label"


def find_related(table: Table, asked: Asked) -> Columns:
    """Anchor, positive, negatives and score: as named, else by usual names. Raises DataError with every problem."""
    labels = (asked.label,) if isinstance(asked.label, str) else asked.label or ()
    labels = tuple(name for name in labels if name != MADE)
    roles = [("text", asked.text), ("pair", asked.pair), ("group", asked.group), *(("label", name) for name in labels)]
    check_named(table, [(role, name) for role, name in roles if name is not None])
    problems = Problems()
    if len(labels) > 1:
        problems.add(f"data.label: {len(labels)} columns are named, and one score a row is learned from; name one")
    taken = [name for name in (asked.text, asked.pair, asked.group, *labels) if name is not None]
    text, pair, why = _pair_of(table, asked, taken, problems)
    negatives, said = _negatives_of(table, [*taken, text, pair])
    score, how = (labels[0], "named") if labels else _score_of(table, [*taken, text, pair, *negatives])
    reasons = [f'text = "{text}", pair = "{pair}" ({why})']
    if negatives and score:
        problems.add(
            f'{table.path}: a score ("{score}") and negatives ("{negatives[0]}") are two ways to say what belongs '
            "together; take one of these columns away"
        )
    reasons += [said] if said else []
    reasons += [f'score = "{score}" ({how})'] if score else ["no score: the texts of a row belong together"]
    reasons += [f'group = "{asked.group}"'] if asked.group is not None else []
    problems.raise_as(DataError)
    return Columns(text, score or MADE, asked.group, ", ".join(reasons), pair, more=negatives)


def read_related(table: Table, columns: Columns) -> Table:
    """The table with the columns that are made: negatives out of a list, and that texts are related.

    Raises DataError naming the rows whose list of negatives is too short, or holds something else than texts.
    """
    made: dict[str, list[Any]] = {}
    problems = Problems()
    for place, name in enumerate(columns.more):
        source = _source(name)
        if name in table.columns or source is None or source not in table.columns:
            continue
        values = table.columns[source]
        wrong = [row for row, value in enumerate(values) if not _has_texts(value, place + 1)]
        if wrong:
            listed = ", ".join(table.place(row) for row in wrong[:10])
            problems.add(
                f'{table.path}: column "{source}" needs a list of {len(columns.more)} texts or more in every row, as in '
                f"the first ones; not so: {listed}; fill these lists, or remove these rows"
            )
            break
        made[name] = [value[place] for value in values]
    if columns.label == MADE:
        made[MADE] = [RELATED] * len(table)
    problems.raise_as(DataError)
    return Table(table.path, {**table.columns, **made}, table.lines) if made else table


def _pair_of(table: Table, asked: Asked, taken: Sequence[str], problems: Problems) -> tuple[str, str, str]:
    if asked.text is not None and asked.pair is not None:
        return asked.text, asked.pair, "named"
    names = {simple(name): name for name in table.columns if name not in (*taken, PART)}
    usual = _usual(names) if asked.text is None and asked.pair is None else None
    if usual is not None:
        return *usual, "by their names, which are usual for texts that belong together"
    texts = [name for name in names.values() if _is_text(table.columns[name]) and not _negative(name)]
    given = [name for name in (asked.text, asked.pair) if name is not None]
    if len(texts) + len(given) == 2:
        first = [asked.text] if asked.text is not None else texts[:1]
        second = [asked.pair] if asked.pair is not None else texts[-1:]
        return first[0], second[0], "the two columns of texts"
    there = ", ".join(f'"{name}"' for name in table.columns if name != PART)
    problems.add(
        f"{table.path}: an embedding is learned from two texts a row, and {len(texts) + len(given)} columns hold texts; "
        f"name them with --text and --pair; the columns are: {there}"
    )
    return "", "", ""


def _usual(names: dict[str, str]) -> tuple[str, str] | None:
    return next(((names[one], names[two]) for one, two in (*TOGETHER, *PAIRS) if one in names and two in names), None)


def _negatives_of(table: Table, taken: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Names of the columns of negatives, and how they were found; of a list, those that `read_related` will make."""
    found = [name for name in table.columns if name not in taken and _negative(name)]
    plain = tuple(name for name in found if not _is_list(table.columns[name]))
    if plain:
        listed = ", ".join(f'"{name}"' for name in plain)
        return plain, f"negatives = {listed} (by name)"
    for name in found:
        count = min((len(value) for value in table.columns[name] if isinstance(value, list) and value), default=0)
        most = max((len(value) for value in table.columns[name] if isinstance(value, list)), default=0)
        if count:
            more = (
                f" (some rows have no more; the others' further ones, up to {most}, are not read)"
                if most > count
                else ""
            )
            return tuple(
                f"{name}[{place}]" for place in range(count)
            ), f'negatives = the first {count} of "{name}"{more}'
    return (), ""


def _score_of(table: Table, taken: Sequence[str]) -> tuple[str, str]:
    for name in SCORES:
        for column, values in table.columns.items():
            filled = [value for value in values if value is not None and value != ""]
            fits = column not in taken and simple(column) == name and len(filled) > 0
            # A few values that are none are named where they are read: as no score at all they would teach the opposite.
            if fits and 2 * sum(number_of(value) is not None for value in filled) > len(filled):
                return column, "by its name"
    return "", ""


def _negative(name: str) -> bool:
    return simple(name).rstrip("0123456789").rstrip("_") in NEGATIVES


def _source(name: str) -> str | None:
    """The column whose lists "name[0]" is made from."""
    return name.rpartition("[")[0] if name.endswith("]") else None


def _has_texts(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) >= count and all(isinstance(item, str) for item in value[:count])


def _is_list(values: Sequence[Any]) -> bool:
    return any(isinstance(value, list) for value in values)


def _is_text(values: Sequence[Any]) -> bool:
    filled = [value for value in values if value is not None and value != ""]
    texts = [value for value in filled if isinstance(value, str)]
    if not texts or len(texts) < len(filled):
        return False
    spaced = sum(" " in text.strip() or not text.isascii() for text in texts)
    return spaced >= LEAST_SPACED * len(texts) and len(set(texts)) > FEW * len(texts)
