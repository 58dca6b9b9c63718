"""Tunesmith's side: what `tunesmith train` does, whole, with baselines and report; its figures are those of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith import finetune
from tunesmith.runs import Run


def finetuned(folder: Path, base: str, seed: int, options: Mapping[str, Any]) -> None:
    """Trains on folder/data into folder/run. Raises TunesmithError kinds."""
    finetune(
        base,
        folder / "data",
        options["method"],
        task=options["task"],
        settings=dict(options["settings"]),
        seed=seed,
        out=folder / "run",
    )


def told(folder: Path, base: str, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of folder/run's report, and what else its files say."""
    report = Run(folder / "run").report
    found = {
        "metrics": report["metrics"],
        "baselines": {
            item["name"]: {k: v["value"] for k, v in item["metrics"].items()} for item in report["baselines"]
        },
        "rows": {split["name"]: split["rows"] for split in report["data"]["splits"]},
        "rows_tested": report["rows_tested"],
        "derived": {item["key"]: item["value"] for item in report["derived"]},
        "trainable": report["cost"]["trainable"],
    }
    found["notes"] = [item["message"] for item in report["findings"] if item["kind"] == "retention"]
    if report["task"] == "instruction":
        found["notes"] += [_losses(folder / "run"), _prompts(folder, base, seed, options)]
    return found


def _losses(run: Path) -> str:
    """Of the validation rows, before the first step and at the end."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [event["loss"] for event in events if event["kind"] == "evaluated"]
    return f"validation loss by evaluation: {', '.join(f'{loss:.3f}' for loss in losses)}"


def _prompts(folder: Path, base: str, seed: int, options: Mapping[str, Any]) -> str:
    """How many tokens of prompts are learned: those of rows whose learned tokens are no beginning of their answer.

    Judged by the text that the learned tokens spell, and not by what the encoder says of their places.
    """
    from tunesmith.data.encode import IGNORED
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.preparing import fitted, prepare
    from tunesmith.recipe import Recipe, set_key

    plain: dict[str, Any] = {
        "model": base,
        "data": {"path": str(folder / "data")},
        "task": options["task"],
        "seed": seed,
    }
    for key, value in options["settings"].items():
        set_key(plain, key, value)
    records = json.loads((folder / "data" / "train.json").read_text(encoding="utf-8"))
    processor = load_backbone(resolve(base)).text
    prepared, encoded = fitted(prepare(Recipe.parse(plain)), processor, "auto")
    learned = wrong = 0
    for example in encoded.examples["train"]:
        place = int(prepared.splits.train.place(example.source).rpartition(":")[2])
        ids = [token for token in example.target if token != IGNORED]
        said = _bare(str(processor.tokenizer.decode(ids, skip_special_tokens=True)))
        learned += len(ids)
        wrong += 0 if _bare(records[place - 1]["output"]).startswith(said.rstrip("\ufffd")) else len(ids)
    if wrong:
        raise SystemExit(f"{wrong:,} of {learned:,} learned tokens are of rows whose learned text begins no answer")
    return f"all of the {learned:,} learned tokens spell the start of their row's answer: none is a prompt's"


def _bare(text: str) -> str:
    """Without white space, of which tokenizers may add some."""
    return "".join(text.split())
