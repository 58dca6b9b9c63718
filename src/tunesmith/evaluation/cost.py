"""What a run took: time by phase, memory, electricity, what that stands for in CO2 and money, and what was foretold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.carbon import intensity_of
from tunesmith.energy import CORE_WATTS, ESTIMATE, J_PER_WH, MEMORY_WATTS, NVML, Joules
from tunesmith.evaluation.wording import duration, further_models, times_of
from tunesmith.phases import EVIDENCE, FURTHER, OTHER, TRAINING, Time, summed
from tunesmith.recipe import CostSpec

MOST = 4  # phases named in a terminal
FLOOR = 20.0  # CPU seconds of proof that any run may take, however short its training is


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float  # by the clock
    cpu_seconds: float  # summed over cores


@dataclass(frozen=True)
class Energy:
    wh: float
    how: str  # "rapl", "nvml" and "estimate", joined with "+" where it is of several kinds
    watts: float  # on the mean, by the clock
    why: str

    @property
    def is_estimate(self) -> bool:
        return ESTIMATE in self.how


@dataclass(frozen=True)
class Carbon:
    grams: float  # of CO2 equivalent
    intensity: float  # grams a kWh
    why: str


@dataclass(frozen=True)
class Money:
    amount: float
    currency: str  # "" where none was named
    why: str


@dataclass(frozen=True)
class Foretold:
    """What the run was thought to take, after its first steps, if all epochs are done."""

    step: int
    seconds: float
    cpu_seconds: float
    wh: float
    done: float = 1.0  # share of the steps that were done in the end
    further_seconds: float = 0.0  # of `seconds`, for models that were to be trained beside
    further_cpu_seconds: float = 0.0  # of `cpu_seconds`, likewise


@dataclass(frozen=True)
class Evidence:
    """What the proof took, beside training: see `TRAINING` and `EVIDENCE` in phases.py."""

    seconds: float
    cpu_seconds: float
    of_training: float | None  # CPU seconds of proof for one of training; None where nothing was trained
    beyond_floor: float | None  # likewise, without the first `FLOOR` CPU seconds


@dataclass(frozen=True)
class Delivered:
    """What the one model that is delivered took, from its rows to its files: the whole less the proof."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Beside:
    """What was spent on models that were trained beside the delivered one, to tell its worth. A part of the proof."""

    models: int  # that came to a result
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Cost:
    """What was spent in the run, on all that it trained, up to the writing of its report, over all sessions."""

    seconds: float  # by the clock
    cpu_seconds: float  # summed over cores
    peak_memory_mb: float
    trainable: int  # parameters that could change
    total: int  # parameters
    rows: int  # training rows
    phases: tuple[Phase, ...] = ()  # these sum to the whole
    energy: Energy | None = None
    co2: Carbon | None = None
    money: Money | None = None
    rows_per_second: float | None = None  # over the training steps
    tokens_per_second: float | None = None  # likewise; None for pictures
    padding: bool = False  # whether padding is among these tokens
    forecast: Foretold | None = None
    evidence: Evidence | None = None
    sessions: int = 1
    peak_gpu_memory_mb: float | None = None  # None where no GPU was used
    delivered: Delivered | None = None
    beside: Beside | None = None  # None where the delivered model is the only one


def phases_of(times: Mapping[str, Time]) -> tuple[Phase, ...]:
    """In the order in which they began, what is in none last."""
    names = sorted(times, key=lambda name: name == OTHER)
    return tuple(Phase(name, *times[name]) for name in names)


def evidence_of(times: Mapping[str, Time]) -> Evidence:
    proof = summed(time for name, time in times.items() if name in EVIDENCE)
    training = summed(time for name, time in times.items() if name in TRAINING).cpu_seconds
    share = proof.cpu_seconds / training if training > 0 else None
    beyond = max(0.0, proof.cpu_seconds - FLOOR) / training if training > 0 else None
    return Evidence(proof.seconds, proof.cpu_seconds, share, beyond)


def delivered_of(times: Mapping[str, Time]) -> Delivered:
    return Delivered(*summed(time for name, time in times.items() if name not in EVIDENCE))


def beside_of(times: Mapping[str, Time], models: int) -> Beside | None:
    """`models`: how many came to a result; what others took, which came to nothing, was spent all the same."""
    spent = summed(time for name, time in times.items() if name in FURTHER)
    return Beside(models, *spent) if models or spent.cpu_seconds > 0 else None


def energy_of(joules: Joules, seconds: float) -> Energy:
    """In words too, for a figure of electricity is not to be read without where it is from."""
    estimate = joules.how == ESTIMATE
    if estimate:
        why = (
            f"not measured but reckoned with {CORE_WATTS:g} W for each core in use and {MEMORY_WATTS:g} W for each GB of "
            "memory, as Green Algorithms does (Lannelongue 2021)"
        )
    else:
        why = "the processor's RAPL counter, which counts all that the machine did meanwhile; memory not counted"
    if joules.lapsed:
        why = f"{joules.lapsed}, so it is {why}"
    if joules.gpu is not None:
        why += "; the GPU's NVML counter, likewise of all that it did"
    if joules.missing:
        why += f"; the GPU is not counted: {joules.missing}"
    how = "+".join([joules.how, *([NVML] if joules.gpu is not None else [])])
    return Energy(joules.total / J_PER_WH, how, joules.total / seconds if seconds > 0 else 0.0, why)


