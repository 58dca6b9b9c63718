"""Scores on disk: what a later comparison of runs needs of each example, without the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ArtifactError
from tunesmith.files import whole_file
from tunesmith.tasks.base import Metric, Scores

if TYPE_CHECKING:
    import numpy as np

SCORES = Path("predictions") / "test.safetensors"  # in a run's folder: the model's on the test rows
RIVALS = Path("predictions") / "rivals"  # and those of each baseline, a file by its name
COLUMN, COUNTED, EACH, GROUPS = "column:", "counted:", "each:", "groups"
STRATA = "strata"
SETS = ("shares", "lower", "other_scale")


def write_scores(path: Path, scores: Scores, strata: Sequence[int] | None = None) -> None:
    """One safetensors file, whole or not at all: every column, which rows each metric counts, measures of each row, and
    the group of each where they are in groups.

    strata: [examples] the class for which each was drawn, where they were drawn by class (`intervals.bootstrap`).
    """
    import numpy as np
    from safetensors.numpy import save

    named = {
        **{f"{COLUMN}{name}": values for name, values in scores.columns.items()},
        **{f"{COUNTED}{name}": rows for name, rows in scores.rows_of.items()},
        **{f"{EACH}{name}": values for name, values in scores.each.items()},
        **({} if scores.groups is None else {GROUPS: scores.groups}),
    }
    if strata is not None:
        named[STRATA] = np.asarray(strata, np.int64)
    about = {
        "primary": scores.primary,
        "metrics": list(scores.metrics),
        "written": dict(scores.written),
        **{name: sorted(of) for name, of in zip(SETS, (scores.shares, scores.lower, scores.other_scale), strict=True)},
    }
    content = save(
        {name: np.ascontiguousarray(values) for name, values in named.items()}, {"scores": json.dumps(about)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def read_scores(path: Path, functions: Callable[[Mapping[str, np.ndarray]], Mapping[str, Metric]]) -> Scores:
    """What `write_scores` wrote; `functions` gives the task's metrics for such columns.

    Raises ArtifactError where the file is not there or not whole, or holds a metric that the task does not know.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()["scores"])
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); it is written at the end of a run") from None

    def of(kind: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(kind): found for name, found in values.items() if name.startswith(kind)}

    columns = of(COLUMN)
    known = functions(columns)
    strange = [name for name in about["metrics"] if name not in known]
    if strange:
        raise ArtifactError(f"{path}: holds {', '.join(strange)}, which this version's task does not measure")
    shares, lower, other_scale = (frozenset(about[name]) for name in SETS)
    metrics = {name: known[name] for name in about["metrics"]}
    return Scores(
        columns, metrics, about["primary"], shares, lower, about["written"], of(COUNTED), other_scale, of(EACH),
        values.get(GROUPS),
    )  # fmt: skip


def read_strata(path: Path) -> np.ndarray | None:
    """[examples] the strata that were written with the scores; None where they were not drawn by class.

    Of a file that `read_scores` has read.
    """
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.get_tensor(STRATA) if STRATA in file.keys() else None  # noqa: SIM118
