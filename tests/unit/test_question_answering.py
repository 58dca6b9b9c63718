"""Span answers: SQuAD's measures, windows that lose nothing, the best piece, and a whole run."""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from families import FAMILIES, WORDS
from tunesmith.data.answer_columns import Answer
from tunesmith.data.encode import collate, windows
from tunesmith.data.words import Passage, most_tokens, passages_of
from tunesmith.tasks._metrics import best_threshold_by
from tunesmith.tasks._spans import best, exact, token_f1
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.question_answering import QuestionAnswering, Reply, _best_piece

if TYPE_CHECKING:
    from tunesmith.models.text import TextProcessor

TASK = QuestionAnswering()
LABELS = Labels(("start", "end"), (2, 1), (0.5,), longest=40)


def official_f1(gold: str, said: str) -> tuple[int, float]:
    """Exact match and F1 as in evaluate-v2.0.py, written down again from its text."""

    def normalize_answer(s: str) -> str:
        s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", s).split())

    true, words = normalize_answer(gold).split(), normalize_answer(said).split()
    num_same = sum((Counter(true) & Counter(words)).values())
    if len(true) == 0 or len(words) == 0:
        f1 = float(int(true == words))
    elif num_same == 0:
        f1 = 0.0
    else:
        precision, recall = num_same / len(words), num_same / len(true)
        f1 = (2 * precision * recall) / (precision + recall)
    return int(normalize_answer(gold) == normalize_answer(said)), f1


def test_measures_by_hand() -> None:
    assert exact("The Normans", "normans.") == 1.0
    assert exact("theatre", "atre") == 0.0  # an article is a word, not letters
    assert token_f1("in the 10th century", "10th and 11th") == pytest.approx(2 * (1 / 3 * 1 / 3) / (2 / 3))
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)  # "a" is an article: [b] against [b, b]
    assert token_f1("", "") == token_f1("the", "") == 1.0
    assert token_f1("", "x") == token_f1("x", "") == 0.0
    assert best("f1", ["Denmark", "from Denmark"], "from Denmark") == 1.0
    assert best("exact", [], "") == 1.0 and best("exact", [], "x") == 0.0
    assert best("exact", ["the"], "") == 1.0  # nothing is left of it, so it does not count


def test_measures_equal_the_official_ones_on_random_texts() -> None:
    draw = random.Random(3)
    pieces = ["the", "A", "an", "Norman", "norman,", "10th", "U.S.", "--", "x-y", "é", "The.", "of"]
    for _ in range(2000):
        gold, said = (" ".join(draw.choices(pieces, k=draw.randint(0, 4))) for _ in range(2))
        assert (exact(gold, said), token_f1(gold, said)) == pytest.approx(official_f1(gold, said))


def test_windows_hold_every_piece_that_is_no_longer_than_their_overlap() -> None:
    for tokens, room, overlap in ((7, 10, 3), (30, 10, 3), (31, 10, 9), (25, 10, 0), (11, 10, 8)):
        found = passages_of(tokens, room, overlap)
        assert all(last - first <= room for first, last in found) and found[-1][1] == tokens
        for size in range(1, overlap + 2):
            for start in range(tokens - size + 1):
                assert any(first <= start and start + size <= last for first, last in found)
    assert most_tokens([(0, 1), (1, 2), (3, 9), (10, 11), (11, 12), (12, 13)], 3) == 3
    assert most_tokens([(0, 5)], 2) == 1 and most_tokens([], 4) == 0


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_answer_stands_whole_in_a_window_and_reads_back(family: str, model_folder: Callable[[str], Path]) -> None:
    """Whatever the tokenizer, the tokens that are learned are those of the answer, and give its letters back."""
    processor = _processor(model_folder(family))
    draw = random.Random(5)
    pairs, truth = [], []
    for _ in range(30):
        words = draw.choices([*WORDS, "Zürich,", "(42)", "x"], k=draw.randint(1, 60))
        first = draw.randrange(len(words))
        last = min(len(words), first + draw.randint(1, 3))
        start = len(" ".join(words[:first])) + (1 if first else 0)
        text = " ".join(words[first:last])
        pairs.append(("what is that " * draw.randint(1, 3), " ".join(words)))
        truth.append((Answer(start, start + len(text), text),))
    longest = max(len(answers[0].text) for answers in truth)
    labels = Labels(("start", "end"), (30, 0), (0.0,), longest=longest)
    examples = TASK.encode(pairs, truth, labels, processor, 64)
    assert len(examples) > len(pairs) and all(example.length <= 64 for example in examples)
    assert TASK.unlearned(examples, truth)[1] == []
    seen = set()
    for example in examples:
        window = example.window
        assert isinstance(window, Passage)
        start, end = (next(at for at, kind in enumerate(example.target) if kind & bit) for bit in (1, 2))
        if start == 0:
            assert end == 0
            continue
        first, last = (window.spans[window.places.index(at) - 1] for at in (start, end))
        answer = truth[example.source][0]
        # a tokenizer may lack a letter or join a mark to a word: the piece may be wider, never narrower
        assert first[0] <= answer.start and last[1] >= answer.end
        assert window.text[first[0] : last[1]].strip(" ,()") == answer.text.strip(" ,()") or family in (
            "llama",
            "qwen3",
        )
        seen.add(example.source)
    assert seen == set(range(len(pairs)))


