"""Language modelling at its edges: special tokens, texts without a token, new tokens that nothing trains."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import WORDS
from tunesmith.data.encode import IGNORED, Example, collate
from tunesmith.errors import DataError
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.masked_lm import MaskedLm

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone

DECODERS = ("llama", "qwen3", "gpt2")
NONE = Labels((), ())
LONG = " ".join(WORDS)
TEXTS = [LONG, "the a of", "to and in is it you that", "money", "lost my bank card " * 6]


def _backbone(kind: str, model_folder: Callable[[str], Path]) -> Backbone:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(model_folder(kind))))


def _task(kind: str) -> LanguageTask:
    return CausalLm() if kind in DECODERS else MaskedLm()


def _encoded(task: LanguageTask, texts: list[str], backbone: Backbone, limit: int = 40) -> list[Example]:
    return task.encode(texts, texts, NONE, backbone.processor, limit)


def _shown_before(row: Example) -> list[int]:
    """The tokens of a row before any was hidden."""
    pairs = zip(row.inputs["input_ids"], row.target, strict=True)
    return [shown if token == IGNORED else token for shown, token in pairs]


def _shares(rows: list[tuple[list[int], list[int]]], ordinary: int, mask: int) -> tuple[float, float, float]:
    """Of (shown, target) rows: learned of all ordinary tokens, and of these shown as the mask and as they are."""
    learned = [(shown, token) for row in rows for shown, token in zip(*row, strict=True) if token != IGNORED]
    masks = sum(shown == mask for shown, _ in learned)
    return len(learned) / ordinary, masks / len(learned), sum(a == b for a, b in learned) / len(learned)


def test_masks_are_drawn_as_berts(model_folder: Callable[[str], Path]) -> None:
    """15 % of the tokens, of which 80 % as the mask, 10 % at random and 10 % as they are (Devlin 2019, section 3.1)."""
    backbone, task = _backbone("bert", model_folder), MaskedLm()
    processor = backbone.processor
    mixed = (*WORDS, "[SEP]", "[UNK]", "[MASK]")
    texts = [" ".join((*mixed[place:], *mixed[:place])) for place in range(len(mixed))]
    rows = _encoded(task, texts, backbone, 60)
    marks = set(processor.special_tokens)
    ordinary = sum(token not in marks for row in rows for token in _shown_before(row))
    fixed = [(row.inputs["input_ids"], row.target) for row in rows]
    assert fixed == [(row.inputs["input_ids"], row.target) for row in _encoded(task, texts, backbone, 60)]
    batch = collate(rows, processor.pad)
    drawn = []
    for epoch in (0, 1):
        varied = task.varied(batch, 3, epoch, processor)
        assert varied.target is not None
        drawn.append([*zip(varied.inputs["input_ids"].tolist(), varied.target.tolist(), strict=True)])
    for found in (fixed, *drawn):
        learned, masks, kept = _shares([(list(a), list(b)) for a, b in found], ordinary, processor.mask)
        assert learned == pytest.approx(0.15, abs=0.01)
        assert masks == pytest.approx(0.8, abs=0.03)
        assert kept == pytest.approx(0.1, abs=0.03)
        assert not marks & {token for _, target in found for token in target}, "no special token is ever learned"
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_texts_without_a_token_are_answered_with_nothing(kind: str, model_folder: Callable[[str], Path]) -> None:
    from tunesmith.predictor import Card, Predictor

    backbone, task = _backbone(kind, model_folder), _task(kind)
    network: Any = task.head(backbone, NONE, False, 1)
    predictor = Predictor(Path("."), network, Card(task, NONE, "text", None, "(text)", 40))
    for texts in ([""], ["", "the a of"], ["the a of", "", LONG]):
        said = predictor.predict(texts)
        assert len(said) == len(texts)
        assert all(value is None for value, text in zip(said, texts, strict=True) if not text)


def test_texts_without_a_learned_token_are_counted_and_spoil_no_figure(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """gpt2 learns each token from those before it, so that a text of one token teaches nothing."""
    import tunesmith

    texts = {
        "train": ["t", *[f"{word} bank {word} film" for word in WORDS[:23]]],
        "test": ["a", "a", "lost my card", "a"],
    }
    data = tmp_path / "data"
    data.mkdir()
    for split, some in texts.items():
        (data / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    task = {"name": "causal_lm", "packing": False}
    settings = {"training.epochs": 1, "training.batch_size": 1, "evaluation.resamples": 200, "data.validation": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        tunesmith.finetune(model_folder("gpt2"), data, task=task, settings=settings, out=tmp_path / "run")
        again = tunesmith.evaluate(tmp_path / "run", {"text": texts["test"]})
    told = (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8")
    assert "4 rows (train 1, test 3): the text holds no token that could be learned" in told
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    for name in ("perplexity", "loss", "bits_per_byte", "token_accuracy"):
        of = report["metrics"][name]
        assert of["low"] <= of["value"] <= of["high"]
    loss = [json.loads(line)["loss"] for line in told.splitlines() if json.loads(line)["kind"] == "step"]
    assert loss.count(0.0) == 1, "the step of that one text"
    alone = tunesmith.evaluate(tmp_path / "run", {"text": ["lost my card"]})
    assert again["metrics"]["loss"]["value"] == pytest.approx(alone["metrics"]["loss"]["value"], rel=1e-6)
    with pytest.raises(DataError, match="hold no token that could be learned"):
        tunesmith.evaluate(tmp_path / "run", {"text": ["a", "a"]})


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_a_learned_token_is_refused_before_training(
    split: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    import tunesmith

    long = [f"{word} bank {word} film" for word in WORDS[:23]]
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "test"):
        some = ["a", "t"] if name == split else long
        (data / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    with pytest.raises(DataError, match=f"the {split} rows hold no token that could be learned"):
        tunesmith.finetune(
            model_folder("gpt2"), data, task="causal_lm", settings={"data.validation": 0.0}, out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_new_tokens_that_nothing_would_train_are_refused(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    from tunesmith.errors import RecipeError
    from tunesmith.pipeline import start
    from tunesmith.recipe import Recipe
    from tunesmith.training.events import Note

    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "{word} banking {word} film"}}\n' for word in WORDS[:60]))
    for method, fits in (("lora", False), ("head", False), ("full", True)):
        given = {
            "model": str(model_folder("bert")),
            "data": {"path": str(tmp_path / "t.jsonl")},
            "task": {"name": "masked_lm", "new_tokens": ["banking"]},
            "method": method,
            "training": {"epochs": 1},
        }
        session = start(Recipe.parse(given), tmp_path / method)
        if fits:
            said = [line for event in session.events() if isinstance(event, Note) for line in event.lines]
            assert any(line.startswith("1 words made tokens") for line in said), "the run ends well"
            assert any("its checkpoint lacks the head" in line for line in said)
            rivals = json.loads((tmp_path / method / "report.json").read_text(encoding="utf-8"))["baselines"]
            assert [rival["name"] for rival in rivals] == ["frequent_token"], "a random head is no rival"
            continue
        with pytest.raises(RecipeError, match="new tokens would stay the mean"):
            list(session.events())
        assert not (tmp_path / method).exists()


def test_inputs_of_packed_rows_have_one_name() -> None:
    from tunesmith.data import packing
    from tunesmith.models import segments

    assert (segments.SEGMENTS, segments.POSITIONS) == (packing.SEGMENTS, packing.POSITIONS)
