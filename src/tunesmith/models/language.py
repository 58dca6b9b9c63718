"""Language models: the family's own, with the head that its checkpoint has."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.layout import layout_of
from tunesmith.models.network import Network
from tunesmith.models.resolve import weights_folder
from tunesmith.models.saving import save_model
from tunesmith.models.text import TextProcessor, load_processor
from tunesmith.seeds import torch_seed


class CausalNetwork(Network):
    """The family's own ForCausalLM: an output for every token, of which token follows."""

    def __init__(self, model: PreTrainedModel, processor: TextProcessor) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.layout = layout_of(model.base_model, f"model.{model.base_model_prefix}")
        self.fresh = frozenset()
        self.per_token = True
        self.writes = True

    @property
    def output(self) -> nn.Linear | None:
        return None

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.get_submodule(self.layout.body)(**inputs).last_hidden_state

    def classify(self, features: Tensor) -> Tensor:
        head = self.model.get_output_embeddings()
        assert head is not None
        return head(features)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**inputs).logits

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        save_model(self.model, self.processor, {}, folder, limit)
        return f'opens with AutoModelForCausalLM.from_pretrained("{folder}")'


def causal_network(backbone: Backbone, seed: int) -> CausalNetwork:
    """The family's language model with the weights of its checkpoint; a head that it lacks is drawn from `seed`.

    Raises ModelError where the family has no such model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = copy.deepcopy(backbone.module.config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f'{backbone.source.name}: transformers has no language model that goes on with texts for "{config.model_type}"; '
            "choose a decoder, such as llama, qwen3 or gpt2"
        )
    family: Any = AutoModelForCausalLM
    with quiet(), torch_seed(seed, "head"):
        model, report = family.from_pretrained(
            weights_folder(backbone.source.folder),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    network = CausalNetwork(model.eval(), backbone.processor)
    network.source = backbone.source
    lacking = {f"model.{name}" for name in report["missing_keys"]}
    network.fresh = frozenset(name for name, _ in network.named_parameters() if name in lacking)
    return network.eval()


def load_causal(folder: Path, config: PreTrainedConfig) -> CausalNetwork:
    """What `CausalNetwork.save` wrote, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return CausalNetwork(model, load_processor(folder, model)).eval()
