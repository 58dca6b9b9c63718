"""The contenders of throughput.py: the same job, prepared outside the clock and done inside it."""

from __future__ import annotations

import random
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from _common import Reading
from torch import Tensor, nn

from tunesmith.assembly import (
    best_parameters,
    build,
    build_network,
    keep_frozen,
    make_run,
    method_of,
    resolve_rates,
)
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table
from tunesmith.models.backbone import load_backbone, quiet
from tunesmith.models.resolve import resolve, weights_folder
from tunesmith.phases import Phases
from tunesmith.preparing import Encoded, Prepared, encode, prepare
from tunesmith.recipe import Recipe
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train
from tunesmith.training.state import Checkpoints, State
from tunesmith.untouched import fit_probe

BATCH_SIZE = 32
HELD_OUT = 0.1  # share of the rows, Tunesmith's default: its probe chooses a penalty on them, the Trainer ignores them
RANK = 16  # of LoRA, the same for every contender
TOP = 2  # blocks that train with `layers`, the same for every contender
OPTIONS = {"lora": {"name": "lora", "rank": RANK}, "layers": {"name": "layers", "layers": TOP}}  # of methods that take any
ROWS_A_CLASS = 4  # fewer rows than this for every class: fewer classes
SEED = 0
EXACT = "exact"


@dataclass(frozen=True)
class Job:
    """One method on encoded rows: what every contender is handed, and what none of them is timed for."""

    method: str
    epochs: int
    recipe: Recipe
    prepared: Prepared
    encoded: Encoded

    @property
    def rows(self) -> int:
        return len(self.encoded.examples["train"])

    @property
    def steps(self) -> int:
        return self.epochs * -(-self.rows // BATCH_SIZE)


@dataclass
class Facts:
    """What a contender says of the training it has done."""

    steps: int
    precision: str
    trainable: int  # parameters
    mean_loss: float  # over the steps
    phases: dict[str, Reading] = field(default_factory=dict)  # time of the parts, in order


class Contender(ABC):
    """Speed is measured around the function that `ready` returns, and around nothing else."""

    name: str

    @abstractmethod
    def ready(self, job: Job) -> Callable[[], Facts]:
        """Reads the pretrained weights from disk, and returns the training of them."""


class Tunesmith(Contender):
    """The pipeline's own parts in the pipeline's own order, without evaluation and checkpoint files."""

    name = "Tunesmith"

    def ready(self, job: Job) -> Callable[[], Facts]:
        backbone = load_backbone(resolve(job.recipe.model))
        return lambda: self._work(job, backbone)

    def _work(self, job: Job, backbone: Any) -> Facts:
        recipe, prepared, encoded = job.recipe, job.prepared, job.encoded
        clock = PhaseClock()
        built = build(recipe, prepared, encoded, backbone, {})
        clock.end("network, method, choice of number format")
        trunk = keep_frozen(recipe, prepared, encoded, backbone, built, {})
        clock.end("frozen outputs")
        for _ in fit_probe(recipe, prepared, encoded, backbone, built, trunk, Phases()):
            pass
        clock.end("head fitted first")
        run = make_run(recipe, prepared, encoded, backbone, built, trunk, Path("none"), lambda: False, {})
        run.evaluate, run.checkpoints = None, NoFiles(Path("none"))
        clock.end("preflight")
        losses = [event.loss for event in train(run) if isinstance(event, StepDone)]
        clock.end("steps")
        whole_network(job, backbone, best_parameters(run), built.kept_rows)
        clock.end("whole float32 model")
        return Facts(run.state.step, built.runtime.precision, built.trainable, sum(losses) / len(losses), clock.spent)


def whole_network(job: Job, backbone: Any, best: Mapping[str, Tensor], kept_rows: Mapping[str, Tensor]) -> nn.Module:
    """The model as it is delivered: what trained, of which some may be a part only, put into the float32 base."""
    rates, _, _ = resolve_rates(job.recipe, job.prepared, backbone, job.rows)
    network, _ = build_network(job.recipe, job.prepared, backbone, rates)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in best.items():
            rows = kept_rows.get(name, slice(None))
            parameters[name][rows] = value.cpu()
    return network


class NoFiles(Checkpoints):
    """Writes nothing, as `save_strategy="no"` does for the Trainer."""

    def save(self, state: State) -> Path:
        return self.folder


class PhaseClock:
    """Time of the parts of a work, one after another."""

    def __init__(self) -> None:
        self.spent: dict[str, Reading] = {}
        self._begun = Reading.now()

    def end(self, name: str) -> None:
        now = Reading.now()
        self.spent[name] = now.since(self._begun)
        self._begun = now


class TrainerDefaults(Contender):
    """Hugging Face Trainer as it comes: float32, rows in random order, batches padded to their longest row."""

    name = "Trainer, defaults"
    expected: ClassVar[str] = "no"  # what accelerate calls the number format
    arguments: ClassVar[dict[str, Any]] = {}

    def ready(self, job: Job) -> Callable[[], Facts]:
        from transformers import AutoModelForSequenceClassification

        folder = weights_folder(resolve(job.recipe.model).folder)
        with quiet():  # the report of a fresh classifier
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=len(job.prepared.labels.names), local_files_only=True
            )
        backbone = load_backbone(resolve(job.recipe.model))
        rates, _, _ = resolve_rates(job.recipe, job.prepared, backbone, job.rows)
        rows = [{**example.inputs, "labels": example.target} for example in job.encoded.examples["train"]]
        targets = _targets(job) if job.method in OPTIONS else []
        rate = rates.head if job.method == "head" else rates.base  # it has one rate for all that trains
        return lambda: self._work(job, model, backbone.text.tokenizer, rows, targets, rate)

    def _work(
        self, job: Job, model: Any, tokenizer: Any, rows: list[dict[str, Any]], targets: list[str], rate: float
    ) -> Facts:
        from transformers import Trainer, TrainingArguments
        from transformers.trainer_callback import PrinterCallback

        model = self._with_method(job, model, targets)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH_SIZE,
                num_train_epochs=job.epochs,
                learning_rate=rate,
                weight_decay=job.recipe.training.weight_decay,
                warmup_steps=job.recipe.training.warmup,
                seed=SEED,
                use_cpu=True,
                save_strategy="no",
                disable_tqdm=True,
                **self.arguments,
            )
            trainer = Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
            trainer.remove_callback(PrinterCallback)
            done = trainer.train()
        used = trainer.accelerator.mixed_precision
        # Both forms run in one process, and accelerate keeps its number format in the process.
        if used != self.expected:
            raise RuntimeError(f"{self.name}: ran with mixed precision {used!r}, not {self.expected!r}")
        trainable = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
        word = {"no": "float32", "bf16": "bfloat16 autocast"}[used]
        return Facts(done.global_step, word, trainable, done.training_loss)

    def _with_method(self, job: Job, model: Any, targets: list[str]) -> Any:
        if job.method in ("head", "layers"):
            for name, parameter in model.base_model.named_parameters():
                parameter.requires_grad_(name in targets)
        if job.method != "lora":
            return model
        from peft import LoraConfig, TaskType, get_peft_model

        lora: Any = method_of(job.recipe)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
        )
        return get_peft_model(model, config)


