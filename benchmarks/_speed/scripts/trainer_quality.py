"""A Hugging Face Trainer until it says enough test labels rightly: MODEL TRAIN_TABLE TEST_TABLE OPTIONS, the last as JSON.

After each epoch it is tried on the test rows, on a watch of its own (`apart`) that whoever started it takes off: a user would
not do that. OPTIONS: epochs, rate, batch_size, tuned, wanted (accuracy), bound (CPU seconds; 0: none).
"""

import csv
import json
import sys
import time

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

model_folder, train_table, test_table, options = sys.argv[1:]
options = json.loads(options)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [list(row.values()) for row in csv.DictReader(file)]


def encoded(rows):
    found = tokenizer([row[0] for row in rows], truncation=True)
    return [{key: found[key][place] for key in found} for place in range(len(rows))]


class UntilGood(TrainerCallback):
    def __init__(self):
        self.tried, self.said, self.apart_cpu, self.apart_wall, self.stopped = [], [], 0.0, 0.0, "all epochs done"

    def try_on_test(self, epoch):
        cpu, wall = time.process_time(), time.perf_counter()
        model.eval()
        self.said = []
        order = sorted(range(len(asked)), key=lambda place: len(asked[place]["input_ids"]))
        found = [0] * len(asked)
        with torch.inference_mode():
            for first in range(0, len(order), 64):
                part = order[first : first + 64]
                batch = tokenizer.pad([asked[place] for place in part], return_tensors="pt")
                for place, label in zip(part, model(**batch).logits.argmax(dim=1).tolist(), strict=True):
                    found[place] = label
        model.train()
        self.said = [names[label] for label in found]
        right = sum(said == row[-1] for said, row in zip(self.said, test, strict=True)) / len(test)
        self.tried.append({"epoch": round(epoch, 2), "cpu": round(cpu - self.apart_cpu, 1), "accuracy": round(right, 4)})
        self.apart_cpu += time.process_time() - cpu
        self.apart_wall += time.perf_counter() - wall
        return right

    def on_step_end(self, args, state, control, **kwargs):
        if options["bound"] and time.process_time() - self.apart_cpu > options["bound"]:
            self.stopped = "bound"
            control.should_training_stop = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.try_on_test(state.epoch) >= options["wanted"]:
            self.stopped = "good"
            control.should_training_stop = True


train, test = rows_of(train_table), rows_of(test_table)
names = sorted({row[-1] for row in train})
tokenizer = AutoTokenizer.from_pretrained(model_folder)
asked = encoded(test)
learned = [{**row, "labels": names.index(source[-1])} for row, source in zip(encoded(train), train, strict=True)]
model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=len(names))
tuned = {"bf16": True, "train_sampling_strategy": "group_by_length"} if options["tuned"] else {}
until = UntilGood()
Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="run",
        per_device_train_batch_size=options["batch_size"],
        num_train_epochs=options["epochs"],
        learning_rate=options["rate"],
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **tuned,
    ),
    train_dataset=learned,
    data_collator=DataCollatorWithPadding(tokenizer),
    callbacks=[until],
).train()
with open("outcome.json", "w", encoding="utf-8") as file:
    json.dump(
        {
            "said": until.said,
            "tried": until.tried,
            "stopped": until.stopped,
            "apart": {"cpu": until.apart_cpu, "wall": until.apart_wall},
        },
        file,
    )
