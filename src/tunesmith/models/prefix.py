"""Learned keys and values before those of every text, in every attention of a base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.models.attention import FUSED
from tunesmith.models.backbone import quiet
from tunesmith.models.network import Network
from tunesmith.models.segments import first_position, window
from tunesmith.models.sequence import SequenceNetwork
from tunesmith.models.soft_prompt import body_of, named, reader, takes_positions

NAME = "prefix"  # of the module on each attention
FORM, PROBE = "tunesmith_prefix", "tunesmith_probe"  # of attention, as transformers calls one


class Prefix(nn.Module):
    """Keys and values of one attention that every token sees beside those of its text."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """keys, values: [heads, count, numbers of a head], as the attention multiplies them, so turned already."""
        super().__init__()
        self.heads = keys.shape[0]
        # Embeddings, since no weight decay is meant for these.
        self.keys = nn.Embedding(keys.shape[1], keys.shape[0] * keys.shape[2])
        self.values = nn.Embedding(values.shape[1], values.shape[0] * values.shape[2])
        with torch.no_grad():
            self.keys.weight.copy_(_flat(keys))
            self.values.weight.copy_(_flat(values))

    def __setstate__(self, state: dict[str, Any]) -> None:
        register()  # in a process that unpickles it nothing else has
        super().__setstate__(state)

    def before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, heads, tokens, numbers] -> the same with `count` more tokens, which come first."""
        return self._joined(self.keys, key), self._joined(self.values, value)

    def _joined(self, table: nn.Embedding, own: Tensor) -> Tensor:
        learned = _by_head(table.weight.to(own.dtype), self.heads)
        return torch.cat([learned.expand(len(own), -1, -1, -1), own], dim=2)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' fused attention over the prefix and the text. The keyword arguments are transformers' own."""
    prefix = module._modules.get(NAME)
    if not isinstance(prefix, Prefix):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    count, mask = prefix.keys.num_embeddings, attention_mask
    asked = kwargs.get("is_causal")
    causal = bool(getattr(module, "is_causal", False) if asked is None else asked)
    if mask is None and causal and query.shape[2] > 1:
        queries, keys = query.shape[2], key.shape[2]
        mask = query.new_ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if mask is not None:  # what is learned is seen by every token
        mask = nn.functional.pad(mask, (count, 0), value=True if mask.dtype == torch.bool else 0.0)
    given = {**kwargs, "is_causal": False}
    bias = kwargs.get("position_bias")  # T5's, of how far two tokens are apart: from what is learned nothing is far
    if bias is not None:
        given["position_bias"] = nn.functional.pad(bias, (count, 0), value=0.0)
    key, value = prefix.before(key, value)
    return sdpa_attention_forward(module, query, key, value, mask, **given)


def register() -> None:
    """Makes the form known to transformers under its name; it does nothing to a model that does not ask for it."""
    AttentionInterface.register(FORM, _attend)
    AttentionMaskInterface.register(FORM, sdpa_mask)


def can_read(network: Network) -> str:
    """Why a network's base cannot read a prefix; "" where it can. Of an encoder-decoder the encoder reads it."""
    body = body_of(network)
    if body is None:
        return "this base does not read tokens one after another, so nothing has a place before them"
    found = _attentions(body, network.text.ordinary_tokens[:2]) if body._supports_sdpa else []
    if len({name for name, *_ in found}) < len(found):
        return "its blocks share one attention, which would need a prefix for each time that it works"
    if not found:
        return f'the attention of "{body.config.model_type}" in transformers takes no keys and values beside its own'
    return ""


def as_in_peft(network: Network) -> bool:
    """Whether PEFT's own prefix does the same on this base.

    It comes as keys and values kept from before, which encoders beside BERT and its kin do not take, and which layers that
    see near tokens only lose sight of; an encoder-decoder's decoder gets one of its own.
    """
    body = reader(network)
    causal = any(bool(module.is_causal) for module in body.modules() if "is_causal" in vars(module))
    kin = body.config.model_type in ("bert", "roberta", "xlm-roberta", "camembert", "electra")
    return not isinstance(network, SequenceNetwork) and window(body) is None and (causal or kin)


