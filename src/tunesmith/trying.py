"""One trial: a training on the rows of a search, judged on its validation rows alone. The test rows are never read."""

from __future__ import annotations

import json
import math
import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError, did_you_mean
from tunesmith.files import make_folder, whole_file, write_whole
from tunesmith.inner import ALONE
from tunesmith.phases import Phases, Time, now
from tunesmith.recipe import Derived, Recipe, id_of
from tunesmith.selection.spec import COSTS, LOSS, PARAMETERS, SECONDS
from tunesmith.splitting import split_seed
from tunesmith.training.events import Evaluated, Event, StepDone, Stopped

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.resolve import Source
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.tasks.base import Scores
    from tunesmith.training.loop import Measured
    from tunesmith.training.loop import Run as LoopRun
    from tunesmith.training.trunk import Trunk

WEIGHTS, RESULT = "weights.safetensors", "result.json"  # in a trial's folder: what trained, and what it gave
HELD = "validation.safetensors"  # and its scores on the validation rows, one by one
RECIPE_ID = "recipe"  # in that file: which trial it is of
KEPT = 4  # data sets, read and encoded in different ways, that are held in memory


@dataclass(frozen=True)
class Judged(Event):
    """A trial was measured on the validation rows; `evaluation` from 1 on."""

    kind = "judged"
    evaluation: int
    evaluations: int
    metric: str
    value: float
    rank: float  # more is better
    error: float


@dataclass(frozen=True)
class Result:
    """What a training of a trial gave."""

    metrics: dict[str, float]  # of the validation rows, and the costs
    lower: tuple[str, ...]  # those of them of which less is better
    primary: str
    loss: float
    error: float
    seconds: float  # of steps and scores: what trials share, and reading the base, counts in one that is adopted alone
    cpu_seconds: float
    evaluations: int
    trainable: int = 0
    rate: float | None = None  # peak, of the base

    def rank(self, metric: str) -> float:
        return -self.metrics[metric] if metric in self.lower else self.metrics[metric]


@dataclass
class Shared:
    """What the trials of one process have in common: rows are read and encoded once for all that want them alike."""

    threads: int | None = None  # that the first trial was found to do best with
    heads: dict[str, tuple[dict[str, Any], list[Derived]]] = field(default_factory=dict)  # that training starts from
    commits: dict[str, str] = field(
        default_factory=dict
    )  # by hub base: the one that all take, though a newer one comes
    _rows: OrderedDict[str, tuple[Prepared, Encoded]] = field(default_factory=OrderedDict)

    def keep(self, recipe: Recipe, prepared: Prepared, encoded: Encoded) -> None:
        """Rows that were read and encoded before, as this recipe reads them."""
        self._rows[id_of(read_by(recipe))] = (prepared, encoded)

    def keep_base(self, source: Source) -> None:
        """What the hub gave as the newest, for what is read later."""
        if source.kind == "hub" and source.revision is not None:
            self.commits.setdefault(source.name, source.revision)

    def rows(self, recipe: Recipe) -> tuple[Prepared, Encoded, Backbone]:
        """The rows as this recipe reads them, and a base of its own for it to change."""
        from tunesmith.assembly import method_of
        from tunesmith.models.transformers_import import import_transformers

        import_transformers()
        from tunesmith.models.backbone import load_backbone
        from tunesmith.models.resolve import resolve
        from tunesmith.preparing import fitted, prepare_with_base
        from tunesmith.seeds import torch_seed

        tokens, key = method_of(recipe).tokens, id_of(read_by(recipe))
        known = self._rows.get(key)
        prepared = prepare_with_base(recipe) if known is None else known[0]
        with torch_seed(recipe.seed, "base"):  # as the pipeline reads it
            source = resolve(recipe.model, self.commits.get(recipe.model))
            backbone = load_backbone(source, recipe.training.dropout)
        self.keep_base(source)
        backbone.processor.reserve(tokens)
        prepared.task.widen(backbone.processor, prepared.texts("train"))
        if known is None:
            known = fitted(prepared, backbone.processor, recipe.training.max_length)
            self._rows[key] = known
            if len(self._rows) > KEPT:
                self._rows.popitem(last=False)
        self._rows.move_to_end(key)
        return *known, backbone


def read_by(recipe: Recipe) -> dict[str, Any]:
    """What decides how rows are read and encoded."""
    from tunesmith.assembly import method_of

    plain = recipe.to_plain()
    read = {key: plain[key] for key in ("model", "data", "task", "seed", "retention")}
    return {**read, "tokens": method_of(recipe).tokens, "limit": recipe.training.max_length}


