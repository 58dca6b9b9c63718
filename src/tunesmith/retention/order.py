"""Which of some texts of no task a body holds near to each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from tunesmith.data.encode import Example
from tunesmith.data.stored import tokens_in
from tunesmith.evaluation.neighbours import NEAREST, linear_cka, still_near
from tunesmith.retention.general import READ_BY_METERS, GeneralText
from tunesmith.retention.meter import Meter, Reading
from tunesmith.retention.vectors import body_vectors

if TYPE_CHECKING:
    from tunesmith.models.network import Network

COMPARED = READ_BY_METERS[1]  # texts: each has ten nearest others among them


class Order(Meter):
    """`lost` is the share of nearest neighbours that are no longer near."""

    loses: ClassVar[str] = "share of nearest neighbours lost"

    def __init__(self, source: str, texts: Sequence[str], limit: int, network: Network) -> None:
        """`source`: of the texts, in words; `network`: the untouched base. More than `NEAREST` texts."""
        self.source = source
        encoded = network.text.encode_all(list(texts), limit)
        self._examples = [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)]
        self.before = body_vectors(network, self._examples)  # [texts, width]

    @property
    def rows(self) -> int:
        return len(self._examples)

    @cached_property
    def tokens(self) -> frozenset[int]:
        return frozenset(tokens_in(self._examples))

    def read(self, network: Network) -> Reading:
        after = body_vectors(network, self._examples)
        stayed, alike = still_near(self.before, after), linear_cka(self.before, after)
        said = (
            f"of the {NEAREST} texts that the base holds nearest to each of {self.rows} general texts ({self.source}), "
            f"{100 * stayed:.0f} % still are (linear CKA {alike:.2f}; an untouched base has 100 % and 1)"
        )
        return Reading(1 - stayed, said)


def order_of(general: GeneralText, network: Network, limit: int) -> list[Meter]:
    """Of the untouched base; none where there are too few texts to compare."""
    texts = general.measured(COMPARED)
    return [Order(general.source, texts, limit, network)] if len(texts) > NEAREST else []
