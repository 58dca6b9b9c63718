"""Dropout by draws of its own: the rate, the scale, what is repeated, and that nothing else of a network changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.models.backbone import load_backbone
from tunesmith.models.dropout import Dropout, kept, suit_dropout, undropped
from tunesmith.models.network import sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.seeds import torch_seed

Folder = Callable[[str], Path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.93])
def test_the_share_that_is_kept_and_its_scale(rate: float, dtype: torch.dtype) -> None:
    with torch_seed(0, "dropout", str(rate)):
        noise = kept(torch.empty(1001, 997, dtype=dtype), rate)  # no multiple of 4 values
    assert noise.dtype == dtype and noise.shape == (1001, 997)
    there = noise != 0
    assert set(noise.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - rate), dtype=dtype))}
    count = noise.numel()
    # The rate is met to 1 / 131,072, which is below what so many draws show.
    assert chisquare([int(there.sum()), count - int(there.sum())], [count * (1 - rate), count * rate]).pvalue > 1e-4
    rows = there.double().mean(dim=1)
    assert abs(float(rows.var() / (rate * (1 - rate) / 997)) - 1) < 0.25, "rows vary as draws of each value alone would"
    pairs = (there[:, 1:] & there[:, :-1]).double().mean()
    assert abs(float(pairs) - (1 - rate) ** 2) < 5 * (0.25 / count) ** 0.5, "neighbours do not hang together"


def test_the_same_state_of_torch_s_generator_draws_the_same_and_another_another() -> None:
    like = torch.empty(50, 50)
    drawn = []
    for seed in (1, 1, 2):
        with torch_seed(seed):
            drawn.append((kept(like, 0.3), kept(like, 0.3)))
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1]) and not torch.equal(drawn[0][0], drawn[2][0])


def test_what_is_computed_again_in_backward_draws_the_same() -> None:
    block = nn.Sequential(nn.Linear(8, 8), Dropout(0.5), nn.Tanh())
    given, found = torch.randn(16, 8), []
    for again in (False, True):
        block.zero_grad()
        with torch_seed(3):
            output = checkpoint(block, given, use_reentrant=False) if again else block(given)
        output.sum().backward()
        found.append((output.detach(), block[0].weight.grad.clone()))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_gradients_go_where_values_went() -> None:
    given = torch.randn(30, 30, requires_grad=True)
    output = Dropout(0.4)(given)
    output.sum().backward()
    torch.testing.assert_close(given.grad, output.detach() / given.detach())


def test_the_ends_and_evaluation_are_torch_s_own() -> None:
    given = torch.randn(5, 5)
    assert torch.equal(Dropout(0.0)(given), given)
    assert torch.equal(Dropout(1.0)(given), torch.zeros(5, 5))
    assert torch.equal(Dropout(0.5).eval()(given), given)


@pytest.mark.parametrize("rate", [0.99999, 0.999999, 1 - 1e-9, 1.0])
def test_a_rate_that_16_bits_cannot_tell_from_1_drops_all(rate: float) -> None:
    assert torch.equal(kept(torch.empty(100, 100), rate), torch.zeros(100, 100))


def test_a_network_s_dropouts_are_swapped_once_and_nothing_else(model_folder: Folder) -> None:
    backbone = load_backbone(resolve(str(model_folder("bert"))))
    network = sequence_network(backbone, ("a", "b"), "single_label_classification", False, 0)
    parts = dict(network.named_modules())
    before = {name: (type(part), part.training) for name, part in parts.items()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    suit_dropout(network)
    once = dict(network.named_modules())
    assert {name: part.training for name, part in once.items()} == {name: mode for name, (_, mode) in before.items()}
    swapped = {name for name, part in once.items() if type(part) is not before[name][0]}
    assert swapped == {name for name, (kind, _) in before.items() if kind is nn.Dropout} != set()
    assert all(type(once[name]) is Dropout for name in swapped)
    network.train()
    assert all(part is parts[name] for name, part in network.named_modules()), "modes that were kept can be given back"
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_without_dropout_two_draws_are_the_same_and_the_rates_come_back(model_folder: Folder) -> None:
    for family in ("bert", "llama", "t5", "distilbert"):
        body = load_backbone(resolve(str(model_folder(family))), 0.4).module.train()
        given = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
        before = {name: {**vars(part)} for name, part in body.named_modules()}

        def draws(body: nn.Module = body, given: dict[str, torch.Tensor] = given) -> bool:
            found = []
            for seed in (1, 2):
                with torch_seed(seed), torch.no_grad():
                    found.append(body(**given)[0])
            return not torch.equal(*found)

        assert draws(), family
        with undropped(body):
            assert not draws(), family
            assert all(part.training for part in body.modules())
        assert draws(), family
        for name, part in body.named_modules():
            assert vars(part).keys() == before[name].keys()
            assert all(vars(part)[key] == value for key, value in before[name].items() if isinstance(value, float))
