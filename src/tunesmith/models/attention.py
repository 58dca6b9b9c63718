"""Which form of attention a body computes with: transformers' own ones, and one of our own for steps in bfloat16 on a CPU."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.models.backbone import quiet
from tunesmith.models.dropout import chosen, scale_of_kept
from tunesmith.models.unpadded import Places

PLAIN, FUSED = "eager", "sdpa"  # transformers' names
OWN = "tunesmith"  # the plain form in fewer passes, with dropout of models/dropout.py
# The plain form in the file of a family.
PLAIN_SOURCE = re.compile(r"^def eager_attention_forward\(.*?(?=^[^\s)]|\Z)", re.DOTALL | re.MULTILINE)
ALIKE = ("bert", "llama", "vit", "siglip", "modernbert", "gpt2")  # families whose plain forms do what the own one does
# What a family asks of a form by name is not in its plain one: sparse attention, say, which it does itself for some forms.
BY_NAME = re.compile(r"_attn_implementation[^\n]*(==|!=|\bin\b)[^\n]*[\"']sdpa[\"']")
# Tensors beside that change nothing here.
HARMLESS = ("position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k")
RATES = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")  # of the probabilities' dropout, by family
WHOLE_KEYS = 512  # with more keys torch's fused form is as fast without dropout, and keeps no probabilities
WIDE = 32  # numbers that one instruction takes in bfloat16: torch's softmax of fewer goes one by one
NEAR = 1 << 19  # scores that go through all steps together, so that they stay in a core's cache of 1 or 2 MB


def suit_attention(body: nn.Module, training: bool, joined: bool = False) -> bool:
    """Gives `body` the form that was fastest by measurement (docs/log.md, "Attention on a CPU"); whether that is the own one.

    torch's fused attention has no kernel with dropout on a CPU: it falls back to the plain form computed in float32,
    whatever the weights' format; and without dropout its backward pass in bfloat16 takes 20 ms and more however little there
    is to do. So steps in bfloat16 take the own form where the family's plain one is known to be alike, else transformers'
    plain one where there is dropout. Everything else takes the fused one, which transformers chooses. Masks are made in each
    forward for the form then in use, so that it may change between any two.

    joined: whether steps in float32 take the own form too. They are as fast in the fused one, which gives frozen blocks the
    same numbers to the bit in training and in evaluation.
    """
    if not isinstance(body, PreTrainedModel):
        return False
    used = body.config._attn_implementation
    if used not in (PLAIN, FUSED, OWN) or not body._supports_sdpa:
        return False
    wanted = FUSED
    if training and body.device.type == "cpu":
        half = body.dtype == torch.bfloat16
        wanted = OWN if (half or joined) and known(body) else PLAIN if half and dropped(body.config) > 0 else FUSED
    if wanted != used:
        if wanted == OWN:
            AttentionInterface.register(OWN, _attend)
            AttentionMaskInterface.register(OWN, _mask)
        with quiet():  # a family that cannot change it says so, and keeps what it has
            body.set_attn_implementation(wanted)
    return body.config._attn_implementation == OWN


def to_add(seen: Tensor, like: Tensor) -> Tensor:
    """What is added to scores in the format of `like`: 0 for what is seen, and else the least number that there is."""
    return like.new_zeros(seen.shape).masked_fill_(~seen, torch.finfo(like.dtype).min)


def dropped(config: PreTrainedConfig) -> float:
    """The rate of the attention's own dropout; 0 for a family that has none."""
    return dropped_by(config)[1]


def dropped_by(config: PreTrainedConfig) -> tuple[str, float]:
    """The config's key for the rate of the attention's own dropout, and that rate; ("", 0) for a family that has none."""
    found = ((name, getattr(config, name, None)) for name in RATES)
    return next(((name, float(rate)) for name, rate in found if rate is not None), ("", 0.0))


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The fused form's mask, of what is seen: one row for all tokens where it is the same for each; None as there."""
    found = sdpa_mask(*args, **kwargs)
    if found is None or not bool((found == found[:, :, :1]).all()):
        return found
    return found[:, :, :1]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Places | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """What the plain form computes, but for which probabilities are dropped. The arguments are transformers' own.

    query: [rows, heads, tokens, numbers of a head], key and value of as many heads or of a part of them; attention_mask, of
    bools or to be added, spreads to the scores, and None hides what comes later where the module is causal, as in the fused
    form. With `Places` query, key and value are one long row of tokens of many. Gives [rows, tokens, heads, numbers of a
    head], and no probabilities. Raises TypeError for a tensor that it knows nothing of.
    """
    strange = [name for name, value in further.items() if isinstance(value, Tensor) and name not in HARMLESS]
    if strange:
        raise TypeError(f"attention was given {', '.join(strange)}, which this form of it knows nothing of")
    rate = dropout if module.training else 0.0
    if not isinstance(attention_mask, Places):
        return _of_rows(module, query, key, value, attention_mask, scaling, rate, is_causal), None
    places = attention_mask
    if not places.holds(query):  # frozen blocks' kept outputs come with their filler
        return _of_rows(module, query, key, value, places.mask, scaling, rate, is_causal), None
    query, key, value = (places.spread(part.transpose(1, 2)).transpose(1, 2) for part in (query, key, value))
    return places.joined(_of_rows(module, query, key, value, places.mask, scaling, rate, is_causal)), None


