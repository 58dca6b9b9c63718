"""A run from start to end, and the ways in which one is refused, stopped, moved and gone on with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from families import WORDS
from shortruns import METHODS, recipe_for, rows
from tunesmith import load
from tunesmith.errors import ArtifactError, DataError, ModelError, RecipeError, TrainingError
from tunesmith.models.network import Network
from tunesmith.pipeline import resume, start
from tunesmith.training.events import Event, Finished, Note, StepDone, Stopped, Warned
from tunesmith.training.loop import Measured, judged
from tunesmith.training.state import Carry, Checkpoints

Folder = Callable[[str], Path]


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop at the call after the two polls before the first step and `steps` in the loop."""
    calls = iter(range(10_000))
    return lambda: next(calls) >= steps + 2


def stopped(model: Path, data: Path, out: Path, method: object = "full", steps: int = 2) -> Path:
    events = list(start(recipe_for(model, data, method), out, stop=after(steps)).events())
    assert isinstance(events[-1], Stopped)
    assert events[-1].step == steps
    return out


def said(events: list[Event], topic: str) -> str:
    return "\n".join(
        line for event in events if isinstance(event, Note) and event.topic == topic for line in event.lines
    )


def test_a_run_leaves_all_that_it_promises(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = recipe_for(model_folder("sentence"), table_file, METHODS["lora"], {"evaluation.baselines": True})
    events = list(start(recipe, out).events())
    assert isinstance(events[-1], Finished)
    for name in ("recipe.yaml", "resolved.yaml", "manifest.json", "events.jsonl", "report.json", "report.html"):
        assert (out / name).stat().st_size > 0, name
    assert sorted(item.name for item in (out / "predictions").iterdir()) == [
        "rivals", "test.parquet", "test.safetensors", "validation.parquet", "validation.safetensors",
    ]  # fmt: skip
    assert (out / "adapter" / "adapter_config.json").exists()
    assert "SentenceTransformer" in (out / "model" / "README.md").read_text(encoding="utf-8")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {item["name"] for item in report["baselines"]} == {"majority", "tfidf", "probe", "neighbours", "zero_shot"}
    predicted = load(out).predict([text for text, _ in rows(90)])
    assert len(predicted) == 90
    assert set(predicted) <= {"blame", "money", "praise"}
    assert not list(out.glob(".partial*"))


def test_thresholds_are_settled_on_validation_rows_and_never_on_test_rows(model_folder: Folder, tmp_path: Path) -> None:
    """Nearly every validation row has the label "a", and one in five test rows: each split alone would settle another."""
    texts = [text for text, _ in rows(240)]
    splits = {"train": (texts[:120], 2), "validation": (texts[120:180], 1), "test": (texts[180:], 5)}
    data = tmp_path / "data"
    data.mkdir()
    truth = {name: [("a", "b") if at % every == 0 else ("b",) for at in range(len(some))]
             for name, (some, every) in splits.items()}  # fmt: skip
    truth["validation"][7] = ()
    for name, (some, _) in splits.items():
        lines = [
            json.dumps({"text": text, "labels": list(labels)}) for text, labels in zip(some, truth[name], strict=True)
        ]
        (data / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"task": "multilabel", "training.epochs": 1}
    recipe = recipe_for(model_folder("bert"), data, "full", settings)
    list(start(recipe, tmp_path / "run").events())
    model = load(tmp_path / "run", "cpu")
    card = model.card
    settled = {
        name: card.task.settle(model.predictions(splits[name][0]), truth[name], card.labels).thresholds
        for name in ("validation", "test")
    }
    assert card.labels.thresholds == pytest.approx(settled["validation"], abs=1e-6)
    assert model.thresholds == {"a": card.labels.thresholds[0], "b": card.labels.thresholds[1]}
    assert card.labels.thresholds != pytest.approx(settled["test"], abs=1e-4), "control: test rows settle others"
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    measured = card.task.score(model.predictions(splits["test"][0]), truth["test"], card.labels)
    assert report["metrics"]["micro_f1"]["value"] == pytest.approx(measured.value("micro_f1"))


def test_a_folder_that_holds_a_run_is_refused(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = stopped(model_folder("bert"), table_file, tmp_path / "run")
    with pytest.raises(ArtifactError, match="already holds a run"):
        start(recipe_for(model_folder("bert"), table_file), out)


@pytest.mark.parametrize(
    ("method", "settings", "kind", "words"),
    [
        ({"name": "lora", "targets": ["qury"]}, {}, ModelError, "qury.*did you mean"),
        ({"name": "layers", "layers": 9}, {}, ModelError, "blocks"),
        ("full", {"evaluation.metric": "f17"}, RecipeError, 'no metric "f17"'),
        ("full", {"training.max_length": 100_000}, RecipeError, "positions"),
        ("full", {"data.label": "labl"}, DataError, 'no column "labl"'),
    ],
)
def test_what_is_refused_leaves_no_folder(
    method: object, settings: dict[str, object], kind: type[Exception], words: str, model_folder: Folder,
    table_file: Path, tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(kind, match=words):
        list(start(recipe_for(model_folder("bert"), table_file, method, settings), tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


def test_problems_of_data_and_model_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(start(recipe_for(tmp_path / "no-model", tmp_path / "no.csv"), tmp_path / "run").events())
    assert any("no.csv" in problem for problem in caught.value.problems)
    assert any("no-model" in problem for problem in caught.value.problems)


def test_stopped_before_the_first_step(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    events = list(start(recipe_for(model_folder("bert"), table_file), tmp_path / "run", stop=lambda: True).events())
    assert isinstance(events[-1], Stopped)
    assert not any(isinstance(event, StepDone) for event in events)
    assert isinstance(list(resume(tmp_path / "run").events())[-1], Finished)


def test_stopped_again_before_a_new_step(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = stopped(model_folder("bert"), table_file, tmp_path / "run")
    saved = Checkpoints(out / "checkpoints").steps()[-1]
    assert saved > 0
    last = list(resume(out, stop=lambda: True).events())[-1]
    assert isinstance(last, Stopped)
    assert last.step == saved


def test_resume_refuses_another_recipe(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = stopped(model_folder("bert"), table_file, tmp_path / "run")
    text = (out / "recipe.yaml").read_text(encoding="utf-8")
    (out / "recipe.yaml").write_text(text.replace("batch_size: 24", "batch_size: 12"), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"recipe\.yaml is not the recipe"):
        list(resume(out).events())


def test_resume_refuses_another_base_and_other_rows(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base, data = Path(shutil.copytree(model_folder("bert"), tmp_path / "base")), tmp_path / "rows.csv"
    shutil.copy(table_file, data)
    out = stopped(base, data, tmp_path / "run", METHODS["layers"])
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    data.write_text(data.read_text(encoding="utf-8") + f"{WORDS[0]} {WORDS[1]},money\n", encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        list(resume(out).events())
    assert len(caught.value.problems) == 2
    assert "not the data" in caught.value.problems[0]
    assert "its weights differ" in caught.value.problems[1]


def test_resume_from_another_folder(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_for(Path(os.path.relpath(model_folder("bert"))), Path(os.path.relpath(table_file)))
    list(start(recipe, Path("run"), stop=after(1)).events())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert isinstance(list(resume(Path("..") / "run").events())[-1], Finished)


def test_a_caller_s_rows_move_with_their_run(model_folder: Folder, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), Path("rows"))
    list(start(recipe, tmp_path / "run", rows(60), stop=after(1)).events())
    (tmp_path / "run").rename(tmp_path / "moved")
    assert isinstance(list(resume(tmp_path / "moved").events())[-1], Finished)


def test_a_damaged_best_checkpoint_costs_no_run(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    events = []
    for event in start(recipe_for(model_folder("bert"), table_file, settings={"training.rate": 0.5}), out).events():
        events.append(event)
        if isinstance(event, StepDone) and event.step == event.steps - 1:
            best = Checkpoints(out / "checkpoints").load()[0].carry.best_step
            (out / "checkpoints" / f"step-{best:08d}" / "state.safetensors").write_bytes(b"x")
    assert isinstance(events[-1], Finished)
    warned = [event.message for event in events if isinstance(event, Warned)]
    warned = [
        line for line in warned if "learning rate is too high" not in line
    ]  # it is, for the best not to be the last
    assert len(warned) == 1, "the control: the best checkpoint was another one than the last, and was damaged"
    assert "in place of the best one" in warned[0]
    assert load(out).predict([WORDS[0]])


def test_a_model_that_fails_parity_is_not_delivered(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import loading

    live = loading.load_network

    def other(folder: Path) -> tuple[Network, tuple[str, ...]]:
        import torch

        found, labels = live(folder)
        with torch.no_grad():
            found.output.weight.mul_(-3)
        return found, labels

    monkeypatch.setattr(loading, "load_network", other)
    with pytest.raises(ArtifactError, match="differs from the one trained"):
        list(start(recipe_for(model_folder("bert"), table_file), tmp_path / "run").events())
    assert not (tmp_path / "run" / "model").exists()


def test_no_finite_step_names_file_and_lines(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, settings={"training.rate": 1e30, "training.clip": None})
    with pytest.raises(TrainingError, match=r"not finite.*rows\.csv:\d+"):
        list(start(recipe, tmp_path / "run").events())
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()


def test_cut_texts_are_counted(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, settings={"training.max_length": 8})
    events = list(start(recipe, tmp_path / "run").events())
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert len(warned) == 1
    assert "longer than 8 tokens" in warned[0]
    assert "--set training.max_length=" in warned[0]


@pytest.mark.parametrize(
    ("values", "kept", "without"),
    [
        ([0.5, 0.6, 0.7], 2, 0),
        ([0.5, 0.7, 0.66], 2, 1),  # within one standard error of the highest: the later one
        ([0.5, 0.7, 0.6], 1, 1),  # beyond it
        ([0.7, 0.66, 0.62], 1, 2),  # measured from the highest, not from the one kept
    ],
)
def test_which_state_is_kept(values: list[float], kept: int, without: int) -> None:
    carry = Carry()
    for step, value in enumerate(values):
        carry, _ = judged(carry, Measured("accuracy", value, value, 0.05, 1.0), step)
    assert (carry.best_step, carry.without_gain) == (kept, without)
    assert carry.best_value == max(values)


@pytest.mark.parametrize(
    ("losses", "without"),
    [
        ([1.0, 0.8, 0.6], 0),  # the metric stands still, and the run still learns
        ([1.0, 0.995, 0.991], 2),  # falls of less than 1 in 100 are none, not even in sum of two
        ([1.0, 0.995, 0.98], 0),  # measured from the last fall, so that slow ones count in the end
        ([1.0, 0.5, 0.6], 1),  # it rises: overfitting
    ],
)
def test_a_falling_loss_is_progress(losses: list[float], without: int) -> None:
    carry = Carry()
    for step, loss in enumerate(losses):
        carry, _ = judged(carry, Measured("accuracy", 0.7, 0.7, 0.05, loss), step)
    assert carry.without_gain == without


def test_two_processes_cannot_train_in_one_folder(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = stopped(model_folder("bert"), table_file, tmp_path / "run")
    first = resume(out).events()
    while not isinstance(next(first), StepDone):
        pass
    with pytest.raises(ArtifactError, match=f"is in use by process {os.getpid()}"):
        list(resume(out).events())
    assert isinstance(list(first)[-1], Finished), "the first goes on as if nothing had been"


def test_weights_can_be_read_by_everyone(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    list(start(recipe_for(model_folder("bert"), table_file, METHODS["lora"]), tmp_path / "run").events())
    found = [path for name in ("model", "adapter") for path in (tmp_path / "run" / name).rglob("*.safetensors")]
    assert found
    assert {path.stat().st_mode & 0o777 for path in found} == {0o644}
