"""Results that are kept: which of the file's runs still hold, and the file written anew after each run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import commit, environment, write_results

Plain = dict[str, Any]
APART = ("cores",)  # of a machine: a run kept to one core is the same with one thread
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
    return all(name in run and run[name] == value for name, value in key.items())


class Results:
    """The runs of a results file, and the file; in a trial on few rows there is none.

    A run of an earlier source counts as measured, and is marked on the page, unless --stale or --again ask for it anew.
    """

    def __init__(
        self, name: str, asked: argparse.Namespace, source: str, page: Callable[[Plain, str], Sequence[str]]
    ) -> None:
        """`page`: Markdown lines of results, of which those of another source than `source` are marked."""
        now = environment()
        now["machine"]["torch_threads"] = asked.threads
        self.plain: Plain = {"schema": 1, "environment": now, "runs": []}
        self._name, self._asked, self._source, self._page = name, asked, source, page
        if not asked.rows:
            self.plain["runs"] = earlier_runs(asked.out / f"{name}.json", self.plain, APART)

    @property
    def runs(self) -> list[Plain]:
        return self.plain["runs"]

    def hold(self, key: Mapping[str, Any]) -> bool:
        """Whether a run is there that need not be done again."""
        found = next((run for run in self.runs if same(run, key)), None)
        if found is None or self._asked.again:
            return False
        return not (self._asked.stale and found["source"] != self._source)

    def put(self, key: Mapping[str, Any], result: Mapping[str, Any], which: Sequence[str]) -> None:
        """In the place of the run that is the same in `which`; the file is written, so that a stop loses one at most."""
        replaced = {name: key[name] for name in which}
        kept = [run for run in self.runs if not same(run, replaced)]
        self.plain["runs"] = [*kept, {**key, "source": self._source, "commit": commit(), **result}]
        self._write(self._page(self.plain, self._source))

    def end(self, failed: Sequence[str]) -> int:
        """Prints the page and what failed; the exit status."""
        if not self._asked.dry:
            lines = self._page(self.plain, self._source)
            self._write(lines)
            print("\n".join(lines))
        for name in failed:
            print(f"{name}: failed, see above", flush=True)
        return 1 if failed else 0

    def _write(self, lines: Sequence[str]) -> None:
        if not self._asked.rows:
            write_results(self._asked.out, self._name, self.plain, lines)


def add_stale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stale", action="store_true", help="do runs again that are of an earlier source")


def fingerprint(digest: Any, folder: Path, names: Sequence[str]) -> str:
    """12 hexadecimal digits of what `digest` holds already, and of the named files."""
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
