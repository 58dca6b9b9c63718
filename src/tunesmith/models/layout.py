"""What is known of a model's inside: where its blocks are, and what feeds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

NORM_CLASS = re.compile(r"Norm(\dd)?$")


@dataclass(frozen=True)
class Layout:
    """Names of modules, each relative to the network's root: `network.get_submodule(name)` finds it."""

    body: str  # the pretrained base inside the network; "" where the root is the base
    blocks: tuple[str, ...]  # ordered, input side first; () where the base has no ordered list of blocks
    embeddings: tuple[str, ...]  # outside the blocks, and what the blocks give depends on them
    linears: tuple[str, ...]  # linear maps inside the blocks (anywhere in the base where there are no blocks)
    norms: tuple[str, ...]  # normalisation modules, anywhere in the base
    tail: tuple[str, ...]  # outside the blocks, and nothing that the blocks give depends on them (final norm, pooler)
    width: int  # values per token that leave the base


@dataclass
class _Trace:
    """What one small forward showed."""

    calls: list[str] = field(default_factory=list)  # names in the order of being called, repeats kept
    outputs: dict[str, Any] = field(default_factory=dict)


def layout_of(body: nn.Module, prefix: str, inputs: Mapping[str, Tensor] | None = None) -> Layout:
    """Finds the blocks of `body`, whose name in the network is `prefix` ("" for the root itself).

    The blocks are the list of modules with the most parameters among those that one small forward calls once each and
    in their order. Whether a module outside them counts as embeddings or as tail is read from the graph of that
    forward, not from names: a relative position table that every block uses is an embedding wherever it is registered.
    `inputs` are keyword arguments for that forward; by default they are made up from the base's config.
    """
    if inputs is None:
        inputs = example_inputs(body)
    modules = dict(body.named_modules())
    with _as_probe(body):
        trace = _run(body, modules, inputs)
        blocks = _blocks(modules, trace.calls)
        used = _parameters_behind(trace.outputs[blocks[-1]]) if blocks else set()
    embeddings, tail = _around(body, modules, blocks, trace.calls, used) if blocks else ((), ())
    inside = tuple(f"{name}." for name in blocks)
    linears = tuple(
        name
        for name, module in modules.items()
        if is_linear(module) and (not blocks or name.startswith(inside) or name in blocks)
    )
    norms = tuple(name for name, module in modules.items() if is_norm(module))

    def placed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{prefix}.{name}" for name in names) if prefix else names

    return Layout(
        body=prefix,
        blocks=placed(blocks),
        embeddings=placed(embeddings),
        linears=placed(linears),
        norms=placed(norms),
        tail=placed(tail),
        width=_width(body, trace, blocks),
    )


def is_linear(module: nn.Module) -> bool:
    """A matrix product with a weight of its own: nn.Linear, or the transposed form that gpt2 uses."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def is_norm(module: nn.Module) -> bool:
    """A normalisation: torch's own, or a class named so whose own parameters are vectors (RMSNorm and its kin)."""
    if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.modules.batchnorm._BatchNorm):
        return True
    own = list(module.parameters(recurse=False))
    return bool(own) and all(p.dim() == 1 for p in own) and NORM_CLASS.search(type(module).__name__) is not None


def is_batch_norm(module: nn.Module) -> bool:
    """A normalisation by statistics over rows, which a forward in training mode would change."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def has_batch_norms(module: nn.Module) -> bool:
    """Whether there are any inside."""
    return any(is_batch_norm(part) for part in module.modules())


def example_inputs(body: nn.Module) -> dict[str, Tensor]:
    """The smallest inputs that `body` takes: one row of four tokens, or one blank image."""
    config = getattr(body, "config", None)
    device = next(body.parameters()).device
    if getattr(body, "main_input_name", "input_ids") == "pixel_values":
        size = getattr(config, "image_size", None)
        size = 64 if size is None else size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        image = torch.zeros(1, getattr(config, "num_channels", 3), height, width, device=device)
        return {"pixel_values": image.to(next(body.parameters()).dtype)}
    ids = torch.tensor([[1, 2, 3, 4]], device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def first_tensor(output: Any) -> Tensor:
    """The hidden states in what a block gives: the tensor itself, or the first item of a tuple. Raises TypeError."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    raise TypeError(f"gives {type(output).__name__}, neither a tensor nor a tuple that starts with one")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module and its parts are in evaluation mode, each by itself; outside as they were."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _as_probe(body: nn.Module) -> Iterator[None]:
    """Inside: evaluation mode and a graph through every parameter. Outside: as it was."""
    wanted = {parameter: parameter.requires_grad for parameter in body.parameters()}
    for parameter in wanted:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        with evaluating(body), torch.enable_grad():
            yield
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


def _run(body: nn.Module, modules: Mapping[str, nn.Module], inputs: Mapping[str, Tensor]) -> _Trace:
    trace = _Trace()

    def entering(name: str) -> Callable[..., None]:
        return lambda module, args: trace.calls.append(name)

    def leaving(name: str) -> Callable[..., None]:
        return lambda module, args, output: trace.outputs.update({name: output})

    handles = [module.register_forward_pre_hook(entering(name)) for name, module in modules.items()]
    handles += [module.register_forward_hook(leaving(name)) for name, module in modules.items()]
    try:
        body(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _blocks(modules: Mapping[str, nn.Module], calls: list[str]) -> tuple[str, ...]:
    best: tuple[str, ...] = ()
    most = (0, 0)
    for name, module in modules.items():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) == 0:
            continue
        members = tuple(f"{name}.{key}" if name else key for key, _ in module.named_children())
        called = [call for call in calls if call in members]
        size = (sum(p.numel() for p in module.parameters()), len(members))
        if called == list(members) and size > most:
            best, most = members, size
    return best


def _around(
    body: nn.Module, modules: Mapping[str, nn.Module], blocks: tuple[str, ...], calls: list[str], used: set[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every module outside the blocks, once, as high up as it can be named: (what feeds the blocks, what does not)."""
    holder = blocks[0].rpartition(".")[0]
    chain = {""} | {holder[: match.start()] for match in re.finditer(r"\.|$", holder)}
    before: list[str] = []
    after: list[str] = []
    start = calls.index(blocks[0])
    for name, module in modules.items():
        if name in chain or name in blocks or name.rpartition(".")[0] not in chain:
            continue
        own = {id(parameter) for parameter in module.parameters()}
        feeds = bool(own & used) if own else name in calls[:start]
        if own or name in calls:
            (before if feeds else after).append(name)
    return tuple(before), tuple(after)


def _parameters_behind(output: Any) -> set[int]:
    """The ids of the parameters that a tensor was computed from, found by walking its graph."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting = [first_tensor(output).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        waiting.extend(following for following, _ in node.next_functions)
    return found


def _width(body: nn.Module, trace: _Trace, blocks: tuple[str, ...]) -> int:
    output = trace.outputs[""]
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None:
        hidden = first_tensor(trace.outputs[blocks[-1]] if blocks else output)
    return int(hidden.shape[1] if hidden.dim() == 4 else hidden.shape[-1])  # images in stages: [rows, width, y, x]
