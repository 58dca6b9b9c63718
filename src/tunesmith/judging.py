"""How a network stands on the validation rows, by which checkpoints and trials are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.data.units import groups_of_rows
from tunesmith.errors import RecipeError, did_you_mean
from tunesmith.evaluation.infer import infer
from tunesmith.evaluation.intervals import standard_error
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.tasks._certainty import SURPRISE, surprise
from tunesmith.tasks.base import Scores
from tunesmith.training.loop import Measured
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from tunesmith.models.network import Network


def scorer(
    prepared: Prepared,
    encoded: Encoded,
    network: Network,
    trunk: Trunk,
    pad: dict[str, int],
    device: str,
    surprised: bool = False,
) -> Callable[[], tuple[Scores, float]] | None:
    """Scores the network as it stands on the validation rows, and gives its mean loss; None where there are none.

    Rows of one group are scored as such, so that what is chosen by is as sure as the groups are many.

    surprised: with the surprise at each row's target, where the task knows it.
    """
    import numpy as np

    examples = encoded.examples["validation"]
    if not examples:
        return None
    task, labels = prepared.task, prepared.labels
    groups = groups_of_rows(prepared.splits.validation, prepared.columns)

    def score() -> tuple[Scores, float]:
        network.eval()
        place = prepared.splits.validation.place
        found, loss = infer(
            lambda batch: trunk.forward("validation", batch), task, examples, labels, pad, device, place
        )
        truth = prepared.truth("validation")
        settled = task.settle(found, truth, labels)
        scores = task.score(task.restate(found, settled), truth, settled)
        each = surprise(task.certainty, found, truth, settled) if surprised else None
        if each is not None:
            scores = replace(scores, each={**scores.each, SURPRISE: each})
        if groups is not None:
            scores = replace(scores, groups=np.array(groups))
        return scores, loss if loss is not None else 0.0

    return score


def evaluator(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    network: Network,
    trunk: Trunk,
    pad: dict[str, int],
    device: str,
) -> Callable[[], Measured] | None:
    """Measures the network as it stands on the validation rows; None where there are none."""
    score = scorer(prepared, encoded, network, trunk, pad, device)
    if score is None:
        return None
    asked = None if recipe.evaluation.metric == "auto" else recipe.evaluation.metric

    def evaluate() -> Measured:
        scores, loss = score()
        metric = scores.primary if asked is None else asked
        if metric not in scores.metrics:
            raise RecipeError(
                f'evaluation.metric: these rows have no metric "{metric}"; {did_you_mean(metric, [*scores.metrics])}'
            )
        value = scores.value(metric)
        rank = -value if metric in scores.lower else value
        return Measured(metric, value, rank, standard_error(scores, metric), loss)

    return evaluate
