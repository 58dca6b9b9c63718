"""Entities: a tag for each word of a text, and from them which characters name what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from tunesmith.data.columns import Asked, Columns, find_columns
from tunesmith.data.encode import IGNORED, Batch, Example, Text
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.tags import OUTSIDE, Entity, Tags, entities_of, scheme_of, tags_of, types_of
from tunesmith.data.words import Bounds, Window, Words, bounds_of, windows_of
from tunesmith.errors import RecipeError
from tunesmith.tasks._disagreement import classes_apart
from tunesmith.tasks._information import Information, of_counts
from tunesmith.tasks._metrics import entity_f1, entity_precision, entity_recall
from tunesmith.tasks.base import Labels, LossSum, Mark, Metric, Mistake, OutputTask, Prediction, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor
    from tunesmith.models.text import TextProcessor


class Span(NamedTuple):
    """An entity as it is predicted."""

    start: int  # its first character
    end: int  # the character after its last
    label: str
    score: float  # mean probability of its words' tags
    text: str
    words: tuple[int, int]  # its first word, and the one after its last


class TokenClassification(OutputTask):
    """Cross-entropy over IOB2 tags at the first token of each word; entities are read from the tags as conlleval does."""

    pipeline_tag: ClassVar[str] = "token-classification"
    primary_metric: ClassVar[str] = "entity_f1"
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1", "entity_precision", "entity_recall")
    baselines: ClassVar[tuple[str, ...]] = ("frequent_tag",)
    views: ClassVar[tuple[str, ...]] = ("per_entity",)
    reads_words: ClassVar[bool] = True

    overlap: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.25,
        description="share of a window that the next one repeats, where a text is too long to be read at once",
    )

    def find(self, table: Table, asked: Asked) -> Columns:
        return find_columns(table, asked.text, asked.label, asked.group, asked.pair, entities=True)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        if len(names) > 1:
            raise RecipeError(
                f"data.label: {len(names)} columns are named, and token_classification learns one of tags or spans; name one"
            )
        return Tags(scheme_of(values))

    def check(self, train: Table, columns: Columns) -> Labels:
        """IOB2 tags, O first, and how many words of the training rows have each."""
        pairs = zip(train.columns[columns.text], train.columns[columns.label], strict=True)
        counts = Counter(tag for text, entities in pairs for tag in tags_of(bounds_of(text), entities))
        kinds = sorted({tag[2:] for tag in counts if tag != OUTSIDE})
        named = (OUTSIDE, *(f"{letter}-{kind}" for kind in kinds for letter in "BI"))
        return Labels(named, tuple(counts[name] for name in named))

    def units(self, text: Text) -> int:
        assert isinstance(text, str)
        return len(bounds_of(text))

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: Processor, limit: int
    ) -> list[Example]:
        """One example a window; each word is learned, and predicted, in the one window where it is most central."""
        from tunesmith.models.text import TextProcessor

        assert isinstance(processor, TextProcessor)
        read = [text for text in texts if isinstance(text, str)]
        bounds = [bounds_of(text) for text in read]
        written = [_written(text, words) for text, words in zip(read, bounds, strict=True)]
        distinct = list(dict.fromkeys(word for row in written for word in row))
        pieces = dict(zip(distinct, processor.pieces(distinct), strict=True))
        index = {name: place for place, name in enumerate(labels.names)}
        made: list[Example] = []
        for row, text in enumerate(read):
            tags = None if targets is None else [index[tag] for tag in tags_of(bounds[row], targets[row])]
            tokens = [pieces[word] for word in written[row]]
            made += self._windows(Window(row, text), tokens, tags, processor, limit, len(made))
        return made

    def _windows(
        self,
        of: Window,
        tokens: list[list[int]],
        tags: list[int] | None,
        processor: TextProcessor,
        limit: int,
        first: int,
    ) -> list[Example]:
        """The examples of one text, numbered from `first`; `tokens` of each word, `tags` by their place in the labels."""
        room = max(1, limit - processor.special)
        found = []
        for cut in windows_of([len(word) for word in tokens], room, self.overlap):
            ids: list[int] = []
            starts: list[int] = []
            lost = 0
            for word in range(cut.first, cut.last):
                if cut.own <= word < cut.after:
                    starts.append(len(ids))
                    lost += max(0, len(tokens[word]) - room)
                ids += tokens[word][:room]
            inputs, before = processor.wrapped(ids)
            places = tuple(before + start for start in starts)
            target = None if tags is None else [IGNORED] * len(inputs["input_ids"])
            if target is not None and tags is not None:
                for place, tag in zip(places, tags[cut.own : cut.after], strict=True):
                    target[place] = tag
            found.append(Example(first + len(found), inputs, target, lost, window=Window(of.source, of.text, places)))
        return found

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """The entropy of the tags, for every word."""
        return of_counts(labels.counts, "words", "tags")

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import token_network

        return token_network(backbone, labels.names, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Summed over the tokens that count, each a weight of 1. `output` is [rows, tokens, tags], or [words, tags]."""
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        logits, target = output.float().flatten(0, -2), batch.target.flatten()
        total = cross_entropy(logits, target, reduction="sum", ignore_index=IGNORED)
        counted = target != IGNORED
        correct = ((logits.argmax(-1) == target) & counted).sum()
        return LossSum(total, counted.sum().float(), {"correct": correct.detach()})

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        assert batch.target is not None
        counted = batch.target.flatten() != IGNORED
        return classes_apart(first.flatten(0, -2)[counted], second.flatten(0, -2)[counted])

    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        return output.softmax(-1)

    def said(self, evidence: Sequence[float], labels: Labels) -> str:
        return labels.names[max(range(len(evidence)), key=evidence.__getitem__)]  # the first of equals

    def whole(self, found: Sequence[Prediction], windows: Mapping[int, Window], labels: Labels) -> list[Prediction]:
        """The words of each text together: its entities, and the probabilities of all tags, word after word."""
        texts = {window.source: window.text for window in windows.values()}
        words: dict[int, list[Prediction]] = {source: [] for source in texts}
        for item in found:
            words[windows[item.row].source].append(item)
        return [_of_text(source, texts[source], said) for source, said in words.items()]

    def restate(self, predictions: Sequence[Prediction], labels: Labels) -> list[Prediction]:
        return list(predictions)  # nothing is settled later

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Entities of each type in each row: true, predicted, and both; equal where characters and type are."""
        import numpy as np

        kinds = {kind: place for place, kind in enumerate(types_of(labels.names))}
        columns = {name: np.zeros((len(predictions), len(kinds)), np.int64) for name in ("truth", "predicted", "hits")}
        for row, (item, entities) in enumerate(zip(predictions, truth, strict=True)):
            said = {span[:3] for span in item.value}
            true = {entity[:3] for entity in entities}
            for name, some in (("truth", true), ("predicted", said), ("hits", true & said)):
                for _, _, kind in some:
                    columns[name][row, kinds[kind]] += 1
        hits, both = columns["hits"].sum(1), columns["truth"].sum(1) + columns["predicted"].sum(1)
        f1 = np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)
        return Scores(columns, self.functions(columns, labels), self.primary_metric, each={"entity_f1": f1})

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        return {
            "entity_f1": entity_f1,
            "entity_precision": entity_precision,
            "entity_recall": entity_recall,
        }

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        """A list of spans for each text; of one that was given as words also which of them a span takes."""
        return {"spans": [[_plain(span, isinstance(item.text, Words)) for span in item.value] for item in predictions]}

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        """By how sure the model was of each wrong entity, and how far from the tags of each missed one, in all."""
        said, true = {span[:3]: span for span in prediction.value}, {entity[:3] for entity in truth}
        if said.keys() == true:
            return None
        wrong, missed = [span for key, span in said.items() if key not in true], sorted(true - said.keys())
        severity = sum(span.score for span in wrong) + sum(_doubt(prediction, Entity(*key), labels) for key in missed)
        marks = [
            Mark(span.start, span.end, span.label, "right" if span[:3] in true else "wrong") for span in said.values()
        ]
        marks += [Mark(start, end, kind, "missed") for start, end, kind in missed]
        listed = ", ".join(f'{span.label} "{span.text}" {span.score:.2f}' for span in wrong)
        return Mistake(
            severity,
            _named(sorted(true), prediction.text),
            _named(sorted(said), prediction.text),
            f"{len(wrong)} wrong{f' ({listed})' if listed else ''}, {len(missed)} missed",
            tuple(sorted(marks)),
        )

    def describe(self, labels: Labels) -> str:
        kinds = types_of(labels.names)
        return f"entities of {len(kinds)} type{'' if len(kinds) == 1 else 's'}"


def _written(text: str, bounds: Bounds) -> list[str]:
    """Each word, after a space where it stands after one: many tokenizers know a word by the space before it."""
    return [(" " if start > 0 and text[start - 1].isspace() else "") + text[start:end] for start, end in bounds]


def _of_text(source: int, text: str, words: Sequence[Prediction]) -> Prediction:
    bounds = bounds_of(text)
    scores = [max(word.evidence) for word in words]
    spans = []
    for first, last, kind in entities_of([word.value for word in words]):
        start, end = bounds[first][0], bounds[last - 1][1]
        score = sum(scores[first:last]) / (last - first)
        spans.append(Span(start, end, kind, score, str(text[start:end]), (first, last)))
    return Prediction(source, tuple(spans), tuple(value for word in words for value in word.evidence), text)


def _doubt(prediction: Prediction, missed: Entity, labels: Labels) -> float:
    """Mean over an entity's words of how much of their probability does not stand on the true tag."""
    bounds, width = bounds_of(prediction.text), len(labels.names)
    tags = tags_of(bounds, [missed])
    inside = [place for place, tag in enumerate(tags) if tag != OUTSIDE]
    given = [prediction.evidence[place * width + labels.names.index(tags[place])] for place in inside]
    return 1 - sum(given) / len(given)


def _named(entities: Sequence[tuple[int, int, str]], text: str) -> str:
    return ", ".join(f'{kind} "{text[start:end]}"' for start, end, kind in entities) if entities else "none"


def _plain(span: Span, as_words: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "label": span.label,
        "score": round(span.score, 6),
        "text": span.text,
    }
    return plain | {"words": list(span.words)} if as_words else plain
