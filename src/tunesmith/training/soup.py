"""Averages of the states that a run was evaluated at: all of them, or those that bring something.

Wortsman 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference
time", section 2 and recipe 1; here over the states of one run, as stochastic weight averaging has it (Izmailov 2018).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.training.loop import Measured

_FILE = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Ingredients:
    """The trained parameters at each evaluation, float32, as files of a folder; a resumed run finds those of before."""

    folder: Path

    def add(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the parameters as they are after `step`, whole or not at all."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / ".partial.safetensors"
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
        partial.rename(self.folder / f"step-{step:08d}.safetensors")

    def steps(self) -> list[int]:
        """Of what is kept, ascending."""
        names = self.folder.iterdir() if self.folder.exists() else ()
        return sorted(int(found[1]) for path in names if (found := _FILE.fullmatch(path.name)))

    def load(self, step: int) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self.folder / f"step-{step:08d}.safetensors")

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor. `states` are of equal names, one or more."""
    first, *others = states
    return {
        name: sum((other[name] for other in others), start=value.clone()) / len(states) for name, value in first.items()
    }


def uniform(ingredients: Ingredients) -> tuple[dict[str, Tensor], str]:
    """The average of all, which hold one at least, and what was done."""
    steps = ingredients.steps()
    return average([ingredients.load(step) for step in steps]), f"average of the states after {_said(steps)} steps"


def greedy(
    ingredients: Ingredients, measure: Callable[[Mapping[str, Tensor]], Measured]
) -> tuple[dict[str, Tensor], str]:
    """The best state, and each other one that does not make the average worse on the validation rows: best ones first.

    Worse is a lower value, or the same value at a higher loss.
    """
    steps = ingredients.steps()
    alone = {step: measure(ingredients.load(step)) for step in steps}
    ranked = sorted(steps, key=lambda step: (-alone[step].rank, alone[step].loss, -step))
    chosen, found = ranked[:1], ingredients.load(ranked[0])
    best = alone[ranked[0]]
    for step in ranked[1:]:
        mixed = average([ingredients.load(kept) for kept in (*chosen, step)])
        measured = measure(mixed)
        if (measured.rank, -measured.loss) >= (best.rank, -best.loss):
            chosen, found, best = [*chosen, step], mixed, measured
    each = ", ".join(f"{step}: {alone[step].value:.4f}, {alone[step].loss:.4f}" for step in steps)
    what = "average of the states" if len(chosen) > 1 else "no average is better than the one state"
    return found, (
        f"{what} after {_said(sorted(chosen))} steps: {best.metric} {best.value:.4f} and loss {best.loss:.4f} on the "
        f"validation rows (alone, by step: {each})"
    )


def _said(steps: Sequence[int]) -> str:
    return ", ".join(f"{step:,}" for step in steps)
