"""Test rows in groups: which they are, how they are drawn and swapped, and what is kept and said of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from shortruns import rows
from tunesmith import finetune, load
from tunesmith.comparing import compare_runs
from tunesmith.data.columns import Columns
from tunesmith.data.passages import PART
from tunesmith.data.table import Table
from tunesmith.data.units import groups_of_rows
from tunesmith.evaluating import evaluate_run
from tunesmith.evaluation.calibrating import Units, error_interval
from tunesmith.evaluation.cost import Cost
from tunesmith.evaluation.groups import drawn_in, grouped, groups_tested, too_few
from tunesmith.evaluation.intervals import Interval, bootstrap, compare, paired_difference, standard_error
from tunesmith.evaluation.kept_scores import read_scores, write_scores
from tunesmith.evaluation.overfitting import gap_between
from tunesmith.evaluation.resampling import drawn_groups, jackknife_error, left_out_groups, measure, weights_of
from tunesmith.evaluation.significance import MCNEMAR, OF_GROUPS, Significance, permutation, significances
from tunesmith.evaluation.subsets import chances
from tunesmith.evaluation.verdict import judge
from tunesmith.evidence.folds import pooled
from tunesmith.tasks import _metrics
from tunesmith.tasks.base import Scores

Folder = Callable[[str], Path]


def of_hits(right: np.ndarray, groups: np.ndarray | None, primary: str = "accuracy") -> Scores:
    columns = {"truth": np.zeros(len(right), int), "predicted": 1 - right.astype(int)}
    metrics = {"accuracy": _metrics.accuracy, "macro_f1": _metrics.macro_f1(2)}
    return Scores(columns, metrics, primary, shares=frozenset({"accuracy"}), groups=groups)


def drawn(seed: int = 0, groups: int = 12, size: int = 10, share: float = 0.8) -> Scores:
    draw = np.random.default_rng(seed)
    group = draw.permutation(np.repeat(np.arange(groups), size))
    return of_hits(draw.random(len(group)) < draw.beta(4 * share, 4 * (1 - share), size=groups)[group], group)


def test_rows_of_one_value_are_a_group_and_those_of_none_stand_alone() -> None:
    table = Table("t.csv", {"text": list("abcdef"), "by": ["x", "", "x", 3, None, 3]}, tuple(range(2, 8)))
    assert groups_of_rows(table, Columns("text", "label", "by")) == [0, 1, 0, 2, 3, 2]
    assert groups_of_rows(table, Columns("text", "label", None)) is None
    assert groups_of_rows(table, Columns("text", "label", "other")) is None
    parts = Table("t.txt", {"text": ["a", "b"], PART: ["1", "1"]}, (1, 2))
    assert groups_of_rows(parts, Columns("text", "label", PART)) is None, "nobody grouped them"


def test_a_group_is_drawn_and_left_out_whole() -> None:
    place = np.array([5, 5, 9, 9, 9, 1])
    of = drawn_groups(place)
    assert of is not None and of.groups == 3 and of.freedom == pytest.approx(36 / 14 - 1)
    weights = np.hstack(list(weights_of(6, 400, 0, np.zeros(6, int), of)))
    assert np.array_equal(weights[0], weights[1]) and np.array_equal(weights[2], weights[4])
    assert (weights[[0, 2, 5]].sum(axis=0) == 3).all() and len(np.unique(weights[:, :50], axis=1).T) > 5
    assert sorted(sorted(part.tolist()) for part in left_out_groups(6, np.zeros(6, int), of)) == [
        [0, 1], [2, 3, 4], [5],
    ]  # fmt: skip
    many = drawn_groups(np.repeat(np.arange(3000), 2))
    parts = left_out_groups(6000, np.zeros(6000, int), many)
    assert len(parts) == 1000 and sorted(np.concatenate(parts).tolist()) == list(range(6000))
    assert all((part.reshape(-1, 2)[:, 0] + 1 == part.reshape(-1, 2)[:, 1]).all() for part in parts)


def test_of_groups_of_equal_size_the_errors_are_those_of_their_means() -> None:
    of = drawn(groups=40)
    assert of.groups is not None
    means = np.array([(of.columns["predicted"][of.groups == group] == 0).mean() for group in range(40)])
    (found,) = measure([of], ["accuracy"], 4000, 0)
    assert jackknife_error(found["accuracy"]) == pytest.approx(stats.sem(means))
    assert np.std(found["accuracy"].resampled) == pytest.approx(np.std(means) / np.sqrt(40), rel=0.05)
    assert standard_error(of) == pytest.approx(stats.sem(means), rel=0.2)
    reach = stats.t.ppf(0.975, 39) * stats.sem(means)
    interval = bootstrap(of, "accuracy", 4000, 0.95, 0)
    assert interval.high - interval.low == pytest.approx(2 * reach, rel=0.1)
    assert interval.low <= interval.value - reach + 1e-9 and interval.high >= interval.value + reach - 1e-9


def test_rows_each_of_its_own_group_are_rows() -> None:
    one = drawn(groups=60, size=1)
    alone, other = replace(one, groups=None), replace(one, columns=drawn(1, 60, 1).columns)
    for metric in one.metrics:
        assert bootstrap(one, metric, 300, 0.95, 0) == bootstrap(alone, metric, 300, 0.95, 0)
    assert compare(one, {"b": other}, 300, 0.95, 0) == compare(alone, {"b": other}, 300, 0.95, 0)
    assert groups_tested(one) is None and not grouped(one, "by")
    assert significances(one, {"b": other}, 100, 0)["b"].test == MCNEMAR


def test_without_a_mistake_the_bound_is_that_of_the_groups() -> None:
    of = of_hits(np.ones(200, bool), np.repeat(np.arange(20), 10))
    exact = stats.binomtest(20, 20).proportion_ci(0.95, "exact").low
    assert bootstrap(of, "accuracy", 200, 0.95, 0).low == pytest.approx(exact)
    same = paired_difference(of, of, "accuracy", 200, 0.95, 0)
    assert (same.low, same.high) == pytest.approx((exact - 1, 1 - exact))


def test_one_group_tells_nothing_of_others() -> None:
    right = np.arange(50) % 10 > 0
    of, other = of_hits(right, np.zeros(50, int)), of_hits(np.zeros(50, bool), np.zeros(50, int))
    assert significances(of, {"b": other}, 100, 0)["b"].p == 1.0
    assert groups_tested(of) == 1 and "all test rows are of one group" in too_few(1)
    assert bootstrap(of, "accuracy", 100, 0.95, 0).high <= 1


def test_of_one_group_it_is_not_said_that_groups_are_drawn() -> None:
    right = np.arange(50) % 10 > 0
    (finding,) = grouped(of_hits(right, np.zeros(50, int)), "author")
    assert 'all of one group of "author"' in finding.message and "draw and swap" not in finding.message
    assert drawn_in(1) == ", and these are all of one group, which says nothing of other groups"
    assert drawn_in(None) == "" and drawn_in(12) == ", drawn in their 12 groups"
    gain, told = Interval(0.3, 0.1, 0.5), Significance(1.0, OF_GROUPS, 1.0)
    cost = Cost(1.0, 1.0, 1.0, 1, 1, 1)
    said = judge(
        "accuracy", Interval(0.9, 0.8, 1.0), {"tfidf": Interval(0.6, 0.5, 0.7)}, {"tfidf": gain}, {"tfidf": told}, cost,
        50, "full", groups=1,
    )  # fmt: skip
    assert said.helped is None and "which says nothing of other groups" in said.brackets
    assert "drawn in their" not in said.paragraph and "groups of test rows (" not in said.paragraph


@pytest.mark.parametrize(("astray", "said"), [(0, False), (1, True), (4, True), (5, False), (40, False)])
def test_rare_mistakes_in_few_of_many_groups_are_warned_of(astray: int, said: bool) -> None:
    right = (np.arange(400) % 10 > 0) | (np.arange(400) // 10 >= astray)
    for hits, rare in ((right, "mistakes"), (~right, "right answers")):
        (finding,) = grouped(of_hits(hits, np.repeat(np.arange(40), 10)), "author")
        assert (f"all {rare} are in {astray} group" in finding.message) == said
        assert said or "too narrow" not in finding.message
    (by_f1,) = grouped(of_hits(right, np.repeat(np.arange(40), 10), "macro_f1"), "author")
    assert "too narrow" not in by_f1.message, "of no share a mistake is no row"


def test_whole_groups_are_swapped_as_by_hand() -> None:
    draw = np.random.default_rng(3)
    group = np.repeat(np.arange(7), [3, 5, 2, 4, 6, 3, 2])
    truth = draw.integers(3, size=len(group))
    sides = [np.where(draw.random(len(group)) < share, truth, (truth + 1) % 3) for share in (0.9, 0.5)]
    metric = _metrics.macro_f1(3)
    gaps = []
    for kept in itertools.product([True, False], repeat=7):
        keeps = np.array(kept)[group]
        said = (np.where(keeps, *sides), np.where(keeps, *sides[::-1]))
        gaps.append(abs(np.diff([metric({"truth": truth, "predicted": one}) for one in said])[0]))
    expected = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
    first, second = (
        Scores({"truth": truth, "predicted": said}, {"macro_f1": metric}, "macro_f1", groups=group) for said in sides
    )
    assert permutation(first, second, "macro_f1", 20_000, 0) == pytest.approx(expected, abs=0.012)
    assert significances(first, {"b": second}, 200, 0)["b"].test == OF_GROUPS


def test_five_groups_are_never_sure() -> None:
    of = of_hits(np.ones(500, bool), np.repeat(np.arange(5), 100))
    none_right = of_hits(np.zeros(500, bool), of.groups)
    assert permutation(of, none_right, "accuracy", 4000, 0) == pytest.approx(2 / 2**5, abs=0.015)


def test_groups_are_kept_taken_and_pooled(tmp_path: Path) -> None:
    of = drawn()
    write_scores(tmp_path / "s.safetensors", of)
    found = read_scores(tmp_path / "s.safetensors", lambda columns: of.metrics)
    assert found.groups is not None and np.array_equal(found.groups, of.groups)
    assert bootstrap(found, "accuracy", 200, 0.95, 0) == bootstrap(of, "accuracy", 200, 0.95, 0)
    taken = of.take(np.array([3, 1]))
    assert taken.groups is not None and of.groups is not None and taken.groups.tolist() == of.groups[[3, 1]].tolist()
    whole = pooled([of, drawn(1), drawn(2)])
    assert groups_tested(whole) == 36, "a group of one fold is none of another"
    assert pooled([of, replace(of, groups=None)]).groups is None
    counted = replace(of, rows_of={"accuracy": np.arange(120) < 40})
    (part,) = (bootstrap(counted, "accuracy", 200, 0.95, 0),)
    assert part == bootstrap(of.take(np.arange(40)), "accuracy", 200, 0.95, 0)


def test_a_part_of_the_rows_is_seldom_told_apart_for_being_of_a_bad_group() -> None:
    """A part that is most of some groups: by rows the bad luck of a group is taken for the part's own."""
    by_groups, by_rows = [], []
    for seed in range(300):
        draw = np.random.default_rng([9, seed])
        group = np.repeat(np.arange(30), 12)
        values = (draw.random(360) < draw.beta(2, 1, size=30)[group]).astype(float)
        part = np.flatnonzero(draw.random(360) < np.where(group < 10, 0.9, 0.1))
        by_groups += chances(values, [part], 0, group)
        by_rows += chances(values, [part], 0)
    small = [float(np.mean(np.array(found) < 0.05)) for found in (by_groups, by_rows)]
    assert 0.02 < small[0] < 0.08 and small[1] > 0.12, small
    bad = np.flatnonzero(np.arange(360) % 3 == 0)
    hits = np.ones(360)
    hits[bad[::2]] = 0.0
    assert chances(hits, [bad], 0, np.repeat(np.arange(30), 12))[0] < 0.001, "one that is bad in all groups is told"


