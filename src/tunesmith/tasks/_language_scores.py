"""Metrics of language models, from columns with one entry a text: tokens, hits, summed loss, bytes.

Of texts without a learned token, which a small resample may consist of, each is nan: undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NATS_A_BIT = 0.6931471805599453  # ln 2


def token_accuracy(of: Mapping[str, np.ndarray]) -> float:
    return _share(of, float(of["hits"].sum()), "tokens")


def mean_loss(of: Mapping[str, np.ndarray]) -> float:
    """In nats a token."""
    return _share(of, float(of["loss"].sum()), "tokens")


def perplexity(of: Mapping[str, np.ndarray]) -> float:
    """The exponential of the mean loss."""
    import numpy as np

    return float(np.exp(mean_loss(of)))


def bits_per_byte(of: Mapping[str, np.ndarray]) -> float:
    """Of UTF-8: the same whatever the vocabulary, so that models with different tokenizers can be compared."""
    return _share(of, float(of["loss"].sum()) / NATS_A_BIT, "bytes")


def _share(of: Mapping[str, np.ndarray], total: float, name: str) -> float:
    return total / float(of[name].sum()) if of["tokens"].sum() > 0 else float("nan")
