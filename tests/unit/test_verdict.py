"""The verdict: yes, no and cannot tell, and the words that follow from each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesmith.evaluation.intervals import Interval, compare, paired_difference
from tunesmith.evaluation.significance import Significance, discordant
from tunesmith.evaluation.verdict import Choice, Cost, judge, rows_needed
from tunesmith.tasks._metrics import accuracy
from tunesmith.tasks.base import Scores

COST = Cost(171.0, 312.4, 1230.0, 22_700_000, 22_700_000, 9002)
RESULT = Interval(0.942, 0.933, 0.950)
BASELINES = {
    "majority": Interval(0.013, 0.009, 0.017),
    "tfidf": Interval(0.894, 0.883, 0.905),
    "probe": Interval(0.930, 0.921, 0.939),
}


def by_test(p: float = 0.001, test: str = "mcnemar") -> dict[str, Significance]:
    """Against every rival the same."""
    return {name: Significance(p, test, min(1.0, 3 * p)) for name in (*BASELINES, "base", "frequent_tag")}


def gains(best: Interval) -> dict[str, Interval]:
    return {"majority": Interval(0.929, 0.92, 0.94), "tfidf": Interval(0.048, 0.039, 0.057), "probe": best}


def test_it_helped() -> None:
    found = judge("accuracy", RESULT, BASELINES, gains(Interval(0.012, 0.005, 0.018)), by_test(), COST, 3080, "full")
    assert found.helped is True
    assert found.paragraph == (
        "Fine-tuning helped: accuracy 0.942 [0.933, 0.950] on 3,080 test rows, against 0.930 for the frozen features "
        "with a new head (+0.012 [+0.005, +0.018], p = 0.001). It cost 5.2 CPU minutes (2.9 minutes by the clock, 1.2 GB of "
        "memory) and trained all 22.7 M parameters on 9,002 rows. Brackets are 95 % intervals over test rows; p is by "
        "McNemar's exact test."
    )


def test_what_changing_the_base_brought_is_told_beside_a_better_rival() -> None:
    rivals = {**BASELINES, "tfidf": Interval(0.940, 0.931, 0.949)}
    gained = {**gains(Interval(0.012, 0.005, 0.018)), "tfidf": Interval(0.002, -0.005, 0.009)}
    found = judge("accuracy", RESULT, rivals, gained, by_test(), COST, 3080, "full")
    assert found.helped is None
    assert "Against the frozen features with a new head it is +0.012 [+0.005, +0.018], p = 0.001." in found.paragraph
    assert "frozen" not in judge("accuracy", RESULT, rivals, gained, by_test(), COST, 3080, "head").paragraph


def test_it_did_not_pay() -> None:
    worse = gains(Interval(-0.02, -0.03, -0.01))
    found = judge("accuracy", Interval(0.91, 0.9, 0.92), BASELINES, worse, by_test(), COST, 3080, "full")
    assert found.helped is False
    assert found.paragraph.startswith("Fine-tuning did not pay: accuracy 0.910")
    assert "(-0.020 [-0.030, -0.010], p = 0.001). It cost" in found.paragraph
    assert found.choice == Choice("probe", worse["probe"], 0.001)


def test_it_cannot_be_told_and_how_many_rows_it_takes() -> None:
    gain = Interval(0.010, -0.010, 0.030)
    found = judge("accuracy", RESULT, BASELINES, gains(gain), by_test(0.4), COST, 600, "full")
    assert found.helped is None
    assert found.paragraph.startswith("It cannot be told whether fine-tuning helped: accuracy 0.942")
    # (1.96 + 0.84)^2 * 600 * (0.02 / 1.96 / 0.01)^2 = 4,900
    assert rows_needed(gain, 600) == pytest.approx(4903, abs=2)
    assert "it takes about 5,000 test rows (4,400 more)" in found.paragraph


def test_rows_needed_gives_eighty_percent_power() -> None:
    """A difference of 2 points on the stated number of rows is found about four times in five."""
    draw = np.random.default_rng(0)
    shares = [0.06, 0.04, 0.90]  # only the model right, only the baseline right, no difference
    error = math.sqrt(0.10 - 0.02**2)
    rows = round(rows_needed(Interval(0.02, 0.02 - 1.96 * error / 10, 0.02 + 1.96 * error / 10), 100))
    found = 0
    for seed in range(60):
        kind = draw.choice(3, size=rows, p=shares)
        truth = np.zeros(rows, int)
        model, other = (
            Scores({"truth": truth, "predicted": (kind == wrong).astype(int)}, {"accuracy": accuracy}, "accuracy")
            for wrong in (1, 0)
        )
        found += paired_difference(model, other, "accuracy", 200, 0.95, seed).low > 0
    assert 40 <= found <= 57  # 48 of 60 expected


def test_a_difference_of_nothing_promises_no_number_of_rows() -> None:
    found = judge("accuracy", RESULT, BASELINES, gains(Interval(0.0, -0.001, 0.001)), by_test(), COST, 3080, "full")
    assert found.helped is None
    assert "no sign of a gain" in found.paragraph
    tiny = judge("accuracy", RESULT, BASELINES, gains(Interval(1e-6, -0.001, 0.001)), by_test(), COST, 3080, "full")
    assert "cannot be settled by more test rows" in tiny.paragraph
    assert rows_needed(Interval(0.0, 0.0, 0.0), 10) == math.inf


def test_a_few_rows_are_not_enough_even_when_the_interval_leaves_out_zero() -> None:
    """Both must agree, and what holds back is said."""
    for sign in (1, -1):
        gain = Interval(sign * 0.1, min(sign * 0.02, sign * 0.2), max(sign * 0.02, sign * 0.2))
        found = judge("accuracy", RESULT, BASELINES, gains(gain), by_test(0.0625), COST, 50, "full")
        assert found.helped is None
        assert "leaves out 0, but by McNemar's exact test it can still be luck" in found.paragraph
        assert f"({sign * 0.1:+.3f} [" in found.paragraph and "p = 0.06)" in found.paragraph
    six = judge("accuracy", RESULT, BASELINES, gains(Interval(0.12, 0.02, 0.22)), by_test(0.031), COST, 50, "full")
    assert six.helped is True


def test_a_test_that_is_sure_where_the_interval_is_not_settles_nothing() -> None:
    gain, by = Interval(0.1, -0.01, 0.2), by_test(0.04, "permutation")
    found = judge("macro_f1", RESULT, BASELINES, gains(gain), by, COST, 50, "full", counted=False)
    assert found.helped is None
    assert "holds 0, although a paired permutation test would call it no luck" in found.paragraph
    unsure = judge("macro_f1", RESULT, BASELINES, gains(gain), by_test(0.4), COST, 50, "full").paragraph
    assert "The interval of the difference holds 0." in unsure


def test_how_small_p_must_be_follows_the_confidence() -> None:
    gain, by = Interval(0.12, 0.02, 0.22), by_test(0.031)
    assert judge("accuracy", RESULT, BASELINES, gains(gain), by, COST, 50, "full", confidence=0.99).helped is None
    assert judge("accuracy", RESULT, BASELINES, gains(gain), by, COST, 50, "full", confidence=0.90).helped is True


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 60))
def test_of_hits_the_interval_never_leaves_out_0_where_mcnemars_test_does_not(
    gained: int, lost: int, same: int
) -> None:
    """So that no reader sees an interval and a p that contradict each other."""
    if gained + lost + same == 0:
        return
    kind = np.repeat([0, 1, 2], [gained, lost, same])
    truth = np.zeros(len(kind), int)
    model, other = (
        Scores(
            {"truth": truth, "predicted": (kind == wrong).astype(int)}, {"accuracy": accuracy}, "accuracy",
            shares=frozenset({"accuracy"}),
        )
        for wrong in (1, 0)
    )  # fmt: skip
    assert discordant(model, other, "accuracy") == (gained, lost)
    found = compare(model, {"probe": other}, 200, 0.95, 0)
    gain, p = found.gains["probe"], found.tests["probe"].p
    assert p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)
    if p >= 0.05:
        assert gain.low <= 0 <= gain.high
    said = judge("accuracy", RESULT, {"probe": RESULT}, found.gains, found.tests, COST, len(kind), "full")
    assert (said.helped is not None) == (not gain.low <= 0 <= gain.high)


def test_the_head_method_is_compared_with_what_is_cheaper_than_itself() -> None:
    found = judge("accuracy", RESULT, BASELINES, gains(Interval(0.0, -0.001, 0.001)), by_test(), COST, 3080, "head")
    assert found.helped is True
    assert found.paragraph.startswith(
        "The pretrained features helped: accuracy 0.942 [0.933, 0.950] on 3,080 test rows, against 0.894 for TF-IDF "
        "with logistic regression (+0.048 [+0.039, +0.057], p = 0.001)."
    )


def test_without_baselines_there_is_nothing_to_compare_with() -> None:
    found = judge("macro_f1", RESULT, {}, {}, {}, COST, 3080, "full")
    assert found.helped is None
    assert "nothing to compare with: macro-F1 0.942 [0.933, 0.950] on 3,080 test rows" in found.paragraph
    assert found.choice is None


def test_the_floor_is_cleared_by_the_paired_gain() -> None:
    """Twenty rows more right of the same hundred: the intervals of the two overlap, that of the difference leaves out 0."""
    floor, result = Interval(0.50, 0.40, 0.60), Interval(0.55, 0.45, 0.65)
    for gain, said in ((Interval(0.05, 0.01, 0.09), False), (Interval(0.05, -0.01, 0.11), True)):
        found = judge(
            "f1", result, {"frequent_tag": floor}, {"frequent_tag": gain}, by_test(), COST, 300, "full", counted=False
        )
        assert ("has not been shown to do better" in found.paragraph) == said


def test_a_model_no_better_than_the_most_frequent_class_is_not_to_be_used() -> None:
    floor = Interval(0.6, 0.55, 0.65)
    rivals, near, far = {"majority": floor}, Interval(0.02, -0.02, 0.06), Interval(0.12, 0.07, 0.17)
    found = judge("accuracy", Interval(0.62, 0.57, 0.67), rivals, {"majority": near}, by_test(), COST, 300, "full")
    assert "has not been shown to do better than always the most frequent class (0.600)" in found.paragraph
    better = judge("accuracy", Interval(0.72, 0.67, 0.77), rivals, {"majority": far}, by_test(), COST, 300, "full")
    assert "has not been shown" not in better.paragraph
    same = Interval(0.0, -0.01, 0.01)
    only = judge("accuracy", floor, rivals, {"majority": same}, by_test(), COST, 300, "full")
    assert only.choice is not None and only.choice.name == "majority"


def test_tiny_and_perfect_tests_are_warned_about() -> None:
    found = judge(
        "accuracy", Interval(1.0, 0.91, 1.0), BASELINES, gains(Interval(0.3, 0.1, 0.5)), by_test(), COST, 40, "full"
    )
    assert "with 40 test rows, one row is worth 0.025" in found.paragraph
    assert "not one mistake" in found.paragraph
    large = judge("accuracy", RESULT, BASELINES, gains(Interval(0.012, 0.005, 0.018)), by_test(), COST, 3080, "full")
    assert "Warning" not in large.paragraph


def test_a_small_difference_is_never_printed_as_zero() -> None:
    found = judge(
        "accuracy", RESULT, BASELINES, gains(Interval(0.0004, 0.0002, 0.0006)), by_test(), COST, 100_000, "full"
    )
    assert "(+0.0004 [+0.0002, +0.0006], p = 0.001)" in found.paragraph


@pytest.mark.parametrize("why", ["no step was done", "no later state was better on the validation rows"])
def test_what_training_left_unchanged_did_not_pay(why: str) -> None:
    found = judge(
        "accuracy",
        RESULT,
        BASELINES,
        gains(Interval(0.012, 0.005, 0.018)),
        by_test(),
        COST,
        3080,
        "full",
        unchanged=why,
    )
    assert found.helped is False
    assert found.paragraph.startswith(
        f"Fine-tuning did not pay: {why}, so what is delivered is the base as it was pretrained. This model: accuracy 0.942"
    )
    assert found.choice is not None and found.choice.name == "probe", "the base alone, whatever rival is best"
    head = judge(
        "accuracy", RESULT, BASELINES, gains(Interval(0.0, 0.0, 0.0)), by_test(), COST, 3080, "head", unchanged=why
    )
    assert why not in head.paragraph, "a head that is fitted and never stepped is what was asked for"


def test_what_is_worse_where_less_is_better_is_higher_and_not_a_negative_gain() -> None:
    rivals, gained = {"base": Interval(2.0, 1.9, 2.1)}, {"base": Interval(-1.052, -1.2, -0.9)}
    found = judge(
        "loss", Interval(3.052, 2.9, 3.2), rivals, gained, by_test(), COST, 500, "full", counted=False, lower=True
    )
    assert found.helped is False and "(1.052 [0.900, 1.200] higher, p = 0.001)" in found.paragraph


def test_few_rows_tell_nothing_whatever_the_metric() -> None:
    rivals = {"base": Interval(7098.0, 7098.0, 7098.0)}
    gained = {"base": Interval(1945.0, 1945.0, 1945.0)}
    one, six = (
        judge(
            "perplexity",
            Interval(5153.0, 5153.0, 5153.0),
            rivals,
            gained,
            by_test(p, "permutation"),
            COST,
            rows,
            "full",
            counted=False,
            lower=True,
        )
        for rows, p in ((1, 1.0), (6, 0.031))
    )
    assert one.helped is None and six.helped is True
    assert "Fewer than 6 test rows can all go one way by luck." in one.paragraph
    assert "it takes about 6 test rows (5 more) to show it" in one.paragraph


@pytest.mark.parametrize("first", [True, False])
def test_a_rival_without_a_value_is_none(first: bool) -> None:
    """Before or after the others it is not the best, nor a floor."""
    undefined = Interval(math.nan, math.nan, math.nan)
    known = {"tfidf": Interval(0.5, 0.4, 0.6)}
    rivals = {"median": undefined, **known} if first else {**known, "median": undefined}
    gained = {"tfidf": Interval(0.3, 0.2, 0.4), "median": undefined}
    tests = {"tfidf": Significance(0.001, "permutation", 0.002), "median": Significance(1.0, "permutation", 1.0)}
    found = judge("spearman", Interval(0.8, 0.7, 0.9), rivals, gained, tests, COST, 300, "full", counted=False)
    assert found.helped is True
    assert "against 0.500 for" in found.lead and "nan" not in found.paragraph and not found.warnings
    only = judge(
        "spearman", Interval(0.8, 0.7, 0.9), {"median": undefined}, gained, tests, COST, 300, "full", counted=False
    )
    assert only.helped is None and "undefined of always the median" in only.lead and "nan" not in only.paragraph


def test_a_model_without_a_value_is_not_judged() -> None:
    undefined = Interval(math.nan, math.nan, math.nan)
    tests = {"tfidf": Significance(1.0, "permutation", 1.0)}
    rivals = {"tfidf": Interval(0.5, 0.4, 0.6)}
    found = judge("spearman", undefined, rivals, {"tfidf": undefined}, tests, COST, 300, "full", counted=False)
    assert found.helped is None and "Spearman correlation is undefined" in found.lead
    assert "nan" not in found.paragraph
