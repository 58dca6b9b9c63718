"""benchmarks/step.py on a few rows, and its reckoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import step

    threads = torch.get_num_threads()
    yield step
    torch.set_num_threads(threads)


def test_operators_are_told_apart_and_what_is_left_comes_last(step: Any) -> None:
    weight, given = torch.randn(3, 4, requires_grad=True), torch.randn(5, 3)
    with step.Clock() as clock:
        torch.mm(given, weight).sum().backward()
    shapes = {shapes for name, shapes in clock.spent if name.startswith("mm.")}
    assert shapes == {((5, 3), (3, 4)), ((3, 5), (5, 4))}, "forward and the gradient of the weight"
    found = step.parts(
        {("mm.default", ()): [0.002, 0.002], ("unknown.default", ()): [0.001], ("gelu.default", ()): [0.003]}, 1, 10.0
    )
    assert found == pytest.approx({step.PRODUCTS: 4.0, "activation": 3.0, step.OTHER: 1.0, step.REST: 2.0})
    assert list(found)[-1] == step.REST


def test_arithmetic_of_products(step: Any) -> None:
    spent = {("mm.default", ((5, 3), (3, 4))): [0.001, 0.003], ("addmm.default", ((4,), (5, 3), (3, 4))): [0.002]}
    found = step.products(spent, 2, torch.float32)
    assert found["gflop"] == pytest.approx(3 * 2 * 5 * 3 * 4 / 2 / 1e9)
    assert found["ms"] == pytest.approx(3.0)
    assert 0 < found["alone_ms"] < 3000


def test_what_half_the_time_would_take(step: Any) -> None:
    assert "(12 ms less)" in step.halving(60.0, {"ms": 20.0, "gflop": 1.0}, 8.0)
    assert "45 % off" in step.halving(60.0, {"ms": 20.0, "gflop": 1.0}, 8.0), (
        "22 of 40 ms are left beside 8 of products"
    )
    assert "fewer multiplications" in step.halving(60.0, {"ms": 50.0, "gflop": 1.0}, 31.0)


def test_a_run_on_few_rows(step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["--methods", "full", "--rows", "160", "--large", "64", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "step.json").read_text())["methods"]["full"]
    assert sum(found["parts"].values()) == pytest.approx(found["ms"])
    assert found["products"]["gflop"] > 1
    assert "## full:" in capsys.readouterr().out
