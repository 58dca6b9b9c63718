"""Which texts a run's model was trained on, kept as hashes: so that measuring it on them is said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tunesmith.data.audit import row_key
from tunesmith.data.encode import Text
from tunesmith.files import whole_file

FILE = "trained_on.parquet"


def write_seen(run: Path, texts: Iterable[Text]) -> None:
    """Writes one 64-bit hash for each training row into the run's folder, sorted, whole or not at all."""
    import pyarrow
    from pyarrow import parquet

    with whole_file(run / FILE) as partial:
        parquet.write_table(pyarrow.table({"row": pyarrow.array(sorted(map(_hash, texts)), pyarrow.uint64())}), partial)


def seen_line(run: Path, texts: Sequence[Text], swaps: bool = False) -> str:
    """How many of these rows the model was trained on, as one line; "" for none, and where the run does not know.

    With `swaps` also those of which it was trained on the two texts in the other order.
    """
    from pyarrow import parquet

    path = run / FILE
    if not path.is_file():
        return ""
    trained = set(parquet.read_table(path)["row"].to_pylist())
    found = sum(any(_hash(order) in trained for order in _orders(text, swaps)) for text in texts)
    if not found:
        return ""
    return (
        f"the model was trained on {found:,} of these {len(texts):,} rows, which flatters every figure; measure it on rows "
        "that it has not seen"
    )


def _orders(text: Text, swaps: bool) -> list[Text]:
    return [text, (text[1], text[0])] if swaps and not isinstance(text, str) and len(text) == 2 else [text]


def _hash(text: Text) -> int:
    key = row_key((text,) if isinstance(text, str) else text)
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
