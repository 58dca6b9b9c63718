"""A saved model in use: what it says of texts too long for it, where it computes, and what evaluating it tells."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shortruns import HINTS, recipe_for, rows, write_rows
from tunesmith.cli.main import run as command
from tunesmith.errors import ArtifactError, RecipeError, TunesmithWarning
from tunesmith.evaluating import evaluate_run
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.models.seal import seal
from tunesmith.pipeline import start
from tunesmith.predictor import Card, load
from tunesmith.preparing import prepare
from tunesmith.result import _predict_split
from tunesmith.runs import Run
from tunesmith.tasks.base import Labels
from tunesmith.tasks.classification import Classification

Folder = Callable[[str], Path]
LIMIT = 8
LONG = "bad " * 10  # 10 words, [CLS] and [SEP]: 4 tokens more than the limit
CUT = "1 of 2 texts cut to 8 tokens, the most this model reads: 25.0% of all tokens were left out"


@pytest.fixture(scope="module")
def saved(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a random head, saved as a run saves it, that reads 8 tokens."""
    folder, names = tmp_path_factory.mktemp("saved") / "model", tuple(sorted(HINTS))
    sequence_network(
        load_backbone(resolve(str(model_folder("bert")))), names, "single_label_classification", False, 0
    ).save(folder, names, LIMIT)
    card = Card(Classification(), Labels(names, (9, 9, 9)), "text", None, "label", LIMIT)
    (folder / "tunesmith.json").write_text(json.dumps(card.to_plain()))
    seal(folder)
    return folder


def tunesmith(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        command(list(arguments))
    return end.value.code


def write(path: Path, content: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *content])
    return path


def test_cut_texts_are_warned_of_once_and_at_the_caller(saved: Path) -> None:
    model, texts = load(saved), ["a film", LONG]
    uses: list[Callable[[Sequence[str]], object]] = [model.predictions, model.predict, model.predict_proba]
    for use in uses:
        with pytest.warns(TunesmithWarning) as caught:
            use(texts)
        (warned,) = caught
        assert str(warned.message).startswith(CUT)
        assert warned.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = model.predictions(["a film", " ".join(["bad"] * (LIMIT - 2))])  # as much as the limit leaves: no warning
        assert model.quiet_predictions(texts) == read
        assert model.predictions([]) == []


def test_texts_in_parts_are_read_as_the_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = load(saved), ["a film", "good", LONG, "bad film", "a"]
    whole = model.quiet_predictions(texts)
    monkeypatch.setattr("tunesmith.data.stored.PART_ROWS", 2)
    parts = model.quiet_predictions(texts)
    assert [(item.row, item.value) for item in parts] == [(item.row, item.value) for item in whole]
    assert [item.row for item in parts] == [0, 1, 2, 3, 4]


