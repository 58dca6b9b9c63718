"""Answers cut from contexts: transformers' run_qa recipe, with its way from tokens to an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Record, Rows
from .peers_trainer import trained

if TYPE_CHECKING:
    import numpy as np

LIKELIEST, LONGEST = 20, 30  # run_qa's n_best_size and max_answer_length
Window = tuple[int, list[tuple[int, int] | None]]  # its question; characters of each context token, None for others


def run_qa(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of each question, and the likeliest span whether it is said or not.

    No answer is learned at the first token, and said where it scores higher than every answer.
    """
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer, DataCollatorWithPadding

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    train, windows = windows_of(tokenizer, rows.train, options)
    for inputs, (number, spans) in zip(train, windows, strict=True):
        answers = rows.train[number]["answers"]
        inputs["start_positions"], inputs["end_positions"] = targets(spans, answers[0] if answers else None)
    test, windows = windows_of(tokenizer, rows.test, options)

    def build() -> Any:
        return AutoModelForQuestionAnswering.from_pretrained(base)

    trainer = trained(build, train, DataCollatorWithPadding(tokenizer), seed, options)
    starts, ends = trainer.predict(test).predictions[:2]
    by_question: dict[int, list[tuple[np.ndarray, np.ndarray, list[tuple[int, int] | None]]]] = {}
    for place, (number, spans) in enumerate(windows):
        by_question.setdefault(number, []).append((starts[place], ends[place], spans))
    return [answer(by_question[number], row["context"]) for number, row in enumerate(rows.test)]


def windows_of(
    tokenizer: Any, part: Sequence[Record], options: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[Window]]:
    """Overlapping windows of each context behind its question."""
    found = tokenizer(
        [row["question"].strip() for row in part],
        [row["context"] for row in part],
        truncation="only_second",
        max_length=options["length"],
        stride=options["stride"],
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    kept = [key for key in found if key not in ("overflow_to_sample_mapping", "offset_mapping")]
    examples = [{key: found[key][place] for key in kept} for place in range(len(found["input_ids"]))]
    windows: list[Window] = []
    for place, number in enumerate(found["overflow_to_sample_mapping"]):
        sides = found.sequence_ids(place)
        offsets = found["offset_mapping"][place]
        windows.append((number, [span if side == 1 else None for span, side in zip(offsets, sides, strict=True)]))
    return examples, windows


def targets(spans: Sequence[tuple[int, int] | None], wanted: Mapping[str, Any] | None) -> tuple[int, int]:
    """First and last token of the answer; (0, 0) where the window does not hold all of it."""
    if wanted is None:
        return 0, 0
    start, end = wanted["answer_start"], wanted["answer_start"] + len(wanted["text"])
    inside = [at for at, span in enumerate(spans) if span is not None and span[0] < end and span[1] > start]
    if not inside:
        return 0, 0
    first, last = spans[inside[0]], spans[inside[-1]]
    assert first is not None and last is not None
    return (inside[0], inside[-1]) if first[0] <= start and last[1] >= end else (0, 0)


def answer(
    windows: Sequence[tuple[np.ndarray, np.ndarray, Sequence[tuple[int, int] | None]]], context: str
) -> tuple[str, str]:
    """The text of the highest sum of start and end logits among the 20 likeliest of each; "" where none is higher still;
    and the text of the highest in any case.

    Logits of filler tokens, which stand after a window's own, are not looked at.
    """
    import numpy as np

    none = min(float(starts[0] + ends[0]) for starts, ends, _ in windows)
    best, likeliest = -math.inf, ""
    for starts, ends, spans in windows:
        size = len(spans)
        likely = [np.argsort(-side[:size])[:LIKELIEST].tolist() for side in (starts, ends)]
        for first in likely[0]:
            for last in likely[1]:
                one, two = spans[first], spans[last]
                if one is None or two is None or not first <= last < first + LONGEST:
                    continue
                score = float(starts[first] + ends[last])
                if score > best:
                    best, likeliest = score, context[one[0] : two[1]]
    return likeliest if best > none else "", likeliest
