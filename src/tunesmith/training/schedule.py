"""The learning rate as a pure function of progress."""

from __future__ import annotations


def warmup_linear(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` (from 0): up over the first `warmup` of the steps, then down to 0 in a line.

    The first step already moves, and the last one still does: values are taken at the middle of each step.
    """
    progress = (step + 0.5) / steps
    if progress < warmup:
        return progress / warmup
    return (1.0 - progress) / (1.0 - warmup)
