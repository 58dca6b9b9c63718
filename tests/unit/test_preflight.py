"""The trial runs beside what the optimizer will hold, and leaves nothing behind."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shortruns import METHODS, Bench, bench, recipe_for
from tunesmith.data.encode import Batch
from tunesmith.errors import TrainingError
from tunesmith.models import lazy_logits
from tunesmith.recipe import TrainingSpec
from tunesmith.training import footprint as footprints
from tunesmith.training import preflight
from tunesmith.training.footprint import Footprint
from tunesmith.training.loop import Run, set_mode
from tunesmith.training.preflight import fitting_micro_batch
from tunesmith.training.source import FixedRows

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]
TRAINING = TrainingSpec()


@pytest.fixture
def always_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is run, however much memory there is."""
    monkeypatch.setattr(preflight, "AMPLE", math.inf)


@pytest.fixture
def reserved(always_tried: None, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Everything that the preflight has ever put aside; gone entries are dead."""
    kept: list[weakref.ref[Tensor]] = []
    reserve = preflight._reserve

    def watched(*args: Any, **kwargs: Any) -> list[Tensor]:
        tensors = reserve(*args, **kwargs)
        kept.extend(weakref.ref(tensor) for tensor in tensors)
        return tensors

    monkeypatch.setattr(preflight, "_reserve", watched)
    return kept


def _held(reserved: list[weakref.ref[Tensor]]) -> int:
    alive = [tensor for tensor in (reference() for reference in reserved) if tensor is not None]
    return sum(tensor.nbytes for tensor in alive)


def _work(run: Run) -> Callable[[Batch], None]:
    """A forward and backward that leaves no gradient behind."""

    def work(batch: Batch) -> None:
        run.task.loss(run.trunk.forward("train", batch), batch).total.backward()
        run.network.zero_grad(set_to_none=True)

    return work


def _source_of(run: Run) -> Callable[[int], FixedRows]:
    """The run's rows in micro-batches of a size, however long they are."""
    return lambda size: FixedRows(run.source.examples, run.source.order, size, run.source.pad, "cpu")


def _tried(run: Run) -> tuple[Any, list[int]]:
    """The run's trunk, and the rows of every batch that goes through it."""
    tried: list[int] = []

    def forward(split: str, batch: Batch) -> Tensor:
        tried.append(len(batch.rows))
        return run.trunk.forward(split, batch)

    return SimpleNamespace(forward=forward), tried


def _fitting(made: Bench, reserved: list[weakref.ref[Tensor]], room: int, row: int, sizes: list[int]) -> int:
    """The preflight's answer where `room` bytes are left, and each row needs `row` of them."""
    import torch

    run = made.run

    def loss(output: Tensor, batch: Batch) -> Any:
        if len(batch.rows) * row + _held(reserved) > room:
            raise torch.OutOfMemoryError("out of memory")
        return run.task.loss(output, batch)

    task: Any = SimpleNamespace(loss=loss)
    return fitting_micro_batch(run.network, task, run.plan, run.trunk, _source_of(run), sizes, TRAINING)[0]


@pytest.mark.parametrize("method", ["full", "layers"])
def test_a_batch_must_fit_beside_the_moments(
    method: str, reserved: list[weakref.ref[Tensor]], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, METHODS[method]), tmp_path)  # 24 rows a step
    network = made.run.network
    trains = 4 * sum(value.numel() for value in network.parameters() if value.requires_grad)  # bytes
    row = trains // 2
    assert _fitting(made, reserved, 2 * trains + 24 * row, row, [24, 12]) == 24
    assert _fitting(made, reserved, 2 * trains + 24 * row - 1, row, [24, 12]) == 12
    # Several micro-batches also keep the gradient of those before.
    assert _fitting(made, reserved, 3 * trains + 6 * row, row, [12, 6, 3, 1]) == 6
    assert _fitting(made, reserved, 3 * trains + 6 * row - 1, row, [12, 6, 3, 1]) == 3
    with pytest.raises(TrainingError, match="not even 1 row"):
        _fitting(made, reserved, 3 * trains + row - 1, row, [24, 1])
    assert _held(reserved) == 0
    assert all(value.grad is None for value in network.parameters())


