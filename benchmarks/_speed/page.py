"""throughput.md: the table of ratios first, then every contender, then what belongs to one kind of work alone."""

from __future__ import annotations

from collections.abc import Sequence

from _common import Spread, environment_lines, table_lines

from .scaling import AXES
from .summary import CLOCKS
from .turns import Plain
from .works import DEFAULTS, OURS, TUNED, WORKS

BUSY = 0.2  # cores: with more of them taken by other processes, a figure is marked as disturbed
NOTHING = "-"


def page(plain: Plain) -> list[str]:
    trial = ["**A trial on few rows: no figure here says anything of speed.**", ""] if plain["trial"] else []
    return [
        "# Speed",
        "",
        *trial,
        f"{plain['model']} on {plain['data']}. Ratio: a peer's time over Tunesmith's, of the medians (least and most of the "
        f"rounds; rounds: {plain['rounds']}). What is inside each clock, and what is not equal: ../README.md.",
        "",
        *ratio_lines(plain["summary"]),
        "",
        *disturbed_lines(plain["measured"]),
        "## Every contender",
        "",
        *contender_lines(plain["summary"], plain["measured"]),
        "",
        *[f"- {line}" for line in job_lines(plain["jobs"])],
        "",
        *phase_lines(plain["measured"]),
        *prediction_lines(plain["measured"]),
        *quality_lines(plain["measured"], plain["jobs"]),
        *scaling_lines(plain["measured"], plain["lines"]),
        *[f"- Not installed, and left out: {name} ({', '.join(packages)})" for name, packages in plain["missing"].items()],
        *environment_lines(plain["environment"]),
    ]


def ratio_lines(summary: Sequence[Plain]) -> list[str]:
    """Work by work against both forms of the peer, and what is wanted."""
    head = ["work", "defaults, CPU", "defaults, wall", "tuned, CPU", "tuned, wall", "wanted (defaults, tuned)"]
    rows = []
    for work in WORKS:
        parts = {entry["part"]: entry for entry in summary if entry["work"] == work.name}
        if DEFAULTS not in parts:
            continue
        told = [part for part in parts if not parts[OURS]["missed"]]
        cells = [ratio(parts[part], clock) if part in told else NOTHING for part in (DEFAULTS, TUNED) for clock in CLOCKS]
        wanted = [NOTHING if value is None else f"{value:g}" for value in (work.wanted_defaults, work.wanted_tuned)]
        notes = dict.fromkeys(parts[part]["extrapolated"] for part in (DEFAULTS, TUNED) if part in parts)
        note = "".join(f", peers extrapolated {text}" for text in notes if text)
        rows.append([f"{work.said}{note}", *cells, ", ".join(wanted)])
    return table_lines(head, rows) if rows else ["No work with a peer was measured."]


def ratio(entry: Plain, clock: str) -> str:
    if entry["missed"]:
        return "not reached"
    return ("at least " if entry["at_least"] else "") + Spread(**entry[f"{clock}_ratio"]).text(2)


def contender_lines(summary: Sequence[Plain], measured: Sequence[Plain]) -> list[str]:
    head = ["work", "contender", "numbers, threads", "CPU s", "wall s", "CPU ratio", "wall ratio"]
    precision = {(item["work"], item["contender"]): computed_with(item) for item in measured}
    rows = []
    for entry in summary:
        own = entry["part"] == OURS
        times = [Spread(**entry[clock]).text() for clock in CLOCKS]
        ratios = ["1" if own else ratio(entry, clock) for clock in CLOCKS]
        rows.append([entry["work"], entry["contender"], precision[entry["work"], entry["contender"]], *times, *ratios])
    return table_lines(head, rows, text_columns=3)


def computed_with(item: Plain) -> str:
    """Number format and, where a contender says so, threads."""
    return ", ".join(str(item[key]) for key in ("precision", "threads") if key in item) or NOTHING


def job_lines(jobs: dict[str, Plain]) -> list[str]:
    """What was done, of the works that train on encoded rows."""
    return [
        f"{name}: {job['rows']:,} rows of {job['tokens_a_row']} tokens, {job['classes']} classes, batches of "
        f"{job['batch_size']}, {job['epochs']} epoch{'s' if job['epochs'] > 1 else ''}, {job['steps']:,} steps"
        + (f" ({job['settings']} settings, the frozen outputs once)" if "settings" in job else "")
        for name, job in jobs.items()
        if "tokens_a_row" in job
    ]


