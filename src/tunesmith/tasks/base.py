"""What every task is: the one place that knows rows, targets, loss and score of what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from tunesmith.calibration import Calibration
from tunesmith.catalog import Part
from tunesmith.data.columns import Asked, Columns, find_columns, gathered
from tunesmith.data.encode import Batch, Example, Text, by_unit
from tunesmith.data.order import LengthOrder, Order
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.words import Window
from tunesmith.errors import ModelError, RecipeError
from tunesmith.models.resolve import VECTORS
from tunesmith.tasks._information import Information, of_tokens, of_values

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor

WIDE = 50  # outputs up to which each gets a column of its own
CORRELATIONS = ("spearman", "pearson")  # from -1 to 1, which nobody counts in points


class LossSum(NamedTuple):
    """A sum and a weight, never a mean: the loop divides once, by the weight of the whole step."""

    total: Tensor  # scalar
    weight: Tensor  # scalar: how many examples, labels, numbers or tokens `total` sums over
    logs: dict[str, Tensor]  # further scalar sums over the same weight, for the ledger


@dataclass(frozen=True)
class Labels:
    """What the network's outputs mean, in their order: classes, labels, or numbers."""

    names: tuple[str, ...]
    counts: tuple[int, ...]  # training rows of each
    thresholds: tuple[float, ...] = ()  # of several labels: the probability from which each is said
    center: tuple[float, ...] = ()  # of numbers: mean over the training rows
    scale: tuple[float, ...] = ()  # of numbers: standard deviation over the training rows
    standardised: bool = False  # of numbers: whether an output counts in `scale`s from `center`
    # Of answers cut from a text: characters of the longest one in the training rows; of texts to be written: tokens.
    longest: int = 0
    temperature: float = 1.0  # by which outputs are divided before they become probabilities
    calibration: Calibration | None = None  # what the validation rows tell of certainty


@dataclass(frozen=True)
class Prediction:
    """What the model says of one row."""

    row: int
    value: Any  # a class; a tuple of labels; a number, or a tuple of several; a tuple of spans
    evidence: tuple[float, ...]  # one for each output, of a size about 1: probabilities, or standardised numbers
    text: str = ""  # what was read, where the value speaks of places in it
    counts: tuple[int, ...] = ()  # whole numbers that a score needs beside the evidence, such as tokens


class Mark(NamedTuple):
    """A place in a text of the report."""

    start: int
    end: int
    label: str
    kind: str  # "right", "wrong", "missed"
    part: int = 0  # of several texts the one that it stands in


class Mistake(NamedTuple):
    """A wrong prediction, as the report lists them."""

    severity: float  # the worst come first
    truth: str
    said: str
    detail: str  # how sure, or how far off
    marks: tuple[Mark, ...] = ()  # where in the text, if that can be said


Metric = Callable[[Mapping[str, "np.ndarray"]], float]


