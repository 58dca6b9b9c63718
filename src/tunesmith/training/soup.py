"""Averages of the states that a run was evaluated at: all of them, or those that bring something.

Wortsman 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference
time", section 2 and recipe 1; here over the states of one run, as stochastic weight averaging has it (Izmailov 2018).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.files import make_folder, whole_file

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.training.loop import Measured

NAMED = 6  # states of an average whose steps are listed
_FILE = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Ingredients:
    """The trained parameters at each evaluation, float32, as files of a folder; a resumed run finds those of before."""

    folder: Path

    def add(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the parameters as they are after `step`, whole or not at all."""
        from safetensors.torch import save_file

        make_folder(self.folder)
        with whole_file(self.folder / f"step-{step:08d}.safetensors") as partial:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)

    def steps(self) -> list[int]:
        """Of what is kept, ascending."""
        names = self.folder.iterdir() if self.folder.exists() else ()
        return sorted(int(found[1]) for path in names if (found := _FILE.fullmatch(path.name)))

    def load(self, step: int) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self.folder / f"step-{step:08d}.safetensors")

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def average(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor. `states` are of equal names, one or more, of which two are in memory at once."""
    total: dict[str, Tensor] = {}
    count = 0
    for count, state in enumerate(states, 1):
        for name, value in state.items():
            total[name] = value.clone() if count == 1 else total[name].add_(value)
    return {name: value / count for name, value in total.items()}


def uniform(ingredients: Ingredients) -> tuple[dict[str, Tensor], str]:
    """The average of all, which hold one at least, and what was done."""
    steps = ingredients.steps()
    return average(map(ingredients.load, steps)), _what(steps)


def greedy(
    ingredients: Ingredients, measure: Callable[[Mapping[str, Tensor]], Measured]
) -> tuple[dict[str, Tensor], str, str]:
    """The best state, and each other one that does not make the average worse on the validation rows: best ones first.

    Worse is a lower value, or the same value at a higher loss. Gives what it is of too, and all that was found.
    """
    steps = ingredients.steps()
    alone = {step: measure(ingredients.load(step)) for step in steps}
    ranked = sorted(steps, key=lambda step: (-alone[step].rank, alone[step].loss, -step))
    chosen, found = ranked[:1], ingredients.load(ranked[0])
    best = alone[ranked[0]]
    for step in ranked[1:]:
        added, count = ingredients.load(step), len(chosen)
        mixed = {name: (value * count + added[name]) / (count + 1) for name, value in found.items()}
        measured = measure(mixed)
        if (measured.rank, -measured.loss) >= (best.rank, -best.loss):
            chosen, found, best = [*chosen, step], mixed, measured
    what, top = _what(sorted(chosen)), ranked[0]
    said = f"{what}: {best.metric} {best.value:.4f} and loss {best.loss:.4f} on the validation rows"
    if len(chosen) > 1:
        one = alone[top]
        said += f"; the best of the {len(steps)} states alone, after {top:,} steps: {one.value:.4f} and {one.loss:.4f}"
    elif len(steps) > 1:
        said += f"; no average of the {len(steps)} states is better"
    return found, what, said


def stirred(
    found: Mapping[str, Tensor],
    others: Mapping[str, Callable[[], Mapping[str, Tensor]]],
    measure: Callable[[Mapping[str, Tensor]], Measured],
) -> tuple[Mapping[str, Tensor], list[str], Measured, Measured]:
    """`found`, averaged with each of the `others`, in their order, that makes the average better on the validation rows.

    Better is a higher value, or the same value at a lower loss (recipe 1 of Wortsman 2022, where the same is enough). An
    other with other tensors is passed over. Gives the names of those taken, what `found` measured, and what it became.
    """
    before = best = measure(found)
    taken = list[str]()
    for name, load in others.items():
        added, count = load(), len(taken) + 1
        if {key: value.shape for key, value in added.items()} != {key: value.shape for key, value in found.items()}:
            continue
        mixed = {key: (value * count + added[key].to(value.device)) / (count + 1) for key, value in found.items()}
        measured = measure(mixed)
        if (measured.rank, -measured.loss) > (best.rank, -best.loss):
            found, best, taken = mixed, measured, [*taken, name]
    return found, taken, before, best


def _what(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"the state after {steps[0]:,} steps alone"
    *first, last = (f"{step:,}" for step in steps)
    if len(steps) > NAMED:
        return f"the average of {len(steps)} states, after {first[0]} to {last} steps"
    return f"the average of the states after {', '.join(first)} and {last} steps"
