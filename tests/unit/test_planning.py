"""`tunesmith plan`: what runs would take, before anything is trained."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from families import FAMILIES
from shortruns import recipe_for, write_rows
from tunesmith.cli.main import run
from tunesmith.errors import RecipeError
from tunesmith.phases import BASE, STEPS
from tunesmith.planning import prospects, with_methods
from tunesmith.preparing import prepare

QUICK = {"evaluation.quick": True}


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
