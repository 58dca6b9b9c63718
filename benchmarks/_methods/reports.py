"""Figures of a run's folder that its report holds as words, or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEIGHBOURS = re.compile(r"(\d+) % still are \(linear CKA (-?[\d.]+);")
PERPLEXITY = re.compile(r"perplexity on (.+?): ([\d,.]+) before, ([\d,.]+) after")
OWN = "texts that the untouched base wrote itself"  # as the report begins to call them


def kept_of(notes: Sequence[str]) -> dict[str, float]:
    """What the report's lines on retention say: "neighbours" and "cka", shares; "general" and "own", before and after."""
    found: dict[str, float] = {}
    for note in notes:
        near = NEIGHBOURS.search(note)
        if near is not None:
            found |= {"neighbours": float(near[1]) / 100, "cka": float(near[2])}
        words = PERPLEXITY.search(note)
        if words is not None:
            name = "own" if words[1].startswith(OWN) else "general"
            before, after = (float(words[place].replace(",", "")) for place in (2, 3))
            found |= {f"{name}_before": before, f"{name}_after": after}
    return found


def validated(run: Path, key: str) -> dict[str, Any]:
    """On the validation rows, the checkpoint that was kept; and the rate that was taken, asked for or derived."""
    from tunesmith.training.ledger import Ledger

    ledger = Ledger.open(run)
    events = [event.to_plain() for event in ledger.events()]
    end = next(event for event in events if event["kind"] == "finished")
    kept = [event for event in events if event["kind"] == "evaluated" and event["step"] == end["best_step"]]
    found = {name: kept[-1][name] for name in ("metric", "value", "error", "loss", "epoch")}
    return {**found, "rate": rate_of(run, key)}


def rate_of(run: Path, key: str) -> float | None:
    """The rate that a run was asked for or found itself; None where it did not get that far."""
    from tunesmith.training.ledger import Ledger

    ledger = Ledger.open(run)
    asked = getattr(ledger.recipe().training, key.rpartition(".")[2])
    return ledger.resolved().get(key) if asked == "auto" else asked


def stored_mb(run: Path) -> float:
    """What must be kept beside the base to use the model: the adapter where the method has one, else the whole model.

    An adapter that cannot be made part of the weights lies in the model's folder.
    """
    folder = next(path for path in (run / "adapter", run / "model" / "adapter", run / "model") if path.is_dir())
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 3)
