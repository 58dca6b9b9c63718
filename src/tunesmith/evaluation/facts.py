"""What evidence of a run advice is made of, as plain figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.evaluation.intervals import Interval


@dataclass(frozen=True)
class Forecast:
    """What twice the training rows are foretold to bring."""

    says: str  # "helps", "hardly", "unclear"
    of: str  # "frozen" or "method": what the curve was measured with
    gain: Interval
    rows: int  # twice the training rows


@dataclass(frozen=True)
class Weak:
    """A part of the test rows on which the model is worse than on the others beyond chance."""

    what: str
    value: Interval
    others: float
    rows: int
    trained: int | None  # training rows like it; None where nobody counted
    costs: float  # by how much the metric of all rows would be better, were these as good as the others
    metric: str = ""  # that `value` and `others` are in, where it is another one


@dataclass(frozen=True)
class Doubted:
    """Rows whose labels may be wrong, the most doubtful first."""

    rows: int
    among: int  # of how many they were looked for
    places: Sequence[str] = ()  # "file:line"
    tested: int = 0  # of them in the test rows
    right: int = 0  # of them that may be right all the same


@dataclass(frozen=True)
class Copies:
    """Test rows with nearly the same text in train, where they move the score."""

    rows: int
    whole: float
    without: Interval
    places: Sequence[str] = ()


@dataclass(frozen=True)
class Fault:
    """A rule of training's health that is broken."""

    rule: str
    looked: str
    figure: str
    fix: str


@dataclass(frozen=True)
class Chosen:
    """A rival that the model has not been shown to be worth more than."""

    name: str
    gain: Interval  # of the model over it
    p: float


@dataclass(frozen=True)
class Cut:
    """Texts longer than what is read."""

    rows: int
    among: int
    share: float  # of all tokens
    longer: int  # a length that the base takes as well; 0 where it takes no more


@dataclass(frozen=True)
class Climbed:
    """How a method was chosen by trying."""

    method: str
    rungs: int
    why: str


@dataclass(frozen=True)
class Facts:
    """What evidence there is; what was not measured is None, or empty."""

    metric: str = ""
    lower: bool = False
    free: bool = False  # whether the metric has no bounds, so that a gain counts as a share of its value
    value: Interval | None = None  # of the model on the test rows; None without any
    tested: int = 0
    trained: int = 0
    wrong: int | None = None  # test rows that are answered wrongly
    steps: int = 0
    parameters: int = 0
    helped: bool | None = None
    choice: Chosen | None = None
    floor: Chosen | None = None  # a rival that knows nothing of the text, where the model is not shown to be better
    compared: bool = True  # whether any rival was measured
    rivals: Mapping[str, Interval] = field(default_factory=dict)  # the metric of each
    scratch: Chosen | None = None
    copies: Copies | None = None
    doubted: Doubted | None = None
    torn: Doubted | None = None  # the same text, or nearly, with several labels
    forecast: Forecast | None = None
    weak: Sequence[Weak] = ()  # those that cost most first
    faults: Sequence[Fault] = ()
    heart: Fault | None = None  # training rows learned by heart
    gap: Interval | None = None  # by which the metric is better on training rows
    unknown: float | None = None  # share of tokens that the base does not know
    cut: Cut | None = None
    lost: float | None = None  # of what the base knew
    budget: float | None = None  # that was asked for, and is not kept
    climbed: Climbed | None = None
    quick: bool = False
    curve: str = ""  # why more rows were not looked at
    foldable: bool = False  # whether --folds would test all rows, as it has not done
