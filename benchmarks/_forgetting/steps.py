"""The three steps of a run of forgetting.py, each in a process of its own: rows to files, training, what is left."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _methods.reports import kept_of, stored_mb
from _processes import SCORED
from _quality.data import Record, Rows, cut, write_csv, write_text
from _quality.jobs import job_of
from _quality.steps import DATA, base_of

from .cases import AMAZON, ELSEWHERE, LETTERS, OWN_TEXTS, OWN_TOKENS, TUNED_ON, case, variant

OTHERS, GENERAL, REFUSED = "others", "own_stories.csv", "refused.json"


def step(name: str, folder: Path, of: str, what: str, seed: int, rows: int, shared: Path) -> None:
    """Does one of `_processes.STEPS` in `folder`, which holds what the steps before it made."""
    if name == "prepare":
        (folder / DATA).mkdir()
        (prepare_reviews if of == AMAZON else prepare_plays)(folder, rows, shared)
    elif name == "run":
        run(folder, of, what, seed, shared)
    else:
        score(folder, of)


def prepare_reviews(folder: Path, rows: int, shared: Path) -> None:
    """One domain to tune on; of the others, which nothing is trained on, all rows."""
    source = shared / "data" / "amazon_multidomain"
    own = reviews(source / f"{TUNED_ON}.csv")
    sides = [[plain(row) for row in own if row["split"] == name] for name in ("train", "test")]
    found = Rows(sides[0], [], sides[1])
    write_csv(cut(found, rows) if rows else found, folder / DATA)
    for name in ELSEWHERE:
        other = Rows([], [], [plain(row) for row in reviews(source / f"{name}.csv")])
        (folder / OTHERS / name).mkdir(parents=True)
        write_csv(cut(other, rows) if rows else other, folder / OTHERS / name)


def reviews(path: Path) -> list[Record]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plain(row: Record) -> Record:
    return {"text": row["text"], "label": row["label"]}


def prepare_plays(folder: Path, rows: int, shared: Path) -> None:
    """The beginning of tinyshakespeare in three consecutive parts, and texts that the untouched base wrote itself."""
    text = (shared / "data" / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[:LETTERS]
    ends = [text.index("\n\n", share * len(text) // 10) + 2 for share in (8, 9)]
    parts = (text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :])
    found = Rows(*([{"text": part}] for part in parts))
    write_text(cut(found, rows) if rows else found, folder / DATA)
    with (folder / GENERAL).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in own_texts(base_of(job_of("wikitext2"), shared)))])


def own_texts(base: Path) -> list[str]:
    """What the base writes from nothing, each token drawn by its probability: the same for every run."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    torch.manual_seed(0)
    begin = torch.full((OWN_TEXTS, 1), tokenizer.bos_token_id)
    end = tokenizer.eos_token_id
    said = model.generate(
        begin, attention_mask=torch.ones_like(begin), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_new_tokens=OWN_TOKENS, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    return [text for text in tokenizer.batch_decode(said, skip_special_tokens=True) if text.strip()]


def run(folder: Path, of: str, what: str, seed: int, shared: Path) -> None:
    """What is measured."""
    from _quality.ours import finetuned

    from tunesmith.errors import ModelError, RecipeError

    asked, found = case(of), variant(of, what)
    settings: dict[str, Any] = {"evaluation.baselines": False, **asked.settings, **found.settings}
    if (folder / GENERAL).exists():
        settings["retention.general"] = str(folder / GENERAL)
    base = base_of(job_of("sst2" if of == AMAZON else "wikitext2"), shared)
    try:
        finetuned(folder, str(base), seed, {"method": found.method, "task": asked.task, "settings": settings})
    except (ModelError, RecipeError) as error:
        (folder / REFUSED).write_text(json.dumps({"unfit": str(error)}), encoding="utf-8")


def score(folder: Path, of: str) -> None:
    if (folder / REFUSED).exists():
        found = json.loads((folder / REFUSED).read_text(encoding="utf-8"))
    else:
        found = left(folder, of)
    (folder / SCORED).write_text(json.dumps(found), encoding="utf-8")


def left(folder: Path, of: str) -> dict[str, Any]:
    """What the tuned model reaches, and what it still knows."""
    from _quality.ours import told

    from tunesmith.runs import Run

    report, said = Run(folder / "run").report, told(folder, "", 0, {})
    notes = [item["message"] for item in report["findings"] if item["kind"] in ("retention", "unkept")]
    shares = report["shares"]
    found = {
        **{name: said[name] for name in ("metrics", "rows", "trainable")},
        "notes": notes,
        "kept": kept_of(notes),
        "share": None if shares is None else shares["chosen"],
        "stored_mb": stored_mb(folder / "run"),
    }
    return found | ({"elsewhere": accuracies(folder, ELSEWHERE)} if of == AMAZON else {})


def accuracies(folder: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """On the rows of other domains: value, low, high."""
    from tunesmith.api import evaluate

    return {name: evaluate(folder / "run", folder / OTHERS / name / "test.csv")["metrics"]["accuracy"] for name in names}
