"""How far parameters moved, from a sample of them."""

from __future__ import annotations

import math

import pytest

from tunesmith.methods.base import Group, Plan
from tunesmith.training.travel import MOST, sampled, travelled

PLAN = Plan(
    (
        Group("base, weight decay", ("base.weight",), 1e-4, True),
        Group("base, no decay", ("base.bias",), 2e-4, False),
        Group("head", ("head.weight",), 5e-4, True),
    ),
    frozenset(),
    0,
)


def test_travel_is_the_length_of_the_change_over_that_of_the_start() -> None:
    import torch

    draw = torch.Generator().manual_seed(0)
    start = {
        "base.weight": torch.randn(90, 70, generator=draw),
        "base.bias": torch.zeros(70),
        "head.weight": torch.ones(3, 5),
    }
    change = torch.randn(90, 70, generator=draw) * 0.01
    trained = {**start, "base.weight": start["base.weight"] + change}
    delivered = {**start, "head.weight": start["head.weight"] * 1.5}
    base, head = travelled(sampled(start), sampled(trained), sampled(delivered), PLAN, frozenset({"head.weight"}))
    exact = float(change.norm() / start["base.weight"].norm())
    assert start["base.weight"].numel() > MOST, "only a sample of it is kept"
    assert base.trained == pytest.approx(exact, rel=0.05) and base.delivered == 0
    assert (base.part, base.tensors, base.still, base.rate) == ("base", 2, 1, 2e-4)
    assert (head.trained, head.still, head.rate) == (0.0, 1, 5e-4) and head.delivered == pytest.approx(0.5)


def test_the_start_is_a_copy_and_nothing_from_nothing_is_far() -> None:
    import torch

    weights = {"head.weight": torch.zeros(4)}
    start = sampled(weights)
    weights["head.weight"] += 1
    (head,) = travelled(start, sampled(weights), start, PLAN, frozenset({"head.weight"}))
    assert math.isinf(head.trained) and head.delivered == 0.0
