"""Short runs for the laws: a table, a recipe, and everything the loop needs, put together as the pipeline does."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from families import WORDS

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.assembly import Built
    from tunesmith.methods.base import Plan
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.recipe import Recipe
    from tunesmith.training.events import Event
    from tunesmith.training.loop import Run
    from tunesmith.training.trunk import Trunk

HINTS = {"money": ("card", "bank", "money"), "praise": ("good", "great", "film"), "blame": ("bad", "poor", "lost")}
METHODS: dict[str, Any] = {  # one of each, small, with every kind of randomness switched on
    "full": "full",
    "head": "head",
    "layers": {"name": "layers", "layers": 1},
    "unfreeze": {"name": "full", "unfreeze": 0.5},
    "lora": {"name": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1},
    "qlora": {"name": "lora", "rank": 4, "alpha": 8.0, "quantised": "nf4"},
    "bottleneck": {"name": "bottleneck", "size": 6},
    "prompt": {"name": "prompt", "length": 4},
    "p_tuning": {"name": "p_tuning", "length": 3, "hidden": 8},
    "prefix": {"name": "prefix", "length": 4},
    "peft": {"name": "peft", "kind": "HIRA", "r": 3},
    "pissa": {"name": "lora", "rank": 3, "alpha": 6.0, "initial": "pissa", "dora": True, "up_rate": 4.0},
}


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label): 3 to 18 words, a third of them telling."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        label = sorted(HINTS)[index % len(HINTS)]
        words = [
            draw.choice(HINTS[label]) if draw.random() < 0.35 else draw.choice(WORDS)
            for _ in range(draw.randint(3, 18))
        ]
        made.append((" ".join(words), label))
    return made


def write_rows(path: Path, count: int) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows(count)])
    return path


def write_tags(path: Path, count: int) -> Path:
    """CoNLL: of the same sentences each word with its tag, that of a telling word's label."""
    lines = []
    for text, _ in rows(count):
        for word in text.split():
            kind = next((kind for kind, hints in HINTS.items() if word in hints), None)
            lines.append(f"{word} {'O' if kind is None else f'B-{kind}'}")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def recipe_for(model: Path, data: Path, method: Any = "full", settings: dict[str, Any] | None = None) -> Recipe:
    """Two epochs of small steps in float32, no baselines; `settings` are further dotted keys."""
    from tunesmith.recipe import Recipe, set_key

    plain: dict[str, Any] = {"model": str(model), "data": {"path": str(data)}, "method": method}
    usual = {
        "training.epochs": 2,
        "training.batch_size": 24,
        "training.micro_batch": 10,
        "training.precision": "float32",
        "training.patience": 0,
        "training.device": "cpu",
        "evaluation.baselines": False,
        "evaluation.resamples": 100,
        "data.test": 0.2,
        "data.validation": 0.15,
    }
    for key, value in {**usual, **(settings or {})}.items():
        set_key(plain, key, value)
    return Recipe.parse(plain)


@dataclass
class Bench:
    """A run ready to be driven by hand, and what it was made from."""

    recipe: Recipe
    prepared: Prepared
    encoded: Encoded
    backbone: Backbone
    built: Built
    trunk: Trunk
    run: Run

    def tensors(self) -> dict[str, Tensor]:
        """Copies of everything that changes."""
        return {name: value.detach().clone() for name, value in self.run.masters.export().items()}


def never() -> bool:
    return False


