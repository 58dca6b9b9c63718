"""Entities in a text: tags of its words (IOB1, IOB2, IOBES), or spans of its characters."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tunesmith.data.conll import place_of
from tunesmith.data.findings import Finding, Rows, counted, find
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.words import Bounds, Words, bounds_of
from tunesmith.errors import Problems

OUTSIDE = "O"
UNTYPED = "entity"  # the type of tags that are B and I alone
TAG = re.compile(r"O|[BIESLU](-.+)?")
SAME = {"L": "E", "U": "S"}  # BILOU's letters for IOBES's
LABEL_KEYS = ("label", "type", "entity", "entity_group", "tag", "class")
LISTED = 10
EXPECTED = "tags such as O, B-person, I-person (IOB1, IOB2 or IOBES)"


class Entity(NamedTuple):
    """Characters [start, end) of a text, and what they name."""

    start: int
    end: int
    label: str


class Said(NamedTuple):
    """What a row's label says, before it is held against the row's text."""

    tags: tuple[str, ...] | None  # one a word
    spans: tuple[Entity, ...] = ()


@dataclass(frozen=True)
class Tags(Target):
    """The entities of each row in the order of the text, without overlap, each of whole words."""

    scheme: str  # "IOB1", "IOB2", "IOBES", or "spans"

    balance: ClassVar[str] = "stratified by the rarest entity type of a row"
    classes: ClassVar[bool] = True
    words: ClassVar[bool] = True

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        values = table.columns[column]
        found = [None if value is None or value == "" else said_of(value) for value in values]
        wrong = [row for row, value in enumerate(values) if found[row] is None and value is not None and value != ""]
        if wrong:
            problems.add(
                f'{table.path}: column "{column}" cannot be read in {counted(len(wrong))} '
                f"({_some(table, wrong, column)}); "
                f'expected a list of {EXPECTED}, or of spans such as {{"start": 0, "end": 5, "label": "person"}}'
            )
        return found

    def located(
        self, table: Table, column: str, texts: Sequence[str], targets: Sequence[Any], problems: Problems
    ) -> list[Any]:
        self._check_lengths(table, column, texts, targets, problems)
        self._check_ends(table, column, texts, targets, problems)
        # What does not fit its text was added to the problems.
        return [None if said is None else _entities(said, text) for said, text in zip(targets, texts, strict=True)]

    def _check_lengths(
        self, table: Table, column: str, texts: Sequence[str], targets: Sequence[Any], problems: Problems
    ) -> None:
        tagged = [row for row, said in enumerate(targets) if said is not None and said.tags is not None]
        bare = [row for row in tagged if texts[row] and not isinstance(texts[row], Words)]
        if bare:
            problems.add(
                f'{table.path}: column "{column}" holds a tag a word in {counted(len(bare))} whose text is not a list of '
                "words; name the column that holds the words with --text, or give spans with start, end and label"
            )
        unequal = [
            row
            for row in tagged
            if row not in bare and texts[row] and len(bounds_of(texts[row])) != len(targets[row].tags)
        ]
        if unequal:
            listed = ", ".join(
                f"{table.place(row)} ({len(bounds_of(texts[row]))} words, {len(targets[row].tags)} tags)"
                for row in unequal[:LISTED]
            )
            problems.add(
                f'{table.path}: column "{column}" holds more or fewer tags than words in {counted(len(unequal))}: '
                f"{listed}; give one tag a word"
            )

    def _check_ends(
        self, table: Table, column: str, texts: Sequence[str], targets: Sequence[Any], problems: Problems
    ) -> None:
        beyond = [
            (row, span)
            for row, said in enumerate(targets)
            for span in (() if said is None else said.spans)
            if not 0 <= span.start < span.end <= len(texts[row])
        ]
        if beyond:
            listed = ", ".join(
                f'{table.place(row)} ({span.start} to {span.end} "{shown(span.label, 20)}" of {len(texts[row])} characters)'
                for row, span in beyond[:LISTED]
            )
            problems.add(
                f'{table.path}: column "{column}" holds {len(beyond)} spans that lie outside their text or are empty: '
                f"{listed}; count characters from 0, with the end after the last one"
            )

    def name(self, target: Any) -> str:
        return ", ".join(f"{entity.label} {entity.start}-{entity.end}" for entity in target) if target else "(none)"

    def told(self, value: Any, text: str) -> Any:
        said = said_of(value)
        if said is None:
            return value
        if said.tags is not None:
            return " ".join(said.tags)
        return ", ".join(f'{span.label} "{text[span.start : span.end]}"' for span in said.spans) or "(none)"

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        if self.scheme != "spans":
            self._notice_tags(column, rows, findings)
        told: dict[str, tuple[str, str, Callable[[Said, str], int]]] = {
            "span_inside_word": ("begin or end inside a word", "widened to whole words", _widened),
            "span_overlap": ("overlap a longer one", "left out, as a word has one tag", _overlapping),
            "span_blank": ("hold no word", "left out", _blank),
        }
        for kind, (what, done, count) in told.items():
            found: dict[str, list[int]] = {}
            total = 0
            for name, split in rows.items():
                numbers = [
                    0 if said is None or not said.spans else count(said, text) for said, text in _raw(split, column)
                ]
                total += sum(numbers)
                found[name] = [row for row, number in enumerate(numbers) if number]
            find(findings, kind, rows, found, f'"{column}" holds {total} spans that {what}; {done}')

    def _notice_tags(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        broken: dict[str, list[int]] = {}
        tagged: dict[str, list[int]] = {}
        kinds: Counter[str] = Counter()
        first = ""
        for name, split in rows.items():
            broken[name], tagged[name] = [], []
            for row, (said, _) in enumerate(_raw(split, column)):
                if said is None or said.tags is None:
                    continue
                tagged[name].append(row)
                breaks = breaks_at(said.tags, self.scheme)
                kinds.update(what for _, what in breaks)
                broken[name] += [row] if breaks else []
                if breaks and not first:
                    first = f"the first at word {breaks[0][0] + 1} of its row"
        if self.scheme != "IOB2":
            find(findings, "tag_scheme", rows, tagged, f'"{column}" is written in {self.scheme}, learned as IOB2')
        most = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(3))
        what = f'"{column}" breaks {self.scheme} {_times(kinds.total())}: {most}, {first}; read as conlleval reads it'
        find(findings, "tag_break", rows, broken, what)

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        counts = {
            name: Counter(entity.label for row in split.kept for entity in split.targets[row])
            for name, split in rows.items()
        }
        train = Counter(types_of(known)) if known is not None else counts["train"]
        of = "the run" if known is not None else rows["train"].table.path
        if known is None and not train:
            problems.add(
                f'{of}: column "{column}" names no entity in the training rows, so there is nothing to learn; name the '
                "right column by --label, or add rows with entities"
            )
            return
        for name, split in rows.items():
            missing = sorted(label for label in counts[name] if label not in train)
            if missing:
                named = ", ".join(f'"{shown(label, 40)}" ({counts[name][label]})' for label in missing[:LISTED])
                more = ", ..." if len(missing) > LISTED else ""
                first = next(
                    split.table.place(row)
                    for row in split.kept
                    if any(entity.label in missing for entity in split.targets[row])
                )
                problems.add(
                    f"{name}: types of entities that no training row of {of} has: {named}{more}, first at {first}; add "
                    "training rows of them, correct their spelling, or remove these rows"
                )

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [tuple(sorted({entity.label for entity in target})) if target else ("",) for target in targets]


def scheme_of(values: Iterable[Any]) -> str:
    """How the tags of a whole column are written: "IOB1", "IOB2", "IOBES" (or BILOU); "spans" where none are tags.

    In IOB1 a B stands only between two entities of one type; so tags in which no entity begins with B elsewhere are IOB1.
    """
    found = [said.tags for said in map(said_of, values) if said is not None and said.tags is not None]
    if not found:
        return "spans"
    if any(tag[0] in "ES" for tags in found for tag in tags):
        return "IOBES"
    bare = sum(len(breaks_of(tags, "IOB2")) for tags in found)
    marked = sum(len(breaks_of(tags, "IOB1")) for tags in found)
    return "IOB1" if bare > 0 and marked == 0 else "IOB2"


def breaks_of(tags: Sequence[str], scheme: str) -> list[str]:
    """What in a row's tags the scheme forbids, each as "I-x after O"; "the end" closes the row."""
    return [said for _, said in breaks_at(tags, scheme)]


