"""The house style, as far as it can be counted: sizes, probes, pass-through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(tunesmith.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 500, 80
PROBES = ("getattr", "hasattr", "setattr")

# Outside models/ each place that probes, and why it must. How often: a second one in the same file is a new decision.
ALLOWED: dict[str, tuple[int, str]] = {
    "__init__.py": (1, "gives the package's names on first use, so that importing it stays light"),
    "catalog.py": (1, "a dotted path names a class by text"),
    "methods/_adapter_method.py": (
        1,
        "a module is put in another's place by name, which torch offers no other way for",
    ),
    "manifest.py": (1, "os.sched_getaffinity is missing on some systems"),
}


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def long_functions(tree: ast.AST) -> list[str]:
    sizes = {item.name: (item.end_lineno or item.lineno) - item.lineno + 1 for item in functions(tree)}
    return [f"{name}: {lines} lines" for name, lines in sizes.items() if lines > LONGEST_FUNCTION]


def probes(tree: ast.AST) -> list[int]:
    """Lines that call getattr, hasattr or setattr."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PROBES
    ]


def passes_through(tree: ast.Module) -> list[str]:
    """Public functions and methods that take **kwargs; a stand-in inside a function is nobody's interface."""
    places = [tree, *(item for item in tree.body if isinstance(item, ast.ClassDef) and not item.name.startswith("_"))]
    public = [item for place in places for item in place.body if isinstance(item, ast.FunctionDef)]
    return [item.name for item in public if item.args.kwarg is not None and not item.name.startswith("_")]


def numbers_by_or(tree: ast.AST) -> list[int]:
    """Lines with `x or 3` for a value that somebody gave: zero could never be asked for."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BoolOp)
        and isinstance(node.op, ast.Or)
        and isinstance(node.values[0], ast.Name | ast.Attribute)
        and isinstance(node.values[-1], ast.Constant)
        and type(node.values[-1].value) in (int, float)
    ]


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_sizes_and_signatures(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_FILE
    assert long_functions(tree) == []
    assert passes_through(tree) == []
    assert numbers_by_or(tree) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(ROOT).parts[0] != "models"], ids=_id)
def test_probes_are_few_and_have_a_reason(path: Path) -> None:
    allowed, _ = ALLOWED.get(_id(path), (0, ""))
    found = probes(ast.parse(path.read_text(encoding="utf-8")))
    assert len(found) == allowed, f"lines {found}: know instead of probing, or give the reason in ALLOWED"


def test_allowed_files_exist() -> None:
    assert [name for name in ALLOWED if not (ROOT / name).exists()] == []


def test_control_the_counts_find_what_they_count() -> None:
    body = "\n".join("    x = 1" for _ in range(LONGEST_FUNCTION))
    tree = ast.parse(f"def f(a, **kwargs):\n{body}\n\ndef _g(**kwargs):\n    return getattr(a, 'b'), (a.c or 0.5)\n")
    assert long_functions(tree) == ["f: 81 lines"]
    assert passes_through(tree) == ["f"]
    assert len(probes(tree)) == 1 and len(numbers_by_or(tree)) == 1
