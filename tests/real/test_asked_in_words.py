"""A real language model of 260 thousand parameters, asked in words what little stories are about."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pytest

from shortruns import recipe_for
from tunesmith.pipeline import start

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "weights" / "stories260K" / "hf"
ANIMALS = ("dog", "cat", "bird", "elephant", "butterfly")
STORIES = (
    "One day, {kid} saw a big {a}. {kid} was very happy. They played with the {a} in the park. Then they went home.",
    "Once upon a time, there was a little {a}. It was sad. {kid} came and said hello to the {a}. The end.",
    "{kid} wanted a {a}. Mom said no. {kid} was sad. But then mom came home and gave {kid} the {a}.",
)

pytestmark = pytest.mark.real


def test_what_a_story_is_about_needs_no_training(tmp_path: Path) -> None:
    if not MODEL.exists():
        said = f"{MODEL} is absent"
        pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    draw = random.Random(0)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        write = csv.writer(out)
        write.writerow(("text", "label"))
        for place in range(300):
            name = ANIMALS[place % len(ANIMALS)]
            kid = draw.choice(("Lily", "Tim", "Tom", "Sue"))
            write.writerow((draw.choice(STORIES).format(kid=kid, a=name) + f" {kid} was {place}.", name))
    settings = {"evaluation.baselines": True, "evaluation.quick": True, "data.test": 0.4}
    list(start(recipe_for(MODEL, tmp_path / "rows.csv", "head", settings), tmp_path / "run").events())
    rivals = {item["name"]: item for item in json.loads((tmp_path / "run" / "report.json").read_text())["baselines"]}
    assert rivals["prompt"]["metrics"]["accuracy"]["value"] > 0.6, "of five, by a model that never saw a label"
