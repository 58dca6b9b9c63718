"""Causal language modelling: a decoder goes on learning from texts (continued pretraining)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from tunesmith.data.encode import IGNORED, Example
from tunesmith.data.words import Window
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.text import TextProcessor

OWN_TOKENS = 96  # of each text that the base writes for the measure of what it forgets


class CausalLm(LanguageTask):
    """Every token is learned from those before it in its text; cross-entropy, each token alike."""

    pipeline_tag: ClassVar[str] = "text-generation"
    kinds: ClassVar[tuple[str, ...]] = ("decoder",)
    suits: ClassVar[str] = "a decoder (llama, qwen3, gpt2), or --task masked_lm for an encoder"
    causal: ClassVar[bool] = True

    answer_tokens: Annotated[int, Field(ge=1)] = Field(default=64, description="most tokens that predict goes on with")

    def cuts(self, ids: list[int], processor: TextProcessor, limit: int) -> list[list[int]]:
        """A window begins with the last token of the one before, so that every token but a text's first is learned once."""
        before, _ = processor.marks()
        whole = [*before, *ids]
        return [whole[start : start + limit] for start in range(0, max(len(whole) - 1, 1), limit - 1)]

    def window(self, ids: list[int], row: int, source: int, processor: TextProcessor, asked: bool) -> Example:
        if not ids:  # a text without a token, of a tokenizer without marks: a row needs one
            return Example(row, processor.wrapped([])[0], [IGNORED], window=Window(source, ""))
        target = [IGNORED, *ids[1:]]
        inputs = {
            name: {"input_ids": ids, "attention_mask": [1] * len(ids)}.get(name, [0] * len(ids))
            for name in processor.pad
        }
        return Example(row, inputs, target, window=Window(source, "", tuple(range(1, len(ids)))))

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.language import causal_network

        return causal_network(backbone, seed)

    def aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return output[:, :-1], target[:, 1:]

    def own_texts(self, network: Network, count: int, seed: int) -> list[str]:
        from tunesmith.models.generation import drawn_texts

        return drawn_texts(network, count, OWN_TOKENS, seed)

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """Of texts that are asked about, what the model goes on with, always taking the likeliest token."""
        from tunesmith.models.generation import generate

        ends = {item.source: item for item in examples if item.window is not None and item.window.text}  # last windows
        if not ends:
            return list(found)
        room = max(1, network.text.positions - self.answer_tokens)
        prompts = [item.inputs["input_ids"][-room:] for item in ends.values()]
        written = generate(network, prompts, self.answer_tokens, ())
        decode = network.text.tokenizer.decode
        said = {source: str(decode(ids, skip_special_tokens=True)) for source, ids in zip(ends, written, strict=True)}
        return [replace(item, value=said.get(item.row)) for item in found]