def test_other_intervals_know_the_groups() -> None:
    of = drawn(groups=20, size=20)
    alone = replace(of, groups=None)
    trained = of_hits(np.ones(400, bool), None)
    wide, narrow = (gap_between(trained, tested, 0.95) for tested in (of, alone))
    assert wide.low < narrow.low and wide.high > 1.2 * narrow.high - 0.2 * narrow.better
    right = of.columns["predicted"] == 0
    said = np.full(400, 0.95)
    ends = [
        error_interval(Units(said, right, np.arange(400), 400, groups), 400, 0.95, 0) for groups in (of.groups, None)
    ]
    assert ends[0].high - ends[0].low > 1.2 * (ends[1].high - ends[1].low)


def test_a_run_by_groups_says_what_its_intervals_are_over(model_folder: Folder, tmp_path: Path) -> None:
    draw, lines = np.random.default_rng(0), ["text,label,author"]
    lines += [f"{text},{label},a{draw.integers(40)}" for text, label in rows(300)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"training.epochs": 1, "evaluation.resamples": 1000, "data.test": 0.3, "evaluation.quick": True}
    settings["evaluation.confidence"] = 0.9
    made = [
        finetune(
            str(model_folder("sentence")), tmp_path / "rows.csv", method, group="author", settings=settings,
            out=tmp_path / method,
        ).path
        for method in ("head", "lora")
    ]  # fmt: skip
    report = json.loads((made[0] / "report.json").read_text())
    groups = report["groups_tested"]
    assert 10 <= groups < report["rows_tested"]
    assert {test["test"] for test in report["tests"].values()} == {OF_GROUPS}
    said = f"drawn in their {groups} groups"
    paragraph = report["verdict"]["paragraph"]
    assert said in paragraph and "permutation test of whole groups" in paragraph
    assert said in (made[0] / "report.html").read_text() and said in (made[0] / "README.md").read_text()
    (finding,) = (item for item in report["findings"] if item["kind"] == "grouped")
    assert f'{groups} groups of "author"' in finding["message"] and "whole groups" in finding["message"]
    found = compare_runs(made)
    assert found["groups"] == groups
    own = Interval(**report["metrics"]["accuracy"])
    assert Interval(**found["runs"][0]["metrics"]["accuracy"]) == own
    further_rows_are_drawn_as_the_run_s(made[0], lines, report["rows_tested"], tmp_path)


