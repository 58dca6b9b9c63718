"""What a process may still take, from control groups of either version as files, and from the system."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunesmith import memory
from tunesmith.cli import doctor
from tunesmith.memory import Container, container_memory, free_memory, hand_back, resident_memory

V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def _system(root: Path, own: str, groups: dict[str, tuple[str, str, str]], names: tuple[str, str]) -> Path:
    """`groups`: folder under the mount -> (limit, usage, memory.stat)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own, encoding="utf-8")
    for place, (limit, usage, stat) in groups.items():
        folder = root / "sys/fs/cgroup" / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((names[0], limit), (names[1], usage), ("memory.stat", stat)):
            (folder / name).write_text(f"{text}\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ("0::/\n", {"": ("1000", "300", "anon 5")}, Container(1000, 700)),
        ("0::/\n", {"": ("1000", "300", "anon 5\ninactive_file 200")}, Container(1000, 900)),
        ("0::/\n", {"": ("1000", "1300", "")}, Container(1000, 0)),
        ("0::/\n", {"": ("max", "300", "")}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
        # the tightest of a group and those above it
        ("0::/a/b\n", {"a/b": ("900", "100", ""), "a": ("1000", "700", "")}, Container(1000, 300)),
        ("0::/a/b\n", {"a/b": ("900", "100", ""), "a": ("max", "700", "")}, Container(900, 800)),
        # a path that is not there: the group is mounted as the top
        ("0::/../x\n", {"": ("1000", "400", "")}, Container(1000, 600)),
    ],
)
def test_version_2(own: str, groups: dict, expected: Container | None, tmp_path: Path) -> None:
    assert container_memory(_system(tmp_path, own, groups, V2)) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"memory": ("1000", "300", "inactive_file 7\ntotal_inactive_file 100")}, Container(1000, 800)),
        ({"memory": ("9223372036854771712", "300", "")}, None),
        ({"memory": ("9223372036854771712", "300", ""), "memory/docker/x": ("50", "20", "")}, Container(50, 30)),
        ({"cpu": ("1000", "300", "")}, None),
    ],
)
def test_version_1(groups: dict, expected: Container | None, tmp_path: Path) -> None:
    own = "5:cpu:/docker/y\n4:hugetlb,memory:/docker/x\n0::/\n"
    assert container_memory(_system(tmp_path, own, groups, V1)) == expected


@pytest.mark.parametrize(("container", "free"), [(None, 5000), (Container(9000, 8000), 5000), (Container(9, 2), 2)])
def test_free_is_the_smaller_of_the_two_and_doctor_says_the_same(
    container: Container | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5000, total=10_000))
    monkeypatch.setattr(memory, "container_memory", lambda: container)
    monkeypatch.setattr(doctor, "container_memory", lambda: container)
    assert free_memory() == free
    monkeypatch.setattr(memory, "resident_memory", lambda: 1_000)
    assert free_memory(1_500) == min(free, 500), "what it may take beside what it has"
    assert free_memory(900) == 0
    limit = None if container is None else container.limit
    assert doctor.memory() == {"total_bytes": 10_000, "free_bytes": free, "limit_bytes": limit}


def test_few_kernels_are_kept_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.KERNELS, "64")
    memory.keep_few_kernels()
    assert os.environ[memory.KERNELS] == "64"
    monkeypatch.delenv(memory.KERNELS)
    memory.keep_few_kernels()
    assert os.environ[memory.KERNELS] == memory.FEW_KERNELS


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep less, and hand back by themselves"
)
def test_freed_memory_between_what_is_held_is_handed_back() -> None:
    rows = [bytes(2_000) for _ in range(50_000)]
    kept = rows[::500]
    del rows
    before = resident_memory()
    hand_back()
    assert before - resident_memory() > 50e6 and len(kept) == 100


def test_where_the_c_library_keeps_nothing_there_is_nothing_to_hand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    hand_back()
