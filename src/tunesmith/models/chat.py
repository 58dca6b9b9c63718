"""Conversations as tokens: the tokenizer's own chat template is the only renderer, and says where answers stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.models.resolve import no_template
from tunesmith.models.text import TextProcessor

Message = Mapping[str, Any]
CALLS = "tool calls"  # as `Chat.lost` names them
# Both only where asked for by name: a base without a template of its own was not trained on any.
# The messages one after the other, each on a line of its own; what an assistant says is ended by the end of text.
PLAIN = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '\\n' if message['content'] else '' }}"
    "{{ call['function'] | tojson }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
)
# After OpenAI's chat markup, as Qwen's models have it. END is "<|im_end|>" where that is a token, else the end of text.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '\\n' if message['content'] else '' }}"
    "{{ '<tool_call>\\n' }}{{ call['function'] | tojson }}{{ '\\n</tool_call>' }}{% endfor %}"
    "{{ END + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NAMED = ("chatml", "plain")


class Unrenderable(ValueError):
    """A conversation that the template refuses, or renders so that its answers cannot be told from the rest."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens."""

    ids: list[int]
    answers: tuple[tuple[int, int], ...]  # of each turn of the assistant: its first token, and the one after its last
    joined: bool = False  # whether the whole's own tokens would hold the end of a prompt and the answer's first letters
    asked: tuple[int, ...] = ()  # the prompt of the last answer, where other tokens stand before it in the whole


