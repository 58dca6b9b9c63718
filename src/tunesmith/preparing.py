"""From a Recipe's data to encoded splits: read, find columns, clean, split, label, encode."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.choosing import Chosen, choose, other_bases
from tunesmith.data.audit import clean
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import BadRows, Example, Text
from tunesmith.data.findings import Finding, counted
from tunesmith.data.images import Picture
from tunesmith.data.preview import three_rows
from tunesmith.data.readers import by_split_column, read_data
from tunesmith.data.split import Splits
from tunesmith.data.stored import Measures, measures
from tunesmith.data.table import Table, table_of
from tunesmith.data.targets.base import Target
from tunesmith.encoding import encode_split, tidy_cache
from tunesmith.errors import DataError, ModelError, Problems, RecipeError, TunesmithError, did_you_mean
from tunesmith.evaluation.wording import rows_of
from tunesmith.models.resolve import local_kind, local_problems
from tunesmith.phases import AUDIT, Phases
from tunesmith.recipe import Derived, Recipe
from tunesmith.splitting import share_of_training, split_rows, validation_share
from tunesmith.tasks._text_column import text_column
from tunesmith.tasks.base import Labels, Task
from tunesmith.training.events import Note
from tunesmith.training.ordering import check_batches

if TYPE_CHECKING:
    from tunesmith.models.processor import Processor

SPLITS = ("train", "validation", "test")
LISTED = 10
PROBE_KEY, GENERAL_KEY = "retention.probe", "retention.general"
LEAST_GENERAL = 40  # texts: three quarters are measured, each by its ten nearest others
PIECE = 1_000  # characters of general text that are read as one text
PLACES = 5  # of rows with the same thing wrong
FIGURE = re.compile(r"\d+")


@dataclass(frozen=True)
class Prepared:
    """Rows, read and split, with everything that was found on the way."""

    task: Task
    target: Target
    columns: Columns
    splits: Splits
    findings: tuple[Finding, ...]
    labels: Labels
    notes: tuple[Note, ...]
    second: Prepared | None = None  # the second labelled set, by which is measured what the base forgets
    general: tuple[str, tuple[str, ...]] | None = None  # a path, and its texts of no task, where the recipe names one

    def table(self, split: str) -> Table:
        return table_in(self.splits, split)

    def texts(self, split: str) -> list[Text]:
        return texts_of(self.table(split), self.columns)

    def truth(self, split: str) -> list[Any]:
        return self.table(split).columns[self.columns.label]

    def fingerprints(self) -> dict[str, str]:
        """sha256 of each split's columns that matter, of the second set's, and of the general text.

        Other columns may change their types on the way through a file.
        """
        read = (*self.columns.texts, self.columns.label, self.columns.group)
        kept = [name for name in read if name is not None]
        found = {}
        for split in SPLITS:
            table = self.table(split)
            columns = {name: [_content(value) for value in table.columns[name]] for name in kept}
            found[split] = Table(table.path, columns, table.lines).fingerprint()
        if self.second is not None:
            found |= {f"{PROBE_KEY}, {split}": digest for split, digest in self.second.fingerprints().items()}
        if self.general is not None:
            path, texts = self.general
            found[GENERAL_KEY] = Table(path, {"text": list(texts)}, ()).fingerprint()
        return found


@dataclass(frozen=True)
class Encoded:
    """Every split's rows as numbers."""

    examples: dict[str, Sequence[Example]]
    limit: int  # tokens kept of a text
    derived: tuple[Derived, ...]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()  # what the task says of its encoded rows


def _content(value: Any) -> Any:
    """What a value is whatever it is called: of a picture its pixels."""
    return value.digest if isinstance(value, Picture) else value


def prepare(recipe: Recipe, table: Any = None, phases: Phases | None = None) -> Prepared:
    """Reads and checks all rows; `table` stands in for the recipe's path where a Python caller has the rows.

    phases: where the time that the audit takes is told apart. Raises DataError with every problem of the data.
    """
    given = by_split_column(table_of(table, recipe.data.path)) if table is not None else read_data(recipe.data.path)
    base = partial(local_kind, recipe.model)
    try:
        return _prepared(recipe, given, choose(recipe, given, base), Phases() if phases is None else phases)
    except DataError as error:
        raise type(error)(*error.problems, *other_bases(recipe, next(iter(given.values())), base)) from None


