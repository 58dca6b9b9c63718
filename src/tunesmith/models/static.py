"""Static word vectors as a base: a table of vectors and a tokenizer; a text is the mean of its tokens' vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from tunesmith.errors import ModelError, Problems
from tunesmith.models.pooling import Pooling
from tunesmith.models.resolve import STATIC, static_part
from tunesmith.models.text import NO_LIMIT, TextProcessor, first_line
from tunesmith.models.vectors import read_vectors

LENGTH = 512
WHY_LENGTH = "model2vec's own; word vectors have no positions, so training.max_length may be any"
TABLES = ("embedding.weight", "embeddings")  # as sentence-transformers and model2vec name the table
WEIGHTS, MAPPING = "weights", "mapping"  # model2vec's: of each token, and its place in a shorter table
UNKNOWN = "[UNK]"


class StaticConfig(PreTrainedConfig):
    """What config.json says of a table: its size, and how a text is read."""

    model_type = STATIC

    def __init__(
        self,
        vocab_size: int = 1,
        hidden_size: int = 1,
        skipped: int | None = None,  # the token that stands for unknown words, which are left out of the mean
        normalize: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,  # transformers' own keys, which it passes when it reads or copies a config
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.skipped = skipped
        self.normalize = normalize
        self.classifier_dropout = classifier_dropout
        super().__init__(**kwargs)


class StaticModel(PreTrainedModel):
    """Token numbers to vectors, each by itself. It has no blocks: nothing mixes tokens before the mean."""

    config_class = StaticConfig
    main_input_name = "input_ids"

    def __init__(self, config: StaticConfig, table: Tensor) -> None:
        """table: [vocabulary, width], float32; the row of the skipped token is set to zero and stays so."""
        super().__init__(config)
        self.embedding = nn.Embedding(*table.shape, padding_idx=config.skipped, _weight=table)
        if config.skipped is not None:
            with torch.no_grad():
                self.embedding.weight[config.skipped] = 0.0

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embedding = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        """input_ids, attention_mask: [texts, tokens] -> last_hidden_state [texts, tokens, width]"""
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


@dataclass(frozen=True)
class Static:
    """A table, read."""

    module: StaticModel
    processor: TextProcessor
    pooling: Pooling
    notes: tuple[str, ...]  # lines to print: what was read, and how texts will be


def load_static(place: Path, dropout: float | None = None) -> Static:
    """Reads a file of word vectors, or a folder with a table (safetensors) and tokenizer.json.

    model2vec's weights of tokens are multiplied into the table, which gives the same means, and its shorter tables are
    spread out, so that each token can learn. Raises ModelError.
    """
    found = _from_file(place) if place.is_file() else _from_folder(place)
    found.module.config.classifier_dropout = dropout
    return found


def _from_file(path: Path) -> Static:
    read = read_vectors(path)
    unknown = UNKNOWN
    while unknown in read.words:
        unknown = f"[{unknown}]"
    vocabulary = {word: place for place, word in enumerate((unknown, *read.words))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    cased = any(word != word.lower() for word in read.words)
    if not cased:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # words and runs of other signs, as these tables hold them
    table = torch.cat([torch.zeros(1, read.vectors.shape[1]), read.vectors])
    said = (
        f"word vectors: {len(read.words):,} words of {table.shape[1]} values ({read.kind}); the mean of a text's words"
    )
    why = "in the case they are written in" if cased else "in lower case, as every word of the table is"
    notes = [f"{said}, scaled to length 1; texts are read {why}"]
    for count, what in ((read.repeated, "came before"), (read.unreadable, "are not UTF-8")):
        if count:
            notes.append(f"{path}: {count:,} words left out because they {what}")
    config = StaticConfig(*table.shape, skipped=0)
    return _static(config, table, core, unknown, tuple(notes))


def _from_folder(folder: Path) -> Static:
    part = static_part(folder)
    assert part is not None
    declared = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    tensors = _tensors(part)
    name = next((name for name in TABLES if name in tensors), None)
    if name is None or tensors[name].dim() != 2:
        held = ", ".join(f"{key} {list(value.shape)}" for key, value in tensors.items())
        raise ModelError(
            f"{part}: no table of vectors in model.safetensors; expected {' or '.join(TABLES)}, and it holds {held}"
        )
    table, shorter = tensors[name].float(), MAPPING in tensors
    core = _tokenizer(part)
    table = _spread(part, table, tensors, core.get_vocab_size())
    unknown = _unknown_of(core)
    ours = declared.get("model_type") == STATIC
    # model2vec leaves unknown words out of the mean; sentence-transformers gives them a vector like any other token.
    skips = declared.get("skipped") is not None if ours else name == TABLES[1]
    place = core.token_to_id(unknown) if skips and unknown is not None else None
    normalize = _normalizes(folder, declared)
    config = StaticConfig(*table.shape, skipped=place, normalize=normalize)
    spread = f", spread out from {len(tensors[name])} shared ones" if shorter else ""
    weighed = ", weighed by token" if WEIGHTS in tensors else ""
    note = (
        f"word vectors: {table.shape[0]:,} tokens of {table.shape[1]} values{spread}; the mean of a text's tokens{weighed}"
        + (", scaled to length 1" if normalize else "")
        + ("" if place is None else "; tokens that the table does not know are left out")
    )
    return _static(config, table, core, unknown, (note,))


def _static(
    config: StaticConfig, table: Tensor, core: Tokenizer, unknown: str | None, notes: tuple[str, ...]
) -> Static:
    core.no_truncation()
    core.no_padding()
    # No marks around a text: their vectors would be in every mean.
    core.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token=unknown, model_max_length=LENGTH)
    tokenizer.padding_side = "right"
    filler = 0 if config.skipped is None else config.skipped
    pad = {"input_ids": filler, "attention_mask": 0}
    processor = TextProcessor(
        tokenizer, LENGTH, WHY_LENGTH, pad, NO_LIMIT, apart=True, skipped=config.skipped, bag=True
    )
    module = StaticModel(config, table.contiguous().clone()).eval()
    return Static(module, processor, Pooling("mean", config.normalize), notes)


def _spread(part: Path, table: Tensor, tensors: dict[str, Tensor], tokens: int) -> Tensor:
    """[tokens, width]: a vector for each token, times its weight. Raises ModelError where the sizes do not fit."""
    problems = Problems()
    mapping, weights = tensors.get(MAPPING), tensors.get(WEIGHTS)
    rows = len(table) if mapping is None else len(mapping)
    if mapping is not None and (mapping.numel() == 0 or not 0 <= int(mapping.min()) <= int(mapping.max()) < len(table)):
        problems.add(f"{part}: {MAPPING} names rows that the table of {len(table)} does not have; fetch it again")
    if weights is not None and weights.shape != (rows,):
        problems.add(f"{part}: {WEIGHTS} is {list(weights.shape)}, and there are {rows:,} tokens; fetch it again")
    if tokens > rows:
        problems.add(
            f"{part}: the tokenizer knows {tokens:,} tokens and the table {rows:,}; copy the tokenizer.json of this table"
        )
    problems.raise_as(ModelError)
    spread = table if mapping is None else table[mapping.long()]
    spread = spread if weights is None else spread * weights.float().unsqueeze(-1)
    if not bool(spread.isfinite().all()):
        raise ModelError(f"{part}: the table holds values that are not finite; fetch model.safetensors again")
    return spread


def _unknown_of(core: Tokenizer) -> str | None:
    """The tokenizer's token for what it does not know."""
    model = json.loads(core.to_str())["model"]
    if model.get("unk_token") is not None:
        return str(model["unk_token"])
    place = model.get("unk_id")
    return None if place is None else core.id_to_token(int(place))


def _normalizes(folder: Path, declared: dict[str, Any]) -> bool:
    """Whether the mean is scaled to length 1: as config.json says, else as modules.json does."""
    said = declared.get("normalize")
    if said is not None:
        return bool(said)
    modules = folder / "modules.json"
    kinds = [str(module.get("type", "")) for module in _json(modules)] if modules.is_file() else []
    return any(kind.endswith(".Normalize") for kind in kinds)


def _tensors(part: Path) -> dict[str, Tensor]:
    try:
        return load_file(part / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{part}: the vectors cannot be read ({first_line(error)}); fetch the folder again") from None


def _tokenizer(part: Path) -> Tokenizer:
    path = part / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise ModelError(f"{path}: the tokenizer cannot be read ({first_line(error)}); fetch the file again") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: is not JSON ({error}); fetch the file again") from None
