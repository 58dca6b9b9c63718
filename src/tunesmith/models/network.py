"""A base with a classifier on it: two forms, each saved so that its own family of tools opens it."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.attention import suit_attention
from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.casting import cast
from tunesmith.models.compiled import CompiledBlocks
from tunesmith.models.dropout import suit_dropout
from tunesmith.models.fused import WORTH_FUSING, FusedEncoder, KeptForward, fused_forward
from tunesmith.models.layout import Layout, example_inputs, layout_of
from tunesmith.models.pooling import Pooling
from tunesmith.models.processor import Processor
from tunesmith.models.resolve import Source
from tunesmith.models.saving import float32, save_model, save_sentence_modules
from tunesmith.models.static import StaticModel
from tunesmith.models.taps import Reached, last_steps, leave_at
from tunesmith.models.text import TextProcessor
from tunesmith.models.unpadded import leave_filler_out, other_hooks
from tunesmith.seeds import torch_seed

NO_CLASS = -1e4  # the logit of a class that is not there
PAIR_HEAD = "pair_head.safetensors"
SEQUENCE, TOKEN, SPAN = "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"
IMAGE = "ForImageClassification"
PER_TOKEN = (TOKEN, SPAN)  # transformers' classes, by their suffixes, with an output for every token
# What the outputs are, by transformers' names.
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
OUTPUTS: dict[Problem, str] = {
    "single_label_classification": "a score for each class, the highest being the one that is said (no probabilities)",
    "multi_label_classification": "a score for each label, of which a sigmoid makes its probability",
    "regression": "the predicted numbers, standardised where tunesmith.json says so",
}


class Network(nn.Module, ABC):
    """What is trained: inputs to logits, in two halves, so that what is frozen can be computed once.

    `fresh` names the parameters that start untrained: the head, and a pooler that the checkpoint lacks. `source` is
    where the base came from; None for a network that was read back whole.
    """

    layout: Layout
    processor: Processor
    fresh: frozenset[str]
    source: Source | None = None
    writes: bool = False  # whether its outputs are the whole vocabulary, so that no token may be missing
    pretrained: bool = True  # whether what is not `fresh` still is, or was, what a checkpoint held
    lazy: bool = False  # whether training is given `LazyLogits` in the place of outputs
    tells: bool = False  # whether in training the features are given beside the logits: see `told`
    unkept: str = ""  # why what leaves frozen blocks cannot be kept, where the network knows that
    per_token: bool = False  # whether features and outputs are one a token, [rows, tokens, ...], or one a row
    joins: bool = False  # whether filler is left out of its blocks in training in float32 too, where it can be
    _joining_tried: bool = False  # whether it was found out if it can be
    compiled: CompiledBlocks | None = None  # the forwards that its blocks have in training, where these are compiled
    lowers: bool = False  # whether it may predict with everything before `last` in bfloat16: see `lower`

    @property
    @abstractmethod
    def output(self) -> nn.Linear | None:
        """The last linear map, width -> labels; None where there is none that could be fitted to features alone."""

    @property
    def last(self) -> nn.Linear:
        """`output` of a network that has one."""
        output = self.output
        assert output is not None, f"{type(self).__name__} has no last linear map"
        return output

    @property
    def text(self) -> TextProcessor:
        """`processor` of a network that reads texts."""
        assert isinstance(self.processor, TextProcessor), f"{type(self).__name__} reads no text"
        return self.processor

    @property
    def sample(self) -> nn.Parameter:
        """Any of the parameters: all stand on one device, and in one number format but for `last` after `lower`."""
        return next(self.parameters())

    @abstractmethod
    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> [rows, width]: what reaches `output`, before dropout.

        [rows, tokens, width] where outputs are one a token; so in all that follows.
        """

    def base_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> [rows, width]: what the pretrained base alone gives, with nothing untrained.

        `features` where everything before `output` is pretrained, else the mean of the body's last hidden states over
        the real tokens; the width may then be another than that of `features`.
        """
        return self.features(inputs)

    def cosine(self, features: Tensor) -> Tensor | None:
        """[rows, ...] features -> [rows] the base's own similarity of a row's two texts; None where it has none."""
        return None

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """[rows, width] -> [rows, labels]: dropout, then `output`."""

    @abstractmethod
    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        """Writes float32 safetensors, config and tokenizer into `folder`; returns one line that says how it opens.

        `limit` is how many tokens of a text the model was trained and measured with: other tools then cut there too.
        """

    def train(self, mode: bool = True) -> Self:
        """The mode of every module, and the forms of attention, dropout and rows that suit it."""
        if mode:
            suit_dropout(self)
        super().train(mode)
        if self.compiled is not None:
            self.compiled.switch(mode)
        body = self.get_submodule(self.layout.body)
        if suit_attention(body, mode, self.joins) and mode and not self._joining_tried:
            self._joining_tried = True
            leave_filler_out(body, tuple(self.get_submodule(name) for name in self.layout.blocks))
        return self

    def lower(self) -> None:
        """For prediction alone: all that comes before the last linear map in bfloat16, which itself stays in float32.

        In bfloat16 scores would be rounded to three digits, so that many of them were equal.
        """
        cast(self, torch.bfloat16, (self.last,))

    @contextmanager
    def fused(self, inputs: dict[str, Tensor], rows: int, kept: KeptForward | None = None) -> Iterator[None]:
        """Inside, evaluation is by a `FusedEncoder` where there is one and so many rows to come are worth it.

        It is checked on `inputs`, each [rows, tokens], and holds the weights as they are: none may change meanwhile.
        `kept` is for who comes again, and counts the rows of all its calls.
        """
        yield

    @property
    def recomputable(self) -> bool:
        """Whether recomputing activations saves any: in blocks in which something trains, of a family that can."""
        body, blocks = self.get_submodule(self.layout.body), map(self.get_submodule, self.layout.blocks)
        trains = any(value.requires_grad for block in blocks for value in block.parameters())
        return isinstance(body, PreTrainedModel) and body.supports_gradient_checkpointing and trains

    def recompute_activations(self) -> None:
        """Activation checkpointing in every block: less memory in training, more time. Raises ModelError where it cannot."""
        body = self.get_submodule(self.layout.body)
        assert isinstance(body, PreTrainedModel)
        if isinstance(body, StaticModel):
            raise ModelError("training.checkpointing: word vectors have no blocks to recompute; leave it out")
        if not body.supports_gradient_checkpointing:
            kind = body.config.model_type
            raise ModelError(f'training.checkpointing: transformers cannot recompute blocks of "{kind}"; leave it out')
        with warnings.catch_warnings():  # later versions of transformers have another name for it
            warnings.simplefilter("ignore", FutureWarning)
            body.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> logits [rows, labels]."""
        return self.told(self.features(inputs))

    def told(self, features: Tensor) -> Tensor:
        """[rows, width] -> logits [rows, labels]; in training, of a network that `tells`, [rows, 2, longer of both].

        The first are then the logits, filled up with what no softmax sees; the second the features, filled up with 0.
        """
        logits = self.classify(features)
        if not (self.tells and self.training):
            return logits
        longer = max(logits.shape[-1], features.shape[-1])
        filled = nn.functional.pad(logits.float(), (0, longer - logits.shape[-1]), value=NO_CLASS)
        return torch.stack([filled, nn.functional.pad(features.float(), (0, longer - features.shape[-1]))], dim=1)


