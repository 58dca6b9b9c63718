"""The Python front door: one function a verb, the same as on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError, TrainingError
from tunesmith.recipe import Recipe, set_key
from tunesmith.runs import Run
from tunesmith.training.events import Event, Stopped


def finetune(
    model: str | PathLike[str],
    data: Any,
    method: str | Mapping[str, Any] = "auto",
    *,
    task: str | Mapping[str, Any] = "auto",
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    slices: str | Sequence[str] | None = None,
    metric: Callable[[str, str], float] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    listen: Callable[[Event], None] | None = None,
) -> Run:
    """Fine-tunes `model` on `data` and measures what it was worth.

    data: a path (file, folder, hub data set name), a pandas DataFrame, a mapping of columns, a list of mappings or of
    (text, label) pairs. text, pair, label: columns, found by looking when not given; several for `label` are several
    labels (of 0 and 1) or numbers. group: a column whose equal values stay on one side of every split; time: one of dates or
    numbers, by which the newest rows are the test and the oldest train; slices: columns by whose values the report tells the
    test rows apart. metric: for a task that writes texts, a function of (what was written, what was wanted) that gives a
    number, more is better; name the task beside it. settings: further recipe keys, such as {"training.epochs": 3}. `listen`
    is called with every event as it happens. Raises TunesmithError kinds, each naming every problem found.
    """
    from tunesmith.pipeline import start

    plain = _plain(model, data, method, task, text, pair, label, group, time, slices, seed)
    if metric is not None:
        if task == "auto":
            raise RecipeError('metric: name the task beside it, as in task="instruction"')
        set_key(plain, "task.metric", _path_of(metric))
    recipe, rows = _recipe(plain, settings), _rows(data)
    session = start(recipe, None if out is None else Path(out), rows)
    return _through(session, listen)


def resume(run: str | PathLike[str], *, listen: Callable[[Event], None] | None = None) -> Run:
    """Goes on with a stopped run to its end. Raises ArtifactError when it is finished, or no run."""
    from tunesmith.pipeline import resume as resume_session

    return _through(resume_session(Path(run)), listen)


def evaluate(
    run: str | PathLike[str],
    data: Any,
    *,
    text: str | None = None,
    label: str | Sequence[str] | None = None,
    pair: str | None = None,
) -> dict[str, Any]:
    """Metrics with intervals of a finished run's model on labelled rows: {"metrics": {...}, "rows": N, ...}."""
    from tunesmith.evaluating import evaluate_run

    return evaluate_run(Path(run), data, text, _columns(label), pair)


def rank(
    models: Sequence[str | PathLike[str]],
    data: Any,
    *,
    method: str | Mapping[str, Any] = "full",
    task: str | Mapping[str, Any] = "auto",
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    rows: int | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    listen: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Pretrained bases on the training rows of `data`, scored without training them: what `tunesmith rank --json` prints.

    {"best": name, "alike": [those that cannot be told from it], "bases": [the closest to the task first], "refused": ...}.
    data and columns as for `finetune`, which finds the frozen features again where all of its training rows were looked at,
    with the same `method` and `settings`. rows: at most so many are looked at, by default 2,000. Raises TunesmithError kinds.
    """
    from tunesmith.ranking import ROWS, rank_bases

    names = [str(model) for model in models]
    first = names[0] if names else "-"
    recipe = _recipe(_plain(first, data, method, task, text, pair, label, group, time, None, seed), settings)
    return rank_bases(recipe, names, ROWS if rows is None else rows, _rows(data), listen)


def _plain(
    model: str | PathLike[str],
    data: Any,
    method: str | Mapping[str, Any],
    task: str | Mapping[str, Any],
    text: str | None,
    pair: str | None,
    label: str | Sequence[str] | None,
    group: str | None,
    time: str | None,
    slices: str | Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """What was given, as a recipe's plain data; rows that are no path go beside it."""
    return {
        "model": str(model),
        "data": {
            "path": str(data) if _rows(data) is None else "rows",
            "text": text,
            "pair": pair,
            "label": _columns(label),
            "group": group,
            "time": time,
            "slices": _columns(slices),
        },
        "method": method,
        "task": task,
        "seed": seed,
    }


def _columns(named: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    return named if named is None or isinstance(named, str) else tuple(named)


def _rows(data: Any) -> Any:
    """None where `data` is a path."""
    return None if isinstance(data, str | PathLike) else data


def _recipe(plain: dict[str, Any], settings: Mapping[str, Any] | None) -> Recipe:
    for key, value in (settings or {}).items():
        set_key(plain, key, value)
    return Recipe.parse(plain)


def _path_of(function: Callable[[str, str], float]) -> str:
    """ "module:name", by which a recipe can hold a function. Raises RecipeError for one that has no such name."""
    if not callable(function) or "<" in function.__qualname__:
        raise RecipeError(
            "metric: a recipe holds functions by name, and this one has none; define it with def in a module, or at "
            "the top of the script"
        )
    return f"{function.__module__}:{function.__qualname__}"


def _through(session: Any, listen: Callable[[Event], None] | None) -> Run:
    for event in session.events():
        if listen is not None:
            listen(event)
        if isinstance(event, Stopped):
            raise TrainingError(f"{session.run}: {event.why}; go on with: {event.resume}")
    return Run(session.run)
