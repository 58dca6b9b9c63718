"""How a recipe divides rows: shares or folds for validation and test, and how many of the others train."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.data.columns import Columns
from tunesmith.data.nested import nested_order
from tunesmith.data.split import SIDES, Splits, make_fold, make_splits
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.errors import DataError
from tunesmith.recipe import Recipe
from tunesmith.seeds import seed_of

MOST_VALIDATION_ROWS = 500


def split_rows(recipe: Recipe, tables: dict[str, Table], columns: Columns, target: Target, validation: float) -> Splits:
    """By shares, or a fold. Raises DataError where folds are asked of rows that have a test of their own."""
    data, seed = recipe.data, split_seed(recipe)
    if data.folds is None:
        return make_splits(tables, columns, target, validation, data.test, seed)
    given = [name for name in SIDES if name in tables]
    if given:
        raise DataError(
            f"data.folds: {' and '.join(given)} rows are given in a table of their own, and folds are made of one table; "
            "leave data.folds out, or give one table"
        )
    return make_fold(tables["train"], columns, target, data.own_fold, data.folds, validation, seed)


def share_of_training(splits: Splits, columns: Columns, target: Target, recipe: Recipe) -> Splits:
    """The splits with the share of the training rows that the recipe asks for.

    What the outputs mean is that of all training rows, so that runs on parts of them can be compared.
    """
    if recipe.data.share == 1:
        return splits
    strata = [tuple(names) for names in target.strata(splits.train.columns[columns.label])]
    order = nested_order(strata, seed_of(split_seed(recipe), "share"))
    rows = order[: max(1, round(recipe.data.share * len(splits.train)))]
    held = {strata[row] for row in rows}
    rows += list({strata[row]: row for row in reversed(order) if strata[row] not in held}.values())  # no class is lost
    said = f"{100 * recipe.data.share:.3g} % of them, as data.share asks"
    why = {**splits.why, "train": f"{splits.why.get('train', '')}; {said}"}
    return replace(splits, train=splits.train.take(sorted(rows)), why=why)


def split_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def validation_share(asked: float | str, rows: int) -> float:
    """As asked, or a tenth of the rows and no more than 500 of them.

    500 rows tell checkpoints apart to about one point (one standard error at 0.95); more teach more when trained on.
    """
    return float(asked) if asked != "auto" else min(0.1, MOST_VALIDATION_ROWS / rows)
