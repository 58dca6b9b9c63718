"""What a run stands on, held against what it stood on when it was started."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.split import RULE
from tunesmith.errors import ArtifactError
from tunesmith.manifest import check_same_run

NOW: dict[str, Any] = {
    "tunesmith": "0.1.0",
    "settings": "0123456789ab",
    "model": {"name": "m", "kind": "folder", "sha256": {"model.safetensors": "aa"}},
    "start": {},
    "data": {"path": "rows.csv", "sha256": {"train": "11", "validation": "22", "test": "33"}, "split": RULE},
}


def stored(rows: str, settings: str = "0123456789ab", rule: int | None = RULE) -> dict[str, Any]:
    found = copy.deepcopy(NOW)
    found["data"]["sha256"]["test"] = rows
    found["settings"] = settings
    if rule is None:
        del found["data"]["split"]
    else:
        found["data"]["split"] = rule
    return found


def problems(then: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ArtifactError) as caught:
        check_same_run(Path("run"), then, NOW)
    return tuple(caught.value.problems)


def test_a_run_whose_rows_were_drawn_by_an_earlier_rule_is_told_so_alone() -> None:
    said = (
        "run: was started by an earlier Tunesmith (0.1.0), which held out other rows of rows.csv; finish it with that one, "
        "or start a new run"
    )
    assert problems(stored("44", settings="ba9876543210", rule=None)) == (said,)
    assert problems(stored("44", rule=RULE - 1)) == (said,)


def test_changed_rows_and_settings_are_each_said() -> None:
    data, recipe = problems(stored("44", settings="ba9876543210"))
    assert data.startswith("run: rows.csv is not the data this run was started with")
    assert recipe.startswith("run: recipe.yaml is not the recipe")


def test_the_same_rows_may_have_been_drawn_by_any_rule() -> None:
    """As where every side is a file of its own."""
    check_same_run(Path("run"), stored("33", rule=None), NOW)
    check_same_run(Path("run"), stored("33"), NOW)
