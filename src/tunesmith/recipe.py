"""Recipe: everything a person can ask for. Closed, typed, frozen; YAML and JSON in and out; its id is a hash."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializeAsAny,
    Strict,
    ValidationError,
    field_serializer,
    model_validator,
)

from tunesmith.catalog import Part, build, explain, options_alone, strange_keys, strange_options, text_keys
from tunesmith.errors import RecipeError
from tunesmith.specs import Auto, CostSpec, EvaluationSpec, LimitSpec, RetentionSpec, Share, Spec


class DataSpec(Spec):
    """Which rows, and what each column is."""

    path: str = Field(description="a table, a folder with train/validation/test files, or a hub data set name")
    text: str | None = Field(
        default=None, description="column that holds the text, or lists of words; found by looking when not given"
    )
    pair: str | None = Field(default=None, description="column of a second text, read together with the first")
    label: str | tuple[str, ...] | None = Field(
        default=None, description="column that holds the label, or a list of columns; found by looking when not given"
    )
    group: str | None = Field(default=None, description="column whose equal values stay on one side of every split")
    time: str | None = Field(
        default=None,
        description="column of dates or numbers by which the newest rows are held out, and the oldest train",
    )
    slices: str | tuple[str, ...] | None = Field(
        default=None,
        description="column, or a list of columns, by whose values the test rows are told apart: the report says on which of "
        "them the model does worse",
    )
    validation: Share | Auto = Field(
        default="auto", description="share of the training rows held out to choose the best checkpoint"
    )
    test: Share = Field(
        default=0.1, description="share of the rows held out for the result, where no test file is given"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the training rows that is learned from, each class in its share"
    )
    folds: Annotated[int, Field(ge=2, le=20)] | None = Field(
        default=None,
        description="train as many times, each time with another part of the rows as the test, and measure on all of them",
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="which of data.folds is the test, from 0; the first when not given"
    )
    leaks: Literal["drop", "keep"] = Field(
        default="drop", description="training rows whose text is also in validation or test"
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of the split alone; the run's own seed when not given"
    )

    @property
    def own_fold(self) -> int:
        """Which of `folds` is the test."""
        return 0 if self.fold is None else self.fold

    @property
    def sliced(self) -> tuple[str, ...]:
        """The columns of `slices`, each once."""
        return tuple(dict.fromkeys((self.slices,) if isinstance(self.slices, str) else self.slices or ()))


class TrainingSpec(Spec):
    """How the parameters that may change are changed."""

    epochs: Annotated[int, Field(ge=0)] | Auto = Field(default="auto", description="passes over the training rows")
    rate: Annotated[float, Field(gt=0)] | Auto = Field(default="auto", description="peak learning rate of the base")
    head_rate: Annotated[float, Field(gt=0)] | Auto = Field(
        default="auto", description="peak learning rate of the head"
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=32, description="rows in one optimizer step; null where batch_tokens stands in its place"
    )
    batch_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="tokens in one optimizer step, filler included, in place of batch_size: as many rows as hold no more, or "
        "one that is longer by itself",
    )
    micro_batch: Annotated[int, Field(ge=1)] | Auto = Field(
        default="auto", description="rows in memory at once, at most"
    )
    max_length: Annotated[int, Field(ge=4)] | Auto = Field(default="auto", description="tokens kept of a text")
    optimizer: Literal["adamw", "sgd", "adamw_8bit"] = Field(
        default="adamw", description="adamw_8bit keeps its two moments in 8 bits each, a quarter of the memory"
    )
    step_in_backward: bool = Field(
        default=False,
        description="move each parameter as soon as its gradient is there, and let that go: less memory; without "
        "clipping, and a step's rows all at once",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="decoupled; none on norms, biases, embeddings"
    )
    warmup: Share = Field(default=0.1, description="share of the steps over which the rate rises from 0")
    clip: Annotated[float, Field(gt=0)] | None = Field(default=1.0, description="largest gradient norm; null for none")
    ema: Share = Field(
        default=0.0,
        description="decay of a moving average of the trained weights, which is then measured and delivered: 0.99 averages "
        "over about the last 100 steps; 0 for none",
    )
    soup: Literal["uniform", "greedy"] | None = Field(
        default=None,
        description="average the states of all evaluations, or, greedy, those of them that do not make it worse on the "
        "validation rows",
    )
    dropout: Share | None = Field(default=None, description="overrides every dropout of the model; null keeps its own")
    r_drop: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="weight of how far two passes of a row with other dropout disagree (R-Drop): 1 to 5 are usual; 0 for one "
        "pass",
    )
    redraw: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="how many of the top blocks begin with random weights, where a small task is far from the base's own",
    )
    probe: bool = Field(default=True, description="fit the head on frozen features before the base may change")
    patience: Annotated[int, Field(ge=0)] = Field(
        default=3,
        description="evaluations without a gain of one standard error or a falling loss before stopping; 0 never stops",
    )
    evaluations: Annotated[int, Field(ge=1)] = Field(default=1, description="evaluations on validation rows per epoch")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batches: Literal["similar", "random"] = Field(
        default="similar", description="texts of similar length together, with little filler; or drawn from all of them"
    )
    exact: Annotated[bool, Strict()] = Field(
        default=False,
        description="what a plain loop computes: float32, and batches drawn at random, in an order of its own; filler is "
        "left out where the base's blocks can do without",
    )
    embedding_rows: Literal["used", "all"] = Field(
        default="used",
        description="train the rows of tokens that occur alone, which moves them the same, or the whole table",
    )
    checkpointing: bool | Auto = Field(
        default="auto",
        description="recompute activations in backward: less memory, a third more time; auto: where not even one row fits "
        "in memory without",
    )
    compile: bool | Auto = Field(
        default="auto",
        description="torch.compile, of each block by itself and in training alone; auto: on a GPU, in a run of 10 minutes or "
        "more, where a short timing finds it faster",
    )
    flash_packed: bool | Auto = Field(
        default="auto",
        description="attention over packed texts by a kernel that is told where each ends; auto: on a GPU in bfloat16, where "
        "it is installed and gives the same",
    )
    chunked_loss: bool | Auto = Field(
        default="auto",
        description="a language model's loss over a few places at a time: the outputs of all are never in memory",
    )
    cache: Literal["auto", "memory", "disk", "off"] = Field(
        default="auto",
        description="outputs of frozen blocks: computed once and kept in memory, with disk also for other runs on the same "
        "rows; auto: memory, and disk where that saves 20 times what it takes; off: in every epoch anew",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] | Auto = Field(
        default="auto",
        description="threads that a CPU computes with; auto for the fewest that a short timing finds as fast",
    )

    @property
    def at_once(self) -> str:
        """The setting by which fewer rows are in memory at once."""
        if not self.step_in_backward:
            return "training.micro_batch"
        return "training.batch_size" if self.batch_tokens is None else "training.batch_tokens"

    @model_validator(mode="before")
    @classmethod
    def _by_tokens(cls, given: Any) -> Any:
        """`batch_tokens` stands in the place of a number of rows."""
        asked = isinstance(given, dict) and given.get("batch_tokens") is not None
        return {"batch_size": None, **given} if asked else given

    @model_validator(mode="before")
    @classmethod
    def _as_a_plain_loop(cls, given: Any) -> Any:
        """`exact` settles number format and batches."""
        if not isinstance(given, dict) or given.get("exact") is not True:
            return given
        settled = {"precision": "float32", "batches": "random"}
        others = [
            f"{key}={given[key]}" for key, value in settled.items() if given.get(key, "auto") not in ("auto", value)
        ]
        if others:
            raise ValueError(f"exact: it settles precision and batches; leave out {' and '.join(others)}")
        return {**given, **settled}


class Recipe(Spec):
    """One run, asked for. Build it from plain data with `Recipe.parse`, which reports every problem at once."""

    model: str = Field(min_length=1, description="a folder, an installed package that carries a model, or a hub name")
    data: DataSpec
    task: SerializeAsAny[Part] | Auto | dict[str, JsonValue] = "auto"  # a mapping: options of the task yet to be found
    method: SerializeAsAny[Part] | Auto  # auto: chosen by trying, see tunesmith/climbing.py
    training: TrainingSpec = TrainingSpec()
    retention: RetentionSpec = RetentionSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    limits: LimitSpec = LimitSpec()
    cost: CostSpec = CostSpec()
    seed: Annotated[int, Field(ge=0)] = 0

    @field_serializer("task", "method")
    def _plain_part(self, part: Part | str | dict[str, Any]) -> str | dict[str, Any]:
        return part.to_plain() if isinstance(part, Part) else part

    @classmethod
    def parse(cls, asked: Mapping[str, Any]) -> Recipe:
        """A checked Recipe from nested plain data. Raises RecipeError that lists every problem found."""
        problems = strange_keys(asked)
        plain = text_keys(asked)
        if isinstance(plain.get("data"), str | Path):
            plain["data"] = {"path": str(plain["data"])}
        plain.setdefault("method", "auto")
        for key, folder in (("task", "tasks"), ("method", "methods")):
            if plain.get(key, "auto") == "auto":
                continue
            alone = options_alone(folder, plain[key]) if key == "task" else None
            if alone is not None:
                problems += strange_options(folder, alone)
                plain[key] = _as_lists(alone) or "auto"
                continue
            try:
                plain[key] = build(folder, plain[key])
            except RecipeError as error:
                problems += error.problems
                plain[key] = Part()
        try:
            recipe = cls(**plain)
        except ValidationError as error:
            raise RecipeError(*problems, *explain(error, cls)) from None
        problems += recipe._contradictions()
        if problems:
            raise RecipeError(*problems)
        return recipe

    def _further_runs(self) -> list[str]:
        """What trains further models beside the delivered one, which a limit of time or electricity would not hold."""
        asked = [key for key, most in (("time", self.limits.time), ("energy", self.limits.energy)) if most is not None]
        several = {
            "evaluation.seeds": self.evaluation.seeds > 1,
            "evaluation.scratch": self.evaluation.scratch,
            "evaluation.curve=method": self.evaluation.curve == "method" and not self.evaluation.quick,
            "data.folds": self.data.folds is not None and self.data.fold is None,
        }
        return [
            f"limits.{key}: {name} trains further models, which it does not hold for; leave one of the two out"
            for key in asked
            for name, wanted in several.items()
            if wanted
        ]

    def _contradictions(self) -> list[str]:
        training, problems = self.training, self._further_runs()
        rows = training.batch_size
        if rows is not None and training.batch_tokens is not None:
            problems.append(
                f"training.batch_tokens: a step holds so many tokens or {rows} rows, not both; leave training.batch_size "
                "out, or set it to null"
            )
        if rows is None and training.batch_tokens is None:
            problems.append("training.batch_size: nothing says what a step holds; give it, or training.batch_tokens")
        if isinstance(training.micro_batch, int) and rows is not None and training.micro_batch > rows:
            problems.append(
                f"training.micro_batch: {training.micro_batch} rows at once is more than the "
                f"{rows} of training.batch_size; lower it or raise training.batch_size"
            )
        if self.evaluation.scratch and self.method_name == "scratch":
            problems.append("evaluation.scratch: method scratch is that already; leave it out")
        held = ("budget", "keep", "ewc", "distill") if training.redraw else ()
        problems += [
            f"retention.{key}: goes back to the base, whose top blocks training.redraw draws anew; leave one of the two out"
            for key in held
            if self.retention.model_dump()[key]
        ]
        problems += self._in_backward() if training.step_in_backward else []
        if self.data.fold is not None and self.data.fold >= (0 if self.data.folds is None else self.data.folds):
            problems.append(
                f"data.fold: {self.data.fold} is none of {self.data.folds or 'no'} data.folds, from 0; lower it"
            )
        tested = self.data.test if self.data.folds is None else 1 / self.data.folds
        held_out = tested + (0.0 if self.data.validation == "auto" else self.data.validation)
        if held_out >= 0.9:
            problems.append(
                f"data.validation + data.test: {held_out:g} of the rows leaves too few to "
                "train on; keep their sum below 0.9"
            )
        labels = (self.data.label,) if isinstance(self.data.label, str) else self.data.label or ()
        for key, column in (("text", self.data.text), ("pair", self.data.pair)):
            if column is not None and column in labels:
                problems.append(f'data.label: "{column}" is also data.{key}; name two different columns')
        if self.data.text is not None and self.data.text == self.data.pair:
            problems.append(f'data.pair: "{self.data.pair}" is also data.text; name two different columns')
        if training.checkpointing is True and self.method_name == "head":
            problems.append(
                "training.checkpointing: method head trains nothing inside the base, so there is nothing to recompute; "
                "leave it out"
            )
        return problems

    def _in_backward(self) -> list[str]:
        """What a step within the backward pass rules out: whatever needs all gradients at once, or several passes."""
        training, retention = self.training, self.retention
        held = [key for key, asked in (("distill", retention.distill), ("replay", retention.replay)) if asked > 0]
        problems = [
            f"retention.{key}: it has a backward pass of its own; leave it or training.step_in_backward out"
            for key in held
        ]
        if training.clip is not None:
            problems.append(
                "training.clip: the norm of all gradients is not known before the first parameter moves; set it to null, or "
                "leave training.step_in_backward out"
            )
        rows, parts = training.batch_size, training.micro_batch
        if isinstance(parts, int) and (rows is None or parts < rows):
            key, whole = ("batch_tokens", "all its") if rows is None else ("batch_size", f"its {rows}")
            problems.append(
                f"training.micro_batch: a step in backward takes {whole} rows at once; leave it out and lower "
                f"training.{key}, or leave training.step_in_backward out"
            )
        return problems

    def to_plain(self) -> dict[str, Any]:
        """Nested plain data that `parse` reads back as an equal Recipe."""
        return self.model_dump(mode="json")

    @property
    def method_name(self) -> str:
        """ "auto" where it is still to be chosen."""
        return self.method.part_name() if isinstance(self.method, Part) else self.method

    @property
    def id(self) -> str:
        """12 hexadecimal digits that name exactly this Recipe."""
        return id_of(self.to_plain())

    def to_yaml(self) -> str:
        return yaml_text(self.to_plain())


def id_of(plain: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that name plain data: SHA-256 of its sorted JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Derived:
    """A value that nobody gave: printed once with its reason, and kept in resolved.yaml."""

    key: str
    value: str | int | float | bool | None
    why: str


def _as_lists(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON would hold them, for they are kept as given until there is a task to check them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def yaml_text(plain: Any) -> str:
    """YAML 1.2 text of nested plain data, in the order given."""
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    # The writer leaves U+0085 bare inside quotes, where a reader takes it for a line break; escaped, it comes back whole.
    writer.allow_unicode = "\x85" not in json.dumps(plain, ensure_ascii=False)
    out = io.StringIO()
    writer.dump(plain, out)
    return out.getvalue()


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The nested plain data of a .yaml, .yml or .json file, not yet checked. Raises RecipeError naming file and line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
        plain = json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}:{error.lineno}: is not valid JSON ({error.msg})") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: is not valid YAML ({error.problem})") from None
    except YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML ({error})") from None
    if not isinstance(plain, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys such as model, data, method")
    return plain


def set_key(plain: dict[str, Any], key: str, value: Any) -> None:
    """Sets one dotted key of nested plain data in place. Raises RecipeError when a part of it holds no keys."""
    *parents, last = key.strip().split(".")
    here: dict[str, Any] = plain
    for part in parents:
        below = here.get(part)
        if isinstance(below, str) and part in ("method", "task"):
            below = {"name": below}
        elif isinstance(below, str) and part == "data":
            below = {"path": below}
        elif below is None:
            below = {"name": "full"} if part == "method" else {}
        elif part in ("method", "task") and isinstance(below, Mapping):
            below = _with_name(below)
        if not isinstance(below, Mapping):
            raise RecipeError(f'{key}: "{part}" holds a value, not a group of keys')
        here[part] = below = dict(below)
        here = below
    here[last] = value


def _with_name(part: Mapping[str, Any]) -> dict[str, Any]:
    """{"lora": {"rank": 8}} as {"name": "lora", "rank": 8}, so that a key set later finds the one it replaces."""
    inner = [key for key, value in part.items() if isinstance(value, Mapping)]
    if "name" in part or len(part) != 1 or not inner:
        return dict(part)
    return {"name": inner[0], **part[inner[0]]}


def set_value(plain: dict[str, Any], assignment: str) -> None:
    """Applies one "training.rate=1e-4" to nested plain data; the value is read as YAML 1.2, where 1e-4 is a number.

    A mapping is written in braces, and nothing is a comment: `task.prefix=summarize: ` and `task.after=####` are texts.
    Raises RecipeError when it is no assignment, or a part of the key holds no keys.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {assignment}: write key=value, such as --set training.epochs=3")
    set_key(plain, key, _value_of(text))


def _value_of(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    bare = text.strip()
    if not bare:
        return None
    if bare[0] not in "[{'\"" and " #" in f" {bare}":
        return bare
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text
    return text if isinstance(value, Mapping) and bare[0] != "{" else value
