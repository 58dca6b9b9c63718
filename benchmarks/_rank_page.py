"""The page of rank.py: how well each score orders bases as fine-tuning does, and the figures that say so."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _common import environment_lines, table_lines
from _rank_made import BASES, SETS

Run = Mapping[str, Any]
RANK, TUNED = "rank", "tuned"
SCORES = {
    "linear": "linear (decides)",
    "probe": "last",
    "depths": "all depths",
    "nearest": "nearest rows",
    "logme": "LogME",
    "h_score": "H-score",
}
DECIDES = "linear"
WANTED = 0.8
LOOKED_AT = ("banking77", "sst2", "goemotions")  # when the rule was chosen
LEAST = 3  # bases of a set, for its tau to count
STALE = "†"


def taus(plain: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Set -> score -> weighted Kendall tau with the fine-tuned quality, of the bases that have both."""
    from scipy.stats import weightedtau

    found: dict[str, dict[str, float]] = {}
    for item in SETS:
        scored, quality = ranked_of(plain["runs"], item.name), quality_of(plain["runs"], item.name)
        if scored is None:
            continue
        for score in SCORES:
            names = [name for name, of in scored["bases"].items() if of[score] is not None and name in quality]
            if len(names) >= LEAST:
                values = [scored["bases"][name][score]["value"] for name in names]
                tau = weightedtau(values, [quality[name]["value"] for name in names]).statistic
                found.setdefault(item.name, {})[score] = float(tau)
    return found


def ranked_of(runs: Sequence[Run], name: str) -> Run | None:
    return next((run for run in runs if run["set"] == name and run["what"] == RANK), None)


def quality_of(runs: Sequence[Run], name: str) -> dict[str, dict[str, float]]:
    """Base -> mean over the seeds of the test metric and of the ends of its intervals."""
    by_base: dict[str, list[Run]] = {}
    for run in runs:
        if run["set"] == name and run["what"] == TUNED and "value" in run:
            by_base.setdefault(run["base"], []).append(run)
    return {
        base: {part: statistics.mean(run[part] for run in of) for part in ("value", "low", "high")}
        for base, of in by_base.items()
    }


def page(plain: Mapping[str, Any], source: str) -> list[str]:
    """Markdown lines. `source`: what runs are made of now; those of another one are marked."""
    found = taus(plain)
    lines = [
        "# Do scores order bases as fine-tuning them does?",
        "",
        "Each base is scored by `tunesmith rank` on the training rows, as it is; then it is fine-tuned on the same rows "
        "(full, defaults) and measured on test rows. Weighted Kendall tau (scipy's `weightedtau`: the best bases count most) "
        "between score and fine-tuned quality, 1 for the same order. See ../README.md.",
        "",
        *partial_lines(plain, found),
        "The rule that decides was chosen while banking77, sst2 and goemotions were looked at, so that these flatter it; the "
        "other sets were measured afterwards.",
        "",
        *verdict_lines(found),
        "",
        *tau_lines(found),
        "",
    ]
    for item in SETS:
        if ranked_of(plain["runs"], item.name) is not None:
            lines += [*set_lines(plain["runs"], item.name, source), ""]
    lines += [f"- {base.name}: {base.about}" for base in BASES]
    if any(run["source"] != source for run in plain["runs"]):
        lines.append(f"- {STALE} of an earlier source")
    return [*lines, *environment_lines(plain["environment"])]


def partial_lines(plain: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is not measured yet."""
    lacking = [item.name for item in SETS if item.name not in found]
    short = [
        f"{item.name} ({len(done)} of {len(BASES)} bases)"
        for item in SETS
        if (done := {run["base"] for run in plain["runs"] if run["set"] == item.name and run["what"] == TUNED})
        and len(done) < len(BASES)
    ]
    if not lacking and not short:
        return []
    said = [*([f"not measured: {', '.join(lacking)}"] if lacking else []), *short]
    return [f"**Partial**: {'; '.join(said)}.", ""]


def verdict_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    means = mean_of(found)
    if DECIDES not in means:
        return ["Nothing to compare yet."]
    value = means[DECIDES]
    word = "reached" if value >= WANTED else "not reached"
    fresh = [of[DECIDES] for name, of in found.items() if name not in LOOKED_AT and DECIDES in of]
    apart = f" On the {len(fresh)} that were not looked at: {statistics.mean(fresh):.3f}." if fresh else ""
    return [
        f"Mean over {len(found)} sets of the score that decides (the better of two linear maps): **{value:.3f}**; wanted: at "
        f"least {WANTED:g}: {word}.{apart}"
    ]


def mean_of(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    means = {}
    for score in SCORES:
        values = [of[score] for of in found.values() if score in of and not math.isnan(of[score])]
        if values:
            means[score] = statistics.mean(values)
    return means


def tau_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = [[name, *(f"{of[score]:.3f}" if score in of else "-" for score in SCORES)] for name, of in found.items()]
    means = mean_of(found)
    rows.append(["mean", *(f"{means[score]:.3f}" if score in means else "-" for score in SCORES)])
    return table_lines(["set", *SCORES.values()], rows)


def set_lines(runs: Sequence[Run], name: str, source: str) -> list[str]:
    item = next(item for item in SETS if item.name == name)
    scored, quality = ranked_of(runs, name), quality_of(runs, name)
    assert scored is not None
    tuned = [run for run in runs if run["set"] == name and run["what"] == TUNED]
    rows = []
    for base, of in scored["bases"].items():
        own = [run for run in tuned if run["base"] == base]
        mark = STALE if any(run["source"] != source for run in own) else ""
        value = quality.get(base)
        rows.append(
            [
                base + mark,
                "-" if value is None else f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]",
                *("-" if of[score] is None else f"{of[score]['value']:.3f}" for score in SCORES),
                f"{of['cpu_seconds_in_all']:.1f}",
                f"{statistics.mean(run['cpu_seconds'] for run in own):.1f}" if own else "-",
            ]
        )
    rows += [
        [base, f"does not fit: {said[0][:60]}", *["-"] * len(SCORES), "-", "-"]
        for base, said in scored["refused"].items()
    ]
    seeds = sorted({run["seed"] for run in tuned})
    head = ["base", f"fine-tuned {scored['metric']}", *SCORES.values(), "CPU s, rank", "CPU s, fine-tuning"]
    said = f"## {name}: {item.about}"
    of = f"fine-tuned with seed {', '.join(map(str, seeds))}"
    rows_said = f"{scored['rows']} training rows without those for validation; {of}."
    return [said, "", rows_said, "", *table_lines(head, rows)]
