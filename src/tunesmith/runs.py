"""A run directory, read: what a Python caller gets back from `finetune`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ArtifactError

if TYPE_CHECKING:
    from tunesmith.predictor import Predictor


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path

    @property
    def report(self) -> dict[str, Any]:
        """report.json. Raises ArtifactError when the run was not finished."""
        try:
            return json.loads((self.path / "report.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtifactError(
                f"{self.path}: has no report yet; finish it with: tunesmith resume {shlex.quote(str(self.path))}"
            ) from None

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Test metrics: name -> value, low, high. Empty where there were no test rows."""
        return self.report["metrics"]

    @property
    def verdict(self) -> str:
        return self.report["verdict"]["paragraph"]

    def load(self, device: str = "auto") -> Predictor:
        """The fine-tuned model, on the GPU where torch sees one unless `device` says "cpu"."""
        from tunesmith.predictor import load

        return load(self.path, device)
