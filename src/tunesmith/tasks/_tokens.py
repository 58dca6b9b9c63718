"""Texts that are learned token by token: the loss, what each text is judged by, and what the frequencies alone would do.

Metrics are computed from columns with one entry a text: tokens, hits, summed loss, bytes. Of texts without a learned token,
which a small resample may consist of, each is nan: undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import IGNORED, Example
from tunesmith.tasks._weighted import OfSums, ratio, stacked
from tunesmith.tasks.base import LossSum, Metric, Prediction

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.lazy_logits import LazyLogits

NATS_A_BIT = 0.6931471805599453  # ln 2
LOWER = frozenset({"loss", "perplexity", "bits_per_byte"})  # metrics of which less is better


def token_loss(logits: Tensor | LazyLogits, target: Tensor, smoothing: float = 0.0) -> LossSum:
    """Cross-entropy summed over learned tokens, each a weight of 1: the mean is that of transformers' own heads.

    `logits` [rows, places, vocabulary] are held against `target` [rows, places], IGNORED where nothing is learned.
    """
    from torch.nn.functional import cross_entropy

    from tunesmith.models.lazy_logits import LazyLogits

    learned = target != IGNORED
    weight = learned.sum().float()
    if isinstance(logits, LazyLogits):
        return LossSum(logits.loss(learned, target[learned], smoothing), weight, {})
    total = cross_entropy(logits[learned].float(), target[learned], reduction="sum", label_smoothing=smoothing)
    return LossSum(total, weight, {})


def judged_tokens(logits: Tensor, target: Tensor, rows: Sequence[int]) -> list[Prediction]:
    """Evidence: mean loss of a row's learned tokens, in nats. `counts`: those tokens, and how many the model would have said.

    Shapes as for `token_loss`. The value is None: nothing is said yet.
    """
    import torch
    from torch.nn.functional import cross_entropy

    learned = target != IGNORED
    said = logits[learned].float()
    each, hits = (torch.zeros(target.shape, device=logits.device) for _ in range(2))
    each[learned] = cross_entropy(said, target[learned], reduction="none")
    hits[learned] = (said.argmax(-1) == target[learned]).float()
    counts = learned.sum(1)
    means = (each.sum(1) / counts.clamp(min=1)).tolist()
    return [
        Prediction(row, None, (mean,), counts=(int(count), int(hit)))
        for row, mean, count, hit in zip(rows, means, counts.tolist(), hits.sum(1).tolist(), strict=True)
    ]


def learned_tokens(example: Example) -> list[int]:
    return [token for token in example.target if token != IGNORED]


class Frequencies:
    """Says of every token its share of the learned ones, with one more of each (Laplace): what no model need be better at.

    `outputs`: size of the vocabulary.
    """

    def __init__(self, train: Iterable[Example], outputs: int) -> None:
        import numpy as np

        seen = np.ones(outputs)
        for example in train:
            np.add.at(seen, learned_tokens(example), 1)
        self._cost: np.ndarray = -np.log(seen / seen.sum())
        self._usual = int(seen.argmax())

    def judged(self, example: Example, value: str | None = None) -> Prediction:
        """As `judged_tokens`, of one text; `value` is what is said instead of it."""
        tokens = learned_tokens(example)
        mean = float(self._cost[tokens].mean()) if tokens else 0.0
        return Prediction(example.row, value, (mean,), counts=(len(tokens), tokens.count(self._usual)))


def token_columns(predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    import numpy as np

    return {
        "truth": np.arange(len(predictions)),
        "tokens": np.array([item.counts[0] for item in predictions], dtype=np.float64),
        "hits": np.array([item.counts[1] for item in predictions], dtype=np.float64),
        "loss": np.array([item.counts[0] * item.evidence[0] for item in predictions], dtype=np.float64),
    }


def token_measures(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each example its mean loss in nats a token, and its accuracy; NaN where it has no learned token."""
    import numpy as np

    tokens = np.where(columns["tokens"] > 0, columns["tokens"], np.nan)
    return {"loss": columns["loss"] / tokens, "token_accuracy": columns["hits"] / tokens}


def _of_tokens(top: str, bottom: str, turned: Callable[[np.ndarray], np.ndarray] = lambda value: value) -> OfSums:
    """Column `top` for each of `bottom`, in sums over the texts, `turned` into another unit; nan without a learned token."""

    def value(sums: np.ndarray) -> np.ndarray:
        import numpy as np

        above, below, tokens = sums
        return turned(ratio(above, np.where(tokens > 0, below, 0.0), float("nan")))

    return OfSums(lambda of: stacked(of[top], of[bottom], of["tokens"]), value)


def _exp(value: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.exp(value)


mean_loss = _of_tokens("loss", "tokens")  # in nats a token
token_accuracy = _of_tokens("hits", "tokens")  # tokens that the model would have said, after the true ones before
perplexity = _of_tokens("loss", "tokens", _exp)  # the exponential of the mean loss
# Of UTF-8: the same whatever the vocabulary, so that models with different tokenizers can be compared.
bits_per_byte = _of_tokens("loss", "bytes", lambda nats: nats / NATS_A_BIT)

TOKEN_METRICS: Mapping[str, Metric] = {
    "loss": mean_loss,
    "token_accuracy": token_accuracy,
    "perplexity": perplexity,
    "bits_per_byte": bits_per_byte,
}
