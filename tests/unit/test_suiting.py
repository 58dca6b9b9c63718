"""Settings and bases that training could make nothing of are refused before it, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import METHODS, bench, recipe_for
from tunesmith.errors import RecipeError

Folder = Callable[[str], Path]


@pytest.mark.parametrize(
    ("family", "key", "rate"),
    [
        ("llama", "attention_dropout", 1.0),
        ("llama", "attention_dropout", -0.1),
        ("gpt2", "attn_pdrop", 1.0),
        ("bert", "attention_probs_dropout_prob", 1.0),
    ],
)
def test_attention_that_drops_all_is_refused_where_it_trains(
    family: str, key: str, rate: float, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder(family), base)
    config = json.loads((base / "config.json").read_text())
    assert config.get(key, 0.0) < 1
    (base / "config.json").write_text(json.dumps({**config, key: rate}))
    for method in ("full", "layers", "lora"):
        with pytest.raises(RecipeError, match=rf"training\.dropout: {key} = .* set training\.dropout=0\.1"):
            bench(recipe_for(base, table_file, METHODS[method]), tmp_path / method)
    assert bench(recipe_for(base, table_file, "head"), tmp_path / "head").run.steps > 0
    assert bench(recipe_for(base, table_file, "full", {"training.dropout": 0.1}), tmp_path / "set").run.steps > 0
