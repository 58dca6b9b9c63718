"""The form of attention follows the mode, and its masks follow the form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from families import FAMILIES
from tunesmith.models.attention import FUSED, PLAIN, RATES, suit_attention
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
        (HALF, 0.1, True, PLAIN),
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
    assert form_of(body, not training) in (PLAIN, FUSED)
    assert form_of(body, training) == form  # it comes back
    assert "attn" not in str(body.config.to_dict())  # and nothing of it is saved


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
