"""Word vectors as a base: what files are read as, what a text becomes, how it is saved, what is refused."""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from families import STATIC, WORDS, static_table
from shortruns import recipe_for, rows, write_rows
from tunesmith.data.encode import Example, collate
from tunesmith.errors import ModelError, TunesmithWarning
from tunesmith.models.backbone import Backbone, load_backbone
from tunesmith.models.loading import load_network
from tunesmith.models.network import sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.models.vectors import read_vectors

Folder = Callable[[str], Path]
TEXTS = ["the card was lost", "A great film!", "zzz unheard-of money", "good"]
VECTORS = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -1.0]], dtype=np.float32)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def binary(path: Path, end: bytes, words: tuple[str, ...] = ("card", "naïve")) -> Path:
    rows = [word.encode() + b" " + row.tobytes() + end for word, row in zip(words, VECTORS, strict=True)]
    return written(path, b"2 3\n" + b"".join(rows))


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("word2vec text", lambda path: written(path, "2 3\ncard 1.5 -2 0.25\nnaïve 0 3 -1\n".encode())),
        ("word2vec text", lambda path: written(path, "2 3\r\ncard\t1.5\t-2\t0.25\r\nnaïve\t0\t3\t-1\r\n".encode())),
        ("GloVe text", lambda path: written(path, "card 1.5 -2e0 0.25\nnaïve 0 3 -1\n".encode())),
        ("word2vec binary", lambda path: binary(path, b"")),
        ("word2vec binary", lambda path: binary(path, b"\n")),  # as the C code writes it
    ],
)
def test_each_form_gives_the_same_words_and_values(kind: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    read = read_vectors(write(tmp_path / "words.bin"))
    assert (read.kind, read.words) == (kind, ("card", "naïve"))
    assert np.array_equal(read.vectors.numpy(), VECTORS)
    assert (read.repeated, read.unreadable) == (0, 0)


def test_words_with_spaces_repeated_and_unreadable_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "g.txt", b"a 1 2\n. . . 3 4\na 5 6\n\xff\xfe 7 8\n")
    read = read_vectors(path)
    assert read.words == ("a", ". . .") and read.vectors.tolist() == [[1, 2], [3, 4]]
    assert (read.repeated, read.unreadable) == (1, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"card 1 2\nbank 1\nlost 1 x\n", r"w.txt:2: expected a word and 2 numbers .*\n.*w.txt:3: expected"),
        (b"card 1 nan\n", "w.txt:1: .*not finite"),
        (b"3 2\na 1 2\nb 1 2\n", "its first line says 3 words, and it holds 2"),
        (b"2 3\ncard " + struct.pack("<3f", 1, 2, 3) + b"bank " + b"\0" * 5, "ends in word 2 of 2"),
        (b"1 2\ncard " + struct.pack("<2f", 1, float("inf")), r"word 1 \(card\) is not finite"),
        (b"1 2\ncard " + struct.pack("<2f", 1, 2) + b"more", "holds more than the 1 words"),
        (b"PK\x03\x04rest", "a zip or a pickle"),
        (b"\x80\x02}q", "a zip or a pickle"),
        ((793712314).to_bytes(4, "little") + b"\0" * 60, "fastText's own binary"),
        (b"0 3\n", "says 0 words"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        load_backbone(resolve(str(written(tmp_path / "w.txt", content))))


def features(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    network = sequence_network(backbone, ("a", "b"), "single_label_classification", False, 1)
    encoded = backbone.processor.encode_all(texts, 40)
    rows = [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)]
    with torch.no_grad():
        return network.features(collate(rows, backbone.processor.pad).inputs)


def test_a_text_is_the_mean_of_the_words_that_the_table_knows(model_folder: Folder) -> None:
    backbone = load_backbone(resolve(str(model_folder("glove"))))
    table = dict(zip(WORDS, static_table(), strict=True))
    known = [["the", "card", "was", "lost"], ["a", "great", "film"], ["of", "money"], ["good"]]
    known = [[word for word in words if word in table] for words in known]
    expected = torch.stack([torch.stack([table[word] for word in words]).mean(0) for words in known])
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert (features(backbone, TEXTS) - expected).abs().max() < 1e-6
    assert features(backbone, ["zzz", ""]).abs().max() == 0, "of nothing known nothing is said"


def test_model2vec_weighs_tokens_and_leaves_unknown_ones_out(model_folder: Folder) -> None:
    folder = model_folder("model2vec")
    backbone = load_backbone(resolve(str(folder)))
    tensors, tokenizer = load_file(folder / "model.safetensors"), backbone.processor.tokenizer
    unknown = tokenizer.convert_tokens_to_ids("[UNK]")
    expected = []
    for text in TEXTS:
        ids = [i for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i != unknown]
        rows = tensors["embeddings"][tensors["mapping"][ids].long()] * tensors["weights"][ids].float()[:, None]
        expected.append(torch.nn.functional.normalize(rows.mean(0), dim=-1))
    assert (features(backbone, TEXTS) - torch.stack(expected)).abs().max() < 1e-6
    marks = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    assert not set(marks) & set(backbone.processor.encode("the card", 40)[0]["input_ids"])


@pytest.mark.parametrize("family", list(STATIC))
def test_saved_it_opens_in_sentence_transformers_and_as_a_base(
    family: str, model_folder: Folder, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    backbone = load_backbone(resolve(str(model_folder(family))))
    network = sequence_network(backbone, ("a", "b", "c"), "single_label_classification", False, 1)
    said = network.save(tmp_path / "m", ("a", "b", "c"), 40)
    assert said.startswith("opens with SentenceTransformer(") and "zeros" not in said
    encoded = backbone.processor.encode_all([*TEXTS, "zzz"], 40)
    rows = [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)]
    with torch.no_grad():
        logits = network(collate(rows, backbone.processor.pad).inputs)
        again, labels = load_network(tmp_path / "m")
        assert torch.equal(again(collate(rows, again.processor.pad).inputs), logits) and labels == ("a", "b", "c")
    opened = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode([*TEXTS, "zzz"], convert_to_tensor=True)
    assert (opened - logits).abs().max() < 1e-5
    base = load_backbone(resolve(str(tmp_path / "m")))
    assert base.static and torch.equal(features(base, TEXTS), features(backbone, TEXTS))
    assert [path.name for path in (tmp_path / "m").rglob("*") if path.suffix in (".bin", ".pt", ".pkl")] == []


def test_a_table_of_sentence_transformers_keeps_its_unknown_token(model_folder: Folder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder("model2vec") / "tokenizer.json"))
    torch.manual_seed(3)
    made = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    made.save(str(tmp_path / "st"))
    found = features(load_backbone(resolve(str(tmp_path / "st"))), [*TEXTS, "€"])
    assert (found - made.encode([*TEXTS, "€"], convert_to_tensor=True)).abs().max() < 1e-6
    assert found[-1].abs().max() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {**t, "mapping": t["mapping"][:-1]}, "weights is .* and there are"),
        (lambda t: {**t, "mapping": t["mapping"] + 1000}, "mapping names rows that the table of 40 does not have"),
        (lambda t: {"embeddings": t["embeddings"]}, r"the tokenizer knows \d+ tokens and the table 40"),
        (lambda t: {"other": t["embeddings"]}, r"no table of vectors .* it holds other \[40, 32\]"),
    ],
)
def test_a_folder_that_does_not_fit_together(
    change: Callable[[dict[str, Any]], dict[str, Any]], says: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folder = STATIC["model2vec"](tmp_path)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(ModelError, match=says):
        load_backbone(resolve(str(folder)))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        resolve(str(folder))


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_run_on_a_file_learns_and_is_loaded_again(method: str, model_folder: Folder, tmp_path: Path) -> None:
    from tunesmith.pipeline import start
    from tunesmith.predictor import load

    data = write_rows(tmp_path / "rows.csv", 120)
    with data.open("a", encoding="utf-8") as more:
        more.write("zzz qqq,money\n")
    settings = {"training.epochs": 10, "training.rate": 0.02, "training.probe": method == "head"}
    recipe = recipe_for(model_folder("glove"), data, method, settings)
    events = list(start(recipe, tmp_path / "run").events())
    told = json.dumps([event.to_plain() for event in events])
    assert f"{model_folder('glove')} (file), " in told, "a file is no folder"
    assert "have no vector in this table" in told and "in lower case, as every word of the table is" in told
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["metrics"]["accuracy"]["value"] >= 0.8
    assert str(model_folder("glove").resolve()) in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    predictor = load(tmp_path / "run", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(["good film"])
    with pytest.warns(TunesmithWarning, match="1 of 2 texts hold no word"):
        predictor.predict(["good film", "zzz"])
    table = predictor.network.get_submodule("body.embedding").weight[1:]
    assert torch.equal(table, static_table()) == (method == "head")


def test_what_has_no_vector_is_told_only_where_there_is_some(model_folder: Folder, tmp_path: Path) -> None:
    from tunesmith.cli.preview import preview_lines
    from tunesmith.previewing import preview

    def told(*more: str) -> list[str]:
        table = tmp_path / "rows.csv"
        lines = [f"{' '.join([text] * 20)},{label}" for text, label in rows(120)]
        table.write_text("\n".join(["text,label", *lines, *more]), encoding="utf-8")
        return list(preview(recipe_for(model_folder("glove"), table), 1).findings)

    some = rows(1)[0][0]
    assert told(f"{some} zzz,money") == [], "1 of thousands of tokens"
    missing = " zzz" * 60
    (share,) = told(f"{some}{missing},money")
    assert re.fullmatch(r"\d\.\d% of all tokens have no vector in this table and are left out", share)
    (empty,) = told("zzz,money")
    assert empty.endswith("; 1 row with a text of which nothing is left, told apart by nothing")
    cut = preview(recipe_for(model_folder("glove"), tmp_path / "rows.csv", "full", {"training.max_length": 30}), 1)
    longest = max(len(text.split()) for text, _ in rows(120)) * 20
    assert f"--set training.max_length={longest} keeps all" in cut.findings[0]
    unlimited = preview(
        recipe_for(model_folder("glove"), tmp_path / "rows.csv", "full", {"training.max_length": 10**6}), 1
    )
    assert unlimited.limit is None
    assert not [line for line in preview_lines(unlimited, colours=False) if line.startswith("length:")]


def test_two_texts_and_numbers(model_folder: Folder, tmp_path: Path) -> None:
    rows = [
        {"one": f"the {a} {b}", "two": f"{a} of {c}", "score": len(a) / 2.0}
        for a, b, c in zip(WORDS, WORDS[1:], WORDS[2:], strict=False)
    ]
    tunesmith.finetune(
        model_folder("model2vec"),
        rows,
        "full",
        text="one",
        pair="two",
        label="score",
        settings={"training.epochs": 2, "training.device": "cpu"},
        out=tmp_path / "run",
    )
    loaded = tunesmith.load(tmp_path / "run")
    said = loaded.predict([("the card", "card of money"), ("a", "b")])
    assert len(said) == 2 and all(isinstance(value, float) for value in said)


@pytest.mark.parametrize("family", list(STATIC))
def test_vectors_learned_by_contrast_open_in_sentence_transformers(
    family: str, model_folder: Folder, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [f"{a} {b} {c}" for a, b, c in zip(WORDS, WORDS[1:], WORDS[5:], strict=False)]
    rows = {"anchor": texts[:40], "positive": texts[1:41]}
    settings = {"training.epochs": 2, "training.device": "cpu", "training.rate": 0.02}
    before = load_backbone(resolve(str(model_folder(family))))
    tunesmith.finetune(model_folder(family), rows, "full", task="embedding", settings=settings, out=tmp_path / "run")
    loaded = tunesmith.load(tmp_path / "run")
    said = loaded.encode(TEXTS)
    opened = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu").encode(TEXTS)
    assert np.abs(said - opened).max() < 1e-5
    assert np.abs(said - features(before, TEXTS).numpy()).max() > 1e-3, "the table moved"
    again = load_backbone(resolve(str(tmp_path / "run" / "model")))  # it is a base again
    assert again.static and np.abs(features(again, TEXTS).numpy() - said).max() < 1e-6


@pytest.mark.parametrize("known", [True, False], ids=["here", "only known when read"])
@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("seq2seq", r"kind encoder-decoder, and (.*) is a table of word vectors; choose an encoder-decoder \(t5"),
        ("instruction", r"kind decoder, and (.*) is a table of word vectors; choose a decoder \(llama"),
        ("causal_lm", r"kind decoder, and (.*) is a table of word vectors; choose a decoder \(llama"),
        ("masked_lm", r"kind encoder, and (.*) is a table of word vectors; choose an encoder \(bert"),
    ],
)
def test_tasks_that_write_say_that_a_table_is_none_of_their_bases(
    task: str, says: str, known: bool, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import preparing

    def encoded(*_: Any) -> None:
        raise AssertionError("rows were encoded")

    monkeypatch.setattr(preparing, "encode_split", encoded)
    if not known:  # as a base that has yet to be fetched
        monkeypatch.setattr(preparing, "local_kind", lambda name: "")
    words = [f"{a} {b} {c} {d}" for a, b, c, d in zip(WORDS, WORDS[1:], WORDS[7:], WORDS[9:], strict=False)]
    rows = [{"text": text} for text in words] if task.endswith("_lm") else []
    rows = rows or [{"prompt": text, "completion": other} for text, other in zip(words, words[3:], strict=False)]
    columns = {"text": "prompt", "label": "completion"} if task == "seq2seq" else {}
    for family in STATIC:
        with pytest.raises(ModelError, match=says) as error:
            tunesmith.finetune(model_folder(family), rows, task=task, out=tmp_path / "run", **columns)
        assert str(model_folder(family)) in str(error.value)
    assert not (tmp_path / "run").exists()


def test_checkpointing_is_refused_before_there_is_a_run(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from tunesmith.pipeline import start

    recipe = recipe_for(model_folder("glove"), table_file, "full", {"training.checkpointing": True})
    with pytest.raises(ModelError, match="word vectors have no blocks"):
        list(start(recipe, tmp_path / "run").events())
    assert not (tmp_path / "run").exists()
