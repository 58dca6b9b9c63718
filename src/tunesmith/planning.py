"""`tunesmith plan` without its printing: what runs would take, method by method, before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.energy import ESTIMATE, Joules, estimated
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.cost import Energy, Money, energy_of, money_of
from tunesmith.memory import free_memory, resident_memory
from tunesmith.phases import AUDIT, BASE, ENCODING, READING, Phases, Time, summed
from tunesmith.rehearsing import rehearse, sample_of
from tunesmith.seeds import seed_of
from tunesmith.selection.estimate import MB, Memory, Rehearsed, Size, memory, times

if TYPE_CHECKING:
    from tunesmith.data.order import Order
    from tunesmith.data.table import Table
    from tunesmith.models.backbone import Backbone
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.recipe import Recipe

METHODS = ("head", "layers", "lora", "full")  # from the cheapest to the dearest of those that most people weigh
FEW_BATCHES, BATCHES = 3, 24  # of the runs in small: what their difference tells is multiplied for the whole run
HELD = 8  # rows of their validation, and of their test, for each of these batches
SPLIT = "split"  # the column by which readers tell the splits of one table


@dataclass(frozen=True)
class Prospect:
    """What a run by one method would take; `problems` alone where it cannot be done so."""

    method: str
    problems: tuple[str, ...] = ()
    phases: dict[str, Time] | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    money: Money | None = None
    trainable: int = 0
    total: int = 0
    precision: str = ""
    epochs: int = 0
    steps: int = 0
    free_mb: float = (
        0.0  # that was free of what must hold `memory`: of the GPU where it trains on one, else of the machine
    )
    on_gpu: bool = False
    process_mb: float = 0.0  # the process's own memory at the peak, which the machine holds
    process_free_mb: float = 0.0
    beyond: tuple[str, ...] = ()  # the recipe's own limits that it would pass

    @property
    def time(self) -> Time:
        return summed((self.phases or {}).values())

    @property
    def fits(self) -> bool:
        return self.memory is not None and not self.short and not self.beyond

    @property
    def short(self) -> tuple[tuple[str, float, float], ...]:
        """Each kind of memory of which there is too little: its name, and the megabytes needed and free."""
        if self.memory is None:
            return ()
        kinds = [("memory", self.process_mb, self.process_free_mb)]
        if self.on_gpu:
            kinds.insert(0, ("GPU memory", self.memory.peak, self.free_mb))
        return tuple(kind for kind in kinds if kind[1] > kind[2])


@dataclass(frozen=True)
class _Part:
    """Rows of a run in small: as they are in their file, with the split of each, and how many there are."""

    rows: Table
    counts: dict[str, int]  # of rows, by split
    tokens: dict[str, int]


@dataclass(frozen=True)
class _Whole:
    """The rows of the run itself, read and encoded, what that took, and some of them: the same for every method."""

    prepared: Prepared
    encoded: Encoded
    backbone: Backbone
    known: dict[str, Time]
    data_mb: float
    order: Order
    tokens: dict[str, int]  # by split
    step_tokens: float  # of a step, filler included, on the mean
    few: _Part
    more: _Part


def with_methods(recipe: Recipe, names: Sequence[str]) -> list[Recipe]:
    """The recipe by each of the methods; its own options go with its own method alone. Raises RecipeError for no method."""
    from tunesmith.recipe import Recipe

    own = recipe.method_name
    return [recipe if name == own else Recipe.parse({**recipe.to_plain(), "method": name}) for name in names]


def prospects(recipes: Sequence[Recipe]) -> Iterator[Prospect]:
    """One for each recipe; they differ in their methods alone. Leaves nothing on the disk.

    All rows are read and encoded once. Then each method does a run in small, with the longest batch and rows of every class,
    in a process of its own, from the first row to the report; the whole run is told from that. Raises what a run raises that
    cannot read its rows or its base.
    """
    whole = _read(recipes[0])
    free = free_memory() / MB
    with tempfile.TemporaryDirectory(prefix="tunesmith-plan-") as folder:
        for number, recipe in enumerate(recipes):
            name = recipe.method_name
            try:
                yield _prospect(recipe, whole, Path(folder) / str(number), free)
            except TunesmithError as error:
                yield Prospect(name, tuple(error.problems))


def _read(recipe: Recipe) -> _Whole:
    import torch  # noqa: F401

    from tunesmith.data.readers import read_data
    from tunesmith.forecast import size_between
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.models.transformers_import import import_transformers
    from tunesmith.preparing import SPLITS, fitted, prepare_with_base
    from tunesmith.training.ordering import order_of
    from tunesmith.training.source import FixedRows

    phases, before = Phases(), resident_memory()
    with phases.phase(READING):
        prepared = prepare_with_base(recipe, None, phases)
    read = resident_memory() - before
    with phases.phase(BASE):
        import_transformers()
        backbone = load_backbone(resolve(recipe.model))
        prepared.task.widen(backbone.processor, prepared.texts("train"))
    before = resident_memory()
    with phases.phase(ENCODING):
        prepared, encoded = fitted(prepared, backbone.processor, recipe.training.max_length)
    spent = phases.spent()
    known = {name: spent[name] for name in (READING, AUDIT, ENCODING) if name in spent}
    data_mb = (read + resident_memory() - before) / MB
    order = order_of(prepared.task, encoded.examples["train"], prepared.truth("train"), recipe.training, recipe.seed)
    source, epoch = FixedRows(encoded.examples["train"], order, order.most_rows, {}, "cpu"), order.first(1)
    given = list(read_data(recipe.data.path).values())
    few, more = (
        _part(recipe.data.path, given, prepared, encoded, _chosen(recipe.seed, prepared, encoded, order, batches))
        for batches in (FEW_BATCHES, BATCHES)
    )
    tokens = {name: _tokens(encoded, name) for name in SPLITS}
    step_tokens = size_between(source, 0, epoch) / max(1, epoch)
    return _Whole(prepared, encoded, backbone, known, data_mb, order, tokens, step_tokens, few, more)


def _prospect(recipe: Recipe, whole: _Whole, folder: Path, free_mb: float) -> Prospect:
    from tunesmith.assembly import method_of, resolve_rates

    prepared, encoded, order = whole.prepared, whole.encoded, whole.order
    room = whole.backbone.processor.positions - method_of(recipe).tokens
    in_small = _in_small(recipe, prepared, min(encoded.limit, room), whole.more)
    small = rehearse(in_small, whole.few.rows, whole.more.rows, folder)
    rows = prepared.task.epoch_rows(len(encoded.examples["train"]))
    _, epochs, _ = resolve_rates(recipe, prepared, whole.backbone, rows, order)
    here = _size(whole, order.first(epochs), epochs * recipe.training.evaluations + 1)
    sizes = _size_in_small(whole.few, small.first), _size_in_small(whole.more, small.more), here
    phases = times(small.first, small.again, small.more, sizes, whole.known)
    share = whole.more.counts["train"] / max(1, len(encoded.examples["train"]))
    data_mb, free_gpu_mb = whole.data_mb * (1 - share), small.more.free_gpu_mb
    needed = memory(small.more, data_mb, recipe.training.optimizer)
    process_mb = needed.peak if free_gpu_mb is None else small.more.peak_mb + data_mb
    took = summed(phases.values())
    energy = _energy(took, process_mb)
    return Prospect(
        method=recipe.method_name,
        phases=phases,
        memory=needed,
        energy=energy,
        money=money_of(took.seconds, energy, recipe.cost),
        trainable=small.more.trainable,
        total=small.more.total,
        precision=small.more.precision,
        epochs=epochs,
        steps=here.steps,
        free_mb=free_mb if free_gpu_mb is None else free_gpu_mb,
        on_gpu=free_gpu_mb is not None,
        process_mb=process_mb,
        process_free_mb=free_mb,
        beyond=_beyond(recipe, took, process_mb, energy.wh),
    )


def _beyond(recipe: Recipe, took: Time, peak_mb: float, wh: float) -> tuple[str, ...]:
    limits = recipe.limits
    passed = {
        "limits.time": limits.time is not None and took.seconds > limits.time,
        "limits.memory": limits.memory is not None and peak_mb * MB > limits.memory,
        "limits.energy": limits.energy is not None and wh > limits.energy,
    }
    return tuple(name for name, is_passed in passed.items() if is_passed)


def _chosen(seed: int, prepared: Prepared, encoded: Encoded, order: Order, batches: int) -> dict[str, list[int]]:
    """The rows of a run in small, by split: as many batches of training rows, or more, so that there are all classes."""
    from tunesmith.data.stored import measures

    read = measures(encoded.examples["train"])
    lengths = [0] * len(prepared.splits.train)
    for source, length in zip(read.sources.tolist(), read.lengths.tolist(), strict=True):
        lengths[source] = max(lengths[source], length)
    strata = [tuple(names) for names in prepared.target.strata(prepared.truth("train"))]
    train = sample_of(lengths, strata, round(order.usual_rows), batches, seed_of(seed, "plan"))
    held = {name: list(range(min(batches * HELD, len(encoded.examples[name])))) for name in ("validation", "test")}
    return {"train": train, **held}


def _in_small(recipe: Recipe, prepared: Prepared, limit: int, part: _Part) -> Recipe:
    """The recipe for rows in given splits: one epoch, the task, columns and length limit of the whole run; no limits."""
    none = {name: 0.0 for name in ("validation", "test") if not part.counts[name]}
    of_all = {"group": None, "time": None, "slices": None, "folds": None, "fold": None, "share": 1.0}
    data = recipe.data.model_copy(update={**of_all, **none, **_columns(prepared)})
    once = {"epochs": 1, "cache": "off" if recipe.training.cache == "off" else "memory"}
    if not prepared.task.reads_pictures:
        once["max_length"] = limit
    return recipe.model_copy(
        update={
            "data": data,
            "task": prepared.task,
            "limits": type(recipe.limits)(),
            "training": recipe.training.model_copy(update=once),
            "evaluation": recipe.evaluation.model_copy(update={"seeds": 1, "curve": "probe", "scratch": False}),
        }
    )


def _columns(prepared: Prepared) -> dict[str, Any]:
    """The columns that were found in all rows, to be named: few rows may look otherwise."""
    columns = prepared.columns
    asked: dict[str, Any] = {} if columns.sources else {"text": columns.text, "pair": columns.pair}
    return {**asked, "label": columns.asked_label} if columns.label != columns.text else asked


def _part(
    path: str, given: Sequence[Table], prepared: Prepared, encoded: Encoded, chosen: dict[str, list[int]]
) -> _Part:
    """given: the tables as they are in their files."""
    from tunesmith.data.table import Table

    at = {(table.path, line): (table, row) for table in given for row, line in enumerate(table.lines)}
    columns: dict[str, list[Any]] = {name: [] for table in given for name in table.columns} | {SPLIT: []}
    files = (prepared.columns.text,) if prepared.task.reads_pictures else ()
    for split, rows in chosen.items():
        of_split = prepared.table(split)
        for row in rows:
            table, place = at[of_split.path, of_split.lines[row]]
            for name in columns:
                value = split if name == SPLIT else table.columns[name][place] if name in table.columns else None
                columns[name].append(_from_anywhere(value, table) if name in files else value)
    return _Part(
        Table(path, columns, tuple(range(1, len(columns[SPLIT]) + 1))),
        {split: len(rows) for split, rows in chosen.items()},
        {split: _tokens(encoded, split, rows) for split, rows in chosen.items()},
    )


def _from_anywhere(value: Any, table: Table) -> Any:
    """The path of a picture, which a table holds from its own folder on."""
    path = Path(table.path).parent / value if isinstance(value, str) else None
    return str(path.resolve()) if path is not None and path.is_file() else value


def _size(whole: _Whole, steps: int, evaluations: int) -> Size:
    from tunesmith.result import compared_rows

    examples = whole.encoded.examples
    return Size(
        rows=len(examples["train"]),
        tokens=whole.tokens["train"],
        validation_tokens=whole.tokens["validation"],
        test_rows=len(examples["test"]),
        test_tokens=whole.tokens["test"],
        compared=compared_rows(len(examples["train"]), len(examples["test"])),
        step_tokens=whole.step_tokens * steps,
        steps=steps,
        evaluations=evaluations,
    )


def _size_in_small(part: _Part, small: Rehearsed) -> Size:
    from tunesmith.result import compared_rows

    return Size(
        rows=part.counts["train"],
        tokens=part.tokens["train"],
        validation_tokens=part.tokens["validation"],
        test_rows=part.counts["test"],
        test_tokens=part.tokens["test"],
        compared=compared_rows(part.counts["train"], part.counts["test"]),
        step_tokens=sum(tokens for tokens, _ in small.steps),
        steps=len(small.steps),
        evaluations=2,
    )


def _tokens(encoded: Encoded, split: str, rows: Sequence[int] | None = None) -> int:
    """Of a split, or of some rows of its table."""
    from tunesmith.data.stored import measures

    read = measures(encoded.examples[split])
    if rows is None:
        return int(read.lengths.sum())
    among = set(rows)
    return sum(
        length for source, length in zip(read.sources.tolist(), read.lengths.tolist(), strict=True) if source in among
    )


def _energy(took: Time, peak_mb: float) -> Energy:
    joules = estimated(took.cpu_seconds, took.seconds, peak_mb)
    return energy_of(Joules(joules, ESTIMATE, None, ""), took.seconds)
