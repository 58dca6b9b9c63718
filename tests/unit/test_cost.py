"""What a run took: phases that sum to the whole, over sessions too; the forecast beside what it was; words and prices."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortruns import recipe_for
from tunesmith.energy import Joules, estimated
from tunesmith.errors import RecipeError
from tunesmith.evaluation.cost import (
    Cost,
    Foretold,
    carbon_of,
    carbon_said,
    cost_lines,
    energy_of,
    evidence_of,
    evidence_said,
    forecast_said,
    money_of,
    money_said,
    phases_of,
    watt_hours,
)
from tunesmith.evaluation.sections import cost_section
from tunesmith.evaluation.verdict import judge
from tunesmith.forecast import Known, due, foretell, size_of
from tunesmith.phases import AUDIT, BASELINES, EVALUATIONS, OTHER, PROBE, READING, SAVING, STEPS, Phases, Time
from tunesmith.pipeline import resume, start
from tunesmith.recipe import CostSpec, Recipe
from tunesmith.spending import Spending, sessions_of, time_of, times_of
from tunesmith.training.events import Evaluated, Event, Finished, Forecast, Saved, Spent, StepDone, Stopped, event_from
from tunesmith.training.ledger import Ledger

Folder = Callable[[str], Path]
GOOD = {"model": "m", "data": {"path": "d.csv"}}


class Clock:
    """Time that passes when it is told to; two cores are busy."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> Time:
        return Time(self.now, 2 * self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


def seconds_of(phases: Phases) -> dict[str, float]:
    return {name: time.seconds for name, time in phases.spent().items() if time.seconds}


def test_a_phase_within_another_stops_its_watch() -> None:
    clock = Clock()
    phases = Phases(clock)
    clock.passes(1)
    with phases.phase(READING):
        clock.passes(2)
        with phases.phase(AUDIT):
            clock.passes(4)
        clock.passes(8)
    clock.passes(16)
    assert seconds_of(phases) == {OTHER: 17, READING: 10, AUDIT: 4}
    assert phases.spent()[AUDIT].cpu_seconds == 8


@given(st.lists(st.tuples(st.sampled_from(["open", "close", "read"]), st.integers(0, 9))))
def test_the_phases_sum_to_the_whole(course: list[tuple[str, int]]) -> None:
    clock = Clock()
    phases = Phases(clock)
    opened = []
    for number, (what, seconds) in enumerate(course):
        clock.passes(seconds)
        if what == "open":
            opened.append(phases.phase(f"phase {number}"))
            opened[-1].__enter__()
        elif what == "close" and opened:
            opened.pop().__exit__(None, None, None)
        else:
            phases.spent()
    assert sum(time.seconds for time in phases.spent().values()) == pytest.approx(clock.now)
    assert sum(time.cpu_seconds for time in phases.spent().values()) == pytest.approx(2 * clock.now)


def test_a_phase_that_fails_is_closed() -> None:
    clock = Clock()
    phases = Phases(clock)
    with pytest.raises(ValueError, match="no"), phases.phase(READING):
        clock.passes(3)
        raise ValueError("no")
    clock.passes(1)
    assert seconds_of(phases) == {READING: 3, OTHER: 1}


def test_a_generator_s_own_time_counts_and_its_reader_s_does_not() -> None:
    clock = Clock()
    phases = Phases(clock)

    def work() -> Generator[int, None, str]:
        clock.passes(2)
        yield 1
        clock.passes(3)
        return "done"

    def outer() -> Generator[int, None, None]:
        said.append((yield from phases.through(PROBE, work())))

    said: list[str] = []
    for _ in outer():
        clock.passes(10)
    assert said == ["done"]
    assert seconds_of(phases) == {PROBE: 5, OTHER: 10}


def test_a_generator_that_is_left_is_closed() -> None:
    closed = []

    def work() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    events = Phases(Clock()).through(PROBE, work())
    next(events)
    events.close()
    assert closed == [True]


def step(number: int, seconds: float = 1.0, steps: int = 100) -> StepDone:
    return StepDone(number, steps, 0.1, 0.5, 1e-4, 1.0, 8, 80, seconds, 2 * seconds)


def test_each_event_s_time_is_that_of_its_kind() -> None:
    clock = Clock()
    phases = Phases(clock)

    def loop() -> Iterator[Event]:
        for event, seconds in ((step(1), 1), (Evaluated(1, 2, 0.5, "accuracy", 1.0, 0.1, 0.2, True), 4)):
            clock.passes(seconds)
            yield event
        clock.passes(16)
        yield Finished(1, "done", 1)

    for _ in phases.by_event(loop(), {StepDone: STEPS, Evaluated: EVALUATIONS, Saved: SAVING}):
        clock.passes(100)
    assert seconds_of(phases) == {STEPS: 1, EVALUATIONS: 4, OTHER: 316}


def word(session: int, steps: float, how: str = "rapl", joules: float = 100.0, **more: Any) -> Spent:
    phases = ((READING, 2.0, 1.0), (STEPS, steps, 2 * steps))
    return Spent(session, phases, 500.0 + session, joules, how, **more)


def test_the_last_word_of_each_session_counts_and_the_steps_after_it() -> None:
    """The second session was killed after two steps that nobody summed up; the ledger has all of them."""
    events = [word(1, 1.0), step(1, 3.0), word(1, 4.0), Stopped(1, "asked", "resume"), word(2, 0.0), step(2), step(3)]
    first, second = sessions_of([*events])
    assert first == word(1, 4.0)
    assert times_of(second) == {READING: Time(2.0, 1.0), STEPS: Time(2.0, 4.0)}
    assert second.processor_joules == pytest.approx(200.0), "electricity as until then: 100 J in 2 of 4 seconds"


def test_a_ledger_without_words_counts_its_steps() -> None:
    (only,) = sessions_of([step(1, 3.0), step(2, 4.0)])
    assert times_of(only) == {STEPS: Time(7.0, 14.0)}
    assert (only.how, only.processor_joules) == ("estimate", estimated(14.0, 7.0, 0.0))
    assert sessions_of([]) == []


def test_sessions_are_summed() -> None:
    clock = Clock()
    spending = Spending(Phases(clock))
    earlier = word(1, 4.0, rows=80, tokens=800, step_seconds=4.0)
    spending.goes_on_from([earlier, Forecast(3, 60.0, 90.0, 700.0)])
    with spending.phases.phase(STEPS):
        clock.passes(6)
    whole = spending.whole()
    assert spending.session().session == 2
    assert times_of(whole)[STEPS] == Time(10.0, 20.0)
    assert times_of(whole)[READING] == Time(2.0, 1.0)
    assert time_of(whole) == Time(12.0, 21.0)
    assert whole.how == "estimate" and whole.processor_joules > 100
    assert (whole.rows, whole.tokens, whole.step_seconds) == (80, 800, 4.0)
    assert spending.forecast == Forecast(3, 60.0, 90.0, 700.0), "the run's own, not made anew"


def test_the_memory_of_a_gpu_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        uuid = "0abc"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3e9)
    spending = Spending(Phases(Clock()))
    assert spending.session().peak_gpu_memory_mb is None
    spending.goes_on_from([word(1, 4.0, peak_gpu_memory_mb=4000.0)])
    assert spending.whole().peak_gpu_memory_mb == 4000.0, "that of the earlier session"
    spending.uses("cuda")
    assert spending.session().peak_gpu_memory_mb == 3000.0
    assert spending.session().missing, "and that its electricity is not counted is said"
    cost = full_cost(peak_gpu_memory_mb=3000.0)
    assert "<dt>Peak memory of the GPU</dt><dd>3.0 GB</dd>" in cost_section({"cost": asdict(cost), "opens": ""})


