"""Optuna's study: who holds which trial, what was found, what is drawn next."""

from __future__ import annotations

import json
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.errors import ArtifactError
from tunesmith.files import make_folder, write_whole
from tunesmith.seeds import seed_of
from tunesmith.selection.journal import FileLock, alone, take
from tunesmith.selection.lease import BEAT, beat_lease, lease_of, take_lease
from tunesmith.selection.samplers import pruner as judge_of
from tunesmith.selection.samplers import sampler
from tunesmith.selection.space import Numbers, Searched, Space, label_of
from tunesmith.selection.spec import SearchSpec
from tunesmith.selection.storage import JOURNAL, commits_of, name_of, owner_of, quiet, storage_of
from tunesmith.training.events import Event

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

TRIALS = "trials"
LOCK, CLAIM, SETTLED = ".study.lock", ".claim", "winner.json"
TELL, TWIN, IDENTITY, OWNER = "told", "twin of", "identity", "holder"
AGAIN = 20  # draws that were all there already, after which one that was not is looked for


@dataclass(frozen=True)
class Told(Event):
    """A trial as it stands."""

    kind: ClassVar[str] = "trial"
    number: int
    state: str  # running, done, pruned, failed
    values: dict[str, Any]  # of the fields that are searched
    metrics: dict[str, float] = field(default_factory=dict)  # of the validation rows; of a pruned trial the last known
    judges: tuple[str, ...] = ()  # the metrics that trials are judged by
    ranks: tuple[float, ...] = ()  # of each of these, more being better
    loss: float = 0.0
    error: float | None = None  # one standard error of the first metric; None where that is a cost
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    evaluations: int = 0
    why: str = ""  # it was pruned, or came to nothing
    again: bool = False  # taken up from a process that was killed, or stopped
    best: int = -1  # the number of the best one when this one ended, of all processes; -1 for none, and while it lasts


@dataclass(frozen=True)
class Known(Event):
    """Trials that were done before."""

    kind: ClassVar[str] = "known"
    trials: tuple[Told, ...]


@dataclass
class Mine:
    """A trial that this process has, and no other."""

    number: int
    values: dict[str, Any]
    folder: Path
    again: bool
    trial: Trial
    lock: FileLock
    take: str  # of this taking of it, and of no other
    beaten: float = 0.0


class Lost(Exception):
    """A trial was given to another process, since this one was silent: what it did no longer counts."""


