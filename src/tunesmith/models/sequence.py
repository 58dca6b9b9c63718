"""Encoder-decoders that write: the family's own model for sequence to sequence, saved so that it writes what was measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.layout import Layout, example_inputs, layout_of
from tunesmith.models.lazy_logits import VocabularyNetwork
from tunesmith.models.resolve import weights_folder
from tunesmith.models.saving import save_model
from tunesmith.models.taps import Reached, leave_at
from tunesmith.models.text import TextProcessor, load_processor
from tunesmith.seeds import torch_seed

NO_LABEL = -100  # what transformers takes for a token that is not learned
FITTING = "choose an encoder-decoder, such as t5, flan-t5, bart, pegasus or marian"


class SequenceNetwork(VocabularyNetwork):
    """The family's own ForConditionalGeneration: of every token to be written a vocabulary of outputs."""

    unkept = "the decoder reads what the encoder gives, so there is more than one place to keep"

    def __init__(self, model: PreTrainedModel, processor: TextProcessor) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.layout = sequence_layout(model)
        self.fresh = frozenset()
        self.per_token = True
        self.writes = True

    @property
    def output(self) -> nn.Linear | None:
        return None

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        raise AssertionError("an encoder-decoder has no features apart from what it writes: call the network")

    def classify(self, features: Tensor) -> Tensor:
        raise AssertionError("an encoder-decoder has no features apart from what it writes: call the network")

    def outputs(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [2 rows, tokens], all texts to read and then all texts to write -> [rows, written, vocabulary].

        At each place what should be written there, after the true tokens before it. `written`: tokens of the longest text
        to write, which is shorter than `tokens` where a text to read is longer.
        """
        read, read_mask, write, write_mask = sides(inputs)
        labels = write.masked_fill(write_mask == 0, NO_LABEL)
        return self.model(
            input_ids=read, attention_mask=read_mask, decoder_input_ids=_shifted(self.model, labels), use_cache=False
        ).logits

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        handle = self._head.register_forward_pre_hook(leave_at(0))
        try:
            self.outputs(inputs)
        except Reached as reached:
            return reached.value
        finally:
            handle.remove()
        raise RuntimeError("the forward ended without reaching its last linear map")

    def project(self, hidden: Tensor) -> Tensor:
        found = self._head(hidden)
        # Of bart, marian and pegasus: a buffer of [1, vocabulary].
        shift = getattr(self.model, "final_logits_bias", None)
        return found if shift is None else found + shift

    def outside(self) -> Sequence[Tensor]:
        return list(self._head.parameters())

    def example(self) -> dict[str, Tensor]:
        given = example_inputs(self.model.get_encoder())
        return {name: torch.cat([value, value]) for name, value in given.items()}

    @property
    def _head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        assert head is not None
        return head

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        save_model(self.model, self.processor, {}, folder, limit, whole=True)
        return f'opens with AutoModelForSeq2SeqLM.from_pretrained("{folder}"), whose generate() writes as measured'


def sides(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts to read and their mask, [rows, tokens], and texts to write and theirs, less what is filler in all rows."""
    found: list[Tensor] = []
    for ids, mask in zip(inputs["input_ids"].chunk(2), inputs["attention_mask"].chunk(2), strict=True):
        longest = int(mask.sum(1).max())
        found += [ids[:, :longest], mask[:, :longest]]
    return found[0], found[1], found[2], found[3]


def _shifted(model: PreTrainedModel, labels: Tensor) -> Tensor:
    """What the decoder reads to say `labels`: its start, and the tokens before each; by the family's own rule, if any."""
    own: Callable[..., Tensor] | None = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)
    read = torch.cat([torch.full_like(labels[:, :1], _start(model)), labels[:, :-1]], dim=1)
    filler: Any = model.config.pad_token_id
    return read.masked_fill(read == NO_LABEL, filler)


def _start(model: PreTrainedModel) -> int:
    """The token that a decoder starts from. Raises ModelError where nothing says which."""
    configs: tuple[Any, ...] = (model.generation_config, model.config)
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            found = getattr(config, name, None)
            if isinstance(found, int):
                return found
    raise ModelError("config.json names no token that the decoder starts from; set decoder_start_token_id there")


def sequence_network(backbone: Backbone, most: int, beams: int, seed: int) -> SequenceNetwork:
    """The family's model with the weights of its checkpoint; what that lacks of the head is drawn from `seed`.

    It writes at most `most` tokens, greedily or by so many `beams`; the base's own settings of writing (penalties of
    repetitions, least lengths) are those of another task, and are left away. Raises ModelError where the family has none.
    """
    from transformers import AutoModelForSeq2SeqLM

    config = copy.deepcopy(backbone.module.config)
    if type(config).model_type not in _families():
        raise ModelError(
            f'{backbone.source.name}: transformers has no sequence-to-sequence model for "{config.model_type}"; {FITTING}'
        )
    config.is_encoder_decoder = True  # which the encoder alone may have taken back
    config.use_cache = True  # in writing; training says otherwise itself
    with quiet(), torch_seed(seed, "head"):
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            weights_folder(backbone.source.folder), config=config, dtype=torch.float32, use_safetensors=True,
            local_files_only=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    processor = backbone.text
    model.generation_config = _settings(model, processor, min(most, processor.positions), beams)
    network = SequenceNetwork(model, processor)
    network.source = backbone.source
    lacking = {f"model.{name}" for name in report["missing_keys"]}
    network.fresh = frozenset(name for name, _ in network.named_parameters() if name in lacking)
    return network.eval()


def _settings(model: PreTrainedModel, processor: TextProcessor, most: int, beams: int) -> GenerationConfig:
    own: Any = model.generation_config
    # A first token that the base forces (a language, say) is right only where every text that is learned begins with it.
    (first, *_), _ = processor.targets(["a"], processor.positions)[0]
    forced = own.forced_bos_token_id if own.forced_bos_token_id == first else None
    ends = own.eos_token_id
    before = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    every = list(dict.fromkeys([*before, processor.end]))
    return GenerationConfig(
        max_new_tokens=most, do_sample=False, num_beams=beams, use_cache=True, pad_token_id=processor.pad["input_ids"],
        bos_token_id=own.bos_token_id, eos_token_id=every if len(every) > 1 else every[0],
        decoder_start_token_id=_start(model), forced_bos_token_id=forced,
    )  # fmt: skip


def sequence_layout(model: PreTrainedModel) -> Layout:
    """Encoder and decoder as one stack: its blocks, then those of the decoder, which read what all of the encoder gives.

    The names are those inside a network that calls the model `model`.
    """
    names = {id(module): name for name, module in model.named_modules()}
    encoder: Any = model.get_encoder()
    decoder: Any = model.get_decoder()

    def placed(module: nn.Module) -> str:
        name = names[id(module)]
        return f"model.{name}" if name else "model"

    given = example_inputs(encoder)
    with torch.no_grad():
        hidden = encoder(**given).last_hidden_state  # [1, tokens, width]
    reads = layout_of(encoder, placed(encoder))
    writes = layout_of(decoder, placed(decoder), {"input_ids": given["input_ids"], "encoder_hidden_states": hidden})
    table = placed(model.get_input_embeddings())
    before = (table, *reads.embeddings, *reads.tail, *writes.embeddings)  # the decoder's blocks depend on all of them
    return Layout(
        body=placed(model.base_model),
        blocks=(*reads.blocks, *writes.blocks),
        embeddings=tuple(dict.fromkeys(before)),
        linears=(*reads.linears, *writes.linears),
        norms=(*reads.norms, *writes.norms),
        tail=writes.tail,
        width=writes.width,
    )


def is_sequence(config: PreTrainedConfig) -> bool:
    """Whether a saved config is of a whole encoder-decoder that writes, by transformers' class names."""
    return bool(config.is_encoder_decoder and set(config.architectures or ()) & set(_families().values()))


def load_sequence(folder: Path, config: PreTrainedConfig) -> SequenceNetwork:
    """What `SequenceNetwork.save` wrote, in evaluation mode."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return SequenceNetwork(model, load_processor(folder, model)).eval()


def _families() -> dict[str, str]:
    """transformers' class for each model type."""
    from transformers.models.auto import modeling_auto

    found: Any = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    return {kind: name for kind, name in found.items() if isinstance(name, str)}
