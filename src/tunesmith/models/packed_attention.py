"""Attention over packed rows by a kernel that is told where each text ends, so that pairs across texts are never computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.models.attention import FUSED, dropped, known
from tunesmith.models.backbone import quiet
from tunesmith.models.segments import CUTS, PACKED, apart, keeps_apart, window

DEVICE, DTYPES = "cuda", (torch.bfloat16, torch.float16)  # that the kernels are made for
# (query, key, value: each [tokens, heads, numbers], cuts: [texts + 1], tokens of the longest text at most, scale) ->
# [tokens, heads, numbers]
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]


@cache
def kernel() -> Kernel | None:
    """FlashAttention for texts of any lengths (Dao 2023, "FlashAttention-2"): torch's own, else that of flash_attn."""
    try:
        from torch.nn.attention.varlen import varlen_attn

        if {"window_size", "enable_gqa", "scale"} <= inspect.signature(
            varlen_attn
        ).parameters.keys():  # from torch 2.11 on

            def own(query: Tensor, key: Tensor, value: Tensor, cuts: Tensor, longest: int, scale: float) -> Tensor:
                found = varlen_attn(
                    query, key, value, cuts, cuts, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=True
                )
                assert isinstance(found, Tensor)
                return found

            return own
    except ImportError:
        pass
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None

    def installed(query: Tensor, key: Tensor, value: Tensor, cuts: Tensor, longest: int, scale: float) -> Tensor:
        return flash_attn_varlen_func(query, key, value, cuts, cuts, longest, longest, softmax_scale=scale, causal=True)

    return installed


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """transformers' fused attention; where the mask is of integers, these are `cuts`: see `segments.apart`.

    query: [rows, heads, tokens, numbers of a head], key and value of as many heads or of a part of them. Gives [rows, tokens,
    heads, numbers of a head].
    """
    rate = dropout if module.training else 0.0
    if attention_mask is None or attention_mask.dtype != CUTS:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=rate, scaling=scaling, is_causal=is_causal, **further
        )
        return found, None
    cuts, rows, tokens = attention_mask.flatten(), query.shape[0], query.shape[2]
    by_kernel = kernel() if query.dtype in DTYPES and query.device.type == DEVICE and rate == 0 else None
    if by_kernel is None:
        mask = _pairs(cuts, rows, tokens)
        return sdpa_attention_forward(module, query, key, value, mask, dropout=rate, scaling=scaling, is_causal=False)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    query, key, value = (part.transpose(1, 2).flatten(0, 1).contiguous() for part in (query, key, value))
    return by_kernel(query, key, value, cuts, tokens, scale).unflatten(0, (rows, tokens)), None


def _pairs(cuts: Tensor, rows: int, tokens: int) -> Tensor:
    """[rows, 1, tokens, tokens] which tokens see which."""
    places = torch.arange(rows * tokens, dtype=cuts.dtype, device=cuts.device)
    texts = torch.bucketize(places, cuts, right=True).view(rows, 1, tokens)
    return (texts[..., None] == texts[..., None, :]) & places[:tokens, None].ge(places[:tokens])


def put_on(body: PreTrainedModel) -> bool:
    """Gives the body this form of attention; whether it took it. To rows that are not packed it is the fused one."""
    AttentionInterface.register(PACKED, _attend)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    with quiet():
        body.set_attn_implementation(PACKED)
    return body.config._attn_implementation == PACKED


def take_off(body: PreTrainedModel) -> None:
    with quiet():
        body.set_attn_implementation(FUSED)


def use_packed(body: PreTrainedModel, tokens: list[int], limit: int) -> str:
    """Gives the body this form where it computes the same by it, tried forward and backward; else says why not.

    tokens: ordinary token numbers to try it on; limit: tokens of a window.
    """
    if body.device.type != DEVICE or body.dtype not in DTYPES:
        return "the kernel is for a GPU and bfloat16"
    if kernel() is None:
        return "it takes torch 2.11, or the package flash_attn"
    if body.config._attn_implementation != FUSED or window(body) is not None or not known(body):
        return "this base's attention is more than the kernel knows"
    if dropped(body.config) > 0:
        return "the kernel drops nothing, and this base's attention does in training"
    if not put_on(body):
        return "this base takes no other form of attention"
    why_not = _tried(body, tokens, limit)
    if why_not:
        take_off(body)
    return why_not


def _tried(body: PreTrainedModel, tokens: list[int], limit: int) -> str:
    try:
        if not keeps_apart(body, True, tokens, limit):
            return "it gave other numbers than the usual form"
        ids = torch.tensor([tokens[:2] * 8], device=body.device)
        segments = torch.arange(16, device=body.device)[None] // 5 + 1
        hidden = body(input_ids=ids, **apart(body, True, segments, segments * 0)).last_hidden_state
        weight = next(value for value in body.parameters() if value.requires_grad)
        (gradient,) = torch.autograd.grad(hidden.float().square().sum(), [weight], allow_unused=True)
        whole = gradient is None or bool(gradient.isfinite().all())
        return "" if whole else "its gradients are not finite"
    except (
        RuntimeError,
        NotImplementedError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:  # a card it is not made for
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200]