class Chat:
    """Renders conversations with one template. Its tokenizer may be used beside it: nothing is changed."""

    def __init__(self, processor: TextProcessor, template: str) -> None:
        self._tokenizer = processor.tokenizer
        self._template = template

    def text(self, messages: Sequence[Message], tools: Sequence[Any] | None, ask: bool) -> str:
        """The conversation as the template writes it; with `ask` up to where the assistant begins to speak.

        Raises Unrenderable with what the template says against it.
        """
        from jinja2 import TemplateError

        try:
            return str(self._apply(messages, tools, ask))
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise Unrenderable(f"the chat template refuses it ({said})") from None

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> list[int]:
        """The tokens that the assistant is to go on from. Raises Unrenderable."""
        return self._tokens(self.text(messages, tools, ask=True))[0]

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None, only_last: bool = False) -> Rendered:
        """The whole conversation, and where in it the assistant speaks (`only_last`: last), its end of turn included.

        An answer stands between the rendering of all before it, as for generation, and that of all up to it: where these
        are not the beginning of the whole, the template's own {% generation %} marks are taken, and where it has none it
        rewrites earlier turns, which raises Unrenderable. What comes before the last answer is always the tokens of
        `prompt`, but by marks (see `Rendered.asked`): where the whole's own tokens do not begin with them, since one would
        hold the end of the prompt and the answer's first letters, the answer is tokenized by itself after them. An earlier
        answer stands as in that prompt.
        """
        whole = self.text(messages, tools, ask=False)
        borders = []
        speaks = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        for place in speaks[-1:] if only_last else speaks:
            before, after = self.text(messages[:place], tools, True), self.text(messages[: place + 1], tools, False)
            if not (whole.startswith(before) and whole.startswith(after) and after.startswith(before)):
                return self._by_marks(messages, tools, place, only_last)
            borders.append((len(before), len(after)))
        prompts = [self._tokens(whole[:first]) for first, _ in borders]
        ids, offsets = self._tokens(whole)
        joined = bool(borders) and ids[: len(prompts[-1][0])] != prompts[-1][0]
        if joined:
            said, places = self._tokens(whole[borders[-1][0] :])
            ids = prompts[-1][0] + said
            offsets = prompts[-1][1] + [(borders[-1][0] + one, borders[-1][0] + two) for one, two in places]
        found = []
        for (first, last), (alone, _) in zip(borders, prompts, strict=True):
            start, exact = _first_token(ids, offsets, whole, first, alone)
            joined = joined or not exact
            end = sum(begins < last for begins, _ in offsets)
            found.append((start, self._ended(ids, start, end)))
        return Rendered(ids, tuple(found), joined)

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer, as the template writes them; empty where it writes none, or cannot be asked."""
        try:
            made = self.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], None)
        except Unrenderable:
            return frozenset()
        last = made.ids[made.answers[-1][1] - 1] if made.answers and made.answers[-1][1] > 0 else -1
        return frozenset({last} & set(self._tokenizer.all_special_ids) | {last} & self._added)

    @cached_property
    def _added(self) -> set[int]:
        return set(self._tokenizer.added_tokens_decoder)

    def decode(self, ids: Sequence[int]) -> str:
        """What an assistant said, without marks, and without white space around it."""
        kept = [token for token in ids if token not in self.ends]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def lost(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> tuple[str, ...]:
        """What a conversation holds and the template never speaks of."""
        found = ["tools"] if tools and "tools" not in self._template else []
        called = any("tool_calls" in message for message in messages)
        return (*found, *([CALLS] if called and "tool_calls" not in self._template else []))

    def _apply(self, messages: Sequence[Message], tools: Sequence[Any] | None, ask: bool) -> Any:
        return self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=list(tools) if tools else None,
            chat_template=self._template,
            add_generation_prompt=ask,
            tokenize=False,
        )

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        given = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(given["input_ids"]), [(first, last) for first, last in given["offset_mapping"]]

    def _by_marks(
        self, messages: Sequence[Message], tools: Sequence[Any] | None, place: int, only_last: bool
    ) -> Rendered:
        if "generation" not in self._template or "endgeneration" not in self._template:
            raise Unrenderable(
                f"the chat template rewrites turn {place + 1} when further turns follow or when it is asked to answer (it "
                "may strip thoughts), so what the assistant sees in training is not what it will see; "
                "--set task.learn=last learns the last answer alone, whose prompt is as it will be"
            )
        given: Any = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=list(tools) if tools else None,
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            return_dict=True,
        )
        ids, mask = list(given["input_ids"]), [*given["assistant_masks"], 0]
        starts = [at for at, on in enumerate(mask) if on and (at == 0 or not mask[at - 1])]
        spans = tuple((start, mask.index(0, start)) for start in starts)
        if len(spans) != sum(message["role"] == "assistant" for message in messages):
            raise Unrenderable("the chat template's {% generation %} marks are not one for each turn of the assistant")
        speaks = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        asked = self.prompt(messages[: speaks[-1]], tools) if speaks else []
        other = bool(spans) and ids[: spans[-1][0]] != asked
        return Rendered(ids, spans[-1:] if only_last else spans, asked=tuple(asked) if other else ())

    def _ended(self, ids: list[int], start: int, end: int) -> int:
        """`end` less the white space that a template writes after its end of turn, which nobody needs to say."""
        known = set(self._tokenizer.all_special_ids) | self._added
        last = next((at for at in reversed(range(start, end)) if ids[at] in known), None)
        if last is not None and not str(self._tokenizer.decode(ids[last + 1 : end])).strip():
            return last + 1
        return end


def _first_token(
    ids: list[int], offsets: list[tuple[int, int]], text: str, border: int, alone: list[int]
) -> tuple[int, bool]:
    """The first token of an answer that begins at `border`, a place in `text`, and whether those before it are `alone`, the
    tokens of the text up to there.

    A token with the answer's first letters is the answer's where it holds nothing else but white space of the prompt.
    """
    if ids[: len(alone)] == alone:
        return len(alone), True
    place = sum(first < border for first, _ in offsets)
    shared = place > 0 and offsets[place - 1][1] > border and text[offsets[place - 1][0] : border].isspace()
    return place - 1 if shared else place, False


def template_of(processor: TextProcessor, asked: str | None, name: str) -> str:
    """The template to render with: the tokenizer's own, or "chatml", "plain" or the text of one where `asked`.

    `name` is the model's, for messages. Raises ModelError where there is none, or the tokenizer cannot tell places.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise ModelError(
            f"{name}: its tokenizer is a slow one, which cannot tell where in a text a token stands; conversations need "
            "a fast one: convert it to a tokenizer.json"
        )
    own = tokenizer.chat_template
    if asked is None:
        if isinstance(own, dict):
            own = own.get("default")
        if not isinstance(own, str):
            raise ModelError(no_template(name))
        return own
    if asked not in NAMED:
        return asked
    if not isinstance(tokenizer.eos_token, str):
        raise ModelError(
            f"{name}: its tokenizer has no end of text, with which task.template={asked} ends an answer; give the file of "
            "a jinja template that ends answers in another way"
        )
    if asked == "plain":
        return PLAIN
    known = tokenizer.convert_tokens_to_ids("<|im_end|>") not in (None, tokenizer.unk_token_id)
    return CHATML.replace("END", repr("<|im_end|>" if known else tokenizer.eos_token))
