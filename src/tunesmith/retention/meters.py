"""Which meters a run has: by what its network is, and what the user named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.preparing import Prepared
from tunesmith.recipe import Recipe
from tunesmith.retention.general import general_text
from tunesmith.retention.meter import Meter
from tunesmith.retention.order import order_of
from tunesmith.retention.perplexity import perplexities
from tunesmith.retention.probe import probe_on
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels, Task
from tunesmith.tasks.causal_lm import CausalLm

if TYPE_CHECKING:
    from tunesmith.methods.base import Plan
    from tunesmith.models.network import Network


def meters_of(
    recipe: Recipe, prepared: Prepared, network: Network, plan: Plan, limit: int, untouched: Callable[[], Network]
) -> list[Meter]:
    """Of the untouched base, which is measured here; none where nothing of it changes, or where it knew nothing.

    limit: tokens kept of a text. `untouched` gives the network as it was before a method altered it. Raises DataError for a
    probe that cannot be read, and RecipeError for a budget that nothing measures.
    """
    if not network.pretrained or set(plan.trainable) <= network.fresh:
        return []
    asked = recipe.retention
    measured = asked.measure and not recipe.evaluation.quick
    if not measured and asked.budget is None and asked.probe is None:
        return []
    network = untouched()
    found = probe_on(recipe, prepared, network, limit)
    if measured or (asked.budget is not None and not found):
        found += _of_general_text(recipe, prepared, network, limit)
    for meter in found:
        if asked.budget is not None and 0 < asked.budget < meter.least:
            raise RecipeError(
                f"retention.budget: {100 * asked.budget:g} % is less than one of {meter.rows} rows of the probe, which is "
                f"the least that it can tell; give more rows, or a budget of {100 * meter.least:.2g} % or more"
            )
    if asked.budget is not None and not found:
        raise RecipeError(
            f"retention.budget: nothing says what task {prepared.task.part_name()} makes this base forget; name a second "
            "labelled set with retention.probe, or leave the budget out"
        )
    return found


def _of_general_text(recipe: Recipe, prepared: Prepared, network: Network, limit: int) -> list[Meter]:
    if prepared.task.reads_pictures:
        return []
    general = general_text(prepared)
    if not network.writes:
        return order_of(general, network, limit)
    judge = judge_of(prepared.task)
    if judge is None:
        return []
    if network.fresh:  # random numbers foretell nothing that could be forgotten; what the body gives still can be
        return order_of(general, network, limit)
    labels = prepared.labels if judge is prepared.task else Labels((), ())
    return perplexities(general, judge, labels, network, limit, recipe.seed)


def judge_of(task: Task) -> LanguageTask | None:
    """The task by whose rules a network that writes reads plain text; None where there is none."""
    if isinstance(task, LanguageTask):
        return task
    return CausalLm() if "decoder" in task.kinds else None