class TrainerTuned(TrainerDefaults):
    """The Trainer with what its documentation offers against wasted work."""

    name = "Trainer, tuned"
    expected = "bf16"
    arguments: ClassVar[dict[str, Any]] = {
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        # 0, 1 and 2 workers took 3.9, 4.1 and 4.4 CPU seconds for 320 rows on one thread: rows in memory keep none busy.
        "dataloader_num_workers": 0,
    }


def _targets(job: Job) -> list[str]:
    """The layers that Tunesmith's LoRA changes, or the parameters that `layers` trains, by their names under the base."""
    backbone = load_backbone(resolve(job.recipe.model))
    rates, _, _ = resolve_rates(job.recipe, job.prepared, backbone, job.rows)
    network, plan = build_network(job.recipe, job.prepared, backbone, rates)
    body = f"{network.layout.body}."
    if job.method == "layers":
        return [name.removeprefix(body) for name in plan.trainable if name.startswith(body)]
    lora: Any = method_of(job.recipe)
    return [name.removeprefix(body).removesuffix(".base") for name in lora.matched(network.layout)]


def make_job(data: Path, model: str, method: str, rows: int, epochs: int) -> Job:
    """`rows` training rows of the train table (0: all of it), encoded. `method` may be `EXACT`: full, by that setting."""
    exact, method = method == EXACT, "full" if method == EXACT else method
    recipe = Recipe.parse(
        {
            "model": model,
            "data": {"path": "rows", "validation": HELD_OUT, "test": 0.0},
            "method": OPTIONS.get(method, method),
            # In memory: what an earlier run left on the disk would flatter this one.
            "training": {"epochs": epochs, "batch_size": BATCH_SIZE, "device": "cpu", "cache": "memory", "exact": exact},
            "evaluation": {"baselines": False},
            "retention": {"measure": False},  # what the base knows is part of the proof, not of training
            "seed": SEED,
        }
    )
    table = read_data(str(data))["train"]
    prepared = prepare(recipe, sample(table, round(rows / (1 - HELD_OUT)) if rows else len(table)))
    backbone = load_backbone(resolve(model))
    return Job(method, epochs, recipe, prepared, encode(prepared, backbone.processor, "auto"))


def sample(table: Table, count: int) -> Table:
    """`count` rows drawn class by class in turn, so that every class is as large as the others where it can be."""
    label = list(table.columns)[-1]
    places: dict[str, list[int]] = {}
    for place, name in enumerate(table.columns[label]):
        places.setdefault(name, []).append(place)
    draw = random.Random(SEED)
    classes = sorted(places)
    draw.shuffle(classes)
    classes = classes[: max(2, count // ROWS_A_CLASS)]
    for name in classes:
        draw.shuffle(places[name])
    turns: Sequence[Sequence[int]] = [[*places[name]] for name in classes]
    drawn = [turn[level] for level in range(max(map(len, turns))) for turn in turns if level < len(turn)]
    return table.take(sorted(drawn[:count]))
