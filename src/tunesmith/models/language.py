"""Language models: the family's own, with the head that its checkpoint has."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tunesmith.errors import ModelError
from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.layout import example_inputs, layout_of
from tunesmith.models.lazy_logits import VocabularyNetwork
from tunesmith.models.network import Network
from tunesmith.models.new_tokens import widen
from tunesmith.models.resolve import weights_folder
from tunesmith.models.saving import save_model
from tunesmith.models.segments import POSITIONS, SEGMENTS, apart, keeps_apart
from tunesmith.models.text import TextProcessor, load_processor
from tunesmith.seeds import torch_seed

CAUSAL, MASKED = "causal", "masked"
FITTING = {
    CAUSAL: "choose a decoder, such as llama, qwen3 or gpt2",
    MASKED: "choose an encoder, such as bert, roberta or modernbert",
}


class LanguageNetwork(VocabularyNetwork):
    """A vocabulary of outputs for every token: which token follows, or which one is hidden."""

    causal: bool

    def __init__(self, model: PreTrainedModel, processor: TextProcessor) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.layout = layout_of(model.base_model, f"model.{model.base_model_prefix}")
        self.fresh = frozenset()
        self.per_token = True
        self.writes = True

    @property
    def body(self) -> PreTrainedModel:
        found = self.model.base_model
        assert isinstance(found, PreTrainedModel)
        return found

    @property
    def output(self) -> nn.Linear | None:
        return None

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.get_submodule(self.layout.body)(**self._given(inputs)).last_hidden_state

    def classify(self, features: Tensor) -> Tensor:
        head = self.model.get_output_embeddings()
        assert head is not None
        return head(features)

    def outputs(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**self._given(inputs)).logits

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.features(inputs)

    def project(self, hidden: Tensor) -> Tensor:
        """By what the family's own forward does with what the body gives."""
        name = self.model.base_model_prefix
        body = self.model._modules[name]
        self.model._modules[name] = _Gives(hidden[None])
        try:
            return self.model(input_ids=torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)).logits[0]
        finally:
            self.model._modules[name] = body

    def outside(self) -> Sequence[Tensor]:
        inside = {id(value) for value in self.body.parameters()}
        found = [value for value in self.model.parameters() if id(value) not in inside]
        head = self.model.get_output_embeddings()
        weight = None if head is None else head.weight
        return [*found, weight] if isinstance(weight, Tensor) and id(weight) in inside else found

    def example(self) -> dict[str, Tensor]:
        return example_inputs(self.body)

    def _given(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """The model's own arguments; of packed rows those that keep each segment to itself."""
        if SEGMENTS not in inputs:
            return inputs
        kept = {name: value for name, value in inputs.items() if name not in (SEGMENTS, POSITIONS, "attention_mask")}
        return kept | apart(self.body, self.causal, inputs[SEGMENTS], inputs[POSITIONS])

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        save_model(self.model, self.processor, {}, folder, limit)
        family = "AutoModelForCausalLM" if self.causal else "AutoModelForMaskedLM"
        return f'opens with {family}.from_pretrained("{folder}")'


class _Gives(nn.Module):
    """Stands in for a body, and gives hidden states that are there already."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self._hidden)  # type: ignore[arg-type]


class CausalNetwork(LanguageNetwork):
    """The family's own ForCausalLM: an output for every token, of which token follows."""

    causal = True


class MaskedNetwork(LanguageNetwork):
    """The family's own ForMaskedLM: an output for every token, of which token stands there."""

    causal = False

    def classify(self, features: Tensor) -> Tensor:
        raise AssertionError("a masked language model's head is more than one linear map: call the network")


def causal_network(backbone: Backbone, seed: int) -> CausalNetwork:
    """The family's language model with the weights of its checkpoint; a head that it lacks is drawn from `seed`.

    Raises ModelError where the family has no such model.
    """
    model, lacking = _read(backbone, CAUSAL, seed)
    return _begun(CausalNetwork(model, backbone.text), backbone, lacking)


def masked_network(backbone: Backbone, seed: int) -> MaskedNetwork:
    """The family's masked language model; what the checkpoint lacks of its head is drawn from `seed`, tied where it is tied.

    Raises ModelError where the family has none.
    """
    model, lacking = _read(backbone, MASKED, seed)
    return _begun(MaskedNetwork(model, backbone.text), backbone, lacking)


def _begun(network: Any, backbone: Backbone, lacking: set[str]) -> Any:
    network.source = backbone.source
    network.fresh = frozenset(name for name, _ in network.named_parameters() if name in lacking)
    return network.eval()


def _read(backbone: Backbone, kind: str, seed: int) -> tuple[PreTrainedModel, set[str]]:
    """The family's model of this kind, and the network's names of the weights that its checkpoint lacks."""
    config = copy.deepcopy(backbone.module.config)
    if type(config).model_type not in _families(kind):
        raise ModelError(
            f'{backbone.source.name}: transformers has no {kind} language model for "{config.model_type}"; {FITTING[kind]}'
        )
    with quiet(), torch_seed(seed, "head"):
        model, report = _auto(kind).from_pretrained(
            weights_folder(backbone.source.folder), config=config, dtype=torch.float32, use_safetensors=True,
            local_files_only=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    widen(model, backbone.processor.added)
    return model, {f"model.{name}" for name in report["missing_keys"]}


def language_kind(config: PreTrainedConfig) -> str | None:
    """Which kind of language model a saved config is of, by transformers' class names; None for another model."""
    named = set(config.architectures or ())
    return next((kind for kind in (CAUSAL, MASKED) if named & set(_families(kind).values())), None)


def load_language(folder: Path, config: PreTrainedConfig, kind: str) -> LanguageNetwork:
    """What `LanguageNetwork.save` wrote, in evaluation mode."""
    model = _auto(kind).from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    made = CausalNetwork if kind == CAUSAL else MaskedNetwork
    return made(model, load_processor(folder, model)).eval()


def _families(kind: str) -> dict[str, str]:
    """transformers' class of this kind for each model type."""
    from transformers.models.auto import modeling_auto

    found: Any = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if kind == CAUSAL
        else modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    return dict(found)


def _auto(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    return AutoModelForCausalLM if kind == CAUSAL else AutoModelForMaskedLM


def can_pack(network: Network, limit: int) -> bool:
    """Whether two rows in one window of `limit` tokens give what each gives alone: tried, since families differ."""
    if not isinstance(network, LanguageNetwork):
        return False
    return keeps_apart(network.body, network.causal, network.text.ordinary_tokens, limit)
