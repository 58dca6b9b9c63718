"""A frozen prefix that grows shorter while blocks wake one after another: kept anew for each cut that lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch, Example
from tunesmith.training.shelf import NOWHERE, Shelf
from tunesmith.training.trunk import Live, Trunk, plan_trunk

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.methods.base import Plan
    from tunesmith.models.network import Network

WORTH_IT = 2.0  # epochs that a cut must last: keeping what leaves it takes one pass over the rows


def worth_it(cache: str) -> float:
    """Epochs that a cut must last to be kept: any whole one where that was asked for."""
    return 1.0 if cache in ("memory", "disk") else WORTH_IT


def lasting(plan: Plan, epochs: float, cache: str) -> bool:
    """Whether some cut of the plan lasts so long, in a run of so many epochs."""
    ends = [*(stage.start for stage in plan.stages[1:]), 1.0]
    return any(
        stage.cut > 0 and (end - stage.start) * epochs >= worth_it(cache)
        for stage, end in zip(plan.stages, ends, strict=True)
    )


class Moving(Trunk):
    """Another trunk for each cut."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        splits: Mapping[str, Sequence[Example]],
        cache: str,
        pad: dict[str, int],
        shelf: Shelf = NOWHERE,
    ) -> None:
        self._network, self._plan, self._splits, self._cache, self._pad = network, plan, splits, cache, pad
        self._shelf = shelf
        self._now: Trunk = Live(network, "nothing kept before the first step")
        self._worth = worth_it(cache)
        self.why = (
            f"what is frozen is kept where its cut lasts {self._worth:g} epochs or more, as blocks wake one by one"
        )

    def enter(self, cut: int, epochs: float) -> None:
        self._now = Live(self._network, "")  # what was kept goes before its successor comes
        if cut > 0 and epochs >= self._worth:
            plan = replace(self._plan, cut=cut)
            self._now = plan_trunk(self._network, plan, self._splits, self._cache, self._pad, self._shelf)

    @property
    def now(self) -> Trunk:
        """The trunk of the present cut."""
        return self._now

    def forward(self, split: str, batch: Batch) -> Tensor:
        return self._now.forward(split, batch)

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        return self._now.features(split, examples, pad)
