"""Tasks whose model writes a text, token by token: what instruction tuning and sequence to sequence share."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Example
from tunesmith.data.table import Table, shown
from tunesmith.errors import TunesmithWarning
from tunesmith.tasks._answers import Compare, exact_match, measured, named_function, rouge_l
from tunesmith.tasks._tokens import LOWER, TOKEN_METRICS, token_columns, token_measures
from tunesmith.tasks._written import Pair, written_metric
from tunesmith.tasks.base import Labels, Metric, Mistake, Prediction, Scores, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NOTHING = "(nothing)"  # what a model that ends at once has written
OF_ALL = ("bleu", "chrf")  # metrics of all texts together, of which one text's value is no part
BESIDE = ("truth", "tokens", "hits", "loss", "going", "full")  # columns that are no measure of a written text
SHOWN = 400  # letters of a text among the mistakes of the report


class WritingTask(Task, ABC):
    """Each learned token counts alike; and texts are written, for every row that asks for one, or a sample of the others."""

    judges_by_truth: ClassVar[bool] = True
    learns_tokens: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ()
    truth_is: ClassVar[str] = "wanted"

    sample: Annotated[int, Field(ge=0)] = Field(default=64, description="test rows for which texts are written")
    metric: str | None = Field(
        default=None, description="package.module:function of (written, wanted) that gives a number, more is better"
    )

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("must be package.module:function")
        return value

    @abstractmethod
    def wanted(self, truth: Any) -> str:
        """The text that a row's truth asks for."""

    @abstractmethod
    def pair(self, said: str, truth: Any) -> Pair:
        """What is compared of a written text, and of the one wanted."""

    @abstractmethod
    def measures(self, pairs: Sequence[Pair | None], own: Mapping[str, Compare]) -> dict[str, np.ndarray]:
        """Of written texts (None: the row has none) a column for each metric; `own` are the user's."""

    def check(self, train: Table, columns: Columns) -> Labels:
        return Labels((), ())

    def known_metric(self) -> None:
        """Raises RecipeError for a `metric` that does not exist: told before anything is trained."""
        if self.metric is not None:
            named_function(self.metric)

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        raise AssertionError("what a model says of texts to write can only be judged with their tokens: see `judged`")

    def sampled(
        self, examples: Sequence[Example], fits: Callable[[Example], bool] = lambda example: True
    ) -> list[Example]:
        """Those that texts are written for: all whose target is not known; where all are, `sample` of those that fit, evenly
        over them. Looks at one example at a time.
        """
        asked: list[int] = []
        known: list[int] = []
        for place, example in enumerate(examples):
            if example.target is None:
                asked.append(place)
            elif fits(example):
                known.append(place)
        if not asked and len(known) > self.sample:
            known = [known[turn * len(known) // self.sample] for turn in range(self.sample)]
        return [examples[place] for place in asked or known]

    def with_texts(
        self,
        found: Sequence[Prediction],
        asked: Sequence[Example],
        texts: Sequence[str],
        going: set[int],
        why: str,
        full: Collection[int] = (),
    ) -> list[Prediction]:
        """The predictions, those of `asked` with what was written.

        `going`: rows whose text was cut off, as `why` says; `full`: those of them where the model had no more positions.
        """
        if going and asked[0].target is None:
            warnings.warn(
                f"{len(going):,} of {len(asked):,} {why}",
                TunesmithWarning,
                stacklevel=5,
            )
        said = {item.row: text for item, text in zip(asked, texts, strict=True)}
        return [
            replace(
                item, value=said[item.row], counts=(*item.counts[:2], int(item.row in going), int(item.row in full))
            )
            if item.row in said
            else item
            for item in found
        ]

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Over tokens, each alike: mean loss in nats, accuracy (what the model would say after the true tokens before),
        perplexity. Over the rows with a written text what `measures` gives, and the user's metric.
        """
        import numpy as np

        columns = token_columns(predictions)
        pairs = [
            None if item.value is None else self.pair(item.value, true)
            for item, true in zip(predictions, truth, strict=True)
        ]
        known = np.array([pair is not None for pair in pairs], dtype=bool)
        lower = LOWER & self.functions(columns, labels).keys()
        if not known.any():
            metrics = self.functions(columns, labels)
            return Scores(columns, metrics, self.primary_metric, lower=lower, each=token_measures(columns))
        own = self._own_metric()
        more = self.measures(pairs, own)
        for name, place in (("going", 2), ("full", 3)):
            cut = [sum(item.counts[place : place + 1]) for item in predictions]
            columns[name] = np.array(cut, dtype=np.float64)
        columns |= more
        metrics = self.functions(columns, labels)
        functions = {name: metrics[name] for name in more}
        shares = frozenset({"exact_match"} - set(own))  # a function of the user's may have its name
        free = frozenset({"bleu", "chrf", *own}) & functions.keys()
        written, rows_of = dict.fromkeys(functions, int(known.sum())), dict.fromkeys(functions, known)
        each = token_measures(columns) | {
            name: _of_each(metric, columns, known) for name, metric in functions.items() if name not in OF_ALL
        }
        return Scores(columns, metrics, self.primary_metric, shares, lower, written, rows_of, free, each)

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        of_tokens: dict[str, Metric] = {name: TOKEN_METRICS[name] for name in self.metrics}
        return of_tokens | {
            name: written_metric(name, column) for name, column in columns.items() if name not in BESIDE
        }

    def _own_metric(self) -> dict[str, Compare]:
        """The user's function by its name; none where there is none."""
        if self.metric is None:
            return {}
        own, path = named_function(self.metric), self.metric
        name = path.rpartition(":")[2].rpartition(".")[2]
        return {name: lambda said, wanted: measured(own, path, said, wanted)}

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        if prediction.value is None:
            return None
        said, wanted = self.pair(prediction.value, truth)
        if exact_match(said, wanted):
            return None
        near = rouge_l(said, wanted)
        said = shown(prediction.value, SHOWN) or NOTHING
        return Mistake(1 - near, shown(self.wanted(truth), SHOWN), said, f"ROUGE-L {near:.2f}")


def _of_each(metric: Metric, columns: Mapping[str, np.ndarray], known: np.ndarray) -> np.ndarray:
    """A metric of each example by itself; NaN of those that nothing was written for."""
    import numpy as np

    alone = (
        {name: values[[row]] for name, values in columns.items()} if there else None for row, there in enumerate(known)
    )
    return np.array([float("nan") if of is None else metric(of) for of in alone])
