"""Checkpoints: atomic, verified, the last two and the best kept, a full disk survived."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import ArtifactError, TrainingError
from tunesmith.training.state import Carry, Checkpoints, State


def _state(step: int, best: int = 0, size: int = 8) -> State:
    import torch

    draw = torch.Generator().manual_seed(step)
    tensors = {
        "parameter/a.weight": torch.randn(size, 4, generator=draw),
        "optimizer/step/a": torch.tensor(float(step)),
    }
    return State(step, tensors, Carry(best_value=0.5, best_step=best, evaluated=step))


def _same(found: State, expected: State) -> bool:
    import torch

    names = found.tensors.keys() == expected.tensors.keys()
    return (
        names
        and found.step == expected.step
        and found.carry == expected.carry
        and all(torch.equal(value, expected.tensors[name]) for name, value in found.tensors.items())
    )


def test_round_trip_and_what_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    for step in (0, 5, 10, 15, 20):
        checkpoints.save(_state(step, best=min(step, 5)))
    assert checkpoints.steps() == [5, 15, 20]
    found, damaged = checkpoints.load()
    assert damaged == [] and _same(found, _state(20, best=5))
    assert _same(checkpoints.load_step(5), _state(5, best=5))
    assert sorted(item.name for item in checkpoints.folder.iterdir()) == [
        "step-00000005",
        "step-00000015",
        "step-00000020",
    ]


def test_a_second_save_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(3, best=0))
    checkpoints.save(_state(3, best=3))
    assert checkpoints.load()[0].carry.best_step == 3
    assert [item.name for item in tmp_path.iterdir()] == ["step-00000003"]


def test_what_else_lies_in_the_folder_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(1))
    for name in ("step-00000001.bak", "step-old", ".partial-old-mine"):
        (tmp_path / name).mkdir()
    assert checkpoints.steps() == [1]
    assert _same(checkpoints.load()[0], _state(1))
    checkpoints.save(_state(2))
    assert checkpoints.steps() == [1, 2] and (tmp_path / "step-00000001.bak").exists()


def test_names_are_on_the_disk_before_what_relies_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's own entries are synced before its rename, and the rename after it; new folders above as well."""
    done: list[tuple[str, Path]] = []
    live_sync, live_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        live_sync(descriptor)
        done.append(("synced", Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path)))

    def replace(source: Any, target: Any) -> None:
        live_replace(source, target)
        done.append(("renamed", Path(target).relative_to(tmp_path)))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    Checkpoints(tmp_path / "run" / "checkpoints").save(_state(7))
    partial, renamed = Path("run/checkpoints/.partial-00000007"), ("renamed", Path("run/checkpoints/step-00000007"))
    order = [done.index(("synced", partial / name)) for name in ("state.json", "state.safetensors", "manifest.json")]
    order += [done.index(("synced", partial)), done.index(renamed), len(done) - 1]
    assert order == sorted(order) and done[-1] == ("synced", Path("run/checkpoints"))
    assert {("synced", Path(".")), ("synced", Path("run"))} <= set(done[: order[0]]), "the folders that were made"


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["one byte", "cut", "gone", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(file: str, damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(_state(step))
    path = tmp_path / "step-00000002" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"one byte": changed, "cut": content[:middle], "empty": b""}[damage])
    found, damaged = checkpoints.load()
    assert _same(found, _state(1))
    assert len(damaged) == 1 and "step-00000002" in damaged[0] and "going back" in damaged[0]


def test_a_manifest_that_vouches_for_nothing_is_damage(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(_state(step))
    (tmp_path / "step-00000002" / "manifest.json").write_text("{}", encoding="utf-8")
    found, damaged = checkpoints.load()
    assert found.step == 1 and len(damaged) == 1


def test_no_whole_checkpoint_is_an_error_that_names_each(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ArtifactError, match="holds no checkpoint"):
        checkpoints.load()
    for step in (1, 2):
        checkpoints.save(_state(step))
        (tmp_path / f"step-{step:08d}" / "state.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError) as found:
        checkpoints.load()
    assert len(found.value.problems) == 3 and "no checkpoint is whole" in found.value.problems[-1]


def test_a_newer_version_is_not_read(tmp_path: Path) -> None:
    import hashlib

    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(_state(1))
    plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    text = json.dumps({**plain, "version": 99})
    (folder / "state.json").write_text(text, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["state.json"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match="version 99"):
        checkpoints.load_step(1)


@pytest.mark.parametrize("call", ["save_file", "fsync", "replace"])
def test_a_full_disk_leaves_the_last_good_one(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(4))

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {"save_file": "safetensors.torch.save_file", "fsync": "os.fsync", "replace": "os.replace"}[call]
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(TrainingError, match=r"disk is full.*step 4 is intact"):
            checkpoints.save(_state(8))
    assert [item.name for item in tmp_path.iterdir()] == ["step-00000004"]
    assert _same(checkpoints.load()[0], _state(4))
    checkpoints.save(_state(8))
    assert checkpoints.steps() == [4, 8]


def test_a_second_save_that_fails_brings_the_first_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(_state(4))
    live = os.replace

    def fails_at_the_last(source: Any, target: Any) -> None:
        if Path(source).name == ".partial-00000004":
            raise OSError(errno.EIO, "Input/output error")
        live(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails_at_the_last)
        with pytest.raises(TrainingError, match="cannot be written"):
            checkpoints.save(_state(4, best=4))
    assert _same(checkpoints.load()[0], _state(4))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system; the simulated full disk is tried above")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "checkpoints")
    checkpoints.save(_state(1, size=100))
    with pytest.raises(TrainingError, match=r"disk is full.*step 1 is intact"):
        checkpoints.save(_state(2, size=8000))
    assert checkpoints.steps() == [1] and not list(checkpoints.folder.glob(".partial*"))
    assert _same(checkpoints.load()[0], _state(1, size=100))