def _of_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    rate: float,
    is_causal: bool | None,
) -> Tensor:
    """[rows, tokens, heads, numbers of a head]"""
    if rate == 0 and key.shape[2] > WHOLE_KEYS:
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=is_causal)[0]
    groups, tokens = query.shape[1] // key.shape[1], query.shape[2]
    if groups > 1:  # each key and value stands for several heads in turn
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if mask is None and causal and tokens > 1:
        mask = torch.ones(1, 1, tokens, key.shape[2], dtype=torch.bool).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = to_add(mask, query)
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    found: Tensor = _Attention.apply(query, key, value, mask, scale, rate)  # type: ignore[assignment]
    return found.transpose(1, 2).contiguous()


class _Attention(torch.autograd.Function):
    """softmax(scale query @ key' + mask) @ value, with dropout on the probabilities.

    Autograd would keep the dropped probabilities too, and make a new tensor of all scores in each of its passes. Here so many
    heads at a time go through all passes that their scores stay in the processor's cache, and what dropout scales is scaled
    where there are fewer numbers.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, rate: float
    ) -> Tensor:
        """query, key, value: [rows, heads, tokens, numbers]; mask: [rows or 1, 1, tokens or 1, tokens]."""
        rows, heads, tokens, _ = query.shape
        keys = key.shape[2]
        query, key, value = (part.reshape(rows * heads, *part.shape[2:]) for part in (query, key, value))
        found = query.new_empty(rows * heads, tokens, keys)
        there = torch.empty_like(found) if rate > 0 else None
        given = value.new_empty(rows * heads, tokens, value.shape[2])
        for part in _parts(rows, heads, tokens * keys):
            scores = torch.baddbmm(query.new_empty(()), query[part], key[part].transpose(1, 2), beta=0, alpha=scale)
            if mask is not None:
                of_these = mask if len(mask) == 1 else mask[part.start // heads : part.stop // heads]
                scores.view(-1, heads, tokens, keys).add_(of_these)
            kept = _softmax(scores, found[part])
            if there is not None:
                kept = kept * chosen(there[part], rate)
            torch.bmm(kept, value[part], out=given[part])
        ctx.save_for_backward(query, key, value, found, there)
        ctx.heads, ctx.scale, ctx.times = heads, scale, 1.0 if there is None else scale_of_kept(rate)
        return (given if there is None else given.mul_(ctx.times)).view(rows, heads, tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, found, there = ctx.saved_tensors
        rows, heads = gradient.shape[:2]
        gradient = gradient.reshape(rows * heads, *gradient.shape[2:])
        if there is not None:
            gradient = gradient * ctx.times
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for part in _parts(rows, heads, found[0].numel()):
            of_found = torch.bmm(gradient[part], value[part].transpose(1, 2))
            kept = found[part]
            if there is not None:
                of_found.mul_(there[part])
                kept = kept * there[part]
            torch.bmm(kept.transpose(1, 2), gradient[part], out=of_value[part])
            of_scores = _softmax_backward(of_found, found[part])
            torch.baddbmm(of_query[part], of_scores, key[part], beta=0, alpha=ctx.scale, out=of_query[part])
            torch.baddbmm(
                of_key[part], of_scores.transpose(1, 2), query[part], beta=0, alpha=ctx.scale, out=of_key[part]
            )
        whole = (part.view(rows, heads, *part.shape[1:]) for part in (of_query, of_key, of_value))
        return *whole, None, None, None


def _parts(rows: int, heads: int, scores: int) -> Iterator[slice]:
    """Of all heads of all rows, those that go together: whole rows, as many as have about `NEAR` scores."""
    step = heads * max(1, NEAR // (heads * scores))
    for start in range(0, rows * heads, step):
        yield slice(start, min(start + step, rows * heads))


def _softmax(scores: Tensor, into: Tensor) -> Tensor:
    if scores.shape[-1] < WIDE:
        return into.copy_(scores.float().softmax(-1))
    return torch.softmax(scores, -1, out=into)


def _softmax_backward(gradient: Tensor, found: Tensor) -> Tensor:
    given = (gradient.float(), found.float()) if found.shape[-1] < WIDE else (gradient, found)
    return torch.ops.aten._softmax_backward_data(*given, -1, given[1].dtype).to(found.dtype)


def known(body: PreTrainedModel) -> bool:
    """Whether the plain forms of the body's family, and of those of its parts, are those of `ALIKE` to the letter."""
    own = {Path(inspect.getfile(type(part))) for part in body.modules() if isinstance(part, PreTrainedModel)}
    return all(_known_source(source) for source in own)


@cache
def _known_source(source: Path) -> bool:
    models = Path(transformers.__file__).parent / "models"
    try:
        found = _steps(source)
        alike = [_steps(models / family / f"modeling_{family}.py") for family in ALIKE]
        return found is not None and found in alike and BY_NAME.search(source.read_text(encoding="utf-8")) is None
    except OSError:  # transformers without its sources
        return False


def _steps(source: Path) -> str | None:
    """What a family's plain form does, as a syntax tree without names of arguments; read, since importing takes longer."""
    found = PLAIN_SOURCE.search(source.read_text(encoding="utf-8"))
    if found is None:
        return None
    function = ast.parse(found[0]).body[0]
    assert isinstance(function, ast.FunctionDef)
    return ast.dump(ast.Module(function.body, []))
