"""What a language model forgets: its perplexity on text of no task, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import DataError

if TYPE_CHECKING:
    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Task

TEXTS, SHORTEST = 60, 200  # how many texts, and how many characters each has at least
WHAT = "the standard library's documentation"


def general_texts() -> list[str]:
    """Texts of the running Python's standard library, evenly over all of it; none where it carries no source."""
    from tunesmith.data.stdlib_docs import stdlib_table

    try:
        long = [text for text in stdlib_table()["text"] if len(text) >= SHORTEST]
    except DataError:
        return []
    return [long[place * len(long) // TEXTS] for place in range(min(TEXTS, len(long)))]


def general_perplexity(task: Task, labels: Labels, network: Network, limit: int) -> float | None:
    """Of the network as it stands, in evaluation mode; None where there is no text."""
    from tunesmith.evaluation.infer import infer

    texts = general_texts()
    if not texts:
        return None
    processor = network.processor
    examples = task.encode(texts, texts, labels, processor, limit)
    device = str(network.sample.device)
    found, _ = infer(lambda batch: network(batch.inputs), task, examples, labels, processor.pad, device)
    return task.score(found, texts, labels).value("perplexity")


def retention_line(before: float, after: float) -> str:
    """ "perplexity on general text (...): 35.1 before, 39.0 after (+11 %)" """
    change = 100 * (after / before - 1)
    return f"perplexity on general text ({WHAT}): {before:,.1f} before, {after:,.1f} after ({change:+.0f} %)"
