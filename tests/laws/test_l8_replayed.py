"""L8: a run made again from what its folder says gives the same result. (The round trip of recipes: unit/test_recipe.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, facts, recipe_for, same_model
from tunesmith.pipeline import start
from tunesmith.recipe import Recipe, read_recipe_file
from tunesmith.training.ledger import Ledger

Folder = Callable[[str], Path]


def _made(recipe: Recipe, folder: Path) -> Path:
    for _ in start(recipe, folder).events():
        pass
    return folder


def _same(left: Path, right: Path) -> bool:
    files = same_model(left / "model", right / "model")
    return files and facts(Ledger.open(left).events()) == facts(Ledger.open(right).events())


@pytest.mark.parametrize("method", list(METHODS))
def test_from_the_recipe_as_asked_and_as_resolved(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"training.epochs": "auto", "training.precision": "float32", "seed": 3}
    recipe = recipe_for(model_folder("bert"), table_file, METHODS[method], settings)
    first = _made(recipe, tmp_path / "first")
    asked = Ledger.open(first).recipe()
    assert asked.id == recipe.id == Ledger.open(first).manifest()["recipe"]
    assert _same(first, _made(asked, tmp_path / "asked"))
    resolved = Recipe.parse(read_recipe_file(first / "resolved.yaml")["recipe"])
    assert "auto" not in {resolved.training.epochs, resolved.training.rate, resolved.training.micro_batch}
    assert _same(first, _made(resolved, tmp_path / "resolved"))


def test_a_base_with_weights_that_the_checkpoint_lacks(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """What starts random starts from the seed, also where the base itself lacks it."""
    import shutil

    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(model_folder("bert"), tmp_path / "without-pooler"))
    weights = load_file(model / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    recipe = recipe_for(model, table_file, "head")
    assert _same(_made(recipe, tmp_path / "first"), _made(recipe, tmp_path / "second"))


def test_control_another_seed_is_noticed(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = [
        _made(recipe_for(model_folder("bert"), table_file, "head", {"seed": seed}), tmp_path / str(seed))
        for seed in (0, 1)
    ]
    assert not _same(*made)
