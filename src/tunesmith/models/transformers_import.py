"""transformers' base class of models, imported without what only other kinds of work need."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesmith.memory import importing

# What a module needs -> its name in the package -> what it offers.
Structure = dict[frozenset[str], dict[str, set[str]]]
OPTIMIZE = "scipy.optimize"  # a quarter of a CPU second, for the matching in losses of object detection


def import_transformers() -> None:
    """Imports what the modules of this package import of transformers, for a third of the time less.

    Nothing is missing afterwards: what was not imported is when it is first used. Without effect where transformers' models
    have been imported before.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    with importing():
        import transformers

        with _scanned_once(Path(transformers.__file__).parent / "models"):
            import transformers.models
        with _matching_later():
            import transformers.modeling_utils


@contextmanager
def _matching_later() -> Iterator[None]:
    """Inside, `from scipy.optimize import linear_sum_assignment` gives a function that imports it when it is called."""
    if OPTIMIZE in sys.modules or threading.active_count() > 1:  # another thread's import would meet the stand-in
        yield
        return
    stand_in = sys.modules[OPTIMIZE] = _Later(OPTIMIZE)
    try:
        yield
    finally:
        if sys.modules.get(OPTIMIZE) is stand_in:
            del sys.modules[OPTIMIZE]


class _Later(ModuleType):
    """In the place of `scipy.optimize`. Whatever else is asked of it, another thread's import say, is the real one's."""

    @staticmethod
    def linear_sum_assignment(cost_matrix: Any, maximize: bool = False) -> Any:
        return import_module(OPTIMIZE).linear_sum_assignment(cost_matrix, maximize)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system itself
            raise AttributeError(name)
        if sys.modules.get(OPTIMIZE) is self:
            del sys.modules[OPTIMIZE]
        return getattr(import_module(OPTIMIZE), name)


@contextmanager
def _scanned_once(models: Path) -> Iterator[None]:
    """Inside, `transformers.models` takes which file offers what from what `transformers` found out when it was imported.

    Both read all files of the folder for it, more than 1,600.
    """
    from transformers.utils import import_utils

    scan = getattr(import_utils, "define_import_structure", None)
    if scan is None or list(inspect.signature(scan).parameters) != ["module_path", "prefix"]:  # another transformers
        yield
        return

    def known(module_path: str, prefix: str | None = None) -> Structure:
        if prefix is None and Path(module_path) == models / "__init__.py":
            return structure_of(scan, models) or scan(module_path, prefix)
        return scan(module_path, prefix)

    import_utils.define_import_structure = known  # type: ignore[assignment]
    try:
        yield
    finally:
        import_utils.define_import_structure = scan


def structure_of(scan: Callable[..., Structure], models: Path) -> Structure:
    """What `scan(models)` gives, from the answer to the question that `transformers` asked, which is kept (lru_cache)."""
    whole, inside = scan(models, prefix="models"), "models."
    found = {
        needs: {name.removeprefix(inside): names for name, names in files.items() if name.startswith(inside)}
        for needs, files in whole.items()
    }
    return {needs: files for needs, files in found.items() if files}
