"""Everything that changes during a run, saved atomically and loaded only when whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ArtifactError, TrainingError
from tunesmith.files import make_folder, sync_folder

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
_ASIDE = ".partial-old-"
_FILES = ("state.safetensors", "state.json")  # what the manifest vouches for
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Carry:
    """What choosing and stopping remember from one evaluation to the next."""

    best_value: float | None = None  # the highest so far
    best_step: int = 0  # of the state to keep: see `loop.judged`
    reference: float | None = None  # the value that the next gain is measured from
    lowest_loss: float | None = None  # the validation loss that the next fall is measured from
    without_gain: int = 0
    evaluated: int = -1  # step of the last evaluation


@dataclass
class State:
    """Randomness and order are functions of (seed, step), so they need no saving."""

    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    carry: Carry = Carry()


class Checkpoints:
    """The checkpoint folder of one run: the last two and the best are kept, and each is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: State) -> Path:
        """Writes to a temporary name, syncs, and renames. Raises TrainingError when the disk is full; the checkpoints
        that were there stay as they were."""
        from safetensors.torch import save_file

        final = self.folder / f"step-{state.step:08d}"
        partial = self.folder / f".partial-{state.step:08d}"
        try:
            make_folder(self.folder)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_file(
                {name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors.items()},
                partial / "state.safetensors",
            )
            write_synced(
                partial / "state.json",
                json.dumps({"version": VERSION, "step": state.step, "carry": asdict(state.carry)}, indent=2),
            )
            manifest = {name: sha256_of(partial / name, sync=True) for name in _FILES}
            write_synced(partial / "manifest.json", json.dumps(manifest, indent=2))
            sync_folder(partial)  # the names of the files in it, before the name that says they are there
            if final.exists():  # a second save of the same step, on stopping right after an evaluation
                os.replace(final, self.folder / f"{_ASIDE}{state.step:08d}")
            os.replace(partial, final)
            sync_folder(self.folder)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            self.recover()
            raise self._explained(error) from error
        self._remove_old(state.carry.best_step)
        return final

    def load(self) -> tuple[State, list[str]]:
        """The newest whole checkpoint, and a line for each damaged one passed over. Raises ArtifactError if none is."""
        self.recover()
        skipped = []
        for step in reversed(self.steps()):
            try:
                return self.load_step(step), skipped
            except ArtifactError as error:
                skipped += [f"{problem}; going back to the one before it" for problem in error.problems]
        if skipped:
            raise ArtifactError(*skipped, f"{self.folder}: no checkpoint is whole; start the run again")
        raise ArtifactError(f"{self.folder}: holds no checkpoint; start the run again")

    def load_step(self, step: int) -> State:
        """Raises ArtifactError when the checkpoint is not whole, or of a version this release cannot honour."""
        from safetensors.torch import load_file

        folder = self.folder / f"step-{step:08d}"
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            for name in _FILES:
                if sha256_of(folder / name) != manifest[name]:
                    raise ArtifactError(f"{folder / name}: is damaged (its sha256 is not the one in manifest.json)")
            plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if plain["version"] != VERSION:
                raise ArtifactError(f"{folder}: is of version {plain['version']}, and this release reads {VERSION}")
            return State(plain["step"], load_file(folder / "state.safetensors"), Carry(**plain["carry"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: is damaged ({error})") from error

    def recover(self) -> None:
        """Puts back a checkpoint that was moved aside for a newer one of the same step, which never came."""
        for aside in self.folder.glob(f"{_ASIDE}*"):
            final = self.folder / f"step-{aside.name.removeprefix(_ASIDE)}"
            if _STEP.fullmatch(final.name) and not final.exists():
                os.replace(aside, final)

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending; what else lies in the folder (a copy that somebody made) is none."""
        return sorted(int(found[1]) for item in self.folder.glob("step-*") if (found := _STEP.fullmatch(item.name)))

    def _remove_old(self, best: int) -> None:
        steps = self.steps()
        for step in set(steps) - set(steps[-2:]) - {best}:
            shutil.rmtree(self.folder / f"step-{step:08d}")
        for leftover in self.folder.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _explained(self, error: Exception) -> Exception:
        if not disk_full(error):
            return (
                error
                if not isinstance(error, OSError)
                else TrainingError(
                    f"{self.folder}: the checkpoint cannot be written ({error}); put it right, then resume the run"
                )
            )
        steps = self.steps() if self.folder.exists() else []
        kept = f"the checkpoint of step {steps[-1]} is intact" if steps else "no checkpoint had been written yet"
        return TrainingError(
            f"{self.folder}: the disk is full, so the checkpoint could not be written; {kept}; free some space, then "
            "resume the run"
        )


def disk_full(error: BaseException) -> bool:
    """Whether an exception means that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors reports it as an error of its own, with the system's words in it
    return "No space left" in str(error) or "os error 28" in str(error)


def write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())


def sha256_of(path: Path, sync: bool = False) -> str:
    """Hexadecimal digest of a file; with `sync`, the file is on the disk when this returns."""
    with path.open("rb") as data:
        if sync:
            os.fsync(data.fileno())
        return hashlib.file_digest(data, "sha256").hexdigest()
