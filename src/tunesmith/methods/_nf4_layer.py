"""A frozen linear map whose weight is kept in 4 bits, packed and given back by bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad
from transformers.pytorch_utils import Conv1D

from tunesmith.errors import RecipeError
from tunesmith.methods._adapter_method import put
from tunesmith.models.bits import quiet_bits

if TYPE_CHECKING:
    from tunesmith.models.network import Network

BLOCK = 64  # weights that share a scale: Dettmers 2023, section 3, "Double Quantization"
SCALES = 256  # scales that share a scale of their own, there


def check_bitsandbytes() -> None:
    """Raises RecipeError where the library is not installed."""
    if find_spec("bitsandbytes") is None:
        raise RecipeError('method.quantised: needs the library bitsandbytes; install it: pip install "tunesmith[bits]"')


class Nf4Linear(nn.Module):
    """y = x W' + bias, W' the weight that 4 bits give back: one of 16 values (NF4) times the scale of its block of 64.

    Dettmers 2023, "QLoRA: Efficient Finetuning of Quantized LLMs" (arXiv 2305.14314), section 3. Codes and scales are
    buffers, not bitsandbytes' Params4bit: a cast of the parameters must not touch them. The whole weight exists only while
    a product is computed, and is given back once more in the backward pass.
    """

    codes: Tensor  # uint8 [weights / 2, 1], two a byte
    scales: Tensor  # float32 [blocks]; of double quantisation uint8 codes
    table: Tensor | None  # float32 [256] what those codes stand for
    second: Tensor | None  # float32 [blocks / 256] their own scales
    centre: Tensor | None  # float32 [] the mean of all scales, which is taken off before they are coded

    def __init__(self, base: nn.Module, double: bool) -> None:
        """`double`: whether the scales are kept in 8 bits too: 4.13 bits a weight in place of 4.5. `base` is left as it is.

        Packed on the CPU whatever the device: the same weights are the same codes on every machine. Raises TypeError
        where `base` is no linear map.
        """
        super().__init__()
        if not isinstance(base, nn.Linear | Conv1D):
            raise TypeError(f"a linear map can be kept in 4 bits, not {type(base).__name__}")
        with quiet_bits():
            from bitsandbytes.functional import quantize_4bit

        own = base.weight.detach()
        self.transposed = isinstance(base, Conv1D)
        whole = (own.T if self.transposed else own).float().cpu().contiguous()
        self.outputs, self.inputs = whole.shape
        # In rows of one block each: with rows that are no whole blocks bitsandbytes 0.50.2 gives a CPU wrong weights back.
        blocks = pad(whole.flatten(), (0, -whole.numel() % BLOCK)).view(-1, BLOCK)
        codes, state = quantize_4bit(blocks, blocksize=BLOCK, compress_statistics=double, quant_type="nf4")
        found: dict[str, Tensor | None] = {"codes": codes, "scales": state.absmax}
        found |= {"table": None, "second": None, "centre": None}
        if state.state2 is not None:
            found |= {"table": state.state2.code, "second": state.state2.absmax, "centre": state.offset}
        for name, value in found.items():
            self.register_buffer(name, None if value is None else value.to(own.device), persistent=False)
        self.bias = base.bias
        # Says nothing; by it a cast of the network reaches this layer, and `weight` can say its number format.
        self.like = nn.Parameter(own.new_zeros(1), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """[outputs, inputs] without values: T5 looks at a layer's number format before it calls it."""
        return torch.empty(self.outputs, self.inputs, dtype=self.like.dtype, device="meta")

    @property
    def packed_bytes(self) -> int:
        return sum(value.nbytes for value in self.buffers())

    @torch.no_grad()
    def whole(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs] the weight that the codes give back."""
        from bitsandbytes.functional import QuantState, dequantize_4bit

        second: Any = None
        if self.second is not None:
            second = QuantState(self.second, code=self.table, blocksize=SCALES, dtype=torch.float32)
        state = QuantState(
            self.scales,
            shape=torch.Size((self.codes.numel() * 2 // BLOCK, BLOCK)),
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=dtype,
            offset=self.centre,
            state2=second,
        )
        found = dequantize_4bit(self.codes, state).flatten()
        return found[: self.outputs * self.inputs].view(self.outputs, self.inputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        found = _Product.apply(hidden, self.bias, self)
        assert isinstance(found, Tensor)
        return found

    def plain(self) -> nn.Module:
        """A linear map of the kind that it was, whose weight is what the codes give back, in float32."""
        weight = self.whole(torch.float32)
        made: Any
        with torch.device("meta"):  # draws no random numbers
            made = Conv1D(self.outputs, self.inputs) if self.transposed else nn.Linear(self.inputs, self.outputs)
        made.weight = nn.Parameter((weight.T if self.transposed else weight).contiguous(), requires_grad=False)
        made.bias = self.bias
        return made


class _Product(torch.autograd.Function):
    """Keeps codes, and no weight, for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor | None, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return linear(hidden, layer.whole(hidden.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        to_hidden = gradient @ ctx.layer.whole(gradient.dtype) if ctx.needs_input_grad[0] else None
        to_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return to_hidden, to_bias, None


def pack(network: Network, names: Iterable[str], double: bool) -> None:
    """Keeps the weights of the named linear maps in 4 bits, in place."""
    for name in names:
        put(network, name, Nf4Linear(network.get_submodule(name), double))


def unpack(network: Network) -> None:
    """Linear maps with the weights that the codes give back, in place of all that are kept in 4 bits."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Nf4Linear):
            put(network, name, module.plain())


def size_line(network: Network) -> str:
    """How much memory the packed maps take, and what they took before."""
    layers = [module for module in network.modules() if isinstance(module, Nf4Linear)]
    now = sum(layer.packed_bytes for layer in layers) / 1e6
    before = sum(4 * layer.outputs * layer.inputs for layer in layers) / 1e6
    maps = f"the weights of {len(layers)} linear maps of the base"
    return f"{maps} take {now:.1f} MB in NF4, and took {before:.1f} MB in float32"


def adapter_note(double: bool) -> str:
    """README.md of an adapter that was trained beside packed weights."""
    further = ", its scales in 8 bits" if double else ""
    return (
        f"# An adapter for a base in 4 bits\n\nIt was trained beside linear maps in NF4 (bitsandbytes, blocks of {BLOCK}"
        f"{further}), packed from the base's float32 weights. On the base as it is, it answers a little differently. "
        "The folder model/ beside this one holds the weights that NF4 gave back with the change in them, and is the model "
        "that was measured.\n"
    )
