"""The page of methods.py: a table a job, how the rates were chosen, and what follows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _common import environment_lines, table_lines
from _methods.choice import FINAL, MANY, TIMES, at_chance, at_edge, by_default, chosen, tried, unfit
from _methods.ways import MEASURES, VARIED_ON, WAYS, Measure, Way

Run = Mapping[str, Any]
STALE, EDGE = "†", "*"
NEAR = 0.10  # by which prompt and prefix may be below LoRA
COMPARED_ON = "sst2"


def page(plain: Mapping[str, Any], source: str) -> list[str]:
    """Markdown lines. `source`: what runs are made of now; those of another one are marked."""
    runs = plain["runs"]
    done = [item for item in MEASURES if any(run["job"] == item.name for run in runs)]
    lines = [
        "# Every way to fine-tune, beside the others",
        "",
        "Of each method its own rate, a third and three times it were tried with seed 0, and the best on the validation rows "
        f"was taken (on 1,000 training rows where there are more than {MANY:,}; test rows were not there). Then each "
        f"seed, on the rows named below; variants of a method on {VARIED_ON} alone. Quality: mean over the seeds, and the "
        "mean ends of the 95 % bootstrap intervals over the test rows. stored: the adapter where there is one, else the "
        "model. CPU seconds and peak resident memory: of the whole process, without baselines. neighbours, CKA: what is "
        "left of which general texts the base holds near to each other. See ../README.md.",
        "",
        *near_lines(runs),
        *chance_lines(done, runs),
        "",
    ]
    for item in done:
        lines += [*job_lines(item, runs, source), ""]
    if any(run["source"] != source for run in runs):
        of = sorted({run["commit"] for run in runs if run["source"] != source})
        lines.append(f"- {STALE} of an earlier source: commit {', '.join(of)}")
    lines.append(f"- {EDGE} the best rate is the lowest or the highest that was tried")
    return [*lines, *environment_lines(plain["environment"])]


def finals(runs: Sequence[Run], job: str, way: str) -> list[Run]:
    """Those that were measured with the rate that was chosen, by seed."""
    found = [run for run in runs if (run["job"], run["way"], run["what"]) == (job, way, FINAL) and "metrics" in run]
    best = chosen(tried(runs, job, way))
    return sorted((run for run in found if best and run["rate"] == best["rate"]), key=lambda run: run["seed"])


def mean(runs: Sequence[Run], metric: str, part: str = "value") -> float:
    return statistics.mean(run["metrics"][metric][part] for run in runs)


def near_lines(runs: Sequence[Run]) -> list[str]:
    """Whether prompt and prefix come near to LoRA."""
    found = {name: finals(runs, COMPARED_ON, name) for name in ("lora", "prompt", "prefix")}
    if not all(found.values()):
        return []
    values = {name: mean(mine, "accuracy") for name, mine in found.items()}
    said = []
    for name in ("prompt", "prefix"):
        below = values["lora"] - values[name]
        within = "within" if below <= NEAR else "not within"
        said.append(f"{name} {values[name]:.4f}, {100 * below:.1f} points below: {within} {100 * NEAR:.0f}")
    seeds = ", ".join(f"{name} {len(mine)}" for name, mine in found.items())
    return [f"- On {COMPARED_ON} LoRA reaches {values['lora']:.4f}; {'; '.join(said)} (seeds: {seeds})."]


def chance_lines(done: Sequence[Measure], runs: Sequence[Run]) -> list[str]:
    """Which methods, as they are, do no better on the validation rows than saying the same of every one."""
    stand, tested = [], 0
    for item in done:
        for way in WAYS:
            own = by_default(tried(runs, item.name, way.name))
            if own is not None:
                tested += 1
                if at_chance(own):
                    stand.append(f"{way.title} on {item.name} ({own['value']:.4f}; chance is {own['chance']:.4f})")
    if stand:
        return [f"- At its own rate stands at chance on the validation rows: {'; '.join(stand)}."]
    return [f"- At its own rate no method stands at chance on the validation rows, of {tested} tried."]


def job_lines(item: Measure, runs: Sequence[Run], source: str) -> list[str]:
    job, found, misfits = item.job, [], []
    for way in WAYS:
        mine, there = finals(runs, item.name, way.name), tried(runs, item.name, way.name)
        why = unfit(run for run in runs if (run["job"], run["way"]) == (item.name, way.name))
        if why is not None:
            misfits.append(f"- {way.title} does not fit: {' '.join(why.split())}")
        elif mine:
            found.append((mean(mine, job.goals[0].metric), row_of(item, way, mine, there, source)))
    found.sort(key=lambda pair: -pair[0])
    head = ["", job.goals[0].title, "by seed", "rate", "epochs kept", "trained", "stored MB", "CPU s", "peak MB"]
    head += ["neighbours", "CKA"]
    lines = [f"## {item.name}", "", f"{item.about}. Base: {job.base}.{rows_words(item, runs)}", ""]
    if found:
        lines += [*table_lines(head, [row for _, row in found]), ""]
    return [*lines, *choice_lines(item, runs), "", *misfits]


def rows_words(item: Measure, runs: Sequence[Run]) -> str:
    counts = next((run["rows"] for run in runs if run["job"] == item.name and "rows" in run), None)
    return "" if counts is None else f" Rows: {', '.join(f'{count:,} {name}' for name, count in counts.items())}."


def row_of(item: Measure, way: Way, mine: Sequence[Run], there: Sequence[Run], source: str) -> list[str]:
    goal, best = item.job.goals[0], chosen(there)
    assert best is not None, "what was measured had a rate"
    low, high = (mean(mine, goal.metric, part) for part in ("low", "high"))
    stale = any(run["source"] != source for run in [*mine, *there])
    kept = [run["kept"] for run in mine if "neighbours" in run["kept"]]
    return [
        way.title + (f" {STALE}" if stale else ""),
        f"{mean(mine, goal.metric):.4f} ({low:.4f} to {high:.4f})",
        " ".join(f"{run['metrics'][goal.metric]['value']:.4f}" for run in mine),
        f"{best['rate']:.3g}{f' {EDGE}' if at_edge(there) else ''}",
        f"{statistics.mean(run['epoch'] for run in mine):.3g}",
        f"{mine[0]['trainable']:,}",
        f"{mine[0]['stored_mb']:.2f}",
        f"{statistics.mean(run['cpu_seconds'] for run in mine):.0f}",
        f"{max(run['peak_mb'] for run in mine):,.0f}",
        f"{100 * statistics.mean(one['neighbours'] for one in kept):.0f} %" if kept else "",
        f"{statistics.mean(one['cka'] for one in kept):.2f}" if kept else "",
    ]


def choice_lines(item: Measure, runs: Sequence[Run]) -> list[str]:
    """What each rate gave on the validation rows."""
    rows, rest = [], []
    for way in WAYS:
        found = tried(runs, item.name, way.name)
        if not found or unfit(found):
            continue
        best, by_times, cells = chosen(found), {run["times"]: run for run in found}, []
        for times in sorted(TIMES):
            run = by_times.get(times)
            if run is None or run.get("value") is None:
                cells.append("" if run is None else "failed")
                continue
            cells.append(f"{run['rate']:.3g}: {run['value']:.4f} ({run['loss']:.4f})")
        own = by_default(found)
        verdict = "" if own is None else "at chance" if at_chance(own) else "above"
        taken = "" if best is None else f"{best['rate']:.3g}{f' {EDGE}' if at_edge(found) else ''}"
        rows.append([way.title, *cells, taken, verdict])
        rest += [run for run in found if run.get("value") is not None]
    if not rest:
        return []
    chance, trained = rest[0]["chance"], rest[0]["train_rows"]
    return [
        f"Choosing on {trained:,} training rows with seed 0, by validation {rest[0]['metric']} (and loss) of the checkpoint "
        f"that is kept; saying the same of every row gives {chance:.4f}:",
        "",
        *table_lines(["", "a third", "its own rate", "3 times", "taken", "its own: chance"], rows),
    ]
