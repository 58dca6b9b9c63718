"""Which machine trains the winner of a study that several share in a database: one, which the study itself names."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

NAMED = "winner"  # the study's attribute
BEAT, GRACE = (
    30,
    900,
)  # seconds: how often who works on something says that it lives, and after which silence it does not
# Seconds after which what was written first and what was written last are told apart: more than anybody takes from finding
# nothing to having written.
SETTLES = 3.0


@dataclass(frozen=True)
class Lease:
    """The trial that won, and who trains it."""

    trial: int
    owner: str
    seen: float  # seconds since 1970 by the owner's clock, as it last said that it lives
    done: bool = False  # it was trained and tested

    @property
    def left_behind(self) -> bool:
        """Whether its owner has been silent for so long that another machine may train it."""
        return not self.done and time.time() - self.seen > GRACE


def lease_of(study: OptunaStudy) -> Lease | None:
    """None where no winner is named yet."""
    plain = study.user_attrs.get(NAMED)
    return None if plain is None else Lease(**plain)


def take_lease(study: OptunaStudy, trial: int, owner: str) -> Lease:
    """Asks for it, and says whose it is: of several who ask at once, that of the last one to write.

    A database that Optuna keeps a study in has no "write where nothing is", so all wait until nobody can still be writing,
    and then look (Fischer's algorithm, in Lamport 1987, "A fast mutual exclusion algorithm"). One that another has, and
    works on, stays with that.
    """
    before = lease_of(study)
    if before is not None and not before.left_behind:
        return before
    _write(study, Lease(trial, owner, time.time()))
    time.sleep(SETTLES)
    found = lease_of(study)
    assert found is not None, "it was written above, and is never taken away"
    return found


def beat_lease(study: OptunaStudy, lease: Lease, done: bool = False) -> Lease:
    """Says, as its owner, that it is still worked on, or that it is done."""
    again = replace(lease, seen=time.time(), done=done)
    _write(study, again)
    return again


def _write(study: OptunaStudy, lease: Lease) -> None:
    study.set_user_attr(NAMED, asdict(lease))
