"""The head fitted on frozen features, before the base may change (LP-FT, Kumar 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch
from tunesmith.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

# Inverse strengths of the penalty, as scikit-learn's C on features of unit length: from strong to weak.
STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0)
ITERATIONS = 40  # of L-BFGS for each strength; each starts from the one before, so few are needed


@dataclass(frozen=True)
class ProbeResult:
    strength: float
    why: str
    weight: Tensor  # [labels, width] float32
    bias: Tensor | None  # [labels]


def fit_head(
    output: nn.Linear,
    task: Task,
    features: Tensor,
    target: Tensor,
    validate: Callable[[nn.Linear], float] | None,
    seed_strength: float = 16.0,
) -> ProbeResult:
    """A linear map of `output`'s shape, fitted: the task's loss plus |W|^2 / (2 C), by L-BFGS over all rows at once.

    features: [rows, width] float32, what reaches `output`; target: [rows]. `validate` gives the validation loss of a
    candidate; C is the one of `STRENGTHS` where it is lowest, or `seed_strength` without validation rows.
    """
    import torch

    length = features.norm(dim=1).mean().clamp_min(1e-12)
    scaled = features / length  # unit length on average, so that C means the same for every base
    fitted = copy.deepcopy(output).float().cpu()
    torch.nn.init.zeros_(fitted.weight)
    if fitted.bias is not None:
        torch.nn.init.zeros_(fitted.bias)
    batch = Batch(tuple(range(len(scaled))), {}, target)
    best: tuple[float, float, nn.Linear] | None = None
    for strength in STRENGTHS if validate is not None else (seed_strength,):
        _minimise(fitted, task, scaled, batch, strength)
        candidate = copy.deepcopy(fitted)
        with torch.no_grad():
            candidate.weight.div_(length)
        score = validate(candidate) if validate is not None else 0.0
        if best is None or score < best[0]:
            best = (score, strength, candidate)
    assert best is not None
    why = (
        "lowest validation loss of " + ", ".join(f"{value:g}" for value in STRENGTHS)
        if validate
        else "no validation rows"
    )
    bias = None if best[2].bias is None else best[2].bias.detach()
    return ProbeResult(best[1], why, best[2].weight.detach(), bias)


def _minimise(fitted: nn.Linear, task: Task, features: Tensor, batch: Batch, strength: float) -> None:
    import torch

    optimizer = torch.optim.LBFGS(
        fitted.parameters(), max_iter=ITERATIONS, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(fitted(features), batch)
        value = (loss.total + fitted.weight.square().sum() / (2 * strength)) / loss.weight
        value.backward()
        return value

    optimizer.step(closure)
