"""A second labelled set: how well a new linear map tells its classes from what a body makes of its rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tunesmith.data.stored import tokens_in
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.wording import rows_of
from tunesmith.preparing import PROBE_KEY, Encoded, Prepared, fitted
from tunesmith.recipe import Recipe
from tunesmith.retention.meter import Meter, Reading
from tunesmith.retention.vectors import body_vectors
from tunesmith.seeds import seed_of
from tunesmith.training.probe import fit_on

if TYPE_CHECKING:
    from tunesmith.data.encode import Example
    from tunesmith.models.network import Network

MOST_ROWS = 2_000  # of each split: one standard error of an accuracy is then 1.1 points or less
ENOUGH = 50  # rows under which one standard error of an accuracy may be more than 7 points


class Probe(Meter):
    """`lost` is the share of its test rows, of all, that are no longer told rightly: points of accuracy / 100.

    The map is fitted anew to each network's vectors, so the set may have other classes than the task.
    """

    loses: ClassVar[str] = "accuracy lost on the probe"

    def __init__(self, name: str, prepared: Prepared, encoded: Encoded, network: Network, seed: int) -> None:
        """`network`: the untouched base."""
        self._name, self._prepared = name, prepared
        self._splits: dict[str, list[Example]] = {}
        for split, rows in encoded.examples.items():
            drawn = _drawn(len(rows), seed_of(seed, PROBE_KEY, split))
            if split == "test":
                truth = prepared.truth("test")
                self._truth = [truth[rows[place].source] for place in drawn]
            if drawn:
                self._splits[split] = [replace(rows[place], row=row) for row, place in enumerate(drawn)]
        self.before = self._accuracy(network)

    @property
    def rows(self) -> int:
        return len(self._splits["test"])

    @property
    def least(self) -> float:
        return 1 / self.rows

    @cached_property
    def tokens(self) -> frozenset[int]:
        return frozenset[int]().union(*(tokens_in(rows) for rows in self._splits.values()))

    def read(self, network: Network) -> Reading:
        after = self._accuracy(network)
        lost = self.before - after
        few = "" if self.rows >= ENOUGH else ", too few to tell much"
        said = (
            f"accuracy on {self._name} of a new head on what the base gives: {self.before:.3f} before, {after:.3f} after "
            f"({0.0 - 100 * lost:+.1f} points; {rows_of(self.rows, 'row')}{few})"
        )
        return Reading(lost, said)

    def _accuracy(self, network: Network) -> float:
        from torch.nn import Linear
        from torch.nn.functional import linear

        task, labels = self._prepared.task, self._prepared.labels
        vectors = {split: body_vectors(network, rows) for split, rows in self._splits.items()}
        blank = Linear(vectors["train"].shape[1], len(labels.names))
        best = fit_on(task, blank, vectors, self._splits).best
        tested = self._splits["test"]
        found = task.predict(linear(vectors["test"], best.weight, best.bias), range(len(tested)), labels)
        return task.score(found, self._truth, labels).value("accuracy")


def probe_on(recipe: Recipe, prepared: Prepared, network: Network, limit: int) -> list[Meter]:
    """The probe that the recipe names, measured on the untouched base; none where it names none.

    limit: tokens kept of a text. Raises DataError for rows that cannot be encoded.
    """
    second, path = prepared.second, recipe.retention.probe
    if second is None or path is None:
        return []
    try:
        second, encoded = fitted(second, network.processor, "auto" if network.processor.pictures else limit)
    except TunesmithError as error:
        raise type(error)(*(f"{PROBE_KEY}: {problem}" for problem in error.problems)) from None
    return [Probe(Path(path).name, second, encoded, network, recipe.seed)]


def _drawn(rows: int, seed: int) -> Sequence[int]:
    """At most `MOST_ROWS` of so many places, ascending."""
    return range(rows) if rows <= MOST_ROWS else sorted(random.Random(seed).sample(range(rows), MOST_ROWS))
