"""The learning rate as a pure function of progress."""

from __future__ import annotations

import math


def warmup_linear(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` (from 0): up over the first `warmup` of the steps, then down to 0 in a line.

    The first step already moves, and the last one still does: values are taken at the middle of each step.
    """
    progress = (step + 0.5) / steps
    if progress < warmup:
        return progress / warmup
    return (1.0 - progress) / (1.0 - warmup)


def pull_share(step: int, steps: int, warmup: float, strength: float) -> float:
    """The share of its way back to the start that a weight goes at `step`: as the rate, whose shares sum to steps / 2.

    What moved at the first step and never again ends at exp(-strength) of that, whatever the rate and however many steps.
    """
    return 1 - math.exp(-strength * warmup_linear(step, steps, warmup) / (steps / 2))
