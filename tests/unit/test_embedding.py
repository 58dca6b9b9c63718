"""The task of embeddings: which rows it takes, how it measures them, and what a run of it delivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortruns import rows
from tunesmith import load
from tunesmith.choosing import choose
from tunesmith.data.columns import Asked, Columns
from tunesmith.data.related_columns import MADE, find_related, looks_related, read_related
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.pipeline import start
from tunesmith.recipe import Recipe
from tunesmith.tasks import _retrieval
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.embedding import Embedding

Folder = Callable[[str], Path]
PAIRS = [(f"how do i open account number {place}", f"an account {place} is opened at the desk") for place in range(30)]


def _table(**columns: list[Any]) -> Table:
    return table_of(columns, "rows")


def _sides(*names: str) -> Table:
    texts = [f"{name} text {place}" for name in names for place in range(6)]
    return _table(**{name: texts[6 * at : 6 * at + 6] for at, name in enumerate(names)})


@pytest.mark.parametrize(
    ("names", "recognised"),
    [
        (("anchor", "positive"), True),
        (("anchor", "positive", "negative"), True),
        (("query", "document"), True),
        (("query", "positive", "negative_1", "negative_2"), True),
        (("sentence1", "sentence2"), True),
        (("one", "other"), True),
        (("question", "answer"), False),  # to be written by a language model
        (("input", "target"), False),
        (("question", "context"), False),
        (("text", "label"), False),
        (("sentence1", "sentence2", "label"), False),
    ],
)
def test_rows_of_related_texts_without_a_label_mean_embedding(names: tuple[str, ...], recognised: bool) -> None:
    assert (looks_related(_sides(*names), Asked()) is not None) == recognised


def test_pairs_with_a_score_are_a_regression_unless_asked() -> None:
    scores = [0.5 * place for place in range(1, 7)]
    table = _sides("sentence1", "sentence2")
    table = _table(**table.columns, score=scores)
    assert looks_related(table, Asked()) is None
    recipe = Recipe.parse({"model": "m", "data": {"path": "rows"}, "task": "embedding"})
    chosen = choose(recipe, {"train": table}, lambda: "")
    assert chosen.columns.label == "score" and chosen.columns.texts == ("sentence1", "sentence2")


def test_lists_of_negatives_become_texts_and_short_ones_are_named() -> None:
    table = _table(query=["a b", "c d"], positive=["e f", "g h"], negatives=[["i j", "k l"], ["m n", "o p", "q r"]])
    columns = find_related(table, Asked())
    assert columns.texts == ("query", "positive", "negatives[0]", "negatives[1]") and columns.label == MADE
    read = read_related(table, columns)
    assert read.columns["negatives[1]"] == ["k l", "o p"]
    short = _table(query=["a b", "c d"], positive=["e f", "g h"], negatives=[["i j", "k l"], ["m n"]])
    with pytest.raises(DataError, match=r"list of 2 texts or more in every row.*rows:2"):
        read_related(short, columns)


def test_three_columns_of_texts_are_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"3 columns hold texts; name them with --text and --pair"):
        find_related(_sides("one", "two", "three"), Asked())


def test_a_score_beside_negatives_is_refused() -> None:
    table = _table(**_sides("anchor", "positive", "negative").columns, score=[1, 2, 3, 4, 5, 6])
    with pytest.raises(DataError, match="two ways to say what belongs together"):
        find_related(table, Asked())


def _predictions(anchors: np.ndarray, positives: np.ndarray, ids: list[tuple[int, int]]) -> list[Prediction]:
    import torch

    task, labels = Embedding(), Labels(("related",), (len(ids),))
    vectors = torch.from_numpy(np.stack([anchors, positives], axis=1)).float()
    from tunesmith.data.encode import Batch

    batch = Batch(tuple(range(len(ids))), {}, torch.tensor(ids))
    found = task.judged(vectors.transpose(0, 1).flatten(0, 1), batch, labels)
    return task.whole(found, {}, labels)


def test_ranks_equal_a_plain_count_over_all_distinct_positives() -> None:
    """Rows 0 and 1 share an anchor, rows 2 and 3 a positive: neither counts against the other."""
    draw = np.random.default_rng(0)
    anchors, positives = draw.normal(size=(40, 5)), draw.normal(size=(40, 5))
    anchors[1], positives[3] = anchors[0], positives[2]
    ids = [(2 * row, 2 * row + 1) for row in range(40)]
    ids[1], ids[3] = (ids[0][0], ids[1][1]), (ids[3][0], ids[2][1])
    task, labels = Embedding(), Labels(("related",), (40,))
    found = _predictions(anchors, positives, ids)
    scores = task.score(found, ["related"] * 40, labels)
    one = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    two = positives / np.linalg.norm(positives, axis=1, keepdims=True)
    table = one @ two.T
    wanted = []
    for row in range(40):
        own = {ids[other][1] for other in range(40) if ids[other][0] == ids[row][0]}
        others = {ids[other][1]: table[row, other] for other in range(40) if ids[other][1] not in own}
        wanted.append(min(11, 1 + sum(value >= table[row, row] for value in others.values())))
    assert scores.columns["rank"].tolist() == wanted
    assert scores.value("accuracy_at_1") == pytest.approx(np.mean([rank == 1 for rank in wanted]))
    assert scores.value("mrr_at_10") == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in wanted]))
    gains = [1 / np.log2(1 + rank) if rank <= 10 else 0 for rank in wanted]
    assert scores.value("ndcg_at_10") == pytest.approx(np.mean(gains))


def test_ndcg_equals_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    table = np.random.default_rng(1).normal(size=(9, 9))
    rank = 1 + (table > np.diag(table)[:, None]).sum(axis=1)
    assert _retrieval.ndcg_at_10({"rank": rank}) == pytest.approx(ndcg_score(np.eye(9), table, k=10))


def _finished(data: Any, model: Path, out: Path, **settings: Any) -> tuple[Path, list[Any]]:
    from tunesmith.recipe import set_key

    plain: dict[str, Any] = {"model": str(model), "data": {"path": "rows"}, "task": "embedding", "method": "full"}
    usual = {"training.epochs": 2, "training.batch_size": 12, "training.micro_batch": 5, "evaluation.resamples": 100}
    for key, value in {**usual, **settings}.items():
        set_key(plain, key, value)
    session = start(Recipe.parse(plain), out, data)
    return session.run, list(session.events())


def test_a_run_delivers_what_sentence_transformers_opens(model_folder: Folder, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    data = {"anchor": [one for one, _ in PAIRS], "positive": [two for _, two in PAIRS]}
    run, events = _finished(data, model_folder("sentence"), tmp_path / "run", **{"data.test": 0.3})
    model = load(run)
    texts = [text for text, _ in rows(6)]
    vectors = model.encode(texts)
    opened = library.SentenceTransformer(str(run / "model"), device="cpu").encode(texts)
    assert np.abs(vectors - opened).max() < 1e-5
    said = model.predict([(texts[0], texts[1]), (texts[2], texts[3])])
    unit = opened / np.linalg.norm(opened, axis=1, keepdims=True)
    assert said == pytest.approx([unit[0] @ unit[1], unit[2] @ unit[3]], abs=1e-5)
    assert np.allclose(np.array(model.predict(texts)), vectors)
    lines = "\n".join(line for event in events if event.kind == "note" for line in event.lines)
    assert "the untouched base's cosine similarity" in lines and "TF-IDF" in lines and "MRR@10" in lines
    with pytest.raises(DataError, match="all rows alike"):
        model.predict([texts[0], (texts[1], texts[2])])
    with pytest.raises(DataError, match="vectors and cosines"):
        model.predict_proba(texts)


def test_triplets_and_scores_run_to_their_end(model_folder: Folder, tmp_path: Path) -> None:
    triplets = {
        "query": [one for one, _ in PAIRS],
        "positive": [two for _, two in PAIRS],
        "negative": [two for _, two in reversed(PAIRS)],
    }
    run, events = _finished(triplets, model_folder("bert"), tmp_path / "three", **{"data.test": 0.3})
    assert "triplet accuracy" in "\n".join(line for event in events if event.kind == "note" for line in event.lines)
    scored = {
        "sentence1": [one for one, _ in PAIRS],
        "sentence2": [two for _, two in PAIRS],
        "score": [place / 29 for place in range(30)],
    }
    run, events = _finished(scored, model_folder("bert"), tmp_path / "scored", **{"data.test": 0.3})
    assert "Spearman" in "\n".join(line for event in events if event.kind == "note" for line in event.lines)
    from tunesmith import evaluate

    assert set(evaluate(run, scored)["metrics"]) == {"spearman", "pearson"}
    renamed = {"left": scored["sentence1"], "right": scored["sentence2"], "score": scored["score"]}
    assert evaluate(run, renamed, text="left", pair="right")["metrics"] == evaluate(run, scored)["metrics"]
    with pytest.raises(DataError, match="trained on pairs with a score"):
        evaluate(run, {"sentence1": scored["sentence1"], "sentence2": scored["sentence2"]})


def test_scores_of_any_range_are_learned_as_cosines_of_0_to_1(model_folder: Folder) -> None:
    """The loss is the squared distance to score / 5, which is what sentence-transformers' CosineSimilarityLoss is given."""
    import torch

    from tunesmith.data.encode import collate
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    scores = [0.0, 5.0, 3.8, 1.25]
    texts = [text for text, _ in rows(8)]
    table = _table(sentence1=texts[:4], sentence2=texts[4:], score=[(score,) for score in scores])
    task = Embedding(scored="cosine")
    labels = task.check(table, Columns("sentence1", "score", pair="sentence2"))
    backbone = load_backbone(resolve(str(model_folder("sentence"))))
    pairs = list(zip(texts[:4], texts[4:], strict=True))
    examples = task.encode(pairs, table.columns["score"], labels, backbone.text, 40)
    assert [example.target for example in examples] == [[score / 5] for score in scores]
    batch = collate(examples, backbone.text.pad)
    with torch.no_grad():
        output = task.head(backbone, labels, True, 1)(batch.inputs)  # [8, width]
        found = task.loss(output, batch)
    said = torch.nn.functional.cosine_similarity(output[:4], output[4:])
    wanted = (said - torch.tensor(scores) / 5).square().mean()
    assert float(found.total / found.weight) == pytest.approx(float(wanted), rel=1e-5)


