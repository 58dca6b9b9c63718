"""The study's file: killed at any write it is gone on with, with nothing lost and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import ArtifactError, RecipeError
from tunesmith.selection import journal, lease
from tunesmith.selection.journal import check_journal, mend, take
from tunesmith.selection.space import read_spaces
from tunesmith.selection.spec import SearchSpec
from tunesmith.selection.study import Lost, Mine, Study, Told, best_of, frontier

SEARCHED = read_spaces(
    {
        "model": "m",
        "data": "d",
        "method": {"name": "lora", "rank": [4, 8]},
        "training": {"rate": {"low": 1e-5, "high": 1e-2}},
    }
)
TRIALS, EVALUATIONS = 5, 3
STRIDE = 3  # every third write is one to die at, in turns before it and within


def opened(folder: Path, trials: int = TRIALS, pruner: str = "hyperband", **more: Any) -> Study:
    spec = SearchSpec.parse({"trials": trials, **more})
    return Study.open(folder, SEARCHED, spec, 0, pruner, EVALUATIONS, "the same")


def work(study: Study, mine: Mine) -> Told:
    """A trial whose value is a function of what was drawn."""
    rank = -abs(mine.values["training.rate"] - 3e-3) + mine.values["method.rank"] / 1e4
    state = "done"
    for evaluation in range(1, EVALUATIONS + 1):
        if study.report(mine, evaluation, rank * (EVALUATIONS + 1 - evaluation)) and evaluation < EVALUATIONS:
            state = "pruned"
            break
    told = Told(mine.number, state, mine.values, ranks=(rank,) if state == "done" else ())
    study.finish(mine, told)
    return told


def finish(folder: Path, trials: int = TRIALS, pruner: str = "hyperband") -> list[Told]:
    study = opened(folder, trials, pruner)
    while (mine := study.claim()) is not None:
        work(study, mine)
    return study.told()


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_killed_at_any_write_nothing_is_lost_or_done_twice(pruner: str, tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole", pruner=pruner)
    assert [told.number for told in whole] == list(range(TRIALS))
    assert ("pruned" in {told.state for told in whole}) == (pruner == "hyperband")
    writes = len((tmp_path / "whole" / "study.journal").read_bytes().splitlines())
    code = "import test_study, sys; test_study.die_at_each(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(writes), pruner], check=True, env=found)
    for count in range(1, writes, STRIDE):
        folder = tmp_path / f"{count}"
        before = (folder / "study.journal").read_bytes() if (folder / "study.journal").exists() else b""
        told = finish(folder, pruner=pruner)
        after = (folder / "study.journal").read_bytes()
        assert after.startswith(before[: before.rfind(b"\n") + 1]), "nothing that was written is lost"
        assert [one.number for one in told] == list(range(TRIALS)) and "running" not in {one.state for one in told}
        assert told[0].values == whole[0].values
        # Hyperband notes what a trial gave before it says whether to go on: killed in between, the trial goes on.
        assert told == whole or pruner == "hyperband", folder


def die_at_each(folder: str, writes: int, pruner: str) -> None:
    """For a process of its own: forks that search, each killed before, or within, one of the writes."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for count in range(1, writes, STRIDE):
        child = os.fork()
        if child == 0:
            journal.append = _deadly(count, half=count % 2 == 1)
            finish(Path(folder) / f"{count}", pruner=pruner)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"write {count} was never made"


def _deadly(last: int, half: bool) -> Any:
    """Writes as a study does; the process dies at the first line after `last`, or in the middle of it."""
    live, made = journal.append, 0

    def append(path: Path, lines: list[dict[str, Any]]) -> None:
        nonlocal made
        made += len(lines)
        if made > last:
            if half:
                with path.open("ab") as file:
                    file.write(json.dumps(lines[0]).encode()[:-5])
            os.kill(os.getpid(), signal.SIGKILL)
        live(path, lines)

    return append


