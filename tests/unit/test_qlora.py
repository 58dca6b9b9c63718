"""QLoRA: the base in 4 bits, its products and gradients, and that what is delivered is what was trained and measured."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from fourbits import given_back, in_four_bits
from shortruns import METHODS, attached, bench, differences, recipe_for, rows, stopped_and_taken_up
from tunesmith.assembly import as_pretrained
from tunesmith.catalog import build
from tunesmith.errors import RecipeError
from tunesmith.methods._nf4_layer import Nf4Linear
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import Session, start
from tunesmith.predictor import load
from tunesmith.training.events import Note
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
QLORA: dict[str, Any] = {"name": "lora", "rank": 4, "quantised": "nf4"}
DOUBLE = pytest.mark.parametrize("double", [False, True], ids=["plain scales", "scales in 8 bits"])
GIVEN = {
    "input_ids": torch.tensor([[7, 12, 30, 41, 9], [5, 60, 8, 8, 3]]),
    "attention_mask": torch.ones(2, 5, dtype=torch.long),
}


def nearest(weight: Tensor) -> Tensor:
    """Of each number the nearest of NF4's 16 values, by the definition: the oracle for what bitsandbytes gives back."""
    from bitsandbytes.functional import get_4bit_type

    blocks, values = (
        nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64),
        get_4bit_type("nf4", "cpu"),
    )
    scales = blocks.abs().amax(1, keepdim=True)
    codes = ((blocks / scales)[..., None] - values).abs().argmin(-1)
    return (values[codes] * scales).flatten()[: weight.numel()].view(weight.shape)


def test_whole_rows_are_what_bitsandbytes_itself_gives_back() -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    base = _linear(96, 128)
    for double in (False, True):
        expected = dequantize_4bit(*quantize_4bit(base.weight.data, compress_statistics=double, quant_type="nf4"))
        assert torch.equal(Nf4Linear(base, double).whole(torch.float32), expected)


def _linear(outputs: int, inputs: int) -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(inputs, outputs)


def _logits(network: Network) -> Tensor:
    with torch.no_grad():
        return network.eval()(GIVEN)


def _network(folder: Path) -> Network:
    return sequence_network(load_backbone(resolve(str(folder))), ("a", "b"), "single_label_classification", False, 3)


def _codes(network: Network) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in network.named_modules()
        if isinstance(module, Nf4Linear)
        for key, value in module.named_buffers()
    }


def _moved(folder: Path, asked: Any) -> tuple[Network, Plan, Method]:
    """A network with the method on it, and what trains away from where it starts."""
    network, plan = attached(folder, asked)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for name in plan.trainable:
            network.get_parameter(name).add_(0.2 * torch.randn_like(network.get_parameter(name)))
    method = build("methods", asked)
    assert isinstance(method, Method)
    return network, plan, method


@DOUBLE
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (33, 35), (130, 96), (32, 32), (48, 200)])
def test_the_codes_give_back_the_nearest_values(outputs: int, inputs: int, double: bool) -> None:
    base = _linear(outputs, inputs)
    expected = given_back(base.weight.data, double)
    oracle = nearest(base.weight.data)
    assert torch.equal(expected, oracle) or (double and (expected - oracle).abs().max() < 0.02 * oracle.abs().max())
    layer = Nf4Linear(base, double)
    assert torch.equal(layer.whole(torch.float32), expected)
    made = layer.plain()
    assert isinstance(made, nn.Linear) and torch.equal(made.weight, expected) and made.bias is base.bias
    assert not torch.equal(expected, base.weight), "control: 4 bits lose something"


@DOUBLE
def test_products_and_gradients_are_those_of_the_weight_that_is_given_back(double: bool) -> None:
    base = _linear(48, 80)
    layer, weight = Nf4Linear(base, double), given_back(base.weight.data, double)
    torch.manual_seed(1)
    ours = torch.randn(3, 7, 80, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    found, expected = layer(ours), linear(theirs, weight, base.bias)
    assert torch.equal(found, expected)
    pull = torch.randn_like(found)
    (bias,) = torch.autograd.grad(expected, [base.bias], pull, retain_graph=True)
    found.backward(pull)
    expected.backward(pull)
    assert torch.equal(ours.grad, theirs.grad)
    assert torch.allclose(base.bias.grad / 2, bias, atol=1e-5), "once by each of the two"
    plain = linear(theirs.detach(), base.weight, base.bias)
    assert (plain - found).abs().max() > 1e-2, "control: the weight itself gives another product"


def test_transposed_maps_are_packed_as_they_are_used() -> None:
    torch.manual_seed(2)
    base = Conv1D(24, 40)
    hidden = torch.randn(5, 40)
    layer = Nf4Linear(base, False)
    assert layer.transposed and (layer.outputs, layer.inputs) == (24, 40)
    assert torch.equal(layer.whole(torch.float32), given_back(base.weight.data.T))
    drawn = torch.random.get_rng_state()
    made = layer.plain()
    assert torch.equal(torch.random.get_rng_state(), drawn), "no random number is drawn"
    assert isinstance(made, Conv1D) and made.weight.shape == (40, 24)
    assert torch.allclose(made(hidden), layer(hidden), atol=1e-6)


def test_no_whole_weight_is_kept_for_the_backward_pass() -> None:
    layer, kept = Nf4Linear(_linear(64, 64), False), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: kept.append(value.numel()) or value, lambda value: value
    ):
        hidden = torch.randn(2, 64, requires_grad=True)
        layer(hidden)
        assert kept == []
        linear(hidden, layer.plain().weight.requires_grad_())
    assert max(kept) == 64 * 64, "control: a product with a whole weight keeps it"


