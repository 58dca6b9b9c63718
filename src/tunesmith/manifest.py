"""What a run was made with: versions and machine, for its manifest and for `doctor`."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.errors import ArtifactError, Problems
from tunesmith.recipe import Recipe

if TYPE_CHECKING:
    from tunesmith.models.resolve import Source

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """Package name -> installed version; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, and memory."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def manifest_of(recipe: Recipe, rows: dict[str, str], source: Source) -> dict[str, Any]:
    """What a run stands on. `rows` holds each split's sha256."""
    return {
        "tunesmith": __version__,
        "recipe": recipe.id,
        "settings": _settings_id(recipe),
        "model": {
            "name": source.name,
            "kind": source.kind,
            "revision": source.revision,
            "sha256": weights_sha256(source.folder),
        },
        "data": {"path": recipe.data.path, "sha256": rows},
        "versions": versions(),
        "machine": machine(),
    }


def _settings_id(recipe: Recipe) -> str:
    """The recipe's id without where rows and base lie: these may move, and are known by their content."""
    data = recipe.data.model_copy(update={"path": "-"})
    return recipe.model_copy(update={"data": data, "model": "-"}).id


def weights_sha256(folder: Path) -> str:
    """One digest of all weight files of a model folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()


def check_same_run(run: Path, stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ArtifactError when a stored manifest (empty: a new run) speaks of other data, base or recipe than `now`."""
    if not stored:
        return
    problems = Problems()
    if stored["data"]["sha256"] != now["data"]["sha256"]:
        problems.add(
            f"{run}: {now['data']['path']} is not the data this run was started with; restore the file, or start a new run"
        )
    if stored["model"]["sha256"] != now["model"]["sha256"]:
        problems.add(
            f"{run}: {now['model']['name']} is not the base this run was started with (its weights differ); restore it, "
            "or start a new run"
        )
    if stored["settings"] != now["settings"]:
        problems.add(
            f"{run}: recipe.yaml is not the recipe this run was started with; undo the change, or start a new run with it"
        )
    problems.raise_as(ArtifactError)