def of_tokens(network: Network, ids: Sequence[int]) -> Tensor:
    """[tokens, numbers] keys and values of these tokens at the beginning of a text, in the order of PEFT's table.

    That is by attention: first its keys, then its values, each by head.
    """
    body = reader(network)
    return torch.cat([_flat(part) for _, *both in _attentions(body, ids) for part in both], dim=1).float()


def put_on(network: Network, table: Tensor) -> None:
    """Makes a network read what `of_tokens` gives, or another table like it."""
    body = reader(network)
    found = _attentions(body, network.text.ordinary_tokens[:2])
    parts = iter(table.chunk(2 * len(found), dim=1))
    for name, keys, _ in found:
        own, values = (_by_head(next(parts), keys.shape[0]) for _ in range(2))
        body.get_submodule(name).add_module(NAME, Prefix(own, values))
    register()
    with quiet():
        body.set_attn_implementation(FORM)
    if _shift not in body._forward_pre_hooks.values():  # it stays on a body that the prefix is taken off
        body.register_forward_pre_hook(_shift, with_kwargs=True)


def table_on(network: Network) -> Tensor:
    """The table that a network reads."""
    return torch.cat([part.weight for one in _prefixes(reader(network)) for part in (one.keys, one.values)], dim=1)


def sizes_on(network: Network) -> tuple[int, int, int]:
    """How many attentions read one, the heads of each, and the numbers of a head."""
    found = _prefixes(reader(network))
    heads = found[0].heads
    return len(found), heads, found[0].keys.embedding_dim // heads


def take_off(network: Network) -> None:
    """Makes a network's attentions read the text alone."""
    body = reader(network)
    for module in list(body.modules()):
        if isinstance(module._modules.get(NAME), Prefix):
            delattr(module, NAME)
    with quiet():
        body.set_attn_implementation(FUSED)


def _shift(body: PreTrainedModel, args: Any, kwargs: dict[str, Any]) -> Any:
    """A hook before a body's forward: the text's positions begin behind the prefix, as in PEFT."""
    prefix = next((module for module in body.modules() if isinstance(module, Prefix)), None)
    if prefix is None or not takes_positions(body):
        return None
    given = named(body, args, kwargs)
    positions = given.get("position_ids")
    if positions is None:
        kept = given.get("past_key_values")
        seen = 0 if kept is None else int(kept.get_seq_length())
        text = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        positions = seen + first_position(body) + torch.arange(text.shape[1], device=text.device)[None]
    return (), {**given, "position_ids": positions + prefix.keys.num_embeddings}


def _prefixes(body: PreTrainedModel) -> list[Prefix]:
    """In the order of the body's modules, which is that of their work."""
    return [module for module in body.modules() if isinstance(module, Prefix)]


def _attentions(body: PreTrainedModel, ids: Sequence[int]) -> list[tuple[str, Tensor, Tensor]]:
    """Names of the attentions of a body in the order of their work, and their keys and values of one text.

    Each [heads, tokens, numbers]. None where the family's attention cannot be given another form.
    """
    found: list[tuple[str, Tensor, Tensor]] = []
    names = {module: name for name, module in body.named_modules()}

    def listen(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        found.append((names[module], key[0].detach().clone(), value[0].detach().clone()))
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    row = torch.tensor([list(ids)], device=next(body.parameters()).device)
    training = body.training
    body.eval()
    try:
        with _form(body, listen), torch.no_grad():
            body(input_ids=row, attention_mask=torch.ones_like(row))
    finally:
        body.train(training)
    return found


@contextmanager
def _form(body: PreTrainedModel, function: Any) -> Iterator[None]:
    """Inside, the body's attentions are computed by `function`, where the family lets them."""
    before: Any = body.config._attn_implementation
    AttentionInterface.register(PROBE, function)
    AttentionMaskInterface.register(PROBE, sdpa_mask)
    try:
        with quiet():
            body.set_attn_implementation(PROBE)
        yield
    finally:
        with quiet():
            body.set_attn_implementation(before)
        for registry in (AttentionInterface, AttentionMaskInterface):
            registry._global_mapping.pop(PROBE, None)


def _flat(given: Tensor) -> Tensor:
    """[heads, tokens, numbers] -> [tokens, heads * numbers]"""
    return given.transpose(0, 1).flatten(1)


def _by_head(given: Tensor, heads: int) -> Tensor:
    """[tokens, heads * numbers] -> [heads, tokens, numbers]"""
    return given.unflatten(1, (heads, -1)).transpose(0, 1)
