"""Tuners of PEFT's by name: PEFT opens what we write, kinds with shared matrices too are delivered, mistakes are named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shortruns import recipe_for
from tunesmith.catalog import build
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods.base import Rates
from tunesmith.methods.peft import OWN, UNFIT, Peft
from tunesmith.models.backbone import load_backbone
from tunesmith.models.embedding import embedding_network
from tunesmith.models.network import Network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start

Folder = Callable[[str], Path]
RATES = Rates(1e-2, 1e-2, "")
# Options by which a kind fits a base of width 32; kinds that are not here fit it as they are.
SMALL: dict[str, dict[str, Any]] = {
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 50},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "VBLORA": {"num_vectors": 8, "vector_length": 4, "r": 2},
    "WAVEFT": {"n_frequency": 50},
}
SHARED = ("FROD", "PVERA", "TINYLORA", "UNILORA", "VBLORA", "VERA")  # whose layers share what they train
REFUSED = ("LILY",)  # which PEFT cannot merge
KINDS = (
    "ADAMSS", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA", "HRA", "LN_TUNING", "LOHA",
    "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "WAVEFT", *SHARED,
)  # fmt: skip
VERA = {"peft": "VERA", "r": 4}
AWAY = ("C3A", "FOURIERFT", "UNILORA", "VBLORA")  # kinds that PEFT starts away from the base
GIVEN = {
    "input_ids": torch.tensor([[7, 12, 30, 41, 9], [5, 60, 8, 8, 3]]),
    "attention_mask": torch.ones(2, 5, dtype=torch.long),
}


def _method(kind: str, **options: Any) -> Peft:
    made = build("methods", {"peft": kind, **options})
    assert isinstance(made, Peft)
    return made


def _moved(folder: Path, method: Peft) -> tuple[Network, Any]:
    """A network with the tuner on it and every trained number away from where it starts, and the plan."""
    network = embedding_network(load_backbone(resolve(str(folder))))
    before = _hidden(network)
    plan = method.attach(network, RATES, 0)
    started = (_hidden(network) - before).abs().max()
    assert (started < 1e-5) == (method.kind not in AWAY), "the identity before the first step, up to rounding"
    assert bool(plan.warnings) == (method.kind in AWAY), "and where it is none, that is said"
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for name in plan.trainable:
            network.get_parameter(name).add_(0.1 * torch.randn_like(network.get_parameter(name)))
    assert (_hidden(network) - before).abs().max() > 1e-3, "it changes what the base gives"
    return network, plan


def _hidden(network: Network) -> torch.Tensor:
    with torch.no_grad():
        return network.eval().get_submodule(network.layout.body)(**GIVEN).last_hidden_state


def test_every_kind_of_pefts_is_tried() -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    assert {kind.value for kind in PEFT_TYPE_TO_TUNER_MAPPING} - {*OWN, *UNFIT} == {*KINDS, *REFUSED}


@pytest.mark.parametrize("kind", KINDS)
def test_folded_it_does_the_same_and_peft_opens_it(kind: str, model_folder: Folder, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    method = _method(kind, **SMALL.get(kind, {}))
    network, plan = _moved(model_folder("bert"), method)
    wanted = _hidden(network)
    written = method.save(network, plan, tmp_path)
    assert written == (kind not in SHARED)
    folded = copy.deepcopy(network)
    method.fold(folded)
    assert torch.allclose(_hidden(folded), wanted, atol=1e-4)
    names = {
        name for name, _ in embedding_network(load_backbone(resolve(str(model_folder("bert"))))).named_parameters()
    }
    assert {name for name, _ in folded.named_parameters()} == names, "nothing of PEFT's is left"
    if not written:
        return
    base = AutoModel.from_pretrained(model_folder("bert"), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(**GIVEN).last_hidden_state, wanted, atol=1e-5)
    again = embedding_network(load_backbone(resolve(str(model_folder("bert")))))
    method.load(again, tmp_path)
    assert torch.allclose(_hidden(again), wanted, atol=1e-6)


def test_fixed_matrices_keep_a_run_in_float32(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    said = " ".join(
        str(event)
        for event in start(
            recipe_for(model_folder("bert"), table_file, VERA, {"training.precision": "auto"}),
            tmp_path / "run",
        ).events()
    )
    assert "training.precision = float32: PEFT keeps fixed matrices of VERA in float32" in said
    with pytest.raises(RecipeError, match="bfloat16 does not go here: PEFT keeps fixed matrices of VERA in float32"):
        settings = {"training.precision": "bfloat16"}
        list(start(recipe_for(model_folder("bert"), table_file, VERA, settings), tmp_path / "b").events())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "method.kind: is required"),
        ({"peft": "verra", "r": 8}, 'is no kind of PEFT\'s that goes beside layers; did you mean "VERA"'),
        ({"kind": "POLY"}, "is no kind of PEFT's that goes beside layers"),
        ({"kind": "LOHA", "rr": 2}, 'method.rr: LOHA has no such option in PEFT, .*did you mean "r"'),
        ({"kind": "LOHA", "task_type": "SEQ_CLS"}, "method.task_type: .* or Tunesmith says it itself"),
        ({"kind": "OFT", "r": 3, "oft_block_size": 4}, "PEFT refuses these options of OFT"),
        *(({"kind": kind}, f"use --method {name}$") for kind, name in OWN.items()),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], said: str, model_folder: Folder) -> None:
    network = embedding_network(load_backbone(resolve(str(model_folder("bert")))))
    with pytest.raises((RecipeError, ModelError), match=said):
        method = build("methods", {"name": "peft", **options})
        assert isinstance(method, Peft)
        method.attach(network, RATES, 0)


def test_what_peft_refuses_on_a_base_is_said(model_folder: Folder) -> None:
    with pytest.raises(
        ModelError, match=r"PEFT refuses LOHA with these options on this base \(.*Conv1D.*\); change its options"
    ):
        _method("LOHA").attach(embedding_network(load_backbone(resolve(str(model_folder("gpt2"))))), RATES, 0)
    with pytest.raises(ModelError, match="PEFT refuses LILY"):  # it cannot be merged
        _method("LILY").attach(embedding_network(load_backbone(resolve(str(model_folder("bert"))))), RATES, 0)
