"""The number format that a network computes in."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from tunesmith.models.layout import is_batch_norm

LINE = 64  # bytes of a cache line, at whole ones of which torch's own memory begins


def cast(network: nn.Module, dtype: torch.dtype, but: Collection[nn.Module] = ()) -> None:
    """The parameters in `dtype`, in place, so that who holds one still holds it; those of `but` stay as they are.

    Batch norms too stay in float32 with the statistics that they divide by; they take and give any format. So do buffers:
    a decoder's rotary frequencies in bfloat16 would move its positions.
    """
    norms = [part for part in network.modules() if is_batch_norm(part)]
    whole = {id(value) for part in (*norms, *but) for value in part.parameters()}
    for parameter in network.parameters():
        if id(parameter) not in whole:
            parameter.data = parameter.data.to(dtype)


def align(network: nn.Module) -> None:
    """Weights that lie anywhere in a file's own bytes are copied to where torch would have put them, in place.

    Convolutions sum in another order where weights do not begin at a whole cache line (seen on AMD's Zen 4, one thread): a
    network that is read back would differ from the one that was written in the last bit.
    """
    for value in (*network.parameters(), *network.buffers()):
        if value.device.type == "cpu" and value.data_ptr() % LINE:
            value.data = value.data.clone()
