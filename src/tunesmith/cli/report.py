"""`tunesmith report`: what a finished run was worth, again."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json
from tunesmith.cli.progress import json_line, view_for
from tunesmith.errors import ArtifactError

TOPICS = ("verdict", "result", "model", "advice")  # of the notes that end a run


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    open_page: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    json_lines: Json = False,
) -> None:
    """Show the verdict of a finished run again, and where its page is."""
    from tunesmith.runs import Run, check_there
    from tunesmith.training.events import Note
    from tunesmith.training.ledger import Ledger

    check_there(run)
    found = Run(run).report
    page = run / "report.html"
    if json_lines:
        print(json_line(found))
    else:
        last = {event.topic: event for event in Ledger.open(run).events() if isinstance(event, Note)}
        with view_for(sys.stdout, json_lines=False) as view:
            for topic in TOPICS:
                if topic in last:
                    view.show(last[topic])
        print(f"\nreport: {page}")
    if open_page:
        if not page.is_file():
            raise ArtifactError(f"{page}: is not there; copy it from where the run was made")
        if not webbrowser.open(page.resolve().as_uri()):
            raise ArtifactError(f"{page}: no browser could be started here; open the file by hand")
