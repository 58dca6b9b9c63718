"""Bases with a head: equal to what transformers and sentence-transformers make of the saved folder."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from families import FAMILIES
from tunesmith.data.encode import Example, collate
from tunesmith.errors import ArtifactError
from tunesmith.models.backbone import Backbone, load_backbone
from tunesmith.models.loading import load_network
from tunesmith.models.network import Network, PooledNetwork, sequence_network
from tunesmith.models.pooling import Pooling
from tunesmith.models.resolve import resolve

LABELS = ("lost card", "Überweisung", "c")
TEXTS = ["the good bank lost my card", "a great film " * 4, "no", "x y z"]
LIMIT = 32  # tokens, less than any family's own limit
LONG = ["the good bank lost my card " * 20, "a great film"]  # the first is cut


@pytest.fixture(params=[*FAMILIES])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def backbone_of(family: str, folder: Path) -> Backbone:
    return load_backbone(resolve(str(FAMILIES[family](folder))))


def batch_of(network: Network, texts: list[str] = TEXTS) -> dict[str, Tensor]:
    encoded = network.processor.encode_all(texts, LIMIT)
    return collate([Example(i, x, None, cut) for i, (x, cut) in enumerate(encoded)], network.processor.pad).inputs


def test_saved_and_read_back(family: str, tmp_path: Path) -> None:
    network = sequence_network(
        backbone_of(family, tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    with torch.no_grad():
        network.output.weight.mul_(30)
        logits = network(inputs := batch_of(network))
    line = network.save(tmp_path / "saved", LABELS, LIMIT)
    assert str(tmp_path / "saved") in line
    again, labels = load_network(tmp_path / "saved")
    assert labels == LABELS
    assert (again.layout, type(again), again.fresh) == (network.layout, type(network), frozenset())
    assert again.processor.encode_all(TEXTS, 12) == network.processor.encode_all(TEXTS, 12)
    assert (again.processor.max_length, again.processor.pad) == (LIMIT, network.processor.pad)
    assert network.processor.tokenizer.model_max_length == network.processor.max_length > LIMIT
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(inputs), logits)
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".bin", ".pt", ".py", ".pkl")]


def test_transformers_opens_it(family: str, tmp_path: Path) -> None:
    if family in ("sentence", "t5", "bart"):
        pytest.skip("opened by sentence-transformers, or an encoder alone: see test_backbone.py")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = sequence_network(
        backbone_of(family, tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    with torch.no_grad():
        network.output.weight.mul_(30)
    network.save(tmp_path / "saved", LABELS, LIMIT)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.pad_token_id == network.processor.pad["input_ids"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for texts in (TEXTS, LONG):  # cut where the model was trained to, with nothing said of a length
        encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            expected = theirs(**{name: encoded[name] for name in network.processor.pad}).logits
            torch.testing.assert_close(network(batch_of(network, texts)), expected, rtol=0, atol=2e-6)
        assert expected.std() > 0.02
    plain = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    assert plain.encode(LONG[0]).ids == network.processor.encode(LONG[0], LIMIT)[0]["input_ids"]


def test_sentence_transformers_opens_it(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    network = sequence_network(
        backbone_of("sentence", tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    with torch.no_grad():
        network.output.weight.mul_(30)
        network.output.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
        logits = network(batch_of(network))
    assert "SentenceTransformer" in network.save(tmp_path / "saved", LABELS, LIMIT)
    theirs = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    torch.testing.assert_close(torch.from_numpy(theirs.encode(TEXTS)), logits, rtol=0, atol=2e-6)
    base = library.SentenceTransformer(str(tmp_path / "base"), device="cpu")
    with torch.no_grad():
        features = network.features(batch_of(network))
    torch.testing.assert_close(torch.from_numpy(base.encode(TEXTS)), features, rtol=0, atol=1e-6)
    assert theirs.max_seq_length == LIMIT < base.max_seq_length == 48
    with torch.no_grad():
        cut = network(batch_of(network, LONG))
    assert network.processor.encode(LONG[0], 48)[1] > 0, "it is longer than either limit"
    torch.testing.assert_close(torch.from_numpy(theirs.encode(LONG)), cut, rtol=0, atol=2e-6)
    # the pooler that nothing reads is handed on as it came, so that the folder is as whole as the base's
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_halves_make_the_whole(family: str, tmp_path: Path) -> None:
    network = sequence_network(backbone_of(family, tmp_path), LABELS, "single_label_classification", False, seed=0)
    inputs = batch_of(network)
    features = network.features(inputs)
    assert features.shape == (len(TEXTS), network.output.in_features)
    assert torch.equal(network.classify(features), network(inputs))
    linear = nn.functional.linear(features, network.output.weight, network.output.bias)
    torch.testing.assert_close(linear, network(inputs))
    assert not any(module._forward_pre_hooks for module in network.modules())
    network.train()
    network.get_submodule(network.layout.body).eval()
    torch.manual_seed(0)
    body = set(network.get_submodule(network.layout.body).modules())
    drops = any(module.p > 0 for module in network.modules() if isinstance(module, nn.Dropout) and module not in body)
    assert drops == (family not in ("llama", "qwen3", "gpt2", "modernbert", "t5", "bart"))
    assert drops != torch.equal(network(inputs), network(inputs))
    alone = {name: value[1:2] for name, value in inputs.items()}
    network.eval()
    torch.testing.assert_close(network(alone)[0], network(inputs)[1], rtol=0, atol=2e-6)  # filler changes nothing


def test_base_features_hold_nothing_untrained(family: str, tmp_path: Path) -> None:
    """Drawn anew, what is fresh changes no base feature; where only the last map is, they are the features."""
    network = sequence_network(backbone_of(family, tmp_path), LABELS, "single_label_classification", False, seed=0)
    inputs = batch_of(network)
    with torch.no_grad():
        features, found = network.features(inputs), network.base_features(inputs)
        for name in network.fresh:
            nn.init.normal_(network.get_parameter(name), std=0.5)
        assert torch.equal(network.base_features(inputs), found)
        pretrained = torch.equal(network.features(inputs), features)
        assert pretrained == (family in ("bert", "sentence", "gpt2", "llama", "qwen3", "t5", "bart"))
        if pretrained:
            assert torch.equal(found, features)
            return
        body = network.get_submodule(network.layout.body)
        for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
            alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
            expected = body(**alone).last_hidden_state[0].mean(dim=0)
            torch.testing.assert_close(found[row], expected, rtol=0, atol=2e-6)


def test_base_features_of_a_bert_whose_pooler_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    folder = FAMILIES["bert"](tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    network = sequence_network(
        load_backbone(resolve(str(folder))), LABELS, "single_label_classification", False, seed=0
    )
    with torch.no_grad():
        inputs = batch_of(network)
        hidden = network.get_submodule("model.bert")(**inputs).last_hidden_state
        expected = Pooling("mean")(hidden, inputs["attention_mask"])
        assert torch.equal(network.base_features(inputs), expected)
        assert not torch.equal(network.features(inputs), expected)


def test_every_trainable_parameter_gets_a_gradient(family: str, tmp_path: Path) -> None:
    network = sequence_network(backbone_of(family, tmp_path), LABELS, "single_label_classification", False, seed=0)
    network(batch_of(network)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_fresh_is_what_the_seed_draws(family: str, tmp_path: Path) -> None:
    backbone = backbone_of(family, tmp_path)
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, same, other = (
        sequence_network(backbone, LABELS, "single_label_classification", False, seed=seed) for seed in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), state)
    drawn = dict(other.named_parameters())
    copies = dict(same.named_parameters())
    body = f"{first.layout.body}."
    for name, value in first.named_parameters():
        assert torch.equal(value, copies[name])
        vector = value.dim() == 1  # biases and norms start at a constant
        assert vector or torch.equal(value, drawn[name]) == (name not in first.fresh), name
        assert (name in first.fresh) == (not name.startswith(body)), name
        if name.startswith(body):
            assert torch.equal(value, before[name.removeprefix(body)])
    with torch.no_grad():
        for value in first.parameters():
            value.add_(1)
    for name, value in backbone.module.state_dict().items():
        assert torch.equal(value, before[name])  # the backbone is not shared with its networks


def test_bfloat16_runs_and_is_saved_as_float32(family: str, tmp_path: Path) -> None:
    network = sequence_network(
        backbone_of(family, tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    inputs = batch_of(network)
    exact = network(inputs)
    network.to(torch.bfloat16)
    rough = network(inputs)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)
    network.save(tmp_path / "saved", LABELS, LIMIT)
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32"
    again, _ = load_network(tmp_path / "saved")
    values = dict(again.named_parameters())
    for name, value in network.named_parameters():
        assert torch.equal(values[name], value.float()), name
    assert next(network.parameters()).dtype == torch.bfloat16


def test_lowered_it_rounds_its_features_and_not_its_scores(family: str, tmp_path: Path) -> None:
    network = sequence_network(
        backbone_of(family, tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    inputs = batch_of(network)
    exact, head = network(inputs), copy.deepcopy(network.last)
    network.lower()
    assert {value.dtype for value in network.last.parameters()} == {torch.float32}
    others = {name for name, value in network.named_parameters() if value.dtype == torch.bfloat16}
    assert len(others) >= len(list(network.parameters())) - 2 > 0
    with torch.no_grad():
        features, scores = network.features(inputs), network(inputs)
    assert features.dtype == torch.bfloat16 and scores.dtype == torch.float32
    assert torch.equal(scores, head(features.float()))
    assert not torch.equal(scores, scores.bfloat16().float())
    torch.testing.assert_close(scores, exact, rtol=0.1, atol=0.1)


def test_mean_pooling_where_transformers_has_no_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.auto import modeling_auto

    backbone = backbone_of("bert", tmp_path)
    monkeypatch.setattr(modeling_auto, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", {})
    network = sequence_network(backbone, LABELS, "single_label_classification", False, seed=0)
    assert isinstance(network, PooledNetwork)
    assert network.pooling == Pooling("mean", normalize=False)


def test_a_classifier_is_a_base_again(tmp_path: Path) -> None:
    for family in ("sentence", "roberta"):
        base = backbone_of(family, tmp_path / family)
        sequence_network(base, LABELS, "single_label_classification", False, seed=0).save(
            tmp_path / f"{family}-saved", LABELS, LIMIT
        )
        again = load_backbone(resolve(str(tmp_path / f"{family}-saved")))
        assert again.pooling == base.pooling
        network = sequence_network(again, ("p", "q"), "single_label_classification", False, seed=0)
        assert network(batch_of(network)).shape == (len(TEXTS), 2)


class _Shell:
    """A pickle that makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("family", ["sentence", "bert"])
