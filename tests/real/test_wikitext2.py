"""A small real language model on real text of another kind: perplexity halves, and what it forgets is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "weights" / "stories260K" / "hf"
DATA = SHARED / "data" / "wikitext2" / "valid.txt"
LETTERS = 60_000  # of each side: a minute's work


pytestmark = pytest.mark.real


def test_perplexity_of_wikitext_falls_by_half_and_forgetting_is_said(tmp_path: Path) -> None:
    import tunesmith

    for needed in (DATA, MODEL):
        if not needed.exists():
            said = f"{needed} is absent"
            pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    text, folder = DATA.read_text(encoding="utf-8"), tmp_path / "halves"
    folder.mkdir()
    half = len(text) // 2
    (folder / "train.txt").write_text(text[: 2 * LETTERS], encoding="utf-8")
    (folder / "test.txt").write_text(text[half : half + LETTERS], encoding="utf-8")
    settings = {"training.epochs": 2, "training.rate": 3e-3, "training.batch_size": 8}
    report = tunesmith.finetune(MODEL, folder, settings=settings, out=tmp_path / "run").report
    assert report["task"] == "causal_lm"
    after = report["metrics"]["perplexity"]["value"]
    rivals = {item["name"]: item["metrics"]["perplexity"]["value"] for item in report["baselines"]}
    assert after < 0.5 * rivals["base"]
    assert after < 0.5 * rivals["frequent_token"]
    said = [finding["message"] for finding in report["findings"] if finding["message"].startswith("perplexity on ")]
    assert len(said) == 2 and "general text" in said[0]
    before, later = (float(part.split()[0].replace(",", "")) for part in said[1].split(": ")[1].split(", "))
    assert before < 8, "stories as it writes them are what this base knows: 3.7 when whole ones were drawn"
    assert later > 2 * before, "and what it forgets"
