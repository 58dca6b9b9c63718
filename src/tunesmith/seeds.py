"""Every random number starts here: a seed is a function of what it is for, so nothing needs saving."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from the parts, the same on every machine and in every process.

    `seed_of(run_seed, "dropout", step, 0)` never depends on what else drew random numbers before it.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def torch_seed(*parts: int | str) -> Iterator[None]:
    """Inside, torch's global generators are seeded with `seed_of(*parts)`; outside, they are as they were."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(*parts))
        yield
