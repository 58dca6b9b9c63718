"""One optimizer step, a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch, joined, per_row
from tunesmith.errors import TrainingError, places_said
from tunesmith.seeds import torch_seed
from tunesmith.tasks.base import LossSum, Task
from tunesmith.training.optim import Masters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepResult:
    loss: float  # mean over the step's weight
    norm: float  # gradient norm before clipping
    rate: float
    rows: int
    tokens: int


@dataclass(frozen=True)
class Objective:
    """What a micro-batch is learned by."""

    task: Task
    forward: Callable[[Batch], Tensor]
    r_drop: float = 0.0  # weight of how far two passes with other dropout disagree; 0: one pass

    def loss(self, batch: Batch, seed: int, step: int, part: int) -> LossSum:
        """The task's loss; of two passes their mean, and half of `r_drop` times their disagreement.

        R-Drop adds up both losses, and `r_drop` times the disagreement (Liang 2021, equation 3); halved, a row weighs as much
        as in one pass, so that rates keep their meaning.
        """
        with torch_seed(seed, "dropout", step, part):
            first = self.forward(batch)
            loss = self.task.loss(first, batch)
        if self.r_drop == 0:
            return loss
        with torch_seed(seed, "dropout once more", step, part):
            second = self.forward(batch)
            other = self.task.loss(second, batch)
        apart = self.task.disagreement(first, second, batch)
        assert apart is not None, "refused where it is asked for"
        return LossSum((loss.total + other.total + self.r_drop * apart) / 2, loss.weight, loss.logs)


def optimizer_step(
    objective: Objective,
    batches: Sequence[Batch],
    masters: Masters,
    rate_share: float,
    clip: float | None,
    seed: int,
    step: int,
    place: Callable[[int], str] = str,
    hold: Callable[[int], Tensor] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> StepResult:
    """Sums loss and gradients over the micro-batches, divides once by their weight, clips, moves.

    Where the loss of a row depends on the others of its step (`Task.joint`), it is counted over all of them at once, in no
    more memory than a micro-batch takes: see `_joint`. `hold` gives what else is added to the step's mean loss, and is not in
    its figures. `meanwhile` is called once, after all passes were given to the device, and before anything waits for their
    results.

    Raises TrainingError, before anything has moved, when loss or gradient is not finite: it names the rows, each by what
    `place` says of its number.
    """
    import torch

    if masters.in_backward:
        assert len(batches) == 1 and clip is None and hold is None, "a step in backward knows no other gradients"
        return _in_backward(objective, batches[0], masters, rate_share, seed, step, place, meanwhile)
    accumulate = _joint if objective.task.joint and len(batches) > 1 else _summed
    losses = accumulate(objective, batches, masters, seed, step)
    if meanwhile is not None:
        meanwhile()
    total, weight = (sum(map(float, parts)) for parts in zip(*losses, strict=True))
    weight = weight if weight > 0 else 1.0  # of rows that hold nothing to learn, which were counted: gradients of 0
    if hold is not None:
        (hold(step) * weight).backward()
        masters.collect()
    gradients = masters.gradients()
    norm = float(torch.nn.utils.get_total_norm(gradients)) / weight
    if not (_finite(total) and _finite(norm)):
        masters.discard()
        raise _not_finite([place(row) for batch in batches for row in batch.rows], total, norm, step)
    share = 1.0 / weight
    if clip is not None and norm > clip:
        share *= clip / norm
    rate = masters.move(rate_share, share)
    rows = sum(len(batch.rows) for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    return StepResult(total / weight, norm, rate, rows, tokens)


def _in_backward(
    objective: Objective,
    batch: Batch,
    masters: Masters,
    rate_share: float,
    seed: int,
    step: int,
    place: Callable[[int], str],
    meanwhile: Callable[[], object] | None,
) -> StepResult:
    """As `optimizer_step` of one micro-batch without clipping, each parameter moved within the backward pass.

    Where a gradient is not finite, which is only seen then, parameters have moved.
    """
    import torch

    norm = rate = 0.0
    loss = objective.loss(batch, seed, step, 0)
    total, weight = float(loss.total.detach()), float(loss.weight)
    weight = weight if weight > 0 else 1.0
    if _finite(total):
        rate = masters.optimizers.at(rate_share)
        with torch_seed(seed, "backward", step, 0), masters.moved_in_backward() as norms:
            (loss.total / weight).backward()
        if meanwhile is not None:
            meanwhile()
        norm = float(torch.stack(norms).norm()) if norms else 0.0
    if not (_finite(total) and _finite(norm)):
        raise _not_finite([place(row) for row in batch.rows], total, norm, step)
    return StepResult(total / weight, norm, rate, len(batch.rows), batch.tokens)


def _summed(
    objective: Objective, batches: Sequence[Batch], masters: Masters, seed: int, step: int
) -> list[tuple[Tensor, Tensor]]:
    """Gradients of the losses of the micro-batches, one after another; each loss, and its weight.

    As they are on the device: to read one as a number would wait for all that was given to a GPU so far.
    """
    losses = []
    for part, batch in enumerate(batches):
        loss = objective.loss(batch, seed, step, part)
        with torch_seed(seed, "backward", step, part):
            loss.total.backward()
        masters.collect()
        losses.append((loss.total.detach(), loss.weight))
    return losses


def _joint(
    objective: Objective, batches: Sequence[Batch], masters: Masters, seed: int, step: int
) -> list[tuple[Tensor, Tensor]]:
    """Gradients of one loss over the outputs of all micro-batches, by the chain rule in two passes (Gao 2021, GradCache).

    The first pass keeps the outputs alone, and the loss over all of them gives the gradient at each; the second runs
    every micro-batch again, with the same dropout, and carries that gradient on to the parameters.
    """
    import torch

    task, forward = objective.task, objective.forward
    outputs = []
    for part, batch in enumerate(batches):
        with torch_seed(seed, "dropout", step, part), torch.no_grad():
            outputs.append(per_row(forward(batch), len(batch.rows)))
    whole = torch.cat(outputs).requires_grad_(True)
    loss = task.loss(whole, joined(batches))
    loss.total.backward()
    assert whole.grad is not None
    sizes = [len(output) for output in outputs]
    for part, (batch, gradient) in enumerate(zip(batches, whole.grad.split(sizes), strict=True)):
        with torch_seed(seed, "dropout", step, part):
            per_row(forward(batch), len(batch.rows)).backward(gradient)
        masters.collect()
    return [(loss.total.detach(), loss.weight)]


def _finite(number: float) -> bool:
    return number - number == 0.0


def _not_finite(rows: Sequence[str], total: float, norm: float, step: int) -> TrainingError:
    what = "loss" if not _finite(total) else "gradient"
    return TrainingError(
        f"step {step + 1}: the {what} is not finite (loss {total:g}, gradient norm {norm:g}); the rows of this step: "
        f"{places_said(rows)}; look at them, lower training.rate, or set training.precision=float32"
    )