def prepare_with_base(recipe: Recipe, table: Any = None, phases: Phases | None = None) -> Prepared:
    """`prepare`, with the problems of a local base told beside the data's: one mend, not two.

    Raises what `prepare` does, and ModelError where the base alone has problems.
    """
    of_model = local_problems(recipe.model)
    try:
        prepared = prepare(recipe, table, phases)
    except TunesmithError as error:
        raise type(error)(*error.problems, *of_model) from None
    if of_model:
        raise ModelError(*of_model)
    return prepared


def _prepared(recipe: Recipe, given: dict[str, Table], chosen: Chosen, phases: Phases) -> Prepared:
    chosen.task.check_files(recipe.model)
    check_batches(chosen.task, recipe.training)
    given, columns, task, target = chosen.tables, chosen.columns, chosen.task, chosen.target
    check_slices(recipe.data.sliced, given, columns)
    rows = tuple(three_rows(next(iter(given.values())), columns, target))
    with phases.phase(AUDIT):
        tables, findings = clean(given, columns, target, recipe.data.leaks)
    asked = 0.0 if recipe.data.validation == "auto" and not task.validates else recipe.data.validation
    validation = validation_share(asked, len(tables["train"]))
    splits = split_rows(recipe, tables, columns, target, validation)
    if len(splits.train) == 0:
        raise DataError(f"{recipe.data.path}: no training rows are left; lower data.validation and data.test")
    findings = [*findings, *splits.findings]
    labels = task.check(splits.train, columns)
    splits = share_of_training(splits, columns, target, recipe)
    whole, added = task.enriched(splits.train, columns, labels)
    why = {**splits.why, "train": f"{splits.why.get('train', '')}; {added}"} if added else splits.why
    splits = replace(splits, train=whole, why=why)
    better = "" if isinstance(recipe.task, Task) else task.better_task(labels)
    sizes = [(name, len(table_in(splits, name)), splits.why.get(name, "")) for name in SPLITS]
    notes = (
        Note("columns", (columns.why, *rows)),
        Note("data", tuple(f"{name}: {rows_of(count, 'row')} ({said})" for name, count, said in sizes if said)),
        Note(
            "task", (f"task: {task.part_name()}, {task.describe(labels)} ({chosen.why})", *([better] if better else []))
        ),
        Note("findings", tuple(_with_places(finding) for finding in findings)),
    )
    second, general = _second(recipe, task), _general(recipe, task)
    notes = (*notes, Note("probe", () if second is None else _said_of(second)))
    if general is not None:
        notes = (*notes, Note("general", (f"{GENERAL_KEY}: {len(general[1]):,} texts",)))
    shown = tuple(note for note in notes if note.lines)
    return Prepared(task, target, columns, splits, tuple(findings), labels, shown, second, general)


def check_slices(asked: Sequence[str], given: dict[str, Table], columns: Columns) -> None:
    """Raises DataError for each column of `data.slices` that the rows to be tested lack, or that is read as text or label."""
    problems = Problems()
    table = given["test"] if "test" in given else next(iter(given.values()))
    read = dict.fromkeys((columns.label, *columns.parts), "the label") | dict.fromkeys(columns.texts, "the text")
    others = [name for name in table.columns if name not in read]
    for name in asked:
        if name in read:
            problems.add(
                f'{table.path}: data.slices: "{name}" is {read[name]}, which is looked at anyway; leave it out'
            )
        elif name not in table.columns:
            problems.add(f'{table.path}: data.slices: there is no column "{name}"; {did_you_mean(name, others)}')
    problems.raise_as(DataError)


