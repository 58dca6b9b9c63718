"""Optuna's samplers and pruners, as a search asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.selection.spec import SearchSpec

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

P_WORSE = 0.1  # of the signed-rank test by which wilcoxon ends a trial
PAIRS = 4  # repeats from which on it can: of n that are all worse, p is 1 / 2**n
FIRST_DRAWS = 10  # trials that are drawn at random before there is something to learn from (Optuna's own), at most


def sampler(spec: SearchSpec, seed: int) -> BaseSampler:
    """Draws the same for the same seed and what is known."""
    from optuna.samplers import RandomSampler, TPESampler

    if spec.sampler == "random":
        return RandomSampler(seed)
    first = min(FIRST_DRAWS, max(3, spec.trials // 3))
    return TPESampler(seed=seed, n_startup_trials=first, constant_liar=True)


def pruner(name: str, most: int) -> BasePruner:
    """most: evaluations of one trial, 0 where these differ."""
    from optuna.pruners import HyperbandPruner, NopPruner, WilcoxonPruner

    if name == "hyperband":
        # With 3 to 8 evaluations a third at each rung would leave one rung, and no pruning in every other bracket.
        return HyperbandPruner(1, most if most > 1 else "auto", 2 if most < 9 else 3)
    # Of equal values an older SciPy has an approximate p, which may say at three what an exact one cannot.
    return WilcoxonPruner(p_threshold=P_WORSE, n_startup_steps=PAIRS) if name == "wilcoxon" else NopPruner()
