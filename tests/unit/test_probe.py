"""The probe equals scikit-learn's logistic regression of the same C, and picks C by validation loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tunesmith import untouched
from tunesmith.data.encode import Batch, Example
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.regression import Regression
from tunesmith.training.probe import SOFTER, fit_head
from tunesmith.training.trunk import Live, PooledCache

if TYPE_CHECKING:
    from torch import Tensor, nn


def _features(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit-length features around one centre a class."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 4, (rows,), generator=draw)
    features = centres[target] + 1.5 * torch.randn(rows, 10, generator=draw)
    return torch.nn.functional.normalize(features, dim=1), target


@pytest.mark.parametrize("strength", [1.0, 16.0, 256.0])
def test_equals_logistic_regression(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(Classification, "likely_strength", strength)
    features, target = _features(200, 1)
    found = fit_head(torch.nn.Linear(10, 4), Classification(), features, target, None).best
    oracle = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(features.numpy(), target.numpy())
    assert found.strength == strength
    assert found.weight.numpy() == pytest.approx(oracle.coef_, abs=2e-3 * float(np.abs(oracle.coef_).max()))
    assert found.bias is not None
    shares = torch.softmax(features @ found.weight.T + found.bias, -1).numpy()
    assert shares == pytest.approx(oracle.predict_proba(features.numpy()), abs=2e-3)


def test_the_scale_of_the_features_does_not_matter() -> None:
    import torch

    features, target = _features(100, 2)
    plain = fit_head(torch.nn.Linear(10, 4), Classification(), features, target, None).best
    scaled = fit_head(torch.nn.Linear(10, 4), Classification(), features * 50, target, None).best
    assert torch.allclose(scaled.weight * 50, plain.weight, atol=1e-2)


def test_the_strength_with_the_lowest_validation_loss_is_taken() -> None:
    import torch

    features, target = _features(60, 3)
    held, truth = _features(200, 4)
    seen: dict[float, float] = {}

    def validate(candidate: nn.Linear) -> float:
        with torch.no_grad():
            loss = Classification().loss(candidate(held), Batch(tuple(range(200)), {}, truth))
        value = float(loss.total / loss.weight)
        seen[Classification.strengths[len(seen)]] = value
        return value

    output = torch.nn.Linear(10, 4)
    before = output.weight.detach().clone()
    found = fit_head(output, Classification(), features, target, validate)
    losses = list(seen.values())
    assert tuple(seen) == Classification.strengths[: len(seen)]
    assert losses[:-1] == sorted(losses[:-1], reverse=True), "it goes on for as long as the loss falls"
    assert len(seen) == len(Classification.strengths) or losses[-1] > losses[-2]
    assert found.best.strength == min(seen, key=lambda strength: seen[strength])
    assert found.start.strength == max(
        [*(s for s in seen if s <= found.best.strength / SOFTER), Classification.strengths[0]]
    )
    assert torch.equal(output.weight, before), "the given map stays as it is"


def test_a_map_without_bias() -> None:
    import torch
    from sklearn.linear_model import LogisticRegression

    features, target = _features(150, 5)
    found = fit_head(torch.nn.Linear(10, 4, bias=False), Classification(), features, target, None).best
    oracle = LogisticRegression(C=16.0, fit_intercept=False, tol=1e-8, max_iter=5000).fit(features, target)
    assert found.bias is None
    assert found.weight.numpy() == pytest.approx(oracle.coef_, abs=0.03)


def test_of_numbers_it_equals_ridge_regression() -> None:
    import torch
    from sklearn.linear_model import Ridge

    draw = torch.Generator().manual_seed(5)
    features = torch.nn.functional.normalize(torch.randn(200, 10, generator=draw), dim=1)
    target = features @ torch.randn(10, 2, generator=draw) + 0.3 * torch.randn(200, 2, generator=draw)
    found = fit_head(torch.nn.Linear(10, 2), Regression(), features, target, None).best
    # |y - Wx|^2 + |W|^2 / (2 C) is ridge regression with alpha = 1 / (2 C).
    oracle = Ridge(alpha=1 / (2 * Regression.likely_strength)).fit(features.numpy(), target.numpy())
    assert found.strength == Regression.likely_strength
    assert found.weight.numpy() == pytest.approx(oracle.coef_, abs=1e-3)
    assert found.bias is not None
    assert found.bias.numpy() == pytest.approx(oracle.intercept_, abs=1e-3)


def test_of_very_many_rows_some_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untouched, "MOST_PROBE_ROWS", 5)
    examples = [Example(row, {"input_ids": [row]}, row % 2) for row in range(12)]
    live = Live.__new__(Live)
    taken, sources, said = untouched._enough(examples, live, seed=3)
    assert [example.row for example in taken] == [0, 1, 2, 3, 4]
    assert [example.inputs["input_ids"][0] for example in taken] == list(sources)
    assert sorted(set(sources)) == list(sources)
    assert said == "; on 5 of the 12 training rows"
    assert untouched._enough(examples, live, seed=3)[1] == sources
    assert untouched._enough(examples, live, seed=4)[1] != sources
    assert untouched._enough(examples[:5], live, seed=3)[0] == examples[:5]
    kept = PooledCache.__new__(PooledCache)  # what is kept of every row costs nothing to use
    assert untouched._enough(examples, kept, seed=3) == (examples, list(range(12)), "")
