"""The ways to fine-tune, and the jobs that they are measured on, cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from _quality import data
from _quality.jobs import MINILM, Job, job_of

RATE, HEAD_RATE = "training.rate", "training.head_rate"


@dataclass(frozen=True)
class Way:
    """A method with options, by a name of its own."""

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rate: str = RATE  # the key that is varied
    package: str = ""  # what must be installed beside Tunesmith's own dependencies
    variant: bool = False  # of another way; measured on `VARIED_ON` alone

    @property
    def title(self) -> str:
        said = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.method} ({said})" if said else self.method

    def asked(self) -> dict[str, Any]:
        """As `finetune` takes it."""
        return {"name": self.method, **self.options}


@dataclass(frozen=True)
class Measure:
    """A job of quality.py's, by the task that every method learns it as."""

    job: Job
    task: str = "auto"
    most: int = 0  # training rows, drawn by seed; 0 for all

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def about(self) -> str:
        said = self.job.about.rstrip(".")
        return f"{said}; {self.most:,} of the training rows, drawn by seed" if self.most else said


VARIED_ON = "banking77_10"
WAYS: tuple[Way, ...] = (
    Way("head", "head", rate=HEAD_RATE),  # nothing of the base trains, so there is no other rate
    Way("layers", "layers"),
    Way("layers_auto", "layers", {"layers": "auto"}, variant=True),
    Way("bitfit", "bitfit"),
    Way("norms", "norms", variant=True),
    Way("lora", "lora"),
    Way("rslora", "lora", {"rslora": True}, variant=True),
    Way("dora", "lora", {"dora": True}, variant=True),
    Way("lora_plus", "lora", {"up_rate": 16}, variant=True),
    Way("pissa", "lora", {"initial": "pissa"}, variant=True),
    Way("qlora", "lora", {"quantised": "nf4"}, package="bitsandbytes", variant=True),
    Way("bottleneck", "bottleneck"),
    Way("pfeiffer", "bottleneck", {"kind": "pfeiffer"}, variant=True),
    Way("ia3", "ia3"),
    Way("prompt", "prompt"),
    Way("p_tuning", "p_tuning", variant=True),
    Way("prefix", "prefix"),
    Way("vera", "peft", {"kind": "VERA"}, package="peft", variant=True),
    Way("loha", "peft", {"kind": "LOHA"}, package="peft", variant=True),
    Way("full", "full"),
    Way("rate_decay", "full", {"rate_decay": 0.8}, variant=True),
    Way("unfreeze", "full", {"unfreeze": 0.4}, variant=True),
    Way("scratch", "scratch"),
)


MEASURES: tuple[Measure, ...] = (
    Measure(job_of("banking77_10")),
    Measure(job_of("flowers5"), most=400),
    Measure(job_of("sst2"), most=2_000),
    Measure(job_of("wnut17"), most=2_000),
    # The number and not vectors: without a head of its own, method head has nothing to train.
    Measure(job_of("stsb_regression"), "regression", most=2_000),
    Measure(
        replace(
            job_of("banking77_vectors"), name="banking77", base=MINILM, rows=data.banking77,
            about="Banking77: 77 intents, all training and test rows",
        )
    ),
)  # fmt: skip


def goes_on(item: Way, job: str) -> bool:
    """Whether a way is measured on a job."""
    return job == VARIED_ON or not item.variant


def way(name: str) -> Way:
    return next(item for item in WAYS if item.name == name)


def measure(name: str) -> Measure:
    return next(item for item in MEASURES if item.name == name)
