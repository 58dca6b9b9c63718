"""The encoder of an encoder-decoder by itself: read without its decoder, with a linear map of ours, saved and read back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.models.backbone import Backbone
from tunesmith.models.layout import layout_of
from tunesmith.models.network import EncoderNetwork, Network, Problem, name_labels
from tunesmith.models.pooling import Pooling
from tunesmith.models.saving import float32, save_model
from tunesmith.models.text import TextProcessor

HEAD = "encoder_head.safetensors"
READS = "reads"  # in the head's metadata: what it is a map of
MEAN, TOKEN = "mean", "token"
# Families with a class of their encoder alone; of any other the whole model is made, and its decoder left.
ALONE = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
}


class EncoderPartNetwork(EncoderNetwork):
    """A linear map over the mean of the encoder's hidden states, or over each token's."""

    def __init__(
        self, body: PreTrainedModel, labels: tuple[str, ...], processor: TextProcessor, width: int, reads: str
    ) -> None:
        """`reads` is MEAN or TOKEN."""
        super().__init__(body, Pooling("mean"), labels, processor, width)
        self.per_token = reads == TOKEN

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.body(**inputs).last_hidden_state if self.per_token else self.vectors(inputs)

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        name_labels(self.body.config, labels)
        save_model(self.body, self.processor, {}, folder, limit)
        metadata = {"format": "pt", READS: TOKEN if self.per_token else MEAN}
        save_file(float32(self.head.state_dict()), folder / HEAD, metadata=metadata)
        of = "each token's" if self.per_token else "the mean of all tokens'"
        return (
            f'opens with tunesmith.load("{folder}"); {class_name(self.body.config)}.from_pretrained("{folder}")'
            f".get_encoder() gives the hidden states, and {HEAD} holds the linear map over {of}"
        )


def part_network(backbone: Backbone, labels: tuple[str, ...], problem: Problem | None, reads: str) -> Network:
    """The encoder of `backbone` with a linear map for `labels`, from torch's own random state. `reads`: MEAN or TOKEN."""
    body = copy.deepcopy(backbone.module)
    body.config.problem_type = problem
    network = EncoderPartNetwork(body, labels, backbone.text, layout_of(body, "").width, reads)
    nn.init.normal_(network.head.weight, std=0.02)
    nn.init.zeros_(network.head.bias)
    network.source = backbone.source
    network.fresh = frozenset({"head.weight", "head.bias"} | {f"body.{name}" for name in backbone.fresh})
    return network.eval()


def class_name(config: PreTrainedConfig) -> str:
    """transformers' class that holds the encoder."""
    return ALONE.get(config.model_type, "AutoModel")


def read_encoder(folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The encoder in a folder of a whole encoder-decoder, or of its encoder alone, and what transformers says of reading it.

    Names in the report are those inside the encoder; what is said of a decoder or a head is left out. The encoder is
    float32. Raises what transformers raises.
    """
    family: Any = getattr(transformers, class_name(config))
    whole, report = family.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    encoder = whole.get_encoder()
    encoder.config.is_encoder_decoder = True  # which a class of the encoder alone takes back
    inside = set(encoder.state_dict())

    def of_encoder(keys: Any) -> list[Any]:
        named = [(key if isinstance(key, str) else key[0], key) for key in keys]
        kept = [(name.rpartition("encoder.")[2], key) for name, key in named if "decoder." not in name]
        return [name if isinstance(key, str) else (name, *key[1:]) for name, key in kept if name in inside]

    told = {kind: of_encoder(report[kind]) for kind in ("missing_keys", "mismatched_keys")}
    return encoder, {**told, "unexpected_keys": []}


def encoder_state(body: PreTrainedModel) -> dict[str, Tensor]:
    """The encoder's weights by the names that the whole model has for them."""
    state = {f"encoder.{name}": value for name, value in float32(body.state_dict()).items()}
    # The table is shared with the decoder, under a name of its own.
    return {
        ("shared.weight" if name == "encoder.embed_tokens.weight" else name): value for name, value in state.items()
    }


def write_encoder(body: PreTrainedModel, further: dict[str, Tensor], folder: Path) -> None:
    """config.json and model.safetensors, which `class_name` and `read_encoder` open."""
    body.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [ALONE.get(body.config.model_type, type(body).__name__)]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({**encoder_state(body), **further}, folder / "model.safetensors", metadata={"format": "pt"})


def load_part(
    folder: Path, body: PreTrainedModel, labels: tuple[str, ...], processor: TextProcessor
) -> EncoderPartNetwork:
    """What `EncoderPartNetwork.save` wrote beside the encoder. Raises ValueError where it does not fit."""
    with safe_open(folder / HEAD, "pt") as file:
        reads = file.metadata()[READS]
    head = load_file(folder / HEAD)
    network = EncoderPartNetwork(body, labels, processor, head["weight"].shape[1], reads)
    if network.layout.width != network.head.in_features:
        raise ValueError(f"the head takes {network.head.in_features} values, and the base gives {network.layout.width}")
    network.head.load_state_dict(head)
    return network
