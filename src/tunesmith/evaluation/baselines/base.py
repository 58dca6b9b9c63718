"""What every baseline is: it learns from training rows without a pretrained model, and is scored as the model is."""

from __future__ import annotations

import importlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Text
from tunesmith.data.words import Window
from tunesmith.seeds import seed_of
from tunesmith.tasks.base import Labels, OutputTask, Prediction, Scores, Task

if TYPE_CHECKING:
    import numpy as np


MOST_ROWS = 100_000  # that a baseline learns from: word counts of a million texts would take more memory than training


@dataclass(frozen=True)
class Baseline:
    """A cheap alternative, measured on the same test rows."""

    name: str  # what the verdict knows it by: its file's name, or "probe"
    what: str  # in words
    scores: Scores
    seconds: float  # by the clock, to fit it and to predict the test rows


@dataclass(frozen=True)
class Part:
    """Rows of one split: what is read, and what is true."""

    texts: Sequence[Text]
    truth: Sequence[Any]


class Rival(ABC):
    """One cheap way to predict, in its own file under the name that tasks call it by."""

    @abstractmethod
    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        """Learns from `train`; for each of the lists of texts [texts, outputs] as the task's `evidence` has it.

        Where the task's outputs are one a word: [words of all the texts, outputs].
        """

    @abstractmethod
    def what(self, train: Part) -> str:
        """The baseline in words."""


class Speaker(ABC):
    """A rival that says its predictions itself, where a task's outputs are nothing that it could give."""

    @abstractmethod
    def predictions(
        self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int
    ) -> list[list[Prediction]]:
        """Learns from `train`; for each of the lists of texts one prediction a text, in order."""

    @abstractmethod
    def what(self, train: Part) -> str:
        """The baseline in words."""


def measure_baseline(
    name: str, task: Task, train: Part, validation: Part, test: Part, labels: Labels, seed: int
) -> Baseline:
    """Fits the baseline of file `name` and scores it on the test rows, by the task's own rules.

    What the task settles on validation rows (thresholds) is settled for the baseline too.
    """
    rival = importlib.import_module(f"tunesmith.evaluation.baselines.{name}").make()
    assert isinstance(rival, Rival | Speaker)
    started = time.perf_counter()
    train, few = _enough(train, seed)
    both = [validation.texts, test.texts]
    if isinstance(rival, Speaker):
        seen, found = rival.predictions(train, both, labels, seed)
    else:
        assert isinstance(task, OutputTask)
        evidence = rival.evidence(train, both, labels, seed)
        seen, found = (_predictions(task, its, texts, labels) for its, texts in zip(evidence, both, strict=True))
    if validation.truth:
        labels = task.settle(seen, validation.truth, labels)
    scores = task.score(task.restate(found, labels), test.truth, labels)
    return Baseline(name, f"{rival.what(train)}{few}", scores, time.perf_counter() - started)


def _enough(train: Part, seed: int) -> tuple[Part, str]:
    """At most `MOST_ROWS` of the rows, in their order, and what is to be said of that."""
    count = len(train.texts)
    if count <= MOST_ROWS:
        return train, ""
    rows = sorted(random.Random(seed_of(seed, "baseline")).sample(range(count), MOST_ROWS))
    taken = Part([train.texts[row] for row in rows], [train.truth[row] for row in rows])
    return taken, f", on {MOST_ROWS:,} of the {count:,} training rows"


def _predictions(task: OutputTask, evidence: np.ndarray, texts: Sequence[Text], labels: Labels) -> list[Prediction]:
    rows = [row for row, text in enumerate(texts) for _ in range(task.units(text))]
    windows = {row: Window(row, text) for row, text in enumerate(texts) if isinstance(text, str)}
    return task.whole(task.predictions(evidence.tolist(), rows, labels), windows, labels)
