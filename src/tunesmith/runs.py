"""A run directory, read: what a Python caller gets back from `finetune`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ArtifactError

if TYPE_CHECKING:
    from tunesmith.predictor import Predictor

RECIPE = "recipe.yaml"  # what every run has from its first moment on


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path

    @property
    def report(self) -> dict[str, Any]:
        """report.json. Raises ArtifactError when the run was not finished, and for what is no run."""
        try:
            return json.loads((self.path / "report.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtifactError(f"{self.path}: {self._without_report()}") from None
        except NotADirectoryError:
            raise ArtifactError(
                f"{self.path}: is a file; give the folder of a run, which tunesmith train made"
            ) from None

    def _without_report(self) -> str:
        if (self.path / RECIPE).is_file():
            return f"has no report yet; finish it with: tunesmith resume {shlex.quote(str(self.path))}"
        above = self.path.resolve().parent
        fix = f"give {above}" if (above / RECIPE).is_file() else "give a folder that tunesmith train made"
        return f"is not a run (it has no {RECIPE}); {fix}"

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Test metrics: name -> value, low, high. Empty where there were no test rows."""
        return self.report["metrics"]

    @property
    def verdict(self) -> str:
        """What the run was worth, in one paragraph."""
        return self.report["verdict"]["paragraph"]

    @property
    def advice(self) -> str:
        """What to do next, in one paragraph. Raises ArtifactError for a run of an earlier version, which has none."""
        try:
            return self.report["advice"]["paragraph"]
        except KeyError:
            raise ArtifactError(
                f"{self.path / 'report.json'}: was written by an earlier version and has no advice; run the recipe again"
            ) from None

    def load(self, device: str = "auto") -> Predictor:
        """The fine-tuned model, on the GPU where torch sees one unless `device` says "cpu"."""
        from tunesmith.predictor import load

        return load(self.path, device)


def check_there(run: Path) -> None:
    """Raises ArtifactError, naming the nearest folders beside it, when there is nothing at `run`."""
    if run.exists():
        return
    try:
        beside = sorted(path.name for path in run.parent.iterdir() if path.is_dir())
    except OSError:  # no such folder, or none that may be looked into
        beside = []
    near = [str(run.parent / name) for name in get_close_matches(run.name, beside, n=3, cutoff=0.6)]
    said = f"did you mean {' or '.join(near)}?" if near else "give a folder that tunesmith train made"
    raise ArtifactError(f"{run}: there is no such run; {said}")