def trial_recipe(recipe: Recipe, seed: int, metric: str) -> Recipe:
    """The same rows on the same sides, from `seed`; judged by `metric`, and nothing else measured.

    What is frozen is kept on the disk, for the other trials, and for other processes.
    """
    kept = {} if recipe.retention.swept else {"measure": False}
    cache = "disk" if recipe.training.cache == "auto" else recipe.training.cache
    return recipe.model_copy(
        update={
            "seed": seed,
            "data": recipe.data.model_copy(update={"seed": split_seed(recipe), "slices": None}),
            "training": recipe.training.model_copy(update={"cache": cache}),
            "retention": recipe.retention.model_copy(update=kept),
            "evaluation": recipe.evaluation.model_copy(update={**ALONE, "metric": metric}),
        }
    )


def train_trial(
    shared: Shared,
    recipe: Recipe,
    folder: Path,
    stop: Callable[[], bool],
    enough: Callable[[], str] | None = None,
    adopted: bool = False,
) -> Generator[Event, None, Result | None]:
    """Trains by a `trial_recipe`, or goes on from the last checkpoint of `folder`; None where it was asked to stop.

    Its StepDone and Judged events. The weights of its best state are then in the folder. enough: why it is to end with what
    it has, "" where it may go on. adopted: a run may go on with it, so that its checkpoints and its events are kept, and its
    scores on each validation row. Raises TunesmithError kinds.
    """
    from tunesmith.assembly import best_parameters
    from tunesmith.evaluation.kept_scores import write_scores
    from tunesmith.judging import scorer
    from tunesmith.training.ledger import Ledger
    from tunesmith.training.loop import train
    from tunesmith.training.threads import threads_given_back

    path = folder / RESULT
    if path.exists():
        if (known := _known(path, recipe)) is not None:
            return known
        path.unlink()  # of another study that had this folder, or of a version that noted something else
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    begun = now()
    with threads_given_back():
        prepared, encoded, backbone = shared.rows(recipe)
        if not encoded.examples["validation"]:
            raise RecipeError(
                "data.validation: a search judges its trials on validation rows, and there are none; raise it"
            )
        built, run = _ready(shared, recipe, prepared, encoded, backbone, folder, stop)
        seen: list[Measured] = []
        assert run.evaluate is not None, "there are validation rows"
        run.evaluate = partial(_noted, run.evaluate, seen)
        evaluations, count = 0, 0
        if enough is not None:
            run.enough = enough
        ledger = Ledger(folder)
        if not adopted:
            # Rows, frozen features, the first head, threads: whichever trial comes first finds them for all.
            begun = now()
        for event in train(run):
            if adopted:
                ledger.append(event)
            if isinstance(event, StepDone):
                yield event
            elif isinstance(event, Evaluated) and event.step > 0:
                times = recipe.training.evaluations
                evaluations, count = max(1, round(event.epoch * times)), run.training_epochs * times
                yield Judged(evaluations, count, event.metric, event.value, seen[-1].rank, event.error)
            elif isinstance(event, Stopped):
                return None
        from tunesmith.finishing import finished

        best = best_parameters(run)
        _keep_weights(folder, best)
        delivered, _ = finished(recipe, prepared, encoded, built, run, best)
        run.masters.overwrite(dict(delivered))
        score = scorer(prepared, encoded, run.network, run.trunk, run.source.pad, built.runtime.device, adopted)
        assert score is not None, "there are validation rows"
        took = now().plus(begun.times(-1))
        scores, loss = score()
        result = _result(recipe, scores, loss, built, took, evaluations)
        if adopted:
            write_scores(folder / HELD, scores)
        write_whole(path, json.dumps({RECIPE_ID: recipe.id, **result.__dict__}, indent=2) + "\n")
    if not adopted:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def _known(path: Path, recipe: Recipe) -> Result | None:
    """What was found before; None where that is of another trial, or cannot be read."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.pop(RECIPE_ID, None) != recipe.id:
        return None
    try:
        return Result(**found)
    except TypeError:
        return None


def _ready(
    shared: Shared,
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    backbone: Backbone,
    folder: Path,
    stop: Callable[[], bool],
) -> tuple[Built, LoopRun]:
    """What the loop needs, as the pipeline puts it together; from the last checkpoint where the folder has one."""
    from tunesmith.assembly import build, keep_frozen, make_run
    from tunesmith.redrawing import redraw
    from tunesmith.training.ledger import Ledger
    from tunesmith.training.loop import restore
    from tunesmith.training.state import Checkpoints

    ledger = Ledger(folder)
    begun = Checkpoints(folder / "checkpoints").steps()
    earlier: dict[str, Any] = ledger.resolved() if begun else {}
    timed = recipe
    if shared.threads is not None and recipe.training.threads == "auto" and not begun:
        timed = recipe.model_copy(update={"training": recipe.training.model_copy(update={"threads": shared.threads})})
    built = build(timed, prepared, encoded, backbone, earlier)
    if isinstance(built.training.threads, int):
        shared.threads = built.training.threads
    if built.method.alters:
        backbone.drop_weights()
    asked = recipe.method
    if built.method is not asked:
        recipe = recipe.model_copy(update={"method": built.method})
    trunk = keep_frozen(recipe, prepared, encoded, backbone, built, earlier)
    _start_head(shared, recipe, prepared, encoded, backbone, built, trunk)
    redraw(recipe, built.network, built.masters, built.redrawn)
    run = make_run(recipe, prepared, encoded, backbone, built, trunk, folder, stop, earlier)
    make_folder(folder)
    ledger.write_resolved(recipe.model_copy(update={"training": built.training}), built.derived)
    if begun:
        for _ in restore(run):
            pass
    return built, run


def _start_head(
    shared: Shared,
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    backbone: Backbone,
    built: Built,
    trunk: Trunk,
) -> None:
    """`fit_probe`, or what that found in another trial on the same frozen features."""
    from tunesmith.untouched import fit_probe

    asked = recipe.training.model_dump(include={"probe", "redraw", "precision", "exact", "cache"})
    key = id_of({**read_by(recipe), **asked, "method": recipe.to_plain()["method"]})
    tensors = built.masters.tensors
    if (known := shared.heads.get(key)) is not None:
        built.masters.overwrite(known[0])
        built.derived += known[1]
        return
    before = len(built.derived)
    for _ in fit_probe(recipe, prepared, encoded, backbone, built, trunk, Phases()):
        pass
    if built.network.output is None:
        return
    last = {id(value) for value in built.network.last.parameters()}
    fitted = [name for name, value in built.network.named_parameters() if id(value) in last and name in tensors]
    shared.heads[key] = ({name: tensors[name].detach().clone() for name in fitted}, built.derived[before:])


def _noted(evaluate: Callable[[], Measured], seen: list[Measured]) -> Measured:
    found = evaluate()
    seen.append(found)
    return found


def _keep_weights(folder: Path, best: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with whole_file(folder / WEIGHTS) as partly:
        save_file({name: value.detach().cpu().contiguous() for name, value in best.items()}, partly)


def _result(recipe: Recipe, scores: Scores, loss: float, built: Built, took: Time, evaluations: int) -> Result:
    from tunesmith.evaluation.intervals import standard_error

    asked = recipe.evaluation.metric
    primary = scores.primary if asked == "auto" else asked
    found = {name: scores.value(name) for name in scores.metrics}
    costs = {LOSS: loss, SECONDS: took.seconds, PARAMETERS: float(built.trainable)}
    lower = (*scores.lower, *(name for name in costs if name not in found))
    return Result(
        metrics={**costs, **found},
        lower=tuple(lower),
        primary=primary,
        loss=loss,
        error=standard_error(scores, primary),
        seconds=took.seconds,
        cpu_seconds=took.cpu_seconds,
        evaluations=evaluations,
        trainable=built.trainable,
        rate=rate if isinstance(rate := built.training.rate, float) else None,
    )


def check_metrics(named: Sequence[str], known: Collection[str], whose: str) -> None:
    """Raises RecipeError with each of the metrics to judge by that is none of those that are known, nor a cost."""
    problems = [
        f'search.metrics: {whose} no metric "{metric}"; {did_you_mean(metric, [*known, *COSTS])}'
        for metric in named
        if metric not in (*known, *COSTS)
    ]
    if problems:
        raise RecipeError(*problems)


def mean_of(results: list[Result]) -> Result:
    """The mean over the repeats of a trial; what they took is summed.

    All are scored on the same rows, so their errors over rows do not average out: error is sqrt(e^2 + s^2 / R), with e the
    root mean square of the R repeats' own errors and s the standard deviation of their values. For repeats and rows that
    are crossed (Brennan 2001, Generalizability Theory, chapter 2) the variance of the mean is that of the n rows over n, that
    of seeds over R, and that of both together over n R. e^2 holds the last one over n, so that on average this is too wide
    by it, and not too narrow.
    """
    count = len(results)
    mean = {name: fmean(one.metrics[name] for one in results) for name in results[0].metrics}
    rows = fmean(one.error**2 for one in results)
    seeds = variance(one.metrics[one.primary] for one in results) / count if count > 1 else 0.0
    return replace(
        results[0],
        metrics=mean,
        loss=mean[LOSS] if LOSS in mean else results[0].loss,
        error=math.sqrt(rows + seeds),
        seconds=sum(one.seconds for one in results),
        cpu_seconds=sum(one.cpu_seconds for one in results),
        evaluations=sum(one.evaluations for one in results),
    )


def let_go(folder: Path) -> None:
    """Deletes what takes room in a trial's folder, and what could be averaged."""
    for path in (*folder.rglob(WEIGHTS), *folder.rglob("checkpoints")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def weights_of(folder: Path) -> Path:
    """Of a trial that is done: of its first seed, where it has several."""
    first = folder / "seed-0" / WEIGHTS
    return first if first.exists() else folder / WEIGHTS
