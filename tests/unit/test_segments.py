"""Packed texts: hidden states as if each stood alone, for every family that can; each with the control that it matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WINDOW = 16  # tokens that the local layers of LOCAL see
LOCAL = ("gemma3", "modernbert")
DECODERS = ("llama", "qwen3", "gpt2", "gemma3")
SIZES = (40, 3, 1, 25)  # of the texts: longer and shorter than a local window, and a single token


def _local(kind: str) -> PreTrainedModel:
    """A tiny random model in which most layers see only near tokens."""
    import torch
    import transformers as t

    plain: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 100,
        "max_position_embeddings": 128, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    config: Any = (
        t.Gemma3TextConfig(
            **plain, num_key_value_heads=2, head_dim=8, sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        )
        if kind == "gemma3"
        else t.ModernBertConfig(**{**plain, "local_attention": WINDOW, "cls_token_id": 0, "sep_token_id": 2})
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = t.AutoModel.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _body(kind: str, model_folder: Callable[[str], Path]) -> PreTrainedModel:
    from transformers import AutoModel

    return AutoModel.from_pretrained(model_folder(kind)).eval()


def _texts(body: PreTrainedModel) -> list[list[int]]:
    return [[5 + (place * 7 + size * 3) % 60 for place in range(size)] for size in SIZES]


def _packed(texts: list[list[int]], filler: int) -> tuple[Tensor, Tensor, Tensor]:
    """One row of all texts and three fillers: tokens, segments, places."""
    import torch

    ids = [token for text in texts for token in text] + [filler] * 3
    segments = [number for number, text in enumerate(texts, 1) for _ in text] + [0] * 3
    places = [place for text in texts for place in range(len(text))] + [0] * 3
    return torch.tensor([ids]), torch.tensor([segments]), torch.tensor([places])


def _differences(body: PreTrainedModel, causal: bool) -> tuple[float, float]:
    """Largest difference of a hidden state from the text alone: kept apart, and (the control) simply joined."""
    import torch

    from tunesmith.models.segments import apart

    texts = _texts(body)
    ids, segments, places = _packed(texts, 1)
    with torch.no_grad():
        alone = torch.cat([body(input_ids=torch.tensor([text])).last_hidden_state[0] for text in texts])
        together = body(input_ids=ids, **apart(body, causal, segments, places)).last_hidden_state[0]
        joined = body(input_ids=ids, attention_mask=(segments > 0).long()).last_hidden_state[0]
    assert together.isfinite().all(), "filler has something to see, so it is finite and spoils no gradient"
    size = len(alone)
    return float((together[:size] - alone).abs().max()), float((joined[:size] - alone).abs().max())


PACKING = [name for name in FAMILIES if name not in ("deberta-v2", "t5", "bart")]  # the last two are encoder-decoders


@pytest.mark.parametrize("kind", [*PACKING, *(f"{kind}, local" for kind in LOCAL)])
def test_each_text_is_read_as_if_it_stood_alone(kind: str, model_folder: Callable[[str], Path]) -> None:
    from tunesmith.models.segments import keeps_apart

    name = kind.partition(",")[0]
    body = _local(name) if kind != name else _body(name, model_folder)
    causal = name in DECODERS
    kept, joined = _differences(body, causal)
    assert kept < 1e-5
    assert joined > 1e-2, "the control: without it the texts do see each other"
    assert keeps_apart(body, causal, list(range(5, 65)), 60)


@pytest.mark.parametrize("kind", ["bert", "llama", "gemma3"])
def test_eager_attention_takes_the_same_masks(kind: str, model_folder: Callable[[str], Path]) -> None:
    body = _local(kind) if kind in LOCAL else _body(kind, model_folder)
    body.set_attn_implementation("eager")
    assert _differences(body, kind in DECODERS)[0] < 1e-5


def test_a_convolution_over_the_border_is_found_out(model_folder: Callable[[str], Path]) -> None:
    from tunesmith.models.segments import keeps_apart

    assert not keeps_apart(_body("deberta-v2", model_folder), False, list(range(5, 65)), 60)


@pytest.mark.parametrize("kind", LOCAL)
def test_a_mask_that_forgets_local_layers_is_found_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one 4-D mask for all layers short texts agree and long ones do not: the trial must be long enough to see it."""
    import torch

    from tunesmith.models import segments as module

    body, causal = _local(kind), kind in DECODERS

    def one_mask(body: PreTrainedModel, causal: bool, segments: Tensor, places: Tensor) -> dict[str, Any]:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        same = same & torch.ones(same.shape[-2:], dtype=torch.bool).tril() if causal else same
        mask = torch.zeros(same.shape).masked_fill(~same, torch.finfo(torch.float32).min)
        return {"attention_mask": mask} | ({"position_ids": places} if causal else {})

    monkeypatch.setattr(module, "apart", one_mask)
    assert module.keeps_apart(body, causal, list(range(5, 65)), 12), "too short to see it"
    assert not module.keeps_apart(body, causal, list(range(5, 65)), 60)


def test_gradients_are_those_of_the_texts_alone(model_folder: Callable[[str], Path]) -> None:
    import torch

    from tunesmith.models.segments import apart

    for kind in ("bert", "llama"):
        body = _body(kind, model_folder)
        texts = _texts(body)
        ids, segments, places = _packed(texts, 1)
        weight = torch.linspace(-1, 1, 32)
        parts = [body(input_ids=torch.tensor([text])).last_hidden_state[0] for text in texts]
        (torch.cat(parts).tanh() @ weight).sum().backward()
        wanted = {name: value.grad.clone() for name, value in body.named_parameters() if value.grad is not None}
        body.zero_grad()
        found = body(input_ids=ids, **apart(body, kind in DECODERS, segments, places)).last_hidden_state[0]
        (found[: sum(SIZES)].tanh() @ weight).sum().backward()
        for name, value in wanted.items():
            grad = body.get_parameter(name).grad
            assert grad is not None
            assert torch.allclose(grad, value, atol=1e-4 * max(1.0, float(value.abs().max()))), (kind, name)
