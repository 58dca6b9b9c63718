"""What a training run imports before its first step, and that nothing of what it left for later is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Folder = Callable[[str], Path]

# Of the names that `sys.modules` may hold after the first step, none of these: each takes tenths of a CPU second.
NOT_YET = (
    "scipy",
    "sklearn",
    "pandas",
    "pyarrow",
    "datasets",
    "torchvision",
    "onnxruntime",
    "sentence_transformers",
    "peft",
)

FIRST_STEP = """
import json, sys
import tunesmith
from tunesmith.training.events import StepDone

def listen(event):
    if isinstance(event, StepDone):
        print(json.dumps([event.step, sorted(sys.modules)]))
        sys.exit()

model, table, settings, out = sys.argv[1:]
tunesmith.finetune(model, table, "full", settings=json.loads(settings), out=out, listen=listen)
"""

MATCHED = """
import sys
from tunesmith.models.transformers_import import import_transformers

import_transformers()
assert "scipy.optimize" not in sys.modules, "imported with transformers"
from transformers.loss import loss_for_object_detection

rows, columns = loss_for_object_detection.linear_sum_assignment([[4.0, 1.0], [2.0, 9.0]])
import scipy.optimize

assert type(scipy.optimize) is type(sys), "the stand-in is still there"
assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
rows, columns = loss_for_object_detection.linear_sum_assignment([[4.0, 1.0], [2.0, 9.0]], maximize=True)
assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])
assert scipy.optimize.minimize_scalar(lambda x: (x - 2) ** 2).x
"""

ASKED_MEANWHILE = """
import sys
from tunesmith.models import transformers_import

with transformers_import._matching_later():
    from scipy.optimize import minimize_scalar  # as another thread may
    from scipy.optimize import linear_sum_assignment
assert type(sys.modules["scipy.optimize"]) is type(sys)
assert abs(minimize_scalar(lambda x: (x - 2) ** 2).x - 2) < 1e-6
assert linear_sum_assignment is sys.modules["scipy.optimize"].linear_sum_assignment
"""


def python(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_without_proof_imports_little_before_its_first_step(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    proof = {"evaluation.quick": True, "evaluation.baselines": False, "retention.measure": False}
    settings = {**proof, "training.device": "cpu"}
    words = [str(model_folder("bert")), str(table_file), json.dumps(settings), str(tmp_path / "run")]
    step, modules = json.loads(python(FIRST_STEP, *words).splitlines()[-1])
    assert step == 1
    found = {name.partition(".")[0] for name in modules}
    assert "transformers.modeling_utils" in modules, "a control: names are told as they are imported"
    assert not found & set(NOT_YET), f"imported before the first step: {sorted(found & set(NOT_YET))}"
    families = {
        name.split(".")[2] for name in modules if name.startswith("transformers.models.") and "modeling" in name
    }
    assert families <= {"bert", "auto"}, "architectures beside the one in use"


@pytest.mark.parametrize("code", [MATCHED, ASKED_MEANWHILE], ids=["called", "asked meanwhile"])
def test_what_was_left_for_later_is_imported_when_it_is_used(code: str) -> None:
    python(code)


def test_what_transformers_offers_is_the_same_when_its_files_are_read_once() -> None:
    import transformers
    from transformers.utils import import_utils

    from tunesmith.models.transformers_import import structure_of

    models = Path(transformers.__file__).parent / "models"
    scan = import_utils.define_import_structure
    found = structure_of(scan, models)
    assert found == scan.__wrapped__(str(models / "__init__.py"))
    assert "modeling_bert" in str(sorted(name for files in found.values() for name in files))


def test_garbage_is_collected_again_after_an_import() -> None:
    import gc

    from tunesmith.memory import importing

    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        assert not gc.isenabled()
        raise ImportError
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled(), "who has switched it off has chosen"
    finally:
        gc.enable()
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        with importing():
            pass
        # Some of them die meanwhile, for nothing holds them any more.
        assert gc.get_freeze_count() > before // 2 > 0, "what somebody froze stays so"
    finally:
        gc.unfreeze()
