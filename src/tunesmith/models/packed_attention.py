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
from tunesmith.models.layout import evaluating
from tunesmith.models.segments import CUTS, PACKED, apart, keeps_apart, window

DEVICE, DTYPES = "cuda", (torch.bfloat16, torch.float16)  # that the kernels are made for
# Share of a gradient's length by which rounding may part it from that of the usual form: of the kernel by itself beside
# float32, and through all layers of a base, each of which rounds once more. In bfloat16 32 layers came to 0.03 to 0.08,
# between two forms that both are right.
ALIKE, ALIKE_BFLOAT16 = 1e-3, 0.03
ALIKE_IN_ALL, ALIKE_IN_ALL_BFLOAT16 = 1e-3, 0.25
TEXTS = (5, 12, 1, 7)  # tokens of each that gradients are tried on
# (query, key, value: each [tokens, heads, numbers], cuts: [texts + 1], tokens of the longest text at most, scale) ->
# [tokens, heads, numbers]
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]


@cache
def kernel() -> Kernel | None:
    """FlashAttention for texts of any lengths (Dao 2023, "FlashAttention-2"): torch's own, else that of flash_attn."""
    try:
        from torch.nn.attention.varlen import varlen_attn

        # From torch 2.11 on.
        if {"window_size", "enable_gqa", "scale"} <= inspect.signature(varlen_attn).parameters.keys():

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
    try:
        usual = _gradient(body, tokens)
        if not put_on(body):
            return "this base takes no other form of attention"
        why_not = _tried(body, tokens, limit, usual)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        # A card it is not made for.
        why_not = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200]
    if why_not:
        take_off(body)
    return why_not


def _tried(body: PreTrainedModel, tokens: list[int], limit: int, usual: Tensor) -> str:
    """What is wrong with a body that has this form; "" where nothing is. usual: its `_gradient` in the usual form."""
    if not keeps_apart(body, True, tokens, limit):
        return "it gave other numbers than the usual form"
    exact = body.dtype == torch.float32
    by_itself, by_pairs = _of_kernel(body), _of_pairs(body)
    said = [
        _parted(name, found, wanted, ALIKE if exact else ALIKE_BFLOAT16)
        for name, found, wanted in zip(("query", "key", "value"), by_itself, by_pairs, strict=True)
    ]
    said.append(_parted("input", _gradient(body, tokens), usual, ALIKE_IN_ALL if exact else ALIKE_IN_ALL_BFLOAT16))
    return next(filter(None, said), "")


def _parted(name: str, found: Tensor, wanted: Tensor, allowed: float) -> str:
    """What to say where a gradient is another than the usual form's; "" where it is not."""
    if not bool(found.isfinite().all()):
        return "its gradients are not finite"
    off = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
    return (
        "" if off <= allowed else f"its gradient of the {name} is another than the usual form's, by {100 * off:.2g} %"
    )


def _of_kernel(body: PreTrainedModel) -> list[Tensor]:
    """Gradients of query, key and value by the kernel, each [tokens, heads, numbers] in float32."""
    by_kernel = kernel()
    assert by_kernel is not None
    parts, scale = _parts(body)
    ends = torch.tensor([0, *TEXTS], device=body.device).cumsum(0).to(CUTS)
    return _gradients_of(by_kernel(*parts, ends, max(TEXTS), scale), parts)


def _of_pairs(body: PreTrainedModel) -> list[Tensor]:
    """The same by the usual form, computed in float32."""
    parts, scale = _parts(body)
    ends = torch.tensor([0, *TEXTS], device=body.device).cumsum(0).to(CUTS)
    query, key, value = (part.float().transpose(0, 1)[None] for part in parts)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = _pairs(ends, 1, sum(TEXTS))
    found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return _gradients_of(found[0].transpose(0, 1), parts)


def _parts(body: PreTrainedModel) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """Query, key and value of as many heads and numbers as those of the body, the same at every call; and the usual scale."""
    config = body.config
    heads = int(config.num_attention_heads)
    few, numbers = getattr(config, "num_key_value_heads", None), getattr(config, "head_dim", None)
    few, numbers = heads if few is None else few, config.hidden_size // heads if numbers is None else numbers
    draw = torch.Generator().manual_seed(0)

    def part(count: int) -> Tensor:
        made = torch.randn(sum(TEXTS), count, numbers, generator=draw)
        return made.to(body.device, body.dtype).requires_grad_()

    return (part(heads), part(few), part(few)), numbers**-0.5


def _gradients_of(found: Tensor, parts: tuple[Tensor, ...]) -> list[Tensor]:
    return [one.float() for one in torch.autograd.grad(_weighted(found), parts)]


def _weighted(found: Tensor) -> Tensor:
    """A sum that every number has a weight of its own in: squares would add up to much the same after a norm."""
    return (found.float() * torch.arange(found.numel(), device=found.device).view_as(found).float().cos()).sum()


def _gradient(body: PreTrainedModel, tokens: list[int]) -> Tensor:
    """[1, tokens, width] float32: the gradient at the embeddings of packed texts, which has come through every layer."""
    at: list[Tensor] = []

    def begin(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        at.append(output.detach().requires_grad_())
        return at[0]

    numbers = [tokens[place * 7 % len(tokens)] for place in range(sum(TEXTS))]
    segments = torch.tensor([[text for text, size in enumerate(TEXTS, 1) for _ in range(size)]], device=body.device)
    places = torch.tensor([[place for size in TEXTS for place in range(size)]], device=body.device)
    handle = body.get_input_embeddings().register_forward_hook(begin)
    try:
        with evaluating(body), torch.enable_grad():
            inputs = torch.tensor([numbers], device=body.device)
            hidden = body(input_ids=inputs, **apart(body, True, segments, places)).last_hidden_state
            (gradient,) = torch.autograd.grad(_weighted(hidden), at)
    finally:
        handle.remove()
    return gradient.float()
