"""torch's optimizers over the masters: one for all of them, or one for each, so that each can be moved by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.recipe import TrainingSpec

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from tunesmith.methods.base import Group, Plan

# Of each parameter, in bytes: AdamW's two moments, momentum; in 8 bits two codes, and a scale of 4 bytes for 256 of either.
TABLES = ("qmap1", "qmap2")  # bitsandbytes' names
STATE_BYTES = {"adamw": 8.0, "sgd": 4.0, "adamw_8bit": 2.04}


class Optimizers:
    """What moves the masters, at rates that are set before each step."""

    def __init__(self, masters: Mapping[str, Tensor], plan: Plan, training: TrainingSpec, apart: bool) -> None:
        """`apart`: one for each parameter. Raises RecipeError where bitsandbytes is asked for, and not there."""
        self._masters = masters
        self._of: dict[str, Optimizer] = {}
        if apart:
            for group in plan.groups:
                self._of |= {
                    name: _made([_settings(group, [masters[name]], training)], training) for name in group.parameters
                }
        else:
            groups = [_settings(item, [masters[name] for name in item.parameters], training) for item in plan.groups]
            self._of = dict.fromkeys(plan.trainable, _made(groups, training))
        self._all = list({id(one): one for one in self._of.values()}.values())

    @property
    def groups(self) -> list[dict[str, Any]]:
        """torch's groups of parameters, of all of them."""
        return [group for one in self._all for group in one.param_groups]

    def at(self, share: float) -> float:
        """Sets every rate to a share of its peak; gives that of the first group."""
        for group in self.groups:
            group["lr"] = group["peak"] * share
        return self.groups[0]["lr"]

    def step(self, share: float = 1.0) -> None:
        """Moves all masters by `share` of their gradients, which are of no use afterwards.

        torch's fused AdamW divides by a scale on its own way through them, meant for gradients in float16: it saves the
        passes that a product before it takes, a fifth of the time of both.
        """
        import torch

        for one in self._all:
            if isinstance(one, torch.optim.AdamW):
                one.grad_scale = torch.tensor(1 / share)  # type: ignore[reportAttributeAccessIssue]
            elif share != 1.0:
                gradients = [tensor.grad for group in one.param_groups for tensor in group["params"]]
                present = [gradient for gradient in gradients if gradient is not None]
                torch._foreach_mul_(present, share)  # type: ignore[reportPrivateImportUsage]
            one.step()

    def step_one(self, name: str) -> None:
        """Moves one parameter; only where there is an optimizer for each."""
        self._of[name].step()

    def states(self, name: str) -> dict[str, Tensor]:
        """What is remembered of a parameter, by slot; nothing before its first step."""
        import torch

        found = self._of[name].state.get(self._masters[name], {})
        tensors = {slot: torch.as_tensor(value) for slot, value in found.items() if value is not None}
        # Of 8 bits all parameters have the same table of what codes stand for, which a file takes only once.
        return {slot: value.clone() if slot in TABLES else value for slot, value in tensors.items()}

    def remember(self, name: str, slot: str, value: Tensor) -> None:
        """Puts back one slot that `states` gave, as a copy."""
        tensor, one = self._masters[name], self._of[name]
        # Adam's step count stays where the optimizer made it: on the CPU unless fused on a GPU. That of 8 bits is a number.
        counted = slot == "step" and not isinstance(one, _torch_kinds())
        one.state[tensor][slot] = int(value) if counted else value.clone().to(tensor.device)


def _settings(group: Group, tensors: list[Tensor], training: TrainingSpec) -> dict[str, Any]:
    decay = training.weight_decay if group.decay else 0.0
    return {"params": tensors, "lr": group.rate, "peak": group.rate, "weight_decay": decay}


def _made(groups: list[dict[str, Any]], training: TrainingSpec) -> Optimizer:
    import torch

    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    from tunesmith.models.bits import quiet_bits

    try:
        with quiet_bits():
            from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError:
        raise RecipeError(
            'training.optimizer: adamw_8bit needs bitsandbytes; pip install "tunesmith[bits]", or leave it at adamw'
        ) from None
    return AdamW8bit(groups)


def _torch_kinds() -> tuple[type, ...]:
    import torch

    return (torch.optim.AdamW, torch.optim.SGD)