@dataclass(frozen=True)
class Scores:
    """Values per example, and the functions that make numbers of any sample of them.

    `columns` holds arrays with one entry per example: for classification "truth" and "predicted" (class indices) and
    "probability" (of the predicted class). A metric takes such columns, of all examples or of a resample, and gives one
    number, so that an interval needs to know nothing of the task. One that speaks of a part of the examples only (those
    that a text was written for, say) names them in `rows_of`, and is given them alone.
    """

    columns: dict[str, np.ndarray]
    metrics: dict[str, Metric]
    primary: str  # name of the metric that chooses and that the verdict is about
    shares: frozenset[str] = frozenset()  # metrics that are a share of the examples, each a hit or a miss
    lower: frozenset[str] = frozenset()  # metrics of which less is better
    written: Mapping[str, int] = field(default_factory=dict)  # metrics of texts written for that many of the rows only
    # Metric -> bool [examples]; of all where it has none.
    rows_of: Mapping[str, np.ndarray] = field(default_factory=dict)
    other_scale: frozenset[str] = frozenset()  # metrics that are no mean of values from 0 to 1, and are not in `lower`
    # Measures of each example by itself; NaN where none is.
    each: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = (
        None  # [examples] of whole numbers, where examples of one group are no draws of their own
    )

    def free(self, metric: str) -> bool:
        """Whether a metric may lie outside 0 to 1, or says something else of an example than how far it is a hit."""
        return metric in self.lower or metric in self.other_scale

    def bounds(self, metric: str) -> tuple[float, float] | None:
        """Between which numbers a metric lies, where it speaks of an example as being good or bad; None where it is free."""
        if metric in CORRELATIONS:
            return -1.0, 1.0
        return None if self.free(metric) else (0.0, 1.0)

    def of(self, metric: str) -> dict[str, np.ndarray]:
        """The columns of the examples that a metric counts."""
        if metric not in self.rows_of:
            return self.columns
        counted = self.rows_of[metric]
        return {name: values[counted] for name, values in self.columns.items()}

    def groups_of(self, metric: str) -> np.ndarray | None:
        """`groups` of the examples that a metric counts."""
        return self.groups if self.groups is None or metric not in self.rows_of else self.groups[self.rows_of[metric]]

    def take(self, rows: np.ndarray) -> Scores:
        """The scores of the examples at `rows` alone, indices into the columns."""
        counted = {name: values[rows] for name, values in self.rows_of.items()}
        return replace(
            self,
            columns={name: values[rows] for name, values in self.columns.items()},
            written={name: int(counted[name].sum()) if name in counted else len(rows) for name in self.written},
            rows_of=counted,
            each={name: values[rows] for name, values in self.each.items()},
            groups=None if self.groups is None else self.groups[rows],
        )

    def value(self, metric: str | None = None) -> float:
        """Raises RecipeError for a metric that has no meaning for these rows."""
        name = metric or self.primary
        if name not in self.metrics:
            raise RecipeError(
                f'evaluation.metric: "{name}" says nothing of these rows; use one of {", ".join(self.metrics)}'
            )
        return self.metrics[name](self.of(name))


