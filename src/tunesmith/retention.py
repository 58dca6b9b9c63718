"""What a base forgets: a language model's perplexity on text of no task, an encoder's order among such texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tunesmith.errors import DataError
from tunesmith.evaluation.neighbours import NEAREST, linear_cka, still_near

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Task

TEXTS, SHORTEST = 60, 200  # how many texts of a language model, and how many characters each has at least
COMPARED = 200  # texts of an encoder: each has ten nearest others among them
DOCUMENTATION = "general text (the standard library's documentation)"
OWN = "texts that the untouched base wrote itself, drawn at random"


@dataclass(frozen=True)
class Known:
    """Texts, and the perplexity that the untouched base had on them."""

    what: str
    texts: tuple[str, ...]
    before: float


@dataclass(frozen=True)
class Order:
    """Texts of no task, and the vectors that the untouched base gave them."""

    texts: tuple[str, ...]
    before: Tensor  # [texts, width]


@cache  # two seconds of reading, and always the same in one process
def _documentation() -> tuple[str, ...]:
    from tunesmith.data.stdlib_docs import stdlib_table

    try:
        return tuple(text for text in stdlib_table()["text"] if len(text) >= SHORTEST)
    except DataError:
        return ()


def general_texts(count: int = TEXTS) -> list[str]:
    """Texts of the running Python's standard library, evenly over all of it; none where it carries no source."""
    long = _documentation()
    return [long[place * len(long) // count] for place in range(min(count, len(long)))]


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


def order_known(network: Network, limit: int) -> Order | None:
    """Of the untouched base, in evaluation mode; None where there are too few texts to compare."""
    texts = tuple(general_texts(COMPARED))
    return Order(texts, _vectors(network, texts, limit)) if len(texts) > NEAREST else None


def order_line(known: Order, network: Network, limit: int) -> str:
    """What became of the order, of the network as it stands: "of the 10 texts nearest to each of ... 62 % still are" """
    after = _vectors(network, known.texts, limit)
    stayed, alike = still_near(known.before, after), linear_cka(known.before, after)
    return (
        f"of the {NEAREST} texts that the base holds nearest to each of {len(known.texts)} general texts (the standard "
        f"library's documentation), {100 * stayed:.0f} % still are (linear CKA {alike:.2f}; an untouched base has 100 % "
        "and 1)"
    )


def _vectors(network: Network, texts: Sequence[str], limit: int) -> Tensor:
    """[texts, width] the mean of the body's last hidden states over the real tokens, float32 on the CPU."""
    import torch

    from tunesmith.data.encode import Example
    from tunesmith.models.pooling import Pooling
    from tunesmith.training.trunk import measured_batches

    processor, body = network.text, network.get_submodule(network.layout.body)
    encoded = processor.encode_all(list(texts), limit)
    examples = [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)]
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    with torch.inference_mode():
        for part, batch in measured_batches(network, examples, processor.pad):
            given = processor.ready(batch.inputs, network.sample)
            hidden = body(**given).last_hidden_state.float()  # [rows, tokens, width]
            means = Pooling("mean")(hidden, batch.inputs["attention_mask"]).cpu()
            for example, mean in zip(part, means, strict=True):
                found[example.row] = mean
    return torch.stack(found)
