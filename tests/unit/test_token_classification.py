"""Entities: tokens and words aligned, windows put together again, scores, and a run from columns to spans."""

from __future__ import annotations

import html
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from families import FAMILIES
from shortruns import HINTS, recipe_for, rows
from tunesmith import evaluate, load
from tunesmith.calibration import Step
from tunesmith.choosing import meant
from tunesmith.cli.predict import Asked, predict_with
from tunesmith.data.columns import find_columns
from tunesmith.data.encode import IGNORED, Example, by_unit, collate, unit_rows, unit_targets, windows
from tunesmith.data.table import table_of
from tunesmith.data.targets.tags import Entity, entities_of
from tunesmith.data.words import Words, bounds_of
from tunesmith.errors import DataError, ModelError
from tunesmith.evaluation.baselines.base import Part, measure_baseline
from tunesmith.evaluation.intervals import bootstrap
from tunesmith.evaluation.report import mistakes
from tunesmith.evaluation.sections import mistakes_section
from tunesmith.evaluation.views.per_entity import build
from tunesmith.pipeline import resume, start
from tunesmith.tasks.base import Labels, Prediction, Scores
from tunesmith.tasks.token_classification import Span, TokenClassification
from tunesmith.training.events import Finished, Note, Stopped

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone

Folder = Callable[[str], Path]
TASK = TokenClassification()
LABELS = Labels(("O", "B-x", "I-x", "B-y", "I-y"), (9, 3, 3, 2, 2))


def backbone_of(folder: Path) -> Backbone:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder)))


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert", "llama", "gpt2"])
def test_first_pieces_stand_for_their_words(family: str, model_folder: Folder) -> None:
    """By where the family's own tokenizer says that each token of the whole text stands."""
    processor = backbone_of(model_folder(family)).processor
    words = ["new", "water", "bank", "a", "along", "long", "w", "him"]
    text = Words.of(words)
    (example,) = TASK.encode([text], [(Entity(0, 9, "x"), Entity(30, 33, "y"))], LABELS, processor, 60)
    given = processor.tokenizer(str(text), return_offsets_mapping=True)
    assert example.inputs["input_ids"] == given["input_ids"]
    firsts = [
        min(at for at, (start, end) in enumerate(given["offset_mapping"]) if start < last and end > first)
        for first, last in text.bounds
    ]
    assert example.window is not None and example.window.places == tuple(firsts)
    named = {at: LABELS.names[tag] for at, tag in enumerate(example.target) if tag != IGNORED}
    assert named == dict(zip(firsts, ["B-x", "I-x", "O", "O", "O", "O", "O", "B-y"], strict=True))


def test_transformers_own_alignment_of_words(model_folder: Folder) -> None:
    processor = backbone_of(model_folder("bert")).processor
    words = ["New", "water-bank", "don't", "\u200b", "him"]
    (example,) = TASK.encode([Words.of(words)], None, LABELS, processor, 60)
    given = processor.tokenizer([word.replace("\u200b", "[UNK]") for word in words], is_split_into_words=True)
    assert example.inputs["input_ids"] == given["input_ids"]
    assert example.window is not None and example.target is None
    assert [given.word_ids()[place] for place in example.window.places] == [0, 1, 2, 3, 4]
    assert [given.word_ids().index(word) for word in range(5)] == [*example.window.places]


def test_a_long_text_is_learned_and_said_word_by_word_once(model_folder: Folder) -> None:
    import torch

    processor = backbone_of(model_folder("bert")).processor
    texts = ["him " * 3, Words.of(["water", "bank", "xyzzyxyzzyxyzzy"] * 12), ""]
    truth = [(Entity(4, 7, "x"),), (Entity(0, 10, "y"),), ()]
    examples = TASK.encode(texts, truth, LABELS, processor, 12)
    assert [example.row for example in examples] == [*range(len(examples))] and len(examples) > 6
    assert [example.source for example in examples] == sorted(example.source for example in examples)
    assert all(example.length <= 12 for example in examples)
    assert sum(example.cut for example in examples) == 12 * (15 - 10), (
        "a word longer than a window loses its end, counted"
    )
    assert unit_targets(examples).tolist() == [0, 1, 0, 3, 4] + [0] * 34
    batch = collate(examples[::-1], processor.pad)
    assert batch.target is not None and batch.counted is not None
    assert torch.equal(batch.target != IGNORED, batch.counted)
    output = torch.randn(*batch.target.shape, 5, generator=torch.Generator().manual_seed(0))
    found = TASK.predict(*by_unit(output, batch), LABELS)
    found.sort(key=lambda item: item.row)
    assert [item.row for item in found] == unit_rows(examples)
    whole = TASK.whole(found, windows(examples), LABELS)
    assert [(item.row, len(item.evidence)) for item in whole] == [(0, 15), (1, 180), (2, 0)]
    for item in whole:
        for span in item.value:
            first, last = (bounds_of(item.text)[place] for place in (span.words[0], span.words[1] - 1))
            assert (span.start, span.end) == (first[0], last[1]) and span.text == item.text[span.start : span.end]


