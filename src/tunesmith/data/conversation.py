"""Conversations: turns of a system, a user, an assistant and tools, in one form whatever file they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
# Other names of the four roles: OpenAI's own, and those of ShareGPT files.
ROLES = {
    SYSTEM: SYSTEM, "developer": SYSTEM,
    USER: USER, "human": USER,
    ASSISTANT: ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT,
    "function_call": ASSISTANT, "tool_call": ASSISTANT,
    TOOL: TOOL, "function": TOOL, "observation": TOOL, "function_response": TOOL, "tool_response": TOOL,
}  # fmt: skip
READ = frozenset({"role", "from", "content", "value", "weight", "tool_calls", "function_call", "name", "tool_call_id"})
CALLING = ("function_call", "tool_call")  # ShareGPT roles whose text is the JSON of a tool call


class Call(NamedTuple):
    """A tool that an assistant asks for."""

    name: str
    arguments: str  # JSON text of an object
    id: str = ""


class Turn(NamedTuple):
    """What one side says."""

    role: str  # "system", "user", "assistant" or "tool"
    content: str
    weight: int = 1  # of an assistant's turn: 0 where it is context only
    calls: tuple[Call, ...] = ()
    name: str = ""  # of the tool that answers
    reply_to: str = ""  # id of the call that a tool answers


class Conversation(NamedTuple):
    """Turns in their order, and the tools that the assistant could use."""

    turns: tuple[Turn, ...]
    tools: str = ""  # JSON list of tool definitions; "" where there are none
    unread: tuple[str, ...] = ()  # keys of its messages that are not read

    def __str__(self) -> str:
        return answer_of(self)

    @property
    def last(self) -> int:
        """The place of the last turn of the assistant; -1 where there is none."""
        return next((at for at in reversed(range(len(self.turns))) if self.turns[at].role == ASSISTANT), -1)


def prompt_of(conversation: Conversation) -> Conversation:
    """What comes before the last turn of the assistant."""
    return Conversation(conversation.turns[: max(conversation.last, 0)], conversation.tools)


def answer_of(conversation: Conversation) -> str:
    """What the assistant says last: its text, and the calls of tools as JSON, a line each."""
    if conversation.last < 0:
        return ""
    turn = conversation.turns[conversation.last]
    called = [json.dumps(_plain_call(call), ensure_ascii=False) for call in turn.calls]
    return "\n".join([*([turn.content] if turn.content else []), *called])


def as_text(conversation: Conversation) -> str:
    """One text that `from_text` reads back: the user's own words where they are all there is, else JSON."""
    if len(conversation.turns) == 1 and not conversation.tools:
        (turn,) = conversation.turns
        if turn == Turn(USER, turn.content) and not _is_json(turn.content):
            return turn.content
    plain: dict[str, Any] = {"messages": as_messages(conversation.turns, weights=True)}
    if conversation.tools:
        plain["tools"] = json.loads(conversation.tools)
    return json.dumps(plain, ensure_ascii=False)


def from_text(text: str) -> Conversation:
    """A conversation from what `as_text` made, from a JSON list of messages, or from the words of a user.

    Raises ValueError, naming the message, for JSON messages that are not as they should be.
    """
    if not _is_json(text):
        return Conversation((Turn(USER, text),))
    value = json.loads(text)
    messages, tools = (value["messages"], value.get("tools")) if isinstance(value, dict) else (value, None)
    problems: list[str] = []
    turns = read_turns(messages, problems, set()) if messages else ()
    if problems:
        raise ValueError("; ".join(problems))
    return Conversation(turns, "" if not tools else json.dumps(tools, ensure_ascii=False))


