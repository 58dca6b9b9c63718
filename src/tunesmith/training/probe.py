"""The head fitted on frozen features, before the base may change (LP-FT, Kumar 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch, Example, unit_rows, unit_targets, windows
from tunesmith.tasks.base import Labels, Prediction, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

ITERATIONS = 40  # of L-BFGS for each strength; each starts from the one before, so few are needed


# Fine-tuning starts from a head fitted with so many times as strong a penalty. The best head for fixed features is sure
# of its training rows, which leaves the base little gradient and then much noise: Banking77 with MiniLM, full, 5 epochs:
# 0.931 from the best head after 2 epochs against 0.937 from a softer one after 5 (docs/log.md).
SOFTER = 16.0


@dataclass(frozen=True)
class FittedHead:
    strength: float  # C
    weight: Tensor  # [labels, width] float32
    bias: Tensor | None  # [labels]


@dataclass(frozen=True)
class ProbeResult:
    best: FittedHead  # for the features as they are
    start: FittedHead  # for a base that will change
    why: str  # how the best one's C was chosen


def fit_on(
    task: Task, last: nn.Linear, features: Mapping[str, Tensor], splits: Mapping[str, Sequence[Example]]
) -> ProbeResult:
    """Heads fitted on the training rows' features, chosen on the validation rows' where there are any."""
    import torch

    target = {split: unit_targets(splits[split]) for split in features}

    def validation_loss(candidate: nn.Linear) -> float:
        with torch.no_grad():
            output = candidate(features["validation"])
            loss = task.loss(output, Batch(tuple(range(len(output))), {}, target["validation"]))
        return float(loss.total / loss.weight)

    validate = validation_loss if "validation" in features else None
    return fit_head(last, task, features["train"], target["train"], validate)


def fit_head(
    output: nn.Linear,
    task: Task,
    features: Tensor,
    target: Tensor,
    validate: Callable[[nn.Linear], float] | None,
) -> ProbeResult:
    """Linear maps of `output`'s shape, fitted: the task's loss plus |W|^2 / (2 C), by L-BFGS over all rows at once.

    features: [rows, width] float32, what reaches `output`; target: [rows]. `validate` gives the validation loss of a
    candidate; C is the one of the task's `strengths` where it is lowest, or its `likely_strength` without validation
    rows.
    """
    import torch

    length = features.norm(dim=1).mean().clamp_min(1e-12)
    scaled = features / length  # unit length on average, so that C means the same for every base
    fitted = copy.deepcopy(output).float().cpu()
    torch.nn.init.zeros_(fitted.weight)
    if fitted.bias is not None:
        torch.nn.init.zeros_(fitted.bias)
    batch = Batch(tuple(range(len(scaled))), {}, target)
    likely = task.likely_strength
    path = task.strengths if validate is not None else (likely / SOFTER, likely)
    heads: list[FittedHead] = []
    scores: list[float] = []
    for strength in path:
        _minimise(fitted, task, scaled, batch, strength)
        candidate = copy.deepcopy(fitted)
        with torch.no_grad():
            candidate.weight.div_(length)
        bias = None if candidate.bias is None else candidate.bias.detach()
        heads.append(FittedHead(strength, candidate.weight.detach(), bias))
        scores.append(validate(candidate) if validate is not None else -strength)
        if len(scores) > 1 and scores[-1] > scores[-2]:
            break  # the loss along the path has one valley
    best = heads[scores.index(min(scores))]
    softer = [head for head in heads if head.strength <= best.strength / SOFTER]
    why = f"lowest validation loss of {', '.join(f'{value:g}' for value in path)}" if validate else "no validation rows"
    return ProbeResult(best, softer[-1] if softer else heads[0], why)


def fit_one(
    output: nn.Linear,
    task: Task,
    features: Tensor,
    target: Tensor,
    strength: float,
    length: float,
    start: FittedHead | None,
    iterations: int = ITERATIONS,
) -> FittedHead:
    """The head of `fit_head` for one C, begun from another where there is one.

    length: the mean norm of the rows that C is meant for, of which `features` may be a part.
    """
    import torch

    fitted = copy.deepcopy(output).float().cpu()
    torch.nn.init.zeros_(fitted.weight)
    if fitted.bias is not None:
        torch.nn.init.zeros_(fitted.bias)
    if start is not None:
        with torch.no_grad():
            fitted.weight.copy_(start.weight * length)
            if fitted.bias is not None and start.bias is not None:
                fitted.bias.copy_(start.bias)
    _minimise(fitted, task, features / length, Batch(tuple(range(len(features))), {}, target), strength, iterations)
    bias = None if fitted.bias is None else fitted.bias.detach()
    return FittedHead(strength, fitted.weight.detach() / length, bias)


def told_by(
    head: FittedHead, task: Task, features: Tensor, examples: Sequence[Example], labels: Labels
) -> list[Prediction]:
    """What a head on frozen features [units, width] says of the rows that they are of."""
    import torch

    output = torch.nn.functional.linear(features, head.weight, head.bias)
    return task.whole(task.predict(output, unit_rows(examples), labels), windows(examples), labels)


def _minimise(
    fitted: nn.Linear, task: Task, features: Tensor, batch: Batch, strength: float, iterations: int = ITERATIONS
) -> None:
    import torch

    optimizer = torch.optim.LBFGS(
        fitted.parameters(), max_iter=iterations, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(fitted(features), batch)
        value = (loss.total + fitted.weight.square().sum() / (2 * strength)) / loss.weight
        value.backward()
        return value

    optimizer.step(closure)
