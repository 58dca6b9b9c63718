"""The number format that a network computes in."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from tunesmith.models.layout import is_batch_norm


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
