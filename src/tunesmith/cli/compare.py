"""`tunesmith compare`: finished runs beside each other."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json
from tunesmith.cli.progress import json_line, view_for
from tunesmith.errors import ArtifactError, Problems


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs on the same data.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where the page goes.  [default: compare.html]", show_default=False),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Compare finished runs on the same test rows."""
    _check_out(out)
    from tunesmith.comparing import compare_runs
    from tunesmith.evaluation.compare_page import comparison_lines, render_comparison
    from tunesmith.evaluation.report import write_page
    from tunesmith.training.events import Note

    found = compare_runs(runs)
    if json_lines:
        print(json_line(found))
        return
    page = _free() if out is None else out
    write_page(page, render_comparison(found))
    with view_for(sys.stdout, json_lines=False) as view:
        view.show(Note("compare", tuple(comparison_lines(found))))
    print(f"\npage: {page}")


def _check_out(out: Path | None) -> None:
    """Raises ArtifactError, with every problem, where no page can be written."""
    problems = Problems()
    if out is not None and out.is_dir():
        problems.add(f"--out {out}: is a folder; name a file in it, such as {out / 'compare.html'}")
    elif out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            problems.add(f"--out {out}: the page is HTML; end its name with .html (--json prints the figures)")
        if out.exists():
            problems.add(f"--out {out}: is there already; give it another name")
        elif not out.parent.is_dir():
            problems.add(f"--out {out}: there is no folder {out.parent}; make it first")
    problems.raise_as(ArtifactError)


def _free() -> Path:
    """compare.html, with the first number that is free where that is taken."""
    names = itertools.chain(["compare.html"], (f"compare-{number}.html" for number in itertools.count(2)))
    return next(Path(name) for name in names if not Path(name).exists())
