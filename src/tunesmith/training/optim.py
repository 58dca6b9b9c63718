"""Float32 masters, their gradients, and the optimizer over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tunesmith.recipe import TrainingSpec
from tunesmith.training.optimizers import Optimizers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tunesmith.methods.base import Plan


class Masters:
    """Owns the float32 truth of every trainable parameter, and the optimizer that moves it.

    In float32 runs a master is the parameter itself. In bfloat16 runs it is a copy, taken before the network is cast,
    so that the pretrained weights lose nothing; gradients are added to it in float32 after each micro-batch, so that
    accumulation rounds no more than one large batch would.
    """

    def __init__(self, network: nn.Module, plan: Plan, training: TrainingSpec, dtype: torch.dtype) -> None:
        """`network` is float32 and on its device; afterwards its parameters are of `dtype`, but for batch norms."""
        import torch

        from tunesmith.models.casting import cast

        live = dict(network.named_parameters())
        self._live: dict[str, Tensor] = {name: live[name] for name in plan.trainable}
        self.tensors: dict[str, Tensor] = {
            name: tensor if dtype == torch.float32 else tensor.detach().clone().requires_grad_(True)
            for name, tensor in self._live.items()
        }
        cast(network, dtype)  # in place, so `_live` still holds the same parameters
        self._decay = training.ema
        self.averages: dict[str, Tensor] = (
            {name: tensor.detach().clone() for name, tensor in self.tensors.items()} if training.ema > 0 else {}
        )
        self.in_backward = training.step_in_backward
        self.optimizers = Optimizers(self.tensors, plan, training, self.in_backward)

    def collect(self) -> None:
        """Moves gradients from the live parameters onto the masters, in float32."""
        for name, live in self._live.items():
            master = self.tensors[name]
            if live is master or live.grad is None:
                continue
            if master.grad is None:
                master.grad = live.grad.float()
            else:
                master.grad += live.grad
            live.grad = None

    def gradients(self) -> list[Tensor]:
        return [tensor.grad for tensor in self.tensors.values() if tensor.grad is not None]

    def move(self, rate_share: float, share: float = 1.0) -> float:
        """One optimizer step by `share` of the gradients, at `rate_share` of the peak rates; then these are cleared.

        Gives the first group's rate.
        """
        rate = self.optimizers.at(rate_share)
        self.optimizers.step(share)
        self.discard()
        self.publish()
        return rate

    @contextmanager
    def moved_in_backward(self) -> Iterator[list[Tensor]]:
        """Inside, a backward pass moves each parameter as soon as its gradient is whole, and lets that go.

        So that only few gradients are there at once (Lv 2023, "Full parameter fine-tuning for large language models with
        limited resources", section 3.1, with AdamW in the place of its plain steps). Gives a list that fills with the norm of
        each gradient. Only where `in_backward`.
        """
        norms: list[Tensor] = []
        hooks = [
            live.register_post_accumulate_grad_hook(partial(self._move_one, name, norms))
            for name, live in self._live.items()
            if live.requires_grad
        ]
        try:
            yield norms
        finally:
            for hook in hooks:
                hook.remove()
            self.discard()

    def _move_one(self, name: str, norms: list[Tensor], live: Tensor) -> None:
        import torch

        assert live.grad is not None
        master, gradient = self.tensors[name], live.grad.float()
        norms.append(gradient.norm())
        master.grad = gradient
        self.optimizers.step_one(name)
        master.grad = live.grad = None
        if live is not master:
            with torch.no_grad():
                live.copy_(master)

    def pull_back(self, start: Mapping[str, Tensor], share: float, importance: Mapping[str, Tensor] | None) -> None:
        """Lets the parameters of `start` go a share of their way back to it.

        L2-SP (Li 2018, "Explicit inductive bias for transfer learning with convolutional networks", section 3.2), apart from
        the gradient, as decoupled weight decay is. With `importance`, a number of 0 or more for each weight, elastic weight
        consolidation (Kirkpatrick 2017, arXiv 1612.00796, equation 3): a weight twice as important goes twice as often.
        """
        import torch

        with torch.no_grad():
            torch._foreach_lerp_(  # type: ignore[reportPrivateImportUsage]
                [self.tensors[name] for name in start],
                list(start.values()),
                share if importance is None else [1 - (1 - share) ** importance[name] for name in start],
            )
        self.publish()

    def follow(self, step: int) -> None:
        """Moves the averages towards the masters after `step` (from 0); nothing to do where none are kept.

        An exponential moving average; its decay begins at a tenth and grows with the steps, so that the start, from which
        training only leaves, does not weigh on a short run: min(decay, (1 + step) / (10 + step)), as TensorFlow's
        ExponentialMovingAverage has it with `num_updates`.
        """
        import torch

        if self.averages:
            decay = min(self._decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(  # type: ignore[reportPrivateImportUsage]
                    list(self.averages.values()), list(self.tensors.values()), 1 - decay
                )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, masters and live parameters hold the averages, where some are kept; outside what they held before."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        import torch

        if self.averages:
            with torch.no_grad():
                for name, average in self.averages.items():
                    held = self.tensors[name].clone()
                    self.tensors[name].copy_(average)
                    average.copy_(held)
            self.publish()

    def discard(self) -> None:
        for tensor in (*self.tensors.values(), *self._live.values()):
            tensor.grad = None

    def publish(self) -> None:
        """Writes the masters into the live parameters."""
        import torch

        pairs = [(self._live[name], master) for name, master in self.tensors.items() if self._live[name] is not master]
        if pairs:
            with torch.no_grad():
                torch._foreach_copy_(  # type: ignore[reportPrivateImportUsage]
                    [live for live, _ in pairs], [master for _, master in pairs]
                )

    def overwrite(self, values: dict[str, Tensor]) -> None:
        """Sets some masters, by name, and the live parameters and averages with them."""
        import torch

        with torch.no_grad():
            for name, value in values.items():
                self.tensors[name].copy_(value)
                if name in self.averages:
                    self.averages[name].copy_(value)
        self.publish()

    def export(self) -> dict[str, Tensor]:
        """Everything that changes, by name, as tensors on any device: "parameter/NAME", "optimizer/SLOT/NAME".

        And "average/NAME", where averages are kept.
        """
        out = {f"parameter/{name}": tensor.detach() for name, tensor in self.tensors.items()}
        out |= {f"average/{name}": tensor for name, tensor in self.averages.items()}
        for name in self.tensors:
            out |= {f"optimizer/{slot}/{name}": value for slot, value in self.optimizers.states(name).items()}
        return out

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Takes back what `export` gave. Raises KeyError when a parameter is missing, ValueError when shapes differ."""
        import torch

        with torch.no_grad():
            for name, tensor in self.tensors.items():
                value = saved[f"parameter/{name}"]
                if value.shape != tensor.shape:
                    raise ValueError(
                        f"{name} has shape {tuple(value.shape)} in the checkpoint, {tuple(tensor.shape)} here"
                    )
                tensor.copy_(value)
            for name, average in self.averages.items():
                average.copy_(saved[f"average/{name}"])
        for key, value in saved.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                slot, _, name = rest.partition("/")
                self.optimizers.remember(name, slot, value)
        self.publish()
