"""What an assistant says in a conversation: supervised fine-tuning on the tokens of its answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunesmith.data.chats import find_chats, prompt_in, prompts_of, read_chats, recognised
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.conversation import (
    ASSISTANT,
    SYSTEM,
    USER,
    Conversation,
    Turn,
    answer_of,
    as_messages,
    from_text,
)
from tunesmith.data.encode import IGNORED, BadRows, Batch, Example, Text
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.conversations import Conversations
from tunesmith.data.words import Window
from tunesmith.errors import DataError
from tunesmith.models.resolve import check_template
from tunesmith.tasks._answers import Compare, compared
from tunesmith.tasks._disagreement import classes_apart
from tunesmith.tasks._tokens import Frequencies, judged_tokens, token_loss
from tunesmith.tasks._writing import WritingTask
from tunesmith.tasks._written import Pair, means_of
from tunesmith.tasks.base import Labels, LossSum, Prediction

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.chat import Chat
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

REST = 20  # tokens kept of those that were cut, to show
ROOM = 4  # of a prompt that is cut this part of the limit is kept free, for an answer worth asking for


@dataclass(frozen=True)
class ChatExample(Example):
    """A conversation as tokens: `target` has for each token itself where it is learned, IGNORED elsewhere."""

    prompt: int = 0  # tokens before the last answer; all of them where that answer is not known or was left out
    dropped: int = 0  # whole answers that the length limit took away, with all that stands around them
    clipped: bool = False  # whether the limit cut an answer in two
    joined: bool = False  # whether an answer's first letters would share a token with what comes before it
    lost: tuple[str, ...] = ()  # what the conversation holds and the template does not write
    asked: tuple[int, ...] = ()  # what the last answer is asked with, where it is learned behind other tokens


class Instruction(WritingTask):
    """Cross-entropy of every token that an assistant says, its end of turn included; the template is the tokenizer's."""

    pipeline_tag: ClassVar[str] = "text-generation"
    primary_metric: ClassVar[str] = "token_accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("token_accuracy", "loss", "perplexity")
    kinds: ClassVar[tuple[str, ...]] = ("decoder",)
    suits: ClassVar[str] = "a decoder (llama, qwen3, gpt2), best one with a chat template"
    views: ClassVar[tuple[str, ...]] = ("answers",)
    worst: ClassVar[str] = "The written answers furthest from those wanted, of the rows that answers were written for."
    example: ClassVar[type[Example]] = ChatExample

    learn: Literal["assistant", "last", "all"] = Field(
        default="assistant", description="which tokens: all answers, the last answer of a conversation, or every token"
    )
    template: str | None = Field(
        default=None, description="chatml, plain, or the file of a jinja template; the tokenizer's own when not given"
    )
    unfit: Literal["refuse", "drop"] = Field(
        default="refuse", description="rows that the template refuses, or of which no token of an answer fits"
    )
    packing: bool = Field(
        default=False, description="several short conversations in one window, each as if it stood alone"
    )
    answer_tokens: Annotated[int, Field(ge=1)] = Field(default=256, description="most tokens of a written answer")
    after: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="compare only what follows the last of this mark in an answer, such as ####"
    )

    @field_validator("template")
    @classmethod
    def _whole_template(cls, value: str | None) -> str | None:
        """A file as its text, so that a run and its model do not depend on the file."""
        if value is None or value in ("chatml", "plain") or "{%" in value or "{{" in value:
            return value
        try:
            text = Path(value).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(
                f"chatml, plain or a file of a jinja template, and {value} cannot be read ({error})"
            ) from None
        if "{%" not in text and "{{" not in text:
            raise ValueError(f"{value} holds no jinja template (no {{% or {{{{ in it)")
        return text

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return recognised(table, asked)

    def check_files(self, name: str) -> None:
        if self.template is None:
            check_template(name)

    def find(self, table: Table, asked: Asked) -> Columns:
        self.known_metric()
        return find_chats(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return read_chats(table, columns)

    def given(self, value: Any) -> Any:
        messages, tools = value, None
        if isinstance(value, Mapping) and "messages" in value:
            messages, tools = value["messages"], value.get("tools")
        elif not isinstance(value, list | tuple):
            return value
        problems: list[str] = []
        found = prompt_in(list(messages) if isinstance(messages, tuple) else messages, tools, problems)
        if problems:
            raise DataError(*(f"predict: {problem}" for problem in problems))
        return found

    def asked_in(self, table: Table, label: str | tuple[str, ...], text: str | None) -> list[str] | None:
        return prompts_of(table, (label,) if isinstance(label, str) else label, text)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return Conversations()

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        from tunesmith.models.chat import Chat, template_of

        chat = Chat(processor, template_of(processor, self.template, str(processor.tokenizer.name_or_path)))
        found: list[Example] = []
        bad: dict[int, str] = {}
        for row, text in enumerate(texts):
            try:
                if targets is not None:
                    found.append(self._learned(row, targets[row], chat, limit, processor.positions))
                else:
                    found.append(self._asked(row, from_text(str(text)), chat, limit))
            except ValueError as error:
                bad[row] = str(error)
        if bad:
            raise BadRows(bad)
        return found

    def _learned(self, row: int, conversation: Conversation, chat: Chat, limit: int, most: int) -> ChatExample:
        """A conversation with what is learned of it. Raises ValueError where nothing is; `most`: tokens the model can take.

        Of one that is too long the last turns are left out, so that what is learned still stands after all that led to
        it; the end of an answer is cut only where none fits whole.
        """
        turns = conversation.turns[: conversation.last + 1]
        tools = json.loads(conversation.tools) if conversation.tools else None
        made = chat.render(as_messages(turns), tools, only_last=self.learn == "last")
        from tunesmith.models.chat import CALLS

        lost = chat.lost(as_messages(turns), tools)
        # A turn whose calls are not written is as if nothing had been said: its end of turn alone would teach silence.
        silent = [CALLS in lost and bool(turn.calls) and not turn.content.strip() for turn in turns]
        weights = [
            0 if mute else turn.weight for turn, mute in zip(turns, silent, strict=True) if turn.role == ASSISTANT
        ][-len(made.answers) :]
        learned = [span for span, weight in zip(made.answers, weights, strict=True) if weight]
        kept, clipped = len(made.ids), False
        if kept > limit:
            whole = [end for start, end in (learned or made.answers) if end <= limit]
            kept, clipped = (whole[-1], False) if whole else (limit, True)
        ids = made.ids[:kept]
        if self.learn == "all":
            places = tuple(range(1, kept))
        else:
            places = tuple(at for start, end in learned for at in range(max(start, 1), min(end, kept)))
        if not places:
            raise ValueError(_nothing_learned(bool(learned), learned[0][0] if learned else 0, limit, limit < most))
        target = [IGNORED] * kept
        for at in places:
            target[at] = ids[at]
        start = made.answers[-1][0]
        left_out = sum(first >= kept for first, _ in made.answers)
        return ChatExample(
            row, _inputs(ids), target, len(made.ids) - kept, None, Window(row, "", places),
            tuple(made.ids[kept : kept + REST]), prompt=min(start, kept), dropped=left_out, clipped=clipped,
            joined=made.joined, lost=lost, asked=made.asked,
        )  # fmt: skip

    def _asked(self, row: int, conversation: Conversation, chat: Chat, limit: int) -> ChatExample:
        """What is to be answered.

        It is cut only where it leaves no room for a single token, as no prompt is that is measured; then to `_cut_to`. The
        oldest turns are left out, but for a system's: the answer is to the last.
        """
        tools = json.loads(conversation.tools) if conversation.tools else None
        turns = conversation.turns
        ids = chat.prompt(as_messages(turns), tools)
        whole, dropped = len(ids), 0
        room = self._cut_to(limit) if whole >= limit else whole
        while len(ids) > room and (shorter := _without_oldest(turns)) is not None:
            turns, dropped = shorter, dropped + 1
            ids = chat.prompt(as_messages(turns), tools)
        ids = ids[-room:]
        return ChatExample(
            row, _inputs(ids), None, whole - len(ids), None, Window(row, ""), prompt=len(ids), dropped=dropped,
            clipped=len(ids) == room < whole, lost=chat.lost(as_messages(turns), tools),
        )  # fmt: skip

    def _cut_to(self, limit: int) -> int:
        """Tokens at most of a prompt that was cut: the rest is for the answer, where it may have as many."""
        return max(1, limit - min(self.answer_tokens, max(1, limit // ROOM)))

    def read_of(self, limit: int) -> str:
        return f"{self._cut_to(limit)} tokens at most, as this model reads {limit} and its answer has to fit in too"

    def packs(self) -> bool:
        return self.packing

    @property
    def drops_unfit(self) -> bool:
        return self.unfit == "drop"

    def remarks(self, examples: Mapping[str, Sequence[Example]], limit: int) -> list[str]:
        from tunesmith.models.chat import CALLS

        learned = total = clipped = joined = other = 0
        dropped: list[int] = []
        lost: Counter[str] = Counter()
        for example in (example for part in examples.values() for example in part):  # one at a time: see data/stored.py
            assert isinstance(example, ChatExample)
            learned, total = learned + example.units, total + example.length
            clipped, joined, other = clipped + example.clipped, joined + example.joined, other + bool(example.asked)
            dropped += [example.dropped] if example.dropped else []
            lost.update(set(example.lost))
        what = {"assistant": "what assistants say", "last": "the last answer of each", "all": "everything"}[self.learn]
        said = [f"{learned:,} of {total:,} tokens are learned ({learned / max(total, 1):.0%}): {what}"]
        if dropped:
            said.append(
                f"{len(dropped):,} conversations longer than {limit} tokens lost their last turns: {sum(dropped):,} whole "
                "answers in all"
            )
        if clipped:
            said.append(f"{clipped:,} conversations whose first answer does not fit {limit} tokens: its end is cut")
        if joined:
            said.append(
                f"{joined:,} conversations where an answer's first letters would share a token with what the template writes "
                "before it: before the last answer both are read apart, as they will be when it is asked"
            )
        if other:
            said.append(
                f"{other:,} conversations whose last answer the template writes behind other tokens than it asks with "
                "(it may open thoughts): learned as written, measured as asked"
            )
        for what, count in sorted(lost.items()):
            quiet = (
                ", and turns of these alone are not learned; task.template=chatml writes them" if what == CALLS else ""
            )
            said.append(
                f"{count:,} conversations hold {what}, which this chat template does not write: they are not read{quiet}"
            )
        return said

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.chat import Chat, template_of
        from tunesmith.models.generation import ends_with
        from tunesmith.models.language import causal_network

        network = causal_network(backbone, seed)
        processor = network.text
        template = template_of(processor, self.template, backbone.source.name)
        processor.tokenizer.chat_template = template  # saved with the model
        ends_with(network, Chat(processor, template).ends)
        return network

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        assert batch.target is not None
        return token_loss(output[:, :-1], batch.target[:, 1:])

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        assert batch.target is not None
        learned = batch.target[:, 1:] != IGNORED
        return classes_apart(first[:, :-1][learned], second[:, :-1][learned])

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """As `judged_tokens`, of what is learned; where the answer is not known, of the prompt."""
        ids = batch.inputs["input_ids"]
        whole = ids.masked_fill(batch.inputs["attention_mask"] == 0, IGNORED) if batch.target is None else batch.target
        return judged_tokens(output[:, :-1], whole[:, 1:], batch.rows)

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """The predictions with what the network writes after each prompt; of rows with known answers, of a sample."""
        from tunesmith.models.chat import Chat, template_of
        from tunesmith.models.generation import generate, stops_of

        processor = network.text
        chat = Chat(processor, template_of(processor, self.template, str(processor.tokenizer.name_or_path)))
        asked = self._answerable(examples)
        prompts = [list(item.asked) or item.inputs["input_ids"][: item.prompt] for item in asked]
        written = generate(network, prompts, self.answer_tokens, chat.ends)
        texts = [chat.decode(ids) for ids in written]
        stops = stops_of(network, chat.ends)
        cut = {item.row: len(ids) for item, ids in zip(asked, written, strict=True) if not ids or ids[-1] not in stops}
        full = {row for row, length in cut.items() if length < self.answer_tokens}
        why = _why_cut(len(cut) - len(full), len(full), self.answer_tokens, processor.positions)
        return self.with_texts(found, asked, texts, set(cut), why, full)

    def floor(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> list[Prediction]:
        """Every token by its frequency among the learned ones, and the most frequent answer."""
        frequencies = Frequencies(train, outputs)
        (answer, _), *_ = Counter(map(answer_of, learned)).most_common(1)
        written = {item.row for item in self._answerable(test)}
        return [frequencies.judged(example, answer if example.row in written else None) for example in test]

    def _answerable(self, examples: Sequence[Example]) -> list[ChatExample]:
        """The rows that answers are written for; of those with known answers none whose own was left out."""
        found = self.sampled(
            examples, lambda item: isinstance(item, ChatExample) and not item.dropped and item.prompt > 0
        )
        return [item for item in found if isinstance(item, ChatExample)]

    def wanted(self, truth: Any) -> str:
        return answer_of(truth)

    def pair(self, said: str, truth: Any) -> Pair:
        return compared(said, self.after), compared(answer_of(truth), self.after)

    def measures(self, pairs: Sequence[Pair | None], own: Mapping[str, Compare]) -> dict[str, np.ndarray]:
        return means_of(pairs, own)

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        return {"answer": [item.value for item in predictions]}

    def readable(self, text: Text) -> Text:
        """A conversation as lines of "role: what is said"; the words alone where only a user speaks."""
        turns = from_text(str(text)).turns
        if len(turns) == 1 and turns[0].role == USER:
            return turns[0].content
        return "\n".join(
            f"{turn.role}: {turn.content or ', '.join(call.name for call in turn.calls)}" for turn in turns
        )

    def describe(self, labels: Labels) -> str:
        return {"assistant": "what an assistant says", "last": "the last answer of a conversation"}.get(
            self.learn, "every token of conversations"
        )


def _inputs(ids: list[int]) -> dict[str, list[int]]:
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _without_oldest(turns: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
    """The turns less the oldest that is no system's, and what hangs on it; None where only the last would be left."""
    first = next((at for at, turn in enumerate(turns) if turn.role != SYSTEM), len(turns))
    after = next((at for at in range(first + 1, len(turns)) if turns[at].role == "user"), len(turns))
    return None if after >= len(turns) else (*turns[:first], *turns[after:])


def _why_cut(going: int, full: int, most: int, positions: int) -> str:
    """How answers ended that did not end by themselves: `full` of them where the model had no more positions."""
    after = f"after {most} tokens, the most that this model was told to write (task.answer_tokens)"
    if not full:
        return f"answers were not at their end {after}"
    told = f"{going:,} {after}; " if going else ""
    return (
        f"answers were not at their end: {told}{full:,} where prompt and answer filled the {positions:,} tokens that this "
        "model takes"
    )


def _nothing_learned(weighted: bool, prompt: int, limit: int, more: bool) -> str:
    """`more`: whether the model can read more than `limit` tokens."""
    if not weighted:
        return (
            "no token to learn: every turn of the assistant that counts has weight 0, or holds tool calls alone, which the "
            "chat template does not write; give one weight 1, or another task.template"
        )
    fix = "; raise training.max_length, shorten it" if more else ", the most this model takes; shorten it"
    return (
        f"no token to learn: {prompt} tokens come before its first answer, and {limit} are read{fix}, or leave such rows "
        "out with --set task.unfit=drop"
    )
