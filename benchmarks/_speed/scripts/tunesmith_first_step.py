"""A run of Tunesmith up to its first optimizer step: MODEL TABLE SETTINGS, the last as JSON."""

import json
import sys

import tunesmith
from tunesmith.training.events import StepDone


def listen(event):
    if isinstance(event, StepDone):
        sys.exit()


model, table, settings = sys.argv[1:]
tunesmith.finetune(model, table, "full", settings=json.loads(settings), out="run", listen=listen)
