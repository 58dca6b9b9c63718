"""What the base says of the test rows before anything trains, where it can say something: in words, or by its own head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesmith.assembly import Built
from tunesmith.data.stored import measures
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.events import Event, Note
from tunesmith.zero_shot.own_head import own_head
from tunesmith.zero_shot.prompting import prompted

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone

FORWARDS = 3  # that a row costs in a step


def ask_base(recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built) -> Iterator[Event]:
    """Adds to `built.base` the rivals that need no training, and tells why one is missing that could be expected.

    None that fails costs the run anything but itself.
    """
    if not (recipe.evaluation.baselines and encoded.examples["test"] and built.network.pretrained):
        return
    device = built.network.sample.device
    asked = {
        "the base asked in words": lambda: prompted(
            prepared, encoded, backbone, device, recipe.seed, _training(encoded, built)
        ),
        "the base's own head": lambda: own_head(prepared, encoded, backbone, device),
    }
    said = []
    for what, ask in asked.items():
        try:
            rival, why = ask()
        except Exception as error:  # a rival is not to cost the run that it is a rival of
            first = str(error).partition("\n")[0]
            rival, why = None, f"{what}: could not be measured ({type(error).__name__}: {first}); please report it"
        built.base = built.base if rival is None else (*built.base, rival)
        said += [why] if why else []
    built.uncompared = (*built.uncompared, *said)
    if said:
        yield Note("base", tuple(said))


def _training(encoded: Encoded, built: Built) -> float:
    """What training is expected to cost, in tokens that the whole base reads once.

    A step is taken for three forwards of what it reaches (a backward costs two; Kaplan 2020, "Scaling Laws for Neural
    Language Models", section 2.1), and what is frozen below is read once and kept.
    """
    tokens = int(measures(encoded.examples["train"]).lengths.sum())
    if all(name in built.network.fresh for name in built.plan.trainable):
        return tokens
    epochs, blocks = built.training.epochs, len(built.network.layout.blocks)
    assert isinstance(epochs, int)
    frozen = built.plan.cut / blocks if blocks else 0.0
    return tokens * (frozen + FORWARDS * epochs * (1 - frozen))
