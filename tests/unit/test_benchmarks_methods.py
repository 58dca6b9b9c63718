"""The pure parts of benchmarks/methods.py and forgetting.py: what is due, which rate is taken, and what the pages say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from measured_on import NOW

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import methods

    return methods


@pytest.fixture
def forgetting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import forgetting

    return forgetting


def tried(way: str, times: float, value: float | None, job: str = "sst2", **further: Any) -> dict[str, Any]:
    """A run by which a rate is chosen; the method's own is 0.01."""
    found = {"job": job, "way": way, "what": "choosing", "seed": 0, "times": times, "rate": 0.01 * times}
    found |= {"value": value, "loss": 0.5, "error": 0.01, "chance": 0.5, "metric": "accuracy", "train_rows": 1000}
    return {**found, "source": "now", "commit": "abc", **further}


def ended(way: str, seed: int, value: float, rate: float = 0.01, job: str = "sst2", **further: Any) -> dict[str, Any]:
    metrics = {"accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}}
    found = {"job": job, "way": way, "what": "final", "seed": seed, "times": None, "rate": rate, "metrics": metrics}
    found |= {
        "rows": {"train": 9, "test": 4},
        "trainable": 5,
        "stored_mb": 1.5,
        "kept": {"neighbours": 0.8, "cka": 0.9},
    }
    found |= {"cpu_seconds": 10.0, "peak_mb": 500.0, "notes": [], "epoch": 4.0}
    return {**found, "source": "now", "commit": "abc", **further}


def test_every_method_of_the_package_is_there(methods: Any) -> None:
    files = {path.stem for path in (ROOT / "src" / "tunesmith" / "methods").glob("[!_]*.py")} - {"base"}
    assert {way.method for way in methods.WAYS} == files
    names = [way.name for way in methods.WAYS]
    assert len(set(names)) == len(names)
    from tunesmith.catalog import build

    for way in methods.WAYS:
        assert build("methods", way.asked()).part_name() == way.method


def test_rates_are_chosen_before_the_first_run_and_seeds_follow(methods: Any) -> None:
    due = methods.planned(["sst2", "wnut17"], ["head", "lora"], [0, 1])
    said = [(part.way, part.what, part.seed) for part in due if part.job == "sst2"]
    assert said == [
        *[("head", "choosing", 0)] * 3, ("head", "final", 0), *[("lora", "choosing", 0)] * 3, ("lora", "final", 0),
        ("head", "final", 1), ("lora", "final", 1),
    ]  # fmt: skip
    assert [part.times for part in due[:4]] == [1.0, 1 / 3, 3.0, None]
    assert [part.job for part in due] == ["sst2"] * 10 + ["wnut17"] * 10
    assert methods.part_of(methods.one_words(due[2], 0.03)) == (methods.Part("sst2", "head", "choosing", 0), 0.03)


def test_the_rate_that_is_taken(methods: Any) -> None:
    own, third, thrice = methods.planned(["sst2"], ["lora"], [0])[:3]
    final = methods.planned(["sst2"], ["lora"], [0])[3]
    assert methods.rate_for(own, []) == (None, None)
    assert methods.rate_for(third, [])[1] is not None and methods.rate_for(final, [])[1] is not None
    runs = [tried("lora", 1.0, 0.8), tried("lora", 1 / 3, 0.8, loss=0.4), tried("lora", 3.0, None, failed="not finite")]
    assert methods.rate_for(third, runs) == (0.00333, None) and methods.rate_for(thrice, runs) == (0.03, None)
    assert methods.rate_for(final, runs)[0] == pytest.approx(0.01 / 3)  # of equals that with the lower loss
    assert methods.at_edge(methods.tried(runs, "sst2", "lora"))
    assert not methods.at_edge([tried("lora", 1.0, 0.9), *runs[1:]])
    assert methods.unfit([*runs, {"unfit": "no blocks"}]) == "no blocks" and methods.unfit(runs) is None


def test_what_is_kept(
    methods: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another number of cores changes nothing; an earlier source stays until asked for anew; another machine does not."""
    import _kept

    place = json.loads(json.dumps(NOW))
    monkeypatch.setattr(_kept, "environment", lambda: json.loads(json.dumps(place)))

    def results(*words: str, source: str = "now") -> Any:
        return _kept.Results("methods", methods.parse(["--out", str(tmp_path), *words]), source, lambda plain, now: [])

    key = methods.key_of(methods.Part("sst2", "lora", "final", 0), 0.01, 1)
    results().put(key, {"metrics": {}}, ("job", "way"))
    place["machine"]["cores"] = 1
    assert results().hold(key) and results(source="later").hold(key) and results("--stale").hold(key)
    assert not results("--stale", source="later").hold(key) and not results("--again").hold(key)
    assert not results().hold({**key, "rate": 0.03}) and results("--rows", "9").runs == []
    place["machine"]["processor"] = "another"
    assert results().runs == [] and "its 1 runs are of another machine" in capsys.readouterr().out


def test_rows_that_a_rate_is_chosen_by(methods: Any) -> None:
    from _methods.choice import chance
    from _methods.steps import to_choose_by, with_validation
    from _quality.data import Rows

    rows = [{"text": str(place), "label": "ab"[place % 2]} for place in range(2000)]
    held = with_validation(Rows(rows, [], [{"text": "t", "label": "a"}]), 0)
    assert len(held.validation) == 200 and chance("classes", held.validation) == 0.5
    assert sorted([*held.train, *held.validation], key=lambda row: int(row["text"])) == rows
    assert with_validation(held, 5) is held
    few = to_choose_by(held)
    assert len(few.train) == 1000 and few.validation == held.validation and few.test == []
    assert few == to_choose_by(held) and to_choose_by(Rows(rows[:1500], [], [])).train == rows[:1500]


def test_the_page_says_what_is_near_to_lora_and_what_stands_at_chance(methods: Any) -> None:
    values = {"lora": (0.90, 0.92), "prompt": (0.80, 0.84), "prefix": (0.81, 0.81), "full": (0.93, 0.93)}
    runs = [ended(way, seed, value) for way, both in values.items() for seed, value in enumerate(both)]
    runs += [tried(way, times, 0.7 if times == 1.0 else 0.6) for way in values for times in (1 / 3, 1.0, 3.0)]
    runs += [ended("lora", 2, 0.1, rate=0.5)]  # of a rate that is no longer the one that is taken
    runs += [tried("head", 1.0, None, unfit="nothing\nto train")]
    stays = "- At its own rate no method stands at chance on the validation rows, of 4 tried."
    lines = methods.page({"environment": NOW, "runs": runs}, "now")
    assert stays in lines and "- head does not fit: nothing to train" in lines
    assert any("prompt 0.8200, 9.0 points below: within 10; prefix 0.8100, 10.0 points below" in line for line in lines)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert [row[0] for row in table[2:6]] == ["full", "lora", "prompt", "prefix"]  # the best first
    assert table[3][1:6] == ["0.9100 (0.8100 to 1.0100)", "0.9000 0.9200", "0.01", "4", "5"] and table[3][-2:] == [
        "80 %",
        "0.90",
    ]
    runs = [run for run in runs if (run["way"], run["times"]) != ("prompt", 1.0)]
    runs += [tried("prompt", 1.0, 0.515), ended("full", 2, 0.9, source="before", commit="old")]
    lines = methods.page({"environment": NOW, "runs": runs}, "now")
    assert any(
        "stands at chance on the validation rows: prompt on sst2 (0.5150; chance is 0.5000)" in line for line in lines
    )
    assert "- † of an earlier source: commit old" in lines and any(line.startswith("| full † ") for line in lines)


def test_what_a_report_says_of_retention(methods: Any) -> None:
    from _methods.reports import kept_of

    notes = [
        "of the 10 texts that the base holds nearest to each of 200 general texts (the documentation), 83 % still are "
        "(linear CKA 0.97; an untouched base has 100 % and 1)",
        "perplexity on general text (own.csv): 1,203.7 before, 4.4 after (+19 %)",
        "perplexity on texts that the untouched base wrote itself, drawn at random: 3.2 before, 3.8 after (+19 %)",
    ]
    assert kept_of(notes) == {
        "neighbours": 0.83, "cka": 0.97, "general_before": 1203.7, "general_after": 4.4, "own_before": 3.2, "own_after": 3.8,
    }  # fmt: skip


def tuned(variant: str, here: float, there: float, neighbours: float) -> dict[str, Any]:
    metrics = {"accuracy": {"value": here, "low": here - 0.1, "high": here + 0.1}}
    other = {name: {"value": there} for name in ("dvd", "electronics", "kitchen", "video")}
    found = {"case": "amazon", "variant": variant, "seed": 0, "metrics": metrics, "elsewhere": other, "share": None}
    kept = {} if variant == "head" else {"neighbours": neighbours, "cka": 0.9}
    found |= {"rows": {"train": 9, "test": 4}, "trainable": 5, "cpu_seconds": 1.0, "peak_mb": 5.0, "kept": kept}
    return {**found, "source": "now", "commit": "abc"}


def test_whether_forgetting_is_halved(forgetting: Any) -> None:
    """By hand: full loses 20 % of the neighbours and 2 points elsewhere; one cure halves, one is too dear, one too weak."""
    runs = [tuned("head", 0.80, 0.80, 1.0), tuned("full", 0.86, 0.78, 0.80), tuned("anchor_2", 0.852, 0.795, 0.91)]
    runs += [tuned("keep_half", 0.84, 0.80, 0.95), tuned("anchor_5", 0.86, 0.785, 0.85)]
    lines = forgetting.page({"environment": NOW, "runs": runs}, "now")
    meter, domains = (line for line in lines if line.startswith("- By the"))
    assert "full loses 20.00 %; of 3 cures, all shown here and none chosen beforehand, one at least halves it" in meter
    assert "full, anchor=2 9.00 % for +0.80 points;" in meter
    assert "keep=0.5 5.00 % for +2.00 points (costs too much)" in meter
    assert "anchor=5 15.00 % for +0.00 points (not halved)" in meter
    assert "one at least halves it" in domains
    runs = [tuned("head", 0.80, 0.80, 1.0), tuned("full", 0.86, 0.83, 0.80), tuned("anchor_5", 0.84, 0.83, 0.92)]
    meter, domains = (
        line for line in forgetting.page({"environment": NOW, "runs": runs}, "now") if line.startswith("- By the")
    )
    assert "none halves it" in meter
    assert "full loses -3.00 points, so there is nothing that could be halved" in domains


def test_samples_are_drawn_alike(methods: Any) -> None:
    from _methods.steps import drawn

    records = [{"label": "often"}] * 90 + [{"label": "seldom"}] * 10
    places = drawn(records, 16, random.Random(0))
    assert sum(place >= 90 for place in places) == 8 == len(places) / 2
    assert len(drawn([{"tokens": []}] * 30, 3, random.Random(0))) == 3