def test_the_commands_say_a_cut_as_one_plain_line(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.csv", [("a film", "praise"), (LONG, "blame")])
    for arguments in (["predict", str(saved), str(data)], ["evaluate", str(saved), str(data)]):
        assert tunesmith(*arguments) == 0
        said = capsys.readouterr()
        assert said.err.splitlines() == [f"warning: {CUT}; shorten these texts, or split them"]
        assert "cut to" not in said.out
    assert tunesmith("predict", str(saved), LONG, "--json") == 0
    said = capsys.readouterr()
    assert said.err.startswith("warning: 1 of 1 texts cut to 8 tokens") and said.err.count("\n") == 1
    assert json.loads(said.out)["text"] == LONG


def test_the_measurement_of_a_run_does_not_warn_again(saved: Path, model_folder: Folder, tmp_path: Path) -> None:
    from pyarrow import parquet

    content = [(f"{text} {LONG}", label) for text, label in rows(60)]
    prepared = prepare(recipe_for(model_folder("bert"), write(tmp_path / "rows.csv", content)))
    model = load(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = _predict_split("test", prepared, model, tmp_path)
    assert measured is not None
    found, scores = measured.predictions, measured.scores
    written = parquet.read_table(tmp_path / "predictions" / "test.parquet").to_pydict()
    assert (written["text"], written["truth"]) == (prepared.texts("test"), prepared.truth("test"))
    with pytest.warns(TunesmithWarning, match="12 of 12 texts cut"):
        assert written["label"] == model.predict(written["text"]) == [item.value for item in found]
    hits = [item.value == true for item, true in zip(found, written["truth"], strict=True)]
    assert [bool(hit) for hit in scores.each["accuracy"]] == hits == [bool(hit) for hit in written["metric:accuracy"]]


def test_evaluate_says_which_split_it_took_and_which_rows_it_dropped(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = [("a good film", "praise"), ("a bad film", "blame"), ("my card", "money"), ("", "money"), ("so", "")]
    write(tmp_path / "train.csv", content[:2])
    write(tmp_path / "dev.csv", content[:1])
    only = write(tmp_path / "test.csv", content)
    findings = [
        f"{tmp_path}: measured on test (5 rows); not used: train (2 rows), validation (1 row)",
        '1 row: "text" is empty; dropped',
        '1 row: "label" is empty; dropped',
    ]
    report = evaluate_run(saved, tmp_path)
    assert (report["rows"], report["findings"]) == (3, findings)
    assert evaluate_run(saved, only)["findings"] == findings[1:]
    assert evaluate_run(saved, content[:3])["findings"] == []
    texts, labels = zip(*content[:3], strict=True)
    right = [said == label for said, label in zip(load(saved).predict(texts), labels, strict=True)]
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / 3)
    assert tunesmith("evaluate", str(saved), str(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == [*report["lines"], *(f"note: {finding}" for finding in findings)]
    assert tunesmith("evaluate", str(saved), str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"] == findings
    (tmp_path / "test.csv").unlink()
    (said,) = evaluate_run(saved, tmp_path)["findings"]
    assert said == f"{tmp_path}: measured on train (2 rows); not used: validation (1 row)"


def test_labels_of_numbers_are_not_called_mixed_with_the_model_s_own(saved: Path, tmp_path: Path) -> None:
    copy = load(saved).save(tmp_path / "copy")
    card = replace(Card.read(copy), labels=Labels(("0", "1", "2"), (9, 9, 9)))
    (copy / "tunesmith.json").write_text(json.dumps(card.to_plain()))
    seal(copy)
    report = evaluate_run(copy, {"text": ["a", "b", "c"], "label": [0, 1, 2]})
    assert (report["rows"], report["findings"]) == (3, [])


def test_a_copy_that_is_not_what_was_written_is_refused(saved: Path, tmp_path: Path) -> None:
    model = load(saved)
    whole = model.save(tmp_path / "whole")
    (whole / "README.md").write_text("anyone may add to the card")
    (whole / "notes.txt").write_text("and further files")
    assert load(whole).predictions(["a film"]) == model.predictions(["a film"])
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tunesmith.json"):
        copy = model.save(tmp_path / name)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" " if name.endswith(".json") else content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=f"{name}: was changed or damaged"):
            load(copy)
    copy = model.save(tmp_path / "less")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(ArtifactError) as found:
        load(copy)
    assert [problem.split(";")[0] for problem in found.value.problems] == [
        f"{copy / name}: is missing" for name in ("tokenizer.json", "tokenizer_config.json")
    ]
    for content, said in (("{", "cannot be read"), ("[]", "cannot be read"), (None, "has no sha256.json")):
        copy = model.save(tmp_path / said / str(content).strip("{}"))
        (copy / "sha256.json").unlink() if content is None else (copy / "sha256.json").write_text(content)
        with pytest.raises(ArtifactError, match=said):
            load(copy)


def test_save_refuses_what_it_cannot_write_and_leaves_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = load(saved), tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ArtifactError, match="is a file; give a new folder"):
        model.save(file)
    with pytest.raises(ArtifactError, match="cannot be copied there"):
        model.save(file / "below")
    assert file.read_text() == "mine"
    with pytest.raises(ArtifactError, match="is not empty"):
        model.save(tmp_path)

    def half(source: Path, target: Path, dirs_exist_ok: bool) -> None:
        target.mkdir(exist_ok=dirs_exist_ok)
        shutil.copy2(source / "config.json", target)
        raise OSError(28, "No space left on device")

    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", half)
        for name in ("new", "empty"):
            with pytest.raises(ArtifactError, match="No space left"):
                model.save(tmp_path / name)
    assert not (tmp_path / "new").exists() and list((tmp_path / "empty").iterdir()) == []
    assert load(model.save(tmp_path / "empty")).labels == model.labels


def test_the_device_is_the_gpu_where_there_is_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    monkeypatch.setattr(
        "tunesmith.models.network.Network.to", lambda network, device: moved.append(device) or network, raising=False
    )
    for present, asked in ((False, "auto"), (False, "cpu"), (True, "auto"), (True, "cuda"), (True, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        load(saved, asked)
    assert moved == ["cpu", "cpu", "cuda", "cuda", "cpu"]
    with pytest.raises(RecipeError, match='"gpu" is none of auto, cpu and cuda'):
        load(saved, "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="torch sees no GPU here; use cpu or auto"):
        load(saved, "cuda")
    with pytest.raises(ArtifactError, match="there is no such run"):
        load(saved / "nowhere", "cpu")


def test_it_computes_as_it_was_measured_where_that_is_no_slower(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for text, _ in rows(20)]
    exact = [item.evidence for item in load(saved).quiet_predictions(texts)]  # of a card that says nothing of it
    folder = load(saved).save(tmp_path / "model")
    plain = json.loads((folder / "tunesmith.json").read_text())
    assert plain["dtype"] == "float32"
    (folder / "tunesmith.json").write_text(json.dumps(plain | {"dtype": "bfloat16"}))
    seal(folder)
    found = {}
    for gain in (0.9, 1.0):
        monkeypatch.setattr("tunesmith.training.precision.bfloat16_gain", lambda device, width, gain=gain: gain)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found[gain] = load(folder)
        assert ["was measured in bfloat16" in str(line.message) for line in told] == ([True] if gain < 1 else [])
        assert found[gain].dtype == ("float32" if gain < 1 else "bfloat16")
        assert [item.evidence for item in load(folder, dtype="float32").quiet_predictions(texts)] == exact
    assert found[0.9].network.sample.dtype == torch.float32 and found[1.0].network.sample.dtype == torch.bfloat16
    assert [item.evidence for item in found[0.9].quiet_predictions(texts)] == exact
    rough = [item.evidence for item in found[1.0].quiet_predictions(texts)]
    assert rough != exact and torch.allclose(torch.tensor(rough), torch.tensor(exact), atol=0.02)
    with pytest.raises(RecipeError, match='dtype: "half" is neither auto nor float32'):
        load(folder, dtype="half")


@pytest.mark.parametrize(("precision", "gain"), [("bfloat16", 2.0), ("bfloat16", 0.5), ("float32", 2.0)])
def test_what_was_measured_is_what_is_loaded(
    precision: str, gain: float, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("tunesmith.training.precision.bfloat16_gain", lambda device, width: gain)
    data, run = write_rows(tmp_path / "rows.csv", 120), tmp_path / "run"
    recipe = recipe_for(model_folder("bert"), data, "full", {"training.precision": precision})
    list(start(recipe, run).events())
    computes = precision if gain > 1 else "float32"  # in the run, and so ever after
    monkeypatch.setattr("tunesmith.training.precision.bfloat16_gain", lambda device, width: 2.0)
    model = load(run)
    assert (model.card.dtype, model.dtype) == (computes, computes)
    for split in ("validation", "test"):
        told = parquet.read_table(run / "predictions" / f"{split}.parquet").to_pydict()
        found = model.quiet_predictions(told["text"])
        for place, name in enumerate(model.labels):
            assert told[f"p:{name}"] == pytest.approx([item.evidence[place] for item in found], abs=1e-6)
    told = parquet.read_table(run / "predictions" / "validation.parquet").to_pydict()
    found, labels = model.quiet_predictions(told["text"]), model.card.labels
    again = model.card.task.calibrate(found, told["truth"], labels, recipe.evaluation.confidence)
    assert labels.calibration is not None and again.calibration is not None
    assert labels.calibration.scores == pytest.approx(again.calibration.scores, abs=1e-6)  # what sets are drawn from


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_predicts_as_the_processor_does(saved: Path) -> None:
    texts = [text for text, _ in rows(20)]
    on_gpu = load(saved)
    assert on_gpu.network.output.weight.is_cuda
    expected = torch.tensor([item.evidence for item in load(saved, "cpu").quiet_predictions(texts)])
    found = torch.tensor([item.evidence for item in on_gpu.quiet_predictions(texts)])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("validation", [0.15, 0.0])
def test_a_run_without_test_rows_has_a_page_and_its_validation_predictions(
    validation: float, model_folder: Folder, tmp_path: Path
) -> None:
    from pyarrow import parquet

    settings = {"data.test": 0.0, "data.validation": validation, "training.epochs": 1}
    data, run = write_rows(tmp_path / "rows.csv", 60), tmp_path / "run"
    list(start(recipe_for(model_folder("bert"), data, "head", settings), run).events())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "No test rows were held out" in page and "Not measured" in page and "default-src 'none'" in page
    assert Run(run).metrics == {} and Run(run).verdict.startswith("No test rows were held out")
    written = run / "predictions" / "validation.parquet"
    if validation == 0.0:
        assert not (run / "predictions").exists()
        return
    table = parquet.read_table(written).to_pydict()
    assert len(table["text"]) == 9
    assert table["label"] == Run(run).load().predict(table["text"])
