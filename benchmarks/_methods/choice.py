"""What is decided from results: the rate, who stands at chance, and what is still to be run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]
TIMES = (1.0, 1 / 3, 3.0)  # of the method's own rate; its own first, since the others follow from it
CHOOSING, FINAL = "choosing", "final"
CHOSEN_ON = 1_000  # training rows, where there are more than `MANY`
MANY = 1_500
SURE = 2.0  # standard errors by which a value must be better than chance


@dataclass(frozen=True)
class Part:
    """One run: to choose a rate by, at so many times the method's own, or to measure with the rate that was chosen."""

    job: str
    way: str
    what: str
    seed: int
    times: float | None = None  # of the method's own rate; None where a rate was chosen

    def __str__(self) -> str:
        said = "" if self.times is None else f", {times_words(self.times)} its own rate"
        return f"{self.job}, {self.way}, {self.what}, seed {self.seed}{said}"


def planned(jobs: Iterable[str], ways: Sequence[str], seeds: Sequence[int]) -> list[Part]:
    """Job by job, in each seed by seed, and before a way's first run those that choose its rate."""
    found = []
    for job in jobs:
        for turn, seed in enumerate(seeds):
            for name in ways:
                if turn == 0:
                    found += [Part(job, name, CHOOSING, 0, times) for times in TIMES]
                found.append(Part(job, name, FINAL, seed))
    return found


def times_words(times: float) -> str:
    return {1.0: "1 times", 1 / 3: "a third of", 3.0: "3 times"}.get(times, f"{times:g} times")


def tried(results: Iterable[Result], job: str, name: str) -> list[Result]:
    """The runs by which a rate is chosen, in the order of the rates."""
    found = [item for item in results if item["what"] == CHOOSING and (item["job"], item["way"]) == (job, name)]
    return sorted(found, key=lambda item: item["times"])


def chosen(found: Sequence[Result]) -> Result | None:
    """The best on the validation rows, of equals that with the lower loss; None where none of them ended."""
    ended = [item for item in found if item.get("value") is not None]
    return max(ended, key=lambda item: (item["value"], -item["loss"]), default=None)


def at_edge(found: Sequence[Result]) -> bool:
    """Whether the best of them is the lowest or the highest rate that was tried."""
    best = chosen(found)
    return best is not None and best["times"] in (min(TIMES), max(TIMES))


def unfit(found: Iterable[Result]) -> str | None:
    """Why the method does not go with the base, in the words of the error."""
    return next((item["unfit"] for item in found if item.get("unfit")), None)


def by_default(found: Iterable[Result]) -> Result | None:
    """The run at the method's own rate, where it ended."""
    return next((item for item in found if item["times"] == 1.0 and item.get("value") is not None), None)


def at_chance(result: Result) -> bool:
    """Whether a run is no better than saying the same of every validation row, as far as these can tell."""
    return result["value"] - SURE * result["error"] <= result["chance"]


def chance(kind: str, validation: Sequence[Mapping[str, Any]]) -> float:
    """What is reached by saying the same of every row: of classes the share of the largest; no entities, no order: 0."""
    if kind != "classes":
        return 0.0
    labels = [row["label"] for row in validation]
    return max(map(labels.count, set(labels))) / len(labels)
