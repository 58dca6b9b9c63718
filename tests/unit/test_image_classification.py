"""Classes of pictures from end to end: what is found, counted, trained, kept, shown and predicted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shortruns import bench, differences, facts, recipe_for
from tunesmith.cli.main import run
from tunesmith.data.columns import Asked, find_columns
from tunesmith.data.table import Table
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.preparing import prepare
from tunesmith.retention.holds import Vectors
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.training.events import Evaluated, StepDone
from tunesmith.training.loop import train
from tunesmith.training.trunk import HiddenCache, Live, PooledCache
from tunesmith.training.varying import KeptVersions

Folder = Callable[[str], Path]
COLOURS = {"blue": 2, "green": 1, "red": 0}
FRESH = {"task.name": "image_classification"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class of 30 pictures of several sizes; the class is the strongest colour."""
    root = tmp_path_factory.mktemp("pictures")
    for name, place in COLOURS.items():
        (root / name).mkdir()
        for number in range(30):
            draw = np.random.default_rng((place, number))
            array = draw.integers(0, 170, (*draw.integers(20, 60, 2), 3)).astype(np.uint8)
            array[..., place] += 40
            Image.fromarray(array).save(root / name / f"{number}.png")
    return root


def _table(**columns: list[Any]) -> Table:
    return Table("t.csv", columns, tuple(range(len(next(iter(columns.values()))))))


NAMES = [f"{number}.jpg" for number in range(30)]
TEXTS = [f"some text number {number} of many" for number in range(30)]
CLASSES = ["cat", "dog", "bird"] * 10


def test_pictures_are_recognised() -> None:
    known = ImageClassification.recognises
    assert known(_table(file=NAMES, label=CLASSES), Asked()) is not None
    assert known(_table(text=TEXTS, label=CLASSES), Asked()) is None
    assert known(_table(file=NAMES, label=CLASSES), Asked(pair="label")) is None
    both = _table(file=NAMES, caption=TEXTS, label=CLASSES)
    assert known(both, Asked()) is None, "a text beside the pictures: text unless the base says otherwise"
    assert known(both, Asked(base=lambda: "vision")) is not None
    assert known(both, Asked(text="file")) is not None
    assert known(both, Asked(text="caption", base=lambda: "vision")) is None


def test_columns_of_pictures_are_found() -> None:
    task = ImageClassification()
    columns = task.find(_table(text=TEXTS, file=NAMES, label=CLASSES), Asked())
    assert (columns.text, columns.label) == ("file", "label")
    assert columns.why.startswith('text = "file" (its values name pictures)')
    assert find_columns(_table(text=TEXTS, file=NAMES, label=CLASSES)).text == "text", "other tasks read the text"
    with pytest.raises(DataError, match=r'"front" and "back" each name pictures; say which with --text'):
        task.find(_table(front=NAMES, back=NAMES, label=CLASSES), Asked())
    with pytest.raises(DataError, match="no column names pictures; name one with --text"):
        task.find(_table(text=TEXTS, label=CLASSES), Asked())
    with pytest.raises(RecipeError, match="one picture a row is read"):
        task.find(_table(front=NAMES, back=NAMES, label=CLASSES), Asked(pair="back"))


def _finetuned(pictures: Path, model: Path, out: Path, method: str = "full", **settings: Any) -> Any:
    import tunesmith

    usual = {"training.epochs": 2, "evaluation.resamples": 100, "data.test": 0.2, "training.precision": "float32"}
    return tunesmith.finetune(str(model), str(pictures), method, settings={**usual, **settings}, out=out)


