"""Metrics that take a weight for each example, so that thousands of resamples cost one product of matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Columns = Mapping[str, "np.ndarray"]
Weighed = Callable[["np.ndarray"], "np.ndarray"]  # weights [examples, samples] -> a value of each sample, [samples]


class Weighted(ABC):
    """A metric of weighted examples; its plain value is that with a weight of 1 each, so that there is one formula.

    A weight may be any number from 0 on: how often a resample holds an example, 0 for one left out, or a share.
    """

    @abstractmethod
    def weighing(self, columns: Columns) -> Weighed:
        """What gives the metric of many samples of these examples at once; nan where a sample has no value."""

    @abstractmethod
    def common(self, columns: Columns) -> Columns:
        """The columns in a unit that two models share, so that what is said of an example may be swapped between them."""

    def __call__(self, columns: Columns) -> float:
        import numpy as np

        return float(self.weighing(columns)(np.ones((rows_in(columns), 1)))[0])


def as_they_are(columns: Columns) -> Columns:
    return columns


@dataclass(frozen=True)
class OfSums(Weighted):
    """A metric that is a function of sums over the examples.

    statistics: columns -> [examples, sums], an array or a sparse one (`scipy.sparse`) where most are 0. They may be
    taken from the mean of the columns, or in another unit, if `value` of their sums does not depend on it.
    value: [sums, samples] -> [samples]
    unit: what `common` gives; the columns as they are, unless the metric knows nothing of their unit.
    """

    statistics: Callable[[Columns], Any]
    value: Callable[[np.ndarray], np.ndarray]
    unit: Callable[[Columns], Columns] = as_they_are

    def weighing(self, columns: Columns) -> Weighed:
        turned = self.statistics(columns).T
        return lambda weights: self.value(turned @ weights)

    def common(self, columns: Columns) -> Columns:
        return self.unit(columns)

    def each(self, columns: Columns) -> np.ndarray:
        """[examples] of each example by itself."""
        import numpy as np

        found = self.statistics(columns).T
        return self.value(found if isinstance(found, np.ndarray) else found.toarray())


def weigh(metric: Callable[[Columns], float], columns: Columns) -> Weighed:
    """As `Weighted.weighing` for any metric: of a plain function each sample is made and measured, one by one.

    Of a plain function weights are cut to whole numbers: how often each example is there.
    """
    import numpy as np

    if isinstance(metric, Weighted):
        return metric.weighing(columns)
    rows = np.arange(rows_in(columns))

    def one_by_one(weights: np.ndarray) -> np.ndarray:
        samples = (np.repeat(rows, times) for times in weights.T.astype(np.int64))
        return np.array([metric({name: values[taken] for name, values in columns.items()}) for taken in samples])

    return one_by_one


def each_of(metric: Callable[[Columns], float], columns: Columns) -> np.ndarray:
    """[examples] a metric of each example by itself."""
    import numpy as np

    if isinstance(metric, OfSums):
        return metric.each(columns)
    alone = ({name: values[[row]] for name, values in columns.items()} for row in range(rows_in(columns)))
    return np.array([metric(of) for of in alone])


def rows_in(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """part / whole, `otherwise` where the whole is 0; of any equal shape."""
    import numpy as np

    return np.divide(part, whole, out=np.full(np.shape(part), otherwise), where=whole > 0)


def stacked(*columns: np.ndarray) -> np.ndarray:
    """[examples] each -> [examples, sums] of float."""
    import numpy as np

    return np.stack([np.asarray(values, dtype=np.float64) for values in columns], axis=1)


def mean(values: Callable[[Columns], np.ndarray], otherwise: float = float("nan")) -> OfSums:
    """The mean of `values` (columns -> [examples]); `otherwise` where there are no examples."""

    def statistics(columns: Columns) -> np.ndarray:
        import numpy as np

        found = values(columns)
        return stacked(found, np.ones(len(found)))

    return OfSums(statistics, lambda sums: ratio(sums[0], sums[1], otherwise))
