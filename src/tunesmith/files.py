"""Files and folders that are on the disk when a function returns, and never half of one under its own name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the name to write under: what is there when the block ends is then the file `path`, and on the disk.

    Where the block fails, `path` is as it was before. An OSError about the file names `path`. No two processes may write
    the same file at once.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.filename == str(partial):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            partial.unlink()
    sync_folder(path.parent)


def write_whole(path: Path, text: str) -> None:
    """The whole file or nothing, as UTF-8; when this returns it is on the disk."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Makes the folder, and those above it; when this returns they are on the disk."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for above in made:
        sync_folder(above.parent)


def sync_tree(folder: Path) -> None:
    """Puts every file below the folder, and their names, on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
