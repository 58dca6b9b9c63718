"""Which task a recipe means: as asked, as the shape of the rows says, or as the label column says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.catalog import with_options
from tunesmith.data.columns import LANGUAGE, Asked, Columns, check_named, find_columns, gathered
from tunesmith.data.passages import PART
from tunesmith.data.table import Table
from tunesmith.data.tag_columns import holds_spans, holds_words
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import as_list, few_wrong, is_flag, odd_flags, separator_of
from tunesmith.data.targets.numbers import number_of
from tunesmith.errors import DataError, ModelError, RecipeError, did_you_mean
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Task
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.embedding import Embedding
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.tasks.instruction import Instruction
from tunesmith.tasks.masked_lm import MaskedLm
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.seq2seq import Seq2Seq
from tunesmith.tasks.token_classification import TokenClassification

MANY = 0.6  # share of distinct numbers above which they are measurements, not names of classes
FEW_ROWS = 20  # in tables up to this size such a share says nothing


# Tasks that are known by the shape of the rows, whatever a label column holds; the first that knows them is meant.
RECOGNISING: tuple[type[Task], ...] = (
    ImageClassification,
    QuestionAnswering,
    Instruction,
    CausalLm,
    MaskedLm,
    Seq2Seq,
    Embedding,
)


WRITTEN: tuple[tuple[str, type[Task]], ...] = (("decoder", Instruction), ("encoder-decoder", Seq2Seq))  # by base


@dataclass(frozen=True)
class Chosen:
    """What the rows are read for, and the rows so read."""

    task: Task
    target: Target
    columns: Columns
    tables: dict[str, Table]  # split by split
    why: str  # the reason for the task


def choose(recipe: Recipe, given: dict[str, Table], base: Callable[[], str]) -> Chosen:
    """The task, its columns, how its label column is read, and the reason. `base` gives the kind of base.

    Options that were given without a task are those of the task that is found. Raises DataError with every problem of the
    columns, RecipeError when the metric or an option asked for is none of the task's, and ModelError where the base is of a
    kind that the task cannot learn with.
    """
    wanted, main = recipe.data, next(iter(given.values()))
    if wanted.time is not None:
        _check_time(recipe, main)
        main = replace(main, columns={name: main.columns[name] for name in main.columns if name != wanted.time})
    asked = _asked(recipe, base)
    known = _recognised(main, asked)
    if isinstance(recipe.task, Task):
        task, why = recipe.task, "as asked"
    elif known:
        task, why = _with_options(recipe, known[0][0](), known[0][1]), known[0][1]
    else:
        task, why = None, ""
        if PART in main.columns and wanted.label is None:
            raise _no_reader_of_prose(recipe.model, main.path, base())
    if task is not None and task.kinds:
        task.check_base(recipe.model, base())
    columns = (
        find_columns(main, asked.text, asked.label, asked.group, asked.pair, base=asked.base)
        if task is None
        else task.find(main, asked)
    )
    tables = {
        name: gathered(part, columns) if task is None else task.read(part, columns) for name, part in given.items()
    }
    if wanted.time is not None:
        columns = replace(columns, time=wanted.time, why=f'{columns.why}, time = "{wanted.time}" (named)')
    values = [part.columns.get(columns.label, []) for part in tables.values()]
    if task is None:
        odd = odd_flags(tables.values(), columns.parts)
        if odd:
            raise DataError(*odd)
        task, why = meant(values, columns)
        task = _with_options(recipe, task, why)
    return Chosen(task, checked_target(recipe, task, values, columns), columns, tables, why)


def _check_time(recipe: Recipe, table: Table) -> None:
    """Raises DataError where the column of times is not there, or is asked for as something else too."""
    data = recipe.data
    labels = (data.label,) if isinstance(data.label, str) else data.label or ()
    others = [("text", data.text), ("pair", data.pair), *(("label", name) for name in labels), ("group", data.group)]
    check_named(
        table, [("time", data.time or ""), *((role, name) for role, name in others if name == data.time and name)]
    )


def other_bases(recipe: Recipe, table: Table, base: Callable[[], str]) -> list[str]:
    """What rows look like that this base does not learn, where nothing says the task: a line with the base that would do."""
    data = recipe.data
    if isinstance(recipe.task, Task) or data.label is not None or _recognised(table, _asked(recipe, base)):
        return []
    said = []
    for kind, task in WRITTEN:
        why = task.recognises(table, _asked(recipe, lambda kind=kind: kind))
        if why is not None:
            looks = re.split(r",? and (?:a|the) base", why)[0]
            said.append(f"{table.path}: {looks}; --task {task.part_name()} learns them, with a base of kind {kind}")
    return said


def _asked(recipe: Recipe, base: Callable[[], str]) -> Asked:
    data = recipe.data
    return Asked(data.text, data.label, data.group, data.pair, base)


def _recognised(table: Table, asked: Asked) -> list[tuple[type[Task], str]]:
    return [(kind, why) for kind in RECOGNISING if (why := kind.recognises(table, asked)) is not None]


def _no_reader_of_prose(model: str, path: str, kind: str) -> ModelError:
    """What is said where plain text meets a base that does not learn it."""
    known = f'is of kind "{kind}"' if kind else "is of a kind that is not known here"
    ways = " or ".join(f"kind {of} (--task {task})" for task, of in LANGUAGE.items())
    fix = "choose such a base, or give a table with labels" if kind else "say which with --task"
    return ModelError(f"{path}: is plain text, which a base of {ways} learns, and {model} {known}; {fix}")


def _with_options(recipe: Recipe, task: Task, why: str) -> Task:
    """The task that was found, with the options that the recipe gives without naming one."""
    if not isinstance(recipe.task, dict):
        return task
    told = with_options("tasks", recipe.task, type(task), why)
    assert isinstance(told, Task)
    return told


def checked_target(recipe: Recipe, task: Task, values: Sequence[Sequence[Any]], columns: Columns) -> Target:
    """How the task reads its label column. Raises RecipeError when the metric asked for is none of the task's."""
    metric = recipe.evaluation.metric
    if metric not in ("auto", *task.metrics):
        raise RecipeError(
            f'evaluation.metric: task {task.part_name()} has no metric "{metric}"; {did_you_mean(metric, task.metrics)}'
        )
    return task.target([value for part in values for value in part], columns.parts or (columns.label,))


