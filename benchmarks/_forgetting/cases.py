"""What is tuned, and what is done against forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AMAZON, STORIES = "amazon", "stories"
TUNED_ON = "books"
ELSEWHERE = ("dvd", "electronics", "kitchen", "video")
LETTERS = 300_000  # of tinyshakespeare: four fifths to train on, a tenth to validate, a tenth to test
OWN_TEXTS, OWN_TOKENS = 300, 256


@dataclass(frozen=True)
class Variant:
    """A method with its settings; `cure` of those that hold back what `full` alone would do."""

    name: str
    title: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cure: bool = False


@dataclass(frozen=True)
class Case:
    """One base tuned on one set, by every variant; `settings` are those of all of them."""

    name: str
    variants: tuple[Variant, ...]
    settings: Mapping[str, Any]
    task: str = "auto"


def _held(title: str, name: str, **settings: Any) -> Variant:
    """Full fine-tuning as by its defaults, and one thing more."""
    return Variant(name, f"full, {title}", "full", {f"retention.{key}": settings[key] for key in settings}, cure=True)


def _rated(name: str, rate: float) -> Variant:
    return Variant(name, name, name, {"training.rate": rate})


_AMAZON = Case(
    AMAZON,
    (
        Variant("head", "head (linear probe)", "head"),
        Variant("full_unfitted", "full, head not fitted first", "full", {"training.probe": False}),
        Variant("full", "full (LP-FT: head fitted first)", "full"),
        Variant("lora", "lora", "lora"),
        _held("keep=auto", "keep_auto", keep="auto"),
        _held("keep=0.5", "keep_half", keep=0.5),
        _held("budget=10 %", "budget", budget=0.1),
        _held("anchor=2", "anchor_2", anchor=2),
        _held("anchor=5", "anchor_5", anchor=5),
    ),
    {"training.max_length": 128},
)
# Rates of methods other than full: the better of two by validation perplexity, seed 0, for lora (0.006: 19.7, 0.02: 29.4),
# norms (0.02: 44.6, 0.05: 40.4), prompt (0.02: 84.2, 0.1: 62.9), prefix (0.02: 97.3, 0.1: 58.4); layers 0.004 alone.
_STORIES = Case(
    STORIES,
    (
        Variant("untouched", "untouched base", "full", {"training.epochs": 0}),
        Variant("full", "full", "full"),
        _rated("lora", 0.006),
        _rated("layers", 0.004),
        _rated("bitfit", 0.02),
        _rated("norms", 0.05),
        _rated("prompt", 0.1),
        _rated("prefix", 0.1),
        _held("anchor=2", "anchor_2", anchor=2),
        _held("ewc=2", "ewc_2", ewc=2),
        _held("distill=1", "distill_1", distill=1),
        _held("replay=0.3", "replay_03", replay=0.3),
        _held("budget=25 %", "budget", budget=0.25),
    ),
    {"training.rate": 0.002, "training.epochs": 3},
    "causal_lm",
)
CASES = (_AMAZON, _STORIES)


def case(name: str) -> Case:
    return next(item for item in CASES if item.name == name)


def variant(of: str, name: str) -> Variant:
    return next(item for item in case(of).variants if item.name == name)
