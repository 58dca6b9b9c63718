"""What a run was made with: versions and machine, for its manifest and for `doctor`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.split import RULE
from tunesmith.errors import ArtifactError, Problems
from tunesmith.recipe import Recipe, id_of

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
    "pillow",
)
# Endings of the files that shape a model: weights, configs, vocabularies, merges, chat templates.
SHAPING = (".safetensors", ".json", ".txt", ".model", ".jinja", ".spm", ".codes", ".tiktoken")


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
    from tunesmith.assembly import method_of

    return {
        "tunesmith": __version__,
        "recipe": recipe.id,
        "settings": _settings_id(recipe),
        "model": {
            "name": source.name,
            "kind": source.kind,
            "revision": source.revision,
            "sha256": {name: _sha256(path) for name, path in shaping_files(source.folder).items()},
        },
        "start": {path.name: _sha256(path) for path in method_of(recipe).given_files()},
        "data": {"path": recipe.data.path, "sha256": rows, "split": RULE},
        "versions": versions(),
        "machine": machine(),
    }


def _settings_id(recipe: Recipe) -> str:
    """The recipe's id without where rows, base and adapter lie: these may move, and are known by their content.

    Also without prices, which change nothing that is trained.
    """
    from tunesmith.assembly import method_of

    data = recipe.data.model_copy(update={"path": "-"})
    beside = {"probe": recipe.retention.probe, "general": recipe.retention.general}
    moved = {key: "-" for key, path in beside.items() if path is not None}
    known = {
        "data": data,
        "model": "-",
        "method": "auto" if recipe.method == "auto" else method_of(recipe).reading(Path("-")),
        "retention": recipe.retention.model_copy(update=moved),
    }
    plain = recipe.model_copy(update=known).to_plain()
    del plain["cost"]
    return id_of(plain)


def shaping_files(folder: Path) -> dict[str, Path]:
    """The files of a model's folder that decide what the model computes, by name: weights, configs, tokenizer, pooling.

    Those of the folder itself and of the modules that its modules.json names. Nothing deeper: what else lies below (a
    run made there, exports) is not read.
    """
    from tunesmith.models.resolve import weights_folder

    if folder.is_file():
        return {folder.name: folder}
    folders = {folder, weights_folder(folder), *_modules(folder)}
    found = {path for inside in folders for path in inside.glob("*") if path.suffix.lower() in SHAPING}
    return {path.relative_to(folder).as_posix(): path for path in sorted(found) if path.is_file()}


def _modules(folder: Path) -> list[Path]:
    """The folders that a sentence encoder's modules.json names; none where there is no such file, or no readable one."""
    try:
        declared = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [folder / module["path"] for module in declared]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def check_same_run(run: Path, stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ArtifactError when a stored manifest (empty: a new run) speaks of other data, base or recipe than `now`.

    A file that is new beside those of a hub model counts for nothing: its revision is the same, and more of it was fetched.
    """
    if not stored:
        return
    problems = Problems()
    try:
        rows, base, settings = stored["data"]["sha256"], dict(stored["model"]["sha256"]), stored["settings"]
        start, rule = dict(stored["start"]), stored["data"].get("split", 1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{run / 'manifest.json'}: is damaged, or of another version ({error}); restore it, or start a new run"
        ) from None
    if rows != now["data"]["sha256"] and rule != now["data"]["split"]:
        # What else differs may well be that version's too, and is nothing that its user changed.
        raise ArtifactError(
            f"{run}: was started by an earlier Tunesmith ({stored.get('tunesmith')}), which held out other rows of "
            f"{now['data']['path']}; finish it with that one, or start a new run"
        )
    if rows != now["data"]["sha256"]:
        problems.add(
            f"{run}: {now['data']['path']} is not the data this run was started with; restore the file, or start a new run"
        )
    changed = _changed(base, now["model"]["sha256"], now["model"]["kind"] != "hub")
    if changed:
        what = "its weights differ" if any(".safetensors" in name for name in changed) else "its files differ"
        problems.add(
            f"{run}: {now['model']['name']} is not the base this run was started with ({what}: {', '.join(changed)}); "
            "restore it, or start a new run"
        )
    changed = _changed(start, now["start"], True)
    if changed:
        problems.add(
            f"{run}: the files that method.start gave are not those this run was started with ({', '.join(changed)}); "
            "restore them, or start a new run"
        )
    if settings != now["settings"]:
        problems.add(
            f"{run}: recipe.yaml is not the recipe this run was started with; undo the change, or start a new run with it"
        )
    problems.raise_as(ArtifactError)


def _changed(stored: dict[str, str], now: dict[str, str], new_too: bool) -> list[str]:
    """Names of the files that differ, each with how: "config.json changed"."""
    found = [f"{name} changed" for name in stored if name in now and now[name] != stored[name]]
    found += [f"{name} is gone" for name in stored if name not in now]
    return found + [f"{name} is new" for name in now if new_too and name not in stored]
