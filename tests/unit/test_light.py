"""Importing the package and asking for help load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tunesmith

HEAVY = ("torch", "transformers", "sklearn", "pydantic", "numpy", "pyarrow", "scipy", "pandas")
REPORT = "import sys; print(sorted(name for name in {} if name in sys.modules))"


def _heavy_after(program: str, words: tuple[str, ...] = HEAVY) -> str:
    """What of HEAVY a fresh interpreter holds after `program`: its last line of output."""
    code = f"import sys\nsys.path.insert(0, {str(Path(tunesmith.__file__).parents[1])!r})\n{program}\n"
    code += REPORT.format(words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


HELP = """
sys.argv = ["tunesmith", {arguments}]
from tunesmith.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "program",
    [
        "import tunesmith",
        "import tunesmith; dir(tunesmith); tunesmith.TunesmithError",
        HELP.format(arguments="'--help'"),
    ],
    ids=["import", "errors", "help"],
)
def test_nothing_heavy_is_loaded(program: str) -> None:
    assert _heavy_after(program) == "[]"


@pytest.mark.parametrize("verb", ["train", "predict"])
def test_help_of_a_verb_reads_the_recipe_at_most(verb: str) -> None:
    words = tuple(name for name in HEAVY if name != "pydantic")
    assert _heavy_after(HELP.format(arguments=f"'{verb}', '--help'"), words) == "[]"


def test_control_a_heavy_import_is_seen() -> None:
    assert _heavy_after("import pydantic") == "['pydantic']"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        tunesmith.fine_tune  # noqa: B018
    assert {"finetune", "load", "resume", "evaluate"} <= set(dir(tunesmith))
