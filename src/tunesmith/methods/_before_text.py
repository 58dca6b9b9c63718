"""What methods share that train something which every text is read behind: where it starts, how it is kept and read."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from tunesmith.errors import ModelError
from tunesmith.methods._continued import Continued
from tunesmith.methods._groups import plan_for
from tunesmith.methods._peft_format import labels_of
from tunesmith.methods._peft_prompt import read_prompt, write_prompt
from tunesmith.methods.base import Plan, Rates
from tunesmith.seeds import seed_of, torch_seed

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

SHOWN = 12  # tokens that a note names
NAMELESS = re.compile(r"LABEL_\d+|[\d\W_]*")  # names of outputs that say nothing


class BeforeText(Continued):
    """A subclass says what is learned, as a table of `length` rows, and how the base reads it; the base stays as it is.

    It cannot be folded into the base's weights, so the model needs Tunesmith where it is used. It is no identity before the
    first step: from then on the base reads more than the text.
    """

    main_option: ClassVar[str | None] = "length"
    epochs: ClassVar[int] = 10
    folds: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]]  # PEFT's that give such a table; the first is written

    length: Annotated[int, Field(ge=1)] = Field(default=16, description="places before every text that are learned")
    text: str | None = Field(
        default=None,
        description="words that they start from; by default the names of the labels, else tokens drawn by seed",
    )

    @abstractmethod
    def check(self, network: Network) -> None:
        """Raises ModelError where the base cannot read it: why, and what fits."""

    @abstractmethod
    def first(self, network: Network, ids: list[int]) -> Tensor:
        """[length, numbers] the table that says as much as the tokens `ids` at the beginning of a text."""

    @abstractmethod
    def put(self, network: Network, table: Tensor, trains: bool) -> None:
        """Makes the network read the table, in place. `trains`: it will change; else it is read as it is."""

    @abstractmethod
    def table(self, network: Network) -> Tensor:
        """[length, numbers] what the network reads now."""

    @abstractmethod
    def described(self, network: Network) -> Mapping[str, Any]:
        """What PEFT's config says of such a table beside its kind and length."""

    @abstractmethod
    def in_peft(self, network: Network) -> bool:
        """Whether PEFT reads such a table as it is read here."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.start is not None and self.text is not None:
            raise ValueError("text: what start holds is gone on from as it is, so words have no use; keep one")
        return self

    @property
    def alters(self) -> bool:
        return True  # what the base gives behind vectors that nothing has trained yet is not what it was pretrained to give

    @property
    def tokens(self) -> int:
        return self.length

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where the base cannot read it, and where `start` does not fit."""
        self.check(network)
        ids, note, warned = words(self.text, self.length, network, seed)
        table = self.first(network, ids)
        kept = None
        if self.start is not None:
            kept = read_prompt(Path(self.start), network, self.kinds, (self.length, table.shape[1]), "method.start: ")
            kept.put_head(network)
            table = kept.table
        known = {id(parameter) for parameter in network.parameters()}
        with torch_seed(seed, self.part_name()):
            self.put(network, table, trains=True)
        network.to(network.sample.device)
        network.text.reserve(self.length)
        added = [name for name, parameter in network.named_parameters() if id(parameter) not in known]
        plan = plan_for(network, added, rates, cut=0)
        return replace(plan, notes=note, warnings=warned) if kept is None else kept.told(plan)

    def averaged(self, name: str) -> bool:
        """None: half of it is something else, and no step towards the base."""
        return False

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        """Writes the table as PEFT keeps it, and the head beside it."""
        config = {"peft_type": self.kinds[0], "num_virtual_tokens": self.length, **self.described(network)}
        write_prompt(folder, network, config, self.table(network), self.in_peft(network))
        return True

    def load(self, network: Network, folder: Path) -> None:
        self.check(network)
        numbers = self.first(network, network.text.ordinary_tokens[:1] * self.length).shape[1]
        kept = read_prompt(folder, network, self.kinds, (self.length, numbers), "")
        kept.check_head(network)
        self.put(network, kept.table, trains=False)
        network.to(network.sample.device)
        network.text.reserve(self.length)
        kept.put_head(network)


def fitting(network: Network) -> str:
    """The methods that fit where these do not."""
    layout = network.layout
    reads = not network.processor.pictures and layout.blocks
    found = [name for name, fits in (("prompt", reads), ("lora", layout.linears), ("layers", layout.blocks)) if fits]
    return f"{', '.join([*found, 'full'])} or head"


def words(
    text: str | None, count: int, network: Network, seed: int
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """Numbers of `count` tokens to start from, what to say of them, and what to warn of.

    Those of the text, or of the labels' names, over and over; else drawn ones. Lester 2021 ("The Power of Scale for
    Parameter-Efficient Prompt Tuning", section 3.2, figure 3b): names of classes start best, tokens of the vocabulary next,
    random numbers last. Raises ModelError for a text without a token.
    """
    said = " ".join(named_outputs(network)) if text is None else text
    tokenizer: Any = network.text.tokenizer
    ids: list[int] = tokenizer(said, add_special_tokens=False)["input_ids"] if said else []
    if text is not None and not set(ids) - set(network.text.special_tokens):
        raise ModelError(
            f"method.text: {text!r} has no token that this base knows; give words that say what is to be done"
        )
    of = "the names of the labels" if text is None else "method.text"
    if not ids:
        ids = random.Random(seed_of(seed, "words")).choices(network.text.ordinary_tokens, k=count)
        of = "tokens drawn by seed"
    taken = [ids[place % len(ids)] for place in range(count)]
    shown = " ".join(str(token) for token in tokenizer.convert_ids_to_tokens(taken[:SHOWN]))
    note = f"{count} places before every text start from {of}: {shown}{' ...' if count > SHOWN else ''}"
    if len(ids) <= count:
        return taken, (note,), ()
    left = f"{of} make {len(ids)} tokens, of which the first {count} are taken; method.length={len(ids)} takes all"
    return taken, (note,), (left,)


def named_outputs(network: Network) -> list[str]:
    """The names of a network's outputs that are words."""
    names = labels_of(network)
    return list(dict.fromkeys(name.replace("_", " ") for name in names if not NAMELESS.fullmatch(name)))