def test_a_trial_that_another_has_is_left_alone_and_taken_up_when_it_lets_go(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    first, second = one.claim(), other.claim()
    assert first is not None and second is not None
    assert (first.number, second.number) == (0, 1) and not second.again
    one.leave(first)
    again = other.claim()
    assert again is not None and (again.number, again.again) == (0, True)
    assert again.values == first.values
    assert sorted(one.running()) == [0, 1]


def test_only_trials_that_another_process_has_are_held(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    first, second = one.claim(), other.claim()
    assert first is not None and second is not None and one.held() == 2
    one.leave(first)
    assert other.held() == 1 and len(other.running()) == 2, "one that was left behind is nobody's"
    work(other, second)
    assert one.held() == 0 and one.running() == [0]


def test_a_trial_that_another_finishes_as_it_is_claimed_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    mine = one.claim()
    assert mine is not None
    listed = other._under_way

    def finished_since() -> Any:
        found = listed()
        work(one, mine)
        return found

    monkeypatch.setattr(other, "_under_way", finished_since)
    claimed = other.claim()
    assert claimed is not None and (claimed.number, claimed.again) == (1, False)


def test_the_winner_is_named_once_and_ends_the_study(tmp_path: Path) -> None:
    study, other = opened(tmp_path, pruner="none"), opened(tmp_path, pruner="none")
    work(study, study.claim())  # type: ignore[arg-type]
    mine = other.claim()
    assert mine is not None and study.settle() is None, "another still tries"
    other.leave(mine)
    assert study.winner() is None and study.settle() == 0
    better = Told(mine.number, "done", mine.values, ranks=(9.0,))
    again = other._take(mine.number, 0, again=True)
    assert again is not None
    other.finish(again, better)
    assert best_of(study.told())[0].number == mine.number and other.settle() == study.winner() == 0
    assert opened(tmp_path, pruner="none").claim() is None, "what is found now changes nothing"


def test_a_winner_that_the_study_lacks_is_told_in_a_line(tmp_path: Path) -> None:
    finish(tmp_path, 2, "none")
    opened(tmp_path, 2, "none").settle()
    (tmp_path / "study.journal").unlink()
    with pytest.raises(ArtifactError, match=r"winner.json: says .* has no such trial") as error:
        opened(tmp_path, 2, "none").claim()
    assert len(error.value.problems) == 1


def test_there_are_never_more_trials_than_asked_whoever_asks(tmp_path: Path) -> None:
    one, other = opened(tmp_path, 3), opened(tmp_path, 3)
    held = [study.claim() for study in (one, other, one)]
    assert [mine.number for mine in held if mine is not None] == [0, 1, 2]
    assert one.claim() is None and other.claim() is None
    work(one, held[0])  # type: ignore[arg-type]
    assert other.claim() is None, "done ones count too"


def test_a_small_space_is_gone_through_once(tmp_path: Path) -> None:
    small = read_spaces(
        {"model": "m", "data": "d", "method": {"name": "lora", "rank": [4, 8, 16]}, "training": {"epochs": [1, 2]}}
    )
    study = Study.open(tmp_path, small, SearchSpec(trials=20), 0, "none", 0, "small")
    found = []
    while (mine := study.claim()) is not None:
        found.append(mine.values)
        study.finish(mine, Told(mine.number, "done", mine.values, ranks=(0.5,)))
    assert len(found) == 6 and found == list(small.every())


def test_nothing_is_drawn_twice_where_a_space_is_hardly_larger_than_the_trials(tmp_path: Path) -> None:
    small = read_spaces({"model": "m", "data": "d", "method": {"name": "lora", "rank": {"low": 1, "high": 9}}})
    study = Study.open(tmp_path, small, SearchSpec(trials=8), 0, "none", 0, "small")
    found = []
    while (mine := study.claim()) is not None:
        found.append(mine.values["method.rank"])
        study.finish(mine, Told(mine.number, "done", mine.values, ranks=(float(mine.values["method.rank"]),)))
    assert len(found) == len(set(found)) == 8
    assert len(study.told()) == 8


def test_another_recipe_s_study_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ArtifactError, match="search of another recipe"):
        Study.open(tmp_path, SEARCHED, SearchSpec(), 0, "none", 0, "another")


def test_garbage_is_refused_by_its_line_and_left_as_it_is(tmp_path: Path) -> None:
    finish(tmp_path, 2)
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00garbage\xff\n"
    damaged = b"".join(lines)
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError) as error:
        opened(tmp_path)
    assert error.value.problems[0].startswith(f"{path}:4: is no line of a study")
    assert path.read_bytes() == damaged


def test_a_line_that_lacks_what_it_needs_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, 2)
    path = tmp_path / "study.journal"
    lines = path.read_text().splitlines(keepends=True)
    plain = json.loads(lines[0])
    del plain["study_name"]
    path.write_text("".join([json.dumps(plain) + "\n", *lines[1:]]))
    with pytest.raises(ArtifactError, match="is damaged"):
        opened(tmp_path)


