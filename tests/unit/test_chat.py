"""What is learned of a conversation: every token that an assistant says, its end of turn, and never one of a prompt."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chatting import (
    CHATML,
    INST,
    MARKED,
    PREFIXED,
    SPACED,
    STRICT,
    THINKING,
    conversations,
    processor,
    sentencepiece,
    tokenizer,
)
from tunesmith.data.conversation import ASSISTANT, Call, Conversation, Turn, as_messages, as_text, prompt_of
from tunesmith.data.encode import IGNORED, BadRows
from tunesmith.errors import ModelError
from tunesmith.models.chat import Chat
from tunesmith.models.text import TextProcessor
from tunesmith.tasks.base import Labels
from tunesmith.tasks.instruction import ChatExample, Instruction

NONE = Labels((), ())


def encoded(task: Instruction, rows: list[Conversation], template: str | None, limit: int = 4096) -> list[ChatExample]:
    found = task.encode([as_text(prompt_of(row)) for row in rows], rows, NONE, processor(template), limit)
    assert all(isinstance(item, ChatExample) for item in found)
    return found  # type: ignore[return-value]


def learned(example: ChatExample) -> list[int]:
    return [at for at, token in enumerate(example.target) if token != IGNORED]


@pytest.mark.parametrize("name", PREFIXED)
@pytest.mark.parametrize("seed", range(4))
def test_exactly_what_assistants_say_is_learned(name: str, seed: int) -> None:
    """By another way: in the rendered text answers alone hold capitals, and every token knows its place in the text."""
    template = PREFIXED[name]
    rows = conversations(25, seed, tools=name == "chatml")
    rows = [row for row in rows if name != "strict" or all(turn.role != "tool" for turn in row.turns)]
    tokenizer = processor(template).tokenizer
    for row, example in zip(rows, encoded(Instruction(), rows, template), strict=True):
        text = str(tokenizer.apply_chat_template(as_messages(row.turns), tokenize=False))
        given = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert example.inputs["input_ids"] == given["input_ids"] and example.cut == 0
        wanted, others, at = set(), set(), 0
        for turn in row.turns:
            said = turn.content.strip() if turn.content else '{"name": "LOOK", "arguments": {"AT": "THIS"}}'
            start = text.index(said, at)
            at = start + len(said)
            learns = turn.role == ASSISTANT and turn.weight
            (wanted if learns else others).update(range(start, at))
        for mark in ("<|im_start|>user\n", "<|im_start|>assistant\n", "[INST]", "[/INST]", "user:\n", "assistant:\n"):
            others |= {place for found in re.finditer(re.escape(mark), text) for place in range(*found.span())}
        chosen = learned(example)
        covered = {place for token in chosen for place in range(*given["offset_mapping"][token])}
        assert {place for place in wanted if not text[place].isspace()} <= covered, "all that an answer says is learned"
        assert not others & covered, "nothing of a prompt is learned"
        assert example.target == [
            token if place in set(chosen) else IGNORED for place, token in enumerate(example.inputs["input_ids"])
        ]


@pytest.mark.parametrize("name", PREFIXED)
def test_the_end_of_turn_is_learned_and_what_the_template_writes_after_it_is_not(name: str) -> None:
    rows = [Conversation((Turn("user", "go"), Turn(ASSISTANT, "YES"), Turn("user", "and"), Turn(ASSISTANT, "NO")))]
    (example,) = encoded(Instruction(), rows, PREFIXED[name])
    tokens = processor(PREFIXED[name]).tokenizer.convert_ids_to_tokens(example.inputs["input_ids"])
    end = "<|im_end|>" if name == "chatml" else "</s>"
    spans = "".join(tokens[at] if at in learned(example) else "\0" for at in range(len(tokens)))
    parts = [part.replace("Ġ", "") for part in spans.split("\0") if part]
    assert parts == [f"YES{end}", f"NO{end}"]


def _processor(given: Any) -> TextProcessor:
    return TextProcessor(given, 4096, "for tests", {"input_ids": 1, "attention_mask": 0}, 4096)


@pytest.mark.parametrize("kind", ["llama", "unigram", "bytes"])
@pytest.mark.parametrize("learn", ["assistant", "last"])
def test_an_answer_after_a_space_is_learned_whole_behind_the_prompt_that_is_asked(kind: str, learn: Any) -> None:
    """The tokens of the whole text would join the prompt's last space with the answer's first letters."""
    read = _processor(tokenizer(SPACED) if kind == "bytes" else sentencepiece(kind, SPACED))
    chat, task = Chat(read, SPACED), Instruction(learn=learn)
    first = (Turn("user", "hot word"), Turn(ASSISTANT, "the hot word"))
    for turns in (first, (*first, Turn("user", "and"), Turn(ASSISTANT, "the GOOD one"))):
        row = Conversation(turns)
        (example,) = task.encode([as_text(prompt_of(row))], [row], NONE, read, 4096)
        assert isinstance(example, ChatExample) and example.joined
        messages, ids = as_messages(turns), example.inputs["input_ids"]
        asked = str(read.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False))
        theirs = read.tokenizer(asked, add_special_tokens=False)["input_ids"]
        assert ids[: example.prompt] == chat.prompt(messages[:-1], None) == theirs
        whole = read.tokenizer(f"{asked}{turns[-1].content}</s>", add_special_tokens=False)["input_ids"]
        assert whole[: len(theirs)] != theirs, "the control: here they would be joined"
        assert chat.decode(ids[example.prompt :]) == turns[-1].content
        assert learned(example)[-(len(ids) - example.prompt) :] == list(range(example.prompt, len(ids)))
        (predicted,) = task.encode([as_text(prompt_of(row))], None, NONE, read, 4096)
        assert predicted.inputs["input_ids"] == ids[: example.prompt], "what is measured is what is predicted"
        earlier = [at for at in learned(example) if at < example.prompt]
        said = chat.decode([ids[at] for at in earlier])
        assert said == ("the hot word" if len(turns) > 2 and learn == "assistant" else "")


def test_a_token_with_letters_of_the_prompt_is_not_learned_in_an_earlier_answer() -> None:
    """A template without anything between: the tokenizer has "wor" and "▁wor", so o and r would go to the word before."""
    template = "{% for m in messages %}{{ m['content'] + ('</s>' if m['role'] == 'assistant' else '') }}{% endfor %}"
    turns = (Turn("user", "hot w"), Turn(ASSISTANT, "ord"), Turn("user", "hot w"), Turn(ASSISTANT, "ord"))
    (example,) = encoded(Instruction(), [Conversation(turns)], template)
    given = processor(template).tokenizer
    ids = example.inputs["input_ids"]
    tokens = given.convert_ids_to_tokens(ids)
    assert tokens[: tokens.index("</s>")] == given.tokenize("hot word") and "Ġwor" in tokens, "the control: joined"
    spans = "".join(tokens[at] if at in learned(example) else " " for at in range(len(ids))).split()
    assert spans == ["d</s>", "ord</s>"]


def test_learn_last_and_all() -> None:
    rows = conversations(20, 7)
    rows = [row._replace(turns=(*row.turns[:-1], row.turns[-1]._replace(weight=1))) for row in rows]
    last = encoded(Instruction(learn="last"), rows, CHATML)
    every = encoded(Instruction(learn="all"), rows, CHATML)
    usual = encoded(Instruction(), rows, CHATML)
    for one, two, three, row in zip(last, every, usual, rows, strict=True):
        assert learned(two) == list(range(1, two.length))
        assert set(learned(one)) <= set(learned(three))
        assert learned(one)[0] == one.prompt
        said = processor(CHATML).tokenizer.decode([one.inputs["input_ids"][at] for at in learned(one)])
        assert "".join(said.split()) == "".join(f"{row.turns[-1].content}<|im_end|>".split())
        assert learned(one) == list(range(learned(one)[0], learned(one)[-1] + 1))


def test_a_template_that_rewrites_earlier_turns_is_refused_with_what_would_do() -> None:
    rows = [Conversation((Turn("user", "a"), Turn(ASSISTANT, "B"), Turn("user", "c"), Turn(ASSISTANT, "D")))]
    with pytest.raises(BadRows, match=r"rewrites turn 2 .*task.learn=last"):
        encoded(Instruction(), rows, THINKING)
    (example,) = encoded(Instruction(learn="last"), rows, THINKING)
    tokens = processor(THINKING).tokenizer
    assert tokens.decode([example.inputs["input_ids"][at] for at in learned(example)]) == (
        "<think>\n\n</think>\n\nD<|im_end|>"
    )


def test_generation_marks_serve_where_prefixes_do_not() -> None:
    rows = [Conversation((Turn("user", "a"), Turn(ASSISTANT, "B"), Turn("user", "c"), Turn(ASSISTANT, "D")))]
    (example,) = encoded(Instruction(), rows, MARKED)
    tokens = processor(MARKED).tokenizer
    assert tokens.decode([example.inputs["input_ids"][at] for at in learned(example)]) == "BD<|im_end|>"


def test_what_a_template_says_against_a_row_is_told_with_the_row() -> None:
    good = Conversation((Turn("user", "a"), Turn(ASSISTANT, "B")))
    bad = Conversation((Turn("user", "a"), Turn("user", "b"), Turn(ASSISTANT, "B")))
    with pytest.raises(BadRows) as caught:
        encoded(Instruction(), [good, bad, good, bad], STRICT)
    assert list(caught.value.rows) == [1, 3]
    assert "roles must alternate" in caught.value.rows[1]
    assert encoded(Instruction(), [bad], CHATML)[0].units > 0, "two users in a row are the template's business"


def test_without_a_template_the_error_offers_the_explicit_choices() -> None:
    row = Conversation((Turn("user", "a"), Turn(ASSISTANT, "B")))
    with pytest.raises(ModelError, match=r"no chat template.*task.template=plain.*chatml.*jinja"):
        encoded(Instruction(), [row], None)
    decode = processor(None).tokenizer.decode
    plain = encoded(Instruction(template="plain"), [row], None)[0]
    assert decode(plain.inputs["input_ids"]) == "<s>a\nB</s>"
    assert decode([plain.inputs["input_ids"][at] for at in learned(plain)]) == "B</s>"
    chatml = encoded(Instruction(template="chatml"), [row], None)[0]
    assert decode(chatml.inputs["input_ids"]) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
    assert decode([chatml.inputs["input_ids"][at] for at in learned(chatml)]) == "B<|im_end|>"


def test_a_template_file_is_read_once_and_then_the_text_is_the_option(tmp_path: Any) -> None:
    path = tmp_path / "my.jinja"
    path.write_text(INST, encoding="utf-8")
    assert Instruction(template=str(path)).template == INST
    assert Instruction(template=INST).template == INST
    with pytest.raises(ValueError, match="cannot be read"):
        Instruction(template=str(tmp_path / "none.jinja"))
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no jinja template"):
        Instruction(template=str(path))


@pytest.mark.parametrize("seed", range(3))
def test_whole_turns_are_left_out_from_the_end_and_counted(seed: int) -> None:
    rows = conversations(30, seed)
    whole = encoded(Instruction(), rows, CHATML)
    for limit in (24, 40, 64):
        kept, fitting = [], []
        for row, full in zip(rows, whole, strict=True):
            try:
                kept.append(encoded(Instruction(), [row], CHATML, limit)[0])
                fitting.append(full)
            except BadRows as error:
                assert "no token to learn" in str(error)
                assert min(learned(full)) >= limit
        for full, part in zip(fitting, kept, strict=True):
            assert part.length <= limit and part.cut == full.length - part.length
            assert part.inputs["input_ids"] == full.inputs["input_ids"][: part.length]
            assert part.target == full.target[: part.length]
            if part.cut and not part.clipped:
                assert learned(part)[-1] == part.length - 1, "ends with the end of a turn"
                assert part.dropped > 0
            if part.clipped:
                assert part.length == limit
            assert part.cut == 0 or list(part.rest) == full.inputs["input_ids"][part.length : part.length + 20]


def test_a_row_without_a_learned_token_says_why() -> None:
    silent = Conversation((Turn("user", "a"), Turn(ASSISTANT, "B", 0)))
    long = Conversation((Turn("user", "a " * 50), Turn(ASSISTANT, "B")))
    with pytest.raises(BadRows) as caught:
        encoded(Instruction(), [silent, long], CHATML, 32)
    assert "weight 0" in caught.value.rows[0]
    assert "tokens come before its first answer, and 32 are read; raise training.max_length" in caught.value.rows[1]
    read = processor(CHATML)
    read.positions = 32
    with pytest.raises(BadRows) as caught:
        Instruction().encode(["a"], [long], NONE, read, 32)
    assert "and 32 are read, the most this model takes; shorten it, or leave" in caught.value.rows[0]
    assert "max_length" not in caught.value.rows[0]


def test_a_prompt_to_answer_keeps_the_system_and_the_latest_turns_and_leaves_room() -> None:
    turns = [Turn("system", "be kind")]
    for number in range(12):
        turns += [Turn("user", f"go {number} now"), Turn(ASSISTANT, "OK")]
    asked = Conversation((*turns, Turn("user", "last one")))
    task = Instruction(answer_tokens=20)
    (short,) = task.encode([as_text(asked)], None, NONE, processor(CHATML), 90)
    assert isinstance(short, ChatExample)
    text = str(processor(CHATML).tokenizer.decode(short.inputs["input_ids"]))
    assert text.startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_start|>user\nlast one<|im_end|>\n<|im_start|>assistant\n")
    assert short.length <= 70 and short.dropped > 0 and not short.clipped
    (whole,) = task.encode([as_text(asked)], None, NONE, processor(CHATML), 4096)
    assert short.cut == whole.length - short.length > 0 and whole.cut == 0
    (cut,) = task.encode(["word " * 200], None, NONE, processor(CHATML), 90)
    assert isinstance(cut, ChatExample) and cut.length == 70 and cut.clipped
    assert task.read_of(90).startswith("70 tokens at most, as this model reads 90 ")
    assert Instruction().read_of(90).startswith("68 tokens at most"), (
        "a quarter is for the answer, where it may be longer"
    )


def test_a_prompt_that_leaves_room_for_a_token_is_asked_whole_as_it_is_measured() -> None:
    """Whatever task.answer_tokens says: the answer has less room then."""
    row = Conversation((Turn("user", "go on " * 30), Turn(ASSISTANT, "YES")))
    (whole,) = encoded(Instruction(), [row], CHATML)
    for limit in (whole.prompt + 1, 2 * whole.prompt):
        (asked,) = Instruction().encode([as_text(prompt_of(row))], None, NONE, processor(CHATML), limit)
        (known,) = encoded(Instruction(), [row], CHATML, limit)
        assert asked.inputs["input_ids"] == known.inputs["input_ids"][: known.prompt] and asked.cut == 0
        assert known.prompt == whole.prompt
    (cut,) = Instruction().encode([as_text(prompt_of(row))], None, NONE, processor(CHATML), whole.prompt)
    assert cut.length == whole.prompt - whole.prompt // 4 and cut.cut == whole.prompt // 4


def test_remarks_count_what_became_of_the_rows() -> None:
    rows = conversations(30, 1)
    examples = encoded(Instruction(), [row for row in rows if row.turns[1].weight], CHATML, 64)
    said = Instruction().remarks({"train": examples}, 64)
    count = sum(len(learned(example)) for example in examples)
    total = sum(example.length for example in examples)
    assert said[0].startswith(f"{count:,} of {total:,} tokens are learned")
    assert f"{sum(example.dropped > 0 for example in examples)} conversations longer" in said[1]
    apart = Conversation((Turn("user", "a"), Turn(ASSISTANT, "the word")))
    told = Instruction().remarks({"train": encoded(Instruction(), [apart, apart], SPACED)}, 64)
    assert told[-1].startswith("2 conversations where an answer's first letters would share a token")
    tools = Conversation((Turn("user", "a"), Turn(ASSISTANT, "B")), '[{"name": "f"}]')
    lost = Instruction().remarks({"train": encoded(Instruction(), [tools], CHATML)}, 64)
    assert lost[-1] == "1 conversations hold tools, which this chat template does not write: they are not read"


def test_the_last_answer_by_marks_is_measured_as_it_is_asked() -> None:
    opened = MARKED.replace(
        "'<|im_start|>assistant\\n' }}{% endif %}", "'<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    )
    rows = [Conversation((Turn("user", "a"), Turn(ASSISTANT, "B"), Turn("user", "c"), Turn(ASSISTANT, "D")))]
    for template, thinks in ((MARKED, False), (opened, True)):
        tokens = processor(template).tokenizer
        for learn, said in (("last", "D<|im_end|>"), ("assistant", "BD<|im_end|>")):
            task = Instruction(learn=learn)  # pyright: ignore[reportArgumentType]
            (example,) = encoded(task, rows, template)
            assert tokens.decode([example.inputs["input_ids"][at] for at in learned(example)]) == said
            shown = list(example.asked) or example.inputs["input_ids"][: example.prompt]
            assert tokens.decode(shown).endswith("assistant\n<think>\n" if thinks else "assistant\n")
            told = [line for line in task.remarks({"train": [example]}, 64) if "behind other tokens" in line]
            assert bool(told) is thinks and bool(example.asked) is thinks


def test_a_call_that_the_template_does_not_write_teaches_no_silence() -> None:
    called = Turn(ASSISTANT, "", calls=(Call("f", "{}"),))
    turns = (Turn("user", "a"), called, Turn("tool", "7"), Turn(ASSISTANT, "B"))
    for template, said in ((INST, "B </s>"), (CHATML, "<tool_call>")):
        (example,) = encoded(Instruction(), [Conversation(turns)], template)
        text = processor(template).tokenizer.decode([example.inputs["input_ids"][at] for at in learned(example)])
        assert said in text and ("</s>" not in text.replace("B </s>", "")), text
    with pytest.raises(BadRows, match="entry 0"):
        encoded(Instruction(), [Conversation(turns[:2])], INST)
