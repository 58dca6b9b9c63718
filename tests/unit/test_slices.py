"""Parts of the test rows: a planted bad one is named first, chance alone names none, and every task is told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunesmith.cli.options import Flags, recipe_of
from tunesmith.data.answer_columns import Answer
from tunesmith.data.encode import Example
from tunesmith.data.images import Picture
from tunesmith.data.table import Table
from tunesmith.data.targets.tags import Entity
from tunesmith.errors import DataError
from tunesmith.evaluation.intervals import Interval
from tunesmith.evaluation.panels.slices import show
from tunesmith.evaluation.subsets import apart, by_row, chances, comparable, holm, narrowed
from tunesmith.evidence._families import by_value, quarters
from tunesmith.evidence.base import Course, Frozen, Measured, Subject
from tunesmith.evidence.slices import gather
from tunesmith.preparing import prepare
from tunesmith.recipe import Recipe, TrainingSpec
from tunesmith.tasks._metrics import entity_f1, label_f1
from tunesmith.tasks.base import Labels, Prediction, Scores, Task
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.embedding import Embedding
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.question_answering import QuestionAnswering, Reply
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.token_classification import Span, TokenClassification

HOSTILE = "</td><script>alert(1)</script>"
TWO = Labels(("no", "yes"), (100, 100))


def subject_of(
    task: Task,
    labels: Labels,
    texts: Sequence[Any],
    truth: Sequence[Any],
    predictions: Sequence[Prediction],
    columns: dict[str, list[Any]] | None = None,
    features: np.ndarray | None = None,
) -> Subject:
    """A run measured on these test rows, every column but text and label named as one to slice by."""
    more = {} if columns is None else columns
    plain = {
        "model": "m",
        "data": {"path": "rows.csv", "slices": list(more)},
        "method": "head",
        "evaluation": {"resamples": 100},
    }
    table = Table(
        "rows.csv", {"text": list(texts), "label": list(truth), **more}, tuple(range(2, len(texts) + 2))
    )  # fmt: skip
    scores = task.score(predictions, truth, labels)
    test = Measured(table, texts, truth, predictions, scores)
    frozen = None
    if features is not None:
        held = torch.tensor(features, dtype=torch.float32)
        rows = [Example(row, {"input_ids": [1]}, None) for row in range(len(features))]
        frozen = Frozen({"train": held, "test": held}, {"train": rows, "test": rows}, 16.0)
    course = Course((), (), TrainingSpec(), None, (), None, True)
    return Subject(Recipe.parse(plain), task, labels, table, "label", test, None, frozen, (), course)


def of_hits(hits: np.ndarray, texts: Sequence[str], seed: int = 0, **more: Any) -> Subject:
    """Two classes, by turns at random; right where `hits`."""
    draw = np.random.default_rng(seed)
    truth = [TWO.names[place] for place in draw.integers(2, size=len(hits))]
    other = {"no": "yes", "yes": "no"}
    said = [true if hit else other[true] for true, hit in zip(truth, hits, strict=True)]
    shares = [(0.9, 0.1) if name == "no" else (0.1, 0.9) for name in said]
    found = [Prediction(row, name, share) for row, (name, share) in enumerate(zip(said, shares, strict=True))]
    return subject_of(Classification(), TWO, texts, truth, found, **more)


def words(count: int) -> str:
    return " ".join(["word"] * count)


def texts_of(rows: int, seed: int = 0) -> list[str]:
    return [words(int(size)) for size in np.random.default_rng(seed).integers(4, 30, size=rows)]


def test_a_bad_value_of_a_named_column_is_found_and_named_first() -> None:
    draw = np.random.default_rng(1)
    channel = draw.choice(["web", "phone", "post", "app"], size=800)
    hits = draw.random(800) < np.where(channel == "phone", 0.6, 0.93)
    found = gather(of_hits(hits, texts_of(800), columns={"channel": channel.tolist()}))
    assert found is not None
    worst = found.data["worst"][0]
    assert worst["full"] == "channel: phone" and worst["rows"] == (channel == "phone").sum()
    assert worst["value"]["value"] == pytest.approx(hits[channel == "phone"].mean())
    assert worst["others"] == pytest.approx(hits[channel != "phone"].mean())
    assert worst["better"]["high"] < 0 and worst["chance"] < 0.001
    (finding,), (said,) = found.findings, found.said
    assert "on channel: phone" in finding.message and said.startswith("It does worse on channel: phone")
    wrong = {f"rows.csv:{row + 2}" for row in np.flatnonzero(~hits & (channel == "phone"))}
    assert finding.places and set(finding.places) <= wrong


def test_a_part_that_is_worse_is_told_though_it_costs_little_and_none_where_none_is() -> None:
    draw = np.random.default_rng(1)
    channel = np.array(["phone"] * 40 + ["web"] * 3960)
    hits = draw.random(4000) < np.where(channel == "phone", 0.6, 0.95)
    found = gather(of_hits(hits, texts_of(4000), columns={"channel": channel.tolist()}))
    assert found is not None and found.data["worst"][0]["costs"] < 0.01 and not found.findings
    (said,) = found.said
    assert said.startswith("It does worse on channel: phone (40 test rows)")
    even = gather(of_hits(draw.random(4000) < 0.95, texts_of(4000), columns={"channel": channel.tolist()}))
    assert even is not None and not even.data["worst"] and not even.said


def test_a_bad_range_of_lengths_is_found_and_named_first() -> None:
    draw = np.random.default_rng(2)
    sizes = draw.integers(4, 40, size=600)
    hits = draw.random(600) < np.where(sizes > 30, 0.5, 0.95)
    found = gather(of_hits(hits, [words(int(size)) for size in sizes]))
    assert found is not None and found.data["worst"][0]["full"].endswith("to 39 words")
    assert found.data["worst"][0]["kind"] == "length"


def test_a_bad_cluster_is_found_told_by_its_words_and_by_examples_of_it() -> None:
    draw = np.random.default_rng(3)
    topic = draw.integers(4, size=400)
    named = ["lost parcel late", "refund money back", "password login account", "colour size shoes"]
    texts = [f"please help about {named[place]} {words(int(draw.integers(1, 9)))}" for place in topic]
    features = np.eye(8)[topic] + 0.05 * draw.normal(size=(400, 8))
    hits = draw.random(400) < np.where(topic == 2, 0.5, 0.97)
    subject = of_hits(hits, texts, features=features)
    found = gather(subject)
    assert found is not None
    # There are more clusters than topics, so that the bad topic may be told in parts; each is of that topic.
    worst = [item for item in found.data["worst"] if item["kind"] == "cluster"]
    assert worst and all({"password", "login", "account"} & set(item["name"].split(", ")) for item in worst)
    assert found.data["worst"][0]["kind"] == "cluster"
    (family,) = (item for item in found.data["families"] if item["kind"] == "cluster")
    assert sum(item["rows"] for item in family["slices"]) == 400
    for item in family["slices"]:
        assert len(item["examples"]) == 2
        if item["name"] == worst[0]["name"]:
            assert all("password" in example for example in item["examples"])
    again = gather(subject)
    assert again is not None and again.data == found.data


def test_chance_alone_raises_no_more_than_the_level() -> None:
    alarms = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        hits = draw.random(300) < 0.85
        columns = {"kind": draw.choice(list("abcdef"), size=300).tolist(), "size": draw.normal(size=300).tolist()}
        found = gather(of_hits(hits, texts_of(300, seed), seed, columns=columns))
        assert found is not None and found.data["compared"] >= 14
        alarms += bool(found.data["worst"])
    assert alarms <= stats.binom.ppf(0.999, 100, 0.05)


def test_chance_alone_raises_no_more_than_the_level_where_a_metric_is_a_ratio() -> None:
    alarms = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        truth, flips = draw.random((200, 4)) < 0.4, draw.random((200, 4)) < 0.2
        scores = Scores(
            {"truth": truth, "predicted": truth ^ flips},
            {"micro_f1": label_f1("micro")},
            "micro_f1",
        )
        values, _ = by_row(narrowed(scores), seed)
        sides = draw.integers(6, size=200)
        alarms += min(holm(chances(values, [np.flatnonzero(sides == side) for side in range(6)], seed))) <= 0.05
    assert alarms <= stats.binom.ppf(0.999, 40, 0.05)


@given(st.integers(5, 60), st.integers(1, 59), st.lists(st.booleans(), min_size=60, max_size=60), st.integers(0, 1000))
def test_of_hits_the_chance_is_fisher_s_exact_test(rows: int, part: int, hits: list[bool], seed: int) -> None:
    part = min(part, rows - 1)
    values = np.array(hits[:rows], dtype=float)
    inside = np.sort(np.random.default_rng(seed).choice(rows, part, replace=False))
    (found,) = chances(values, [inside], 0)
    right, whole = values[inside].sum(), values.sum()
    cells = [[right, part - right], [whole - right, rows - part - whole + right]]
    assert found == pytest.approx(cast(Any, stats.fisher_exact(cells, alternative="less")).pvalue, abs=1e-9)


def test_of_other_values_the_chance_is_that_of_a_permutation_test() -> None:
    draw = np.random.default_rng(5)
    values, part = draw.gamma(1.0, size=120), np.arange(30)
    values[part] *= 0.75
    (found,) = chances(values, [part], 0)

    oracle = stats.permutation_test(
        (values[part], values[30:]),
        lambda one, other, axis: one.mean(axis) - other.mean(axis),
        alternative="less",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert found == pytest.approx(oracle.pvalue, abs=0.015)
    assert chances(np.ones(50), [np.arange(10)], 0) == [1.0]


def test_ties_count_as_low_however_their_sums_are_rounded() -> None:
    values = np.array([0.1, 0.2, 0.3] * 40)
    (found,) = chances(values, [np.arange(0, 120, 3)], 0)  # every lowest value: nothing is lower
    assert 0 < found < 0.001
    (found,) = chances(values, [np.arange(120)], 0)
    assert found == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_s_correction_by_its_definition(found: list[float]) -> None:
    order = np.argsort(found, kind="stable")
    stepped = np.maximum.accumulate([(len(found) - place) * found[index] for place, index in enumerate(order)])
    expected = np.empty(len(found))
    expected[order] = np.minimum(stepped, 1)
    assert holm(found) == pytest.approx(expected.tolist())
    assert all(more >= less for more, less in zip(holm(found), found, strict=True))


def test_a_difference_s_interval_is_newcombe_s() -> None:
    """Newcombe 1998, table II, method 10, contrast (a): 56/70 less 48/80 is 0.2 [0.0524, 0.3339]."""
    one, other = (stats.binomtest(hits, rows).proportion_ci(method="wilson") for hits, rows in ((56, 70), (48, 80)))
    found = apart(Interval(56 / 70, one.low, one.high), Interval(48 / 80, other.low, other.high), lower=False)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    turned = apart(Interval(56 / 70, one.low, one.high), Interval(48 / 80, other.low, other.high), lower=True)
    assert (turned.value, turned.low, turned.high) == (-found.value, -found.high, -found.low)


def test_what_a_row_adds_to_a_ratio_is_low_exactly_where_the_ratio_of_a_part_is() -> None:
    draw = np.random.default_rng(6)
    truth = draw.integers(0, 4, size=(90, 3))
    columns = {"truth": truth, "predicted": draw.integers(0, 4, size=(90, 3)), "hits": np.minimum(truth, 1)}
    scores = narrowed(Scores(columns, {"entity_f1": entity_f1}, "entity_f1"))
    values, rows = by_row(scores, 0)
    assert rows.tolist() == list(range(90))
    for start in range(0, 90, 15):
        part = np.arange(start, start + 15)
        assert (values[part].sum() < 0) == (scores.take(part).value() < scores.value())


def test_scores_of_some_rows_hold_those_rows_only() -> None:
    held = np.array([True, False, True, True])
    scores = Scores(
        {"truth": np.arange(4), "x": np.arange(4.0)},
        {"mean": lambda columns: float(columns["x"].mean())},
        "mean",
        written={"mean": 3},
        rows_of={"mean": held},
        each={"x": np.arange(4.0)},
    )
    part = scores.take(np.array([1, 2]))
    assert part.value() == 2.0 and part.written == {"mean": 1} and part.each["x"].tolist() == [1.0, 2.0]
    assert narrowed(scores).columns["x"].tolist() == [0.0, 2.0, 3.0]


def test_quarters_hold_every_row_once_and_equal_values_together() -> None:
    values = np.array([1.0, 1, 1, 1, 1, 2, 3, 4, np.nan, 9])
    made = quarters(values, "texts of {} words", "{}", whole=True)
    assert [item.name for item in made] == ["1", "2 to 3", "4 to 9"]
    assert sorted(row for item in made for row in item.rows) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert quarters(np.array([np.nan]), "{}", "{}") == ()


def test_columns_are_told_apart_by_what_they_hold() -> None:
    numbers = by_value("age", [str(age) for age in range(40)] + [None])
    assert [item.name for item in numbers] == ["0 to 9", "10 to 19", "20 to 29", "30 to 39", "(empty)"]
    few = by_value("stars", [1, 2, 3, 2, 2])
    assert [(item.full, item.rows.tolist()) for item in few] == [
        ("stars: 1", [0]), ("stars: 2", [1, 3, 4]), ("stars: 3", [2]),
    ]  # fmt: skip
    many = by_value("city", [f"city {place}" for place in range(30)] + ["Rome"] * 5)
    assert len(many) == 20 and sum(len(item.rows) for item in many) == 35
    assert {item.name for item in many} >= {"Rome", "other (12 values)"}


def told_apart(subject: Subject) -> tuple[dict[str, Any], str]:
    found = gather(subject)
    assert found is not None
    return dict(found.data), show(found.data, {})


def test_several_labels_numbers_and_scores() -> None:
    draw, texts = np.random.default_rng(7), texts_of(120)
    labels = Labels(("a", "b"), (50, 50), thresholds=(0.5, 0.5))
    truth = [tuple(name for name in "ab" if draw.random() < 0.5) for _ in texts]
    said = [true if "b" not in true else ("a",) for true in truth]
    found = [Prediction(row, value, tuple(float(n in value) for n in "ab")) for row, value in enumerate(said)]
    data, _ = told_apart(subject_of(Multilabel(), labels, texts, truth, found))
    assert data["metric"] == "micro_f1" and data["worst"][0]["full"] == "label: b"

    numbers = draw.normal(size=120)
    off = np.where(np.arange(120) % 4 == 0, 3.0, 0.1) * draw.normal(size=120)
    task = Regression()
    labels = Labels(("score",), (120,), center=(0.0,), scale=(1.0,))
    values = [Prediction(row, float(value), (float(value),)) for row, value in enumerate(numbers + off)]
    side = {"side": ["odd" if row % 4 == 0 else "even" for row in range(120)]}
    data, page = told_apart(subject_of(task, labels, texts, [(float(n),) for n in numbers], values, side))
    assert data["metric"] == "rmse" and data["lower"] and data["worst"][0]["full"] == "side: odd"
    assert "lower is better" in page and "higher" in page
    assert {item["kind"] for item in data["families"]} == {"column", "length", "value"}

    labels = Labels(("score",), (120,), center=(0.0,), scale=(5.0,))
    pairs = list(zip(texts, texts, strict=True))
    near = [Prediction(row, float(np.tanh(value)), (float(np.tanh(value)),)) for row, value in enumerate(numbers + off)]
    data, _ = told_apart(subject_of(Embedding(), labels, pairs, [(float(n),) for n in numbers], near, side))
    assert data["metric"] == "rank_shift" and data["worst"][0]["full"] == "side: odd"


def test_entities_answers_and_texts() -> None:
    texts = ["Ada met Bob " + words(row % 9) for row in range(80)]
    truth = [(Entity(0, 3, "person"),)] * 80
    labels = Labels(("O", "B-person", "I-person"), (9, 9, 9))
    side = {"side": ["bad" if row % 3 == 0 else "good" for row in range(80)]}
    spans = [() if row % 3 == 0 else (Span(0, 3, "person", 0.9, "Ada", (0, 1)),) for row in range(80)]
    found = [Prediction(row, value, (), texts[row]) for row, value in enumerate(spans)]
    data, _ = told_apart(subject_of(TokenClassification(), labels, texts, truth, found, side))
    assert data["metric"] == "entity_f1" and data["worst"][0]["full"] == "side: bad"

    asked = [(("why" if row % 2 else "Who") + " was it?", "It was Ada.") for row in range(80)]
    answers = [(Answer(7, 10, "Ada"),)] * 80
    replies = [Reply("" if row % 2 else "Ada", 7, 10, 0.9, "" if row % 2 else "Ada") for row in range(80)]
    labels = Labels(("start", "end"), (80, 0), (0.5,), longest=5)
    found = [Prediction(row, reply, ()) for row, reply in enumerate(replies)]
    data, _ = told_apart(subject_of(QuestionAnswering(), labels, asked, answers, found))
    assert data["metric"] == "f1" and data["worst"][0]["full"] == 'questions with "why"'

    losses = [5.0 if row % 3 == 0 else 1.0 + row / 100 for row in range(80)]
    found = [Prediction(row, "", (loss, 0.5), "", (10, 5)) for row, loss in enumerate(losses)]
    data, _ = told_apart(subject_of(CausalLm(), Labels((), ()), texts, texts, found, side))
    assert data["metric"] == "perplexity" and data["worst"][0]["full"] == "side: bad"


def of_pictures(count: int) -> Subject:
    names = ("blue", "green", "red")
    made = []
    for row in range(count):
        picture = Picture(f"picture {row}")
        picture.array = np.random.default_rng(row).integers(0, 255, (30, 30, 3)).astype(np.uint8)
        made.append((picture, names[row % 3]))
    labels = Labels(names, (count // 3,) * 3)
    said = ["green" if row % 5 == 0 else name for row, (_, name) in enumerate(made)]
    found = [Prediction(row, name, tuple(0.8 if n == name else 0.1 for n in names)) for row, name in enumerate(said)]
    return subject_of(ImageClassification(), labels, [one for one, _ in made], [name for _, name in made], found)


def test_pictures_have_a_sheet_of_mistakes_and_right_ones() -> None:
    subject = of_pictures(60)
    data, page = told_apart(subject)
    for item in data["sheet"]["classes"]:
        kinds = [picture["right"] for picture in item["pictures"]]
        assert kinds == sorted(kinds) and 1 <= kinds.count(True) <= 2 and kinds.count(False) <= 4
        assert all((picture["said"] == item["label"]) == picture["right"] for picture in item["pictures"])
    assert sum(item["right"] for item in data["sheet"]["classes"]) == sum(
        item.value == true for item, true in zip(subject.test.predictions, subject.test.truth, strict=True)
    )
    assert page.count('<img src="data:image/') == sum(len(item["pictures"]) for item in data["sheet"]["classes"])
    small = gather(of_pictures(12))
    assert small is not None and set(small.data) == {"sheet"} and show(small.data, {}).count("<section") == 1


def test_what_takes_too_much_room_is_left_off_the_sheet_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.evidence._sheet.BYTES", 20_000)
    data, page = told_apart(of_pictures(60))
    assert data["sheet"]["left_out"] == 3 - len(data["sheet"]["classes"]) > 0
    assert "left out" in page


def test_too_few_rows_are_not_told_apart() -> None:
    assert gather(of_hits(np.ones(39, dtype=bool), texts_of(39))) is None
    found = gather(of_hits(np.ones(60, dtype=bool), texts_of(60)))
    assert found is not None and not found.data["worst"] and not found.findings and not found.said


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_names_and_examples_from_outside_become_no_markup() -> None:
    draw = np.random.default_rng(8)
    kind = draw.choice([HOSTILE, "b"], size=300)
    hits = draw.random(300) < np.where(kind == "b", 0.98, 0.5)
    texts = [f"{HOSTILE} {text}" for text in texts_of(300)]
    features = draw.normal(size=(300, 4))
    data, page = told_apart(of_hits(hits, texts, columns={f"<b>{HOSTILE}": kind.tolist()}, features=features))
    assert data["worst"] and "script" not in Tags(page).seen and "b" not in Tags(page).seen
    assert "&lt;script&gt;" in page


def test_a_page_without_a_worse_part_says_so() -> None:
    _, page = told_apart(of_hits(np.random.default_rng(9).random(200) < 0.9, texts_of(200)))
    assert "On none of them is the model worse" in page


def test_correlations_are_replaced_by_what_means_the_same_on_a_part() -> None:
    columns = {"truth": np.array([[1.0], [2], [3], [4]]), "predicted": np.array([[1.0], [3], [2], [4]])}
    scores = Scores(columns, {"spearman": lambda _: 0.8}, "spearman", other_scale=frozenset({"spearman"}))
    assert comparable(scores).value() == pytest.approx(0.125)  # two of four rows are one place off
    plain = replace(scores, primary="accuracy", metrics={"accuracy": lambda _: 1.0})
    assert comparable(plain) is plain
    assert math.isclose(comparable(scores).each["rank_shift"].sum(), 0.5)


def rows_file(folder: Path, extra: str = "channel") -> Path:
    lines = [f"a text of row {row},{'yes' if row % 2 else 'no'},{'web' if row % 3 else 'phone'}" for row in range(40)]
    path = folder / "rows.csv"
    path.write_text(f"text,label,{extra}\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_columns_to_slice_by_stay_in_the_tables(tmp_path: Path) -> None:
    plain = {"model": "m", "data": {"path": str(rows_file(tmp_path)), "slices": "channel"}, "method": "head"}
    recipe = Recipe.parse(plain)
    assert recipe.data.sliced == ("channel",) and Recipe.parse(recipe.to_plain()) == recipe
    assert set(prepare(recipe).table("test").columns["channel"]) <= {"web", "phone"}
    assert Recipe.parse({**plain, "data": {"path": "x", "slices": ["a", "b", "a"]}}).data.sliced == ("a", "b")
    assert Recipe.parse({**plain, "data": {"path": "x"}}).data.sliced == ()
    flagged = recipe_of(None, Flags(data="x", model="m", slices=("channel", "age")), ())
    assert flagged.data.sliced == ("channel", "age")


def test_columns_to_slice_by_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    wanted = ["chanel", "text", "label", "nothing alike"]
    plain = {"model": "m", "data": {"path": str(rows_file(tmp_path)), "slices": wanted}, "method": "head"}
    with pytest.raises(DataError) as raised:
        prepare(Recipe.parse(plain))
    said = raised.value.problems
    assert len(said) == 4
    assert 'there is no column "chanel"; did you mean "channel"?' in said[0]
    assert '"text" is the text' in said[1] and '"label" is the label' in said[2]
    assert "the choices are: channel" in said[3]
