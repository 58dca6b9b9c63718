"""The runs that a recipe has done beside its own, to tell the worth of the model: which they are, and doing them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.folding import other_folds
from tunesmith.forecast import Further
from tunesmith.from_scratch import scratch_baseline
from tunesmith.inner import SessionOf
from tunesmith.method_curve import SHARES, curve_wanted, method_points
from tunesmith.phases import CURVE, FOLDS, SCRATCH, SEEDS, Phases
from tunesmith.preparing import Prepared
from tunesmith.recipe import Recipe
from tunesmith.repeating import repeats
from tunesmith.training.events import Event, Stopped

if TYPE_CHECKING:
    from tunesmith.assembly import Built


def foreseen(recipe: Recipe, prepared: Prepared) -> Further:
    """The runs that `runs_beside` will do, as far as they can be reckoned before."""
    if len(prepared.splits.test) == 0:
        return Further()
    shares = list(SHARES.values()) if curve_wanted(recipe) else []
    folds = recipe.data.folds
    shares += [1.0] * (folds - 1 if folds is not None and recipe.data.fold is None else 0)
    shares += [1.0] * (recipe.evaluation.seeds - 1)
    return Further(tuple(shares), unknown=recipe.evaluation.scratch)


def runs_beside(
    session_of: SessionOf, recipe: Recipe, prepared: Prepared, built: Built, run: Path, phases: Phases
) -> Generator[Event, None, Stopped | None]:
    """Does them, and keeps in `built` what they measured; the Stopped of one that was asked to stop."""
    if len(prepared.splits.test) == 0:
        return None
    if recipe.evaluation.scratch:
        rival = yield from phases.through(SCRATCH, scratch_baseline(session_of, recipe, run))
        if isinstance(rival, Stopped):
            return rival
        if rival is not None:
            built.base, built.beside = (*built.base, rival), built.beside + 1
    if curve_wanted(recipe):
        parts = yield from phases.through(CURVE, method_points(session_of, recipe, run))
        if isinstance(parts, Stopped):
            return parts
        built.curve, built.beside = tuple(parts), built.beside + len(parts)
    if recipe.data.folds is not None and recipe.data.fold is None:
        rest = yield from phases.through(FOLDS, other_folds(session_of, recipe, prepared.labels.names, run))
        if isinstance(rest, Stopped):
            return rest
        built.folds, built.beside = rest, built.beside + len(rest)
    if recipe.evaluation.seeds > 1:
        again = yield from phases.through(SEEDS, repeats(session_of, recipe, run))
        if isinstance(again, Stopped):
            return again
        built.repeats, built.beside = again, built.beside + len(again)
    return None
