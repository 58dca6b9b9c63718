"""A saved network read back: whatever `Network.save` of any kind wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tunesmith.errors import ArtifactError, TunesmithError
from tunesmith.models.backbone import quiet, read_config
from tunesmith.models.casting import align
from tunesmith.models.network import (
    IMAGE,
    PAIR_HEAD,
    PER_TOKEN,
    SEQUENCE,
    SPAN,
    TOKEN,
    Network,
    PairNetwork,
    PooledNetwork,
    TransformersNetwork,
)
from tunesmith.models.pooling import Pooling, declared_pooling
from tunesmith.models.resolve import static_part
from tunesmith.models.static import load_static
from tunesmith.models.text import TextProcessor, load_processor
from tunesmith.models.vision import load_image_processor


class Declared(NamedTuple):
    """The head that a checkpoint comes with."""

    kind: str  # SEQUENCE, TOKEN, SPAN or IMAGE
    names: tuple[str, ...]  # of its outputs
    problem: str  # what they are, by transformers' names (problem_type); "" where it is not said


def declared_head(folder: Path) -> Declared | None:
    """The head that a model's folder says it holds, by its files alone; None where `load_network` reads none of that."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config.get("id2label", {})
        names = tuple(str(named[str(place)]) for place in range(len(named)))
        classes = [str(name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if config.get("is_encoder_decoder"):
        return None
    kind = next((kind for kind in (SEQUENCE, *PER_TOKEN, IMAGE) for name in classes if name.endswith(kind)), None)
    if (folder / "modules.json").is_file():
        kind = SEQUENCE if _has_head(folder) else None
    return None if kind is None else Declared(kind, names, str(config.get("problem_type") or ""))


def load_network(folder: Path) -> tuple[Network, tuple[str, ...]]:
    """What `Network.save` wrote, in evaluation mode, and its labels.

    Raises ArtifactError where something of it is not there, does not fit, or belongs to another model.
    """
    from transformers import (
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    from tunesmith.models import encoder_part
    from tunesmith.models.embedding import EmbeddingNetwork
    from tunesmith.models.language import language_kind, load_language
    from tunesmith.models.sequence import is_sequence, load_sequence

    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: holds no saved model (no config.json); give the folder that a run calls model/")
    pooled = (folder / "modules.json").is_file()
    try:
        if static_part(folder) is not None:
            return _load_static(folder)
        with quiet():
            config = read_config(folder, str(folder))
            if is_sequence(config):
                return load_sequence(folder, config), ()
            language = language_kind(config)
            if language is not None:
                return load_language(folder, config, language), ()
            saved = next(
                (kind for kind in (*PER_TOKEN, IMAGE) for name in config.architectures or () if name.endswith(kind)),
                None,
            )
            kind = SEQUENCE if saved is None else saved
            kinds: dict[str, Any] = {
                SEQUENCE: AutoModelForSequenceClassification,
                TOKEN: AutoModelForTokenClassification,
                SPAN: AutoModelForQuestionAnswering,
                IMAGE: AutoModelForImageClassification,
            }
            family = AutoModel if pooled else kinds[kind]
            names: Any = config.id2label
            labels = tuple(names[index] for index in range(len(names)))
            if config.is_encoder_decoder:
                model, report = encoder_part.read_encoder(folder, config)
            else:
                model, report = family.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,  # a pickle can run code when it is read
                    ignore_mismatched_sizes=True,  # else it raises with the sizes in a report that is not printed
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            _all_read(report, folder)
            if kind == IMAGE:
                align(model)
                return TransformersNetwork(model, load_image_processor(folder, config), kind).eval(), labels
            processor = load_processor(folder, model)
            if config.is_encoder_decoder and not pooled:
                return encoder_part.load_part(folder, model, labels, processor).eval(), labels
            pooling = declared_pooling(folder) if pooled else None
            if pooling is None:
                return TransformersNetwork(model, processor, kind).eval(), labels
            if not _has_head(folder):
                return EmbeddingNetwork(model, pooling, processor).eval(), ()
            return _load_pooled(folder, model, pooling, labels, processor), labels
    except ArtifactError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration, SafetensorError, TunesmithError) as error:
        raise ArtifactError(f"{folder}: the saved model cannot be read ({error}); save it again from the run") from None


def _load_static(folder: Path) -> tuple[Network, tuple[str, ...]]:
    from tunesmith.models.embedding import EmbeddingNetwork

    read = load_static(folder)
    if not _has_head(folder):
        return EmbeddingNetwork(read.module, read.pooling, read.processor).eval(), ()
    names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    labels = tuple(names[str(index)] for index in range(len(names)))
    return _load_pooled(folder, read.module, read.pooling, labels, read.processor), labels


def _all_read(report: dict[str, Any], folder: Path) -> None:
    """Raises ArtifactError where transformers drew weights anew or left some out, which it only logs."""
    kinds = {"missing": "missing_keys", "of another shape than config.json says": "mismatched_keys"}
    kinds["of another model"] = "unexpected_keys"
    problems = []
    for said, kind in kinds.items():
        found = sorted(key if isinstance(key, str) else key[0] for key in report[kind])
        if found:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            problems.append(
                f"{folder}: the saved model cannot be read ({len(found)} of its weights are {said}: {shown}); "
                "save it again from the run"
            )
    if problems:
        raise ArtifactError(*problems)


def _has_head(folder: Path) -> bool:
    """Whether a sentence-transformers folder of ours goes on after the vectors."""
    return (folder / PAIR_HEAD).is_file() or any(folder.glob("*_Dense"))


def _load_pooled(
    folder: Path, body: PreTrainedModel, pooling: Pooling, labels: tuple[str, ...], processor: TextProcessor
) -> Network:
    pair = (folder / PAIR_HEAD).is_file()
    weights = load_file(
        folder / PAIR_HEAD if pair else next(iter(sorted(folder.glob("*_Dense")))) / "model.safetensors"
    )
    head = {name.removeprefix("linear."): value for name, value in weights.items()}
    processor.apart = pair
    kind = PairNetwork if pair else PooledNetwork
    network = kind(body, pooling, labels, processor, head["weight"].shape[1])
    expected = network.layout.width * (PairNetwork.PARTS if pair else 1)
    if expected != network.head.in_features:
        raise ValueError(f"the head takes {network.head.in_features} values, and the base gives {expected}")
    network.head.load_state_dict(head)
    return network.eval()
