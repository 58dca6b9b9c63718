"""A loss over a few places at a time: the same loss and gradients, and never the outputs of all places in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from families import FAMILIES
from shortruns import bench, differences, recipe_for, rows, stopped_and_taken_up
from tunesmith.data.encode import Batch, collate
from tunesmith.errors import ModelError, RecipeError
from tunesmith.models import lazy_logits
from tunesmith.models.backbone import Backbone, load_backbone
from tunesmith.models.language import causal_network, masked_network
from tunesmith.models.lazy_logits import VocabularyNetwork, lazy_fits
from tunesmith.models.resolve import resolve
from tunesmith.models.sequence import sequence_network
from tunesmith.tasks.base import Labels
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.masked_lm import MaskedLm
from tunesmith.tasks.seq2seq import Seq2Seq
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
PLACES = 40  # outputs of so many places at once
FAST = {"training.epochs": 1, "training.batch_size": 8, "training.micro_batch": 4}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little at once that every loss is taken in several parts."""
    monkeypatch.setattr(lazy_logits, "AT_ONCE", 220 * PLACES)


def _network(folder: Path) -> tuple[VocabularyNetwork, Any, Batch]:
    backbone = load_backbone(resolve(str(folder)))
    config = backbone.module.config
    if config.model_type in ("t5", "bart"):
        return _sequence(backbone)
    causal = config.model_type in ("llama", "qwen3", "gpt2")
    network = (causal_network if causal else masked_network)(backbone, 0)
    task: Any = CausalLm() if causal else MaskedLm()
    examples = task.encode([text for text, _ in rows(12)], ["x"] * 12, Labels((), ()), network.processor, 40)
    batch = collate(list(examples), network.processor.pad, "cpu")
    if not causal:
        batch = task.varied(batch, 0, 0, network.processor)
    return network, task, batch


def _sequence(backbone: Backbone) -> tuple[VocabularyNetwork, Any, Batch]:
    task = Seq2Seq(label_smoothing=0.1)
    texts = [text for text, _ in rows(12)]
    wanted = [" ".join(reversed(text.split()[: 2 + place])) for place, text in enumerate(texts)]
    network = sequence_network(backbone, 12, 1, 0)
    if backbone.module.config.model_type == "bart":
        network.model.final_logits_bias.normal_()  # type: ignore[operator]
    examples = task.encode(texts, wanted, Labels((), (), longest=12), network.processor, 40)
    return network, task, collate(list(examples), network.processor.pad, "cpu")


def _learned(network: VocabularyNetwork, task: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    network.train()
    torch.manual_seed(0)
    loss = task.loss(network(batch.inputs), batch)
    (loss.total / loss.weight).backward()
    found = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return loss.total.detach(), found


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.usefixtures("few")
def test_loss_and_gradients_are_those_of_whole_outputs(family: str, tied: bool, model_folder: Folder) -> None:
    try:
        network, task, batch = _network(model_folder(family))
    except ModelError:
        pytest.skip("transformers has no language model of this family")
    if tied:
        head, table = network.model.get_output_embeddings(), network.model.get_input_embeddings()
        assert head is not None
        head.weight = table.weight  # type: ignore[assignment]
    other = copy.deepcopy(network)
    assert lazy_fits(network) == ""
    network.lazy = True
    assert isinstance(network.train()(batch.inputs), lazy_logits.LazyLogits)
    assert isinstance(network.eval()(batch.inputs), Tensor), "only training waits"
    loss, found = _learned(network, task, batch)
    expected_loss, expected = _learned(other, task, batch)
    assert torch.allclose(loss, expected_loss, rtol=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6 + 1e-5 * float(gradient.abs().max())), name
    assert max(float(value.abs().max()) for value in expected.values()) > 1e-3, "gradients that can tell"


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that an operation made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


@pytest.mark.parametrize("lazy", [True, pytest.param(False, id="control: whole outputs")])
@pytest.mark.usefixtures("few")
def test_outputs_of_all_places_are_never_there(lazy: bool, model_folder: Folder) -> None:
    network, task, batch = _network(model_folder("llama"))
    network.lazy = lazy
    assert batch.target is not None
    whole = int((batch.target != -100).sum()) * 220
    with Largest() as seen:
        _learned(network, task, batch)
    assert (seen.numbers < whole / 2) is lazy


def test_a_family_whose_outputs_are_made_otherwise_is_refused(model_folder: Folder) -> None:
    network, _, _ = _network(model_folder("llama"))
    forward = network.model.forward

    def capped(**given: Any) -> Any:
        """As a family that reads its own tokens once more behind the body."""
        out = forward(**given)
        out.logits = out.logits + given["input_ids"][..., None]
        return out

    network.model.forward = capped  # type: ignore[method-assign]
    assert "not made from its body's alone" in lazy_fits(network)


@pytest.mark.parametrize(
    "method", ["full", "lora", {"name": "layers", "layers": 1}, "bitfit", {"name": "prompt", "length": 3}]
)
@pytest.mark.usefixtures("few")
def test_a_run_learns_the_same(method: Any, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    folder = model_folder("gpt2")
    states = []
    for lazy in (True, False):
        settings = {**FAST, "task": {"name": "causal_lm"}, "training.chunked_loss": lazy, "training.dropout": 0.0}
        made = bench(recipe_for(folder, table_file, method, settings), tmp_path / str(lazy))
        assert made.run.network.lazy is lazy
        for _ in train(made.run):
            pass
        states.append({key: value for key, value in made.tensors().items() if key.startswith("parameter/")})
    one, other = states
    for name, value in other.items():
        assert torch.allclose(one[name], value, atol=2e-5), name


@pytest.mark.usefixtures("few")
def test_a_resumed_run_goes_on_as_it_was(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {**FAST, "task": {"name": "causal_lm"}, "training.chunked_loss": True}
    recipe = recipe_for(model_folder("llama"), table_file, "full", settings)
    whole = bench(recipe, tmp_path / "whole")
    again = stopped_and_taken_up(recipe, tmp_path / "half", 2)
    for made in (whole, again):
        for _ in train(made.run):
            pass
    assert differences(whole.tensors(), again.tensors()) == []


def test_it_is_derived_from_the_vocabulary(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = model_folder("gpt2"), {"task": {"name": "causal_lm"}}
    small = bench(recipe_for(folder, table_file, "full", {**FAST, **task}), tmp_path / "small")
    assert not small.run.network.lazy
    monkeypatch.setattr("tunesmith.suiting.LARGE_VOCABULARY", 100)
    large = bench(recipe_for(folder, table_file, "full", {**FAST, **task}), tmp_path / "large")
    assert large.run.network.lazy
    said = {item.key: item for item in large.built.derived}["training.chunked_loss"]
    assert said.value is True and "outputs for each token" in said.why
    with pytest.raises(RecipeError, match="chunked_loss: only what language models give"):
        bench(recipe_for(folder, table_file, "full", {**FAST, "training.chunked_loss": True}), tmp_path / "no")


def test_a_gpu_takes_more_at_once() -> None:
    """Only where the loss is taken decides: a part on a CPU stays what its caches hold."""
    assert lazy_logits.at_once(torch.device("cpu")) == lazy_logits.AT_ONCE
    assert lazy_logits.at_once(torch.device("cuda", 0)) == lazy_logits.AT_ONCE_GPU > lazy_logits.AT_ONCE
