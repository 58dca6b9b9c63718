"""What the model said of every row, on disk as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.table import Table
from tunesmith.files import whole_file
from tunesmith.tasks.base import Prediction

if TYPE_CHECKING:
    import numpy as np


def write_predictions(
    path: Path,
    table: Table,
    texts: Sequence[str],
    truth: Sequence[str] | None,
    predictions: Sequence[Prediction],
    said: Mapping[str, list[Any]],
    each: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes one record a prediction, in row order, atomically.

    table: what the predictions' row numbers point into; texts: its columns that were read.
    truth: the true target of each prediction as text, in the order of `predictions`; None where it is not known.
    said: what `Task.columns` makes of the predictions, in the same order.
    each: `Scores.each` of them; NaN is written as empty.

    Columns: row, line (in the source file), text (and pair), truth, those of `said`, and "metric:NAME" of each. Raises
    ValueError when `truth` and `predictions` differ in length.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if truth is not None and len(truth) != len(predictions):
        raise ValueError(f"{len(truth)} true labels for {len(predictions)} predictions")
    order = sorted(range(len(predictions)), key=lambda index: predictions[index].row)
    rows = [predictions[index].row for index in order]
    columns = {
        "row": pa.array(rows, pa.int64()),
        "line": pa.array([table.lines[row] for row in rows], pa.int64()),
    }
    for name, column in zip(("text", "pair"), texts, strict=False):
        columns[name] = pa.array([storable(str(table.columns[column][row])) for row in rows], pa.string())
    known = [None] * len(order) if truth is None else [storable(truth[index]) for index in order]
    columns["truth"] = pa.array(known, pa.string())
    for name, values in said.items():
        kept = [_storable(values[index]) for index in order]
        evidence = name.startswith("p:") or name == "probability"
        single = pa.list_(pa.float32()) if kept and isinstance(kept[0], list) else pa.float32()
        columns[storable(name)] = pa.array(kept, single) if evidence else pa.array(kept)
    for name, measures in ({} if each is None else each).items():
        columns[storable(f"metric:{name}")] = pa.array(measures[order], pa.float32(), from_pandas=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        parquet.write_table(pa.table(columns), partial)


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {key: _storable(item) for key, item in value.items()}
    return storable(value) if isinstance(value, str) else value


def storable(text: str) -> str:
    """The text with lone surrogates (half an emoji, from a broken JSON escape) shown as "?": UTF-8 cannot hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")
