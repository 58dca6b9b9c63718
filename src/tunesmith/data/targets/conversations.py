"""Conversations, as `data/chats.py` reads them: what an assistant says is to be learned."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.data.conversation import ASSISTANT, answer_of
from tunesmith.data.findings import Finding, Rows, find
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Unbalanced
from tunesmith.errors import Problems


class Conversations(Unbalanced):
    """One conversation a row. Different answers to one prompt contradict nothing."""

    stratum: ClassVar[str] = "conversations"

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return list(table.columns[column])

    def name(self, target: Any) -> str:
        return answer_of(target)

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        silent, after = {}, {}
        for name, split in rows.items():
            known = [(row, target) for row, target in enumerate(split.targets) if target is not None]
            silent[name] = [
                row
                for row, target in known
                if any(turn.role == ASSISTANT and turn.weight == 0 for turn in target.turns)
            ]
            after[name] = [row for row, target in known if target.last + 1 < len(target.turns)]
        find(findings, "weight_0", rows, silent, "an assistant's turn of weight 0: read, and not learned")
        keys = {
            key for split in rows.values() for target in split.targets if target is not None for key in target.unread
        }
        for key in sorted(keys):
            having = {
                name: [row for row, item in enumerate(split.targets) if item is not None and key in item.unread]
                for name, split in rows.items()
            }
            find(findings, "unread_key", rows, having, f'messages have a "{key}", which is not read')
        find(findings, "after_last_answer", rows, after, "turns after the assistant's last one; they are not read")
