"""Tunesmith's side: its network, method, masters, preflight and loop, as a run puts them together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.encode import Example
from tunesmith.data.order import LengthOrder
from tunesmith.methods.base import Plan
from tunesmith.models.compiled import USUAL, CompiledBlocks
from tunesmith.models.language import CausalNetwork
from tunesmith.models.lazy_logits import lazy_fits
from tunesmith.models.network import Network
from tunesmith.models.packed_attention import use_packed
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import Task
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.classification import Classification
from tunesmith.training.events import StepDone
from tunesmith.training.loop import Run, train
from tunesmith.training.optim import Masters
from tunesmith.training.precision import choose_runtime
from tunesmith.training.preflight import fitting_micro_batch, halvings
from tunesmith.training.source import FixedRows
from tunesmith.training.state import Checkpoints, State
from tunesmith.training.trunk import Live
from tunesmith.training.vocabulary import compact_embeddings

from . import card
from .models import method_of, network_of, pad_of
from .rows import SEED
from .works import BFLOAT16, COMPILED, DECODER, MASKED, RECOMPUTED, Job, Shape


@dataclass
class Built:
    network: Network
    plan: Plan
    masters: Masters
    training: TrainingSpec
    masked: (
        str  # why packed texts are told apart by a mask; "" where a kernel is told where each ends, or none are packed
    )


class NoFiles(Checkpoints):
    """Writes nothing, as `save_strategy="no"` does for the Trainer."""

    def save(self, state: State) -> Path:
        return self.folder


def task_of(shape: Shape) -> Task:
    return CausalLm() if shape.kind == DECODER else Classification()


def build(shape: Shape, job: Job, contender: str, rows: list[Example], device: str) -> Built:
    """As `assembly.build` does, with what it derives for such a model."""
    network = network_of(shape, device)
    method = method_of(job)
    asked = TrainingSpec(
        epochs=1,
        batch_size=job.amount.batch,
        clip=None if job.in_backward else 1.0,
        step_in_backward=job.in_backward,
        checkpointing=job.recomputed or contender == RECOMPUTED,
        precision="bfloat16" if contender == BFLOAT16 else "auto",
        device=device,  # type: ignore[arg-type]
        max_length=job.amount.limit,
    )
    plan = method.attach(network, method.rates(shape.width, job.amount.steps), SEED)
    network.to(device)  # what the method put on it
    runtime = choose_runtime(asked, shape.width)
    if asked.checkpointing:
        network.recompute_activations()
    network.lazy = shape.kind == DECODER and not lazy_fits(network)
    compact_embeddings(network, plan, {token for row in rows for token in row.inputs["input_ids"]}, pad_of(shape))
    training = asked.model_copy(update={"precision": runtime.precision})
    masters = Masters(network, plan, training, runtime.dtype)
    masked = "as asked" if contender == MASKED else ""
    if isinstance(network, CausalNetwork) and contender != MASKED:
        masked = use_packed(network.body, [*range(3, 60)], job.amount.limit)
    return Built(network, plan, masters, training, masked)


def compile_blocks(network: Network, device: str) -> None:
    """As `training.compile` does, also in evaluation mode. On a CPU traced alone, for a trial."""
    backend = USUAL if device == card.CUDA else "aot_eager"
    network.compiled = CompiledBlocks([network.get_submodule(name) for name in network.layout.blocks], backend)
    network.compiled.switch(True)


def graphs() -> dict[str, int]:
    """How many pieces torch.compile has made in this process, and how often it had to leave one."""
    from torch._dynamo.utils import counters

    return {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}


def source_of(shape: Shape, job: Job, rows: list[Example], device: str) -> Callable[[int], FixedRows]:
    order = LengthOrder(tuple(row.length for row in rows), job.amount.batch, SEED)
    return lambda size: FixedRows(rows, order, size, pad_of(shape), device)


def run_of(shape: Shape, job: Job, built: Built, rows: list[Example], device: str) -> Run:
    """Raises TrainingError where the longest batch does not fit."""
    trunk, task, sources = Live(built.network, ""), task_of(shape), source_of(shape, job, rows, device)
    sizes = [job.amount.batch] if job.in_backward else halvings(job.amount.batch)
    size, _ = fitting_micro_batch(built.network, task, built.plan, trunk, sources, sizes, built.training)
    return Run(
        network=built.network,
        task=task,
        plan=built.plan,
        source=sources(size),
        trunk=trunk,
        masters=built.masters,
        training=built.training.model_copy(update={"micro_batch": size}),
        anchors=(),
        hold=None,
        seed=SEED,
        checkpoints=NoFiles(Path("none")),
        evaluate=None,
        soup=None,
        place=str,
        stop=lambda: False,
        resume_command="",
        state=State(),
    )


def measure(shape: Shape, job: Job, contender: str, rows: list[Example], device: str) -> dict[str, Any]:
    """Seconds of the steps that count, the mean loss, and how it was done."""
    built = build(shape, job, contender, rows, device)
    run = run_of(shape, job, built, rows, device)
    if contender == COMPILED:
        compile_blocks(built.network, device)
    card.empty(device)
    card.forget_peak(device)
    losses, begun, first = list[float](), time.perf_counter(), 0.0
    for event in train(run):
        if isinstance(event, StepDone):
            first = first if losses else event.seconds
            losses.append(event.loss)
            if event.step == job.amount.warm:
                card.wait(device)
                begun = time.perf_counter()
    card.wait(device)
    return {
        "seconds": time.perf_counter() - begun,
        "first_seconds": first,
        "compiled": graphs() if contender == COMPILED else None,
        "steps": len(losses),
        "mean_loss": sum(losses) / len(losses),
        "micro_batch": run.training.micro_batch,
        "precision": f"{run.training.precision}, float32 masters"
        if run.training.precision == "bfloat16"
        else "float32",
        "trainable": sum(value.numel() for value in built.network.parameters() if value.requires_grad),
        "recomputed": run.training.checkpointing,
        "masked": built.masked,
        **card.peak_gb(device),
    }
