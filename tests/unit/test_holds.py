"""What holds a network to its base beside its weights: general text, and how much depends on each weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div

from shortruns import METHODS, bench, differences, facts, recipe_for, stopped_and_taken_up
from tunesmith.data.encode import IGNORED, Batch
from tunesmith.errors import DataError, RecipeError
from tunesmith.models.backbone import load_backbone
from tunesmith.models.language import masked_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start
from tunesmith.preparing import prepare
from tunesmith.retention import holds
from tunesmith.retention.fisher import fisher
from tunesmith.retention.general import GeneralText, general_text
from tunesmith.retention.holds import General, Hold, Vectors, Words
from tunesmith.training.loop import train
from tunesmith.unused import unused_settings

Folder = Callable[[str], Path]
FAST = {"training.rate": 5e-3, "training.epochs": 2}
HELD = {"retention.distill": 2.0, "retention.ewc": 2.0}


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """60 texts of no task."""
    words = ["river", "stone", "cloud", "paper", "engine", "music", "winter", "garden"]
    lines = [" ".join(words[(row * step + step) % 8] for step in range(1, 9)) + f" {row}" for row in range(60)]
    path = tmp_path / "general.csv"
    path.write_text("text\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "task.txt"
    lines = [f"a good film of {row} parts, and a bad one of {row % 7}." for row in range(400)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _batch(rows: torch.Tensor) -> Batch:
    return Batch((0,), {"x": rows}, None)


class _Linear(nn.Module):
    """y = W x with noise of variance 1: the Fisher information of each weight is the mean square of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 2, bias=False)
        self.other = nn.Linear(2, 2)

    def drawn(self, batch: Batch) -> torch.Tensor:
        mean = self.map(batch.inputs["x"])
        return (mean - (mean + torch.randn_like(mean)).detach()).square().sum() / 2


def test_fisher_information_of_a_linear_map_is_the_mean_square_of_its_inputs() -> None:
    network: Any = _Linear()
    network.other.weight.requires_grad_(False)
    inputs = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.5])
    found = fisher(network, ["map.weight"], [_batch(row) for row in inputs], network.drawn, seed=1)["map.weight"]
    wanted = inputs.square().mean(0).expand(2, 3)
    assert torch.allclose(found, wanted / wanted.mean(), rtol=0.12)
    assert float(found.mean()) == pytest.approx(1.0)
    assert network.map.weight.grad is None and not network.other.weight.requires_grad
    assert (
        fisher(network, ["map.weight"], [_batch(inputs[0] * 0)], network.drawn, 1)["map.weight"].tolist()
        == [[1] * 3] * 2
    )


