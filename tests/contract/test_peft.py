"""LoRA adapters: what we write PEFT opens, what PEFT writes we go on from; the same logits both ways."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import FAMILIES
from tunesmith.errors import ModelError
from tunesmith.methods._peft_format import wrapped
from tunesmith.methods.base import Plan, Rates
from tunesmith.methods.ia3 import Ia3
from tunesmith.methods.lora import Lora

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

POOLERLESS = "bert without its pooler"  # as a masked language model stores it: the pooler is drawn anew
KINDS = (*FAMILIES, POOLERLESS)
APART = ("sentence", "t5", "bart")  # whose head on a text is ours: PEFT wraps the encoder alone
FEW = ("bert", "sentence", "gpt2", "llama", "distilbert", POOLERLESS)
RATES = Rates(1e-3, 1e-3, "")
Folder = Callable[[str], Path]
LABELS = ("bad", "fine", "good")
TEXTS = ["the card was lost", "a great film", "no money in the bank account at all", "good"]
SMALL: dict[str, Any] = {"rank": 4, "alpha": 12.0}
KINDS_OF_LORA: tuple[dict[str, Any], ...] = (
    {"rslora": True},
    {"dora": True},
    {"initial": "pissa"},
    {"initial": "olora", "rslora": True},
)


@pytest.fixture(scope="session")
def folder_of(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a model of one of KINDS."""
    from safetensors.torch import load_file, save_file

    poolerless = tmp_path_factory.mktemp("poolerless") / "model"

    def folder(kind: str) -> Path:
        if kind != POOLERLESS:
            return model_folder(kind)
        if not poolerless.exists():
            shutil.copytree(model_folder("bert"), poolerless)
            path = poolerless / "model.safetensors"
            kept = {name: value for name, value in load_file(path).items() if not name.startswith("pooler.")}
            save_file(kept, path, metadata={"format": "pt"})
        return poolerless

    return folder


def _network(folder: Path, labels: tuple[str, ...] = LABELS) -> Network:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.network import sequence_network
    from tunesmith.models.resolve import resolve

    return sequence_network(load_backbone(resolve(str(folder))), labels, "single_label_classification", False, 3)


def _batch(network: Network) -> dict[str, Tensor]:
    from tunesmith.data.encode import Example, collate

    encoded = network.processor.encode_all(TEXTS, 32)
    return collate(
        [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)], network.processor.pad
    ).inputs


def _body(network: Network) -> Any:
    """The transformers model that PEFT wraps: the family's classifier, or a sentence encoder's body."""
    return network.get_submodule(wrapped(network).rstrip("."))


def _draw(parameters: list[Tensor]) -> None:
    """Large enough values that a wrong scale, order or transposition would show."""
    import torch

    torch.manual_seed(4)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.2)


def _trained(folder: Path, method: Lora | Ia3) -> tuple[Network, Any]:
    network = _network(folder)
    plan = method.attach(network, Rates(1e-3, 1e-3, ""), 1)
    parameters = dict(network.named_parameters())
    _draw([parameters[name].data for name in plan.trainable])
    return network, plan


def _logits(network: Network) -> Tensor:
    import torch

    with torch.no_grad():
        return network.eval()(_batch(network))


