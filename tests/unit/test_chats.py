"""Conversations are found and read alike whatever file they came from; what is wrong is told row by row, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.audit import clean
from tunesmith.data.chats import CONVERSATION, PROMPT, find_chats, prompts_of, read_chats, recognised
from tunesmith.data.columns import Asked
from tunesmith.data.conversation import Call, Conversation, Turn, answer_of, as_messages, as_text, from_text, prompt_of
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError

DECODER = Asked(base=lambda: "decoder")
ASKED, SAID = "How far is the moon?", "About 384,000 kilometres."
PLAIN = Conversation((Turn("user", ASKED), Turn("assistant", SAID)))
TOOL = {"name": "far", "description": "how far", "parameters": {}}
CALLING = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": ASKED},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "far", "arguments": '{"of": "moon"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "far", "content": "384000"},
    {"role": "assistant", "content": SAID, "weight": 0},
]


def read(rows: list[dict[str, Any]], asked: Asked = DECODER) -> Table:
    table = table_of(rows, "chat.jsonl")
    return read_chats(table, find_chats(table, asked))


def only(row: dict[str, Any], asked: Asked = DECODER) -> Conversation:
    return read([row], asked).columns[CONVERSATION][0]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": as_messages(PLAIN.turns)}, "OpenAI chat"),
        ({"messages": json.dumps(as_messages(PLAIN.turns))}, "OpenAI chat"),
        ({"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]}, "ShareGPT"),
        ({"instruction": ASKED, "input": "", "output": SAID}, "Alpaca"),
        ({"instruction": ASKED, "context": "", "response": SAID, "category": "qa"}, "Dolly"),
        ({"prompt": ASKED, "completion": SAID}, "prompt and completion"),
        ({"question": ASKED, "answer": SAID}, "question and answer"),
    ],
)
def test_every_form_gives_the_same_conversation(row: dict[str, Any], name: str) -> None:
    table = table_of([row], "chat.jsonl")
    why = recognised(table, DECODER)
    assert why is not None and name in why
    made = read_chats(table, find_chats(table, DECODER))
    assert made.columns[CONVERSATION] == [PLAIN]
    assert made.columns[PROMPT] == [ASKED]
    assert table.columns.items() <= made.columns.items()


def test_openai_chat_has_weights_tools_and_calls() -> None:
    made = only({"messages": CALLING, "tools": [{"type": "function", "function": TOOL}]})
    call = Call("far", '{"of": "moon"}', "c1")
    assert made.turns == (
        Turn("system", "Be short."),
        Turn("user", ASKED),
        Turn("assistant", "", 1, (call,)),
        Turn("tool", "384000", 1, (), "far", "c1"),
        Turn("assistant", SAID, 0),
    )
    assert json.loads(made.tools) == [{"type": "function", "function": TOOL}]
    messages = as_messages(made.turns)
    assert messages[2]["tool_calls"][0]["function"] == {"name": "far", "arguments": {"of": "moon"}}
    assert messages[3] == {"role": "tool", "content": "384000", "name": "far", "tool_call_id": "c1"}
    assert "weight" not in messages[4]


def test_sharegpt_calls_and_columns_become_the_same_turns() -> None:
    made = only(
        {
            "system": "Be short.",
            "conversations": [
                {"from": "human", "value": ASKED},
                {"from": "function_call", "value": '{"name": "far", "arguments": {"of": "moon"}}'},
                {"from": "observation", "value": "384000"},
                {"from": "gpt", "value": SAID},
            ],
            "tools": json.dumps([TOOL]),
        }
    )
    assert made.turns == (
        Turn("system", "Be short."),
        Turn("user", ASKED),
        Turn("assistant", "", 1, (Call("far", '{"of": "moon"}'),)),
        Turn("tool", "384000"),
        Turn("assistant", SAID),
    )
    assert answer_of(Conversation(made.turns[:3])) == '{"name": "far", "arguments": {"of": "moon"}}'


def test_alpaca_joins_what_an_instruction_is_about_and_keeps_its_history() -> None:
    made = only(
        {
            "instruction": "Translate.",
            "input": "Haus",
            "output": "house",
            "history": [["Hi", "Hello"]],
            "system": "You translate.",
        }
    )
    said = [(turn.role, turn.content) for turn in made.turns]
    assert said == [
        ("system", "You translate."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\n\nHaus"),
        ("assistant", "house"),
    ]


def test_columns_may_be_named() -> None:
    rows = [{"q": ASKED, "a": SAID, "n": 1}]
    assert only(rows[0], Asked(text="q", label="a")) == PLAIN
    assert only({"dialog": as_messages(PLAIN.turns)}, Asked(text="dialog")) == PLAIN
    with pytest.raises(DataError, match='no column "b"; the choices are: a'):
        read(rows, Asked(text="q", label="b"))
    with pytest.raises(DataError, match="no columns of conversations"):
        read(rows)


@pytest.mark.parametrize(
    ("rows", "base"),
    [
        ([{"instruction": ASKED, "output": SAID}], "encoder"),
        ([{"question": ASKED, "answer": "yes"}] * 30, "decoder"),
        ([{"text": ASKED, "label": "a"}], "decoder"),
        ([{"messages": "hello"}], "decoder"),
        ([{"prompt": ASKED, "completion": SAID, "chosen": "a", "rejected": "b"}], "decoder"),
    ],
)
def test_other_rows_are_not_taken_for_conversations(rows: list[dict[str, Any]], base: str) -> None:
    assert recognised(table_of(rows, "t"), Asked(base=lambda: base)) is None


def test_messages_are_conversations_whatever_the_base() -> None:
    assert recognised(table_of([{"messages": CALLING}], "t"), Asked(base=lambda: "encoder")) is not None


WRONG = [
    ({"messages": [{"content": "a"}, {"role": "assistant", "content": "b"}]}, 'message 1 has no "role"'),
    ({"messages": [{"role": "robot", "content": "a"}]}, 'message 1 has the unknown role "robot"'),
    ({"messages": [{"role": "user", "content": "a"}]}, "no turn of an assistant"),
    (
        {"messages": {"role": "user", "content": "a"}},
        '"messages" holds an object ({"role": "user", "content": "a"}) where a list',
    ),
    (
        {"messages": "hello"},
        '"messages" holds a text (hello) where a list of messages was expected, such as [{"role": "user"',
    ),
    ({"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "b"}]}, 'an empty "content"'),
    ({"messages": [[{"role": "user", "content": "a"}]]}, "message 1 is a list, not an object"),
    ({"messages": []}, "an empty list"),
    ({"messages": [{"role": "assistant", "content": 3}]}, 'a number as its "content"'),
    ({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}, "weight 0.5"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "a tool call without a name"),
    ({"messages": [{"role": "assistant", "content": [{"type": "image_url"}]}]}, "a part of type image_url"),
]


def test_everything_wrong_is_told_at_once_with_its_row() -> None:
    good = {"messages": as_messages(PLAIN.turns)}
    rows = [good, *(row for row, _ in WRONG[:5] if row != {"messages": []})]
    with pytest.raises(DataError) as caught:
        read(rows)
    said = list(caught.value.problems)
    assert len(said) == 5
    for place, (line, (_, what)) in enumerate(zip(said, WRONG, strict=False), 2):
        assert line.startswith(f"chat.jsonl:{place}: ") and what in line


@pytest.mark.parametrize(("row", "what"), WRONG, ids=[what for _, what in WRONG])
def test_each_wrong_row_is_refused(row: dict[str, Any], what: str) -> None:
    good = {"messages": as_messages(PLAIN.turns)}
    if row["messages"]:
        with pytest.raises(DataError, match="put these rows right") as caught:
            read([good, row])
        assert what in str(caught.value)
    else:  # nothing at all: the audit drops and counts it
        assert read([good, row]).columns[CONVERSATION] == [PLAIN, None]


def test_an_empty_answer_beside_a_question_is_refused_and_an_empty_row_is_left_to_the_audit() -> None:
    with pytest.raises(DataError, match=r'chat\.jsonl:2: "output" is empty'):
        read([{"instruction": "a", "output": "b"}, {"instruction": "c", "output": " "}])
    assert read([{"instruction": "a", "output": "b"}, {"instruction": "", "output": None}]).columns[PROMPT][1] == ""


def test_keys_that_are_not_read_are_kept_to_be_told() -> None:
    made = only(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thoughts": "c"}]}
    )
    assert made.unread == ("thoughts",)


@pytest.mark.parametrize(
    "given",
    [
        Conversation((Turn("user", ASKED),)),
        Conversation((Turn("user", '[{"role": "user", "content": "a"}]'),)),
        Conversation((Turn("user", "[not json"),)),
        Conversation((Turn("user", '{"a": 1}'),)),
        Conversation((Turn("user", "a", 0),)),
        Conversation(()),
        Conversation((Turn("system", "s"), Turn("user", "ü\n"), Turn("assistant", "b", 0), Turn("user", "c"))),
        Conversation((Turn("user", ASKED),), json.dumps([TOOL])),
        Conversation((Turn("user", "a"), Turn("assistant", "", 1, (Call("f", '{"x": 1}', "id"),)), Turn("tool", "r"))),
    ],
)
def test_a_prompt_as_text_reads_back_the_same(given: Conversation) -> None:
    assert from_text(as_text(given)) == given
    assert from_text(ASKED) == Conversation((Turn("user", ASKED),))
    assert as_text(Conversation((Turn("user", ASKED),))) == ASKED


def test_the_prompt_is_what_comes_before_the_last_answer() -> None:
    made = only({"messages": CALLING})
    assert prompt_of(made).turns == made.turns[:4]
    assert from_text(read([{"messages": CALLING}]).columns[PROMPT][0]).turns == made.turns[:4]


def test_prompts_are_read_without_answers() -> None:
    table = table_of([{"instruction": "Translate.", "input": "Haus"}, {"instruction": "Sing.", "input": ""}], "t")
    assert prompts_of(table, ("instruction", "output", "input"), None) == ["Translate.\n\nHaus", "Sing."]
    chats = table_of([{"messages": CALLING}, {"messages": CALLING[:2]}], "t")
    asked = prompts_of(chats, ("messages",), None)
    assert asked is not None
    assert [len(from_text(text).turns) for text in asked] == [4, 2]
    assert prompts_of(table_of([{"text": "a"}], "t"), ("messages",), None) is None
    blank = table_of([{"prompt": "a"}, {"prompt": None}, {"prompt": "b"}], "t")
    assert prompts_of(blank, ("prompt", "completion"), None) == ["a", "", "b"]


@pytest.mark.parametrize(
    "parts", [("messages",), ("prompt", "completion"), ("instruction", "output", "input"), ("mine", "other")]
)
def test_prompts_are_found_whatever_format_was_trained_on(parts: tuple[str, ...]) -> None:
    whole = {"instruction": "Translate.", "input": "Haus", "output": "house"}
    asked = {name: value for name, value in whole.items() if name != "output"}
    for row in (whole, asked):
        assert prompts_of(table_of([row], "t"), parts, None) == ["Translate.\n\nHaus"]
    for row in ({"prompt": "a", "completion": "b"}, {"prompt": "a"}, {"question": "a", "answer": "b"}):
        assert prompts_of(table_of([row], "t"), parts, None) == ["a"]
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name in ("messages", "conversations"):
        assert prompts_of(table_of([{name: chat}], "t"), parts, None) == ["a"]


@pytest.mark.parametrize(
    ("path", "form", "rows", "turns"),
    [
        ("alpaca_en_demo/alpaca_en_demo.json", "Alpaca", 999, 2),
        ("dolly_open_qa/open_qa.jsonl", "Dolly", 3742, 2),
        ("glaive_toolcall_demo/glaive_toolcall_en_demo.json", "ShareGPT", 300, 14),
        ("gsm8k/test.jsonl", "question and answer", 1319, 2),
    ],
)
def test_real_files_are_read_whole(path: str, form: str, rows: int, turns: int) -> None:
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / path
    if not file.exists():
        pytest.skip(f"{file} is absent")
    table = read_data(str(file))["train"]
    columns = find_chats(table, DECODER)
    found = [item for item in read_chats(table, columns).columns[CONVERSATION] if item is not None]
    assert form in columns.why and form in str(recognised(table, DECODER))
    assert len(found) == rows
    assert max(len(item.turns) for item in found) == turns
    assert all(item.last >= 0 for item in found)


def test_one_message_where_a_list_was_meant_is_known_for_what_it_is() -> None:
    row = {"messages": {"role": "user", "content": "a"}}
    assert recognised(table_of([row] * 3, "t"), DECODER) == '"messages" holds messages with roles (OpenAI chat)'
    with pytest.raises(DataError, match=r't:1: "messages" holds an object .* where a list of messages was expected'):
        table = table_of([row] * 3, "t")
        read_chats(table, find_chats(table, DECODER))
    assert recognised(table_of([{"messages": '{"a": 1}'}], "t"), DECODER) is None


def test_empty_rows_are_told_by_the_columns_of_the_table() -> None:
    from tunesmith.data.targets.conversations import Conversations

    messages = as_messages(PLAIN.turns)
    pairs = [{"prompt": f"{place}?", "completion": "yes", "system": "Be short."} for place in range(5)]
    for rows, named in (
        ([{"messages": messages, "tools": ""}] * 5 + [{"messages": []}], '"messages"'),
        ([*pairs, {"prompt": "", "completion": ""}], '"prompt" or "completion"'),
    ):
        table = table_of(rows, "t")
        columns = find_chats(table, DECODER)
        _, findings = clean({"train": read_chats(table, columns)}, columns, Conversations())
        told = [finding.message for finding in findings if finding.kind == "empty_text"]
        assert told == [f"1 row: {named} is empty; dropped"]
