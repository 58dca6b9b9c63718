"""Per-row predictions of any contender to metrics with intervals: Tunesmith's own metrics and bootstrap for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.targets.tags import entities_of
from tunesmith.evaluation.intervals import bootstrap
from tunesmith.tasks import _metrics, _tokens
from tunesmith.tasks._spans import best
from tunesmith.tasks.base import Metric, Scores

if TYPE_CHECKING:
    import numpy as np

RESAMPLES, CONFIDENCE, SEED = 2000, 0.95, 0


def measured(kind: str, predicted: Any, test: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Metric -> value, low, high (95 %) of what a contender said of the test rows, in their order.

    kind: a key of `KINDS`. Raises ValueError unless there is one prediction a row.
    """
    scores = KINDS[kind](predicted, test)
    found = {}
    for name in scores.metrics:
        interval = bootstrap(scores, name, RESAMPLES, CONFIDENCE, SEED)
        found[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
    return found


def _paired(predicted: Sequence[Any], test: Sequence[dict[str, Any]]) -> None:
    if len(predicted) != len(test):
        raise ValueError(f"{len(predicted)} predictions of {len(test)} test rows")


def classes(predicted: Sequence[str], test: Sequence[dict[str, Any]]) -> Scores:
    """One class a row, by name."""
    import numpy as np

    _paired(predicted, test)
    truth = [row["label"] for row in test]
    names = sorted({*truth, *predicted})
    columns = {
        "truth": np.array([names.index(name) for name in truth], dtype=np.int64),
        "predicted": np.array([names.index(name) for name in predicted], dtype=np.int64),
    }
    metrics: dict[str, Metric] = {
        "accuracy": _metrics.accuracy,
        "macro_f1": _metrics.macro_f1(len(names)),
    }
    return Scores(columns, metrics, "accuracy", shares=frozenset({"accuracy"}))


def labels(predicted: Sequence[Sequence[str]], test: Sequence[dict[str, Any]]) -> Scores:
    """Several labels a row; those of the test rows are one text joined by "|"."""
    import numpy as np

    _paired(predicted, test)
    truth = [row["labels"].split("|") for row in test]
    names = sorted({name for said in (*truth, *predicted) for name in said})

    def table(said: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([[name in row for name in names] for row in said], dtype=bool)

    metrics: dict[str, Metric] = {f"{average}_f1": _metrics.label_f1(average) for average in ("micro", "macro")}
    return Scores({"truth": table(truth), "predicted": table(predicted)}, metrics, "micro_f1")


def numbers(predicted: Sequence[float], test: Sequence[dict[str, Any]]) -> Scores:
    """A number a row, of any unit: only its order and its line count."""
    import numpy as np

    _paired(predicted, test)
    columns = {
        "truth": np.array([float(row["score"]) for row in test])[:, None],
        "predicted": np.array(predicted, dtype=np.float64)[:, None],
    }
    return Scores(columns, {"spearman": _metrics.rank_correlation, "pearson": _metrics.correlation}, "spearman")


def entities(predicted: Sequence[Sequence[str]], test: Sequence[dict[str, Any]]) -> Scores:
    """A tag a word; words without one, which a length limit cut off, count as O."""
    import numpy as np

    _paired(predicted, test)
    found = [
        ({*entities_of(row["tags"])}, {*entities_of([*said, *["O"] * (len(row["tags"]) - len(said))])})
        for said, row in zip(predicted, test, strict=True)
    ]
    columns = {
        "truth": np.array([len(true) for true, _ in found]),
        "predicted": np.array([len(said) for _, said in found]),
        "hits": np.array([len(true & said) for true, said in found]),
    }
    metrics: dict[str, Metric] = {
        "entity_f1": _metrics.entity_f1,
        "entity_precision": _metrics.entity_precision,
        "entity_recall": _metrics.entity_recall,
    }
    return Scores(columns, metrics, "entity_f1")


def answers(predicted: Sequence[tuple[str, str]], test: Sequence[dict[str, Any]]) -> Scores:
    """Two texts a question: what is said, "" for no answer, and the likeliest span whether it is said or not."""
    import numpy as np

    _paired(predicted, test)
    golds = [[answer["text"] for answer in row["answers"]] for row in test]
    both = list(zip(golds, predicted, strict=True))
    columns = {
        "truth": np.array([bool(gold) for gold in golds]),
        "f1": np.array([best("f1", gold, said) for gold, (said, _) in both]),
        "exact": np.array([best("exact", gold, said) for gold, (said, _) in both]),
        "best_f1": np.array([best("f1", gold, likeliest) for gold, (_, likeliest) in both]),
    }
    metrics: dict[str, Metric] = {
        "f1": _metrics.mean_of("f1"),
        "exact_match": _metrics.mean_of("exact"),
        "has_answer_f1": _metrics.mean_of("f1"),
        "best_span_f1": _metrics.mean_of("best_f1"),
        "no_answer_accuracy": _metrics.mean_of("exact"),
    }
    answered = columns["truth"]
    rows_of = {"has_answer_f1": answered, "best_span_f1": answered, "no_answer_accuracy": ~answered}
    return Scores(columns, metrics, "f1", shares=frozenset({"exact_match", "no_answer_accuracy"}), rows_of=rows_of)


def language(predicted: Sequence[tuple[int, float]], test: Sequence[dict[str, Any]]) -> Scores:
    """Of each passage of the test text, how many tokens were judged and their summed loss in nats."""
    import numpy as np

    columns = {
        "truth": np.arange(len(predicted)),
        "tokens": np.array([tokens for tokens, _ in predicted], dtype=np.float64),
        "loss": np.array([loss for _, loss in predicted], dtype=np.float64),
    }
    metrics: dict[str, Metric] = {"perplexity": _tokens.perplexity, "loss": _tokens.mean_loss}
    return Scores(columns, metrics, "perplexity", lower=frozenset(metrics))


def written(predicted: Sequence[tuple[int, int, float]], test: Sequence[dict[str, Any]]) -> Scores:
    """Of each row's answer: tokens, how many of them the model would have said itself, and their summed loss in nats."""
    import numpy as np

    _paired(predicted, test)
    tokens, hits, loss = np.array(predicted, dtype=np.float64).T
    columns = {"truth": np.arange(len(test)), "tokens": tokens, "hits": hits, "loss": loss}
    metrics: dict[str, Metric] = {"loss": _tokens.mean_loss, "token_accuracy": _tokens.token_accuracy}
    return Scores(columns, metrics, "token_accuracy", lower=frozenset({"loss"}))


KINDS: dict[str, Callable[[Any, Sequence[dict[str, Any]]], Scores]] = {
    "classes": classes,
    "labels": labels,
    "numbers": numbers,
    "entities": entities,
    "answers": answers,
    "language": language,
    "written": written,
}