def further_rows_are_drawn_as_the_run_s(run: Path, lines: list[str], many: int, folder: Path) -> None:
    """In whole groups where they have the column, and with the run's confidence."""
    (folder / "more.csv").write_text("\n".join(lines[: many + 1]) + "\n", encoding="utf-8")
    (folder / "bare.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines[: many + 1]) + "\n")
    (folder / "one.csv").write_text("\n".join([lines[0], *(f"{line}1" for line in _bare(lines[1:30]))]) + "\n")
    by_groups, alone, one = (evaluate_run(run, str(folder / name)) for name in ("more.csv", "bare.csv", "one.csv"))
    authors = [line.rpartition(",")[2] for line in lines[1 : many + 1]]
    assert by_groups["groups"] == len(set(authors)) and alone["groups"] is None and one["groups"] == 1
    assert by_groups["confidence"] == alone["confidence"] == 0.9
    assert any(f'{len(set(authors))} groups of "author"' in said for said in by_groups["findings"])
    assert any('bare.csv: has no column "author"' in said and "drawn alone" in said for said in alone["findings"])
    assert any("which says nothing of other groups" in said for said in one["findings"])
    texts, labels = zip(*(line.rpartition(",")[0].rpartition(",")[::2] for line in lines[1 : many + 1]), strict=True)
    right = np.array([said == label for said, label in zip(load(run).predict(texts), labels, strict=True)])
    places = np.unique(authors, return_inverse=True)[1]
    for found, groups in ((by_groups, places), (alone, None)):
        expected = bootstrap(of_hits(right, groups), "accuracy", 10_000, 0.9, 0)
        assert Interval(**found["metrics"]["accuracy"]) == expected


def _bare(lines: list[str]) -> list[str]:
    return [f"{line.rpartition(',')[0]},a" for line in lines]