def bench(recipe: Recipe, folder: Path, stop: Callable[[], bool] = never) -> Bench:
    """As `pipeline.Session` puts a new run together, up to the loop."""
    from tunesmith.assembly import build, keep_frozen, make_run
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.phases import Phases
    from tunesmith.preparing import encode, prepare
    from tunesmith.redrawing import redraw
    from tunesmith.untouched import fit_probe

    prepared = prepare(recipe)
    backbone = load_backbone(resolve(recipe.model), recipe.training.dropout)
    encoded = encode(prepared, backbone.processor, recipe.training.max_length)
    built = build(recipe, prepared, encoded, backbone, {})
    trunk = keep_frozen(recipe, prepared, encoded, backbone, built, {})
    for _ in fit_probe(recipe, prepared, encoded, backbone, built, trunk, Phases()):
        pass
    redraw(recipe, built.network, built.masters, built.redrawn)
    run = make_run(recipe, prepared, encoded, backbone, built, trunk, folder, stop, {})
    return Bench(recipe, prepared, encoded, backbone, built, trunk, run)


def stopped_and_taken_up(recipe: Recipe, folder: Path, step: int) -> Bench:
    """A run that was stopped after so many steps, put together anew from its checkpoint: what is left is to be trained."""
    from tunesmith.training.loop import train

    half = bench(recipe, folder)
    half.run.stop = lambda: half.run.state.step >= step
    for _ in train(half.run):
        pass
    again = bench(recipe, folder)
    state, _ = again.run.checkpoints.load()
    again.run.masters.restore(state.tensors)
    again.run.state = state
    return again


def stop_at(step: int, bench_of: Callable[[], Bench | None]) -> Callable[[], bool]:
    """A stop callable that asks to stop once the run has done `step` steps."""

    def stop() -> bool:
        made = bench_of()
        return made is not None and made.run.state.step >= step

    return stop


def facts(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Steps and evaluations as plain data, without what the clock says."""
    plain = [event.to_plain() for event in events if event.kind in ("step", "evaluated", "finished")]
    return [{key: value for key, value in item.items() if key not in ("seconds", "cpu")} for item in plain]


def differences(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Names whose tensors are not bitwise equal, or stand on one side only."""
    import torch

    shared = left.keys() & right.keys()
    return sorted((left.keys() ^ right.keys()) | {name for name in shared if not torch.equal(left[name], right[name])})


def same_model(left: Path, right: Path) -> bool:
    """Whether two model/ folders hold the same weights, probes and card, byte for byte. Raises where there are no weights."""
    names = sorted(path.relative_to(left) for path in left.rglob("*") if path.suffix == ".safetensors")
    assert names, f"{left} holds no weights"
    names += [Path("probes.json"), Path("tunesmith.json")]
    found = sorted(path.relative_to(right) for path in right.rglob("*") if path.suffix == ".safetensors")
    return names[:-2] == found and all((left / name).read_bytes() == (right / name).read_bytes() for name in names)


def attached(folder: Path, asked: object) -> tuple[Network, Plan]:
    """A classifier of two classes with a method on it, at a peak rate of 1e-3 (head: 1e-2)."""
    from tunesmith.catalog import build
    from tunesmith.methods.base import Method, Rates
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.network import sequence_network
    from tunesmith.models.resolve import resolve

    method = build("methods", asked)
    assert isinstance(method, Method)
    backbone = load_backbone(resolve(str(folder)))
    network = sequence_network(backbone, ("a", "b"), "single_label_classification", False, 3)
    return network, method.attach(network, Rates(1e-3, 1e-2, ""), 5)


def stopped_when(asked: Callable[[list[Event]], bool], recipe: Recipe, folder: Path) -> None:
    """A run that is asked to stop once its events so far say so, and stops unfinished, with the command that goes on."""
    from tunesmith.pipeline import start
    from tunesmith.training.events import Stopped

    events: list[Event] = []
    for event in start(recipe, folder, stop=lambda: asked(events)).events():
        events.append(event)
    last = events[-1]
    assert isinstance(last, Stopped) and last.resume.endswith(str(folder))
    assert not (folder / "report.json").exists()


def noted(topic: str) -> Callable[[list[Event]], bool]:
    """Whether there is a note of that topic among the events."""
    from tunesmith.training.events import Note

    return lambda events: any(isinstance(event, Note) and event.topic == topic for event in events)
