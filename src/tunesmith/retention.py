"""What a language model forgets: its perplexity on text of no task and on texts of its own, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import DataError

if TYPE_CHECKING:
    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Task

TEXTS, SHORTEST = 60, 200  # how many texts, and how many characters each has at least
DOCUMENTATION = "general text (the standard library's documentation)"
OWN = "texts that the untouched base wrote itself, drawn at random"


@dataclass(frozen=True)
class Known:
    """Texts, and the perplexity that the untouched base had on them."""

    what: str
    texts: tuple[str, ...]
    before: float


def general_texts() -> list[str]:
    """Texts of the running Python's standard library, evenly over all of it; none where it carries no source."""
    from tunesmith.data.stdlib_docs import stdlib_table

    try:
        long = [text for text in stdlib_table()["text"] if len(text) >= SHORTEST]
    except DataError:
        return []
    return [long[place * len(long) // TEXTS] for place in range(min(TEXTS, len(long)))]


def what_is_known(task: Task, labels: Labels, network: Network, limit: int, seed: int) -> tuple[Known, ...]:
    """Of the untouched base, in evaluation mode.

    What a base writes by itself is text of the kind that it was pretrained on, at hand for every base (Robins 1995,
    "Catastrophic forgetting, rehearsal and pseudorehearsal"): general text may be as strange to it as the task's.
    """
    sets = ((DOCUMENTATION, general_texts()), (OWN, task.own_texts(network, TEXTS, seed)))
    return tuple(
        Known(what, tuple(texts), perplexity_on(texts, task, labels, network, limit)) for what, texts in sets if texts
    )


def perplexity_on(texts: Sequence[str], task: Task, labels: Labels, network: Network, limit: int) -> float:
    """Of the network as it stands, in evaluation mode."""
    from tunesmith.evaluation.infer import infer

    processor = network.processor
    examples = task.encode(texts, list(texts), labels, processor, limit)
    device = str(network.sample.device)
    found, _ = infer(lambda batch: network(batch.inputs), task, examples, labels, processor.pad, device)
    return task.score(found, list(texts), labels).value("perplexity")


def retention_line(known: Known, after: float) -> str:
    """ "perplexity on general text (...): 35.1 before, 39.0 after (+11 %)" """
    change = 100 * (after / known.before - 1)
    return f"perplexity on {known.what}: {known.before:,.1f} before, {after:,.1f} after ({change:+.0f} %)"
