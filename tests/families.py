"""Tiny random models of many families, each a folder like a real one: config, safetensors, a working tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = (
    "the a of to and in is it you that was for on are with as his they be at one have this from or had by hot word "
    "but what some we can out other were all there when up use your how said an each she which do their time if "
    "will way about many then them write would like so these her long make thing see him two has look more day "
    "could go come did number sound no most people my over know water than call first who may down side been now "
    "find any new work part take get place made live where after back little only round man year came show every "
    "good me give our under bad great poor card bank lost money film "
)
WORDS = tuple(TEXT.split())
WIDTH = 32
LAYERS = 3


def _wordpiece() -> Any:
    """A WordPiece tokenizer over WORDS and single letters, that wraps a text in [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *WORDS])
    vocab = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _byte_pairs(wrapped: bool) -> Any:
    """Byte-level BPE. `wrapped` (roberta, modernbert): <s> and </s> around a text, and a token for filler.

    Without (gpt2, llama, qwen3) there is only an end of text, and nothing is put around a text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if wrapped else ["<|endoftext|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = sorted({letter for word in WORDS for letter in word} | {"Ġ"})
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator([" ".join(WORDS)], trainer)
    if not wrapped:
        return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", model_max_length=64)
    core.post_processor = processors.RobertaProcessing(
        ("</s>", core.token_to_id("</s>")), ("<s>", core.token_to_id("<s>")), add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
    )


def _encoder_config(kind: str) -> Any:
    import transformers as t

    plain = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 220,
    }
    if kind == "bert":
        return t.BertConfig(**plain, max_position_embeddings=80)
    if kind == "roberta":
        return t.RobertaConfig(**plain, max_position_embeddings=82, type_vocab_size=1)
    if kind == "mpnet":
        return t.MPNetConfig(**plain, max_position_embeddings=82, pad_token_id=1)
    if kind == "electra":
        return t.ElectraConfig(**plain, max_position_embeddings=80, embedding_size=16)
    if kind == "distilbert":
        return t.DistilBertConfig(
            dim=WIDTH, n_layers=LAYERS, n_heads=4, hidden_dim=48, vocab_size=220, max_position_embeddings=80
        )
    if kind == "deberta-v2":
        return t.DebertaV2Config(
            **plain,
            max_position_embeddings=80,
            relative_attention=True,
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            conv_kernel_size=3,
            conv_act="gelu",
            pooler_hidden_size=WIDTH,
        )
    assert kind == "modernbert"
    return t.ModernBertConfig(
        **plain,
        max_position_embeddings=80,
        local_attention=8,
        global_attn_every_n_layers=2,
        pad_token_id=1,
        bos_token_id=0,
        cls_token_id=0,
        eos_token_id=2,
        sep_token_id=2,
    )


def _decoder_config(kind: str) -> Any:
    import transformers as t

    if kind == "gpt2":
        return t.GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=80, vocab_size=220, bos_token_id=0, eos_token_id=0
        )
    plain = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 220,
        "max_position_embeddings": 80,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "head_dim": 8,
    }
    return t.LlamaConfig(**plain) if kind == "llama" else t.Qwen3Config(**plain)


def _write(folder: Path, config: Any, tokenizer: Any, family: str = "AutoModel") -> Path:
    import torch
    import transformers

    from tunesmith.models.backbone import quiet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = getattr(transformers, family).from_config(config, dtype=torch.float32)
        for parameter in model.parameters():  # zero biases and unit norms would hide a swapped or forgotten one
            parameter.data += 0.05 * torch.randn_like(parameter)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _encoder(kind: str, wordpiece: bool) -> Callable[[Path], Path]:
    return lambda folder: _write(folder, _encoder_config(kind), _wordpiece() if wordpiece else _byte_pairs(True))


def _decoder(kind: str) -> Callable[[Path], Path]:
    return lambda folder: _write(folder, _decoder_config(kind), _byte_pairs(False))


def _both(kind: str) -> Callable[[Path], Path]:
    """Encoder-decoders, as their whole checkpoints hold them."""
    import transformers as t

    ends = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    if kind == "t5":
        config = t.T5Config(
            d_model=WIDTH, num_layers=LAYERS, num_decoder_layers=2, num_heads=4, d_kv=8, d_ff=48, vocab_size=220, **ends
        )
    else:
        sides = {"layers": LAYERS, "attention_heads": 4, "ffn_dim": 48}
        parts = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
        config = t.BartConfig(d_model=WIDTH, vocab_size=220, max_position_embeddings=80, **parts, **ends)
    return lambda folder: _write(folder, config, _byte_pairs(True), "AutoModelForSeq2SeqLM")


def _sentence(folder: Path) -> Path:
    _write(folder, _encoder_config("bert"), _wordpiece())
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 48, "do_lower_case": False}), encoding="utf-8"
    )
    return folder


# name -> writes the model into an empty folder, and returns the folder
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "bert": _encoder("bert", True),
    "roberta": _encoder("roberta", False),
    "distilbert": _encoder("distilbert", True),
    "mpnet": _encoder("mpnet", False),
    "electra": _encoder("electra", True),
    "deberta-v2": _encoder("deberta-v2", True),
    "modernbert": _encoder("modernbert", False),
    "llama": _decoder("llama"),
    "qwen3": _decoder("qwen3"),
    "gpt2": _decoder("gpt2"),
    "t5": lambda folder: _both("t5")(folder),
    "bart": lambda folder: _both("bart")(folder),
    "sentence": _sentence,
}


# Families whose language model's outputs can be asked for words, once a head is saved with them.
DECODERS_WITH_HEADS = ("llama", "qwen3", "gpt2")
ENCODERS_WITH_HEADS = ("bert", "roberta", "distilbert", "mpnet", "electra", "modernbert", "deberta-v2")


def with_head(folder: Path, out: Path, family: str = "", labels: tuple[str, ...] = ()) -> Path:
    """A tiny model once more, into the empty folder `out`, with a random head of `family`, transformers' auto class.

    By default that of its language model. `labels`: what a classifier's outputs are called.
    """
    import torch
    import transformers

    from tunesmith.models.backbone import quiet

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = "AutoModelForCausalLM" if config.model_type in DECODERS_WITH_HEADS else "AutoModelForMaskedLM"
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {name: at for at, name in enumerate(labels)}
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(3)
        model = getattr(transformers, family if family else kind).from_pretrained(folder, config=config)
        for name, parameter in model.named_parameters():
            if not name.startswith(model.base_model_prefix):  # a head of small weights says the same of all
                parameter.data += 0.5 * torch.randn_like(parameter)
        model.save_pretrained(out)
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (out / path.name).write_bytes(path.read_bytes())
    return out


def _vision_config(kind: str) -> Any:
    import transformers as t

    plain = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    if kind == "vit":
        return t.ViTConfig(**plain, intermediate_size=48)
    if kind == "dinov2":
        return t.Dinov2Config(**plain, mlp_ratio=2)
    if kind == "convnext":
        return t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64)
    if kind == "mobilenet_v2":
        return t.MobileNetV2Config(depth_multiplier=0.25, image_size=32)
    if kind == "swin":
        return t.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=2
        )
    return t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], layer_type="basic")


VISION: tuple[str, ...] = ("vit", "dinov2", "convnext", "resnet", "mobilenet_v2", "swin")
NO_BIASES = ("modernbert", "llama", "qwen3", "t5")  # anywhere in their base
NO_INTERFACE = ("deberta-v2", "mpnet")  # whose attention in transformers is their own alone
NO_LINEARS = ("resnet", "mobilenet_v2")  # convolutions only, which low-rank maps are not put beside
# What T5's frozen blocks hand on is more than hidden states, and so is what swin's stages do; BART's encoder drops out
# embeddings outside its blocks.
NOT_REPLAYED = ("swin", "t5", "bart")


def vision_body(kind: str) -> Any:
    """A tiny random vision model, one of VISION, in evaluation mode."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModel.from_config(_vision_config(kind), dtype=torch.float32).eval()


_SQUARE = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
# As the families' own image processors are written; swin has none, as a base that somebody trained may.
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", **_SQUARE},
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    },
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "crop_pct": 0.875},
    "resnet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}},
    "mobilenet_v2": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    },
}


def _vision(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import torch

        from tunesmith.models.backbone import quiet

        body = vision_body(kind)
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for (
                parameter
            ) in body.parameters():  # as above; and small weights in many layers leave nothing to learn from
                fan = parameter[0].numel() if parameter.dim() > 1 else 400
                parameter += fan**-0.5 * torch.randn(parameter.shape, generator=draw)
        for name, value in body.state_dict().items():  # statistics of 0 and 1 would hide a batch norm that forgot them
            if name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn(value.shape, generator=draw))
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        with quiet():
            body.save_pretrained(folder)
        if kind in PROCESSORS:
            (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]), encoding="utf-8")
        return folder

    return write


# name -> writes the model into an empty folder, and returns the folder
VISION_FAMILIES: dict[str, Callable[[Path], Path]] = {kind: _vision(kind) for kind in VISION}


def static_table() -> Any:
    """[words, width] vectors for WORDS, always the same."""
    import torch

    return torch.randn(len(WORDS), WIDTH, generator=torch.Generator().manual_seed(3))


def _glove(folder: Path) -> Path:
    path = folder / "words.glove.txt"
    rows = zip(WORDS, static_table().tolist(), strict=True)
    lines = {word: " ".join([word, *(repr(value) for value in values)]) for word, values in rows}
    path.write_text("\n".join(lines.values()) + "\n", encoding="utf-8")
    return path


def _model2vec(folder: Path) -> Path:
    """A table of 40 vectors shared by all tokens, each with a weight of its own, beside a tokenizer with marks."""
    import torch
    from safetensors.torch import save_file

    tokenizer = _wordpiece().backend_tokenizer
    tokens = tokenizer.get_vocab_size()
    draw = torch.Generator().manual_seed(4)
    tensors = {
        "embeddings": torch.randn(40, WIDTH, generator=draw),
        "mapping": torch.randint(40, (tokens,), generator=draw, dtype=torch.int32),
        "weights": torch.rand(tokens, generator=draw, dtype=torch.float64),
    }
    save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    (folder / "config.json").write_text(json.dumps(declared), encoding="utf-8")
    return folder


# name -> writes word vectors into an empty folder, and returns the file or folder that is the model
STATIC: dict[str, Callable[[Path], Path]] = {"glove": _glove, "model2vec": _model2vec}
STATIC_METHODS = ("full", "head", "scratch")