def test_what_is_measured_is_not_held_to() -> None:
    for count in (40, 90, 700):
        text = GeneralText("file", tuple(map(str, range(count))))
        measured = {*text.measured(60), *text.measured(200)}
        held = text.held(512)
        assert measured.isdisjoint(held) and len(held) == len(set(held)) == min(512, count - len(measured))
        assert len(measured) >= min(200, count * 3 // 4)


def test_a_body_is_at_no_distance_from_itself(
    model_folder: Folder, table_file: Path, general: Path, tmp_path: Path
) -> None:
    settings = {**FAST, **HELD, "retention.general": str(general)}
    made = bench(recipe_for(model_folder("bert"), table_file, "full", settings), tmp_path / "run")
    found, network = made.built.general, made.run.network
    assert isinstance(found, Vectors) and len(found.examples) == 15
    network.eval()
    batch = found.batch(0, 7)
    assert len(batch.rows) == 7 and found.batch(0, 7).rows == batch.rows != found.batch(1, 7).rows
    assert _now(found, batch) == pytest.approx(0.0, abs=1e-10)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.add_(0.0 if name in network.fresh else 0.05 * torch.randn_like(value))
    now = holds.body_vectors(network, found.examples)
    kept = found._kept
    spread = (kept - kept.mean(0)).square().sum(1).mean()
    wanted = (now - kept)[list(batch.rows)].square().sum(1).mean() / spread
    assert _now(found, batch) == pytest.approx(float(wanted), rel=1e-4) and float(wanted) > 1e-4


@pytest.mark.parametrize("likeliest", [10_000, 5])
def test_a_language_model_is_held_by_the_divergence_of_what_it_says(
    likeliest: int, model_folder: Folder, passages: Path, general: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LIKELIEST", likeliest)
    settings = {**FAST, **HELD, "retention.general": str(general)}
    made = bench(recipe_for(model_folder("gpt2"), passages, "full", settings), tmp_path / "run")
    found, network = made.built.general, made.run.network
    assert isinstance(found, Words)
    network.eval()
    batch = found.batch(3, 4)
    assert batch.target is not None
    assert _now(found, batch) == pytest.approx(0.0, abs=1e-6)
    learned = batch.target[:, 1:] != IGNORED
    was = network(batch.inputs)[:, :-1][learned].log_softmax(-1).detach()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.05 * torch.randn_like(value))
    now = network(batch.inputs)[:, :-1][learned].log_softmax(-1)
    whole = float(kl_div(now, was, log_target=True, reduction="none").sum(-1).mean())
    said = _now(found, batch)
    if likeliest > was.shape[-1]:
        assert said == pytest.approx(whole, rel=1e-3) and whole > 1e-4
    else:  # what is counted together can only be nearer
        assert 0 < said < whole
    loss = nn.functional.cross_entropy(now, batch.target[:, 1:][learned])
    assert found.loss(batch, 0).item() == pytest.approx(loss.item(), rel=1e-5)
    hold = Hold(found, distill=0.0, replay=0.25, rows=24)
    assert hold.loss(3).item() == pytest.approx(found.loss(found.batch(3, 8), 3).item() / 3)


def _now(general: General, batch: Batch) -> float:
    with torch.no_grad():
        return float(general.distance(batch))


def _distance(made: Any) -> float:
    """Of the whole of what is held to, from what the base says of it."""
    made.run.network.eval()
    return _now(made.built.general, made.built.general._collated(range(len(made.built.general.examples))))


@pytest.mark.parametrize(("family", "method"), [("bert", "full"), ("bert", "lora"), ("gpt2", "full")])
@pytest.mark.parametrize("key", ["distill", "ewc"])
def test_a_hold_holds(
    family: str,
    method: str,
    key: str,
    model_folder: Folder,
    table_file: Path,
    passages: Path,
    general: Path,
    tmp_path: Path,
) -> None:
    far = []
    data = passages if family == "gpt2" else table_file
    for strength in (1e-9, 20.0):
        settings = {**FAST, "retention.general": str(general), f"retention.{key}": strength}
        made = bench(recipe_for(model_folder(family), data, METHODS[method], settings), tmp_path / str(strength))
        made.built.general.remember(made.run.network)
        list(train(made.run))
        far.append(_distance(made))
    assert far[0] > 2 * far[1] >= 0


def test_what_is_replayed_is_not_forgotten(model_folder: Folder, passages: Path, general: Path, tmp_path: Path) -> None:
    losses = []
    for share in (1e-6, 0.5):
        settings = {**FAST, "training.epochs": 4, "retention.general": str(general), "retention.replay": share}
        made = bench(recipe_for(model_folder("gpt2"), passages, "full", settings), tmp_path / str(share))
        list(train(made.run))
        made.run.network.eval()
        found = made.built.general
        assert isinstance(found, Words)
        losses.append(found.loss(found._collated(range(len(found.examples))), 0).item())
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(("family", "task"), [("bert", "auto"), ("gpt2", "auto"), ("bert", "masked_lm")])
def test_a_resumed_run_is_held_to_the_base(
    family: str, task: str, model_folder: Folder, table_file: Path, passages: Path, general: Path, tmp_path: Path
) -> None:
    writes = family == "gpt2" or task == "masked_lm"
    settings = {**FAST, **HELD, "retention.general": str(general), **({"retention.replay": 0.2} if writes else {})}
    folder = model_folder(family)
    if task != "auto":
        settings["task"] = task
        folder = tmp_path / "base"  # a checkpoint with the head that the task needs
        masked_network(load_backbone(resolve(str(model_folder(family)))), 0).save(folder, (), 64)
    recipe = recipe_for(folder, passages if writes else table_file, "full", settings)
    whole = bench(recipe, tmp_path / "one")
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 2)
    assert expected[-1] == facts(train(again.run))[-1]
    assert differences(whole.tensors(), again.tensors()) == []
    free = bench(recipe_for(folder, Path(recipe.data.path), "full", {**FAST, "task": task}), tmp_path / "free")
    list(train(free.run))
    assert differences(whole.tensors(), free.tensors()) != []  # the control: held or not is not the same


