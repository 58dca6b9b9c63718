"""The page of rate.py: what each rate of a grid gives on the test rows, and what is given up by what is found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _common import environment_lines, table_lines

Run = Mapping[str, Any]
STALE = "†"
FOUND = "found"  # times the documented rate
HALVES = 4  # half steps of three to each side
GRID = tuple(3 ** (half / 2) for half in range(-HALVES, HALVES + 1))
WANTED = 0.005  # at most given up, on the mean


def page(plain: Mapping[str, Any], source: str) -> list[str]:
    """Markdown lines. `source`: what runs are made of now; those of another one are marked."""
    runs = plain["runs"]
    lines = [
        "# Finding a learning rate, beside trying every one",
        "",
        f"Quality on the test rows with each of {len(GRID)} rates, from a ninth of the documented one to nine times it; "
        "**bold** what `tunesmith rate` found, without looking at them. Given up: against the best of the grid by the test "
        "rows themselves, which luck flatters, against the one that is best on the validation rows, as who tries all would "
        "take it, and by the documented rate. CPU seconds: of the trials, and of the whole grid. See ../README.md.",
        "",
        *summary(runs),
        "",
        *table(runs, source),
        "",
    ]
    if any(run["source"] != source for run in runs):
        lines += [f"- {STALE} of an earlier source: commit {', '.join(sorted({run['commit'] for run in runs}))}"]
    return [*lines, *environment_lines(plain["environment"])]


def pairs_of(runs: Sequence[Run]) -> list[tuple[str, int]]:
    """Pairs and seeds with all runs."""
    found = dict.fromkeys((run["pair"], run["seed"]) for run in runs)
    return [one for one in found if len(of(runs, one)) == len(GRID) and found_of(runs, one) is not None]


def of(runs: Sequence[Run], one: tuple[str, int]) -> list[Run]:
    """The grid's runs, from the lowest rate on."""
    grid = [run for run in runs if (run["pair"], run["seed"]) == one and run["times"]]
    return sorted(grid, key=lambda run: run["times"])


def found_of(runs: Sequence[Run], one: tuple[str, int]) -> Run | None:
    return next((run for run in runs if (run["pair"], run["seed"]) == one and not run["times"]), None)


def tested(run: Run) -> float:
    return run["metrics"][run["goal"]["metric"]]["value"]


def near(grid: Sequence[Run], times: float) -> Run:
    """The run with that rate, or, beyond the grid, with the last one."""
    return min(grid, key=lambda run: abs(run["times"] / times - 1))


def regrets(runs: Sequence[Run], one: tuple[str, int]) -> tuple[float, float, float, float]:
    """What the found rate gives up against the best by the test rows, against the best by the validation rows; what the
    best by the validation rows, and the documented rate, give up against the best by the test rows."""
    grid, found = of(runs, one), found_of(runs, one)
    assert found is not None, "of pairs with all runs"
    best = max(tested(run) for run in grid)
    held = max(grid, key=lambda run: (run["validation"]["value"], -run["validation"]["loss"]))
    own = tested(near(grid, found[FOUND]))
    return best - own, tested(held) - own, best - tested(held), best - tested(near(grid, 1.0))


def summary(runs: Sequence[Run]) -> list[str]:
    whole = pairs_of(runs)
    if not whole:
        return []
    given = [regrets(runs, one) for one in whole]
    names = (
        "the found rate gives up, against the best by the test rows",
        "the found rate gives up, against the best by the validation rows",
        "the best by the validation rows gives up, against the best by the test rows",
        "the documented rate gives up, against the best by the test rows",
    )
    lines = []
    for place, name in enumerate(names):
        values = [item[place] for item in given]
        lines.append(
            f"- {name}: {100 * statistics.mean(values):+.2f} points on the mean of {len(values)}, at most "
            f"{100 * max(values):+.2f}"
        )
    spent = [(found_of(runs, one) or {})["cpu_seconds"] for one in whole]
    grids = [sum(run["cpu_seconds"] for run in of(runs, one)) for one in whole]
    lines.append(f"- it cost {sum(spent):.0f} CPU seconds, the grids {sum(grids):.0f}: {sum(spent) / sum(grids):.2f} times")
    return lines


def table(runs: Sequence[Run], source: str) -> list[str]:
    rows = []
    for one in dict.fromkeys((run["pair"], run["seed"]) for run in runs):
        grid, found = of(runs, one), found_of(runs, one)
        if found is None or not grid:
            continue
        stale = f" {STALE}" if any(run["source"] != source for run in (*grid, found)) else ""
        taken = near(grid, found[FOUND])
        by_times = {round(run["times"], 6): run for run in grid}
        cells = []
        for times in GRID:
            run = by_times.get(round(times, 6))
            said = "" if run is None else f"{tested(run):.4f}"
            cells.append(f"**{said}**" if run is taken else said)
        whole = one in pairs_of(runs)
        given = [f"{100 * value:+.2f}" for value in regrets(runs, one)[:2]] if whole else ["", ""]
        rows.append(
            [
                f"{one[0]}, {grid[0]['goal']['title']}{stale}", f"{found['documented']:.3g}", *cells, *given,
                f"{found['cpu_seconds']:.0f}", f"{sum(run['cpu_seconds'] for run in grid):.0f}",
            ]
        )  # fmt: skip
    heads = ["", "documented", *(f"x {times:.3g}" for times in GRID), "by test", "by validation", "CPU s", "grid"]
    return table_lines(heads, rows)