class EncoderNetwork(Network, ABC):
    """A sentence encoder's body and declared pooling, and one linear map. Saved as a sentence-transformers folder."""

    lowers = True

    def __init__(
        self, body: PreTrainedModel, pooling: Pooling, labels: tuple[str, ...], processor: TextProcessor, width: int
    ) -> None:
        """`width` is that of what reaches the head."""
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.processor: TextProcessor = processor
        self.unused = take_pooler(body)  # trained by nobody, and written back, so that the folder stays whole
        self.dropout = nn.Dropout(_dropout_rate(body.config))
        self.head = nn.Linear(width, len(labels))
        self.layout = layout_of(body, "body")
        self.fresh = frozenset()
        self._fused: FusedEncoder | None = None
        name_labels(body.config, labels)

    @property
    def output(self) -> nn.Linear:
        return self.head

    def vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [texts, tokens] -> [texts, width]"""
        fused = None if self.training or other_hooks(self.body.modules()) else self._fused
        hidden = self.body(**inputs).last_hidden_state if fused is None else fused(inputs)  # [texts, tokens, width]
        return self.pooling(hidden, inputs["attention_mask"])

    @contextmanager
    def fused(self, inputs: dict[str, Tensor], rows: int, kept: KeptForward | None = None) -> Iterator[None]:
        if kept is not None:
            self._fused = kept.of(self.body, inputs, rows, WORTH_FUSING)
        else:
            self._fused = fused_forward(self.body, inputs) if rows >= WORTH_FUSING else None
        try:
            yield
        finally:
            self._fused = None

    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features.to(self.head.weight.dtype)))


class PooledNetwork(EncoderNetwork):
    """One text a row: the head reads its vector."""

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.vectors(inputs)

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        name_labels(self.body.config, labels)
        save_model(self.body, self.processor, self.unused, folder, limit)
        first = "StaticEmbedding" if isinstance(self.body, StaticModel) else "Transformer"
        save_sentence_modules(folder, first, self.pooling, self.layout.width, self.head, self.processor.lower, limit)
        said = f'opens with SentenceTransformer("{folder}"): encode(texts) gives the raw outputs of each text: '
        said += OUTPUTS[self.body.config.problem_type or "single_label_classification"]
        if self.processor.skipped is not None and not self.pooling.normalize:
            said += "; there a word without a vector counts in the mean as zeros, here it is left out"
        return said


class PairNetwork(EncoderNetwork):
    """Two texts a row, each encoded on its own as the base was trained to; the head reads both vectors and how they differ.

    Measured with MiniLM on STS-B, frozen: Spearman 0.831 on these features against 0.467 on both texts joined into one,
    and 0.820 for the base's own cosine (docs/log.md). After Reimers 2019, section 3.1, with the product beside.
    """

    PARTS = 4

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [2 rows, tokens], all first texts and then all second ones -> [rows, 4 width]."""
        vectors = self.vectors(inputs)
        one, two = nn.functional.normalize(vectors.float(), dim=-1).chunk(2)  # each [rows, width]
        product = one * two * one.shape[-1] ** 0.5  # of about the length of the others; its sum tells the cosine
        return torch.cat([one, two, (one - two).abs(), product], dim=-1).to(vectors.dtype)

    def cosine(self, features: Tensor) -> Tensor:
        width = features.shape[-1] // self.PARTS
        return features[:, -width:].sum(dim=-1) / width**0.5

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        name_labels(self.body.config, labels)
        save_model(self.body, self.processor, self.unused, folder, limit)
        first = "StaticEmbedding" if isinstance(self.body, StaticModel) else "Transformer"
        save_sentence_modules(folder, first, self.pooling, self.layout.width, None, self.processor.lower, limit)
        save_file(float32(self.head.state_dict()), folder / PAIR_HEAD, metadata={"format": "pt"})
        return (
            f'opens with tunesmith.load("{folder}"), which reads pairs; SentenceTransformer("{folder}") gives the vector of '
            f"each text, and {PAIR_HEAD} holds the linear map over both vectors, their difference and their product"
        )


