"""scikit-learn: logistic regression on words, on frozen embeddings, on means of word vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Rows, whole_text

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = (1.0, 10.0, 100.0)
FOLDS = 5
OF_WORDS = 10.0  # C for TF-IDF: on Banking77 0.865 at scikit-learn's default of 1 and 0.894 at 10


def tfidf_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """Words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=OF_WORDS, max_iter=1000))
    model.fit([whole_text(row) for row in rows.train], [row["label"] for row in rows.train])
    return model.predict([whole_text(row) for row in rows.test]).tolist()


def tfidf_labels(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[list[str]]:
    """One model a label, each saying its label from a probability of 0.5 on, as OneVsRestClassifier does."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer

    binary = MultiLabelBinarizer()
    truth = binary.fit_transform([row["labels"].split("|") for row in rows.train])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, OneVsRestClassifier(LogisticRegression(C=OF_WORDS, max_iter=1000)))
    model.fit([row["text"] for row in rows.train], truth)
    said = binary.inverse_transform(model.predict([row["text"] for row in rows.test]))
    return [list(labels) for labels in said]


def embedding_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """The sentence encoder as it is, read by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(base), device="cpu")
    train, test = (
        encoder.encode([whole_text(row) for row in part], show_progress_bar=False) for part in (rows.train, rows.test)
    )
    return fitted(train, [row["label"] for row in rows.train], test)


def vector_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """Of a text the mean of weight times vector of its tokens, at length 1, as model2vec has it."""
    import numpy as np
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tensors = load_file(base / "model.safetensors")
    table = tensors["embeddings"][tensors["mapping"]] * tensors["weights"][:, None]
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))

    def means(part: Sequence[dict[str, Any]]) -> np.ndarray:
        read = tokenizer.encode_batch([row["text"] for row in part], add_special_tokens=False)
        found = np.stack([table[item.ids].mean(axis=0) if item.ids else np.zeros(table.shape[1]) for item in read])
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    return fitted(means(rows.train), [row["label"] for row in rows.train], means(rows.test))


def fitted(train: np.ndarray, truth: Sequence[str], test: np.ndarray) -> list[str]:
    """Logistic regression on [rows, width] features, its C chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    model = GridSearchCV(LogisticRegression(max_iter=1000), {"C": list(STRENGTHS)}, cv=FOLDS)
    model.fit(train, list(truth))
    return model.predict(test).tolist()
