"""The weights that NF4 gives back, computed apart from the library: what tests of QLoRA compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

BLOCK = 64


def given_back(weight: Tensor, double: bool = False) -> Tensor:
    """bitsandbytes' own round trip of a weight [outputs, inputs], in blocks of 64 from its first row on.

    In whole blocks: with rows that are none its dequantisation on a CPU is wrong (0.50.2).
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    count = weight.numel()
    blocks = torch.nn.functional.pad(weight.contiguous().flatten(), (0, -count % BLOCK)).view(-1, BLOCK)
    found = dequantize_4bit(*quantize_4bit(blocks, compress_statistics=double, quant_type="nf4"))
    return found.flatten()[:count].view(weight.shape)


def in_four_bits(network: Network, double: bool = False) -> None:
    """Puts those weights on the linear maps of a network's blocks, in place."""
    import torch

    from tunesmith.methods._beside import is_transposed

    for name in network.layout.linears:
        if f"{name}.weight" in network.fresh:
            continue
        module = network.get_submodule(name)
        weight = network.get_parameter(f"{name}.weight").detach()
        turned = is_transposed(module)
        found = given_back(weight.T if turned else weight, double)
        with torch.no_grad():
            network.get_parameter(f"{name}.weight").copy_(found.T if turned else found)