class TransformersNetwork(Network):
    """The family's own classifier of whole texts or of each token, or its finder of spans. Saved as transformers saves it."""

    def __init__(self, model: PreTrainedModel, processor: Processor, kind: str = SEQUENCE) -> None:
        """`kind` is the suffix of transformers' auto class for it."""
        super().__init__()
        self.model = model
        self.kind = kind
        self.processor = processor
        self.layout = layout_of(model.base_model, f"model.{model.base_model_prefix}")
        self.output_name, self.dropout_name, self.turn = last_steps(model)
        self.fresh = frozenset()
        self.per_token = kind in PER_TOKEN
        self.lowers = kind != SPAN  # where a span begins and ends is chosen among hundreds of nearly equal scores

    @property
    def output(self) -> nn.Linear | None:
        """None of spans: their probabilities are over the tokens of a window together, not of each by itself."""
        return None if self.kind == SPAN else self.last

    @property
    def last(self) -> nn.Linear:
        found = self.model.get_submodule(self.output_name)
        assert isinstance(found, nn.Linear)
        return found

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        # The family's own forward decides what its head reads; it is left at the door of its last steps.
        tap = self.model.get_submodule(self.output_name if self.dropout_name is None else self.dropout_name)
        handle = tap.register_forward_pre_hook(leave_at(self.turn))
        try:
            self.model(**self.processor.ready(inputs, self.sample))
        except Reached as reached:
            features = reached.value
        else:
            raise RuntimeError(f"{type(self.model).__name__} did not reach its {self.output_name}")
        finally:
            handle.remove()
        if features.dim() == 2 or self.per_token:
            return features  # [rows, width], or [rows, tokens, width]
        # Decoders classify every token and keep the last that is not filler; the rule is transformers' own.
        ids = inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device)
        last = (positions * (ids != self.processor.pad["input_ids"])).argmax(dim=1)  # [rows]
        return features[torch.arange(len(ids), device=ids.device), last]

    def base_features(self, inputs: dict[str, Tensor]) -> Tensor:
        if self.fresh <= {f"model.{self.output_name}.{name}" for name, _ in self.last.named_parameters()}:
            return self.features(inputs)
        given = self.processor.ready(inputs, self.sample)
        hidden = self.get_submodule(self.layout.body)(**given).last_hidden_state  # [rows, tokens, width]
        if self.processor.pictures:
            return hidden.flatten(2).mean(-1) if hidden.dim() == 4 else hidden.mean(1)
        if self.per_token:
            return hidden
        return Pooling("mean")(hidden, inputs["attention_mask"])

    def classify(self, features: Tensor) -> Tensor:
        if self.dropout_name is not None:
            features = self.model.get_submodule(self.dropout_name)(features)
        return self.last(features.to(self.last.weight.dtype))

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        name_labels(self.model.config, labels)
        save_model(self.model, self.processor, {}, folder, limit)
        said = f'opens with AutoModel{self.kind}.from_pretrained("{folder}")'
        joins = '; pipeline("token-classification", aggregation_strategy="first") joins the pieces of a word'
        return said + joins if self.kind == TOKEN else said