def breaks_at(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """`breaks_of`, each with the place of the tag from 0; of "the end" the number of tags."""
    found = []
    ends = [*tags, "the end"] if scheme == "IOBES" else [*tags]
    for place, (before, tag) in enumerate(zip([OUTSIDE, *tags], ends, strict=False)):
        letter, kind = parts_of(tag) if tag != "the end" else ("", "")
        earlier, same = parts_of(before)[0], parts_of(before)[1] == kind
        if scheme == "IOB2":
            wrong = letter == "I" and not (earlier in "BI" and same)
        elif scheme == "IOB1":
            wrong = letter == "B" and not (earlier in "BI" and same)
        elif earlier in "BI":
            wrong = letter not in ("I", "E") or not same
        else:
            wrong = letter in ("I", "E")
        if wrong:
            found.append((place, f"{tag} after {before}"))
    return found


def entities_of(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Entities as (first word, word after the last, type), by the reading of conlleval, whatever the scheme.

    As conlleval.pl of the CoNLL-2000 task (startOfChunk, endOfChunk), which seqeval's default follows: a B, S, a new type,
    or an I or E after O, E or S begins an entity.
    """
    found: list[tuple[int, int, str]] = []
    start, before, kind = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, label = parts_of(tag)
        other = label != kind
        if before != OUTSIDE and (before in "ES" or letter in "BSO" or other):
            found.append((start, place, kind))
        if letter != OUTSIDE and (letter in "BS" or before in "OES" or other):
            start = place
        before, kind = letter, label
    return found


def tags_of(bounds: Bounds, entities: Iterable[Entity]) -> list[str]:
    """IOB2 tags of words from the entities that `Tags` reads."""
    tags = [OUTSIDE] * len(bounds)
    for entity in entities:
        inside = [place for place, (start, end) in enumerate(bounds) if start < entity.end and end > entity.start]
        for place in inside:
            tags[place] = f"{'B' if place == inside[0] else 'I'}-{entity.label}"
    return tags


def parts_of(tag: str) -> tuple[str, str]:
    """("B", "person") of "B-person"; BILOU's letters as IOBES's."""
    letter, _, label = tag.partition("-")
    return SAME.get(letter, letter), "" if letter == OUTSIDE else label or UNTYPED


def types_of(names: Iterable[str]) -> list[str]:
    """The types of entities among IOB2 tags."""
    return [name[2:] for name in names if name.startswith("B-")]


def said_of(value: Any) -> Said | None:
    """A list of tags or of spans, also as JSON text; None for anything else."""
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, list):
        return None
    if all(isinstance(item, str) and TAG.fullmatch(item) for item in value):
        # An empty list is no entity at all, as it stands beside a text; beside words it has too few tags for them.
        return Said(tuple(SAME.get(item[0], item[0]) + item[1:] for item in value)) if value else Said(None)
    spans = [_span(item) for item in value]
    return None if None in spans else Said(None, tuple(span for span in spans if span is not None))


def means_spans(value: Any) -> bool:
    """Whether a value is a list of objects with start and end, whatever else each has or lacks."""
    value = _json(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        return False
    items = [_json(item) if isinstance(item, str) else item for item in value]
    return all(isinstance(item, dict) and {"start", "end"} <= item.keys() for item in items)


def _span(item: Any) -> Entity | None:
    if isinstance(item, str):
        item = _json(item)
    if isinstance(item, dict):
        label = next((item[key] for key in LABEL_KEYS if item.get(key) is not None), None)
        item = [item.get("start"), item.get("end"), label]
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], str) or not item[2].strip():
        return None
    if any(isinstance(edge, bool) or not isinstance(edge, int) for edge in item[:2]):
        return None
    return Entity(item[0], item[1], item[2].strip())


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _raw(split: Rows, column: str) -> list[tuple[Said | None, str]]:
    """What each row's label says, and its text."""
    texts = next(iter(split.texts.values()))
    return [(said_of(value), text) for value, text in zip(split.table.columns[column], texts, strict=True)]


def _entities(said: Said, text: str) -> tuple[Entity, ...]:
    bounds = bounds_of(text)
    if said.tags is not None:
        found = [item for item in entities_of(said.tags) if item[1] <= len(bounds)]
        return tuple(Entity(bounds[first][0], bounds[last - 1][1], label) for first, last, label in found)
    return tuple(sorted(_apart(_whole(said.spans, bounds))))


def _whole(spans: Iterable[Entity], bounds: Bounds) -> list[Entity]:
    """Spans widened to whole words, less those without a word."""
    found = []
    for span in spans:
        inside = [(start, end) for start, end in bounds if start < span.end and end > span.start]
        if inside:
            found.append(Entity(inside[0][0], inside[-1][1], span.label))
    return found


def _apart(spans: Sequence[Entity]) -> list[Entity]:
    """Spans without overlap: the longer ones, and of equal ones the first."""
    kept: list[Entity] = []
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return kept


def _widened(said: Said, text: str) -> int:
    bounds = bounds_of(text)
    starts, ends = {start for start, _ in bounds}, {end for _, end in bounds}
    return sum(
        1
        for span in said.spans
        if (span.start not in starts or span.end not in ends) and text[span.start : span.end].strip()
    )


def _overlapping(said: Said, text: str) -> int:
    whole = _whole(said.spans, bounds_of(text))
    return len(whole) - len(_apart(whole))


def _blank(said: Said, text: str) -> int:
    return len(said.spans) - len(_whole(said.spans, bounds_of(text)))


def _some(table: Table, rows: list[int], column: str) -> str:
    said = [_fault(table, row, table.columns[column][row]) for row in rows[:LISTED]]
    return ", ".join(said) + (", ..." if len(rows) > LISTED else "")


def _fault(table: Table, row: int, given: Any) -> str:
    """The place of what in a row is neither a tag nor a span, and what it is."""
    value = _json(given) if isinstance(given, str) else given
    for place, item in enumerate(value if isinstance(value, list) else []):
        span = _json(item) if isinstance(item, str) else item
        if isinstance(span, dict):
            named = [key for key in ("start", "end") if span.get(key) is None]
            named += [] if any(span.get(key) is not None for key in LABEL_KEYS) else ["label"]
            if named:
                listed = " and ".join(f'"{key}"' for key in named)
                return f"{table.place(row)} {shown(json.dumps(span, ensure_ascii=False), 40)} lacks {listed}"
        elif isinstance(item, str) and not TAG.fullmatch(item):
            return f'{place_of(table, row, place)} "{shown(item, 20)}" is no tag'
    return f"{table.place(row)} {shown(given, 40)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
