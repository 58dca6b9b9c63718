"""The form of attention follows the mode, and its masks follow the form."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, PreTrainedModel

from families import FAMILIES
from tunesmith.models import attention
from tunesmith.models.attention import ALIKE, FUSED, OWN, PLAIN, RATES, _attend, dropped, suit_attention
from tunesmith.models.dropout import chosen
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
        (HALF, 0.1, True, OWN),
        (HALF, 0.1, False, FUSED),
        (HALF, 0.0, True, OWN),
        (torch.float32, 0.1, True, FUSED),
    ],
)
def test_the_own_form_is_for_steps_in_bfloat16(
    tmp_path: Path, dtype: torch.dtype, rate: float, training: bool, form: str
) -> None:
    body = body_of(FAMILIES["bert"](tmp_path), dtype, rate)
    assert form_of(body, training) == form
    assert form_of(body, not training) in (OWN, FUSED)
    assert form_of(body, training) == form  # it comes back
    assert "attn" not in str(body.config.to_dict())  # and nothing of it is saved


def test_a_family_with_another_plain_form_keeps_it(tmp_path: Path) -> None:
    """MPNet's scores have a bias by distance."""
    folder = FAMILIES["mpnet"](tmp_path)
    assert form_of(body_of(folder, HALF, 0.1), True) == PLAIN


class Attending(torch.nn.Module):
    """What a form of attention reads of the module that calls it, in training."""

    def __init__(self, groups: int = 1, causal: bool = False) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = causal


def eager(family: str) -> Any:
    return import_module(f"transformers.models.{family}.modeling_{family}").eager_attention_forward


