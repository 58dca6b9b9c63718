"""Results that are kept: which of the file's runs still hold, and the file written anew after each run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

Plain = dict[str, Any]
ORIGIN = ("machine", "versions")  # of an environment: runs that differ in these do not share a table


def earlier_runs(path: Path, new: Plain, apart: Collection[str] = ()) -> list[Plain]:
    """The runs of a results file of this machine and these versions; of another one none, and a word on that.

    apart: what may differ of a machine's description, since it says how a process was started and not where.
    """
    if not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))

    def origin(environment: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {name: value for name, value in environment[key].items() if name not in apart}

    differs = [key for key in ORIGIN if origin(earlier["environment"], key) != origin(new["environment"], key)]
    differs += ["schema"] if earlier["schema"] != new["schema"] else []
    if differs:
        print(
            f"{path}: its {len(earlier['runs'])} runs are of another {', '.join(differs)}, and are left out", flush=True
        )
        return []
    return earlier["runs"]


def same(run: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    return all(run[name] == value for name, value in key.items())
