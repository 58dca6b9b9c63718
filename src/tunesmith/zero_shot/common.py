"""What the rivals of the untouched base share: when there is none, and how what one says becomes its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.memory import free_memory
from tunesmith.preparing import Prepared
from tunesmith.tasks.base import Labels, Prediction, Scores
from tunesmith.tasks.few_shot import spoken_name

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone

MEMORY_SHARE = 0.5  # of the free memory that the base, read once more, may take


def check_room(backbone: Backbone) -> None:
    """Raises ModelError where the base, read once more, would take too much of this machine's memory."""
    needed, free = 4 * sum(value.numel() for value in backbone.module.parameters()), free_memory()
    if needed > MEMORY_SHARE * free:
        raise ModelError(f"read once more it takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


def unspoken(names: Sequence[str]) -> str:
    """Why the labels cannot be asked about by their names; "" where they can."""
    strange = next((name for name in names if not spoken_name(name)), None)
    return "" if strange is None else f'not all labels are words, such as "{strange}"'


def scored(
    prepared: Prepared, labels: Labels, found: Sequence[Prediction], held: Sequence[Prediction] | None
) -> Scores:
    """Of what a rival says of the test rows.

    held: what it says of the validation rows, by which is settled what the task settles on them; None to settle nothing.
    """
    task = prepared.task
    if held is not None:
        labels = task.settle(held, prepared.truth("validation"), labels)
    return task.score(task.restate(found, labels), prepared.truth("test"), labels)
