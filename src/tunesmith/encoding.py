"""Rows of one split as numbers: in memory where they are not many, and unless they are few on disk, to be found again."""

from __future__ import annotations

import hashlib
import inspect
import json
import marshal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.encode import BadRows, Example, Text
from tunesmith.data.images import Picture
from tunesmith.data.stored import StoredExamples, can_store, in_parts, part_rows, stored, tidy
from tunesmith.data.words import Words
from tunesmith.errors import DataError
from tunesmith.files import cache_folder, disk_free
from tunesmith.memory import free_memory
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from tunesmith.models.processor import Processor

BETWEEN = b"\0"  # one text or target and the next, so that [1, 11] is not [11, 1]; `repr` writes none
FEW_ROWS = 50_000  # up to which a split stands in memory: 330 MB at 20 tokens a row, and a few seconds to make
# From which on such a split is kept on disk as well. 10,003 rows of Banking77 take 0.60 CPU seconds to encode, 0.14 to write
# and 0.12 to read back, so that the second run is ahead; of 2,000 rows it is by 0.03 (docs/log.md, "Encoded rows").
KEPT_ROWS = 5_000
FEW_PICTURES = 5_000  # 750 MB at 224x224 pixels
PICTURES_SHARE = 0.5  # of the free memory may hold pictures


def encode_split(
    task: Task, texts: Sequence[Text], truth: Sequence[Any], labels: Labels, processor: Processor, limit: int
) -> tuple[Sequence[Example], str]:
    """The examples of a split, and one line that says where they are kept; "" for those in memory.

    What is kept is found again by all that decides it: texts, targets, tokenizer, task with its code, and length limit.
    The tokenizer's own threads use every core. Raises BadRows with all rows that cannot be encoded.
    """
    whole = partial(_encoded, task, texts, truth, labels, processor, limit)
    few = len(texts) <= (FEW_PICTURES if processor.pictures else FEW_ROWS)
    if (few and (processor.pictures or len(texts) < KEPT_ROWS)) or not _can_store(task, whole):
        return _in_memory(whole, texts, processor), ""
    folder = cache_folder() / "encoded" / _key(task, texts, truth, labels, processor, limit)
    there = folder.is_dir()
    if not there and not _has_room(folder, texts, processor):
        return _in_memory(whole, texts, processor), f"kept in memory: {folder.parent} has no room for them"
    try:
        size = part_rows(processor.pictures)
        examples: Sequence[Example]
        if few:
            examples = _kept_too(folder, texts, whole, task)
        else:
            examples = stored(folder, texts, lambda: in_parts(whole, len(texts), size), task.example)
    except (OSError, OverflowError) as error:
        return _in_memory(whole, texts, processor), f"kept in memory: {folder.parent} cannot be written ({error})"
    total = sum(file.stat().st_size for file in folder.iterdir())
    return examples, f"{'read from' if there else 'kept in'} {folder} ({total / 1e6:,.0f} MB)"


def _kept_too(
    folder: Path, texts: Sequence[Text], whole: Callable[[int, int], list[Example]], task: Task
) -> list[Example]:
    """In memory, what `folder` holds; where it holds nothing yet, they are encoded and written. Raises OSError."""
    made: list[Example] = []

    def parts() -> Iterator[list[Example]]:
        made.extend(whole(0, len(texts)))
        yield made

    found = stored(folder, texts, parts, task.example)
    tidy(folder.parent, [folder])
    return made if made else list(found)


def _can_store(task: Task, whole: Callable[[int, int], list[Example]]) -> bool:
    try:
        return all(can_store(example, task.example) for example in whole(0, 2))
    except BadRows:
        return True  # said with those of all other rows


def _in_memory(
    whole: Callable[[int, int], list[Example]], texts: Sequence[Text], processor: Processor
) -> list[Example]:
    """Raises DataError for pictures that would fill it."""
    if processor.pictures and texts:
        needed, free = _picture_bytes(texts, processor), free_memory()
        if needed > PICTURES_SHARE * free:
            (size,) = processor.tokens(processor.encode(texts[0], processor.max_length)[0])
            raise DataError(
                f"{texts[0]} and on: {len(texts):,} pictures of {size} take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
                "of memory are free; give fewer, or choose a base of smaller pictures"
            )
    return whole(0, len(texts))


def _picture_bytes(texts: Sequence[Text], processor: Processor) -> int:
    first, _ = processor.encode(texts[0], processor.max_length)
    return len(texts) * sum(value.nbytes for value in first.values())


def _has_room(folder: Path, texts: Sequence[Text], processor: Processor) -> bool:
    """Whether pictures leave as much of the disk free as they take."""
    return not processor.pictures or 2 * _picture_bytes(texts, processor) <= disk_free(folder)


def tidy_cache(examples: Iterable[Sequence[Example]]) -> None:
    """Takes away what was kept earlier and not used for long, where there is too much of it; never that of `examples`."""
    kept = [part.folder for part in examples if isinstance(part, StoredExamples)]
    if kept:
        tidy(kept[0].parent, kept)


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
    try:
        return task.encode(texts[first:last], truth[first:last], labels, processor, limit)
    except OSError as error:  # a picture that went away meanwhile
        raise DataError(f"a row cannot be read any more ({error}); put its file back") from None


def _key(
    task: Task, texts: Sequence[Text], truth: Sequence[Any], labels: Labels, processor: Processor, limit: int
) -> str:
    digest = hashlib.sha256()
    plain: list[Any] = [__version__, code_of(type(task)), task.to_plain(), limit, processor.fingerprint()]
    plain += [labels.names, labels.center, labels.scale, labels.longest]
    digest.update(json.dumps(plain).encode("ascii"))
    for text in texts:
        # Of words also where they stand, since equal texts may have been given as other words; of pictures their pixels.
        within = text.bounds if isinstance(text, Words) else text.digest if isinstance(text, Picture) else None
        digest.update(repr((text, within)).encode("utf-8", "surrogatepass") + BETWEEN)
    digest.update(BETWEEN)
    for target in truth:
        digest.update(repr(target).encode("utf-8", "surrogatepass") + BETWEEN)
    return digest.hexdigest()[:32]


def code_of(kind: type[Task]) -> str:
    """sha256, in hex, of what turns rows of such a task into numbers: the files of its class and of the tasks it comes from,
    the package's `data` folder, and its reading of texts, conversations and pictures.

    A task with a dotted path changes without a new version, and so does the package while it is worked on. What such a
    task takes from further files of its own is not seen.
    """
    package, digest = Path(__file__).parent, hashlib.sha256()
    readers = [package / "models" / f"{name}.py" for name in ("text", "chat", "vision")]
    files = [*sorted((package / "data").rglob("*.py")), *readers]
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