def _second(recipe: Recipe, task: Task) -> Prepared | None:
    """The rows of the second labelled set, read as those of a run are; None where the recipe names none.

    Raises the kinds of error that `prepare` does, each problem with the key that names the set.
    """
    path = recipe.retention.probe
    if path is None:
        return None
    asked = {
        "model": recipe.model,
        "data": {"path": path},
        "task": "image_classification" if task.reads_pictures else "classification",
        "method": "head",
        "seed": recipe.seed,
    }
    try:
        second = prepare(Recipe.parse(asked))
        if len(second.splits.test) == 0:
            raise DataError(f"{path}: no row could be held out to measure on; give more rows")
    except TunesmithError as error:
        raise type(error)(*(f"{PROBE_KEY}: {problem}" for problem in error.problems)) from None
    return second


def _general(recipe: Recipe, task: Task) -> tuple[str, tuple[str, ...]] | None:
    """The path and the texts of no task that the recipe names, long ones in pieces; None where it names none.

    Raises the kinds of error that `read_data` does, and DataError where they are too few.
    """
    path = recipe.retention.general
    if path is None:
        return None
    if task.reads_pictures:
        raise RecipeError(f"{GENERAL_KEY}: is text, and task {task.part_name()} reads pictures; leave it out")
    try:
        tables = read_data(path)
        raw = [text for table in tables.values() for text in table.columns[text_column(table, Asked())[0]]]
        whole = [text.strip() for text in raw if isinstance(text, str) and text.strip()]
        texts = tuple(dict.fromkeys(piece for text in whole for piece in _pieces(text)))
        if len(texts) < LEAST_GENERAL:
            raise DataError(
                f"{path}: {len(texts)} different texts of up to {PIECE:,} characters are too few to measure on; "
                f"give {LEAST_GENERAL} or more"
            )
    except TunesmithError as error:
        raise type(error)(*(f"{GENERAL_KEY}: {problem}" for problem in error.problems)) from None
    return path, texts


def _pieces(text: str) -> list[str]:
    """Cut where words end: so that a few long documents are many texts."""
    return textwrap.wrap(text, PIECE, replace_whitespace=False, drop_whitespace=True) if len(text) > PIECE else [text]


def _said_of(second: Prepared) -> tuple[str, ...]:
    """What its own notes say of rows, task and findings, but for which columns were read."""
    return tuple(f"{PROBE_KEY}: {line}" for note in second.notes if note.topic != "columns" for line in note.lines)


def _with_places(finding: Finding) -> str:
    shown = ", ".join(finding.places[:3]) + (", ..." if finding.count > 3 else "")
    return f"{finding.message} ({shown})" if shown else finding.message


def table_in(splits: Splits, name: str) -> Table:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}[name]


def texts_of(table: Table, columns: Columns) -> list[Text]:
    """What the model reads of each row: one text, two, or more."""
    texts = [table.columns[name] for name in columns.texts]
    return texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))


class UnfitRows(DataError):
    """Rows that cannot be encoded, by split and place in its table: what is wrong with each."""

    def __init__(self, prepared: Prepared, rows: dict[str, dict[int, str]]) -> None:
        # What is wrong, but for its figures -> places, and what with figures.
        alike: dict[str, list[tuple[str, str]]] = {}
        for split, found in rows.items():
            for row, what in found.items():
                alike.setdefault(FIGURE.sub("", what), []).append((prepared.table(split).place(row), what))
        said = [_of_all(found) for found in alike.values()]
        count = sum(map(len, alike.values()))
        more = [f"{count:,} rows in all cannot be encoded"] if len(said) > LISTED else []
        super().__init__(*said[:LISTED], *more)
        self.rows = rows
        self.first = "{}: {}".format(*next(iter(alike.values()))[0])


def _of_all(found: list[tuple[str, str]]) -> str:
    """Rows with the same thing wrong, as a line: how many, the first few places, and what it is of the first."""
    place, what = found[0]
    if len(found) == 1:
        return f"{place}: {what}"
    places = ", ".join(place for place, _ in found[:PLACES]) + (", ..." if len(found) > PLACES else "")
    same = all(other == what for _, other in found)
    return (
        f"{len(found):,} rows ({places}): {what}" if same else f"{len(found):,} rows ({places}), of the first: {what}"
    )


