"""Language modelling: losses as transformers' own, packed rows as single ones, masks drawn as BERT's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import FAMILIES, WORDS
from tunesmith.data.encode import IGNORED, Example, collate
from tunesmith.data.packing import PAD, packed
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


def _gradients(network: Any) -> dict[str, Any]:
    found = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
    network.zero_grad()
    return found


def _agree(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    largest = max(float(value.abs().max()) for value in wanted.values())
    assert found.keys() == wanted.keys()
    assert max(float((found[name] - value).abs().max()) for name, value in wanted.items()) < 1e-5 * max(1.0, largest)


@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers_own_head(kind: str, model_folder: Callable[[str], Path]) -> None:
    """Over rows of unequal length, where a mean over rows would weigh the tokens otherwise."""
    import torch

    backbone, task = _backbone(kind, model_folder), _task(kind)
    network: Any = task.head(backbone, NONE, False, 1)
    batch = collate(_encoded(task, TEXTS, backbone), backbone.processor.pad)
    assert batch.target is not None
    found = task.loss(network(batch.inputs), batch)
    (found.total / found.weight).backward()
    ours = _gradients(network)
    real = batch.inputs["attention_mask"] == 1
    labels = batch.target
    if isinstance(
        task, CausalLm
    ):  # transformers moves the labels itself; each row is a window of its own, and its first is no target
        labels = torch.where(real, batch.inputs["input_ids"], IGNORED)
    wanted = network.model(**batch.inputs, labels=labels).loss
    wanted.backward()
    assert float(found.total.detach() / found.weight) == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert int(found.weight) == int((labels[:, 1:] if isinstance(task, CausalLm) else labels).ne(IGNORED).sum())
    _agree(ours, _gradients(network))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "deberta-v2"])
def test_packed_rows_learn_what_single_ones_do(kind: str, model_folder: Callable[[str], Path]) -> None:
    backbone, task = _backbone(kind, model_folder), _task(kind)
    network: Any = task.head(backbone, NONE, False, 1)
    rows = _encoded(task, TEXTS, backbone)
    windows = packed(rows, 40)
    assert len(windows) < len(rows)
    assert sorted(token for row in rows for token in row.inputs["input_ids"]) == sorted(
        token for window in windows for token in window.inputs["input_ids"]
    )
    single = collate(rows, backbone.processor.pad)
    wanted = task.loss(network(single.inputs), single)
    wanted.total.backward()
    apart = _gradients(network)
    together = collate(windows, {**backbone.processor.pad, **PAD})
    found = task.loss(network(together.inputs), together)
    found.total.backward()
    assert float(found.weight) == float(wanted.weight)
    assert float(found.total.detach()) == pytest.approx(float(wanted.total.detach()), rel=1e-5)
    _agree(_gradients(network), apart)
    seen = {name: value for name, value in together.inputs.items() if name not in PAD}
    joined = task.loss(network(seen), together)  # the control: the same tokens, with nothing that keeps them apart
    assert abs(float(joined.total.detach()) - float(wanted.total.detach())) > 1e-3


@pytest.mark.parametrize("text", [LONG, "money", ""])
@pytest.mark.parametrize("kind", DECODERS)
def test_every_token_but_the_first_is_learned_once(kind: str, text: str, model_folder: Callable[[str], Path]) -> None:
    backbone = _backbone(kind, model_folder)
    (ids,) = backbone.processor.bare([text])
    for limit in (4, 17, 40, 1000):
        rows = _encoded(CausalLm(), [text], backbone, limit)
        assert [token for row in rows for token in row.target if token != IGNORED] == ids[1:]
        assert all(row.length <= limit for row in rows)
        for row in rows:
            learned = [(at, token) for at, token in enumerate(row.target) if token != IGNORED]
            assert all(row.inputs["input_ids"][at] == token for at, token in learned)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_no_token_of_a_long_text_is_lost_to_windows(kind: str, model_folder: Callable[[str], Path]) -> None:
    backbone = _backbone(kind, model_folder)
    processor = backbone.processor
    (ids,) = processor.bare([LONG])
    rows = _encoded(MaskedLm(), [LONG], backbone, 17)
    whole = [_shown_before(row)[1:-1] for row in rows]
    assert [token for part in whole for token in part] == ids
    assert all(row.length <= 17 for row in rows)


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


def test_masks_depend_on_nothing_but_seed_epoch_and_row(model_folder: Callable[[str], Path]) -> None:
    backbone, task = _backbone("bert", model_folder), MaskedLm()
    processor = backbone.processor
    rows = _encoded(task, TEXTS, backbone)
    whole = task.varied(collate(rows, processor.pad), 3, 1, processor)
    assert whole.target is not None
    for row in rows:
        alone = task.varied(collate([row], processor.pad), 3, 1, processor)
        assert alone.target is not None
        assert alone.target[0].tolist() == whole.target[row.row, : row.length].tolist()
        assert alone.inputs["input_ids"][0].tolist() == whole.inputs["input_ids"][row.row, : row.length].tolist()
    again = task.varied(task.varied(collate(rows, processor.pad), 3, 0, processor), 3, 1, processor)
    assert again.inputs["input_ids"].tolist() == whole.inputs["input_ids"].tolist(), "the text is always found again"


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_figures_of_texts_are_those_of_their_tokens(kind: str, model_folder: Callable[[str], Path]) -> None:
    """Windows are put together text by text; perplexity counts each token alike, not each text."""
    import torch

    from tunesmith.evaluation.infer import infer

    backbone, task = _backbone(kind, model_folder), _task(kind)
    network: Any = task.head(backbone, NONE, False, 1)
    rows = _encoded(task, TEXTS, backbone)
    found, _ = infer(lambda batch: network(batch.inputs), task, rows, NONE, backbone.processor.pad, "cpu")
    assert [item.row for item in found] == list(range(len(TEXTS)))
    total, tokens = [0.0] * len(TEXTS), [0] * len(TEXTS)
    for row in rows:
        batch = collate([row], backbone.processor.pad)
        with torch.no_grad():
            loss = task.loss(network(batch.inputs), batch)
        total[row.source] += float(loss.total)
        tokens[row.source] += int(loss.weight)
    assert [item.counts[0] for item in found] == tokens
    assert [item.evidence[0] * item.counts[0] for item in found] == pytest.approx(total, rel=1e-5)
    scores = task.score(found, TEXTS, NONE)
    assert scores.value("perplexity") == pytest.approx(math.exp(sum(total) / sum(tokens)), rel=1e-5)
    if isinstance(task, CausalLm):
        size = sum(len(text.encode()) for text in TEXTS)
        assert scores.value("bits_per_byte") == pytest.approx(sum(total) / math.log(2) / size, rel=1e-5)
    assert scores.lower >= {"perplexity", "loss"}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "bert", "modernbert"])
def test_a_saved_model_opens_in_transformers(kind: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import torch
    import transformers

    from tunesmith.models.network import load_network

    backbone, task = _backbone(kind, model_folder), _task(kind)
    network: Any = task.head(backbone, NONE, False, 1)
    batch = collate(_encoded(task, TEXTS, backbone), backbone.processor.pad)
    assert "For" in network.save(tmp_path, (), 40)
    family: Any = transformers.AutoModelForCausalLM if isinstance(task, CausalLm) else transformers.AutoModelForMaskedLM
    with torch.no_grad():
        wanted = network(batch.inputs)
        assert torch.equal(family.from_pretrained(tmp_path).eval()(**batch.inputs).logits, wanted)
        assert torch.equal(load_network(tmp_path)[0](batch.inputs), wanted)


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