def carbon_of(energy: Energy, spec: CostSpec) -> Carbon:
    intensity, why = intensity_of(spec.region, spec.intensity)
    return Carbon(energy.wh / 1e3 * intensity, intensity, why)


def money_of(seconds: float, energy: Energy, spec: CostSpec) -> Money | None:
    """None where no price was given."""
    currency = "" if spec.currency is None else spec.currency
    unit = f" {currency}" if currency else ""
    amount, reasons = 0.0, []
    if spec.per_hour is not None:
        amount += spec.per_hour * seconds / 3600
        reasons.append(f"{spec.per_hour:g}{unit} an hour")
    if spec.per_kwh is not None:
        amount += spec.per_kwh * energy.wh / 1e3
        reasons.append(f"{spec.per_kwh:g}{unit} a kWh" + (" of an estimate" if energy.is_estimate else ""))
    return Money(amount, currency, " and ".join(reasons)) if reasons else None


def watt_hours(wh: float, is_estimate: bool) -> str:
    """(3.1, True) -> "an estimated 3.1 Wh"."""
    return amount(wh, "Wh", is_estimate)


def carbon_said(co2: Mapping[str, Any], is_estimate: bool) -> str:
    said = amount(co2["grams"], "g", is_estimate)
    return f"{said} CO2e at {co2['intensity']:g} g a kWh: {co2['why']}"


def amount(value: float, unit: str, is_estimate: bool) -> str:
    """With two digits and its unit, or the thousandfold of that; an estimate says so."""
    if value < 1e-3:
        return f"less than 0.001 {unit}{' by estimate' if is_estimate else ''}"
    said = f"{two_digits(value / 1e3)} k{unit}" if value >= 999.5 else f"{two_digits(value)} {unit}"
    return f"an estimated {said}" if is_estimate else said


def money_amount(money: Mapping[str, Any]) -> str:
    total = money["amount"]
    said = f"{total:,.2f}" if total >= 0.095 or total == 0 else f"{total:.2g}"
    return f"{said} {money['currency']}".strip()


def money_said(money: Mapping[str, Any]) -> str:
    return f"{money_amount(money)} at {money['why']}"


def forecast_said(forecast: Mapping[str, Any], seconds: float) -> str:
    """What was foretold beside what it was: "forecast 3.8 minutes after step 10, took 4.2 minutes"."""
    return f"forecast {duration(forecast['seconds'])} after step {forecast['step']:,}, {took_said(forecast, seconds)}"


def took_said(forecast: Mapping[str, Any], seconds: float) -> str:
    """Also where fewer steps were done than the forecast was of."""
    done = f" with {100 * forecast['done']:.0f} % of the steps" if forecast["done"] < 1 else ""
    return f"took {duration(seconds)}{done}"


def evidence_said(evidence: Mapping[str, Any]) -> str:
    """How much the proof took of the processor, beside training."""
    said = duration(evidence["cpu_seconds"], "CPU")
    share = evidence["of_training"]
    return said if share is None else f"{said}, {times_of(share)} what training took"


def beside_said(cost: Mapping[str, Any]) -> str:
    """What the delivered model took of the whole, what further models did, and what the rest of the proof; "" without any."""
    own, beside, proof = cost["delivered"], cost["beside"], cost["evidence"]
    if own is None or beside is None or proof is None:
        return ""
    rest = proof["cpu_seconds"] - beside["cpu_seconds"]
    return (
        f"{duration(own['cpu_seconds'], 'CPU')} for the delivered model, {duration(beside['cpu_seconds'], 'CPU')} for "
        f"{further_models(beside['models'])} trained to tell its worth, and {duration(rest, 'CPU')} for the rest of the proof"
    )


def cost_lines(cost: Cost) -> tuple[str, ...]:
    """For a terminal: where the time went, what electricity stands for, and what was foretold."""
    plain, lines = asdict(cost), []
    most = sorted(cost.phases, key=lambda phase: -phase.cpu_seconds)[:MOST]
    if cost.cpu_seconds > 0:
        shares = ", ".join(f"{phase.name} {100 * phase.cpu_seconds / cost.cpu_seconds:.0f} %" for phase in most)
        lines.append(f"of the CPU time: {shares}")
    if cost.delivered is not None:
        alone = f"{duration(cost.delivered.cpu_seconds, 'CPU')}, {duration(cost.delivered.seconds)} by the clock"
        lines.append(f"the delivered model alone: {alone}")
    if cost.beside is not None:
        spent = f"{duration(cost.beside.cpu_seconds, 'CPU')}, {duration(cost.beside.seconds)} by the clock"
        lines.append(f"{further_models(cost.beside.models)}, trained to tell its worth: {spent}")
    if cost.evidence is not None:
        lines.append(f"the proof: {evidence_said(plain['evidence'])}")
    if cost.energy is not None and cost.co2 is not None:
        rough = cost.energy.is_estimate
        lines.append(f"{watt_hours(cost.energy.wh, rough)}, {cost.energy.why}")
        lines.append(carbon_said(plain["co2"], rough))
    if cost.money is not None:
        lines.append(money_said(plain["money"]))
    if cost.forecast is not None:
        lines.append(forecast_said(plain["forecast"], cost.seconds))
    return tuple(lines)


def two_digits(value: float) -> str:
    """0.31, 3.1, 31, 314; 0 as it is."""
    return f"{value:,.0f}" if value >= 9.95 or value == 0 else f"{value:.2g}"
