"""A text is written from a text by an encoder-decoder: summaries, translations, rewriting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import IGNORED, Batch, Example, Text
from tunesmith.data.source_columns import check_sources, find_sources, looks_written
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.texts import Texts
from tunesmith.data.words import Window
from tunesmith.tasks._answers import Compare, compared
from tunesmith.tasks._disagreement import classes_apart
from tunesmith.tasks._tokens import Frequencies, judged_tokens, token_loss
from tunesmith.tasks._writing import WritingTask
from tunesmith.tasks._written import Pair, left_out, measures_of
from tunesmith.tasks.base import Labels, LossSum, Prediction

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

WHY_CUT = "texts were not at their end after the most tokens that this model was told to write (task.answer_tokens)"
UNSIZED = 128  # most tokens of a written text where no training target says how long one is
SAID_BACK = 8  # tokens of a text whose target is not known by which a saved model is compared with the trained one


class Seq2Seq(WritingTask):
    """Cross-entropy of every token of the target, its end included, each after the true tokens before it."""

    pipeline_tag: ClassVar[str] = "text-generation"
    primary_metric: ClassVar[str] = "loss"
    metrics: ClassVar[tuple[str, ...]] = ("loss", "token_accuracy", "perplexity")
    kinds: ClassVar[tuple[str, ...]] = ("encoder-decoder",)
    suits: ClassVar[str] = (
        "an encoder-decoder (t5, flan-t5, bart, pegasus, marian), or --task instruction for a decoder"
    )
    views: ClassVar[tuple[str, ...]] = ("written",)
    worst: ClassVar[str] = "The written texts furthest from those wanted, of the rows that texts were written for."
    floor_name: ClassVar[str] = "frequent_target"

    prefix: str = Field(default="", description='what stands before every text that is read, such as "summarize: "')
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target spread over all tokens"
    )
    beams: Annotated[int, Field(ge=1)] = Field(default=1, description="beams in writing; 1: always the likeliest token")
    answer_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most tokens of a written text; those of the longest training target when not given"
    )

    @field_validator("prefix", mode="before")
    @classmethod
    def _read_as_yaml(cls, value: Any) -> Any:
        """`task.prefix=summarize: ` as it was meant: YAML takes a word and a colon for a key without a value."""
        if isinstance(value, Mapping) and list(value.values()) == [None]:
            return f"{next(iter(value))}: "
        return value

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return looks_written(table, asked)

    def find(self, table: Table, asked: Asked) -> Columns:
        self.known_metric()
        return find_sources(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return check_sources(table, columns)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return Texts()

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        """The text to read, and as its second text the one to write.

        Where that is not known the first tokens of the text itself stand there: what the model says of them can be
        compared, and no text is written of it.
        """
        read = processor.encode_all([f"{self.prefix}{text}" for text in texts], limit)
        if targets is None:
            write = [(inputs["input_ids"][:SAID_BACK], 0) for inputs, _ in read]
        else:
            write = processor.targets([str(target) for target in targets], limit)
        strange: Any = processor.tokenizer.unk_token_id
        made = []
        for row, ((inputs, cut), (ids, second_cut)) in enumerate(zip(read, write, strict=True)):
            second = {name: [0] * len(ids) for name in inputs} | {"input_ids": ids, "attention_mask": [1] * len(ids)}
            window = Window(row, str(texts[row]), tuple(range(len(ids))))
            target = None if targets is None else list(ids)
            unknown = 0 if targets is None else ids.count(strange)
            made.append(Example(row, inputs, target, cut, second, window, second_cut=second_cut, unknown=unknown))
        return made

    def unlearned(self, examples: Sequence[Example], targets: Sequence[Any]) -> tuple[str, list[int]]:
        return (
            "the target holds letters that the tokenizer does not know, which the model can never write; write them "
            "otherwise, or choose another base",
            [example.source for example in examples if example.unknown],
        )

    def sized(self, labels: Labels, train: Sequence[Example]) -> Labels:
        return replace(labels, longest=max((example.units for example in train), default=0))

    def _most(self, labels: Labels) -> int:
        if self.answer_tokens is not None:
            return self.answer_tokens
        return labels.longest if labels.longest > 0 else UNSIZED

    def remarks(self, examples: Mapping[str, Sequence[Example]], limit: int) -> list[str]:
        every = [(example.units, example.second_cut) for part in examples.values() for example in part]
        said = [f"{sum(units for units, _ in every):,} tokens of targets are learned, the end of each included"]
        cuts = [cut for _, cut in every if cut > 0]
        if cuts:
            said.append(
                f"{len(cuts):,} of {len(every):,} targets are longer than {limit} tokens: {sum(cuts):,} tokens are cut, "
                "and they end there; raise training.max_length, or shorten them"
            )
        why = "as asked (task.answer_tokens)"
        if self.answer_tokens is None:
            why = "the longest training target has as many (task.answer_tokens changes it)"
        most = self._most(self.sized(Labels((), ()), examples["train"]))
        how = "the likeliest token each time" if self.beams == 1 else f"{self.beams} beams"
        said.append(f"texts are written of {most:,} tokens at most: {why}; by {how}")
        return [*said, *([lacking] if (lacking := left_out()) and self.sample > 0 else [])]

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.sequence import sequence_network

        return sequence_network(backbone, self._most(labels), self.beams, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        assert batch.target is not None
        return token_loss(output, batch.target[:, : output.shape[1]], self.label_smoothing)

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        assert batch.target is not None
        learned = batch.target[:, : first.shape[1]] != IGNORED
        return classes_apart(first[learned], second[learned])

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """As `judged_tokens`, of the target; where it is not known, of the first tokens of the text itself."""
        from tunesmith.models.sequence import sides

        _, _, write, mask = sides(batch.inputs)
        return judged_tokens(output, write.masked_fill(mask == 0, IGNORED), batch.rows)

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """The predictions with what the network writes for each text; of rows with known targets, for a sample."""
        from tunesmith.models.generation import write_from

        asked = self.sampled(examples)
        if not asked:
            return list(found)
        written = write_from(network, [item.inputs["input_ids"] for item in asked])
        texts = [network.text.written(ids) for ids, _ in written]
        going = {item.row for item, (_, ended) in zip(asked, written, strict=True) if not ended}
        return self.with_texts(found, asked, texts, going, WHY_CUT)

    def floors(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> dict[str, list[Prediction]]:
        """Every token by its frequency among the learned ones; beside it the most frequent target, or the first words of the
        input, as many as a training target usually has.
        """
        frequencies = Frequencies(train, outputs)
        ((frequent, _),) = Counter(map(str, learned)).most_common(1)
        words = max(1, round(median(len(str(text).split()) for text in learned)))
        written = {item.row for item in self.sampled(test)}
        found: dict[str, list[Prediction]] = {self.floor_name: [], "lead": []}
        for example in test:
            lead = " ".join((example.window.text if example.window is not None else "").split()[:words])
            for name, text in ((self.floor_name, frequent), ("lead", lead)):
                found[name].append(frequencies.judged(example, text if example.row in written else None))
        return found

    def wanted(self, truth: Any) -> str:
        return str(truth)

    def pair(self, said: str, truth: Any) -> Pair:
        return compared(said, None), compared(str(truth), None)

    def measures(self, pairs: Sequence[Pair | None], own: Mapping[str, Compare]) -> dict[str, np.ndarray]:
        return measures_of(pairs, own)

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        return {"output": [item.value for item in predictions]}

    def describe(self, labels: Labels) -> str:
        before = f', "{self.prefix}" before each' if self.prefix else ""
        return f"texts written from texts{before}"
