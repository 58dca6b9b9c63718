"""A finished run's model, loaded for use: texts in, labels and probabilities out."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tunesmith.calibration import Calibration, Step
from tunesmith.careful import set_columns, sets_of, sure_of, threshold
from tunesmith.catalog import build
from tunesmith.data.encode import Example, Text, collate
from tunesmith.data.images import Picture, Pictures
from tunesmith.data.stored import in_parts, part_rows
from tunesmith.data.table import Table
from tunesmith.data.words import words_of
from tunesmith.errors import ArtifactError, DataError, ModelError, RecipeError, TunesmithWarning
from tunesmith.memory import keep_few_kernels
from tunesmith.runs import check_there
from tunesmith.tasks.base import Labels, Prediction, Task

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.network import Network

VERSION = 2
CARD = "tunesmith.json"  # in a model's folder
FLOAT32, BFLOAT16 = "float32", "bfloat16"
DELETED = "weights-deleted.txt"  # stands in the folder of a model that was only to be measured
# Of a machine: a model's own may be so small that the timing of it says now this and now that.
ASKED_WIDTH = 384
FEW = 8  # rows on which a fused forward is checked before it is used
CALLER = 3  # frames from `warnings.warn` to who called a public method, for a warning that names their line


@dataclass(frozen=True)
class Card:
    """model/tunesmith.json: what a saved model needs beside its weights to be used as it was trained."""

    task: Task
    labels: Labels
    text_column: str
    pair_column: str | None
    label_column: str | tuple[str, ...]
    max_length: int
    dtype: str = FLOAT32  # of what comes before the last linear map, when it was measured

    def to_plain(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "task": self.task.to_plain(),
            "labels": list(self.labels.names),
            "label_counts": list(self.labels.counts),
            "thresholds": list(self.labels.thresholds),
            "center": list(self.labels.center),
            "scale": list(self.labels.scale),
            "standardised": self.labels.standardised,
            "longest": self.labels.longest,
            "temperature": self.labels.temperature,
            "calibration": None if self.labels.calibration is None else self.labels.calibration.to_plain(),
            "text_column": self.text_column,
            "pair_column": self.pair_column,
            "label_column": self.label_column if isinstance(self.label_column, str) else list(self.label_column),
            "max_length": self.max_length,
            "dtype": self.dtype,
        }

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Raises ArtifactError when the folder holds no model that this release can use."""
        path = folder / CARD
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["version"] != VERSION:
                raise ArtifactError(f"{path}: is of version {plain['version']}, and this release reads {VERSION}")
            task = build("tasks", plain["task"])
            if not isinstance(task, Task):
                raise ArtifactError(f"{path}: names no task")
            labels = Labels(
                tuple(plain["labels"]),
                tuple(plain["label_counts"]),
                tuple(plain["thresholds"]),
                tuple(plain["center"]),
                tuple(plain["scale"]),
                plain["standardised"],
                plain.get("longest", 0),
                float(plain.get("temperature", 1.0)),  # models of earlier releases have none
                Calibration.read(plain.get("calibration")),
            )
            label = plain["label_column"]
            column = label if isinstance(label, str) else tuple(label)
            dtype = plain.get("dtype", FLOAT32)  # all that earlier releases computed in
            return cls(task, labels, plain["text_column"], plain["pair_column"], column, plain["max_length"], dtype)
        except NotADirectoryError:
            raise ArtifactError(f"{folder}: is a file; give the folder of a run, as tunesmith train makes it") from None
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder}: holds no finished model (no tunesmith.json); give a run folder of tunesmith train, or finish "
                f"it first with: tunesmith resume {folder.parent if folder.name == 'model' else folder}"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error})") from None


