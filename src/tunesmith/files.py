"""Files and folders that are on the disk when a function returns, and never half of one under its own name."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial-"
IN_USE = 60.0  # seconds since it was used, in which nothing is taken away: another process may be about to open it
GIVEN_UP = 86_400.0  # seconds without a write, after which half a file was left by a machine that is out of sight


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


def cache_folder() -> Path:
    """$TUNESMITH_CACHE, else tunesmith/ in $XDG_CACHE_HOME, else in ~/.cache: all in it can be deleted at any time."""
    own = os.environ.get("TUNESMITH_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunesmith"


def disk_free(folder: Path) -> int:
    """Bytes that are free where the folder stands, or will stand."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def own_partial(path: Path) -> Path:
    """A name beside `path` that no other writer uses, and that tells later whether its writer still lives."""
    return path.with_name(f"{PARTIAL}{platform.node()}-{os.getpid()}-{time.monotonic_ns():x}-{path.name}")


def clear_partials(folder: Path) -> None:
    """Takes away what dead writers left behind: see `own_partial`."""
    import psutil

    mine = f"{PARTIAL}{platform.node()}-"
    with suppress(OSError):
        for path in folder.glob(f"{PARTIAL}*"):
            process = path.name.removeprefix(mine).partition("-")[0] if path.name.startswith(mine) else ""
            with suppress(OSError):
                here = process.isdigit()
                if not psutil.pid_exists(int(process)) if here else time.time() - path.stat().st_mtime > GIVEN_UP:
                    _remove(path)


def evict(cache: Path, kept: Collection[Path], limit: int) -> None:
    """Takes away the entries of `cache`, files or folders, that were not used longest, until the rest takes `limit` bytes.

    Never any of `kept`, nor one that was used a moment ago, nor what is being written.
    """
    with suppress(OSError):
        entries = [path for path in cache.iterdir() if path not in kept and not path.name.startswith(PARTIAL)]
        used = {path: path.stat().st_mtime for path in entries}
        room = limit - sum(_size(path) for path in kept)
        for path in sorted(entries, key=lambda path: used[path], reverse=True):
            room -= _size(path)
            if room < 0 and time.time() - used[path] > IN_USE:
                _remove(path)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # where another process holds it open, on Windows
            path.unlink()
