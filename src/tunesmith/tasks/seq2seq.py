"""A text is written from a text by an encoder-decoder: summaries, translations, rewriting."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import IGNORED, Batch, Example, Text
from tunesmith.data.source_columns import check_sources, find_sources, looks_written
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.texts import Texts
from tunesmith.data.words import Window
from tunesmith.errors import TunesmithWarning
from tunesmith.tasks._answers import Compare, compared, exact_match, measured, named_function, rouge_l
from tunesmith.tasks._language_scores import mean_loss, perplexity, token_accuracy
from tunesmith.tasks._written import left_out, measures_of
from tunesmith.tasks.base import Labels, LossSum, Mistake, Prediction, Scores, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

UNSIZED = 128  # most tokens of a written text where no training target says how long one is
SAID_BACK = 8  # tokens of a text whose target is not known by which a saved model is compared with the trained one
SHOWN = 400  # letters of a text among the mistakes of the report


class Seq2Seq(Task):
    """Cross-entropy of every token of the target, its end included, each after the true tokens before it."""

    primary_metric: ClassVar[str] = "loss"
    metrics: ClassVar[tuple[str, ...]] = ("loss", "token_accuracy", "perplexity")
    kinds: ClassVar[tuple[str, ...]] = ("encoder-decoder",)
    suits: ClassVar[str] = (
        "an encoder-decoder (t5, flan-t5, bart, pegasus, marian), or --task instruction for a decoder"
    )
    baselines: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[tuple[str, ...]] = ("written",)
    worst: ClassVar[str] = "The written texts furthest from those wanted, of the rows that texts were written for."
    truth_is: ClassVar[str] = "wanted"
    floor_name: ClassVar[str] = "frequent_target"
    judges_by_truth: ClassVar[bool] = True
    learns_tokens: ClassVar[bool] = True

    prefix: str = Field(default="", description='what stands before every text that is read, such as "summarize: "')
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target spread over all tokens"
    )
    sample: Annotated[int, Field(ge=0)] = Field(default=64, description="test rows for which texts are written")
    beams: Annotated[int, Field(ge=1)] = Field(default=1, description="beams in writing; 1: always the likeliest token")
    answer_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most tokens of a written text; those of the longest training target when not given"
    )
    metric: str | None = Field(
        default=None, description="package.module:function of (written, wanted) that gives a number, more is better"
    )

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("must be package.module:function")
        return value

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
        if self.metric is not None:
            named_function(self.metric)  # a name that does not exist is told before anything is trained
        return find_sources(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return check_sources(table, columns)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return Texts()

    def check(self, train: Table, columns: Columns) -> Labels:
        return Labels((), ())

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
        """Summed over target tokens, each a weight of 1: the mean is that of transformers' own heads."""
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        target = batch.target[:, : output.shape[1]]
        learned = target != IGNORED  # [rows, written]
        total = cross_entropy(
            output[learned].float(), target[learned], reduction="sum", label_smoothing=self.label_smoothing
        )
        return LossSum(total, learned.sum().float(), {})

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        raise AssertionError("what a model says of texts to write can only be judged with their tokens: see `judged`")

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """Evidence: mean loss of a row's target tokens, in nats; where the target is not known, of its own first tokens.

        `counts`: those tokens, and how many of them the model would have said itself. The value is None: not yet said.
        """
        import torch
        from torch.nn.functional import cross_entropy

        from tunesmith.models.sequence import sides

        _, _, write, mask = sides(batch.inputs)
        known = mask != 0  # [rows, written]
        logits = output[known].float()  # [tokens, vocabulary]
        each, hits = (torch.zeros(write.shape, device=output.device) for _ in range(2))
        each[known] = cross_entropy(logits, write[known], reduction="none")
        hits[known] = (logits.argmax(-1) == write[known]).float()
        counts = known.sum(1)
        means = (each.sum(1) / counts.clamp(min=1)).tolist()
        return [
            Prediction(row, None, (mean,), counts=(int(count), int(hit)))
            for row, mean, count, hit in zip(batch.rows, means, counts.tolist(), hits.sum(1).tolist(), strict=True)
        ]

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """The predictions with what the network writes for each text; of rows with known targets, for a sample."""
        from tunesmith.models.generation import write_from

        asked = self._sampled(examples)
        if not asked:
            return list(found)
        written = write_from(network, [item.inputs["input_ids"] for item in asked])
        said = {item.row: network.text.written(ids) for item, (ids, _) in zip(asked, written, strict=True)}
        going = {item.row for item, (_, ended) in zip(asked, written, strict=True) if not ended}
        if going and asked[0].target is None:
            warnings.warn(
                f"{len(going):,} of {len(asked):,} texts were not at their end after the most tokens that this model was "
                "told to write (task.answer_tokens)",
                TunesmithWarning,
                stacklevel=4,
            )
        return [
            replace(item, value=said[item.row], counts=(*item.counts[:2], int(item.row in going)))
            if item.row in said
            else item
            for item in found
        ]

    def floors(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> dict[str, list[Prediction]]:
        """Every token by its share of the learned ones (one more of each: Laplace); beside it the most frequent target, or
        the first words of the input, as many as a training target usually has.
        """
        import numpy as np

        seen = np.ones(outputs)
        for example in train:
            np.add.at(seen, example.target, 1)
        cost, usual = -np.log(seen / seen.sum()), int(seen.argmax())
        ((frequent, _),) = Counter(map(str, learned)).most_common(1)
        words = max(1, round(median(len(str(text).split()) for text in learned)))
        written = {item.row for item in self._sampled(test)}
        found: dict[str, list[Prediction]] = {self.floor_name: [], "lead": []}
        for example in test:
            counts = (len(example.target), sum(token == usual for token in example.target))
            lead = " ".join((example.window.text if example.window is not None else "").split()[:words])
            for name, text in ((self.floor_name, frequent), ("lead", lead)):
                value = text if example.row in written else None
                found[name].append(Prediction(example.row, value, (float(cost[example.target].mean()),), counts=counts))
        return found

    def _sampled(self, examples: Sequence[Example]) -> list[Example]:
        """The rows that texts are written for: all whose targets are not known, of the others a sample evenly over them."""
        asked = [example for example in examples if example.target is None]
        if asked or len(examples) <= self.sample:
            return asked if asked else list(examples)
        return [examples[place * len(examples) // self.sample] for place in range(self.sample)]

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Over tokens, each alike: mean loss in nats, accuracy (what the model would say after the true tokens before),
        perplexity. Over the rows with a written text what `_written.measures_of` gives, and the user's metric.
        """
        import numpy as np

        columns = {
            "truth": np.arange(len(predictions)),
            "tokens": np.array([item.counts[0] for item in predictions], dtype=np.float64),
            "hits": np.array([item.counts[1] for item in predictions], dtype=np.float64),
            "loss": np.array([item.counts[0] * item.evidence[0] for item in predictions], dtype=np.float64),
        }
        metrics: dict[str, Any] = {"loss": mean_loss, "token_accuracy": token_accuracy, "perplexity": perplexity}
        written: dict[str, int] = {}
        rows_of: dict[str, np.ndarray] = {}
        shares: set[str] = set()
        if any(item.value is not None for item in predictions):
            pairs = [
                None if item.value is None else (compared(item.value, None), compared(str(true), None))
                for item, true in zip(predictions, truth, strict=True)
            ]
            columns["going"] = np.array([sum(item.counts[2:]) for item in predictions], dtype=np.float64)
            own = self._own_metric()
            more, functions = measures_of(pairs, own)
            columns |= more
            metrics |= functions
            written = dict.fromkeys(functions, sum(pair is not None for pair in pairs))
            rows_of = dict.fromkeys(functions, np.array([pair is not None for pair in pairs]))
            shares = {"exact_match"} - set(own)  # a function of the user's may have its name
        lower = frozenset({"loss", "perplexity"})
        return Scores(columns, metrics, self.primary_metric, frozenset(shares), lower, written, rows_of)

    def _own_metric(self) -> dict[str, Compare]:
        """The user's function by its name; none where there is none."""
        if self.metric is None:
            return {}
        own, path = named_function(self.metric), self.metric
        name = path.rpartition(":")[2].rpartition(".")[2]
        return {name: lambda said, wanted: measured(own, path, said, wanted)}

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        return {"output": [item.value for item in predictions]}

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        if prediction.value is None or exact_match(prediction.value, str(truth)):
            return None
        near = rouge_l(prediction.value, str(truth))
        return Mistake(1 - near, shown(truth, SHOWN), shown(prediction.value, SHOWN), f"ROUGE-L {near:.2f}")

    def describe(self, labels: Labels) -> str:
        before = f', "{self.prefix}" before each' if self.prefix else ""
        return f"texts written from texts{before}"
