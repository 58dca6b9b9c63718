"""L3: a cached prefix equals the live one; caching changes speed only.

Bitwise where the cache is filled in the batches that training asks for. The last bit of a matrix product depends on its
number of rows, so where a row is cached beside other rows than it is trained with, the runs agree to rounding, without
one-sided drift. The contract suite compares single steps for every family.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import METHODS, Bench, bench, differences, recipe_for
from tunesmith.training.events import Evaluated, StepDone
from tunesmith.training.loop import train
from tunesmith.training.moving import Moving
from tunesmith.training.trunk import HiddenCache, Live, PooledCache, Trunk

Folder = Callable[[str], Path]
KINDS = {"head": PooledCache, "layers": HiddenCache, "unfreeze": Moving}


@pytest.fixture(autouse=True)
def _one_forward_fills_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.training.trunk.CPU_TOKENS", 1_000_000)


def _made(
    method: str, cache: str, model: Path, data: Path, folder: Path, whole: bool, batches: str = "similar"
) -> Bench:
    settings = {"training.cache": cache, "training.epochs": 6, "training.rate": 1e-3, "training.probe": False}
    settings["training.batches"] = batches
    if whole:  # every row in every step, so that all forwards see the same batch
        settings |= {"training.batch_size": 200, "training.micro_batch": 200}
    return bench(recipe_for(model, data, METHODS[method], settings), folder)


def _numbers(made: Bench) -> list[float]:
    return [event.loss for event in train(made.run) if isinstance(event, StepDone | Evaluated)]


@pytest.mark.parametrize(
    ("family", "batches"), [("bert", "similar"), ("bert", "random"), ("sentence", "similar"), ("llama", "similar")]
)
@pytest.mark.parametrize("method", list(KINDS))
def test_bitwise_where_the_batches_are_the_same(
    method: str, family: str, batches: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    model = model_folder(family)
    cached = _made(method, "memory", model, table_file, tmp_path / "cached", whole=True, batches=batches)
    live = _made(method, "off", model, table_file, tmp_path / "live", whole=True, batches=batches)
    assert (type(cached.trunk), type(live.trunk)) == (KINDS[method], Live)
    assert _numbers(cached) == _numbers(live)
    assert differences(cached.tensors(), live.tensors()) == []


@pytest.mark.parametrize("method", list(KINDS))
def test_to_rounding_in_other_batches(method: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    model = model_folder("bert")
    here = _numbers(_made(method, "memory", model, table_file, tmp_path / "cached", whole=False))
    there = _numbers(_made(method, "off", model, table_file, tmp_path / "live", whole=False))
    assert here == pytest.approx(there, abs=2e-6)
    assert abs(sum(a - b for a, b in zip(here, there, strict=True))) / len(here) < 5e-7


def _spoil(trunk: Trunk) -> None:
    assert isinstance(trunk, HiddenCache)
    rows = list(trunk.hidden["train"])
    rows[0] = rows[0].flip(-1)  # a constant added to all features would be lost in the next norm
    trunk.hidden = {**trunk.hidden, "train": rows}


def _spoil_each(trunk: Moving) -> None:
    """Each cache as it is made; what was kept is right but for one row."""
    enter = trunk.enter

    def spoiling(cut: int, epochs: float) -> None:
        enter(cut, epochs)
        if cut > 0:
            _spoil(trunk.now)

    trunk.enter = spoiling  # type: ignore[method-assign]


@pytest.mark.parametrize("method", list(KINDS))
def test_control_a_cache_of_the_wrong_rows_is_noticed(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    model = model_folder("bert")
    cached = _made(method, "memory", model, table_file, tmp_path / "cached", whole=True)
    trunk = cached.trunk
    if isinstance(trunk, Moving):
        _spoil_each(trunk)
    elif isinstance(trunk, PooledCache):
        trunk.kept["train"][:2] = trunk.kept["train"][:2].flip(0)
    else:
        _spoil(trunk)
    live = _made(method, "off", model, table_file, tmp_path / "live", whole=True)
    assert _numbers(cached) != _numbers(live)


def test_control_a_live_prefix_with_dropout_is_noticed(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen blocks left in training mode would drop out what the cache keeps."""
    import tunesmith.training.loop as loop

    monkeypatch.setattr(loop, "set_mode", lambda network, plan: network.train())
    model = model_folder("bert")
    cached = _made("layers", "memory", model, table_file, tmp_path / "cached", whole=True)
    live = _made("layers", "off", model, table_file, tmp_path / "live", whole=True)
    assert _numbers(cached) != pytest.approx(_numbers(live), abs=1e-4)
