"""How well frozen features suit targets, by a formula and without training: LogME, H-score, LEEP."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

TRIED = 25  # ratios of both precisions from which the best is taken to start with: the evidence may have several peaks
WIDEST = 8.0  # powers of ten around the mean variance of the features that they span to either side
ITERATIONS = 200  # of the fixed point, at most; about 10 are usual
SETTLED = 1e-10  # gain of evidence a row below which it has settled
NO_SPREAD = 1e-10  # share of the largest variance below which a direction counts as having none


def log_evidence(features: np.ndarray, targets: np.ndarray) -> float:
    """LogME: the logarithm of the greatest evidence of a linear model, a row and an output; more is better.

    features: [rows, width]; targets: [rows, outputs], of classes a 1 for each row's own and else 0. Each output is
    w . features + noise with a Gaussian prior on w, and the precisions of prior and noise are those with the greatest
    evidence, by the fixed-point iteration alpha = gamma / |m|^2, beta = (rows - gamma) / |residuals|^2 (You 2021, "LogME:
    practical assessment of pre-trained models for transfer learning", section 4; You 2022, "Ranking and tuning pre-trained
    models", algorithm 3). Only their ratio decides: for a given one the best beta is known. There is no intercept, as in
    the paper, and an output that no row has does not count. The same for features that are turned or scaled; it may lie on
    either side of 0.

    Raises ValueError where there are no rows, or other numbers of both.
    """
    import numpy as np

    x, y = _checked(features, targets)
    y = y[:, (y != 0).any(axis=0)]
    if not y.shape[1]:
        return 0.0
    variances, inside, total = _turned(x, y)
    mean = max(float(variances.mean()), np.finfo(np.float64).tiny) if len(variances) else 1.0
    tried = mean * np.logspace(-WIDEST, WIDEST, TRIED)  # alpha over beta
    found = np.stack([_evidence(np.full(y.shape[1], ratio), variances, inside, total, len(x)) for ratio in tried])
    ratio, best = tried[found.argmax(axis=0)], found.max(axis=0)
    for _ in range(ITERATIONS):
        moved = _moved(ratio, variances, inside, total, len(x))
        # Beyond these ends nothing changes but for rounding: the features are taken whole, or not at all.
        moved = np.clip(moved, tried[0], tried[-1])
        value = _evidence(moved, variances, inside, total, len(x))
        better = value > best + SETTLED * len(x)
        if not better.any():
            break
        ratio, best = np.where(better, moved, ratio), np.where(better, value, best)
    return float(best.mean() / len(x))


def _turned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared singular values [rank] of the features, the targets' part along each [rank, outputs], and |y|^2 [outputs]."""
    import numpy as np

    total = (y**2).sum(axis=0)
    if x.shape[0] >= x.shape[1]:
        values, vectors = np.linalg.eigh(x.T @ x)
        kept = values > NO_SPREAD * max(values[-1], 0.0)
        inside = vectors[:, kept].T @ (x.T @ y) / np.sqrt(values[kept])[:, None]
    else:
        values, vectors = np.linalg.eigh(x @ x.T)
        kept = values > NO_SPREAD * max(values[-1], 0.0)
        inside = vectors[:, kept].T @ y
    return values[kept], inside, total


def _evidence(ratio: np.ndarray, variances: np.ndarray, inside: np.ndarray, total: np.ndarray, rows: int) -> np.ndarray:
    """[outputs] log evidence of each output at its ratio of precisions, [outputs], with the best beta for it."""
    import numpy as np

    spread = 1 + variances[:, None] / ratio  # [rank, outputs]
    left = np.maximum(total - (inside**2).sum(axis=0), 0.0)  # |y|^2 outside the features' span
    off = np.maximum(left + (inside**2 / spread).sum(axis=0), np.finfo(np.float64).tiny)
    return 0.5 * (rows * (np.log(rows / off) - np.log(2 * np.pi) - 1) - np.log(spread).sum(axis=0))


def _moved(ratio: np.ndarray, variances: np.ndarray, inside: np.ndarray, total: np.ndarray, rows: int) -> np.ndarray:
    """[outputs] the ratio of precisions after one step of the fixed point."""
    import numpy as np

    tiny = np.finfo(np.float64).tiny
    both = ratio + variances[:, None]  # [rank, outputs]
    effective = (variances[:, None] / both).sum(axis=0)  # gamma
    spare = (ratio / both).sum(axis=0) + rows - len(variances)  # rows - gamma, without what rounding would leave of it
    weights = (variances[:, None] * inside**2 / both**2).sum(axis=0)  # |m|^2
    left = np.maximum(total - (inside**2).sum(axis=0), 0.0)
    residuals = left + ((ratio / both) ** 2 * inside**2).sum(axis=0)
    return effective * residuals / np.maximum(spare * weights, tiny)


class HScore(NamedTuple):
    """`value` with the share by which the covariance was shrunk."""

    value: float
    shrinkage: float


def h_score(features: np.ndarray, targets: np.ndarray) -> HScore:
    """trace(S^-1 B): how much of the features' covariance S lies between the targets' means; more is better.

    features: [rows, width]; targets: [rows, outputs], of classes a 1 for each row's own. B is the covariance of what the
    targets tell of the features: of classes that of their means (Bao 2019, "An information-theoretic approach to
    transferability in task transfer learning", definition 2), of numbers and of several labels that of the best linear guess.
    S is shrunk towards a multiple of the identity by Ledoit and Wolf's formula (2004), and B by the same share (Ibrahim 2021,
    "Newer is not always better", section 3), since with few rows the plain inverse says of any features that they suit.
    From 0 to the lesser of width and outputs (of classes: less one). The same for features that are turned, scaled or moved.

    Raises ValueError where there are no rows, or other numbers of both.
    """
    import numpy as np

    x, y = _checked(features, targets)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = float((x**2).mean())
    if not size > 0:
        return HScore(0.0, 0.0)
    x = x / np.sqrt(size)  # so that the mean variance is 1
    covariance = x.T @ x / len(x)
    share = _shrinkage(x, covariance)
    shrunk = (1 - share) * covariance
    shrunk[np.diag_indices_from(shrunk)] += share
    both = y.T @ x  # [outputs, width]
    # Without shrinkage a column that is a copy of another leaves no inverse.
    solved = np.linalg.lstsq(shrunk, both.T, rcond=None)[0] if share == 0 else np.linalg.solve(shrunk, both.T)
    inside = np.linalg.pinv(y.T @ y, rcond=NO_SPREAD, hermitian=True)
    return HScore((1 - share) * float((inside * (both @ solved).T).sum()) / len(x), share)


def _shrinkage(x: np.ndarray, covariance: np.ndarray) -> float:
    """Ledoit and Wolf's (2004, "A well-conditioned estimator for large-dimensional covariance matrices", section 3.3).

    x: [rows, width], centred, of mean variance 1. The spread of the rows' own products about their mean, over the spread of
    the covariance about the identity.
    """
    import numpy as np

    squared = float((covariance**2).sum())
    apart = squared - len(covariance)  # |S - I|^2
    spread = (float(((x**2).sum(axis=1) ** 2).mean()) - squared) / len(x)
    # What is the identity already is the same with any share of it.
    return float(np.clip(spread / apart, 0.0, 1.0)) if apart > NO_SPREAD * len(covariance) else 0.0


def leep(source: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """LEEP, row by row: [rows] log of the probability that a classifier of other classes gives its own; the mean counts.

    source: [rows, classes of the base], each row's probabilities; truth: [rows] of int, from 0. The probability of a class is
    sum over z of P(class | z) source[z], with P(class | z) counted on these same rows (Nguyen 2020, "LEEP: a new measure to
    evaluate transferability of learned representations", section 3). At most 0; more is better.

    Raises ValueError where there are no rows, or other numbers of both.
    """
    import numpy as np

    given = np.asarray(source, dtype=np.float64)
    if len(given) == 0 or len(given) != len(truth):
        raise ValueError(f"expected as many rows of both, and one at least; got {len(given)} and {len(truth)}")
    classes = int(truth.max()) + 1
    joint = np.zeros((classes, given.shape[1]))
    np.add.at(joint, truth, given / len(given))  # P(class, z)
    of_source = joint.sum(axis=0)
    conditional = np.divide(joint, of_source, out=np.zeros_like(joint), where=of_source > 0)  # P(class | z)
    likely = (given * conditional[truth]).sum(axis=1)
    return np.log(np.maximum(likely, np.finfo(np.float64).tiny))


def one_hot(truth: np.ndarray, classes: int) -> np.ndarray:
    """[rows] of int -> [rows, classes] of float: 1 for each row's own."""
    import numpy as np

    return np.eye(classes)[truth]


def jackknife(values: np.ndarray, whole: float, confidence: float) -> tuple[float, float]:
    """The interval of a figure from what it is with each of some groups of rows left out, [groups].

    Delete-a-group jackknife: the variance is (groups - 1) / groups times the sum of squares about their mean, with Student's
    t of groups - 1 degrees of freedom (Kott 2001, "The delete-a-group jackknife"; Shao and Tu 1995, section 2.3).
    """
    import numpy as np
    from scipy.stats import t

    groups = len(values)
    if groups < 2:
        return whole, whole
    error = float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))
    reach = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return whole - reach, whole + reach


def _checked(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    x, y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) == 0 or len(x) != len(y):
        raise ValueError(f"expected [rows, width] and [rows, outputs] of as many rows; got {x.shape} and {y.shape}")
    return x, y
