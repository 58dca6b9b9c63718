"""What benchmarks/auto.py concludes from its runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in [name for name in sys.modules if name.startswith(("_auto", "_quality", "_common", "_kept"))]:
        monkeypatch.delitem(sys.modules, name)


def run(name: str, value: float, cpu: float, job: str = "sst2_100", seed: int = 0) -> dict[str, Any]:
    metrics = {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.02}}
    return {
        "job": job, "contender": name, "seed": seed, "metrics": metrics, "cpu_seconds": cpu, "peak_mb": 1000.0,
        "derived": {"method": "layers"} if name == "auto" else {}, "source": "now", "commit": "c",
    }  # fmt: skip


def test_auto_is_held_against_the_best_by_name_and_its_price() -> None:
    from _auto_page import summary

    said = summary([run("auto", 0.80, 30), run("head", 0.78, 5), run("full", 0.81, 25)])
    assert said == [
        "- sst2_100: auto 0.8000 [0.7800, 0.8200] is within the noise of the best by name, full 0.8100; it cost 1.2 times "
        "as much"
    ]
    (said,) = summary([run("auto", 0.80, 30), run("head", 0.85, 5)])
    assert "is apart from the best by name, head 0.8500; it cost 6.0 times as much, more than 1.5" in said
    assert summary([run("head", 0.85, 5)]) == [], "without auto there is nothing to say"


def test_means_are_over_sets_where_everyone_ran() -> None:
    from _auto_page import summary
    from _auto_sets import job_of

    runs = [run(item.name, 0.9 if item.name == "auto" else 0.8, 10) for item in job_of("sst2_100").contenders]
    runs += [run("auto", 0.1, 10, "amazon_books"), run("head", 0.7, 10, "amazon_books")]
    assert "- mean over the 1 sets that head goes on: auto 0.9000, head 0.8000" in summary(runs)


def test_every_set_has_auto_and_rows_without_a_test_row_among_them() -> None:
    from _auto_sets import SETS, books

    assert len({job.name for job in SETS}) == len(SETS) == 12
    for job in SETS:
        assert job.contenders[0].name == "auto" and len(job.contenders) > 3
    rows = books(ROOT.parent / "shared" / "data", 0)
    assert len(rows.train) > 500 and len(rows.test) > 200
    assert not {row["text"] for row in rows.train} & {row["text"] for row in rows.test[:50]}