@pytest.mark.parametrize(
    "event", [word(2, 1.5, gpu_joules=3.0, missing="why", lapsed="so"), Forecast(3, 60.0, 90.0, 700.0)]
)
def test_words_survive_json(event: Event) -> None:
    assert event_from(json.loads(json.dumps(event.to_plain()))) == event


def test_a_word_of_an_earlier_version_is_read_without_what_it_lacks() -> None:
    plain = word(2, 1.5, lapsed="so").to_plain()
    del plain["lapsed"]
    assert event_from(plain) == word(2, 1.5)
    with pytest.raises(KeyError):
        event_from({name: value for name, value in plain.items() if name != "how"})


@pytest.mark.parametrize(
    ("seconds", "is_due"),
    [([5.0, 5.0], False), ([90.0, 90.0], False), ([7.0] * 3, True), ([1.0] * 9, False), ([0.1] * 10, True)],
)
def test_when_a_forecast_is_made(seconds: list[float], is_due: bool) -> None:
    assert due([(at, Time(took, took)) for at, took in enumerate(seconds)]) == is_due


def test_a_forecast_of_steps_that_take_their_tokens_is_exact(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """Where a token takes a millisecond, whatever the lengths of the steps to come, the forecast is the time they take."""
    from shortruns import bench

    run = bench(recipe_for(model_folder("bert"), table_file), tmp_path / "run").run
    times = [Time(size_of(run.source, at) / 1e3, size_of(run.source, at) / 500) for at in range(run.steps)]
    assert len({time.seconds for time in times}) > 2, "the control: steps are of different lengths"
    slow = [(0, Time(99.0, 99.0)), *((at, times[at]) for at in range(1, 3))]
    known = Known(Time(200.0, 300.0), slow, 72, Time(5.0, 6.0), 10, Time(7.0, 8.0), 40)
    whole, further = foretell(known, run)
    assert further == Time(0.0, 0.0)
    rest = sum(time.seconds for time in times[3:])
    epochs = 2  # an evaluation each, to come
    assert whole.seconds == pytest.approx(200 + rest + 5.0 * epochs + 2 * 7.0 + 0.5 * 40)
    assert whole.cpu_seconds == pytest.approx(300 + 2 * rest + 6.0 * epochs + 2 * 8.0 + 0.6 * 40)
    without, _ = foretell(replace(known, validation_rows=0, evaluation=Time(0.0, 0.0)), run)
    row = sum(time.seconds for _, time in slow) / 72 / 3
    assert without.seconds == pytest.approx(200 + rest + 2 * 7.0 + row * 40)
    kept, _ = foretell(
        replace(known, frozen=Time(2.0, 3.0)), run
    )  # evaluations find it there, the delivered model does not
    assert kept.seconds == pytest.approx(whole.seconds + 2.0 * 40)
    assert kept.cpu_seconds == pytest.approx(whole.cpu_seconds + 3.0 * 40)


def test_the_share_of_the_proof_and_its_floor() -> None:
    times = {STEPS: Time(50.0, 60.0), EVALUATIONS: Time(5.0, 20.0), AUDIT: Time(1.0, 1.0), BASELINES: Time(9.0, 39.0),
             OTHER: Time(7.0, 7.0)}  # fmt: skip
    found = evidence_of(times)
    assert (found.seconds, found.cpu_seconds, found.of_training, found.beyond_floor) == (10.0, 40.0, 0.5, 0.25)
    assert evidence_of({AUDIT: Time(1.0, 1.0), STEPS: Time(9.0, 10.0)}).beyond_floor == 0.0
    assert evidence_of({AUDIT: Time(1.0, 1.0)}).of_training is None
    assert [phase.name for phase in phases_of({OTHER: Time(1, 1), STEPS: Time(1, 1)})] == [STEPS, OTHER]


def test_an_estimate_says_so_wherever_it_is_shown() -> None:
    energy = energy_of(Joules(7200.0, "estimate"), 100.0)
    assert (energy.wh, energy.watts, energy.how) == (2.0, 72.0, "estimate")
    cost = full_cost(energy=energy, co2=carbon_of(energy, CostSpec(region="FR")))
    page = cost_section({"cost": asdict(cost), "opens": "opens with x"})
    lines = cost_lines(cost)
    said = judge("accuracy", *judged(), cost, 3080, "full").paragraph
    assert (
        "an estimated 2 Wh" in page and "not measured but reckoned with 12 W" in page and "an estimated 0.11 g<" in page
    )
    assert any("an estimated 2 Wh, not measured but" in line for line in lines)
    assert any(line.startswith("an estimated 0.11 g CO2e at 56 g a kWh: France") for line in lines)
    assert "1.2 GB of memory, an estimated 2 Wh)" in said
    counted = energy_of(Joules(3600.0, "rapl", 3600.0), 100.0)
    assert (counted.wh, counted.how) == (2.0, "rapl+nvml")
    said = judge("accuracy", *judged(), full_cost(energy=counted), 3080, "full").paragraph
    assert "memory, 2 Wh)" in said and "estimate" not in said
    assert "all that the machine did" in counted.why
    assert "not counted: no NVML" in energy_of(Joules(1.0, "estimate", None, "no NVML"), 1.0).why


def judged() -> tuple[Any, Any, Any, Any]:
    from tunesmith.evaluation.intervals import Interval
    from tunesmith.evaluation.significance import Significance

    return (
        Interval(0.9, 0.8, 0.95),
        {"majority": Interval(0.1, 0.05, 0.2)},
        {"majority": Interval(0.8, 0.7, 0.9)},
        {"majority": Significance(0.001, "mcnemar", 0.001)},
    )


def full_cost(**more: Any) -> Cost:
    phases = phases_of({STEPS: Time(100.0, 200.0), PROBE: Time(9.0, 18.0), OTHER: Time(1.0, 2.0)})
    return replace(Cost(110.0, 220.0, 1200.0, 10, 100, 900, phases), **more)


@pytest.mark.parametrize(
    ("spec", "amount", "why"),
    [
        ({}, None, ""),
        ({"per_hour": 1.8}, 0.9, "1.8 an hour"),
        ({"per_kwh": 0.3, "currency": "EUR"}, 0.6, "0.3 EUR a kWh of an estimate"),
        ({"per_hour": 1.8, "per_kwh": 0.3, "currency": "EUR"}, 1.5, "1.8 EUR an hour and 0.3 EUR a kWh of an estimate"),
        ({"per_hour": 0.0}, 0.0, "0 an hour"),
    ],
)
def test_money_is_told_where_a_price_is_given(spec: dict[str, Any], amount: float | None, why: str) -> None:
    energy = energy_of(Joules(7_200_000.0, "estimate"), 1800.0)
    found = money_of(1800.0, energy, CostSpec(**spec))
    assert (None if found is None else pytest.approx(found.amount)) == amount
    assert found is None or found.why == why


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (watt_hours(3.14159, False), "3.1 Wh"),
        (watt_hours(0.0004, True), "less than 0.001 Wh by estimate"),
        (watt_hours(31.4, True), "an estimated 31 Wh"),
        (watt_hours(1234.0, False), "1.2 kWh"),
        (carbon_said({"grams": 2345.0, "intensity": 480.0, "why": "w"}, False), "2.3 kg CO2e at 480 g a kWh: w"),
        (money_said({"amount": 0.004, "currency": "EUR", "why": "w"}), "0.004 EUR at w"),
        (money_said({"amount": 1234.5, "currency": "", "why": "w"}), "1,234.50 at w"),
        (
            forecast_said({"seconds": 230.0, "step": 10, "done": 1.0}, 250.0),
            "forecast 3.8 minutes after step 10, took 4.2 minutes",
        ),
        (
            forecast_said({"seconds": 230.0, "step": 10, "done": 0.75}, 100.0),
            "forecast 3.8 minutes after step 10, took 100 seconds with 75 % of the steps",
        ),
        (evidence_said({"cpu_seconds": 30.0, "of_training": 0.256}), "30 CPU seconds, 26 % of what training took"),
        (evidence_said({"cpu_seconds": 3.0, "of_training": None}), "3.0 CPU seconds"),
    ],
)
def test_figures_in_words(said: str, words: str) -> None:
    assert said == words
    assert said.isascii()