def test_what_no_memory_is_left_for_is_refused_before_it_is_tried(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU nothing raises: the system ends the process. So the trial must not be reached."""
    made = bench(recipe_for(model_folder("bert"), table_file), tmp_path)
    run = made.run
    trains = 4 * sum(value.numel() for value in run.network.parameters() if value.requires_grad)
    (trunk, tried), source_of = _tried(run), _source_of(run)

    def size_with(free: int, sizes: list[int]) -> int:
        tried.clear()
        monkeypatch.setattr(preflight, "free_memory", lambda most: free)
        return fitting_micro_batch(run.network, run.task, run.plan, trunk, source_of, sizes, TRAINING)[0]

    set_mode(run.network, run.plan)
    footprint = Footprint(_work(run), source_of(24).longest())
    fits = {rows: footprint.bytes(rows) + (2 if rows == 24 else 3) * trains for rows in (24, 12, 6, 3, 1)}
    assert size_with(fits[24], [24, 12, 6, 3, 1]) == 24
    for rows, more in ((12, 24), (6, 12), (3, 6)):
        assert size_with(fits[more] - 1, [24, 12, 6, 3, 1]) == rows
        assert max(tried) <= max(rows, 3), "a batch was run that would have been killed"
    with pytest.raises(TrainingError, match=r"not even 24 row\(s\).*GB needed.*training.micro_batch=12 would fit"):
        size_with(fits[12], [24])
    with pytest.raises(TrainingError, match=r"not even 1 row\(s\).*with training.max_length=\d+ would fit"):
        size_with(fits[1] - 1, [1])
    with pytest.raises(TrainingError, match=r"not even 10 row\(s\) of \d+ tokens fit \(0.0 GB of memory free"):
        size_with(3 * trains - 1, [10])
    assert tried == [], "the moments alone do not fit: nothing is run"
    assert all(value.grad is None for value in run.network.parameters())


@pytest.mark.parametrize(("method", "less"), [("full", ", or method=head"), ("head", "micro_batch")])
def test_what_would_take_less_is_named(
    method: str, less: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, METHODS[method]), tmp_path).run
    (trunk, _), source_of = _tried(made), _source_of(made)

    def told(most: float | None) -> str:
        with pytest.raises(TrainingError) as raised:
            fitting_micro_batch(made.network, made.task, made.plan, trunk, source_of, [1], TRAINING, most)
        return str(raised.value)

    assert "are held before the first step" in told(1e6)
    monkeypatch.setattr(preflight, "free_memory", lambda most: 0)
    assert told(None).endswith(less)


def test_what_fits_amply_is_told_by_two_rows(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file), tmp_path)
    run = made.run
    moments = 2 * 4 * sum(value.numel() for value in run.network.parameters() if value.requires_grad)
    (trunk, tried), source_of = _tried(run), _source_of(run)

    def most_tried(free: int, limited: bool = False) -> int:
        tried.clear()
        monkeypatch.setattr(preflight, "free_memory", lambda most: free)
        monkeypatch.setattr(preflight, "process_limited", lambda: limited)
        size, why = fitting_micro_batch(run.network, run.task, run.plan, trunk, source_of, [24, 12], TRAINING)
        assert (size, why) == (24, "the whole batch fits")
        return max(tried)

    set_mode(run.network, run.plan)
    ample = int(preflight.AMPLE * (Footprint(_work(run), source_of(24).longest()).bound(24) + moments))
    assert most_tried(ample) == 2
    assert most_tried(ample - 1) == 24, "else the batch itself is run"
    assert most_tried(ample, limited=True) == 24, "what is free of the machine says nothing of a limited process"
    assert all(value.grad is None for value in run.network.parameters())


@pytest.mark.parametrize("method", [*METHODS, "checkpointing"])
def test_two_rows_and_three_tell_what_many_take(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """The oracle: every operation of the real batch, counted as it runs."""
    recompute = method == "checkpointing"
    asked = METHODS["full" if recompute else method]
    made = bench(recipe_for(model_folder("bert"), table_file, asked, {"training.checkpointing": recompute}), tmp_path)
    run = made.run
    set_mode(run.network, run.plan)

    longest = _source_of(run)(24).longest()
    whole = max(footprints._bytes_alive(_work(run), longest))
    found = Footprint(_work(run), longest)
    assert found.bytes(24) == pytest.approx(footprints.UNSEEN * whole, rel=0.03)
    assert found.bound(24) >= found.bytes(24) > found.bytes(12) > found.bytes(1) > 0
    if recompute:
        plain = bench(recipe_for(model_folder("bert"), table_file), tmp_path / "plain").run
        set_mode(plain.network, plain.plan)
        kept = Footprint(
            lambda batch: plain.task.loss(plain.trunk.forward("train", batch), batch).total.backward(), longest
        )
        assert found.bytes(24) < 0.8 * kept.bytes(24), "the control: what is not kept is seen not to be"


@pytest.mark.parametrize("places", [7, 40, 100])
def test_a_loss_in_parts_is_told_too(
    places: int, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows have more parts, so that the two passes that tell it are not of one length."""
    monkeypatch.setattr(lazy_logits, "AT_ONCE", 220 * places)
    settings = {"task": {"name": "causal_lm"}, "training.chunked_loss": True}
    run = bench(recipe_for(model_folder("llama"), table_file, "full", settings), tmp_path).run
    set_mode(run.network, run.plan)

    longest = _source_of(run)(24).longest()
    whole = max(footprints._bytes_alive(_work(run), longest))
    found = Footprint(_work(run), longest, in_parts=True)
    rows = len(longest.rows)
    assert 0.97 * footprints.UNSEEN * whole <= found.bytes(rows) <= 1.1 * footprints.UNSEEN * whole
    assert found.bytes(rows) > found.bytes(2)


def test_of_two_texts_a_row_both_sides_are_taken() -> None:
    import torch

    from tunesmith.data.encode import Batch
    from tunesmith.training.footprint import _first

    ids = torch.arange(8).reshape(8, 1)  # rows 0 to 3, first texts and then second ones
    taken = _first(Batch((4, 5, 6, 7), {"input_ids": ids}, torch.arange(4)), 5)
    assert taken.inputs["input_ids"].flatten().tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 7, 4]
    assert taken.rows == (4, 5, 6, 7, 4)