class Predictor:
    """A fine-tuned model: text in, predictions out. Loading it gives the very predictions that were measured.

    A text that is longer than the model was trained to read is cut; `predictions`, `predict` and `predict_proba` then
    warn with a TunesmithWarning that counts such texts and the tokens lost; of word vectors, also texts without a known word.
    """

    def __init__(self, folder: Path, network: Network, card: Card) -> None:
        from tunesmith.models.fused import KeptForward

        self.folder = folder
        self.network = network.eval()
        self.card = card
        self._forward = KeptForward()

    def as_measured(self) -> Self:
        """Itself, from now on computing in the number format it was measured in; `dtype` says which that is.

        In float32 on a processor that is slower in bfloat16. A GPU takes the card's word.
        """
        from tunesmith.training.precision import bfloat16_gain

        device = self.network.sample.device.type
        if self.card.dtype == BFLOAT16 and (device != "cpu" or bfloat16_gain(device, ASKED_WIDTH) >= 1):
            self.network.lower()
        return self

    @property
    def dtype(self) -> str:
        """What it computes in, up to its last linear map."""
        return str(self.network.sample.dtype).removeprefix("torch.")

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels.names

    @property
    def thresholds(self) -> dict[str, float]:
        """Of each label the probability from which on it is said; {} where a row has one class, or none at all."""
        thresholds = self.card.labels.thresholds  # answers have one too, and no labels
        return dict(zip(self.labels, thresholds, strict=True)) if len(thresholds) == len(self.labels) else {}

    @property
    def text_column(self) -> str:
        return self.card.text_column

    @property
    def pair_column(self) -> str | None:
        return self.card.pair_column

    @property
    def reads_words(self) -> bool:
        """Whether a text may be given as a list of words."""
        return self.card.task.reads_words

    def asked_in(self, table: Table, text: str | None) -> list[str] | None:
        """What this model is to answer in each row of a table, where its text is no column; None where it is one."""
        return self.card.task.asked_in(table, self.card.label_column, text)

    @property
    def reads_pictures(self) -> bool:
        """Whether a text is the path of a picture."""
        return self.card.task.reads_pictures

    def read(self, given: Any) -> Any:
        """A text, a pair of texts, a list of words or messages, a conversation, or a picture's path as the task takes it.

        What is none of these is given back as it is.
        """
        if self.reads_pictures:
            return Pictures(".").of(str(given)) if _names_picture(given) else given
        given = self.card.task.given(given)
        if not isinstance(given, tuple | list):
            return given
        if not self.reads_words:
            return tuple(given)
        found = words_of(given)
        return given if found is None else found

    def said(
        self, texts: Sequence[Text], precision: float | None = None, sets: float | None = None
    ) -> dict[str, list[Any]]:
        """What is said of each text, as columns: label and probability, labels, value or spans; "p:<label>" probabilities.

        With `precision` the label is None where `threshold` is not passed, and "answered" says whether it is; with `sets`
        "set" holds what `predict_sets` gives, of numbers "low" and "high".
        """
        found, careful = self._warned(texts), {}
        columns = self.card.task.columns(found, self.card.labels)
        if precision is not None:
            careful["answered"] = sure_of(found, self.threshold(precision))
            columns["label"] = [
                value if sure else None for value, sure in zip(columns["label"], careful["answered"], strict=True)
            ]
        if sets is not None:
            careful |= set_columns(self.card.task, self.card.labels, found, sets)
        plain = {name: values for name, values in columns.items() if not name.startswith("p:")}
        columns = plain | careful | columns
        many = columns.pop("p:", None)
        if many is None:
            return columns
        return columns | {f"p:{name}": [row[place] for row in many] for place, name in enumerate(self.labels)}

    def predictions(self, texts: Sequence[Text]) -> list[Prediction]:
        """One prediction a text, in order. Raises DataError naming the entries that are not texts."""
        return self._warned(texts)

    def quiet_predictions(self, texts: Sequence[Text]) -> list[Prediction]:
        """`predictions` without the warning, for texts whose cuts were counted before. Takes the memory of a part of them."""
        if self.card.task.ranked:
            return self._predicted(self._encoded(texts))
        found: list[Prediction] = []
        size = part_rows(self.reads_pictures)
        for part in in_parts(lambda first, last: self._encoded(texts[first:last]), len(texts), size):
            found += self._predicted(part)
        return found

    def judged(self, texts: Sequence[Text], truth: Sequence[Any], answers: bool) -> list[Prediction]:
        """`quiet_predictions` of rows whose targets are known, beside them where the task judges so.

        `answers`: whether the model also writes texts, where the task has it do so for a sample of the rows.
        """
        card = self.card
        if not card.task.judges_by_truth:
            return self.quiet_predictions(texts)
        examples = card.task.encode(texts, truth, card.labels, self.network.processor, card.max_length)
        found = self._predicted(examples)
        return card.task.answered(found, examples, self.network) if answers else found

    def predict(self, texts: Sequence[Any], precision: float | None = None) -> list[Any]:
        """What is said of each text: its class, a tuple of its labels, its number (a tuple of several), its entities,
        or the answer to a question (a `Reply`: text, start, end, score, best).

        A model of embeddings gives the cosine of each (text, pair), and of single texts their vectors; see `encode`.
        A model that was trained on two texts a row takes (text, pair) tuples. A model of entities takes a text also as a
        list of words, and gives a tuple of spans: start, end (characters, of words those of the text that they make with
        single spaces between), label, score, text, words. A model that was trained on conversations takes a question, a
        list of messages with "role" and "content", or {"messages": [...], "tools": [...]}, and gives the answer (an answer
        that the messages end with is not shown to it); one of texts that are written from texts gives
        what it writes. A model of pictures takes their paths.

        `precision`, of one class a row: the model holds back what it is not sure enough of, and gives None there, so that
        of what it does say at least this share is right; see `threshold`.
        """
        found = self._warned(texts)
        if precision is None:
            return [prediction.value for prediction in found]
        sure = sure_of(found, self.threshold(precision))
        return [item.value if answered else None for item, answered in zip(found, sure, strict=True)]

    def predict_sets(self, texts: Sequence[Any], coverage: float) -> list[Any]:
        """Of each text a tuple of classes, the most probable first, that holds the true one with this probability.

        Of a model of numbers (low, high) in their place, of several numbers a tuple of such pairs, which hold all of them
        together. Split conformal prediction: true of new texts of the kind of the validation rows, whatever the model is
        (Vovk 2005; Sadinle 2019). Raises DataError where the model has no such sets, or not of this coverage.
        """
        return sets_of(self.card.task, self.card.labels, self._warned(texts), coverage)

    def threshold(self, precision: float) -> Step:
        """The probability above which what is said is right with this precision, proven on the validation rows.

        Raises DataError where there is none: the model is not of one class a row, or no threshold was proven.
        """
        return threshold(self.card.task, self.card.labels, precision)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, width] float32: the vector of each text, as the run's folder gives it in sentence-transformers.

        Raises DataError for a model that was not trained to give vectors, and for entries that are not texts.
        """
        import numpy as np

        if not self.card.task.several_texts:
            raise DataError(
                "encode: this model does not give vectors; use predict, or train one that does with --task embedding"
            )
        if isinstance(texts, str) or not all(map(is_text, texts)):
            raise DataError("encode: expected a list of texts")
        found = [prediction.evidence for prediction in self._warned(texts)]
        return np.array(found, dtype=np.float32).reshape(len(found), -1)

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """[texts, labels] probabilities, columns in the order of `labels`; of one class a row, each row sums to 1.

        Raises DataError for a model that predicts numbers, or entities.
        """
        import numpy as np

        if self.reads_words:
            raise DataError(
                "predict_proba: this model predicts entities, any number of them a text; use predict, which gives a score "
                "with each"
            )
        if not self.labels:
            raise DataError("predict_proba: this model writes texts, which have no probabilities; use predict")
        if self.card.task.several_texts:
            raise DataError(
                "predict_proba: this model gives vectors and cosines, not probabilities; use predict or encode"
            )
        if self.card.task.unlike:
            raise DataError(f"predict_proba: this model predicts {self.card.task.unlike}; use predict")
        if self.card.labels.scale:
            raise DataError("predict_proba: this model predicts numbers, which have no probabilities; use predict")
        rows = [prediction.evidence for prediction in self._warned(texts)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.labels))

    def _warned(self, texts: Sequence[Text]) -> list[Prediction]:
        examples = self._encoded(texts)
        for said in (cut_line(examples, self.card.task.read_of(self.card.max_length)), unread_line(examples)):
            if said:
                warnings.warn(said, TunesmithWarning, stacklevel=CALLER)
        return self.card.task.answered(self._predicted(examples), examples, self.network)

    def _encoded(self, texts: Sequence[Text]) -> list[Example]:
        card = self.card
        fits = is_text if card.pair_column is None else is_pair
        fits = is_picture if self.reads_pictures else fits
        rows = texts if isinstance(texts, str) else [self.read(text) for text in texts]
        if card.task.several_texts and not isinstance(texts, str):
            fits = _like(rows[0]) if rows else fits
        wrong = [place for place, text in enumerate(rows) if not fits(text)]
        if isinstance(texts, str) or wrong:
            faults = [row.fault for row in rows if isinstance(row, Picture)] if isinstance(rows, list) else []
            if self.reads_pictures:
                said = f" ({rows[wrong[0]]}: {faults[wrong[0]]})" if wrong and len(faults) == len(rows) else ""
                if wrong and isinstance(texts[wrong[0]], str) and len(texts) == 1:
                    raise DataError(f"{texts[0]}: is no picture that can be read{said}")
                raise DataError(
                    "predict: expected a list of paths of pictures that can be read; not so: "
                    f"{'entry ' + str(wrong[0]) + said if wrong else repr(texts)}"
                )
            wanted = "texts" if card.pair_column is None else "(text, pair) tuples of texts"
            wanted += ", or lists of words without an empty one" if self.reads_words else ""
            wanted += ", or of texts, all rows alike" if card.task.several_texts else ""
            raise DataError(
                f"predict: expected a list of {wanted}; not so: {'entry ' + str(wrong[0]) if wrong else texts!r}"
            )
        return card.task.encode(rows, None, card.labels, self.network.processor, card.max_length)

    def _predicted(self, examples: list[Example]) -> list[Prediction]:
        from tunesmith.evaluation.infer import infer

        if not examples:
            return []
        card, pad = self.card, self.network.processor.pad
        device = str(self.network.sample.device)
        few = collate(examples[:FEW], pad, device).inputs
        with self._forward.lock, self.network.fused(few, len(examples), self._forward):
            found, _ = infer(lambda batch: self.network(batch.inputs), card.task, examples, card.labels, pad, device)
        return found

    def save(self, folder: str | Path) -> Path:
        """Copies the model's folder. Raises ArtifactError when `folder` is a file, is not empty, or cannot be written.

        What was copied before it failed is taken away again.
        """
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise ArtifactError(f"{target}: is a file; give a new folder")
        there = target.exists()
        try:
            full = there and any(target.iterdir())
        except OSError as error:
            raise ArtifactError(f"{target}: cannot be read ({error}); give a new folder") from None
        if full:
            raise ArtifactError(f"{target}: is not empty; give a new folder")
        try:
            shutil.copytree(self.folder, target, dirs_exist_ok=True)
        except OSError as error:  # shutil's own, which gathers those of each file, is one too
            shutil.rmtree(target, ignore_errors=True)
            if there:
                target.mkdir(exist_ok=True)
            why = str(error).splitlines()[0][:200]
            raise ArtifactError(f"{target}: the model cannot be copied there ({why}); give a new folder") from None
        return target


def _like(first: Any) -> Callable[[Any], bool]:
    """What a row must be where the first one is `first`: a text, or as many texts."""
    if isinstance(first, str):
        return is_text
    return lambda value: is_pair(value[:2]) and len(value) == len(first) and all(map(is_text, value))


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_picture(value: Any) -> bool:
    return isinstance(value, Picture) and not value.fault


def _names_picture(given: Any) -> bool:
    return isinstance(given, str | Path) and not isinstance(given, Picture)


def is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def cut_line(examples: Sequence[Example], read: str) -> str:
    """How many texts were cut to what is `read` and what share of all tokens that took away; empty where none was."""
    cut = {example.source for example in examples if example.cut > 0}
    if not cut:
        return ""
    lost = sum(example.cut for example in examples)
    texts = len({example.source for example in examples})
    share = lost / sum(example.length + example.cut for example in examples)
    return (
        f"{len(cut):,} of {texts:,} texts cut to {read}: {share:.1%} of all tokens were left out; "
        "shorten these texts, or split them"
    )


def unread_line(examples: Sequence[Example]) -> str:
    """How many texts hold no token that a model of word vectors knows, as one line; empty where none is so."""
    count = sum(example.unread for example in examples)
    if not count:
        return ""
    return (
        f"{count:,} of {len(examples):,} texts hold no word that this model has a vector for: what is said of them comes "
        "from nothing they say"
    )


def load(run: str | Path, device: str = "auto", dtype: str = "auto") -> Predictor:
    """The model of a run folder, or of its model/ folder, on `device`: "cpu", "cuda", or "auto" for a GPU if there is one.

    It computes as it was measured: in bfloat16 where it was trained so, with its last linear map in float32; a processor
    that a short timing finds slower at that takes float32, with a TunesmithWarning. In bfloat16 a text's probability may
    differ in the third digit with what is predicted beside it, and from when on some 200 texts were asked, since a BERT-type
    encoder then computes by a faster forward. `dtype="float32"` has it compute in float32 anywhere.

    Raises ArtifactError when there is no model, or a file of it is not as it was written; RecipeError when there is no
    such device, or dtype.
    """
    from tunesmith.models.seal import check_seal
    from tunesmith.saved import read_network

    keep_few_kernels()
    given = Path(run)
    check_there(given)
    chosen = _device(device)
    if dtype not in ("auto", FLOAT32):
        raise RecipeError(f'dtype: "{dtype}" is neither auto nor {FLOAT32}; use one of them')
    folder = given / "model" if (given / "recipe.yaml").exists() else given
    card = Card.read(folder)
    if (folder / DELETED).exists():
        raise ArtifactError(f"{folder}: {' '.join((folder / DELETED).read_text(encoding='utf-8').split())}")
    check_seal(folder)
    try:
        network, _ = read_network(folder)
    except ModelError as error:
        raise ArtifactError(*error.problems) from None
    predictor = Predictor(folder, network.to(chosen), card)
    if dtype == FLOAT32:
        return predictor
    if predictor.as_measured().dtype != card.dtype:
        said = f"{folder}: was measured in {card.dtype}, which this processor is slow at; it computes in {FLOAT32}, so that "
        said += f'probabilities may differ in the third digit (tunesmith.load(..., dtype="{FLOAT32}") is silent)'
        warnings.warn(said, TunesmithWarning, stacklevel=2)
    return predictor


def _device(asked: str) -> str:
    import torch

    if asked not in ("auto", "cpu", "cuda"):
        raise RecipeError(f'device: "{asked}" is none of auto, cpu and cuda; use one of them')
    present = torch.cuda.is_available()
    if asked == "cuda" and not present:
        raise RecipeError("device: cuda was asked for, and torch sees no GPU here; use cpu or auto")
    return "cuda" if present and asked != "cpu" else "cpu"
