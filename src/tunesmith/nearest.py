"""The nearest training rows by what the untouched base makes of them, as a rival."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Example, unit_rows, unit_targets, windows
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.verdict import NEIGHBOURS
from tunesmith.evaluation.voting import votes
from tunesmith.preparing import Prepared
from tunesmith.seeds import seed_of
from tunesmith.tasks.base import OutputTask, Prediction

if TYPE_CHECKING:
    from torch import Tensor

COUNTS = (1, 5, 15)  # of neighbours, of which validation rows choose
LIKELY = 5  # neighbours where there are no validation rows (scikit-learn's default)
MOST_PRODUCTS = 1e11  # training units times units asked about times width: about three CPU seconds


def neighbours(
    prepared: Prepared, features: Mapping[str, Tensor], splits: Mapping[str, Sequence[Example]], seed: int
) -> tuple[Baseline | None, str]:
    """The rival on the test rows, or why there is none; "" where there is nothing to say.

    features: split -> [units, width], of "train", "test" and, where there are any, "validation" rows.
    """
    task, truth = prepared.task, {split: prepared.truth(split) for split in ("validation", "test")}
    if not isinstance(task, OutputTask):
        return None, ""
    begun = time.perf_counter()
    held = "validation" in features
    asked = ("validation", "test") if held else ("test",)
    known, values = features["train"], unit_targets(splits["train"])
    room = int(MOST_PRODUCTS / (known.shape[1] * sum(len(features[split]) for split in asked)))
    few = ""
    if room < len(known):
        if windows(splits["train"]):  # a tag that few words have would be gone from a part of them
            return (
                None,
                f"the nearest training words are not compared with: {len(known):,} of them are too many to search",
            )
        room = max(room, COUNTS[-1])
        taken = sorted(random.Random(seed_of(seed, "neighbours")).sample(range(len(known)), min(room, len(known))))
        few, known, values = f", of {len(taken):,} of the {len(known):,}", known[taken], values[taken]
    counts = COUNTS if held else (LIKELY,)
    outputs = len(prepared.labels.names)
    found = {split: votes(known, values, features[split], counts, outputs) for split in asked}

    def told(split: str, count: int) -> list[Prediction]:
        evidence = found[split][count].tolist()
        said = task.predictions(evidence, unit_rows(splits[split]), prepared.labels)
        return task.whole(said, windows(splits[split]), prepared.labels)

    chosen, labels = min(found["test"]), prepared.labels
    if held:
        best = float("-inf")
        for count in found["validation"]:
            seen = told("validation", count)
            settled = task.settle(seen, truth["validation"], prepared.labels)
            scores = task.score(task.restate(seen, settled), truth["validation"], settled)
            value = scores.value() * (-1 if scores.primary in scores.lower else 1)
            if value > best:
                best, chosen, labels = value, count, settled
    scores = task.score(task.restate(told("test", chosen), labels), truth["test"], labels)
    unit = "word" if windows(splits["train"]) else "row"
    which = f"the {chosen} nearest training {unit}s" if chosen > 1 else f"the nearest training {unit}"
    return Baseline(NEIGHBOURS, f"{which} by the frozen features{few}", scores, time.perf_counter() - begun), ""
