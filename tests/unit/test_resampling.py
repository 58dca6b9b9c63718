"""Thousands of resamples at once say what each says by itself; BCa is SciPy's; strata keep their shares and spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesmith.evaluation.intervals import bootstrap, paired_difference, standard_error
from tunesmith.evaluation.resampling import left_out_groups, pooled_strata, weights_of
from tunesmith.seeds import seed_of
from tunesmith.tasks._metrics import (
    accuracy,
    average_precision,
    correlation,
    entity_f1,
    entity_precision,
    entity_recall,
    label_f1,
    macro_f1,
    mean_of,
    rank_correlation,
    ranks,
    root_mean_square_error,
)
from tunesmith.tasks._retrieval import accuracy_at_1, mrr_at_10, ndcg_at_10
from tunesmith.tasks._tokens import LOWER, TOKEN_METRICS
from tunesmith.tasks._weighted import OfSums
from tunesmith.tasks._written import bleu, chrf
from tunesmith.tasks.base import Metric, Scores


def classes(rows: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = draw.integers(4, size=rows)
    columns = {"truth": truth, "predicted": np.where(draw.random(rows) < 0.8, truth, draw.integers(4, size=rows))}
    metrics = {"accuracy": accuracy, "macro_f1": macro_f1(4)}
    return Scores(columns, metrics, "accuracy", shares=frozenset({"accuracy"}))


def numbers(rows: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = draw.exponential(size=(rows, 2)).round(1)  # ties
    columns = {"truth": truth, "predicted": truth + draw.exponential(size=(rows, 2)).round(1)}
    metrics: dict[str, Metric] = {
        "rmse": root_mean_square_error(np.array([1.0, 3.0])),
        "pearson": correlation,
        "spearman": rank_correlation,
    }
    return Scores(
        columns, metrics, "spearman", lower=frozenset({"rmse"}), other_scale=frozenset({"pearson", "spearman"})
    )


def labels(rows: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth, probability = draw.random((rows, 4)) < 0.3, draw.random((rows, 4)).round(1)
    columns = {"truth": truth, "predicted": probability > 0.6, "rank": ranks(probability)}
    metrics: dict[str, Metric] = {"micro": label_f1("micro"), "macro": label_f1("macro"), "ap": average_precision}
    return Scores(columns, metrics, "micro")


def texts(rows: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, 9, size=rows).astype(float)
    columns = {
        "truth": np.arange(rows),
        "tokens": tokens,
        "hits": (tokens * draw.random(rows)).round(),
        "loss": tokens * draw.exponential(size=rows),
        "bytes": 4 * tokens + 1,
        "f1": draw.random(rows),
        "bleu": np.hstack([draw.integers(0, 5, size=(rows, 4)), draw.integers(5, 9, size=(rows, 6))]).astype(float),
        "chrf": draw.integers(0, 9, size=(rows, 18)).astype(float),
    }
    metrics = {**TOKEN_METRICS, "f1": mean_of("f1")}
    if find_spec("sacrebleu") is not None:
        metrics |= {"bleu": bleu, "chrf": chrf}
    return Scores(columns, metrics, "loss", lower=LOWER, other_scale=frozenset({"bleu", "chrf"}))


def ranked(rows: int, seed: int) -> Scores:
    columns = {"truth": np.ones(rows), "rank": np.random.default_rng(seed).integers(1, 12, size=rows)}
    return Scores(columns, {"mrr": mrr_at_10, "ndcg": ndcg_at_10, "first": accuracy_at_1}, "mrr")


def entities(rows: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    columns = {name: draw.integers(0, 3, size=(rows, 2)) for name in ("truth", "predicted")}
    columns["hits"] = np.minimum(columns["truth"], columns["predicted"])
    return Scores(columns, {"f1": entity_f1, "precision": entity_precision, "recall": entity_recall}, "f1")


KINDS: dict[str, Callable[[int, int], Scores]] = {
    "classes": classes,
    "numbers": numbers,
    "labels": labels,
    "texts": texts,
    "ranked": ranked,
    "entities": entities,
}


def one_by_one(of: Scores) -> Scores:
    """The same metrics as plain functions, of which each resample is made and measured by itself."""

    def plain(metric: Metric) -> Metric:
        return lambda columns: metric(columns)

    return replace(of, metrics={name: plain(metric) for name, metric in of.metrics.items()})


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("rows", [1, 2, 7, 60])
def test_all_resamples_at_once_are_each_by_itself(kind: str, rows: int) -> None:
    one, two = KINDS[kind](rows, 0), KINDS[kind](rows, 1)
    two = replace(two, columns={**two.columns, "truth": one.columns["truth"]})
    close = {"rel": 1e-9, "abs": 1e-9, "nan_ok": True}
    for metric in one.metrics:
        found, expected = (standard_error(of, metric) for of in (one, one_by_one(one)))
        assert found == pytest.approx(expected, **close), metric
        ends = [astuple(bootstrap(of, metric, 150, 0.9, 3)) for of in (one, one_by_one(one))]
        assert ends[0] == pytest.approx(ends[1], **close), metric
        pairs = ((one, two), (one_by_one(one), one_by_one(two)))
        ends = [astuple(paired_difference(*pair, metric, 150, 0.9, 3)) for pair in pairs]
        assert ends[0] == pytest.approx(ends[1], **close), metric


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_whole_weight_is_a_row_that_stands_there_so_often(kind: str, times: list[int]) -> None:
    of = KINDS[kind](len(times), 2)
    taken = np.repeat(np.arange(len(times)), times)
    repeated = {name: values[taken] for name, values in of.columns.items()}
    for name, metric in of.metrics.items():
        assert isinstance(metric, OfSums) or name in ("spearman", "ap")
        (found,) = metric.weighing(of.columns)(np.array(times, float)[:, None])  # type: ignore[attr-defined]
        assert found == pytest.approx(metric(repeated), abs=1e-9, nan_ok=True), name


def test_the_draws_of_a_standard_error_stay_what_they_were() -> None:
    """Checkpoints are chosen by it: the same 200 resamples under every version."""
    of = numbers(50, 0)
    draw = np.random.default_rng(seed_of(0, "bootstrap"))
    drawn = []
    for _ in range(200):
        taken = draw.integers(50, size=50)
        sides = [of.columns[side][taken] for side in ("truth", "predicted")]
        drawn.append(np.mean([stats.spearmanr(*(side[:, at] for side in sides)).statistic for at in (0, 1)]))
    assert standard_error(of) == pytest.approx(float(np.std(drawn, ddof=1)), rel=1e-9)


@pytest.mark.parametrize("metric", ["macro_f1", "rmse", "pearson", "spearman"])
def test_bootstrap_is_scipys_bca_up_to_noise(metric: str) -> None:
    of = classes(250, 1) if metric == "macro_f1" else numbers(250, 1)

    def statistic(rows: np.ndarray) -> float:
        return of.metrics[metric]({name: values[rows] for name, values in of.columns.items()})

    oracle = stats.bootstrap(
        (np.arange(250),), statistic, vectorized=False, n_resamples=3000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap(of, metric, 3000, 0.95, seed=0)
    noise = 0.08 * (oracle.high - oracle.low)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=noise)


def test_an_interval_reaches_further_where_a_metric_is_skewed() -> None:
    """What BCa is for: a mean of squared errors with a long tail may lie far above what was measured, hardly far below."""
    found = bootstrap(numbers(60, 4), "rmse", 4000, 0.95, 0)
    assert found.high - found.value > 1.1 * (found.value - found.low)


def test_strata_keep_their_shares_and_their_spread() -> None:
    strata = pooled_strata(np.repeat([0, 1, 2], [50, 30, 20]))
    values = np.random.default_rng(0).normal(size=100)
    weights = np.hstack(list(weights_of(100, 20_000, 0, strata)))
    for stratum in (1, 2, 3):
        part = strata == stratum
        assert weights[part].sum(axis=0) == pytest.approx(np.full(20_000, part.sum()))
        mean = values[part] @ weights[part] / part.sum()
        assert mean.std() == pytest.approx(stats.sem(values[part]), rel=0.02)  # unbiased, although of few rows


def test_strata_take_out_of_an_interval_what_did_not_vary() -> None:
    """Two classes of which one is always right: had the split not held their shares, accuracy would vary with them."""
    truth = np.repeat([0, 1], 500)
    columns = {"truth": truth, "predicted": np.where(np.arange(1000) >= 900, 0, truth)}
    of = Scores(columns, {"accuracy": accuracy}, "accuracy")
    plain, within = (bootstrap(of, "accuracy", 4000, 0.95, 0, strata) for strata in (None, truth.tolist()))
    narrower = np.sqrt(0.5 * 0.2 * 0.8 / (0.1 * 0.9))  # of the standard errors, both by the binomial
    assert (within.high - within.low) / (plain.high - plain.low) == pytest.approx(narrower, rel=0.05)
    assert bootstrap(of, "accuracy", 200, 0.95, 0, [7] * 1000) == bootstrap(of, "accuracy", 200, 0.95, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60))
def test_small_strata_are_pooled(asked: list[int]) -> None:
    strata = np.array(asked)
    found = pooled_strata(strata)
    sizes = np.bincount(found)
    assert len(asked) < 10 or sizes[sizes > 0].min() >= 10
    for stratum in set(asked):
        (name,) = set(found[strata == stratum].tolist())  # none is torn apart
        assert name == 0 or set(strata[found == name].tolist()) == {stratum}
        assert asked.count(stratum) >= 10 or name == 0


def test_each_row_is_left_out_once_with_others_of_its_stratum() -> None:
    strata = np.repeat([0, 1], [2000, 1000])
    groups = left_out_groups(3000, strata)
    assert len(groups) == 1000 and sorted(np.concatenate(groups).tolist()) == list(range(3000))
    assert sum(len(set(strata[group].tolist())) > 1 for group in groups) <= 1  # where both meet
    assert [len(group) for group in left_out_groups(5, np.zeros(5, int))] == [1] * 5
