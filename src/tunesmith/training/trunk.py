"""Frozen activations: what frozen blocks give is computed once for each row, and reused in every epoch."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Batch, Example, collate, places_of
from tunesmith.data.order import by_tokens
from tunesmith.data.stored import measures
from tunesmith.memory import free_memory
from tunesmith.phases import NOTHING, Time
from tunesmith.training.keeping import Kept, keep
from tunesmith.training.reading import Reading, many_each, one_each
from tunesmith.training.shelf import NOWHERE, Shelf

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.methods.base import Plan
    from tunesmith.models.network import Network
    from tunesmith.models.replay import Replay
    from tunesmith.training.reading import Parts

# Padded tokens in one forward while filling a cache. On a CPU activations should stay in the processor's caches: with MiniLM
# 768 tokens took half the time of 4,096 (docs/log.md). A GPU wants many.
CPU_TOKENS, GPU_TOKENS = 768, 32_768
MEMORY_SHARE = 0.4  # of the free memory may hold cached activations


class Trunk(ABC):
    """Runs the network on a batch of one split, taking what is frozen from where it is kept."""

    why: str
    saved: Time = NOTHING  # what computing would have taken that was found on disk

    def enter(self, cut: int, epochs: float) -> None:
        """Blocks [0, cut) and everything before them will not change for so many epochs; by default of no use."""
        return

    @abstractmethod
    def forward(self, split: str, batch: Batch) -> Tensor:
        """The network's output for the batch."""

    @abstractmethod
    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        """What reaches the last linear map, by row number: [rows, width], float32 on the CPU.

        Where outputs are one a token, of the tokens that count alone, row after row: [counted tokens, width].
        """


class Live(Trunk):
    """Nothing is kept: every forward runs the whole network."""

    def __init__(self, network: Network, why: str) -> None:
        self.network, self.why = network, why

    def forward(self, split: str, batch: Batch) -> Tensor:
        return self.network(batch.inputs)

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        return pooled_features(self.network, examples, pad)


class PooledCache(Trunk):
    """Only the last linear map trains: its input is kept, one vector a row."""

    def __init__(self, network: Network, kept: Mapping[str, Tensor], why: str) -> None:
        self.network, self.kept, self.why = network, kept, why

    def forward(self, split: str, batch: Batch) -> Tensor:
        import torch

        rows = torch.tensor(batch.rows)
        kept = self.kept[split][rows]  # [rows, width]
        return self.network.told(kept.to(self.network.sample.device, self.network.sample.dtype))

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        return self.kept[split] if split in self.kept else pooled_features(self.network, examples, pad)


class TokenCache(Trunk):
    """Only the last linear map trains, and there is an output for every token: its input is kept for all of them."""

    def __init__(self, network: Network, kept: Mapping[str, Sequence[Tensor]], why: str) -> None:
        self.network, self.kept, self.why = network, kept, why

    def forward(self, split: str, batch: Batch) -> Tensor:
        padded = _padded(self.kept[split], batch)
        return self.network.classify(padded.to(self.network.sample.dtype))

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        import torch

        if split not in self.kept:
            return pooled_features(self.network, examples, pad)
        return torch.cat([self.kept[split][example.row][list(places_of(example))] for example in examples])


class HiddenCache(Trunk):
    """Blocks [0, cut) are frozen: what leaves them is kept for every token of every row."""

    def __init__(self, network: Network, replay: Replay, hidden: Mapping[str, Sequence[Tensor]], why: str) -> None:
        self.network, self.replay, self.hidden, self.why = network, replay, hidden, why

    def forward(self, split: str, batch: Batch) -> Tensor:
        return self.replay.forward(batch.inputs, _padded(self.hidden[split], batch))

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        from tunesmith.models.replay import Replay

        if split not in self.hidden:
            return pooled_features(self.network, examples, pad)
        rest = Replay(self.network, self.replay.cut, call=self.network.features)
        return pooled_features(
            self.network, examples, pad, lambda batch: rest.forward(batch.inputs, _padded(self.hidden[split], batch))
        )


