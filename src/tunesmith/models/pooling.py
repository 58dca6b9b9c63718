"""From hidden states per token to one vector per row, in the way that a sentence encoder declares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tunesmith.errors import ModelError, Problems

# our name -> the name that sentence-transformers gives it, and the flag of its older files
MODES = {
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "last": ("lasttoken", "pooling_mode_lasttoken"),
    "sqrt": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
}
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one: "mean", "cls" (first token), "max", "last" (token), "sqrt" (sum / root of length)."""

    mode: str
    normalize: bool = False  # whether the result is scaled to length 1

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """`hidden` [rows, tokens, width], `mask` [rows, tokens] (1: a token, 0: filler) -> [rows, width].

        Sums and lengths are taken in float32 also where `hidden` is bfloat16, since a mean over hundreds of tokens
        would lose most of its digits.
        """
        pooled = self._pool(hidden, mask)  # [rows, width]
        if self.normalize:
            pooled = normalize(pooled.float(), p=2.0, dim=-1)
        return pooled.to(hidden.dtype)

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        rows = torch.arange(len(hidden), device=hidden.device)
        if self.mode == "cls":
            return hidden[rows, mask.to(torch.int32).argmax(dim=1)]
        if self.mode == "last":
            positions = torch.arange(mask.shape[1], device=mask.device)
            return hidden[rows, (positions * (mask != 0)).argmax(dim=1)]
        if self.mode == "max":
            return hidden.masked_fill((mask == 0).unsqueeze(-1), float("-inf")).amax(dim=1)
        if self.mode not in ("mean", "sqrt"):
            raise ValueError(f'unknown pooling "{self.mode}"; one of: {", ".join(MODES)}')
        present = mask.unsqueeze(-1).to(hidden.dtype)  # [rows, tokens, 1]
        total = (hidden * present).sum(dim=1, dtype=torch.float32)
        count = present.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)
        return total / (count if self.mode == "mean" else count.sqrt())


def declared_pooling(folder: Path) -> Pooling | None:
    """What `modules.json` of a sentence-transformers folder says; None where there is no such file.

    Raises ModelError where the declared pipeline is not one pooling, with or without normalisation: several modes
    joined, a weighted mean, a further Dense map. A Dense that maps to the classes named in config.json is a
    classifier's head from an earlier fine-tuning, and is left out as any earlier head is.
    """
    declared = _read(folder / "modules.json")
    if declared is None:
        return None
    problems = Problems()
    mode: str | None = None
    normalized = False
    for module in declared:
        kind = str(module.get("type", "")).rpartition(".")[2]
        place = folder / str(module.get("path", ""))
        if kind == "Pooling":
            mode = _mode(place / "config.json", problems)
        elif kind == "Normalize":
            normalized = True
        elif kind not in PLAIN_MODULES and not (kind == "Dense" and _is_earlier_head(place, folder)):
            problems.add(
                f"{folder / 'modules.json'}: the encoder has a {kind} module after its pooling, which a classifier "
                f"cannot keep; expected only {', '.join(PLAIN_MODULES)}; choose another base, or remove that entry "
                "from modules.json to train on the pooling alone"
            )
    if mode is None:
        problems.add(f"{folder / 'modules.json'}: names no Pooling module; add one, or remove the file")
    problems.raise_as(ModelError)
    assert mode is not None
    return Pooling(mode, normalized)


def pooling_config(pooling: Pooling, width: int) -> dict[str, Any]:
    """The config.json of a Pooling module that old and new sentence-transformers read alike."""
    flags = {flag: name == pooling.mode for name, (_, flag) in MODES.items()}
    return {"word_embedding_dimension": width, **flags}


def _mode(path: Path, problems: Problems) -> str | None:
    config = _read(path)
    if config is None:
        problems.add(f"{path}: modules.json names this pooling, and it is not there; fetch the whole folder again")
        return None
    named = config.get("pooling_mode")
    if named is None:
        asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    else:
        asked = [named] if isinstance(named, str) else [str(item) for item in named]
    known = {word: mode for mode, (name, flag) in MODES.items() for word in (name, flag)}
    if len(asked) == 1 and asked[0] in known:
        return known[asked[0]]
    said = " and ".join(asked) if asked else "no mode at all"
    problems.add(
        f"{path}: declares {said}; expected exactly one of {', '.join(MODES)}; "
        "choose a base with a single pooling, or set one in this file"
    )
    return "mean"


def _is_earlier_head(place: Path, folder: Path) -> bool:
    dense = _read(place / "config.json") or {}
    base = _read(folder / "config.json") or {}
    linear = str(dense.get("activation_function", "")).endswith(".Identity")
    return linear and "id2label" in base and dense.get("out_features") == len(base["id2label"])


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: is not JSON ({error}); fetch the file again") from None
