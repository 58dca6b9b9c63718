"""Weight decay: on weight matrices only, and on no embedding, however a base is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from families import _wordpiece, _write
from tunesmith.data.encode import Example, collate
from tunesmith.data.stored import tokens_in
from tunesmith.methods.base import Plan, Rates
from tunesmith.methods.full import Full
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.recipe import TrainingSpec
from tunesmith.training.optim import Masters
from tunesmith.training.vocabulary import compact_embeddings

TEXTS = ["the good bank lost my card", "a great film", "no"]


@pytest.fixture
def albert(tmp_path: Path) -> tuple[Network, Plan]:
    """One block that runs many times: there is no list of blocks, and so no layout around them."""
    from transformers import AlbertConfig

    config = AlbertConfig(
        vocab_size=220, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=80,
    )  # fmt: skip
    backbone = load_backbone(resolve(str(_write(tmp_path, config, _wordpiece()))))
    network = sequence_network(backbone, ("a", "b", "c"), "single_label_classification", False, 0)
    return network, Full().attach(network, Rates(1e-2, 1e-2, ""), 0)


def _examples(network: Network) -> list[Example]:
    return [Example(row, given, 0) for row, (given, _) in enumerate(network.processor.encode_all(TEXTS, 40))]


def test_embeddings_of_a_base_without_blocks_have_no_weight_decay(albert: tuple[Network, Plan]) -> None:
    network, plan = albert
    assert network.layout.embeddings == ()
    decayed = {name for group in plan.groups if group.decay for name in group.parameters}
    tables = {f"model.albert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
    matrices = {name for name, value in network.named_parameters() if value.ndim >= 2}
    assert tables < matrices
    assert decayed == matrices - tables


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rows_that_no_text_uses_rest_so_leaving_them_out_changes_nothing(
    optimizer: str, albert: tuple[Network, Plan]
) -> None:
    import torch

    network, plan = albert
    name = "model.albert.embeddings.word_embeddings.weight"
    before = network.get_parameter(name).detach().clone()
    masters = Masters(network, plan, TrainingSpec(optimizer=optimizer, weight_decay=0.5), torch.float32)
    batch = collate(_examples(network), network.processor.pad)
    for _ in range(3):
        network(batch.inputs).square().sum().backward()
        masters.collect()
        masters.move(1.0)
    moved = (network.get_parameter(name) != before).any(dim=1)
    assert set(moved.nonzero().flatten().tolist()) == set(batch.inputs["input_ids"].flatten().tolist()) - {0}


def test_a_plan_that_decays_embeddings_keeps_every_row(albert: tuple[Network, Plan]) -> None:
    network, plan = albert
    pad = network.processor.pad
    decaying = replace(plan, groups=tuple(replace(group, decay=True) for group in plan.groups))
    assert compact_embeddings(network, decaying, tokens_in(_examples(network)), pad) == {}
    kept = compact_embeddings(network, plan, tokens_in(_examples(network)), pad)
    used = {token for example in _examples(network) for token in example.inputs["input_ids"]} | {pad["input_ids"]}
    (rows,) = kept.values()
    assert rows.tolist() == sorted(used)
