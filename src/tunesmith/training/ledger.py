"""The run directory and its append-only events.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ArtifactError, RecipeError
from tunesmith.recipe import Derived, Recipe, read_recipe_file, yaml_text
from tunesmith.training.events import Event, event_from


def taken(folder: Path) -> ArtifactError:
    """What to say where a new run is asked for in the folder of another one."""
    return ArtifactError(
        f"{folder}: already holds a run; give another --out, or go on with it: tunesmith resume {folder}"
    )


@dataclass(frozen=True)
class Ledger:
    """One run's folder. Nothing in it is ever a pickle."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> Ledger:
        """Raises ArtifactError when the folder already holds a run, or cannot be written."""
        ledger = cls(folder)
        if (folder / "recipe.yaml").exists():
            raise taken(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "recipe.yaml", recipe.to_yaml())
        except OSError as error:
            raise ArtifactError(f"{folder}: cannot be written ({error}); give another --out") from None
        return ledger

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

        Raises ArtifactError, naming the process, where another one does.
        """
        import fcntl

        with (self.folder / ".lock").open("a+", encoding="utf-8") as held:
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
            yield

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
        return {key: item["value"] for key, item in read_recipe_file(path)["derived"].items()}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_whole(self.folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_whole(path: Path, text: str) -> None:
    """The whole file or nothing: written beside, then renamed."""
    partial = path.with_name(f".partial-{path.name}")
    with partial.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)
