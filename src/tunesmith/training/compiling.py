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
# Of a loss, by which both ways may part where nothing is drawn at random: rounding.
ALIKE = {"float32": 1e-3, "bfloat16": 3e-2}


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
        found = [Derived(KEY, asked, "as before the run was stopped")] if KEY in earlier else []
    if asked is not False and (plan.cut >= len(network.layout.blocks) or not source.order.first(1)):
        asked, found = False, [Derived(KEY, False, "there is no block to train")]
    if asked is not False:

        def turn(batch: Batch, draw: int) -> float:
            loss = learn(network, task, trunk, batch, training, draw)
            network.zero_grad(set_to_none=True)
            return float(loss)

        set_mode(network, plan)
        with torch_seed("compiling"):
            asked, why = _tried(network, source, turn, training.model_copy(update={"compile": asked}))
        network.eval()
        found = [Derived(KEY, asked, why)] if why else found
    return training.model_copy(update={"compile": asked}), found


def _tried(
    network: Network, source: FixedRows, turn: Callable[[Batch, int], float], training: TrainingSpec
) -> tuple[bool, str]:
    """Whether blocks are compiled, and why where that was not simply asked for."""
    from tunesmith.models import compiled as making

    assert isinstance(training.epochs, int)
    batches, by_itself = source.batch(0), training.compile == "auto"
    plain = _pace(batches, turn, source.device)
    whole = plain.seconds * source.order.first(training.epochs)
    if by_itself and whole < LEAST_S:
        return False, f"all steps take about {whole:.0f} s, of which compiling would save less than it takes"
    blocks = making.CompiledBlocks([network.get_submodule(name) for name in network.layout.blocks], making.USUAL)
    blocks.switch(True)
    try:
        compiled = _pace(batches, turn, source.device)
        why_not = blocks.news() or _other_losses(compiled, plain, ALIKE[training.precision])
        gain = plain.seconds / compiled.seconds
    except Exception as error:  # whatever a compiler, or what it made, raises: there is another way
        network.zero_grad(set_to_none=True)
        why_not, gain = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200], 0.0
    said = f"compiled blocks were {gain:.2f} times as fast"
    if why_not or (by_itself and gain < WORTH_IT):
        blocks.switch(False)
        return False, f"training goes on without: {why_not}" if why_not else said
    network.compiled = blocks
    return True, said if by_itself else ""


def _other_losses(compiled: Pace, plain: Pace, allowed: float) -> str:
    """What to say where compiled blocks compute something else; "" where they do not, or dropout hides it."""
    if not all(map(math.isfinite, compiled.losses)):
        return "its losses are not finite"
    if _apart(plain.losses, plain.losses[:1] * TURNS) > allowed / 100:  # compiled code drops others
        return ""
    off = _apart(compiled.losses, plain.losses)
    return "" if off <= allowed else f"its losses are others, by up to {100 * off:.2g} %"


def _apart(losses: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference, as a share."""
    return max(abs(one - two) / max(abs(two), 1e-12) for one, two in zip(losses, others, strict=True))


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