def said(text: str, tags: str, share: float = 0.8) -> Prediction:
    """A prediction of these tags, each with the probability `share`."""
    words = []
    for tag in tags.split():
        rest = (1 - share) / 4
        words.append(Prediction(0, tag, tuple(share if name == tag else rest for name in LABELS.names)))
    from tunesmith.data.words import Window

    return TASK.whole(words, {0: Window(0, text)}, LABELS)[0]


def test_scores_are_seqevals() -> None:
    """The example of seqeval's README (two rows, F1 0.5), with the same rows counted by hand."""
    texts = ["a b c d e f g", "h i j"]
    found = [said(texts[0], "O O B-x I-x I-x I-x O"), said(texts[1], "B-y I-y O")]
    truth = [(Entity(6, 11, "x"),), (Entity(0, 3, "y"),)]
    scores = TASK.score(found, truth, LABELS)
    assert [scores.value(name) for name in TASK.metrics] == [0.5, 0.5, 0.5]
    assert [(line["label"], line["f1"], line["support"]) for line in build(scores, LABELS)] == [
        ("x", 0, 1),
        ("y", 1, 1),
    ]
    interval = bootstrap(scores, "entity_f1", 200, 0.95, 0)
    assert interval.low == 0.0 and interval.high == 1.0
    none = TASK.score([said("a", "O")], [()], LABELS)
    assert [none.value(name) for name in TASK.metrics] == [0.0, 0.0, 0.0]
    draw = random.Random(0)  # against sets of (row, start, end, type), as seqeval counts them
    tags = [[draw.choice(["O", "B-x", "I-x", "I-y"]) for _ in range(6)] for _ in range(80)]
    both = [said("a b c d e f", " ".join(row)) for row in tags]
    found, truth = both[:40], [tuple(Entity(*span[:3]) for span in item.value) for item in both[40:]]
    predicted = {(row, *span[:3]) for row, item in enumerate(found) for span in item.value}
    true = {(row, *entity) for row, entities in enumerate(truth) for entity in entities}
    expected = 2 * len(predicted & true) / (len(predicted) + len(true))
    assert TASK.score(found, truth, LABELS).value() == pytest.approx(expected) and 0 < expected < 1


IOB2_TAGS = ("O", "B-x", "I-x", "B-y", "I-y")
ROWS_OF_TAGS = st.lists(st.integers(1, 9), min_size=1, max_size=5).flatmap(
    lambda sizes: st.tuples(*(st.tuples(_sequence(size), _sequence(size)) for size in sizes))
)


def _sequence(size: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(IOB2_TAGS), min_size=size, max_size=size)


def _as_iobes(tags: list[str]) -> list[str]:
    """The same entities, in tags that IOBES allows."""
    made = ["O"] * len(tags)
    for first, last, kind in entities_of(tags):
        letters = "S" if last - first == 1 else f"B{'I' * (last - first - 2)}E"
        made[first:last] = [f"{letter}-{kind}" for letter in letters]
    return made


def _entities(tags: list[str]) -> tuple[Entity, ...]:
    """Of words of four letters, one space between them."""
    return tuple(Entity(5 * first, 5 * last - 1, kind) for first, last, kind in entities_of(tags))


def _equal_to_seqeval(scores: Scores, true: list[list[str]], predicted: list[list[str]], **how: Any) -> None:
    from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

    for name, theirs in (
        ("entity_f1", f1_score), ("entity_precision", precision_score), ("entity_recall", recall_score)
    ):  # fmt: skip
        assert scores.value(name) == pytest.approx(theirs(true, predicted, average="micro", zero_division=0, **how))
    if all(tag == "O" for row in (*true, *predicted) for tag in row):
        return  # seqeval warns of a mean over no types
    report = classification_report(true, predicted, output_dict=True, zero_division=0, **how)
    for line in build(scores, LABELS):
        of = report.get(line["label"], dict.fromkeys(("precision", "recall", "f1-score", "support"), 0))
        ours = [line["precision"], line["recall"], line["f1"], line["support"]]
        assert ours == pytest.approx([of["precision"], of["recall"], of["f1-score"], of["support"]])


