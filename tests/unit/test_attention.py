"""The form of attention follows the mode, and its masks follow the form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.bert.modeling_bert import eager_attention_forward

from families import FAMILIES
from tunesmith.models.attention import DRAWN, FUSED, PLAIN, RATES, _attend, suit_attention
from tunesmith.models.dropout import kept
from tunesmith.models.resolve import resolve

HALF = torch.bfloat16
PADDED = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
}


def body_of(folder: Path, dtype: torch.dtype, rate: float, form: str | None = None) -> PreTrainedModel:
    body = AutoModel.from_pretrained(resolve(str(folder)).folder, dtype=dtype, attn_implementation=form)
    for name in RATES:
        if name in body.config.to_dict():
            setattr(body.config, name, rate)
    for module in body.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
    return body


def form_of(body: PreTrainedModel, training: bool) -> str:
    body.train(training)
    suit_attention(body, training)
    return str(body.config._attn_implementation)


@pytest.mark.parametrize(
    ("dtype", "rate", "training", "form"),
    [
        (HALF, 0.1, True, DRAWN),
        (HALF, 0.1, False, FUSED),
        (HALF, 0.0, True, FUSED),
        (torch.float32, 0.1, True, FUSED),
    ],
)
def test_the_plain_form_is_for_dropout_in_bfloat16(
    tmp_path: Path, dtype: torch.dtype, rate: float, training: bool, form: str
) -> None:
    body = body_of(FAMILIES["bert"](tmp_path), dtype, rate)
    assert form_of(body, training) == form
    assert form_of(body, not training) in (DRAWN, FUSED)
    assert form_of(body, training) == form  # it comes back
    assert "attn" not in str(body.config.to_dict())  # and nothing of it is saved


def test_a_family_with_another_plain_form_keeps_it(tmp_path: Path) -> None:
    """Llama's softmax is in float32, and its keys are repeated."""
    assert form_of(body_of(FAMILIES["llama"](tmp_path), HALF, 0.1), True) == PLAIN


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_without_dropout_it_is_bert_s_own(masked: bool, scaling: float | None) -> None:
    draw = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=draw) for _ in range(3))
    mask = torch.zeros(2, 1, 1, 7).masked_fill(torch.rand(2, 1, 1, 7, generator=draw) < 0.3, -1e4) if masked else None
    module = torch.nn.Module().train()
    both = [form(module, query, key, value, mask, scaling, 0.0) for form in (_attend, eager_attention_forward)]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_is_dropped_is_drawn_as_by_other_dropouts() -> None:
    query = torch.randn(2, 3, 7, 4)
    module = torch.nn.Module().train()
    _, whole = _attend(module.eval(), query, query, query, None, None, 0.5)
    torch.manual_seed(8)
    found, weights = _attend(module.train(), query, query, query, None, None, 0.5)
    torch.manual_seed(8)
    wanted = whole * kept(whole, 0.5)
    torch.testing.assert_close(weights, wanted, rtol=0, atol=0)
    torch.testing.assert_close(found, (wanted @ query).transpose(1, 2))
    assert not torch.equal(weights, whole)


@pytest.mark.parametrize("family", [*FAMILIES])
def test_after_a_change_the_numbers_are_those_of_the_form(family: str, tmp_path: Path) -> None:
    """Masks too: padding stays unseen. The other bodies never change their form."""
    folder = FAMILIES[family](tmp_path)
    body = body_of(folder, HALF, 0.1)
    for training in (True, False, True):
        form = form_of(body, training)
        alike = body_of(folder, HALF, 0.1, form).train(training)
        torch.testing.assert_close(_states(body), _states(alike), rtol=0, atol=0)


def _states(body: PreTrainedModel) -> torch.Tensor:
    torch.manual_seed(3)
    told = {"decoder_input_ids": PADDED["input_ids"]} if body.config.is_encoder_decoder else {}
    with torch.no_grad():
        return body(**PADDED, **told).last_hidden_state
