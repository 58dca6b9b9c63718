"""`tunesmith audit`: what may be wrong with a table, before anything trains on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import (
    DataTable,
    Flags,
    GroupColumn,
    Json,
    LabelColumns,
    Model,
    PairColumn,
    TaskName,
    TextColumn,
    TimeColumn,
    label_of,
    plain_warnings,
    recipe_of,
)
from tunesmith.cli.progress import json_line
from tunesmith.cli.tables import terminal_width, wrapped
from tunesmith.cli.written import WRITTEN, write_columns
from tunesmith.errors import DataError, Problems

if TYPE_CHECKING:
    from tunesmith.auditing.inspecting import Audit
    from tunesmith.data.findings import Finding

ALL_ROWS = ("data.validation=0", "data.test=0")  # nothing is held out: every row is looked at


def audit(
    data: DataTable = None,
    model: Model = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    group: GroupColumn = None,
    time: TimeColumn = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", metavar="FILE", help="Write the cleaned rows there: csv, tsv, jsonl or parquet."),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Say what may be wrong with rows: copies, wrong labels, drift.

    Also leaks between the splits, rare classes, columns that give the label away, and more. Needs no model; with --model,
    tokens are counted and labels are judged by what that base makes of the texts. The table itself is never changed.
    With --group or --time the rows are split as train would split them, and leaks and drift between the parts are looked for.
    """
    from tunesmith.auditing.inspecting import NO_MODEL, inspect

    flags = Flags(
        data=data,
        model=NO_MODEL if model is None else model,
        task=task,
        text=text,
        pair=pair,
        label=label_of(label),
        group=group,
        time=time,
    )
    split = group is not None or time is not None
    recipe = recipe_of(None, flags, () if split else ALL_ROWS, "audit")
    if fix is not None:
        _check_free(fix, split)
    with plain_warnings():
        found = inspect(recipe)
    # What was found is told before the file is written, which may be refused.
    print("\n".join(json_lines_of(found) if json_lines else audit_lines(found, terminal_width())), flush=True)
    if fix is not None:
        done = _write(found, recipe.data.path, fix)
        written = [line for said in done for line in wrapped(said, "  ", "    ", terminal_width())]
        print(json_line({"event": "fixed", "said": done}) if json_lines else "\n".join(["", "fixed:", *written]))
    print(
        json_line({"event": "summary", "findings": len(found.findings), "said": found.summary})
        if json_lines
        else "\n".join(["", *wrapped(found.summary, "", "  ", terminal_width())])
    )


def _check_free(out: Path, split: bool) -> None:
    """Raises DataError where no new table can be written there; one that is there may be the very table to be read."""
    problems = Problems()
    if split:
        problems.add("--fix: writes all rows of the table, which --group and --time split; leave these two out")
    if out.suffix.lower() not in WRITTEN:
        problems.add(f"--fix {out}: a table is written as {', '.join(WRITTEN)}; end its name with one of them")
    if out.exists() or out.is_symlink():
        problems.add(f"--fix {out}: already exists, and nothing is ever overwritten; name a new file")
    elif not out.parent.is_dir():
        problems.add(f"--fix {out}: there is no folder {out.parent}; make it first")
    problems.raise_as(DataError)


def _write(found: Audit, path: str, out: Path) -> tuple[str, ...]:
    from tunesmith.auditing.fixing import fixed
    from tunesmith.data.readers import read_data

    cleaned = fixed(read_data(path), found.material, found.examined)
    write_columns(cleaned.columns, out)
    return (f"{out}: {cleaned.said[0]}", *cleaned.said[1:])


def audit_lines(found: Audit, width: int) -> list[str]:
    """What was found and looked at, as lines of at most `width` columns (a path or a word that is longer, alone)."""
    lines = [line for said in found.lines for line in wrapped(said, "", "  ", width)]
    for finding in found.findings:
        lines += ["", *_finding_lines(finding, width)]
    quiet = [part for part in found.examined if part.done]
    left = [part for part in found.examined if not part.done]
    for title, parts in (("looked at", quiet), ("not looked at", left)):
        if parts:
            lines += ["", f"{title}:"]
            for part in parts:
                lines += wrapped(f"{part.name.replace('_', ' ')}: {part.said}", "  ", "    ", width)
    return lines


def _finding_lines(finding: Finding, width: int) -> list[str]:
    lines = wrapped(f"{finding.kind.replace('_', ' ')}: {finding.message}", "", "  ", width)
    for example in finding.examples:
        lines += wrapped(
            " | ".join(part for part in (example.place, example.text, example.detail) if part), "  - ", "    ", width
        )
    rest = finding.count - len(finding.examples)
    if rest > 0 and finding.examples:
        lines.append(f"    and {rest:,} more")
    return [*lines, *(wrapped(f"what to do: {finding.advice}", "  ", "    ", width) if finding.advice else [])]


def json_lines_of(found: Audit) -> list[str]:
    """Each finding and each examination, one object a line."""
    said = [{"event": "finding", **asdict(finding)} for finding in found.findings]
    said += [{"event": "examined", "name": part.name, "done": part.done, "said": part.said} for part in found.examined]
    return [json_line(item) for item in said]
