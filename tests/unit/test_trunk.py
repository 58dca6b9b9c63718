"""What is kept of the frozen part equals what the whole network gives, and is planned for the right cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from families import LAYERS, WIDTH
from shortruns import bench, facts, recipe_for, rows
from tunesmith.data.encode import Batch, Example, collate
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.methods.full import Full
from tunesmith.methods.head import Head
from tunesmith.methods.layers import Layers
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.training.loop import set_mode, train
from tunesmith.training.trunk import HiddenCache, Live, PooledCache, hidden_states, plan_trunk, pooled_features

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]
TOGETHER = 12  # rows: one forward fills the cache


def _attached(folder: Path, method: Method) -> tuple[Network, Plan]:
    network = sequence_network(
        load_backbone(resolve(str(folder))), ("a", "b", "c"), "single_label_classification", False, 0
    )
    return network, method.attach(network, Rates(1e-3, 1e-3, ""), 0)


def _examples(network: Network, count: int, seed: int) -> list[Example]:
    texts = [text for text, _ in rows(count, seed)]
    return [Example(row, given, 0) for row, (given, _) in enumerate(network.processor.encode_all(texts, 40))]


def _output(network: Network, forward: Callable[[], Tensor]) -> Tensor:
    import torch

    with torch.no_grad():
        network.eval()
        return forward()


def _close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> bool:
    return float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("family", "kind"), [("sentence", PooledCache), ("llama", PooledCache), ("roberta", HiddenCache)]
)
def test_head_only(family: str, kind: type, model_folder: Folder) -> None:
    """A classifier of two maps (roberta) is no single last map: the hidden states are kept instead."""
    network, plan = _attached(model_folder(family), Head())
    splits = {"train": _examples(network, TOGETHER, 1), "validation": _examples(network, 7, 2), "test": []}
    pad = network.processor.pad
    trunk = plan_trunk(network, plan, splits, "auto", pad)
    assert type(trunk) is kind
    for split, examples in splits.items():
        for chosen in (examples[:3], list(reversed(examples[2:]))) if examples else ():
            batch = collate(chosen, pad)
            live = _output(network, lambda batch=batch: network(batch.inputs))
            assert _close(_output(network, lambda batch=batch, split=split: trunk.forward(split, batch)), live)
        if examples:
            live = pooled_features(network, examples, pad)
            assert live.shape == (len(examples), network.output.in_features)
            assert _close(trunk.features(split, examples, pad), live)


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
@pytest.mark.parametrize("layers", [1, 2])
def test_chosen_layers(family: str, layers: int, model_folder: Folder) -> None:
    network, plan = _attached(model_folder(family), Layers(layers=layers))
    splits = {"train": _examples(network, TOGETHER, 1)}
    pad = network.processor.pad
    trunk = plan_trunk(network, plan, splits, "auto", pad)
    assert isinstance(trunk, HiddenCache) and trunk.replay.cut == LAYERS - layers
    assert [tuple(kept.shape) for kept in trunk.hidden["train"]] == [(row.length, WIDTH) for row in splits["train"]]
    batch = collate(splits["train"][3:8], pad)
    live = _output(network, lambda: network(batch.inputs))
    assert _close(_output(network, lambda: trunk.forward("train", batch)), live)
    assert _close(trunk.features("train", splits["train"], pad), pooled_features(network, splits["train"], pad))
    unseen = _examples(network, 5, 9)
    assert _close(trunk.features("test", unseen, pad), pooled_features(network, unseen, pad))


def test_features_are_what_the_last_map_reads(model_folder: Folder) -> None:
    network, _ = _attached(model_folder("bert"), Head())
    examples = _examples(network, 6, 3)
    shuffled: Sequence[Example] = [examples[row] for row in (4, 2, 0, 5, 1, 3)]
    features = pooled_features(network, shuffled, network.processor.pad)
    for example in examples:
        batch = collate([example], network.processor.pad)
        live = _output(network, lambda batch=batch: network(batch.inputs))
        assert _close(_output(network, lambda row=example.row: network.output(features[row : row + 1])), live)


def test_nothing_is_kept_where_it_cannot_be_or_must_not(model_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    network, plan = _attached(model_folder("bert"), Full())
    examples = {"train": _examples(network, 4, 1)}
    pad = network.processor.pad
    assert "train from the first one" in plan_trunk(network, plan, examples, "auto", pad).why
    network, plan = _attached(model_folder("bert"), Layers(layers=1))
    assert plan_trunk(network, plan, examples, "off", pad).why == "off, as asked"
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    tight = plan_trunk(network, plan, examples, "auto", pad)
    assert isinstance(tight, Live) and "do not fit" in tight.why
    assert isinstance(plan_trunk(network, plan, examples, "memory", pad), HiddenCache), "asked for in so many words"


def test_a_few_long_rows_do_not_make_a_wide_batch(model_folder: Folder) -> None:
    """By their mean length, these rows would go 36 at a time: 25,200 tokens in the first batch."""
    network, _ = _attached(model_folder("bert"), Head())
    lengths = [700, 8, 350, *[8] * 149, 350, 700]
    examples = [Example(row, {"input_ids": [1] * length}, 0) for row, length in enumerate(lengths)]
    shapes = []

    def forward(batch: Batch) -> Tensor:
        shapes.append(tuple(batch.inputs["input_ids"].shape))
        return batch.inputs["input_ids"].sum(dim=1, keepdim=True)

    assert pooled_features(network, examples, {"input_ids": 0}, forward)[:, 0].tolist() == lengths
    assert shapes == [(1, 700), (1, 700), (2, 350), (96, 8), (54, 8)]


def test_hidden_states_are_kept_in_the_memory_that_was_reckoned_with(model_folder: Folder) -> None:
    """What a capture gives is taken to the CPU before anything else: a GPU's tensors are only a stand-in's here."""
    import torch

    network, _ = _attached(model_folder("bert"), Layers(layers=1))
    examples = _examples(network, 5, 1)
    states = torch.randn(5, max(row.length for row in examples), WIDTH)
    replay: Any = SimpleNamespace(capture=lambda inputs: SimpleNamespace(cpu=lambda: states))
    kept = hidden_states(replay, network, examples, network.processor.pad)
    ranked = sorted(examples, key=lambda row: (-row.length, row.row))
    for place, example in enumerate(ranked):
        assert torch.equal(kept[example.row], states[place, : example.length])
        assert kept[example.row].untyped_storage().nbytes() == 4 * WIDTH * example.length, "not a view of the batch"


def test_bfloat16_is_kept_as_it_was_computed(model_folder: Folder) -> None:
    import torch

    for method in (Head(), Layers(layers=1)):
        network, plan = _attached(model_folder("sentence"), method)
        network.to(torch.bfloat16)
        examples = _examples(network, TOGETHER, 1)
        trunk = plan_trunk(network, plan, {"train": examples}, "auto", network.processor.pad)
        ranked = sorted(examples, key=lambda row: (-row.length, row.row))
        batch = collate(ranked, network.processor.pad)
        live = _output(network, lambda batch=batch, network=network: network(batch.inputs))
        assert torch.equal(_output(network, lambda batch=batch, trunk=trunk: trunk.forward("train", batch)), live)


def test_a_base_without_blocks_of_its_own(tmp_path: Path) -> None:
    """ALBERT runs one block many times: nothing can be cut, and head only keeps vectors all the same.

    What is frozen is in evaluation mode, so that live and kept features are the same ones.
    """
    import torch
    from transformers import AlbertConfig

    from families import _wordpiece, _write

    config = AlbertConfig(
        vocab_size=220, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=80, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5,
    )  # fmt: skip
    network, plan = _attached(_write(tmp_path, config, _wordpiece()), Head())
    assert plan.cut == len(network.layout.blocks)
    examples = _examples(network, TOGETHER, 1)
    pad = network.processor.pad
    kept = plan_trunk(network, plan, {"train": examples}, "auto", pad)
    live = plan_trunk(network, plan, {"train": examples}, "off", pad)
    assert isinstance(kept, PooledCache)
    network.get_submodule("model.dropout").p = 0.0  # type: ignore[assignment]
    set_mode(network, plan)
    batch = collate(examples[:5], pad)
    with torch.no_grad():
        assert _close(kept.forward("train", batch), live.forward("train", batch))


def test_vectors_that_do_not_fit_are_not_kept(
    model_folder: Callable[[str], Path], table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.training import trunk

    kept = bench(recipe_for(model_folder("bert"), table_file, "head"), tmp_path / "kept")
    assert isinstance(kept.run.trunk, PooledCache), "the control: there is room"
    monkeypatch.setattr(trunk, "free_memory", lambda: 10_000.0)
    monkeypatch.setattr("tunesmith.training.shelf.disk_free", lambda folder: 10_000)
    live = bench(recipe_for(model_folder("bert"), table_file, "head"), tmp_path / "live")
    assert isinstance(live.run.trunk, Live) and "vectors do not fit" in live.run.trunk.why
    one, two = ([fact["loss"] for fact in facts(train(made.run)) if "loss" in fact] for made in (live, kept))
    assert one == pytest.approx(two, rel=1e-5)