def _padded(by_row: Sequence[Tensor], batch: Batch) -> Tensor:
    """[rows, tokens, width] from what is kept of each row, [tokens, width]; on the batch's device.

    Of two texts read apart the second ones follow all first ones, in what is kept and in the batch.
    """
    if "input_ids" not in batch.inputs:  # pictures are all of one size
        import torch

        return torch.stack([by_row[row] for row in batch.rows]).to(next(iter(batch.inputs.values())).device)
    sides = len(batch.inputs["input_ids"]) // len(batch.rows)
    kept = [by_row[row + side * len(by_row) // sides] for side in range(sides) for row in batch.rows]
    longest = batch.inputs["input_ids"].shape[1]
    padded = kept[0].new_zeros(len(kept), longest, kept[0].shape[-1])
    for place, states in enumerate(kept):
        padded[place, : len(states)] = states
    return padded.to(batch.inputs["input_ids"].device)


def plan_trunk(
    network: Network,
    plan: Plan,
    splits: Mapping[str, Sequence[Example]],
    cache: str,
    pad: dict[str, int],
    shelf: Shelf = NOWHERE,
) -> Trunk:
    """The cheapest trunk that gives the same numbers: pooled vectors, hidden states, or nothing kept.

    `splits` are the rows that will be asked for, by split name; row numbers index them. What `shelf` holds of them is not
    computed, and what does not fit into memory is kept there alone.
    """
    if cache == "off":
        return Live(network, "off, as asked")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    last = set() if network.output is None else {names[id(parameter)] for parameter in network.output.parameters()}
    if set(plan.trainable) <= last:
        return _plan_features(network, splits, cache, pad, shelf)
    if network.unkept:
        return Live(network, f"nothing kept: {network.unkept}")
    if plan.cut == 0:
        return Live(network, "nothing to keep: blocks train from the first one on")
    return _plan_hidden(network, plan, splits, cache, pad, shelf)


def _plan_features(
    network: Network, splits: Mapping[str, Sequence[Example]], cache: str, pad: dict[str, int], shelf: Shelf
) -> Trunk:
    if network.per_token:
        count, a = sum(example.length for examples in splits.values() for example in examples), "token"
    else:
        count, a = sum(map(len, splits.values())), "row"
    needed = count * network.last.in_features * 4
    kept, where = _kept(_features_reading(network, pad), splits, cache, shelf, needed, "vectors")
    if kept is None:
        return Live(network, where)
    why = f"one vector a {a} ({needed / 1e6:.0f} MB), since only the last linear map trains: {where}"
    trunk = (TokenCache if network.per_token else PooledCache)(network, kept.values, why)
    trunk.saved = kept.saved
    return trunk


def _plan_hidden(
    network: Network,
    plan: Plan,
    splits: Mapping[str, Sequence[Example]],
    cache: str,
    pad: dict[str, int],
    shelf: Shelf,
) -> Trunk:
    from tunesmith.models.fingerprint import beyond
    from tunesmith.models.replay import Replay, supported_cut

    first = list(itertools.islice(itertools.chain.from_iterable(splits.values()), 8))
    sample = collate(first, pad, _device(network))
    cut, reason = supported_cut(network, plan.cut, sample.inputs)
    if cut == 0:
        return Live(network, f"nothing kept: {reason}")
    size, replay, texts = network.sample.element_size(), Replay(network, cut), "input_ids" in pad
    if texts:
        rows = (example for part in splits.values() for example in part)
        tokens = sum(len(side["input_ids"]) for example in rows for side in example.sides)
        needed = tokens * network.layout.width * size
    else:
        one = collate(first[:1], pad, _device(network)).inputs
        needed = sum(map(len, splits.values())) * replay.capture(one).numel() * size
    reading = Reading(
        network,
        f"hidden {cut}",
        beyond(network, cut, plan.trainable),
        _settings(pad),
        partial(_hidden_parts, replay, network, pad),
        _side_lengths if texts else None,
        len(first[0].sides),
    )
    kept, where = _kept(reading, splits, cache, shelf, needed, "hidden states")
    if kept is None:
        return Live(network, where)
    why = f"what leaves frozen block {cut - 1} is kept ({needed / 1e6:.0f} MB): {where}"
    trunk = HiddenCache(network, replay, kept.values, why)
    trunk.saved = kept.saved
    return trunk


def _kept(
    reading: Reading, splits: Mapping[str, Sequence[Example]], cache: str, shelf: Shelf, needed: int, what: str
) -> tuple[Kept | None, str]:
    """What is kept of the rows and where, in words to go on with; else None, and why nothing is."""
    free = free_memory()
    if needed > MEMORY_SHARE * free:
        refused = shelf.refuses(needed)
        if not refused:
            try:
                kept = keep(shelf, reading, splits, stream=True)
                return kept, f"{kept.said}; too much for the memory, so read from there in every epoch"
            except OSError as error:
                refused = f"{shelf.folder} cannot be written ({error})"
        if cache != "memory":
            why = f"nothing kept: {needed / 1e9:.1f} GB of {what} do not fit {free / 1e9:.1f} GB free"
            return None, why if shelf is NOWHERE else f"{why} of memory, and {refused}"
    kept = keep(shelf, reading, splits)
    return kept, kept.said if kept.said else "computed once, in memory"


def kept_features(
    network: Network,
    splits: Mapping[str, Sequence[Example]],
    pad: dict[str, int],
    shelf: Shelf,
    base: bool = False,
) -> Kept:
    """`pooled_features` of each split, or its `base_features`, found on disk where they are known."""
    import torch

    from tunesmith.models.fingerprint import beside_base

    reading = _features_reading(network, pad)
    if base:
        forward = _forward_of_base(network)
        parts = partial(_features_parts, network, pad, forward)
        reading = replace(reading, name=f"base {reading.name}", spared=beside_base(network), parts=parts)
    kept = keep(shelf, reading, splits)
    if network.per_token:
        kept.values = {
            name: torch.cat([kept.values[name][example.row][list(places_of(example))] for example in splits[name]])
            for name in kept.values
        }
    return kept


def pooled_features(
    network: Network,
    examples: Sequence[Example],
    pad: dict[str, int],
    forward: Callable[[Batch], Tensor] | None = None,
) -> Tensor:
    """What reaches the last linear map, float32 on the CPU: [rows, width], by row number.

    Where outputs are one a token, [counted tokens, width], row after row. `forward` gives the features of a batch where
    they need not come from the whole network.
    """
    import torch

    if network.per_token:
        by_row = token_features(network, examples, pad, forward)
        return torch.cat([by_row[example.row][list(places_of(example))] for example in examples])
    return one_each(_features_parts(network, pad, forward, examples), len(examples))


def token_features(
    network: Network,
    examples: Sequence[Example],
    pad: dict[str, int],
    forward: Callable[[Batch], Tensor] | None = None,
) -> list[Tensor]:
    """What reaches the last linear map for every token, float32 on the CPU, by row number: each [tokens, width]."""
    return many_each(_features_parts(network, pad, forward, examples), len(examples))


def base_features(network: Network, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
    """What the pretrained base alone gives, float32 on the CPU: [rows, width], by row number."""
    return pooled_features(network, examples, pad, _forward_of_base(network))


def _forward_of_base(network: Network) -> Callable[[Batch], Tensor]:
    return lambda batch: network.base_features(batch.inputs)


def hidden_states(replay: Replay, network: Network, examples: Sequence[Example], pad: dict[str, int]) -> list[Tensor]:
    """What leaves the frozen prefix, without padding, by row number: each [tokens, width], on the CPU.

    Of two texts read apart, those of all first texts, then those of all second ones.
    """
    return many_each(_hidden_parts(replay, network, pad, examples), len(examples) * len(examples[0].sides))


def _features_reading(network: Network, pad: dict[str, int]) -> Reading:
    from tunesmith.models.fingerprint import last_map

    parts = partial(_features_parts, network, pad, None)
    name, sizes = ("tokens", _lengths) if network.per_token else ("pooled", None)
    return Reading(network, name, last_map(network), _settings(pad), parts, sizes)


def _settings(pad: dict[str, int]) -> list[Any]:
    """What decides which rows are computed together, and what they are filled up with."""
    return [sorted(pad.items()), CPU_TOKENS, GPU_TOKENS]


def _lengths(examples: Sequence[Example]) -> list[int]:
    return measures(examples).lengths.tolist()


def _side_lengths(examples: Sequence[Example]) -> list[int]:
    by_row = [[len(side["input_ids"]) for side in example.sides] for example in examples]
    return [length for side in zip(*by_row, strict=True) for length in side]


def _features_parts(
    network: Network, pad: dict[str, int], forward: Callable[[Batch], Tensor] | None, examples: Sequence[Example]
) -> Parts:
    import torch

    with ExitStack() as stack:
        for place, (part, batch) in enumerate(measured_batches(network, examples, pad)):
            # Not inference mode, whose tensors no gradient may need: a copy of them would be as large again.
            with torch.no_grad():
                if place == 0 and forward is None and not network.per_token:
                    stack.enter_context(network.fused(batch.inputs, len(examples)))
                found = (network.features(batch.inputs) if forward is None else forward(batch)).float().cpu()
            rows = [example.row for example in part]
            if network.per_token:
                yield rows, [states[: example.length] for example, states in zip(part, found, strict=True)]
            else:
                yield rows, found


def _hidden_parts(replay: Replay, network: Network, pad: dict[str, int], examples: Sequence[Example]) -> Parts:
    import torch

    for part, batch in measured_batches(network, examples, pad):
        with torch.no_grad():
            # The room for them was reckoned in the machine's memory, and a GPU's is for training.
            found = replay.capture(batch.inputs).cpu()
        sides = [(place, example) for place in range(len(part[0].sides)) for example in part]
        rows = [example.row + place * len(examples) for place, example in sides]
        owned = [_own(states, example.sides[place]) for (place, example), states in zip(sides, found, strict=True)]
        yield rows, owned


def _own(states: Tensor, side: dict[str, Any]) -> Tensor:
    """What belongs to the row itself: filler's states are left away."""
    return states[: len(side["input_ids"])] if "input_ids" in side else states


def measured_batches(
    network: Network, examples: Sequence[Example], pad: dict[str, int]
) -> Iterator[tuple[list[Example], Batch]]:
    """The examples in batches of about equal lengths on the network's device, which is put in evaluation mode."""
    network.eval()
    for part in _chunks(examples, _device(network)):
        yield part, collate(part, pad, _device(network))


def _chunks(examples: Sequence[Example], device: str) -> Iterable[list[Example]]:
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    for rows in by_tokens(measures(examples).lengths.tolist(), budget):
        yield [examples[row] for row in rows]


def _device(network: Network) -> str:
    return str(network.sample.device)
