"""What a run will take, told from runs in small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.phases import (
    AUDIT,
    BASE,
    BASELINES,
    ENCODING,
    EVALUATIONS,
    FROZEN,
    KNOWN_AFTER,
    READING,
    STEPS,
    Time,
)
from tunesmith.rehearsing import sample_of
from tunesmith.selection.estimate import Rehearsed, Size, memory, times
from tunesmith.training.optimizers import STATE_BYTES

WIDE = st.floats(0.001, 100)


def size(rows: int, epochs: int = 1) -> Size:
    steps = rows * epochs // 4
    return Size(rows, 10 * rows, rows, rows // 2, 5 * rows, rows // 2, 11.0 * rows * epochs, steps, epochs + 1)


def took(rows: int, fixed: float, a_row: float, once: float = 0.0) -> Rehearsed:
    """A run of which every phase that goes through rows is a straight line, and which loads something once."""
    here = size(rows)
    steps = [(44, Time(9.0, 9.0)), *[(44, Time(0.44 * a_row, 0.22 * a_row))] * (here.steps - 1)]
    line = Time(once + fixed + a_row * rows, once + fixed + a_row * rows)
    evaluations = Time(a_row * here.validation_tokens * 2, 0.0)
    phases = {BASE: Time(2.0, 3.0), FROZEN: line, BASELINES: line, EVALUATIONS: evaluations, STEPS: Time(1.0, 1.0)}
    phases[KNOWN_AFTER] = Time(fixed + a_row * here.compared, 0.0)
    return Rehearsed(
        {**phases, READING: Time(5.0, 5.0), AUDIT: Time(1.0, 1.0)}, steps, 900.0, 500.0, 10, 100, "float32"
    )


@given(fixed=WIDE, a_row=WIDE, once=WIDE)
def test_straight_lines_are_gone_on_with(fixed: float, a_row: float, once: float) -> None:
    few, more, here = size(40), size(200), size(1_000, epochs=3)
    known = {READING: Time(0.5, 0.25), ENCODING: Time(0.75, 0.5), AUDIT: Time(0.125, 0.125)}
    found = times(
        took(40, fixed, a_row, once), took(40, fixed, a_row), took(200, fixed, a_row), (few, more, here), known
    )
    assert found[FROZEN].seconds == pytest.approx(once + fixed + a_row * 1_000)
    assert found[BASELINES].cpu_seconds == pytest.approx(once + fixed + a_row * 1_000)
    assert found[EVALUATIONS].seconds == pytest.approx(a_row * 1_000 * 4)
    assert found[STEPS].seconds == pytest.approx(0.01 * a_row * 11 * 1_000 * 3)
    assert found[STEPS].cpu_seconds == pytest.approx(0.005 * a_row * 11 * 1_000 * 3)
    assert found[KNOWN_AFTER].seconds == pytest.approx(fixed + a_row * 500), (
        "general text, and as many rows as are tested"
    )
    assert found[BASE] == Time(2.0, 3.0), "the base is read once, whatever the rows"
    assert found[READING] == known[READING], "what was timed whole is not reckoned"
    assert found[ENCODING] == known[ENCODING]


def test_a_run_that_took_less_with_more_rows_tells_no_negative_time() -> None:
    few, more, here = size(40), size(200), size(100_000)
    found = times(took(40, 1.0, 1.0), took(40, 50.0, 1.0), took(200, 1.0, 0.001), (few, more, here), {})
    assert found[FROZEN] == Time(41.0, 41.0), "the first run's own, since no pace can be told"


def test_memory_by_part_adds_up_to_the_peak() -> None:
    half = Rehearsed({}, [], 2_000.0, 500.0, 20_000_000, 50_000_000, "bfloat16")
    found = memory(half, 100.0, "adamw")
    assert (found.weights, found.gradients, found.states) == (100.0 + 80.0, 80.0, 160.0)
    assert found.peak == pytest.approx(2_100.0)
    assert memory(Rehearsed({}, [], 2_000.0, 500.0, 0, 50_000_000, "float32"), 0.0, "adamw").weights == 200.0


def test_on_a_gpu_memory_is_that_of_the_gpu() -> None:
    small = Rehearsed({}, [], 9_000.0, 500.0, 20_000_000, 50_000_000, "float32", 2_000.0, 40_000.0)
    found = memory(small, 100.0, "adamw")
    assert (found.libraries, found.data) == (0.0, 0.0), "which the machine holds"
    assert found.rest == pytest.approx(2_000.0 - 200.0 - 80.0 - 160.0)
    assert found.peak == pytest.approx(2_000.0)


@pytest.mark.parametrize("optimizer", STATE_BYTES)
def test_states_are_those_of_the_optimizer(optimizer: str) -> None:
    small = Rehearsed({}, [], 2_000.0, 500.0, 20_000_000, 50_000_000, "float32")
    found = memory(small, 100.0, optimizer)
    assert found.states == pytest.approx(20 * STATE_BYTES[optimizer])
    assert found.peak == pytest.approx(2_100.0), "what they leave of the measured peak is the rest"


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=200),
    batch=st.integers(1, 8),
    batches=st.integers(1, 5),
    classes=st.integers(1, 10),
)
def test_a_sample_has_the_longest_batch_and_every_class(
    lengths: list[int], batch: int, batches: int, classes: int
) -> None:
    strata = [(row * 7 % classes,) for row in range(len(lengths))]
    found = sample_of(lengths, strata, batch, batches, 3)
    assert found == sorted(set(found)) == sample_of(lengths, strata, batch, batches, 3)
    longest = sorted(lengths, reverse=True)[:batch]
    assert sorted((lengths[row] for row in found), reverse=True)[:batch] == longest
    assert {strata[row] for row in found} == set(strata)
    assert len(found) >= min(len(lengths), batch * batches)
    assert len(found) <= max(batch * batches, 3 * classes) + batch + classes