@pytest.mark.parametrize(
    ("targets", "options"), [("all", {}), ("first", {}), *(("all", options) for options in KINDS_OF_LORA)], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
def test_ours_opens_in_peft(
    kind: str, targets: str, options: dict[str, Any], folder_of: Folder, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    plain = _network(folder_of(kind))
    only = () if targets == "all" else (plain.layout.linears[0].rpartition(".")[2],)
    method = Lora(**{**SMALL, **options}, targets=only)
    network, plan = _trained(folder_of(kind), method)
    assert method.save(network, plan, tmp_path)
    expected = _logits(network)
    assert (expected - _logits(plain)).abs().max() > 1e-2
    opened = PeftModel.from_pretrained(_body(plain), str(tmp_path)).eval()
    if kind in APART:  # the head lies beside: PEFT wraps the encoder alone
        head = load_file(tmp_path / "head.safetensors")
        plain.last.load_state_dict(head)
        found = _logits(plain)  # PEFT changed the encoder in place
    else:
        with torch.no_grad():
            found = opened(**_batch(plain)).logits
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert json.loads((tmp_path / "labels.json").read_text(encoding="utf-8")) == list(LABELS)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("t5", "bart")])
def test_adapters_of_token_classifiers_open_in_peft(
    family: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from peft import PeftConfig, PeftModel

    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.network import token_network
    from tunesmith.models.resolve import resolve

    backbone = load_backbone(resolve(str(model_folder(family))))
    plain, network = (token_network(backbone, LABELS, 3) for _ in range(2))
    method = Lora(**SMALL)
    plan = method.attach(network, Rates(1e-3, 1e-3, ""), 1)
    parameters = dict(network.named_parameters())
    _draw([parameters[name].data for name in plan.trainable])
    assert method.save(network, plan, tmp_path)
    assert PeftConfig.from_pretrained(str(tmp_path)).task_type == "TOKEN_CLS"
    opened = PeftModel.from_pretrained(_body(plain), str(tmp_path)).eval()
    with torch.no_grad():
        found = opened(**_batch(plain)).logits
    assert found.shape[1:] == (_batch(plain)["input_ids"].shape[1], len(LABELS))
    assert torch.allclose(found, _logits(network), atol=1e-5)


def test_what_is_stored_whole_is_the_head_and_never_the_base(folder_of: Folder, tmp_path: Path) -> None:
    expected = {"roberta": ["classifier"], "deberta-v2": ["classifier", "pooler"], "sentence": None}
    expected |= {"bert": ["classifier"], POOLERLESS: ["bert.pooler", "classifier"], "llama": ["score"]}
    for kind, modules in expected.items():
        network, plan = _trained(folder_of(kind), Lora(**SMALL))
        Lora(**SMALL).save(network, plan, tmp_path / kind)
        config = json.loads((tmp_path / kind / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["modules_to_save"] == modules, kind
        assert config["task_type"] == ("FEATURE_EXTRACTION" if kind == "sentence" else "SEQ_CLS")


def test_the_base_is_named_so_that_another_machine_understands(folder_of: Folder, tmp_path: Path) -> None:
    from tunesmith.models.resolve import Source

    folder = folder_of("bert")
    network, plan = _trained(folder, Lora(**SMALL))
    for source, name, revision in (
        (Source("org/encoder", folder, "hub", "0a1b2c"), "org/encoder", "0a1b2c"),
        (Source("an-encoder", folder, "package", "1.2"), "an-encoder==1.2", None),
        (network.source, f"./{folder.name}", None),
    ):
        network.source = source
        Lora(**SMALL).save(network, plan, tmp_path)
        config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
        assert (config["base_model_name_or_path"], config["revision"]) == (name, revision)


def _gone_on_from(theirs: Network, config: Any, method: Lora | Ia3, ours: Network, folder: Path) -> Plan:
    """An adapter of PEFT's on `theirs` is drawn and saved in `folder`, from where `method` gives `ours` the same logits."""
    import torch
    from peft import get_peft_model

    model = get_peft_model(_body(theirs), config)
    _draw([value.data for name, value in model.named_parameters() if method.mark in name])
    model.save_pretrained(str(folder))
    expected = _logits(theirs)
    assert (expected - _logits(ours)).abs().max() > 1e-3
    plan = method.attach(ours, RATES, 1)
    assert torch.allclose(_logits(ours), expected, atol=1e-5)
    return plan


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}], ids=str)
@pytest.mark.parametrize("kind", FEW)
def test_peft_adapters_are_gone_on_from(kind: str, options: dict[str, Any], folder_of: Folder, tmp_path: Path) -> None:
    """Without a head in it: the low-rank maps are taken over, the head is the run's own."""
    from peft import LoraConfig

    ours = _network(folder_of(kind))
    theirs = copy.deepcopy(ours)
    short = [name.removeprefix(wrapped(theirs)) for name in theirs.layout.linears]
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=short,
        fan_in_fan_out=kind == "gpt2",
        task_type="FEATURE_EXTRACTION",
        **{f"use_{name}": value for name, value in options.items()},
    )
    plan = _gone_on_from(theirs, config, Lora(**{**SMALL, **options}, start=str(tmp_path)), ours, tmp_path)
    assert (plan.started, plan.warnings) == (frozenset(), ())
    assert plan.notes == (f"method.start: {tmp_path} holds no head; a new one is trained",)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "gpt2", POOLERLESS])
