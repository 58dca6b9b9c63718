"""How likely a language model takes words to be: right after a prompt, or where a text has masks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from tunesmith.models.language import CausalNetwork, MaskedNetwork
from tunesmith.models.lazy_logits import AT_ONCE, lazy_fits

CPU_TOKENS, GPU_TOKENS = 2_048, 32_768  # read in one forward
KEPT_BYTES = 2**28  # of keys and values, at most, that are copied for the endings of a batch
CLOSE = 1e-3  # nats that kept keys and values may change a likelihood by


class Masked(NamedTuple):
    """A text with a run of masks, wrapped in the tokenizer's marks."""

    inputs: dict[str, list[int]]  # each [tokens]
    masks: tuple[int, ...]  # places of the tokens to be told


class NotKept(Exception):
    """A family keeps no keys and values, or none that can be copied for several rows."""


class _Tree(NamedTuple):
    """What has to be read after a prompt so that every ending is told."""

    starts: list[tuple[int, ...]]  # what is read: endings without their last tokens, no one the beginning of another
    start: list[int]  # of each ending the place of the one that it begins as; -1 for an ending of one token


def tokens_read(prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]], kept: bool = True) -> int:
    """Tokens that `ending_likelihoods` reads, all in all."""
    starts = _tree(endings).starts
    after = sum(map(len, starts))
    if kept:
        shared = _shared(prompts)
        return shared + sum(len(prompt) - shared + after for prompt in prompts)
    return sum(max(1, len(starts)) * len(prompt) + after for prompt in prompts)


def tokens_after(endings: Sequence[Sequence[int]]) -> int:
    """Tokens that `ending_likelihoods` reads after each prompt, at the least."""
    return sum(map(len, _tree(endings).starts))


def ending_likelihoods(
    network: CausalNetwork, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]], kept: bool = True
) -> Tensor:
    """[prompts, endings] float64 on the CPU: the log likelihood in nats of each ending's tokens right after each prompt.

    kept: what all prompts begin with is read once, and each prompt once for all endings, by keeping keys and values; else
    each prompt is read again for every ending, which any decoder can do. The network is in evaluation mode. Raises
    ValueError for an empty prompt or ending, and NotKept where `kept` is asked of a family that cannot.
    """
    if not all(len(item) > 0 for item in (*prompts, *endings)):
        raise ValueError("a prompt and an ending need a token each")
    tree, first = _tree(endings), [ending[0] for ending in endings]
    found = torch.zeros(len(prompts), len(endings), dtype=torch.float64)
    reader = _Kept(network, prompts[0][: _shared(prompts)]) if kept else _Anew(network)
    with torch.inference_mode():
        for rows in _of_one_length(prompts, network.sample.device.type):
            hidden = reader.read(torch.tensor([list(prompts[row]) for row in rows], device=network.sample.device))
            found[rows] += _told(network, hidden, torch.tensor([first] * len(rows)))
            for places, after in reader.further(tree.starts):  # after: [rows, starts, tokens, width]
                at = {start: place for place, start in enumerate(places)}
                for number, ending in enumerate(endings):
                    if tree.start[number] not in at:
                        continue
                    # [rows, tokens after the first, width]
                    states = after[:, at[tree.start[number]], : len(ending) - 1]
                    tokens = torch.tensor(ending[1:]).repeat(len(rows))[:, None]
                    told = _told(network, states.flatten(0, 1), tokens)
                    found[rows, number] += told.view(len(rows), -1).sum(1)
    return found


