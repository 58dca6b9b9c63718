"""Masked language modelling: an encoder goes on learning from texts (continued pretraining)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tunesmith.data.encode import IGNORED, Batch, Example
from tunesmith.data.stored import measures
from tunesmith.data.words import Window
from tunesmith.seeds import seed_of
from tunesmith.tasks._information import TOKEN_BITS, Information
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

AS_MASK, AS_OTHER = 0.8, 0.1  # of the chosen tokens: shown as the mask, shown as a random token; the rest as they are


class MaskedLm(LanguageTask):
    """A share of the tokens is hidden and learned from all others (Devlin 2019, section 3.1): others in every epoch.

    Of validation and test rows the hidden tokens are the same every time, so that figures can be compared.
    """

    pipeline_tag: ClassVar[str] = "fill-mask"
    kinds: ClassVar[tuple[str, ...]] = ("encoder",)
    suits: ClassVar[str] = (
        "an encoder (bert, roberta, modernbert, a sentence encoder), or --task causal_lm for a decoder"
    )
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "loss", "token_accuracy")
    causal: ClassVar[bool] = False

    masked: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.15, description="share of the tokens that is hidden")

    def cuts(self, ids: list[int], processor: TextProcessor, limit: int) -> list[list[int]]:
        room = max(1, limit - processor.special)
        return [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]

    def window(self, ids: list[int], row: int, source: int, processor: TextProcessor, asked: bool) -> Example:
        inputs, before = processor.wrapped(ids)
        whole = inputs["input_ids"]
        marks = set(processor.special_tokens)  # of a text that spells one out too
        plain = [place for place in range(before, before + len(ids)) if whole[place] not in marks]
        if asked and processor.mask in ids:  # what is hidden was hidden by who asks
            return Example(row, inputs, [IGNORED] * len(whole), window=Window(source, ""))
        hidden = self._hidden([whole[at] for at in plain], seed_of("mask", *ids[:64], len(ids)), processor)
        shown, target = list(whole), [IGNORED] * len(whole)
        for place, shows in zip(plain, hidden, strict=True):
            if shows is not None:
                shown[place], target[place] = shows, whole[place]
        places = tuple(place for place in plain if target[place] != IGNORED)
        return Example(row, {**inputs, "input_ids": shown}, target, window=Window(source, "", places))

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """A bit for every token: those that are hidden, and so learned, are others in every epoch."""
        tokens = int(measures(examples).lengths.sum())
        return Information(tokens * TOKEN_BITS, f"{tokens:,} tokens x about {TOKEN_BITS:g} bit")

    def _hidden(self, ids: Sequence[int], seed: int, processor: TextProcessor) -> list[int | None]:
        """Of each token what is shown in its place; None where it is not learned. At least one is."""
        import random

        draw = random.Random(seed)
        chosen = [draw.random() < self.masked for _ in ids]
        if ids and not any(chosen):
            chosen[draw.randrange(len(ids))] = True
        ordinary, mask = processor.ordinary_tokens, processor.mask
        shows: list[int | None] = []
        for token, picked in zip(ids, chosen, strict=True):
            if not picked:
                shows.append(None)
                continue
            kind = draw.random()
            other = ordinary[draw.randrange(len(ordinary))]
            shows.append(mask if kind < AS_MASK else other if kind < AS_MASK + AS_OTHER else token)
        return shows

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.language import masked_network

        return masked_network(backbone, seed)

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """Of texts that are asked about and hold masks: the text with the likeliest token in the place of each."""
        import torch

        processor, said = network.text, {}
        for item in examples:
            ids = item.inputs["input_ids"]
            ours = any(true != IGNORED for true in item.target)  # hidden to be judged by, not by who asks
            if item.window is None or not item.window.text or ours or processor.mask not in ids:
                continue
            given = {name: torch.tensor([row], device=network.sample.device) for name, row in item.inputs.items()}
            with torch.inference_mode():
                best = network(given)[0].argmax(-1).tolist()
            whole = [best[at] if token == processor.mask else token for at, token in enumerate(ids)]
            filled = str(processor.tokenizer.decode(whole, skip_special_tokens=True))
            said[item.source] = f"{said[item.source]} {filled}" if item.source in said else filled
        return [replace(item, value=said.get(item.row)) for item in found]

    def aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return output, target

    def varies(self, frozen: bool) -> bool:
        return True

    def varied(self, batch: Batch, seed: int, epoch: int, processor: TextProcessor) -> Batch:
        """Other tokens hidden: a function of (seed, epoch, row) alone."""
        import torch

        assert batch.target is not None
        ids = torch.where(batch.target == IGNORED, batch.inputs["input_ids"], batch.target)
        shown, target = ids.clone(), torch.full_like(ids, IGNORED)
        special = torch.tensor(processor.special_tokens, device=ids.device)
        free = (batch.inputs["attention_mask"] == 1) & ~torch.isin(ids, special)
        for place, row in enumerate(batch.rows):
            at = free[place].nonzero().flatten()
            hidden = self._hidden(ids[place, at].tolist(), seed_of(seed, "mask", epoch, row), processor)
            picked = [(where, shows) for where, shows in zip(at.tolist(), hidden, strict=True) if shows is not None]
            where = [pair[0] for pair in picked]
            target[place, where] = ids[place, where]
            shown[place, where] = ids.new_tensor([pair[1] for pair in picked])
        return replace(batch, inputs={**batch.inputs, "input_ids": shown}, target=target, counted=target != IGNORED)
