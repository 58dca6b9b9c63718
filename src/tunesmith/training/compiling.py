"""Whether the blocks are compiled: as asked, or where a short timing finds that it pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.recipe import Derived, TrainingSpec
from tunesmith.seeds import torch_seed
from tunesmith.tasks.base import Task
from tunesmith.training.loop import set_mode
from tunesmith.training.preflight import learn
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from tunesmith.data.encode import Batch
    from tunesmith.methods.base import Plan
    from tunesmith.models.network import Network

KEY = "training.compile"
WORTH_IT = 1.1  # times as fast as without, from which it is taken
LEAST_S = 600.0  # of all steps without, below which it is not tried: compiling takes a minute or more
TURNS = 3
# Of a loss or a gradient's norm, by which both ways may part where nothing is drawn at random: rounding.
ALIKE = {"float32": 1e-3, "bfloat16": 3e-2}
DRAWN = 0.01  # of that: by which two draws of the same rows may part where nothing is drawn
UNCOMPARABLE = "whether it computes the same cannot be told: this base draws at random where nothing is dropped"


@dataclass(frozen=True)
class Pace:
    """Some passes over the same rows, each with draws of its own."""

    seconds: float  # of the fastest
    losses: tuple[float, ...]


def settle_compiled(
    network: Network,
    task: Task,
    plan: Plan,
    trunk: Trunk,
    source: FixedRows,
    training: TrainingSpec,
    earlier: Mapping[str, Any],
) -> tuple[TrainingSpec, list[Derived]]:
    """The settings with what came of `training.compile`; where blocks are compiled, they are from here on in training mode.

    A resumed run does as it did. What fails is said, and training goes on without.
    """
    asked, found = training.compile, list[Derived]()
    if asked == "auto" and (source.device == "cpu" or training.exact):  # on a CPU it brings nothing
        asked = False
    if earlier and (asked == "auto" or KEY in earlier):
        asked = bool(earlier.get(KEY, False))
        found = [Derived(KEY, asked, "as its training was begun")] if KEY in earlier else []
    if asked is not False and (plan.cut >= len(network.layout.blocks) or not source.order.first(1)):
        asked, found = False, [Derived(KEY, False, "there is no block to train")]
    if asked is not False:
        set_mode(network, plan)
        with torch_seed("compiling"):
            trial = _Trial(network, task, trunk, training, source.batch(0), source.device)
            asked, why = _tried(trial, asked == "auto", _steps(source, training))
        network.eval()
        found = [Derived(KEY, asked, why)] if why else found
    return training.model_copy(update={"compile": asked}), found


@dataclass(frozen=True)
class _Trial:
    """One step's rows, again and again."""

    network: Network
    task: Task
    trunk: Trunk
    training: TrainingSpec
    batches: list[Batch]
    device: str

    def turn(self, batch: Batch, draw: int) -> tuple[float, float]:
        """Loss, and norm of the gradients that outlast the pass."""
        import torch

        loss = learn(self.network, self.task, self.trunk, batch, self.training, draw)
        gradients = [value.grad for value in self.network.parameters() if value.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        self.network.zero_grad(set_to_none=True)
        return float(loss), norm

    def pace(self) -> Pace:
        return _pace(self.batches, lambda batch, draw: self.turn(batch, draw)[0], self.device)

    def numbers(self, draw: int) -> list[float]:
        """Losses and norms where nothing is dropped."""
        from tunesmith.models.dropout import undropped

        with undropped(self.network):
            return [number for batch in self.batches for number in self.turn(batch, draw)]


def _steps(source: FixedRows, training: TrainingSpec) -> int:
    assert isinstance(training.epochs, int)
    return source.order.first(training.epochs)


def _tried(trial: _Trial, by_itself: bool, steps: int) -> tuple[bool, str]:
    """Whether blocks are compiled, and why where that was not simply asked for."""
    from tunesmith.models import compiled as making

    network, allowed = trial.network, ALIKE[trial.training.precision]
    plain = trial.pace()
    whole = plain.seconds * steps
    if by_itself and whole < LEAST_S:
        return False, f"all steps take about {whole:.0f} s, of which compiling would save less than it takes"
    wanted = trial.numbers(0)
    comparable = _apart(trial.numbers(1), wanted) <= DRAWN * allowed
    if by_itself and not comparable:
        return False, UNCOMPARABLE
    blocks = making.CompiledBlocks([network.get_submodule(name) for name in network.layout.blocks], making.USUAL)
    blocks.switch(True)
    try:
        compiled, found = trial.pace(), trial.numbers(0)
        why_not = blocks.news() or _other_numbers(
            [*compiled.losses, *found], _apart(found, wanted), allowed, comparable
        )
        gain = plain.seconds / compiled.seconds
    except Exception as error:
        # Whatever a compiler, or what it made, raises: there is another way.
        network.zero_grad(set_to_none=True)
        why_not, gain = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200], 0.0
    said = f"compiled blocks were {gain:.2f} times as fast"
    if why_not or (by_itself and gain < WORTH_IT):
        blocks.switch(False)
        return False, f"training goes on without: {why_not}" if why_not else said
    network.compiled = blocks
    return True, said if by_itself else "" if comparable else f"as asked for; {UNCOMPARABLE}"


def _other_numbers(found: Sequence[float], off: float, allowed: float, comparable: bool) -> str:
    """What to say where compiled blocks compute something else; "" where they do not, or it cannot be told."""
    if not all(map(math.isfinite, found)):
        return "its losses or gradients are not finite"
    return "" if off <= allowed or not comparable else f"its losses or gradients are others, by up to {100 * off:.2g} %"


def _apart(numbers: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference, as a share."""
    shares = (abs(one - two) / max(abs(two), 1e-12) for one, two in zip(numbers, others, strict=True))
    return max(shares, default=0.0)


def _pace(batches: list[Batch], turn: Callable[[Batch, int], float], device: str) -> Pace:
    import torch

    seconds, losses = list[float](), list[float]()
    for draw in range(TURNS):
        begun = time.perf_counter()
        losses.append(sum(turn(batch, draw) for batch in batches))
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return Pace(min(seconds), tuple(losses))
