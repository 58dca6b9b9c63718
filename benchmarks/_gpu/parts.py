"""What single parts of a step take, each in several ways: what else would pay on this card, and how large parts should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tunesmith.data.encode import Batch, collate
from tunesmith.models import lazy_logits
from tunesmith.models.casting import cast
from tunesmith.models.language import CausalNetwork
from tunesmith.models.network import Network
from tunesmith.models.packed_attention import put_on
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import Task
from tunesmith.training.optim import Masters

from . import card, rows
from .models import method_of, network_of, pad_of
from .ours import compile_blocks, task_of
from .works import DECODER, HALF_BILLION, MINILM, TINY_ENCODER, TINY_TIED, Amount, Job, Shape

TIMES = 30
OURS = "as it is"
Do = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    name: str
    ways: dict[str, Callable[[], Do]]  # each makes what is timed


def parts(trial: bool, device: str) -> Iterator[Part]:
    encoder, decoder = (TINY_ENCODER, TINY_TIED) if trial else (MINILM, HALF_BILLION)
    few, many = (4, 16) if trial else (32, 256)
    limit = 128 if trial else 4096
    whole = "forward and backward in bfloat16"
    for count in (few, many):
        yield passes(f"{whole}, encoder, {count} rows of 16 tokens", encoder, _rows(encoder, 16, count), device)
    yield passes(f"{whole}, decoder, one text of {limit:,} tokens", decoder, _rows(decoder, limit, 1), device)
    yield masks(decoder, limit, device)
    yield losses(decoder, limit * (1 if trial else 4), device)
    yield copies(encoder, few, device)
    yield windows(decoder, limit, device)
    yield gathering(encoder, device)
    yield optimizers(10_000 if trial else 400_000_000, device)


def passes(name: str, shape: Shape, given: list[Any], device: str) -> Part:
    """One batch of a fixed shape again and again: plain, compiled, and captured as a graph, which the CPU starts at once."""

    def plain() -> Do:
        network, task, batch = _ready(shape, given, device)
        return lambda: _learn(network, task, batch)

    def compiled() -> Do:
        network, task, batch = _ready(shape, given, device)
        compile_blocks(network, device)
        return lambda: _learn(network, task, batch)

    def captured() -> Do:
        network, task, batch = _ready(shape, given, device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as torch.cuda.graph asks: what is made on the first passes is made outside
            for _ in range(3):
                _learn(network, task, batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            _learn(network, task, batch)
        return partial(_replay, graph, network, batch)

    def reduced() -> Do:
        """torch's own CUDA graphs, of each block: for one shape, since each other shape is recorded anew."""
        network, task, batch = _ready(shape, given, device)
        for name in network.layout.blocks:
            block = network.get_submodule(name)
            vars(block)["forward"] = torch.compile(block.forward, mode="reduce-overhead")

        def do() -> None:
            torch.compiler.cudagraph_mark_step_begin()
            _learn(network, task, batch)
            network.zero_grad(
                set_to_none=True
            )  # a gradient may stand in the graph's own memory, which the next pass reuses

        return do

    ways: dict[str, Callable[[], Do]] = {OURS: plain, "blocks compiled": compiled}
    if device == card.CUDA:
        ways["blocks compiled, as CUDA graphs (reduce-overhead)"] = reduced
    # A decoder's loss looks for what is learned, whose count only the GPU knows: no graph can hold that.
    graphs = device == card.CUDA and shape.kind != DECODER
    return Part(name, ways | ({"CUDA graph": captured} if graphs else {}))


def masks(shape: Shape, limit: int, device: str) -> Part:
    """By a mask attention goes over all pairs of a packed window's tokens; a kernel that is told where texts end does not."""

    def of(packed: bool, told: bool = False) -> Callable[[], Do]:
        def ready() -> Do:
            given = rows.examples(shape, Amount(limit, 1, 0, 1), 1) if packed else _rows(shape, limit, 1)
            network, task, batch = _ready(shape, given, device)
            if told:
                assert isinstance(network, CausalNetwork)
                put_on(network.body)
            return lambda: _learn(network, task, batch)

        return ready

    return Part(
        f"forward and backward in bfloat16, decoder, {limit:,} tokens",
        {
            "packed texts, by a mask": of(True),
            "packed texts, by a kernel that is told where each ends": of(True, told=True),
            "one text": of(False),
        },
    )


def losses(shape: Shape, places: int, device: str) -> Part:
    """Of the loss alone, with gradients of hidden states and of the output's weights."""

    def of(size: int) -> Callable[[], Do]:
        def ready() -> Do:
            network, _, _ = _ready(shape, _rows(shape, 16, 1), device)
            assert isinstance(network, lazy_logits.VocabularyNetwork)
            hidden = torch.randn(1, places, shape.width, device=device, dtype=torch.bfloat16, requires_grad=True)
            learned = torch.ones(1, places, dtype=torch.bool, device=device)
            target = torch.randint(shape.vocabulary, (places,), device=device)
            later = lazy_logits.LazyLogits(hidden, network.project, network.outside())

            def do() -> None:
                with mock.patch.object(lazy_logits, "at_once", lambda device: size):
                    later.loss(learned, target, 0.0).backward()

            return do

        return ready

    sizes = {f"2^{power} outputs at once": of(2**power) for power in (22, 24, 26, 27, 28, 29)}
    usual = f"2^{lazy_logits.at_once(torch.device(device)).bit_length() - 1} outputs at once"
    named = {f"{OURS}: {name}" if name == usual else name: way for name, way in sizes.items()}
    return Part(f"loss of {places:,} places over {shape.vocabulary:,} outputs", named)


