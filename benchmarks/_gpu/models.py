"""Models with random weights, made on the device they run on; and what they compute at least."""

from __future__ import annotations

from typing import Any

import torch

from tunesmith.data.packing import PAD
from tunesmith.methods.base import Method
from tunesmith.methods.full import Full
from tunesmith.methods.lora import Lora
from tunesmith.models.language import CausalNetwork
from tunesmith.models.network import Network, PooledNetwork
from tunesmith.models.pooling import Pooling
from tunesmith.models.text import TextProcessor
from tunesmith.seeds import torch_seed

from .rows import CLASSES, SEED
from .works import DECODER, ENCODER, Job, Shape

RANK, ALPHA, DROPOUT = 16, 32.0, 0.05  # of LoRA, on every side
FILLER = {"input_ids": 0, "attention_mask": 0}
PASSES = {"full": 3.0, "lora": 2.0}  # forward, gradients of inputs, and of the weights where they train


def config_of(shape: Shape) -> Any:
    from transformers import BertConfig, LlamaConfig

    if shape.kind == ENCODER:
        return BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.blocks,
            num_attention_heads=shape.heads,
            intermediate_size=shape.inner,
            max_position_embeddings=shape.positions,
            num_labels=CLASSES,
        )
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=shape.tied,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
    )


def model_of(shape: Shape, device: str, dtype: torch.dtype) -> Any:
    """transformers' own class: a classifier of texts, or a causal language model. The same weights every time."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    family = AutoModelForCausalLM if shape.kind == DECODER else AutoModelForSequenceClassification
    with torch_seed(SEED, "weights"), torch.device(device):
        return family.from_config(config_of(shape), dtype=dtype, attn_implementation="sdpa")


def network_of(shape: Shape, device: str) -> Network:
    """Tunesmith's float32 network, the same every time; of an encoder with the pooling that MiniLM declares."""
    processor = TextProcessor(None, shape.positions, "", _filler(shape), shape.positions)  # type: ignore[arg-type]
    model = model_of(shape, device, torch.float32)
    if shape.kind == DECODER:
        return CausalNetwork(model, processor).eval()
    names = tuple(str(number) for number in range(CLASSES))
    with torch_seed(SEED, "head"):
        network = PooledNetwork(model.bert, Pooling("mean", normalize=True), names, processor, shape.width)
    network.fresh = frozenset({"head.weight", "head.bias"})
    return network.to(device).eval()


def pad_of(shape: Shape) -> dict[str, int]:
    """Fillers of the inputs of `rows.examples`."""
    return _filler(shape) | (PAD if shape.kind == DECODER else {})


def _filler(shape: Shape) -> dict[str, int]:
    return FILLER | ({"token_type_ids": 0} if shape.kind == ENCODER else {})


def method_of(job: Job) -> Method:
    return Full() if job.method == "full" else Lora(rank=RANK, alpha=ALPHA, dropout=DROPOUT)


def block_weights(shape: Shape) -> int:
    """Numbers in the matrices of all blocks."""
    keys = shape.width // shape.heads * shape.key_heads
    maps = 3 if shape.kind == DECODER else 2
    return shape.blocks * (2 * shape.width * (shape.width + keys) + maps * shape.width * shape.inner)


def floating_operations(shape: Shape, method: str, tokens: int, pairs: int) -> float:
    """What a training step takes at least: products of matrices, and attention; nothing computed twice, no filler.

    Kaplan 2020, "Scaling laws for neural language models", section 2.1: 2 operations a weight and token in the forward
    pass, as many for gradients of inputs, and for those of weights. A decoder looks at half of all `pairs` of tokens.
    """
    output = shape.vocabulary * shape.width if shape.kind == DECODER else 0
    products = 2.0 * (block_weights(shape) + output) * tokens * PASSES[method]
    seen = pairs / 2 if shape.kind == DECODER else pairs
    return products + 3 * 4.0 * shape.blocks * shape.width * seen
