"""`tunesmith evaluate`: measure a finished run on further labelled rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json, LabelColumns, PairColumn, TextColumn, label_of, plain_warnings
from tunesmith.cli.progress import json_line


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A table with texts and true labels.")],
    text: TextColumn = None,
    label: LabelColumns = None,
    pair: PairColumn = None,
    json_lines: Json = False,
) -> None:
    """Measure a finished run on other labelled rows, with intervals."""
    from tunesmith.runs import check_there

    check_there(run)  # before what takes seconds to import
    from tunesmith.evaluating import evaluate_run

    with plain_warnings():
        report = evaluate_run(run, data, text, label_of(label), pair)
    told = [*report["lines"], *(f"note: {finding}" for finding in report["findings"])]
    for line in [json_line(report)] if json_lines else told:
        print(line)
