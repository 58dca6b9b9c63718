"""Is what the GPU computes right? Each check holds a result against another way to it, within a bound that is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.encode import IGNORED, Batch, Example, collate
from tunesmith.methods.base import Group, Plan
from tunesmith.models.casting import cast
from tunesmith.models.language import CausalNetwork
from tunesmith.models.network import Network
from tunesmith.models.packed_attention import put_on, use_packed
from tunesmith.models.segments import keeps_apart
from tunesmith.recipe import TrainingSpec
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.training.optim import Masters
from tunesmith.training.step import Objective, optimizer_step

from . import card, rows
from .models import method_of, network_of, pad_of
from .ours import compile_blocks, task_of
from .shortage import recomputed_by_need
from .works import DECODER, HALF_BILLION, MINILM, TINY_ENCODER, TINY_TIED, Amount, Job, Shape

# Shares of a loss, and of the length of all gradients together. float32 sums in another order differ by 1e-6 or so; a wrong
# mask, position, scale or lost row by 1e-2 or more. bfloat16 keeps 8 bits, so that each product is off by up to 0.4 %.
SAME_LOSS, SAME_GRADIENT = 1e-5, 1e-3
ROUNDED_LOSS, ROUNDED_GRADIENT = 0.01, 0.1
COPIES = 200


@dataclass(frozen=True)
class Found:
    """How far two ways are apart, and how far they may be."""

    apart: dict[str, tuple[float, float]]  # what -> (found, bound)

    @property
    def passed(self) -> bool:
        return all(found <= bound for found, bound in self.apart.values())  # not-a-number never is


@dataclass(frozen=True)
class Case:
    """A model with the rows that it is checked on."""

    name: str
    shape: Shape
    examples: list[Example]  # read one by one
    joined: list[Example]  # the same, in windows where they are packed
    device: str

    @property
    def batch(self) -> Batch:
        return collate(self.joined, pad_of(self.shape), self.device)

    def network(self, method: str = "full", training: bool = False) -> Network:
        """The same weights every time; without dropout unless in training mode."""
        network, job = network_of(self.shape, self.device), Job(method, Amount(0, 1, 0, 1), ())
        found = method_of(job)
        found.attach(network, found.rates(self.shape.width, 1), rows.SEED)
        network.to(self.device)
        if method == "lora":
            _stir(network)
        network.train(training)
        return network

    def learned(self, network: Network, batches: Sequence[Batch], draws: int = 0) -> Learned:
        """Mean loss over all batches, and its gradients, in float32."""
        task, total, weight = task_of(self.shape), 0.0, 0.0
        for batch in batches:
            with torch_seed(rows.SEED, "check", draws):
                loss = task.loss(network(batch.inputs), batch)
                loss.total.backward()
            total, weight = total + float(loss.total.detach()), weight + float(loss.weight)
        gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
        network.zero_grad(set_to_none=True)
        return Learned(total / weight, {name: grad.float() / weight for name, grad in gradients.items()})


@dataclass(frozen=True)
class Learned:
    loss: float
    gradients: dict[str, Tensor]

    def apart(self, other: Learned, loss: float, gradient: float) -> Found:
        """How far this is from the other, as shares of the other; a parameter without a gradient on one side is all off."""
        if self.gradients.keys() != other.gradients.keys():
            return Found({"parameters with a gradient": (float("nan"), 0.0)})
        pairs = [(self.gradients[name], other.gradients[name]) for name in other.gradients]
        off = sum(float((one.double() - two.double()).square().sum()) for one, two in pairs) ** 0.5
        size = sum(float(two.double().square().sum()) for _, two in pairs) ** 0.5
        return Found({
            "loss": (abs(self.loss - other.loss) / abs(other.loss), loss),
            "gradients": (off / size, gradient),
        })  # fmt: skip


def cases(trial: bool, device: str) -> list[Case]:
    """An encoder and a decoder."""
    found = []
    limit = 64 if trial else 1024
    amount = Amount(limit, 1, 0, 1)
    for name, shape in (
        ("encoder", TINY_ENCODER if trial else MINILM),
        ("decoder", TINY_TIED if trial else HALF_BILLION),
    ):
        if shape.kind == DECODER:
            import random

            made = rows.texts(shape, amount, 1, random.Random(seed_of(rows.SEED, "checks")))[: 6 if trial else 12]
            found.append(Case(name, shape, made, rows.windows(made, limit), device))
        else:
            made = rows.examples(shape, amount, 6 if trial else 32)
            found.append(Case(name, shape, made, made, device))
    return found


def checks(trial: bool, device: str) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Each with its name, to be done one by one."""
    for case in cases(trial, device):
        ways = {
            "float32, all rows at once (packed where it is a decoder) as transformers' own, row by row": as_transformers,
            "bfloat16 as float32": partial(rounded, method="full"),
            "bfloat16 as float32, LoRA": partial(rounded, method="lora"),
            "activations recomputed as kept": recomputed,
            "compiled blocks as plain ones, float32": partial(compiled, dtype=torch.float32),
            "compiled blocks as plain ones, bfloat16": partial(compiled, dtype=torch.bfloat16),
            "a step in backward as one after it": in_backward,
            "activations recomputed where memory runs short, before nothing fits": by_need,
        }
        if case.shape.kind == DECODER:
            ways["loss in parts as whole"] = in_parts
            ways["packed texts by a kernel that is told where each ends, bfloat16 as float32"] = by_kernel
            ways["the same kernel in compiled blocks, bfloat16 as float32"] = partial(by_kernel, compiling=True)
            ways["two texts in a window as each alone, in the body"] = apart_in_body
        for said, way in ways.items():
            yield f"{case.name}: {said}", partial(way, case)
    yield "AdamW: a fused step as the formula in float64", partial(adamw, device)
    yield "batches copied from pinned memory as they were", partial(copies, trial, device)


