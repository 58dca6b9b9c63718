"""Could it be luck: tests against SciPy's, p even where nothing differs, and Holm's correction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesmith.evaluation.significance import (
    MCNEMAR,
    PERMUTATION,
    Significance,
    discordant,
    holm,
    mcnemar,
    permutation,
    significances,
)
from tunesmith.tasks import _metrics
from tunesmith.tasks.base import Scores

EXPERIMENTS = 1000


def of_classes(truth: np.ndarray, predicted: np.ndarray, classes: int = 4) -> Scores:
    metrics = {"accuracy": _metrics.accuracy, "macro_f1": _metrics.macro_f1(classes)}
    return Scores({"truth": truth, "predicted": predicted}, metrics, "accuracy", shares=frozenset({"accuracy"}))


def of_numbers(truth: np.ndarray, predicted: np.ndarray, primary: str = "pearson") -> Scores:
    metrics = {
        "mean": _metrics.mean_of("predicted"),
        "pearson": _metrics.correlation,
        "spearman": _metrics.rank_correlation,
    }
    columns = {"truth": truth[:, None], "predicted": predicted[:, None]}
    if primary == "mean":
        columns["predicted"] = predicted
    return Scores(columns, metrics, primary, other_scale=frozenset(metrics))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_scipys_exact_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected) == mcnemar(lost, gained)


def test_rows_that_only_one_gets_right() -> None:
    truth = np.zeros(5, int)
    first, second = of_classes(truth, np.array([0, 0, 0, 1, 1])), of_classes(truth, np.array([0, 1, 1, 0, 1]))
    assert discordant(first, second, "accuracy") == (2, 1)
    with pytest.raises(ValueError, match="same examples"):
        discordant(first, of_classes(truth + 1, truth), "accuracy")
    with pytest.raises(ValueError, match="same examples"):
        permutation(first, of_classes(truth[:4], truth[:4]), "macro_f1", 100, 0)


def test_permutation_is_scipys_and_counts_every_swap_of_few_rows() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=8), draw.normal(size=8) - 0.8
    truth = np.zeros(8)

    def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(a, axis=axis) - np.mean(b, axis=axis)

    oracle = stats.permutation_test(
        (first, second), difference, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue  # all 2^8 swaps
    found = permutation(of_numbers(truth, first, "mean"), of_numbers(truth, second, "mean"), "mean", 20_000, 0)
    assert found == pytest.approx(oracle, abs=0.012)


def test_permutation_of_hits_is_mcnemars_test() -> None:
    """Of a share every swap of a row that both get right, or wrong, changes nothing: what is left is the binomial."""
    for gained, lost in ((12, 3), (7, 5), (6, 0)):
        kind = np.repeat([0, 1, 2], [gained, lost, 40])
        truth = np.zeros(len(kind), int)
        pair = [of_classes(truth, (kind == wrong).astype(int)) for wrong in (1, 0)]
        assert permutation(*pair, "accuracy", 20_000, 1) == pytest.approx(mcnemar(gained, lost), abs=0.012)


def test_permutation_of_macro_f1_is_that_by_hand() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    first, second = np.array([0, 0, 1, 1, 2, 0]), np.array([1, 0, 1, 0, 0, 1])
    gap = []
    for kept in itertools.product([True, False], repeat=6):
        a, b = np.where(kept, first, second), np.where(kept, second, first)
        gap.append(abs(np.diff([_metrics.macro_f1(3)({"truth": truth, "predicted": said}) for said in (a, b)])[0]))
    expected = np.mean(np.array(gap) >= gap[0] - 1e-12)
    pair = of_classes(truth, first, 3), of_classes(truth, second, 3)
    assert permutation(*pair, "macro_f1", 20_000, 0) == pytest.approx(expected, abs=0.012)
    assert permutation(*pair, "macro_f1", 500, 0) == permutation(*pair[::-1], "macro_f1", 500, 0)


def test_a_plain_function_is_tested_as_well() -> None:
    draw = np.random.default_rng(3)
    truth = draw.integers(3, size=40)
    pair = [of_classes(truth, np.where(draw.random(40) < share, truth, 0), 3) for share in (0.9, 0.6)]

    def plain(columns: Mapping[str, np.ndarray]) -> float:
        return _metrics.macro_f1(3)(columns)

    opaque = [Scores(item.columns, {"macro_f1": plain}, "macro_f1") for item in pair]
    assert permutation(*opaque, "macro_f1", 300, 0) == permutation(*pair, "macro_f1", 300, 0)


def test_equal_models_and_undefined_metrics_are_luck() -> None:
    truth = np.array([0, 1, 2, 0])
    same = of_classes(truth, truth)
    assert permutation(same, same, "macro_f1", 100, 0) == 1.0 == mcnemar(0, 0)
    nothing = Scores({"truth": truth}, {"f": lambda columns: float("nan")}, "f")
    assert permutation(nothing, nothing, "f", 100, 0) == 1.0


def test_holm() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(ps: list[float]) -> None:
    """Step by step from the smallest: on while p < level / (how many are left) (Holm 1979)."""
    adjusted = holm({str(place): p for place, p in enumerate(ps)})
    rejected = set()
    for place, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        if (len(ps) - place) * ps[at] >= 0.05:
            break
        rejected.add(str(at))
    assert {name for name, p in adjusted.items() if p < 0.05} == rejected


def test_which_test_is_made() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(4, size=60)
    model, other = (of_classes(truth, np.where(draw.random(60) < share, truth, 0)) for share in (0.9, 0.5))
    hits = significances(model, {"x": other, "y": model}, 200, 0)
    expected = mcnemar(*discordant(model, other, "accuracy"))
    assert hits == {"x": Significance(expected, MCNEMAR, 2 * expected), "y": Significance(1.0, MCNEMAR, 1.0)}
    turned = [Scores(item.columns, item.metrics, "macro_f1", shares=item.shares) for item in (model, other)]
    found = significances(turned[0], {"x": turned[1]}, 200, 0)["x"]
    assert found.test == PERMUTATION and found.p == 1 / 201


def small(ps: list[float]) -> float:
    return float(np.mean(np.array(ps) < 0.05))


def test_mcnemar_is_seldom_sure_where_nothing_differs() -> None:
    """Exact, so at most 5 %, and less, as few rows differ."""
    draw = np.random.default_rng(0)
    share = small([mcnemar(*draw.multinomial(200, [0.1, 0.1, 0.8])[:2]) for _ in range(EXPERIMENTS)])
    assert 0.01 < share <= 0.05 + 0.02  # three standard errors of the experiments


@pytest.mark.parametrize("metric", ["macro_f1", "pearson", "spearman"])
def test_a_permutation_test_is_sure_as_often_as_it_says_where_nothing_differs(metric: str) -> None:
    """Two models as good as each other; the second's numbers lie on another scale, of which a correlation knows nothing."""
    ps = []
    for seed in range(EXPERIMENTS):
        draw = np.random.default_rng([5, seed])
        if metric == "macro_f1":
            truth = draw.choice(4, size=80, p=[0.4, 0.3, 0.2, 0.1])
            first, second = (np.where(draw.random(80) < 0.7, truth, draw.integers(4, size=80)) for _ in range(2))
            pair = of_classes(truth, first), of_classes(truth, second)
        else:
            truth = draw.normal(size=60)
            first, second = truth + draw.normal(size=60), 100 + 30 * (truth + draw.normal(size=60))
            pair = of_numbers(truth, first), of_numbers(truth, second)
        ps.append(permutation(*pair, metric, 199, seed))
    assert 0.03 <= small(ps) <= 0.07
    assert np.histogram(ps, 5, (0, 1))[0] / EXPERIMENTS == pytest.approx([0.2] * 5, abs=0.05)


def test_control_a_test_that_takes_rows_for_more_than_they_are_is_too_often_sure() -> None:
    """Each row twice: the same check must notice."""
    draw = np.random.default_rng(0)
    share = small([mcnemar(*2 * draw.multinomial(200, [0.1, 0.1, 0.8])[:2]) for _ in range(EXPERIMENTS)])
    assert share > 0.1
