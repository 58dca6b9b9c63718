"""Jobs that are each to die by SIGKILL, in a fork of this process; for programs that stand beside this file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def each_dies(jobs: Iterable[dict[str, Any]], work: Callable[[dict[str, Any]], None]) -> None:
    """Does every job in a fork of its own, and ends the program with an error when one lives on."""
    for job in jobs:
        child = os.fork()
        if child == 0:
            try:
                work(job)
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"{job}: the run was not killed (status {status})")
