"""Answers to questions, cut from a text that is read with them; or that the text does not hold one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from tunesmith.data.answer_columns import Answer, find_answers, means_answers, read_answers
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.encode import Batch, Example, Text
from tunesmith.data.stored import measures
from tunesmith.data.table import Table
from tunesmith.data.targets.answers import NONE, Answers
from tunesmith.data.targets.base import Target
from tunesmith.data.words import Passage, Window, most_tokens, passages_of
from tunesmith.tasks._information import Information, of_choices
from tunesmith.tasks._metrics import best_threshold_by, mean_of
from tunesmith.tasks._spans import best
from tunesmith.tasks.base import Labels, LossSum, Mark, Metric, Mistake, Prediction, Scores, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import Joined, TextProcessor

STARTS, ENDS = 1, 2  # what a token's target is made of: the answer starts there, it ends there
WHOLE = {"f1": "f1", "exact_match": "exact"}  # metrics of all questions, and their columns
QUESTION_SHARE = 0.5  # of the length limit that a question may take
LONGEST_OVERLAP = 7 / 8  # of a window: more would read a text word by word for one long answer


class Reply(NamedTuple):
    """What is predicted for a question."""

    text: str  # the answer; "" where the context is held not to give one
    start: int  # of the best piece of the context, whether it is said or not: its first character
    end: int  # the character after its last
    score: float  # its probability against there being no answer, of 0 to 1
    best: str  # the piece itself


class QuestionAnswering(Task):
    """Cross-entropy over the tokens at which the answer starts and ends (Devlin 2019, section 4.2), 4.3 for no answer.

    No answer stands at the first token. Long contexts are read in windows that overlap by the longest training answer at
    least, so that each answer stands in one of them whole. The best piece of all windows is the answer, if its probability
    against no answer reaches a threshold that validation rows chose.
    """

    pipeline_tag: ClassVar[str] = "question-answering"
    primary_metric: ClassVar[str] = "f1"
    metrics: ClassVar[tuple[str, ...]] = (
        "f1",
        "exact_match",
        "has_answer_f1",
        "has_answer_exact",
        "no_answer_accuracy",
        "best_span_f1",
    )
    baselines: ClassVar[tuple[str, ...]] = ("no_answer", "sliding_window")
    views: ClassVar[tuple[str, ...]] = ("spans",)
    unlike: ClassVar[str] = "answers"
    truth_is: ClassVar[str] = "right"
    worst: ClassVar[str] = (
        "The answers furthest from the right ones, the surest first. Some of them may be as right as those that are given."
    )

    overlap: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.33,
        description="share of a window that the next one repeats at least, where a context is too long to be read at once",
    )

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        return means_answers(table, asked)

    def find(self, table: Table, asked: Asked) -> Columns:
        return find_answers(table, asked)

    def read(self, table: Table, columns: Columns) -> Table:
        return read_answers(table, columns)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        return Answers()

    def check(self, train: Table, columns: Columns) -> Labels:
        """Two outputs a token; how many rows have an answer and have none; characters of the longest answer."""
        targets = train.columns[columns.label]
        answered = sum(1 for target in targets if target)
        longest = max(len(answer.text) for target in targets for answer in target)
        none = len(targets) - answered
        return Labels(("start", "end"), (answered, none), (0.5 if none else 0.0,), longest=longest)

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        """One example a window; a window that does not hold the whole answer is learned as one without.

        Of an answer that no token stands for nothing is learned: see `unlearned`.
        """
        pairs = [text for text in texts if isinstance(text, tuple)]
        made: list[Example] = []
        for row, (pair, joined) in enumerate(zip(pairs, processor.joined(pairs), strict=True)):
            answers = None if targets is None else targets[row]
            made += self._windows(row, pair[1], joined, answers, labels, limit, len(made))
        return made

    def _windows(
        self,
        row: int,
        context: str,
        joined: Joined,
        answers: Sequence[Answer] | None,
        labels: Labels,
        limit: int,
        first: int,
    ) -> list[Example]:
        before, cut = _shortened(joined, limit)
        start, spans = len(before["input_ids"]), joined.spans
        room = max(1, limit - start - len(joined.after["input_ids"]))
        needed = min(most_tokens(spans, labels.longest), int(LONGEST_OVERLAP * room))
        windows = passages_of(len(spans), room, max(needed, int(self.overlap * room)))
        answer = None if answers is None else _learned(answers)
        learned = [None] * len(windows) if answers is None else _in_windows(answer, spans, windows)
        unknown = answer is not None and not any(learned)
        found = []
        for place, ((one, last), piece) in enumerate(zip(windows, learned, strict=True)):
            inputs = {name: before[name] + joined.body[name][one:last] + joined.after[name] for name in before}
            target = None if answers is None else [0] * len(inputs["input_ids"])
            if target is not None and not unknown:
                target[0 if piece is None else start + piece[0] - one] += STARTS
                target[0 if piece is None else start + piece[1] - one] += ENDS
            window = Passage(row, context, (0, *range(start, start + last - one)), spans[one:last])
            found.append(Example(first + place, inputs, target, cut if place == 0 else 0, window=window))
        return found

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """At most a start and an end among the tokens of a row's longest window."""
        longest: dict[int, int] = {}
        lengths, _, sources = measures(examples)
        for length, row in zip(lengths.tolist(), sources.tolist(), strict=True):
            longest[row] = max(length, longest.get(row, 0))
        return of_choices([length**2 for length in longest.values()], "a start and an end among the tokens of each")

    def unlearned(self, examples: Sequence[Example], targets: Sequence[Any]) -> tuple[str, list[int]]:
        whole = {
            example.source
            for example in examples
            if targets[example.source] and _holds(example.window, _learned(targets[example.source]))
        }
        said = (
            "the answer does not fit one window whole; the part that does is learned (nothing of an answer whose letters are "
            "no tokens here)"
        )
        return said, [row for row, answers in enumerate(targets) if answers and row not in whole]

    def shows(self, example: Example, tokens: Sequence[str], labels: Labels) -> str:
        if not any(example.target):
            return "the answer's letters are no tokens here: nothing is learned"
        start, end = (next(at for at, kind in enumerate(example.target) if kind & bit) for bit in (STARTS, ENDS))
        return (
            f"token {start + 1} is right: no answer in this window"
            if end == 0
            else f"tokens {start + 1} to {end + 1} are right: " + (" ".join(tokens[start : end + 1]))
        )

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import span_network

        return span_network(backbone, labels.names, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Mean of the losses of start and end, over all tokens of a window but filler, as transformers' own heads have it.

        `output` is [windows, tokens, 2]; each window has a weight of 1, and one of which nothing is learned 0.
        """
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        learned = (batch.target != 0).any(dim=1)
        marks, real = batch.target[learned], batch.inputs["attention_mask"][learned] != 0
        logits = output[learned].float().masked_fill(~real[..., None], float("-inf"))
        total, correct = logits.new_zeros(()), real.new_ones(len(real))
        for side, kinds in enumerate(((STARTS, STARTS + ENDS), (ENDS, STARTS + ENDS))):
            target = ((marks == kinds[0]) | (marks == kinds[1])).int().argmax(dim=1)
            total = total + cross_entropy(logits[..., side], target, reduction="sum") / 2
            correct = correct & (logits[..., side].argmax(dim=1) == target)
        return LossSum(total, total.new_tensor(float(len(real))), {"correct": correct.sum().detach()})

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        """Of each window the log-probabilities of start and end, [2, places], as its value.

        `output` is [places of all windows, 2], `rows` the window of each.
        """
        import torch

        sizes = list(Counter(rows).values())  # a window's places stand together
        parts = torch.split(output.float(), sizes)
        kept = [part.log_softmax(dim=0).T.cpu().numpy() for part in parts]
        return [Prediction(row, value, ()) for row, value in zip(dict.fromkeys(rows), kept, strict=True)]

    def whole(self, found: Sequence[Prediction], windows: Mapping[int, Window], labels: Labels) -> list[Prediction]:
        by_source: dict[int, list[tuple[np.ndarray, Passage]]] = {}
        for item in found:
            window = windows[item.row]
            assert isinstance(window, Passage)
            by_source.setdefault(window.source, []).append((item.value, window))
        made = [_answered(source, read, labels) for source, read in by_source.items()]
        return self.restate(made, labels)

    def restate(self, predictions: Sequence[Prediction], labels: Labels) -> list[Prediction]:
        return [replace(item, value=_said(item.value, labels.thresholds[0])) for item in predictions]

    def settle(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Labels:
        """The threshold of highest F1; 0 where no training question is without an answer, so that all get one."""
        import numpy as np

        if labels.counts[1] == 0:
            return labels
        golds = [_texts(answers) for answers in truth]
        said = [best("f1", gold, item.value.best) for gold, item in zip(golds, predictions, strict=True)]
        none = [best("f1", gold, "") for gold in golds]
        scores = np.array([item.value.score for item in predictions])
        return replace(labels, thresholds=(best_threshold_by(scores, np.array(said), np.array(none)),))

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Metrics of answered and unanswered questions apart are given where both kinds are among the rows."""
        import numpy as np

        golds = [_texts(answers) for answers in truth]
        replies = [item.value for item in predictions]
        both = list(zip(golds, replies, strict=True))
        columns = {
            "truth": np.array([bool(gold) for gold in golds], dtype=bool),
            "predicted": np.array([reply.text != "" for reply in replies], dtype=bool),
            "f1": np.array([best("f1", gold, reply.text) for gold, reply in both], dtype=np.float64),
            "exact": np.array([best("exact", gold, reply.text) for gold, reply in both], dtype=np.float64),
            "best_f1": np.array([best("f1", gold, reply.best) for gold, reply in both], dtype=np.float64),
        }
        metrics, answered = self.functions(columns, labels), columns["truth"]
        rows_of = {
            name: ~answered if name == "no_answer_accuracy" else answered for name in metrics if name not in WHOLE
        }
        shares = frozenset({"exact_match", "has_answer_exact", "no_answer_accuracy"})
        each = {"exact_match": columns["exact"], "f1": columns["f1"]}
        return Scores(columns, metrics, self.primary_metric, shares=shares, rows_of=rows_of, each=each)

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        found: dict[str, Metric] = {name: mean_of(column) for name, column in WHOLE.items()}
        if len(set(columns["truth"].tolist())) > 1:
            found |= {
                "has_answer_f1": mean_of("f1"),
                "has_answer_exact": mean_of("exact"),
                "no_answer_accuracy": mean_of("exact"),
                "best_span_f1": mean_of("best_f1"),
            }
        return found

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        """The answer ("" for none), its place in the context (empty for none), and its probability against no answer."""
        replies = [item.value for item in predictions]
        return {
            "answer": [reply.text for reply in replies],
            "score": [reply.score for reply in replies],
            "start": [reply.start if reply.text else None for reply in replies],
            "end": [reply.end if reply.text else None for reply in replies],
        }

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        reply, golds = prediction.value, _texts(truth)
        if best("exact", golds, reply.text) == 1.0:
            return None
        marks = [Mark(answer.start, answer.end, "right", "missed", 1) for answer in _apart(truth)]
        marks += [Mark(reply.start, reply.end, "said", "wrong", 1)] if reply.text else []
        severity = reply.score if reply.text else 1 - reply.score
        shared = best("f1", golds, reply.text)
        return Mistake(
            severity,
            Answers().name(truth),
            reply.text or NONE,
            f"F1 {shared:.2f}; an answer against none: {reply.score:.2f}",
            tuple(sorted(marks)),
        )

    def describe(self, labels: Labels) -> str:
        rows = sum(labels.counts)
        none = f", {labels.counts[1]:,} of {rows:,} questions have none" if labels.counts[1] else ""
        return f"answers of up to {labels.longest} characters, cut from a context{none}"


def _apart(answers: Sequence[Answer]) -> list[Answer]:
    """Of right answers that overlap the longest one: pieces of a piece, marked too, could not be told from each other."""
    kept: list[Answer] = []
    for answer in sorted(dict.fromkeys(answers), key=lambda one: (one.start - one.end, one.start)):
        if all(answer.end <= other.start or answer.start >= other.end for other in kept):
            kept.append(answer)
    return kept


def _shortened(joined: Joined, limit: int) -> tuple[dict[str, list[int]], int]:
    """What stands before the context, the question cut to its share of the limit, and how many tokens that took."""
    first, last = joined.first
    most = max(1, int(QUESTION_SHARE * limit) - (len(joined.before["input_ids"]) - (last - first)))
    cut = max(0, last - first - most)
    return {name: row[: last - cut] + row[last:] for name, row in joined.before.items()}, cut


def _learned(answers: Sequence[Answer]) -> Answer | None:
    """The answer that most say, the first of equals."""
    return Counter(answers).most_common(1)[0][0] if answers else None


def _in_windows(
    answer: Answer | None, spans: Sequence[tuple[int, int]], windows: Sequence[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """Tokens (first, last) of an answer in each window that holds it whole; where none does, in the one with most of it."""
    inside = [] if answer is None else [at for at, (a, b) in enumerate(spans) if a < answer.end and b > answer.start]
    found: list[tuple[int, int] | None] = [None] * len(windows)
    if not inside:
        return found
    first, last = inside[0], inside[-1]
    for place, (one, end) in enumerate(windows):
        if one <= first and last < end:
            found[place] = (first, last)
    if not any(found):
        shared = [min(last + 1, end) - max(first, one) for one, end in windows]
        place = shared.index(max(shared))
        found[place] = (max(first, windows[place][0]), min(last, windows[place][1] - 1))
    return found


def _holds(window: Window | None, answer: Answer | None) -> bool:
    assert isinstance(window, Passage)
    if answer is None or not window.spans:
        return False
    inside = [span for span in window.spans if span[0] < answer.end and span[1] > answer.start]
    return bool(inside) and inside[0][0] <= answer.start and inside[-1][1] >= answer.end


def _answered(source: int, read: Sequence[tuple[np.ndarray, Passage]], labels: Labels) -> Prediction:
    """The best piece of all windows of a context against no answer, which the least certain window of that speaks for."""
    import math

    none = min(float(found[0, 0] + found[1, 0]) for found, _ in read)
    pieces = [_best_piece(found[:, 1:], window, labels.longest) for found, window in read if window.spans]
    text = read[0][1].text
    if not pieces:
        return Prediction(source, Reply("", 0, 0, 0.0, ""), (0.0, math.exp(none)), text)
    value, start, end = max(pieces, key=lambda piece: piece[0])
    score = 1 / (1 + math.exp(min(none - value, 700.0)))
    return Prediction(source, Reply("", start, end, score, text[start:end]), (score, math.exp(value)), text)


def _best_piece(found: np.ndarray, window: Passage, longest: int) -> tuple[float, int, int]:
    """Log-probability, first character and the one after the last, of the best piece of at most `longest` characters.

    found: [2, tokens] of start and end.
    """
    import numpy as np

    starts, ends = np.array(window.spans).T
    length = ends[None, :] - starts[:, None]
    ahead = np.triu(np.ones(length.shape, dtype=bool))
    fits = (ahead & (length <= longest)) | np.eye(len(starts), dtype=bool)
    total = np.where(fits, found[0][:, None] + found[1][None, :], -np.inf)
    first, last = np.unravel_index(int(total.argmax()), total.shape)
    return float(total[first, last]), int(starts[first]), int(ends[last])


def _said(reply: Reply, threshold: float) -> Reply:
    return reply._replace(text=reply.best if reply.score >= threshold else "")


def _texts(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.text for answer in answers))