class Task(Part, ABC):
    """A subclass is final, and lives alone in tasks/<name>.py; its fields are its options."""

    pipeline_tag: ClassVar[str] = ""  # what the hub calls such models
    primary_metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]  # names of what `score` gives
    baselines: ClassVar[tuple[str, ...]]  # files of evaluation/baselines/ that this task is compared with
    # Inverse strengths of the penalty on a head fitted to frozen features, as scikit-learn's C on features of unit length,
    # from strong to weak, and the one to take where there are no validation rows to choose by.
    strengths: ClassVar[tuple[float, ...]] = (1.0, 4.0, 16.0, 64.0, 256.0)
    likely_strength: ClassVar[float] = 16.0
    views: ClassVar[tuple[str, ...]]  # files of evaluation/views/ that its report shows, in this order
    # Of base that fit, as models/resolve.py names kinds; () where that tells nothing.
    kinds: ClassVar[tuple[str, ...]] = ()
    suits: ClassVar[str] = ""  # where kinds matter: which bases fit, by name, or which task fits another base
    reads_pictures: ClassVar[bool] = False  # whether a row's text is the name of a picture
    reads_words: ClassVar[bool] = False  # whether a text may be given as a list of words
    floor_name: ClassVar[str] = "frequent_answer"  # what the verdict calls what `floor` gives
    learns_tokens: ClassVar[bool] = False  # whether a target is one a token: itself where it is learned, else IGNORED
    judges_by_truth: ClassVar[bool] = False  # whether what is said of a row can only be judged beside its target
    # What the network gives before any training is this baseline, by the verdict's name for it; "" for none.
    untrained: ClassVar[str] = ""
    joint: ClassVar[bool] = False  # whether a row's loss depends on the other rows of its step
    ranked: ClassVar[bool] = False  # whether what is said of a row depends on the other rows that are asked about
    several_texts: ClassVar[bool] = False  # whether what is predicted from may be one text, two, or more
    validates: ClassVar[bool] = (
        True  # whether rows are held out to choose the checkpoint by, where nobody says how many
    )
    refits: ClassVar[bool] = False  # whether the last linear map is fitted again to the features after training
    # What the evidence of a row is: probabilities of classes that sum to 1, one of each label by itself, standardised
    # numbers; "" where it is none of them. By that its certainty is measured.
    certainty: ClassVar[Literal["", "classes", "labels", "numbers"]] = ""
    example: ClassVar[type[Example]] = Example  # what `encode` makes; fields of its own hold plain values
    unlike: ClassVar[str] = ""  # what is predicted, where it is nothing that a table of probabilities could hold
    # What the report says over the worst of its predictions, and what it calls their targets.
    worst: ClassVar[str] = (
        "The predictions furthest from their labels, the surest first. Check these labels first: such rows are often "
        "mislabelled."
    )
    truth_is: ClassVar[str] = "labelled"

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        """Why rows of this shape mean this task; None where they do not, or only their labels can tell."""
        return None

    @classmethod
    def check_base(cls, name: str, kind: str) -> None:
        """Raises ModelError where a base is known to be of no kind that fits; "" is a kind that nobody knows yet."""
        if not cls.kinds or kind in (*cls.kinds, ""):
            return
        known = "a table of word vectors" if kind == VECTORS else f'of kind "{kind}"'
        raise ModelError(
            f"model: task {cls.part_name()} needs a base of kind {' or '.join(cls.kinds)}, and {name} is {known}; choose "
            f"{cls.suits}"
        )

    def check_files(self, name: str) -> None:
        """Raises ModelError where the files of a base that is here lack what this task needs: before what takes seconds."""
        return

    def find(self, table: Table, asked: Asked) -> Columns:
        """The columns that this task reads, as named or found by looking. Raises DataError with every problem.

        They need not be there yet: `read` may make them.
        """
        return find_columns(table, asked.text, asked.label, asked.group, asked.pair)

    def read(self, table: Table, columns: Columns) -> Table:
        """The table with the columns that `find` named. Raises DataError with every row that cannot be read."""
        return gathered(table, columns)

    @abstractmethod
    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        """How the label column is to be read, from all its raw values.

        `names` are the columns that hold the label, one or several; `known` the outputs of a finished model.
        """

    @abstractmethod
    def check(self, train: Table, columns: Columns) -> Labels:
        """What the outputs will mean. Raises DataError naming column and rows when there is nothing to learn."""

    def enriched(self, train: Table, columns: Columns, labels: Labels) -> tuple[Table, str]:
        """The training rows with those that the task adds, and one line about them; "" where it adds none."""
        return train, ""

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """About how many bits the training rows have to teach, and how that was reckoned: adapters are sized by it.

        A bit for each learned token, where tokens are learned; else the entropy of the targets, for every row.
        """
        return of_tokens(examples) if self.learns_tokens else of_values(truth)

    def order(self, lengths: Sequence[int], truth: Sequence[Any], batch_size: int, seed: int) -> Order:
        """Which rows make up each step, from the tokens and the targets of the training rows."""
        return LengthOrder(tuple(lengths), batch_size, seed)

    def epoch_rows(self, rows: int) -> int:
        """Rows of one epoch, where there are so many to train on."""
        return rows

    def kept(self) -> float:
        """The share of the base's own weights in what is delivered: trained weights are averaged with it."""
        return 0.0

    @abstractmethod
    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: Processor, limit: int
    ) -> list[Example]:
        """Rows as numbers, `limit` tokens at most each; pure. `targets` is None where the labels are not known."""

    def unlearned(self, examples: Sequence[Example], targets: Sequence[Any]) -> tuple[str, list[int]]:
        """Rows whose targets the examples of a split do not hold as they are, and what was done about them."""
        return "", []

    def shows(self, example: Example, tokens: Sequence[str], labels: Labels) -> str | None:
        """What an example teaches, in words, for a preview; None for what its target says by itself."""
        return None

    @abstractmethod
    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        """The base with this task's head on it, the head's fresh weights drawn from `seed`.

        `pair` says that a row has two texts.
        """

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Sum of the loss over the batch's rows, and how many there are."""

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        """How far two outputs of the batch say other things, summed as `loss` is; None where that has no meaning."""
        return None

    @abstractmethod
    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        """What the network's output says of each row."""

    def judged(self, output: Tensor, batch: Batch, labels: Labels) -> list[Prediction]:
        """What the output says of each row of a batch, or of each unit that counts: for tasks that judge by the target."""
        return self.predict(*by_unit(output, batch), labels)

    def given(self, value: Any) -> Any:
        """A row as a Python caller gives it, as the text that `encode` takes; as it is, by default.

        Raises DataError for what looks like a row of this task and is none.
        """
        return value

    def read_of(self, limit: int) -> str:
        """What is read of a text that is too long, and why, for a warning."""
        return f"{limit} tokens, the most this model reads"

    def asked_in(self, table: Table, label: str | tuple[str, ...], text: str | None) -> list[str] | None:
        """What a finished model is to answer in each row of a table, where its text is no column; None where it is one.

        `label` names what it was trained on, `text` the column named now.
        """
        return None

    @property
    def drops_unfit(self) -> bool:
        """Whether rows that cannot be encoded are left out, and counted, rather than refused."""
        return False

    def remarks(self, examples: Mapping[str, Sequence[Example]], limit: int) -> list[str]:
        """What encoding made of the rows, split by split, a counted line each."""
        return []

    def own_texts(self, network: Network, count: int, seed: int) -> list[str]:
        """At most `count` texts that the network writes by itself, by which is measured what it forgets; none by default."""
        return []

    def answered(self, found: Sequence[Prediction], examples: Sequence[Example], network: Network) -> list[Prediction]:
        """The predictions with what only the network itself can say: texts that it writes."""
        return list(found)

    def floor(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> list[Prediction]:
        """What frequencies alone say of the test rows; none where the task has baselines for that.

        `learned` are the targets of the training rows; `outputs` is how many the network has: tokens of its vocabulary.
        """
        return []

    def floors(
        self, train: Sequence[Example], learned: Sequence[Any], test: Sequence[Example], outputs: int
    ) -> dict[str, list[Prediction]]:
        """By the verdict's names for them, rivals that need no model; by default what `floor` gives, if anything."""
        found = self.floor(train, learned, test, outputs)
        return {self.floor_name: found} if found else {}

    def units(self, text: Text) -> int:
        """How many outputs count of what is said of a text: one, or one a word."""
        return 1

    def whole(self, found: Sequence[Prediction], windows: Mapping[int, Window], labels: Labels) -> list[Prediction]:
        """Predictions of rows from those of single outputs, whose `row` is the place of their window."""
        return list(found)

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Values per example of predictions against the targets of the same rows."""

    @abstractmethod
    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        """The metrics that `score` measures of such columns, so that kept columns can be measured again."""

    @abstractmethod
    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        """The predictions as columns of a table; names with ":" hold evidence, the others what is said."""

    @abstractmethod
    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        """What is wrong with a prediction; None where it is right."""

    def readable(self, text: Text) -> Text:
        """A row's text as a person reads it, for the report."""
        return text

    @abstractmethod
    def describe(self, labels: Labels) -> str:
        """What is learned, in words: "77 classes"."""

    def better_task(self, labels: Labels) -> str:
        """Which other task such labels ask for, in a line for who named none; "" where this one is right."""
        return ""

    def widen(self, processor: Processor, texts: Sequence[Text]) -> str:
        """Adds to the tokenizer what this task wants there, by the training texts; one line that says what, or ""."""
        return ""

    def sized(self, labels: Labels, train: Sequence[Example]) -> Labels:
        """`labels` with what only the encoded training rows can tell, such as how long a written text may be."""
        return labels

    def packs(self) -> bool:
        """Whether several short rows may share a window in training, each as if it stood alone."""
        return False

    def varies(self, frozen: bool) -> bool:
        """Whether training rows are varied anew in every epoch; `frozen`: nothing of the base trains."""
        return False

    def varied(self, batch: Batch, seed: int, epoch: int, processor: Any) -> Batch:
        """The rows as this epoch sees them: a function of (seed, epoch, row) alone."""
        return batch

    def fixed_versions(self, frozen: bool) -> int | None:
        """In how many versions each varied row is seen, the first as it is; None: in a new one every epoch.

        frozen: the first blocks of the base never train, so that what they make of a version can be kept.
        """
        return None

    def partners(self, rows: Sequence[int], count: int, seed: int, epoch: int) -> tuple[int, ...]:
        """For each row one of the `count` training rows that is mixed into it; () where none is."""
        return ()

    def mixed(self, batch: Batch, others: Batch, seed: int, epoch: int) -> Batch:
        """Each row with its partner, both varied, mixed into one: a function of (seed, epoch, row) alone."""
        return batch

    def settle(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Labels:
        """`labels` with what can only be chosen by predictions on validation rows; none by default."""
        return labels

    def temper(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, seed: int
    ) -> tuple[Labels, list[Prediction]]:
        """`labels` with the temperature that suits these validation rows, and the predictions at that temperature."""
        return labels, list(predictions)

    def calibrate(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, confidence: float
    ) -> Labels:
        """`labels` with what the finished model's predictions on validation rows tell of its certainty."""
        return labels

    def restate(self, predictions: Sequence[Prediction], labels: Labels) -> list[Prediction]:
        """What the same evidence says by `labels` that were settled later."""
        return list(predictions)

    def fold(self, network: Network, labels: Labels) -> Labels:
        """Puts what turns outputs into answers into the network itself, so that other tools read it as we do."""
        return labels


class OutputTask(Task, ABC):
    """Output -> evidence -> what is said. Baselines give evidence too, so all are scored by the same rules."""

    @abstractmethod
    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        """`output` [rows, outputs] -> float32 of the same shape: probabilities, or standardised numbers."""

    @abstractmethod
    def said(self, evidence: Sequence[float], labels: Labels) -> Any:
        """The value of a prediction with this evidence, one number for each output."""

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        return self.predictions(self.evidence(output.float(), labels).tolist(), rows, labels)

    def predictions(
        self, evidence: Sequence[Sequence[float]] | np.ndarray, rows: Sequence[int], labels: Labels
    ) -> list[Prediction]:
        """Predictions of rows from their evidence, [rows, outputs]."""
        return [
            Prediction(row, self.said(values, labels), tuple(values))
            for row, values in zip(rows, evidence, strict=True)
        ]

    def restate(self, predictions: Sequence[Prediction], labels: Labels) -> list[Prediction]:
        return [replace(item, value=self.said(item.evidence, labels)) for item in predictions]


def encode_texts(texts: Sequence[Text], targets: Sequence[Any], processor: Processor, limit: int) -> list[Example]:
    """One example a text or two, with the target beside it (None where it is not known).

    Two texts are read apart where the base is a sentence encoder, `limit` tokens each, and joined into one otherwise.
    """
    if processor.apart and texts and not isinstance(texts[0], str):
        sides = [processor.encode_all([text[side] for text in texts], limit) for side in (0, 1)]
        return [
            Example(row, inputs, target, cut + more, second)
            for row, ((inputs, cut), (second, more), target) in enumerate(zip(*sides, targets, strict=True))
        ]
    encoded = processor.encode_all(texts, limit)
    return [
        Example(row, inputs, target, cut)
        for row, ((inputs, cut), target) in enumerate(zip(encoded, targets, strict=True))
    ]


def probability_columns(predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
    """A column "p:<label>" for each of up to 50 labels; with more, one column of lists, "p:"."""
    if len(labels.names) > WIDE:
        return {"p:": [list(item.evidence) for item in predictions]}
    return {f"p:{name}": [item.evidence[place] for item in predictions] for place, name in enumerate(labels.names)}