@dataclass
class Study:
    """The trials of one search, of all its processes. `repaired`: what was put right as it was opened, or ""."""

    folder: Path
    searched: Searched
    spec: SearchSpec
    seed: int
    study: OptunaStudy
    storage: BaseStorage
    repaired: str
    trials: int  # that there are to be
    owner: str  # this folder of this machine
    _beaten: float = 0.0

    @classmethod
    def open(
        cls, folder: Path, searched: Searched, spec: SearchSpec, seed: int, pruner: str, most: int, identity: str
    ) -> Study:
        """Begins the study of a search's folder, or goes on with it.

        most: evaluations of one trial, 0 where these differ. Raises ArtifactError where the file is damaged, or the study
        is another recipe's; RecipeError where the database cannot be used.
        """
        import optuna

        make_folder(folder)
        with quiet(), alone(folder / LOCK):
            name, judge = name_of(folder, spec), judge_of(pruner, most)
            try:
                storage, repaired = storage_of(folder, spec)
                if name in optuna.get_all_study_names(storage):
                    study = optuna.load_study(study_name=name, storage=storage, pruner=judge)
                else:
                    up = [optuna.study.StudyDirection.MAXIMIZE] * max(len(spec.named), 1)
                    study = optuna.create_study(
                        storage=storage, study_name=name, directions=up, pruner=judge, load_if_exists=True
                    )
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ArtifactError(
                    f"{folder / JOURNAL}: is damaged ({type(error).__name__}: {error}), and was left as it is; put back a "
                    "copy of it, or start another search with --out"
                ) from None
            known = study.user_attrs.get(IDENTITY)
            if known is not None and known != identity:
                raise ArtifactError(
                    f"{folder}: holds the search of another recipe, or of other rows; give another --out, or the recipe "
                    f"that it was begun with ({folder / 'search.yaml'})"
                )
            limit = spec.trials if searched.size > spec.trials else int(searched.size)
            found = cls(folder, searched, spec, seed, study, storage, repaired, limit, owner_of(folder, spec))
            if known is None:
                if searched.size <= spec.trials:
                    for values in searched.every():
                        study.enqueue_trial(found._drawn(values), skip_if_exists=True)
                study.set_user_attr(IDENTITY, identity)
        return found

    def commits(self, found: Mapping[str, str]) -> dict[str, str]:
        """By hub base the commit that all trials and the winner take: the one that the first process found."""
        with quiet(), alone(self.folder / LOCK):
            return commits_of(self.study, found)

    def claim(self) -> Mine | None:
        """A trial to work on, which no other process has: one that was left behind, else a new one; None where none is.

        None too once the winner is named: what is found after that changes nothing.
        """
        with quiet(), alone(self.folder / LOCK):
            if self.winner() is not None:
                return None
            for trial in self._under_way():
                if self._here(trial) and (mine := self._take(trial.number, 0, again=True)) is not None:
                    return mine
            if sum(map(self._counts, self.study.get_trials(deepcopy=False))) >= self.trials:
                return None
            return self._new()

    def held(self) -> int:
        """How many trials other processes work on now; one that was left behind is nobody's."""
        with quiet(), alone(self.folder / LOCK):
            return self._held()

    def settle(self) -> int | None:
        """The number of the winner: named here, for good, where no process named it before. None while others still try.

        Of a study in a database it is named there, for all machines. Needs a trial that is done.
        """
        with quiet(), alone(self.folder / LOCK):
            named = self.winner()
            if named is None and not self._held():
                named = frontier(self.told())[0].number
                if self.spec.storage is None:
                    write_whole(self.folder / SETTLED, json.dumps({"trial": named}) + "\n")
                else:
                    named = take_lease(self.study, named, self.owner).trial
            return named

    def trained_by(self) -> str:
        """Which other machine trains the named winner, or has trained it. "" where this one is to: first, or in its place.

        Of one machine the processes agree by a lock in the search's folder.
        """
        with quiet(), alone(self.folder / LOCK):
            lease = lease_of(self.study)
            if lease is None:  # of a file
                return ""
            if lease.owner == self.owner:
                beat_lease(self.study, lease, lease.done)
            elif lease.left_behind:
                lease = take_lease(self.study, lease.trial, self.owner)
            return "" if lease.owner == self.owner else lease.owner

    def leads(self, done: bool = False) -> bool:
        """Says, now and then, that the winner is trained here, or at once that it is done. Whether it still is this one's."""
        if self.spec.storage is None or (not done and time.monotonic() - self._beaten <= BEAT):
            return True
        with quiet():
            lease = lease_of(self.study)
            if lease is None or lease.owner != self.owner:
                return False
            beat_lease(self.study, lease, done)
        self._beaten = time.monotonic()
        return True

    def winner(self) -> int | None:
        """The number of the trial that was named; None before. Raises ArtifactError where the study has no such trial."""
        if self.spec.storage is not None:
            lease = lease_of(self.study)
            return None if lease is None else lease.trial
        path = self.folder / SETTLED
        if not path.exists():
            return None
        said = path.read_text(encoding="utf-8").strip()
        named = next((one.number for one in best_of(self.told()) if said == json.dumps({"trial": one.number})), None)
        if named is None:
            raise ArtifactError(
                f"{path}: says {said[:40]}, and {self.folder / JOURNAL} has no such trial that is done: it is not the study "
                "that the winner was named from; put back a copy of it, or start another search with --out"
            )
        return named

    def _held(self) -> int:
        """Only for who has the study alone: nobody else tries a lock then."""
        return sum(not self._here(trial) or not self._free(trial.number) for trial in self._under_way())

    def _free(self, number: int) -> bool:
        """Whether no process has the lock of a trial."""
        folder = self.folder / TRIALS / f"{number:04d}"
        lock = take(folder / CLAIM) if folder.exists() else None
        if lock is not None:
            lock.let_go()
        return lock is not None or not folder.exists()

    def _under_way(self) -> list[FrozenTrial]:
        """Trials that were begun and are not done, whoever has them."""
        from optuna.trial import TrialState

        self._fail_stale()
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _new(self) -> Mine:
        """Only for who has the study alone."""
        from optuna.trial import TrialState

        for attempt in range(AGAIN + 1):
            self._sample(len(self.study.get_trials(deepcopy=False)), attempt)
            if attempt == AGAIN and (left := self._untried()) is not None:
                self.study.enqueue_trial(self._drawn(left))
            trial = self.study.ask()
            mine = self._take(trial.number, attempt, again=False, trial=trial)
            assert mine is not None, "nobody else knows of it yet"
            twin = self._twin(mine)
            if twin is None or attempt == AGAIN:
                return mine
            trial.set_user_attr(TWIN, twin)
            self.study.tell(trial, state=TrialState.FAIL)
            mine.lock.let_go()
            shutil.rmtree(mine.folder, ignore_errors=True)
        raise AssertionError("unreachable")

    def _take(self, number: int, attempt: int, again: bool, trial: Trial | None = None) -> Mine | None:
        from optuna.trial import Trial

        folder = self.folder / TRIALS / f"{number:04d}"
        make_folder(folder)
        lock = take(folder / CLAIM)
        if lock is None:
            return None
        if self._frozen(number).state.is_finished():  # since the trials were listed
            lock.let_go()
            return None
        if trial is None:
            self._sample(number, attempt)
            trial = Trial(self.study, self._id(number))
        values = {}
        for key, space in self.searched.spaces.items():
            # Each from a seed of its own: one that was killed as it was drawn lacks some, which come now as then.
            self._sample(number, attempt, key)
            values[key] = _suggested(trial, key, space)
        mine = Mine(number, values, folder, again, trial, lock, uuid.uuid4().hex)
        trial.set_user_attr(OWNER, {"folder": self.owner, "take": mine.take})
        self.beat(mine)
        return mine

    def beat(self, mine: Mine) -> None:
        """Says, now and then, that the trial lives: for processes on other machines, which see a database alone.

        Raises Lost where another has taken it up since.
        """
        from optuna.storages import RDBStorage

        if isinstance(self.storage, RDBStorage) and time.monotonic() - mine.beaten > BEAT:
            mine.beaten = time.monotonic()
            with self._as_holder(mine):
                self.storage.record_heartbeat(self._id(mine.number))

    def report(self, mine: Mine, evaluation: int, rank: float) -> bool:
        """Notes what an evaluation, or a repeat, gave. Whether the trial is to end here. Raises Lost as `beat` does."""
        with quiet(), self._as_holder(mine):
            if len(self.spec.named) > 1:
                return False
            if evaluation not in self._frozen(mine.number).intermediate_values:
                mine.trial.report(rank, evaluation)
            return mine.trial.should_prune()

    def finish(self, mine: Mine, told: Told) -> None:
        """Done, pruned or failed, for good; the trial is let go of. Raises Lost as `beat` does: then nothing is noted."""
        from optuna.trial import TrialState

        with quiet(), self._as_holder(mine):
            mine.trial.set_user_attr(TELL, told.to_plain())
            if told.state == "done":
                self.study.tell(mine.trial, list(told.ranks))
            elif told.state == "failed" and len(self.spec.named) > 1:
                self.study.tell(mine.trial, state=TrialState.FAIL)
            else:  # to the sampler, one that came to nothing is the worst of those that were pruned
                self.study.tell(mine.trial, state=TrialState.PRUNED)
        mine.lock.let_go()

    @contextmanager
    def _as_holder(self, mine: Mine) -> Iterator[None]:
        """Inside, what is written of a trial is written by who has it: Raises Lost where that is another by now.

        Who was silent for too long may wake up after the trial was failed, and run anew under another number, or taken up
        under its own. To write of one that is finished Optuna refuses.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        holder = self._frozen(mine.number)
        if holder.state.is_finished() or holder.user_attrs[OWNER]["take"] != mine.take:
            raise Lost
        try:
            yield
        except UpdateFinishedTrialError:
            raise Lost from None

    def leave(self, mine: Mine) -> None:
        """Not done, and to be taken up by whoever comes."""
        mine.lock.let_go()

    def told(self) -> list[Told]:
        """Every trial that counts, by number."""
        return [self._told(trial) for trial in self.study.get_trials(deepcopy=False) if self._counts(trial)]

    def running(self) -> list[int]:
        """Trials that are not done, whoever has them."""
        return [told.number for told in self.told() if told.state == "running"]

    def importances(self) -> dict[str, float]:
        """By field, how much of what tells the done trials apart goes back to it (fANOVA, Hutter 2014); sums to 1.

        Empty with fewer than four of them, or one field, or where all are equal.
        """
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        if sum(told.state == "done" for told in self.told()) < 4 or len(self.searched.spaces) < 2:
            return {}
        several = len(self.spec.named) > 1
        with quiet():
            try:
                found = get_param_importances(
                    self.study,
                    evaluator=FanovaImportanceEvaluator(seed=seed_of(self.seed, "importance") % 2**32),
                    target=(lambda trial: trial.values[0]) if several else None,
                )
            except (ValueError, RuntimeError, optuna.exceptions.OptunaError):
                return {}
        return {key: float(value) for key, value in found.items() if value == value}

    def _told(self, trial: FrozenTrial) -> Told:
        plain = trial.user_attrs.get(TELL)
        if plain is None or not trial.state.is_finished():
            values = {key: self._value(key, value) for key, value in trial.params.items()}
            return Told(trial.number, "running", values)
        return told_from(plain)

    def _value(self, key: str, drawn: Any) -> Any:
        space = self.searched.spaces[key]
        return drawn if isinstance(space, Numbers) else dict(zip(space.labels(), space.values, strict=True))[drawn]

    def _drawn(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """As Optuna knows them: choices are texts to it."""
        spaces = self.searched.spaces
        return {key: value if isinstance(spaces[key], Numbers) else label_of(value) for key, value in values.items()}

    def _counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial is one: not those that were to come yet, were drawn twice, or are run anew under another number."""
        from optuna.trial import TrialState

        if trial.state.is_finished():
            told = trial.user_attrs.get(TELL)
            return told is not None and (trial.state != TrialState.FAIL or told["state"] == "failed")
        return trial.state != TrialState.WAITING

    def _twin(self, mine: Mine) -> int | None:
        """The number of another trial with the same values."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.number != mine.number and self._counts(trial) and trial.params == self._frozen(mine.number).params:
                return trial.number
        return None

    def _untried(self) -> dict[str, Any] | None:
        """Values that no trial has, where there is an end to them; the first one in the order of the space."""
        if self.searched.size > 100_000:
            return None
        known = [trial.params for trial in self.study.get_trials(deepcopy=False) if self._counts(trial)]
        return next((values for values in self.searched.every() if self._drawn(values) not in known), None)

    def _sample(self, number: int, attempt: int, key: str = "") -> None:
        """What is drawn is a function of the seed, the trial's number and what is known: a killed search draws the same."""
        salt = (platform.node(), str(self.folder.resolve())) if self.spec.storage else ()
        seed = seed_of(self.seed, "search", number, attempt, key, *salt) % 2**32
        self.study.sampler = sampler(self.spec, seed)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _here(self, trial: FrozenTrial) -> bool:
        """Whether who has the trial has its lock in this very folder, or is not known yet."""
        holder = trial.user_attrs.get(OWNER)
        return self.spec.storage is None or holder is None or holder["folder"] == self.owner

    def _fail_stale(self) -> None:
        """Trials of other machines that fell silent wait to be run anew, under new numbers; only of a database."""
        from optuna.storages import RDBStorage, fail_stale_trials
        from optuna.trial import TrialState

        if isinstance(self.storage, RDBStorage):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._here(trial):  # those are taken up
                    self.storage.record_heartbeat(self._id(trial.number))
            fail_stale_trials(self.study)


