"""What an assistant says in a conversation: supervised fine-tuning on the tokens of its answers."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunesmith.data.chats import find_chats, prompts_of, read_chats, recognised
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.conversation import (
    ASSISTANT,
    SYSTEM,
    Conversation,
    Turn,
    answer_of,
    as_messages,
    as_text,
    from_text,
    read_turns,
)
from tunesmith.data.encode import IGNORED, BadRows, Batch, Example, Text
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.conversations import Conversations
from tunesmith.data.words import Window
from tunesmith.errors import DataError, TunesmithWarning
from tunesmith.tasks._answers import compared, exact_match, measured, named_function, rouge_l
from tunesmith.tasks._metrics import mean_of
from tunesmith.tasks.base import Labels, LossSum, Mistake, Prediction, Scores, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.chat import Chat
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

REST = 20  # tokens kept of those that were cut, to show
SHOWN = 400  # letters of an answer among the mistakes of the report


@dataclass(frozen=True)
class ChatExample(Example):
    """A conversation as tokens: `target` has for each token itself where it is learned, IGNORED elsewhere."""

    prompt: int = 0  # tokens before the last answer; all of them where that answer is not known or was left out
    dropped: int = 0  # whole answers that the length limit took away, with all that stands around them
    clipped: bool = False  # whether the limit cut an answer in two
    joined: bool = False  # whether the first letters of an answer share a token with what comes before it
    lost: tuple[str, ...] = ()  # what the conversation holds and the template does not write


class Instruction(Task):
    """Cross-entropy of every token that an assistant says, its end of turn included; the template is the tokenizer's."""

    primary_metric: ClassVar[str] = "token_accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("token_accuracy", "loss", "perplexity")
    kinds: ClassVar[tuple[str, ...]] = ("decoder",)
    suits: ClassVar[str] = "a decoder (llama, qwen3, gpt2), best one with a chat template"
    baselines: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[tuple[str, ...]] = ("answers",)
    worst: ClassVar[str] = "The written answers furthest from those wanted, of the rows that answers were written for."
    truth_is: ClassVar[str] = "wanted"
    encodes_apart: ClassVar[bool] = False  # every row that cannot be read is told at once
    judges_by_truth: ClassVar[bool] = True
    learns_tokens: ClassVar[bool] = True

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
    sample: Annotated[int, Field(ge=0)] = Field(default=64, description="test rows for which answers are written")
    answer_tokens: Annotated[int, Field(ge=1)] = Field(default=256, description="most tokens of a written answer")
    after: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="compare only what follows the last of this mark in an answer, such as ####"
    )
    metric: str | None = Field(
        default=None, description="package.module:function of (answer, wanted) that gives a number, more is better"
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

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("must be package.module:function")
        return value

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return recognised(table, asked)

    def find(self, table: Table, asked: Asked) -> Columns:
        if self.metric is not None:
            named_function(self.metric)  # a name that does not exist is told before anything is trained
        return find_chats(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return read_chats(table, columns)

    def given(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        problems: list[str] = []
        turns = read_turns(list(value), problems, set())
        if problems:
            raise DataError(*(f"predict: {problem}" for problem in problems))
        return as_text(Conversation(turns))

    def asked_in(self, table: Table, label: str | tuple[str, ...], text: str | None) -> list[str] | None:
        return prompts_of(table, (label,) if isinstance(label, str) else label, text)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return Conversations()

    def check(self, train: Table, columns: Columns) -> Labels:
        return Labels((), ())

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
                    found.append(self._learned(row, targets[row], chat, limit))
                else:
                    found.append(self._asked(row, from_text(str(text)), chat, limit))
            except ValueError as error:
                bad[row] = str(error)
        if bad:
            raise BadRows(bad)
        return found

    def _learned(self, row: int, conversation: Conversation, chat: Chat, limit: int) -> ChatExample:
        """A conversation with what is learned of it. Raises ValueError where nothing is.

        Of one that is too long the last turns are left out, so that what is learned still stands after all that led to
        it; the end of an answer is cut only where none fits whole.
        """
        turns = conversation.turns[: conversation.last + 1]
        tools = json.loads(conversation.tools) if conversation.tools else None
        made = chat.render(as_messages(turns), tools, only_last=self.learn == "last")
        weights = [turn.weight for turn in turns if turn.role == ASSISTANT][-len(made.answers) :]
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
            raise ValueError(_nothing_learned(bool(learned), learned[0][0] if learned else 0, limit))
        target = [IGNORED] * kept
        for at in places:
            target[at] = ids[at]
        start = made.answers[-1][0]
        left_out = sum(first >= kept for first, _ in made.answers)
        return ChatExample(
            row, _inputs(ids), target, len(made.ids) - kept, None, Window(row, "", places),
            tuple(made.ids[kept : kept + REST]), prompt=min(start, kept), dropped=left_out, clipped=clipped,
            joined=made.joined, lost=chat.lost(as_messages(turns), tools),
        )  # fmt: skip

    def _asked(self, row: int, conversation: Conversation, chat: Chat, limit: int) -> ChatExample:
        """What is to be answered; there stays room for the answer.

        Of a conversation that is too long the oldest turns are left out, but for a system's: the answer is to the last.
        """
        room = max(limit - self.answer_tokens, limit // 2)
        tools = json.loads(conversation.tools) if conversation.tools else None
        turns = conversation.turns
        ids = chat.prompt(as_messages(turns), tools)
        whole, dropped = len(ids), 0
        while len(ids) > room and (shorter := _without_oldest(turns)) is not None:
            turns, dropped = shorter, dropped + 1
            ids = chat.prompt(as_messages(turns), tools)
        ids = ids[-room:]
        return ChatExample(
            row, _inputs(ids), None, whole - len(ids), None, Window(row, ""), prompt=len(ids), dropped=dropped,
            clipped=len(ids) == room < whole, lost=chat.lost(as_messages(turns), tools),
        )  # fmt: skip

    def packs(self) -> bool:
        return self.packing

    @property
    def drops_unfit(self) -> bool:
        return self.unfit == "drop"

    def remarks(self, examples: Mapping[str, Sequence[Example]], limit: int) -> list[str]:
        chats = [example for part in examples.values() for example in part if isinstance(example, ChatExample)]
        learned = sum(example.units for example in chats)
        total = sum(example.length for example in chats)
        what = {"assistant": "what assistants say", "last": "the last answer of each", "all": "everything"}[self.learn]
        said = [f"{learned:,} of {total:,} tokens are learned ({learned / max(total, 1):.0%}): {what}"]
        dropped = [example.dropped for example in chats if example.dropped]
        if dropped:
            said.append(
                f"{len(dropped):,} conversations longer than {limit} tokens lost their last turns: {sum(dropped):,} whole "
                "answers in all"
            )
        clipped = sum(example.clipped for example in chats)
        if clipped:
            said.append(f"{clipped:,} conversations whose first answer does not fit {limit} tokens: its end is cut")
        joined = sum(example.joined for example in chats)
        if joined:
            said.append(
                f"{joined:,} conversations where the first letters of an answer share a token with what the template writes "
                "before it: that token is not learned"
            )
        for what in sorted({what for example in chats for what in example.lost}):
            count = sum(what in example.lost for example in chats)
            said.append(
                f"{count:,} conversations hold {what}, which this chat template does not write: they are not read"
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
        """Summed over learned tokens, each a weight of 1: the mean is that of transformers' own heads."""
        import torch
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        target = batch.target[:, 1:]
        learned = target != IGNORED  # [rows, tokens - 1]
        total = cross_entropy(output[:, :-1][learned].float(), target[learned], reduction="sum")
        weight = learned.sum().float()
        return LossSum(total, weight if weight.device == output.device else torch.as_tensor(weight), {})

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        raise AssertionError("what a model says of conversations can only be judged with their tokens: see `judged`")

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """Evidence: mean loss of a row's learned tokens, in nats; of its prompt's where the answer is not known.

        `counts`: those tokens, and how many of them the model would have said itself. The value is None: not yet said.
        """
        import torch
        from torch.nn.functional import cross_entropy

        ids = batch.inputs["input_ids"]
        whole = ids.masked_fill(batch.inputs["attention_mask"] == 0, IGNORED) if batch.target is None else batch.target
        target = whole[:, 1:]
        known = target != IGNORED
        logits = output[:, :-1][known].float()  # [learned tokens, vocabulary]
        each = torch.zeros(target.shape, device=output.device)
        hits = torch.zeros(target.shape, device=output.device)
        each[known] = cross_entropy(logits, target[known], reduction="none")
        hits[known] = (logits.argmax(-1) == target[known]).float()
        counts = known.sum(1)
        means = (each.sum(1) / counts.clamp(min=1)).tolist()
        return [
            Prediction(row, None, (mean,), counts=(int(count), int(hit)))
            for row, mean, count, hit in zip(batch.rows, means, counts.tolist(), hits.sum(1).tolist(), strict=True)
        ]

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """The predictions with what the network writes after each prompt; of rows with known answers, of a sample."""
        from tunesmith.models.chat import Chat, template_of
        from tunesmith.models.generation import generate

        processor = network.text
        chat = Chat(processor, template_of(processor, self.template, str(processor.tokenizer.name_or_path)))
        asked = self._sampled(examples)
        prompts = [item.inputs["input_ids"][: item.prompt] for item in asked]
        written = generate(network, prompts, self.answer_tokens, chat.ends)
        said = {item.row: chat.decode(ids) for item, ids in zip(asked, written, strict=True)}
        going = {item.row for item, ids in zip(asked, written, strict=True) if len(ids) >= self.answer_tokens}
        if going and asked[0].target is None:
            warnings.warn(
                f"{len(going):,} of {len(asked):,} answers were not at their end after {self.answer_tokens} tokens, the most "
                "that this model was told to write (task.answer_tokens)",
                TunesmithWarning,
                stacklevel=4,
            )
        return [
            replace(item, value=said[item.row], counts=(*item.counts[:2], int(item.row in going)))
            if item.row in said
            else item
            for item in found
        ]

    def floor(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> list[Prediction]:
        """Every token by its share of the learned ones (one more of each: Laplace), and the most frequent answer."""
        import numpy as np

        seen = np.ones(outputs)
        for example in train:
            np.add.at(seen, _learned_tokens(example), 1)
        cost, usual = -np.log(seen / seen.sum()), int(seen.argmax())
        (answer, _), *_ = Counter(map(answer_of, learned)).most_common(1)
        written = {item.row for item in self._sampled(test)}
        found = []
        for example in test:
            tokens = _learned_tokens(example)
            hits = sum(token == usual for token in tokens)
            value = answer if example.row in written else None
            found.append(Prediction(example.row, value, (float(cost[tokens].mean()),), counts=(len(tokens), hits)))
        return found

    def _sampled(self, examples: Sequence[Example]) -> list[ChatExample]:
        """The rows that answers are written for: all prompts, or a sample of the rows whose answers are known."""
        chats = [item for item in examples if isinstance(item, ChatExample)]
        asked = [item for item in chats if item.target is None]
        return (
            asked if asked else _spread([item for item in chats if not item.dropped and item.prompt > 0], self.sample)
        )

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Over tokens, each alike: accuracy (what the model would say after the true tokens before), mean loss in nats,
        and perplexity, its exponential. Over the rows with a written answer: exact match, ROUGE-L, or the user's metric.
        """
        import numpy as np

        columns = {
            "truth": np.arange(len(predictions)),
            "tokens": np.array([item.counts[0] for item in predictions], dtype=np.float64),
            "hits": np.array([item.counts[1] for item in predictions], dtype=np.float64),
            "loss": np.array([item.counts[0] * item.evidence[0] for item in predictions], dtype=np.float64),
        }
        metrics: dict[str, Any] = {"token_accuracy": token_accuracy, "loss": mean_loss, "perplexity": perplexity}
        written: dict[str, int] = {}
        rows_of: dict[str, np.ndarray] = {}
        shares: set[str] = set()
        if any(item.value is not None for item in predictions):
            pairs = [
                None if item.value is None else self._compared(item.value, true)
                for item, true in zip(predictions, truth, strict=True)
            ]
            functions: dict[str, Any] = {"exact_match": exact_match, "rouge_l": rouge_l}
            if self.metric is not None:
                own, path = named_function(self.metric), self.metric
                name = path.rpartition(":")[2].rpartition(".")[2]
                functions[name] = lambda said, wanted: measured(own, path, said, wanted)
            columns["going"] = np.array([sum(item.counts[2:]) for item in predictions], dtype=np.float64)
            known = np.array([pair is not None for pair in pairs])
            shares = {name for name, function in functions.items() if function is exact_match}
            for name, function in functions.items():
                columns[name] = np.array([np.nan if pair is None else function(*pair) for pair in pairs])
                metrics[name] = partial(mean_of, name=name)
                written[name], rows_of[name] = int(known.sum()), known
        lower = frozenset({"loss", "perplexity"})
        return Scores(columns, metrics, self.primary_metric, frozenset(shares), lower, written, rows_of)

    def _compared(self, said: str, true: Conversation) -> tuple[str, str]:
        return compared(said, self.after), compared(answer_of(true), self.after)

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        return {"answer": [item.value for item in predictions]}

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        if prediction.value is None:
            return None
        said, wanted = self._compared(prediction.value, truth)
        if exact_match(said, wanted):
            return None
        near = rouge_l(said, wanted)
        return Mistake(1 - near, shown(answer_of(truth), SHOWN), shown(prediction.value, SHOWN), f"ROUGE-L {near:.2f}")

    def describe(self, labels: Labels) -> str:
        return {"assistant": "what an assistant says", "last": "the last answer of a conversation"}.get(
            self.learn, "every token of conversations"
        )


def token_accuracy(of: Mapping[str, np.ndarray]) -> float:
    return float(of["hits"].sum() / of["tokens"].sum())


def mean_loss(of: Mapping[str, np.ndarray]) -> float:
    return float(of["loss"].sum() / of["tokens"].sum())


def perplexity(of: Mapping[str, np.ndarray]) -> float:
    import numpy as np

    return float(np.exp(mean_loss(of)))


def _learned_tokens(example: Example) -> list[int]:
    return [token for token in example.target if token != IGNORED]


def _inputs(ids: list[int]) -> dict[str, list[int]]:
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _without_oldest(turns: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
    """The turns less the oldest that is no system's, and what hangs on it; None where only the last would be left."""
    first = next((at for at, turn in enumerate(turns) if turn.role != SYSTEM), len(turns))
    after = next((at for at in range(first + 1, len(turns)) if turns[at].role == "user"), len(turns))
    return None if after >= len(turns) else (*turns[:first], *turns[after:])


def _nothing_learned(weighted: bool, prompt: int, limit: int) -> str:
    if not weighted:
        return "no token to learn: every turn of the assistant that counts has weight 0; give one weight 1"
    return (
        f"no token to learn: {prompt} tokens come before its first answer, and {limit} are read; raise "
        "training.max_length, shorten it, or leave such rows out with --set task.unfit=drop"
    )


def _spread(examples: Sequence[ChatExample], count: int) -> list[ChatExample]:
    """`count` of the examples, evenly over all of them."""
    if len(examples) <= count:
        return list(examples)
    return [examples[place * len(examples) // count] for place in range(count)]
