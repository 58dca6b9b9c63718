"""A language model's outputs that are not there yet: the loss takes them a few places at a time.

The outputs of 8 texts of 512 tokens over a vocabulary of 128,000 are 2.1 GB in float32, and training holds several copies of
them. What is learned is one number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from tunesmith.models.network import Network

AT_ONCE = 2**24  # outputs in memory at once: 64 MiB in float32
# And on a GPU: 512 MiB. Each part goes over all weights of the outputs and over their gradients, in bfloat16 with float32
# sums 16 bytes a weight: with 152,000 outputs from a width of 896, 32,768 places in parts of 2**24 would move 650 GB. This is
# reckoned, not measured.
AT_ONCE_GPU = 2**27


class LazyLogits:
    """What a tensor of logits [rows, places, vocabulary] would be made of."""

    def __init__(self, hidden: Tensor, project: Callable[[Tensor], Tensor], weights: Sequence[Tensor]) -> None:
        """hidden: [rows, places, width]; project: [places, width] -> [places, vocabulary], by `weights` and no others."""
        self.hidden, self._project, self._weights = hidden, project, tuple(weights)

    def __getitem__(self, places: Any) -> LazyLogits:
        """Some rows or places, as of a tensor: `lazy[:, 1:]`."""
        return LazyLogits(self.hidden[places], self._project, self._weights)

    @property
    def shape(self) -> torch.Size:
        """[rows, places]"""
        return self.hidden.shape[:-1]

    @property
    def logits(self) -> Tensor:
        """All of them, [rows, places, vocabulary]."""
        found = self._project(self.hidden.flatten(0, -2))
        return found.view(*self.hidden.shape[:-1], found.shape[-1])

    def loss(self, learned: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """The summed cross-entropy of the places of a mask [rows, places], whose right answers are `target` [learned]."""
        found = _SummedLoss.apply(self.hidden[learned], target, self._project, smoothing, *self._weights)
        assert isinstance(found, Tensor)
        return found


class _SummedLoss(torch.autograd.Function):
    """Each part's gradients are taken in the forward pass, while its outputs are there, so that none is computed twice.

    As Liger Kernel does for one linear map (Hsu 2024, "Liger Kernel: Efficient Triton kernels for LLM training", section
    3.2); here by autograd, so that the way to the outputs may be any. Sums are float32 whatever the weights' format.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        target: Tensor,
        project: Callable[[Tensor], Tensor],
        smoothing: float,
        *weights: Tensor,
    ) -> Tensor:
        wanted = [weight for weight in weights if weight.requires_grad]
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in wanted]
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for part, truth in _parts(hidden, target, project):
            with torch.enable_grad():
                given = part.detach().requires_grad_(True)
                loss = cross_entropy(project(given).float(), truth, reduction="sum", label_smoothing=smoothing)
                of_hidden, *of_weights = torch.autograd.grad(loss, [given, *wanted], allow_unused=True)
            total += loss.detach()
            gradients.append(of_hidden)
            for kept, more in zip(sums, of_weights, strict=True):
                kept += 0 if more is None else more
        ctx.found = (torch.cat(gradients) if gradients else torch.zeros_like(hidden), sums)
        ctx.kinds = [weight.dtype if weight.requires_grad else None for weight in weights]
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (of_loss,), (of_hidden, sums) = upstream, ctx.found
        ctx.found = None
        rest = iter(sums)
        of_weights = [None if kind is None else next(rest).mul_(of_loss).to(kind) for kind in ctx.kinds]
        return (of_hidden * of_loss.to(of_hidden.dtype), None, None, None, *of_weights)


def at_once(device: torch.device) -> int:
    """How many outputs are made at once there."""
    return AT_ONCE if device.type == "cpu" else AT_ONCE_GPU


def _parts(hidden: Tensor, target: Tensor, project: Callable[[Tensor], Tensor]) -> Sequence[tuple[Tensor, Tensor]]:
    """[places, width] and [places] in parts whose outputs are `at_once` at most."""
    if not len(hidden):
        return []
    with torch.no_grad():
        vocabulary = project(hidden[:1]).shape[-1]
    size = max(1, at_once(hidden.device) // vocabulary)
    return list(zip(hidden.split(size), target.split(size), strict=True))


class VocabularyNetwork(Network):
    """A network whose outputs are a whole vocabulary for every token, and can wait for the loss."""

    model: PreTrainedModel

    @abstractmethod
    def outputs(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> logits [rows, places, vocabulary]"""

    @abstractmethod
    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> [rows, places, width] what `project` makes outputs of."""

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor:
        """[places, width] -> [places, vocabulary]"""

    @abstractmethod
    def outside(self) -> Sequence[Tensor]:
        """The parameters that `project` reads: what is not in the body, and tied embeddings."""

    @abstractmethod
    def example(self) -> dict[str, Tensor]:
        """Inputs of a few tokens."""

    @property
    def vocabulary(self) -> int:
        """How many outputs there are for each token."""
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table.num_embeddings

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        """Logits [rows, places, vocabulary]; of a network in training that is `lazy`, what they would be made of."""
        if self.lazy and self.training:
            return LazyLogits(self.hidden(inputs), self.project, self.outside())
        return self.outputs(inputs)


def lazy_fits(network: Network) -> str:
    """Why training cannot be given `LazyLogits` of this network, "" where it can: tried, since families differ.

    Tried in evaluation mode on a few tokens; equal means to within 1e-5 of the largest output.
    """
    if not isinstance(network, VocabularyNetwork):
        return "only what language models give, over a whole vocabulary, can be computed later"
    inputs = {name: value.to(network.sample.device) for name, value in network.example().items()}
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            whole = network(inputs)
            later = LazyLogits(network.hidden(inputs), network.project, ()).logits
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        return f"this family's outputs cannot be made from its body's alone: {type(error).__name__}: {error}"
    finally:
        network.train(mode)
    if whole.shape == later.shape and float((whole - later).abs().max()) <= 1e-5 * max(1.0, float(whole.abs().max())):
        return ""
    return "this family's outputs are not made from its body's alone"
