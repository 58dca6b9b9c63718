"""Plain text: transformers' run_clm recipe, measured on the passages and windows that Tunesmith is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Rows
from .peers_trainer import trained

if TYPE_CHECKING:
    from torch import nn


def run_clm(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Lines are tokenised, joined, and cut into blocks of the base's context; what is left over is dropped."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, default_data_collator

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    lines = rows.train[0]["text"].splitlines(keepends=True)
    ids = [token for line in tokenizer(lines)["input_ids"] for token in line]
    block = min(512, tokenizer.model_max_length)
    whole = range(0, len(ids) - block + 1, block)
    blocks = [{"input_ids": ids[at : at + block], "labels": ids[at : at + block]} for at in whole]

    def build() -> Any:
        return AutoModelForCausalLM.from_pretrained(base)

    trainer = trained(build, blocks, default_data_collator, seed, options)
    return passage_losses(trainer.model, tokenizer, rows.test[0]["text"], block)


def passage_losses(model: nn.Module, tokenizer: Any, text: str, block: int) -> list[tuple[int, float]]:
    """Tokens and summed loss, in nats, of each passage as Tunesmith cuts a text.

    A passage begins with the mark for a beginning; a window begins with the last token of the one before.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from tunesmith.data.passages import TEXT, read_passages

    found = []
    model.eval()
    for passage in read_passages(text.encode("utf-8"), "test.txt").columns[TEXT]:
        ids = [tokenizer.bos_token_id, *tokenizer(passage, add_special_tokens=False)["input_ids"]]
        total = 0.0
        for start in range(0, max(len(ids) - 1, 1), block - 1):
            window = torch.tensor([ids[start : start + block]])
            with torch.inference_mode():
                logits = model(input_ids=window).logits[0, :-1].float()
            total += float(cross_entropy(logits, window[0, 1:], reduction="sum"))
        found.append((len(ids) - 1, total))
    return found
