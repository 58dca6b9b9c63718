"""What a sentence encoder says of the test rows without having seen one label: whose name is nearest to the text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Example, collate
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.verdict import PHRASES, ZERO_SHOT
from tunesmith.preparing import Prepared
from tunesmith.tasks._classes import ClassTask
from tunesmith.tasks.base import Prediction
from tunesmith.tasks.few_shot import spoken_name
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.training.trunk import pooled_features
from tunesmith.zero_shot.common import scored, unspoken

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network

TEMPLATE = "This is about {}."  # what is compared with a text, for each label
SHARPNESS = 20.0  # of the softmax over cosines: sentence-transformers' own scale, 1 / 0.05
AT_ONCE = 64  # names


def zero_shot(
    prepared: Prepared, backbone: Backbone, before: Network, features: Mapping[str, Tensor], limit: int
) -> tuple[Baseline | None, str]:
    """The rival on the test rows, or why there is none; "" where there is nothing to say.

    features: split -> [rows, width], the vectors of "test" and, where there are any, "validation" rows. `before` is the
    untouched network. Classes: softmax of cosines; several labels: the cosine from 0 to 1, said from the thresholds that
    validation rows settle.
    """
    import torch
    from torch.nn.functional import normalize

    task, labels = prepared.task, prepared.labels
    if not isinstance(task, ClassTask | Multilabel) or task.reads_pictures:
        return None, ""
    if (refused := _refused(prepared, backbone, features)) is not None:
        return None, f"not compared with the labels' names alone (zero-shot): {refused}"
    begun = time.perf_counter()
    names = [TEMPLATE.format(spoken_name(name)) for name in labels.names]
    vectors = normalize(_vectors(names, backbone, before, limit), dim=1)

    def told(split: str) -> list[Prediction]:
        cosines = normalize(features[split], dim=1) @ vectors.T  # [rows, labels]
        evidence = (1 + cosines) / 2 if isinstance(task, Multilabel) else torch.softmax(SHARPNESS * cosines, dim=1)
        return task.predictions(evidence.tolist(), range(len(evidence)), labels)

    scores = scored(prepared, labels, told("test"), told("validation") if "validation" in features else None)
    return Baseline(ZERO_SHOT, PHRASES[ZERO_SHOT], scores, time.perf_counter() - begun), ""


def _refused(prepared: Prepared, backbone: Backbone, features: Mapping[str, Tensor]) -> str | None:
    if backbone.pooling is None:
        return "the base is no sentence encoder, so that its vectors of texts and of names are not made to be compared"
    if prepared.columns.pair is not None:
        return "a row has two texts"
    if why := unspoken(prepared.labels.names):
        return why
    if isinstance(prepared.task, Multilabel) and "validation" not in features:
        return "there are no validation rows to settle thresholds on"
    return None


def _vectors(texts: Sequence[str], backbone: Backbone, before: Network, limit: int) -> Tensor:
    """[texts, width] float32 on the CPU.

    By the base as it was read, whose vocabulary is whole: a network in training may lack tokens that no row has.
    """
    import torch

    encoded = backbone.text.encode_all(texts, limit)
    examples = [Example(row, inputs, None, cut) for row, (inputs, cut) in enumerate(encoded)]
    pad, device = backbone.processor.pad, backbone.module.device
    if device.type == "meta":  # a method that alters the base: `before` is the base, read once more
        return pooled_features(before, examples, pad)
    assert backbone.pooling is not None
    found = []
    with torch.no_grad():
        for start in range(0, len(examples), AT_ONCE):
            inputs = collate(examples[start : start + AT_ONCE], pad, str(device)).inputs
            hidden = backbone.module(**inputs).last_hidden_state  # [texts, tokens, width]
            found.append(backbone.pooling(hidden, inputs["attention_mask"]).float().cpu())
    return torch.cat(found)
