"""Questions about a text: which columns hold question, context and answers, and where in the context each answer stands."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.findings import counted
from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError, Problems, did_you_mean

QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "paragraph", "document", "article", "story", "text")
ANSWERS = ("answers", "answer", "answer_text")
STARTS = ("answer_start", "answer_starts", "start", "answer_offset", "start_position")
IMPOSSIBLE = "is_impossible"
FOUND = 0.8  # share of bare answers that must stand in their contexts for the rows to mean span questions
VARIED = 0.1  # share of different ones from which they are answers, whatever they are
# Classes where few differ, though such words stand in many a context; so are letters and digits of choices.
DECISIONS = ("yes", "no", "true", "false", "maybe", "unknown", "none", "both")
CHOICE = 2  # characters at most
SAMPLE = 500  # rows looked at for that
FEWEST_CONTEXTS = 10  # below, whole contexts cannot be held out without losing much of the data
LISTED = 10
TRUE = ("true", "1")
ARRAY = re.compile(r"array\((\[[^\]]*\])(?:, dtype=\w+)?\)")  # as pandas writes the answers of a hub set into a CSV


class Answer(NamedTuple):
    """A right answer, and where it stands."""

    start: int  # its first character in the context
    end: int  # the character after its last
    text: str


@dataclass(frozen=True)
class Located:
    """The right answers of a row, none where the context does not answer the question; and what was done to find them."""

    answers: tuple[Answer, ...]
    moved: bool = False  # the given start, or the spelling, was off
    first_of: int = 1  # places where an answer without a start could stand
    overruled: bool = False  # answers were given, and is_impossible said that there is none
    absent: tuple[str, ...] = ()  # of several answers those that stand nowhere in the context

    def __str__(self) -> str:
        if not self.answers:
            return "no answer"
        return " | ".join(dict.fromkeys(f"{answer.text} @{answer.start}" for answer in self.answers))


def means_answers(table: Table, asked: Asked) -> str | None:
    """Why the rows are questions with answers that stand in a context; None where they are not."""
    question, context, answers = _found_names(table, asked)
    if question is None or context is None or answers is None:
        return None
    read = "questions with a context"
    given = [(value, whole) for value, whole in zip(table.columns[answers], table.columns[context], strict=True)]
    filled = [(value, whole) for value, whole in given if value not in (None, "") and isinstance(whole, str)]
    if not filled:
        return None
    if any(_is_structured(value) for value, _ in filled):
        parsed = [_parsed(value) for value, _ in filled[:SAMPLE]]
        starts = any(said and any(start is not None for _, start in said) for said in parsed)
        return f"{read} and answers with their places" if starts else None
    if _start_name(table, asked) is not None:
        return f"{read}, an answer and its start"
    sample = [(str(value).strip(), whole) for value, whole in filled[:SAMPLE]]
    standing = sum(1 for value, whole in sample if _places(value, whole))
    different = {value for value, _ in sample}
    varied = len(different) > max(2, VARIED * len(sample))
    named = not varied and all(value.casefold() in DECISIONS or len(value) <= CHOICE for value in different)
    if named or standing < FOUND * len(sample):
        return None
    return f"{read}, and answers that stand in it{'' if varied else '; --task classification takes them as names'}"


def find_answers(table: Table, asked: Asked) -> Columns:
    """Question, context and answers: as named, else by usual names. Raises DataError with every problem.

    Rows of one context belong to one group, so that what is held out is new to the model, unless a group is named or
    hardly any context repeats.
    """
    problems = Problems()
    label = (asked.label,) if isinstance(asked.label, str) else asked.label or ()
    for role, name in (
        ("text", asked.text),
        ("pair", asked.pair),
        ("group", asked.group),
        *(("label", n) for n in label),
    ):
        if name is not None and name not in table.columns:
            near = did_you_mean(name, table.columns)
            problems.add(f'{table.path}: there is no column "{name}" (asked for as the {role}); {near}')
    if len(label) > 2:
        problems.add("data.label: question_answering reads one column of answers, or two: answers and their starts")
    question, context, answers = _found_names(table, asked)
    wanted = (("question", question, "text"), ("context", context, "pair"), ("answers", answers, "label"))
    listed = ", ".join(f'"{name}"' for name in table.columns)
    for what, name, flag in wanted:
        if name is None:
            problems.add(f"{table.path}: no column holds the {what}; name one with --{flag}; the columns are: {listed}")
    problems.raise_as(DataError)
    assert question is not None and context is not None and answers is not None
    start = None if _is_structured_column(table, answers) else _start_name(table, asked)
    parts = () if start is None else (answers, start)
    reasons = [f'question = "{question}", context = "{context}", answers = "{answers}"']
    reasons += [f'their starts = "{start}"'] if start is not None else []
    group = asked.group
    distinct = len({str(value) for value in table.columns[context]})
    if group is None and FEWEST_CONTEXTS <= distinct < len(table):
        group = context
        reasons.append(
            f'group = "{group}" ({distinct} contexts: all questions of one stay together; --group names another)'
        )
    why = ", ".join(reasons)
    return Columns(question, " + ".join(parts) if parts else answers, group, why, context, parts)


def read_answers(table: Table, columns: Columns) -> Table:
    """The table with `columns.label` holding a `Located` for each row, None where nothing is known of its answers.

    Raises DataError with the rows whose answers cannot be read, or do not stand in their context.
    """
    lost = [name for name in (*columns.texts, *(columns.parts or (columns.label,))) if name not in table.columns]
    if lost:
        raise DataError(*(f'{table.path}: there is no column "{name}" (the other rows have it)' for name in lost))
    answers = table.columns[columns.parts[0] if columns.parts else columns.label]
    starts = table.columns[columns.parts[1]] if columns.parts else [None] * len(table)
    impossible = table.columns.get(IMPOSSIBLE, [None] * len(table))
    structured = any(_is_structured(value) for value in answers)
    found: list[Located | None] = []
    strange, absent = [], []
    contexts = table.columns[columns.texts[1]]
    for row, context in enumerate(contexts):
        said = _said(answers[row], starts[row], structured)
        none = str(impossible[row]).strip().casefold() in TRUE
        if none:
            found.append(Located((), overruled=bool(said)))
        elif said is None or not isinstance(context, str) or not context.strip():
            found.append(None)
        elif isinstance(said, str):
            strange.append(f"{table.place(row)} {said}")
            found.append(None)
        else:
            located = _located(said, context)
            if located is None:
                question = shown(str(table.columns[columns.texts[0]][row]), 40)
                absent.append(f'{table.place(row)} "{shown(said[0][0], 40)}" to "{question}"')
            found.append(located)
    problems = Problems()
    _refuse(strange, f"{table.path}: answers that cannot be read in", EXPECTED, problems)
    _refuse(absent, f"{table.path}: answers that do not stand in their context in", ABSENT, problems)
    problems.raise_as(DataError)
    return Table(table.path, {**table.columns, columns.label: found}, table.lines)


EXPECTED = (
    'write {"text": ["..."], "answer_start": [0]} with as many starts as texts (none where there is no answer), or a text '
    "and a column with its start"
)
ABSENT = (
    "an answer must be a piece of its context, letter by letter but for case and white space; correct these rows, leave "
    "them out, learn free answers with --task seq2seq, or take them as names with --task classification"
)


def _refuse(places: list[str], what: str, fix: str, problems: Problems) -> None:
    if places:
        more = ", ..." if len(places) > LISTED else ""
        problems.add(f"{what} {counted(len(places))}: {', '.join(places[:LISTED])}{more}; {fix}")


def _found_names(table: Table, asked: Asked) -> tuple[str | None, str | None, str | None]:
    """Question, context, answers."""
    label = (asked.label,) if isinstance(asked.label, str) else asked.label or ()
    taken = [name for name in (asked.text, asked.pair, *label) if name is not None]
    question = asked.text if asked.text is not None else _usual(table, QUESTIONS, taken)
    context = asked.pair if asked.pair is not None else _usual(table, CONTEXTS, [*taken, question])
    answers = label[0] if label else _usual(table, ANSWERS, [*taken, question, context])
    known = [name if name in table.columns else None for name in (question, context, answers)]
    return known[0], known[1], known[2]


def _usual(table: Table, names: Sequence[str], taken: Sequence[str | None]) -> str | None:
    simple = {name.strip().casefold().replace(" ", "_"): name for name in table.columns if name not in taken}
    return next((simple[name] for name in names if name in simple), None)


def _start_name(table: Table, asked: Asked) -> str | None:
    if isinstance(asked.label, tuple) and len(asked.label) == 2:
        return asked.label[1]
    return _usual(table, STARTS, ())


def _is_structured(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and isinstance(_literal(value), list | dict))


def _is_structured_column(table: Table, name: str) -> bool:
    return any(_is_structured(value) for value in table.columns[name])


def _said(value: Any, start: Any, structured: bool) -> list[tuple[str, int | None]] | str | None:
    """Texts with their starts; a str says what is wrong, None that nothing is known."""
    if structured:
        if value is None or value == "":
            return None
        said = _parsed(value)
        return shown(value, 60) if said is None else said
    if value is None or not str(value).strip():
        return []  # an empty cell of answers written out is a question without one
    if start is None or start == "":
        return [(str(value), None)]
    whole = str(start).strip().removesuffix(".0")
    return [(str(value), int(whole))] if whole.lstrip("-").isdigit() else f"start {shown(start, 30)}"


def _parsed(value: Any) -> list[tuple[str, int | None]] | None:
    """What a structured value says; None where it is of another form. [] for no answer."""
    value = _literal(value) if isinstance(value, str) else value
    if isinstance(value, dict):
        texts = value.get("text", value.get("answer"))
        starts = value.get("answer_start", value.get("start"))
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        if not isinstance(texts, list) or not isinstance(starts, list | None):
            return None
        starts = [None] * len(texts) if starts is None else starts
        fit = len(starts) == len(texts) and all(isinstance(text, str) for text in texts)
        if not fit or any(isinstance(start, bool) or not isinstance(start, int | None) for start in starts):
            return None
        return [(text, start) for text, start in zip(texts, starts, strict=True) if text.strip()]
    if not isinstance(value, list):
        return None
    found: list[tuple[str, int | None]] = []
    for item in value:
        inner = _literal(item) if isinstance(item, str) else item
        said = [(item, None)] if isinstance(item, str) and not isinstance(inner, dict) else _parsed(inner)
        if said is None or isinstance(inner, list):
            return None
        found += said
    return found


def _literal(text: str) -> Any:
    """What a text writes out as JSON or as Python; None where it is no list or object."""
    if text.strip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(ARRAY.sub(r"\1", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _located(said: Sequence[tuple[str, int | None]], context: str) -> Located | None:
    """Every answer that stands in the context, at the place nearest to its start; None where answers are, and none does."""
    found: list[Answer] = []
    absent: list[str] = []
    moved, most = False, 1
    for text, start in said:
        text, start = _stripped(text, start)
        if start is not None and start >= 0 and context.startswith(text, start):
            found.append(Answer(start, start + len(text), text))
            continue
        places = _places(text, context)
        if not places:
            absent.append(text)
            continue
        first, end = min(places, key=lambda place: (abs(place[0] - start) if start is not None else 0, place[0]))
        found.append(Answer(first, end, context[first:end]))
        moved = moved or start is not None or context[first:end] != text
        most = max(most, len(places)) if start is None else most
    return None if said and not found else Located(tuple(found), moved, most, absent=tuple(absent))


def _stripped(text: str, start: int | None) -> tuple[str, int | None]:
    bare = text.strip()
    return bare, None if start is None else start + len(text) - len(text.lstrip())


def _places(text: str, context: str) -> list[tuple[int, int]]:
    """Where a text stands in a context as whole words; else anywhere, else but for case and white space."""
    if not text:
        return []
    exact = re.escape(text)
    loose = r"\s+".join(re.escape(word) for word in text.split())
    for pattern, flags in ((rf"(?<!\w){exact}(?!\w)", 0), (exact, 0), (loose, re.IGNORECASE)):
        found = [match.span() for match in re.finditer(pattern, context, flags)]
        if found:
            return found
    return []
