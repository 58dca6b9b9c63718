"""The top blocks begin anew: what they were pretrained for may lie far from a small task, and unsettle its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.methods.base import Plan
from tunesmith.recipe import Recipe
from tunesmith.seeds import torch_seed
from tunesmith.training.optim import Masters

if TYPE_CHECKING:
    from tunesmith.models.network import Network


def redrawn(recipe: Recipe, network: Network, plan: Plan, kept: float) -> frozenset[str]:
    """The parameters of the top `training.redraw` blocks. `kept`: the share of the base's own weights to deliver.

    Raises RecipeError where the base has no so many blocks, these do not train, or random weights would not fit them.
    """
    from tunesmith.models.layout import has_batch_norms

    count, blocks = recipe.training.redraw, network.layout.blocks
    if count == 0:
        return frozenset()
    if count > len(blocks):
        has = f"has {len(blocks)} blocks, and {count} are asked for; give fewer" if blocks else "has no list of blocks"
        raise RecipeError(f"training.redraw: this base {has}{'' if blocks else '; leave it out'}")
    if kept > 0:
        raise RecipeError(
            f"training.redraw: the delivered weights would be an average with the base's own ({kept:g}), to which blocks "
            "drawn anew do not belong; leave it out, or set retention.keep=0"
        )
    if not network.pretrained:
        raise RecipeError(f"training.redraw: method {recipe.method_name} draws every block; leave it out")
    tops = blocks[-count:]
    if any(has_batch_norms(network.get_submodule(name)) for name in tops):
        raise RecipeError(
            "training.redraw: these blocks have batch norms, whose statistics stay those of their pretraining, so that "
            "random weights would not fit them; leave it out"
        )
    inside = tuple(f"{name}." for name in tops)
    anew = frozenset(name for name, _ in network.named_parameters() if name.startswith(inside))
    if frozen := anew - set(plan.trainable):
        raise RecipeError(
            f"training.redraw: {min(frozen)} does not train with method {recipe.method_name}, and would stay random; "
            "use full, or layers with these blocks among them"
        )
    return anew


def redraw(recipe: Recipe, network: Network, masters: Masters, anew: frozenset[str]) -> str:
    """Draws the parameters that `redrawn` gave as their family begins a new model; what was done, "" where nothing is.

    Zhang 2021, "Revisiting few-sample BERT fine-tuning", section 5. By then the base has been measured as it was.
    """
    from tunesmith.models.redrawn import draw_anew

    if not anew:
        return ""
    with torch_seed(recipe.seed, "redraw"):
        draw_anew(network, frozenset(name for name, _ in network.named_parameters()) - anew)
    masters.overwrite({name: network.get_parameter(name).detach().float() for name in anew})
    unfitted = ", and the head is not fitted before" if recipe.training.probe and network.output is not None else ""
    return (
        f"the top {recipe.training.redraw} of {len(network.layout.blocks)} blocks begin with random weights{unfitted}"
    )