def copies(shape: Shape, count: int, device: str) -> Part:
    """How long the CPU is kept by a batch on its way while the GPU has work to do."""
    given = _rows(shape, 16, count)

    def of(pinned: bool) -> Callable[[], Do]:
        def ready() -> Do:
            side = 4096 if device == card.CUDA else 64
            busy = torch.randn(side, side, device=device)

            def do() -> None:
                for _ in range(4):
                    busy @ busy
                if pinned:
                    collate(given, pad_of(shape), device)
                    return
                for value in collate(given, pad_of(shape)).inputs.values():
                    value.to(device)

            return do

        return ready

    return Part(f"a batch of {count} rows made and sent while 4 products run", {
        f"{OURS}: pinned": of(True), "from ordinary memory": of(False)
    })  # fmt: skip


def windows(shape: Shape, limit: int, device: str) -> Part:
    """What a GPU would wait for between two steps, were the next batch not made ahead."""

    def ready() -> Do:
        given = rows.examples(shape, Amount(limit, 8, 0, 1), 8)
        return lambda: collate(given, pad_of(shape), device)

    return Part(f"a batch of 8 packed windows of {limit:,} tokens", {OURS: ready})


def gathering(shape: Shape, device: str) -> Part:
    """A bfloat16 network's gradients into float32, for a model whose many parameters are small."""

    def of(together: bool) -> Callable[[], Do]:
        def ready() -> Do:
            network = network_of(shape, device)
            method = method_of(Job("full", Amount(0, 1, 0, 1), ()))
            plan = method.attach(network, method.rates(shape.width, 1), rows.SEED)
            masters = Masters(network, plan, TrainingSpec(), torch.bfloat16)
            gradients = [torch.ones_like(value) for value in network.parameters()]

            def one_by_one() -> None:
                for value, gradient in zip(network.parameters(), gradients, strict=True):
                    value.grad = gradient
                masters.collect()
                masters.discard()

            def at_once() -> None:
                found = [torch.empty_like(value, dtype=torch.float32) for value in gradients]
                torch._foreach_copy_(found, gradients)

            return at_once if together else one_by_one

        return ready

    return Part("gradients of the encoder into float32", {f"{OURS}: one by one": of(False), "by few kernels": of(True)})


def optimizers(numbers: int, device: str) -> Part:
    def of(**options: Any) -> Callable[[], Do]:
        def ready() -> Do:
            values = [torch.zeros(numbers // 40, device=device, requires_grad=True) for _ in range(40)]
            for value in values:
                value.grad = torch.ones_like(value)
            return torch.optim.AdamW(values, **options).step

        return ready

    return Part(
        f"AdamW over {numbers:,} float32 parameters", {f"{OURS}: fused": of(fused=True), "foreach": of(foreach=True)}
    )


def measured(part: Part, device: str, times: int) -> list[dict[str, Any]]:
    """A record for each way; of one that breaks, what it said."""
    found = []
    for way, ready in part.ways.items():
        record: dict[str, Any] = {"part": part.name, "way": way, "ms": None, "error": ""}
        try:
            record |= _timed(ready, device, times)
        except Exception as error:  # whatever a kernel or a compiler raises: the others are still to be measured
            record["error"] = f"{type(error).__name__}: {error}"[:300]
        card.empty(device)
        found.append(record)
    return found


def _timed(ready: Callable[[], Do], device: str, times: int) -> dict[str, Any]:
    do = ready()
    for _ in range(3):
        do()
    card.wait(device)
    card.forget_peak(device)
    begun = time.perf_counter()
    for _ in range(times):
        do()
    kept = time.perf_counter() - begun  # until the CPU has given all of it to the GPU
    card.wait(device)
    whole = time.perf_counter() - begun
    return {"ms": 1000 * whole / times, "cpu_ms": 1000 * kept / times, **card.peak_gb(device)}


def _rows(shape: Shape, length: int, count: int) -> list[Any]:
    """Of one length, none packed."""
    import random

    draw = random.Random(rows.SEED)
    made = rows.classified if shape.kind != DECODER else rows.learned
    return [made(row, rows.token_numbers(draw, length, shape), draw) for row in range(count)]


def _ready(shape: Shape, given: list[Any], device: str) -> tuple[Network, Task, Batch]:
    network = network_of(shape, device)
    cast(network, torch.bfloat16)
    network.lazy = shape.kind == DECODER
    return network.train(), task_of(shape), collate(given, pad_of(shape), device)


def _replay(graph: torch.cuda.CUDAGraph, network: Network, batch: Batch) -> None:
    """Of a graph that reads the memory of weights and batch, which must be held meanwhile."""
    graph.replay()


def _learn(network: Network, task: Task, batch: Batch) -> Tensor:
    loss = task.loss(network(batch.inputs), batch).total
    loss.backward()
    return loss