def test_a_metric_of_other_rows_and_a_method_without_a_head_are_refused(model_folder: Folder, tmp_path: Path) -> None:
    data = {"anchor": [one for one, _ in PAIRS], "positive": [two for _, two in PAIRS]}
    with pytest.raises(RecipeError, match='no metric "spearman"'):
        _finished(data, model_folder("bert"), tmp_path / "one", **{"evaluation.metric": "spearman"})
    with pytest.raises(ModelError, match="no head to train"):
        _finished(data, model_folder("bert"), tmp_path / "two", method="head")


def test_a_model_of_classes_gives_no_vectors(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from shortruns import recipe_for

    list(start(recipe_for(model_folder("bert"), table_file, "head"), tmp_path / "run").events())
    with pytest.raises(DataError, match="--task embedding"):
        load(tmp_path / "run").encode(["a text"])


def test_ranks_take_the_memory_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(5)
    one, two = draw.normal(size=(2, 60, 4))
    ids = [(int(anchor), 100 + int(positive)) for anchor, positive in draw.integers(0, 40, (60, 2))]
    sizes = []

    def similarity(rows: range, places: Any) -> np.ndarray:
        sizes.append((len(rows), len(places)))
        return (one[rows.start : rows.stop] @ two[places].T).astype(np.float32)

    whole = _retrieval.rivals(ids, similarity)
    assert len(sizes) == 1, "the control: all at once"
    monkeypatch.setattr(_retrieval, "CHUNK", 7)
    monkeypatch.setattr(_retrieval, "BLOCK", 4)  # fewer than the ten that are kept
    sizes.clear()
    parts = _retrieval.rivals(ids, similarity)
    assert np.array_equal(whole, parts)
    assert max(rows for rows, _ in sizes) == 7 and max(places for _, places in sizes) == 4
