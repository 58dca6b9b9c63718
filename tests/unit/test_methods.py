"""What each method lets change, and at which rate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import attached, recipe_for
from tunesmith.catalog import build
from tunesmith.errors import ModelError
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start
from tunesmith.training.events import Warned

Folder = Callable[[str], Path]


def rate_of(plan: Plan, part: str) -> float:
    """Of the only rate that parameters have whose name holds `part`."""
    rates = {group.rate for group in plan.groups for name in group.parameters if part in name}
    (rate,) = rates
    return rate


def test_the_rate_falls_from_block_to_block(model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), {"name": "full", "rate_decay": 0.5})
    depth = len(network.layout.blocks)
    for place in range(depth):
        assert rate_of(plan, f".layer.{place}.") == pytest.approx(1e-3 * 0.5 ** (depth - 1 - place))
    assert rate_of(plan, "embeddings.") == pytest.approx(1e-3 * 0.5**depth)
    assert rate_of(plan, "pooler.") == 1e-3, "what follows the blocks has the rate of the last one"
    assert rate_of(plan, "classifier.") == 1e-2
    _, even = attached(model_folder("bert"), "full")
    assert {group.rate for group in even.groups} == {1e-3, 1e-2}


@pytest.mark.parametrize(
    ("asked", "blocks"),
    [({"layers": 2}, {1, 2}), ({"layers": 2, "side": "bottom"}, {0, 1}), ({"layers": [0, 2]}, {0, 2})],
)
def test_the_blocks_that_were_asked_for_train(asked: dict[str, object], blocks: set[int], model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), asked)
    trained = {place for place in range(3) if any(f".layer.{place}." in name for name in plan.trainable)}
    assert trained == blocks
    assert plan.cut == min(blocks)
    assert network.layout.blocks


@pytest.mark.parametrize(("method", "last"), [("bitfit", {"bias"}), ("norms", {"weight", "bias"})])
def test_only_biases_and_only_norms(method: str, last: set[str], model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), method)
    of_base = set(plan.trainable) - network.fresh
    assert {name.rpartition(".")[2] for name in of_base} == last
    body = f"{network.layout.body}."
    biases = {name for name, _ in network.named_parameters() if name.startswith(body) and name.endswith(".bias")}
    norms = {f"{norm}.{part}" for norm in network.layout.norms for part in ("weight", "bias")}
    assert of_base == (biases if method == "bitfit" else norms)


def test_no_blocks_to_fall_over(model_folder: Folder) -> None:
    with pytest.raises(ModelError, match=r"rate_decay: .* for the rate to fall over; leave it out$"):
        attached(model_folder("glove"), {"name": "full", "rate_decay": 0.5})


def test_scratch_knows_nothing_and_is_the_same_every_time(model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), "scratch")
    again, _ = attached(model_folder("bert"), "scratch")
    backbone = load_backbone(resolve(str(model_folder("bert"))))
    pretrained = sequence_network(backbone, ("a", "b"), "single_label_classification", False, 3)
    known = dict(pretrained.named_parameters())
    assert set(plan.trainable) == set(known)
    for name, value in network.named_parameters():
        assert value.equal(again.get_parameter(name)), "drawn from the seed"
        assert value.equal(known[name]) == (name in network.fresh), name
    assert not network.pretrained


def test_scratch_is_refused_where_statistics_would_stay(model_folder: Folder) -> None:
    from tunesmith.models.network import image_network

    method = build("methods", "scratch")
    assert isinstance(method, Method)
    network = image_network(load_backbone(resolve(str(model_folder("resnet")))), ("a", "b"), 3)
    with pytest.raises(
        ModelError, match=r"method scratch: this base has batch norms, .*; use full, layers, norms or head$"
    ):
        method.attach(network, Rates(1e-3, 1e-2, ""), 5)


def test_a_run_from_scratch_compares_with_no_features_of_nothing(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"evaluation.baselines": True, "training.epochs": 1, "training.patience": 3, "retention.keep": 0.5}
    events = list(
        start(recipe_for(model_folder("sentence"), table_file, "scratch", settings), tmp_path / "run").events()
    )
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert [item["name"] for item in report["baselines"]] == ["majority", "tfidf"]
    assert not [item for item in report["findings"] if item["kind"] == "retention"]
    said = [event.message for event in events if isinstance(event, Warned)]
    assert said == ["not used: retention.keep = 0.5: method scratch starts from nothing that could be kept"]


def test_lora_plus_keeps_the_mean_of_both_rates() -> None:
    plain, plus = (Lora(up_rate=times).rates(384, 1000) for times in (1.0, 16.0))
    assert plus.base * 4 == pytest.approx(plain.base) and plus.head == plain.head
    assert math.sqrt(plus.base * plus.base * 16) == pytest.approx(plain.base)
    assert "root of method.up_rate = 16" in plus.why and "root" not in plain.why
