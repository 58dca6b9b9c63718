"""The first minute: the longest real batch through forward and backward, so that what will not fit is refused there."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith.errors import TrainingError
from tunesmith.memory import free_memory
from tunesmith.methods.base import Plan
from tunesmith.seeds import torch_seed
from tunesmith.tasks.base import Task
from tunesmith.training.loop import set_mode
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network


def fitting_micro_batch(
    network: Network, task: Task, plan: Plan, trunk: Trunk, source_of: Callable[[int], FixedRows], sizes: list[int]
) -> tuple[int, str]:
    """The first of `sizes` (descending) at which the longest batch fits in memory, and why it was not the first.

    It must fit beside what the optimizer will hold from the first step on, so that what passes here trains.

    Leaves no gradient behind and draws no random number that training will. Raises TrainingError, naming the sizes
    tried and the memory there is, when none fits.
    """
    set_mode(network, plan)
    for size in sizes:
        if _fits(network, task, trunk, source_of(size)):
            why = "the whole batch fits" if size == sizes[0] else f"{sizes[0]} rows at once did not fit in memory"
            return size, why
        gc.collect()
    tokens = source_of(sizes[-1]).longest().inputs["input_ids"].shape[1]
    raise TrainingError(
        f"out of memory: not even {sizes[-1]} row(s) of {tokens} tokens fit ({_free(network)}); "
        "set training.checkpointing=true, a smaller training.max_length or training.micro_batch, or method=head"
    )


def _fits(network: Network, task: Task, trunk: Trunk, source: FixedRows) -> bool:
    reserved: list[Tensor] = []
    try:
        with torch_seed("preflight"):
            reserved += _reserve(network, several=source.micro_batch < source.order.batch_size)
            batch = source.longest()
            task.loss(trunk.forward("train", batch), batch).total.backward()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        reserved.clear()
        network.zero_grad(set_to_none=True)
    return True


def _reserve(network: Network, several: bool) -> list[Tensor]:
    """Room for what training holds beside weights and activations: two moments for each parameter that trains (AdamW).

    A float32 gradient stands beside them while the next of `several` micro-batches runs, and where it is a copy of the
    network's own: see `Masters`.
    """
    import torch

    reserved = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            tensors = 3 if several or parameter.dtype != torch.float32 else 2
            reserved.append(torch.empty(tensors, *parameter.shape, dtype=torch.float32, device=parameter.device))
    # A system hands out more memory than it has, and ends the process that writes to it: on a CPU nothing would raise.
    if network.output.weight.device.type == "cpu" and sum(tensor.nbytes for tensor in reserved) > free_memory():
        raise MemoryError
    return reserved


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python means that memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return "can't allocate memory" in words or "out of memory" in words or "bad_alloc" in words


def _free(network: Network) -> str:
    import torch

    device = network.output.weight.device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return f"{free / 1e9:.1f} GB of memory free"


def halvings(size: int) -> list[int]:
    """size, size / 2, ... 1"""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes
