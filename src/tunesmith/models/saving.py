"""What a saved network looks like on the disk: safetensors in float32, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.backbone import quiet
from tunesmith.models.pooling import Pooling, pooling_config
from tunesmith.models.processor import Processor

IDENTITY = "torch.nn.modules.linear.Identity"


def save_model(
    model: PreTrainedModel,
    processor: Processor,
    further: dict[str, Tensor],
    folder: Path,
    limit: int,
    whole: bool = False,
) -> None:
    """Config, weights and tokenizer as transformers writes them; `further` weights are added under their names.

    Of an encoder-decoder `model` is the encoder, unless it is `whole`. The saved tokenizer cuts at `limit` tokens, special
    ones included.
    """
    from tunesmith.models.encoder_part import write_encoder

    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        if model.config.is_encoder_decoder and not whole:
            write_encoder(model, further, folder)
        else:
            model.save_pretrained(folder, state_dict={**float32(model.state_dict()), **further})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # else a model trained in bfloat16 would be cast down again when it is opened
    write_json(folder / "config.json", config)
    processor.save(folder, limit)


def save_sentence_modules(
    folder: Path, first: str, pooling: Pooling, width: int, head: nn.Linear | None, lower: bool, limit: int
) -> None:
    """Makes a folder of `save_model` one of sentence-transformers: what follows the model, each in its folder.

    `first` is what the model is there: "Transformer", or "StaticEmbedding", which takes the mean by itself. `width` is
    that of the pooled vectors; without a `head` they are what comes out. `lower`: whether texts are put into lower case
    ahead of the tokenizer; `limit`: tokens at which they are cut.
    """
    static = first == "StaticEmbedding"
    chain = [("", first)] if static else [("", first), ("1_Pooling", "Pooling")]
    normalize = f"{len(chain)}_Normalize"
    chain += [(normalize, "Normalize")] if pooling.normalize else []
    dense = f"{len(chain)}_Dense"
    chain += [] if head is None else [(dense, "Dense")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(chain)
    ]
    write_json(folder / "modules.json", modules)
    if not static:
        write_json(folder / "1_Pooling" / "config.json", pooling_config(pooling, width))
        sentence = {"max_seq_length": limit, "do_lower_case": lower}
        write_json(folder / "sentence_bert_config.json", sentence)
    if pooling.normalize:
        (folder / normalize).mkdir(exist_ok=True)
    if head is None:
        return
    plain = {"in_features": width, "out_features": head.out_features, "bias": True, "activation_function": IDENTITY}
    write_json(folder / dense / "config.json", plain)
    weights = {f"linear.{name}": value for name, value in float32(head.state_dict()).items()}
    save_file(weights, folder / dense / "model.safetensors", metadata={"format": "pt"})


def readable(folder: Path) -> None:
    """Lets everyone read the weights, as every other file: safetensors writes them for their owner alone."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights on the CPU, numbers in float32; what is that already is not copied."""
    return {
        name: (value.detach().float() if value.is_floating_point() else value.detach()).cpu().contiguous()
        for name, value in state.items()
    }


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, in folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
