"""LogME, H-score and LEEP against their definitions, and what must not change them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from scipy.stats import t as student
from sklearn.covariance import LedoitWolf

from tunesmith.selection.transferability import h_score, jackknife, leep, log_evidence, one_hot

Drawn = tuple[np.ndarray, np.ndarray]


def drawn(rows: int, width: int, classes: int, seed: int, signal: float = 1.0) -> Drawn:
    """Features with class means apart by `signal`, and the class of each row; every class is there."""
    draw = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), draw.integers(classes, size=rows - classes)])
    means = signal * draw.normal(size=(classes, width))
    return means[truth] + draw.normal(size=(rows, width)), truth


def evidence(alpha: float, beta: float, x: np.ndarray, y: np.ndarray) -> float:
    """log p(y | alpha, beta): y is normal with covariance I / beta + x x^T / alpha."""
    covariance = np.eye(len(x)) / beta + x @ x.T / alpha
    return float(multivariate_normal(np.zeros(len(x)), covariance).logpdf(y))


def brute_force(x: np.ndarray, y: np.ndarray) -> float:
    """The greatest log evidence over both precisions, from many starts."""

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -25, 25))
        return -evidence(float(alpha), float(beta), x, y)

    best = -np.inf
    for alpha in (-4.0, 0.0, 4.0):
        for beta in (0.0, 4.0):
            found: Any = minimize(
                loss, np.array([alpha, beta]), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}
            )
            best = max(best, -found.fun)
    return best


@pytest.mark.parametrize(
    ("rows", "width", "signal"), [(30, 4, 1.0), (30, 4, 0.1), (24, 8, 3.0), (12, 20, 1.0), (40, 3, 0.0)]
)
def test_log_evidence_is_the_greatest_over_both_precisions(rows: int, width: int, signal: float) -> None:
    x, truth = drawn(rows, width, 3, 7, signal)
    y = one_hot(truth, 3)
    expected = np.mean([brute_force(x, y[:, place]) / rows for place in range(3)])
    assert log_evidence(x, y) == pytest.approx(expected, abs=2e-4)


def test_log_evidence_of_numbers_is_the_same_formula() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(40, 5))
    y = x @ draw.normal(size=5) + 0.3 * draw.normal(size=40)
    assert log_evidence(x, y[:, None]) == pytest.approx(brute_force(x, y) / 40, abs=1e-5)


def test_the_best_evidence_stands_still_under_the_papers_fixed_point() -> None:
    """At the greatest evidence alpha = gamma / |m|^2 and beta = (rows - gamma) / |residuals|^2 (You 2021, section 4)."""
    x, truth = drawn(50, 6, 2, 1)
    y = one_hot(truth, 2)[:, 0]
    alpha, beta = 1.0, 1.0
    variances = np.linalg.eigvalsh(x.T @ x)
    for _ in range(200):
        m = beta * np.linalg.solve(alpha * np.eye(6) + beta * x.T @ x, x.T @ y)
        effective = float((beta * variances / (alpha + beta * variances)).sum())
        alpha, beta = effective / float(m @ m), (50 - effective) / float(((x @ m - y) ** 2).sum())
    assert log_evidence(x, y[:, None]) == pytest.approx(evidence(alpha, beta, x, y) / 50, abs=1e-8)


def test_an_output_that_no_row_has_does_not_count() -> None:
    x, truth = drawn(30, 4, 3, 5)
    assert log_evidence(x, one_hot(truth, 5)) == log_evidence(x, one_hot(truth, 3))


def plain_h_score(x: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """tr(cov(f)^-1 cov(E[f | y])) with the covariance shrunk as scikit-learn does, and the share."""
    fitted = LedoitWolf().fit(x)
    means = np.stack([x[truth == truth[row]].mean(axis=0) for row in range(len(x))])
    between = np.cov(means, rowvar=False, bias=True)
    share = float(fitted.shrinkage_)
    return (1 - share) * float(np.trace(np.linalg.inv(fitted.covariance_) @ between)), share


@pytest.mark.parametrize(("rows", "width", "classes"), [(60, 5, 3), (20, 30, 4), (200, 8, 2)])
def test_h_score_is_its_definition_with_a_shrunk_covariance(rows: int, width: int, classes: int) -> None:
    x, truth = drawn(rows, width, classes, 11)
    found = h_score(x, one_hot(truth, classes))
    assert found == pytest.approx(plain_h_score(x, truth), rel=1e-9)
    assert 0 < found.value < classes - 1


def test_h_score_of_numbers_is_their_squared_multiple_correlation_where_rows_are_many() -> None:
    draw = np.random.default_rng(2)
    x = draw.normal(size=(5_000, 4)) * np.array([0.5, 1.0, 2.0, 4.0])  # nothing to shrink towards
    y = x @ np.array([1.0, 0.5, 0.0, -1.0]) + draw.normal(size=5_000)
    off = y - x @ np.linalg.lstsq(x - x.mean(0), y - y.mean(), rcond=None)[0]
    share = 1 - float(off.var() / y.var())
    assert h_score(x, y[:, None]).value == pytest.approx(share, abs=0.01)


def test_features_that_are_all_alike_tell_nothing() -> None:
    assert h_score(np.ones((12, 3)), one_hot(np.arange(12) % 3, 3)) == (0.0, 0.0)
    truth = np.arange(12) % 2
    y = one_hot(truth, 2)
    nothing = log_evidence(np.zeros((12, 3)), y)  # y is noise of precision 12 / |y|^2 alone
    assert nothing == pytest.approx(0.5 * (np.log(2) - np.log(2 * np.pi) - 1))


seeds = st.integers(0, 2**31)


@given(seeds, st.integers(1, 12), st.sampled_from([1e-3, 0.1, 7.0, 1e3]))
@settings(max_examples=40, deadline=None)
def test_turning_and_scaling_features_changes_neither(seed: int, width: int, scale: float) -> None:
    x, truth = drawn(25, width, 3, seed)
    y = one_hot(truth, 3)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    assert log_evidence(scale * x @ turn, y) == pytest.approx(log_evidence(x, y), abs=1e-7)
    assert h_score(scale * x @ turn, y).value == pytest.approx(h_score(x, y).value, abs=1e-7)


@given(seeds, st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_moving_features_leaves_the_h_score(seed: int, by: float) -> None:
    x, truth = drawn(25, 4, 3, seed)
    y = one_hot(truth, 3)
    assert h_score(x + by, y).value == pytest.approx(h_score(x, y).value, abs=1e-6)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_features_that_tell_the_classes_score_higher_than_noise(seed: int) -> None:
    x, truth = drawn(80, 6, 3, seed, signal=5.0)
    noise = np.random.default_rng(seed + 1).normal(size=x.shape)
    y = one_hot(truth, 3)
    assert log_evidence(x, y) > log_evidence(noise, y)
    assert h_score(x, y).value > h_score(noise, y).value


def plain_leep(source: np.ndarray, truth: np.ndarray) -> float:
    rows, classes, own = len(source), source.shape[1], int(truth.max()) + 1
    joint = [
        [sum(source[i][z] for i in range(rows) if truth[i] == y) / rows for z in range(classes)] for y in range(own)
    ]
    total = 0.0
    for i in range(rows):
        share = 0.0
        for z in range(classes):
            of_source = sum(joint[y][z] for y in range(own))
            share += joint[truth[i]][z] / of_source * source[i][z] if of_source > 0 else 0.0
        total += np.log(share)
    return total / rows


@given(seeds, st.integers(2, 6), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_leep_is_its_loop(seed: int, classes: int, own: int) -> None:
    draw = np.random.default_rng(seed)
    source = draw.dirichlet(np.ones(classes), size=30)
    truth = np.concatenate([np.arange(own), draw.integers(own, size=30 - own)])
    each = leep(source, truth)
    assert each.mean() == pytest.approx(plain_leep(source, truth), rel=1e-9)
    assert (each <= 0).all()


def test_leep_of_a_classifier_that_knows_the_classes_is_0_and_of_one_that_says_nothing_their_entropy() -> None:
    truth = np.arange(40) % 4
    assert leep(np.eye(4)[truth][:, ::-1], truth).mean() == pytest.approx(0.0, abs=1e-12)
    assert leep(np.full((40, 6), 1 / 6), truth).mean() == pytest.approx(-np.log(4))


def test_the_jackknife_of_a_mean_is_its_standard_error_by_groups() -> None:
    values = np.random.default_rng(4).normal(size=20)
    less = np.array([np.delete(values.reshape(5, 4), group, axis=0).mean() for group in range(5)])
    low, high = jackknife(less, values.mean(), 0.95)
    error = values.reshape(5, 4).mean(axis=1).std(ddof=1) / np.sqrt(5)
    assert high - values.mean() == pytest.approx(student.ppf(0.975, 4) * error)
    assert values.mean() - low == pytest.approx(high - values.mean())


@pytest.mark.parametrize(("x", "y"), [((0, 3), (0, 2)), ((4, 3), (5, 2)), ((4,), (4, 2))])
def test_rows_that_do_not_fit_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    for score in (log_evidence, h_score):
        with pytest.raises(ValueError, match="rows"):
            score(np.zeros(x), np.zeros(y))
    with pytest.raises(ValueError, match="rows"):
        leep(np.zeros((2, 2)), np.zeros(3, dtype=int))
