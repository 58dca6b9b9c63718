"""scikit-learn's X and y as texts and classes, with errors that say what was expected and where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

SHOWN = 5


def texts_of(X: Any) -> list[str]:
    """The texts of X as plain str. Raises TypeError or ValueError that says what was expected, and where it is not."""
    from scipy.sparse import issparse

    wanted = "expected one text a row, as a list, a 1-D array or a pandas Series of str"
    if issparse(X):
        raise TypeError(f"X: {wanted}, not a sparse matrix; give the texts themselves, not features made of them")
    if isinstance(X, list | tuple):
        values = list(X)
    else:
        array = np.asarray(X, dtype=object)
        if array.ndim == 0:
            raise TypeError(f"X: {wanted}, not {type(X).__name__}; put the texts in a list")
        if array.ndim > 1:
            raise ValueError(
                f'X: {wanted}, not one of shape {array.shape}; give one column, such as X["text"] or X[:, 0] '
                "(in a ColumnTransformer, name the column by itself and not in a list)"
            )
        values = array.tolist()
    if not values:
        raise ValueError(f"X: {wanted}; found 0 samples, and at least 1 is needed")
    wrong = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if wrong:
        kinds = ["missing" if _is_missing(values[row]) else f"a {type(values[row]).__name__}" for row in wrong[:SHOWN]]
        some = ", ".join(f"X[{row}] is {kind}" for row, kind in zip(wrong, kinds, strict=False))
        more = f" and {len(wrong) - SHOWN} more are none either" if len(wrong) > SHOWN else ""
        raise ValueError(f"X: {wanted}; {some}{more}; drop these rows, or make each of them one str")
    broken = [row for row, value in enumerate(values) if not (value.isascii() or _is_unicode(value))]
    if broken:
        some = ", ".join(f"X[{row}]" for row in broken[:SHOWN])
        raise ValueError(f"X: {len(broken)} texts hold half a character, a lone surrogate ({some}); put them right")
    return [str(value) for value in values]  # numpy's own str is a subclass


def labels_of(y: Any) -> np.ndarray:
    """The labels of y as a 1-D array. Raises ValueError or TypeError where one is missing, or they are no classes."""
    if y is None:
        raise ValueError("TextClassifier requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    # numpy makes ["a", 1, None] into texts where it can: 1 and "1" would become one class, unseen
    values = list(y) if isinstance(y, list | tuple) else labels.tolist()
    texts = sum(isinstance(value, str) for value in values)
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing and (texts or labels.dtype == object):
        some = ", ".join(f"y[{row}]" for row in missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise ValueError(f"y: {len(missing)} of {len(values)} labels are missing ({some}); drop these rows")
    if 0 < texts < len(values):
        raise TypeError(f"y: {texts} of {len(values)} labels are str and the others are not; make all of them str")
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    return labels


def classes_of(labels: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Classes [classes], sorted and of the labels' own type, and the place of each row's class among them [rows].

    Raises ValueError where there are not as many labels as texts, one class only, or a class without words.
    """
    check_consistent_length(texts, labels)
    classes, codes = np.unique(labels, return_inverse=True)
    shown = classes.tolist()
    if len(shown) < 2:
        raise ValueError(
            f"y: holds one class only ({shown[0]!r}, {len(labels)} rows), and a classifier needs at least two; add rows "
            "of another class"
        )
    heard = {int(code) for code, text in zip(codes, texts, strict=True) if text.strip()}
    mute = [repr(label) for code, label in enumerate(shown) if code not in heard]
    if mute:
        raise ValueError(f"X: every text of class {', '.join(mute)} is empty; add texts of it, or drop its rows")
    return classes, codes


def names_of(classes: np.ndarray) -> list[str]:
    """A name for each class, for the model's files: its own text, or numbers where these would not tell them apart."""
    own = [
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in classes.tolist()
    ]
    if len(set(own)) == len(own) and all(name and name == name.strip() and _is_unicode(name) for name in own):
        return own
    digits = len(str(len(own) - 1))
    return [f"class {index:0{digits}}" for index in range(len(own))]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
