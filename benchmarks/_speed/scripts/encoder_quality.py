"""sentence-transformers' vectors and scikit-learn: MODEL TRAIN_TABLE TEST_TABLE STRENGTHS, chosen from by folds."""

import csv
import json
import sys

from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [list(row.values()) for row in csv.DictReader(file)]


model, train, test, strengths = sys.argv[1:]
learned, asked = rows_of(train), rows_of(test)
encoder = SentenceTransformer(model, device="cpu")
vectors = [encoder.encode([row[0] for row in part], show_progress_bar=False) for part in (learned, asked)]
tried = [float(value) for value in strengths.split(",")]
head = LogisticRegression(C=tried[0], max_iter=1000)
if len(tried) > 1:
    head = GridSearchCV(LogisticRegression(max_iter=1000), {"C": tried}, cv=5)
head.fit(vectors[0], [row[-1] for row in learned])
with open("outcome.json", "w", encoding="utf-8") as file:
    json.dump({"said": head.predict(vectors[1]).tolist()}, file)
