"""The first minute: the longest real batch through forward and backward, so that what will not fit is refused there."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tunesmith.data.encode import Batch
from tunesmith.data.order import Order
from tunesmith.errors import TrainingError
from tunesmith.memory import free_memory, process_limited, resident_memory
from tunesmith.methods.base import Plan
from tunesmith.recipe import TrainingSpec
from tunesmith.seeds import torch_seed
from tunesmith.tasks.base import Task
from tunesmith.training.footprint import Footprint
from tunesmith.training.loop import set_mode
from tunesmith.training.optimizers import STATE_BYTES
from tunesmith.training.source import FixedRows
from tunesmith.training.step import Objective
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

T = TypeVar("T")
SHORTEST = 8  # tokens below which no length limit is offered
# Times the memory that a batch takes at most: where so much is free on a CPU, its trial could tell nothing. With MiniLM on
# Banking77 it takes 0.4 to 0.55 CPU seconds, as long as three steps (docs/log.md).
AMPLE = 2.0


class TooLarge(TrainingError):
    """Not even the smallest micro-batch fits in memory."""


def fitting_micro_batch(
    network: Network,
    task: Task,
    plan: Plan,
    trunk: Trunk,
    source_of: Callable[[int], FixedRows],
    sizes: list[int],
    training: TrainingSpec,
    most: float | None = None,
) -> tuple[int, str]:
    """The first of `sizes` (descending) at which the longest batch fits in memory, and why it was not the first.

    It must fit beside what the optimizer will hold from the first step on, so that what passes here trains. most: bytes that
    the process may hold, where it has a limit of its own.

    Leaves no gradient behind and draws no random number that training will. Raises TooLarge, naming the sizes tried and
    the memory there is, when none fits; what is held before them, where that alone is beyond `most`.
    """
    held = resident_memory()
    if most is not None and network.sample.device.type == "cpu" and held >= most:
        raise TooLarge(
            f"limits.memory: {held / 1e9:.2f} GB are held before the first step, with the base and the rows read, and "
            f"{most / 1e9:.2f} are allowed; raise it"
        )
    set_mode(network, plan)
    room = _Room(network, task, trunk, source_of(sizes[0]), training, most)
    for size in sizes:
        source = source_of(size)
        if room.ample(source) or (room.holds(source) and _fits(network, task, trunk, source, training, most)):
            most_rows = len(source_of(sizes[0]).longest_rows)
            why = "the whole batch fits" if size == sizes[0] else f"{most_rows} rows at once did not fit in memory"
            if source.divides:
                why += f"; long texts in parts of up to {source.at_once:,} tokens"
            return size, why
        gc.collect()
    source = source_of(sizes[-1])
    batch = source.longest()
    text = "input_ids" in batch.inputs
    tokens = batch.tokens // len(batch.rows)
    kind = f"{tokens} tokens" if text else "pictures"
    shorter = "a smaller training.max_length or " if text else "a smaller "
    twice = ", activations computed twice" if training.checkpointing is True else ""
    recompute = "training.checkpointing=true, " if training.checkpointing is False and network.recomputable else ""
    base = any(value.requires_grad for name, value in network.named_parameters() if name not in network.fresh)
    less = ", or method=head" if base else ""
    raise TooLarge(
        f"out of memory: not even {len(batch.rows)} row(s) of {kind} fit{twice} "
        f"({_free(network, most)}{room.needed(source)}); set {recompute}{shorter}{training.at_once}{less}"
        f"{room.would_fit(source_of, batch, text)}"
    )


class _Room:
    """Whether a batch would fit on a CPU, told without running it; on a GPU, which says so itself, everything may try.

    A system hands out more memory than it has, and ends the process that writes to it: on a CPU nothing would raise.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        trunk: Trunk,
        source: FixedRows,
        training: TrainingSpec,
        most: float | None,
    ) -> None:
        self._network, self._task, self._trunk, self._training = network, task, trunk, training
        self._footprint: Footprint | None = None
        self._free = 0
        if network.sample.device.type == "cpu":
            self._free = free_memory(most)
            if self._reserved(source) <= self._free:  # else refused before a row is tried
                self._footprint = self._unless_full(
                    lambda: Footprint(self._pass, source.longest(), in_parts=network.lazy)
                )

    def holds(self, source: FixedRows) -> bool:
        footprint, rows = self._footprint, len(source.longest_rows)
        if footprint is None:
            return True
        room = self._free - self._reserved(source)
        return footprint.bound(rows) <= room or self._bytes(footprint, rows) <= room

    def ample(self, source: FixedRows) -> bool:
        """Whether it fits so well that running it would tell nothing: two of its rows have been, as long as the longest."""
        if self._footprint is None or process_limited():
            return False
        bound = self._footprint.bound(len(source.longest_rows)) + self._reserved(source)
        return AMPLE * bound <= self._free

    def needed(self, source: FixedRows) -> str:
        if self._footprint is None:
            return ""
        needed = self._bytes(self._footprint, len(source.longest_rows)) + self._reserved(source)
        return f", about {needed / 1e9:.1f} GB needed"

    def would_fit(self, source_of: Callable[[int], FixedRows], batch: Batch, text: bool) -> str:
        """What would fit in the place of `batch`: fewer rows of it, else a smaller length; "" where neither is known to."""
        if self._footprint is None:
            return ""
        key, by_tokens = self._training.at_once, self._training.at_once == "training.batch_tokens"
        tokens = batch.tokens // len(batch.rows)
        for rows in halvings(len(batch.rows))[1:]:
            if self.holds(source_of(rows)):
                return f"; {key}={rows * tokens if by_tokens else rows} would fit"
        one = source_of(1)
        room, texts = self._free - self._reserved(one), len(one.examples[one.longest_rows[0]].sides)
        for length in halvings(tokens // texts)[1:] if text else ():
            if length >= SHORTEST and self._bytes(self._footprint, length * texts / tokens) <= room:
                return f"; {key}={length * texts if by_tokens else 1} with training.max_length={length} would fit"
        return ""

    def _reserved(self, source: FixedRows) -> int:
        return _reserved_bytes(self._network, source, self._training)

    def _bytes(self, footprint: Footprint, rows: float) -> int:
        found = self._unless_full(lambda: footprint.bytes(rows))
        return 0 if found is None else found

    def _unless_full(self, work: Callable[[], T]) -> T | None:
        try:
            with torch_seed("preflight"):
                return work()
        except (RuntimeError, MemoryError) as error:  # the trial will tell
            if not out_of_memory(error):
                raise
            return None
        finally:
            self._network.zero_grad(set_to_none=True)

    def _pass(self, batch: Batch) -> None:
        learn(self._network, self._task, self._trunk, batch, self._training)
        self._network.zero_grad(set_to_none=True)


def learn(network: Network, task: Task, trunk: Trunk, batch: Batch, training: TrainingSpec, draw: int = 0) -> Tensor:
    """Forward and backward of a batch; where a step moves in backward, no gradient outlasts its parameter's turn.

    Gives the loss. What is drawn at random is another for each `draw`.
    """
    parameters = [value for value in network.parameters() if value.requires_grad and training.step_in_backward]
    hooks = [value.register_post_accumulate_grad_hook(_let_go) for value in parameters]
    try:
        loss = (
            Objective(task, lambda given: trunk.forward("train", given), training.r_drop).loss(batch, 0, draw, 0).total
        )
        loss.backward()
        return loss.detach()
    finally:
        for hook in hooks:
            hook.remove()


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None


def _fits(
    network: Network, task: Task, trunk: Trunk, source: FixedRows, training: TrainingSpec, most: float | None
) -> bool:
    reserved: list[Tensor] = []
    try:
        with torch_seed("preflight"):
            if network.sample.device.type == "cpu" and _reserved_bytes(network, source, training) > free_memory(most):
                raise MemoryError
            reserved += _reserve(network, source.several, training)
            learn(network, task, trunk, source.longest(), training)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        reserved.clear()
        network.zero_grad(set_to_none=True)
    return True


def _reserve(network: Network, several: bool, training: TrainingSpec) -> list[Tensor]:
    """Room for what training holds beside weights and activations: what the optimizer remembers of each parameter.

    A float32 gradient stands beside it while the next of `several` micro-batches runs, and where it is a copy of the
    network's own: see `Masters`. Not where a step moves in backward, which has one such copy at a time.
    """
    import torch

    return [
        torch.empty(_held(parameter, several, training), dtype=torch.uint8, device=parameter.device)
        for parameter in network.parameters()
        if parameter.requires_grad
    ]


def _reserved_bytes(network: Network, source: FixedRows, training: TrainingSpec) -> int:
    """What `_reserve` takes."""
    several = source.several
    return sum(_held(value, several, training) for value in network.parameters() if value.requires_grad)


def _held(parameter: Tensor, several: bool, training: TrainingSpec) -> int:
    import torch

    copied = (several or parameter.dtype != torch.float32) and not training.step_in_backward
    return int(parameter.numel() * (STATE_BYTES[training.optimizer] + (4 if copied else 0)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python means that memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return "can't allocate memory" in words or "out of memory" in words or "bad_alloc" in words


def _free(network: Network, most: float | None) -> str:
    import torch

    device = network.sample.device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory(most)
    limited = "" if most is None or device.type == "cuda" else f" of the {most / 1e9:.1f} that limits.memory allows"
    return f"{free / 1e9:.1f} GB of memory free{limited}"


def micro_batches(training: TrainingSpec, order: Order, given: int | str) -> list[int]:
    """The rows at once to be tried, the most first; `given`: a number of them, or "auto"."""
    if isinstance(given, int):
        return [given]
    whole = order.most_rows if training.batch_size is None else training.batch_size
    if training.step_in_backward:
        return [whole]
    if training.batch_size is not None:
        return halvings(whole)
    # A step of the longest rows has few of them: whatever has no fewer at once needs as much memory.
    return [whole, *(size for size in halvings(whole)[1:] if size < len(order.longest()))]


def halvings(size: int) -> list[int]:
    """size, size / 2, ... 1"""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes
