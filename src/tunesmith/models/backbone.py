"""The pretrained base: its weights, its tokenizer, and what it declares of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.errors import ModelError, Problems
from tunesmith.models.casting import align
from tunesmith.models.layout import has_batch_norms, layout_of
from tunesmith.models.pooling import Pooling, declared_pooling
from tunesmith.models.processor import Processor
from tunesmith.models.resolve import Source, static_part, weights_folder
from tunesmith.models.static import load_static
from tunesmith.models.text import TOKENIZER_FILES, TextProcessor, first_line, load_processor
from tunesmith.models.vision import PIXELS, load_image_processor


@dataclass
class Backbone:
    """A pretrained model of text or pictures without any head; of an encoder-decoder, its encoder."""

    module: PreTrainedModel  # float32, evaluation mode; its config says is_encoder_decoder of an encoder alone too
    processor: Processor
    pooling: Pooling | None  # what a sentence encoder declares; None where nothing is declared
    source: Source
    fresh: tuple[str, ...]  # parameters of `module` that the checkpoint does not hold, so are random
    static: bool = False  # whether `module` is a table of word vectors alone
    notes: tuple[str, ...] = ()  # lines to print: how it was read

    @property
    def text(self) -> TextProcessor:
        """`processor` of a base that reads texts."""
        assert isinstance(self.processor, TextProcessor), "a base of pictures reads no text"
        return self.processor

    @property
    def family(self) -> str:
        """What kind of model it is, as a person calls it."""
        return "word vectors" if self.static else f'"{self.module.config.model_type}"'

    @property
    def width(self) -> int:
        """Values that leave the base for each token, or place of a picture."""
        own = getattr(self.module.config, "hidden_size", None)
        return own if isinstance(own, int) else layout_of(self.module, "").width

    @property
    def rate_width(self) -> int | None:
        """The width that default rates are scaled by; None for a base with batch norms.

        These divide by what a layer gives, so that neither its size nor its width says how far a weight must move.
        """
        return None if has_batch_norms(self.module) else self.width

    def drop_weights(self) -> None:
        """Gives their memory back; for who has a network, which holds weights of its own. Shapes and config stay."""
        nn.Module.to(self.module, "meta")


def load_backbone(source: Source, dropout: float | None = None) -> Backbone:
    """Reads config, weights and tokenizer (or image processor) of a base; `dropout` overrides every rate in the config.

    Of word vectors: table and tokenizer; `dropout` is then of the head's input.

    Of an encoder-decoder the encoder alone is read. Raises ModelError, with every problem found, for a folder without
    tokenizer, for what is no text model, and for weights that do not fit the config.
    """
    if source.folder.is_file() or static_part(source.folder) is not None:
        read = load_static(source.folder, dropout)
        return Backbone(read.module, read.processor, read.pooling, source, (), static=True, notes=read.notes)
    folder = weights_folder(source.folder)
    with quiet():
        config = read_config(folder, source.name)
        problems = Problems()
        kind = _no_base(config, source.name)
        if kind is not None:
            problems.add(kind)
        pictures = kind is None and _main_input(config) == PIXELS
        if not pictures and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            problems.add(
                f"{folder}: no tokenizer; looked for {', '.join(TOKENIZER_FILES)}; "
                "copy the tokenizer files of the base model into this folder"
            )
        problems.raise_as(ModelError)
        pooling = None if pictures else declared_pooling(source.folder)
        if dropout is not None:
            _set_dropout(config, dropout)
        if pictures:
            notes = () if dropout is not None else _share_dropped(config)
            sized = load_image_processor(folder, config)
            module, fresh = _read_module(config, folder, source.name)
            align(module)
            return Backbone(module, sized, None, source, fresh, notes=(*sized.notes, *notes))
        module, fresh = _read_module(config, folder, source.name)
        processor = load_processor(folder, module)
        processor.apart = pooling is not None
    return Backbone(module=module, processor=processor, pooling=pooling, source=source, fresh=fresh)


def _set_dropout(config: PreTrainedConfig, rate: float) -> None:
    """Every dropout rate by the names that transformers' text configs use."""
    for name in vars(config):
        if name.endswith(("dropout", "dropout_prob", "dropout_rate", "_pdrop")) or name in (
            "seq_classif_dropout",
            "pooler_dropout",
        ):
            setattr(config, name, rate)


def _share_dropped(config: PreTrainedConfig) -> tuple[str, ...]:
    """MobileNet's configs hold the share that TensorFlow's dropout keeps (0.8, 0.999), where torch takes the one it drops."""
    kept = getattr(config, "classifier_dropout_prob", 0.0)
    if config.model_type not in ("mobilenet_v1", "mobilenet_v2") or kept <= 0.5:
        return ()
    config.classifier_dropout_prob = round(1 - kept, 6)
    said = f"classifier_dropout_prob = {kept:g} in config.json is the share kept, as in TensorFlow"
    return (f"{said}: {config.classifier_dropout_prob:g} is dropped",)


def read_config(folder: Path, name: str) -> PreTrainedConfig:
    """The config of a folder, without running code from it. Raises ModelError."""
    from transformers import AutoConfig, __version__

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # ValueError, KeyError, OSError, StrictDataclass errors: all mean an unusable config
        raise ModelError(
            f"{name}: config.json is not understood by transformers {__version__} ({first_line(error)}); "
            "a newer transformers may know this architecture: pip install --upgrade transformers"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers prints no load report, warning or progress bar; outside, it does what it did."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)  # above every warning and error report
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _read_module(config: PreTrainedConfig, folder: Path, name: str) -> tuple[PreTrainedModel, tuple[str, ...]]:
    from transformers import AutoModel

    from tunesmith.models.encoder_part import read_encoder

    config.use_cache = False  # a row is read once, so there is nothing to remember between calls
    config.output_hidden_states = False
    config.output_attentions = False
    try:
        if config.is_encoder_decoder:
            module, report = read_encoder(folder, config)
        else:
            module, report = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # else it raises with the sizes in a report that is not printed
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # SafetensorError for bytes, OSError for files, ValueError for what a config asks
        raise ModelError(f"{name}: the weights cannot be read ({first_line(error)}); fetch the folder again") from None
    other = sorted(report["mismatched_keys"])
    if other:
        key, stored, expected = other[0]
        raise ModelError(
            f"{name}: {len(other)} weights do not fit config.json (the first, {key}, is {list(stored)} in the checkpoint "
            f"and {list(expected)} by config.json); fetch config.json and weights of one model"
        )
    present = {key for key, _ in module.named_parameters()}
    fresh = tuple(sorted(present & set(report["missing_keys"])))
    if fresh:
        _only_tail_is_fresh(module, fresh, name)
    return module.eval(), fresh


def _only_tail_is_fresh(module: nn.Module, fresh: tuple[str, ...], name: str) -> None:
    tail = tuple(f"{part}." for part in layout_of(module, "").tail)
    lost = [key for key in fresh if not key.startswith(tail)]
    if lost:
        raise ModelError(
            f"{name}: the checkpoint lacks {len(lost)} of the base's weights ({', '.join(lost[:3])}"
            f"{', ...' if len(lost) > 3 else ''}); expected all but a pooler's; fetch the whole folder again"
        )


def _no_base(config: PreTrainedConfig, name: str) -> str | None:
    """Why a config is not that of a text encoder or decoder or a vision model, and what would do; None when it is one."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    kind = config.model_type
    would_do = (
        "choose a text encoder (bert, roberta, modernbert, a sentence encoder), a decoder (llama, qwen3, gpt2) or an "
        "encoder-decoder (t5, bart)"
    )
    parts = [part for part in ("vision_config", "audio_config") if getattr(config, part, None) is not None]
    if parts:
        return f'{name}: "{kind}" takes more than text ({", ".join(parts)} in config.json); {would_do}'
    if type(config) not in MODEL_MAPPING:
        return f'{name}: "{kind}" has no base model in transformers; {would_do}'
    takes = _main_input(config)
    if takes == "input_ids" or (takes == PIXELS and type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING):
        return None
    words = {"pixel_values": "a vision model", "input_values": "a speech model", "input_features": "a speech model"}
    return f'{name}: "{kind}" is {words.get(takes, "not a text model")} (it takes {takes}); {would_do}'


def _main_input(config: PreTrainedConfig) -> str:
    from transformers import MODEL_MAPPING

    found: Any = MODEL_MAPPING[type(config)]
    return (found[0] if isinstance(found, tuple) else found).main_input_name