def _processor(folder: Path) -> TextProcessor:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder))).processor


def test_an_answer_longer_than_a_window_is_counted_and_learned_in_part(model_folder: Callable[[str], Path]) -> None:
    processor = _processor(model_folder("bert"))
    context = " ".join(WORDS[:60])
    long = Answer(0, len(context), context)
    labels = Labels(("start", "end"), (1, 0), (0.0,), longest=len(context))
    examples = TASK.encode([("what", context)], [(long,)], labels, processor, 24)
    said, rows = TASK.unlearned(examples, [(long,)])
    assert rows == [0] and "does not fit one window" in said
    learned = [example for example in examples if example.target[0] == 0]
    assert len(learned) == 1 and 1 in learned[0].target and 2 in learned[0].target
    assert TASK.unlearned(TASK.encode([("what", context)], [()], labels, processor, 24), [()])[1] == []


def test_windows_overlap_by_the_longest_answer_where_that_is_more_than_asked(
    model_folder: Callable[[str], Path],
) -> None:
    """An answer of half a window, wherever it stands, is in one window whole; by the default overlap alone it is not."""
    processor = _processor(model_folder("bert"))
    words = [word for word in WORDS if len(word) == 4] * 4  # of one token and one length each
    context = " ".join(words)
    starts = [5 * place for place in range(len(words) - 15)]
    truth = [(Answer(start, start + 74, context[start : start + 74]),) for start in starts]  # 15 words
    pairs = [("what", context)] * len(truth)

    def left(longest: int) -> list[int]:
        labels = Labels(("start", "end"), (len(truth), 0), (0.0,), longest=longest)
        examples = TASK.encode(pairs, truth, labels, processor, 34)  # 30 tokens of the context in each window
        assert max(example.length for example in examples) == 34
        return TASK.unlearned(examples, truth)[1]

    assert left(74) == []
    assert left(1), "control: a third of a window is less than these answers"


def test_lower_case_that_takes_more_letters_keeps_places(model_folder: Callable[[str], Path]) -> None:
    processor = _processor(model_folder("bert"))
    processor.lower = True
    (joined,) = processor.joined([("What", "İİ good CARD")])  # each İ is two letters in lower case
    text = "İİ good CARD"
    assert [text[start:end] for start, end in joined.spans][-2:] == ["good", "CARD"]


def test_the_best_piece_equals_trying_all() -> None:
    draw = np.random.default_rng(2)
    for _ in range(50):
        tokens, longest = int(draw.integers(1, 12)), int(draw.integers(1, 20))
        edges = np.cumsum(draw.integers(1, 5, size=2 * tokens))
        spans = tuple((int(edges[2 * at]), int(edges[2 * at + 1])) for at in range(tokens))
        found = np.log(draw.dirichlet(np.ones(tokens), size=2))
        window = Passage(0, "x" * 100, tuple(range(tokens + 1)), spans)
        wanted = max(
            (float(found[0, first] + found[1, last]), spans[first][0], spans[last][1])
            for first in range(tokens)
            for last in range(first, tokens)
            if first == last or spans[last][1] - spans[first][0] <= longest
        )
        assert _best_piece(found, window, longest) == pytest.approx(wanted)


