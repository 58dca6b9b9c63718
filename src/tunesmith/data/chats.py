"""The files in which conversations come, told apart by looking: chat, ShareGPT, Alpaca, Dolly, pairs of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.conversation import ASSISTANT, SYSTEM, USER, Conversation, Turn, as_text, prompt_of, read_turns
from tunesmith.data.findings import counted
from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError, did_you_mean

PROMPT, CONVERSATION = "(prompt)", "(conversation)"  # the columns that are made
LISTED = 10
LOOKED_AT = 200  # rows
DISTINCT = 0.5  # share of different answers from which they are free text and no names of classes
LONG = 15  # letters of the usual answer from which it may be free text


@dataclass(frozen=True)
class Form:
    """Columns that make a conversation."""

    name: str
    needed: tuple[str, ...]
    further: tuple[str, ...] = ()  # read where they are there
    chat: bool = False  # whether the first column holds lists of messages, rather than a text
    alone: bool = True  # whether the columns' names are enough; else the answers must be free text


FORMS = (
    Form("OpenAI chat", ("messages",), ("tools", "system"), chat=True),
    Form("ShareGPT", ("conversations",), ("tools", "system"), chat=True),
    Form("ShareGPT", ("conversation",), ("tools", "system"), chat=True),
    Form("Alpaca", ("instruction", "output"), ("input", "history", "system")),
    Form("Dolly", ("instruction", "response"), ("context", "system")),
    Form("prompt and completion", ("prompt", "completion"), ("system", "tools")),
    Form("prompt and response", ("prompt", "response"), ("system",)),
    Form("question and answer", ("question", "answer"), ("system",), alone=False),
)
PREFERENCES = ("chosen", "rejected")  # columns of answers to choose between, which is another task
JOIN = "\n\n"  # between an instruction and what it is about


def recognised(table: Table, asked: Asked) -> str | None:
    """Why these rows are conversations; None where their shape does not say so.

    Messages say so themselves. Pairs of texts do where the base is a decoder; an encoder would read them for something
    else, and columns that were named are taken as they are.
    """
    if asked.text is not None or asked.label is not None or any(name in table.columns for name in PREFERENCES):
        return None
    form = _form_of(table)
    if form is None:
        return None
    if form.chat:
        return f'"{form.needed[0]}" holds messages with roles ({form.name})'
    if asked.base() != "decoder" or not (form.alone or _free_text(table.columns[form.needed[1]])):
        return None
    named = " and ".join(f'"{name}"' for name in form.needed)
    return f"columns {named} ({form.name}) and a base that writes text"


def find_chats(table: Table, asked: Asked) -> Columns:
    """The columns of a conversation: as named (one of messages, or a question's and an answer's), or by their names.

    `Columns.parts` are the columns that are read. Raises DataError where there are none.
    """
    if asked.pair is not None:
        raise DataError(
            f'data.pair: "{asked.pair}" is not read by task instruction; leave it out, and name the column of the prompt '
            "with --text and that of the answer with --label"
        )
    named = asked.label if isinstance(asked.label, tuple) else tuple(n for n in (asked.text, asked.label) if n)
    lost = [name for name in named if name not in table.columns and not isinstance(asked.label, tuple)]
    if lost:
        raise DataError(*(f'{table.path}: there is no column "{n}"; {did_you_mean(n, table.columns)}' for n in lost))
    if named:
        form = next((form for form in FORMS if set(form.needed) <= set(named)), None)
        why = "as asked" if form is None else f"as asked, {form.name}"
        why = f"conversations from {_quoted(named)}, {why}"
        return Columns(PROMPT, CONVERSATION, asked.group, why, parts=named, sources=_needed(named))
    form = _form_of(table)
    if form is None:
        needs = "; ".join(" and ".join(f'"{name}"' for name in form.needed) for form in FORMS)
        raise DataError(
            f"{table.path}: no columns of conversations among {_quoted(tuple(table.columns))}; looked for {needs}; name "
            "the column of messages with --text, or that of the prompt with --text and that of the answer with --label"
        )
    parts = (*form.needed, *(name for name in form.further if name in table.columns))
    why = f"conversations from {_quoted(parts)}: {form.name} format"
    return Columns(PROMPT, CONVERSATION, asked.group, why, parts=parts, sources=form.needed)


def read_chats(table: Table, columns: Columns) -> Table:
    """The table with a column of conversations, and one of what comes before the last answer of each, as text.

    Raises DataError with every row that is no conversation, or whose assistant says nothing.
    """
    parts = columns.parts
    needed = _needed(parts)
    lost = [name for name in needed if name not in table.columns]
    if lost:
        raise DataError(*(f'{table.path}: there is no column "{name}" (a part of the conversations)' for name in lost))
    known = {name: table.columns[name] for name in parts if name in table.columns}
    found: list[Conversation | None] = []
    wrong: list[str] = []
    for row in range(len(table)):
        problems: list[str] = []
        values = {name: column[row] for name, column in known.items()}
        made = _conversation(values, needed, problems)
        if made is not None and not problems and made.last < 0:
            problems.append(_no_messages(values, needed) or "no turn of an assistant, so there is nothing to learn")
        wrong += [f"{table.place(row)}: {problem}" for problem in problems]
        found.append(None if problems else made)
    if wrong:
        fix = "put these rows right, or take them out"
        more = [f"{table.path}: {len(wrong)} problems of conversations in all; {fix}"] if len(wrong) > LISTED else []
        raise DataError(*(f"{line}; {fix}" if not more else line for line in wrong[:LISTED]), *more)
    prompts = ["" if made is None else as_text(prompt_of(made)) for made in found]
    return Table(table.path, {**table.columns, PROMPT: prompts, CONVERSATION: found}, table.lines)


def prompts_of(table: Table, parts: Sequence[str], text: str | None) -> list[str] | None:
    """What a model is asked in each row of a table that need not hold answers; None where it holds no conversations.

    `parts` are the columns that it was trained on, `text` the one named now. Where none is named and the first of those is
    not there, conversations are found by their columns, whatever format the model was trained on.
    """
    needed = _needed(parts)
    first = needed[0] if text is None else text
    if text is None and first not in table.columns and (form := _form_of(table) or _asked_form(table)) is not None:
        needed, parts, first = form.needed, (*form.needed, *form.further), form.needed[0]
    if first not in table.columns:
        return None
    answer = needed[1:]
    found, wrong = [], []
    for row in range(len(table)):
        problems: list[str] = []
        values = {name: table.columns[name][row] for name in (first, *parts) if name in table.columns}
        values = {name: value for name, value in values.items() if name not in answer}
        made = _conversation(values, (first,), problems)
        wrong += [f"{table.place(row)}: {problem}" for problem in problems]
        found.append("" if made is None else _asked(made))
    if wrong:
        raise DataError(*wrong[:LISTED], f"{table.path}: {counted(len(wrong))} cannot be read; put them right")
    return found


def prompt_in(messages: Any, tools: Any, problems: list[str]) -> str:
    """What a list of messages asks, as `prompts_of` has it of a row; what is wrong is added to `problems`."""
    made = _conversation({"messages": messages, "tools": tools}, ("messages",), problems)
    if made is None:
        problems.append("holds no messages")
    return "" if made is None else _asked(made)


def _asked(made: Conversation) -> str:
    """What comes before the answer that a conversation ends with; all of it where it ends otherwise."""
    ends = made.turns and made.turns[-1].role == ASSISTANT
    return as_text(prompt_of(made) if ends else made) if made.turns else ""


def _asked_form(table: Table) -> Form | None:
    """The form whose first column is there, without answers: what is only asked."""
    known = (form for form in FORMS if not form.chat and form.needed[0] in table.columns)
    return next(known, None)


def _needed(parts: Sequence[str]) -> tuple[str, ...]:
    """Of the columns that are read those without which there is no conversation."""
    return next((form.needed for form in FORMS if set(form.needed) <= set(parts)), tuple(parts[:2]))


def _no_messages(values: dict[str, Any], needed: Sequence[str]) -> str:
    """What is wrong with a column of messages that holds a text or an object; "" where it holds a list."""
    value = values[needed[0]]
    if len(needed) > 1 or not isinstance(value, str) or _messages(value):
        return ""
    kind = "an object" if value.lstrip()[:1] == "{" else "a text"
    expected = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
    return f'"{needed[0]}" holds {kind} ({shown(value, 40)}) where a list of messages was expected, such as {expected}'


def _form_of(table: Table) -> Form | None:
    for form in FORMS:
        if all(name in table.columns for name in form.needed):
            first = table.columns[form.needed[0]][:LOOKED_AT]
            if not form.chat or any(_messages(value) or _message(value) for value in first):
                return form
    return None


def _messages(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    if not isinstance(value, list):
        return False
    first = value[0] if value else None
    if isinstance(first, str):
        try:
            first = json.loads(first)
        except (ValueError, RecursionError):
            return False
    return isinstance(first, dict) and not {"role", "from", "content", "value"}.isdisjoint(first)


def _message(value: Any) -> bool:
    """Whether a value is one message alone, which a reader refuses with the list that it expects."""
    return isinstance(value, str) and value.lstrip()[:1] == "{" and _messages(f"[{value}]")


def _free_text(values: Sequence[Any]) -> bool:
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if len(texts) < len(values) / 2 or not texts:
        return False
    usual = sorted(map(len, texts))[len(texts) // 2]
    return usual >= LONG and len(set(texts)) > DISTINCT * len(texts)


def _conversation(values: dict[str, Any], needed: Sequence[str], problems: list[str]) -> Conversation | None:
    """A row as a conversation; None where all that it needs is empty: such a row has nothing to be learned."""
    first = values.get(needed[0])
    if all(_blank(values.get(name)) for name in needed):
        return None
    system = values.get("system") if "system" not in needed else None
    turns: list[Turn] = [] if _blank(system) else [Turn(SYSTEM, str(system))]
    tools = _tools(values.get("tools"), problems) if "tools" not in needed else ""
    unread: set[str] = set()
    if len(needed) == 1 and (_messages(first) or not isinstance(first, str)):
        said = read_turns(first, problems, unread)
        if turns and said and said[0].role == SYSTEM:
            problems.append("a system turn both in its own column and in the messages")
        return Conversation((*turns, *said), tools, tuple(sorted(unread)))
    for place, pair in enumerate(_history(values.get("history"), problems), 1):
        if any(_blank(side) for side in pair):
            problems.append(f"an empty text in pair {place} of its history")
        turns += [Turn(USER, str(pair[0])), Turn(ASSISTANT, str(pair[1]))]
    about = values.get("input") if "input" not in needed else None
    about = values.get("context") if _blank(about) and "context" not in needed else about
    for name in needed:
        if _blank(values.get(name)):
            problems.append(f'"{name}" is empty')
        elif not _messages(values[name]) and isinstance(values[name], list):
            problems.append(f'"{name}" holds a list where a text was expected')
    if problems:
        return Conversation(())
    asked, *answer = (values[name] for name in needed)
    if _messages(asked):
        turns += read_turns(asked, problems, unread)
    else:
        turns.append(Turn(USER, str(asked) if _blank(about) else f"{asked}{JOIN}{about}"))
    for text in answer:
        turns += read_turns(text, problems, unread) if _messages(text) else [Turn(ASSISTANT, str(text))]
    return Conversation(tuple(turns), tools, tuple(sorted(unread)))


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == []


def _tools(value: Any, problems: list[str]) -> str:
    """The definitions of tools as JSON text; "" where there are none."""
    if _blank(value):
        return ""
    try:
        found = json.loads(value) if isinstance(value, str) else value
        items = [json.loads(item) if isinstance(item, str) else item for item in found]
    except (ValueError, TypeError, RecursionError):
        problems.append(f'"tools" is no JSON list of tools: {shown(value, 40)}')
        return ""
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in items):
        problems.append(f'"tools" is no JSON list of objects: {shown(value, 40)}')
        return ""
    return json.dumps(items, ensure_ascii=False) if items else ""


def _history(value: Any, problems: list[str]) -> list[list[Any]]:
    if _blank(value):
        return []
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in found):
        problems.append('"history" is no list of [question, answer] pairs')
        return []
    return found


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