@pytest.fixture(scope="module")
def finished(pictures: Path, model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _finetuned(pictures, model_folder("resnet"), tmp_path_factory.mktemp("run") / "run")


def test_a_run_learns_reports_and_saves(finished: Any, pictures: Path) -> None:
    baselines = {item["name"]: item["metrics"]["accuracy"]["value"] for item in finished.report["baselines"]}
    assert set(baselines) == {"majority", "pixels", "probe", "neighbours"}
    assert baselines["pixels"] > 0.9, "the strongest colour is a linear function of pixels"
    assert finished.metrics["accuracy"]["value"] > baselines["majority"]
    said = (finished.path / "events.jsonl").read_text(encoding="utf-8")
    assert "task: image_classification, 3 classes (a column names pictures" in said
    assert "rows are varied anew in every epoch" in said and "64x64 pixels" not in said and "48x48 pixels" in said
    assert "picture.jpg" in (finished.path / "model" / "README.md").read_text(encoding="utf-8")


def test_the_report_shows_mistaken_pictures(finished: Any) -> None:
    page = (finished.path / "report.html").read_text(encoding="utf-8")
    wrong, section = finished.report["mistakes"], page.partition('<section id="mistakes"')[2].partition("</section>")[0]
    assert section.count('<img src="data:image/') == len(wrong) > 0
    assert "img-src data:" in page and '<img src="http' not in page


def test_predictions_by_path_by_array_and_of_a_moved_model(finished: Any, pictures: Path, tmp_path: Path) -> None:
    import tunesmith

    model = tunesmith.load(finished.path)
    paths = [str(pictures / name / "3.png") for name in COLOURS]
    said = model.predict(paths)
    assert set(said) <= set(COLOURS)
    assert model.predict([Path(path) for path in paths]) == said
    shares = model.predict_proba(paths)
    np.savez(tmp_path / "a.npz", x=np.asarray(Image.open(paths[0]))[None])
    assert model.predict_proba([f"{tmp_path}/a.npz[0]"])[0] == pytest.approx(shares[0], abs=1e-6)
    shutil.copytree(finished.path / "model", tmp_path / "moved")
    assert tunesmith.load(tmp_path / "moved").predict_proba(paths) == pytest.approx(shares, abs=1e-6)
    with pytest.raises(DataError, match=r"entry 1 \(nowhere\.png: there is no such file\)"):
        model.predict([paths[0], "nowhere.png"])
    with pytest.raises(DataError, match="list of paths of pictures"):
        model.predict(paths[0])


def test_predict_on_the_command_line(finished: Any, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    path = str(pictures / "red" / "4.png")
    assert _run("predict", str(finished.path), path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(COLOURS)
    (tmp_path / "t.csv").write_text(f"file,more\n{path},1\nnowhere.png,2\n,3\n", encoding="utf-8")
    assert _run("predict", str(finished.path), str(tmp_path / "t.csv"), "--out", str(tmp_path / "o.csv")) == 0
    told = capsys.readouterr().err
    assert "warning: no picture that can be read, hence no prediction, in 2 of 3 rows" in told
    rows = (tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1].split(",")[2] in COLOURS and rows[2].split(",")[2] == rows[3].split(",")[2] == ""
    assert _run("predict", str(finished.path), "nowhere.png") != 0
    told = capsys.readouterr().err
    assert "nowhere.png" in told and "Traceback" not in told


def test_a_folder_of_pictures_is_predicted_a_row_a_picture(
    finished: Any, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    import tunesmith

    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("3", "4"):
        shutil.copy(pictures / "red" / f"{name}.png", folder / f"{name}.png")
    (folder / "5.png").write_bytes(b"no picture")
    single = tunesmith.load(finished.path).predict([str(folder / name) for name in ("3.png", "4.png")])
    assert _run("predict", str(finished.path), str(folder)) == 0
    told = capsys.readouterr()
    rows = [line.split("\t") for line in told.out.splitlines()]
    assert [row[0] for row in rows] == [*single, ""]
    assert [row[-1] for row in rows] == [str(folder / f"{number}.png") for number in (3, 4, 5)]
    assert f"in 1 of 3 rows: {folder}:3 {folder / '5.png'}" in told.err
    assert _run("predict", str(finished.path), str(folder), "--out", str(tmp_path / "o.csv")) == 0
    written = (tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()
    assert written[0] == "image,label,probability" and written[1].split(",")[:2] == [str(folder / "3.png"), single[0]]
    capsys.readouterr()
    assert _run("predict", str(finished.path), str(folder), "--text", "image") == 2
    assert "--text: a folder of pictures has no columns" in capsys.readouterr().err


def test_evaluate_on_further_pictures(finished: Any, pictures: Path, capsys: Any) -> None:
    assert _run("evaluate", str(finished.path), str(pictures)) == 0
    assert "accuracy" in capsys.readouterr().out


def _run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tunesmith", *arguments])
        try:
            run()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def test_preview_shows_what_a_picture_becomes(
    pictures: Path, model_folder: Folder, tmp_path: Path, capsys: Any
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    (data / "white").mkdir()
    assert _run("preview", str(data), "--model", str(model_folder("vit"))) == 0
    said = capsys.readouterr()
    assert said.err == (
        f"warning: {data}: white holds no picture, and is no class of these rows; put pictures in, or remove the folder\n"
    )
    shown = said.out
    named = [line.split(" ") for line in shown.splitlines() if line.startswith(f"{data}:") and "]" in line][-3:]
    assert [Path(path).is_file() for _, path, *_ in named] == [True] * 3
    assert [line[-1] for line in named] == [f"[{Path(line[1]).parent.name}]" for line in named]
    assert "  read: 32x32 pixels\n" in shown and "length:" not in shown
    assert "is right" in shown and "image_classification" in shown


def test_pictures_that_do_not_decode_are_named_and_counted(
    pictures: Path, model_folder: Folder, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    (data / "red" / "0.png").write_bytes(b"no picture")
    (data / "blue" / "1.png").write_bytes((data / "blue" / "1.png").read_bytes()[:-200])
    (data / "blue" / "2.png").write_bytes(b"")
    prepared = prepare(recipe_for(model_folder("vit"), data, "head"))
    (found,) = [item for item in prepared.findings if item.kind == "unreadable_picture"]
    assert found.count == 3 and "the picture cannot be read, dropped: " in found.message
    assert "blue/1.png" in found.message and "red/0.png" in found.message
    assert sum(len(prepared.table(split)) for split in ("train", "validation", "test")) == 87


def test_the_same_picture_in_test_is_a_leak_whatever_it_is_called(
    pictures: Path, model_folder: Folder, tmp_path: Path
) -> None:
    for split, names in (("train", range(20)), ("test", range(20, 30))):
        for colour in COLOURS:
            (tmp_path / split / colour).mkdir(parents=True)
            for number in names:
                shutil.copy(pictures / colour / f"{number}.png", tmp_path / split / colour)
    Image.open(pictures / "red" / "25.png").save(tmp_path / "train" / "red" / "other.bmp")
    prepared = prepare(recipe_for(model_folder("vit"), tmp_path, "head"))
    assert [item.count for item in prepared.findings if item.kind == "leak"] == [1]
    assert "train/red/other.bmp" not in prepared.table("train").columns["image"]


def test_a_base_of_the_wrong_kind_says_which_fits(pictures: Path, table_file: Path, model_folder: Folder) -> None:
    from tunesmith.previewing import preview

    with pytest.raises(ModelError, match=r"reads text, and task image_classification reads pictures; .*vit, dinov2"):
        preview(recipe_for(model_folder("bert"), pictures, "head"), 1)
    with pytest.raises(ModelError, match="reads pictures, and task classification reads text; choose a text encoder"):
        preview(recipe_for(model_folder("vit"), table_file, "head"), 1)
    with pytest.raises(RecipeError, match="pictures have no tokens"):
        preview(recipe_for(model_folder("vit"), pictures, "head", {"training.max_length": 9}), 1)


def _numbers(made: Any) -> list[float]:
    return [event.loss for event in train(made.run) if isinstance(event, StepDone | Evaluated)]


KINDS = {"head": PooledCache, "layers": HiddenCache}


@pytest.mark.parametrize("method", list(KINDS))
def test_versions_are_computed_once_and_equal_live_ones(
    method: str, pictures: Path, model_folder: Folder, tmp_path: Path
) -> None:
    asked: Any = {"name": "layers", "layers": 1} if method == "layers" else "head"
    found = {}
    for cache in ("memory", "off"):
        settings = {**FRESH, "task.versions": 3, "training.cache": cache, "training.epochs": 4, "training.probe": False}
        found[cache] = bench(recipe_for(model_folder("vit"), pictures, asked, settings), tmp_path / cache)
    kept = found["memory"].trunk
    assert isinstance(kept, KeptVersions) and isinstance(kept.inner, KINDS[method])
    assert "for each of 3 versions" in kept.why and isinstance(found["off"].trunk, Live)
    here, there = _numbers(found["memory"]), _numbers(found["off"])
    assert here == pytest.approx(there, abs=2e-6)
    plain = bench(recipe_for(model_folder("vit"), pictures, asked, {**settings, "task.versions": 2}), tmp_path / "two")
    assert _numbers(plain) != pytest.approx(there, abs=1e-5), "control: the third epoch sees another version"


@pytest.mark.parametrize(
    ("method", "settings", "versions"),
    [
        ("layers", {}, 2),
        ("layers", {"task.versions": None}, None),
        ("layers", {"task.versions": 4}, 4),
        ("layers", {"task.mixup": 0.2}, None),
        ("head", {}, None),
        ("full", {}, None),
    ],
)
def test_frozen_blocks_see_two_versions_of_a_picture_unless_told(
    method: str, settings: dict[str, Any], versions: int | None, pictures: Path, model_folder: Folder, tmp_path: Path
) -> None:
    asked: Any = {"name": "layers", "layers": 1} if method == "layers" else method
    settings = {**FRESH, "training.probe": False, "training.cache": "memory", **settings}
    made = bench(recipe_for(model_folder("vit"), pictures, asked, settings), tmp_path / "run")
    told = [item.value for item in made.built.derived if item.key == "task.versions"]
    assert (made.built.versions, told) == (versions, [2] if versions == 2 else [])
    assert isinstance(made.trunk, KeptVersions) == (versions is not None)


MIXED = {**FRESH, "task.mixup": 0.4, "task.cutmix": 1.0}


def test_a_varied_run_resumes_bitwise(pictures: Path, model_folder: Folder, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("resnet"), pictures, "full", MIXED)
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    made = bench(recipe, tmp_path / "run")
    made.run.stop = lambda: made.run.state.step >= 4
    begun = facts(train(made.run))
    again = bench(recipe, tmp_path / "run")
    state, _ = again.run.checkpoints.load()
    again.run.masters.restore(state.tensors)
    again.run.state = state
    assert state.step == 4 < whole.run.steps
    assert [*begun, *facts(train(again.run))] == expected
    assert differences(whole.tensors(), again.tensors()) == []


def test_a_varied_batch_in_parts_equals_the_whole(pictures: Path, model_folder: Folder, tmp_path: Path) -> None:
    losses = {}
    for size in (24, 5):
        settings = {**MIXED, "training.micro_batch": size, "training.dropout": 0.0, "training.probe": False}
        losses[size] = _numbers(
            bench(recipe_for(model_folder("vit"), pictures, "full", settings), tmp_path / str(size))
        )
    assert losses[5] == pytest.approx(losses[24], abs=2e-4)
    other = {**settings, "seed": 1}
    assert _numbers(bench(recipe_for(model_folder("vit"), pictures, "full", other), tmp_path / "other")) != (
        pytest.approx(losses[5], abs=2e-4)
    )


def test_pictures_kept_on_disk_train_the_same_model(
    pictures: Path, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    recipe = recipe_for(model_folder("resnet"), pictures, "full", MIXED)
    here = bench(recipe, tmp_path / "here")
    wanted = _numbers(here)
    monkeypatch.setattr("tunesmith.encoding.FEW_PICTURES", 10)
    kept = bench(recipe, tmp_path / "kept")
    assert _numbers(kept) == wanted and differences(here.tensors(), kept.tensors()) == []
    folders = list((tmp_path / "cache" / "encoded").iterdir())
    assert len(folders) == 3, "one a split"
    monkeypatch.setattr("tunesmith.encoding.free_memory", lambda: 1)
    bench(recipe, tmp_path / "again")  # what is on disk takes no memory
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr("tunesmith.files.shutil.disk_usage", lambda path: SimpleNamespace(free=300_000))
    with pytest.raises(DataError, match="58 pictures"):
        bench(recipe, tmp_path / "nowhere")


def test_pictures_without_test_rows_are_trained_on(pictures: Path, model_folder: Folder, tmp_path: Path) -> None:
    settings = {"data.test": 0.0, "data.validation": 0.0}
    assert len(_numbers(bench(recipe_for(model_folder("resnet"), pictures, "full", settings), tmp_path / "run"))) > 0


def test_pictures_that_do_not_fit_into_memory_are_refused(
    pictures: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.previewing import preview

    monkeypatch.setattr("tunesmith.encoding.free_memory", lambda: 200_000)
    with pytest.raises(DataError, match=r"58 pictures of 32x32 pixels take 0\.0 GB"):
        preview(recipe_for(model_folder("vit"), pictures, "head"), 1)


def test_the_run_directory_is_plain_data(finished: Any) -> None:
    told = json.loads((finished.path / "model" / "probes.json").read_text(encoding="utf-8"))
    assert all(text.startswith("data:;base64,") for text in told["texts"]), "a picture travels with its content"


def test_pictures_are_held_to_what_the_base_makes_of_the_training_rows(
    model_folder: Folder, pictures: Path, tmp_path: Path
) -> None:
    settings = {"retention.distill": 2.0, "retention.ewc": 2.0}
    made = bench(recipe_for(model_folder("vit"), pictures, "full", settings), tmp_path / "run")
    assert isinstance(made.built.general, Vectors)
    assert len(made.built.general.examples) == len(made.prepared.splits.train)
    list(train(made.run))
    with pytest.raises(RecipeError, match=r"retention\.general: is text, and task image_classification reads pictures"):
        prepare(recipe_for(model_folder("vit"), pictures, "full", {"retention.general": "x.txt"}))
