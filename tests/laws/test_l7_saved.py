"""L7: save -> load -> same predictions: what is delivered is what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, recipe_for, rows
from tunesmith.delivery import check_parity
from tunesmith.errors import ArtifactError
from tunesmith.pipeline import start
from tunesmith.predictor import load
from tunesmith.runs import Run
from tunesmith.training.events import Finished, Note, Warned

Folder = Callable[[str], Path]
TEXTS = [text for text, _ in rows(12, seed=9)]


LONG = " ".join(text for text, _ in rows(30, seed=9))  # more words than any of the families reads tokens


def _finished(
    method: str, family: str, model_folder: Folder, data: Path, folder: Path, limit: int | str = "auto"
) -> Path:
    settings = {
        "training.rate": 1e-3,
        "training.precision": "bfloat16" if method == "full" else "float32",
        "training.max_length": limit,
    }
    session = start(recipe_for(model_folder(family), data, METHODS[method], settings), folder)
    assert isinstance(list(session.events())[-1], Finished)
    return folder


@pytest.mark.parametrize("family", ["bert", "sentence", "gpt2"])
@pytest.mark.parametrize("method", list(METHODS))
def test_the_delivered_model_predicts_what_was_measured(
    method: str, family: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet

    run = _finished(method, family, model_folder, table_file, tmp_path / "run")
    check_parity(load(run, dtype="float32"), run / "model")
    predictor = load(run)
    measured = parquet.read_table(run / "predictions" / "test.parquet").to_pydict()
    assert predictor.predict(measured["text"]) == measured["label"]
    copy = load(predictor.save(tmp_path / "copy"))
    assert (copy.predict_proba(TEXTS) == predictor.predict_proba(TEXTS)).all()
    assert Run(run).load().labels == predictor.labels


@pytest.mark.parametrize("limit", ["auto", 9])
@pytest.mark.parametrize("family", ["bert", "gpt2", "sentence"])
def test_other_tools_open_the_model_and_give_the_same_also_of_texts_that_are_cut(
    family: str, limit: int | str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    import torch

    run = _finished("lora", family, model_folder, table_file, tmp_path / "run", limit)
    found = _logits(run / "model", family, [*TEXTS, LONG]).softmax(-1).double()
    predictor = load(run)
    expected = torch.tensor([item.evidence for item in predictor.quiet_predictions([*TEXTS, LONG])])
    assert torch.allclose(found, expected.double(), atol=1e-6)
    whole = {"bert": 64, "gpt2": 64, "sentence": 48}[family]
    assert predictor.card.max_length == (whole if limit == "auto" else limit)
    stored = json.loads((run / "model" / "probes.json").read_text(encoding="utf-8"))["texts"]
    encoded = predictor.network.processor.encode_all(stored, predictor.card.max_length)
    assert 8 <= len(stored) <= 9 and any(cut > 0 for _, cut in encoded), "one of the stored texts is cut"


def _logits(folder: Path, family: str, texts: list[str]) -> Any:
    """[texts, labels], by transformers or sentence-transformers alone, with nothing said of a length."""
    import torch

    if family == "sentence":
        library = pytest.importorskip("sentence_transformers")
        return torch.from_numpy(library.SentenceTransformer(str(folder), device="cpu").encode(texts))
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits


def test_peft_opens_the_adapter_of_a_run(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = _finished("lora", "bert", model_folder, table_file, tmp_path / "run")
    base = AutoModelForSequenceClassification.from_pretrained(model_folder("bert"), num_labels=3)
    opened = PeftModel.from_pretrained(base, str(run / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    with torch.no_grad():
        logits = opened(**tokenizer([*TEXTS, LONG], padding=True, truncation=True, return_tensors="pt")).logits
    found = load(run).quiet_predictions([*TEXTS, LONG])
    assert torch.allclose(logits.softmax(-1), torch.tensor([item.evidence for item in found]), atol=1e-5)
    assert json.loads((run / "adapter" / "labels.json").read_text(encoding="utf-8")) == list(load(run).labels)


@pytest.mark.parametrize(
    ("damage", "said"),
    [("scale", "differs from the one trained"), ("head", "it cannot be used without"), ("", "")],
)
def test_control_an_adapter_that_is_not_what_was_trained_is_not_delivered(
    damage: str,
    said: str,
    model_folder: Folder,
    table_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import load_file, save_file

    from tunesmith.methods import _peft_format

    live = _peft_format.write_adapter

    def other(folder: Path, network: Any, method: Any) -> None:
        live(folder, network, method)
        tensors = load_file(path := folder / "adapter_model.safetensors")
        if damage == "scale":
            tensors = {name: value * (1.5 if name.endswith("lora_B.weight") else 1) for name, value in tensors.items()}
        if damage == "head":
            tensors = {name: value for name, value in tensors.items() if "classifier" not in name}
        save_file(tensors, path)

    monkeypatch.setattr(_peft_format, "write_adapter", other)
    if not damage:
        assert (_finished("lora", "bert", model_folder, table_file, tmp_path / "run") / "adapter").is_dir()
        return
    with pytest.raises(ArtifactError, match=said):
        _finished("lora", "bert", model_folder, table_file, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists() and not (tmp_path / "run" / "model").exists()


def test_the_adapter_of_a_base_without_its_pooler_holds_one(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """As masked language models are stored. The pooler of the reading back is drawn anew, so a lost one would show."""
    import shutil

    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(model_folder("bert"), base)
    weights = load_file(base / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    run = _finished("lora", "bert", lambda _: base, table_file, tmp_path / "run")
    stored = load_file(run / "adapter" / "adapter_model.safetensors")
    whole = sorted(name.removeprefix("base_model.model.") for name in stored if ".lora_" not in name)
    poolers = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert whole == [*poolers, "classifier.bias", "classifier.weight"]


@pytest.mark.parametrize("family", ["bert", "sentence"])
def test_a_run_goes_on_where_the_adapter_of_another_one_ended(
    family: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """At a rate of nearly nothing it stays there: neither the low-rank maps nor the head are drawn or fitted anew."""
    first = _finished("lora", family, model_folder, table_file, tmp_path / "first")
    method = {**METHODS["lora"], "start": str(first / "adapter")}
    still = {"training.rate": 1e-12, "training.head_rate": 1e-12, "training.precision": "float32"}
    events = list(start(recipe_for(model_folder(family), table_file, method, still), tmp_path / "second").events())
    assert isinstance(events[-1], Finished)
    assert abs(load(tmp_path / "second").predict_proba(TEXTS) - load(first).predict_proba(TEXTS)).max() < 1e-5
    lines = [line for event in events if isinstance(event, Note) and event.topic == "method" for line in event.lines]
    assert f"goes on from the head in {first / 'adapter'} (its labels are those of the data)" in lines[1]


def test_a_run_says_that_it_leaves_an_adapter_s_head(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    first = _finished("lora", "bert", model_folder, table_file, tmp_path / "first")
    two = tmp_path / "two.csv"
    kept = [line for line in table_file.read_text(encoding="utf-8").splitlines() if not line.endswith(",money")]
    two.write_text("\n".join(kept) + "\n", encoding="utf-8")
    method = {**METHODS["lora"], "start": str(first / "adapter")}
    events = list(start(recipe_for(model_folder("bert"), two, method), tmp_path / "second").events())
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert (
        "(2 tensors) is left aside: its labels are blame, money, praise, and those of the data blame, praise" in warned
    )


@pytest.mark.parametrize(("family", "file"), [("bert", "model"), ("sentence", "3_Dense/model")])
def test_control_a_model_that_was_changed_is_refused(
    family: str, file: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from tunesmith.models.seal import seal

    run = _finished("head", family, model_folder, table_file, tmp_path / "run")
    path = run / "model" / f"{file}.safetensors"
    weights: dict[str, Any] = load_file(path)
    bias = next(name for name in weights if name in ("classifier.bias", "linear.bias"))
    weights[bias] = weights[bias] + weights[bias].new_tensor([0.01, 0.0, 0.0])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=rf"{file}\.safetensors: was changed or damaged"):
        load(run)
    seal(run / "model")  # as if it had been written so: then the stored probes tell
    with pytest.raises(ArtifactError, match="differs from the one trained"):
        check_parity(load(run, dtype="float32"), run / "model")


def test_control_a_model_without_its_head_is_refused(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tunesmith.models.seal import seal

    run = _finished("head", "bert", model_folder, table_file, tmp_path / "run")
    weights: dict[str, Any] = load_file(run / "model" / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, run / "model" / "model.safetensors", metadata={"format": "pt"})
    for said in ("was changed or damaged", "missing: classifier.weight"):
        with pytest.raises(ArtifactError, match=said):
            load(run)
        seal(run / "model")


def test_control_a_model_that_gives_no_number_is_refused(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    run = _finished("head", "bert", model_folder, table_file, tmp_path / "run")
    predictor = load(run, dtype="float32")
    probes = json.loads((run / "model" / "probes.json").read_text(encoding="utf-8"))
    probes["evidence"][0][0] = float("nan")
    (run / "model" / "probes.json").write_text(json.dumps(probes), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"probes\.json: was changed"):
        load(run)
    with pytest.raises(ArtifactError, match="differs from the one trained"):
        check_parity(predictor, run / "model")
