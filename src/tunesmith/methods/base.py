"""What every method is: which parameters train, what is attached, what is saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.catalog import Part
from tunesmith.errors import ModelError, TrainingError

if TYPE_CHECKING:
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    parameters: tuple[str, ...]  # names in Network.named_parameters()
    rate: float  # peak learning rate
    decay: bool  # whether weight decay applies


@dataclass(frozen=True)
class Stage:
    """Which of the parameters in groups wait, from a share of the steps on."""

    start: float  # share of the steps that are done when it begins
    waiting: frozenset[str]  # these stay as they are until a later stage
    cut: int  # blocks [0, cut) and everything before them wait or are frozen


@dataclass(frozen=True)
class Plan:
    """The rule for every parameter: in exactly one group, or frozen."""

    groups: tuple[Group, ...]
    frozen: frozenset[str]
    cut: int  # blocks [0, cut) are frozen together with everything before them
    # Fresh parameters that go on from an earlier training, so none must refit them.
    started: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()  # lines to print: what was derived on attaching
    warnings: tuple[str, ...] = ()  # lines to print as warnings: what was given, and left aside
    single: str = ""  # why it trains in float32 alone; "" where any number format will do
    stages: tuple[Stage, ...] = ()  # in their order, where parts of the base begin to train later than others

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.parameters)

    def at(self, progress: float) -> Stage:
        """What waits when such a share of the steps is done."""
        begun = [stage for stage in self.stages if stage.start <= progress]
        return begun[-1] if begun else Stage(0.0, frozenset(), self.cut)

    @property
    def whole_from(self) -> float:
        """The share of the steps from which on nothing waits."""
        return self.stages[-1].start if self.stages else 0.0

    def check(self, network: Network) -> None:
        """Raises TrainingError when a parameter has no rule, two rules, or a rule names nothing."""
        problems = []
        present = {name for name, _ in network.named_parameters()}
        seen: dict[str, str] = {}
        for group in self.groups:
            for name in group.parameters:
                if name in seen:
                    problems.append(f"parameter {name} is in group {seen[name]} and in group {group.name}")
                if name in self.frozen:
                    problems.append(f"parameter {name} is in group {group.name} and frozen")
                seen[name] = group.name
        covered = set(seen) | self.frozen
        problems += [
            f"parameter {name} has no rule: put it in a group or freeze it" for name in sorted(present - covered)
        ]
        problems += [f"the plan names {name}, which the network does not have" for name in sorted(covered - present)]
        if not seen:
            problems.append("nothing would train: every parameter is frozen")
        if problems:
            raise TrainingError(*problems)


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, each with the reason that is printed."""

    base: float
    head: float
    why: str  # of both, or of the base's alone
    head_why: str = ""  # of the head's


class Findings(ABC):
    """What can be found out on the training rows before a method is attached, each when it is asked for."""

    network: Network  # the untouched base with its head, to be left as it is

    @abstractmethod
    def relative_gradients(self) -> Sequence[float]:
        """Of each block of the untouched base, its gradient's norm over that of its weights."""

    @abstractmethod
    def information(self) -> tuple[float, str]:
        """About how many bits the training rows have to teach, and how that was reckoned."""


class Method(Part, ABC):
    """A subclass is final, and lives alone in methods/<name>.py; its fields are its options."""

    epochs: ClassVar[int]  # documented default number of passes
    trains_base: ClassVar[bool] = (
        True  # whether anything but the head is trained, so that the base's rate has a meaning
    )
    static_epochs: ClassVar[int | None] = None  # and for word vectors, where these want another
    folds: ClassVar[bool] = (
        True  # whether `fold` leaves nothing attached; else `save`, `load` and `take_off` deliver it
    )

    def check_libraries(self) -> None:
        """Raises RecipeError, saying how to install it, where a library that this method needs is not there."""
        return

    @property
    def alters(self) -> bool:
        """Whether on attaching the base itself comes to give something else, so that what it gave is measured apart."""
        return False

    @abstractmethod
    def rates(self, width: int | None, steps: int) -> Rates:
        """Default peak rates for a base of hidden size `width` trained for `steps`; formula and source in the docstring.

        width: None where there is none to scale by; see `Backbone.rate_width`.
        """

    def static_rates(self, width: int | None, steps: int) -> Rates:
        """Default peak rates for word vectors: those of any base, unless a method says otherwise."""
        return self.rates(width, steps)

    @abstractmethod
    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Changes the network in place so that it can train this way, and says which parameters do.

        Raises ModelError when this method does not fit the model: why, and what does.
        """

    def averaged(self, name: str) -> bool:
        """Whether a trainable parameter is averaged with what it was at the start, where a task averages with the base."""
        return True

    @property
    def tokens(self) -> int:
        """Of the positions that a base has for the tokens of a text, those that are taken by what is no text."""
        return 0

    @property
    def undecided(self) -> str:
        """The option that is still to be chosen on the training rows, by `decided`; "" where none is."""
        return ""

    def decided(self, findings: Findings) -> tuple[Any, str]:
        """The value of that option, and the reason. Raises ModelError where this base leaves nothing to choose."""
        raise NotImplementedError(f"method {self.part_name()} leaves nothing to be chosen on the training rows")

    def given_files(self) -> tuple[Path, ...]:
        """Files of one folder that `attach` reads beside the base: a run keeps copies, and goes on from these."""
        return ()

    def reading(self, folder: Path) -> Method:
        """The same method, reading those files in `folder`."""
        return self

    def cut(self, layout: Layout) -> int:
        """How many of the first blocks stay frozen (0: none)."""
        return 0

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        """Writes the change apart from the base into `folder`, where the method has such a form; says whether it did."""
        return False

    def load(self, network: Network, folder: Path) -> None:
        """Puts what `save` wrote onto an untrained network of the same base and labels, in place, for use.

        A method whose `save` writes something must have it: every run reads back what it wrote, and compares. Raises
        ModelError when it does not fit.
        """
        raise ModelError(
            f"method {self.part_name()}: saves a form of its own and has no load(), so it cannot be proven"
        )

    def fold(self, network: Network) -> None:
        """Makes what was attached part of the base's own weights, in place; nothing to do where nothing is attached."""
        return

    def take_off(self, network: Network) -> None:
        """Leaves the network as it would be without what was attached, in place; of methods that do not fold."""
        return
