"""What a run may take: training ends in time for what comes after it, and is not begun where nothing would be left for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.energy import J_PER_WH
from tunesmith.errors import TrainingError
from tunesmith.phases import AUDIT, BASE, BASELINES, EVALUATIONS, KNOWN_BEFORE, NOTHING, PROBE, STEPS, Time, summed
from tunesmith.spending import joules_of, peak_memory_mb, time_of

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.specs import LimitSpec
    from tunesmith.spending import Spending
    from tunesmith.training.loop import Run

MB = 1e6
# After training the base is read twice, to be written and to prove it. The examinations of the model take about what those
# of the rows and of the base took before it: 9 and 15 CPU seconds of LoRA on 3,000 rows, 5 and 8 of the head.
READ_AGAIN = 2


@dataclass
class Limits:
    """Of one session; what earlier ones took counts as well."""

    spec: LimitSpec
    spending: Spending
    rows_after: int  # that the delivered model will be measured on
    validation_rows: int

    def enough(self) -> str:
        """Why training should end now, with what it has; "" where one more step fits."""
        whole, peak = self.spending.whole(), peak_memory_mb()
        so_far, after = time_of(whole), self.after()
        spec, told = self.spec, list[str]()
        if spec.time is not None and so_far.seconds + after.seconds > spec.time:
            told.append(
                f"limits.time: of {spec.time:,.0f} seconds {so_far.seconds:,.0f} have gone, and what comes after training "
                f"needs about {after.seconds:,.0f}"
            )
        if spec.energy is not None:
            used = joules_of(whole).total / J_PER_WH
            needed = used * (1 + after.seconds / max(so_far.seconds, 1e-9))
            if needed > spec.energy:
                told.append(
                    f"limits.energy: of {spec.energy:g} Wh {used:.3g} have been used, and what comes after training needs "
                    f"about {needed - used:.2g}"
                )
        if spec.memory is not None and peak * MB > spec.memory:
            told.append(f"limits.memory: {peak / 1e3:.2f} GB are held, and {spec.memory / 1e9:.2f} are allowed")
        return "; ".join(told)

    def left(self) -> float | None:
        """Seconds that may still go into training; None where `limits.time` is not given."""
        if self.spec.time is None:
            return None
        return self.spec.time - time_of(self.spending.whole()).seconds - self.after().seconds

    def after(self) -> Time:
        """What comes after training, and a step before it, about."""
        spent = self.spending.phases.spent()
        proof = summed(spent.get(name, NOTHING) for name in (AUDIT, PROBE, BASELINES, KNOWN_BEFORE))
        evaluation = spent.get(EVALUATIONS, NOTHING).times(1 / max(1, self.spending.evaluated))
        of_rows = evaluation.times(1 + self.rows_after / max(1, self.validation_rows))
        step = spent.get(STEPS, NOTHING).times(1 / max(1, self.spending.steps))
        return summed((spent.get(BASE, NOTHING).times(READ_AGAIN), proof, of_rows, step))


def limit(recipe: Recipe, run: Run, spending: Spending, rows_after: int, validation_rows: int) -> None:
    """Has the run end in time, where it may not take all there is. Raises TrainingError where no step would be left."""
    if recipe.limits == type(recipe.limits)():
        return
    limits = Limits(recipe.limits, spending, rows_after, validation_rows)
    if said := limits.enough():
        raise TrainingError(no_room(said))
    run.enough = limits.enough


def trained_before(recipe: Recipe) -> Recipe:
    """Of a training that has ended: what it may hold is not asked again."""
    return recipe.model_copy(update={"limits": recipe.limits.model_copy(update={"memory": None})})


def beyond(spec: LimitSpec, spending: Spending) -> tuple[str, ...]:
    """By how much a run that is nearly over took more than it was to; what comes last is foretold, and may take longer."""
    whole, peak, told = spending.whole(), peak_memory_mb(), list[str]()
    took, used = time_of(whole).seconds, joules_of(whole).total / J_PER_WH
    if spec.time is not None and took > spec.time:
        told.append(f"limits.time: {took:,.1f} seconds were taken, and {spec.time:,g} were allowed")
    if spec.energy is not None and used > spec.energy:
        told.append(f"limits.energy: {used:.3g} Wh were used, and {spec.energy:g} were allowed")
    if spec.memory is not None and peak * MB > spec.memory:
        told.append(f"limits.memory: {peak / 1e3:.2f} GB were held, and {spec.memory / 1e9:.2f} were allowed")
    return tuple(told)


def no_room(said: str) -> str:
    """What to tell where no step is left; `said`: by which limit."""
    shorter = "" if said.startswith("limits.memory") else ", or set evaluation.quick=true"
    return f"no time or memory is left for a single step ({said}); raise it{shorter}"
