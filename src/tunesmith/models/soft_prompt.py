"""Learned vectors before every text: put in behind a base's token table, and what became of them is left away again."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.layout import example_inputs
from tunesmith.models.network import Network
from tunesmith.models.segments import window
from tunesmith.models.sequence import SequenceNetwork
from tunesmith.models.static import StaticModel

NAME = "soft_prompt"  # of the module on the body that reads


class SoftPrompt(nn.Module):
    """`count` vectors that a body reads before each text, as if they were tokens; what they become is not given on.

    The text's own positions begin behind them, as in PEFT. What follows the body, and its pooler, sees the text alone, so
    that whatever reads its first or its last token still does.
    """

    def __init__(self, start: Tensor) -> None:
        """start: [count, width of the token table]"""
        super().__init__()
        # An embedding, so that no weight decay is meant for it.
        self.vectors = nn.Embedding(start.shape[0], start.shape[1])
        with torch.no_grad():
            self.vectors.weight.copy_(start)

    @property
    def count(self) -> int:
        return self.vectors.num_embeddings

    def values(self) -> Tensor:
        """[count, width] what is read."""
        return self.vectors.weight

    def without(self, hidden: Tensor) -> Tensor:
        """[rows, tokens, width] of a sequence that begins with the vectors -> the same of the text alone."""
        return hidden[:, self.count :]

    def pool(self, pooler: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A hook before what makes one vector of a text inside the body, as BERT's pooler does: such a body keeps nothing."""
        return (self.without(args[0]), *args[1:])

    def before(self, body: PreTrainedModel, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a forward of `body`, with the vectors before each text.

        Of a text that goes on behind kept keys and values the vectors are among these already.
        """
        kept = given.get("past_key_values")
        inside = kept is None or kept.get_seq_length() == 0
        made = dict(given)
        places = torch.arange(self.count, device=self.vectors.weight.device)[None]  # [1, count]
        if inside:
            ids, embedded = made.pop("input_ids", None), made.get("inputs_embeds")
            text = body.get_input_embeddings()(ids) if embedded is None else embedded  # [rows, tokens, width]
            own = self.values().to(text.dtype).expand(len(text), -1, -1)
            made["inputs_embeds"] = torch.cat([own, text], dim=1)
        for name, filler in (("attention_mask", 1), ("token_type_ids", 0)):
            value = made.get(name)
            if value is not None and (inside or name == "attention_mask"):
                made[name] = torch.cat([value.new_full((len(value), self.count), filler), value], dim=1)
        positions = made.get("position_ids")
        if positions is not None:
            shifted = positions + self.count
            made["position_ids"] = torch.cat([places.expand(len(positions), -1), shifted], dim=1) if inside else shifted
        return made


class ReparametrisedPrompt(SoftPrompt):
    """Each vector is its start and what two maps make of a learned one, v + up(relu(down(v))), until training ends.

    A prompt encoder as of P-Tuning (Liu 2021, "GPT Understands, Too"), with the bridge of Residual Prompt Tuning
    (Razdaibiedina 2023, section 3.1), by which it begins as the words that it starts from.
    """

    def __init__(self, start: Tensor, hidden: int) -> None:
        super().__init__(start)
        width = start.shape[1]
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def values(self) -> Tensor:
        own = self.vectors.weight
        return own + self.up(torch.relu(self.down(own)))


@cache  # a forward is called for every batch, and a class has always the same
def _signature(kind: type[PreTrainedModel]) -> inspect.Signature:
    return inspect.signature(kind.forward)


def takes_positions(body: PreTrainedModel) -> bool:
    return "position_ids" in _signature(type(body)).parameters


def named(body: PreTrainedModel, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a body's forward by their names."""
    given = _signature(type(body)).bind(body, *args, **kwargs).arguments
    further = given.pop("kwargs", {})
    return {name: value for name, value in {**given, **further}.items() if name != "self"}


def body_of(network: Network) -> PreTrainedModel | None:
    """What reads a network's text; None where it reads no tokens one after another."""
    body: Any = network.get_submodule(network.layout.body)
    if network.processor.pictures or isinstance(body, StaticModel) or not isinstance(body, PreTrainedModel):
        return None
    return network.model.get_encoder() if isinstance(network, SequenceNetwork) else body


def reader(network: Network) -> PreTrainedModel:
    """What reads the text, of a network where something does."""
    body = body_of(network)
    assert body is not None, "nothing here reads tokens one after another"
    return body


def pools_first(body: PreTrainedModel) -> bool:
    """Whether a pooler inside the body is given the first vector alone, which would be a learned one (albert)."""
    seen: list[int] = []
    pooler = body._modules.get("pooler")
    if pooler is None:
        return False
    handle = pooler.register_forward_pre_hook(lambda module, args: seen.append(args[0].dim()))
    try:
        with torch.no_grad():
            body(**example_inputs(body))
    finally:
        handle.remove()
    return seen != [] and seen[0] != 3


def put_on(body: PreTrainedModel, prompt: SoftPrompt) -> None:
    """Makes a body read the vectors before each text."""
    body.add_module(NAME, prompt)
    if _enter not in body._forward_pre_hooks.values():  # they stay on a body that the vectors are taken off
        body.register_forward_pre_hook(_enter, with_kwargs=True)
        body.register_forward_hook(_leave, with_kwargs=True)
    pooler = body._modules.get("pooler")
    if pooler is not None:
        pooler.register_forward_pre_hook(prompt.pool)


def alone_at_its_length(model: PreTrainedModel) -> bool:
    """Whether filler between the vectors and a text would take the vectors out of sight: some layers see near tokens only."""
    body = model.base_model
    assert isinstance(body, PreTrainedModel)
    return NAME in body._modules and window(body) is not None


def prompt_on(body: PreTrainedModel) -> SoftPrompt:
    """The vectors that a body reads."""
    prompt = body._modules.get(NAME)
    assert isinstance(prompt, SoftPrompt), f"{type(body).__name__} reads no learned vectors"
    return prompt


def take_off(body: PreTrainedModel) -> None:
    """Makes a body read no vectors any more."""
    prompt, pooler = prompt_on(body), body._modules.get("pooler")
    hooks = {} if pooler is None else pooler._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is prompt]:
        del hooks[key]
    delattr(body, NAME)


# Hooks on a body are functions that look for the vectors on it: they can be copied and pickled with it, and do nothing once
# the vectors are off.
def _enter(body: PreTrainedModel, args: Any, kwargs: dict[str, Any]) -> Any:
    if NAME not in body._modules:
        return None
    return (), prompt_on(body).before(body, named(body, args, kwargs))


def _leave(body: PreTrainedModel, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Told by this call's own arguments: a text that goes on behind kept keys and values is longer in these than here."""
    if NAME not in body._modules:
        return None
    kept, hidden = kwargs.get("past_key_values"), output.last_hidden_state
    if kept is None or kept.get_seq_length() in (0, hidden.shape[1]):
        output.last_hidden_state = prompt_on(body).without(hidden)
    return output


def heads_and_layers(body: PreTrainedModel) -> tuple[int | None, int | None]:
    """By transformers' usual names; None where a family has another."""
    config = body.config
    return getattr(config, "num_attention_heads", None), getattr(config, "num_hidden_layers", None)
