"""A data set of the Hugging Face hub, through the `datasets` library, which is an extra."""

from __future__ import annotations

import warnings
from typing import Any

from tunesmith.data.images import stored
from tunesmith.data.table import Table, from_records, shown
from tunesmith.errors import DataError, TunesmithWarning, did_you_mean

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


def read_hub(name: str) -> dict[str, Table]:
    """The train, validation and test splits of "owner/name", or "owner/name:configuration".

    Labels stored as class numbers come back as class names (-1, the hub's mark for "not given", as missing). Lines
    are row numbers. Warns with a TunesmithWarning of splits that are not read, such as "unsupervised". Raises DataError when
    `datasets` is not installed or the data set cannot be read.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f'{name}: there is no such file or folder; to read it as a hub data set, pip install "tunesmith[hub]"'
        ) from None
    path, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    # The library raises errors of many kinds, its own and those of its transports; each of them ends here.
    except Exception as error:
        raise DataError(
            f"{name}: there is no such file or folder, and the hub data set cannot be read ({shown(str(error), 300)}); "
            "check the name, write owner/name:configuration where it has several, and check the network"
        ) from None
    found = {SPLITS[split]: split for split in loaded if split in SPLITS}
    unread = [f"{split} ({len(loaded[split]):,} rows)" for split in loaded if split not in found.values()]
    if "train" not in found:
        raise DataError(f'{name}: the hub data set has no split called "train"; {did_you_mean("train", loaded)}')
    if unread:
        said = f"{name}: not read, being named neither train, validation nor test: {', '.join(unread)}"
        warnings.warn(said, TunesmithWarning, stacklevel=2)
    return {
        role: _table(_undecoded(loaded[split], datasets.Image), f"{name}/{split}", datasets.ClassLabel)
        for role, split in found.items()
    }


def _undecoded(rows: Any, image: type) -> Any:
    """Pictures as their bytes: a set of decoded ones would fill the memory."""
    for column in [column for column, feature in rows.features.items() if isinstance(feature, image)]:
        rows = rows.cast_column(column, image(decode=False))
    return rows


def _table(rows: Any, path: str, class_label: type) -> Table:
    records = [dict(record) for record in rows]
    for name in records[0] if records else ():
        for record, value in zip(records, stored([record[name] for record in records]), strict=True):
            record[name] = value
    table = from_records(records, path, range(1, len(records) + 1))
    for name, feature in rows.features.items():
        if isinstance(feature, class_label):
            names: list[str] = feature.names
            table.columns[name] = [
                None if value is None or value < 0 else names[value] for value in table.columns[name]
            ]
    return table
