"""What is measured on a GPU: shapes of models and of rows, methods, and who does each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENCODER, DECODER = "encoder", "decoder"
OURS, BFLOAT16, COMPILED, RECOMPUTED = "ours", "ours_bfloat16", "ours_compiled", "ours_recomputed"
MASKED = "ours_masked"
DEFAULTS, AUTOCAST, HALF = "trainer", "trainer_autocast", "trainer_bfloat16"
NAMES = {  # of contenders, for a person
    OURS: "Tunesmith",
    BFLOAT16: "Tunesmith, bfloat16 asked for",
    COMPILED: "Tunesmith, blocks compiled",
    RECOMPUTED: "Tunesmith, activations recomputed",
    MASKED: "Tunesmith, packed texts by a mask",
    DEFAULTS: "Trainer, defaults (float32)",
    AUTOCAST: "Trainer, bf16=True on float32 weights",
    HALF: "Trainer, bf16=True on bfloat16 weights",
}


@dataclass(frozen=True)
class Shape:
    """Of a model: transformers' own options."""

    kind: str  # ENCODER or DECODER
    width: int
    blocks: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    positions: int
    tied: bool = False


@dataclass(frozen=True)
class Amount:
    """Of rows, or of windows of rows, and of steps."""

    limit: int  # tokens of a window; of a text
    batch: int  # rows, or windows, in a step
    warm: int  # steps before the clock runs
    steps: int  # steps within it


@dataclass(frozen=True)
class Job:
    """One line of the table, done by several contenders."""

    method: str  # "full" or "lora"
    amount: Amount
    contenders: tuple[str, ...]
    recomputed: bool = False  # activation checkpointing, on every side
    in_backward: bool = False  # ours moves each parameter within the backward pass


@dataclass(frozen=True)
class Work:
    name: str
    said: str
    shape: Shape
    jobs: tuple[Job, ...]


# MiniLM-L6's config.json; Qwen2-0.5B's sizes as a Llama; Llama 3's 8B.
MINILM = Shape(ENCODER, 384, 6, 12, 12, 1536, 30522, 512)
HALF_BILLION = Shape(DECODER, 896, 24, 14, 2, 4864, 151_936, 32_768, tied=True)
EIGHT_BILLION = Shape(DECODER, 4096, 32, 32, 8, 14_336, 128_256, 8192)

WORKS = (
    Work(
        "encoder",
        "MiniLM's shape, rows as long as Banking77's",
        MINILM,
        (
            Job("full", Amount(128, 32, 40, 260), (OURS, BFLOAT16, COMPILED, DEFAULTS, AUTOCAST)),
            Job("full", Amount(128, 256, 8, 60), (OURS, AUTOCAST)),
            Job("lora", Amount(128, 32, 40, 260), (OURS, AUTOCAST)),
        ),
    ),
    Work(
        "llm_0.5b",
        "Llama of 0.5 B, packed to 4,096 tokens",
        HALF_BILLION,
        (
            Job("full", Amount(4096, 8, 3, 10), (OURS, COMPILED, MASKED, AUTOCAST, HALF)),
            Job("lora", Amount(4096, 8, 3, 10), (OURS, HALF)),
        ),
    ),
    Work(
        "llm_8b",
        "Llama of 8 B, packed to 4,096 tokens",
        EIGHT_BILLION,
        (
            Job("lora", Amount(4096, 4, 2, 6), (OURS, RECOMPUTED, HALF)),
            # Float32 masters and moments take 96 of 149 GB: gradients find room only one at a time.
            Job("full", Amount(4096, 4, 2, 5), (OURS, HALF), recomputed=True, in_backward=True),
        ),
    ),
)

# The same on a CPU in a minute, to see that it runs.
TINY_ENCODER = Shape(ENCODER, 32, 2, 4, 4, 64, 400, 128)
TINY_DECODER = Shape(DECODER, 32, 2, 4, 2, 64, 9000, 256)
TINY_TIED = Shape(DECODER, 32, 2, 4, 2, 64, 9000, 256, tied=True)
_TINY = {"encoder": TINY_ENCODER, "llm_0.5b": TINY_TIED, "llm_8b": TINY_DECODER}


def works(trial: bool) -> tuple[Work, ...]:
    return tuple(_small(work) for work in WORKS) if trial else WORKS


def _small(work: Work) -> Work:
    amount = Amount(96, 4, 1, 2)
    jobs = tuple(Job(job.method, amount, job.contenders, job.recomputed, job.in_backward) for job in work.jobs)
    return Work(work.name, f"{work.said} (tiny)", _TINY[work.name], jobs)


CARD, CHECKS, PARTS = "card", "checks", "parts"  # what is found out beside the works
CHOICES = (CHECKS, PARTS, *(work.name for work in WORKS))


@dataclass(frozen=True)
class Turn:
    """One contender at one job: a process of its own."""

    work: str
    job: int  # its place among the work's jobs
    contender: str

    @property
    def words(self) -> list[str]:
        return [self.work, str(self.job), self.contender]


def turns(chosen: Sequence[str]) -> list[Turn]:
    """In the order in which they are done."""
    return [
        Turn(work.name, place, contender)
        for work in WORKS
        if work.name in chosen
        for place, job in enumerate(work.jobs)
        for contender in job.contenders
    ]


def work_of(name: str, trial: bool) -> Work:
    return next(work for work in works(trial) if work.name == name)
