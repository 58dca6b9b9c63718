"""A language model's perplexity on text of no task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunesmith.retention.general import READ_BY_METERS, GeneralText
from tunesmith.retention.meter import Meter, Reading

if TYPE_CHECKING:
    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Task

TEXTS = READ_BY_METERS[0]
OWN = "texts that the untouched base wrote itself, drawn at random"


class Perplexity(Meter):
    """`lost` is by how much of what it was the perplexity has risen."""

    loses: ClassVar[str] = "rise of the perplexity"

    def __init__(
        self, what: str, texts: Sequence[str], task: Task, labels: Labels, limit: int, network: Network
    ) -> None:
        """`task`: a language model's, by whose rules texts are read. `network`: the untouched base."""
        self.what, self.texts = what, tuple(texts)
        self._task, self._labels, self._limit = task, labels, limit
        self.before = self._on(network)

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def tokens(self) -> frozenset[int]:
        return frozenset()  # the table of a network that writes is always whole

    def read(self, network: Network) -> Reading:
        after = self._on(network)
        lost = after / self.before - 1
        said = f"perplexity on {self.what}: {self.before:,.1f} before, {after:,.1f} after ({100 * lost:+.0f} %)"
        return Reading(lost, said)

    def _on(self, network: Network) -> float:
        from tunesmith.evaluation.infer import infer

        network.eval()
        task, labels, processor = self._task, self._labels, network.processor
        examples = task.encode(self.texts, list(self.texts), labels, processor, self._limit)
        device = str(network.sample.device)
        found, _ = infer(lambda batch: network(batch.inputs), task, examples, labels, processor.pad, device)
        return task.score(found, list(self.texts), labels).value("perplexity")


def perplexities(
    general: GeneralText, task: Task, labels: Labels, network: Network, limit: int, seed: int
) -> list[Meter]:
    """Of the untouched base: on general text, and on what it writes by itself.

    What a base writes by itself is text of the kind that it was pretrained on, at hand for every base (Robins 1995,
    "Catastrophic forgetting, rehearsal and pseudorehearsal"): general text may be as strange to it as the task's.
    """
    network.eval()
    sets = ((f"general text ({general.source})", general.measured(TEXTS)), (OWN, task.own_texts(network, TEXTS, seed)))
    return [Perplexity(what, texts, task, labels, limit, network) for what, texts in sets if texts]
