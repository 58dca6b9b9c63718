"""Which works there are, what is wanted of each, and which of them run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OURS, DEFAULTS, TUNED = "ours", "defaults", "tuned"  # the parts that contenders play in a ratio
FURTHER = "further"  # measured and shown, in no ratio of the first table


@dataclass(frozen=True)
class Work:
    """One line of the first table. What is wanted: how many times our time the peer's should be; None where nobody said."""

    name: str
    said: str
    module: str  # of this package, with a function `measure`
    wanted_defaults: float | None = None
    wanted_tuned: float | None = None
    optional: bool = False  # takes so long that it runs only where --works names it


# What is wanted is what the project has set itself, on 2 cores with AMX.
WORKS = (
    Work("full", "full fine-tuning", "training", 6.0, 2.8),
    Work("exact", "full, training.exact (float32, batches at random)", "training", 2.0),
    Work("lora", "LoRA on all linear layers", "training", 5.0, 2.5),
    Work("layers", "top 2 of 6 layers", "training", 10.0, 4.0),
    Work("head", "head only", "training", 60.0, 25.0),
    Work("heads", "16 settings of the head", "heads", 250.0, 100.0),
    Work("prediction", "prediction", "prediction", 6.0, 1.4),
    Work("startup", "start to first step", "startup", 3.0),
    Work("scaling", "cost against work", "scaling"),
    Work("time_to_quality", "time to 92.5 % accuracy", "quality_time", 20.0, 8.0, optional=True),
)
NAMES = tuple(work.name for work in WORKS)
BY_DEFAULT = tuple(work.name for work in WORKS if not work.optional)


def chosen(names: Sequence[str]) -> list[Work]:
    """The works of these names, in the order of the table, each once. Raises KeyError for a name that is none."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise KeyError(", ".join(unknown))
    return [work for work in WORKS if work.name in names]