def phase_lines(measured: Sequence[Plain]) -> list[str]:
    own = [item for item in measured if item.get("phases") and item["part"] == OURS]
    if not own:
        return []
    chosen = []
    for work in dict.fromkeys(item["work"] for item in own):
        rounds = sorted((item for item in own if item["work"] == work), key=lambda item: item["cpu_seconds"])
        chosen.append(rounds[(len(rounds) - 1) // 2])
    names = list(dict.fromkeys(name for item in chosen for name in item["phases"]))
    rows = [
        [item["work"], *(f"{item['phases'][name][0]:.2f}" if name in item["phases"] else NOTHING for name in names)]
        for item in chosen
    ]
    return ["Where Tunesmith's time goes, in CPU seconds of the median round:", "", *table_lines(["work", *names], rows), ""]


def prediction_lines(measured: Sequence[Plain]) -> list[str]:
    """By the median round of each contender, the most rows a CPU second first."""
    found = [item for item in measured if item["work"] == "prediction"]
    if not found:
        return []
    rows = []
    for name in dict.fromkeys(item["contender"] for item in found):
        own = [item for item in found if item["contender"] == name]
        cpu, wall = (Spread.of([item["texts"] / item[f"{clock}_seconds"] for item in own]) for clock in CLOCKS)
        last = own[-1]
        agree = f"{100 * last['agreement']:.2f} %"
        rows.append((cpu.median, [name, cpu.text(0), wall.text(0), f"{last['latency_ms']:.1f}", agree]))
    rows.sort(key=lambda row: -row[0])
    head = ["contender", "rows a CPU second", "rows a second", "one text, ms", "same label as float32"]
    return [
        "## Prediction",
        "",
        f"{found[0]['texts']:,} texts by one delivered model; one text: the median of 50, by the clock.",
        "",
        *table_lines(head, [cells for _, cells in rows]),
        "",
    ]


def quality_lines(measured: Sequence[Plain], jobs: dict[str, Plain]) -> list[str]:
    found = [item for item in measured if item["work"] == "time_to_quality"]
    if not found:
        return []
    job = jobs["time_to_quality"]
    rows = []
    for item in found:
        accuracy = NOTHING if item["accuracy"] is None else f"{item['accuracy']:.4f}"
        ended = "not reached" if item["missed"] else f"stopped at {job['bound']:g} CPU s" if item["at_least"] else "reached"
        steps = item.get("tried", [])
        tried = ", ".join(f"{step['accuracy']:.3f} after {step['epoch']:g} in {step['cpu']:.0f} s" for step in steps)
        times = [f"{item[f'{clock}_seconds']:.1f}" for clock in CLOCKS]
        rows.append([item["contender"], ended, *times, f"{item['peak_mb']:,.0f}", accuracy, tried or NOTHING])
    head = ["contender", "end", "CPU s", "wall s", "peak MB", "accuracy", "accuracy after each epoch, and CPU s up to it"]
    return [
        f"## Time to {job['wanted']:.1%} of {job['test_rows']:,} test rows, from a cold start",
        "",
        *table_lines(head, rows, text_columns=2),
        "",
    ]


def scaling_lines(measured: Sequence[Plain], lines: Sequence[Plain]) -> list[str]:
    found = [item for item in measured if item["work"] == "scaling"]
    if not found:
        return []
    points = []
    for item in found:
        times = [f"{item[f'{clock}_seconds']:.1f}" for clock in CLOCKS]
        points.append([AXES[item["axis"]], f"{item['amount']:,}", *times, f"{item['peak_mb']:,.0f}"])
    units = {"cpu_seconds": ("CPU seconds", "s"), "peak_mb": ("peak memory", "MB")}
    fitted = [
        [
            AXES[line["axis"]],
            units[line["of"]][0],
            f"{line['start']:.3g} {units[line['of']][1]} + {line['slope']:.3g} {units[line['of']][1]} a unit",
            f"{line['explained']:.4f}",
            f"{100 * line['off']:.0f} %",
        ]
        for line in lines
    ]
    return [
        "## Cost against work, full fine-tuning, each point a cold process",
        "",
        *table_lines(["what grows", "amount", "CPU s", "wall s", "peak MB"], points),
        "",
        *table_lines(["what grows", "of", "straight line", "R^2", "furthest from it"], fitted, text_columns=3),
        "",
        "Peak memory by rows up to a million: memory.md.",
        "",
    ]


def disturbed_lines(measured: Sequence[Plain]) -> list[str]:
    taken = [item["cores_of_others"] for item in measured]
    disturbed = [share for share in taken if share > BUSY]
    if not disturbed:
        return []
    return [
        f"**Disturbed**: in {len(disturbed)} of {len(taken)} measurements other processes kept more than {BUSY:g} cores "
        f"busy (up to {max(taken):.1f}). Threads that wait spin, so CPU seconds grow with it too: measure again on a "
        "machine without other work.",
        "",
    ]
