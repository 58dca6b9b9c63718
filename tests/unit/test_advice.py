"""What to do next: each rule with a case where it must say nothing, and a run whose report holds all of it."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortruns import recipe_for, rows
from tunesmith import finetune
from tunesmith.cli.progress import event_lines
from tunesmith.evaluation.advice import MOST, advise
from tunesmith.evaluation.advising import advised, facts_of, told_beside
from tunesmith.evaluation.facts import Chosen, Climbed, Copies, Cut, Doubted, Facts, Fault, Forecast, Weak
from tunesmith.evaluation.intervals import Interval
from tunesmith.evaluation.verdict import PHRASES
from tunesmith.pipeline import start
from tunesmith.runs import Run
from tunesmith.training.events import Note

Folder = Callable[[str], Path]
CALM = Facts(
    metric="accuracy",
    value=Interval(0.90, 0.87, 0.93),
    tested=400,
    trained=3200,
    wrong=40,
    steps=100,
    parameters=22_700_000,
    helped=True,
    foldable=True,
)
HELPS = Forecast("helps", "frozen", Interval(0.021, 0.008, 0.039), 6400)
HARDLY = Forecast("hardly", "method", Interval(0.001, -0.003, 0.004), 6400)
UNCLEAR = Forecast("unclear", "frozen", Interval(0.01, -0.02, 0.05), 6400)
WEAK = Weak("true class: loan", Interval(0.4, 0.25, 0.57), 0.92, 35, 12, 0.046)
PROBE = Chosen("probe", Interval(0.004, -0.01, 0.02), 0.6)
SUSPECT = Doubted(90, 4000, [f"rows.csv:{line}" for line in (7, 3, 900, 12)], 9, 20)
FAULT = Fault("rate too high", "training loss", "from 0.4 to 3", "give --set training.rate=1e-4")
FEW = Chosen("majority", Interval(0.02, -0.02, 0.06), 0.3)


def told(**changes: Any) -> str:
    return advise(replace(CALM, **changes)).paragraph


def kinds(**changes: Any) -> list[str]:
    return [item.kind for item in advise(replace(CALM, **changes)).items]


RULES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {"forecast": HELPS},
        "Add rows to learn from: twice the training rows (6,400) are foretold to bring 2.1 points of accuracy [0.8, 3.9], by "
        "the frozen features' curve.",
        {"forecast": UNCLEAR},
    ),
    (
        {"forecast": HELPS, "weak": [WEAK]},
        "begin where it is worst, true class: loan (accuracy 0.400 [0.250, 0.570] on 35 test rows, 0.920 on the others, 12 "
        "training rows)",
        {"forecast": HELPS},
    ),
    ({"weak": [WEAK]}, "If you add rows, begin where it is worst: true class: loan", {"forecast": UNCLEAR}),
    (
        {"doubted": SUSPECT},
        "Read the labels of 90 of 4,000 rows (2.2 %, 9 of them test rows) that are likely wrong, the most doubtful first: "
        "rows.csv:7, 3, 900 and 87 more; about 20 of them may be right all the same.",
        {"torn": SUSPECT},
    ),
    (
        {"torn": Doubted(2, 4000, ["/home/me/a.csv:1", "b.csv:9"])},
        "Decide which label is right in 2 rows (0.05 %) whose text has another label elsewhere: a.csv:1, b.csv:9. Nothing "
        "more that was measured on 400 test rows says",
        {"doubted": SUSPECT},
    ),
    (
        {"helped": None, "choice": PROBE},
        "For now the cheaper choice is --method head, which leaves 22.7 M parameters as they are: against it this model is "
        "+0.004 [-0.010, +0.020], p = 0.60.",
        {"forecast": HELPS},
    ),
    (
        {"choice": PROBE, "gap": Interval(0.2, 0.1, 0.3)},
        "and 0.200 [0.100, 0.300] better on its training rows",
        {"choice": PROBE, "gap": Interval(0.06, 0.01, 0.1)},
    ),
    (
        {"choice": FEW},
        "Check the label column, the learning rate and the number of epochs first: against always the most frequent class "
        "this model is +0.020",
        {"choice": PROBE},
    ),
    ({"choice": replace(FEW, name="frequent_token")}, "Train longer (training.epochs)", {"choice": FEW}),
    (
        {"floor": FEW},
        "Do not use it before it is shown to be better than always the most frequent class: on 400 test rows it is +0.020 "
        "[-0.020, +0.060], p = 0.30; --folds 5",
        {"floor": FEW, "choice": FEW},
    ),
    (
        {"faults": [FAULT]},
        "Train again first, and give --set training.rate=1e-4 (rate too high, 100 steps; training loss: from 0.4 to 3).",
        {"heart": FAULT},
    ),
    (
        {"heart": replace(FAULT, fix="give --set training.epochs=2"), "gap": Interval(0.2, 0.1, 0.3)},
        "Give --set training.epochs=2 (training loss: from 0.4 to 3); accuracy is 0.200 [0.100, 0.300] better on training",
        {"gap": Interval(0.2, 0.1, 0.3)},
    ),
    (
        {"unknown": 0.031},
        "Choose a base that was made for this language and these signs: 3.1 % of all tokens",
        {"lost": 0.3},
    ),
    (
        {"cut": Cut(500, 4000, 0.12, 512)},
        "Read longer texts with --set training.max_length=512: 12.0 % of all tokens are cut, in 500 of 4,000 rows.",
        {"cut": Cut(5, 4000, 0.001, 512)},
    ),
    ({"cut": Cut(500, 4000, 0.12, 0)}, "take a base that reads longer ones", {"cut": Cut(500, 4000, 0.12, 512)}),
    (
        {"lost": 0.31},
        "give --set retention.keep=auto: 31 % of what is measured of it is lost.",
        {"lost": 0.11},
    ),
    ({"lost": 0.05, "budget": 0.02}, "The budget of 2 % is not kept, with 5 % lost", {"lost": 0.05}),
    (
        {"helped": None, "rivals": {"probe": Interval(0.7, 0.6, 0.8), "tfidf": Interval(0.72, 0.62, 0.81)}},
        "Try another base (tunesmith rank compares some): a new head on this one's features has accuracy 0.700 [0.600, "
        "0.800], no better than TF-IDF with logistic regression without any base, 0.720 [0.620, 0.810].",
        {"helped": None, "rivals": {"probe": Interval(0.7, 0.6, 0.8), "tfidf": Interval(0.69, 0.62, 0.81)}},
    ),
    (
        {"scratch": Chosen("scratch", Interval(0.01, -0.01, 0.02), 0.4)},
        "from random weights this model is +0.010 [-0.010, +0.020], p = 0.40, so pretraining brought nothing",
        {"choice": PROBE},
    ),
    (
        {"climbed": Climbed("lora", 3, "full gains 0.001 within the noise")},
        "Of 3 methods tried lora was taken: full gains 0.001",
        {"choice": PROBE},
    ),
    (
        {"forecast": HARDLY},
        "Stop here: twice the training rows (6,400) are foretold to bring 0.1 points of accuracy [-0.3, 0.4], by this "
        "method's own curve, and accuracy is known to 0.900 [0.870, 0.930].",
        {"forecast": HELPS},
    ),
    (
        {"forecast": replace(UNCLEAR, gain=Interval(0.01, -0.02, 0.02))},
        "With 400 test rows stop here, or hold out more: twice",
        {"forecast": UNCLEAR},
    ),
    (
        {"wrong": 0},
        "Stop here: not one of 400 test rows is answered wrongly, so they show no better, though up to 0.7 % of all",
        {"wrong": 1},
    ),
    (
        {"wrong": 0, "tested": 24},
        "Stop here, or hold out more: not one of 24 test rows is answered wrongly, so they show no better, though up to 11.7",
        {"wrong": 0, "tested": 60},
    ),
    (
        {"doubted": SUSPECT, "wrong": 14},
        "Beyond that stop: of 400 test rows 14 are answered wrongly, and about 7 have a label that is likely wrong.",
        {"doubted": SUSPECT, "wrong": 15},
    ),
    ({"tested": 0, "value": None}, "Hold some of the 3,200 rows out with data.test", {}),
    ({"compared": False}, "Set evaluation.baselines to true", {}),
    ({"quick": True}, "on 400 test rows says what to do next: without --quick", {"quick": True, "forecast": HELPS}),
    ({"curve": "it takes long; evaluation.curve=method trains it"}, "next: evaluation.curve=method", {"quick": True}),
    ({}, "Nothing that was measured on 400 test rows says what to do next: --folds 5", {"foldable": False}),
]


@pytest.mark.parametrize(("has", "said", "lacks"), RULES, ids=[rule[1][:40] for rule in RULES])
def test_each_rule_speaks_of_its_evidence_and_is_silent_without(
    has: dict[str, Any], said: str, lacks: dict[str, Any]
) -> None:
    assert said in told(**has)
    assert said not in told(**lacks)


def test_copies_in_train_come_first_and_nothing_else_is_concluded() -> None:
    copies = Copies(112, 0.95, Interval(0.8, 0.75, 0.85), ["rows.csv:5"])
    every = {"forecast": HELPS, "choice": PROBE, "doubted": SUSPECT, "faults": [FAULT]}
    assert kinds(copies=copies, **every) == ["clean"]
    assert told(copies=copies, **every) == (
        "Before you choose by these figures: 112 test rows with nearly the same text in train move them, from 0.800 [0.750, "
        "0.850] without these rows to 0.950; take their copies out of train, and run again: rows.csv:5 and 111 more."
    )
    assert "Before you choose" not in told(**every)


def test_what_brings_most_is_said_first() -> None:
    few, many = replace(SUSPECT, rows=24), replace(SUSPECT, rows=400)  # 4 and 380 wrong of 4,000; 0.001 and 0.095
    assert kinds(doubted=few, forecast=HELPS) == ["data", "clean"]
    assert kinds(doubted=many, forecast=HELPS) == ["clean", "data"]
    worse = Chosen("probe", Interval(-0.05, -0.08, -0.02), 0.001)
    assert kinds(doubted=few, forecast=HELPS, choice=worse) == ["method", "data", "clean"]
    assert kinds(forecast=HELPS, choice=PROBE, faults=[FAULT])[0] == "method", "training that was not in order"


def test_a_gain_of_a_metric_without_bounds_counts_as_a_share_of_it() -> None:
    loss = {"metric": "loss", "lower": True, "free": True, "value": Interval(20.0, 19.0, 21.0)}
    gains = replace(HELPS, gain=Interval(0.2, 0.1, 0.3))
    assert kinds(**loss, forecast=gains, doubted=replace(SUSPECT, rows=200)) == ["clean", "data"]
    assert "bring 0.200 lower loss a token [0.100, 0.300]" in told(**loss, forecast=gains)


def test_a_row_or_two_to_be_read_is_not_all_that_is_said() -> None:
    few = Doubted(1, 3000, ["rows.csv:5"])
    assert kinds(torn=few) == ["clean", "evidence"] and "in 1 row (0.033 %)" in told(torn=few)
    assert kinds(doubted=SUSPECT) == ["clean"] and kinds(torn=few, forecast=HELPS) == ["data", "clean"]


def test_to_stop_is_never_said_beside_what_is_worth_it() -> None:
    assert kinds(forecast=HARDLY) == ["stop"]
    assert kinds(forecast=HARDLY, choice=PROBE) == ["method", "stop"], "which only says what to take as things are"
    for more in (
        {"faults": [FAULT]},
        {"unknown": 0.03},
        {"weak": [WEAK]},
        {"doubted": SUSPECT},
        {"cut": Cut(500, 4000, 0.12, 512)},
        {"floor": FEW},
        {"compared": False},
    ):
        assert "stop" not in kinds(forecast=HARDLY, **more), more
        assert "Do not add rows of the same kind" in told(forecast=HARDLY, **more)


thousandths = st.integers(-200, 900).map(lambda number: number / 1000)
ordered = st.tuples(*[thousandths] * 3).map(sorted).map(lambda three: Interval(three[1], three[0], three[2]))
chosen = st.builds(Chosen, st.sampled_from(sorted(PHRASES)), ordered, st.floats(0, 1))
doubts = st.integers(1, 90).flatmap(
    lambda number: st.builds(
        Doubted,
        st.just(number),
        st.integers(number, 900),
        st.just(["a.csv:3"]),
        st.integers(0, number),
        st.integers(0, number),
    )
)
some_facts = st.builds(
    Facts,
    metric=st.sampled_from(["accuracy", "loss", "spearman"]),
    lower=st.booleans(),
    free=st.booleans(),
    value=st.none() | ordered,
    tested=st.integers(0, 500),
    trained=st.integers(1, 500),
    wrong=st.none() | st.integers(0, 50),
    steps=st.integers(0, 500),
    helped=st.sampled_from([True, False, None]),
    choice=st.none() | chosen,
    floor=st.none() | st.builds(Chosen, st.just("majority"), ordered, st.floats(0, 1)),
    compared=st.booleans(),
    rivals=st.dictionaries(st.sampled_from(["probe", "tfidf", "pixels"]), ordered),
    scratch=st.none() | chosen,
    copies=st.none() | st.builds(Copies, st.integers(1, 50), st.floats(0, 1), ordered),
    doubted=st.none() | doubts,
    torn=st.none() | doubts,
    forecast=st.none()
    | st.builds(
        Forecast,
        st.sampled_from(["helps", "hardly", "unclear"]),
        st.sampled_from(["frozen", "method"]),
        ordered,
        st.integers(2, 900),
    ),
    weak=st.lists(st.just(WEAK), max_size=3),
    faults=st.lists(st.just(FAULT), max_size=3),
    heart=st.none() | st.just(FAULT),
    gap=st.none() | ordered,
    unknown=st.none() | st.floats(0.005, 1),
    cut=st.none()
    | st.builds(Cut, st.integers(1, 90), st.just(90), st.floats(0, 1), st.sampled_from([0, 512])),
    lost=st.none() | st.floats(0, 1),
    budget=st.none() | st.floats(0.01, 0.5),
    climbed=st.none() | st.just(Climbed("lora", 3, "it is the last rung")),
    quick=st.booleans(),
    foldable=st.booleans(),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(some_facts)
def test_whatever_there_is_it_is_short_numbered_and_does_not_contradict_itself(facts: Facts) -> None:
    found = advise(facts)
    assert 1 <= len(found.items) <= MOST
    for item in found.items:
        assert re.search(r"\d", item.sentence) and item.sentence.endswith(".") and item.sentence.isascii()
        assert item.numbers and all(math.isfinite(number) for number in item.numbers.values())
    assert found.paragraph == " ".join(item.sentence for item in found.items)
    assert not re.search(r"\bnan\b|None|\. \.|,,", found.paragraph)
    stops = [place for place, item in enumerate(found.items) if item.kind == "stop"]
    assert stops in ([], [len(found.items) - 1]), "last, and once"
    if found.stop:
        assert "Add rows" not in found.paragraph and "Train again" not in found.paragraph and facts.copies is None
        assert "Do not use it" not in found.paragraph
    if facts.helped is True and facts.choice is None:
        assert "cheaper choice" not in found.paragraph


def poor_table(folder: Path) -> Path:
    """Rows some of which have another label elsewhere."""
    table = [(text, label) for text, label in rows(240)]
    draw = random.Random(3)
    table += [(text, "blame" if label != "blame" else "praise") for text, label in draw.sample(table, 6)]
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *table])
    return folder / "rows.csv"


def test_a_run_ends_with_it_everywhere(model_folder: Folder, tmp_path: Path) -> None:
    wanted = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.baselines": True}
    recipe = recipe_for(model_folder("sentence"), poor_table(tmp_path), "full", wanted)
    events = list(start(recipe, tmp_path / "run").events())
    notes = [event for event in events if isinstance(event, Note)]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    advice = report["advice"]
    assert notes[-1].topic == "advice" and notes[-1].lines == (advice["paragraph"],), "the last that is said"
    assert any(
        item["kind"] == "clean" and "Decide which label is right" in item["sentence"] for item in advice["items"]
    )
    assert any(item["kind"] == "clean" and item["numbers"]["rows"] >= 10 for item in advice["items"])
    assert advice["paragraph"] not in report["verdict"]["paragraph"] and advice["stop"] is False
    page = (tmp_path / "run" / "report.html").read_text()
    first = page.partition("<h2")[0]
    assert "What now?" in first and first.count("Decide which label is right") == 1
    assert "What now: " in (tmp_path / "run" / "README.md").read_text()
    assert Run(tmp_path / "run").advice == advice["paragraph"]
    lines = event_lines(notes[-1], 40)
    assert lines[0] == "advice" and len(lines) > 3 and max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines[1:]).split()) == advice["paragraph"]
    assert advised(report)["advice"] == advice, "a pure function of the report"


def test_what_the_advice_says_of_more_rows_is_not_said_twice() -> None:
    line = "Twice the training rows would bring about 2.1 points of accuracy [0.8, 3.9] (the frozen features' curve)."
    report = {"beside": [line, "It does worse on long texts."], "beside_of": ["learning_curve", "slices"]}
    item = advise(replace(CALM, forecast=HELPS)).items[0]
    for items, left in (([asdict(item)], 1), ([], 2)):
        assert len(told_beside(report | {"advice": {"items": items}})) == left


def test_a_quick_run_and_one_without_test_rows(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    quick = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.quick": True, "evaluation.baselines": True}
    model = str(model_folder("sentence"))
    run = finetune(model, table_file, "full", settings=quick, out=tmp_path / "quick")
    facts = facts_of(run.report)
    assert facts.quick and facts.forecast is None and facts.doubted is None and facts.value is not None and run.advice
    torn = [
        {"kind": "conflict", "count": 4, "places": ["a.csv:2", "a.csv:3"], "numbers": {}},
        {"kind": "near_conflict", "count": 2, "places": ["a.csv:3", "a.csv:9"], "numbers": {}},
    ]
    found = facts_of(run.report | {"findings": [*run.report["findings"], *torn]}).torn
    assert found is not None and (found.rows, found.places) == (5, ["a.csv:2", "a.csv:3", "a.csv:9"])
    none = {"training.epochs": 1, "data.test": 0.0, "retention.measure": False}
    run = finetune(model, table_file, "full", settings=none, out=tmp_path / "none")
    rows = facts_of(run.report).trained
    assert f"Hold some of the {rows} rows out with data.test" in run.advice and not run.report["advice"]["stop"]
    assert run.advice in " ".join((tmp_path / "none" / "README.md").read_text().split())


def test_folds_are_named_only_where_there_can_be_some(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    quick = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.quick": True}
    (tmp_path / "both").mkdir()
    for name in ("train", "test"):
        (tmp_path / "both" / f"{name}.csv").write_text(table_file.read_text())
    for data, foldable in ((table_file, True), (tmp_path / "both", False)):
        wanted = quick | {"data.leaks": "keep"}
        out = tmp_path / f"run-{foldable}"
        run = finetune(str(model_folder("sentence")), data, "full", settings=wanted, out=out)
        assert facts_of(run.report).foldable is foldable


def test_a_report_that_cannot_be_read_for_it_is_a_report_all_the_same() -> None:
    assert "could not be told (KeyError" in advised({"findings": []})["advice"]["paragraph"]