def test_windows_of_one_question_are_judged_together() -> None:
    import torch

    text = "card bank money film"
    spans = ((0, 4), (5, 9), (10, 15), (16, 20))
    of = {0: Passage(0, text, (0, 3, 4), spans[:2]), 1: Passage(0, text, (0, 3, 4), spans[2:])}
    #         none  two tokens: start, end
    first = torch.tensor([[2.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    (item,) = TASK.whole(TASK.predict(torch.cat([first, second]), [0, 0, 0, 1, 1, 1], LABELS), of, LABELS)
    logs = [part.log_softmax(0) for part in (first, second)]
    none = float(logs[1][0].sum())  # the second window is the least sure that there is no answer
    value = float(logs[1][1, 0] + logs[1][2, 1])
    assert item.value.best == "money film" and (item.value.start, item.value.end) == (10, 20)
    assert item.value.score == pytest.approx(1 / (1 + np.exp(none - value)))
    assert item.evidence == pytest.approx((item.value.score, np.exp(value))) and item.text == text
    unsure = LABELS.__class__(("start", "end"), (2, 1), (0.999,), longest=40)
    assert [reply.value.text for reply in TASK.restate([item], unsure)] == [""]
    assert item.value.text == "money film"


def test_filler_changes_no_loss(model_folder: Callable[[str], Path]) -> None:
    import torch

    processor = _processor(model_folder("bert"))
    pairs = [("what", "card bank"), ("what is it", "good film " * 8)]
    truth = [(Answer(5, 9, "bank"),), ()]
    examples = TASK.encode(pairs, truth, LABELS, processor, 64)
    torch.manual_seed(0)
    whole = collate(examples, processor.pad)
    output = torch.randn(2, whole.inputs["input_ids"].shape[1], 2)
    together = TASK.loss(output, whole)
    apart = [
        TASK.loss(output[row : row + 1, : example.length], collate([example], processor.pad))
        for row, example in enumerate(examples)
    ]
    assert float(together.total) == pytest.approx(sum(float(part.total) for part in apart))
    assert float(together.weight) == 2.0 and windows(examples).keys() == {0, 1}


def reply(said: str, score: float, piece: str) -> Reply:
    return Reply(said, 0, len(piece), score, piece)


def test_scores_and_threshold() -> None:
    truth: list[Any] = [(Answer(0, 6, "Norway"),), (Answer(0, 8, "the king"), Answer(0, 4, "king")), (), ()]
    pieces = [("Norway", 0.9), ("old king", 0.6), ("x", 0.7), ("y", 0.2)]
    found = [Prediction(row, reply("", score, piece), (score,)) for row, (piece, score) in enumerate(pieces)]
    settled = TASK.settle(found, truth, LABELS)
    # at 0.9: 1 + 0 + 1 + 1; at 0.7: 1 + 0 + 0 + 1; at 0.6: 1 + 2/3 + 0 + 1; at 0.2: 1 + 2/3
    assert settled.thresholds == pytest.approx((0.8,))
    scores = TASK.score(TASK.restate(found, settled), truth, settled)
    values = {name: scores.value(name) for name in TASK.metrics}
    assert values == pytest.approx(
        {
            "f1": 3 / 4,
            "exact_match": 3 / 4,
            "has_answer_f1": 1 / 2,
            "has_answer_exact": 1 / 2,
            "no_answer_accuracy": 1.0,
            "best_span_f1": (1 + 2 / 3) / 2,
        }
    )
    always = Labels(("start", "end"), (4, 0), (0.0,), longest=9)
    assert TASK.settle(found, truth, always) == always
    assert set(TASK.score(found[:2], truth[:2], always).metrics) == {"f1", "exact_match"}
    told = TASK.mistake(TASK.restate(found, always)[1], truth[1], always)
    assert told is not None and [(mark.kind, mark.part) for mark in told.marks] == [
        ("missed", 1),
        ("wrong", 1),
    ]
    assert TASK.mistake(TASK.restate(found, settled)[0], truth[0], settled) is None


def test_the_threshold_is_the_best_of_all() -> None:
    draw = np.random.default_rng(4)
    for _ in range(100):
        size = int(draw.integers(1, 9))
        scores, said, none = draw.integers(1, 5, size) / 5, draw.random(size), draw.integers(0, 2, size).astype(float)

        def worth(threshold: float, scores: Any = scores, said: Any = said, none: Any = none) -> float:
            return float(np.where(scores >= threshold, said, none).sum())

        found = best_threshold_by(scores, said, none)
        assert worth(found) == pytest.approx(max(worth(edge) for edge in (0.0, *scores, 2.0)))


def test_the_baseline_takes_what_stands_beside_the_questions_words() -> None:
    from tunesmith.evaluation.baselines.base import Part, measure_baseline

    context = "the bank is old . my film was about Norway and the sea . we had a card of the bank"
    start = context.index("Norway")
    rows = Part([("what was my film about", context)] * 2, [(Answer(start, start + 6, "Norway"),)] * 2)
    labels = Labels(("start", "end"), (2, 0), (0.0,), longest=6)
    found = measure_baseline("sliding_window", TASK, rows, Part([], []), rows, labels, 0)
    assert found.scores.value("exact_match") == 1.0 and "nearest to the question" in found.what


def squad_file(path: Path, questions: int, none: bool = True) -> Path:
    """What follows "find" is the answer; where the context has no such word there is none."""
    draw = random.Random(questions)
    paragraphs = []
    for place in range(questions // 2):
        words = draw.choices([word for word in WORDS if word != "find"], k=draw.randint(8, 70))
        at = draw.randrange(len(words) - 1)
        words[at] = "find"
        context = " ".join(words)
        start = len(" ".join(words[: at + 1])) + 1
        answer = {"text": words[at + 1], "answer_start": start}
        qas: list[dict[str, Any]] = [{"question": "what can we find ?", "id": f"{place}", "answers": [answer]}]
        if none:
            qas.append({"question": "who made it ?", "id": f"{place}n", "answers": [], "is_impossible": True})
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "All", "paragraphs": paragraphs}]}))
    return path


