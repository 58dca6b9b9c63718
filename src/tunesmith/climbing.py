"""Method auto: from the cheapest way to fine-tune to the dearest, each measured, until the next one is not worth it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.catalog import build
from tunesmith.errors import ModelError, RecipeError, TrainingError
from tunesmith.evaluation.kept_scores import read_scores
from tunesmith.evaluation.wording import duration, every_one, rows_of
from tunesmith.files import make_folder, write_whole
from tunesmith.limits import no_room
from tunesmith.phases import Time, summed
from tunesmith.recipe import Derived, Recipe
from tunesmith.selection.ladder import (
    MANY_STEPS,
    Floor,
    Gain,
    Rung,
    Trial,
    floors,
    gain_over,
    perfect,
    picked,
    short,
)
from tunesmith.training.events import Evaluated, Event, Note, Saved, StepDone
from tunesmith.training.ledger import Ledger
from tunesmith.trying import HELD, Judged, Result, Shared, train_trial, trial_recipe

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.tasks.base import Scores

LADDER, RUNGS = "ladder.json", Path("ladder")  # in a run's folder: what was decided, and the trainings themselves
TOPIC = "auto"
LIVE = "Live"  # a trunk that keeps nothing, as resolved.yaml names it


@dataclass(frozen=True)
class Decision:
    """What is delivered, and where the training of it lies."""

    recipe: Recipe
    folder: Path | None  # that the run goes on with; None where the choice was made without training
    derived: tuple[Derived, ...]
    told: Mapping[str, Any]  # for the report
    earlier: Mapping[str, Any]  # what that training derived, which is kept


@dataclass
class Climb:
    """One ladder, being climbed. Iterate `events()`; what has happened is on disk at every moment."""

    recipe: Recipe  # with method auto
    prepared: Prepared
    encoded: Encoded
    backbone: Backbone
    run: Path
    stop: Callable[[], bool]
    enough: Callable[[], str]  # why training should end now; "" where it may go on
    left: Callable[[], float | None]  # seconds that may still go into training; None where nothing limits them
    explain: bool = False
    _shared: Shared = field(default_factory=Shared)
    _rungs: list[Rung] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)
    _passed: list[str] = field(default_factory=list)  # what was not trained whole, or not to its end, and why
    _cut: str = ""  # the limit that ended the training under way
    _scores: dict[str, Scores] = field(default_factory=dict)  # by the name of the folder

    def events(self) -> Generator[Event, None, Decision | None]:
        """Climbs; None where it was asked to stop. Raises TunesmithError kinds where no rung holds."""
        best, why, times = None, "", 1.0
        climbed, shortly, decided = self._known()
        self._shared.keep(trial_recipe(self.recipe, self.recipe.seed, self.recipe.evaluation.metric), *self._rows())
        self._shared.keep_base(self.backbone.source)
        task = self.prepared.task
        rows = len(self.prepared.splits.train)
        todo = list(floors(task.learns_tokens, self.backbone.static, bool(task.untrained), rows))
        passed, below = None, list[Trial]()  # a floor that was not trained whole, and its short trials
        ahead = None  # what is trained in its place
        while todo or passed is not None:
            if not todo and passed is not None:  # nothing above it could be trained
                todo, passed, self._passed = [passed], None, []
            floor = todo.pop(0)
            whole_before = not climbed.isdisjoint(floor.methods)
            before = whole_before or not shortly.isdisjoint(floor.methods)
            if decided and not before:
                continue
            if said := "" if before else self._beyond_means(best):
                why = said
                break
            chosen = ahead or (yield from self._chosen(floor, times, None if before else best))
            ahead = None
            if chosen is None:
                if self.stop():
                    return None
                continue
            trial, shorts, said = chosen
            if said:
                why = said
                break
            if shorts and todo and not whole_before:
                ahead = yield from self._no_worse(todo[0], trial, before)
            if ahead is not None:
                passed, below, times = floor, shorts, trial.times
                continue
            found = yield from self._trial(trial.method, trial.times, whole=True)
            if found is None:
                return None
            whole, scores = found
            if scores is None:
                yield Note(TOPIC, (f"{whole.method}: came to nothing: {whole.why}",))
                if others := tuple(method for method in floor.methods if method != whole.method):
                    todo.insert(0, replace(floor, methods=others))  # LoRA may fit where all weights do not
                continue
            times = trial.times if len(shorts) > 1 else times
            gain = None if best is None else self._gain(scores, self._scores[_name(best.trial, True)])
            # Beside one that says the same of all rows, so that its metric is not defined, there is no gain to be told.
            unknown = best is None or math.isnan(best.trial.value)
            rung = Rung(whole, (*below, *shorts), gain, unknown or gain is None or gain.taken)
            self._rungs.append(rung)
            passed, below = None, []
            yield Note(TOPIC, (_rung_said(rung, best),))
            if best is None or rung.taken:
                best = rung
            else:
                why = self._noise(rung, best)
            if not before:
                self._write(best, why)
            if why:
                break
            if perfect(scores, whole.metric):
                why = f"{whole.metric} {whole.value:.4f}: nothing is left to gain that these rows could tell"
                break
        if best is None:
            raise TrainingError(*self._why_none())
        why = decided or why or self._at_the_end(best)
        self._write(best, why)
        yield Note(TOPIC, self._decided(best, why))
        return self._decision(best, why)

    def _known(self) -> tuple[frozenset[str], frozenset[str], str]:
        """Methods of an earlier session, trained whole and shortly, and why none further is to be; "" where that is open.

        Limits are not asked of these again, for they may say otherwise by now: what was trained is there to be taken, and
        from what was taken the checkpoints are the run's own, see `adopt`.
        """
        path = self.run / LADDER
        if not path.exists():
            return frozenset(), frozenset(), ""
        known = json.loads(path.read_text(encoding="utf-8"))
        self._failed += known["failed"] if known["why"] else []
        self._passed += known.get("passed", []) if known["why"] else []
        shortly = frozenset(trial["method"] for rung in known["rungs"] for trial in rung["short"])
        return frozenset(rung["trial"]["method"] for rung in known["rungs"]), shortly, known["why"]

    def _at_the_end(self, best: Rung) -> str:
        """Why the best is delivered where no rung is left."""
        better = f"no other was better on {self._held()}"
        if best.gain is not None and best.gain.value < 0:
            better = f"{self._held()} are too few to tell it from the one before, which was better on them"
        nothing = list(dict.fromkeys(failed.partition(": ")[0] for failed in self._failed))
        return (
            f"{every_one(nothing)} came to nothing, and {better}" if nothing else f"it is the last rung, and {better}"
        )

    def _why_none(self) -> list[str]:
        """Why nothing can be delivered: each reason once, with the methods that have it."""
        reasons: dict[str, list[str]] = {}
        for failed in self._failed:
            method, _, why = failed.partition(": ")
            reasons.setdefault(why, []).append(method)
        said = [f"{', '.join(dict.fromkeys(methods))}: {why}" for why, methods in reasons.items()]
        return ["method auto: no method could be trained on this base", *said]

    def _rows(self) -> tuple[Prepared, Encoded]:
        return self.prepared, self.encoded

    def _chosen(
        self, floor: Floor, times: float, best: Rung | None
    ) -> Generator[Event, None, tuple[Trial, list[Trial], str] | None]:
        """What to train whole, the short trials that say so, and why nothing of it: "" where it is to be trained.

        None where nothing on this floor can be trained, or it was asked to stop.
        """
        wanted = [(method, time) for method in floor.methods for time in self._times(floor, times)]
        whole = self._usual(self._with(floor.methods[-1]))[0]
        if len(wanted) == 1 or short(len(self.encoded.examples["train"])) is None:
            method = next((name for name in reversed(floor.methods) if not self._has_failed(name)), None)
            return None if method is None else (Trial(method, times, None, 1.0, whole), [], "")
        trials: list[Trial] = []
        scores: dict[int, Scores] = {}
        for method, time in wanted:
            if self._has_failed(method):
                continue
            found = yield from self._trial(method, time, whole=False)
            if found is None:
                return None
            trial, held = found
            if held is None:
                if self.explain:
                    yield Note(TOPIC, (f"{self._failed[-1].partition(': ')[0]}: does not go here: {trial.why}",))
                continue
            scores[len(trials)] = held
            trials.append(trial)
        if not trials:
            return None
        place = picked(trials, scores, self.recipe.seed)
        if self.explain:
            yield Note(TOPIC, tuple(_short_said(trial, number == place) for number, trial in enumerate(trials)))
        taken = trials[place]
        return taken, trials, self._not_worth(taken, scores[place], best)

    def _has_failed(self, method: str) -> bool:
        return any(failed.startswith(f"{method}: ") for failed in self._failed)

    def _times(self, floor: Floor, times: float) -> Sequence[float]:
        """Of the method's own rate those to try: none but what was asked for, where a rate was."""
        if self.recipe.training.rate != "auto":
            return (1.0,)
        return floor.times if len(floor.times) > 1 else tuple(dict.fromkeys((1.0, times)))

    def _not_worth(self, taken: Trial, scores: Scores, best: Rung | None) -> str:
        """Why the next rung is not trained whole, by its short trial and by what it would take; "" where it is."""
        if best is None:
            return ""
        like = (best.trial.method, best.trial.times)
        below = next((trial for trial in best.short if (trial.method, trial.times) == like), None)
        if below is not None:
            gain = self._gain(scores, self._scores[_name(below, False)])
            if gain.loses:
                return f"in a short trial {taken.method} is worse than {below.method} by as long a one: {gain.said()}"
        return self._too_long(taken)

    def _no_worse(
        self, floor: Floor, below: Trial, known: bool
    ) -> Generator[Event, None, tuple[Trial, list[Trial], str] | None]:
        """What to train whole of the floor above in place of `below`, with its short trials; None where that comes first.

        Where as short a trial is no worse above, and there is time, what is below would be climbed over: with so many rows
        the more trains, the better. It comes back where nothing above can be trained whole. known: it was so before, and
        limits are not asked again.
        """
        chosen = yield from self._chosen(floor, below.times, None)
        if chosen is None or not chosen[1] or (not known and self._too_long(chosen[0])):
            return None
        above = chosen[0]
        gain = self._gain(self._scores[_name(above, False)], self._scores[_name(below, False)])
        if gain.loses:
            return None
        said = f"{below.method} is not trained whole: in as short a trial {above.method} is no worse, {gain.said()}"
        yield self._told(said)
        return chosen

    def _told(self, said: str) -> Note:
        self._passed += [] if said in self._passed else [said]
        return Note(TOPIC, (said,))

    def _enough(self) -> str:
        self._cut = self.enough()
        return self._cut

    def _too_long(self, taken: Trial) -> str:
        """Why a method is not trained whole, by the time that it would take; "" where there is enough."""
        needed, left = self._forecast(taken), self.left()
        if left is None or needed <= left:
            return ""
        return f"{taken.method} takes about {duration(needed)}, and {duration(max(left, 0.0))} are left (limits.time)"

    def _forecast(self, trial: Trial) -> float:
        """Seconds of a whole training, from those of a short trial."""
        return trial.seconds / trial.share

    def _beyond_means(self, best: Rung | None) -> str:
        """Why no further rung is tried, where a limit says so. Raises TrainingError where nothing is there to deliver."""
        said = self.enough()
        if said and best is None:
            raise TrainingError(no_room(said))
        return said

    def _noise(self, rung: Rung, best: Rung) -> str:
        assert rung.gain is not None, "of what was compared"
        return (
            f"{rung.trial.method} gains {rung.gain.said()} over {best.trial.method}, within the noise of {self._held()}"
        )

    def _held(self) -> str:
        return rows_of(len(self.encoded.examples["validation"]), "validation row")

    def _gain(self, scores: Scores, other: Scores) -> Gain:
        asked = self.recipe.evaluation.metric
        return gain_over(scores, other, scores.primary if asked == "auto" else asked, self.recipe.seed)

    def _with(self, method: str) -> Recipe:
        return self.recipe.model_copy(update={"method": build("methods", method)})

    def _usual(self, recipe: Recipe) -> tuple[int, float]:
        """Epochs and the base's peak rate of a whole training with that method."""
        from tunesmith.assembly import resolve_rates

        training = recipe.training
        if training.batch_size is None:  # what the rate asks is about how many steps there are
            recipe = recipe.model_copy(update={"training": training.model_copy(update={"batch_size": 32})})
        rows = self.prepared.task.epoch_rows(len(self.encoded.examples["train"]))
        rates, epochs, _ = resolve_rates(recipe, self.prepared, self.backbone, rows)
        return epochs, rates.base

    def _trial(
        self, method: str, times: float, whole: bool
    ) -> Generator[Event, None, tuple[Trial, Scores | None] | None]:
        """One training, whole or short; without scores where it came to nothing, None where it was asked to stop.

        Where memory runs out it comes to nothing too, so that what was trained before is delivered all the same.
        """
        from tunesmith.training.preflight import out_of_memory

        recipe = self._with(method)
        epochs, rate = self._usual(recipe)
        share = (None if whole else short(len(self.encoded.examples["train"]))) or 1.0
        changed: dict[str, Any] = {} if times == 1 else {"rate": rate * times}
        trial = Trial(method, times, None, share, epochs)
        folder = self.run / RUNGS / _name(trial, whole)
        recipe = recipe.model_copy(
            update={
                "training": recipe.training.model_copy(update=changed),
                "data": recipe.data.model_copy(update={"share": recipe.data.share * share}),
            }
        )
        recipe = trial_recipe(recipe, recipe.seed, recipe.evaluation.metric)
        try:
            result = yield from self._trained(recipe, folder, whole)
        except (RecipeError, ModelError) as error:
            return self._nothing(trial, method, "; ".join(error.problems)), None
        except TrainingError as error:  # at another rate it may go all the same
            named = f"{method} at {'its own' if times == 1 else f'{_times_said(times)} its'} rate"
            return self._nothing(trial, method if whole and times == 1 else named, "; ".join(error.problems)), None
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return self._nothing(trial, method, "out of memory; lower training.batch_size or training.max_length"), None
        if result is None:
            return None
        if self._cut and whole:
            yield self._told(f"{method} is not trained to its end: {self._cut}")
        labels, task = self.prepared.labels, self.prepared.task
        scores = read_scores(folder / HELD, lambda columns: task.functions(columns, labels))
        self._scores[_name(trial, whole)] = scores
        asked = self.recipe.evaluation.metric
        metric = scores.primary if asked == "auto" else asked
        return replace(
            trial,
            rate=result.rate,
            metric=metric,
            value=result.metrics[metric],
            error=result.error,
            loss=result.loss,
            trainable=result.trainable,
            seconds=result.seconds,
            cpu_seconds=result.cpu_seconds,
        ), scores

    def _nothing(self, trial: Trial, named: str, why: str) -> Trial:
        """Of a training that came to nothing, which is noted; `named`: what is not to be tried again."""
        self._failed += [said] if (said := f"{named}: {why}") not in self._failed else []
        return replace(trial, why=why)

    def _trained(self, recipe: Recipe, folder: Path, whole: bool) -> Generator[Event, None, Result | None]:
        """The steps of a whole training are shown, and its evaluations told."""
        self._cut = ""
        events = train_trial(self._shared, recipe, folder, self.stop, self._enough, adopted=True)
        with closing(events):
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    return end.value
                if isinstance(event, StepDone) and whole:
                    yield event
                if isinstance(event, Judged) and whole and self.explain:
                    said = (
                        f"{event.metric} {event.value:.4f} after evaluation {event.evaluation} of {event.evaluations}"
                    )
                    yield Note(TOPIC, (f"{folder.name}: {said}",))

    def _decided(self, best: Rung, why: str) -> tuple[str, ...]:
        trials = [trial for rung in self._rungs for trial in (*rung.short, rung.trial)]
        total = summed(Time(trial.seconds, trial.cpu_seconds) for trial in trials)
        lines = [
            f"method {best.trial.method} is delivered: {why}",
            f"{rows_of(len(self._rungs), 'rung')}, {rows_of(sum(len(rung.short) for rung in self._rungs), 'short trial')}: "
            f"{duration(total.seconds)} ({duration(total.cpu_seconds, 'CPU')}), of which {duration(best.trial.seconds)} "
            f"({duration(best.trial.cpu_seconds, 'CPU')}) for what is delivered",
        ]
        epochs, _ = self._usual(self._with(best.trial.method))
        rows = self.prepared.task.epoch_rows(len(self.encoded.examples["train"]))
        size = self.recipe.training.batch_size
        if size is not None and epochs * rows > MANY_STEPS * size:
            lines.append(
                f"with {rows:,} training rows a model trained from random weights competes: evaluation.scratch=true "
                "measures it"
            )
        return tuple(lines)

    def _plain(self, best: Rung, why: str) -> dict[str, Any]:
        return {
            "chosen": best.trial.method,
            "times": best.trial.times,
            "why": why,
            "validation_rows": len(self.encoded.examples["validation"]),
            "rungs": [asdict(rung) for rung in self._rungs],
            "failed": list(self._failed),
            "passed": list(self._passed),
        }

    def _write(self, best: Rung, why: str) -> None:
        make_folder(self.run)
        write_whole(self.run / LADDER, json.dumps(self._plain(best, why), indent=2) + "\n")

    def _decision(self, best: Rung, why: str) -> Decision:
        trial, recipe = best.trial, self._with(best.trial.method)
        derived = [Derived("method", trial.method, why)]
        if trial.times != 1:
            rate = self._usual(recipe)[1] * trial.times
            recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"rate": rate})})
            derived.append(
                Derived("training.rate", rate, f"{_times_said(trial.times)} the method's own, the best of short trials")
            )
        folder = self.run / RUNGS / _name(trial, True)
        earlier = Ledger(folder).resolved()
        if recipe.training.cache == "auto" and earlier.get("training.cache") != LIVE:  # there it was kept
            recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"cache": "disk"})})
        return Decision(recipe, folder, tuple(derived), self._plain(best, why), earlier)


