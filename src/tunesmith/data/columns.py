"""Which column holds the text and which the label: names first, then content; a tie is an error, never a guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError, Problems, did_you_mean

# Tiers: a name of an earlier tier wins over any of a later one; two of one tier are told apart by content. "title" is
# in none: beside a body it is the worse text, and alone it is found by its content.
TEXT_NAMES = (
    ("text", "texts"),
    ("sentence", "review", "content", "question", "utterance", "query", "message", "comment", "body", "document",
     "tweet", "post", "review_text", "review_body", "input"),
    ("description", "abstract", "summary", "paragraph", "passage", "instruction", "prompt"),
)  # fmt: skip
LABEL_NAMES = (
    ("label",),
    ("labels", "class", "target", "y"),
    ("category", "intent", "sentiment", "topic", "tag", "emotion", "chapter", "genre", "label_text"),
    ("classes", "categories", "type", "kind", "polarity", "rating", "stars", "answer", "final_decision"),
)
NOT_LABELS = ("id", "index", "idx", "split", "fold", "date", "time", "timestamp", "url", "uuid", "guid", "")
CLEARLY_LONGER = 1.5  # the longest text column must be this many times longer than the next to be taken by content
FEW = 0.5  # a label's distinct values are at most this share of the rows that have one


@dataclass(frozen=True)
class Columns:
    """The columns a run reads, and how they were found."""

    text: str
    label: str
    group: str | None = None
    why: str = ""  # one line


@dataclass(frozen=True)
class _Look:
    """What one pass over a column tells."""

    name: str
    filled: int  # rows with a value
    strings: int  # rows whose value is a non-empty str
    spaced: int  # of these, how many hold white space or a letter outside ASCII, as texts do and identifiers do not
    length: float  # mean characters of these
    distinct: int  # distinct values
    lists: bool
    example: str

    @property
    def is_text(self) -> bool:
        return self.strings > 0 and self.strings >= 0.5 * self.filled and not self.lists

    @property
    def is_label(self) -> bool:
        return not self.lists and 0 < self.distinct <= max(2, FEW * self.filled)


def find_columns(table: Table, text: str | None = None, label: str | None = None, group: str | None = None) -> Columns:
    """The text and label columns of `table`: as named, else by usual names, else by what the columns hold.

    Raises DataError with every problem: a named column that is absent (with the nearest names), one column named
    twice, no candidate, or several equally good ones (each listed with an example).
    """
    _check_named(table, {"text": text, "label": label, "group": group})
    looks = [_look(name, values) for name, values in table.columns.items()]
    problems, reasons = Problems(), []
    if text is None:
        free = [look for look in looks if look.name not in (label, group)]
        text, reason = _choose_text(table, free, looks, problems)
        reasons.append(f'text = "{text}" ({reason})')
    else:
        reasons.append(f'text = "{text}" (named)')
    if label is None:
        free = [look for look in looks if look.name not in (text, group)]
        label, reason = _choose_label(table, free, looks, problems)
        reasons.append(f'label = "{label}" ({reason})')
    else:
        look = next(look for look in looks if look.name == label)
        reasons.append(f'label = "{label}" (named; {_spread(look)})')
    if group is not None:
        look = next(look for look in looks if look.name == group)
        reasons.append(f'group = "{group}" ({_spread(look)})')
    problems.raise_as(DataError)
    return Columns(text, label, group, ", ".join(reasons))


def find_text(table: Table, text: str | None, trained: str) -> str:
    """The text column of rows to predict: `text` if named, else the one trained on if present, else found by looking.

    Raises DataError when a named column is absent, and when looking finds none or several.
    """
    _check_named(table, {"text": text})
    if text is not None:
        return text
    if trained in table.columns:
        return trained
    looks = [_look(name, values) for name, values in table.columns.items()]
    problems = Problems()
    found, _ = _choose_text(table, looks, looks, problems)
    problems.raise_as(DataError)
    return found


def _check_named(table: Table, asked: dict[str, str | None]) -> None:
    problems = Problems()
    named = {role: name for role, name in asked.items() if name is not None}
    for role, name in named.items():
        if name not in table.columns:
            near = did_you_mean(name, table.columns)
            problems.add(f'{table.path}: there is no column "{name}" (asked for as the {role}); {near}')
        for other, same in named.items():
            if same == name and other > role:
                problems.add(
                    f'{table.path}: column "{name}" cannot be both the {role} and the {other}; '
                    f"name another one with --{role} or --{other}"
                )
    problems.raise_as(DataError)


def _look(name: str, values: Sequence[Any]) -> _Look:
    filled = [value for value in values if value is not None and value != ""]
    strings = [value for value in filled if isinstance(value, str) and value.strip()]
    spaced = sum(1 for value in strings if not value.isascii() or len(value.split(None, 1)) > 1)
    length = sum(map(len, strings)) / len(strings) if strings else 0.0
    distinct = len({str(value).strip() for value in filled})
    lists = any(isinstance(value, list) for value in filled)
    example = shown(filled[0], 50) if filled else ""
    return _Look(name, len(filled), len(strings), spaced, length, distinct, lists, example)


def _choose_text(table: Table, free: list[_Look], looks: list[_Look], problems: Problems) -> tuple[str, str]:
    tier = next((found for names in TEXT_NAMES if (found := _named(free, names))), [])
    if len(tier) == 1:
        return tier[0].name, f"by its name, mean length {tier[0].length:.0f} characters"
    texts = [look for look in tier or free if look.is_text]
    worded = [look for look in texts if look.spaced >= 0.1 * look.strings]
    # A column of few repeated values is a label, however long its names are; in a column so named, texts may repeat.
    varied = [look for look in worded or texts if tier or look.distinct > FEW * look.filled]
    ranked = sorted(varied or worded or texts, key=lambda look: -look.length)
    if not ranked:
        problems.add(f"{table.path}: no column holds text; name one with --text; the columns are: {_listed(looks)}")
        return "", ""
    tied = [look for look in ranked if look.length * CLEARLY_LONGER > ranked[0].length]
    if len(tied) > 1:
        problems.add(
            f"{table.path}: {_quoted(tied)} could each be the text; say which with --text (or join them into one "
            f"column); the columns are: {_listed(looks)}"
        )
        return ranked[0].name, ""
    return ranked[0].name, f"longest text of {len(looks)} columns, mean length {ranked[0].length:.0f} characters"


def _choose_label(table: Table, free: list[_Look], looks: list[_Look], problems: Problems) -> tuple[str, str]:
    for names in LABEL_NAMES:
        found = _named(free, names)
        # A name is believed unless the column plainly holds something else while another of that tier does not.
        found = [look for look in found if look.is_label] or found
        if len(found) == 1:
            return found[0].name, f"by its name, {_spread(found[0])}"
        if found:
            return _tied_labels(table, found, looks, problems)
    likely = [look for look in free if look.is_label and _simple(look.name) not in NOT_LABELS]
    found = [look for look in likely if look.distinct > 1] or likely
    if len(found) == 1:
        return found[0].name, _spread(found[0])
    if found:
        return _tied_labels(table, found, looks, problems)
    problems.add(
        f"{table.path}: no column looks like a label (few distinct values, repeated); name one with --label; "
        f"the columns are: {_listed(looks)}"
    )
    return "", ""


def _tied_labels(table: Table, found: list[_Look], looks: list[_Look], problems: Problems) -> tuple[str, str]:
    problems.add(
        f"{table.path}: {_quoted(found)} could each be the label; say which with --label; "
        f"the columns are: {_listed(looks)}"
    )
    return found[0].name, ""


def _named(looks: list[_Look], names: tuple[str, ...]) -> list[_Look]:
    return [look for look in looks if _simple(look.name) in names]


def _simple(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _spread(look: _Look) -> str:
    values = "value" if look.distinct == 1 else "values"
    return f"{look.distinct} distinct {values} in {look.filled} rows"


def _quoted(looks: list[_Look]) -> str:
    return " and ".join(f'"{look.name}"' for look in looks)


def _listed(looks: list[_Look]) -> str:
    listed = [f'"{look.name}" (such as: {look.example})' if look.filled else f'"{look.name}" (empty)' for look in looks]
    return "; ".join(listed[:30]) + ("; ..." if len(listed) > 30 else "")