@settings(max_examples=150, deadline=None)
@given(both=ROWS_OF_TAGS)
def test_scores_equal_seqevals_on_any_tags(both: tuple[tuple[list[str], list[str]], ...]) -> None:
    """As a model may say any tag after any other: read by conlleval's rules, seqeval's default."""
    true, predicted = [row[0] for row in both], [row[1] for row in both]
    found = [said(" ".join(["word"] * len(tags)), " ".join(tags)) for tags in predicted]
    _equal_to_seqeval(TASK.score(found, [_entities(tags) for tags in true], LABELS), true, predicted)


@settings(max_examples=150, deadline=None)
@given(both=ROWS_OF_TAGS)
def test_scores_equal_seqevals_strict_ones_where_the_tags_keep_to_iobes(
    both: tuple[tuple[list[str], list[str]], ...],
) -> None:
    from seqeval.scheme import IOBES

    true, predicted = [_as_iobes(row[0]) for row in both], [_as_iobes(row[1]) for row in both]
    if all(tag == "O" for row in (*true, *predicted) for tag in row):
        return  # of no entity at all seqeval's strict mode raises
    found = [
        Prediction(row, tuple(Span(*entity, 1.0, "", (0, 0)) for entity in _entities(tags)), ())
        for row, tags in enumerate(predicted)
    ]
    scores = TASK.score(found, [_entities(tags) for tags in true], LABELS)
    _equal_to_seqeval(scores, true, predicted, mode="strict", scheme=IOBES)


def test_mistakes_are_marked_in_the_text_and_escaped() -> None:
    text = Words.of(["<b>Ann</b>", "Lee", "met", "Bob", "&", "Eve"])
    found = said(text, "B-x I-x O B-y O O", 0.9)
    truth = (Entity(0, 14, "x"), Entity(19, 22, "x"), Entity(25, 28, "x"))
    mistake = TASK.mistake(found, truth, LABELS)
    assert mistake is not None
    assert mistake.severity == pytest.approx(0.9 + 2 * (1 - 0.1 / 4))
    assert mistake.truth == 'x "<b>Ann</b> Lee", x "Bob", x "Eve"'
    assert TASK.mistake(found, tuple(Entity(*span[:3]) for span in found.value), LABELS) is None
    page = mistakes_section({"mistakes": mistakes([mistake], [text], ["t:1"]), "worst": "", "truth_is": "labelled"})
    assert '<mark class="right">&lt;b&gt;Ann&lt;/b&gt; Lee</mark><small>x \N{CHECK MARK}</small>' in page
    assert '<mark class="missed wrong">Bob</mark><small>x (missed)</small> <small>y (wrong)</small>' in page
    assert '<mark class="missed">Eve</mark><small>x (missed)</small>' in page
    assert html.unescape(page).count("<b>Ann") > 0 and "<b>Ann" not in page
    far = Words.of(["word"] * 400 + ["Eve"])
    other = TASK.mistake(said(far, " ".join(["O"] * 401)), (Entity(2000, 2003, "x"),), LABELS)
    (item,) = mistakes([other], [far], ["t:2"])
    (mark,) = item["marks"]
    assert item["text"][mark["start"] : mark["end"]] == "Eve" and len(item["text"]) < 700


def test_the_most_frequent_tag_of_each_word() -> None:
    train = Part(
        [Words.of(["Ann", "met", "ann"]), Words.of(["Ann", "Lee"])], [(Entity(0, 3, "x"),), (Entity(0, 7, "x"),)]
    )
    test = Part([Words.of(["Ann", "Lee", "ANN", "new"])], [(Entity(0, 11, "x"),)])
    found = measure_baseline("frequent_tag", TASK, train, Part([], []), test, LABELS, 0)
    # Ann: B twice of two; Lee: I; ANN by its small letters: B twice of three; new: never seen
    assert found.scores.columns["predicted"].tolist() == [[2, 0]] and found.scores.value() == 0.0
    exact = measure_baseline("frequent_tag", TASK, train, train, Part(train.texts, train.truth), LABELS, 0)
    assert exact.scores.value() == 1.0