def adopt(decision: Decision, run: Path) -> Sequence[Event]:
    """Makes the training that a ladder chose the run's own: its checkpoints, and the events to be put in the ledger.

    The other trainings are deleted. Done again after a crash it comes to the same.
    """
    if decision.folder is None:
        return []
    kept = (StepDone, Evaluated, Saved)
    events = [event for event in Ledger(decision.folder).events() if isinstance(event, kept)]
    if (decision.folder / "checkpoints").exists() and not (run / "checkpoints").exists():
        os.replace(decision.folder / "checkpoints", run / "checkpoints")
    for path in (run / RUNGS).rglob("checkpoints"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (run / RUNGS).rglob("weights.safetensors"):
        path.unlink(missing_ok=True)
    return events


def _name(trial: Trial, whole: bool) -> str:
    """Of a training's folder."""
    return f"{trial.method}-{trial.times:.3g}" + ("" if whole else "-short")


def _times_said(times: float) -> str:
    return "a third of" if times < 1 else f"{times:g} times"


def _short_said(trial: Trial, taken: bool) -> str:
    rate = "" if trial.rate is None else f", rate {trial.rate:.3g}"
    part = f"{100 * trial.share:.3g} % of the rows"
    chosen = " <- taken" if taken else ""
    return (
        f"short trial of {trial.method}{rate} ({part}): "
        f"{trial.metric} {trial.value:.4f}, loss {trial.loss:.4f}, {duration(trial.seconds)}{chosen}"
    )


def _rung_said(rung: Rung, best: Rung | None) -> str:
    trial = rung.trial
    gained = "" if rung.gain is None or best is None else f"; over {best.trial.method} {rung.gain.said()}"
    if rung.gain is not None and rung.taken and not rung.gain.beyond_noise:
        gained += ": more likely a gain than none" if rung.gain.likely else ": too few rows to tell, so as is usual"
    return (
        f"{trial.method}: {trial.metric} {trial.value:.4f} (standard error {trial.error:.4f}) on the validation rows, "
        f"{trial.trainable:,} parameters, {duration(trial.seconds)} ({duration(trial.cpu_seconds, 'CPU')}){gained}"
    )
