"""A language model asked in words, with nothing trained: which label's name is likely behind a text?"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.assembly import put_beside
from tunesmith.data.stored import measures
from tunesmith.errors import ModelError
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.verdict import PHRASES, PROMPT
from tunesmith.models.resolve import kind_of
from tunesmith.preparing import Encoded, Prepared
from tunesmith.seeds import seed_of
from tunesmith.tasks._classes import ClassTask
from tunesmith.tasks.few_shot import spoken_name
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.zero_shot.common import check_room, scored, unspoken
from tunesmith.zero_shot.questions import content_free, endings_of, masked_of, names_at_masks, prompts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from tunesmith.data.encode import Text
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.language import CausalNetwork, MaskedNetwork

SHARE = 0.1  # of what training reads, that a rival may read: all evidence together is to stay within a quarter
# Floating-point operations it may take anyway: some five seconds of a CPU core, or a GPU.
CPU_WORK, GPU_WORK = (7.5e10, 1e15)
TRIED = 3  # endings by which is seen, with two prompts, whether kept keys and values tell the same
USUAL = 100  # training texts, without their labels, by which is seen what the base says whatever it reads


class Likely(NamedTuple):
    """Log likelihoods in nats, each [texts, labels] float64."""

    asked: Tensor  # of the texts to be told
    usual: Tensor  # of training texts
    free: Tensor  # of texts that say nothing


def prompted(
    prepared: Prepared, encoded: Encoded, backbone: Backbone, device: torch.device, seed: int, training: float
) -> tuple[Baseline | None, str]:
    """The rival on the test rows, or why there is none; "" where there is nothing to say.

    training: what training is expected to cost, in tokens that the whole base reads once.
    A causal language model is asked how likely each label's name is behind the text, a masked one how likely its tokens
    are at masks there (Schick and Schuetze 2021, "Exploiting Cloze Questions"). What is likely whatever the text says is
    taken out: see `calibrated`. Only a base whose checkpoint holds the head is asked. Of several labels the thresholds are
    those that validation rows settle.
    """
    task, labels, kind = prepared.task, prepared.labels, kind_of(backbone.source)
    if not isinstance(task, ClassTask | Multilabel) or task.reads_pictures or kind not in ("decoder", "encoder"):
        return None, ""
    if backbone.pooling is not None:
        return None, ""  # a sentence encoder is asked by its vectors
    several = isinstance(task, Multilabel)
    begun = time.perf_counter()
    try:
        check_room(backbone)
        network = _language_model(backbone, kind, seed_of(seed, "asked"))
        if network is None:
            return None, ""
        _check(prepared, several)
        likely = _asked(
            network, prepared, encoded, ("validation", "test") if several else ("test",), device, seed, training
        )
    except ModelError as error:
        return None, f"the base is not asked in words: {'; '.join(error.problems)}"
    evidence, tested = (informed if several else calibrated)(likely).tolist(), len(prepared.splits.test)
    found = task.predictions(evidence[-tested:], range(tested), labels)
    held = task.predictions(evidence[:-tested], range(len(evidence) - tested), labels) if several else None
    scores = scored(prepared, labels, found, held)
    return Baseline(PROMPT, PHRASES[PROMPT], scores, time.perf_counter() - begun), ""


def calibrated(likely: Likely) -> Tensor:
    """[texts, labels] probabilities: each label's probability among the labels, divided by what it usually is.

    The usual one is the geometric mean of two: that for texts that say nothing (contextual calibration, Zhao 2021,
    "Calibrate Before Use", section 5), which a text's style can mislead, and that over training texts without their labels
    (Zhou 2024, "Batch Calibration", section 3), which takes all labels to be as frequent. Measured, their mean is the best
    of the three where labels are even and uneven alike (docs/log.md). The length of a name needs no norm beside that: a
    longer name is less likely in all of them.
    """
    import torch

    usual = 0.5 * (_mean(likely.free.log_softmax(1)) + _mean(likely.usual.log_softmax(1)))
    return torch.softmax(likely.asked - usual, dim=1)


def informed(likely: Likely) -> Tensor:
    """As `calibrated`, each label by itself: the sigmoid of the pointwise mutual information of its name and the text.

    Holtzman 2021, "Surface Form Competition", section 3.
    """
    import torch

    return torch.sigmoid(likely.asked - 0.5 * (_mean(likely.free) + _mean(likely.usual)))


def _mean(likely: Tensor) -> Tensor:
    """[texts, labels] -> [labels] the logarithm of the mean likelihood"""
    return likely.logsumexp(0) - math.log(len(likely))


def _check(prepared: Prepared, several: bool) -> None:
    """Raises ModelError where the question cannot be put."""
    if why := unspoken(prepared.labels.names):
        raise ModelError(why)
    if several and len(prepared.splits.validation) == 0:
        raise ModelError("there are no validation rows to settle thresholds on")


def _language_model(backbone: Backbone, kind: str, seed: int) -> CausalNetwork | MaskedNetwork | None:
    """The base with the head of its own checkpoint; None where that holds none, or not all of it."""
    from tunesmith.models.language import causal_network, masked_network

    network = (causal_network if kind == "decoder" else masked_network)(backbone, seed)
    return None if network.fresh else network


def _asked(
    network: CausalNetwork | MaskedNetwork,
    prepared: Prepared,
    encoded: Encoded,
    splits: Sequence[str],
    device: torch.device,
    seed: int,
    training: float,
) -> Likely:
    """Of the rows of `splits`, one after another. Raises ModelError where the base cannot be asked at a fair cost."""
    from tunesmith.models.language import CausalNetwork, MaskedNetwork

    texts = [text for split in splits for text in prepared.texts(split)]
    train, names = prepared.texts("train"), [spoken_name(name) for name in prepared.labels.names]
    drawn = random.Random(seed_of(seed, "usual")).sample(range(len(train)), min(USUAL, len(train)))
    usual, free = [train[row] for row in drawn], content_free(texts, isinstance(network, MaskedNetwork))
    work = CPU_WORK if device.type == "cpu" else GPU_WORK
    room = max(int(SHARE * training), int(work / (2 * _read_by(network))))
    every = [*texts, *usual, *free]
    lengths = [length for split in splits for length in _lengths(prepared, encoded, split)]
    of_train = _lengths(prepared, encoded, "train")
    lengths += [*(of_train[row] for row in drawn), *[0] * len(free)]
    known = [max(0, length - network.text.special) for length in lengths]
    if isinstance(network, CausalNetwork):
        found = _endings(network, every, known, names, encoded.limit, room, device)
    else:
        found = _masks(network, every, known, names, encoded.limit, room, device)
    if not bool(found.isfinite().all()):
        raise ModelError("what it says is not finite")
    return Likely(found[: len(texts)], found[len(texts) : -len(free)], found[-len(free) :])


def _lengths(prepared: Prepared, encoded: Encoded, split: str) -> list[int]:
    """Tokens of each row as it was encoded; 0 where a row is no single example."""
    rows, found = len(prepared.table(split)), measures(encoded.examples[split]).lengths.tolist()
    return found if len(found) == rows else [0] * rows


def _read_by(network: CausalNetwork | MaskedNetwork) -> int:
    """The weights that a token is multiplied with: all but tables that are looked up."""
    from torch import nn

    tables = [module for module in network.body.modules() if isinstance(module, nn.Embedding)]
    looked_up = {id(value) for table in tables for value in table.parameters()}
    return max(1, sum(value.numel() for value in network.body.parameters() if id(value) not in looked_up))


def _endings(
    network: CausalNetwork,
    texts: Sequence[Text],
    known: Sequence[int],
    names: Sequence[str],
    limit: int,
    room: int,
    device: torch.device,
) -> Tensor:
    """known: tokens of each text, as far as they are known before it is written into a prompt."""
    from tunesmith.models.lazy_logits import lazy_fits
    from tunesmith.models.likelihood import ending_likelihoods, keeps_exactly, tokens_after, tokens_read

    if why := lazy_fits(network):
        raise ModelError(why)
    endings = endings_of(network.text, names)
    after, longest = tokens_after(endings), max(map(len, endings))  # a prompt leaves room for its longest ending
    # Text that says nothing is asked about too, so that all prompts share the marks before them, and next to no text.
    _affordable(sum(max(1, own - longest) + after for own in known), room, len(texts), len(names))
    asked = prompts_of(network.text, texts, names, limit)
    _affordable(tokens_read(asked.prompts, asked.endings), room, len(texts), len(names))
    longest = sorted(asked.endings, key=len)[-TRIED:]
    by_length = sorted(asked.prompts, key=len)  # what is kept may be another beyond so many tokens: sliding windows
    kept = keeps_exactly(network, [by_length[0], by_length[-1]], longest)
    _affordable(tokens_read(asked.prompts, asked.endings, kept), room, len(texts), len(names))
    put_beside(network, device)
    return ending_likelihoods(network, asked.prompts, asked.endings, kept)


def _masks(
    network: MaskedNetwork,
    texts: Sequence[Text],
    known: Sequence[int],
    names: Sequence[str],
    limit: int,
    room: int,
    device: torch.device,
) -> Tensor:
    """known: as of `_endings`."""
    import torch

    from tunesmith.models.likelihood import masked_likelihoods

    words = names_at_masks(network.text, names)
    counts = sorted({len(word) for word in words})
    around = network.text.special + counts[-1]  # masks take at most so much of a text's room
    _affordable(sum(max(count, own - around) for count in counts for own in known), room, len(texts), len(names))
    asked = {count: masked_of(network.text, texts, count, limit) for count in counts}
    read = sum(len(item.inputs["input_ids"]) for items in asked.values() for item in items)
    _affordable(read, room, len(texts), len(names))
    put_beside(network, device)
    found = torch.zeros(len(texts), len(words), dtype=torch.float64)
    for count, items in asked.items():
        places = [place for place, word in enumerate(words) if len(word) == count]
        found[:, places] = masked_likelihoods(network, items, [words[place] for place in places])
    return found


def _affordable(tokens: int, room: int, rows: int, names: int) -> None:
    """Raises ModelError where more would be read than a cheap rival may cost."""
    if tokens > room:
        raise ModelError(
            f"{rows:,} rows and {names} labels are {tokens:,} tokens to read or more, where a rival may read {room:,}: a "
            "tenth of what training is expected to read, or a few seconds' worth"
        )
