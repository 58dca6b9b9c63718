"""Rows of one split as numbers: in memory where they are few, else on disk, where the same rows are found again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.encode import Example, Text
from tunesmith.data.stored import can_store, in_parts, stored, tidy
from tunesmith.data.words import Words
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from tunesmith.models.processor import Processor

FEW_ROWS = 50_000  # up to which a split stands in memory: 330 MB at 20 tokens a row, and a few seconds to make


def encode_split(
    task: Task, texts: Sequence[Text], truth: Sequence[Any], labels: Labels, processor: Processor, limit: int
) -> tuple[Sequence[Example], str]:
    """The examples of a split, and one line that says where they are kept; "" for those in memory.

    What is kept is found again by all that decides it: texts, targets, tokenizer, task and length limit. The tokenizer's
    own threads use every core.
    """
    whole = partial(_encoded, task, texts, truth, labels, processor, limit)
    if len(texts) <= FEW_ROWS or not task.encodes_apart:
        return whole(0, len(texts)), ""
    if not all(can_store(example) for example in whole(0, 2)):
        return whole(0, len(texts)), ""
    folder = cache_folder() / "encoded" / _key(task, texts, truth, labels, processor, limit)
    there = folder.is_dir()
    try:
        examples = stored(folder, texts, lambda: in_parts(whole, len(texts)))
    except (OSError, OverflowError) as error:
        return whole(0, len(texts)), f"kept in memory: {folder.parent} cannot be written ({error})"
    tidy(folder.parent, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return examples, f"{'read from' if there else 'kept in'} {folder} ({size / 1e6:,.0f} MB)"


def cache_folder() -> Path:
    """$TUNESMITH_CACHE, else tunesmith/ in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("TUNESMITH_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunesmith"


def _encoded(
    task: Task,
    texts: Sequence[Text],
    truth: Sequence[Any],
    labels: Labels,
    processor: Processor,
    limit: int,
    first: int,
    last: int,
) -> list[Example]:
    return task.encode(texts[first:last], truth[first:last], labels, processor, limit)


def _key(
    task: Task, texts: Sequence[Text], truth: Sequence[Any], labels: Labels, processor: Processor, limit: int
) -> str:
    digest = hashlib.sha256()
    plain: list[Any] = [__version__, task.to_plain(), limit, processor.fingerprint()]
    plain += [labels.names, labels.center, labels.scale, labels.longest]
    digest.update(json.dumps(plain).encode("ascii"))
    for text in texts:  # of words also where they stand: equal texts may have been given as other words
        bounds = text.bounds if isinstance(text, Words) else None
        digest.update(repr((text, bounds)).encode("utf-8", "surrogatepass"))
    for target in truth:
        digest.update(repr(target).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
