"""The page of forgetting.py: what each way loses of what the base knew, and whether a cure halves it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from _common import environment_lines, table_lines
from _forgetting.cases import AMAZON, ELSEWHERE, LETTERS, STORIES, TUNED_ON, case

Run = Mapping[str, Any]
STALE = "†"
POINT = 0.01  # of accuracy that a cure may cost
PART = 0.5  # of what full fine-tuning forgets that a cure may leave
ENOUGH = 0.002  # of accuracy: less lost elsewhere than this is nothing that could be halved


def page(plain: Mapping[str, Any], source: str) -> list[str]:
    """Markdown lines. `source`: what runs are made of now; those of another one are marked."""
    runs = plain["runs"]
    lines = ["# What fine-tuning forgets, and what holds it back", "", "Means over the seeds. See ../README.md.", ""]
    for name, build in ((AMAZON, amazon_lines), (STORIES, stories_lines)):
        if any(run["case"] == name for run in runs):
            lines += [*build(runs, source), ""]
    if any(run["source"] != source for run in runs):
        of = sorted({run["commit"] for run in runs if run["source"] != source})
        lines.append(f"- {STALE} of an earlier source: commit {', '.join(of)}")
    return [*lines, *environment_lines(plain["environment"])]


def of(runs: Sequence[Run], name: str, variant: str) -> list[Run]:
    """The runs of a variant that fit, by seed."""
    found = [run for run in runs if (run["case"], run["variant"]) == (name, variant) and "metrics" in run]
    return sorted(found, key=lambda run: run["seed"])


def titles(name: str, runs: Sequence[Run], source: str) -> dict[str, str]:
    """Of every variant that was measured, how it is called, and whether that is long ago."""
    found = {}
    for item in case(name).variants:
        mine = of(runs, name, item.name)
        if mine:
            found[item.name] = item.title + (f" {STALE}" if any(run["source"] != source for run in mine) else "")
    return found


def misfit_lines(name: str, runs: Sequence[Run]) -> list[str]:
    found = {run["variant"]: run["unfit"] for run in runs if run["case"] == name and "unfit" in run}
    return [f"- {variant} does not fit: {' '.join(why.split())}" for variant, why in found.items()]


def spent(mine: Sequence[Run]) -> list[str]:
    """Parameters that train, CPU seconds, peak megabytes."""
    return [
        f"{mine[0]['trainable']:,}",
        f"{statistics.mean(run['cpu_seconds'] for run in mine):.0f}",
        f"{max(run['peak_mb'] for run in mine):,.0f}",
    ]


def at_home(mine: Sequence[Run], part: str = "value") -> float:
    return statistics.mean(run["metrics"]["accuracy"][part] for run in mine)


def elsewhere(mine: Sequence[Run], names: Sequence[str] = ELSEWHERE) -> float:
    return statistics.mean(run["elsewhere"][name]["value"] for run in mine for name in names)


def neighbours_lost(mine: Sequence[Run]) -> float | None:
    """Share of the nearest neighbours of general texts that are no longer near; None where nothing could be lost."""
    read = [1 - run["kept"]["neighbours"] for run in mine if "neighbours" in run["kept"]]
    return statistics.mean(read) if read else None


def amazon_lines(runs: Sequence[Run], source: str) -> list[str]:
    rows, probe = [], of(runs, AMAZON, "head")
    for name, title in titles(AMAZON, runs, source).items():
        mine = of(runs, AMAZON, name)
        lost, shares = neighbours_lost(mine), [run["share"] for run in mine if run["share"] is not None]
        rows.append(
            [
                title,
                f"{at_home(mine):.4f} ({at_home(mine, 'low'):.4f} to {at_home(mine, 'high'):.4f})",
                " ".join(f"{run['metrics']['accuracy']['value']:.4f}" for run in mine),
                *(f"{elsewhere(mine, [other]):.4f}" for other in ELSEWHERE),
                f"{elsewhere(mine):.4f}",
                "" if lost is None else f"{100 * lost:.1f} %",
                f"{100 * (elsewhere(probe) - elsewhere(mine)):+.2f}" if probe else "",
                " ".join(f"{share:g}" for share in shares),
                *spent(mine),
            ]
        )
    head = ["", TUNED_ON, "by seed", *ELSEWHERE, "mean elsewhere", "neighbours lost", "points lost elsewhere", "base's share"]
    first = next(run for run in runs if run["case"] == AMAZON and "rows" in run)
    return [
        "## Reviews of products: tuned on one domain, asked in four others",
        "",
        f"all-MiniLM-L6-v2, sentiment; {first['rows']['train']:,} rows of {TUNED_ON} to train on, "
        f"{first['rows']['test']:,} to test on; of the other domains all rows, since nothing was trained on them. Texts are "
        "cut to 128 tokens. "
        "neighbours lost: of the nearest general texts of each general text, those that no longer are (the report's meter). "
        "points lost elsewhere: mean accuracy in the four domains below that of the head alone, which is what frozen "
        "features know. All that begins with full but for the second row starts from the same fitted head.",
        "",
        *table_lines([*head, "trained", "CPU s", "peak MB"], rows),
        "",
        *verdict_lines(runs),
        *misfit_lines(AMAZON, runs),
    ]


def verdict_lines(runs: Sequence[Run]) -> list[str]:
    """By each definition, whether a cure halves what full forgets for a point at home at most."""
    full, probe = of(runs, AMAZON, "full"), of(runs, AMAZON, "head")
    if not full or not probe:
        return []

    def by_meter(mine: Sequence[Run]) -> float:
        lost = neighbours_lost(mine)
        return 0.0 if lost is None else lost

    def by_domains(mine: Sequence[Run]) -> float:
        return elsewhere(probe) - elsewhere(mine)

    return [
        verdict(runs, "By the meter (neighbours lost)", "%", by_meter),
        verdict(runs, "By the other domains (points lost beside the head alone)", "points", by_domains),
    ]


def verdict(runs: Sequence[Run], title: str, unit: str, forgotten: Callable[[Sequence[Run]], float]) -> str:
    full = of(runs, AMAZON, "full")
    whole = forgotten(full)
    if whole < ENOUGH:
        return f"- {title}: full loses {100 * whole:.2f} {unit}, so there is nothing that could be halved."
    said, any_does = [], False
    for item in case(AMAZON).variants:
        mine = of(runs, AMAZON, item.name)
        if not item.cure or not mine:
            continue
        left, cost = forgotten(mine), at_home(full) - at_home(mine)
        halved = left <= PART * whole + 1e-9  # differences of shares are not exact in their last digits
        does = halved and cost <= POINT + 1e-9
        any_does |= does
        why = "" if does else " (costs too much)" if halved else " (not halved)"
        said.append(f"{item.title} {100 * left:.2f} {unit} for {100 * cost:+.2f} points{why}")
    which = "one at least" if any_does else "none"
    verb = f"of {len(said)} cures, all shown here and none chosen beforehand, {which} halves it for at most a point at home"
    return f"- {title}: full loses {100 * whole:.2f} {unit}; {verb}: {'; '.join(said)}."


def rise(run: Run, which: str) -> float:
    return run["kept"][f"{which}_after"] / run["kept"][f"{which}_before"] - 1


def stories_lines(runs: Sequence[Run], source: str) -> list[str]:
    rows = []
    for name, title in titles(STORIES, runs, source).items():
        mine = of(runs, STORIES, name)
        read = [run for run in mine if "general_before" in run["kept"]]
        cells = ["", "", ""]
        if read:
            before, after = (statistics.mean(run["kept"][f"general_{when}"] for run in read) for when in ("before", "after"))
            cells = [f"{before:.1f}", f"{after:.1f}", f"{100 * statistics.mean(rise(run, 'general') for run in read):+.0f} %"]
        rows.append(
            [
                title,
                f"{statistics.mean(run['metrics']['perplexity']['value'] for run in mine):.2f}",
                " ".join(f"{run['metrics']['perplexity']['value']:.2f}" for run in mine),
                *cells,
                " ".join(f"{run['share']:g}" for run in mine if run["share"] is not None),
                *spent(mine),
            ]
        )
    head = ["", "test perplexity", "by seed", "own stories before", "after", "rise", "base's share"]
    return [
        "## A decoder of 260,000 parameters that wrote stories, tuned on plays",
        "",
        f"stories260K on the first {LETTERS:,} characters of tinyshakespeare: four fifths to train on, a tenth to validate, "
        "a tenth to test; 3 epochs, full at the rate 0.002, lora, norms, prompt and prefix at the better of two by their "
        "validation perplexity, the others at one that was not chosen (_forgetting/cases.py). General text: stories "
        "that the untouched base wrote itself, of which those that are learned from or held to are others than those that "
        "are measured.",
        "",
        *table_lines([*head, "trained", "CPU s", "peak MB"], rows),
        "",
        *budget_lines(runs),
        *misfit_lines(STORIES, runs),
    ]


def budget_lines(runs: Sequence[Run]) -> list[str]:
    """Whether the limit was kept, in the report's words and by the perplexities that it prints."""
    mine = [run for run in of(runs, STORIES, "budget") if "general_before" in run["kept"]]
    if not mine:
        return []
    limit = 0.25
    kept = [run for run in mine if rise(run, "general") <= limit]
    rises = ", ".join(f"{100 * rise(run, 'general'):+.0f} %" for run in mine)
    said = sorted({note for run in mine for note in run["notes"] if note.startswith("the budget")})
    return [
        f"- The budget of {100 * limit:.0f} % was honoured on its own stories in {len(kept)} of {len(mine)} runs (rise by "
        f"seed: {rises}). The reports say: {'; '.join(said)}."
    ]