def test_a_cast_of_the_network_leaves_codes_and_scales_alone(model_folder: Folder) -> None:
    network, _ = attached(model_folder("bert"), QLORA)
    before = _codes(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)  # as `Masters` does
    assert before and differences(before, _codes(network)) == []
    layer = next(module for module in network.modules() if isinstance(module, Nf4Linear))
    assert layer.weight.dtype == torch.bfloat16 and layer.weight.shape == (layer.outputs, layer.inputs)
    assert _logits(network).dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "sentence"])
@pytest.mark.parametrize("options", [{}, {"quantised": "nf4_double"}, {"dora": True}], ids=str)
def test_merged_is_unmerged_and_saved_is_loaded(
    options: dict[str, Any], family: str, model_folder: Folder, tmp_path: Path
) -> None:
    asked = {**QLORA, **options}
    network, plan, method = _moved(model_folder(family), asked)
    expected = _logits(network)
    method.save(network, plan, tmp_path)
    again = _network(model_folder(family))
    method.load(again, tmp_path)
    assert torch.equal(_logits(again), expected)
    bare = _network(model_folder(family))
    Lora(**{**options, "rank": 4, "quantised": "no"}).load(bare, tmp_path)
    assert (_logits(bare) - expected).abs().max() > 1e-4, "control: on the base as it is the adapter answers otherwise"
    method.fold(network)
    assert not [module for module in network.modules() if isinstance(module, Nf4Linear)]
    assert torch.allclose(_logits(network), expected, atol=2e-5)


def test_all_maps_of_the_blocks_are_packed_whatever_the_targets(model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), {**QLORA, "targets": ["query"]})
    packed = [name for name, module in network.named_modules() if isinstance(module, Nf4Linear)]
    assert len(packed) == len(network.layout.linears)
    assert len([name for name in plan.trainable if name.endswith(".up")]) == 3
    bytes_before = sum(
        4 * module.outputs * module.inputs for module in network.modules() if isinstance(module, Nf4Linear)
    )
    assert plan.notes[0].startswith(f"method.quantised: the weights of {len(packed)} linear maps of the base take ")
    assert f", and took {bytes_before / 1e6:.1f} MB in float32" in plan.notes[0]
    expected = _logits(network)
    Lora(rank=4, quantised="nf4", targets=("query",)).fold(network)
    assert torch.allclose(_logits(network), expected, atol=1e-6), "also those that nothing stands beside"


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "distilbert"])
def test_peft_opens_the_adapter_on_the_weights_that_are_given_back(
    family: str, model_folder: Folder, tmp_path: Path
) -> None:
    from peft import PeftModel

    network, plan, method = _moved(model_folder(family), QLORA)
    method.save(network, plan, tmp_path)
    expected = _logits(network)
    plain, packed = _network(model_folder(family)), _network(model_folder(family))
    in_four_bits(packed)
    moved = [name for name, value in packed.named_parameters() if not torch.equal(value, plain.get_parameter(name))]
    assert sorted(moved) == sorted(f"{name}.weight" for name in plain.layout.linears)

    def opened(base: Network) -> Tensor:
        model: Any = base.get_submodule(base.layout.body.partition(".")[0])
        with torch.no_grad():
            return PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path)).eval()(**GIVEN).logits

    assert torch.allclose(opened(packed), expected, atol=1e-5)
    assert (opened(plain) - expected).abs().max() > 1e-4, "control: the base as it is"
    assert "in 4 bits" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_codes_never_move_and_a_resumed_run_equals_a_whole_one(
    precision: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"training.precision": precision, "training.rate": 5e-3}
    recipe = recipe_for(model_folder("bert"), table_file, METHODS["qlora"], settings)
    whole = bench(recipe, tmp_path / "whole")
    before, begun = _codes(whole.run.network), whole.tensors()
    for _ in train(whole.run):
        pass
    assert before and differences(before, _codes(whole.run.network)) == []
    assert differences(begun, whole.tensors()), "control: something was trained"
    again = stopped_and_taken_up(recipe, tmp_path / "parts", 3)
    assert differences(before, _codes(again.run.network)) == []
    for _ in train(again.run):
        pass
    assert differences(whole.tensors(), again.tensors()) == []