def as_transformers(case: Case) -> Found:
    """Of the same weights: transformers' model and loss, one text at a time without filler, is the reference.

    An encoder's reference is our network one text at a time: transformers has no classifier with this pooling.
    """
    network = case.network()
    network.lazy = case.shape.kind == DECODER
    network.train(network.lazy)  # only then is the loss taken in parts; a Llama drops nothing
    found = case.learned(network, [case.batch])
    network.lazy = False
    if case.shape.kind != DECODER:
        alone = [collate([row], pad_of(case.shape), case.device) for row in case.examples]
        return found.apart(case.learned(network, alone), SAME_LOSS, SAME_GRADIENT)
    total = weight = 0.0
    for row in case.examples:
        ids, labels = (torch.tensor([values], device=case.device) for values in (row.inputs["input_ids"], row.target))
        count = int((labels[:, 1:] != IGNORED).sum())
        loss = network.model(input_ids=ids, labels=labels).loss * count  # type: ignore[operator]
        loss.backward()
        total, weight = total + float(loss.detach()), weight + count
    named = {name: value.grad / weight for name, value in network.named_parameters() if value.grad is not None}
    return found.apart(Learned(total / weight, named), SAME_LOSS, SAME_GRADIENT)


def rounded(case: Case, method: str) -> Found:
    network = case.network(method)
    whole = case.learned(network, [case.batch])
    cast(network, torch.bfloat16)
    return case.learned(network, [case.batch]).apart(whole, ROUNDED_LOSS, ROUNDED_GRADIENT)


def recomputed(case: Case) -> Found:
    """With dropout where the model has any: what is dropped must be the same in both passes."""
    network = case.network(training=True)
    kept = case.learned(network, [case.batch])
    network.recompute_activations()
    return case.learned(network, [case.batch]).apart(kept, SAME_LOSS, SAME_GRADIENT)


def by_need(case: Case) -> Found:
    """What `training.checkpointing=auto` does, and that the network then learns what it learned before."""
    network, job = network_of(case.shape, case.device), Job("full", Amount(0, 1, 0, 1), ())
    plan = method_of(job).attach(network, method_of(job).rates(case.shape.width, 1), rows.SEED)
    network.eval()
    kept = case.learned(network, [case.batch])
    kept = Learned(kept.loss, {name: value.cpu() for name, value in kept.gradients.items()})
    why_not = recomputed_by_need(network, task_of(case.shape), plan, case.joined, pad_of(case.shape), case.device)
    if why_not:
        raise RuntimeError(why_not)
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    found = case.learned(network, [case.batch])
    found = Learned(found.loss, {name: value.cpu() for name, value in found.gradients.items()})
    return found.apart(kept, SAME_LOSS, SAME_GRADIENT)


def compiled(case: Case, dtype: torch.dtype) -> Found:
    """On batches of two lengths, so that one code serves both."""
    network = case.network()
    cast(network, dtype)
    batches = [case.batch, collate(case.joined[-1:], pad_of(case.shape), case.device)]
    plain = case.learned(network, batches)
    compile_blocks(network, case.device)
    bounds = (SAME_LOSS, SAME_GRADIENT) if dtype == torch.float32 else (ROUNDED_LOSS, ROUNDED_GRADIENT)
    found = case.learned(network, batches).apart(plain, *bounds)
    if network.compiled is not None and (why := network.compiled.news()):
        raise RuntimeError(why)
    return found


def by_kernel(case: Case, compiling: bool = False) -> Found:
    """As `training.flash_packed` does: beside the usual form in float32. On a CPU its place is taken by the usual form."""
    network = case.network()
    whole = case.learned(network, [case.batch])
    cast(network, torch.bfloat16)
    assert isinstance(network, CausalNetwork)
    if case.device == card.CUDA:
        if why := use_packed(network.body, [*range(3, 60)], case.shape.positions):
            raise RuntimeError(why)
    else:
        put_on(network.body)
    if compiling:
        compile_blocks(network, case.device)
    found = case.learned(network, [case.batch]).apart(whole, ROUNDED_LOSS, ROUNDED_GRADIENT)
    if network.compiled is not None and (why := network.compiled.news()):
        raise RuntimeError(why)
    return found