def sequence_network(backbone: Backbone, labels: tuple[str, ...], problem: Problem, pair: bool, seed: int) -> Network:
    """The backbone with a head for `labels`, drawn from `seed`. The weights are copied: the backbone stays as it is.

    A declared pooling is kept (measured: the wrong one costs 40 points); else the family's own classifier is used,
    and mean pooling where transformers has none for it, and on the encoder of an encoder-decoder.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    from tunesmith.models.encoder_part import part_network

    kind = type(backbone.module.config)
    with quiet(), torch_seed(seed, "head"):
        if backbone.pooling is None and backbone.module.config.is_encoder_decoder:
            return part_network(backbone, labels, problem, "mean")
        if backbone.pooling is None and kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return _transformers_network(backbone, labels, problem, AutoModelForSequenceClassification, SEQUENCE)
        body, processor = copy.deepcopy(backbone.module), backbone.processor
        assert isinstance(processor, TextProcessor)
        pooling = Pooling("mean") if backbone.pooling is None else backbone.pooling
        width = layout_of(body, "").width
        if pair and backbone.pooling is not None:
            network = PairNetwork(body, pooling, labels, processor, PairNetwork.PARTS * width)
        else:
            network = PooledNetwork(body, pooling, labels, processor, width)
        body.config.problem_type = problem
        nn.init.normal_(network.head.weight, std=0.02)
        nn.init.zeros_(network.head.bias)
    present = {name for name, _ in body.named_parameters()}
    network.source = backbone.source
    network.fresh = frozenset({"head.weight", "head.bias"} | {f"body.{name}" for name in present & set(backbone.fresh)})
    return network.eval()


def token_network(backbone: Backbone, labels: tuple[str, ...], seed: int) -> Network:
    """The backbone with the family's own head for `labels` on every token, drawn from `seed`. The weights are copied.

    An encoder-decoder's encoder gets a linear map of ours. A declared pooling plays no part: it makes one vector of a text.
    Raises ModelError where transformers has no such head.
    """
    from transformers import AutoModelForTokenClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

    from tunesmith.models.encoder_part import part_network

    config = backbone.module.config
    if config.is_encoder_decoder:
        with quiet(), torch_seed(seed, "head"):
            return part_network(backbone, labels, None, "token")
    if type(config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{backbone.source.name}: transformers has no classifier of tokens for {backbone.family}; choose another base, "
            "such as bert, roberta, deberta-v2, modernbert, llama or qwen3"
        )
    with quiet(), torch_seed(seed, "head"):
        return _transformers_network(backbone, labels, None, AutoModelForTokenClassification, TOKEN)


def span_network(backbone: Backbone, labels: tuple[str, ...], seed: int) -> Network:
    """The backbone with the family's own two outputs a token, for where a span starts and ends, drawn from `seed`.

    The weights are copied; a declared pooling plays no part. Raises ModelError where transformers has no such head, and
    for an encoder-decoder, whose own head reads the decoder's tokens.
    """
    from transformers import AutoModelForQuestionAnswering
    from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING

    config = backbone.module.config
    if type(config) not in MODEL_FOR_QUESTION_ANSWERING_MAPPING or config.is_encoder_decoder:
        raise ModelError(
            f"{backbone.source.name}: there is no head for spans on {backbone.family}; choose another base, such as "
            "bert, roberta, deberta-v2, modernbert, llama or qwen3"
        )
    with quiet(), torch_seed(seed, "head"):
        return _transformers_network(backbone, labels, None, AutoModelForQuestionAnswering, SPAN)


def image_network(backbone: Backbone, labels: tuple[str, ...], seed: int) -> Network:
    """The backbone with the family's own head for `labels`, drawn from `seed`. The weights are copied."""
    from transformers import AutoModelForImageClassification

    with quiet(), torch_seed(seed, "head"):
        return _transformers_network(
            backbone, labels, "single_label_classification", AutoModelForImageClassification, IMAGE
        )


