"""The import rule: a module imports only from lower floors and inside its own folder. Read from the source, by AST."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(tunesmith.__file__).parent

# Lowest first; what stands on one floor does not import its neighbours unless named in BESIDE.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "recipe", "seeds", "catalog", "memory", "calibration", "carbon", "energy"})
    | {"files", "phases", "specs"},
    frozenset({"data", "models"}),
    frozenset({"tasks", "methods"}),
    frozenset({"training", "evaluation"}),
    frozenset({"selection", "export"}),
    frozenset(
        {
            "auditing",
            "beside",
            "careful",
            "choosing",
            "climbing",
            "deciding",
            "retention",
            "encoding",
            "preparing",
            "profiling",
            "ranking",
            "rating",
            "previewing",
            "assembly",
            "delivery",
            "evaluating",
            "evidence",
            "comparing",
            "finishing",
            "folding",
            "inner",
            "judging",
            "limits",
            "repeating",
            "from_scratch",
            "method_curve",
            "nearest",
            "planning",
            "rehearsing",
            "result",
            "predictor",
            "saved",
            "searching",
            "seen",
            "settling",
            "suiting",
            "spending",
            "splitting",
            "forecast",
            "redrawing",
            "trying",
            "unmeasured",
            "untouched",
            "unused",
            "winning",
            "zero_shot",
        }
        | {"runs", "pipeline", "api", "estimator", "_kept_model", "_texts_and_labels", "manifest"}
    ),
    frozenset({"cli", "serving", "studio"}),
)
# Floors whose parts may use one another: single modules that are read together.
BESIDE = frozenset({0, 5})
# `training` knows tasks and methods by their base files only; the recipe finds them by name, through the catalog.
ONLY_BASE = {"training": frozenset({"tasks", "methods"})}


def _floor(part: str) -> int:
    found = [index for index, floor in enumerate(FLOORS) if part in floor]
    assert len(found) == 1, f"src/tunesmith/{part} stands on no floor: give it one in FLOORS"
    return found[0]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name inside tunesmith) of every import, also lazy ones in functions and those for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, item.name) for item in node.names if item.name.split(".")[0] == "tunesmith")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name, not a relative import"
            if node.module is not None and node.module.split(".")[0] == "tunesmith":
                yield from ((node.lineno, f"{node.module}.{item.name}") for item in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def broken(place: str, source: str) -> list[str]:
    """What a module at `place` (such as "training/loop.py") imports against the rule."""
    here = Path(place).with_suffix("").parts[0]
    found = []
    for line, name in imported(ast.parse(source)):
        parts = name.split(".")
        if len(parts) < 2 or parts[1].startswith("__"):  # the package itself, for its version
            continue
        there = parts[1]
        if not ((ROOT / there).is_dir() or (ROOT / f"{there}.py").exists()):
            found.append(f"{place}:{line}: imports {name} through the package; import it from the module that owns it")
        elif (
            there != here
            and _floor(there) >= _floor(here)
            and not (_floor(there) == _floor(here) and _floor(here) in BESIDE)
        ):
            found.append(f"{place}:{line}: {here} imports {name}, which is on its own floor or above")
        elif there in ONLY_BASE.get(here, ()) and (len(parts) < 3 or parts[2] != "base"):
            found.append(f"{place}:{line}: {here} knows {there} by base.py only, and imports {name}")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    if place == "__init__.py":  # names the front door, for types and on first use
        return
    assert broken(place, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("training/loop.py", "from tunesmith.evaluation.infer import infer"),
        ("training/loop.py", "def f():\n    from tunesmith.tasks.classification import Classification"),
        ("tasks/x.py", "from tunesmith.methods.base import Plan"),
        ("data/x.py", "import tunesmith.models.layout"),
        ("models/x.py", "from tunesmith.data import encode"),
        ("errors.py", "from tunesmith.data.table import Table"),
        ("recipe.py", "from importlib import import_module\nimport_module('tunesmith.tasks.classification')"),
        (
            "methods/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunesmith.training.loop import Run",
        ),
        ("evaluation/x.py", "from tunesmith import pipeline"),
        ("pipeline.py", "from tunesmith.cli.main import run"),
        ("cli/x.py", "from tunesmith import finetune"),
    ],
)
def test_control_each_kind_of_breach_is_found(place: str, source: str) -> None:
    assert len(broken(place, source)) == 1


def test_the_recipe_reaches_tasks_and_methods_by_name_only() -> None:
    words = {"tunesmith.tasks", "tunesmith.methods", "tasks", "methods"}
    for module in ("recipe", "catalog", "errors", "seeds"):
        names = {name for _, name in imported(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8")))}
        assert not {name for name in names if name.split(".")[1] in words}, module
