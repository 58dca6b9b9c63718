"""What a fitted estimator keeps of its run: a folder with a model, read when needed and pickled as bytes."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.predictor import Predictor


class KeptModel:
    """A saved model's folder. It is read at first use, and pickled as its files' bytes; an owned folder goes with it."""

    def __init__(self, folder: Path, device: str, owned: Path | None = None) -> None:
        self._folder: Path | None = folder
        self._device = device  # where it predicts, as `tunesmith.load` takes it
        self._files: dict[str, bytes] | None = None  # a copy's files, until they are unpacked
        self._predictor: Predictor | None = None
        if owned is not None:
            weakref.finalize(self, _remove, owned, os.getpid())

    def predictor(self) -> Predictor:
        """Raises ArtifactError when the folder is gone or damaged."""
        from tunesmith.predictor import load

        if self._predictor is None:
            self._predictor = load(self._unpacked(), self._device)
        return self._predictor

    def _unpacked(self) -> Path:
        if self._folder is None:
            assert self._files is not None
            home = Path(tempfile.mkdtemp(prefix="tunesmith-"))
            weakref.finalize(self, _remove, home, os.getpid())
            for name, content in self._files.items():
                path = home / "model" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._folder, self._files = home / "model", None
        return self._folder

    def __getstate__(self) -> dict[str, Any]:
        if self._folder is None:
            return {"files": self._files, "device": self._device}
        paths = sorted(path for path in self._folder.rglob("*") if path.is_file())
        files = {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in paths}
        return {"files": files, "device": self._device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._folder, self._files, self._predictor = None, state["files"], None
        self._device = state["device"]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process must not take the folder from its parent
        shutil.rmtree(folder, ignore_errors=True)
