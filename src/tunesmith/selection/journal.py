"""The study's file: whole lines, each with its number, one writer at a time; and locks that go with who held them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tunesmith.errors import ArtifactError

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

LINE = "line"  # what each one has beside Optuna's own: its number in the file, from 1
SHOWN = 60  # characters of a line that cannot be read


class FileLock:
    """A lock on a file that is this process's, until it is let go of or the process ends, however that is."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def let_go(self) -> None:
        self._file.close()


def take(path: Path, wait: bool = False) -> FileLock | None:
    """The lock on `path`, whose folder is there; None where another process, or another part of this one, has it."""
    import fcntl

    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return FileLock(file)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside, whoever else asks for `path` waits."""
    held = take(path, wait=True)
    try:
        yield
    finally:
        if held is not None:
            held.let_go()


def check_journal(path: Path) -> None:
    """Raises ArtifactError, naming each line, where the study's file holds anything else than a study, or not each line once.

    Optuna counts trials by their lines: were one gone, what follows would be noted of others. A last line without its end is
    none: a process was killed as it wrote it, see `mend`. Whole lines that are gone from the end are found by nobody; these
    trials are gone on with as after a kill.
    """
    if not path.exists():
        return
    *lines, _ = path.read_bytes().split(b"\n")
    wrong, moved = list[str](), ""
    for number, line in enumerate(lines, 1):
        try:
            plain = json.loads(line)
        except ValueError:
            plain = None
        if not (isinstance(plain, dict) and isinstance(plain.get("op_code"), int) and "worker_id" in plain):
            wrong.append(f"{path}:{number}: is no line of a study: {line[:SHOWN].decode('utf-8', 'replace')!r}")
        elif not moved and plain.get(LINE) != number:
            moved = (
                f"{path}:{number}: is line {plain.get(LINE)} of the study: some are gone, there twice or in another order; "
                "put back a copy of the file, or start another search with --out (what each trial did is in trials/)"
            )
    if wrong:
        more = [f"and {len(wrong) - 3} more such lines"] if len(wrong) > 3 else []
        raise ArtifactError(
            *wrong[:3],
            *more,
            f"{path}: is damaged, and was left as it is; put back a copy of it, or take the damaged lines out, or start "
            "another search with --out (what each trial did is in trials/)",
        )
    if moved:
        raise ArtifactError(moved)


def mend(path: Path) -> str:
    """Takes a last line away that was cut off, which no process relied on, and says so; "" where there is none.

    Only for who has the lock to write.
    """
    if not path.exists():
        return ""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return ""
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return ""
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        os.fsync(file.fileno())
    return f"{path}: its last line was cut off as a process was killed, and is taken away; nothing before it is lost"


@dataclass
class _Counted:
    """The lines of a file that only grows; what was read before is not read again."""

    path: Path
    lines: int = 0
    read: int = 0  # bytes

    def now(self) -> int:
        with self.path.open("rb") as file:
            file.seek(self.read)
            added = file.read()
        self.lines += added.count(b"\n")
        self.read += len(added)
        return self.lines


def append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Only for who has the lock to write."""
    with path.open("ab") as file:
        file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def journal(path: Path) -> JournalStorage:
    """Optuna's storage in a file, with numbered lines, and a lock that a killed process does not leave behind."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Numbered(JournalFileBackend):
        """Its own lock would be broken only half a minute after who held it was killed, or while a slow one still writes."""

        counted = _Counted(path)

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            with alone(path.with_name(f".{path.name}.lock")):
                mend(path)  # another process may have been killed since
                before = self.counted.now()
                append(path, [{**log, LINE: before + place} for place, log in enumerate(logs, 1)])

    return JournalStorage(Numbered(str(path)))
