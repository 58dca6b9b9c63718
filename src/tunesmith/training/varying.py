"""Training rows that are varied: anew in every epoch, or in a fixed number of versions whose frozen part is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Batch, Example, collate
from tunesmith.data.stored import MeasuredExamples, measures
from tunesmith.tasks.base import Task
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from torch import Tensor


def varier(
    task: Task,
    examples: Sequence[Example],
    pad: dict[str, int],
    seed: int,
    versions: int | None,
    kept: bool,
    processor: Any,
) -> Callable[[Batch, int], Batch]:
    """What an epoch makes of a batch of training rows. `kept`: the frozen part of every one of the `versions` is."""

    def vary(batch: Batch, epoch: int) -> Batch:
        if versions is not None:
            version = epoch % versions
            if kept:
                return replace(batch, version=version)  # what is frozen has read it already
            return batch if version == 0 else task.varied(batch, seed, version, processor)
        own = task.varied(batch, seed, epoch, processor)
        partners = task.partners(batch.rows, len(examples), seed, epoch)
        if not partners:
            return own
        others = collate([examples[row] for row in partners], pad, str(next(iter(batch.inputs.values())).device))
        return task.mixed(own, task.varied(others, seed, epoch, processor), seed, epoch)

    return vary


def _version_name(split: str, version: int) -> str:
    return split if version == 0 else f"{split} version {version}"


class WithVersions(Mapping[str, Sequence[Example]]):
    """Splits by name, with the further versions of the training rows, whose rows are made each time they are asked for."""

    def __init__(
        self,
        splits: Mapping[str, Sequence[Example]],
        task: Task,
        versions: int,
        seed: int,
        pad: dict[str, int],
        processor: Any,
    ) -> None:
        self._splits, self._task, self._seed, self._pad, self._processor = splits, task, seed, pad, processor
        self._versions = {_version_name("train", version): version for version in range(1, versions)}

    def __iter__(self) -> Iterator[str]:
        return iter((*self._splits, *self._versions))

    def __len__(self) -> int:
        return len(self._splits) + len(self._versions)

    def __getitem__(self, name: str) -> Sequence[Example]:
        if name in self._splits:
            return self._splits[name]
        version = self._versions[name]
        return _Version(
            self._splits["train"],
            lambda row: self._task.varied(collate([row], self._pad), self._seed, version, self._processor),
        )


class _Version(MeasuredExamples):
    """Rows as one version has them, each made when it is asked for: never are all of them in memory."""

    def __init__(self, rows: Sequence[Example], vary: Callable[[Example], Batch]) -> None:
        self.measures, self._rows, self._vary = measures(rows), rows, vary

    def row(self, row: int) -> Example:
        example = self._rows[row]
        return replace(example, inputs={key: value[0] for key, value in self._vary(example).inputs.items()})


class KeptVersions(Trunk):
    """What is frozen is kept for every version of the training rows."""

    def __init__(self, inner: Trunk, versions: int) -> None:
        self.inner, self.saved = inner, inner.saved
        self.why = f"{inner.why}, for each of {versions} versions of the training rows"

    def forward(self, split: str, batch: Batch) -> Tensor:
        return self.inner.forward(_version_name(split, batch.version), batch)

    def features(self, split: str, examples: Sequence[Example], pad: dict[str, int]) -> Tensor:
        return self.inner.features(split, examples, pad)
