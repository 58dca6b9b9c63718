"""The pure parts of benchmarks/rank.py: what is due, how far orders agree, and what the page says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from measured_on import NOW

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rank

    return rank


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import _rank_page

    return _rank_page


def scored(name: str, values: dict[str, float]) -> dict[str, Any]:
    bases = {
        base: {score: {"value": value} for score in ("linear", "probe", "depths", "nearest", "logme", "h_score")}
        | {"cpu_seconds_in_all": 2.0}
        for base, value in values.items()
    }
    found = {
        "set": name,
        "what": "rank",
        "base": "",
        "seed": 0,
        "bases": bases,
        "refused": {"vectors": ["no such head"]},
    }
    return found | {"metric": "accuracy", "rows": 450, "source": "now", "commit": "abc"}


def tuned(name: str, base: str, value: float, seed: int = 0) -> dict[str, Any]:
    found = {"set": name, "what": "tuned", "base": base, "seed": seed, "value": value, "cpu_seconds": 9.0}
    return found | {"low": value - 0.1, "high": value + 0.1, "metric": "accuracy", "source": "now", "commit": "abc"}


def test_the_method_is_named_whatever_the_default_is(rank: Any, tmp_path: Path) -> None:
    made = rank.recipe(SimpleNamespace(task="auto", settings={}), tmp_path, tmp_path, 0)
    assert made.method_name == "full"


def test_agreement_is_of_the_bases_that_have_both_and_the_mean_over_seeds(pages: Any) -> None:
    runs = [scored("sst2", {"minilm": 0.9, "minilm_4": 0.8, "minilm_2": 0.7, "minilm_noise": 0.1})]
    runs += [tuned("sst2", "minilm", 0.6), tuned("sst2", "minilm", 1.0, 1), tuned("sst2", "minilm_4", 0.7)]
    runs += [tuned("sst2", "minilm_2", 0.5)]
    assert pages.taus({"runs": runs}) == {"sst2": dict.fromkeys(pages.SCORES, pytest.approx(1.0))}
    runs[-1]["value"] = 0.9
    assert pages.taus({"runs": runs})["sst2"]["linear"] < 0


def test_the_page_says_what_is_reached_what_is_partial_and_what_does_not_fit(pages: Any) -> None:
    runs = [scored("stsb", {"minilm": 0.9, "minilm_4": 0.8, "minilm_2": 0.7})]
    runs += [tuned("stsb", "minilm", 0.9), tuned("stsb", "minilm_4", 0.7), tuned("stsb", "minilm_2", 0.5)]
    said = "\n".join(pages.page({"runs": runs, "environment": NOW}, "now"))
    assert "**1.000**; wanted: at least 0.8: reached. On the 1 that were not looked at: 1.000." in said
    assert "**Partial**" in said and "stsb (3 of 6 bases)" in said
    assert "does not fit: no such head" in said
    assert "†" not in said
    assert "†" in "\n".join(pages.page({"runs": runs, "environment": NOW}, "later"))


def test_a_ranking_is_due_whenever_the_package_changed_and_a_fine_tuning_is_not(
    rank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rank.parse(["--bases", "minilm,vectors", "--sets", "stsb"])
    (of,) = [item for item in rank.SETS if item.name == "stsb"]
    monkeypatch.setattr(rank, "source_digest", lambda: "new")
    done = [{"set": "stsb", "what": "rank", "base": "", "seed": 0, "ranking": "old", "threads": 1}]
    done += [{"set": "stsb", "what": "tuned", "base": "minilm", "seed": 0, "threads": 1}]
    due = rank.due_of(of, asked, SimpleNamespace(hold=lambda key: key in done))
    assert [(key["what"], key["base"]) for key in due] == [("rank", ""), ("tuned", "vectors")]


def test_test_rows_with_labels_that_no_training_row_has_are_left_out(rank: Any, tmp_path: Path) -> None:
    from _quality.data import Rows  # type: ignore[import-not-found]
    from _rank_made import Set, cut  # type: ignore[import-not-found]

    train = [{"text": f"t{place}", "labels": "a|b" if place % 2 else "b"} for place in range(9)]
    test = [{"text": "u", "labels": "a"}, {"text": "v", "labels": "a|c"}]
    found = cut(Set("x", "", lambda _: Rows(train, [], test), 9, 2), tmp_path)
    assert [row["text"] for row in found.test] == ["u"]
    assert sorted(row["text"] for row in found.train) == sorted(row["text"] for row in train)