def test_a_head_that_peft_trained_is_gone_on_from(kind: str, folder_of: Folder, tmp_path: Path) -> None:
    """PEFT adds the classifier itself; of what else starts untrained (a pooler), it keeps what it is told to."""
    import torch
    from peft import LoraConfig, get_peft_model

    ours, theirs = _network(folder_of(kind)), _network(folder_of(kind))
    short = [name.removeprefix(wrapped(theirs)) for name in theirs.layout.linears]
    further = {"modernbert": ["head"], POOLERLESS: ["bert.pooler"]}.get(kind)
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=short,
        fan_in_fan_out=kind == "gpt2",
        task_type="SEQ_CLS",
        modules_to_save=further,
    )
    model = get_peft_model(_body(theirs), config)
    _draw([value.data for value in model.parameters() if value.requires_grad])
    model.save_pretrained(str(tmp_path))
    with torch.no_grad():
        expected = model.eval()(**_batch(ours)).logits
    plan = Lora(**SMALL, start=str(tmp_path)).attach(ours, RATES, 1)
    assert torch.allclose(_logits(ours), expected, atol=1e-6)
    assert (plan.started, plan.warnings) == (ours.fresh, ())
    assert "goes on from the head" in plan.notes[0] and "by its shape, as one of bad, fine, good" in plan.notes[0]


@pytest.mark.parametrize("options", KINDS_OF_LORA, ids=str)
@pytest.mark.parametrize("kind", FEW)
def test_every_kind_read_again_and_folded(
    kind: str, options: dict[str, Any], folder_of: Folder, tmp_path: Path
) -> None:
    import torch

    method = Lora(**{**SMALL, **options})
    network, plan = _trained(folder_of(kind), method)
    method.save(network, plan, tmp_path)
    loaded, expected = _network(folder_of(kind)), _logits(network)
    method.load(loaded, tmp_path)
    assert torch.allclose(_logits(loaded), expected, atol=2e-6)
    method.fold(network)
    assert torch.allclose(_logits(network), expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_ours_read_again_and_folded(kind: str, folder_of: Folder, tmp_path: Path) -> None:
    import torch

    method = Lora(**SMALL)
    network, plan = _trained(folder_of(kind), method)
    method.save(network, plan, tmp_path)
    again, loaded = _network(folder_of(kind)), _network(folder_of(kind))
    gone_on = Lora(**SMALL, start=str(tmp_path)).attach(again, RATES, 2)
    assert (gone_on.started, gone_on.warnings) == (network.fresh, ())
    assert "its labels are those of the data" in gone_on.notes[0]
    method.load(loaded, tmp_path)
    expected = _logits(network)
    for other in (again, loaded):
        parameters = dict(network.named_parameters())
        assert all(torch.equal(other.get_parameter(name), parameters[name]) for name in plan.trainable)
        assert torch.equal(_logits(other), expected)
    method.fold(network)
    assert not [name for name, _ in network.named_parameters() if name.endswith((".up", ".down"))]
    assert torch.allclose(_logits(network), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "sentence"])