def test_a_line_that_was_cut_off_is_taken_away_and_told(tmp_path: Path) -> None:
    told = finish(tmp_path, 2)
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "wor')
    check_journal(path)
    study = opened(tmp_path, 2)
    assert "cut off" in study.repaired and study.told() == told
    assert path.read_bytes() == whole and mend(path) == ""


@pytest.mark.parametrize("change", ["gone", "twice", "exchanged"])
@pytest.mark.parametrize("place", [0, 1, 4, 12])
def test_a_line_that_is_gone_or_there_twice_is_told_in_a_line(change: str, place: int, tmp_path: Path) -> None:
    finish(tmp_path, 3, "none")
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 14
    one, other = lines[place : place + 2]
    lines[place : place + 2] = {"gone": [other], "twice": [one, one, other], "exchanged": [other, one]}[change]
    path.write_bytes(b"".join(lines))
    with pytest.raises(ArtifactError, match=r"is line \d+ of the study: some are gone, there twice") as error:
        opened(tmp_path, 3, "none")
    wrong = place + 1 if change != "twice" else place + 2
    assert len(error.value.problems) == 1 and f"{path}:{wrong}:" in error.value.problems[0]


def test_whole_lines_that_are_gone_from_the_end_are_made_again(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole", 3, "none")
    lines = (tmp_path / "whole" / "study.journal").read_bytes().splitlines(keepends=True)
    for left in range(len(lines)):
        folder = tmp_path / f"{left}"
        folder.mkdir()
        (folder / "study.journal").write_bytes(b"".join(lines[:left]))
        assert finish(folder, 3, "none") == whole, left


@pytest.mark.parametrize("worse", [[0.5] * 6, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2]])
def test_wilcoxon_ends_no_trial_before_as_many_repeats_as_can_tell(worse: list[float], tmp_path: Path) -> None:
    study = opened(tmp_path, pruner="wilcoxon", repeats=6)
    best, other = study.claim(), study.claim()
    assert best is not None and other is not None
    assert not any(study.report(best, repeat, 0.8) for repeat in range(6))
    study.finish(best, Told(best.number, "done", best.values, ranks=(0.8,)))
    assert [study.report(other, repeat, value) for repeat, value in enumerate(worse[:4])] == [False] * 3 + [True]


def test_a_lock_goes_with_who_held_it(tmp_path: Path) -> None:
    held = take(tmp_path / "lock")
    assert held is not None and take(tmp_path / "lock") is None
    held.let_go()
    again = take(tmp_path / "lock")
    assert again is not None
    again.let_go()


def told(number: int, ranks: tuple[float, ...], loss: float = 0.0) -> Told:
    return Told(number, "done", {}, ranks=ranks, loss=loss)


def test_the_best_and_the_frontier() -> None:
    trials = [
        told(0, (0.8, -3.0)),
        told(1, (0.9, -9.0)),
        told(2, (0.8, -4.0)),
        told(3, (0.7, -1.0)),
        told(4, (0.9, -9.0)),
    ]
    assert [one.number for one in frontier(trials)] == [1, 4, 0, 3]
    assert best_of([told(0, (0.5,), 0.4), told(1, (0.5,), 0.3), Told(2, "failed", {})])[0].number == 1


def test_a_database_holds_a_study_too_and_one_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    storage = {"storage": f"sqlite:///{tmp_path / 'study.db'}"}
    study = opened(tmp_path / "a", 2, **storage)
    mine = study.claim()
    assert mine is not None
    study.leave(mine)
    elsewhere = opened(tmp_path / "b" / "a", 2, **storage)
    other = elsewhere.claim()
    assert other is not None and other.number == 1, "a trial of another folder may be alive"
    work(elsewhere, other)
    again = opened(tmp_path / "a", 2, **storage)
    mine = again.claim()
    assert mine is not None and (mine.number, mine.again) == (0, True)
    work(again, mine)
    assert [one.number for one in again.told()] == [0, 1] and again.claim() is None
    with pytest.raises(RecipeError, match="nodb://x cannot be opened"):
        opened(tmp_path / "c", 2, storage="nodb://x")


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Study]:
    """Two folders that share a study in a database, as two machines do; nobody waits for others to write."""
    monkeypatch.setattr(lease, "SETTLES", 0.0)
    storage = {"storage": f"sqlite:///{tmp_path / 'study.db'}"}
    one, other = (opened(tmp_path / name / "s", 2, "none", **storage) for name in ("a", "b"))
    return one, other