def fitted(prepared: Prepared, processor: Processor, asked: int | str) -> tuple[Prepared, Encoded]:
    """`encode`, and the rows that were encoded: where the task has it so, less those that cannot be, which are counted.

    Raises DataError where the task has it otherwise, or where none is left for training.
    """
    try:
        return _sized(prepared, encode(prepared, processor, asked))
    except UnfitRows as error:
        if not prepared.task.drops_unfit:
            raise
        unfit, said = error.rows, error.first
    tables = {
        split: prepared.table(split).take(
            [row for row in range(len(prepared.table(split))) if row not in unfit.get(split, ())]
        )
        for split in SPLITS
    }
    if len(tables["train"]) == 0:
        raise DataError(f"no training row is left without those that cannot be encoded, such as {said}")
    places = [prepared.table(split).place(row) for split, found in unfit.items() for row in found]
    finding = Finding("unfit", len(places), f"{counted(len(places))} left out, such as {said}", tuple(places))
    splits = replace(prepared.splits, train=tables["train"], validation=tables["validation"], test=tables["test"])
    prepared = replace(prepared, splits=splits)
    encoded = encode(prepared, processor, asked)
    return _sized(prepared, replace(encoded, findings=(finding, *encoded.findings)))


def _sized(prepared: Prepared, encoded: Encoded) -> tuple[Prepared, Encoded]:
    labels = prepared.task.sized(prepared.labels, encoded.examples["train"])
    return replace(prepared, labels=labels), encoded


def encode(prepared: Prepared, processor: Processor, asked: int | str) -> Encoded:
    """Encodes every split at the asked length limit, or the model's own.

    Raises RecipeError when the limit asked for is more than the model has positions for, or pictures have none;
    ModelError when the base reads text and the rows are pictures, or the other way about; DataError when pictures do not
    fit in memory.
    """
    if processor.pictures != prepared.task.reads_pictures:
        raise ModelError(_not_for_it(prepared, processor))
    if processor.pictures:
        return _encode_pictures(prepared, processor, asked)
    most = processor.positions
    if isinstance(asked, int) and asked > most:
        raise RecipeError(f"training.max_length: {asked} tokens are more than the {most} this model has positions for")
    limit, why = (asked, "as asked") if isinstance(asked, int) else (processor.max_length, processor.why)
    examples, kept = _every_split(prepared, processor, limit)
    derived = (Derived("training.max_length", limit, why), *kept)
    found = {split: measures(part) for split, part in examples.items()}
    remarks = tuple(prepared.task.remarks(examples, limit))
    findings = (
        *_cut_finding(prepared, found, limit, most),
        *_window_finding(prepared, found, limit),
        *_unlearned_finding(prepared, examples),
        *_unknown_finding(prepared, examples, processor),
    )
    return Encoded(examples, limit, derived, findings, remarks)


def _every_split(
    prepared: Prepared, processor: Processor, limit: int
) -> tuple[dict[str, Sequence[Example]], list[Derived]]:
    """Examples by split, and where those are kept that are not in memory. Raises UnfitRows."""
    examples: dict[str, Sequence[Example]] = {}
    derived: list[Derived] = []
    unfit: dict[str, dict[int, str]] = {}
    for split in SPLITS:
        texts, truth = prepared.texts(split), prepared.truth(split)
        try:
            examples[split], kept = encode_split(prepared.task, texts, truth, prepared.labels, processor, limit)
        except BadRows as error:
            unfit[split] = error.rows
            continue
        if kept:
            derived.append(Derived(f"data.encoded.{split}", len(examples[split]), kept))
    if unfit:
        raise UnfitRows(prepared, unfit)
    tidy_cache(examples.values())
    return examples, derived


def _not_for_it(prepared: Prepared, processor: Processor) -> str:
    name = prepared.task.part_name()
    if processor.pictures:
        return (
            f"model: reads pictures, and task {name} reads text; choose a text encoder, or name the column of pictures "
            "with --text"
        )
    return f"model: reads text, and task {name} reads pictures; choose a vision model (vit, dinov2, convnext, resnet)"


