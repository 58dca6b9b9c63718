"""The smaller parts of a recipe: what of the base is kept, how the result is measured, what a run may take and costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


class RetentionSpec(Spec):
    """How much of what the base knew is kept."""

    measure: bool = Field(default=True, description="say what became of the base's knowledge of general text")
    probe: str | None = Field(
        default=None, description="a second labelled set: say how well the base still tells its classes apart"
    )
    general: str | None = Field(
        default=None,
        description="text of no task, a file or a folder: what is forgotten is measured on at most three quarters of "
        "it, and the rest is what ewc, distill and replay hold to; null for the standard library's documentation",
    )
    budget: Annotated[float, BeforeValidator(of_percent), Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="most that may be lost of what is measured, such as 2%: the share of the base's own weights is found "
        "that keeps it",
    )
    keep: Share | Auto | None = Field(
        default=None,
        description="share of the base's own weights in the delivered ones: a number, or auto for the largest that costs "
        "nothing on the validation rows; null leaves it to the task",
    )
    anchor: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="pull back to the base's weights in every step (L2-SP): 1 would shrink a change of the first step to "
        "37 % by the last one",
    )
    ewc: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="the same pull, on each weight by how much what the base says of general text depends on it (elastic "
        "weight consolidation): 1 pulls as hard as anchor=1 on the mean",
    )
    distill: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="weight, beside the task's loss, of how far what is said of general text has moved from what the base "
        "says",
    )
    replay: Share = Field(
        default=0.0, description="share of general text in what a language model learns from at every step"
    )

    @property
    def swept(self) -> bool:
        """Whether several shares of the base's own weights are tried."""
        return self.budget is not None or self.keep == "auto"

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.budget is not None and self.keep is not None:
            raise ValueError("budget: finds the share of the base's own weights by itself; give no keep beside it")
        return self


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


TIMES = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
ENERGIES = {"mWh": 1e-3, "Wh": 1.0, "kWh": 1e3}


def in_units(units: Mapping[str, float]) -> BeforeValidator:
    """Reads a number with one of these units behind it: "90m" is 5,400 seconds. Without one it is as it stands."""

    def read(value: Any) -> Any:
        return number_in(units, value) if isinstance(value, str) else value

    return BeforeValidator(read)


def number_in(units: Mapping[str, float], text: str) -> float:
    """The number, in the unit whose factor is 1. Raises ValueError for what is none, or in a unit that is not known."""
    known = {unit.lower(): factor for unit, factor in units.items()}
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", text)
    if found is not None and not found[2]:
        return float(found[1])
    if found is None or found[2].lower() not in known:
        raise ValueError(f"give a number with a unit, one of {', '.join(units)}, such as 10{next(iter(units))}")
    return float(found[1]) * known[found[2].lower()]


class LimitSpec(Spec):
    """What the whole run may take, its report too. Training ends in time for that, and the best state so far is delivered."""

    time: Annotated[float, in_units(TIMES), Field(gt=0)] | None = Field(
        default=None, description="by the clock: 90s, 10m, 2h; a number is seconds"
    )
    memory: Annotated[float, in_units(SIZES), Field(gt=0)] | None = Field(
        default=None, description="of the process, at its peak: 800MB, 4GB; a number is bytes"
    )
    energy: Annotated[float, in_units(ENERGIES), Field(gt=0)] | None = Field(
        default=None, description="electricity: 500mWh, 20Wh, 1kWh; a number is watt-hours"
    )


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
