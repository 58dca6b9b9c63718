"""How many threads a CPU computes with: as many as a short timing says are worth it."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunesmith.recipe import Derived

if TYPE_CHECKING:
    import torch

SET_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # whoever sets one of these has chosen
WORTH_IT = 1.1  # times as fast as with fewer threads: below, they cost their seconds for nothing
TURNS = 5  # of each number, in turns, after one that warms up
WIDEST = 1_024  # of the timed block: beyond, more of the same
TOKENS = 2**18  # over the width: 512 of them at 384 and 512, 256 at 1,024


@contextmanager
def threads_given_back() -> Iterator[None]:
    """Whatever torch computes with inside, it is what it was afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def settle_threads(
    asked: int | str, earlier: int | None, device: str, dtype: torch.dtype, width: int
) -> tuple[int, Derived | None]:
    """Sets how many threads torch computes with, from here on; and gives the reason where nobody asked for a number.

    earlier: how many a run that goes on had, whose sums come out the same with as many alone. Never more than torch has now
    where they are chosen: who lowered that, or its environment's variable, is taken at his word.
    """
    import torch

    most = torch.get_num_threads()
    if isinstance(asked, int):
        count, why = asked, ""
    elif earlier is not None and earlier <= _cores():
        count, why = earlier, "as its training was begun"
    elif device != "cpu":
        count, why = most, f"torch's own: {device} computes"
    elif most == 1:
        count, why = 1, "torch has no more here"
    elif given := next((name for name in SET_BY if os.environ.get(name)), None):
        count, why = most, f"as {given} says"
    else:
        count, why = chosen(timed(candidates(most), dtype, width))
    torch.set_num_threads(count)
    return count, Derived("training.threads", count, why) if why else None


def candidates(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most`."""
    doubled = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*doubled, most]


def chosen(times: dict[int, float]) -> tuple[int, str]:
    """The fewest that are about as fast as the best, and why. times: seconds by number of threads."""
    best = min(times.values())
    count = next(number for number in sorted(times) if times[number] <= WORTH_IT * best)
    said = ", ".join(f"{number}: {1e3 * seconds:.1f} ms" for number, seconds in sorted(times.items()))
    return count, f"the fewest that are about as fast as any here ({said} for a block)"


def timed(counts: list[int], dtype: torch.dtype, width: int) -> dict[int, float]:
    """Median seconds of one forward and backward of a feed-forward block, by the clock, with each number of threads.

    By the clock, so that what other programs take of the processor counts: with one of two cores taken, two threads that wait
    for each other are slower than one.
    """
    import torch

    width = min(width, WIDEST)
    rows = min(512, TOKENS // width)
    up = torch.full((4 * width, width), 0.01, dtype=dtype, requires_grad=True)
    down = torch.full((width, 4 * width), 0.01, dtype=dtype, requires_grad=True)
    states = torch.ones(rows, width, dtype=dtype, requires_grad=True)
    linear, gelu = torch.nn.functional.linear, torch.nn.functional.gelu
    found: dict[int, list[float]] = {count: [] for count in counts}
    with threads_given_back(), torch.enable_grad():
        for _ in range(TURNS + 1):
            for count in counts:
                torch.set_num_threads(count)
                begun = time.perf_counter()
                out = linear(gelu(linear(states, up)), down) + states
                torch.autograd.grad(out, (states, up, down), torch.ones_like(out))
                found[count].append(time.perf_counter() - begun)
    return {count: statistics.median(seconds[1:]) for count, seconds in found.items()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
