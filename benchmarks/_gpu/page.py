"""gpu.md: is it right, how fast, and what single parts take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _common import environment_lines, table_lines

from .works import DECODER, OURS, work_of

Plain = dict[str, Any]
NOTHING = "-"


def page(plain: Plain) -> list[str]:
    trial = "**A trial with tiny shapes on a CPU: no GPU, so no figure here says anything of one.**"
    return [
        "# Training on a GPU",
        "",
        *([trial, ""] if plain["trial"] else []),
        "What is done by whom, and what is not equal: ../README.md. Random weights and token numbers; filler is no token.",
        "",
        *check_lines(plain["checks"]),
        *work_lines(plain),
        *part_lines(plain["parts"]),
        *failed_lines(plain["failed"]),
        *[line for card in plain["card"] for line in card_lines(card)],
        *environment_lines(plain["environment"]),
    ]


def check_lines(checks: Sequence[Plain]) -> list[str]:
    if not checks:
        return []
    wrong = [check for check in checks if not check["passed"]]
    said = f"All {len(checks)} checks passed." if not wrong else f"**{len(wrong)} of {len(checks)} checks FAILED.**"
    rows = []
    for check in checks:
        apart = [f"{what} {found:.1e} (at most {bound:g})" for what, (found, bound) in check["apart"].items()]
        rows.append([check["check"], "passed" if check["passed"] else "FAILED", ", ".join(apart) or check["error"]])
    head = ["check", "", "how far apart, as a share"]
    return ["## Is it right?", "", said, "", *table_lines(head, rows, text_columns=3), ""]


def work_lines(plain: Plain) -> list[str]:
    """A table for each job."""
    found, measured = [], plain["measured"]
    card = plain["card"][0] if plain["card"] else {}
    for work, job in dict.fromkeys((record["work"], record["job"]) for record in measured):
        own = [record for record in measured if (record["work"], record["job"]) == (work, job)]
        ours = next((record["tokens_a_second"] for record in own if record["contender"] == OURS), None)
        what = work_of(work, plain["trial"])
        unit = "windows" if what.shape.kind == DECODER else "rows"
        found += [
            f"## {what.said}: {own[0]['method']}, {own[0]['batch']} {unit} a step",
            "",
            *table_lines(HEAD, [_cells(record, ours, card) for record in own], text_columns=2),
            *compiled_lines(own),
            *[
                f"- {record['name']}: packed texts by a mask, {record['masked']}"
                for record in own
                if record.get("masked")
            ],
            "",
        ]
    return found


def compiled_lines(records: Sequence[Plain]) -> list[str]:
    """Into how many graphs blocks went: more than one or two, or breaks, and most of the gain is lost."""
    return [
        f"- {record['name']}: {record['compiled']['graphs']} graphs, {record['compiled']['breaks']} breaks; "
        f"the first step took {record['first_seconds']:.0f} s"
        for record in records
        if record.get("compiled")
    ]


HEAD = (
    "contender", "format", "tokens/s", "of ours", "of the published peak", "of the measured peak", "peak GB", "held GB",
    "at once", "mean loss", "trains, M",
)  # fmt: skip


def _cells(record: Plain, ours: float | None, card: Plain) -> list[str]:
    memory = [_number(record[key], ".1f") for key in ("peak_gb", "held_gb")]
    return [
        record["name"],
        record["precision"] + (", activations recomputed" if record["recomputed"] else ""),
        f"{record['tokens_a_second']:,.0f}",
        NOTHING if ours is None else f"{record['tokens_a_second'] / ours:.2f}",
        *(_share(record["tflops"], card.get(key)) for key in ("published", "measured")),
        *memory,
        str(record["micro_batch"]),
        f"{record['mean_loss']:.4f}",
        f"{record['trainable'] / 1e6:,.2f}",
    ]


def part_lines(parts: Sequence[Plain]) -> list[str]:
    if not parts:
        return []
    rows, last = [], ""
    for record in parts:
        time = [_number(record.get(key), ".3f") for key in ("ms", "cpu_ms")]
        memory = _number(record.get("peak_gb"), ".2f")
        rows.append([record["part"] if record["part"] != last else "", record["way"], *time, memory, record["error"]])
        last = record["part"]
    return [
        "## Parts",
        "",
        "Each again and again; the CPU's time is that until it had given all work to the GPU.",
        "",
        *table_lines(["part", "way", "ms", "ms of the CPU", "peak GB", "failed"], rows, text_columns=2),
        "",
    ]


def failed_lines(failed: Sequence[Plain]) -> list[str]:
    if not failed:
        return []
    return ["## Not measured", "", *[f"- {one['what']}: {one['why']}" for one in failed], ""]


def card_lines(card: Plain) -> list[str]:
    if not card.get("name"):
        return []
    published = _number(card["published"], ",.0f")
    return [
        f"- {card['name']}, {card['memory_gb']} GB, {card['processors']} multiprocessors, capability {card['capability']}, "
        f"CUDA {card['cuda']}. Peak of dense bfloat16 products: published {published} TFLOP/s; measured here "
        f"{card['measured']:,.0f} TFLOP/s, the fastest of some 8192 x 8192 x 8192.",
    ]


def _share(work: float, peak: float | None) -> str:
    return NOTHING if not peak else f"{work / peak:.1%}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
