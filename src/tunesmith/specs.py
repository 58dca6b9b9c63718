"""What the parts of a recipe have in common, how its result is measured, and what its cost is reckoned by."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tunesmith.carbon import REGIONS, SOURCE, WORLD, unknown_region

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Auto = Literal["auto"]


class Spec(BaseModel):
    """A closed group of settings that never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def of_percent(value: Any) -> Any:
    """ "2%" is 0.02."""
    if not isinstance(value, str) or not value.strip().endswith("%"):
        return value
    try:
        return float(value.strip()[:-1]) / 100
    except ValueError:
        return value


def _region(value: Any) -> Any:
    """A country's code in capitals, as the table has it."""
    if not isinstance(value, str) or value.strip().upper() in REGIONS:
        return value.strip().upper() if isinstance(value, str) else value
    raise ValueError(f"unknown region; {unknown_region(value)}")


class CostSpec(Spec):
    """What electricity and machine stand for, where the run's cost is told. Nothing here changes what is trained."""

    region: Annotated[str, BeforeValidator(_region)] | None = Field(
        default=None, description="country that the electricity comes from, such as DE; null for the world's average"
    )
    intensity: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="gCO2e a kWh of your electricity, in the place of the region's; the world's average is "
        f"{WORLD:g} ({SOURCE})",
    )
    per_hour: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="price of an hour of the machine, by the clock; null for none"
    )
    per_kwh: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="price of a kWh of electricity; null for none"
    )
    currency: str | None = Field(default=None, description="what the prices are in, such as EUR")

    @model_validator(mode="after")
    def _of_use(self) -> Self:
        if self.region is not None and self.intensity is not None:
            raise ValueError("region: says the same as intensity; give one of the two")
        if self.currency is not None and self.per_hour is None and self.per_kwh is None:
            raise ValueError("currency: there is no price in it; give per_hour or per_kwh, or leave it out")
        return self


class EvaluationSpec(Spec):
    """How the result is measured."""

    metric: str | Auto = Field(
        default="auto", description="validation metric that chooses the checkpoint; the task's own by default"
    )
    baselines: bool = Field(default=True, description="compare with the majority class, TF-IDF and the frozen features")
    scratch: bool = Field(
        default=False,
        description="also train the same architecture from random weights, as method scratch does, and compare with that",
    )
    seeds: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1,
        description="how many seeds to train from, to tell the seed's share in the result from the test rows'",
    )
    curve: Literal["probe", "method", "off"] = Field(
        default="probe",
        description="would more training rows help: the frozen features on parts of the rows, or method, which also trains "
        "the method itself on a quarter and on half of them",
    )
    quick: bool = Field(
        default=False, description="only the result with its intervals and the baselines, without the further evidence"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(default=0.95, description="coverage of every interval")
    precision: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="of one class a row: also report from which probability on answers are right with this precision",
    )
    resamples: Annotated[int, Field(ge=100)] = Field(
        default=10_000, description="bootstrap resamples of the test rows, and permutations of each test"
    )
