"""The whole of it without the package: a CSV of texts and labels, a pretrained encoder, one loop.

    python examples/plain_loop.py DATA.csv MODEL_FOLDER

DATA.csv has the columns text and label; MODEL_FOLDER is a sentence encoder with mean pooling, such as all-MiniLM-L6-v2.
One fifth of the rows is held out and measured. It needs torch and transformers, and it is the oracle of tests/laws: the
package must reach the same losses as these lines, which say once more, plainly, what it does.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer


def seed_of(*parts: int | str) -> int:
    """Every random number starts from what it is for, so neither order nor dropout needs saving."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def epoch_order(lengths: list[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """All rows in batches of like length: shuffled, sorted inside windows of 50 batches, batches shuffled again."""
    draw = random.Random(seed_of(seed, "order", epoch))
    rows = list(range(len(lengths)))
    draw.shuffle(rows)
    batches = []
    for start in range(0, len(rows), 50 * size):
        window = sorted(rows[start : start + 50 * size], key=lambda row: -lengths[row])  # of one length: as shuffled
        batches += [window[at : at + size] for at in range(0, len(window), size)]
    draw.shuffle(batches)
    return batches


class Classifier(nn.Module):
    """Encoder, mean over the tokens, one linear map."""

    def __init__(self, folder: Path, classes: int, dropout: float | None) -> None:
        super().__init__()
        given = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.body = AutoModel.from_pretrained(folder, dtype=torch.float32, **given)
        self.body.pooler = None  # made for another pooling
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        self.unit_length = any(module["type"].endswith("Normalize") for module in modules)
        self.dropout = nn.Dropout(self.body.config.hidden_dropout_prob)
        self.head = nn.Linear(self.body.config.hidden_size, classes)

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Each of `inputs` [rows, tokens] -> [rows, width]"""
        hidden = self.body(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return normalize(pooled, dim=-1) if self.unit_length else pooled

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.head(self.dropout(self.features(inputs)))


class Tokens:
    """Texts as token numbers, padded a batch at a time."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        limit = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
        encoded = self.tokenizer(texts, truncation=True, max_length=limit)
        self.rows = [{name: encoded[name][row] for name in encoded} for row in range(len(texts))]
        self.lengths = [len(row["input_ids"]) for row in self.rows]

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        return dict(self.tokenizer.pad([self.rows[row] for row in rows], return_tensors="pt"))


def all_features(model: Classifier, tokens: Tokens) -> Tensor:
    """[rows, width] of the encoder as it stands."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.features(tokens.batch(list(range(at, min(at + 64, len(tokens.rows))))))
            for at in range(0, len(tokens.rows), 64)
        ]
    return torch.cat(parts)


def fit_head(model: Classifier, features: Tensor, target: Tensor, strength: float = 1.0) -> None:
    """The head alone, by L-BFGS on frozen features of unit length on average: a convex problem with one answer."""
    length = features.norm(dim=1).mean()
    scaled = features / length
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    optimizer = torch.optim.LBFGS(
        model.head.parameters(), max_iter=40, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = cross_entropy(model.head(scaled), target, reduction="sum")
        value = (total + model.head.weight.square().sum() / (2 * strength)) / len(target)
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        model.head.weight.div_(length)


def parameter_groups(model: Classifier, rate: float, head_rate: float, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices of the encoder and head, none on vectors and embeddings."""
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    head = {id(parameter) for parameter in model.head.parameters()}
    return [
        {
            "params": [parameter],
            "peak": head_rate if id(parameter) in head else rate,
            "weight_decay": decay if parameter.ndim >= 2 and id(parameter) not in embeddings else 0.0,
        }
        for parameter in model.parameters()
    ]


def train(
    folder: Path,
    texts: list[str],
    target: list[int],
    epochs: int = 5,
    batch_size: int = 32,
    rate: float = 1e-4,
    head_rate: float = 5e-4,
    seed: int = 0,
    dropout: float | None = None,
) -> tuple[Classifier, list[float]]:
    """The fine-tuned model, and the mean loss of every step."""
    tokens, truth = Tokens(folder, texts), torch.tensor(target)
    model = Classifier(folder, len(set(target)), dropout)
    fit_head(model, all_features(model, tokens), truth)
    optimizer = torch.optim.AdamW(parameter_groups(model, rate, head_rate, 0.01))
    per_epoch = -(-len(texts) // batch_size)
    steps, losses = epochs * per_epoch, []
    model.train()
    for step in range(steps):
        rows = epoch_order(tokens.lengths, batch_size, seed, step // per_epoch)[step % per_epoch]
        torch.manual_seed(seed_of(seed, "dropout", step, 0))
        loss = cross_entropy(model(tokens.batch(rows)), truth[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        progress = (step + 0.5) / steps
        share = progress / 0.1 if progress < 0.1 else (1 - progress) / 0.9
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def main(data: str, folder: str) -> None:
    with open(data, encoding="utf-8", newline="") as lines:
        rows = [(line["text"], line["label"]) for line in csv.DictReader(lines)]
    random.Random(0).shuffle(rows)
    names = sorted({label for _, label in rows})
    cut = len(rows) // 5
    held, kept = rows[:cut], rows[cut:]
    model, losses = train(Path(folder), [text for text, _ in kept], [names.index(label) for _, label in kept])
    print(f"{len(kept)} rows, {len(names)} classes, {len(losses)} steps: loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    logits = model.head(all_features(model, Tokens(Path(folder), [text for text, _ in held])))
    right = (logits.argmax(1) == torch.tensor([names.index(label) for _, label in held])).float().mean()
    print(f"accuracy {right:.4f} on {len(held)} held-out rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
