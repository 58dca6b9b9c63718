"""What a run looks like: on a terminal of any width, in a pipe, and as JSON."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tunesmith.cli.progress import Bar, BarView, JsonView, Pace, PlainView, clock_text, event_lines, view_for
from tunesmith.training.events import Evaluated, Event, Finished, Note, Saved, StepDone, Stopped, Warned, event_from


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int, steps: int = 100, loss: float = 0.5) -> StepDone:
    return StepDone(number, steps, number / 50, loss, 5e-5, 1.0, 32, 640, 0.5)


RUN: list[Event] = [
    Note("columns", ('text = "text" (its name), label = "intent" (77 distinct values in 10003 rows)',)),
    Note("derived", ("training.rate = 5e-05: 5e-5 * sqrt(384 / 384) for the base", "training.epochs = 2: the default")),
    *(step(number) for number in range(1, 101)),
    Evaluated(100, 100, 2.0, "accuracy", 0.9312, 0.0041, 0.31, True),
    Saved(100, "runs/a/checkpoints/100"),
    Warned("3 texts were cut at 256 tokens"),
    Note(
        "result",
        ("          accuracy", "this one  0.931 [0.912, 0.948]", "F1 is of 64 rows"),
        (("", "accuracy"), ("this one", "0.931 [0.912, 0.948]")),
    ),
    Note("verdict", ("Fine-tuning helped: " + "accuracy 0.942 against 0.930 for the frozen features. " * 3,)),
    Note("next", ('tunesmith predict runs/a "read rows from a comma separated file, and do not cut this command"',)),
    Finished(100, "all epochs done", 100),
]


def shown(width: int) -> str:
    """Everything that a terminal of `width` columns gets, escape codes included."""
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=width, height=30, legacy_windows=False, highlight=False)
    with BarView(console, clock) as view:
        for event in RUN:
            clock.now += 0.5
            view.show(event)
    return stream.getvalue()


@given(st.integers(1, 300), st.integers(0, 100), st.booleans())
def test_the_bar_never_overflows_its_width(width: int, done: int, ascii_only: bool) -> None:
    bar = Bar(Clock())
    for number in range(1, done + 1):
        bar.step(step(number))
    line = bar.line(width, ascii_only)
    assert len(line) <= width
    assert "\n" not in line
    if ascii_only:
        assert line.isascii()


def test_the_bar_shows_more_where_there_is_more_room() -> None:
    clock = Clock()
    bar = Bar(clock)
    clock.now += 0.5
    for number in range(1, 51):
        bar.step(step(number))
        clock.now += 0.5
    clock.now -= 0.5
    assert bar.line(40) == "━━━━╌╌╌╌╌  50/100  loss 0.500  0:25 left"
    wide = bar.line(119)
    assert wide.endswith("50/100  loss 0.500  0:25 left  rate 5.0e-05  epoch 1.0  64 rows/s")
    assert wide.startswith("━" * 15 + "╌" * 15)
    assert bar.line(119, ascii_only=True).startswith("#" * 15 + "-" * 15)


def test_the_bar_says_what_goes_on_before_and_after_the_steps() -> None:
    clock = Clock()
    bar = Bar(clock)
    clock.now += 65
    assert bar.line(80) == "preparing 1:05"
    bar.step(step(99))
    assert "99/100" in bar.line(80)
    bar.step(step(100))
    clock.now += 7
    assert bar.line(80) == "measuring 0:07"


@pytest.mark.parametrize("width", [40, 70, 120])
def test_a_terminal_shows_every_fact_once_and_hides_its_bar_at_the_end(width: int) -> None:
    text = shown(width)
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split())
    for fact in ("0.9312", "3 texts were cut", "all epochs done; the state after step 100 is kept"):
        assert plain.count(fact) == 1
    assert text.rstrip("\n").endswith("\x1b[2K")  # the bar's line is cleared
    assert "\x1b[?25h" in text  # and the cursor is back


@pytest.mark.parametrize("width", [40, 59, 60, 120])
def test_lines_fit_the_terminal_and_commands_stay_whole(width: int) -> None:
    for event in RUN:
        if isinstance(event, StepDone):
            continue
        lines = event_lines(event, width)
        if isinstance(event, Note) and event.topic == "next":
            assert any(event.lines[0] in line for line in lines)
        else:
            assert max((len(line) for line in lines), default=0) <= width
    assert event_lines(RUN[0], 40)[0] == "columns"
    assert event_lines(RUN[0], 120) == [f"columns  {RUN[0].lines[0]}"]  # type: ignore[attr-defined]


def test_a_topic_that_its_line_repeats_is_said_once() -> None:
    assert event_lines(Note("model", ("model: MiniLM, 22.7 M parameters",)), 80) == [
        "model    MiniLM, 22.7 M parameters"
    ]


TABLE = (
    ("", "perplexity (lower is better)", "accuracy"),
    ("this model (lora)", "3.931 [3.912, 3.948]", "0.931 [0.912, 0.948]"),
    ("the untouched base", "74,714 [70,001, 80,002]", "0.5 [0.4, 0.6]"),
)


FLAT = (
    "                    perplexity (lower is better)  accuracy",
    "this model (lora)   3.931 [3.912, 3.948]          0.931 [0.912, 0.948]",
    "the untouched base  74,714 [70,001, 80,002]       0.5 [0.4, 0.6]",
)


def test_a_table_keeps_its_columns_where_it_fits() -> None:
    assert event_lines(Note("result", (*FLAT, "of 64 rows"), TABLE), 100) == [
        f"result   {FLAT[0]}",
        f"         {FLAT[1]}",
        f"         {FLAT[2]}",
        "         of 64 rows",
    ]


def test_a_table_that_does_not_fit_is_turned_and_every_figure_stays_with_its_heading_and_its_name() -> None:
    assert event_lines(Note("result", FLAT, TABLE), 70) == [
        "result   perplexity (lower is better)",
        "           this model (lora)   3.931 [3.912, 3.948]",
        "           the untouched base  74,714 [70,001, 80,002]",
        "         accuracy",
        "           this model (lora)   0.931 [0.912, 0.948]",
        "           the untouched base  0.5 [0.4, 0.6]",
    ]
    assert event_lines(Note("result", FLAT, TABLE), 40) == [
        "result",
        "  perplexity (lower is better)",
        "    this model (lora)",
        "      3.931 [3.912, 3.948]",
        "    the untouched base",
        "      74,714 [70,001, 80,002]",
        "  accuracy",
        "    this model (lora)",
        "      0.931 [0.912, 0.948]",
        "    the untouched base",
        "      0.5 [0.4, 0.6]",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nine_metrics_fit_any_terminal(width: int) -> None:
    names = [f"metric {number} (lower is better)" for number in range(9)]
    models = ["this model (full)", "the words of the most frequent target of the training rows, every time"]
    rows = [(model, *(f"{row}.{at}00 [0.000, 1.000]" for at in range(9))) for row, model in enumerate(models)]
    flat = tuple("  ".join(row) for row in (("", *names), *rows))
    lines = event_lines(Note("result", flat, (("", *names), *rows)), width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split()).removeprefix("result ")
    assert text == " ".join(
        f"{name} {models[0]} 0.{at}00 [0.000, 1.000] {models[1]} 1.{at}00 [0.000, 1.000]"
        for at, name in enumerate(names)
    )


def test_a_note_s_table_survives_json_and_other_notes_have_none() -> None:
    note = Note("result", FLAT, TABLE)
    plain = json.loads(json.dumps(note.to_plain()))
    assert event_from(plain) == note
    without = Note("result", ("of 64 rows",))
    assert without.to_plain() == {"kind": "note", "topic": "result", "lines": ("of 64 rows",)}
    assert event_from(without.to_plain()) == without


def test_a_stopped_run_says_how_to_go_on() -> None:
    lines = event_lines(Stopped(7, "interrupted", "tunesmith resume runs/a"), 40)
    assert lines == ["stopped after step 7: interrupted", "go on with:", "  tunesmith resume runs/a"]


def test_a_pipe_gets_plain_lines_about_every_twentieth() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainView(stream, clock=clock) as view:
        for event in RUN:
            if isinstance(event, StepDone):
                clock.now += 0.5
            view.show(event)
    lines = stream.getvalue().splitlines()
    steps = [line for line in lines if " rows/s" in line]
    assert len(steps) == 21  # the first, and one for every 5 %
    assert steps[0].startswith("step 1/100 (1 %)")
    assert steps[10] == "step 50/100 (50 %)  epoch 1.00  loss 0.5000  rate 5.00e-05  64 rows/s  0:25 left"
    assert "\x1b" not in stream.getvalue()
    assert "step 100/100  epoch 2.00  validation accuracy 0.9312 ± 0.0041  loss 0.3100" in lines


def test_a_plain_line_gives_the_mean_loss_since_the_last() -> None:
    stream = io.StringIO()
    view = PlainView(stream, clock=Clock())
    for number in range(1, 11):
        view.show(step(number, 100, loss=float(number)))
    losses = [line.split("loss ")[1].split()[0] for line in stream.getvalue().splitlines()]
    assert losses == ["1.0000", "3.5000", "8.0000"]  # steps 1, 2-5, 6-10


@given(st.integers(1, 400), st.integers(0, 200))
def test_plain_lines_are_few_and_end_with_the_last_step(steps: int, first: int) -> None:
    stream = io.StringIO()
    view = PlainView(stream, clock=Clock())
    for number in range(min(first, steps - 1) + 1, steps + 1):
        view.show(step(number, steps))
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 21
    assert lines[-1].startswith(f"step {steps}/{steps} (100 %)")


def test_json_is_one_object_a_line_and_strict() -> None:
    stream = io.StringIO()
    with JsonView(stream) as view:
        for event in [*RUN, step(1, loss=float("nan"))]:
            view.show(event)
    read = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    assert len(read) == len(RUN) + 1
    assert read[0] == {"kind": "note", "topic": "columns", "lines": list(RUN[0].lines)}  # type: ignore[attr-defined]
    assert read[-1]["loss"] is None


def test_time_left_counts_from_where_a_resumed_run_began() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += 0.5
    pace.step(step(61))
    clock.now += 0.5
    pace.step(step(62))
    assert pace.left == pytest.approx(19.0)  # 38 steps of half a second
    assert pace.rows_per_second == pytest.approx(64.0)
    clock.now += 30
    assert pace.rows_per_second == pytest.approx(64.0)  # an evaluation does not slow the steps


def test_of_several_trainings_each_is_told_by_itself() -> None:
    clock = Clock()
    bar = Bar(clock)
    for training in range(2):
        for number in range(1, 51):
            clock.now += 0.5 + training
            bar.step(step(number, loss=2.0 - training))
        assert bar.line(40) == f"━━━━╌╌╌╌╌  50/100  loss {2 - training}.000  {('0:25', '1:14')[training]} left"


def test_the_view_suits_the_stream() -> None:
    assert isinstance(view_for(io.StringIO(), json_lines=False), PlainView)
    assert isinstance(view_for(io.StringIO(), json_lines=True), JsonView)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (754, "12:34"), (11100, "3:05:00")]
)
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
