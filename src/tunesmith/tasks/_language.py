"""Learning what texts say: what masked and causal language modelling share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import IGNORED, Batch, Example, Text
from tunesmith.data.passages import PART, TEXT
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.plain_text import PlainText
from tunesmith.data.words import Window
from tunesmith.errors import DataError
from tunesmith.tasks._disagreement import classes_apart
from tunesmith.tasks._text_column import text_column
from tunesmith.tasks._tokens import (
    LOWER,
    TOKEN_METRICS,
    Frequencies,
    judged_tokens,
    token_columns,
    token_loss,
    token_measures,
)
from tunesmith.tasks.base import Labels, LossSum, Metric, Mistake, Prediction, Scores, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.text import TextProcessor

LEARNED = "(text)"  # the column of what is learned, which is the text itself
SHOWN = 300  # characters of a text among the worst


class LanguageTask(Task, ABC):
    """A row is a document. Each is read in windows of its own; what a window holds is never seen from another."""

    primary_metric: ClassVar[str] = "perplexity"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "loss", "token_accuracy", "bits_per_byte")
    baselines: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[tuple[str, ...]] = ()
    worst: ClassVar[str] = (
        "The texts that the model expects least, by their mean loss a token. Look whether they belong here at all."
    )
    truth_is: ClassVar[str] = "length"
    judges_by_truth: ClassVar[bool] = True
    learns_tokens: ClassVar[bool] = True
    floor_name: ClassVar[str] = "frequent_token"

    packing: bool = Field(
        default=True,
        description="several short texts in one window, each as if it stood alone, where the base takes it",
    )
    new_tokens: tuple[str, ...] | Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="words to add to the vocabulary, or how many: the most frequent ones that take three tokens or more",
    )

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        if asked.label is not None or set(table.columns) != {TEXT, PART}:
            return None
        kind = asked.base()
        return f"plain text, and a base that is {_a(kind)}" if kind in cls.kinds else None

    def find(self, table: Table, asked: Asked) -> Columns:
        text, why = text_column(table, asked)
        group = asked.group if asked.group is not None else PART if PART in table.columns else None
        parts = "; whole files or parts of them are held out" if group == PART else ""
        return Columns(text, LEARNED, group, f'text = "{text}" ({why}){parts}')

    def read(self, table: Table, columns: Columns) -> Table:
        if columns.text not in table.columns:
            return table  # said where every column is checked
        return Table(table.path, {**table.columns, LEARNED: list(table.columns[columns.text])}, table.lines)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return PlainText()

    def check(self, train: Table, columns: Columns) -> Labels:
        return Labels((), ())

    def describe(self, labels: Labels) -> str:
        return "what the texts say"

    @abstractmethod
    def window(self, ids: list[int], row: int, source: int, processor: TextProcessor, asked: bool) -> Example:
        """One example of the tokens of a text, or a part of one, with what is learned of them.

        `asked`: whether the model is to say something of it, rather than to learn it.
        """

    @abstractmethod
    def cuts(self, ids: list[int], processor: TextProcessor, limit: int) -> list[list[int]]:
        """A text's tokens, less the tokenizer's marks, as windows of `limit` tokens at most; none is lost."""

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        """The windows of every text. The text is its own target, so that it is learned whether `targets` are given or not."""
        made: list[Example] = []
        read = [str(text) for text in texts]
        for source, ids in enumerate(processor.bare(read)):
            for part in self.cuts(ids, processor, limit):
                example = self.window(part, len(made), source, processor, asked=targets is None)
                assert example.window is not None
                shown_text = read[source] if targets is None else ""
                made.append(replace(example, window=replace(example.window, text=shown_text)))
        return made

    def unlearned(self, examples: Sequence[Example], targets: Sequence[Any]) -> tuple[str, list[int]]:
        learned = {example.source for example in examples if example.units > 0}
        said = (
            "the text holds no token that could be learned (a decoder learns each from those before it), so it counts in no "
            "figure"
        )
        return said, [row for row in range(len(targets)) if row not in learned]

    def remarks(self, examples: Mapping[str, Sequence[Example]], limit: int) -> list[str]:
        """Raises DataError where a split holds texts, and none of them a token that could be learned."""
        blank = [split for split, part in examples.items() if len(part) and not any(item.units > 0 for item in part)]
        if blank:
            raise DataError(*(_nothing(f"the {split} rows") for split in blank))
        rows = [(split, example.source) for split, part in examples.items() for example in part]
        texts = len(set(rows))
        if len(rows) == texts:
            return []
        return [f"{texts:,} texts in {len(rows):,} windows of {limit} tokens at most; no token is lost"]

    def widen(self, processor: TextProcessor, texts: Sequence[Text]) -> str:
        from tunesmith.models.new_tokens import add_words, worth_adding

        asked = self.new_tokens
        words = worth_adding([str(text) for text in texts], processor, asked) if isinstance(asked, int) else asked
        if not words:
            return (
                ""
                if asked in (0, ())
                else "no word is worth a token of its own: none takes three and occurs five times"
            )
        processor.added = add_words(processor, words)
        known = len(words) - len(processor.added)
        old = f"; {known:,} of those asked for are tokens already" if known else ""
        shown_words = ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
        return f"{len(processor.added):,} words made tokens, each from the mean of its pieces: {shown_words}{old}"

    def packs(self) -> bool:
        return self.packing

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        raise AssertionError("what a model says of a text can only be judged with its tokens: see `judged`")

    @abstractmethod
    def aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the tokens that they should have said, place by place: [rows, places, vocabulary], [rows, places]."""

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        assert batch.target is not None
        return token_loss(*self.aligned(output, batch.target))

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        assert batch.target is not None
        (one, target), (other, _) = (self.aligned(output, batch.target) for output in (first, second))
        return classes_apart(one[target != IGNORED], other[target != IGNORED])

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """Of each window, as `judged_tokens` has it."""
        assert batch.target is not None
        return judged_tokens(*self.aligned(output, batch.target), batch.rows)

    def whole(self, found: Sequence[Prediction], windows: Mapping[int, Window], labels: Labels) -> list[Prediction]:
        """The windows of each text together."""
        sums: dict[int, list[float]] = {}
        for item in found:
            of = sums.setdefault(windows[item.row].source, [0.0, 0, 0])
            tokens, hits = item.counts
            of[0] += item.evidence[0] * tokens
            of[1] += tokens
            of[2] += hits
        return [
            Prediction(source, None, (total / max(tokens, 1),), counts=(int(tokens), int(hits)))
            for source, (total, tokens, hits) in sorted(sums.items())
        ]

    def floor(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> list[Prediction]:
        """Every token by its frequency among the learned ones."""
        frequencies = Frequencies(train, outputs)
        found = [frequencies.judged(example) for example in test]
        windows = {example.row: example.window for example in test if example.window is not None}
        return self.whole(found, windows, Labels((), ()))

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Over tokens, each alike: perplexity, mean loss in nats, accuracy; and bits for each byte of the texts.

        Texts without a learned token count in none of them. Raises DataError where nothing else is there.
        """
        import numpy as np

        if predictions and not any(item.counts[0] for item in predictions):
            raise DataError(_nothing("the rows to be measured on"))
        size = np.array([len(str(text).encode("utf-8", "replace")) for text in truth], dtype=np.float64)
        columns = {**token_columns(predictions), "bytes": size}
        metrics = self.functions(columns, labels)
        return Scores(columns, metrics, self.primary_metric, lower=LOWER & metrics.keys(), each=token_measures(columns))

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        return {name: TOKEN_METRICS[name] for name in self.metrics}

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        said = [item.value for item in predictions]
        judged = [item.counts[0] > 0 for item in predictions]
        # No token was hidden to be judged by, so that a loss of 0 would praise nothing.
        if predictions and not any(judged):
            return {"said": said}
        table: dict[str, list[Any]] = {
            "loss": [item.evidence[0] if known else None for item, known in zip(predictions, judged, strict=True)],
            "tokens": [item.counts[0] for item in predictions],
        }
        return {"said": said, **table} if any(value is not None for value in said) else table

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        import math

        mean = prediction.evidence[0]
        return Mistake(mean, f"{prediction.counts[0]:,} tokens", f"perplexity {math.exp(min(mean, 50)):,.1f}", "")


def _nothing(rows: str) -> str:
    return f"{rows} hold no token that could be learned: no text among them is long enough; give longer ones"


def _a(kind: str) -> str:
    return f"an {kind}" if kind.startswith("e") else f"a {kind}"
