"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.files import whole_file, write_whole


def test_the_folder_s_names_are_synced_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    live = os.fsync

    def fsync(descriptor: int) -> None:
        live(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "a.json", "{}")
    assert [Path(path).name for path in synced] == [".partial-a.json", tmp_path.name]
    assert (tmp_path / "a.json").read_text() == "{}"


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "before")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and [item.name for item in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("above", ["missing", "file"])
def test_an_error_names_the_file_that_was_asked_for(above: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, and no folder")
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / above / "a.txt", "text")
    assert caught.value.filename == str(tmp_path / above / "a.txt") and "partial" not in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