def test_a_pickle_is_refused_unread(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    network = sequence_network(
        backbone_of(family, tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    )
    network.save(folder, LABELS, LIMIT)
    (folder / "model.safetensors").unlink()
    weights = {name.removeprefix("body.").removeprefix("model."): value for name, value in network.state_dict().items()}
    for content in (weights, _Shell(tmp_path / "read")):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_network(folder)
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize(
    ("kind", "lost", "said"),
    [
        ("bert", "classifier.weight", "1 of its weights are missing: classifier.weight"),
        ("gpt2", "score.weight", "1 of its weights are missing: score.weight"),
        ("sentence", "embeddings.word_embeddings.weight", "1 of its weights are missing"),
    ],
)
def test_weights_that_are_missing_further_or_of_another_shape_are_refused(
    kind: str, lost: str, said: str, tmp_path: Path
) -> None:
    base, folder = backbone_of(kind, tmp_path / "base"), tmp_path / "saved"
    sequence_network(base, LABELS, "single_label_classification", False, seed=0).save(folder, LABELS, LIMIT)
    weights = load_file(path := folder / "model.safetensors")

    def refused(changed: dict[str, Tensor]) -> str:
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(ArtifactError) as found:
            load_network(folder)
        return str(found.value)

    assert said in refused({name: value for name, value in weights.items() if name != lost})
    wider = torch.cat([weights[lost], weights[lost]])
    assert f"1 of its weights are of another shape than config.json says: {lost}" in refused({**weights, lost: wider})
    other = {**weights, "qa_outputs.weight": torch.zeros(2, 32)}
    assert "1 of its weights are of another model: qa_outputs.weight" in refused(other)
    save_file(weights, path, metadata={"format": "pt"})
    assert load_network(folder)[1] == LABELS


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    sequence_network(
        backbone_of("sentence", tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    ).save(folder, LABELS, LIMIT)
    path = folder / "3_Dense" / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "linear.weight": weights["linear.weight"][:, :-1].contiguous()}, path)
    with pytest.raises(ArtifactError, match="the head takes 31 values, and the base gives 32"):
        load_network(folder)


def test_a_damaged_saved_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no saved model"):
        load_network(tmp_path)
    folder = tmp_path / "saved"
    sequence_network(
        backbone_of("sentence", tmp_path / "base"), LABELS, "single_label_classification", False, seed=0
    ).save(folder, LABELS, LIMIT)
    for path in (folder / "3_Dense" / "model.safetensors", folder / "model.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_network(folder)


def test_two_texts_a_row_are_read_apart_and_the_vectors_stay_the_base_s_own(tmp_path: Path) -> None:
    """Of a sentence encoder: the saved folder gives sentence-transformers' vectors, and the head reads how they differ."""
    from sentence_transformers import SentenceTransformer

    from tunesmith.data.encode import collate
    from tunesmith.models.network import PairNetwork
    from tunesmith.tasks.base import encode_texts

    backbone = backbone_of("sentence", tmp_path / "base")
    network = sequence_network(backbone, LABELS, "regression", True, seed=0)
    assert isinstance(network, PairNetwork)
    pairs = [("one text", "another"), ("a b c d e f", "b"), ("same", "same")]
    examples = encode_texts(pairs, [None] * 3, backbone.processor, 32)
    batch = collate(examples, backbone.processor.pad)
    assert batch.rows == (0, 1, 2) and len(batch.inputs["input_ids"]) == 6
    with torch.no_grad():
        features = network.features(batch.inputs)
        output = network(batch.inputs)
    oracle = SentenceTransformer(str(tmp_path / "base"), device="cpu")
    one, two = (
        torch.nn.functional.normalize(torch.tensor(oracle.encode([pair[side] for pair in pairs])), dim=-1)
        for side in (0, 1)
    )
    parts = features.chunk(4, dim=-1)
    assert torch.allclose(parts[0], one, atol=1e-5) and torch.allclose(parts[1], two, atol=1e-5)
    assert torch.allclose(parts[2], (one - two).abs(), atol=1e-5)
    similarity = network.cosine(features)
    assert similarity is not None
    assert torch.allclose(similarity, (one * two).sum(-1), atol=1e-5)
    assert float(similarity[2]) == pytest.approx(1.0, abs=1e-5)
    network.save(tmp_path / "saved", LABELS, LIMIT)
    loaded, labels = load_network(tmp_path / "saved")
    assert labels == LABELS and loaded.processor.apart
    with torch.no_grad():
        assert torch.equal(loaded(batch.inputs), output)
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert torch.allclose(
        torch.tensor(again.encode(["one text"])), torch.tensor(oracle.encode(["one text"])), atol=1e-6
    )