def test_the_task_is_inferred_and_the_reason_given(tmp_path: Path) -> None:
    words = table_of({"tokens": [["a"], ["b"]], "tags": [["O"], ["B-x"]]}, "t")
    spans = table_of({"text": ["one two", "three"], "spans": [[[0, 3, "x"]], []]}, "t")
    many = table_of({"text": ["one two", "three"], "labels": [["p", "q"], ["p"]]}, "t")
    for table, name, why in (
        (words, "token_classification", "a list of words and a list of tags a row"),
        (spans, "token_classification", "one text column and spans of it"),
        (many, "multilabel", "one text column and lists of labels"),
    ):
        columns = find_columns(table)
        task, said = meant([table.columns[columns.label]], columns)
        assert (task.part_name(), said) == (name, why)


def entity_rows(count: int) -> list[dict[str, Any]]:
    """Telling words are entities of their kind; every fourth row is long."""
    made = []
    for place, (text, _) in enumerate(rows(count)):
        words = text.split() * (5 if place % 4 == 0 else 1) + [f"{place}"]
        kinds = [next((kind for kind, hints in HINTS.items() if word in hints), None) for word in words]
        made.append({"tokens": words, "tags": ["O" if kind is None else f"B-{kind}" for kind in kinds]})
    return made


@pytest.fixture(scope="module")
def columns_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("columns") / "rows.conll"
    lines = [
        "".join(f"{word}\t{tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True))
        for row in entity_rows(90)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _placed(said: Prediction) -> list[tuple[int, int, str]]:
    return [(entity.start, entity.end, entity.label) for entity in said.value]


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_run_from_columns_to_spans(
    method: str, columns_file: Path, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    settings = {"evaluation.baselines": True, "training.epochs": 3, "training.rate": 3e-3}
    recipe = recipe_for(model_folder("sentence"), columns_file, method, settings)
    events = list(start(recipe, tmp_path / "run").events())
    assert isinstance(events[-1], Finished)
    notes = "\n".join(line for event in events if isinstance(event, Note) for line in event.lines)
    assert "task: token_classification, entities of 3 types (a list of words and a list of tags a row)" in notes
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert any("with more than 48 tokens, read in" in item["message"] for item in report["findings"])
    assert [item["name"] for item in report["baselines"]] == ["frequent_tag", "probe", "neighbours"]
    assert {line["label"] for line in report["per_entity"]} == set(HINTS)
    if method == "full":
        assert report["metrics"]["entity_f1"]["value"] > 0.5
    kept = {item["key"]: item["value"] for item in report["derived"]}["training.cache"]
    assert kept == {"full": "Live", "head": "TokenCache", "lora": "Live"}[method]
    model, texts = load(tmp_path / "run"), [" ".join(row["tokens"]) for row in entity_rows(9)]
    whole = model.quiet_predictions(texts)
    monkeypatch.setattr("tunesmith.data.stored.PART_ROWS", 2)
    parts = model.quiet_predictions(texts)
    assert [(item.row, _placed(item)) for item in parts] == [(item.row, _placed(item)) for item in whole], (
        "of windows too"
    )

    model = load(tmp_path / "run")
    written = parquet.read_table(tmp_path / "run" / "predictions" / "test.parquet").to_pylist()
    for row in written:
        (again,) = model.predict([row["text"].split(" ")])
        assert [(span["start"], span["end"], span["label"]) for span in row["spans"]] == [span[:3] for span in again]
        assert all(row["text"][span["start"] : span["end"]] == span["text"] for span in row["spans"])
        assert [tuple(span["words"]) for span in row["spans"]] == [span.words for span in again]
    lines = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Entity types" in lines
    measured = evaluate(tmp_path / "run", entity_rows(90)[:30])
    assert measured["rows"] == 30 and 0 <= measured["metrics"]["entity_f1"]["value"] <= 1


def test_the_saved_model_opens_with_transformers_and_says_the_same(
    columns_file: Path, model_folder: Folder, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForTokenClassification

    recipe = recipe_for(model_folder("roberta"), columns_file, "full", {"training.epochs": 1})
    events = list(start(recipe, tmp_path / "run").events())
    assert isinstance(events[-1], Finished)
    model = load(tmp_path / "run")
    opened = AutoModelForTokenClassification.from_pretrained(tmp_path / "run" / "model").eval()
    assert tuple(opened.config.id2label[place] for place in range(7)) == model.labels
    (example,) = TASK.encode(["my good card, lost"], None, model.card.labels, model.network.processor, 60)
    batch = collate([example], model.network.processor.pad)
    with torch.no_grad():
        theirs = opened(**batch.inputs).logits
        assert torch.equal(theirs, model.network(batch.inputs))
    (found,) = model.predictions(["my good card, lost"])
    shares = by_unit(theirs, batch)[0].softmax(-1).flatten().tolist()
    assert found.evidence == pytest.approx(shares, abs=1e-6)


def test_a_stopped_run_goes_on_to_the_same_end(columns_file: Path, model_folder: Folder, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), columns_file, {"name": "layers", "layers": 1}, {"training.epochs": 1})
    whole = list(start(recipe, tmp_path / "whole").events())
    calls = iter(range(1000))
    events = list(start(recipe, tmp_path / "cut", stop=lambda: next(calls) >= 4).events())
    assert isinstance(events[-1], Stopped) and events[-1].step == 2
    again = list(resume(tmp_path / "cut").events())
    assert isinstance(whole[-1], Finished) and isinstance(again[-1], Finished)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_spans_of_texts_are_learned_and_given_back(model_folder: Folder, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    with data.open("w", encoding="utf-8") as out:
        for text, _ in rows(60):
            spans = []
            for start_at, end in bounds_of(text):
                kind = next((kind for kind, hints in HINTS.items() if text[start_at:end] in hints), None)
                spans += [{"start": start_at, "end": end, "label": kind}] if kind else []
            out.write(json.dumps({"text": text, "entities": spans}) + "\n")
    recipe = recipe_for(model_folder("bert"), data, "head", {"training.epochs": 1})
    assert isinstance(list(start(recipe, tmp_path / "run").events())[-1], Finished)
    model = load(tmp_path / "run")
    with pytest.raises(DataError, match="predict_proba: this model predicts entities"):
        model.predict_proba(["a film"])
    with pytest.raises(DataError, match="or lists of words without an empty one; not so: 'entry 1'"):
        model.predict(["a film", ["a", ""]])
    assert model.predict([]) == []
    stream = io.StringIO()
    predict_with(lambda: model, str(data), Asked(), io.StringIO(), stream)
    head, first, *rest = stream.getvalue().splitlines()
    assert head == "text,entities,spans" and len(rest) == 59 and first.startswith(rows(1)[0][0])


class Stub:
    text_column, pair_column, reads_pictures = "text", None, False
    thresholds: ClassVar[dict[str, float]] = {}

    def __init__(self, spans: list[dict[str, Any]]) -> None:
        self.spans = spans

    def asked_in(self, table: object, text: str | None) -> None:
        return None

    def read(self, given: Any) -> Any:
        return Words.of(given)

    def threshold(self, precision: float) -> Step:
        raise DataError("precision")

    def said(self, texts: Any, precision: float | None = None, sets: float | None = None) -> dict[str, list[Any]]:
        return {"spans": [self.spans for _ in texts]}


def test_one_text_shows_its_spans() -> None:
    spans = [
        {"start": 0, "end": 3, "label": "person", "score": 0.91234, "text": "Ann"},
        {"start": 7, "end": 12, "label": "place", "score": 0.5, "text": "\x1b[1mP"},
    ]
    stream = io.StringIO()
    predict_with(lambda: Stub(spans), "Ann in Paris", Asked(), io.StringIO(), stream)
    assert stream.getvalue().splitlines() == ["person  0.9123  0-3   Ann", "place   0.5000  7-12  \\x1b[1mP"]
    stream = io.StringIO()
    predict_with(lambda: Stub([]), "nothing", Asked(), io.StringIO(), stream)
    assert stream.getvalue() == "no entity\n"
    stream = io.StringIO()
    predict_with(lambda: Stub(spans), "Ann in Paris", Asked(json_lines=True), io.StringIO(), stream)
    assert json.loads(stream.getvalue()) == {"text": "Ann in Paris", "spans": spans}


def test_a_family_without_a_classifier_of_tokens_is_refused(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.auto import modeling_auto

    backbone = backbone_of(model_folder("bert"))
    monkeypatch.setattr(modeling_auto, "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING", {})
    with pytest.raises(ModelError, match='no classifier of tokens for "bert"; choose another base'):
        TASK.head(backbone, LABELS, False, 0)


def test_every_family_is_covered_by_the_contract_suite() -> None:
    assert len(FAMILIES) > 5 and Span._fields[:3] == Entity._fields and Example(0, {}, None).source == 0
