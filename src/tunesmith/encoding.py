"""Rows of one split as numbers: in memory where they are few, else on disk, where the same rows are found again."""

from __future__ import annotations

import hashlib
import inspect
import json
import marshal
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.encode import Example, Text
from tunesmith.data.stored import can_store, in_parts, stored, tidy
from tunesmith.data.words import Words
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from tunesmith.models.processor import Processor

BETWEEN = b"\0"  # one text or target and the next, so that [1, 11] is not [11, 1]; `repr` writes none
FEW_ROWS = 50_000  # up to which a split stands in memory: 330 MB at 20 tokens a row, and a few seconds to make


def encode_split(
    task: Task, texts: Sequence[Text], truth: Sequence[Any], labels: Labels, processor: Processor, limit: int
) -> tuple[Sequence[Example], str]:
    """The examples of a split, and one line that says where they are kept; "" for those in memory.

    What is kept is found again by all that decides it: texts, targets, tokenizer, task with its code, and length limit.
    The tokenizer's own threads use every core.
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
    plain: list[Any] = [__version__, code_of(type(task)), task.to_plain(), limit, processor.fingerprint()]
    plain += [labels.names, labels.center, labels.scale, labels.longest]
    digest.update(json.dumps(plain).encode("ascii"))
    for text in texts:  # of words also where they stand: equal texts may have been given as other words
        bounds = text.bounds if isinstance(text, Words) else None
        digest.update(repr((text, bounds)).encode("utf-8", "surrogatepass") + BETWEEN)
    digest.update(BETWEEN)
    for target in truth:
        digest.update(repr(target).encode("utf-8", "surrogatepass") + BETWEEN)
    return digest.hexdigest()[:32]


def code_of(kind: type[Task]) -> str:
    """sha256, in hex, of what turns rows of such a task into numbers: the files of its class and of the tasks it comes from,
    the package's `data` folder, and its reading of texts.

    A task with a dotted path changes without a new version, and so does the package while it is worked on. What such a
    task takes from further files of its own is not seen.
    """
    package, digest = Path(__file__).parent, hashlib.sha256()
    files = [*sorted((package / "data").rglob("*.py")), package / "models" / "text.py"]
    parts = [part for part in kind.__mro__ if issubclass(part, Task)]
    for content in (*map(_source, parts), *map(_content, files)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _source(kind: type) -> bytes:
    """The file that a class stands in; of one without a file, as typed into a notebook, its compiled functions."""
    try:
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):  # Python has said it by the one and by the other
        file = None
    if found := _content(Path(file)) if file is not None else b"":
        return found
    return b"".join(marshal.dumps(part.__code__) for part in vars(kind).values() if isinstance(part, FunctionType))


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a package without its sources
        return b""
