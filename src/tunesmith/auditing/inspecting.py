"""`tunesmith audit` without its printing: a table is read, and every row of it examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.auditing.base import Examined, Material
from tunesmith.auditing.examinations import examined
from tunesmith.data.findings import Finding
from tunesmith.data.targets.one_class import OneClass
from tunesmith.preparing import Encoded, Prepared, fitted, prepare, prepare_with_base
from tunesmith.recipe import Recipe
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.backbone import Backbone

NO_MODEL = "-"  # what stands for a base that was not named


@dataclass(frozen=True)
class Audit:
    """What was found in a table, and what was looked at."""

    lines: tuple[str, ...]  # how columns and task were found, and how many rows there are
    findings: tuple[Finding, ...]
    examined: tuple[Examined, ...]
    material: Material

    @property
    def summary(self) -> str:
        rows, looked = len(self.material.rows), sum(part.done for part in self.examined)
        kinds = "nothing found" if not self.findings else f"{len(self.findings)} findings"
        if len(self.findings) == 1:
            kinds = "1 finding"
        return f"{kinds} in {rows:,} rows; {looked} of {len(self.examined)} examinations made"


def inspect(recipe: Recipe) -> Audit:
    """Every examination of all rows, in the splits of a recipe; with a base also what it makes of them.

    Raises DataError, RecipeError and ModelError as a run would.
    """
    model = recipe.model != NO_MODEL
    prepared = prepare_with_base(recipe) if model else prepare(recipe)
    encoded = None
    if model:
        prepared, encoded, backbone = _encoded(recipe, prepared)
        features = _features(recipe, prepared, encoded, backbone)
        material = Material.of(prepared, encoded, backbone.processor, features, recipe.seed)
    else:
        material = Material.of(prepared, seed=recipe.seed)
    parts = examined(material)
    findings = (
        *prepared.findings,
        *(() if encoded is None else encoded.findings),
        *(finding for part in parts for finding in part.findings),
    )
    lines = [note.lines[0] for note in prepared.notes if note.topic in ("columns", "task")]
    if recipe.data.group is not None or recipe.data.time is not None:
        lines += [line for note in prepared.notes if note.topic == "data" for line in note.lines]
    else:
        lines.append("rows: " + ", ".join(f"{name} {len(table):,}" for name, table in material.tables.items()))
    return Audit(tuple(lines), findings, tuple(parts), material)


def _encoded(recipe: Recipe, prepared: Prepared) -> tuple[Prepared, Encoded, Backbone]:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import kind_of, resolve

    source = resolve(recipe.model)
    prepared.task.check_base(source.name, kind_of(source))
    backbone = load_backbone(source)
    prepared.task.widen(backbone.processor, prepared.texts("train"))
    prepared, encoded = fitted(prepared, backbone.processor, recipe.training.max_length)
    return prepared, encoded, backbone


def _features(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone
) -> Mapping[str, np.ndarray] | None:
    """What the frozen base makes of each row, where labels are classes; else nothing asks for it."""
    if not isinstance(prepared.target, OneClass):
        return None
    from tunesmith.training.trunk import base_features

    pair = prepared.columns.pair is not None
    network = prepared.task.head(backbone, prepared.labels, pair, seed_of(recipe.seed, "head"))
    pad = backbone.processor.pad
    return {
        split: base_features(network, examples, pad).numpy()
        for split, examples in encoded.examples.items()
        if len(examples)
    }
