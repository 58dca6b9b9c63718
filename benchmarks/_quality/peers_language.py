"""Language models: transformers' run_clm recipe and TRL's SFT, measured on the tokens that Tunesmith is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Record, Rows
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


def sft(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[tuple[int, int, float]]:
    """TRL's SFTTrainer on prompts and completions; `options` holds rate, epochs and batch, all else is TRL's default.

    Prompts are written as Tunesmith's plain template writes them, and only completions are learned, as there.
    """
    import tempfile

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(seed)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    block = model.config.max_position_embeddings
    if options["epochs"]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = SFTConfig(
                output_dir=folder,
                learning_rate=options["rate"],
                num_train_epochs=options["epochs"],
                per_device_train_batch_size=options["batch"],
                max_length=block,
                bf16=False,
                use_cpu=True,
                seed=seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            data = Dataset.from_list(
                [{"prompt": _asked(row) + "\n", "completion": row["output"]} for row in rows.train]
            )
            trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
            trainer.train()
            model = trainer.model
    return _answer_losses(model, rows.test, base, block)


def _asked(row: Record) -> str:
    return f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]


def _answer_losses(model: nn.Module, test: Sequence[Record], base: Path, block: int) -> list[tuple[int, int, float]]:
    """Of each row: tokens of its answer, how many of them the model would have said itself, their summed loss in nats."""
    import torch
    from torch.nn.functional import cross_entropy

    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.chat import PLAIN, Chat
    from tunesmith.models.resolve import resolve

    chat = Chat(load_backbone(resolve(str(base))).processor, PLAIN)
    found = []
    model.eval()
    for row in test:
        made = chat.render(
            [{"role": "user", "content": _asked(row)}, {"role": "assistant", "content": row["output"]}], None
        )
        start, end = made.answers[-1]
        ids = torch.tensor(made.ids[:block])
        with torch.inference_mode():
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
        learned = slice(start - 1, min(end, block) - 1)
        said, wanted = logits[learned], ids[1:][learned]
        hits = int((said.argmax(dim=-1) == wanted).sum())
        found.append((len(wanted), hits, float(cross_entropy(said, wanted, reduction="sum"))))
    return found