def test_a_head_of_other_labels_is_left_aside_and_said(kind: str, folder_of: Folder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    method = Lora(**SMALL)
    network, plan = _trained(folder_of(kind), method)
    method.save(network, plan, tmp_path)
    gone_on = Lora(**SMALL, start=str(tmp_path))

    def left(labels: tuple[str, ...], tensors: str = "2 tensors") -> str:
        fresh, other = _network(folder_of(kind), labels), _network(folder_of(kind), labels)
        found = gone_on.attach(other, RATES, 2)
        assert (found.started, found.notes) == (frozenset(), ())
        assert all(torch.equal(other.get_parameter(name), fresh.get_parameter(name)) for name in fresh.fresh)
        with pytest.raises(ModelError, match="it cannot be used without"):
            method.load(fresh, tmp_path)
        (said,) = found.warnings
        assert said.startswith(f"method.start: the head in {tmp_path} ({tensors}) is left aside: ")
        assert said.endswith("; a new one is trained")
        return said

    assert "its labels are bad, fine, good, and those of the data fine, good" in left(("fine", "good"))
    assert "its labels are bad, fine, good, and those of the data good, fine, bad" in left(LABELS[::-1])
    (tmp_path / "labels.json").unlink()  # as PEFT writes it: only the shape tells
    assert "bias is (3,) where the data needs (2,)" in left(("fine", "good"))
    path = tmp_path / ("head.safetensors" if kind == "sentence" else "adapter_model.safetensors")
    tensors = load_file(path)
    bias = "bias" if kind == "sentence" else "base_model.model.classifier.bias"
    save_file({name: value for name, value in tensors.items() if name != bias}, path)
    assert "it lacks" in left(LABELS, "1 tensor")
    save_file({**tensors, "base_model.model.lm_head.weight": tensors[bias].clone()}, path)
    (said,) = gone_on.attach(_network(folder_of(kind)), RATES, 2).warnings
    assert "goes on from the head" in said and "1 tensor of it without a use here: " in said


def test_an_adapter_with_weights_of_the_base_is_refused(folder_of: Folder, tmp_path: Path) -> None:
    """Of a base without a pooler it holds one; a base with a pooler of its own would be left with that."""
    network, plan = _trained(folder_of(POOLERLESS), Lora(**SMALL))
    Lora(**SMALL).save(network, plan, tmp_path)
    with pytest.raises(ModelError, match=r"2 trained weights of the base itself \(model\.bert\.pooler\.dense\.bias\)"):
        Lora(**SMALL, start=str(tmp_path)).attach(_network(folder_of("bert")), RATES, 1)


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_to_an_altered_base_is_refused(begun: Any, folder_of: Folder, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    theirs = _network(folder_of("bert"))
    name = theirs.layout.linears[0]
    before = theirs.get_submodule(name).get_parameter("weight").detach().clone()
    short = [name.removeprefix(wrapped(theirs)) for name in theirs.layout.linears]
    config = LoraConfig(r=4, lora_alpha=12, target_modules=short, task_type="SEQ_CLS", init_lora_weights=begun)
    model = get_peft_model(_body(theirs), config)
    assert not torch.allclose(theirs.get_submodule(name).get_parameter("base_layer.weight"), before, atol=1e-3)
    model.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=f"began with init_lora_weights = '{begun}'"):
        Lora(**SMALL, start=str(tmp_path)).attach(_network(folder_of("bert")), RATES, 1)


def test_control_a_wrong_scale_is_noticed(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    network, plan = _trained(model_folder("bert"), Lora(**SMALL))
    Lora(**SMALL).save(network, plan, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 4.0}), encoding="utf-8")
    plain = _network(model_folder("bert"))
    opened = PeftModel.from_pretrained(_body(plain), str(tmp_path)).eval()
    with torch.no_grad():
        assert not torch.allclose(opened(**_batch(plain)).logits, _logits(network), atol=1e-3)


