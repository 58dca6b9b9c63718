"""What is read of a base: tokens, limits, pooling; and what is no base for a text classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import FAMILIES, WORDS
from tunesmith.errors import ModelError
from tunesmith.models.backbone import Backbone, load_backbone, quiet
from tunesmith.models.pooling import MODES, Pooling, declared_pooling
from tunesmith.models.resolve import Source, resolve


def backbone_of(family: str, folder: Path) -> Backbone:
    return load_backbone(resolve(str(FAMILIES[family](folder))))


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    return {family: backbone_of(family, tmp_path_factory.mktemp(family)) for family in ("bert", "roberta", "gpt2")}


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(["bert", "roberta", "gpt2"]),
    texts=st.lists(st.lists(st.sampled_from([*WORDS, "Bank.", "naïve", "😀"]), max_size=30).map(" ".join), max_size=4),
    limit=st.integers(4, 40),
)
def test_what_is_cut_is_counted(bases: dict[str, Backbone], family: str, texts: list[str], limit: int) -> None:
    processor = bases[family].processor
    encoded = processor.encode_all(texts, limit)
    assert [processor.encode(text, limit) for text in texts] == encoded
    special = 0 if family == "gpt2" else 2
    for text, (inputs, cut) in zip(texts, encoded, strict=True):
        plain = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = inputs["input_ids"]
        assert cut == max(0, len(plain) + special - limit)
        kept = ids[1:-1] if special else ids
        assert kept == plain[: len(plain) - cut] or (not plain and kept == [processor.pad["input_ids"]])
        assert inputs.keys() == processor.pad.keys()
        assert all(len(values) == len(ids) >= 1 for values in inputs.values())
        assert set(inputs["attention_mask"]) == {1}


def test_limits_and_where_they_are_from(tmp_path: Path) -> None:
    folder = FAMILIES["roberta"](tmp_path / "roberta")
    processor = load_backbone(resolve(str(folder))).processor
    assert (processor.max_length, processor.why) == (64, "model_max_length in tokenizer_config.json")
    edit(folder / "tokenizer_config.json", model_max_length=int(1e30))
    backbone = load_backbone(resolve(str(folder)))
    assert backbone.processor.max_length == 80  # 82 positions, of which roberta never uses the first 2
    assert "less 2" in backbone.processor.why
    longest = {"input_ids": torch.full((1, 80), 5), "attention_mask": torch.ones(1, 80, dtype=torch.long)}
    backbone.module(**longest)  # the very longest still runs; one more does not
    with pytest.raises((IndexError, RuntimeError)):
        backbone.module(input_ids=torch.full((1, 81), 5))
    sentence = backbone_of("sentence", tmp_path / "sentence").processor
    assert (sentence.max_length, sentence.why) == (48, "max_seq_length in sentence_bert_config.json")


def test_inputs_are_those_the_model_takes(tmp_path: Path) -> None:
    kinds = {family: list(backbone_of(family, tmp_path / family).processor.pad) for family in ("bert", "distilbert")}
    assert kinds == {
        "bert": ["input_ids", "attention_mask", "token_type_ids"],
        "distilbert": ["input_ids", "attention_mask"],
    }
    gpt2 = backbone_of("gpt2", tmp_path / "gpt2").processor
    assert gpt2.pad["input_ids"] == gpt2.tokenizer.eos_token_id == 0


def test_lower_case_that_the_sentence_encoder_asks_for(tmp_path: Path) -> None:
    folder = FAMILIES["sentence"](tmp_path)
    edit(folder / "tokenizer.json", normalizer=None)
    mixed = load_backbone(resolve(str(folder))).processor
    assert mixed.encode("The Bank", 20) != mixed.encode("the bank", 20)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    lower = load_backbone(resolve(str(folder))).processor
    assert lower.encode("The Bank", 20) == lower.encode("the bank", 20)


def test_a_checkpoint_without_pooler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import BertForMaskedLM

    folder = FAMILIES["bert"](tmp_path)
    with quiet():
        BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    capsys.readouterr()
    backbone = load_backbone(resolve(str(folder)))
    assert backbone.fresh == ("pooler.dense.bias", "pooler.dense.weight")
    assert capsys.readouterr() == ("", "")


def test_what_is_no_base_is_named(tmp_path: Path) -> None:
    from transformers import CLIPConfig, Wav2Vec2Config

    with quiet():
        Wav2Vec2Config().save_pretrained(tmp_path / "wav2vec2")
    CLIPConfig().save_pretrained(tmp_path / "clip")
    expected = {"wav2vec2": "a speech model", "clip": "takes more than text"}
    for name, words in expected.items():
        with pytest.raises(ModelError) as caught:
            load_backbone(Source(name, tmp_path / name, "folder", None))
        first, second = caught.value.problems  # and the tokenizer is missing too
        assert words in first and "choose a text encoder" in first
        assert "looked for tokenizer.json, vocab.txt" in second


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("per_token", [False, True])
def test_the_encoder_of_an_encoder_decoder_is_the_whole_models_own(
    family: str, per_token: bool, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its hidden states, what is saved of it, and what transformers opens from there."""
    import transformers

    from tunesmith.models.encoder_part import HEAD, class_name
    from tunesmith.models.loading import load_network
    from tunesmith.models.network import sequence_network, span_network, token_network

    folder = model_folder(family)
    backbone = load_backbone(resolve(str(folder)))
    assert backbone.fresh == () and backbone.pooling is None
    with quiet():
        whole = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = {name: torch.tensor([row]) for name, row in backbone.processor.encode("a good film", 20)[0].items()}
    with torch.no_grad():
        wanted = whole.get_encoder()(**inputs).last_hidden_state
        assert torch.equal(backbone.module(**inputs).last_hidden_state, wanted)
        if per_token:
            network = token_network(backbone, ("O", "B-x", "I-x"), 3)
        else:
            network = sequence_network(backbone, ("a", "b", "c"), "single_label_classification", False, 3)
        logits = network.last(wanted if per_token else wanted.mean(dim=1))
        assert torch.allclose(network(inputs), logits, atol=1e-6)
        said = network.save(tmp_path, ("a", "b", "c"), 20)
        assert class_name(backbone.module.config) in said and HEAD in said
        again, labels = load_network(tmp_path)
        assert labels == ("a", "b", "c") and again.per_token == per_token
        assert torch.equal(again(inputs), network(inputs))
        with quiet():
            opened = getattr(transformers, class_name(backbone.module.config)).from_pretrained(tmp_path).eval()
        assert torch.equal(opened.get_encoder()(**inputs).last_hidden_state, wanted)
    with pytest.raises(ModelError, match="no head for spans"):
        span_network(backbone, ("start", "end"), 3)