def test_the_page_has_phases_and_facts_and_does_without_them() -> None:
    energy = energy_of(Joules(7200.0, "rapl"), 110.0)
    cost = full_cost(
        energy=energy, co2=carbon_of(energy, CostSpec()), money=money_of(110.0, energy, CostSpec(per_hour=3.6)),
        rows_per_second=31.4, tokens_per_second=628.0, forecast=Foretold(10, 230.0, 300.0, 2.0),
        evidence=evidence_of({STEPS: Time(100.0, 200.0), PROBE: Time(9.0, 18.0)}), sessions=2,
    )  # fmt: skip
    page = cost_section({"cost": asdict(cost), "opens": "opens"})
    for words in (
        "in 2 sessions", "training steps", "90.9 %", "31 rows and 628 tokens (without padding)", "0.11", "3.6 an hour",
        "3.8 minutes",
        "told after step 10, if all epochs are done; it took 110 seconds", "18 CPU seconds", "9 % of what training took",
    ):  # fmt: skip
        assert words in page, words
    bare = cost_section({"cost": asdict(Cost(10.0, 20.0, 800.0, 1, 2, 3)), "opens": "opens"})
    assert "<table" not in bare and "CO2" not in bare and "Money" not in bare


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"region": "Germny"}, r'cost\.region: unknown region; did you mean "DE" \(Germany\)\?'),
        ({"region": "XQ"}, r"cost\.region: unknown region; the table has AT|did you mean"),
        ({"region": 7}, r"cost\.region"),
        ({"intensity": -1}, r"cost\.intensity"),
        ({"per_hour": "much"}, r"cost\.per_hour"),
        ({"regoin": "DE"}, r'cost\.regoin: unknown key; did you mean "region"'),
        ({"region": "DE", "intensity": 100}, "give one of the two"),
        ({"currency": "EUR"}, "there is no price in it"),
    ],
)
def test_what_is_asked_wrongly_is_refused(cost: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.parse({**GOOD, "cost": cost})


def test_a_region_is_its_code_in_any_letters() -> None:
    recipe = Recipe.parse({**GOOD, "cost": {"region": "de"}})
    assert recipe.cost.region == "DE"
    assert Recipe.parse(recipe.to_plain()) == recipe and Recipe.parse(recipe.to_plain()).id == recipe.id


def test_a_run_in_two_sessions_tells_what_both_took(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """Stopped, given another price, gone on with: the same run, and its cost that of both sessions."""
    out, calls = tmp_path / "run", iter(range(10_000))
    recipe = recipe_for(model_folder("bert"), table_file, settings={"training.epochs": 6, "evaluation.baselines": True})
    list(start(recipe, out, stop=lambda: next(calls) >= 2 + 12).events())
    text = (out / "recipe.yaml").read_text(encoding="utf-8")
    (out / "recipe.yaml").write_text(text.replace("per_hour: null", "per_hour: 2.0"), encoding="utf-8")
    assert isinstance(list(resume(out).events())[-1], Finished)
    first, second = sessions_of(Ledger.open(out).events())
    cost = json.loads((out / "report.json").read_text(encoding="utf-8"))["cost"]
    assert cost["sessions"] == 2
    for key in ("seconds", "cpu_seconds"):
        assert cost[key] == pytest.approx(sum(phase[key] for phase in cost["phases"]))
    names = {phase["name"] for phase in cost["phases"]}
    assert {READING, AUDIT, "encoding", PROBE, STEPS, EVALUATIONS, SAVING, BASELINES, "delivery", OTHER} <= names
    seconds = {phase["name"]: phase["seconds"] for phase in cost["phases"]}
    assert seconds[STEPS] == pytest.approx(times_of(first)[STEPS].seconds + times_of(second)[STEPS].seconds)
    assert cost["seconds"] <= time_of(first).seconds + time_of(second).seconds
    assert cost["forecast"]["step"] == 10 and cost["forecast"]["seconds"] > 0
    assert cost["money"]["amount"] == pytest.approx(2.0 * cost["seconds"] / 3600)
    rows = sum(event.rows for event in Ledger.open(out).events() if isinstance(event, StepDone))
    took = sum(event.seconds for event in Ledger.open(out).events() if isinstance(event, StepDone))
    assert cost["rows_per_second"] == pytest.approx(rows / took)
    padded = sum(event.tokens for event in Ledger.open(out).events() if isinstance(event, StepDone))
    assert 0 < cost["tokens_per_second"] < padded / took and cost["padding"] is False
