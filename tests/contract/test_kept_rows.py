"""Rows of every task are the same from disk as from memory; a new file in tasks/ is found and tried here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cases import SAMPLES, TASK_VARIANTS, families_of

from tunesmith import catalog, encoding
from tunesmith.data import stored
from tunesmith.data.encode import PIXELS, BadRows, Example, collate
from tunesmith.data.stored import StoredExamples, measures, tokens_in
from tunesmith.encoding import encode_split
from tunesmith.files import cache_folder
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.processor import Processor

SHORT = 7  # tokens, which cuts most texts; no answer of a conversation would be left
CASES = [(task, family) for task in catalog.names("tasks") for family in families_of(task)[:2]]


@pytest.mark.parametrize(("name", "family"), CASES)
@pytest.mark.parametrize("limit", [SHORT, 40])
def test_rows_from_disk_are_the_rows_encoded(
    name: str,
    family: str,
    limit: int,
    model_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "FEW_ROWS", 3)
    monkeypatch.setattr(encoding, "FEW_PICTURES", 3)
    monkeypatch.setattr(stored, "PART_ROWS", 4)
    monkeypatch.setattr(stored, "PART_PICTURES", 4)
    task = catalog.build("tasks", {"name": name, **TASK_VARIANTS.get(name, [{}])[0]})
    assert isinstance(task, Task)
    samples, labels = SAMPLES[name]
    texts, truth = [text for text, _ in samples], [target for _, target in samples]
    processor = backbone(model_folder(family)).processor
    if name == "instruction" and limit == SHORT:
        rows_without_an_answer_are_all_told(task, texts, truth, labels, processor)
        return
    wanted = task.encode(texts, truth, labels, processor, limit)
    assert isinstance(encode_split(task, texts, truth, labels, processor, limit)[0], StoredExamples)
    found, said = encode_split(task, texts, truth, labels, processor, limit)
    assert said.startswith("read from"), "the second time nothing is encoded"
    assert [comparable(example) for example in found] == [comparable(example) for example in wanted]
    assert [beside(example) for example in found] == [beside(example) for example in wanted], "1 is not 1.0, nor True"
    for mine, theirs in zip(measures(found), measures(wanted), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert tokens_in(found) == tokens_in(wanted)
    one, two = (collate(list(rows), processor.pad) for rows in (found, wanted))
    assert one.inputs.keys() == two.inputs.keys() and one.rows == two.rows
    assert all(torch.equal(one.inputs[key], two.inputs[key]) for key in two.inputs)
    for mine, theirs in ((one.target, two.target), (one.counted, two.counted)):
        assert (mine is None and theirs is None) or (
            mine is not None and theirs is not None and mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        )


def beside(example: Example) -> dict[str, str]:
    """What an example holds beside what the model reads, as written."""
    sides = ("inputs", "second", "more")
    return {name: repr(value) for name, value in vars(example).items() if name not in sides}


def comparable(example: Example) -> Example:
    """A picture as lists, since tensors are not equal or unlike as a whole."""
    if PIXELS not in example.inputs:
        return example
    return replace(example, inputs={PIXELS: (str(example.inputs[PIXELS].dtype), example.inputs[PIXELS].tolist())})


def rows_without_an_answer_are_all_told(
    task: Task, texts: list[Any], truth: list[Any], labels: Labels, processor: Processor
) -> None:
    with pytest.raises(BadRows) as wanted:
        task.encode(texts, truth, labels, processor, SHORT)  # type: ignore[arg-type]
    with pytest.raises(BadRows) as found:
        encode_split(task, texts, truth, labels, processor, SHORT)
    assert found.value.rows == wanted.value.rows and max(found.value.rows) > 4, "of every part"
    assert not [path for path in cache_folder().rglob("*") if path.is_file()], "nothing half is kept"


def backbone(folder: Path) -> Backbone:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder)))