def in_parts(case: Case) -> Found:
    network = case.network(training=True)
    whole = case.learned(network, [case.batch])
    network.lazy = True
    return case.learned(network, [case.batch]).apart(whole, SAME_LOSS, SAME_GRADIENT)


def apart_in_body(case: Case) -> Found:
    """The package's own trial, by which it decides whether to pack."""
    network = case.network()
    body = network.get_submodule(network.layout.body)
    kept = keeps_apart(body, True, [*range(3, 60)], case.shape.positions)  # type: ignore[arg-type]
    return Found({"kept apart": (0.0 if kept else 1.0, 0.0)})


def in_backward(case: Case) -> Found:
    """How two steps of either kind have moved the masters, in float32 and without clipping.

    By plain gradient descent: AdamW blows a gradient up that is nothing but rounding, as that of a key's bias is.
    """
    moved = []
    for way in (False, True):
        network = case.network()
        method = method_of(Job("full", Amount(0, 1, 0, 1), ()))
        plan = method.attach(network, method.rates(case.shape.width, 1), rows.SEED)
        masters = Masters(network, plan, TrainingSpec(optimizer="sgd", clip=None, step_in_backward=way), torch.float32)
        start = {name: value.detach().clone() for name, value in masters.tensors.items()}
        objective = Objective(task_of(case.shape), lambda batch, network=network: network(batch.inputs))
        for step in range(2):
            optimizer_step(objective, [case.batch], masters, 1.0, None, rows.SEED, step)
        moved.append(Learned(1.0, {name: value.detach() - start[name] for name, value in masters.tensors.items()}))
    return moved[1].apart(moved[0], SAME_LOSS, SAME_GRADIENT)


def adamw(device: str) -> Found:
    """Three steps of the package's optimizer, whose gradients are scaled on the way, beside AdamW written out.

    Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """
    rate, decay, share, one, two, small = 1e-2, 0.1, 0.25, 0.9, 0.999, 1e-8
    network = torch.nn.Linear(300, 200, bias=False, device=device)
    plan = Plan((Group("all", ("weight",), rate, True),), frozenset(), 0)
    masters = Masters(network, plan, TrainingSpec(weight_decay=decay), torch.float32)
    value = network.weight.detach().double()
    start, first, second = value.clone(), torch.zeros_like(value), torch.zeros_like(value)
    for step in range(1, 4):
        gradient = torch.randn_like(network.weight)
        network.weight.grad = gradient.clone()
        masters.move(1.0, share)
        scaled = gradient.double() * share
        first, second = one * first + (1 - one) * scaled, two * second + (1 - two) * scaled.square()
        value = value * (1 - rate * decay)
        value -= rate * (first / (1 - one**step)) / ((second / (1 - two**step)).sqrt() + small)
    off = float((network.weight.detach().double() - value).norm() / (value - start).norm())
    return Found({"change of the weights": (off, 1e-4)})


def copies(trial: bool, device: str) -> Found:
    """Many in flight while the GPU computes: each must arrive as it was sent."""
    shape, amount = (TINY_ENCODER if trial else MINILM), Amount(96, 32, 0, 1)
    given = rows.examples(shape, amount, 64)
    pad = pad_of(shape)
    busy = torch.randn(1024, 1024, device=device)
    sent, there = [], []
    for turn in range(10 if trial else COPIES):
        part = given[turn % 32 : turn % 32 + 32]
        busy = (busy @ busy).clamp(-1, 1)
        sent.append(collate(part, pad))
        there.append(collate(part, pad, device))
    card.wait(device)
    wrong = sum(
        int((value != copy.inputs[name].cpu()).sum())
        for batch, copy in zip(sent, there, strict=True)
        for name, value in batch.inputs.items()
    )
    return Found({"wrong numbers": (float(wrong), 0.0)})


def _stir(network: Network) -> None:
    """LoRA's second map starts at 0, and with it the first one's gradient; a check wants both."""
    with torch_seed(rows.SEED, "stir"), torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(".up"):
                value.copy_(torch.randn(value.shape) * 0.02)


def done(name: str, check: Callable[[], Found]) -> dict[str, Any]:
    """One check as a record; one that breaks has failed."""
    try:
        found = check()
    except Exception as error:  # whatever a kernel or a compiler raises: the others are still to be done
        return {"check": name, "passed": False, "apart": {}, "error": f"{type(error).__name__}: {error}"[:600]}
    return {"check": name, "passed": found.passed, "apart": {k: list(v) for k, v in found.apart.items()}, "error": ""}
