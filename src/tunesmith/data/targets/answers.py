"""Answers that stand in a text: pieces of it, each as right as the others, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tunesmith.data.answer_columns import Located
from tunesmith.data.findings import Finding, Rows, find
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.errors import Problems

NONE = "(no answer)"


class Answers(Target):
    """A tuple of `Answer`, () where the context does not answer the question; `answer_columns` found their places."""

    balance: ClassVar[str] = "stratified by whether there is an answer"

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return [None if value is None else value.answers for value in table.columns[column]]

    def name(self, target: Any) -> str:
        return " | ".join(dict.fromkeys(answer.text for answer in target)) if target else NONE

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        told: dict[str, tuple[Callable[[Located], bool], str]] = {
            "answer_moved": (
                lambda said: said.moved,
                "an answer does not stand at its start, or is spelled otherwise there; taken from the nearest place",
            ),
            "answer_absent": (
                lambda said: bool(said.absent),
                "an answer does not stand in its context, and others of the question do; these alone are learned",
            ),
            "answer_ambiguous": (
                lambda said: said.first_of > 1,
                "an answer without a start stands in several places of its context; the first is learned",
            ),
            "answer_overruled": (
                lambda said: said.overruled,
                "is_impossible is true and answers are given; taken as without an answer",
            ),
            "no_answer": (lambda said: not said.answers, "no answer is given; learned as not to be answered"),
        }
        for kind, (holds, what) in told.items():
            found = {
                name: [row for row, said in enumerate(split.table.columns[column]) if said is not None and holds(said)]
                for name, split in rows.items()
            }
            find(findings, kind, rows, found, what)

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        if known is None and not any(rows["train"].targets[row] for row in rows["train"].kept):
            problems.add(
                f"{rows['train'].table.path}: no training row has an answer, so there is nothing to learn; name the right "
                "column by --label, or add answered questions"
            )

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [("answer",) if target else (NONE,) for target in targets]

    def disagree(self, targets: Sequence[Any]) -> bool:
        """One question may be answered by several pieces; that it has an answer and has none cannot both be so."""
        return len({bool(target) for target in targets}) > 1
