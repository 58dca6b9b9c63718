"""Prompt tuning (Lester 2021): vectors before every text, in place of words that say what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods._prompt_method import PromptMethod

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.soft_prompt import SoftPrompt


class Prompt(PromptMethod):
    """Vectors before every text, and the head, train."""

    def made(self, start: Tensor) -> SoftPrompt:
        from tunesmith.models.soft_prompt import SoftPrompt

        return SoftPrompt(start)