def meant(parts: Sequence[Sequence[Any]], columns: Columns) -> tuple[Task, str]:
    """The task that the raw labels of all splits mean, and why."""
    values = [value for part in parts for value in part]
    read = "two text columns" if columns.pair is not None else "one text column"
    filled = [value for value in values if value is not None and value != ""]
    if columns.parts:
        if all(is_flag(flag) for value in filled for flag in value if flag is not None and flag != ""):
            return Multilabel(), f"{read} and {len(columns.parts)} columns of 0 and 1"
        return Regression(), f"{read} and {len(columns.parts)} columns of numbers"
    if columns.words and holds_words(filled):
        return TokenClassification(), "a list of words and a list of tags a row"
    if holds_spans(filled):
        return TokenClassification(), f"{read} and spans of it"
    lists = [found for value in filled if isinstance(found := as_list(value), list)]
    if any(isinstance(value, list) for value in filled) or (lists and len(lists) == len(filled)):
        items = [item for value in lists for item in value if item is not None]
        numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
        decimals = any(isinstance(item, float) and not item.is_integer() for item in items)  # NaN is no label's number
        written = "" if any(isinstance(value, list) for value in filled) else ", each written as a text"
        gaps = len(items) < sum(map(len, lists))
        sizes = Counter(map(len, lists)).most_common(1)
        other = len(lists) - sizes[0][1] if sizes else 0
        # Written with a point they are measurements, though whole; a few of other lengths are named where they are read.
        decimals = decimals or (any(isinstance(item, float) for item in items) and few_wrong(other, len(lists)))
        if numbers and any(lists) and (decimals or len({len(value) for value in lists}) == 1):
            return Regression(), f"{read} and lists of numbers{written}"
        if numbers and any(lists) and not gaps:
            return Multilabel(), f"{read} and lists of numbers, not equally many a row: numbers of labels{written}"
        return Multilabel(), f"{read} and lists of labels{written}"
    numbers = [found for value in filled if (found := number_of(value)) is not None]
    fractions = any(number != int(number) for number in numbers)
    differ = len(set(numbers)) > MANY * len(numbers) and len(numbers) > FEW_ROWS
    odd = len(filled) - len(numbers)
    many = differ or (fractions and len(set(numbers)) > FEW_ROWS)  # no names of classes
    if odd > 0 and few_wrong(odd, len(filled)) and many:  # they are named where they are read
        return Regression(), f"{read} and numbers, but for a few values; --task classification takes all as names"
    if filled and len(numbers) == len(filled):
        if fractions:
            return Regression(), f"{read} and numbers with decimals; --task classification takes them as names"
        if differ:
            return Regression(), f"{read} and {len(set(numbers))} different numbers in {len(numbers)} rows"
        if len(set(numbers)) > 2:
            return Classification(), f"{read} and one column of whole numbers; --task regression takes them as numbers"
    separator = separator_of(filled)
    if separator is not None:
        return Multilabel(), f'{read} and labels joined by "{separator}"; --task classification takes each as one name'
    return Classification(), f"{read} and one column of labels"
