"""Several texts in one row, each read as if it stood alone: what a family needs to be told for that."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SEGMENTS, POSITIONS = "segments", "position_ids"  # inputs of packed rows, as data/packing.py names them
PACKED = "tunesmith_packed"  # the form of attention that is told where texts end (models/packed_attention.py)
CUTS = torch.int32  # by which it knows these from a mask
SAME = 1e-4  # share of the largest hidden state by which rounding may part packed and single texts, in float32
SAME_BFLOAT16 = 0.05
SHORT = 7  # tokens of a text tried where nothing local asks for more


def apart(body: PreTrainedModel, causal: bool, segments: Tensor, places: Tensor) -> dict[str, Any]:
    """Arguments for `body` beside its input_ids, by which each token sees only those of its own segment.

    segments: [rows, tokens] the number of each token's text, in runs; 0 for filler, which sees filler. places: [rows,
    tokens] a token's place in its text, from 0, and 0 for filler. transformers' own masks are taken, since a mask of ours
    would have to know the layers that look at near tokens only (gemma3, modernbert): one that does not gives other numbers
    as soon as a text is longer than they look, and no error.
    """
    positions = {"position_ids": places + first_position(body)} if _takes(body, "position_ids") else {}
    if causal:  # position numbers that begin anew are how transformers itself tells packed texts apart
        mask = _cuts(segments) if body.config._attn_implementation == PACKED else None
        return {**positions, "attention_mask": mask, "use_cache": False}  # and only where nothing is remembered
    return {**positions, "attention_mask": _both_ways(body, segments)}


def _cuts(segments: Tensor) -> Tensor:
    """[1, 1, 1, texts + 1] where each text begins among all tokens of all rows, and their number.

    Of as many dimensions as a mask that is made already, which transformers hands on as it is. Filler is a text.
    """
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return nn.functional.pad(begins.flatten().nonzero().flatten(), (0, 1), value=segments.numel()).to(CUTS)[
        None, None, None
    ]


def keeps_apart(body: PreTrainedModel, causal: bool, tokens: list[int], limit: int) -> bool:
    """Whether two texts in one row give the hidden states that each gives alone: tried, since families differ.

    tokens: ordinary token numbers to make them of. The second text is longer than the layers look that look at near
    tokens only, where `limit` tokens are enough for that. deberta-v2 fails: its convolution runs over the border.
    """
    near = window(body)
    sizes = [5, SHORT if near is None else max(SHORT, min(near + 4, limit - 5))]
    texts = [
        [tokens[(place * step + size) % len(tokens)] for place in range(size)]
        for step, size in zip((7, 11), sizes, strict=True)
    ]
    device, training = next(body.parameters()).device, body.training

    def row(numbers: list[int]) -> Tensor:
        return torch.tensor([numbers], device=device)

    segments = row([number for number, size in enumerate(sizes, 1) for _ in range(size)])
    places = row([place for size in sizes for place in range(size)])
    body.eval()
    try:
        with torch.no_grad():
            alone = [body(input_ids=row(text), attention_mask=row([1] * len(text))) for text in texts]
            both = body(input_ids=row(texts[0] + texts[1]), **apart(body, causal, segments, places))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):  # arguments that a family does not know
        return False
    finally:
        body.train(training)
    wanted = torch.cat([output.last_hidden_state[0] for output in alone]).float()
    found = both.last_hidden_state[0].float()
    share = SAME if body.dtype == torch.float32 else SAME_BFLOAT16
    return bool((found - wanted).abs().max() <= share * max(1.0, float(wanted.abs().max())))


def _both_ways(body: PreTrainedModel, segments: Tensor) -> Any:
    """[rows, 1, tokens, tokens] in the form of the body's attention; one of each kind where its layers differ."""
    from transformers.masking_utils import (
        create_bidirectional_mask,
        create_bidirectional_sliding_window_mask,
        packed_sequence_mask_function,
    )

    like = torch.empty(*segments.shape, 1, dtype=body.dtype, device=segments.device)  # read for its shape and kind
    rule = packed_sequence_mask_function(segments)
    whole = create_bidirectional_mask(body.config, like, attention_mask=None, and_mask_function=rule)
    if "sliding_attention" not in (getattr(body.config, "layer_types", None) or ()):
        return whole
    near = create_bidirectional_sliding_window_mask(body.config, like, attention_mask=None, and_mask_function=rule)
    return {"full_attention": whole, "sliding_attention": near}


def first_position(body: PreTrainedModel) -> int:
    """The number of a text's first place: roberta and its kin begin after that of filler."""
    return max(
        (
            part.padding_idx + 1
            for name, part in body.named_modules()
            if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None
        ),
        default=0,
    )


def window(body: PreTrainedModel) -> int | None:
    """How many tokens the layers see that see near ones only; None where all see all."""
    found = getattr(body.config, "sliding_window", None)
    return found if isinstance(found, int) and found > 0 else None


def _takes(body: PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(body.forward).parameters
