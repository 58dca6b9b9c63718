"""Language models: the family's own, with the head that its checkpoint has."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.data.packing import POSITIONS, SEGMENTS
from tunesmith.errors import ModelError
from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.layout import layout_of
from tunesmith.models.network import Network
from tunesmith.models.new_tokens import widen
from tunesmith.models.resolve import weights_folder
from tunesmith.models.saving import save_model
from tunesmith.models.segments import apart, keeps_apart
from tunesmith.models.text import TextProcessor, load_processor
from tunesmith.seeds import torch_seed

CAUSAL_SUFFIX, MASKED_SUFFIX = "ForCausalLM", "ForMaskedLM"


class LanguageNetwork(Network):
    """A vocabulary of outputs for every token: which token follows, or which one is hidden."""

    causal: bool

    def __init__(self, model: PreTrainedModel, processor: TextProcessor) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.layout = layout_of(model.base_model, f"model.{model.base_model_prefix}")
        self.fresh = frozenset()
        self.per_token = True

    @property
    def output(self) -> nn.Linear | None:
        return None

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.get_submodule(self.layout.body)(**self._given(inputs)).last_hidden_state

    def classify(self, features: Tensor) -> Tensor:
        head = self.model.get_output_embeddings()
        assert head is not None
        return head(features)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**self._given(inputs)).logits

    def _given(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """The model's own arguments; of packed rows those that keep each segment to itself."""
        if SEGMENTS not in inputs:
            return inputs
        body = self.model.base_model
        kept = {name: value for name, value in inputs.items() if name not in (SEGMENTS, POSITIONS, "attention_mask")}
        return kept | apart(body, self.causal, inputs[SEGMENTS], inputs[POSITIONS])

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        save_model(self.model, self.processor, {}, folder, limit)
        suffix = CAUSAL_SUFFIX if self.causal else MASKED_SUFFIX
        return f'opens with AutoModel{suffix}.from_pretrained("{folder}")'


class CausalNetwork(LanguageNetwork):
    """The family's own ForCausalLM: an output for every token, of which token follows."""

    causal = True


class MaskedNetwork(LanguageNetwork):
    """The family's own ForMaskedLM: an output for every token, of which token stands there."""

    causal = False

    def classify(self, features: Tensor) -> Tensor:
        raise AssertionError("a masked language model's head is more than one linear map: call the network")


def causal_network(backbone: Backbone) -> CausalNetwork:
    """The family's language model with the weights of its checkpoint. Raises ModelError where there is none."""
    network = CausalNetwork(_read(backbone, CAUSAL_SUFFIX)[0], backbone.processor)
    network.source = backbone.source
    return network.eval()


def masked_network(backbone: Backbone, seed: int) -> MaskedNetwork:
    """The family's masked language model; what the checkpoint lacks of its head is drawn from `seed`, tied where it is tied.

    Raises ModelError where the family has none.
    """
    with torch_seed(seed, "head"):
        model, missing = _read(backbone, MASKED_SUFFIX)
    network = MaskedNetwork(model, backbone.processor)
    network.source = backbone.source
    names = {name for name, _ in network.named_parameters()}
    network.fresh = frozenset({f"model.{name}" for name in missing} & names)
    return network.eval()


def _read(backbone: Backbone, suffix: str) -> tuple[PreTrainedModel, set[str]]:
    """The family's model of this kind and the names of the weights that its checkpoint lacks."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    config = copy.deepcopy(backbone.module.config)
    causal = suffix == CAUSAL_SUFFIX
    if type(config) not in (MODEL_FOR_CAUSAL_LM_MAPPING if causal else MODEL_FOR_MASKED_LM_MAPPING):
        kind = "causal" if causal else "masked"
        raise ModelError(f'{backbone.source.name}: transformers has no {kind} language model for "{config.model_type}"')
    family: Any = getattr(transformers, f"AutoModel{suffix}")
    with quiet():
        model, report = family.from_pretrained(
            weights_folder(backbone.source.folder), config=config, dtype=torch.float32, use_safetensors=True,
            local_files_only=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    widen(model, backbone.processor.added)
    return model, set(report["missing_keys"])


def load_language(folder: Path, config: PreTrainedConfig) -> LanguageNetwork:
    """What `LanguageNetwork.save` wrote."""
    import transformers

    causal = any(name.endswith(CAUSAL_SUFFIX) for name in config.architectures or ())
    family: Any = getattr(transformers, f"AutoModel{CAUSAL_SUFFIX if causal else MASKED_SUFFIX}")
    model = family.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    kind = CausalNetwork if causal else MaskedNetwork
    return kind(model, load_processor(folder, model)).eval()


def can_pack(network: Network, limit: int) -> bool:
    """Whether two rows in one window of `limit` tokens give what each gives alone: tried, since families differ."""
    if not isinstance(network, LanguageNetwork):
        return False
    return keeps_apart(network.model.base_model, network.causal, network.processor.ordinary_tokens, limit)
