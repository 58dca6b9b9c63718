"""A finished run's model, loaded for use: texts in, labels and probabilities out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.catalog import build
from tunesmith.errors import ArtifactError, DataError, ModelError
from tunesmith.tasks.base import Labels, Prediction, Task

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.network import Network

VERSION = 1


@dataclass(frozen=True)
class Card:
    """model/tunesmith.json: what a saved model needs beside its weights to be used as it was trained."""

    task: Task
    labels: Labels
    text_column: str
    label_column: str
    max_length: int

    def to_plain(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "task": self.task.to_plain(),
            "labels": list(self.labels.names),
            "label_counts": list(self.labels.counts),
            "text_column": self.text_column,
            "label_column": self.label_column,
            "max_length": self.max_length,
        }

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Raises ArtifactError when the folder holds no model that this release can use."""
        path = folder / "tunesmith.json"
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["version"] != VERSION:
                raise ArtifactError(f"{path}: is of version {plain['version']}, and this release reads {VERSION}")
            task = build("tasks", plain["task"])
            if not isinstance(task, Task):
                raise ArtifactError(f"{path}: names no task")
            labels = Labels(tuple(plain["labels"]), tuple(plain["label_counts"]))
            return cls(task, labels, plain["text_column"], plain["label_column"], plain["max_length"])
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder}: holds no finished model (no tunesmith.json); give a run folder of tunesmith train, or finish "
                f"it first with: tunesmith resume {folder.parent if folder.name == 'model' else folder}"
            ) from None
        except (ValueError, KeyError, TypeError, NotADirectoryError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error})") from None


class Predictor:
    """A fine-tuned model. Loading it gives the very predictions that were measured."""

    def __init__(self, folder: Path, network: Network, card: Card) -> None:
        self.folder = folder
        self.network = network.eval()
        self.card = card

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels.names

    @property
    def text_column(self) -> str:
        return self.card.text_column

    def predictions(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction a text, in order. Raises DataError naming the entries that are not texts."""
        from tunesmith.evaluation.infer import infer

        wrong = [place for place, text in enumerate(texts) if not isinstance(text, str)]
        if isinstance(texts, str) or wrong:
            raise DataError(
                f"predict: expected a list of texts; not a text: {'entry ' + str(wrong[0]) if wrong else texts!r}"
            )
        if len(texts) == 0:
            return []
        card, processor = self.card, self.network.processor
        examples = card.task.encode(list(texts), None, card.labels, processor, card.max_length)
        device = str(self.network.output.weight.device)
        found, _ = infer(
            lambda batch: self.network(batch.inputs), card.task, examples, card.labels, processor.pad, device
        )
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [prediction.label for prediction in self.predictions(texts)]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, labels] probabilities, columns in the order of `labels`; each row sums to 1."""
        import numpy as np

        rows = [prediction.probabilities for prediction in self.predictions(texts)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.labels))

    def save(self, folder: str | Path) -> Path:
        """Copies the model's folder. Raises ArtifactError when `folder` exists and is not empty."""
        target = Path(folder)
        if target.exists() and any(target.iterdir()):
            raise ArtifactError(f"{target}: is not empty; give a new folder")
        shutil.copytree(self.folder, target, dirs_exist_ok=True)
        return target


def load(run: str | Path) -> Predictor:
    """The model of a run folder, or of its model/ folder. Raises ArtifactError when there is none, or it is damaged."""
    from tunesmith.models.network import load_network

    given = Path(run)
    if not given.exists():
        raise ArtifactError(f"{given}: there is no such run; give a folder that tunesmith train made")
    folder = given / "model" if (given / "recipe.yaml").exists() else given
    card = Card.read(folder)
    try:
        network, _ = load_network(folder)
    except ModelError as error:
        raise ArtifactError(*error.problems) from None
    return Predictor(folder, network, card)
