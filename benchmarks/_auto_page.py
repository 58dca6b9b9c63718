"""The page of auto.py: what auto chose, how good it is beside the best by name, and what that cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _auto_sets import AUTO, BY_NAME, CONTENDERS, SETS
from _common import environment_lines, table_lines
from _quality.jobs import Job

Run = Mapping[str, Any]
STALE = "†"
PRICE = 1.5  # times the cost of the method that won, at most


def page(plain: Mapping[str, Any], source: str) -> list[str]:
    """Markdown lines. `source`: what runs are made of now; those of another one are marked."""
    runs = plain["runs"]
    lines = [
        "# Choosing by trying, beside each method by name",
        "",
        "`--method auto` with no other option, and each method named, on the same rows: quality on the test rows (mean over "
        "the seeds, and the mean ends of the 95 % intervals), CPU seconds of the whole process. See ../README.md.",
        "",
        *summary(runs),
        "",
    ]
    for job in SETS:
        if any(run["job"] == job.name for run in runs):
            lines += [*job_lines(job, runs, source), ""]
    if any(run["source"] != source for run in runs):
        of = sorted({run["commit"] for run in runs if run["source"] != source})
        lines.append(f"- {STALE} of an earlier source: commit {', '.join(of)}")
    return [*lines, *environment_lines(plain["environment"])]


def of(runs: Sequence[Run], job: str, name: str) -> list[Run]:
    return [run for run in runs if (run["job"], run["contender"]) == (job, name)]


def mean(runs: Sequence[Run], metric: str, part: str = "value") -> float:
    return statistics.mean(run["metrics"][metric][part] for run in runs)


def spent(runs: Sequence[Run]) -> float:
    return statistics.mean(run["cpu_seconds"] for run in runs)


def best_of(job: Job, runs: Sequence[Run]) -> str | None:
    """Who is best of those that are named; None where auto or all of them are missing."""
    goal = job.goals[0]
    named = [name for name in CONTENDERS if name != AUTO and of(runs, job.name, name)]
    if not named or not of(runs, job.name, AUTO):
        return None
    sign = -1 if goal.lower else 1
    return max(named, key=lambda name: sign * mean(of(runs, job.name, name), goal.metric))


def summary(runs: Sequence[Run]) -> list[str]:
    lines, complete = [], []
    for job in SETS:
        best = best_of(job, runs)
        if best is None:
            continue
        metric, own, other = job.goals[0].metric, of(runs, job.name, AUTO), of(runs, job.name, best)
        value, held = mean(own, metric), (mean(own, metric, "low"), mean(own, metric, "high"))
        within = "within the noise of" if held[0] <= mean(other, metric) <= held[1] else "apart from"
        times = spent(own) / spent(other)
        price = "" if times <= PRICE else f", more than {PRICE:g}"
        lines.append(
            f"- {job.name}: auto {value:.4f} [{held[0]:.4f}, {held[1]:.4f}] is {within} the best by name, {best} "
            f"{mean(other, metric):.4f}; it cost {times:.1f} times as much{price}"
        )
        if all(of(runs, job.name, item.name) for item in job.contenders):
            complete.append(job)
    for name in BY_NAME:
        there = [job for job in complete if of(runs, job.name, name)]
        if there:
            ours, theirs = (
                statistics.mean(mean(of(runs, job.name, who), job.goals[0].metric) for job in there) for who in (AUTO, name)
            )
            lines.append(f"- mean over the {len(there)} sets that {name} goes on: auto {ours:.4f}, {name} {theirs:.4f}")
    return lines


def job_lines(job: Job, runs: Sequence[Run], source: str) -> list[str]:
    goal, rows = job.goals[0], []
    for item in job.contenders:
        found = of(runs, job.name, item.name)
        if not found:
            continue
        mark = f" {STALE}" if any(run["source"] != source for run in found) else ""
        chosen = sorted({str(run["derived"].get("method", "")) for run in found}) if item.name == AUTO else []
        low, high = mean(found, goal.metric, "low"), mean(found, goal.metric, "high")
        rows.append(
            [
                item.name + (f" ({', '.join(chosen)})" if any(chosen) else "") + mark,
                f"{mean(found, goal.metric):.4f} ({low:.4f} to {high:.4f})",
                " ".join(f"{run['metrics'][goal.metric]['value']:.4f}" for run in found),
                f"{spent(found):.0f}",
                f"{statistics.mean(run['peak_mb'] for run in found):,.0f}",
            ]
        )
    about = job.about.rstrip(".")
    heads = ["", goal.title, "by seed", "CPU s", "peak MB"]
    return [f"## {job.name}", "", f"{about}. Base: {job.base}.", "", *table_lines(heads, rows)]
