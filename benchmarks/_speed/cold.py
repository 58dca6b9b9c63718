"""One script in a process of its own, from a cold start: CPU and wall seconds and peak memory of all of it.

Run as a script this is the process in between, which imports little: of what one starts, the system counts the starter's
memory as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SCRIPTS = HERE.parent / "scripts"
OUTCOME = "outcome.json"  # what a script may write in the folder it is run in


def cold(name: str, words: Sequence[str], threads: int) -> dict[str, Any]:
    """Runs scripts/NAME.py in an empty folder: clocks, `peak_mb`, and what it wrote to OUTCOME.

    Raises SystemExit with what it printed where it failed.
    """
    command = [sys.executable, str(HERE), str(threads), str(SCRIPTS / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def ready(
    name: str, words: Sequence[str], threads: int, then: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> Callable[[], Callable[[], dict[str, Any]]]:
    """As a turn takes it; `then` makes its facts of what was found."""
    return lambda: lambda: then(cold(name, words, threads))


def main(words: Sequence[str]) -> None:
    sys.path.insert(0, str(HERE.parents[1]))
    from _common import Reading
    from _processes import watched

    threads, script, *rest = words
    with tempfile.TemporaryDirectory() as folder:
        begun = Reading.now()
        peak = watched([sys.executable, script, *rest], Path(script).stem, Path(folder), int(threads))
        spent = Reading.now().since(begun)
        outcome = Path(folder) / OUTCOME
        found = json.loads(outcome.read_text(encoding="utf-8")) if outcome.exists() else {}
    clocks = {"cpu_seconds": round(spent.cpu, 3), "wall_seconds": round(spent.wall, 3)}
    print(json.dumps({**clocks, "cores_of_others": round(spent.others, 2), "peak_mb": round(peak / 1e6, 1), **found}))


if __name__ == "__main__":
    main(sys.argv[1:])
