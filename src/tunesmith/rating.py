"""Finding the learning rate of a recipe: a few short trainings around the documented one, judged on validation rows."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunesmith.errors import ArtifactError, ModelError, RecipeError, TrainingError
from tunesmith.evaluation.kept_scores import read_scores
from tunesmith.evaluation.rate_page import begun_from
from tunesmith.evaluation.terminal import aligned
from tunesmith.evaluation.wording import count, duration, metric_title, rows_of
from tunesmith.files import make_folder, write_whole
from tunesmith.memory import importing, keep_few_kernels
from tunesmith.pipeline import anchored, never
from tunesmith.recipe import Recipe, id_of, yaml_text
from tunesmith.selection.journal import take
from tunesmith.selection.rates import FACTOR, FIRST_ROWS, lost, next_step, shares, taken
from tunesmith.training.events import Event, Note, Stopped, Warned
from tunesmith.trying import HELD, Judged, Result, Shared, let_go, train_trial, trial_recipe

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone
    from tunesmith.preparing import Prepared
    from tunesmith.tasks.base import Scores

FOUND, PAGE, TUNED, TRIALS = "rate.json", "rate.html", "tuned.yaml", "trials"  # in the folder
SCHEMA = 1
BASE, HEAD = "training.rate", "training.head_rate"
T = TypeVar("T")
WORST = (-math.inf, -math.inf)


@dataclass(frozen=True)
class Tried(Event):
    """A training with one rate, ended."""

    kind = "tried"
    step: int  # the rate is FACTOR ** step times the documented one
    rate: float  # peak
    rows: int  # that it learned from
    share: float  # of the training rows
    metric: str = ""
    value: float | None = None  # on the validation rows; None where it came to nothing
    error: float = 0.0  # one standard error of `value`
    loss: float | None = None
    # After each evaluation, more is better, with one standard error; None of what was judged before it was killed.
    ranks: tuple[float | None, ...] = ()
    errors: tuple[float | None, ...] = ()
    rank: float | None = None  # of what it reached
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    why: str = ""  # it was ended early, or came to nothing; "" where it was done

    @property
    def done(self) -> bool:
        return not self.why


@dataclass(frozen=True)
class Chosen(Event):
    """What to train with."""

    kind = "chosen"
    key: str  # of a recipe
    rate: float
    documented: float  # that it began from: where the recipe names a rate, that one
    step: int
    why: str


@dataclass
class Rating:
    """Rates of one recipe, being tried. Iterate `events()`; what has ended is on disk at every moment."""

    recipe: Recipe
    out: Path
    rows: int = FIRST_ROWS  # training rows of the first trials
    most: float | None = None  # seconds by the clock for trials
    stop: Callable[[], bool] = never
    again: str = ""  # the command that goes on
    key: str = BASE
    _tried: list[Tried] = field(default_factory=list)
    _shared: Shared = field(default_factory=Shared)
    _total: int = 0  # training rows
    _rows: dict[str, str] = field(default_factory=dict)  # hashes of all splits
    _begun: float = 0.0

    @property
    def run(self) -> Path:
        return self.out

    def events(self) -> Iterator[Event]:
        """Does the work, or what is left of it. Raises TunesmithError kinds, and OSError."""
        self._begun = time.monotonic()
        keep_few_kernels()
        with importing():
            import torch  # noqa: F401
        shared = self._shared = Shared(commits=self._commits())
        prepared, backbone, held = self._read(shared)  # before there is a folder: rows may not be what they should
        make_folder(self.out)
        lock = take(self.out / ".rate.lock")
        if lock is None:
            raise ArtifactError(f"{self.out}: another process tries rates there; name another folder with --out")
        try:
            yield from self._events(shared, prepared, backbone, held)
        finally:
            lock.let_go()

    def _read(self, shared: Shared) -> tuple[Prepared, Backbone, int]:
        """The rows, the base and how many validation rows there are. Raises RecipeError where there are none."""
        first = trial_recipe(self.recipe, self.recipe.seed, self.recipe.evaluation.metric)
        prepared, encoded, backbone = shared.rows(first)
        shared.keep(anchored(first), prepared, encoded)  # as trials name them, wherever they are gone on with from
        self._rows = prepared.fingerprints()
        if not encoded.examples["validation"]:
            raise RecipeError("data.validation: rates are judged on validation rows, and there are none; raise it")
        self._total = len(encoded.examples["train"])
        return prepared, backbone, len(encoded.examples["validation"])

    def _events(self, shared: Shared, prepared: Prepared, backbone: Backbone, held: int) -> Iterator[Event]:
        self._tried = self._known()
        own = {share: self._own(prepared, backbone, share) for share in (*shares(self._total, self.rows), 1.0)}
        if not (self.out / FOUND).exists():
            self._write(None)  # whose folder it is, before the first trial lies there
        yield from prepared.notes
        yield Note("rate", self._plan(own[1.0], held))
        for name, asked in (("memory", self.recipe.limits.memory), ("energy", self.recipe.limits.energy)):
            if asked is not None:
                yield Warned(
                    f"limits.{name}: is not looked at while rates are tried; it holds for the training after that"
                )
        step = None
        for level, share in enumerate(shares(self._total, self.rows)):
            if level and (step is None or step == 0):
                break  # nothing speaks against the documented rate
            wanted = None if level == 0 else [step, 0]
            ended = yield from self._level(shared, prepared, own[share], share, wanted)
            if not ended and self.stop():
                return
            step = self._best(prepared, share, step)
            if not ended:
                break
        if step is None:
            raise self._nothing()
        yield from self._end(step, own[1.0])

    def _own(self, prepared: Prepared, backbone: Backbone, share: float) -> float:
        """The rate that is asked for, or the method's documented one for so many rows."""
        from tunesmith.assembly import resolve_rates

        recipe = self.recipe
        if recipe.training.batch_size is None:  # what the rate asks is about how many steps there are
            recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"batch_size": 32})})
        rates, _, _ = resolve_rates(recipe, prepared, backbone, prepared.task.epoch_rows(round(self._total * share)))
        return rates.head if self.key == HEAD else rates.base

    def _plan(self, own: float, held: int) -> tuple[str, ...]:
        levels = [count(round(self._total * share)) for share in shares(self._total, self.rows)]
        rows = (
            f"on {levels[0]} of {rows_of(self._total, 'training row')}"
            if len(levels) > 1
            else f"on all {levels[0]} rows"
        )
        known = len(self._tried)
        return (
            f"{self.key} from {own:.3g} outwards, each {FACTOR:g} times the last, {rows}, all epochs; judged on "
            f"{rows_of(held, 'validation row')}; test rows are not looked at",
            *([f"going on: {known} were tried before, and are not tried again"] if known else []),
        )

    def _level(
        self, shared: Shared, prepared: Prepared, own: float, share: float, wanted: list[int] | None
    ) -> Generator[Event, None, bool]:
        """Tries rates on a share of the rows: those that are wanted, or outwards. False where stop or time ended it."""
        while True:
            ranks = {one.step: self._rank(one) for one in self._at(share)}
            step = next_step(ranks) if wanted is None else next((one for one in wanted if one not in ranks), None)
            if step is None:
                return True
            if self._late():
                return False
            told = yield from self._try(shared, prepared, step, own * FACTOR**step, share)
            if told is None:
                if self.stop():
                    yield Stopped(0, "asked to stop; what was tried is saved", self.again)
                return False
            self._tried.append(told)
            self._write(None)
            yield told

    def _at(self, share: float) -> list[Tried]:
        return [one for one in self._tried if one.share == share]

    def _rank(self, one: Tried) -> tuple[float, float]:
        """More is better; one that was ended early is as good as it was by then."""
        if one.rank is None:
            return WORST
        return (one.rank, -math.inf if one.loss is None else -one.loss) if one.done else (-math.inf, one.rank)

    def _late(self) -> bool:
        return self.most is not None and time.monotonic() - self._begun > self.most

    def _folder(self, step: int, share: float) -> Path:
        return self.out / TRIALS / f"{round(self._total * share)}-rows-{step:+d}"

    def _try(
        self, shared: Shared, prepared: Prepared, step: int, rate: float, share: float
    ) -> Generator[Event, None, Tried | None]:
        """One trial; None where it was asked to stop, or time is over."""
        recipe, folder = self.recipe, self._folder(step, share)
        training = recipe.training.model_copy(update={self.key.partition(".")[2]: rate})
        data = recipe.data.model_copy(update={"share": recipe.data.share * share})
        recipe = anchored(recipe.model_copy(update={"training": training, "data": data}))
        recipe = trial_recipe(recipe, recipe.seed, recipe.evaluation.metric)
        told = Tried(step, rate, round(self._total * share), share)
        seen: list[Judged] = []
        best = max((one for one in self._at(share) if one.done), key=self._rank, default=None)
        clock = (time.perf_counter(), time.process_time())
        events = train_trial(shared, recipe, folder, lambda: self.stop() or self._late(), adopted=True)
        ended, why = None, ""
        try:
            with closing(events):
                while not why:
                    try:
                        event = next(events)
                    except StopIteration as end:
                        ended = end.value
                        break
                    yield event
                    if isinstance(event, Judged):
                        seen.append(event)
                        why = _behind(event, best)
        except (TrainingError, ModelError, RecipeError) as error:
            why = "; ".join(error.problems)
        except (NotImplementedError, RecursionError):  # kinds of RuntimeError, and nothing that a user can put right
            raise
        except (RuntimeError, MemoryError) as error:
            said = str(error).strip().partition("\n")[0]
            why = f"{type(error).__name__}: {said}"
        if ended is None and not why:
            return None
        told = replace(
            told,
            ranks=_course(seen, [one.rank for one in seen]),
            errors=_course(seen, [one.error for one in seen]),
            seconds=time.perf_counter() - clock[0],
            cpu_seconds=time.process_time() - clock[1],
            why=why,
        )
        let_go(folder)
        return _judged(told, ended, seen, self.recipe.evaluation.metric)

    def _best(self, prepared: Prepared, share: float, before: int | None) -> int | None:
        """The step to take by what was tried on this share; `before` where that says nothing."""
        done = [one for one in self._at(share) if one.done]
        if not done:
            return before
        scores = [self._scores(prepared, one) for one in done]
        losses = [math.inf if one.loss is None else one.loss for one in done]
        return taken([one.step for one in done], scores, losses, done[0].metric, self.recipe.seed)

    def _scores(self, prepared: Prepared, one: Tried) -> Scores:
        labels, task = prepared.labels, prepared.task
        return read_scores(self._folder(one.step, one.share) / HELD, lambda columns: task.functions(columns, labels))

    def _end(self, step: int, own: float) -> Iterator[Event]:
        last = [one.share for one in self._tried if one.done][-1]  # those on more rows may all have come to nothing
        values = {one.step: one.value for one in self._at(last) if one.done and one.value is not None}
        why = self._why(step, last)
        chosen = Chosen(self.key, own * FACTOR**step, own, step, why)
        self._write(chosen)
        begun = begun_from(self.recipe.to_plain(), self.key)
        yield Note("rate", *table_of(self._tried, chosen, self._metric(), last, begun))
        yield Note("taken", tuple(self._said(chosen, values)))
        yield chosen
        yield Note("next", (f"tunesmith train --recipe {shlex.quote(str(self.out / TUNED))}",))

    def _metric(self) -> str:
        return next(one.metric for one in self._tried if one.metric)

    def _why(self, step: int, share: float) -> str:
        if self._late() and self.most is not None:
            return f"the best when {duration(self.most)} were over"
        best = max((one for one in self._at(share) if one.done), key=self._rank)
        own = f"the {begun_from(self.recipe.to_plain(), self.key)} rate"
        if step == best.step == 0:
            return f"{own}, and the best"
        if step == 0:
            return f"{own}: no other is better by more than the noise of the validation rows"
        on = "" if share == 1 else f" of trainings on {count(round(self._total * share))} rows"
        return f"better than {own} by more than the noise of the validation rows{on}"

    def _said(self, chosen: Chosen, values: dict[int, float]) -> Iterator[str]:
        yield f"{chosen.key}={chosen.rate:.3g}: {chosen.why}"
        near = ((f"with {1 / FACTOR:.2g} times it", chosen.step - 1), (f"with {FACTOR:g} times it", chosen.step + 1))
        beside = [f"{said} {values[step]:.4f}" for said, step in near if step in values]
        if chosen.step in values and beside:
            yield f"{metric_title(self._metric())} {values[chosen.step]:.4f}, {', '.join(beside)}"
        seconds, cpu = sum(one.seconds for one in self._tried), sum(one.cpu_seconds for one in self._tried)
        yield f"{len(self._tried)} trials, {duration(seconds)} ({duration(cpu, 'CPU')}); the page: {self.out / PAGE}"

    def _nothing(self) -> TrainingError:
        said = [f"{self.key}={one.rate:.3g}: {one.why}" for one in self._tried]
        if self._late():
            before = "one training with a rate came to its end" if said else "one rate was tried"
            return TrainingError(
                f"--max-time: {self.most:g} s passed before {before}; give more time, or fewer --rows; go on with: "
                f"{self.again}",
                *said,
            )
        return TrainingError("no rate could be trained with", *said)

    def _identity(self) -> str:
        return f"{anchored(self.recipe).id} {self.rows} {self.key} {id_of(self._rows)}"

    def _known(self) -> list[Tried]:
        """What was tried before. Raises ArtifactError where the folder is of something else, or cannot be read."""

        def known(found: dict[str, Any]) -> tuple[list[Tried], str]:
            listed = ("ranks", "errors")
            return [Tried(**{**one, **{key: tuple(one[key]) for key in listed}}) for one in found["tried"]], found["of"]

        tried, of = self._stored(known, ([], self._identity()))
        if of != self._identity():
            raise ArtifactError(f"{self.out}: holds rates of other rows or settings; name a new folder with --out")
        return tried

    def _commits(self) -> dict[str, str]:
        """By hub base the one that the first trial took, though a newer one has come since."""
        return self._stored(lambda found: dict(found.get("commits", {})), {})

    def _stored(self, of: Callable[[Any], T], otherwise: T) -> T:
        """`of` what was found before. Raises ArtifactError where that cannot be read."""
        path = self.out / FOUND
        if not path.exists():
            return otherwise
        try:
            return of(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{path}: cannot be read ({error}); delete it, or name another folder with --out"
            ) from None

    def _write(self, chosen: Chosen | None) -> None:
        from tunesmith.evaluation.rate_page import render_rate

        found = {
            "schema": SCHEMA,
            "of": self._identity(),
            "key": self.key,
            "commits": self._shared.commits,
            "recipe": self.recipe.to_plain(),
            "tried": [asdict(one) for one in self._tried],
            "chosen": None if chosen is None else asdict(chosen),
        }
        if chosen is not None:
            training = self.recipe.training.model_copy(update={self.key.partition(".")[2]: chosen.rate})
            write_whole(
                self.out / TUNED, yaml_text(anchored(self.recipe.model_copy(update={"training": training})).to_plain())
            )
            write_whole(self.out / PAGE, render_rate(found))
        write_whole(self.out / FOUND, json.dumps(found, indent=2) + "\n")


