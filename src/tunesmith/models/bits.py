"""bitsandbytes, which says things at its first import that concern nobody here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_bits() -> Iterator[None]:
    """Inside, bitsandbytes says nothing below an error: at its first import it misses a product that is not used here."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