def _transformers_network(
    backbone: Backbone, labels: tuple[str, ...], problem: Problem | None, family: Any, kind: str
) -> TransformersNetwork:
    """`family` is transformers' auto class of the head, `kind` its suffix; `problem` None: a head on every token."""
    config = copy.deepcopy(backbone.module.config)
    name_labels(config, labels)
    if problem is not None:
        config.problem_type = problem
    if not backbone.processor.pictures:
        config.pad_token_id = backbone.processor.pad["input_ids"]
    model = family.from_config(config, dtype=torch.float32).eval()
    base = model.base_model
    given = backbone.module.state_dict()  # may hold more than the classifier's base: a pooler that it does not use
    base.load_state_dict({name: given[name] for name in base.state_dict()})
    network = TransformersNetwork(model, backbone.processor, kind)
    network.source = backbone.source
    body = f"{network.layout.body}."
    missing = {f"{body}{name}" for name in backbone.fresh}
    network.fresh = frozenset(
        name for name, _ in network.named_parameters() if name in missing or not name.startswith(body)
    )
    return network.eval()


def take_pooler(body: PreTrainedModel) -> dict[str, Tensor]:
    """Takes an unused pooler off the body, since it would never get a gradient, and returns its weights."""
    pooler: nn.Module | None = getattr(body, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return {}
    body.register_module("pooler", None)
    try:
        with torch.no_grad():
            body(**example_inputs(body))
    except (AttributeError, TypeError):  # this family calls its pooler whatever it is
        body.register_module("pooler", pooler)
        return {}
    return {f"pooler.{name}": value for name, value in float32(pooler.state_dict()).items()}


def _dropout_rate(config: PreTrainedConfig) -> float:
    """The rate that transformers' classifiers take: classifier_dropout, else hidden_dropout_prob, else none."""
    for name in ("classifier_dropout", "hidden_dropout_prob"):
        rate = getattr(config, name, None)
        if rate is not None:
            return float(rate)
    return 0.0


def name_labels(config: PreTrainedConfig, labels: tuple[str, ...]) -> None:
    """Writes into a config what its model's outputs are called."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
