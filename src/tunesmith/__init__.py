"""Fine-tune a pretrained model on a small labelled table, and prove that it was worth it.

Importing this package imports nothing heavy: names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "Run",
    "TextClassifier",
    "TunesmithError",
    "__version__",
    "evaluate",
    "finetune",
    "load",
    "rank",
    "resume",
]

if TYPE_CHECKING:
    from tunesmith.api import evaluate, finetune, rank, resume
    from tunesmith.errors import TunesmithError
    from tunesmith.estimator import TextClassifier
    from tunesmith.predictor import load
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run

_HOMES = {
    "finetune": "api",
    "resume": "api",
    "evaluate": "api",
    "rank": "api",
    "load": "predictor",
    "Recipe": "recipe",
    "Run": "runs",
    "TextClassifier": "estimator",
    "TunesmithError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"tunesmith.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