def test_a_run_from_a_file_to_answers(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    import tunesmith

    data = squad_file(tmp_path / "rows.json", 60)
    settings = {"training.epochs": 1, "training.device": "cpu", "training.precision": "float32"}
    settings |= {"evaluation.resamples": 100, "data.validation": 0.2, "training.rate": 1e-3}
    run = tunesmith.finetune(str(model_folder("bert")), data, "full", settings=settings, out=tmp_path / "run")
    report = run.report
    assert report["task"] == "question_answering" and set(report["metrics"]) == set(TASK.metrics)
    assert [item["name"] for item in report["baselines"]] == ["no_answer", "sliding_window"]
    asked = sum(sum(report["spans"][kind].values()) for kind in ("answer", "none"))
    assert asked == report["rows_tested"]
    kinds = {item["kind"] for item in report["findings"]}
    assert {"no_answer", "windows"} <= kinds
    marked = [item for item in report["mistakes"] if item.get("marks")]
    assert all("  |  " in item["text"] for item in marked)
    for item in marked:
        for mark in item["marks"]:
            text = item["text"][mark["start"] : mark["end"]]
            assert text in (item["truth"] if mark["kind"] == "missed" else item["predicted"])
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What became of the questions" in page

    model = tunesmith.load(run.path)
    pair = ("what can we find ?", "now we find great money in the bank")
    (found,) = model.predict([pair])
    assert found.best == pair[1][found.start : found.end] != ""
    assert model.thresholds == {}
    with pytest.raises(tunesmith.errors.DataError, match="predicts answers"):
        model.predict_proba([pair])
    again = tunesmith.evaluate(run.path, data)["metrics"]
    assert set(again) == set(TASK.metrics)

    folder = run.path / "model"
    theirs, tokenizer = AutoModelForQuestionAnswering.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    given = tokenizer(*pair, return_tensors="pt")
    with torch.no_grad():
        said = theirs.eval()(**given)
        ours = model.network(dict(given))
    assert torch.equal(torch.stack([said.start_logits, said.end_logits], dim=-1), ours)


def test_a_preview_and_a_prediction_on_the_terminal(
    model_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from tunesmith.cli.predict import Asked, Guess, print_one
    from tunesmith.previewing import preview
    from tunesmith.recipe import Recipe

    data = squad_file(tmp_path / "rows.json", 40)
    found = preview(Recipe.parse({"model": str(model_folder("bert")), "data": {"path": str(data)}}), 2)
    assert any("questions with a context and answers with their places" in line for line in found.lines)
    for row in found.rows:
        assert row.learned.endswith(
            "no answer in this window" if row.target == "(no answer)" else f"are right: {row.target}"
        )
    none = Guess({"answer": "", "score": 0.25, "start": None, "end": None}, ())
    print_one(none, "?", Asked(pair="x"), sys.stdout)
    some = Guess({"answer": "a\nb", "score": 0.75, "start": 3, "end": 6}, ())
    print_one(some, "?", Asked(pair="x"), sys.stdout)
    assert (
        capsys.readouterr().out
        == "no answer  (0.2500 that there is one, which is less than it takes to say it)\na b  0.7500  3-6\n"
    )


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_context_without_any_token_has_no_answer(family: str, model_folder: Callable[[str], Path]) -> None:
    from tunesmith.evaluation.infer import infer
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    backbone = load_backbone(resolve(str(model_folder(family))))
    network = TASK.head(backbone, LABELS, True, 0)
    pairs = [("", "\u200b" if family == "bert" else "card"), ("what " * 100, "card")]
    examples = TASK.encode(pairs, None, LABELS, backbone.processor, 64)
    assert examples[1].cut > 0 and examples[1].length <= 64
    found, _ = infer(lambda batch: network(batch.inputs), TASK, examples, LABELS, backbone.processor.pad, "cpu")
    assert [item.row for item in found] == [0, 1] and found[1].value.best in "card"


def test_of_an_answer_without_a_token_nothing_is_learned(model_folder: Callable[[str], Path]) -> None:
    """A tokenizer may drop letters that it does not know."""
    import torch

    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    processor = load_backbone(resolve(str(model_folder("roberta")))).text
    context = "a good film \U0001f642 and a bad one"
    at = context.index("\U0001f642")
    truth: list[Any] = [(Answer(at, at + 1, "\U0001f642"),), (Answer(2, 6, "good"),), ()]
    pairs: list[Any] = [("what is good", context)] * 3
    assert not any(start <= at < end for start, end in processor.joined(pairs)[0].spans), "the control: it has no token"
    examples = TASK.encode(pairs, truth, LABELS, processor, 64)
    assert [any(example.target) for example in examples] == [False, True, True]
    said, rows = TASK.unlearned(examples, truth)
    assert rows == [0] and "nothing of an answer whose letters are no tokens" in said
    assert "nothing is learned" in TASK.shows(examples[0], [], LABELS)
    batch, known = (
        collate([replace(row, row=at) for at, row in enumerate(part)], processor.pad)
        for part in (examples, examples[1:])
    )
    output = torch.randn(3, batch.inputs["input_ids"].shape[1], 2, generator=torch.Generator().manual_seed(0))
    loss, wanted = TASK.loss(output, batch), TASK.loss(output[1:], known)
    assert float(loss.total) == pytest.approx(float(wanted.total)) and float(loss.weight) == float(wanted.weight) == 2


def test_of_right_answers_that_overlap_the_longest_is_marked() -> None:
    truth = (Answer(0, 14, "one two three."), Answer(4, 7, "two"), Answer(20, 24, "four"), Answer(0, 3, "one"))
    missed = TASK.mistake(Prediction(0, Reply("", 0, 0, 0.1, ""), (0.1, 0.5)), truth, LABELS)
    assert missed is not None
    assert [(mark.start, mark.end) for mark in missed.marks] == [(0, 14), (20, 24)]