def test_general_text_of_the_user_is_what_is_measured(
    model_folder: Folder, table_file: Path, general: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.general": str(general)})
    prepared = prepare(recipe)
    assert general_text(prepared).source == "general.csv" and len(general_text(prepared).texts) == 60
    assert any("retention.general: 60 texts" in line for note in prepared.notes for line in note.lines)
    assert "retention.general" in prepared.fingerprints()
    made = bench(recipe, tmp_path / "run")
    (meter,) = made.built.meters
    assert meter.rows == 45 and "each of 45 general texts (general.csv)" in meter.read(made.run.network).said


def test_long_documents_are_many_texts(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(
        "\n\n".join(
            f"chapter {row} " + " ".join(f"word{row * place}" for place in range(500)) + f"end {row}"
            for row in range(20)
        ),
        encoding="utf-8",
    )
    prepared = prepare(recipe_for(model_folder("bert"), table_file, "full", {"retention.general": str(path)}))
    assert prepared.general is not None
    assert len(prepared.general[1]) >= 40 and max(map(len, prepared.general[1])) <= 1000


def test_general_text_that_cannot_be_used_is_told_by_its_key(
    model_folder: Folder, table_file: Path, general: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join("one text alone " * length for length in (1, 2, 5)), encoding="utf-8")
    for path, said in ((few, r"retention\.general: .*few\.txt: 1 different text"), (tmp_path / "no.txt", "no.txt")):
        recipe = recipe_for(model_folder("bert"), table_file, "full", {"retention.general": str(path)})
        with pytest.raises(DataError, match=said):
            list(start(recipe, tmp_path / "run").events())
        assert not (tmp_path / "run").exists()
    recipe = recipe_for(model_folder("bert"), table_file, "full", {"retention.replay": 0.2})
    with pytest.raises(RecipeError, match=r"retention\.replay: with task classification .* retention\.distill"):
        list(start(recipe, tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


def test_holds_are_of_no_use_to_a_head(model_folder: Folder, table_file: Path, general: Path, tmp_path: Path) -> None:
    settings = {**HELD, "training.patience": 3, "retention.general": str(general)}
    made = bench(recipe_for(model_folder("bert"), table_file, "head", settings), tmp_path / "run")
    assert made.built.general is None and made.run.hold is None and made.run.anchors == ()
    said = [
        line.split(" = ")[0].removeprefix("not used: ")
        for line in unused_settings(made.recipe, made.prepared, made.built)
    ]
    assert said == ["retention.ewc", "retention.distill", "retention.general"]


def test_what_a_hold_adds_is_added_to_the_mean(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {
        "training.optimizer": "sgd",
        "training.weight_decay": 0.0,
        "training.clip": None,
        "training.probe": False,
    }
    moved = []
    for held in (False, True):
        made = bench(recipe_for(model_folder("bert"), table_file, "full", settings), tmp_path / str(held))
        name, weight = next((n, p) for n, p in made.run.network.named_parameters() if n not in made.run.network.fresh)
        before = weight.detach().clone()
        run = replace(made.run, hold=(lambda _, weight=weight: 3.0 * weight.sum()) if held else None)
        first = next(event for event in train(run) if event.kind == "step")
        moved.append((before - made.run.masters.tensors[name].detach(), first))
    (without, plain), (added, said) = moved
    assert said.to_plain()["loss"] == plain.to_plain()["loss"]  # its figures are the task's alone
    steps = torch.full_like(without, 3.0 * plain.to_plain()["rate"])
    assert torch.allclose(added - without, steps, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method", ["prompt", "qlora"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_what_alters_the_base_is_held_to_the_base_as_it_was(
    family: str, method: str, model_folder: Folder, table_file: Path, passages: Path, general: Path, tmp_path: Path
) -> None:
    """Before the first step such a network says other things already, which is told; one that begins as the base is at 0."""
    data = passages if family == "gpt2" else table_file
    settings = {**FAST, "retention.general": str(general), "retention.distill": 1.0}
    altered = bench(recipe_for(model_folder(family), data, METHODS[method], settings), tmp_path / method)
    plain = bench(recipe_for(model_folder(family), data, METHODS["lora"], settings), tmp_path / "lora")
    assert _distance(plain) == pytest.approx(0.0, abs=1e-6) and _distance(altered) > 1e-5
    if family == "bert":
        kept = (altered.built.general._kept, plain.built.general._kept)  # type: ignore[union-attr]
        assert torch.allclose(*kept, atol=1e-6), "both are held to the same base"
