"""What rows that stand on both sides do to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.data.findings import Finding, counted
from tunesmith.data.near import CROWDED
from tunesmith.evaluation.intervals import Interval
from tunesmith.seeds import seed_of

LEAK = "leak_effect"
MATERIAL = 0.005  # half a point of the score
RESAMPLES = 2_000


@dataclass(frozen=True)
class LeakEffect:
    """A score over all test rows against that over the rows of which training saw nothing alike."""

    near: int  # test rows that are near a training row
    rows: int  # all test rows
    whole: float  # mean over all
    seen: float  # mean over those that are near
    unseen: Interval  # mean over the others
    gain: Interval  # `whole` less the mean over the others: what the near ones add

    @property
    def material(self) -> bool:
        """Whether the gain is half a point or more, and surely above 0."""
        return self.gain.low > 0 and self.gain.value >= MATERIAL


def leak_effect(
    hits: Sequence[float], near: Sequence[bool], seed: int = 0, confidence: float = 0.95, resamples: int = RESAMPLES
) -> LeakEffect | None:
    """What test rows that are near a training row add to a score that is a mean over rows.

    hits: of each test row how right it is, 0 to 1; near: whether a training row is nearly the same. Intervals are
    percentile bootstraps over the two kinds of rows apart (Efron 1979). None where all or none are near.
    """
    import numpy as np

    score, alike = np.asarray(hits, dtype=float), np.asarray(near, dtype=bool)
    if len(score) != len(alike):
        raise ValueError(f"{len(score)} hits and {len(alike)} rows")
    seen, others = score[alike], score[~alike]
    if not len(seen) or not len(others):
        return None
    share = len(seen) / len(score)
    draw = np.random.default_rng(seed_of(seed, "leak"))
    means = [
        part[draw.integers(len(part), size=(resamples, len(part)))].mean(axis=1)
        if len(part) <= 5_000
        else part.mean() + draw.standard_normal(resamples) * part.std(ddof=1) / np.sqrt(len(part))
        for part in (seen, others)
    ]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    rest = [float(edge) for edge in np.quantile(means[1], tails)]
    gained = [float(edge) for edge in np.quantile(share * (means[0] - means[1]), tails)]
    value = share * float(seen.mean() - others.mean())
    return LeakEffect(
        len(seen),
        len(score),
        float(score.mean()),
        float(seen.mean()),
        Interval(float(others.mean()), *rest),
        Interval(value, *gained),
    )


def leak_finding(
    effect: LeakEffect | None,
    metric: str,
    places: Sequence[str] = (),
    crowded: bool = False,
    rivals: Mapping[str, float] | None = None,
) -> Finding | None:
    """What to say of it; None where it is not material.

    metric: the score's name; places: of the rows that are near; crowded: whether not all rows could be compared;
    rivals: of each its mean over the rows that are not near, by what it is.
    """
    if effect is None or not effect.material:
        return None
    message = (
        f"{counted(effect.near)} of test with nearly the same text in train: {metric} is {effect.whole:.3f} over all "
        f"{effect.rows:,} and {effect.unseen.value:.3f} [{effect.unseen.low:.3f}, {effect.unseen.high:.3f}] without them, "
        f"{effect.gain.value:.3f} [{effect.gain.low:.3f}, {effect.gain.high:.3f}] less"
    )
    if rivals:
        best = max(rivals, key=lambda name: rivals[name])
        message += f"; the best rival without them is {best}, with {rivals[best]:.3f}"
    message += f"; {CROWDED}, so more may be near" if crowded else ""
    advice = (
        f"unless these rows are merely easier, new texts will see {effect.unseen.value:.3f}; take them out of train"
    )
    numbers = {
        "whole": effect.whole,
        "without": effect.unseen.value,
        "without_low": effect.unseen.low,
        "without_high": effect.unseen.high,
    }
    return Finding(LEAK, effect.near, message, tuple(places), (), advice, numbers)
