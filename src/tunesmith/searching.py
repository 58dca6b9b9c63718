"""A search: trials on one preparation, the best of them trained once more on the recipe's own path, and tested."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError, ModelError, RecipeError, TrainingError
from tunesmith.files import write_whole
from tunesmith.memory import importing, keep_few_kernels
from tunesmith.pipeline import anchored, never, resume, start
from tunesmith.recipe import Recipe, id_of, yaml_text
from tunesmith.selection.journal import take
from tunesmith.selection.samplers import PAIRS
from tunesmith.selection.space import Choices, Numbers, Searched
from tunesmith.selection.spec import COSTS, SearchSpec
from tunesmith.selection.storage import check_optuna
from tunesmith.selection.study import TRIALS, Known, Lost, Mine, Study, Told, best_of
from tunesmith.training.events import Event, Note, StepDone, Stopped, Warned
from tunesmith.trying import (
    Judged,
    Result,
    Shared,
    check_metrics,
    let_go,
    mean_of,
    read_by,
    train_trial,
    trial_recipe,
)
from tunesmith.winning import PAGE, WINNER, Found, all_failed, clear, tested, written

if TYPE_CHECKING:
    from tunesmith.preparing import Prepared

ASKED = "search.yaml"
SOUP = 5  # other trials that are tried beside the winner; the weights of no more are kept


@dataclass
class Search:
    """One search, being made. Iterate `events()`; what has happened is on disk at every moment."""

    searched: Searched
    spec: SearchSpec
    asked: dict[str, Any]  # the recipe as it was given, with its spaces
    out: Path
    stop: Callable[[], bool] = never
    again: str = ""  # the command that goes on
    finished: bool = False
    _step: int = 0  # of the trial under way, or of the last one

    @property
    def run(self) -> Path:
        """The winner's run, once there is one; before that the search's folder."""
        return self.out / WINNER if self.finished else self.out

    def events(self) -> Iterator[Event]:
        """Does the work, or what is left of it. Raises TunesmithError kinds, and OSError."""
        check_optuna()
        keep_few_kernels()
        with importing():
            import torch  # noqa: F401
        shared = Shared()
        first, prepared = self._read(shared)
        study = self._open(prepared, first)  # whose folder it is comes before all that it holds
        if (commits := study.commits(shared.commits)) != shared.commits:
            shared = Shared(commits=commits)  # a newer one has come since the search began
        if self._over():
            yield from self._end(study)
            return
        yield from prepared.notes
        yield Note("search", tuple(self._plan(study, first)))
        if study.repaired:
            yield Warned(study.repaired)
        for name in (name for name, limit in first.limits if limit is not None):
            yield Warned(
                f"limits.{name}: is not looked at in trials, which end by search.time; it holds for the winner"
            )
        if known := tuple(told for told in study.told() if told.state != "running"):
            yield Known(known)
        if study.winner() is None:
            done = yield from self._try(study, shared)
            if not done:
                return
        yield from self._end(study)

    def _read(self, shared: Shared) -> tuple[Recipe, Prepared]:
        """The first recipe of the space, and the rows as the first one that can read them reads them.

        The others are for their trials to fail by. Raises DataError where none can, and RecipeError where the rows' task has
        not every metric that was named.
        """
        first = self._recipe(next(self.searched.telling()))
        tried, wrong = set[str](), None
        for values in self.searched.telling():
            recipe = self._recipe(values)
            recipe = trial_recipe(recipe, recipe.seed, recipe.evaluation.metric)
            key = id_of(read_by(recipe))
            if key in tried:
                continue
            tried.add(key)
            try:
                prepared, _, _ = shared.rows(recipe)
            except DataError as error:
                wrong = error if wrong is None else wrong
                continue
            task = prepared.task
            check_metrics(self.spec.named, task.metrics, f"task {task.part_name()} has")
            return first, prepared
        assert wrong is not None, "a space has one combination at least"
        raise wrong

    def _over(self) -> bool:
        """Whether the winner was trained and tested, here or by another process."""
        self.finished = (self.out / WINNER / "report.json").exists()
        return self.finished

    def _open(self, prepared: Prepared, first: Recipe) -> Study:
        plain = first.to_plain()
        judged = self.spec.model_dump(include={"sampler", "pruner", "metrics", "repeats", "seed"}, mode="json")
        spaces = {key: [space.said(), isinstance(space, Numbers)] for key, space in self.searched.spaces.items()}
        # Where rows and base lie is not what they are: another machine may see them elsewhere.
        identity = {
            **plain,
            "data": {**plain["data"], "path": ""},
            "model": Path(first.model).name,
            "rows": prepared.fingerprints(),
            "spaces": spaces,
            "search": judged,
        }
        seed = first.seed if self.spec.seed is None else self.spec.seed
        pruner, most = self._pruner(first)
        study = Study.open(self.out, self.searched, self.spec, seed, pruner, most, id_of(identity))
        if not (self.out / ASKED).exists():
            write_whole(self.out / ASKED, yaml_text(self.asked))
        return study

    def _pruner(self, first: Recipe) -> tuple[str, int]:
        """Which, and how many evaluations a trial has at most; 0 where trials differ in that."""
        spaces, training = self.searched.spaces, first.training
        fixed = {"method", "training.epochs", "training.evaluations"}.isdisjoint(spaces)
        most = training.epochs * training.evaluations if fixed and isinstance(training.epochs, int) else 0
        asked = self.spec.pruner
        if asked == "hyperband" and self._repeats(first) > 1:
            raise RecipeError(
                "search.pruner: hyperband goes by the evaluations of one training, and search.repeats has several; use "
                "wilcoxon, or none"
            )
        if asked == "wilcoxon" and self._repeats(first) <= PAIRS:
            raise RecipeError(
                f"search.pruner: wilcoxon goes by repeats, cannot tell before {PAIRS} of them, and a trial has "
                f"{self._repeats(first)}; give search.repeats={PAIRS + 1} or more, or leave pruner out"
            )
        if asked != "auto":
            return asked, most
        if len(self.spec.named) > 1 or (self.spec.named and self.spec.named[0] in COSTS):
            return "none", most
        if self._repeats(first) > 1:
            return ("wilcoxon" if self._repeats(first) > PAIRS else "none"), most
        return ("none" if most == 1 else "hyperband"), most

    def _plan(self, study: Study, first: Recipe) -> Iterator[str]:
        for key, space in self.searched.spaces.items():
            yield f"{key}: {space.said()}"
        size, known = self.searched.size, study.told()
        every = " (every combination)" if size <= self.spec.trials else ""
        drawn = "in turn" if every else f"by {self.spec.sampler}"
        pruner = self._pruner(first)[0]
        repeats = self._repeats(first)
        ended = "none is ended early" if pruner == "none" else f"ended early by {pruner}"
        if 1 < repeats <= PAIRS and self.spec.pruner == "auto":
            ended += f" (wilcoxon could be from search.repeats={PAIRS + 1} on)"
        seeds = f", each from {repeats} seeds" if repeats > 1 else ""
        yield f"{study.trials} trials{every}{seeds}, drawn {drawn}, {ended}; on training and validation rows alone"
        ended_before = sum(told.state != "running" for told in known)
        if known:
            yield f"going on: {ended_before} of them were done before, and are not done again"

    def _repeats(self, recipe: Recipe) -> int:
        return recipe.evaluation.seeds if self.spec.repeats is None else self.spec.repeats

    def _recipe(self, values: dict[str, Any]) -> Recipe:
        return anchored(self.searched.recipe(values))

    def _for_trial(self, recipe: Recipe, seed: int) -> Recipe:
        named = [name for name in self.spec.named if name not in COSTS]
        return trial_recipe(recipe, seed, named[0] if named else recipe.evaluation.metric)

    def _try(self, study: Study, shared: Shared) -> Generator[Event, None, bool]:
        """Trials until there are enough. Whether the winner is known: not while others try, nor where it was stopped."""
        begun = time.monotonic()
        longest, late, said = 0.0, False, "between two trials"
        while True:
            late = self.spec.time is not None and time.monotonic() - begun + longest > self.spec.time
            if self.stop() or late:
                break
            mine = study.claim()
            if mine is None:
                if study.winner() is None and study.running() and not study.held():
                    continue  # whoever had one has let go of it since
                break
            try:
                told = yield from self._one(study, mine, shared, begun)
            except Lost:
                study.leave(mine)
                yield Warned(
                    f"trial {mine.number} was given to another process, since this one was silent for too long; what it "
                    "did here does not count"
                )
                continue
            except BaseException:
                study.leave(mine)
                raise
            if told is None:
                study.leave(mine)
                late, said = not self.stop(), f"in trial {mine.number}, which is saved"
                break
            shared.commits |= study.commits(shared.commits)
            longest = max(longest, told.seconds) if told.state == "done" else longest
            ranked = self._forget(study)
            yield replace(told, best=ranked[0].number) if ranked else told
        if self.stop():
            yield Stopped(self._step, f"asked to stop {said}", self.again)
            return False
        if (others := study.held()) > 0:
            yield self._others(others)
            return False
        told, left = study.told(), study.running()
        if late and not best_of(told):
            raise self._too_little(time.monotonic() - begun)
        if late:
            yield Note(
                "search", (f"{self.spec.time:g} s are over (search.time): {len(told) - len(left)} trials were done",)
            )
        if not best_of(told):
            raise all_failed(told)
        return True

    def _others(self, count: int) -> Note:
        trials = "1 trial" if count == 1 else f"{count} trials"
        return Note("search", (f"other processes still work on {trials}: the last one trains the winner", self.again))

    def _one(self, study: Study, mine: Mine, shared: Shared, begun: float) -> Generator[Event, None, Told | None]:
        """One trial to its end; None where it was stopped, with what it had saved."""
        yield Told(mine.number, "running", mine.values, again=mine.again)

        def stop() -> bool:
            study.beat(mine)
            return self.stop() or (self.spec.time is not None and time.monotonic() - begun > self.spec.time)

        clock, judged = (time.perf_counter(), time.process_time()), list[Judged]()

        def took() -> dict[str, Any]:
            return {
                "seconds": time.perf_counter() - clock[0],
                "cpu_seconds": time.process_time() - clock[1],
                "again": mine.again,
            }

        def so_far() -> dict[str, Any]:
            if not judged:
                return took()
            last = judged[-1]
            return {
                **took(),
                "metrics": {last.metric: last.value},
                "judges": (last.metric,),
                "ranks": (last.rank,),
                "error": last.error,
                "evaluations": last.evaluation,
            }

        try:
            recipe = self._recipe(mine.values)
            ended = yield from self._trained(study, mine, shared, recipe, stop, judged)
        except (TrainingError, RecipeError, ModelError, DataError) as error:
            told = Told(mine.number, "failed", mine.values, **so_far(), why="; ".join(error.problems))
        except (NotImplementedError, RecursionError):
            raise
        except (RuntimeError, MemoryError) as error:
            said = str(error).strip().partition("\n")[0]
            told = Told(mine.number, "failed", mine.values, **so_far(), why=f"{type(error).__name__}: {said}")
        else:
            if ended is None:
                return None
            if isinstance(ended, str):
                told = Told(mine.number, "pruned", mine.values, **so_far(), why=ended)
            else:
                told = self._done(mine, ended, took())
        if told.state != "done":
            let_go(mine.folder)
        study.finish(mine, told)
        return told

    def _done(self, mine: Mine, result: Result, took: dict[str, Any]) -> Told:
        named = self.spec.named if self.spec.named else (result.primary,)
        if unknown := [metric for metric in named if not math.isfinite(result.metrics[metric])]:
            why = f"{' and '.join(unknown)} of the validation rows cannot be told: what it says is the same for all"
            return Told(mine.number, "failed", mine.values, **took, why=why)
        return Told(
            mine.number,
            "done",
            mine.values,
            metrics=result.metrics,
            judges=named,
            ranks=tuple(result.rank(metric) for metric in named),
            loss=result.loss,
            error=result.error if named[0] == result.primary else None,
            evaluations=result.evaluations,
            **took,
        )

    def _trained(
        self,
        study: Study,
        mine: Mine,
        shared: Shared,
        recipe: Recipe,
        stop: Callable[[], bool],
        judged: list[Judged],
    ) -> Generator[Event, None, Result | str | None]:
        """All repeats of a trial; why it was pruned; None where it was stopped."""
        repeats, results = self._repeats(recipe), list[Result]()
        for repeat in range(repeats):
            folder = mine.folder if repeats == 1 else mine.folder / f"seed-{repeat}"
            ended = yield from self._repeat(
                study, mine, shared, self._for_trial(recipe, recipe.seed + repeat), folder, stop, judged, repeats == 1
            )
            if not isinstance(ended, Result):
                return ended
            results.append(ended)
            if repeats == 1:
                continue
            metric = self.spec.named[0] if self.spec.named else ended.primary
            if study.report(mine, repeat, ended.rank(metric)) and repeat + 1 < repeats:
                return f"worse than the best trial on {repeat + 1} of {repeats} seeds (wilcoxon)"
        check_metrics(self.spec.named, results[0].metrics, "these rows have")
        return mean_of(results)

    def _repeat(
        self,
        study: Study,
        mine: Mine,
        shared: Shared,
        recipe: Recipe,
        folder: Path,
        stop: Callable[[], bool],
        judged: list[Judged],
        single: bool,
    ) -> Generator[Event, None, Result | str | None]:
        events = train_trial(shared, recipe, folder, stop)
        with closing(events):
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    return end.value
                if not isinstance(event, Judged):
                    self._step = event.step if isinstance(event, StepDone) else self._step
                    yield event
                    continue
                judged.append(event)
                yield event
                last = event.evaluation >= event.evaluations
                if single and study.report(mine, event.evaluation, event.rank) and not last:
                    return f"after evaluation {event.evaluation} of {event.evaluations} (hyperband)"

    def _forget(self, study: Study) -> list[Told]:
        """Lets go of weights that no average will be made with. The done trials, best first."""
        ranked = best_of(study.told())
        for told in ranked[SOUP + 1 if self.spec.soup else 0 :]:
            let_go(study.folder / TRIALS / f"{told.number:04d}")
        return ranked

    def _too_little(self, seconds: float) -> TrainingError:
        return TrainingError(
            f"search.time: {seconds:.0f} s passed before one trial was done; give --max-time more, or lower "
            f"training.epochs; what the trial did is kept, go on with: {self.again}"
        )

    def _end(self, study: Study) -> Iterator[Event]:
        """Says what was found, and trains, averages and tests the winner; where no other process does."""
        lock = take(self.out / ".winner.lock")
        if lock is None:
            yield Note("search", (f"another process trains the winner in {self.out / WINNER}",))
            return
        try:
            number = study.settle()
            if number is None:
                yield self._others(study.held())
                return
            if other := study.trained_by():
                yield Note("search", (f"the winner is trial {number}, which {other} trains, or has trained",))
                return
            found = Found(self.asked, self.searched.spaces, study.told(), study.importances(), number)
            before = self._over()
            if not before:
                yield from found.said()
                found.write(self.out, None)
                yield from self._winner(study, found)
            if self.finished:
                study.leads(done=True)
            if self.finished and not written(self.out):
                clear(self.out)  # their weights were tried
                found.write(self.out, tested(self.out))
                yield Note("search", (f"search: {self.out / PAGE}",))
            if before:
                yield Note(
                    "search", (f"{self.out}: is finished, and its winner tested; another search needs another --out",)
                )
        finally:
            lock.let_go()

    def _winner(self, study: Study, found: Found) -> Iterator[Event]:
        folder = self.out / WINNER

        def stop() -> bool:
            return not study.leads() or self.stop()

        if (folder / "recipe.yaml").exists():
            session = resume(folder, stop)
        else:
            found.lay_beside(self.out, SOUP if self.spec.soup else 0)
            recipe = self._recipe(found.best.values)
            session = start(recipe, folder, stop=stop, commit=study.commits({}).get(recipe.model))
        yield Note("winner", (f"training it on the recipe's own path in {folder}, and testing it",))
        for event in session.events():
            yield replace(event, resume=self.again) if isinstance(event, Stopped) else event
        self.finished = session.finished
        if not self.finished and (other := study.trained_by()):
            yield Warned(f"{other} trains the winner now, since nothing was heard of this machine for too long")


def search(asked: dict[str, Any], out: Path, stop: Callable[[], bool] = never, command: str = "") -> Search:
    """A search by a recipe's plain data with spaces and a `search` section, to be begun or gone on with in `out`.

    Raises RecipeError, with every problem, before anything is read or trained.
    """
    from tunesmith.errors import Problems
    from tunesmith.selection.space import read_spaces

    plain = dict(asked)
    problems, spec, searched = Problems(), SearchSpec(), None
    try:
        spec = SearchSpec.parse(plain.pop("search", None))
    except RecipeError as error:
        for line in error.problems:
            problems.add(line)
    try:
        searched = read_spaces(plain)
        searched.check()
        _check(searched)
    except RecipeError as error:
        for line in error.problems:
            problems.add(line)
    problems.raise_as(RecipeError)
    assert searched is not None, "raised else"
    again = command if command else f"tunesmith search {shlex.quote(str(out / ASKED))} --out {shlex.quote(str(out))}"
    return Search(searched, spec, asked, out, stop, again)


def _check(searched: Searched) -> None:
    """Raises RecipeError where the recipe leaves no rows that no trial sees, or none to judge by."""
    base, problems = Recipe.parse(searched.plain), list[str]()
    choices = searched.spaces.get("method")
    if base.data.folds is not None:
        problems.append(
            "data.folds: would test on every row, and the winner is to be tested on rows that no trial saw; leave it out, "
            "and give search.repeats for several trainings a trial"
        )
    if base.method == "auto" or "auto" in (choices.values if isinstance(choices, Choices) else ()):
        problems.append(
            "method: auto is a search of its own; name one, or several as choices: {choices: [layers, lora, full]}"
        )
    if base.data.validation == 0:
        problems.append("data.validation: a search judges its trials on validation rows; raise it, or leave it out")
    if problems:
        raise RecipeError(*problems)