def _encode_pictures(prepared: Prepared, processor: Processor, asked: int | str) -> Encoded:
    if isinstance(asked, int):
        raise RecipeError("training.max_length: pictures have no tokens to be cut; leave it out")
    limit = processor.max_length
    examples, kept = _every_split(prepared, processor, limit)
    size = processor.tokens(examples["train"][0].inputs)[0]
    read = Derived("pictures", size, "the base's own image processor sizes and crops them")
    return Encoded(examples, limit, (read, *kept), ())


def _window_finding(prepared: Prepared, found: dict[str, Measures], limit: int) -> tuple[Finding, ...]:
    import numpy as np

    long: list[tuple[str, int]] = []
    windows = 0
    if prepared.task.learns_tokens:
        return ()  # the task's own remarks say it
    for split, of in found.items():
        rows, parts = np.unique(of.sources, return_counts=True)
        several = parts > 1
        long += [(split, int(row)) for row in rows[several]]
        windows += int(parts[several].sum())
    if not long:
        return ()
    message = f"{counted(len(long))} with more than {limit} tokens, read in {windows:,} overlapping windows"
    return (Finding("windows", len(long), message, tuple(prepared.table(split).place(row) for split, row in long)),)


def _unknown_finding(
    prepared: Prepared, examples: dict[str, Sequence[Example]], processor: Processor
) -> tuple[Finding, ...]:
    """Words that a table of vectors does not know, and rows that hold no other."""
    if not processor.hides:
        return ()
    hidden = sum(example.hidden for part in examples.values() for example in part)
    if not hidden:
        return ()
    total = sum(len(side["input_ids"]) for part in examples.values() for example in part for side in example.sides)
    blank = [(split, example.source) for split in SPLITS for example in examples[split] if example.unread]
    share = f"{hidden / total:.1%}"
    if not blank and share == "0.0%":
        return ()  # so few that no row lacks anything to speak of
    message = f"{share} of all tokens have no vector in this table and are left out"
    if blank:
        message += f"; {counted(len(blank))} with a text of which nothing is left, told apart by nothing"
    rows = blank or [(split, example.source) for split in SPLITS for example in examples[split] if example.hidden]
    return (
        Finding("unknown_words", len(rows), message, tuple(prepared.table(split).place(row) for split, row in rows)),
    )


def _unlearned_finding(prepared: Prepared, examples: dict[str, Sequence[Example]]) -> tuple[Finding, ...]:
    told = {split: prepared.task.unlearned(part, prepared.truth(split)) for split, part in examples.items()}
    rows = [(split, row) for split, (_, some) in told.items() for row in some]
    if not rows:
        return ()
    by_split = ", ".join(f"{split} {len(some)}" for split, (_, some) in told.items() if some)
    places = tuple(prepared.table(split).place(row) for split, row in rows)
    return (Finding("unlearned", len(rows), f"{counted(len(rows))} ({by_split}): {told['train'][0]}", places),)


def _cut_finding(prepared: Prepared, found: dict[str, Measures], limit: int, most: int) -> tuple[Finding, ...]:
    import numpy as np

    from tunesmith.models.text import NO_LIMIT

    cut = [(split, int(row)) for split, of in found.items() for row in of.sources[of.cuts > 0]]
    if not cut:
        return ()
    lost = sum(int(of.cuts.sum()) for of in found.values())
    total = lost + sum(int(of.lengths.sum()) for of in found.values())
    rows = sum(len(np.unique(of.sources)) for of in found.values())
    longest = max(int((of.lengths + of.cuts).max()) for of in found.values() if len(of.cuts))
    fix = (
        f"--set training.max_length={longest} keeps all"
        if most == NO_LIMIT
        else f"--set training.max_length={most} keeps more"
        if limit < most
        else f"{most} is the most this model takes: shorten the texts or choose a model with more positions"
    )
    message = (
        f"{len(cut):,} of {rows:,} rows are longer than {limit} tokens: {lost / total:.1%} of all tokens are cut; {fix}"
    )
    places = tuple(prepared.table(split).place(row) for split, row in cut)
    longer = longest if most == NO_LIMIT else most if limit < most else 0
    numbers = {"rows": rows, "share": lost / total, "limit": limit, "longer": longer}
    return (Finding("cut_text", len(cut), message, places, numbers=numbers),)
