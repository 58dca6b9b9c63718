"""What is delivered is what was trained: proven in the number format of the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith import delivery, finetune
from tunesmith.errors import ArtifactError
from tunesmith.models.casting import align

Folder = Callable[[str], Path]
BRIEF = {
    "training.precision": "bfloat16",
    "training.epochs": 1,
    "evaluation.quick": True,
    "evaluation.baselines": False,
}


def test_rounding_to_bfloat16_alone_refuses_no_model(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that makes much of the third digit says other things in float32; in bfloat16 it says what it was trained to."""
    monkeypatch.setattr(delivery, "ROUNDING", 0.05)
    kept = delivery._evidence

    def strained(predictor: Any, texts: Any) -> list[list[float]]:
        off = 0.2 if predictor.network.sample.dtype == torch.float32 and len(texts) <= delivery.PROBES else 0.0
        return [[value + off for value in row] for row in kept(predictor, texts)]

    made = finetune(str(model_folder("bert")), table_file, "full", settings=BRIEF, out=tmp_path / "plain")
    assert (made.path / "model").is_dir()
    monkeypatch.setattr(delivery, "_evidence", strained)
    monkeypatch.setattr(delivery, "check_parity", lambda predictor, folder: None)
    assert finetune(str(model_folder("bert")), table_file, "full", settings=BRIEF, out=tmp_path / "run").path.is_dir()


def test_control_other_weights_are_refused(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = delivery._evidence
    monkeypatch.setattr(delivery, "check_parity", lambda predictor, folder: None)
    monkeypatch.setattr(
        delivery,
        "_evidence",
        lambda predictor, texts: [[value + 0.2 for value in row] for row in kept(predictor, texts)],
    )
    with pytest.raises(ArtifactError, match="differs from the one trained"):
        finetune(str(model_folder("bert")), table_file, "full", settings=BRIEF, out=tmp_path / "run")


def test_weights_of_a_file_begin_at_a_whole_cache_line() -> None:
    layer = nn.Conv2d(2, 3, 3)
    raw = bytearray(64 * 5 + layer.weight.numel() * 4)
    start = next(at for at in range(4, 68, 4) if torch.frombuffer(raw, dtype=torch.float32, offset=at).data_ptr() % 64)
    odd = torch.frombuffer(raw, dtype=torch.float32, offset=start, count=layer.weight.numel())
    odd.copy_(layer.weight.detach().flatten())
    layer.weight.data = odd.view_as(layer.weight)
    assert layer.weight.data_ptr() % 64
    before = layer.weight.detach().clone()
    align(layer)
    assert layer.weight.data_ptr() % 64 == 0 and torch.equal(layer.weight, before)