def silent(study: Study, number: int) -> None:
    """As if who has a trial had last been heard of an hour ago."""
    path = str(study.spec.storage).removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database, database:
        changed = database.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour') WHERE trial_id = ?",
            (study._id(number),),
        )
        assert changed.rowcount == 1


def done(mine: Mine, rank: float = 1.0) -> Told:
    return Told(mine.number, "done", mine.values, ranks=(rank,))


def test_who_was_silent_writes_nothing_of_a_trial_that_is_run_anew(machines: tuple[Study, Study]) -> None:
    one, other = machines
    mine = one.claim()
    assert mine is not None
    silent(one, mine.number)
    theirs = other.claim()
    assert theirs is not None and theirs.number != mine.number and theirs.values == mine.values
    mine.beaten = -1e9
    for write in (one.beat, lambda late: one.report(late, 1, 0.5), lambda late: one.finish(late, done(late))):
        with pytest.raises(Lost):
            write(mine)
    one.leave(mine)
    other.finish(theirs, done(theirs, 0.25))
    (told,) = one.told()
    assert (told.number, told.ranks) == (theirs.number, (0.25,)), "once, by who took it up"


def test_of_two_who_took_one_trial_only_the_last_writes_of_it(machines: tuple[Study, Study]) -> None:
    one, other = machines
    mine = one.claim()
    assert mine is not None
    theirs = other._take(mine.number, 0, again=True)  # before it was known whose it is
    assert theirs is not None
    with pytest.raises(Lost):
        one.finish(mine, done(mine, 0.5))
    other.finish(theirs, done(theirs, 0.25))
    assert [told.ranks for told in one.told()] == [(0.25,)]


def test_who_loses_a_trial_as_it_writes_of_it_writes_nothing(
    machines: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    mine = one.claim()
    assert mine is not None
    before = one._frozen(mine.number)
    silent(one, mine.number)
    assert other.claim() is not None
    monkeypatch.setattr(one, "_frozen", lambda number: before)  # looked at just before it was lost
    with pytest.raises(Lost):
        one.finish(mine, done(mine))


def settled(study: Study) -> None:
    while (mine := study.claim()) is not None:
        study.finish(mine, done(mine, float(mine.number)))
    assert study.settle() == 1


def test_a_database_has_one_winner_and_one_machine_that_trains_it(machines: tuple[Study, Study]) -> None:
    one, other = machines
    settled(one)
    assert other.winner() == other.settle() == 1 and other.claim() is None
    assert one.trained_by() == "" and one.leads()
    assert other.trained_by() == one.owner != other.owner and not other.leads()
    known = lease.lease_of(one.study)
    assert known is not None
    lease._write(one.study, replace(known, seen=known.seen - 2 * lease.GRACE))
    assert other.trained_by() == "" and other.leads(), "nobody has heard of the other for long"
    one._beaten = -1e9
    assert not one.leads() and not one.leads() and one.trained_by() == other.owner, "it woke up too late"
    assert other.leads(done=True)
    known = lease.lease_of(one.study)
    assert known is not None and known.trial == 1
    lease._write(one.study, replace(known, seen=known.seen - 2 * lease.GRACE))
    assert one.trained_by() == other.owner, "it is trained, and needs nobody any more"


def test_nobody_takes_a_winner_that_another_machine_trains(machines: tuple[Study, Study]) -> None:
    one, other = machines
    settled(one)
    assert lease.take_lease(other.study, 0, other.owner).owner == one.owner, "named since it was looked for"


def test_of_two_who_ask_for_the_winner_at_once_one_has_it(
    machines: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    theirs = lease.Lease(1, other.owner, time.time())
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: lease._write(other.study, theirs))
    settled(one)
    assert one.trained_by() == other.owner and other.trained_by() == ""


def test_a_machine_is_known_again_and_is_none_of_the_same_name(machines: tuple[Study, Study]) -> None:
    one, _ = machines
    again = Study.open(one.folder, SEARCHED, one.spec, 0, "none", EVALUATIONS, "the same")
    assert again.owner == one.owner
    (one.folder / ".machine").unlink()  # there is no such file on the other machine
    assert Study.open(one.folder, SEARCHED, one.spec, 0, "none", EVALUATIONS, "the same").owner != one.owner
