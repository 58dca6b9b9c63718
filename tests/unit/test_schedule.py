"""The learning rate as a function of progress."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.training.schedule import warmup_linear


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_every_step_moves_and_none_exceeds_the_peak(steps: int, warmup: float) -> None:
    shares = [warmup_linear(step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1]) and shares[peak:] == sorted(shares[peak:], reverse=True)


def test_values() -> None:
    assert [warmup_linear(step, 4, 0.5) for step in range(4)] == pytest.approx([0.25, 0.75, 0.75, 0.25])
    assert warmup_linear(0, 10, 0.0) == pytest.approx(0.95)
    assert warmup_linear(9, 10, 0.1) == pytest.approx(0.05 / 0.9)


@given(st.integers(2, 400), st.floats(0, 0.9))
def test_the_whole_run_spends_half_of_the_peak(steps: int, warmup: float) -> None:
    """Two ramps have half the area of the rectangle around them, less what the one middle that falls on the peak rounds."""
    mean = sum(warmup_linear(step, steps, warmup) for step in range(steps)) / steps
    assert mean == pytest.approx(0.5, abs=0.5 / steps)
