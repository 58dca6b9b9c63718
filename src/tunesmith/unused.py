"""Settings that somebody gave and that this run has no use for: said, since silence would look like obedience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunesmith.methods.base import Method
from tunesmith.preparing import Prepared
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Task
from tunesmith.training.trunk import Live, Trunk

if TYPE_CHECKING:
    from tunesmith.assembly import Built

WEIGHTS = ("retention.keep", "retention.anchor", "retention.ewc", "retention.budget")  # that go back to the base's own
HOLDING = ("retention.distill", "retention.replay")  # to what it says of general text
KEEPING = (*WEIGHTS, *HOLDING, "retention.probe", "retention.general")

WITHOUT_TEST = {
    "evaluation.scratch": "there are no test rows to compare on",
    "evaluation.curve": "there are no test rows to measure on",
    "evaluation.seeds": "there are no test rows to measure on, so one model is trained",
    "evaluation.resamples": "there are no test rows to draw from",
    "evaluation.confidence": "there are no test rows, so there is no interval",
    "evaluation.precision": "there are no test rows to report on; predict --precision is there all the same",
    "data.slices": "there are no test rows to tell apart",
}


def unused_settings(recipe: Recipe, prepared: Prepared, built: Built) -> list[str]:
    """One line for each value that differs from its default and cannot change this run."""
    reasons: dict[str, str] = {}
    for side in ("validation", "test"):
        if side in prepared.splits.given:
            reasons[f"data.{side}"] = f"{side} rows are {prepared.splits.why[side]}"
    if {"validation", "test"} <= prepared.splits.given:
        reasons["data.time"] = "validation and test rows are given"
    if set(built.plan.trainable) <= built.network.fresh:
        method = recipe.method_name
        reasons["training.rate"] = f"method {method} trains the head alone; its rate is training.head_rate"
        for key in KEEPING:
            reasons[key] = f"method {method} trains the head alone, so all of the base is kept"
    if recipe.training.checkpointing is True and not built.network.recomputable:
        reasons["training.checkpointing"] = (
            f"method {recipe.method_name} trains nothing inside the blocks, where alone activations are recomputed"
        )
    if type(prepared.task).order is not Task.order:
        reasons["training.batches"] = f"task {prepared.task.part_name()} draws its batches in a way of its own"
    trained = [name for name in built.plan.trainable if name not in built.network.fresh]
    method = recipe.method
    if trained and isinstance(method, Method) and not any(map(method.averaged, trained)):
        for key in WEIGHTS:
            reasons[key] = f"what method {method.part_name()} adds cannot be averaged with the base, whose weights stay"
    if not built.network.pretrained:
        for key in KEEPING:
            reasons[key] = f"method {recipe.method_name} starts from nothing that could be kept"
    if not built.meters and built.general is None:
        reasons.setdefault("retention.general", "nothing is measured on general text, or held to it")
    if recipe.evaluation.quick:
        reasons["evaluation.curve"] = "evaluation.quick leaves the further evidence out"
    if recipe.data.folds is not None:
        reasons["data.test"] = "each of data.folds is the test of one run"
    if recipe.evaluation.quick:
        reasons["data.slices"] = "evaluation.quick leaves the further evidence out"
        reasons["evaluation.precision"] = (
            "the quick report says nothing of it; predict --precision is there all the same"
        )
    if len(prepared.splits.test) == 0:
        reasons |= WITHOUT_TEST
    if prepared.task.certainty != "classes":
        reasons["evaluation.precision"] = "answers are held back where one class a row is said"
    if len(prepared.splits.validation) == 0:
        reasons["evaluation.precision"] = "there are no validation rows to find a threshold on"
        for key in ("training.patience", "evaluation.metric"):
            reasons[key] = (
                "there are no validation rows to measure on, so all epochs are done and the last state is kept"
            )
    return [line for key, why in reasons.items() if (line := _line(recipe, key, why))]


def unused_cache(recipe: Recipe, trunk: Trunk) -> list[str]:
    """The line for a cache that was asked for and keeps nothing; none where it keeps something."""
    if recipe.training.cache not in ("memory", "disk") or not isinstance(trunk, Live):
        return []
    return [_line(recipe, "training.cache", trunk.why)]


def _line(recipe: Recipe, key: str, why: str) -> str:
    """ "" where the value is the default."""
    group, _, name = key.partition(".")
    specs: dict[str, BaseModel] = {
        "data": recipe.data, "training": recipe.training, "retention": recipe.retention, "evaluation": recipe.evaluation,
    }  # fmt: skip
    spec = specs[group]
    value: Any = spec.model_dump()[name]
    return "" if value == type(spec).model_fields[name].default else f"not used: {key} = {value}: {why}"
