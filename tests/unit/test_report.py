"""report.json and report.html: right figures, nothing from outside turned into markup, and no network."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as oracle_matrix
from sklearn.metrics import precision_recall_fscore_support

from tunesmith.data.findings import Finding
from tunesmith.evaluation.advising import advised
from tunesmith.evaluation.baselines.base import Baseline, Part, measure_baseline
from tunesmith.evaluation.charts import Scale, Whisker, scatter, tick_text, whiskers
from tunesmith.evaluation.intervals import compare
from tunesmith.evaluation.page import render
from tunesmith.evaluation.report import (
    Derived,
    EvaluationPoint,
    LossPoint,
    Outcome,
    Split,
    build_report,
    write_report,
)
from tunesmith.evaluation.terminal import result_lines, result_table
from tunesmith.evaluation.verdict import Cost, Verdict, judge
from tunesmith.evaluation.views.per_class import ratios, table_section
from tunesmith.evaluation.wording import figures, p_value
from tunesmith.tasks._metrics import accuracy, macro_f1
from tunesmith.tasks.base import Labels, Mistake, Scores
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.regression import Regression

HOSTILE = """</style></title><script>alert("x")</script><img src=x onerror='alert(1)'>&amp;\u202e"""


def outcome(classes: int = 3, rows: int = 120, baselines: bool = True) -> Outcome:
    draw = np.random.default_rng(0)
    labels = tuple(f"class {place}" for place in range(classes))
    truth = draw.integers(classes, size=rows)
    metrics = {"accuracy": accuracy, "macro_f1": macro_f1(classes)}

    def scores(share: float) -> Scores:
        predicted = np.where(draw.random(rows) < share, truth, draw.integers(classes, size=rows))
        columns = {"truth": truth, "predicted": predicted, "probability": draw.random(rows)}
        return Scores(columns, metrics, "accuracy", shares=frozenset({"accuracy"}))

    model = scores(0.8)
    others = [Baseline("probe", "the frozen features with a new head", scores(0.6), 3.0)]
    named = Part([""] * rows, [labels[place] for place in truth])
    space = Labels(labels, tuple(np.bincount(truth, minlength=classes).tolist()))
    others.append(measure_baseline("majority", Classification(), named, Part([], []), named, space, 0))
    others = others if baselines else []
    found = compare(model, {item.name: item.scores for item in others}, 100, 0.95, 0)
    cost = Cost(10.0, 20.0, 800.0, 1000, 22_700_000, 900)
    of_baselines = found.of_baselines("accuracy")
    return Outcome(
        version="0.1.0",
        name="run",
        task="classification",
        pipeline_tag="text-classification",
        model="m",
        method="lora",
        seed=0,
        confidence=0.95,
        data="data.csv",
        splits=[Split("train", 900, "given"), Split("test", rows, "10 % of the rows")],
        scores=model,
        labels=space,
        views=("confusion", "per_class"),
        worst=Classification.worst,
        truth_is=Classification.truth_is,
        mistakes=[
            Mistake(share, labels[true], labels[said], f"{share:.3f}") if true != said else None
            for true, said, share in zip(
                *(model.columns[name].tolist() for name in ("truth", "predicted", "probability")), strict=True
            )
        ],
        texts=[f"text {row}" for row in range(rows)],
        places=[f"data.csv:{row + 2}" for row in range(rows)],
        comparison=found,
        baselines=others,
        verdict=judge(
            "accuracy", found.metrics["accuracy"], of_baselines, found.gains, found.tests, cost, rows, "lora"
        ),
        cost=cost,
        opens="open it",
        derived=[Derived("training.rate", 1e-4, "a formula")],
        findings=[Finding("conflict", 2, "2 texts with two labels", ("data.csv:3", "data.csv:9"))],
        losses=[LossPoint(step, step / 100, 1 / step, 1e-4) for step in range(1, 301)],
        evaluations=[EvaluationPoint(100 * n, float(n), "accuracy", 0.5 + n / 10, 1.0 - n / 8) for n in range(4)],
        best_step=200,
    )


class Seen(HTMLParser):
    """Which elements and attributes a page has, and how many scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += tag != "wbr"  # allowed line breaks follow the underscores of a text
        self.attributes |= {(tag, name) for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def poisoned(value: Any, key: str = "") -> Any:
    """The same report with every text from outside replaced by an attack."""
    if isinstance(value, dict):
        return {name: poisoned(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    return HOSTILE if isinstance(value, str) and key not in ("primary", "views") else value


@pytest.mark.parametrize("classes", [3, 20])
def test_nothing_from_outside_becomes_markup(classes: int) -> None:
    report = build_report(outcome(classes))
    attacked = poisoned(report)
    for item, original in zip(attacked["baselines"], report["baselines"], strict=True):
        item["name"] = original["name"]  # a key that joins baselines and gains, never shown
    clean, dirty = Seen(render(report)), Seen(render(attacked))
    more = dirty.tags - clean.tags
    assert set(more) <= {
        "p",
        "span",
        "div",
        "dt",
        "dd",
    }  # answers, sentences and figures of the verdict that were empty
    assert dirty.attributes == clean.attributes
    assert dirty.tags["script"] == 1
    assert any(HOSTILE in words for words in dirty.words)
    assert Seen(html.unescape(render(attacked))).tags["script"] > 1  # the attack works where nothing is escaped


def test_the_page_needs_no_network_and_forbids_it() -> None:
    page = render(build_report(outcome()))
    assert Seen(page).links == []
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?:", page)


def test_figures_equal_scikit_learn() -> None:
    given = outcome(5)
    report = build_report(given)
    truth, predicted = given.scores.columns["truth"], given.scores.columns["predicted"]
    assert report["confusion"]["matrix"] == oracle_matrix(truth, predicted, labels=range(5)).tolist()
    oracle = precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)  # type: ignore[arg-type]
    for key, values in zip(("precision", "recall", "f1", "support"), oracle, strict=True):
        assert [line[key] for line in report["per_class"]] == pytest.approx(list(values))


def test_classes_that_were_never_seen_score_zero_and_do_not_fail() -> None:
    given = outcome()
    labels = replace(given.labels, names=(*given.labels.names, "never seen"))
    line = build_report(replace(given, labels=labels))["per_class"][3]
    assert line == {"label": "never seen", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    render(build_report(replace(given, labels=labels)))


def test_mistakes_are_the_surest_wrong_ones_with_their_places() -> None:
    given = outcome(rows=400)
    columns = given.scores.columns
    wrong = np.flatnonzero(columns["truth"] != columns["predicted"])
    surest = sorted(wrong, key=lambda row: -columns["probability"][row])[:100]
    report = build_report(given)
    assert [item["place"] for item in report["mistakes"]] == [given.places[row] for row in surest]
    assert report["mistakes"][0]["text"] == given.texts[surest[0]]
    assert report["mistakes"][0]["severity"] == columns["probability"][surest[0]]
    pairs = report["confusion"]["confused"]
    assert pairs[0]["count"] == max(
        cell
        for down, row in enumerate(report["confusion"]["matrix"])
        for across, cell in enumerate(row)
        if down != across
    )
    long = build_report(replace(given, texts=["word " * 1000] * 400))["mistakes"][0]["text"]
    assert len(long) < 610 and long.endswith(" ...")


def test_both_files_are_written_whole_and_json_gives_the_same_page(tmp_path: Path) -> None:
    given = replace(outcome(), texts=["half an emoji \ud83d"] * 120, losses=[LossPoint(1, 0.1, float("nan"), 1e-4)])
    report = build_report(given)
    write_report(report, tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["README.md", "report.html", "report.json"]
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read == report
    assert read["curves"]["losses"][0]["loss"] is None
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == render(read).encode("utf-8", "replace").decode()


def test_the_json_that_marks_a_run_as_finished_is_written_last(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()  # so that the page cannot be written
    with pytest.raises(OSError):
        write_report(build_report(outcome()), tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_run_without_test_rows_has_a_page_that_says_so() -> None:
    said = "No test rows were held out. Hold <some> out."
    report = build_report(outcome())
    report |= {"metrics": {}, "baselines": [], "verdict": asdict(Verdict(None, said, lead=said)), "rows_tested": 0}
    report = advised(report)
    seen = Seen(render(report))
    words = " ".join(seen.words)
    assert "No test rows were held out." in words and "Hold <some> out." in words and "Not measured" in words
    assert "Hold some of the 900 rows out with data.test" in words
    assert seen.links == [] and "Result" not in words
    dirty = Seen(render(poisoned(report)))
    assert dirty.attributes == seen.attributes and dirty.tags["script"] == 1
    assert any(HOSTILE in words for words in dirty.words)


def test_nothing_is_said_to_warn_where_a_finding_does() -> None:
    calm, said = "Nothing warns against it", "105 rows of test are nearly those of train"
    assert calm in render(build_report(outcome()))
    for kind in ("near_leak", "leak_effect", "giveaway", "drift"):
        page = render(build_report(replace(outcome(), findings=[Finding(kind, 105, said, ())])))
        first = page.partition("<h2")[0]
        assert calm not in first and said in first


def long_outcome(classes: int) -> Outcome:
    """10,000 test rows of long texts in an alphabet of two bytes, with all that is escaped, and long names of classes."""
    given = outcome(classes, 10_000)
    name = {
        label: f"{label} of_a_long_name & more of it <{place}> {'x' * 30}"
        for place, label in enumerate(given.labels.names)
    }
    text = 'Это длинный текст <с> знаками & многими словами, "он" не кончается. ' * 40
    draw = np.random.default_rng(1)
    truth = given.scores.columns["truth"]
    columns = {
        "truth": truth,
        "predicted": draw.integers(classes, size=len(truth)),
        "probability": draw.random(len(truth)),
    }
    return replace(
        given,
        scores=replace(given.scores, columns=columns),
        labels=Labels(tuple(name.values()), given.labels.counts),
        mistakes=[
            Mistake(0.5, name[item.truth], name[item.said], item.detail) if item is not None else None
            for item in given.mistakes
        ],
        texts=[text + str(row) for row in range(len(truth))],
        findings=[Finding("conflict", 9, text[:300], tuple(f"data.csv:{row}" for row in range(20)))] * 20,
        losses=[LossPoint(step, step / 100, 1 / step, 1e-4) for step in range(1, 20_001)],
    )


@pytest.mark.parametrize("classes", [2, 12, 60, 120, 500])
def test_the_page_of_ten_thousand_long_rows_is_below_a_megabyte(classes: int) -> None:
    """Whatever the rows and the model: here it says anything of anything, so that every cell of a matrix holds mistakes."""
    report = build_report(long_outcome(classes))
    assert len(report["mistakes"]) == 100
    assert len(render(report).encode()) < 1_000_000


@pytest.mark.parametrize("classes", [2, 12, 13, 77, 150])
def test_every_size_of_confusion_matrix_is_drawn(classes: int) -> None:
    seen = Seen(render(build_report(outcome(classes, rows=300))))
    words = " ".join(seen.words)
    assert seen.tags["rect"] > 0 or classes <= 12
    assert ("The 60 classes with the most mistakes, of 150" in words) == (classes == 150)


def test_a_run_without_baselines_curves_or_mistakes_has_a_page() -> None:
    given = outcome(baselines=False)
    right = replace(given.scores, columns={**given.scores.columns, "predicted": given.scores.columns["truth"]})
    bare = replace(
        given, scores=right, losses=(), evaluations=(), best_step=None, findings=(), derived=(), mistakes=[None] * 120
    )
    words = " ".join(Seen(render(build_report(bare))).words)
    assert "Not compared" in words
    assert "There is none among the test rows" in words
    assert "How it learned" not in words


def test_texts_and_scores_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"120 scores for \[1, 120, 120\] texts"):
        build_report(replace(outcome(), texts=["one"]))


def test_scale_has_round_ticks_inside_it() -> None:
    assert Scale(0.843, 0.957).ticks(5) == [0.86, 0.88, 0.90, 0.92, 0.94]
    assert Scale(0.0, 5.0).ticks(6) == [0, 1, 2, 3, 4, 5]
    assert Scale(2.0, 4.0).at(2.5) == 250.0


def test_what_lies_off_the_scale_is_an_arrow() -> None:
    rows = [Whisker("in", 0.5, 0.4, 0.6, ""), Whisker("left", 0.1, 0.05, 0.15, ""), Whisker("right", 2, 1.9, 2.1, "")]
    drawn = whiskers(rows, Scale(0.3, 0.8))
    assert drawn.count('class="off"') == 2
    assert drawn.count('class="dot"') == 1
    assert 'd="M400.0 50h0"' in drawn
    reaching = [Whisker("left", 0.2, 0.1, 0.4, ""), Whisker("right", 0.9, 0.7, 1.0, "")]
    drawn = whiskers(reaching, Scale(0.3, 0.8))
    assert (drawn.count('class="off"'), drawn.count('class="dot"'), drawn.count('class="whisker"')) == (2, 0, 2)


def test_what_is_left_of_the_base_stands_with_the_verdict() -> None:
    said = "of the 10 texts nearest to each of 200, 62% still are"
    findings = [Finding("retention", 200, said, ()), Finding("cut", 3, "3 cut", ())]
    report = build_report(replace(outcome(), findings=findings))
    head = render(report).partition('class="verdict"')[2].partition("</section>")[0]
    assert said.removeprefix("of") in head and "3 cut" not in head


def test_terminal_lines_are_aligned_and_plain() -> None:
    report = build_report(outcome())
    verdict, empty, head, *rows = result_lines(report)
    assert verdict == report["verdict"]["paragraph"]
    assert empty == ""
    assert rows[0].startswith("this model (lora)")
    column = head.index("accuracy")
    assert all(re.match(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", row[column:]) for row in rows)
    assert "\n".join([verdict, head, *rows]).isascii()


def test_the_cells_are_those_of_the_terminal_s_lines() -> None:
    report = build_report(outcome())
    head, *rows = result_table(report)
    own = report["metrics"]["accuracy"]
    assert rows[0][head.index("accuracy")] == f"{own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
    assert [row[0] for row in rows[1:]] == [baseline["what"] for baseline in report["baselines"]]
    for line, cells in zip(result_lines(report)[2:], (head, *rows), strict=True):
        assert line.split() == " ".join(cells).split()


def test_a_metric_of_which_less_is_better_says_so() -> None:
    given = outcome()
    turned = replace(given.scores, lower=frozenset({"macro_f1"}))
    report = build_report(replace(given, scores=turned))
    assert "macro-F1 (lower is better)" in " ".join(result_lines(report))
    assert "Macro-F1 (lower is better)" in " ".join(Seen(render(report)).words)
    assert "lower is better" not in render(build_report(given))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.9417, 0.93, 0.95), ("0.942", "0.930", "0.950")),
        ((74714.2, 70000.0, 80000.4), ("74,714", "70,000", "80,000")),
        ((123.46, 1.0), ("123.5", "1.0")),
        ((30.2449, 28.0), ("30.24", "28.00")),
        ((2.14e-5, 1e-6), ("0.0000214", "0.0000010")),
        ((2.14e-7, 1e-8), ("2.14e-07", "1.00e-08")),
        ((0.0, 0.0), ("0.000", "0.000")),
    ],
)
def test_figures_have_the_digits_that_suit_the_largest(values: tuple[float, ...], said: tuple[str, ...]) -> None:
    assert figures(*values) == said


def test_ticks_of_numbers_of_any_size_are_told_apart() -> None:
    for low, high in ((1e-13, 4e-13), (1.0, 1.0 + 1e-12), (-3e-12, 2e-12), (0.1, 0.7)):
        ticks = Scale(low, high).ticks(4)
        assert len(set(ticks)) == len(ticks) >= 2
        assert all(tick_text(tick, ticks) for tick in ticks)
    assert 0.3 in Scale(0.1, 0.7).ticks(6), "without what a sum of floats adds"


def test_ticks_of_large_numbers_are_short() -> None:
    drawn = scatter("sales", [(0.0, 0.0), (2e6, 1.5e6)])
    assert "1.5\N{NO-BREAK SPACE}M" in drawn
    assert "500,000" not in drawn and "2000000" not in drawn


def test_labels_that_no_test_row_has_come_last_without_figures() -> None:
    lines = ratios(("a", "b", "c"), np.array([1, 0, 0]), np.array([2, 0, 3]), np.array([1, 0, 1]))
    words = Seen(table_section("Label", "x", "Labels", lines)).words
    page = " ".join(words)
    assert page.index(" c 0.000") < page.index(" a 0.667") < page.index(" b ")
    assert "Last those that no test row has" in page


def test_the_worst_mistakes_are_told_in_the_words_of_the_task() -> None:
    given = replace(outcome(), worst=Regression.worst, truth_is=Regression.truth_is)
    words = " ".join(Seen(render(build_report(given))).words)
    assert "furthest from the true numbers" in words
    assert "mislabelled" not in words
    assert "labelled" not in words


def test_the_page_says_how_to_make_the_run_again() -> None:
    made = {
        "tunesmith": "0.1.0",
        "model": {"name": "org/<base>", "kind": "hub", "revision": "abc", "sha256": {"model.safetensors": "0f" * 32}},
        "data": {"path": "data.csv", "sha256": {"train": "1e" * 32}},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "machine": {"system": "Linux", "cores": 2},
    }
    report = build_report(replace(outcome(), recipe={"model": "org/<base>", "seed": 3}, manifest=made))
    page = render(report)
    assert "tunesmith train --recipe recipe.yaml" in page
    assert "org/&lt;base&gt; (hub, abc)" in page and "seed: 3" in page
    assert "0f" * 32 in page and "1e" * 32 in page and "torch" in page
    assert report["recipe"]["seed"] == 3


def test_how_likely_a_gain_is_luck_stands_beside_it() -> None:
    given = outcome()
    report = build_report(given)
    assert {name: set(test) for name, test in report["tests"].items()} == {
        name: {"p", "test", "adjusted"} for name in report["gains"]
    }
    tested = report["tests"]["probe"]
    assert tested["test"] == "mcnemar" and tested["p"] <= tested["adjusted"] <= 1
    words = " ".join(Seen(render(report)).words)
    assert f"], {p_value(tested['p'])}" in words and "by McNemar's exact test" in words


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (1.0, "p = 1.00"),
        (0.0312, "p = 0.03"),
        (0.0496, "p = 0.0496"),
        (0.0519, "p = 0.052"),
        (0.0504, "p = 0.0504"),
        (0.0049, "p = 0.005"),
        (0.00099, "p < 0.001"),
    ],
)
def test_p_in_words(p: float, said: str) -> None:
    assert p_value(p) == said
