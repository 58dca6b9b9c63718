"""A base that was fine-tuned before, by somebody, for the same labels: what it says with the head that it came with."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.assembly import put_beside
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.infer import infer
from tunesmith.evaluation.verdict import OWN_HEAD, PHRASES
from tunesmith.preparing import Encoded, Prepared
from tunesmith.tasks._classes import ClassTask
from tunesmith.tasks.base import Prediction, Task
from tunesmith.tasks.few_shot import spoken_name
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.zero_shot.common import check_room, scored

if TYPE_CHECKING:
    import torch

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.loading import Declared

NAMELESS = re.compile(r"(?i)label_\d+")  # what transformers calls outputs that nobody named
SYNONYMS = ", "  # between those of one class, in ImageNet's names


def own_head(
    prepared: Prepared, encoded: Encoded, backbone: Backbone, device: torch.device
) -> tuple[Baseline | None, str]:
    """The rival on the test rows, or why there is none; "" where there is nothing to say.

    Only a head whose outputs are what the rows are labelled with: every label must be the name of one of them, whatever its
    capitals. Outputs that no row has are left out. What the task settles on validation rows is settled for it too.
    """
    from tunesmith.models.loading import declared_head, load_network

    task, declared = prepared.task, declared_head(backbone.source.folder)
    if declared is None or not _fits(task, declared):
        return None, ""
    begun = time.perf_counter()
    places, missed = _places(prepared, declared)
    if missed:
        known = len(prepared.labels.names) - len(missed)
        if known == 0:
            return None, ""
        return None, (
            f"the base's own head is not compared with: it knows {known} of the {len(prepared.labels.names)} labels, and not "
            f'"{missed[0]}"'
        )
    try:
        check_room(backbone)
        network, _ = load_network(backbone.source.folder)
    except TunesmithError as error:
        return None, f"the base's own head is not compared with: {error.problems[0]}"
    put_beside(network, device)
    # Numbers are taken for the targets' own: what turns outputs into them is part of a saved head.
    labels, on, pad = replace(prepared.labels, standardised=False), str(network.sample.device), backbone.processor.pad

    def told(split: str) -> list[Prediction]:
        examples, place = encoded.examples[split], prepared.table(split).place
        return infer(lambda batch: network(batch.inputs)[..., places], task, examples, labels, pad, on, place)[0]

    held = told("validation") if encoded.examples["validation"] else None
    found = task.answered(told("test"), encoded.examples["test"], network)
    scores = scored(prepared, labels, found, held)
    return Baseline(OWN_HEAD, PHRASES[OWN_HEAD], scores, time.perf_counter() - begun), ""


def _fits(task: Task, declared: Declared) -> bool:
    """Whether the head's outputs mean what the task's do, but for their names."""
    from tunesmith.models.network import IMAGE, SEQUENCE, SPAN, TOKEN

    kinds: dict[type[Task], str] = {TokenClassification: TOKEN, QuestionAnswering: SPAN}
    wanted = kinds.get(type(task), IMAGE if task.reads_pictures else SEQUENCE)
    if not isinstance(task, ClassTask | Multilabel | Regression | TokenClassification | QuestionAnswering):
        return False
    problem = {Multilabel: "multi_label_classification", Regression: "regression"}.get(type(task), "")
    return declared.kind == wanted and (wanted != SEQUENCE or _same_problem(declared.problem, problem))


def _same_problem(declared: str, problem: str) -> bool:
    return declared == problem or (not problem and declared == "single_label_classification")


def _places(prepared: Prepared, declared: Declared) -> tuple[list[int], list[str]]:
    """Which output of the head each of the task's is, and the labels that it has none for."""
    names = prepared.labels.names
    if isinstance(prepared.task, QuestionAnswering):
        return list(range(len(names))), []
    known: dict[str, int] = {}
    for place, own in enumerate(declared.names):
        for name in (own, *(own.split(SYNONYMS) if prepared.task.reads_pictures else ())):
            if not NAMELESS.fullmatch(own):
                known.setdefault(_plain(name, prepared.task), place)
    found = [known.get(_plain(name, prepared.task), -1) for name in names]
    taken: Sequence[int] = [place for place in found if place >= 0]
    missed = [name for name, place in zip(names, found, strict=True) if place < 0 or taken.count(place) > 1]
    return found, missed


def _plain(name: str, task: Task) -> str:
    """A name whatever its capitals, and of a class whatever stands between its words."""
    spoken = spoken_name(name) if isinstance(task, ClassTask | Multilabel) else ""
    return (spoken if spoken else name).strip().casefold()