def given_to(
    heads: int, keys_of: int, tokens: int, seed: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Query, key and value as a projection gives them: by token, then by head."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(3, tokens, count, 8) for count in (heads, keys_of, keys_of)]
    return [torch.randn(shape, generator=draw).to(dtype).transpose(1, 2) for shape in shapes]


def masks(kind: str, tokens: int) -> torch.Tensor | None:
    least = torch.finfo(torch.float32).min
    if kind == "none":
        return None
    if kind == "causal":
        return torch.full((tokens, tokens), least).triu(1).expand(3, 1, tokens, tokens)
    return torch.zeros(3, 1, 1, tokens).index_fill(3, torch.tensor([tokens - 1]), least)


@pytest.mark.parametrize(("family", "groups"), [*((family, 1) for family in ALIKE), ("llama", 2)])
@pytest.mark.parametrize("kind", ["none", "filler", "causal"])
@pytest.mark.parametrize("tokens", [7, 40])
def test_without_dropout_it_is_the_family_s_own(family: str, groups: int, kind: str, tokens: int) -> None:
    """Llama's keys may stand for several heads."""
    module = Attending(groups)
    mask, weigh = masks(kind, tokens), torch.randn(3, tokens, 4, 8)
    results = []
    for form in (_attend, eager(family)):
        parts = [part.requires_grad_() for part in given_to(4, 4 // groups, tokens, 5)]
        found, _ = form(module, *parts, mask, scaling=0.3, dropout=0.0)
        results.append((found, *torch.autograd.grad((found * weigh).sum(), parts)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(deadline=None, max_examples=25)
@given(
    tokens=st.integers(1, 40),
    heads=st.integers(1, 5),
    near=st.sampled_from([1, 300, 1 << 19]),
    rate=st.sampled_from([0.0, 0.4]),
)
def test_heads_that_go_together_give_what_all_at_once_give(tokens: int, heads: int, near: int, rate: float) -> None:
    """Written out with the same draws, and differentiated by torch."""
    module, weigh = Attending(), torch.randn(3, tokens, heads, 8)
    mask = masks("filler", tokens) if tokens > 1 else None
    parts = [part.requires_grad_() for part in given_to(heads, heads, tokens, tokens)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "NEAR", near)
        torch.manual_seed(8)
        found, _ = _attend(module, *parts, mask, None, rate)
        slices = list(attention._parts(3, heads, tokens * tokens))
    own = torch.autograd.grad((found * weigh).sum(), parts)
    torch.manual_seed(8)
    there = torch.cat([chosen(torch.empty(part.stop - part.start, tokens, tokens), rate) for part in slices])
    query, key, value = parts
    scores = query @ key.transpose(2, 3) * 8**-0.5
    weights = (scores if mask is None else scores + mask).softmax(-1)
    if rate > 0:
        weights = weights * there.view_as(weights) / (1 - rate)
    wanted = (weights @ value).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(own, torch.autograd.grad((wanted * weigh).sum(), parts), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("tokens", [17, 50])
def test_in_bfloat16_it_is_as_near_to_float32_as_the_family_s_own(tokens: int) -> None:
    module, weigh = Attending(), torch.randn(3, tokens, 4, 8)

    def errors(form: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        parts = [part.to(dtype).requires_grad_() for part in given_to(4, 4, tokens, 5, HALF)]
        found, _ = form(module, *parts, masks("filler", tokens), scaling=0.3, dropout=0.0)
        return [found, *torch.autograd.grad((found * weigh.to(dtype)).sum(), parts)]

    exact = errors(eager("llama"), torch.float32)
    for true, ours, theirs in zip(exact, errors(_attend, HALF), errors(eager("llama"), HALF), strict=True):
        assert (ours.float() - true).norm() <= 1.2 * (theirs.float() - true).norm()


@pytest.mark.parametrize("most", [512, 6])
def test_masks_are_read_as_by_the_fused_form(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """None where the module is causal, or is said to be; of bools, one row for all or one for each."""
    monkeypatch.setattr(attention, "WHOLE_KEYS", most)
    parts, least = given_to(2, 2, 7, 3), torch.finfo(torch.float32).min
    causal, filler = masks("causal", 7), masks("filler", 7)
    assert causal is not None and filler is not None
    for module, mask, said, alike in (
        (Attending(causal=True), None, None, causal),
        (Attending(), None, True, causal),
        (Attending(causal=True), None, False, None),
        (Attending(causal=True), filler > least, None, filler),
        (Attending(), causal > least, None, causal),
        (Attending(), causal, None, causal),
    ):
        found, weights = _attend(module, *parts, mask, None, 0.0, said)
        wanted, _ = eager("bert")(module, *parts, alike, None, 0.0)
        torch.testing.assert_close(found, wanted)
        assert weights is None


@pytest.mark.parametrize("rate", [1.0, 0.999999])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_where_all_is_dropped_nothing_is_attended_to(dtype: torch.dtype, rate: float) -> None:
    """As by torch's own form."""
    query, key, value = (torch.randn(2, 2, 5, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    found, _ = _attend(Attending().train(), query, key, value, None, dropout=rate)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert all(part.grad is not None and not part.grad.any() for part in (query, key, value))


def test_the_rate_of_every_family_s_attention_is_read(tmp_path: Path) -> None:
    found = [
        dropped(transformers.AutoConfig.for_model(family, **{name: 0.3}))
        for family, name in (("bert", RATES[0]), ("llama", RATES[1]), ("gpt2", RATES[2]))
    ]
    assert found == [0.3] * 3


def test_a_family_that_asks_for_a_form_by_name_is_not_known() -> None:
    """Sparse attention is not in the plain form: these families mask by themselves, for forms that they name."""
    models = Path(transformers.__file__).parent / "models"
    assert attention._known_source(models / "llama" / "modeling_llama.py")
    sparse = models / "deepseek_v32" / "modeling_deepseek_v32.py"
    assert attention._steps(sparse) == attention._steps(models / "llama" / "modeling_llama.py"), "the control"
    assert not attention._known_source(sparse)


def test_a_tensor_that_nothing_is_known_of_is_refused() -> None:
    parts = given_to(2, 2, 7, 3)
    _attend(Attending(), *parts, None, position_ids=torch.arange(7), cache=None, use_cache=False)
    with pytest.raises(TypeError, match="indices"):
        _attend(Attending(), *parts, None, indices=torch.arange(7))


def test_many_keys_are_left_to_the_fused_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout, in the training mode too."""
    parts = given_to(2, 2, 12, 1)
    whole, _ = _attend(Attending(), *parts, None, None, 0.0)
    monkeypatch.setattr(attention, "WHOLE_KEYS", 11)
    monkeypatch.setattr(attention._Attention, "apply", None)
    found, _ = _attend(Attending(), *parts, None, None, 0.0)
    torch.testing.assert_close(found, whole)
    with pytest.raises(TypeError):
        _attend(Attending(), *parts, None, None, 0.5)


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