def test_folders_that_do_not_fit_together(tmp_path: Path) -> None:
    folder = FAMILIES["bert"](tmp_path)
    source = resolve(str(folder))
    config = (folder / "config.json").read_text(encoding="utf-8")
    faults = {
        "lacks 16": {"num_hidden_layers": 4},
        "do not fit": {"intermediate_size": 24},
        "is not understood": {"model_type": "bertt"},
    }
    for words, change in faults.items():
        edit(folder / "config.json", **change)
        with pytest.raises(ModelError, match=words):
            load_backbone(source)
        (folder / "config.json").write_text(config, encoding="utf-8")
    core = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    core["vocab"].update({f"more{index}": 220 + index for index in range(100)})
    edit(folder / "tokenizer.json", model=core)
    with pytest.raises(ModelError, match=r"the tokenizer knows .* and the model 220"):
        load_backbone(source)
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        load_backbone(source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_pooling_is_that_of_sentence_transformers(mode: str, dtype: torch.dtype) -> None:
    library = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 9, 16, generator=generator).to(dtype)
    mask = (torch.arange(9) < torch.tensor([[9], [1], [4], [7], [2]])).long()
    theirs = library.Pooling(16, pooling_mode=MODES[mode][0])
    expected = theirs({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    assert torch.equal(Pooling(mode)(hidden, mask), expected)
    scaled = Pooling(mode, normalize=True)(hidden, mask)
    assert scaled.dtype == dtype
    torch.testing.assert_close(scaled.float().norm(dim=1), torch.ones(5), rtol=0, atol=1e-2)


def test_declared_pooling(tmp_path: Path) -> None:
    folder = FAMILIES["sentence"](tmp_path)
    path = folder / "1_Pooling" / "config.json"
    assert declared_pooling(folder) == Pooling("mean", normalize=True)
    for mode, (name, flag) in MODES.items():
        path.write_text(json.dumps({"pooling_mode": name}), encoding="utf-8")
        assert declared_pooling(folder) == Pooling(mode, normalize=True)
        path.write_text(json.dumps({flag: True, "pooling_mode_other": False}), encoding="utf-8")
        assert declared_pooling(folder) == Pooling(mode, normalize=True)
    path.write_text(json.dumps({"pooling_mode": ["cls", "mean"]}), encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        declared_pooling(folder)
    assert len(caught.value.problems) == 2
    assert "declares cls and mean" in caught.value.problems[0]
    assert "a Dense module" in caught.value.problems[1]
    (folder / "modules.json").unlink()
    assert declared_pooling(folder) is None
