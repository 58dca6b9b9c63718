"""LoRA adapters: what we write PEFT opens, what PEFT writes we go on from; the same logits both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tunesmith.errors import ModelError
from tunesmith.methods._peft_format import wrapped
from tunesmith.methods.base import Rates
from tunesmith.methods.lora import Lora

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

FAMILIES = ("bert", "sentence", "gpt2", "llama", "distilbert")
LABELS = ("bad", "fine", "good")
TEXTS = ["the card was lost", "a great film", "no money in the bank account at all", "good"]
SMALL: dict[str, Any] = {"rank": 4, "alpha": 12.0}


def _network(folder: Path) -> Network:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.network import sequence_network
    from tunesmith.models.resolve import resolve

    return sequence_network(load_backbone(resolve(str(folder))), LABELS, "single_label_classification", 3)


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


def _trained(folder: Path, method: Lora) -> tuple[Network, Any]:
    network = _network(folder)
    plan = method.attach(network, Rates(1e-3, 1e-3, ""), 1)
    parameters = dict(network.named_parameters())
    _draw([parameters[name].data for name in plan.trainable])
    return network, plan


def _logits(network: Network) -> Tensor:
    import torch

    with torch.no_grad():
        return network.eval()(_batch(network))


@pytest.mark.parametrize("targets", ["all", "first"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_opens_in_peft(family: str, targets: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    plain = _network(model_folder(family))
    only = () if targets == "all" else (plain.layout.linears[0].rpartition(".")[2],)
    method = Lora(**SMALL, targets=only)
    network, plan = _trained(model_folder(family), method)
    assert method.save(network, plan, tmp_path)
    expected = _logits(network)
    assert (expected - _logits(plain)).abs().max() > 1e-2
    opened = PeftModel.from_pretrained(_body(plain), str(tmp_path)).eval()
    if family == "sentence":  # the head lies beside: PEFT wraps the encoder alone
        head = load_file(tmp_path / "head.safetensors")
        plain.output.load_state_dict(head)
        found = _logits(plain)  # PEFT changed the encoder in place
    else:
        with torch.no_grad():
            found = opened(**_batch(plain)).logits
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
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
    assert torch.allclose(found, _logits(network), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_adapters_are_gone_on_from(family: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """The low-rank maps are taken over; the head is the run's own, so both sides get the same one here."""
    import torch
    from peft import LoraConfig, get_peft_model

    theirs, ours = _network(model_folder(family)), _network(model_folder(family))
    short = [name.removeprefix(wrapped(theirs)) for name in theirs.layout.linears]
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=short, fan_in_fan_out=family == "gpt2", task_type="FEATURE_EXTRACTION"
    )
    model = get_peft_model(_body(theirs), config)
    _draw([value.data for name, value in model.named_parameters() if "lora_" in name])
    model.save_pretrained(tmp_path)
    expected = _logits(theirs)
    assert (expected - _logits(ours)).abs().max() > 1e-2
    Lora(**SMALL, start=str(tmp_path)).attach(ours, Rates(1e-3, 1e-3, ""), 1)
    assert torch.allclose(_logits(ours), expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_read_again_and_folded(family: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import torch

    method = Lora(**SMALL)
    network, plan = _trained(model_folder(family), method)
    method.save(network, plan, tmp_path)
    again = _network(model_folder(family))
    Lora(**SMALL, start=str(tmp_path)).attach(again, Rates(1e-3, 1e-3, ""), 2)
    parameters = dict(network.named_parameters())
    changed = [name for name in plan.trainable if name not in network.fresh]
    assert all(torch.equal(again.get_parameter(name), parameters[name]) for name in changed)
    expected = _logits(network)
    method.fold(network)
    assert not [name for name, _ in network.named_parameters() if name.endswith((".up", ".down"))]
    assert torch.allclose(_logits(network), expected, atol=1e-5)


def test_control_a_wrong_scale_is_noticed(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import json

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

    said = refused(rank=8, alpha=16.0, targets=("query",))
    assert "r = 4" in said and "lora_alpha = 12.0" in said and "set method.targets" in said
    assert "is not a PEFT adapter" in refused(start=str(tmp_path))
    weights = tmp_path / "bert" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    assert "is not a PEFT adapter" in refused()


def test_an_adapter_of_another_width_or_kind_is_refused(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    method = Lora(**SMALL)
    network, plan = _trained(model_folder("bert"), method)
    method.save(network, plan, tmp_path)
    rates = Rates(1e-3, 1e-3, "")
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    for key, value in (("use_dora", True), ("use_rslora", True), ("rank_pattern", {"query": 2}), ("bias", "all")):
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
