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

    @property
    def name(self) -> str:
        return self.job.name


WAYS: tuple[Way, ...] = (
    Way("head", "head", rate=HEAD_RATE),  # nothing of the base trains, so there is no other rate
    Way("layers", "layers"),
    Way("layers_auto", "layers", {"layers": "auto"}),
    Way("bitfit", "bitfit"),
    Way("norms", "norms"),
    Way("lora", "lora"),
    Way("rslora", "lora", {"rslora": True}),
    Way("dora", "lora", {"dora": True}),
    Way("lora_plus", "lora", {"up_rate": 16}),
    Way("pissa", "lora", {"initial": "pissa"}),
    Way("qlora", "lora", {"quantised": "nf4"}, package="bitsandbytes"),
    Way("bottleneck", "bottleneck"),
    Way("pfeiffer", "bottleneck", {"kind": "pfeiffer"}),
    Way("ia3", "ia3"),
    Way("prompt", "prompt"),
    Way("p_tuning", "p_tuning"),
    Way("prefix", "prefix"),
    Way("vera", "peft", {"kind": "VERA"}, package="peft"),
    Way("loha", "peft", {"kind": "LOHA"}, package="peft"),
    Way("full", "full"),
    Way("rate_decay", "full", {"rate_decay": 0.8}),
    Way("unfreeze", "full", {"unfreeze": 0.4}),
    Way("scratch", "scratch"),
)


MEASURES: tuple[Measure, ...] = (
    Measure(job_of("banking77_10")),
    Measure(job_of("flowers5")),
    Measure(job_of("sst2")),
    Measure(job_of("wnut17")),
    # The number and not vectors: without a head of its own, method head has nothing to train.
    Measure(job_of("stsb_regression"), "regression"),
    Measure(
        replace(
            job_of("banking77_vectors"), name="banking77", base=MINILM, rows=data.banking77,
            about="Banking77: 77 intents, all training and test rows",
        )
    ),
)  # fmt: skip


def way(name: str) -> Way:
    return next(item for item in WAYS if item.name == name)


def measure(name: str) -> Measure:
    return next(item for item in MEASURES if item.name == name)