def told_from(plain: Mapping[str, Any]) -> Told:
    """What `Told.to_plain` gave."""
    given = {key: value for key, value in plain.items() if key != "kind"}
    return Told(**{**given, "ranks": tuple(given["ranks"]), "judges": tuple(given["judges"])})


def best_of(told: Sequence[Told]) -> list[Told]:
    """The trials that are done, best first: by the first metric, then by the lower loss, then the earlier one."""
    done = [trial for trial in told if trial.state == "done"]
    return sorted(done, key=lambda trial: (-trial.ranks[0], trial.loss, trial.number))


def frontier(told: Sequence[Told]) -> list[Told]:
    """Done trials than which no other is at least as good in every metric and better in one; best in the first one first."""
    ranked = best_of(told)

    def beaten(one: Told) -> bool:
        return any(
            all(a >= b for a, b in zip(other.ranks, one.ranks, strict=True)) and other.ranks != one.ranks
            for other in ranked
        )

    return [trial for trial in ranked if not beaten(trial)]


def _suggested(trial: Trial, key: str, space: Space) -> Any:
    """The trial's value of a field, drawn where it has none yet."""
    if not isinstance(space, Numbers):
        drawn = trial.suggest_categorical(key, space.labels())
        return dict(zip(space.labels(), space.values, strict=True))[drawn]
    if space.whole:
        step = 1 if space.step is None else int(space.step)
        return trial.suggest_int(key, int(space.low), int(space.high), step=step, log=space.log)
    return trial.suggest_float(key, float(space.low), float(space.high), step=space.step, log=space.log)
