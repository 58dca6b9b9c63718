"""Blocks whose forwards are made by torch.compile, each apart, and stand in the place of their own while they train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

USUAL = "inductor"  # torch's backend


class CompiledBlocks:
    """One code serves all blocks of a class, and rows of any number and length.

    The forward of a block is swapped and not the block, so that names of parameters, hooks, and whatever else swaps forwards
    (models/replay.py) stay as they are. What cannot be compiled computes in its own way, and `why_not` says why.
    """

    def __init__(self, blocks: Sequence[nn.Module], backend: str) -> None:
        torch.compiler.reset()  # torch keeps 8 codes a function, and these of all runs of a process would be counted together
        self.why_not, self._told = "", False
        self._made = [(block, _Forward(self, block.forward, backend)) for block in blocks]

    def switch(self, on: bool) -> None:
        """Puts the compiled forwards in place, or the blocks' own ones."""
        for block, made in self._made:
            own = vars(block)
            if on and not self.why_not:
                own["forward"] = made
            elif own.get("forward") is made:
                del own["forward"]

    def news(self) -> str:
        """Once, why it is not gone on with; else "" """
        news = "" if self._told else self.why_not
        self._told = bool(self.why_not)
        return news


class _Forward:
    def __init__(self, owner: CompiledBlocks, plain: Callable[..., Any], backend: str) -> None:
        self._owner, self._plain = owner, plain
        self._compiled = torch.compile(plain, dynamic=True, backend=backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        if not self._owner.why_not:
            try:
                return self._compiled(*args, **kwargs)
            except TorchDynamoException as error:  # raised before the code would run
                self._owner.why_not = _said(error)
        return self._plain(*args, **kwargs)


def _said(error: Exception) -> str:
    """The first lines that say something, as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:200]