def test_adapters_that_do_not_fit_are_refused_with_every_reason(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    method = Lora(**SMALL)
    network, plan = _trained(model_folder("bert"), method)
    method.save(network, plan, tmp_path / "bert")
    rates = Rates(1e-3, 1e-3, "")

    def refused(**options: Any) -> str:
        with pytest.raises(ModelError) as found:
            Lora(**{"start": str(tmp_path / "bert"), **SMALL, **options}).attach(
                _network(model_folder("bert")), rates, 1
            )
        return str(found.value)

    assert "use_dora = False, and the recipe dora = True; set method.dora" in refused(dora=True)
    assert "use_rslora = False, and the recipe rslora = True; set method.rslora" in refused(rslora=True)
    said = refused(rank=8, alpha=16.0, targets=("query",))
    assert "r = 4" in said and "lora_alpha = 12.0" in said and "set method.targets" in said
    assert "is not a PEFT adapter" in refused(start=str(tmp_path))
    (tmp_path / "run").mkdir()
    shutil.copytree(tmp_path / "bert", tmp_path / "run" / "adapter")
    assert refused(start=str(tmp_path / "run")).endswith(f"; give {tmp_path / 'run' / 'adapter'}")
    assert refused(start=str(tmp_path / "run" / "model")).endswith(f"; give {tmp_path / 'run' / 'adapter'}")
    weights = tmp_path / "bert" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    assert "is not a PEFT adapter" in refused()


def test_an_adapter_of_another_width_or_kind_is_refused(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    method = Lora(**SMALL)
    network, plan = _trained(model_folder("bert"), method)
    method.save(network, plan, tmp_path)
    rates = Rates(1e-3, 1e-3, "")
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    for key, value in (
        ("rank_pattern", {"query": 2}),
        ("bias", "all"),
        ("kasa_config", {"beta": 1}),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, key: value}), encoding="utf-8")
        with pytest.raises(ModelError, match="not a plain LoRA adapter"):
            Lora(**SMALL, start=str(tmp_path)).attach(_network(model_folder("bert")), rates, 1)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    wrong = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({**tensors, wrong: tensors[wrong][:, :-1].contiguous()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="expected"):
        Lora(**SMALL, start=str(tmp_path)).attach(_network(model_folder("bert")), rates, 1)
    save_file(
        {name: value for name, value in tensors.items() if name != wrong.replace("_A", "_B")},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(ModelError, match="lora_B"):
        Lora(**SMALL, start=str(tmp_path)).attach(_network(model_folder("bert")), rates, 1)


# How PEFT is told the same: names of keys and values, and of the maps behind the inner activations.
IA3_TARGETS = {
    "bert": (["key", "value"], ["layer.0.output.dense", "layer.1.output.dense", "layer.2.output.dense"]),
    "llama": (["k_proj", "v_proj"], ["down_proj"]),
    "gpt2": (["c_attn"], ["mlp.c_proj"]),
    "distilbert": (["k_lin", "v_lin"], ["lin2"]),
    "sentence": (["key", "value"], ["layer.0.output.dense", "layer.1.output.dense", "layer.2.output.dense"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_our_factors_open_in_peft(kind: str, folder_of: Folder, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    method, plain = Ia3(), _network(folder_of(kind))
    network, plan = _trained(folder_of(kind), method)
    assert method.save(network, plan, tmp_path)
    expected = _logits(network)
    assert (expected - _logits(plain)).abs().max() > 1e-3
    opened = PeftModel.from_pretrained(_body(plain), str(tmp_path)).eval()
    if kind in APART:
        plain.last.load_state_dict(load_file(tmp_path / "head.safetensors"))
        found = _logits(plain)
    else:
        with torch.no_grad():
            found = opened(**_batch(plain)).logits
    assert torch.allclose(found, expected, atol=1e-5)
    loaded = _network(folder_of(kind))
    method.load(loaded, tmp_path)
    assert torch.equal(_logits(loaded), expected)
    method.fold(network)
    assert torch.allclose(_logits(network), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [*IA3_TARGETS])
def test_factors_of_peft_are_gone_on_from(kind: str, folder_of: Folder, tmp_path: Path) -> None:
    from peft import IA3Config

    ours = _network(folder_of(kind))
    theirs = copy.deepcopy(ours)
    outer, inner = IA3_TARGETS[kind]
    config = IA3Config(
        target_modules=[*outer, *inner],
        feedforward_modules=inner,
        fan_in_fan_out=kind == "gpt2",
        task_type="FEATURE_EXTRACTION",
    )
    _gone_on_from(theirs, config, Ia3(start=str(tmp_path)), ours, tmp_path)


def test_an_adapter_of_another_kind_is_refused(folder_of: Folder, tmp_path: Path) -> None:
    network, plan = _trained(folder_of("bert"), Ia3())
    Ia3().save(network, plan, tmp_path)
    with pytest.raises(ModelError, match=r"is not a plain LORA adapter \(its peft_type is IA3\)"):
        Lora(**SMALL, start=str(tmp_path)).attach(_network(folder_of("bert")), RATES, 1)
