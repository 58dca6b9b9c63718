"""Tunesmith trains and predicts: MODEL TRAIN_TABLE TEST_TABLE SETTINGS, the last as JSON; the labels go to outcome.json."""

import csv
import json
import sys

import tunesmith

model, train, test, settings = sys.argv[1:]
run = tunesmith.finetune(model, train, "head", settings=json.loads(settings), out="run")
with open(test, encoding="utf-8", newline="") as file:
    texts = [next(iter(row.values())) for row in csv.DictReader(file)]
with open("outcome.json", "w", encoding="utf-8") as file:
    json.dump({"said": run.load().predict(texts)}, file)
