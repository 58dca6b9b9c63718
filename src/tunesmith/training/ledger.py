"""The run directory and its append-only events.jsonl."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ArtifactError, RecipeError
from tunesmith.files import make_folder, write_whole
from tunesmith.recipe import Derived, Recipe, read_recipe_file, yaml_text
from tunesmith.training.events import Event, event_from


def resume_command(folder: Path) -> str:
    """What to type to go on with a run, whatever its folder is called."""
    return f"tunesmith resume {shlex.quote(str(folder))}"


def taken(folder: Path) -> ArtifactError:
    """What to say where a new run is asked for in the folder of another one."""
    return ArtifactError(
        f"{folder}: already holds a run; give another --out, or go on with it: {resume_command(folder)}"
    )


@dataclass(frozen=True)
class Ledger:
    """One run's folder. Nothing in it is ever a pickle."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> Ledger:
        """A run's folder with its recipe: `at` and `begin` in one, for who has nothing to put between them."""
        ledger = cls.at(folder)
        ledger.begin(recipe)
        return ledger

    @classmethod
    def at(cls, folder: Path) -> Ledger:
        """Makes a new run's folder, still without a recipe. Raises ArtifactError as `begin` does."""
        if (folder / "recipe.yaml").exists():
            raise taken(folder)
        try:
            make_folder(folder)
        except OSError as error:
            raise _unwritable(folder, error) from None
        return cls(folder)

    def begin(self, recipe: Recipe) -> None:
        """Makes the folder a run. Raises ArtifactError when it already holds one, or cannot be written."""
        if (self.folder / "recipe.yaml").exists():
            raise taken(self.folder)
        try:
            write_whole(self.folder / "recipe.yaml", recipe.to_yaml())
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Raises ArtifactError when there is no run in the folder."""
        if not (folder / "recipe.yaml").is_file():
            raise ArtifactError(
                f"{folder}: is not a run (it has no recipe.yaml); give a folder that tunesmith train made"
            )
        return cls(folder)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, no other process can train in this folder; the system lets go of it even after kill -9.

        Raises ArtifactError, naming the process, where another one does; and where the folder cannot be written.
        """
        import fcntl

        try:
            lock = (self.folder / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"{self.folder}: cannot be written ({error}); check its permissions") from None
        with lock as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.seek(0)
                raise ArtifactError(
                    f"{self.folder}: is in use by process {held.read().strip()}; wait for it, or stop it first"
                ) from None
            held.truncate(0)
            held.write(f"{os.getpid()}\n")
            held.flush()
            self._end_torn_line()
            yield

    def _end_torn_line(self) -> None:
        """Ends a last line that a crash cut off, so that the next event does not become part of it."""
        path = self.folder / "events.jsonl"
        if path.exists() and path.stat().st_size > 0:
            with path.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def recipe(self) -> Recipe:
        """Raises ArtifactError when the file no longer says a valid recipe."""
        path = self.folder / "recipe.yaml"
        try:
            return Recipe.parse(read_recipe_file(path))
        except RecipeError as error:
            raise ArtifactError(*(f"{path}: {problem}" for problem in error.problems)) from None

    def append(self, event: Event) -> None:
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(event.to_plain()) + "\n")

    def events(self) -> Iterator[Event]:
        """Every event so far; a last line cut off by a crash is passed over."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield event_from(json.loads(line))
            except (ValueError, KeyError):
                continue

    def write_resolved(self, recipe: Recipe, derived: list[Derived]) -> None:
        """Every value the run used, with where it came from."""
        plain = {
            "recipe": recipe.to_plain(),
            "derived": {item.key: {"value": item.value, "why": item.why} for item in derived},
        }
        write_whole(self.folder / "resolved.yaml", yaml_text(plain))

    def resolved(self) -> dict[str, Any]:
        """Derived values by key, as `write_resolved` wrote them; empty before the run got that far."""
        path = self.folder / "resolved.yaml"
        if not path.exists():
            return {}
        try:
            return {key: item["value"] for key, item in read_recipe_file(path)["derived"].items()}
        except (RecipeError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from None

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_whole(self.folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def manifest(self) -> dict[str, Any]:
        """As `write_manifest` wrote it; empty where a run was killed before that. Raises ArtifactError when damaged."""
        path = self.folder / "manifest.json"
        if not path.exists():
            return {}
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damaged(path, error) from None
        if not isinstance(plain, dict):
            raise _damaged(path, TypeError("it holds no object"))
        return plain


def _unwritable(folder: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"{folder}: cannot be written ({error}); give another --out")


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: is damaged ({error}); restore it, or start a new run")
