"""The page of quality.py: what was wanted and reached, and a table a job."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _common import environment_lines, table_lines
from _quality.jobs import JOBS, Contender, Goal, Job

BUSY = 0.2  # cores: with more of them taken by other processes, a figure is marked as disturbed
STALE, DISTURBED = "†", "‡"


def page(plain: Mapping[str, Any], current: Mapping[tuple[str, str], str]) -> list[str]:
    """Markdown lines. `current`: the source of each (job, contender) now; runs of another one are marked."""
    runs = plain["runs"]
    done = [job for job in JOBS if any(run["job"] == job.name for run in runs)]
    lines = [
        "# Quality beside what a user would pick instead",
        "",
        "Equal rows and equal base on all sides. Values: mean over the seeds, and the mean ends of the 95 % bootstrap "
        "intervals over the test rows. CPU seconds (all threads), wall seconds and peak resident memory: those of the whole "
        "process, Tunesmith's with its baselines, checkpoints, report and the check of the saved model. See ../README.md.",
        "",
        *summary_lines(done, runs),
        "",
    ]
    for job in done:
        lines += [*job_lines(job, runs, current), ""]
    if any(stale(run, current) for run in runs):
        lines.append(f"- {STALE} of an earlier source: commit {', '.join(_commits(runs, current))}")
    if disturbed(runs):
        lines.append(
            f"- {DISTURBED} other processes kept more than {BUSY:g} cores busy: wall seconds are too high, and CPU seconds "
            "too where a run has several threads"
        )
    threads = sorted({run["threads"] for run in runs})
    lines += [f"- Threads: {', '.join(map(str, threads))}", *environment_lines(plain["environment"])]
    return lines


def of(job: Job, contender: Contender, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs of a contender in a job, by seed."""
    found = [run for run in runs if run["job"] == job.name and run["contender"] == contender.name]
    return sorted(found, key=lambda run: run["seed"])


def mean(runs: Sequence[Mapping[str, Any]], metric: str, part: str = "value") -> float:
    return statistics.mean(run["metrics"][metric][part] for run in runs)


def summary_lines(jobs: Sequence[Job], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a goal: Tunesmith, what was wanted, and the best of the peers."""
    rows = []
    for job in jobs:
        own = next((item for item in job.contenders if item.ours and of(job, item, runs)), None)
        if own is None:
            continue
        mine = of(job, own, runs)
        for goal in job.goals:
            if not goal.words and goal is not job.goals[0]:
                continue
            value = mean(mine, goal.metric)
            peer = best_peer(job, goal, runs)
            rows.append(
                [
                    job.name,
                    goal.title,
                    goal.words,
                    f"{value:.4f}",
                    {None: "", True: "yes", False: "no"}[goal.reached(value, _untuned(job, goal, runs))],
                    "none" if peer is None else peer.title,
                    "" if peer is None else f"{mean(of(job, peer, runs), goal.metric):.4f}",
                    f"{_seconds(mine):.0f}",
                    "" if peer is None else f"{_seconds(of(job, peer, runs)):.0f}",
                ]
            )
    head = ["job", "metric", "wanted", "Tunesmith", "reached", "best peer", "its value", "CPU s", "its CPU s"]
    return table_lines(head, rows, text_columns=3)


def _untuned(job: Job, goal: Goal, runs: Sequence[Mapping[str, Any]]) -> float | None:
    """What the untouched base has, where it is a contender."""
    there = [item for item in job.contenders if item.name == "untuned" and of(job, item, runs)]
    return mean(of(job, there[0], runs), goal.metric) if there else None


def best_peer(job: Job, goal: Goal, runs: Sequence[Mapping[str, Any]]) -> Contender | None:
    there = [item for item in job.contenders if not item.ours and of(job, item, runs)]
    sign = -1 if goal.lower else 1
    return max(there, key=lambda item: sign * mean(of(job, item, runs), goal.metric), default=None)


def _seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(run["cpu_seconds"] for run in runs)


def job_lines(job: Job, runs: Sequence[Mapping[str, Any]], current: Mapping[tuple[str, str], str]) -> list[str]:
    rows = []
    for contender in job.contenders:
        mine = of(job, contender, runs)
        if not mine:
            continue
        cells = [contender.title + (f" {STALE}" if any(stale(run, current) for run in mine) else "")]
        for goal in job.goals:
            low, high = (mean(mine, goal.metric, part) for part in ("low", "high"))
            cells.append(f"{mean(mine, goal.metric):.4f} ({low:.4f} to {high:.4f})")
        first = job.goals[0].metric
        cells += [
            " ".join(f"{run['metrics'][first]['value']:.4f}" for run in mine),
            ", ".join(str(run["seed"]) for run in mine),
            f"{_seconds(mine):.0f}",
            f"{statistics.mean(run['wall_seconds'] for run in mine):.0f}"
            + (f" {DISTURBED}" if disturbed(mine) else ""),
            f"{max(run['peak_mb'] for run in mine):,.0f}",
        ]
        rows.append(cells)
    head = [
        "",
        *(goal.title for goal in job.goals),
        f"{job.goals[0].title} by seed",
        "seeds",
        "CPU s",
        "wall s",
        "peak MB",
    ]
    wanted = [f"{goal.title} of {goal.words}" for goal in job.goals if goal.words]
    return [
        f"## {job.name}",
        "",
        f"{job.about}. Base: {job.base}. Rows: {rows_words(job, runs)}."
        + (f" Wanted: {' and '.join(wanted)}." if wanted else ""),
        "",
        *table_lines(head, rows),
        "",
        *note_lines(job, runs),
    ]


def rows_words(job: Job, runs: Sequence[Mapping[str, Any]]) -> str:
    """How many rows each side had, of its first run."""
    said = []
    for who, ours in (("Tunesmith", True), ("peers", False)):
        counts = [run["rows"] for item in job.contenders if item.ours is ours for run in of(job, item, runs)]
        if counts and job.kind != "language":
            said.append(f"{who} {', '.join(f'{count:,} {name}' for name, count in counts[0].items())}")
    return "; ".join(said) if said else "one text a split"


def note_lines(job: Job, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rivals inside Tunesmith's own report reached, and what else there is to say."""
    lines = []
    for contender in (item for item in job.contenders if item.ours):
        mine = of(job, contender, runs)
        found: dict[str, list[float]] = {}
        for run in mine:
            for name, metrics in run["baselines"].items():
                found.setdefault(name, []).append(metrics[job.goals[0].metric])
        if found:
            said = ", ".join(f"{name} {statistics.mean(values):.4f}" for name, values in found.items())
            lines.append(f"- Baselines in the reports of {contender.title}, mean {job.goals[0].title}: {said}")
        lines += [f"- {contender.title}, seed {run['seed']}: {note}" for run in mine for note in run["notes"]]
    return lines


def stale(run: Mapping[str, Any], current: Mapping[tuple[str, str], str]) -> bool:
    return run["source"] != current.get((run["job"], run["contender"]))


def disturbed(runs: Sequence[Mapping[str, Any]]) -> bool:
    return any(run["cores_of_others"] > BUSY for run in runs)


def _commits(runs: Sequence[Mapping[str, Any]], current: Mapping[tuple[str, str], str]) -> list[str]:
    return sorted({run["commit"] for run in runs if stale(run, current)})
