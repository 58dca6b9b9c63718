"""Which column holds the text and which the label: names first, then content; a tie is an error, never a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tunesmith.data.images import holds_pictures
from tunesmith.data.passages import PART
from tunesmith.data.table import Table, shown
from tunesmith.data.tag_columns import find_tags, holds_words, refuse_misread
from tunesmith.data.targets.label_set import few_odd, few_wrong, is_flag
from tunesmith.data.targets.numbers import number_of
from tunesmith.data.targets.one_class import is_object
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
    (
        "classes",
        "categories",
        "type",
        "kind",
        "polarity",
        "rating",
        "stars",
        "answer",
        "final_decision",
        "score",
        "similarity",
    ),
)
# Columns that are usually read together, in this order.
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("question", "context"), ("question", "passage"),
    ("question", "sentence"), ("query", "passage"), ("query", "document"), ("s1", "s2"),
)  # fmt: skip
NOT_LABELS = ("id", "index", "idx", "split", "fold", "date", "time", "timestamp", "url", "uuid", "guid", "")
# Tasks without labels, and the kind of base that each needs.
LANGUAGE = {"causal_lm": "decoder", "masked_lm": "encoder"}
CLEARLY_LONGER = 1.5  # the longest text column must be this many times longer than the next to be taken by content
FEW = 0.5  # a label's distinct values are at most this share of the rows that have one


def unknown() -> str:
    """Of a base that is not known yet."""
    return ""


@dataclass(frozen=True)
class Asked:
    """What is known of rows before they are looked at: the columns that were named, and the kind of base."""

    text: str | None = None
    label: str | tuple[str, ...] | None = None
    group: str | None = None
    pair: str | None = None
    base: Callable[[], str] = unknown  # the kind of base, as models/resolve.py names kinds; asked only where it matters


@dataclass(frozen=True)
class Columns:
    """The columns a run reads, and how they were found."""

    text: str
    label: str  # of several columns, the name that `gathered` gives them together
    group: str | None = None
    why: str = ""  # one line
    pair: str | None = None  # a second text, read together with the first
    parts: tuple[str, ...] = ()  # the columns that `label` stands for, where it is several
    words: bool = False  # whether the text is given as lists of words
    more: tuple[str, ...] = ()  # further texts of a row, after the pair
    sources: tuple[str, ...] = ()  # the columns that the text is made of, where it is none of the table's own
    time: str | None = None  # when each row is from, where the newest are held out

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if self.pair is None else (self.text, self.pair, *self.more)

    @property
    def asked_label(self) -> str | tuple[str, ...]:
        """The label as `find_columns` takes it."""
        return self.parts or self.label


def gathered(table: Table, columns: Columns) -> Table:
    """The table with one more column where several hold the label: a list of their values for each row.

    Raises DataError where the table lacks one of them.
    """
    if not columns.parts:
        return table
    lost = [part for part in columns.parts if part not in table.columns]
    if lost:
        raise DataError(*(f'{table.path}: there is no column "{part}" (a label of the other rows)' for part in lost))
    values = [list(row) for row in zip(*(table.columns[part] for part in columns.parts), strict=True)]
    return Table(table.path, {**table.columns, columns.label: values}, table.lines)


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
    numbers: int  # how many values are numbers, also written as texts, and not booleans
    counts: bool  # whether they number the rows: each is one more than the one before
    flags: bool  # every value is 0, 1, true or false, but for a few that are named where they are read
    example: str

    @property
    def is_text(self) -> bool:
        return self.strings > 0 and self.strings >= 0.5 * self.filled and not self.lists

    @property
    def is_label(self) -> bool:
        return not self.lists and 0 < self.distinct <= max(2, FEW * self.filled)

    @property
    def is_numeric(self) -> bool:
        """Whether its values are numbers, but for a few that must be mistakes."""
        return self.filled > 0 and few_wrong(self.filled - self.numbers, self.filled)

    @property
    def is_measured(self) -> bool:
        """Whether most values are numbers that mean something, and too many differ to be names."""
        key = self.counts or simple(self.name).endswith("_id")
        return not self.is_label and not key and 2 * self.numbers > self.filled


def find_columns(
    table: Table,
    text: str | None = None,
    label: str | tuple[str, ...] | None = None,
    group: str | None = None,
    pair: str | None = None,
    pictures: bool = False,
    entities: bool = False,
    base: Callable[[], str] = unknown,
) -> Columns:
    """The text and label columns of `table`: as named, else by usual names, else by what the columns hold.

    Several names for `label` mean that each column is one output. `pictures`: the text is to name a picture.
    `entities`: the label is to be of tags or spans, however few of its rows can be read. `base` gives the kind of base,
    for what can be learned of texts alone. Raises DataError with every problem: a named column that is absent (with the
    nearest names), one column named twice, no candidate, or several equally good ones (each listed with an example).
    """
    asked = named = (label,) if isinstance(label, str) else label or ()
    roles = [("text", text), ("pair", pair), *(("label", name) for name in asked), ("group", group)]
    check_named(table, [(role, name) for role, name in roles if name is not None])
    looks = [_look(name, values) for name, values in table.columns.items() if name != PART]
    problems, reasons = Problems(), []
    sought = not pictures and (text is None or not asked)
    tagged = find_tags(table, text, asked, (pair, group)) if sought else None
    if sought and entities and tagged is None:
        tagged = find_tags(table, text, asked, (pair, group), meant=True)
    free = text is None and pair is None and tagged is None and not pictures
    usual = _usual_pair(table, (*asked, group)) if free else None
    if tagged is not None:
        asked = (tagged.label,)
    if tagged is not None and tagged.text is not None:
        text = tagged.text
        reasons.append(f'text = "{text}" ({tagged.why})')
    elif usual is not None:
        text, pair = usual
        reasons.append(f'text = "{text}", pair = "{pair}" (by their names, which are usual for two texts)')
    else:
        if text is None:
            others = [look for look in looks if look.name not in (*asked, pair, group)]
            choose = _choose_pictures if pictures else _choose_text
            text, reason = choose(table, others, looks, problems)
            reasons.append(f'text = "{text}" ({reason})')
        else:
            reasons.append(f'text = "{text}" (named)')
        if pair is not None:
            reasons.append(f'pair = "{pair}" (named)')
    if tagged is not None:
        reasons.append(f'label = "{tagged.label}" ({tagged.why})')
    elif not asked:
        free = [look for look in looks if look.name not in (text, pair, group)]
        asked, reason = _choose_label(table, free, looks, problems, base)
        reasons.append(f"label = {_names_in_quotes(asked)} ({reason})")
    else:
        found = {look.name: _spread(look) for look in looks}
        several = len(asked) > 1
        spread = "; ".join(f'"{name}": {found[name]}' if several else found[name] for name in asked if name in found)
        reasons.append(f"label = {_names_in_quotes(asked)} (named; {spread})")
    if group is not None:
        look = next(look for look in looks if look.name == group)
        reasons.append(f'group = "{group}" ({_spread(look)})')
    if tagged is None and not pictures:
        refuse_misread(table, named, (text, pair, group), not text, asked == ("",))
    problems.raise_as(DataError)
    parts = asked if len(asked) > 1 else ()
    words = holds_words(table.columns[text])
    return Columns(text, " + ".join(asked), group, ", ".join(reasons), pair, parts, words)


def _usual_pair(table: Table, taken: Sequence[str | None]) -> tuple[str, str] | None:
    free = {simple(name): name for name in table.columns if name not in taken}
    return next(((free[one], free[two]) for one, two in PAIRS if one in free and two in free), None)


def may_be_text(table: Table, taken: Sequence[str]) -> bool:
    """Whether a column besides those `taken` may hold texts: by its name, or by many different values with spaces."""
    free = [_look(name, values) for name, values in table.columns.items() if name not in taken]
    named = any(_named(free, names) for names in TEXT_NAMES)
    return named or any(
        look.is_text and look.spaced >= FEW * look.strings and look.distinct > FEW * look.filled for look in free
    )


def find_text(table: Table, text: str | None, trained: str, pictures: bool = False) -> str:
    """The text column of rows to predict: `text` if named, else the one trained on if present, else found by looking.

    Raises DataError when a named column is absent, and when looking finds none or several.
    """
    check_named(table, [] if text is None else [("text", text)])
    if text is not None:
        return text
    if trained in table.columns:
        return trained
    looks = [_look(name, values) for name, values in table.columns.items()]
    problems = Problems()
    found, _ = (_choose_pictures if pictures else _choose_text)(table, looks, looks, problems)
    problems.raise_as(DataError)
    return found


def check_named(table: Table, named: Sequence[tuple[str, str]]) -> None:
    """Raises DataError for each (role, column) that is not there, and for a column in two roles."""
    problems = Problems()
    for place, (role, name) in enumerate(named):
        if name not in table.columns:
            near = did_you_mean(name, table.columns)
            problems.add(f'{table.path}: there is no column "{name}" (asked for as the {role}); {near}')
        for other, same in named[place + 1 :]:
            if same == name:
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
    read = [number_of(value) for value in filled]
    numbers = [number for number in read if number is not None]
    counts = len(numbers) == len(filled) > 1 and all(b - a == 1 for a, b in pairwise(numbers))
    others = sum(not is_flag(value) for value in filled)
    flags = bool(filled) and (others == 0 or few_odd(others, len(filled)))
    example = shown(filled[0], 50) if filled else ""
    return _Look(name, len(filled), len(strings), spaced, length, distinct, lists, len(numbers), counts, flags, example)


def _choose_text(table: Table, free: list[_Look], looks: list[_Look], problems: Problems) -> tuple[str, str]:
    if len(looks) == 1 and looks[0].is_label and looks[0].distinct > 1:
        problems.add(
            f'{table.path}: its only column, "{looks[0].name}", looks like a label ({_spread(looks[0])}), and each row '
            "needs a text beside it; add the column of the texts"
        )
        return "", ""
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


def _choose_pictures(table: Table, free: list[_Look], looks: list[_Look], problems: Problems) -> tuple[str, str]:
    found = [look for look in free if holds_pictures(table.columns[look.name])]
    if len(found) == 1:
        return found[0].name, "its values name pictures"
    what = f"{_quoted(found)} each name pictures; say which" if found else "no column names pictures; name one"
    problems.add(f"{table.path}: {what} with --text; the columns are: {_listed(looks)}")
    return (found[0].name if found else ""), ""


def _choose_label(
    table: Table, free: list[_Look], looks: list[_Look], problems: Problems, base: Callable[[], str]
) -> tuple[tuple[str, ...], str]:
    for names in LABEL_NAMES:
        found = _named(free, names)
        # A name is believed unless the column plainly holds something else while another of that tier does not.
        found = [look for look in found if look.is_label] or found
        if len(found) == 1:
            return (found[0].name,), f"by its name, {_spread(found[0])}"
        if found:
            return _tied_labels(table, found, looks, problems)
    rest = [look for look in free if simple(look.name) not in NOT_LABELS]
    likely = [look for look in rest if look.is_label]
    found = [look for look in likely if look.distinct > 1] or likely
    if len(found) == 1:
        return (found[0].name,), _spread(found[0])
    # Measurements seldom repeat; a few values that are none are named where the column is read.
    measured = [look for look in rest if look.is_numeric and not look.is_label]
    if not found and len(measured) == 1 and measured[0].is_measured:
        return (measured[0].name,), f"the only column of numbers, {_spread(measured[0])}"
    if found and all(look.flags for look in found):
        return tuple(look.name for look in found), "columns of 0 and 1, each one label"
    if found:
        return _tied_labels(table, found, looks, problems)
    listed = [look for look in rest if look.lists and _lists_numbers(table.columns[look.name])]
    if len(listed) == 1:
        return (listed[0].name,), "the only column of lists of numbers"
    listed = [look for look in rest if look.lists and _lists_labels(table.columns[look.name])]
    if len(listed) == 1 and sum(look.lists for look in looks) == 1:  # beside lists of words they are tags
        return (listed[0].name,), "the only column of lists whose items repeat"
    problems.add(
        f"{table.path}: no column looks like a label (few distinct values, repeated); name one with --label"
        f"{_ways(rest) if rest else _alone(table, looks, base)}; the columns are: {_listed(looks)}"
    )
    return ("",), ""


def _items(values: Sequence[Any]) -> list[Any]:
    """What the lists among the values hold."""
    return [item for value in values if isinstance(value, list) for item in value if item is not None]


def _lists_numbers(values: Sequence[Any]) -> bool:
    items = _items(values)
    return bool(items) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)


def _lists_labels(values: Sequence[Any]) -> bool:
    """Whether lists hold names that repeat from row to row, as labels do and words of a text do not."""
    items = _items(values)
    names = all(isinstance(item, str) and not is_object(item) for item in items)
    return bool(items) and names and len(set(items)) <= max(2, FEW * len(items))


def _ways(rest: list[_Look]) -> str:
    """What else can be learned than names of classes."""
    measured = [look for look in rest if look.is_measured]
    return "".join(f', or learn numbers with --task regression --label "{look.name}"' for look in measured[:3])


def _alone(table: Table, looks: list[_Look], base: Callable[[], str]) -> str:
    """What can be learned of a column of texts that stands alone."""
    if any(holds_pictures(table.columns[look.name]) for look in looks):
        return ", which in an .npz is an array y"
    if not any(look.is_text for look in looks):
        return ""
    kind = base()
    fitting = [task for task, of in LANGUAGE.items() if kind in (of, "")]
    return f", or learn the texts themselves with --task {' or '.join(fitting)}" if fitting else ""


def _tied_labels(
    table: Table, found: list[_Look], looks: list[_Look], problems: Problems
) -> tuple[tuple[str, ...], str]:
    problems.add(
        f"{table.path}: {_quoted(found)} could each be the label; say which with --label; "
        f"the columns are: {_listed(looks)}"
    )
    return (found[0].name,), ""


def _named(looks: list[_Look], names: tuple[str, ...]) -> list[_Look]:
    return [look for look in looks if simple(look.name) in names]


def simple(name: str) -> str:
    """A column's name as usual names are written here."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _spread(look: _Look) -> str:
    values = "value" if look.distinct == 1 else "values"
    return f"{look.distinct} distinct {values} in {look.filled} rows"


def _names_in_quotes(names: Sequence[str]) -> str:
    return " + ".join(f'"{name}"' for name in names)


def _quoted(looks: list[_Look]) -> str:
    return " and ".join(f'"{look.name}"' for look in looks)


def _listed(looks: list[_Look]) -> str:
    listed = [f'"{look.name}" (such as: {look.example})' if look.filled else f'"{look.name}" (empty)' for look in looks]
    return "; ".join(listed[:30]) + ("; ..." if len(listed) > 30 else "")
