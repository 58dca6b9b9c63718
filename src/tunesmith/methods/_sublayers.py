"""Which linear maps of a block do what: keys and values, the way back from the inner activations, the end of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.models.network import Network

# Last parts of the names by which families call what makes keys and values; those of FUSED make queries too.
KEYS_AND_VALUES = ("key", "value", "key_proj", "value_proj", "k_proj", "v_proj", "k_lin", "v_lin", "k", "v")
FUSED = ("c_attn", "Wqkv", "qkv", "query_key_value")
QUERIES = ("query", "query_proj", "q_proj", "q_lin", "q")


def is_key_or_value(name: str) -> bool:
    return _last(name) in KEYS_AND_VALUES + FUSED


def is_inner(name: str, network: Network) -> bool:
    """Whether a map leads from the widest inner activations of its block back to a smaller width."""
    sizes = _sizes(name, network)
    widest = max((inputs for inputs, outputs in sizes.values() if inputs > outputs), default=0)
    return name in sizes and sizes[name][0] == widest > sizes[name][1]


def ends_attention(name: str, network: Network) -> bool:
    """Whether a map takes what the heads of an attention found back to the width of its block."""
    sizes = _sizes(name, network)
    return name in sizes and _last(name) not in QUERIES and _gives_width(name, sizes) and not is_inner(name, network)


def _gives_width(name: str, sizes: dict[str, tuple[int, int]]) -> bool:
    """Whether it gives as many numbers as the block's way back from its inner activations.

    Of blocks with several such ways, as of a whole stage of convolutions, none is an attention's.
    """
    widths = {outputs for inputs, outputs in sizes.values() if inputs > outputs}
    _, outputs = sizes[name]
    return widths == {outputs}


def _sizes(name: str, network: Network) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear maps in the block of one, less those of keys and values; none outside of blocks."""
    from tunesmith.methods._beside import Beside, linear_shape

    block = next((f"{block}." for block in network.layout.blocks if name.startswith(f"{block}.")), None)
    if block is None:
        return {}
    found = {}
    for other in network.layout.linears:
        if other.startswith(block) and not is_key_or_value(other):
            module = network.get_submodule(other)
            found[other] = linear_shape(module.base if isinstance(module, Beside) else module)
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]
