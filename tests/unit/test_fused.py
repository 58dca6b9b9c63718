"""The fused forward: what the model's own gives, used only where it is proven, and never of weights that have moved."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from families import FAMILIES
from shortruns import recipe_for, rows, write_rows
from tunesmith import load
from tunesmith.data.encode import Example, collate
from tunesmith.models import fused, network
from tunesmith.models.backbone import load_backbone
from tunesmith.models.fused import FusedEncoder, KeptForward, _Attention, _blocks, fused_forward
from tunesmith.models.network import PooledNetwork, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start
from tunesmith.training.trunk import pooled_features

Folder = Callable[[str], Path]
LABELS = ("a", "b", "c")
MANY = 1_000  # rows


def _has(dtype: torch.dtype) -> bool:
    """Whether this torch, on this processor, multiplies so."""
    try:
        fused._Map.of(nn.Linear(32, 32).to(dtype))(torch.ones(4, 32, dtype=dtype))
    except (AttributeError, RuntimeError):
        return False
    return True


in_float32 = pytest.mark.skipif(not _has(torch.float32), reason="torch was built without oneDNN")
in_bfloat16 = pytest.mark.skipif(not _has(torch.bfloat16), reason="a processor without AVX-512")
TEXTS = ["the good bank lost my card", "a great film " * 4, "no", "x y z"]


def encoder(folder: Path, dtype: torch.dtype = torch.bfloat16) -> PooledNetwork:
    made = sequence_network(load_backbone(resolve(str(folder))), LABELS, "single_label_classification", False, 0)
    assert isinstance(made, PooledNetwork)
    with torch.no_grad():  # weights of some size, so that a layer left out shows
        for name, value in made.body.named_parameters():
            if value.dim() == 2 and "embeddings" not in name:
                value.mul_(4)
    made.eval().to(dtype)
    return made


def batch_of(made: PooledNetwork, texts: list[str] = TEXTS) -> dict[str, Tensor]:
    encoded = made.processor.encode_all(texts, 32)
    return collate([Example(i, x, None, cut) for i, (x, cut) in enumerate(encoded)], made.processor.pad).inputs


def real(hidden: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    return hidden[inputs["attention_mask"].bool()].float()


@in_float32
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], [TEXTS[0]] * 3], ids=["filled up", "one", "alike"])
def test_in_float32_it_is_the_model_s_own_forward(texts: list[str], model_folder: Folder) -> None:
    made = encoder(model_folder("sentence"), torch.float32)
    inputs = batch_of(made, texts)
    with torch.inference_mode():
        here, there = FusedEncoder(made.body)(inputs), made.body(**inputs).last_hidden_state
    torch.testing.assert_close(real(here, inputs), real(there, inputs), rtol=1e-4, atol=1e-5)


@in_float32
@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 70), rows=st.integers(1, 9), filler=st.booleans(), seed=st.integers(0, 9))
def test_attention_in_blocks_is_attention_of_each_row(tokens: int, rows: int, filler: bool, seed: int) -> None:
    torch.manual_seed(seed)
    there = torch.ones(rows, tokens, dtype=torch.bool)
    if filler:
        there = torch.arange(tokens)[None] < torch.randint(1, tokens + 1, (rows, 1))
    attend = _Attention(there, 2, torch.empty(rows, tokens, 8))
    for _ in range(2):  # as in two layers: nothing of the first is left behind
        parts = torch.randn(rows * tokens, 24)
        query, key, value = (
            part.unflatten(-1, (2, 4)).transpose(1, 2) for part in parts.view(rows, tokens, 24).chunk(3, dim=-1)
        )
        scores = (query @ key.transpose(2, 3) / 2).masked_fill(~there[:, None, None], float("-inf"))
        wanted = (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows * tokens, 8)
        torch.testing.assert_close(attend(parts), wanted, rtol=1e-4, atol=1e-5)


def test_short_rows_stand_side_by_side_and_nearly_full_blocks_are_filled_up() -> None:
    assert [_blocks(tokens) for tokens in (1, 8, 13, 15)] == [(32, 32), (4, 32), (2, 32), (2, 32)]
    assert [_blocks(tokens) for tokens in (16, 24, 25, 28, 32)] == [(1, 16), (1, 32), (1, 32), (1, 32), (1, 32)]
    assert [_blocks(tokens) for tokens in (44, 50, 57, 64, 127, 512)] == [
        (1, 48), (1, 50), (1, 64), (1, 64), (1, 127), (1, 512)
    ]  # fmt: skip


@in_float32
def test_of_roberta_too(tmp_path: Path) -> None:
    body = load_backbone(resolve(str(FAMILIES["roberta"](tmp_path)))).module.eval()
    inputs = {"input_ids": torch.tensor([[0, 9, 7, 2, 1], [0, 8, 5, 6, 2]]), "attention_mask": torch.ones(2, 5).long()}
    inputs["attention_mask"][0, 4] = 0
    with torch.inference_mode():
        here, there = FusedEncoder(body)(inputs), body(**inputs).last_hidden_state
    torch.testing.assert_close(real(here, inputs), real(there, inputs), rtol=1e-4, atol=1e-5)


@in_bfloat16
def test_it_is_used_in_bfloat16_alone_and_gives_the_same_up_to_rounding(model_folder: Folder) -> None:
    exact, made = encoder(model_folder("sentence"), torch.float32), encoder(model_folder("sentence"))
    inputs = batch_of(made)
    assert fused_forward(exact.body, inputs) is None, "float32 is for who wants the model's own figures"
    with torch.inference_mode():
        truth, own = exact.features(inputs), made.features(inputs).float()
        with made.fused(inputs, MANY):
            assert made._fused is not None
            found = made.features(inputs).float()
        with made.fused(inputs, 10):
            assert made._fused is None, "of few rows that is no gain"
        assert torch.equal(made.features(inputs).float(), own)
    assert (found - truth).norm() <= 1.5 * (own - truth).norm(), "no further from float32 than the model's own forward"


@in_bfloat16
def test_training_takes_the_model_s_own_forward(model_folder: Folder) -> None:
    made = encoder(model_folder("sentence"))
    inputs = batch_of(made)
    with made.fused(inputs, MANY):
        made.train()
        made.features(inputs).float().sum().backward()
    assert made.body.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


@in_bfloat16
def test_what_is_attached_while_it_is_in_use_is_not_gone_around(model_folder: Folder) -> None:
    made = encoder(model_folder("sentence"))
    inputs, seen = batch_of(made), list[int]()
    with torch.inference_mode():
        own = made.features(inputs)
        with made.fused(inputs, MANY):
            assert not torch.equal(made.features(inputs), own), "the control: it is in use"
            made.body.encoder.layer[0].register_forward_hook(lambda module, given, output: seen.append(1))
            assert torch.equal(made.features(inputs), own) and seen == [1]


@in_bfloat16
def test_control_a_forward_that_is_not_the_same_is_not_used(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder(model_folder("sentence"))
    inputs = batch_of(made)
    assert fused_forward(made.body, inputs) is not None
    live = fused._layer

    def careless(block: nn.Module) -> fused._Layer:
        layer = live(block)
        return fused._Layer(
            layer.split, layer.joined, layer.second_norm, fused._Map(layer.wide.weight, layer.wide.bias + 1),
            layer.narrow, layer.first_norm,
        )  # fmt: skip

    monkeypatch.setattr(fused, "_layer", careless)
    assert fused_forward(made.body, inputs) is None


@in_bfloat16
def test_there_is_none_where_something_is_attached_or_the_layers_are_others(model_folder: Folder) -> None:
    made = encoder(model_folder("sentence"))
    inputs = batch_of(made)
    assert fused_forward(made.body, inputs) is not None
    handle = made.body.encoder.layer[0].register_forward_hook(lambda module, given, output: None)
    assert fused_forward(made.body, inputs) is None
    handle.remove()
    made.body.encoder.layer[1].intermediate.dense = nn.Sequential(made.body.encoder.layer[1].intermediate.dense)
    assert fused_forward(made.body, inputs) is None
    other = load_backbone(resolve(str(model_folder("distilbert")))).module.eval().to(torch.bfloat16)
    assert fused_forward(other, {name: inputs[name] for name in ("input_ids", "attention_mask")}) is None


@in_bfloat16
def test_features_of_many_rows_take_it_and_leave_nothing_behind(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder(model_folder("sentence"))
    encoded = made.processor.encode_all(TEXTS * 5, 32)
    examples = [Example(i, x, None, cut) for i, (x, cut) in enumerate(encoded)]
    plain, tried = pooled_features(made, examples, made.processor.pad), []
    live = network.fused_forward
    monkeypatch.setattr(network, "fused_forward", lambda body, inputs: tried.append(1) or live(body, inputs))
    monkeypatch.setattr(network, "WORTH_FUSING", 20)
    found = pooled_features(made, examples, made.processor.pad)
    assert tried == [1] and made._fused is None
    assert not torch.equal(found, plain)
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.05)
    with torch.no_grad():  # what has moved meanwhile is read anew
        made.body.encoder.layer[0].output.dense.weight.mul_(-1)
    again = pooled_features(made, examples, made.processor.pad)
    assert (again - found).abs().max() > 0.1


@in_bfloat16
def test_what_is_kept_is_left_where_something_has_changed(model_folder: Folder) -> None:
    made = encoder(model_folder("sentence"))
    inputs, kept = batch_of(made), KeptForward()

    def have(rows: int) -> FusedEncoder | None:
        return kept.of(made.body, inputs, rows, 10)

    assert have(9) is None
    first = have(1)
    assert first is not None and have(1) is first
    with torch.no_grad():
        made.body.encoder.layer[0].output.dense.weight.mul_(-1)
    assert have(9) is None
    second = have(1)
    assert second is not None and second is not first
    made.body.encoder.layer[0].output.dense.weight = nn.Parameter(
        made.body.encoder.layer[0].output.dense.weight.clone()
    )
    assert have(9) is None and have(1) is not None
    handle = made.body.encoder.layer[0].register_forward_hook(lambda module, given, output: None)
    assert have(20) is None, "nothing goes around a hook"
    handle.remove()
    assert have(10) is not None
    assert pickle.loads(pickle.dumps(kept)).of(made.body, inputs, 9, 10) is None


@in_bfloat16
def test_a_predictor_keeps_it_from_when_it_is_worth_it_on(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.training.precision.bfloat16_gain", lambda device, width: 2.0)
    recipe = recipe_for(
        model_folder("sentence"), write_rows(tmp_path / "rows.csv", 120), "full", {"training.precision": "bfloat16"}
    )
    list(start(recipe, tmp_path / "run").events())
    model, texts = load(tmp_path / "run"), [text for text, _ in rows(30)]
    before = model.predict_proba(texts)
    used, live = [], FusedEncoder.__call__
    monkeypatch.setattr(FusedEncoder, "__call__", lambda self, inputs: used.append(1) or live(self, inputs))
    monkeypatch.setattr(network, "WORTH_FUSING", 20)
    many = model.predict_proba(texts)
    assert used and not (many == before).all() and abs(many - before).max() < 0.02
    used.clear()
    alone = model.predict_proba(texts[:1])
    assert used and abs(alone - many[:1]).max() < 0.02, "a single text has it then too"
    used.clear()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert abs(again.predict_proba(texts[:1]) - alone).max() < 0.02 and not used, "a copy begins anew"
    with torch.no_grad():
        for value in model.network.body.encoder.parameters():
            value.mul_(-1)
    assert abs(model.predict_proba(texts) - many).max() > 0.02, "weights that have moved are read anew"
