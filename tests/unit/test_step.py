"""One optimizer step: divided once, clipped, refused when not finite."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tunesmith.data.encode import Batch
from tunesmith.errors import TrainingError
from tunesmith.methods.base import Group, Plan
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import LossSum
from tunesmith.tasks.classification import Classification
from tunesmith.training.optim import Masters
from tunesmith.training.step import Objective, StepResult, optimizer_step

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAN = Plan((Group("all", ("weight", "bias"), 0.1, False),), frozenset(), 0)


def _linear() -> nn.Linear:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(4, 3)


def _parts(sizes: tuple[int, ...]) -> list[Batch]:
    """Ten rows in parts; `input_ids` holds the features, as the step counts its entries as tokens."""
    import torch

    torch.manual_seed(1)
    inputs, target = torch.randn(10, 4), torch.randint(0, 3, (10,))
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        Batch(tuple(range(at, at + size)), {"input_ids": inputs[at : at + size]}, target[at : at + size])
        for at, size in zip(starts, sizes, strict=True)
    ]


def _step(network: nn.Module, parts: list[Batch], clip: float | None = None, plan: Plan = PLAN) -> StepResult:
    import torch

    masters = Masters(network, plan, TrainingSpec(optimizer="sgd", weight_decay=0.0), torch.float32)
    objective = Objective(Classification(), lambda batch: network(batch.inputs["input_ids"]))
    return optimizer_step(objective, parts, masters, 0.5, clip, 0, 0)


@pytest.mark.parametrize("sizes", [(10,), (5, 5), (4, 4, 2), (1,) * 10])
def test_equals_one_plain_step_of_the_mean_loss(sizes: tuple[int, ...]) -> None:
    import torch

    network, plain = _linear(), _linear()
    result = _step(network, _parts(sizes))
    (whole,) = _parts((10,))
    loss = torch.nn.functional.cross_entropy(plain(whole.inputs["input_ids"]), whole.target)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([value.grad for value in plain.parameters()])
    torch.optim.SGD(plain.parameters(), lr=0.05).step()
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.norm == pytest.approx(float(norm), rel=1e-5)
    assert (result.rows, result.tokens, result.rate) == (10, 40, pytest.approx(0.05))
    assert torch.allclose(network.weight, plain.weight, atol=1e-7)
    assert torch.allclose(network.bias, plain.bias, atol=1e-7)


def test_clipping_equals_torchs() -> None:
    import torch

    network, plain = _linear(), _linear()
    result = _step(network, _parts((5, 5)), clip=0.01)
    (whole,) = _parts((10,))
    torch.nn.functional.cross_entropy(plain(whole.inputs["input_ids"]), whole.target).backward()
    norm = float(torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01))
    torch.optim.SGD(plain.parameters(), lr=0.05).step()
    assert result.norm == pytest.approx(norm, rel=1e-5), "the norm told is that before clipping"
    assert torch.allclose(network.weight, plain.weight, atol=1e-8)
    untouched = _linear()
    _step(untouched, _parts((5, 5)), clip=1e6)
    unclipped = _linear()
    _step(unclipped, _parts((5, 5)))
    assert torch.equal(untouched.weight, unclipped.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing_and_names_the_rows(bad: float) -> None:
    import torch

    network = _linear()
    before = copy.deepcopy(network.state_dict())
    parts = _parts((5, 5))
    parts[1].inputs["input_ids"][2, 0] = bad
    with pytest.raises(TrainingError, match=r"step 1: the loss is not finite .*0, 1, 2, 3, 4, 5, 6, 7, 8, 9;"):
        _step(network, parts)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())


def test_a_gradient_that_is_not_finite_is_told_apart() -> None:
    import torch

    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * float("inf")

    network = _linear()
    masters = Masters(network, PLAN, TrainingSpec(), torch.float32)
    with pytest.raises(TrainingError, match="the gradient is not finite"):
        objective = Objective(Classification(), lambda batch: Root.apply(network(batch.inputs["input_ids"])))
        optimizer_step(objective, _parts((10,)), masters, 1.0, 1.0, 0, 4)


class _Together(Classification):
    """Rows are told apart from each other: the loss of one depends on all of its step."""

    joint: ClassVar[bool] = True

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        import torch

        assert batch.target is not None
        unit = torch.nn.functional.normalize(output, dim=-1)
        total = torch.nn.functional.cross_entropy(5.0 * unit @ unit.T, batch.target % len(output), reduction="sum")
        return LossSum(total, torch.tensor(float(len(output))), {})


class _Noisy:
    """A linear map behind dropout, as a base in training is."""

    def __init__(self) -> None:
        self.network = _linear()

    def __call__(self, batch: Batch) -> Tensor:
        from torch.nn.functional import dropout

        return self.network(dropout(batch.inputs["input_ids"], 0.3, training=True))


def test_a_joint_loss_over_parts_is_the_loss_over_all_their_rows() -> None:
    """Loss, norm and weights after the step equal those of one graph over all parts, with each part's own dropout."""
    import torch

    from tunesmith.seeds import torch_seed

    parts = _parts((4, 4, 2))
    made, plain = _Noisy(), _Noisy()
    masters = Masters(made.network, PLAN, TrainingSpec(optimizer="sgd", weight_decay=0.0), torch.float32)
    result = optimizer_step(Objective(_Together(), made), parts, masters, 0.5, None, 3, 2)
    outputs = []
    for part, batch in enumerate(parts):
        with torch_seed(3, "dropout", 2, part):
            outputs.append(plain(batch))
    loss = _Together().loss(torch.cat(outputs), _parts((10,))[0])
    (loss.total / loss.weight).backward()
    assert result.loss == pytest.approx(float((loss.total / loss.weight).detach()), rel=1e-6)
    for moved, start in zip(made.network.parameters(), plain.network.parameters(), strict=True):
        assert start.grad is not None
        assert float(start.grad.abs().max()) > 1e-3
        assert torch.allclose(moved, start - 0.05 * start.grad, atol=1e-6)