def _is_json(text: str) -> bool:
    """Whether a text is JSON of messages, rather than words that merely begin with a bracket."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, dict):
        return isinstance(value.get("messages"), list)
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "role" in item for item in value)


def as_messages(turns: Sequence[Turn], weights: bool = False) -> list[dict[str, Any]]:
    """Messages as chat templates take them: "role", "content", and the keys of tools where there are such.

    With `weights` also "weight" where it is 0.
    """
    found = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.calls:
            message["tool_calls"] = [
                {"type": "function", **({"id": call.id} if call.id else {}), "function": _plain_call(call)}
                for call in turn.calls
            ]
        message |= {"name": turn.name} if turn.name else {}
        message |= {"tool_call_id": turn.reply_to} if turn.reply_to else {}
        message |= {"weight": 0} if weights and turn.weight == 0 else {}
        found.append(message)
    return found


def _plain_call(call: Call) -> dict[str, Any]:
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def read_turns(messages: Any, problems: list[str], unread: set[str]) -> tuple[Turn, ...]:
    """Turns from messages with "role" and "content", or "from" and "value"; what is wrong is added to `problems`.

    Keys that hold something and are not read are added to `unread`.
    Messages may be objects, or the JSON text of objects, and the whole may be JSON text too.
    """
    messages = _decoded(messages)
    if not isinstance(messages, list):
        problems.append(f"holds {_kind(messages)} where a list of messages was expected")
        return ()
    if not messages:
        problems.append("holds an empty list of messages")
    turns = []
    for place, value in enumerate(messages, 1):
        message = _decoded(value)
        if isinstance(message, Mapping):
            unread |= {str(key) for key, given in message.items() if key not in READ and given not in (None, "", [])}
            found = _turn(message, f"message {place}", problems)
            turns += [found] if found is not None else []
        else:
            problems.append(f"message {place} is {_kind(message)}, not an object with a role and a content")
    return tuple(turns)


def _turn(message: Mapping[str, Any], place: str, problems: list[str]) -> Turn | None:
    said = "from" if "from" in message and "role" not in message else "role"
    text = "value" if ("value" in message or said == "from") and "content" not in message else "content"
    given = message.get(said)
    if given is None:
        problems.append(f'{place} has no "{said}"')
        return None
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        problems.append(f'{place} has the unknown {said} "{given}" (known are {", ".join(ROLES)})')
        return None
    before = len(problems)
    content = _content(message.get(text), place, text, problems)
    calls = _calls(message.get("tool_calls"), place, problems)
    if given in CALLING:
        calls, content = _calls(_decoded(content), place, problems), ""
    if message.get("function_call") is not None:  # the older form of OpenAI's
        calls += _calls([message["function_call"]], place, problems)
    if role in (USER, ASSISTANT) and not content.strip() and not calls and len(problems) == before:
        problems.append(f'{place} ({given}) has {"an empty" if text in message else "no"} "{text}"')
    if calls and role != ASSISTANT:
        problems.append(f"{place} calls tools as {given}, which only an assistant does")
    weight = message.get("weight")
    if weight not in (None, 0, 1) or isinstance(weight, bool):
        problems.append(f"{place} has weight {weight!r}; only 0 and 1 are read")
    if len(problems) > before:
        return None
    names = [message.get("name"), message.get("tool_call_id")]
    name, reply_to = ("" if value is None else str(value) for value in names)
    return Turn(role, content, 1 if weight is None else int(weight), calls, name, reply_to)


def _content(value: Any, place: str, key: str, problems: list[str]) -> str:
    """Text, or a list of text parts, which are joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [_decoded(part) for part in value]
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
        others = [part.get("type") for part in parts if isinstance(part, Mapping) and part.get("type") != "text"]
        if all(isinstance(item, str) for item in texts) and not others:
            return "".join(str(item) for item in texts)
        what = f"a part of type {others[0]}" if others else "a part that is no text"
        problems.append(f'{place} has {what} in its "{key}"; only texts are read')
        return ""
    problems.append(f'{place} has {_kind(value)} as its "{key}" where a text was expected')
    return ""


def _calls(value: Any, place: str, problems: list[str]) -> tuple[Call, ...]:
    if value is None:
        return ()
    found = []
    for item in value if isinstance(value, list) else [value]:
        call = _decoded(item)
        inner = _decoded(call.get("function", call)) if isinstance(call, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        arguments = _decoded(inner.get("arguments", {})) if isinstance(inner, Mapping) else None
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            problems.append(f"{place} has a tool call without a name, or whose arguments are no JSON object")
            continue
        written = json.dumps(arguments, ensure_ascii=False)
        found.append(Call(name, written, str(call.get("id") or "")))
    return tuple(found)


def _decoded(value: Any) -> Any:
    """JSON text of an object or a list as what it says; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
