"""Masters: our AdamW over them is torch's on a plain float32 copy; bfloat16 runs keep a float32 truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tunesmith.methods.base import Group, Plan
from tunesmith.recipe import TrainingSpec
from tunesmith.training.optim import Masters

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAN = Plan(
    (Group("base", ("0.weight",), 1e-2, True), Group("head", ("2.weight", "2.bias"), 3e-2, False)),
    frozenset({"0.bias"}),
    0,
)


def _network() -> nn.Sequential:
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    network[0].bias.requires_grad_(False)
    return network


def _data() -> tuple[Tensor, Tensor]:
    import torch

    torch.manual_seed(1)
    return torch.randn(12, 5), torch.randint(0, 3, (12,))


def _backward(network: nn.Module, dtype: object = None) -> None:
    from torch.nn.functional import cross_entropy

    inputs, target = _data()
    cross_entropy(network(inputs if dtype is None else inputs.to(dtype)).float(), target).backward()  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_equals_torch_on_a_plain_copy(name: str) -> None:
    import torch

    ours, plain = _network(), _network()
    masters = Masters(ours, PLAN, TrainingSpec(optimizer=name, weight_decay=0.1), torch.float32)
    groups = [
        {"params": [plain[0].weight], "lr": 1e-2, "weight_decay": 0.1},
        {"params": [plain[2].weight, plain[2].bias], "lr": 3e-2, "weight_decay": 0.0},
    ]
    oracle = torch.optim.AdamW(groups) if name == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    for step in range(20):
        share = 1.0 - step / 40
        _backward(ours)
        masters.collect()
        assert masters.move(share) == pytest.approx(1e-2 * share)
        for group, peak in zip(oracle.param_groups, (1e-2, 3e-2), strict=True):
            group["lr"] = peak * share
        _backward(plain)
        oracle.step()
        oracle.zero_grad()
    for (key, value), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(value, other, atol=1e-6), key
    assert not masters.gradients()


def test_bfloat16_masters_move_by_less_than_a_bfloat16_bit() -> None:
    import torch

    network = _network()
    truth = {name: value.detach().clone() for name, value in network.named_parameters()}
    masters = Masters(network, PLAN, TrainingSpec(weight_decay=0.0), torch.bfloat16)
    assert all(torch.equal(value, truth[name]) for name, value in masters.tensors.items()), "nothing lost in the cast"
    assert {value.dtype for value in network.parameters()} == {torch.bfloat16}
    live = network[0].weight.detach().clone()
    for _ in range(3):
        _backward(network, torch.bfloat16)
        masters.collect()
        assert all(value.grad is None for value in network.parameters())
        masters.move(1e-4)  # steps of 1e-6, where a weight of 0.3 has a last bit of 1e-3
    moved = masters.tensors["0.weight"].detach() - truth["0.weight"]
    assert 0 < float(moved.abs().max()) < 1e-4
    assert torch.equal(network[0].weight, masters.tensors["0.weight"].bfloat16())
    large = live.abs() > 0.2
    assert torch.equal(network[0].weight[large], live[large]), "too small to show in the weights computed with"


def test_bfloat16_gradients_are_summed_in_float32() -> None:
    """Sixteen parts of a gradient add up as exactly as float32 adds them."""
    import torch

    network = _network()
    masters = Masters(network, PLAN, TrainingSpec(), torch.bfloat16)
    expected = torch.zeros(8, 5)
    for part in range(16):
        torch.manual_seed(part)
        gradient = torch.randn(8, 5).bfloat16()
        network[0].weight.grad = gradient.clone()
        masters.collect()
        expected += gradient.float()
    found = masters.tensors["0.weight"].grad
    assert found is not None and torch.equal(found, expected)


def test_buffers_keep_their_precision() -> None:
    """Tables that a model computes with, such as rotary frequencies, are no weights: bfloat16 would spoil positions."""
    import torch

    network = _network()
    network.register_buffer("frequencies", torch.linspace(0.0, 1.0, 7))
    Masters(network, PLAN, TrainingSpec(), torch.bfloat16)
    assert torch.equal(network.frequencies, torch.linspace(0.0, 1.0, 7))


def test_export_and_restore_are_exact() -> None:
    import torch

    def advanced(masters: Masters, network: nn.Module, count: int) -> dict[str, Tensor]:
        for _ in range(count):
            _backward(network)
            masters.collect()
            masters.move(0.5)
        return {name: value.clone() for name, value in masters.export().items()}

    network = _network()
    masters = Masters(network, PLAN, TrainingSpec(), torch.float32)
    halfway = advanced(masters, network, 3)
    expected = advanced(masters, network, 2)
    again = _network()
    other = Masters(again, PLAN, TrainingSpec(), torch.float32)
    advanced(other, again, 1)
    other.restore(halfway)
    found = advanced(other, again, 2)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="shape"):
        other.restore({**halfway, "parameter/2.bias": torch.zeros(4)})
    with pytest.raises(KeyError):
        other.restore({})
