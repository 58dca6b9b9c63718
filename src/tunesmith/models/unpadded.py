"""Blocks that compute on the tokens that are there, without filler: an encoder's rows, one after another as a single one.

All that a block of these families does but its attention is done to each token by itself, and positions are added before
the blocks. So the blocks are given one long row, and their attention spreads it over the rows that it came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.layout import evaluating
from tunesmith.seeds import torch_seed

FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta", "electra", "distilbert")  # transformers' model types
WORTH_IT = 0.15  # share of filler from which leaving it out saves more than spreading takes (docs/log.md)
ALIKE = 1e-5  # of the hidden states' length, how far both may be apart in float32; bfloat16 has 16 bits less
WATCHING = ("output_hidden_states", "output_attentions")  # transformers' names
ROUNDING = {torch.float32: 1.0, torch.bfloat16: 3000.0}


@dataclass(frozen=True)
class Places:
    """Where the tokens of one long row stand among rows with filler."""

    index: Tensor  # [tokens there] into rows * tokens, ascending
    mask: Tensor  # [rows, 1, 1, tokens] what is there

    def holds(self, query: Tensor) -> bool:
        """Whether this, [rows, heads, tokens, numbers], is the one long row."""
        return query.shape[0] == 1 and query.shape[2] == len(self.index)

    def spread(self, long: Tensor) -> Tensor:
        """[1, tokens there, ...] -> [rows, tokens, ...], with zeros for filler"""
        rows, tokens = self.mask.shape[0], self.mask.shape[3]
        whole = long.new_zeros(rows * tokens, *long.shape[2:]).index_copy(0, self.index, long[0])
        return whole.view(rows, tokens, *long.shape[2:])

    def joined(self, rows: Tensor) -> Tensor:
        """[rows, tokens, ...] -> [1, tokens there, ...]"""
        return rows.flatten(0, 1).index_select(0, self.index)[None]


def leave_filler_out(body: nn.Module, blocks: tuple[nn.Module, ...]) -> None:
    """Makes the blocks of an encoder leave filler out in training, where it is known to be alike and is found so.

    It is for the own form of attention (models/attention.py), and does nothing where a body computes in another one. What is
    attached inside later, or asks for what each block gives, is shown rows: there filler stays.
    """
    if not isinstance(body, PreTrainedModel) or body.config.model_type not in FAMILIES or body.dtype not in ROUNDING:
        return
    if getattr(body.config, "is_decoder", False):  # DistilBERT's config has no such thing
        return
    holder = _holder(body, blocks)
    if holder is None or _join in holder._forward_pre_hooks.values():
        return
    before = holder.register_forward_pre_hook(_join, with_kwargs=True)
    after = holder.register_forward_hook(_spread, with_kwargs=True)
    if not _alike(body, holder):
        before.remove()
        after.remove()


def other_hooks(modules: Iterable[nn.Module]) -> list[object]:
    """The forward hooks of these modules, but for those of `leave_filler_out`, which do nothing in evaluation mode."""
    hooks = (one for part in modules for one in (*part._forward_hooks.values(), *part._forward_pre_hooks.values()))
    return [one for one in hooks if one is not _join and one is not _spread]


def _holder(body: nn.Module, blocks: tuple[nn.Module, ...]) -> nn.Module | None:
    """The module whose forward calls all blocks in their order: that which holds their list."""
    for part in body.modules():
        lists = [child for child in part.children() if isinstance(child, nn.ModuleList)]
        if any(tuple(child) == blocks for child in lists):
            return part
    return None


def _join(holder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A hook before the blocks."""
    if _watched(holder, kwargs):
        return None
    mask = kwargs.get("attention_mask")
    named = "hidden_states" in kwargs
    hidden = kwargs["hidden_states"] if named else args[0]
    if not (holder.training and isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape[2] == 1):
        return None
    if len(mask) != len(hidden) or float(mask.float().mean()) > 1 - WORTH_IT:
        return None
    places = Places(mask.flatten().nonzero().flatten(), mask)
    joined = places.joined(hidden)
    given = {**kwargs, "attention_mask": places}
    return (args, {**given, "hidden_states": joined}) if named else ((joined, *args[1:]), given)


def _watched(holder: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether anybody reads what is in the blocks or leaves them: by hooks, by arguments, or by the config."""
    config = getattr(holder, "config", None)
    asked = any(kwargs.get(name) or getattr(config, name, False) for name in WATCHING)
    return asked or bool(other_hooks(holder.modules()))


def _spread(holder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """A hook after the blocks. What was put in the place of blocks gives rows with filler, which stay as they are."""
    places = kwargs.get("attention_mask")
    if isinstance(places, Places) and output.last_hidden_state.shape[:2] == (1, len(places.index)):
        output.last_hidden_state = places.spread(output.last_hidden_state)
    return output


@torch.no_grad()
def _alike(body: PreTrainedModel, holder: nn.Module) -> bool:
    """Whether it is what the body gives without: on rows of several lengths, without dropout."""
    ids = torch.arange(40, device=body.device).view(4, 10) % min(40, body.config.vocab_size - 1) + 1
    there = (torch.arange(10, device=body.device) < torch.tensor([[10], [3], [6], [1]], device=body.device)).long()
    with evaluating(body), torch_seed("unpadded"):
        try:
            exact = body(input_ids=ids, attention_mask=there).last_hidden_state.float()
            holder.training = True
            found = body(input_ids=ids, attention_mask=there).last_hidden_state.float()
        # Blocks that are given more than a token at a time.
        except (AttributeError, TypeError, RuntimeError, IndexError):
            return False
        finally:
            holder.training = False
    real = there[..., None]
    return float(((found - exact) * real).norm()) <= ALIKE * ROUNDING[body.dtype] * float((exact * real).norm())
