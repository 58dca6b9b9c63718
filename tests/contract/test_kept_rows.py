"""Rows of every task are the same from disk as from memory; a new file in tasks/ is found and tried here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cases import SAMPLES, TASK_VARIANTS, families_of

from tunesmith import catalog, encoding
from tunesmith.data import stored
from tunesmith.data.encode import collate
from tunesmith.data.stored import StoredExamples, measures, tokens_in
from tunesmith.encoding import encode_split
from tunesmith.tasks.base import Task

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone

# Pictures are no whole numbers, and all conversations are encoded at once.
IN_MEMORY = ("image_classification", "instruction")
CASES = [(task, family) for task in catalog.names("tasks") for family in families_of(task)[:2]]


@pytest.mark.parametrize(("name", "family"), CASES)
@pytest.mark.parametrize("limit", [7, 40])
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
    monkeypatch.setattr(stored, "PART_ROWS", 4)
    task = catalog.build("tasks", {"name": name, **TASK_VARIANTS.get(name, [{}])[0]})
    assert isinstance(task, Task)
    samples, labels = SAMPLES[name]
    texts, truth = [text for text, _ in samples], [target for _, target in samples]
    processor = backbone(model_folder(family)).processor
    limit = limit if name not in IN_MEMORY else 40
    wanted = task.encode(texts, truth, labels, processor, limit)
    assert isinstance(encode_split(task, texts, truth, labels, processor, limit)[0], StoredExamples) is (
        name not in IN_MEMORY
    )
    found, said = encode_split(task, texts, truth, labels, processor, limit)
    if name in IN_MEMORY:
        assert (type(found), said, list(tmp_path.iterdir())) == (list, "", [])
        return
    assert said.startswith("read from"), "the second time nothing is encoded"
    assert list(found) == wanted
    assert [repr(example.target) for example in found] == [repr(example.target) for example in wanted]  # 1 is not 1.0
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


def backbone(folder: Path) -> Backbone:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder)))
