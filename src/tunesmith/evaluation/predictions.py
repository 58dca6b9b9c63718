"""What the model said of every row, on disk as Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tunesmith.data.table import Table
from tunesmith.tasks.base import Prediction

WIDE = 50  # labels up to which each gets a column of its own
LABELS_KEY = "tunesmith.labels"  # in the file's metadata: the label names, as JSON, in the order of the probabilities


def write_predictions(
    path: Path,
    table: Table,
    text_column: str,
    truth: Sequence[str] | None,
    predictions: Sequence[Prediction],
    labels: tuple[str, ...],
) -> None:
    """Writes one record a prediction, in row order, atomically.

    table: what the predictions' row numbers point into.
    truth: the true label of each prediction, in the order of `predictions`; None where it is not known.

    Columns: row, line (in the source file), text, truth, label, probability (of that label), and "p:<label>" for
    each of up to 50 labels; with more, one list column "probabilities". The file's metadata holds the label names.
    Raises ValueError when `truth` and `predictions` differ in length.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if truth is not None and len(truth) != len(predictions):
        raise ValueError(f"{len(truth)} true labels for {len(predictions)} predictions")
    order = sorted(range(len(predictions)), key=lambda index: predictions[index].row)
    said = [predictions[index] for index in order]
    texts = table.columns[text_column]
    known = [None] * len(said) if truth is None else [storable(truth[index]) for index in order]
    columns = {
        "row": pa.array([item.row for item in said], pa.int64()),
        "line": pa.array([table.lines[item.row] for item in said], pa.int64()),
        "text": pa.array([storable(str(texts[item.row])) for item in said], pa.string()),
        "truth": pa.array(known, pa.string()),
        "label": pa.array([storable(item.label) for item in said], pa.string()),
        "probability": pa.array([max(item.probabilities) for item in said], pa.float32()),
    }
    if len(labels) <= WIDE:
        for place, label in enumerate(labels):
            values = [item.probabilities[place] for item in said]
            columns[f"p:{storable(label)}"] = pa.array(values, pa.float32())
    else:
        columns["probabilities"] = pa.array([list(item.probabilities) for item in said], pa.list_(pa.float32()))
    written = pa.table(columns).replace_schema_metadata({LABELS_KEY: json.dumps(list(labels))})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        parquet.write_table(written, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def storable(text: str) -> str:
    """The text with lone surrogates (half an emoji, from a broken JSON escape) shown as "?": UTF-8 cannot hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")