def rating(
    recipe: Recipe,
    out: Path,
    rows: int = FIRST_ROWS,
    most: float | None = None,
    stop: Callable[[], bool] = never,
    command: str = "",
) -> Rating:
    """Rates of a recipe, to be tried in `out`, or gone on with. Raises RecipeError where there is nothing to try."""
    from tunesmith.assembly import method_of

    problems = []
    if recipe.method == "auto":
        problems.append("method: auto chooses rates on its way; name a method, such as --method full")
    if recipe.data.folds is not None:
        problems.append("data.folds: rates are judged on validation rows alone; leave it out")
    if problems:
        raise RecipeError(*problems)
    key = BASE if method_of(recipe).trains_base else HEAD
    most = recipe.limits.time if most is None else most
    return Rating(
        recipe, out, rows, most, stop, command if command else f"tunesmith rate --out {shlex.quote(str(out))}", key
    )


def table_of(
    tried: list[Tried], chosen: Chosen, metric: str, last: float, begun: str
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Lines and cells: a rate a line, from the lowest, those on few rows first.

    last: the share that it was chosen on; begun: `begun_from`.
    """
    cells: list[tuple[str, ...]] = [("rate", begun, "rows", metric_title(metric), "loss", "time", "")]
    for one in sorted(tried, key=lambda one: (one.share, one.rate)):
        value = "-" if one.value is None else f"{one.value:.4f} ± {one.error:.4f}"
        loss = "-" if one.loss is None else f"{one.loss:.4f}"
        said = "taken" if one.step == chosen.step and one.share == last else one.why.partition(";")[0]
        times = f"x {FACTOR**one.step:.3g}"
        cells.append((f"{one.rate:.3g}", times, count(one.rows), value, loss, duration(one.seconds), said))
    return tuple(aligned(cells)), tuple(cells)


def _behind(event: Judged, best: Tried | None) -> str:
    """Why a trial is ended after this evaluation, which is not one of its first half; "" where it goes on."""
    place = event.evaluation - 1
    if best is None or not event.evaluations / 2 <= event.evaluation < event.evaluations or place >= len(best.ranks):
        return ""
    rank, error = best.ranks[place], best.errors[place]
    if rank is None or error is None or not lost(event.rank, event.error, rank, error):
        return ""
    return f"ended after evaluation {event.evaluation} of {event.evaluations}: far behind {best.rate:.3g}"


def _judged(told: Tried, result: Result | None, seen: list[Judged], asked: str) -> Tried:
    """With what it reached: of its best state, or, where it was ended, by then."""
    if result is not None:
        metric = result.primary if asked == "auto" else asked
        value = result.metrics[metric]
        if not math.isfinite(value):
            same = "what it says is the same for all"
            return replace(told, metric=metric, why=f"{metric} of the validation rows cannot be told: {same}")
        rank = result.rank(metric)
        loss = result.loss if math.isfinite(result.loss) else None
        return replace(told, metric=metric, value=value, error=result.error, loss=loss, rank=rank)
    last = next((event for event in reversed(seen) if math.isfinite(event.value)), None)
    if last is None:
        return told
    return replace(told, metric=last.metric, value=last.value, error=last.error, rank=last.rank)


def _course(seen: Sequence[Judged], values: Sequence[float]) -> tuple[float | None, ...]:
    """The values by their evaluations."""
    found: list[float | None] = [None] * (seen[-1].evaluation if seen else 0)
    for event, value in zip(seen, values, strict=True):
        found[event.evaluation - 1] = value if math.isfinite(value) else None
    return tuple(found)
