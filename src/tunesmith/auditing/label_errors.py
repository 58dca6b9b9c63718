"""Labels that are likely wrong: confident learning, and whether it finds more than the classifier's own mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.auditing.confident import confident_classes, off_diagonal
from tunesmith.auditing.folds import FOLDS, cross_validated, cross_validated_words
from tunesmith.data.findings import Finding

if TYPE_CHECKING:
    import numpy as np

NAME = "label_errors"
FEWEST_ROWS = 50
# Probabilities that the classifier gives a label, from likely to unlikely; the first is taken at which there are so many
# more labels than its probabilities lead to expect.
LEVELS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
# Times as many as expected, and how rarely chance alone may give them (docs/log.md, "Label errors").
EXCESS, CHANCE, FEWEST = 1.33, 1e-4, 3
FLOOR, MOST_MISTAKES = 1 / 3, 0.2  # of `_floor`: the share in the surest quarter over that in all rows; the latter
SURER = 2.0  # the same once there are errors for certain, and the classifier has learned without the plainest of them


@dataclass(frozen=True)
class LabelErrors:
    """Rows by their place, the most doubtful first."""

    doubted: np.ndarray  # [found] of int: confidently of another class than their label (confident learning)
    raised: np.ndarray  # [found] of int: those of them that are errors rather than hard rows
    suggested: np.ndarray  # [rows] of int: the class that each row is confidently of, its own label where there is none
    own: np.ndarray  # [rows]: the probability of each row's label
    level: float  # the probability of a label from which down it is raised; 0 where nothing is
    expected: float  # labels as unlikely as that, if all labels were right and the probabilities too
    observed: int  # and how many there are


def search(says: Callable[[np.ndarray | None], np.ndarray], truth: np.ndarray) -> tuple[LabelErrors, float]:
    """The likely label errors, and how many of all labels the classifier tells.

    says: from which rows to learn, [rows] of bool or None for all, to cross-validated probabilities [rows, classes], as
    `cross_validated` gives them; truth: [rows] of int. Where `label_errors` raises any, or where mistakes are as frequent
    among the rows that the classifier is surest of as they hardly are on hard rows (`_floor`), it learns once more without
    these, and is then held to its own mistakes alone: flipped labels have made it doubt all others.
    """
    import numpy as np

    first = says(None)
    accuracy = float((first.argmax(axis=1) == truth).mean())
    found = label_errors(first, truth)
    if not len(found.raised):
        found = replace(found, raised=_floor(first, truth, found.doubted))
    if not len(found.raised):
        return found, accuracy
    trusted = np.ones(len(truth), dtype=bool)
    trusted[found.raised] = False
    again = label_errors(says(trusted), truth, SURER)
    return (again if len(again.raised) else found), accuracy


def label_errors(probabilities: np.ndarray, truth: np.ndarray, excess: float = EXCESS) -> LabelErrors:
    """Which labels to doubt, from what a classifier says of rows that it did not learn from.

    probabilities: [rows, classes], cross-validated and calibrated as `cross_validated` gives them; truth: [rows] of int.

    `doubted` are the off-diagonals of the confident joint (Northcutt, Jiang and Chuang 2021, section 3.2). A classifier's
    own mistakes are among them: on clean rows they are nothing else. So `raised` keeps those whose label is at most as
    likely as `level`: the highest of `LEVELS` at which there are `excess` times as many labels as the probabilities
    themselves lead to expect, and more than chance would give (Poisson). Where there is none, nothing is raised.
    """
    import numpy as np
    from scipy.stats import poisson

    own = probabilities[np.arange(len(truth)), truth]
    confident = confident_classes(probabilities, truth)
    suggested = np.where(confident >= 0, confident, truth)
    places = np.flatnonzero(off_diagonal(probabilities, truth))
    doubted = places[np.argsort(own[places], kind="stable")]
    for level in LEVELS:
        observed = int((own <= level).sum())
        expected = float(probabilities[probabilities <= level].sum())
        surely = poisson.sf(observed - 1, expected) < CHANCE
        if observed >= FEWEST and observed >= excess * expected and surely:
            return LabelErrors(doubted, doubted[own[doubted] <= level], suggested, own, level, expected, observed)
    return LabelErrors(doubted, doubted[:0], suggested, own, 0.0, 0.0, 0)


def _floor(probabilities: np.ndarray, truth: np.ndarray, doubted: np.ndarray) -> np.ndarray:
    """[found] of int: the doubted rows of the half that the classifier is surest of, if these are not just hard; else none.

    Where a task is hard, mistakes are rare among the quarter of the rows that a classifier is surest of: by the geometry of
    two normal classes a sixth of their share in all rows, where that is 0.2, and less below. Wrong labels are as frequent
    there as anywhere. Needed where all rows are about equally easy: probabilities that were calibrated on wrong labels
    then expect them.
    """
    import numpy as np

    from tunesmith.evaluation.intervals import binomial

    sure, mistaken = probabilities.max(axis=1), probabilities.argmax(axis=1) != truth
    most = np.argsort(-sure, kind="stable")[: max(1, len(truth) // 4)]
    share, among = float(mistaken.mean()), int(mistaken[most].sum())
    if among < FEWEST or share > MOST_MISTAKES or binomial(among, len(most), 0.95).low < FLOOR * share:
        return doubted[:0]
    return doubted[sure[doubted] >= np.median(sure)]


def examine(material: Material) -> Examined:
    """Kind: "label_error". Over all splits' rows together, by frozen features where there are any, else by words."""
    if not material.one_class:
        return not_done(NAME, "does not apply: the targets are no classes, one a row", applies=False)
    found = doubts(material)
    if isinstance(found, str):
        return not_done(NAME, found)
    errors, classes, accuracy = found
    by = "TF-IDF" if material.features is None else "frozen features of the base"
    said = f"a classifier on {by} tells {accuracy:.1%} of {len(material.rows):,} labels from the other rows"
    finding = label_finding(material, errors, classes)
    if finding is None:
        first = ", ".join(material.place(material.rows[place]) for place in errors.doubted[:3].tolist())
        if first:
            more = ", ..." if len(errors.doubted) > 3 else ""
            said += f"; it doubts {len(errors.doubted):,}, no more than by its own mistakes ({first}{more})"
        return Examined(NAME, said)
    if errors.level:
        said += (
            f"; {errors.observed:,} labels have a probability of {errors.level:g} or less by it, and {errors.expected:.0f} "
            "would, were all right"
        )
    raised = errors.raised.tolist()
    suggested = {material.rows[place]: classes[errors.suggested[place]] for place in raised}
    marks = dict.fromkeys(suggested, "likely label error")
    return Examined(NAME, said, (finding,), marks=marks, suggested=suggested)


