"""Bottleneck adapters: what they compute, where they go, and a model that holds what no other library knows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tunesmith
from shortruns import METHODS, recipe_for, rows
from tunesmith.catalog import build
from tunesmith.errors import ArtifactError, ModelError
from tunesmith.estimator import TextClassifier
from tunesmith.methods._bottleneck_layer import BottleneckLinear
from tunesmith.methods.base import Method, Rates
from tunesmith.methods.bottleneck import Bottleneck
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.models.seal import seal
from tunesmith.pipeline import start
from tunesmith.saved import ADDED, BARE, OPTIONS

Folder = Callable[[str], Path]


def _network(folder: Path) -> Network:
    return sequence_network(load_backbone(resolve(str(folder))), ("a", "b"), "single_label_classification", False, 3)


def test_a_bottleneck_is_the_base_and_then_what_houlsby_says() -> None:
    base = torch.nn.Linear(6, 4)
    layer, given = BottleneckLinear(base, 3), torch.randn(5, 6)
    assert torch.equal(layer(given), base(given))
    torch.nn.init.normal_(layer.up.weight)
    narrow = torch.nn.functional.gelu(base(given) @ layer.down.weight.T + layer.down.bias)
    assert torch.allclose(layer(given), base(given) + narrow @ layer.up.weight.T, atol=1e-6)
    with pytest.raises(TypeError):
        BottleneckLinear(torch.nn.LayerNorm(4), 2)


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("bert", ["attention.output.dense", "output.dense"]),
        ("distilbert", ["attention.out_lin", "ffn.lin2"]),
        ("gpt2", ["attn.c_proj", "mlp.c_proj"]),
        ("llama", ["self_attn.o_proj", "mlp.down_proj"]),
        ("t5", ["layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"]),
        ("bart", ["self_attn.out_proj", "fc2"]),
    ],
)
def test_adapters_stand_behind_both_sublayers_or_the_last(family: str, ends: list[str], model_folder: Folder) -> None:
    network = _network(model_folder(family))
    blocks = network.layout.blocks
    both = Bottleneck().chosen(network)
    assert sorted(both) == sorted(f"{block}.{end}" for block in blocks for end in ends)
    assert Bottleneck(kind="pfeiffer").chosen(network) == tuple(f"{block}.{ends[1]}" for block in blocks)


def test_an_attention_with_more_numbers_than_its_block_has_an_end_too(model_folder: Folder) -> None:
    """As of Qwen3, whose heads together are wider than the block."""
    network = _network(model_folder("llama"))
    name = f"{network.layout.blocks[0]}.self_attn"
    attention = network.get_submodule(name)
    attention.o_proj = torch.nn.Linear(40, attention.o_proj.out_features, bias=False)
    assert f"{name}.o_proj" in Bottleneck().chosen(network)


def test_adapters_of_another_base_are_refused(model_folder: Folder, tmp_path: Path) -> None:
    method = build("methods", {"name": "bottleneck", "size": 4})
    assert isinstance(method, Method)
    network = _network(model_folder("bert"))
    plan = method.attach(network, Rates(1e-3, 1e-2, ""), 0)
    assert method.save(network, plan, tmp_path)
    again = _network(model_folder("bert"))
    method.load(again, tmp_path)
    assert all(torch.equal(again.get_parameter(name), network.get_parameter(name)) for name in plan.trainable)
    with pytest.raises(ModelError, match="these adapters belong to another base or head"):
        method.load(_network(model_folder("gpt2")), tmp_path)
    with pytest.raises(ModelError, match="these adapters belong to another base or head"):
        Bottleneck(size=5).load(_network(model_folder("bert")), tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_folder: Folder, table_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("bottleneck") / "run"
    settings = {"training.rate": 1e-2, "retention.keep": 0.2, "data.validation": 0.0}
    list(start(recipe_for(model_folder("bert"), table_file, METHODS["bottleneck"], settings), folder).events())
    return folder


def test_other_libraries_refuse_the_folder_and_open_its_base(run: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with pytest.raises((OSError, ValueError)):
        AutoModelForSequenceClassification.from_pretrained(run / "model")
    bare = AutoModelForSequenceClassification.from_pretrained(run / "model" / BARE)
    text = [text for text, _ in rows(8, seed=5)]
    tokens = AutoTokenizer.from_pretrained(run / "model" / BARE)(text, padding=True, return_tensors="pt")
    without = bare(**tokens).logits.softmax(-1)
    found = torch.tensor(tunesmith.load(run).predict_proba(text))
    assert (without - found).abs().max() > 1e-3, "the base alone says something else"
    said = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert f'tunesmith.load("{run / "model"}") alone' in said


def test_no_run_begins_with_it(run: Path, table_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        list(start(recipe_for(run / "model", table_file), tmp_path / "next").events())
    (problem,) = caught.value.problems
    assert problem.endswith(f"give {run / 'model' / 'base'} for the base and its head alone")


def test_a_model_whose_adapter_is_not_whole_is_refused(run: Path, tmp_path: Path) -> None:
    import shutil

    for name in (OPTIONS, "adapter.safetensors"):
        copy = tmp_path / name / "model"
        shutil.copytree(run / "model", copy)
        (copy / ADDED / name).unlink()
        with pytest.raises(ArtifactError, match="is missing"):
            tunesmith.load(copy)
    (copy / ADDED / OPTIONS).write_text("{", encoding="utf-8")
    seal(copy)
    with pytest.raises(ArtifactError, match=r"adapter\.json: cannot be read"):
        tunesmith.load(copy)


def test_a_pickled_estimator_has_its_adapters(model_folder: Folder) -> None:
    made = rows(60)
    texts, labels = [text for text, _ in made], [label for _, label in made]
    method = {"name": "bottleneck", "size": 4}
    estimator = TextClassifier(model=str(model_folder("bert")), method=method, epochs=1)
    fitted = estimator.fit(texts, labels)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(texts[:5]) == fitted.predict_proba(texts[:5])).all()
