"""A base that gives one vector for each text of a row: what is trained where similar texts shall have similar vectors."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.models.backbone import Backbone, quiet
from tunesmith.models.layout import layout_of
from tunesmith.models.network import Network, take_pooler
from tunesmith.models.pooling import Pooling
from tunesmith.models.saving import save_model, save_sentence_modules
from tunesmith.models.static import StaticModel
from tunesmith.models.text import TextProcessor


class EmbeddingNetwork(Network):
    """The base's body and its declared pooling, and nothing on top. Saved as a sentence-transformers folder.

    A row may have any number of texts, each read on its own; all rows of a batch have as many.
    """

    def __init__(self, body: PreTrainedModel, pooling: Pooling, processor: TextProcessor) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.processor = processor
        self.unused = take_pooler(body)  # trained by nobody, and written back, so that the folder stays whole
        self.layout = layout_of(body, "body")
        self.fresh = frozenset()

    @property
    def output(self) -> None:
        return None

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [texts, tokens] -> [texts, width]."""
        hidden = self.body(**inputs).last_hidden_state  # [texts, tokens, width]
        return self.pooling(hidden, inputs["attention_mask"])

    def classify(self, features: Tensor) -> Tensor:
        return features

    def save(self, folder: Path, labels: tuple[str, ...], limit: int) -> str:
        save_model(self.body, self.processor, self.unused, folder, limit)
        first = "StaticEmbedding" if isinstance(self.body, StaticModel) else "Transformer"
        save_sentence_modules(folder, first, self.pooling, self.layout.width, None, self.text.lower, limit)
        said = f'opens with SentenceTransformer("{folder}"): encode(texts) gives the vectors'
        if self.text.skipped is not None and not self.pooling.normalize:
            said += "; there a word without a vector counts in the mean as zeros, here it is left out"
        return said


def embedding_network(backbone: Backbone) -> EmbeddingNetwork:
    """The backbone with its declared pooling, else the mean over the tokens. The weights are copied."""
    with quiet():
        body = copy.deepcopy(backbone.module)
        pooling = Pooling("mean") if backbone.pooling is None else backbone.pooling
        network = EmbeddingNetwork(body, pooling, backbone.text)
    network.source = backbone.source
    return network.eval()
