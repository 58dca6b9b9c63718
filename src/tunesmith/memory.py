"""Memory: how much this process may still take, and what it need not keep."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NO_LIMIT = 1 << 60  # version 1 of control groups writes "none" as a number near 2**63


KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
FEW_KERNELS = "256"


class Container(NamedTuple):
    """The control group that leaves this process the least."""

    limit: int  # bytes
    free: int  # bytes, never below 0


def keep_few_kernels() -> None:
    """Lets oneDNN keep 256 kernels rather than 1,024, unless the environment says how many. To be called before it is used.

    It makes one for each shape of a matrix product, and texts have many lengths. Steps of MiniLM on Banking77 took 129 ms
    with 256 as with 1,024, and 139 ms with 16 or 64; the process 1,480, 1,560 and 1,370 MB (docs/log.md).
    """
    os.environ.setdefault(KERNELS, FEW_KERNELS)


@contextmanager
def importing() -> Iterator[None]:
    """For imports of large packages: inside, Python does not look for garbage, of which these leave little.

    It would go through all that was imported again and again, and did for a quarter of the time that torch and transformers
    take: 0.65 of 2.65 CPU seconds (docs/log.md). Afterwards what there is counts as old, and is gone through seldom.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else somebody has frozen objects, which stay so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()


def hand_back() -> None:
    """Hands freed memory back to the system, where the C library is one that keeps it (glibc: malloc_trim).

    Steps of many shapes leave gaps that the next phase, which reads the model once more, would not fill: of MiniLM on
    Banking77, its top two layers, the peak was 1,900 MB (docs/log.md).
    """
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: Windows
        return


def free_memory(most: float | None = None) -> int:
    """Bytes: the least of what the system has available, what the container's limit leaves, and what this process may take.

    most: bytes that it may hold in all, where it has such a limit of its own.
    """
    import psutil

    available = psutil.virtual_memory().available
    container = container_memory()
    found = available if container is None else min(available, container.free)
    return found if most is None else min(found, max(0, int(most) - resident_memory()))


def free_gpu_memory() -> int:
    """Bytes of the GPU that tensors of this process may take, with those that they have; only where torch sees a GPU."""
    import torch

    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()


def resident_memory() -> int:
    """Bytes of this process that are in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def process_limited() -> bool:
    """Whether this process alone may take less than the machine has (`ulimit -v`, `ulimit -d`), as on shared clusters.

    False where the system knows no such limits.
    """
    try:
        import resource
    except ImportError:  # Windows
        return False
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


def container_memory(root: Path = Path("/")) -> Container | None:
    """What control groups of version 2 or 1 allow this process; None where none of them sets a limit.

    A limit holds for everything below it, so every group from this process's own up to the top counts; inside a
    container its own group is often mounted as the top. Pages of files that were not used lately are handed back when
    memory runs short, so they count as free (https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.stat).
    """
    tree = root / "sys/fs/cgroup"
    found: list[Container] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        kinds, _, own = rest.partition(":")
        if number == "0" and kinds == "":
            top, names = tree, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top, names = tree / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in own.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            group = _group(top.joinpath(*parts[:depth]), names)
            if group is not None:
                found.append(group)
    return min(found, key=lambda group: group.free, default=None)


def _group(folder: Path, names: tuple[str, str, str]) -> Container | None:
    limit, used = (_text(folder / name).strip() for name in names[:2])
    if not (limit.isdigit() and used.isdigit()) or int(limit) >= NO_LIMIT:
        return None
    words = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    spare = words.get(names[2], "0").strip()
    busy = int(used) - (int(spare) if spare.isdigit() else 0)
    return Container(int(limit), max(0, int(limit) - max(0, busy)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
