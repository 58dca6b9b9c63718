"""How much of the base is kept: the meter, the anchor, and the average with the base's own weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from shortruns import METHODS, bench, differences, facts, recipe_for, stopped_and_taken_up, write_rows
from tunesmith.assembly import best_parameters
from tunesmith.errors import ArtifactError, RecipeError
from tunesmith.evaluation.neighbours import linear_cka, still_near
from tunesmith.finishing import finished
from tunesmith.pipeline import resume, start
from tunesmith.recipe import Recipe
from tunesmith.retention.meter import Meter
from tunesmith.retention.order import Order
from tunesmith.retention.sweep import NEARER, SHARES, Point, keeps, within
from tunesmith.training.events import Finished, Note
from tunesmith.training.loop import Measured, train
from tunesmith.training.schedule import pull_share
from tunesmith.unused import unused_settings

Folder = Callable[[str], Path]
FAST = {
    "training.rate": 5e-3,
    "training.epochs": 2,
    "seed": 8,
}  # of so few rows not every seed's last state is the best


def _drawn(seed: int, rows: int = 60, width: int = 12) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_those_of_scikit_learn() -> None:
    before, after = _drawn(0), _drawn(0) + 0.6 * _drawn(1)

    def nearest(vectors: torch.Tensor) -> list[set[int]]:
        found = NearestNeighbors(n_neighbors=11, metric="cosine").fit(vectors.numpy()).kneighbors(vectors.numpy())[1]
        return [set(row.tolist()) - {place} for place, row in enumerate(found)]

    pairs = zip(nearest(before), nearest(after), strict=True)
    shared = sum(len(one & two) for one, two in pairs) / (60 * 10)
    assert 0.2 < shared < 0.9
    assert still_near(before, after) == pytest.approx(shared)


def test_what_is_turned_and_scaled_is_the_same_and_noise_is_not() -> None:
    before = _drawn(0)
    turned = before @ torch.linalg.qr(_drawn(2, 12))[0] * 3
    assert still_near(before, turned) == 1.0
    assert linear_cka(before, turned) == pytest.approx(1.0)
    assert linear_cka(before, _drawn(5)) < 0.5
    gram, other = (rows - rows.mean(0) for rows in (before.double(), _drawn(5).double()))
    one, two = gram @ gram.T, other @ other.T  # the same by the rows' products, as Kornblith writes it first
    assert linear_cka(before, _drawn(5)) == pytest.approx(float((one * two).sum() / (one.norm() * two.norm())))
    assert linear_cka(before, torch.ones(60, 3)) == 0.0
    with pytest.raises(ValueError, match="more than 10"):
        still_near(before[:10], before[:10])


def test_the_pulls_of_a_run_sum_to_the_strength() -> None:
    left = math.prod(1 - pull_share(step, 200, 0.1, 1.5) for step in range(200))
    assert left == pytest.approx(math.exp(-1.5), rel=1e-3)
    assert pull_share(3, 10, 0.1, 0.0) == 0.0


def _moved(made: Any) -> float:
    """How far what trains of the base is from where it was."""
    start = made.built.start
    return float(
        sum((made.run.masters.tensors[name].detach() - value).norm() ** 2 for name, value in start.items()) ** 0.5
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_anchor_holds_the_base_back(method: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    moved = []
    for strength in (1e-9, 2.0, 50.0):
        recipe = recipe_for(model_folder("bert"), table_file, METHODS[method], {**FAST, "retention.anchor": strength})
        made = bench(recipe, tmp_path / str(strength))
        list(train(made.run))
        moved.append(_moved(made))
    assert moved[0] > 1.5 * moved[1] > 3 * moved[2] > 0


def test_no_anchor_is_no_change_and_a_resumed_run_is_anchored_to_the_base(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.anchor": 3.0})
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert expected[-1] == facts(train(again.run))[-1]
    assert differences(whole.tensors(), again.tensors()) == []
    best = best_parameters(whole.run)
    found, notes = finished(recipe, whole.prepared, whole.encoded, whole.built, whole.run, best)
    assert notes == [] and all(torch.equal(value, best[name]) for name, value in found.items())
    free = bench(recipe_for(model_folder("bert"), table_file, "full", FAST), tmp_path / "free")
    assert free.built.start == {} and free.run.anchors == ()


def test_a_share_of_the_base_is_delivered(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.keep": 0.25})
    made = bench(recipe, tmp_path)
    list(train(made.run))
    best = best_parameters(made.run)
    found, (note,) = finished(recipe, made.prepared, made.encoded, made.built, made.run, best)
    assert "which count 0.25" in note.lines[0]
    for name, value in found.items():
        begun = made.built.start.get(name)
        wanted = best[name] if begun is None else 0.25 * begun + 0.75 * best[name]
        assert torch.allclose(value, wanted, atol=1e-7), name
    assert set(best) - set(made.built.start) == made.built.network.fresh


@pytest.mark.parametrize(
    ("ranks", "losses", "chosen"),
    [
        ([0.5, 0.6, 0.5, 0.5, 0.49, 0.7, 0.4, 0.3, 0.3, 0.3], [1.0] * 10, 0.3),
        ([0.5, 0.6, *[0.5] * 8], [1.0, 1.0, 0.9, 1.1, *[0.8] * 6], 0.2),
        ([0.5, 0.6, *[0.5] * 8], [1.0] * 10, 0.9),
    ],
)
def test_the_largest_share_that_costs_nothing_is_chosen(
    ranks: list[float], losses: list[float], chosen: float, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.keep": "auto"})
    made = bench(recipe, tmp_path)
    list(train(made.run))
    best = best_parameters(made.run)
    trained = {name: value.clone() for name, value in best.items()}
    assert (
        made.run.state.carry.best_step == made.run.state.step
    )  # then the best are those in the network, which is swept
    live = made.run.evaluate
    assert live is not None
    told = zip(ranks, losses, strict=True)

    def evaluate() -> Any:
        from dataclasses import replace

        rank, loss = next(told)
        return replace(live(), rank=rank, value=rank, loss=loss)

    made.run.evaluate = evaluate
    found, (note,) = finished(recipe, made.prepared, made.encoded, made.built, made.run, best)
    assert f"which count {chosen:g}: the largest share that costs nothing" in note.lines[0]
    assert f"{SHARES[1]:g}: 0.6000, 1.0000" in note.lines[0]
    name, begun = next(iter(made.built.start.items()))
    assert torch.allclose(found[name], chosen * begun + (1 - chosen) * trained[name], atol=1e-7)
    assert all(torch.equal(value, trained[name]) for name, value in best.items())
    made.run.evaluate = None
    found, (note,) = finished(recipe, made.prepared, made.encoded, made.built, made.run, best)
    assert note.lines[0].startswith("nothing of the base's own weights kept: there are no validation rows")
    assert all(torch.equal(value, trained[name]) for name, value in found.items())


def _said(folder: Path) -> list[str]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [item["message"] for item in report["findings"] if item["kind"] == "retention"]


def test_what_became_of_general_text_is_in_the_report(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    shares = {}
    for keep in (0.0, 0.9):
        recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.keep": keep})
        events = list(start(recipe, tmp_path / str(keep)).events())
        assert isinstance(events[-1], Finished)
        (line,) = _said(tmp_path / str(keep))
        assert any(line in event.lines for event in events if isinstance(event, Note) and event.topic == "verdict")
        assert line.startswith("of the 10 texts that the base holds nearest to each of 200 general texts")
        shares[keep] = int(line.partition("documentation), ")[2].partition("%")[0])
    assert shares[0.0] < shares[0.9] < 100


@pytest.mark.parametrize(
    ("method", "settings"), [("head", {}), ("full", {"retention.measure": False})], ids=["head", "not measured"]
)
def test_nothing_is_said_where_nothing_is_forgotten_or_asked(
    method: str, settings: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, method, {"training.epochs": 1, **settings})
    list(start(recipe, tmp_path / "run").events())
    assert _said(tmp_path / "run") == []


def test_keeping_is_of_no_use_to_a_head(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.patience": 3, "retention.keep": 0.5, "retention.anchor": 1.0}
    made = bench(recipe_for(model_folder("bert"), table_file, "head", settings), tmp_path)
    lines = unused_settings(made.recipe, made.prepared, made.built)
    assert [line.split(" = ")[0] for line in lines] == ["not used: retention.keep", "not used: retention.anchor"]
    settings = {"training.patience": 3, "retention.budget": 0.1, "retention.probe": str(table_file)}
    made = bench(recipe_for(model_folder("bert"), table_file, "head", settings), tmp_path / "other")
    lines = unused_settings(made.recipe, made.prepared, made.built)
    assert [line.split(" = ")[0] for line in lines] == ["not used: retention.budget", "not used: retention.probe"]
    assert made.built.meters == []


def test_a_run_without_a_step_did_not_pay(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.epochs": 0, "evaluation.baselines": True}
    list(start(recipe_for(model_folder("sentence"), table_file, "full", settings), tmp_path / "run").events())
    verdict = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["verdict"]
    assert verdict["helped"] is False
    assert verdict["paragraph"].startswith(
        "Fine-tuning did not pay: no step was done, so what is delivered is the base"
    )


def _point(share: float, rank: float, lost: float | None, loss: float = 1.0) -> Point:
    return Point(share, Measured("accuracy", rank, rank, 0.01, loss), lost)


@pytest.mark.parametrize(
    ("points", "chosen", "met"),
    [
        ([_point(0.0, 0.9, 0.3), _point(0.1, 0.85, 0.02), _point(0.2, 0.87, 0.01)], 0.2, True),
        ([_point(0.0, 0.9, 0.3), _point(0.1, 0.85, 0.02), _point(0.2, 0.85, 0.01, loss=0.5)], 0.2, True),
        ([_point(0.0, 0.9, -0.1), _point(0.1, 0.9, 0.0)], 0.0, True),
        ([_point(0.0, 0.9, 0.3), _point(0.1, 0.85, 0.2), _point(0.2, 0.8, 0.15)], 0.2, False),
        ([Point(0.0, None, 0.3), Point(0.1, None, 0.02), Point(0.2, None, 0.01)], 0.1, True),
    ],
)
def test_of_the_shares_within_a_budget_the_best_is_taken(points: list[Point], chosen: float, met: bool) -> None:
    found = within(points, "accuracy lost", 0.02)
    assert (found.chosen, found.met) == (chosen, met)
    assert ("keeps the accuracy lost within 2 %" in found.why) is not met
    assert ("that keep the accuracy lost within 2 %" in found.why) is met
    assert ("the smallest of those" in found.why) is (points[0].measured is None)


@pytest.mark.parametrize(("budget", "met"), [("95%", True), (0, False)])
def test_a_budget_is_kept_or_said_not_to_be(
    budget: str | float, met: bool, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.budget": budget})
    list(start(recipe, tmp_path / "run").events())
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    tried = report["shares"]
    assert tried["met"] is met and tried["loses"] == "share of nearest neighbours lost"
    lost = {point["share"]: point["lost"] for point in tried["points"]}
    assert list(lost) == [*SHARES] if met else [*SHARES, NEARER]
    assert lost[0.0] > lost[0.5] > lost[0.9]
    delivered, *kept = _said(tmp_path / "run")
    (said,) = kept if met else [item["message"] for item in report["findings"] if item["kind"] == "unkept"]
    left = int(delivered.partition("documentation), ")[2].partition("%")[0])
    assert left == pytest.approx(100 * (1 - lost[tried["chosen"]]), abs=2)
    assert said.startswith(f"the budget of {95 if met else 0} % is {'' if met else 'not '}kept")
    assert f"with {tried['chosen']:g} of the base's own weights in the delivered ones" in said
    assert (
        '<p class="warning">The budget' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    ) is not met
    assert "What the base keeps" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def _emptied(network: Any) -> None:
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name not in network.fresh:
                value.zero_()


def _meters(folder: Path, data: Path, settings: dict[str, Any], out: Path) -> tuple[list[Meter], Any]:
    made = bench(recipe_for(folder, data, "full", {**FAST, "training.precision": "float32", **settings}), out)
    return made.built.meters, made.run.network


@pytest.mark.parametrize("family", ["bert", "sentence", "gpt2"])
def test_a_probe_tells_how_well_its_classes_are_still_told(
    family: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"retention.probe": str(table_file), "retention.measure": False, "retention.budget": 0.5}
    (meter,), network = _meters(model_folder(family), table_file, settings, tmp_path)
    same = meter.read(network)
    assert same.lost == 0.0 and f"accuracy on {table_file.name}" in same.said
    _emptied(network)
    assert meter.read(network).lost > 0.3


def test_a_probe_that_cannot_be_read_is_told_by_its_key(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.probe": str(tmp_path / "no.csv")})
    with pytest.raises(Exception, match=r"retention\.probe: .*no\.csv"):
        list(start(recipe, tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


def test_what_a_budget_may_be() -> None:
    plain = {"model": "m", "data": {"path": "d"}, "method": "full"}
    kept = [
        Recipe.parse({**plain, "retention": {"budget": value}}).retention for value in ("2%", " 2.5 % ", 0.02, None)
    ]
    assert [spec.budget for spec in kept] == [0.02, 0.025, 0.02, None]
    assert [spec.swept for spec in kept] == [True, True, True, False]
    for wrong in ("two", "200%", -0.1, "%"):
        with pytest.raises(RecipeError, match=r"retention\.budget"):
            Recipe.parse({**plain, "retention": {"budget": wrong}})
    with pytest.raises(RecipeError, match="give no keep beside it"):
        Recipe.parse({**plain, "retention": {"budget": "2%", "keep": 0.1}})


def test_a_budget_that_is_just_kept_is_kept() -> None:
    assert keeps(0.9 - 0.88, 0.02) and not keeps(0.9 - 0.87, 0.02)
    found = within([_point(0.0, 0.9, 0.9 - 0.88), _point(0.1, 0.8, 0.0)], "accuracy lost", 0.02)
    assert (found.chosen, found.met) == (0.0, True)


def test_rounding_is_not_forgotten(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.rate": 1e-12, "training.precision": "bfloat16", "retention.budget": 0.001}
    list(start(recipe_for(model_folder("bert"), table_file, "full", {**FAST, **settings}), tmp_path / "run").events())
    tried = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["shares"]
    assert tried["met"] and {point["lost"] for point in tried["points"]} == {0.0}


def test_no_share_is_tried_where_nothing_can_choose_it(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = Order.read

    def counted(self: Order, network: Any) -> Any:
        read.append(1)
        return plain(self, network)

    monkeypatch.setattr(Order, "read", counted)
    settings = {**FAST, "retention.keep": "auto", "data.validation": 0.0}
    list(start(recipe_for(model_folder("bert"), table_file, "full", settings), tmp_path / "run").events())
    assert len(read) == 1


@pytest.mark.parametrize("key", ["retention.probe", "retention.measure"])
def test_a_meter_moves_no_training(key: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """The control is another seed."""
    measured = {key: str(table_file) if key == "retention.probe" else True}
    made = []
    for place, more in enumerate(({"retention.measure": False}, measured, {"retention.measure": False, "seed": 1})):
        recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, **more})
        made.append(bench(recipe, tmp_path / str(place)))
        list(train(made[-1].run))
    assert len(made[1].built.meters) == (2 if key == "retention.probe" else 1)
    assert differences(made[0].tensors(), made[1].tensors()) == []
    assert differences(made[0].tensors(), made[2].tensors()) != []


def test_a_probe_that_changed_is_another_run(model_folder: Folder, tmp_path: Path) -> None:
    data, second = write_rows(tmp_path / "rows.csv", 90), write_rows(tmp_path / "second.csv", 60)
    recipe = recipe_for(model_folder("bert"), data, "full", {**FAST, "retention.probe": str(second)})
    asked = iter([False] * 3 + [True] * 100)
    list(start(recipe, tmp_path / "run", stop=asked.__next__).events())
    write_rows(second, 66)
    with pytest.raises(ArtifactError, match="is not the data this run was started with"):
        list(resume(tmp_path / "run").events())


def test_what_was_found_in_the_probe_is_said(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    second = write_rows(tmp_path / "second.csv", 60)
    with second.open("a", encoding="utf-8") as file:
        file.write("a text without a label,\n")
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**FAST, "retention.probe": str(second)})
    notes = [event for event in start(recipe, tmp_path / "run").events() if isinstance(event, Note)]
    said = [line for note in notes if note.topic == "probe" for line in note.lines if "retention.probe" in line]
    assert any("test: " in line for line in said) and any("label" in line for line in said), said


def test_a_budget_finer_than_a_row_is_refused(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {**FAST, "retention.probe": str(table_file), "retention.budget": "2%"}
    recipe = recipe_for(model_folder("bert"), table_file, "full", settings)
    with pytest.raises(RecipeError, match=r"retention\.budget: 2 % is less than one of \d+ rows of the probe"):
        list(start(recipe, tmp_path / "run").events())


def test_masked_words_without_a_stored_head_are_measured_by_neighbours(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = recipe_for(model_folder("sentence"), table_file, "full", {**FAST, "data.text": "text"}).to_plain()
    list(start(Recipe.parse({**plain, "task": "masked_lm"}), tmp_path / "run").events())
    assert any("nearest to each of" in line for line in _said(tmp_path / "run"))
