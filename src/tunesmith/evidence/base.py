"""What an examination reads, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example, Text
from tunesmith.data.findings import Finding
from tunesmith.data.table import Table
from tunesmith.tasks.base import Labels, Prediction, Scores, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.evaluation.baselines.base import Baseline
    from tunesmith.evaluation.intervals import Comparison
    from tunesmith.evaluation.report import EvaluationPoint, LossPoint
    from tunesmith.folding import Fold
    from tunesmith.methods.base import Rates
    from tunesmith.recipe import Recipe, TrainingSpec
    from tunesmith.repeating import Repeat
    from tunesmith.training.travel import Travel


@dataclass(frozen=True)
class Measured:
    """One split, as the delivered model predicts it."""

    table: Table
    texts: Sequence[Text]
    truth: Sequence[Any]
    predictions: Sequence[Prediction]
    scores: Scores


@dataclass(frozen=True)
class Frozen:
    """What the untouched base makes of the rows, computed once for the probe.

    features: split -> [units, width] float32 on the CPU; a unit is a row, or, where outputs are one a token, a token
    that counts. examples: split -> the rows in the same order, their `source` the place in the split's table.
    """

    features: Mapping[str, Tensor]
    examples: Mapping[str, Sequence[Example]]
    strength: float  # C of the head that was fitted to them

    def by_row(self, split: str) -> bool:
        """Whether there is one unit for each row of the split."""
        return split in self.features and len(self.features[split]) == len(self.examples[split])


@dataclass(frozen=True)
class CurvePoint:
    """A model that learned from a part of the training rows, as it does on the test rows."""

    rows: int
    scores: Scores


@dataclass(frozen=True)
class Pooled:
    """The primary metric of all folds' rows together, beside the rivals that every fold has."""

    scores: Scores
    comparison: Comparison
    lacking: Mapping[str, Sequence[int]] = field(default_factory=dict)  # other rivals -> the folds that have them not


@dataclass(frozen=True)
class Course:
    """What training was asked to do, and how far it went."""

    losses: Sequence[LossPoint]
    evaluations: Sequence[EvaluationPoint]
    training: TrainingSpec  # every "auto" resolved
    usual: Rates | None  # what the method takes for such a base where nobody asks for other rates
    travel: Sequence[Travel]
    kept: int | None  # step of the state that is delivered; None where it is no step's, or nothing was validated
    pretrained: bool  # whether the base was, and is not drawn anew


@dataclass(frozen=True)
class Subject:
    """A finished run, measured on its test rows."""

    recipe: Recipe
    task: Task
    labels: Labels
    train: Table
    label: str  # the column of the tables that holds the target
    test: Measured
    validation: Measured | None  # None where there are no validation rows
    frozen: Frozen | None  # None where the base has no features to fit a head on, or they are random
    baselines: Sequence[Baseline]
    course: Course
    folds: Sequence[Fold] = ()  # the others, where folds were asked for
    repeats: Sequence[Repeat] = ()  # the same from other seeds, where they were asked for
    curve: Sequence[CurvePoint] = ()  # the method itself on parts of the training rows, where the recipe asks for that
    pooled: Pooled | None = None  # None without folds
    ladder: Mapping[str, Any] | None = None  # how the method was chosen, where the recipe left it open


@dataclass(frozen=True)
class Found:
    """What an examination gives: plain data for report.json, findings, and lines told beside the verdict."""

    data: Mapping[str, Any]
    findings: Sequence[Finding] = ()
    said: Sequence[str] = ()