def keeps_exactly(network: CausalNetwork, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> bool:
    """Whether kept keys and values tell what reading everything again does: tried, since families differ."""
    try:
        one = ending_likelihoods(network, prompts, endings)
    except NotKept:
        return False
    other = ending_likelihoods(network, prompts, endings, kept=False)
    return bool((one - other).abs().max() <= CLOSE)


def masked_likelihoods(network: MaskedNetwork, texts: Sequence[Masked], words: Sequence[Sequence[int]]) -> Tensor:
    """[texts, words] float64 on the CPU: the log likelihood in nats of each word's tokens at the masks of each text.

    Every text has as many masks as every word has tokens; the tokens are told each by itself, none knowing of the others.
    """
    pad, device = network.processor.pad, network.sample.device
    lazily = not lazy_fits(network)
    budget = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    budget = budget if lazily else min(budget, AT_ONCE // network.vocabulary)
    tokens = torch.tensor([list(word) for word in words])  # [words, tokens]
    found = torch.zeros(len(texts), len(words), dtype=torch.float64)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row].inputs["input_ids"]))
    with torch.inference_mode():
        while order:
            longest = len(texts[order[-1]].inputs["input_ids"])
            rows = order[-max(1, budget // longest) :]
            order = order[: -len(rows)]
            inputs = {
                name: torch.tensor(
                    [[*texts[row].inputs[name], *[filler] * (longest - len(texts[row].inputs[name]))] for row in rows]
                ).to(device)
                for name, filler in pad.items()
            }
            places = torch.tensor([texts[row].masks for row in rows], device=device)  # [rows, masks]
            chosen = (torch.arange(len(rows), device=device)[:, None], places)
            if lazily:
                outputs = network.project(network.hidden(inputs)[chosen].flatten(0, 1)).unflatten(0, places.shape)
            else:
                outputs = network.outputs(inputs)[chosen]  # [rows, masks, vocabulary]
            at = outputs.float().log_softmax(-1).cpu()
            each = at[:, torch.arange(tokens.shape[1])[None], tokens]  # [rows, words, masks]
            found[rows] = each.double().sum(-1)
    return found


class _Kept:
    """Reads prompts after what they share, and endings after the prompts, by keys and values that are kept."""

    def __init__(self, network: CausalNetwork, shared: Sequence[int]) -> None:
        self._network, self._shared = network, len(shared)
        self._first: Any = None
        self._past: Any = None
        self._rows, self._length = 0, 0
        if shared:
            ids = torch.tensor([list(shared)], device=network.sample.device)
            with torch.inference_mode():
                self._first = self._run(ids, None).past_key_values

    def read(self, ids: Tensor) -> Tensor:
        """[rows, tokens] whole prompts of one length -> [rows, width] what follows the last token is told by."""
        self._rows, self._length = ids.shape
        past = copy.deepcopy(self._first)
        if past is not None:
            _repeat(past, self._rows)
        given = self._run(ids[:, self._shared :], past)
        self._past = given.past_key_values
        return given.last_hidden_state[:, -1]

    def further(self, starts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Some of the starts at a time: their places, and [rows, starts, tokens, width]."""
        layout = self._network.layout
        each = 2 * len(layout.blocks) * layout.width * self._network.sample.element_size() * self._length * self._rows
        for places in _parts(starts, self._rows, self._network.sample.device.type, max(1, KEPT_BYTES // max(1, each))):
            past = copy.deepcopy(self._past)
            _repeat(past, len(places))
            ids = _padded([starts[place] for place in places]).to(self._network.sample.device)
            hidden = self._run(ids.repeat(self._rows, 1), past).last_hidden_state
            yield places, hidden.unflatten(0, (self._rows, len(places)))

    def _run(self, ids: Tensor, past: Any) -> Any:
        given = self._network.body(input_ids=ids, past_key_values=past, use_cache=True)
        if not isinstance(given.get("past_key_values"), Cache):  # mamba and rwkv give a state of their own
            raise NotKept
        return given


def _repeat(past: Cache, times: int) -> None:
    try:
        past.batch_repeat_interleave(times)
    except AttributeError:  # of a layer that keeps a state and no keys, as half of jamba's
        raise NotKept from None


class _Anew:
    """Reads everything again for every start."""

    def __init__(self, network: CausalNetwork) -> None:
        self._network = network
        self._ids = torch.empty(0)

    def read(self, ids: Tensor) -> Tensor:
        """As `_Kept.read`."""
        self._ids = ids
        return self._network.body(input_ids=ids, use_cache=False).last_hidden_state[:, -1]

    def further(self, starts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """As `_Kept.further`."""
        for place, start in enumerate(starts):
            after = torch.tensor([list(start)], device=self._ids.device).repeat(len(self._ids), 1)
            ids = torch.cat([self._ids, after], dim=1)
            hidden = self._network.body(input_ids=ids, use_cache=False).last_hidden_state
            yield [place], hidden[:, None, self._ids.shape[1] :]


def _told(network: CausalNetwork, hidden: Tensor, tokens: Tensor) -> Tensor:
    """[places, width] and [places, some tokens of the vocabulary] -> their log likelihoods, float64 on the CPU."""
    size = max(1, AT_ONCE // network.vocabulary)
    found = [
        network.project(part).float().log_softmax(-1).cpu().gather(1, wanted)
        for part, wanted in zip(hidden.split(size), tokens.split(size), strict=True)
    ]
    return torch.cat(found).double()


def _tree(endings: Sequence[Sequence[int]]) -> _Tree:
    read = {tuple(ending[:-1]) for ending in endings if len(ending) > 1}
    starts = sorted(start for start in read if not any(other[: len(start)] == start for other in read - {start}))
    before = [tuple(ending[:-1]) for ending in endings]
    places = [
        next(place for place, start in enumerate(starts) if start[: len(one)] == one) if one else -1 for one in before
    ]
    return _Tree(starts, places)


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, and have at least one more of."""
    order = sorted(map(tuple, prompts))  # whatever lies between the first and the last begins as both do
    first, last = order[0], order[-1]
    most = min(len(prompt) for prompt in prompts) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)


def _of_one_length(prompts: Sequence[Sequence[int]], device: str) -> Iterator[list[int]]:
    """Rows in batches without filler: after filler nothing could be read on."""
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(row)
    for length, rows in sorted(by_length.items()):
        size = max(1, budget // length)
        yield from (rows[at : at + size] for at in range(0, len(rows), size))


def _parts(starts: Sequence[Sequence[int]], rows: int, device: str, most: int) -> Iterator[list[int]]:
    """Places of starts that are read together: of like length, `most` at once."""
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    order = sorted(range(len(starts)), key=lambda place: len(starts[place]))
    while order:
        size = max(1, min(most, budget // (rows * len(starts[order[-1]]))))
        yield order[-size:]
        order = order[:-size]


def _padded(starts: Sequence[Sequence[int]]) -> Tensor:
    """[starts, tokens]; filled behind, where it is seen by nothing that is read off."""
    longest = max(len(start) for start in starts)
    return torch.tensor([[*start, *[start[-1]] * (longest - len(start))] for start in starts])