def test_control_a_sum_over_parts_is_another_loss() -> None:
    class Apart(_Together):
        joint: ClassVar[bool] = False

    import torch

    def loss(task: Classification) -> float:
        masters = Masters(network := _linear(), PLAN, TrainingSpec(optimizer="sgd"), torch.float32)
        objective = Objective(task, lambda batch: network(batch.inputs["input_ids"]))
        return optimizer_step(objective, _parts((5, 5)), masters, 0.5, None, 0, 0).loss

    assert loss(Apart()) != pytest.approx(loss(_Together()), rel=1e-3)


# Two passes


@pytest.mark.parametrize("sizes", [(10,), (4, 6)])
def test_two_passes_are_held_to_each_other(sizes: tuple[int, ...]) -> None:
    """One plain step on the mean of both losses and half the weight times the divergence both ways, by torch's own."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div

    from tunesmith.seeds import torch_seed

    parts, weight = _parts(sizes), 3.0
    made, plain = _Noisy(), _Noisy()
    masters = Masters(made.network, PLAN, TrainingSpec(optimizer="sgd", weight_decay=0.0), torch.float32)
    result = optimizer_step(Objective(Classification(), made, weight), parts, masters, 0.5, None, 3, 2)
    total = torch.zeros(())
    for part, batch in enumerate(parts):
        outputs = []
        for use in ("dropout", "dropout once more"):
            with torch_seed(3, use, 2, part):
                outputs.append(plain(batch))
        assert not torch.equal(*outputs), "two passes drop other things"
        assert batch.target is not None
        one, other = (output.log_softmax(-1) for output in outputs)
        apart = kl_div(one, other, log_target=True, reduction="sum") + kl_div(
            other, one, log_target=True, reduction="sum"
        )
        losses = sum(cross_entropy(output, batch.target, reduction="sum") for output in outputs)
        total = total + losses / 2 + weight * apart / 4
    (total / 10).backward()
    assert result.loss == pytest.approx(float(total.detach()) / 10, rel=1e-6)
    for moved, start in zip(made.network.parameters(), plain.network.parameters(), strict=True):
        assert start.grad is not None and float(start.grad.abs().max()) > 1e-3
        assert torch.allclose(moved, start - 0.05 * start.grad, atol=1e-6)


def test_labels_disagree_as_so_many_pairs_classes_apart() -> None:
    import torch

    from tunesmith.tasks._disagreement import classes_apart, labels_apart, numbers_apart

    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4).unbind(0)
    pairs = [torch.stack([value, torch.zeros_like(value)], dim=-1) for value in (first, second)]
    assert float(labels_apart(first, second)) == pytest.approx(float(classes_apart(*pairs)), rel=1e-5)
    assert float(classes_apart(first, first)) == pytest.approx(0.0, abs=1e-6)
    assert float(numbers_apart(first, second)) == pytest.approx(float((first - second).pow(2).sum()))


# While a GPU computes


@pytest.mark.parametrize("in_backward", [False, True])
def test_what_is_done_meanwhile_is_done_once_behind_all_passes(in_backward: bool) -> None:
    import torch

    network, seen = _linear(), list[int]()
    training = TrainingSpec(optimizer="sgd", weight_decay=0.0, clip=None, step_in_backward=in_backward)
    masters = Masters(network, PLAN, training, torch.float32)
    passes: list[int] = []

    def forward(batch: Batch) -> Tensor:
        passes.append(len(batch.rows))
        return network(batch.inputs["input_ids"])

    parts = _parts((10,)) if in_backward else _parts((4, 6))
    start = network.weight.detach().clone()
    optimizer_step(
        Objective(Classification(), forward), parts, masters, 0.5, None, 0, 0,
        meanwhile=lambda: seen.append(len(passes)) or torch.equal(start, network.weight) or seen.append(-1),
    )  # fmt: skip
    assert seen == ([1, -1] if in_backward else [2])  # only a step in backward has moved by then


def test_batches_made_ahead_are_those_made_in_time(
    model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run over "cpu:0", which counts as another device, makes them ahead; each step once, and the same weights come out."""
    from dataclasses import replace

    import torch

    from shortruns import bench, recipe_for, write_rows
    from tunesmith.training.loop import train
    from tunesmith.training.source import Ahead, FixedRows

    table = write_rows(tmp_path / "rows.csv", 70)
    made: list[int] = []
    honest = FixedRows.batch
    monkeypatch.setattr(FixedRows, "batch", lambda self, step: made.append(step) or honest(self, step))
    ends, prepared = [], []
    for device in ("cpu", "cpu:0"):
        found = bench(recipe_for(model_folder("bert"), table), tmp_path / device.replace(":", "_"))
        found.run.source = replace(found.run.source, device=device)
        made.clear()
        list(train(found.run))
        assert made == [*range(found.run.steps)]
        ends.append(found.tensors())
        ahead = Ahead(found.run.source, 2)
        ahead.prepare(1)
        ahead.prepare(2)  # there is no such step
        prepared.append(made[found.run.steps :])
        first = ahead.batch(1)
        assert [batch.rows for batch in first] == [batch.rows for batch in honest(found.run.source, 1)]
    assert prepared == [[], [1]]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
