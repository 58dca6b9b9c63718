"""Blocks whose forwards are made by torch.compile, each apart, and stand in the place of their own while they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.models.unpadded import other_hooks

USUAL = "inductor"  # torch's backend
# Codes of a block that torch may keep: mode, mask or none, what takes a gradient and a size of 1 each ask for another, and
# all of these change while blocks wake one after another. By itself it stops at 8, and leaves the rest without a word.
MOST_FORMS = 32
LIMIT_HIT = ("FailOnRecompileLimitHit", "FailOnCacheLimitHit")  # the exception, and as torch 2.6 calls it


class CompiledBlocks:
    """One code serves all blocks of a class, and rows of any number and length.

    The forward of a block is swapped and not the block, so that names of parameters, hooks, and whatever else swaps forwards
    (models/replay.py) stay as they are. What cannot be compiled computes in its own way, and `why_not` says why: one block
    first, so that a step ends as it began, then all.
    """

    def __init__(self, blocks: Sequence[nn.Module], backend: str) -> None:
        torch.compiler.reset()  # torch counts the codes of all runs of a process together
        self.why_not, self._told = "", False
        self._made = [(block, _Forward(self, block, backend)) for block in blocks]

    def switch(self, on: bool) -> None:
        """Puts the compiled forwards in place, or the blocks' own ones."""
        for block, made in self._made:
            own = vars(block)
            if on and not self.why_not:
                own["forward"] = made
            elif own.get("forward") is made:
                del own["forward"]

    def news(self) -> str:
        """Once, why it is not gone on with, which is from then on so; else "". To be asked between steps."""
        news = "" if self._told else self.why_not
        self._told = bool(self.why_not)
        if news:
            self.switch(False)
        return news


class _Forward:
    def __init__(self, owner: CompiledBlocks, block: nn.Module, backend: str) -> None:
        from torch._dynamo import config

        self._inside = [part for part in block.modules() if part is not block]
        self._known = other_hooks(self._inside)
        self._owner, self._plain, self._given_up = owner, block.forward, False
        self._compiled = torch.compile(block.forward, dynamic=True, backend=backend)
        # The names of torch 2.6, which later ones know too.
        self._limits = config.patch({"cache_size_limit": MOST_FORMS, "fail_on_cache_limit_hit": True})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._given_up and other_hooks(self._inside) != self._known:  # which compiled code would pass by
            self._owner.why_not, self._given_up = "something was attached inside of a block", True
        if not self._given_up:
            try:
                with self._limits:
                    return self._compiled(*args, **kwargs)
            except Exception as error:
                self._owner.why_not, self._given_up = _why_not(error), True
        return self._plain(*args, **kwargs)


def _why_not(error: Exception) -> str:
    """Why a block was not compiled, in a line. Raises `error` itself where it is one of the code that ran."""
    from torch._dynamo import exc

    if isinstance(error, exc.TorchDynamoException):  # raised before the code would run
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {' '.join(lines[:2])}"[:200]
    if type(error).__name__ in LIMIT_HIT:
        return f"torch made {MOST_FORMS} codes of a block, and would have had to make one more"
    raise error
