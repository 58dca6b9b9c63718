"""Texts and labels' names as a language model is asked about them: whole prompts in tokens, cut to what it can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.data.encode import Text
from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from tunesmith.models.likelihood import Masked
    from tunesmith.models.text import TextProcessor

ASKED = "This is about"  # what a label's name follows: of five such patterns the one that told most (docs/log.md)
CONTENT_FREE = ("N/A", "", "[MASK]")  # texts that say nothing (Zhao 2021, section 5)
LINE = "\n"
LEAST = 8  # tokens of a text that there must be room for
TURNS = 8  # in which a prompt that is too long is cut


class Prompts(NamedTuple):
    """What a decoder reads, and what may follow it."""

    prompts: list[list[int]]  # one a text
    endings: list[list[int]]  # one a name


def prompts_of(processor: TextProcessor, texts: Sequence[Text], names: Sequence[str], limit: int) -> Prompts:
    """For a causal language model; `limit` tokens of a text at most. Raises ModelError where there is no room for a text."""
    endings = endings_of(processor, names)
    before, _ = processor.marks()
    most = min(processor.max_length, processor.positions) - len(before) - max(map(len, endings))

    def written(text: tuple[str, ...]) -> str:
        return f"{_as_one(text, LINE)}{LINE}{ASKED}"

    tokens = _cut(processor, [_sides(text) for text in texts], written, limit, most)
    return Prompts([[*before, *ids] for ids in tokens], endings)


def names_at_masks(processor: TextProcessor, names: Sequence[str]) -> list[list[int]]:
    """The tokens of each name, as they stand behind another word. Raises ModelError where two are the same."""
    found = processor.pieces([f" {name}" for name in names])
    _check_names(processor, names, found)
    return found


def masked_of(processor: TextProcessor, texts: Sequence[Text], masks: int, limit: int) -> list[Masked]:
    """For a masked language model: `masks` masks behind each text, of which `limit` tokens at most are read.

    Raises ModelError where the tokenizer has no mask, or where there is no room for a text.
    """
    from tunesmith.models.likelihood import Masked

    def written(text: tuple[str, ...]) -> str:
        return f"{_as_one(text, ' ')} {ASKED}"

    alone, closed = processor.bare([ASKED, f"{ASKED}."])
    stop = closed[len(alone) :] if closed[: len(alone)] == alone else []
    behind = [*[processor.mask] * masks, *stop]
    most = min(processor.max_length, processor.positions) - processor.special - len(behind)
    found = []
    for ids in _cut(processor, [_sides(text) for text in texts], written, limit, most):
        inputs, before = processor.wrapped([*ids, *behind])
        first = before + len(ids)
        found.append(Masked(inputs, tuple(range(first, first + masks))))
    return found


def content_free(texts: Sequence[Text], masks: bool) -> list[Text]:
    """Texts that say nothing, each of as many parts as `texts` have; `masks`: for a model that reads masks as such."""
    count = len(_sides(texts[0]))
    return [said if count == 1 else (said,) * count for said in CONTENT_FREE if not (masks and said == "[MASK]")]


def _sides(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _as_one(text: tuple[str, ...], between: str) -> str:
    return text[0] if len(text) == 1 else between.join(f"Text {number}: {side}" for number, side in enumerate(text, 1))


def endings_of(processor: TextProcessor, names: Sequence[str]) -> list[list[int]]:
    """The tokens of each name behind what asks for it: those that come more where both are read together.

    Raises ModelError where two names are the same.
    """
    alone, *together = processor.bare([ASKED, *(f"{ASKED} {name}" for name in names)])
    apart = processor.pieces([f" {name}" for name in names])
    found = [
        whole[len(alone) :] if whole[: len(alone)] == alone and len(whole) > len(alone) else own
        for whole, own in zip(together, apart, strict=True)
    ]
    _check_names(processor, names, found)
    return found


def _check_names(processor: TextProcessor, names: Sequence[str], found: Sequence[Sequence[int]]) -> None:
    unknown = processor.tokenizer.unk_token_id
    strange = next((name for name, tokens in zip(names, found, strict=True) if unknown in tokens), None)
    if strange is not None:
        raise ModelError(f'the tokenizer does not know all letters of "{strange}"')
    seen: dict[tuple[int, ...], str] = {}
    for name, tokens in zip(names, found, strict=True):
        other = seen.setdefault(tuple(tokens), name)
        if other is not name:
            raise ModelError(f'"{other}" and "{name}" are the same to its tokenizer')


def _cut(
    processor: TextProcessor,
    texts: Sequence[tuple[str, ...]],
    written: Callable[[tuple[str, ...]], str],
    limit: int,
    most: int,
) -> list[list[int]]:
    """The tokens of each text as `written`, `most` at most, the first `limit` at most of them the text's own."""
    empty = len(processor.bare([written(("",) * len(texts[0]))])[0])
    if most - empty < LEAST:
        raise ModelError(f"it reads {most} tokens at most, and {empty} of them are the question")
    kept = _shortened(processor, texts, [limit] * len(texts))
    found = processor.bare([written(text) for text in kept])
    for turn in range(1, TURNS):
        long = [row for row, ids in enumerate(found) if len(ids) > most]
        if not long:
            break
        room = max(1, most - empty - turn)  # a cut text may be other tokens than those that were kept of it
        shorter = _shortened(processor, [kept[row] for row in long], [min(limit, room)] * len(long))
        for row, ids in zip(long, processor.bare([written(text) for text in shorter]), strict=True):
            found[row] = ids
    if any(len(ids) > most for ids in found):
        raise ModelError("a text could not be cut to what it reads")
    return found


def _shortened(
    processor: TextProcessor, texts: Sequence[tuple[str, ...]], rooms: Sequence[int]
) -> list[tuple[str, ...]]:
    """Each text in so many tokens; of two that are too long together, the longer one loses tokens first."""
    sides = [processor.bare(side) for side in zip(*texts, strict=True)]
    found = []
    for row, (text, room) in enumerate(zip(texts, rooms, strict=True)):
        tokens = [side[row] for side in sides]
        over = sum(map(len, tokens)) - room
        if over > 0:
            shortest = min(map(len, tokens))
            keep = [min(len(ids), max(room - shortest, room // 2 + room % 2)) for ids in tokens]
            keep = keep if len(tokens) > 1 else [room]
            keep[-1] -= max(0, sum(keep) - room)
            text = tuple(
                side if count >= len(ids) else processor.written(ids[:count])
                for side, ids, count in zip_longest(text, tokens, keep)
            )
        found.append(text)
    return found
