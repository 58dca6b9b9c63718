"""The end of a search: what was found, said and written, and what the winner's run is given beside its recipe."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.errors import TrainingError
from tunesmith.files import make_folder, whole_file, write_whole
from tunesmith.pipeline import OTHERS
from tunesmith.selection.journal import take
from tunesmith.selection.space import Space, shown
from tunesmith.selection.study import CLAIM, TRIALS, Told, best_of, frontier
from tunesmith.training.events import Event, Note, Warned
from tunesmith.trying import let_go, weights_of

WINNER, FOUND, PAGE = "winner", "search.json", "search.html"
STRUCTURE = ("model", "task", "method", "data", "training.max_length")  # trials that differ here cannot be averaged
SCHEMA = 1
FAILED = 3  # trials that came to nothing whose reasons are told


@dataclass
class Found:
    """What a search found. `told` holds one done trial at least."""

    asked: Mapping[str, Any]  # the recipe as it was given, with its spaces
    spaces: Mapping[str, Space]
    told: Sequence[Told]
    importances: Mapping[str, float]
    number: int  # of the winner

    @cached_property
    def front(self) -> list[Told]:
        return frontier(self.told)

    @property
    def best(self) -> Told:
        """The winner: of the first metric, where there are several."""
        return next(one for one in self.told if one.number == self.number)

    def said(self) -> Iterator[Event]:
        """For a person."""
        best, name = self.best, self.best.judges[0]
        if len(best.judges) > 1:
            cells = [("", *best.judges, *self.spaces)]
            cells += [
                (
                    f"trial {one.number}",
                    *(f"{one.metrics[metric]:.4g}" for metric in best.judges),
                    *(shown(one.values[key]) for key in self.spaces),
                )
                for one in self.front
            ]
            yield Note("frontier", _aligned(cells), tuple(cells))
        states = {state: sum(one.state == state for one in self.told) for state in ("done", "pruned", "failed")}
        within = "" if best.error is None else f" ± {best.error:.4f}"
        counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        drawn = ", ".join(f"{key}={shown(value)}" for key, value in best.values.items())
        yield Note(
            "winner",
            (
                f"trial {best.number} is the best of {len(self.told)} ({counts}): {drawn}",
                f"validation {name} {best.metrics[name]:.4f}{within}: the best of several is flattered by luck; "
                "the test rows, which no trial saw, tell",
            ),
        )
        failed = [one for one in self.told if one.state == "failed"]
        if failed:
            reasons = "; ".join(f"trial {one.number}: {one.why}" for one in failed[:FAILED])
            more = f"; and {len(failed) - FAILED} more" if len(failed) > FAILED else ""
            yield Warned(f"{len(failed)} of {len(self.told)} trials came to nothing: {reasons}{more}")
        if self.importances:
            shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in self.importances.items())
            yield Note("mattered", (f"{shares} (fANOVA over {states['done']} done trials)",))

    def lay_beside(self, out: Path, most: int) -> None:
        """The weights of the next best trials of the winner's own structure, for its run to average with its own."""
        folder = out / WINNER / OTHERS
        shutil.rmtree(folder, ignore_errors=True)
        own = _structure(self.best.values)
        ranked = [one for one in best_of(self.told) if one.number != self.best.number]
        alike = [one for one in ranked if _structure(one.values) == own]
        for place, other in enumerate(alike[:most]):
            weights = weights_of(out / TRIALS / f"{other.number:04d}")
            if weights.exists():
                make_folder(folder)
                with whole_file(folder / f"{place}-trial-{other.number}.safetensors") as partial:
                    shutil.copyfile(weights, partial)

    def write(self, out: Path, test: Mapping[str, Any] | None) -> None:
        """search.json and search.html; `test`: what the winner measured of the test rows, once it has."""
        from tunesmith.evaluation.search_page import render_search

        found = {
            "schema": SCHEMA,
            "recipe": self.asked,
            "metrics": list(self.best.judges),
            "spaces": {key: space.said() for key, space in self.spaces.items()},
            "trials": [asdict(one) for one in self.told],
            "importances": self.importances,
            "frontier": [one.number for one in self.front],
            "winner": {"number": self.best.number, "values": self.best.values, "run": WINNER, "test": test},
            "seconds": sum(one.seconds for one in self.told),
            "cpu_seconds": sum(one.cpu_seconds for one in self.told),
        }
        write_whole(out / FOUND, json.dumps(found, indent=2) + "\n")
        write_whole(out / PAGE, render_search(found))


def written(out: Path) -> bool:
    """Whether all of `Found.write` is there, with what the winner measured of the test rows."""
    if not (out / FOUND).exists() or not (out / PAGE).exists():
        return False
    return json.loads((out / FOUND).read_text(encoding="utf-8"))["winner"]["test"] is not None


def clear(out: Path) -> None:
    """Lets go of the weights and checkpoints of every trial that no process works on: the winner is trained."""
    for folder in sorted((out / TRIALS).iterdir()):
        if (lock := take(folder / CLAIM)) is not None:
            let_go(folder)
            lock.let_go()


def tested(out: Path) -> dict[str, Any]:
    """What the winner measured of the test rows."""
    report = json.loads((out / WINNER / "report.json").read_text(encoding="utf-8"))
    return {name: {key: item[key] for key in ("value", "low", "high")} for name, item in report["metrics"].items()}


def _structure(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in STRUCTURE or key.partition(".")[0] in STRUCTURE}


def _aligned(cells: list[tuple[str, ...]]) -> tuple[str, ...]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return tuple(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def all_failed(told: list[Told]) -> TrainingError:
    """What to say where no trial was done: the reasons, each once, with the trials that had it."""
    why: dict[str, list[int]] = {}
    for one in told:
        why.setdefault(one.why.partition(";")[0], []).append(one.number)
    lines = [
        f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}{', ...' if len(numbers) > 5 else ''}: "
        f"{said}"
        for said, numbers in itertools.islice(why.items(), 5)
    ]
    return TrainingError(
        f"every one of the {len(told)} trials came to nothing: move the spaces, such as a lower training.rate, and search "
        "with another --out",
        *lines,
    )