def doubts(material: Material, folds: int = FOLDS) -> tuple[LabelErrors, list[str], float] | str:
    """The errors by the places of `material.rows`, the names of the classes, and the classifier's accuracy; why not, else.

    `material` is of one class a row.
    """
    import numpy as np

    if material.pictures and material.features is None:
        return "of pictures only with --model"
    names = [label for split in material.tables for label in material.truth(split)]
    classes, truth = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    if len(truth) < FEWEST_ROWS or len(classes) < 2:
        return f"not examined: fewer than {FEWEST_ROWS} rows are too few to learn from"
    given = material.features
    features = None if given is None else np.concatenate([given[split] for split in material.tables])

    def says(trusted: np.ndarray | None) -> np.ndarray:
        if features is None:
            return cross_validated_words(material.texts, truth, folds, material.seed, trusted)
        return cross_validated(features, truth, folds, material.seed, trusted)

    errors, accuracy = search(says, truth)
    return errors, classes.tolist(), accuracy


def _spared(errors: LabelErrors) -> int:
    """How many of those raised may be right all the same, as the classifier reckons; 0 where it cannot tell."""
    return round(len(errors.raised) * errors.expected / errors.observed) if errors.level else 0


def _spared_said(right: int) -> str:
    return f"; about {right:,} of them may be right all the same, and only hard to tell" if right else ""


def label_finding(material: Material, errors: LabelErrors, classes: list[str]) -> Finding | None:
    """What to say of them; None where nothing is raised."""
    if not len(errors.raised):
        return None
    rows: list[Row] = [material.rows[place] for place in errors.raised.tolist()]
    details = [
        f'labelled "{material.truth(row.split)[row.row]}", rather "{classes[errors.suggested[place]]}"'
        for row, place in zip(rows[:3], errors.raised.tolist(), strict=False)
    ]
    what = "likely label errors: a classifier that learned from the other rows is sure of another label; kept"
    advice = "read them and correct what is wrong; tunesmith audit --fix FILE writes a suggestion beside each"
    spared = _spared(errors)
    found = material.finding("label_error", rows, f"{what}{_spared_said(spared)}", advice, details)
    tested = sum(row.split == "test" for row in rows)
    return replace(found, numbers={"rows": len(material.rows), "test": tested, "right_all_the_same": spared})
