"""Words added to a vocabulary: a domain's own words as one token each, which start as the mean of their pieces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedModel

from tunesmith.models.text import TextProcessor

PIECES = 3  # tokens from which a word is worth one of its own
OFTEN = 5  # times it must occur: a token that is seen less learns nothing
WORD = re.compile(r"[^\W\d_]{3,}")


def worth_adding(texts: Sequence[str], processor: TextProcessor, most: int) -> list[str]:
    """The words that cost most tokens over all texts, at most `most` of them."""
    counts = Counter(word.lower() if processor.folds_case else word for text in texts for word in WORD.findall(text))
    often = [word for word, count in counts.items() if count >= OFTEN]
    pieces = dict(zip(often, processor.pieces(often), strict=True))
    saved = {word: counts[word] * (len(ids) - 1) for word, ids in pieces.items() if len(ids) >= PIECES}
    return sorted(saved, key=lambda word: (-saved[word], word))[:most]


def add_words(processor: TextProcessor, words: Sequence[str]) -> dict[int, list[int]]:
    """Makes each word a token of the tokenizer, and gives by its number the tokens that it was before.

    A word that is one token already is left as it is.
    """
    before = {word: ids for word, ids in zip(words, processor.pieces(words), strict=True) if len(ids) > 1}
    tokenizer = processor.tokenizer
    added: list[Any] = [AddedToken(word, single_word=True, normalized=processor.folds_case) for word in before]
    tokenizer.add_tokens(added)
    processor.forget()
    return {int(tokenizer.convert_tokens_to_ids(word)): ids for word, ids in before.items()}  # type: ignore[arg-type]


def widen(model: PreTrainedModel, pieces: dict[int, list[int]]) -> None:
    """A row more for each new token in what the model reads and says: the mean of those of its pieces.

    The mean keeps a new token near what it stands for; random rows say it far too often at first (Hewitt 2021). A model
    that has such rows already (padding of its vocabulary) gets the same values there.
    """
    if not pieces:
        return
    size = max(pieces) + 1
    if size > _table(model.get_input_embeddings()).shape[0]:
        model.resize_token_embeddings(size, mean_resizing=False)
    output = model.get_output_embeddings()
    tables = [_table(model.get_input_embeddings())]
    if output is not None:
        tables += [value for value in output.parameters() if value is not tables[0]]  # a bias too
    with torch.no_grad():
        for table in tables:
            for number, ids in pieces.items():
                table[number] = table[ids].mean(0)


def _table(module: nn.Module) -> nn.Parameter:
    """[tokens, width]"""
    return next(module.parameters())
