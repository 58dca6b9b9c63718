"""Words added to a vocabulary: a domain's own words as one token each, which start as the mean of their pieces."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith.errors import ModelError
from tunesmith.models.text import TextProcessor

PIECES = 3  # tokens from which a word is worth one of its own
OFTEN = 5  # times it must occur: a token that is seen less learns nothing
TRIED = "the {} of {}, {}."  # in which a new token must be found wherever the word stands
WORD = re.compile(r"[^\W\d_]{3,}")
MARK = re.compile(r"<[|/]?\w+[|/]?>|\[[A-Z]{2,}\]")  # <unk>, <|endoftext|>, </s>, [MASK]: no words, whoever wrote them


def worth_adding(texts: Sequence[str], processor: TextProcessor, most: int) -> list[str]:
    """The words that cost most tokens over all texts, at most `most` of them; none out of a mark such as <unk>."""
    known = [re.escape(mark) for mark in processor.tokenizer.all_special_tokens]
    marks, folds = re.compile("|".join([*known, MARK.pattern])), processor.folds_case
    plain = (marks.sub(" ", text) for text in texts)
    counts = Counter(word.lower() if folds else word for text in plain for word in WORD.findall(text))
    often = [word for word, count in counts.items() if count >= OFTEN]
    pieces = dict(zip(often, processor.pieces(often), strict=True))
    saved = {word: counts[word] * (len(ids) - 1) for word, ids in pieces.items() if len(ids) >= PIECES}
    return sorted(saved, key=lambda word: (-saved[word], word))[:most]


def add_words(processor: TextProcessor, words: Sequence[str]) -> dict[int, list[int]]:
    """Makes each word a token of the tokenizer, and gives by its number the tokens that it was before.

    A word that is one token already is left as it is. Raises ModelError, before anything has changed, for a tokenizer
    that would not give a text back: those that put a space before each part of a text (of llama 2 and its kin) put one
    after each new token too.
    """
    before = {word: ids for word, ids in zip(words, processor.pieces(words), strict=True) if len(ids) > 1}
    tokenizer = copy.deepcopy(processor.tokenizer)
    added: list[Any] = [AddedToken(word, single_word=True, normalized=processor.folds_case) for word in before]
    tokenizer.add_tokens(added)
    vocabulary = tokenizer.get_vocab()
    numbers = {word: vocabulary[word] for word in before}
    _check(processor.tokenizer, tokenizer, numbers)
    processor.tokenizer = tokenizer
    processor.forget()
    return {numbers[word]: ids for word, ids in before.items()}


def _check(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, numbers: Mapping[str, int]) -> None:
    lost, changed, spaced = [], [], []
    for word, number in numbers.items():
        text = TRIED.format(word, word, word)
        before, after = (list(one(text, add_special_tokens=False)["input_ids"]) for one in (old, new))
        if after.count(number) != 3:
            lost.append(word)
        elif (was := str(old.decode(before))) != (now := str(new.decode(after))):
            (spaced if "".join(was.split()) == "".join(now.split()) else changed).append(word)
    if spaced:  # of this tokenizer, whatever the word: no other choice of words would do
        raise ModelError(
            "task.new_tokens: this base's tokenizer cannot take whole words: it puts a space before each part of a text, so "
            "one would follow every new token; leave task.new_tokens out, or choose a base with another tokenizer"
        )
    problems = [f"the tokenizer does not find {shown_words(lost)} as tokens of their own"] if lost else []
    problems += [f"with {shown_words(changed)} the tokenizer no longer gives a text back as it was"] if changed else []
    if problems:
        raise ModelError(*(f"task.new_tokens: {said}; leave them out, or choose another base" for said in problems))


def shown_words(words: Sequence[str]) -> str:
    """The first few, for a line."""
    return ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")


def widen(model: PreTrainedModel, pieces: Mapping[int, list[int]]) -> None:
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
