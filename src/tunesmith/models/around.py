"""What stands in the place of a pretrained module and holds it, as adapters do."""

from __future__ import annotations

from torch import nn


class Around(nn.Module):
    """Has the pretrained module as its `base`."""

    base: nn.Module

    @property
    def silent(self) -> bool:
        """Whether it gives, as it stands and in evaluation mode, the very numbers that `base` gives alone."""
        return False
