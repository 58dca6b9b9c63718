"""The pure parts of benchmarks/throughput.py: which works run, turns, ratios, straight lines, rows, and the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured_on import NOW
from shortruns import rows
from shortruns import write_rows as write_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import throughput

    return throughput


def record(work: str, contender: str, part: str, number: int, cpu: float, **further: Any) -> dict[str, Any]:
    found = {"work": work, "contender": contender, "part": part, "round": number, "turn": 1, "cpu_seconds": cpu}
    return {**found, "wall_seconds": cpu / 2, "cores_of_others": 0.0, **further}


def two_rounds() -> list[dict[str, Any]]:
    """Ours 2 and 4 seconds, the defaults 20 and 20, tuned 6 and 8."""
    times = {("Tunesmith", "ours"): (2, 4), ("Trainer", "defaults"): (20, 20), ("Trainer, tuned", "tuned"): (6, 8)}
    found = [
        record("full", name, part, number, float(cpu), precision="float32")
        for (name, part), both in times.items()
        for number, cpu in enumerate(both, start=1)
    ]
    return found[::-1]  # in whatever order they were measured


def test_which_works_run(throughput: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import import_module

    from _common import DATA, MODEL
    from _contenders import make_job
    from _speed.works import NAMES, WORKS, chosen

    assert throughput.parse([]).works == [name for name in NAMES if name != "time_to_quality"]
    assert [work.name for work in chosen(["head", "full", "head"])] == ["full", "head"]
    assert all(callable(import_module(f"_speed.{work.module}").measure) for work in WORKS)
    for words, said in (
        (["--works", "full,lroa"], "--works: lroa: choose from full, exact, lora"),
        (["--rounds", "0"], "at least 1"),
        (["--trial"], "a trial takes no place of results"),
    ):
        with pytest.raises(SystemExit):
            throughput.parse(words)
        assert said in capsys.readouterr().err
    assert (job := make_job(DATA, MODEL, "exact", 64, 1)).method == "full"
    assert (job.recipe.training.precision, job.recipe.training.batches) == ("float32", "random")
    few = throughput.parse(["--trial", "--rows", "5000", "--out", "elsewhere"])
    assert (few.rows, few.rounds) == (throughput.TRIAL["rows"], 1)


def test_another_one_begins_in_each_round(throughput: Any) -> None:
    from _speed.turns import Turn, one_round, rotated, scaled

    done: list[str] = []

    def turn(name: str, part: str, facts: dict[str, Any]) -> Turn:
        return Turn(name, part, lambda: lambda: done.append(name) or facts)

    turns = [turn("a", "ours", {}), turn("b", "defaults", {"cpu_seconds": 7.0}), turn("c", "tuned", {})]
    assert ["".join(one.name for one in rotated(turns, number)) for number in (1, 2, 3, 4)] == [
        "abc",
        "bca",
        "cab",
        "abc",
    ]
    found = one_round("w", turns, 2)
    assert done == ["b", "c", "a"] and [item["turn"] for item in found] == [1, 2, 3]
    assert found[0]["cpu_seconds"] == 7.0  # a process of its own was timed by who started it
    half = scaled({"cpu_seconds": 1.5, "wall_seconds": 1.0, "steps": 3}, 8)
    assert half == {"cpu_seconds": 12.0, "wall_seconds": 8.0, "steps": 3}


def test_ratios_by_hand(throughput: Any) -> None:
    """Of the medians 20 / 3 and 7 / 3; of the rounds 10 and 5, 3 and 2."""
    from _speed.summary import summary

    ours, defaults, tuned = summary(two_rounds())
    assert [item["part"] for item in (ours, defaults, tuned)] == ["ours", "defaults", "tuned"]
    assert ours["cpu"] == {"median": 3.0, "least": 2.0, "most": 4.0} and ours["cpu_ratio"]["least"] == 1.0
    assert defaults["cpu_ratio"] == pytest.approx({"median": 20 / 3, "least": 5.0, "most": 10.0})
    assert tuned["wall_ratio"] == pytest.approx({"median": 7 / 3, "least": 2.0, "most": 3.0})
    assert not defaults["at_least"]
    stopped = [item | {"at_least": item["part"] == "defaults"} for item in two_rounds()]
    assert [(item["at_least"], item["missed"]) for item in summary(stopped)] == [
        (False, False), (True, False), (False, False),
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.floats(1, 1000)), min_size=3, max_size=8, unique_by=lambda pair: pair[0]
    )
)
def test_a_straight_line_is_that_of_least_squares(pairs: list[tuple[int, float]]) -> None:
    import numpy as np

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        from _speed.summary import Line

    xs, ys = [float(x) for x, _ in pairs], [y for _, y in pairs]
    line = Line.through(xs, ys)
    slope, start = np.polyfit(xs, ys, 1)
    expected = start + slope * np.array(xs)
    assert [line.start + line.slope * x for x in xs] == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-6)
    assert line.off == pytest.approx(float(np.max(np.abs(np.array(ys) - expected) / np.array(ys))), rel=1e-5, abs=1e-6)
    if np.std(ys) > 1e-3:
        assert line.explained == pytest.approx(float(np.corrcoef(xs, ys)[0, 1]) ** 2, rel=1e-5, abs=1e-6)


def test_lines_of_each_axis(throughput: Any) -> None:
    from _speed.summary import Line, lines

    points = [("rows", 10, 3.0, 100.0), ("rows", 20, 5.0, 100.0), ("rows", 40, 9.0, 100.0), ("epochs", 1, 1.0, 9.0)]
    points += [("epochs", 3, 4.0, 9.0)]
    found = lines([{"axis": a, "amount": n, "cpu_seconds": s, "peak_mb": m} for a, n, s, m in points])
    assert [(item["axis"], item["of"]) for item in found] == [
        ("rows", "cpu_seconds"), ("rows", "peak_mb"), ("epochs", "cpu_seconds"), ("epochs", "peak_mb"),
    ]  # fmt: skip
    assert (found[0]["slope"], found[0]["start"]) == pytest.approx((0.2, 1.0))
    assert found[0]["explained"] == pytest.approx(1.0) and found[0]["off"] == pytest.approx(0.0, abs=1e-12)
    assert found[1]["explained"] == 1.0  # nothing to explain
    with pytest.raises(ValueError, match="1 places"):
        Line.through([2.0, 2.0], [1.0, 3.0])


def test_rows_that_are_made_longer_or_more(throughput: Any, tmp_path: Path) -> None:
    from _speed.prediction import read_texts
    from _speed.rows import lengthened, repeated, write_rows

    rows = [("one two", "a"), ("three", "b"), ("four five six", "a")]
    assert repeated(rows, 2) == rows[:2]
    assert repeated(rows, 5) == [*rows, ("one two 1", "a"), ("three 1", "b")]
    assert len(set(repeated(rows, 30))) == 30
    longer = lengthened(rows, [("seven", "a"), ("eight", "b")], 4)
    assert longer == [
        ("one two seven seven", "a"),
        ("three eight eight eight", "b"),
        ("four five six seven", "a"),
    ]
    write_rows([("with, comma", "a"), ('and "quotes"', "b"), ("line\nbreak", "a"), ("d", "b")], tmp_path / "t.csv")
    assert read_texts(tmp_path / "t.csv", 0) == ["with, comma", 'and "quotes"', "line\nbreak", "d"]
    assert read_texts(tmp_path / "t.csv", 2) == ["with, comma", "line\nbreak"]
    assert len(read_texts(tmp_path / "t.csv", 9)) == 4


def test_settings_and_points(throughput: Any) -> None:
    from _speed.heads import DECAYS, RATES, SETTINGS
    from _speed.scaling import POINTS, settings_of
    from _speed.startup import NO_FIT, NO_PROOF

    from tunesmith.recipe import Recipe, set_key

    assert len(set(SETTINGS)) == len(RATES) * len(DECAYS) == 16
    for settings in (NO_FIT, NO_PROOF, *(settings_of(axis, amount) for axis in POINTS for amount in POINTS[axis])):
        plain: dict[str, Any] = {"model": "m", "data": {"path": "rows"}, "method": "full"}
        for key, value in settings.items():
            set_key(plain, key, value)
        assert Recipe.parse(plain).training.cache == "memory"  # nothing of an earlier run is taken
    assert settings_of("length", 64)["training.max_length"] == 64 and settings_of("epochs", 5)["training.epochs"] == 5


def test_batches_hold_each_row_once(throughput: Any) -> None:
    from _speed.predictors import batches

    found = list(batches([5, 1, 4, 2, 3], 2))
    assert found == [[1, 3], [4, 2], [0]]


def test_a_trainer_that_was_stopped_gives_a_lower_bound(throughput: Any) -> None:
    from _speed.quality_time import judged

    facts = judged(["a", "b", "a", "b"])
    clocks = {"cpu_seconds": 12.0, "wall_seconds": 7.0}
    stopped = facts({**clocks, "said": ["a", "b", "a", "a"], "apart": {"cpu": 2.0, "wall": 1.0}, "stopped": "bound"})
    assert (stopped["cpu_seconds"], stopped["wall_seconds"], stopped["accuracy"]) == (10.0, 6.0, 0.75)
    assert stopped["at_least"] and not stopped["missed"]
    ended = facts({**clocks, "said": ["a", "b", "a", "b"]})
    assert not ended["missed"] and not ended["at_least"] and ended["cpu_seconds"] == 12.0
    ended = facts({**clocks, "said": ["b", "b", "a", "b"]})
    assert ended["missed"] and not ended["at_least"]


def test_the_page(throughput: Any) -> None:
    from _speed.page import page
    from _speed.summary import lines, summary

    grown = [
        record("scaling", "Tunesmith", "ours", 1, cpu, axis="rows", amount=amount, peak_mb=100.0)
        for amount, cpu in ((1000, 3.0), (2000, 5.0))
    ]
    predicted = [
        record("prediction", name, part, 1, cpu, texts=100, agreement=agree, latency_ms=4.0)
        for name, part, cpu, agree in (("Tunesmith", "ours", 1.0, 0.999), ("pipeline", "defaults", 5.0, 1.0))
    ]
    good = record("time_to_quality", "Tunesmith, head", "ours", 1, 30.0, accuracy=0.93)
    bad = record("time_to_quality", "Trainer, defaults", "defaults", 1, 900.0, accuracy=0.5, at_least=True)
    bad |= {"stopped": "bound", "tried": [{"epoch": 1.0, "cpu": 400.0, "accuracy": 0.25}]}
    raced = [{**item, "peak_mb": 1000.0, "at_least": "stopped" in item, "missed": False} for item in (good, bad)]
    measured = [*two_rounds(), *predicted, *raced]
    measured[0]["cores_of_others"] = 1.5
    plain = {
        "environment": NOW, "model": "m", "data": "d", "trial": False, "rounds": 2, "missing": {"ONNX": ["onnx"]},
        "jobs": {"time_to_quality": {"wanted": 0.925, "test_rows": 3080, "bound": 900.0}},
        "measured": [*measured, *grown], "summary": summary(measured), "lines": lines(grown),
    }  # fmt: skip
    shown = page(plain)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown if line.startswith("| ")]
    by_name = {row[0]: row for row in cells[:6]}
    assert by_name["full fine-tuning"][1:] == [
        "6.67 (5.00 to 10.00)", "6.67 (5.00 to 10.00)", "2.33 (2.00 to 3.00)", "2.33 (2.00 to 3.00)", "6, 2.8",
    ]  # fmt: skip
    assert by_name["prediction"][1] == "5.00 (5.00 to 5.00)" and by_name["prediction"][3] == "-"
    assert by_name["time to 92.5 % accuracy"][1].startswith("at least 30.00")
    # A peer that came to its end without says so, and where we did there is nothing to compare.
    for part, cell in (("defaults", "not reached"), ("ours", "-")):
        missed = summary([item | {"missed": item["part"] == part} for item in raced])
        row = next(line for line in page({**plain, "summary": missed}) if line.startswith("| time to"))
        assert row.split("|")[2].strip() == cell
    text = "\n".join(shown)
    assert "Disturbed**: in 1 of 12 measurements" in text and "- Not installed, and left out: ONNX (onnx)" in text
    assert "1 s + 0.002 s a unit" in text and "stopped at 900 CPU s" in text and "0.250 after 1 in 400 s" in text
    rows = [row for row in cells if row[0] in ("Tunesmith", "pipeline") and len(row) == 5]
    assert [row[0] for row in rows] == ["Tunesmith", "pipeline"]  # the most rows a CPU second first
    assert rows[1][1].startswith("20 ") and rows[0][4] == "99.90 %"
    assert "A trial" not in text and any("A trial" in line for line in page({**plain, "trial": True}))


def test_a_cold_process_is_timed_and_a_failed_one_tells_why(
    throughput: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from _speed import cold

    scripts = tmp_path / "scripts"
    scripts.mkdir()
    busy = 'import json, sys\nblock = bytearray(150_000_000)\nopen("outcome.json", "w").write(json.dumps(sys.argv[1:]))'
    (scripts / "good.py").write_text(busy.replace("json.dumps(sys.argv[1:])", 'json.dumps({"said": sys.argv[1:]})'))
    (scripts / "bad.py").write_text('raise SystemExit("no such thing")')
    monkeypatch.setattr(cold, "SCRIPTS", scripts)
    found = cold.cold("good", ["x", "y"], 1)
    assert found["said"] == ["x", "y"] and found["peak_mb"] > 150 and found["wall_seconds"] > 0
    with pytest.raises(SystemExit, match="no such thing"):
        cold.cold("bad", [], 1)


def test_every_head_is_the_one_that_the_plain_way_trains(
    throughput: Any, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """On one network, with what is frozen computed once, weights come out bit by bit as where each is trained alone."""
    from _contenders import NoFiles, make_job
    from _speed.heads import SETTINGS, OneBase, with_setting

    from tunesmith.assembly import best_parameters, build, keep_frozen, make_run
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.phases import Phases
    from tunesmith.training.loop import train
    from tunesmith.untouched import fit_probe

    write_table(tmp_path / "train.csv", 90)
    job = make_job(tmp_path, str(model_folder("sentence")), "head", 0, 2)
    fixed = job.recipe.training.model_copy(
        update={"precision": "float32", "threads": 1}
    )  # else chosen by timing, each time
    job = replace(job, recipe=job.recipe.model_copy(update={"training": fixed}))
    told, heads = OneBase(SETTINGS).work(job, load_backbone(resolve(job.recipe.model)))
    assert told.steps == 16 * job.steps and len(heads) == 16
    assert len({tuple(value.sum().item() for value in head.values()) for head in heads}) > 8  # settings matter
    for place in (0, 7, 15):
        own, backbone = with_setting(job, SETTINGS[place]), load_backbone(resolve(job.recipe.model))
        built = build(own.recipe, own.prepared, own.encoded, backbone, {})
        trunk = keep_frozen(own.recipe, own.prepared, own.encoded, backbone, built, {})
        list(fit_probe(own.recipe, own.prepared, own.encoded, backbone, built, trunk, Phases()))
        run = make_run(own.recipe, own.prepared, own.encoded, backbone, built, trunk, Path("none"), lambda: False, {})
        run.evaluate, run.checkpoints = None, NoFiles(Path("none"))
        list(train(run))
        alone = best_parameters(run)
        assert alone.keys() == heads[place].keys()
        assert all(value.equal(heads[place][name]) for name, value in alone.items())


def test_who_predicts_says_the_same_labels(
    throughput: Any, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """In float32 exactly; the others may differ where two classes are as good as even, which random weights make often."""
    from _speed.prediction import compared, latency
    from _speed.predictors import PREDICTORS, reference

    from tunesmith import finetune

    table = write_table(tmp_path / "train.csv", 90)
    settings = {"data.test": 0.0, "evaluation.quick": True, "training.device": "cpu"}
    run = finetune(model_folder("sentence"), table, "head", settings=settings, out=tmp_path / "run")
    texts = [text for text, _ in rows(60, seed=1)]
    right = reference(run.path / "model", texts)
    assert len(set(right)) > 1
    for name, (needs, load) in PREDICTORS.items():
        if any(find_spec(package) is None for package in needs):
            continue
        predict = load(run.path / "model")
        agreement = compared(predict(texts), right)["agreement"]
        assert (
            agreement == 1.0
            if "int8" not in name and "bfloat16" not in name and name != "Tunesmith"
            else agreement > 0.7
        )
        assert latency(predict, texts[:3]) > 0
