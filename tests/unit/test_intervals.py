"""Intervals: coverage, pairing, and honesty where resampling sees nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesmith.data.answer_columns import Answer
from tunesmith.data.conversation import Conversation, Turn
from tunesmith.evaluation.intervals import Interval, bootstrap, compare, compare_all, paired_difference, standard_error
from tunesmith.tasks._metrics import accuracy, correlation, macro_f1, rank_correlation, root_mean_square_error
from tunesmith.tasks.base import Labels, Metric, Prediction, Scores
from tunesmith.tasks.instruction import Instruction
from tunesmith.tasks.question_answering import QuestionAnswering, Reply
from tunesmith.tasks.seq2seq import Seq2Seq


def scores(truth: object, predicted: object, classes: int = 2) -> Scores:
    columns = {"truth": np.asarray(truth), "predicted": np.asarray(predicted)}
    metrics = {"accuracy": accuracy, "macro_f1": macro_f1(classes)}
    return Scores(columns, metrics, "accuracy", shares=frozenset({"accuracy"}))


def right(hits: int, rows: int) -> Scores:
    """`hits` of `rows` right."""
    return scores(np.zeros(rows, int), np.arange(rows) >= hits)


def test_accuracy_interval_is_near_the_normal_one() -> None:
    found = bootstrap(right(900, 1000), "accuracy", 2000, 0.95, seed=0)
    half = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert found.value == 0.9
    assert found.low == pytest.approx(0.9 - half, abs=0.003)
    assert found.high == pytest.approx(0.9 + half, abs=0.003)


def test_no_mistake_gives_the_exact_binomial_bound_and_never_a_point() -> None:
    found = bootstrap(right(40, 40), "accuracy", 200, 0.95, seed=0)
    exact = stats.binomtest(40, 40).proportion_ci(0.95, method="exact")
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(exact.low)
    none_right = bootstrap(right(0, 40), "accuracy", 200, 0.95, seed=0)
    assert (none_right.low, none_right.high) == pytest.approx((0.0, 1 - exact.low))


def test_of_a_share_the_interval_is_never_narrower_than_the_exact_one_nor_surer_of_more_mistakes() -> None:
    lows = []
    for mistakes in range(6):
        found = bootstrap(right(100 - mistakes, 100), "accuracy", 500, 0.95, seed=0)
        exact = stats.binomtest(100 - mistakes, 100).proportion_ci(0.95, method="exact")
        assert found.low <= exact.low + 1e-9 and found.high >= exact.high - 1e-9
        lows.append(found.low)
    assert lows == sorted(lows, reverse=True)


def test_equal_predictions_differ_by_zero_with_room_for_what_was_not_seen() -> None:
    found = paired_difference(right(30, 40), right(30, 40), "accuracy", 200, 0.95, seed=0)
    unseen = 1 - 0.025 ** (1 / 40)
    assert (found.low, found.value, found.high) == pytest.approx((-unseen, 0.0, unseen))


def test_paired_difference_is_narrower_than_unpaired_and_near_the_normal_one() -> None:
    a, b = right(920, 1000), right(900, 1000)  # b is wrong wherever a is, and on 20 more
    paired = paired_difference(a, b, "accuracy", 2000, 0.95, seed=0)
    half = 1.96 * np.sqrt((0.02 - 0.02**2) / 1000)
    assert paired.value == pytest.approx(0.02)
    assert (paired.low, paired.high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.002)
    alone = bootstrap(a, "accuracy", 2000, 0.95, seed=0)
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)


def test_difference_needs_the_same_examples() -> None:
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(right(3, 4), right(3, 5), "accuracy", 100, 0.95, 0)
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(scores([0, 1], [0, 1]), scores([1, 0], [0, 1]), "accuracy", 100, 0.95, 0)
    with pytest.raises(ValueError, match="no examples"):
        bootstrap(right(0, 0), "accuracy", 100, 0.95, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30), st.integers(0, 9))
def test_every_interval_holds_its_value_and_stays_in_range(pairs: list[tuple[int, int]], seed: int) -> None:
    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    measured = scores(truth, predicted, classes=6)
    for metric in measured.metrics:
        found = bootstrap(measured, metric, 100, 0.95, seed)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found == bootstrap(measured, metric, 100, 0.95, seed)


def test_standard_error() -> None:
    assert standard_error(right(90, 100)) == pytest.approx(0.03)
    draw = np.random.default_rng(2)
    truth = draw.integers(2, size=400)
    balanced = scores(truth, np.where(draw.random(400) < 0.8, truth, 1 - truth))
    # With two balanced classes macro-F1 is close to accuracy, and so is its error.
    assert standard_error(balanced, "macro_f1") == pytest.approx(standard_error(balanced), rel=0.2)


def test_compare_holds_every_metric_of_every_model() -> None:
    model, other = right(95, 100), right(80, 100)
    found = compare(model, {"majority": other}, 200, 0.95, 3)
    assert found.metrics["accuracy"] == bootstrap(model, "accuracy", 200, 0.95, 3)
    assert found.baselines["majority"]["macro_f1"] == bootstrap(other, "macro_f1", 200, 0.95, 3)
    assert found.gains["majority"] == paired_difference(model, other, "accuracy", 200, 0.95, 3)
    assert found.tests["majority"].p == pytest.approx(stats.binomtest(15, 15).pvalue)
    assert found.of_baselines("accuracy") == {"majority": found.baselines["majority"]["accuracy"]}


def test_intervals_of_all_pairs_hold_at_once() -> None:
    """Five models that are equally good: by the intervals alone some pair differs in far more than 5 % of such tables."""
    draw = np.random.default_rng(0)
    wrong = {"alone": 0, "together": 0}
    for _ in range(60):
        easy = draw.random(200) * 0.4  # rows are as hard for all
        models = {name: scores(np.zeros(200, int), draw.random(200) > 0.6 + easy) for name in "abcde"}
        found = compare_all(models, ["accuracy"], 200, 0.95, seed=0)
        assert found.level == pytest.approx(0.995) and len(found.differences) == 10
        items = [of["accuracy"] for of in found.differences.values()]
        wrong["alone"] += any(not item.alone.low <= 0 <= item.alone.high for item in items)
        wrong["together"] += any(not item.together.low <= 0 <= item.together.high for item in items)
    assert wrong["alone"] >= 6 and wrong["together"] <= 6, wrong


def test_pairs_of_models_are_the_later_less_the_earlier() -> None:
    found = compare_all({"a": right(30, 40), "b": right(34, 40)}, ["accuracy", "macro_f1"], 1000, 0.95, seed=0)
    assert list(found.differences) == [("b", "a")] and found.level == pytest.approx(0.95)
    of_both = found.differences["b", "a"]["accuracy"]
    assert (
        of_both.alone == of_both.together == paired_difference(right(34, 40), right(30, 40), "accuracy", 1000, 0.95, 0)
    )
    assert found.metrics["a"]["accuracy"] == bootstrap(right(30, 40), "accuracy", 1000, 0.95, 0)
    with pytest.raises(ValueError, match="same examples"):
        compare_all({"a": right(30, 40), "b": scores([1], [1])}, ["accuracy"], 100, 0.95, seed=0)


def test_nearly_equal_resamples_are_no_point_either() -> None:
    """Two rows of thirty hold all that is counted: one resample in seven holds neither, and none says anything else."""
    hits = np.zeros(30)
    hits[:2] = 1

    def of_those_found(columns: Mapping[str, np.ndarray]) -> float:
        return float((columns["truth"] * columns["right"]).sum() / max(columns["truth"].sum(), 1) or 1.0)

    measured = Scores({"truth": hits, "right": np.ones(30)}, {"f": of_those_found}, "f")
    found = bootstrap(measured, "f", 500, 0.95, seed=0)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 30))


def written_for(some: int, rows: int, hits: int, task: Instruction | Seq2Seq) -> Scores:
    """Texts written for the first `some` of `rows`, of which `hits` are those wanted."""
    said = [None if row >= some else "yes" if row < hits else "no" for row in range(rows)]
    found = [Prediction(row, text, (1.0,), counts=(2, 1, 0)) for row, text in enumerate(said)]
    chat = Conversation((Turn("user", "ask"), Turn("assistant", "yes")))
    return task.score(found, [chat if isinstance(task, Instruction) else "yes"] * rows, Labels((), ()))


@pytest.mark.parametrize("task", [Instruction(), Seq2Seq()], ids=["instruction", "seq2seq"])
def test_a_metric_over_a_part_of_the_rows_is_as_unsure_as_that_part(task: Instruction | Seq2Seq) -> None:
    """As if the rows without a text were not there: 65 misses say no more beside 435 rows that say nothing."""
    for hits in (0, 20):
        some, alone = written_for(65, 500, hits, task), written_for(65, 65, hits, task)
        for metric in some.written:
            assert bootstrap(some, metric, 200, 0.95, 0) == bootstrap(alone, metric, 200, 0.95, 0), metric
            assert standard_error(some, metric) == standard_error(alone, metric), metric
        other = written_for(65, 500, hits + 30, task), written_for(65, 65, hits + 30, task)
        gains = [
            paired_difference(*pair, "exact_match", 200, 0.95, 0) for pair in zip(other, (some, alone), strict=True)
        ]
        assert gains[0] == gains[1] and gains[0].low > 0
    none_right = bootstrap(written_for(65, 5000, 0, task), "exact_match", 200, 0.95, 0)
    assert (none_right.value, none_right.low) == (0.0, 0.0)
    assert none_right.high == pytest.approx(stats.binomtest(0, 65).proportion_ci(0.95, "exact").high)
    few = bootstrap(written_for(8, 400, 1, task), "exact_match", 400, 0.95, 0)
    assert few.high == pytest.approx(stats.binomtest(1, 8).proportion_ci(0.95, "exact").high)  # a draw gives less
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(written_for(5, 9, 1, task), written_for(6, 9, 1, task), "rouge_l", 100, 0.95, 0)


def test_questions_without_an_answer_are_counted_alone() -> None:
    truth = [(Answer(0, 4, "word"),)] * 995 + [()] * 5
    silent = Reply("", 0, 1, 0.1, "b")
    found = [Prediction(row, silent, (0.5,)) for row in range(1000)]
    scores = QuestionAnswering().score(found, truth, Labels((), ()))
    right = bootstrap(scores, "no_answer_accuracy", 200, 0.95, 0)
    assert (right.value, right.high) == (1.0, 1.0)
    assert right.low == pytest.approx(stats.binomtest(5, 5).proportion_ci(0.95, "exact").low)
    assert bootstrap(scores, "has_answer_exact", 200, 0.95, 0).high < 0.005  # 995 misses
    assert scores.value("exact_match") == 0.005 and scores.value("no_answer_accuracy") == 1.0


def test_what_is_no_share_of_the_rows_has_no_bound_of_a_share() -> None:
    """BLEU from 0 to 100, or the correlation of a constant: 0 on every resample says nothing of rows that were not seen."""
    columns = {"truth": np.arange(10.0)}
    metrics: dict[str, Metric] = {"hit": lambda of: 0.0, "bleu": lambda of: 0.0}
    scores = Scores(columns, metrics, "hit", other_scale=frozenset({"bleu"}))
    assert bootstrap(scores, "hit", 100, 0.95, 0).high == pytest.approx(0.308, abs=1e-3)
    assert bootstrap(scores, "bleu", 100, 0.95, 0) == Interval(0.0, 0.0, 0.0)
    alone = Scores(columns, metrics, "bleu", other_scale=frozenset({"bleu"}))
    assert paired_difference(alone, alone, "bleu", 100, 0.95, 0) == Interval(0.0, 0.0, 0.0)


def test_a_correlation_at_its_bound_is_no_point_but_a_root_of_no_error_says_nothing() -> None:
    ranks = np.arange(20.0)[:, None]
    metrics: dict[str, Metric] = {
        "spearman": rank_correlation,
        "pearson": correlation,
        "rmse": root_mean_square_error(np.ones(1)),
    }
    same = Scores(
        {"truth": ranks, "predicted": ranks},
        metrics,
        "spearman",
        lower=frozenset({"rmse"}),
        other_scale=frozenset({"spearman", "pearson"}),
    )
    unseen = 1 - 0.025 ** (1 / 20)
    for metric in ("spearman", "pearson"):
        found = bootstrap(same, metric, 200, 0.95, 0)
        assert (found.low, found.high) == pytest.approx((1 - 2 * unseen, 1.0))
    found = bootstrap(same, "rmse", 200, 0.95, 0)
    assert found.low == found.high == 0, "no bound tells how large an error may be: the verdict warns of it"
