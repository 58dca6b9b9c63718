"""A whole run of Tunesmith: MODEL TABLE METHOD SETTINGS, the last as JSON."""

import json
import sys

import tunesmith

model, table, method, settings = sys.argv[1:]
tunesmith.finetune(model, table, method, settings=json.loads(settings), out="run")
