"""What a recipe's `search` section says: how many trials, how they are drawn, judged and stopped early."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tunesmith.catalog import explain
from tunesmith.errors import RecipeError
from tunesmith.specs import TIMES, Spec, in_units

LOSS, SECONDS, PARAMETERS = "loss", "seconds", "parameters"
COSTS = (LOSS, SECONDS, PARAMETERS)  # what else than a task's metrics a trial can be judged by; less is better


class SearchSpec(Spec):
    """How the space is searched."""

    trials: Annotated[int, Field(ge=1)] = Field(default=20, description="of the whole study, by all of its processes")
    time: Annotated[float, in_units(TIMES), Field(gt=0)] | None = Field(
        default=None,
        description="seconds by the clock that this process tries for, or 90s, 30m, 2h; what it holds then is kept",
    )
    sampler: Literal["tpe", "random"] = Field(
        default="tpe",
        description="tpe draws what was good before (tree-structured Parzen estimator, Bergstra 2011), random does not",
    )
    pruner: Literal["auto", "hyperband", "wilcoxon", "none"] = Field(
        default="auto",
        description="what ends a trial early: hyperband by its evaluations on validation rows (Li 2018), wilcoxon by its "
        "repeats (a signed-rank test against the best trial; takes 5 or more); auto: hyperband, or with several repeats "
        "wilcoxon where there are enough, and none with several metrics",
    )
    metrics: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="what of the validation rows a trial is judged by, or several of them: any metric of the task, loss, "
        "seconds (of its steps and scores), parameters (that train); evaluation.metric when not given",
    )
    repeats: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None,
        description="seeds that each trial trains from; its value is their mean; evaluation.seeds by default",
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of what is drawn; the recipe's own when not given"
    )
    storage: str | None = Field(
        default=None,
        description="address of a database that holds the study, such as postgresql://...; a journal in the search's folder "
        "when not given",
    )
    soup: bool = Field(
        default=True,
        description="average the winner's weights with those of other trials, where that is better on the validation rows",
    )

    @property
    def named(self) -> tuple[str, ...]:
        """The metrics that were named; none where the task's own judges."""
        return (self.metrics,) if isinstance(self.metrics, str) else self.metrics or ()

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if len(set(self.named)) < len(self.named):
            raise ValueError("metrics: one is named twice; give each once")
        if len(self.named) > 1 and self.pruner in ("hyperband", "wilcoxon"):
            raise ValueError(f"pruner: {self.pruner} goes by one metric, and there are several; leave pruner out")
        if self.pruner == "hyperband" and self.named and self.named[0] in COSTS:
            raise ValueError(f"pruner: hyperband goes by the task's metric, and not by {self.named[0]}; leave it out")
        if self.storage is not None and "://" not in self.storage:
            raise ValueError(
                f"storage: {self.storage} is no address of a database (sqlite:///study.db, postgresql://...); leave it out "
                "for a file in the search's own folder"
            )
        return self

    @classmethod
    def parse(cls, asked: Any) -> SearchSpec:
        """Raises RecipeError that lists every problem found."""
        if asked is None:
            return cls()
        if not isinstance(asked, dict):
            raise RecipeError(f"search: a group of keys is expected, such as search: {{trials: 20}} (given: {asked!r})")
        try:
            return cls(**{str(key): value for key, value in asked.items()})
        except ValidationError as error:
            raise RecipeError(*explain(error, cls, "search")) from None
