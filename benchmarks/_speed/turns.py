"""Contenders in turns: each once a round, another one first in each, with what each took."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from _common import Reading

Plain = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """Speed is measured around the function that `ready` returns, and around nothing else; that gives its facts.

    Facts named as a clock replace it: of a process of its own, which was timed by who started it.
    """

    name: str
    part: str  # one of works.OURS, DEFAULTS, TUNED, FURTHER
    ready: Callable[[], Callable[[], Plain]]


def rotated(turns: Sequence[Turn], number: int) -> list[Turn]:
    """The turns of round `number`, from 1: another one begins, so that none always runs on the warmer machine."""
    shift = (number - 1) % len(turns)
    return [*turns[shift:], *turns[:shift]]


def one_round(work: str, turns: Sequence[Turn], number: int) -> list[Plain]:
    """Each contender once: one record each."""
    found = []
    for place, turn in enumerate(rotated(turns, number), start=1):
        do = turn.ready()
        gc.collect()
        begun = Reading.now()
        facts = do()
        spent = Reading.now().since(begun)
        who = {"work": work, "contender": turn.name, "part": turn.part, "round": number, "turn": place}
        found.append({**who, **clocks(spent), **facts})
        print(f"  round {number}: {said(found[-1])}", flush=True)
    return found


def clocks(spent: Reading) -> Plain:
    return {
        "cpu_seconds": round(spent.cpu, 4),
        "wall_seconds": round(spent.wall, 4),
        "cores_of_others": round(spent.others, 2),
    }


def scaled(record: Plain, times: float) -> Plain:
    """A record of a part of the work, as of the whole of it."""
    return {**record, **{key: round(times * record[key], 4) for key in ("cpu_seconds", "wall_seconds")}}


def said(record: Plain) -> str:
    return (
        f"{record['contender']}: {record['cpu_seconds']:.1f} s CPU, {record['wall_seconds']:.1f} s wall, "
        f"{record['cores_of_others']:.1f} cores busy with other work"
    )