def test_a_run_delivers_what_it_trained(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """Through the whole pipeline, which compares too; here with the network built anew from the adapter."""
    recipe = recipe_for(model_folder("bert"), table_file, {**QLORA, "dora": True}, {"training.rate": 5e-3})
    events = list(start(recipe, tmp_path / "run").events())
    (told,) = [note.lines for note in events if isinstance(note, Note) and note.topic == "method"]
    assert [line for line in told if line.startswith("method.quantised: the weights of ")]
    derived = [line for note in events if isinstance(note, Note) and note.topic == "derived" for line in note.lines]
    assert [line for line in derived if line.startswith("training.cache = Live: nothing to keep")]
    predictor = load(tmp_path / "run")
    texts = [text for text, _ in rows(8, 3)]
    found = predictor.predict_proba(texts)
    assert not [module for module in predictor.network.modules() if isinstance(module, Nf4Linear)]
    labels, network = predictor.labels, None

    def with_adapter(method: Lora) -> Any:
        nonlocal network
        backbone = load_backbone(resolve(str(model_folder("bert"))))
        network = sequence_network(backbone, labels, "single_label_classification", False, 3)
        method.load(network, tmp_path / "run" / "adapter")
        predictor.network = network.eval()
        return predictor.predict_proba(texts)

    packed = with_adapter(Lora(rank=4, dora=True, quantised="nf4"))
    assert abs(packed - found).max() < 1e-5
    assert abs(with_adapter(Lora(rank=4, dora=True)) - found).max() > 1e-5, "control: the base as it is"


@pytest.mark.parametrize(("quantised", "device"), [("nf4", "meta"), ("no", "cpu")])
def test_no_whole_base_stays_in_memory_beside_the_packed_one(
    quantised: str, device: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Session._load_base
    kept: list[Any] = []

    def watched(self: Session, revision: str | None) -> Any:
        found = read(self, revision)
        kept.append(found[1])
        return found

    monkeypatch.setattr(Session, "_load_base", watched)
    asked = {**QLORA, "quantised": quantised}
    settings = {"training.epochs": 1, "evaluation.baselines": True}
    list(start(recipe_for(model_folder("llama"), table_file, asked, settings), tmp_path / "run").events())
    (backbone,) = kept
    assert {value.device.type for value in backbone.module.parameters()} == {device}


def test_what_is_forgotten_is_told_against_the_base_as_it_was(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """What 4 bits cost counts as lost, so the figures of before are those of a run that keeps the base whole."""
    made = {
        name: bench(recipe_for(model_folder("sentence"), table_file, {**QLORA, "quantised": name}), tmp_path / name)
        for name in ("nf4", "no")
    }
    four, whole = (made[name].built.meters[0] for name in ("nf4", "no"))
    assert torch.equal(four.before, whole.before)
    network = made["nf4"].run.network
    assert four.read(network).lost >= 0.0 and not torch.equal(
        network.eval()(GIVEN), made["no"].run.network.eval()(GIVEN)
    )
    untouched = as_pretrained(made["nf4"].recipe, made["nf4"].prepared, network)
    assert untouched is not network
    kept = as_pretrained(made["no"].recipe, made["no"].prepared, made["no"].run.network)
    assert kept is made["no"].run.network, "nothing is read twice where the base stays as it is"


def test_the_rival_is_the_base_as_it_was(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """Features of the whole base with a new head: the same figures as in a run that does not pack it."""
    probes = {}
    for name in ("nf4", "no"):
        settings = {"evaluation.baselines": True, "training.epochs": 1}
        recipe = recipe_for(model_folder("sentence"), table_file, {**QLORA, "quantised": name}, settings)
        list(start(recipe, tmp_path / name).events())
        report = json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))
        (probes[name],) = [item["metrics"] for item in report["baselines"] if item["name"] == "probe"]
    assert probes["nf4"] == probes["no"]


def test_a_missing_library_is_named_before_anything_is_read(
    table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.methods._nf4_layer.find_spec", lambda name: None)
    recipe = recipe_for(tmp_path / "no such model", table_file, QLORA)
    with pytest.raises(RecipeError, match=r'bitsandbytes; install it: pip install "tunesmith\[bits\]"$'):
        list(start(recipe, tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("initial", ["pissa", "olora"])
def test_starts_that_take_weights_apart_are_refused(initial: str) -> None:
    with pytest.raises(RecipeError, match=f"initial: {initial} takes parts out of the weights, .*LoftQ"):
        build("methods", {**QLORA, "initial": initial})
    build("methods", {**QLORA, "initial": "orthogonal"})


def test_an_adapter_is_gone_on_from(model_folder: Folder, tmp_path: Path) -> None:
    network, plan, method = _moved(model_folder("bert"), QLORA)
    method.save(network, plan, tmp_path)
    again = _network(model_folder("bert"))
    found = Lora(rank=4, quantised="nf4", start=str(tmp_path)).attach(again, Rates(1e-3, 1e-2, ""), 5)
    assert torch.equal(_logits(again), _logits(network))
    assert [line.partition(":")[0] for line in found.notes] == ["method.start", "method.quantised"]
