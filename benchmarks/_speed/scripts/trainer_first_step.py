"""A Hugging Face Trainer up to its first optimizer step: MODEL TABLE BATCH_SIZE, as its documentation has it."""

import csv
import sys

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

model, table, batch_size = sys.argv[1:]
with open(table, encoding="utf-8", newline="") as file:
    rows = [list(row.values()) for row in csv.DictReader(file)]
names = sorted({row[-1] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(model)
found = tokenizer([row[0] for row in rows], truncation=True)
train = [
    {**{key: found[key][place] for key in found}, "labels": names.index(row[-1])} for place, row in enumerate(rows)
]


class Leave(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        sys.exit()


trainer = Trainer(
    model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(names)),
    args=TrainingArguments(
        output_dir="run",
        per_device_train_batch_size=int(batch_size),
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=train,
    data_collator=DataCollatorWithPadding(tokenizer),
    callbacks=[Leave()],
)
trainer.train()
