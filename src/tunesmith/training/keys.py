"""What decides frozen activations beside the network: the rows as they are read, the machine, and the code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import PIXELS, Example

if TYPE_CHECKING:
    from tunesmith.models.network import Network

TOGETHER = 1_000  # rows hashed at once
# Of this package, by folder: what turns encoded rows into activations.
CODE = {"models": "*.py", "methods": "*.py", "data": "encode.py", "training": "trunk.py"}
MORE_CODE = ("data/order.py", "training/reading.py")


def rows_digest(examples: Sequence[Example]) -> bytes:
    """sha256 of all that the base reads of every row, in their order. 10,003 rows of Banking77: 25 ms.

    The order too, since it decides which rows are computed together, and that the last bit.
    """
    import numpy as np

    from tunesmith.models.fingerprint import as_bytes

    digest = hashlib.sha256()
    for part in _parts(examples):
        sides = [side for example in part for side in example.sides]
        names = sorted(sides[0])
        digest.update(repr((len(part), len(sides), names)).encode())
        digest.update(np.array([(example.row, example.length) for example in part], np.int64).tobytes())
        for name in names:
            if name == PIXELS:
                for side in sides:
                    digest.update(repr(tuple(side[name].shape)).encode())
                    digest.update(as_bytes(side[name]))
                continue
            digest.update(np.fromiter((len(side[name]) for side in sides), np.int64).tobytes())
            digest.update(np.fromiter(chain.from_iterable(side[name] for side in sides), np.int64).tobytes())
    return digest.digest()


def _parts(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), TOGETHER):
        yield examples[start : start + TOGETHER]


def machine(network: Network) -> list[Any]:
    """What the same products may be rounded by in another way: torch, device, instructions, threads and their settings."""
    import platform

    import torch

    device = network.sample.device
    said: list[Any] = [torch.__version__, device.type, str(network.sample.dtype), torch.get_float32_matmul_precision()]
    if device.type == "cuda":
        matmul: Any = torch.backends.cuda.matmul
        named = [torch.cuda.get_device_name(device), matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
        return [*said, *named, torch.version.cuda]
    kernels = [torch.backends.cpu.get_cpu_capability(), torch.backends.mkldnn.is_available()]
    return [*said, platform.machine(), *kernels, torch.get_num_threads()]


def code_digest() -> str:
    """sha256, in hex, of the files of this package that compute activations: it changes while the package is worked on."""
    package, digest = Path(__file__).parent.parent, hashlib.sha256()
    named = [file for folder, names in CODE.items() for file in sorted((package / folder).glob(names))]
    for file in (*named, *(package / name for name in MORE_CODE)):
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError:  # a package without its sources changes with its version
            digest.update(file.name.encode())
    return digest.hexdigest()
