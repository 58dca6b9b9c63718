"""Vectors in which related texts are near each other: from pairs, pairs with negatives, or pairs with a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import Batch, Example, Text, per_row
from tunesmith.data.related_columns import MADE, find_related, looks_related, read_related
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.targets.related import RELATED, Related
from tunesmith.data.words import Window
from tunesmith.errors import DataError
from tunesmith.tasks import _retrieval, _similarity
from tunesmith.tasks._information import Information, of_choices, of_numbers
from tunesmith.tasks._metrics import correlation, rank_correlation
from tunesmith.tasks.base import Labels, LossSum, Metric, Mistake, OutputTask, Prediction, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor


class _Read(NamedTuple):
    """What is kept of a row until all rows of its split are there to be compared."""

    vectors: np.ndarray  # [2, width], of length 1: anchor and positive
    ids: tuple[int, ...]


class Embedding(OutputTask):
    """Learned by contrast with the other rows of a step, or by the order of scores.

    Evidence of a row: the cosines of its first text with each of the others; of rows without a score also those with the
    ten nearest positives of other rows, from which its rank follows.
    """

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    primary_metric: ClassVar[str] = "spearman"  # of rows without a score: mrr_at_10
    metrics: ClassVar[tuple[str, ...]] = (
        "spearman", "pearson", "mrr_at_10", "ndcg_at_10", "accuracy_at_1", "triplet_accuracy",
    )  # fmt: skip
    baselines: ClassVar[tuple[str, ...]] = ("tfidf_cosine",)
    untrained: ClassVar[str] = "cosine"
    views: ClassVar[tuple[str, ...]] = ("nearness",)
    joint: ClassVar[bool] = True
    ranked: ClassVar[bool] = True
    several_texts: ClassVar[bool] = True
    worst: ClassVar[str] = (
        "The rows whose texts are furthest from where they belong. Check these rows first: such texts are often unrelated "
        "in the data."
    )
    truth_is: ClassVar[str] = "wanted"

    scale: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="one over the temperature: how sharply the nearest texts of other rows count"
    )
    symmetric: bool = Field(
        default=False, description="tell anchors apart by positives as well as positives by anchors"
    )
    scored: Literal["ranking", "cosine"] = Field(
        default="ranking", description="of pairs with a score: the order of scores (CoSENT), or the cosine itself"
    )

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return looks_related(table, asked)

    def find(self, table: Table, asked: Asked) -> Columns:
        return find_related(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return read_related(table, columns)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        related = tuple(names) == (MADE,)
        if known and related != (tuple(known) == (RELATED,)):
            said = "pairs with a score" if related else "pairs without a score"
            raise DataError(f"this model was trained on {said}, and these rows are none; name the columns that say so")
        return Related() if related else Numbers(tuple(names))

    def check(self, train: Table, columns: Columns) -> Labels:
        """Of scores `center` is the least and `scale` the range: the loss "cosine" learns them put on 0 to 1."""
        if columns.label == MADE:
            return Labels((RELATED,), (len(train),))
        values = [value for (value,) in train.columns[columns.label]]
        low, high = min(values), max(values)
        if not high > low:
            raise DataError(f'{train.path}: column "{columns.label}" holds one number only in the training rows')
        return Labels((columns.label,), (len(values),), center=(low,), scale=(high - low,))

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        """Every text on its own. The target: the score on 0 to 1; without scores a number for each text that names it."""
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        sides = [processor.encode_all(side, limit) for side in zip(*rows, strict=True)]
        made = []
        for row, encoded in enumerate(zip(*sides, strict=True)):
            inputs, cuts = [item[0] for item in encoded], sum(item[1] for item in encoded)
            target: list[float] | list[int] | None = None
            if not labels.scale:
                target = [_retrieval.text_id(text) for text in rows[row]]
            elif targets is not None:
                target = [(targets[row][0] - labels.center[0]) / labels.scale[0]]
            second = inputs[1] if len(inputs) > 1 else None
            made.append(Example(row, inputs[0], target, cuts, second, more=tuple(inputs[2:])))
        return made

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """Of scores that of numbers; without them a row teaches at most which of all second texts is its own."""
        if labels.scale:
            return of_numbers(truth)
        rows = len(truth)
        return of_choices([rows] * rows, f"each of which names one of {rows:,} texts")

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.embedding import embedding_network

        return embedding_network(backbone)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """One loss over all rows of the step, counted `rows` times, so that a mean over steps weighs rows alike.

        Of "ranking" it is that of the whole step; the others are sums over rows.
        """
        import torch

        assert batch.target is not None
        vectors, rows = per_row(output, len(batch.rows)), len(batch.rows)  # [rows, texts, width]
        weight = torch.tensor(float(rows), device=output.device)
        if not batch.target.is_floating_point():
            if vectors.dim() == 2:  # single texts: nothing to compare
                return LossSum(vectors.sum() * 0.0, weight, {})
            return LossSum(_similarity.contrast(vectors, batch.target, self.scale, self.symmetric), weight, {})
        said, wanted = _similarity.cosines(vectors)[:, 0], batch.target[:, 0]
        if self.scored == "cosine":
            return LossSum((said - wanted).square().sum(), weight, {})
        return LossSum(rows * _similarity.ranking(said, wanted, self.scale), weight, {})

    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        """[rows, texts, width] -> [rows, texts - 1] cosines; of single texts [rows, width], the vectors themselves."""
        return output if output.dim() == 2 else _similarity.cosines(output)

    def said(self, evidence: Sequence[float], labels: Labels) -> float:
        return evidence[0]

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        return self._predicted(output, rows, labels, None)

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        return self._predicted(output, batch.rows, labels, batch.target)

    def _predicted(self, output: Tensor, rows: Sequence[int], labels: Labels, ids: Tensor | None) -> list[Prediction]:
        """`ids` [rows, texts] names equal texts; without them no two rows are taken to share one."""
        from torch.nn.functional import normalize

        vectors = per_row(output.float(), len(rows))
        evidence = self.evidence(vectors, labels).tolist()
        if vectors.dim() == 2:
            return [Prediction(row, tuple(values), tuple(values)) for row, values in zip(rows, evidence, strict=True)]
        if labels.scale:
            return self.predictions(evidence, rows, labels)
        unit = normalize(vectors[:, :2], dim=-1).cpu().numpy()
        named = [(2 * row, 2 * row + 1) for row in rows] if ids is None else [tuple(line) for line in ids.tolist()]
        return [
            Prediction(row, _Read(unit[place], named[place]), tuple(evidence[place])) for place, row in enumerate(rows)
        ]

    def whole(self, found: Sequence[Prediction], windows: Mapping[int, Window], labels: Labels) -> list[Prediction]:
        """Adds what only all rows together tell: the nearest positives of other rows."""
        import numpy as np

        read = [item.value for item in found if isinstance(item.value, _Read)]
        if not read:
            return list(found)
        anchors, positives = (np.stack([item.vectors[side] for item in read]) for side in (0, 1))
        nearest = _retrieval.rivals(
            [item.ids for item in read], lambda rows, places: anchors[rows.start : rows.stop] @ positives[places].T
        )
        both = [(*item.evidence, *others) for item, others in zip(found, nearest.tolist(), strict=True)]
        return [replace(item, value=values[0], evidence=values) for item, values in zip(found, both, strict=True)]

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        import numpy as np

        said = np.array([item.value for item in predictions], dtype=np.float64)
        if labels.scale:
            scored = {"truth": np.array(truth, dtype=np.float64).reshape(-1, 1), "predicted": said[:, None]}
            functions = self.functions(scored, labels)
            wanted = (scored["truth"][:, 0] - labels.center[0]) / labels.scale[0]
            each = {"difference": said - wanted}  # of the cosine, from the score as a share of the range of scores
            return Scores(scored, functions, "spearman", other_scale=frozenset(functions), each=each)
        evidence = np.array([item.evidence for item in predictions], dtype=np.float64)
        others, negatives = evidence[:, -_retrieval.DEPTH :], evidence[:, 1 : -_retrieval.DEPTH]
        columns = {"truth": np.ones(len(said)), "similarity": said, "rank": _retrieval.rank_of(said, others)}
        if negatives.shape[1]:
            columns["negative"] = negatives.max(axis=1)
        metrics = self.functions(columns, labels)
        shares = frozenset({"accuracy_at_1", "triplet_accuracy"} & metrics.keys())
        each = {"mrr_at_10": _retrieval.reciprocal_ranks(columns)}
        return Scores(columns, metrics, "mrr_at_10", shares=shares, each=each)

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        if labels.scale:
            return {"spearman": rank_correlation, "pearson": correlation}
        found: dict[str, Metric] = {
            "mrr_at_10": _retrieval.mrr_at_10,
            "ndcg_at_10": _retrieval.ndcg_at_10,
            "accuracy_at_1": _retrieval.accuracy_at_1,
        }
        return found | ({"triplet_accuracy": _retrieval.triplet_accuracy} if "negative" in columns else {})

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        """ "vector" of single texts; "cosine" of several, and "rank" among the second texts of all rows given."""
        if predictions and isinstance(predictions[0].value, tuple):
            return {"vector": [list(item.value) for item in predictions]}
        said: dict[str, list[Any]] = {"cosine": [item.value for item in predictions]}
        if not labels.scale and len(predictions) > 1:
            said["rank"] = [_rank(item) for item in predictions]
        return said

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        """Without scores: a positive that is not the nearest. Of scores each is off by something."""
        cosine = f"cosine {prediction.value:.3f}"
        if labels.scale:
            wanted = (truth[0] - labels.center[0]) / labels.scale[0]
            far = abs(prediction.value - wanted)
            return Mistake(far, f"{truth[0]:.4g}", cosine, f"{wanted:.2f} of the range of scores")
        rank, best = _rank(prediction), prediction.evidence[-_retrieval.DEPTH]
        if rank == 1:
            return None
        said = f"rank {rank}" if rank <= _retrieval.DEPTH else f"beyond rank {_retrieval.DEPTH}"
        return Mistake(best - prediction.value, "rank 1", said, f"{cosine}, the nearest {best:.3f}")

    def shows(self, example: Example, tokens: Sequence[str], labels: Labels) -> str | None:
        if labels.scale:
            return None
        others = f", and nearer than {len(example.more)} further" if example.more else ""
        return f"the second text is nearer to the first than those of other rows{others}"

    def describe(self, labels: Labels) -> str:
        return "vectors from pairs with a score" if labels.scale else "vectors from texts that belong together"


def _rank(prediction: Prediction) -> int:
    """1 to 11, as `_retrieval.rank_of` has it."""
    return 1 + sum(other >= prediction.value for other in prediction.evidence[-_retrieval.DEPTH :])
