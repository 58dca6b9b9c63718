"""`tunesmith plan`: what runs would take, before anything is trained."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from families import FAMILIES
from shortruns import recipe_for, rows, write_rows
from tunesmith import rehearsing
from tunesmith.cli.main import run
from tunesmith.data import readers
from tunesmith.data.table import Table
from tunesmith.errors import RecipeError
from tunesmith.phases import BASE, STEPS, Time
from tunesmith.planning import prospects, with_methods
from tunesmith.preparing import prepare
from tunesmith.recipe import Recipe
from tunesmith.rehearsing import Rehearsal
from tunesmith.selection.estimate import Rehearsed
from tunesmith.training import ordering

QUICK = {"evaluation.quick": True}
FOUND = Rehearsed({BASE: Time(1.0, 1.0)}, [(10, Time(1.0, 1.0))], 900.0, 500.0, 1_000_000, 9_000_000, "float32")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, to see that none stays."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_methods_side_by_side(tmp_path: Path, room: Path) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 900)
    recipe = recipe_for(model, data, "full", QUICK)
    many = recipe_for(model, data, {"name": "layers", "layers": 99}, QUICK)
    full, narrow = prospects([*with_methods(recipe, ["full"]), many])
    assert full.problems == ()
    assert full.fits
    assert full.memory is not None
    assert full.phases is not None
    assert full.phases[STEPS].cpu_seconds > 0
    assert full.phases[BASE].cpu_seconds > 0
    assert full.time.seconds == pytest.approx(sum(took.seconds for took in full.phases.values()))
    rows = len(prepare(recipe).splits.train)
    assert full.steps == 2 * -(-rows // 24), "two epochs of the rows that are not held out"
    assert full.memory.libraries > 100
    assert full.memory.gradients == pytest.approx(full.trainable * 4 / 1e6)
    assert full.energy is not None
    assert full.energy.is_estimate
    assert full.money is None
    assert any("99" in line for line in narrow.problems), "the base has fewer blocks"
    assert not narrow.fits
    assert list(room.glob("tunesmith*")) == [], "nothing is kept"


@pytest.fixture
def in_small(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Table, Table]]:
    """What would be rehearsed, which is not: each time the same is found."""
    return rehearsed_as(FOUND, monkeypatch)


def rehearsed_as(found: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Table, Table]]:
    asked: list[tuple[Recipe, Table, Table]] = []

    def rehearse(recipe: Recipe, few: Table, more: Table, folder: Path) -> Rehearsal:
        asked.append((recipe, few, more))
        return Rehearsal(found, found, found)

    monkeypatch.setattr("tunesmith.planning.rehearse", rehearse)
    return asked


def test_what_is_the_same_for_every_method_is_done_once(
    tmp_path: Path, in_small: list[tuple[Recipe, Table, Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 300), "full", QUICK)
    calls: list[str] = []
    read, ordered = readers.read_data, ordering.order_of
    monkeypatch.setattr(readers, "read_data", lambda *given: calls.append("read") or read(*given))
    monkeypatch.setattr(ordering, "order_of", lambda *given: calls.append("order") or ordered(*given))
    found = list(prospects(with_methods(recipe, ["head", "full"])))
    assert [prospect.problems for prospect in found] == [(), ()]
    assert sorted(calls) == ["order", "read"], "beside what preparing the rows reads"
    (_, few, more), second = in_small
    assert second[1] is few
    assert second[2] is more
    assert set(few.columns) == {"text", "label", "split"}
    assert few.columns["split"].count("train") == 3 * 24
    assert set(zip(few.columns["text"], few.columns["label"], strict=True)) <= set(rows(300)), (
        "as they are in their file"
    )


def test_sgd_needs_half_of_what_adam_remembers(tmp_path: Path, in_small: list[tuple[Recipe, Table, Table]]) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 100)
    states = []
    for optimizer in ("adamw", "sgd"):
        (found,) = prospects([recipe_for(model, data, "full", {**QUICK, "training.optimizer": optimizer})])
        assert found.memory is not None
        states.append(found.memory.states)
    assert states == [8.0, 4.0], "of a million parameters"


def test_what_trains_on_a_gpu_must_fit_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 100)
    asked = ["plan", str(data), "--model", str(model), "--methods", "full"]
    for free_gpu, free, short in (
        (40_000, 8_000, ""),
        (
            1_500,
            8_000,
            "2.0 GB of GPU memory do not fit in the 1.5 GB that are free: set training.checkpointing=true",
        ),
        (40_000, 500, "of memory do not fit in the 500 MB that are free: end other programs"),
    ):
        rehearsed_as(replace(FOUND, peak_gpu_mb=2_000.0, free_gpu_mb=float(free_gpu)), monkeypatch)
        monkeypatch.setattr("tunesmith.planning.free_memory", lambda free=free: free * 10**6)
        with pytest.raises(SystemExit) as end:
            run(asked)
        said, err = (" ".join(part.split()) for part in capsys.readouterr())
        assert end.value.code == (1 if short else 0)
        assert short in said
        assert ("needs 2.0 GB of GPU memory" in err) == (free_gpu == 1_500)
        assert "GPU memory: weights 36 MB, gradients 4 MB, optimizer 8 MB, activations" in said
        assert "libraries" not in said and "memory of the machine: 9" in said
        assert "CPU time GPU memory electricity" in said


def test_a_run_in_small_tells_what_the_gpu_has_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 60)
    recipe = recipe_for(model, data, "head", {**QUICK, "training.epochs": 1})
    (tmp_path / rehearsing.RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (3 * 10**9, 8 * 10**9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 10**9)
    found = rehearsing._run(tmp_path)
    assert (found["peak_gpu_mb"], found["free_gpu_mb"]) == (None, None), "it trained on the CPU"
    monkeypatch.setattr("tunesmith.spending._peak_gpu_memory_mb", lambda device: 700.0)
    shutil.rmtree(tmp_path / rehearsing.RUN)
    found = rehearsing._run(tmp_path)
    assert (found["peak_gpu_mb"], found["free_gpu_mb"]) == (700.0, 4_000.0), "what it holds is there for it"


def test_a_price_is_told_in_money(
    tmp_path: Path, room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 300)
    monkeypatch.setenv("COLUMNS", "40")
    asked = ["plan", str(data), "--model", str(model), "--methods", "head", "--json"]
    price = ["--set", "cost.per_hour=3600", "--set", "cost.currency=EUR", "--set", "evaluation.quick=true"]
    with pytest.raises(SystemExit) as end:
        run([*asked, *price])
    found = json.loads(capsys.readouterr().out.strip())
    assert end.value.code == 0
    assert found["money"]["amount"] == pytest.approx(found["seconds"]), "a unit a second"
    assert found["money"]["currency"] == "EUR"
    assert found["seconds"] == pytest.approx(sum(phase["seconds"] for phase in found["phases"]))


def test_what_cannot_be_planned_is_said_without_a_traceback(
    tmp_path: Path, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = FAMILIES["bert"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 60)
    for asked, words in (
        ([str(tmp_path / "none.csv"), "--model", str(model)], "none.csv"),
        ([str(data), "--model", str(model), "--methods", "loar"], "lora"),
        ([str(data), "--model", str(model), "--methods", ","], "--methods"),
        ([str(data), "--model", str(model), "--methods", "peft"], "method.kind"),
    ):
        with pytest.raises(SystemExit) as end:
            run(["plan", *asked])
        said = capsys.readouterr()
        assert end.value.code != 0
        assert words in said.err
        assert "Traceback" not in said.err
    with pytest.raises(RecipeError, match="lora"):
        with_methods(recipe_for(model, data), ["loar"])
    assert list(room.glob("tunesmith*")) == []
