"""Whether `tunesmith rank` orders bases as fine-tuning them does. See README.md in this folder.

    python benchmarks/rank.py [--sets sst2,stsb] [--bases minilm,vectors] [--seeds 0,1] [--trial] [--dry]

Every base is ranked on the training rows of each set without being trained, and then fine-tuned on the same rows, full, at
the defaults. A run that the results file holds is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import RESULTS, ROOT, Reading, source_digest
from _kept import Results, add_stale, fingerprint
from _processes import THREADS, numbers, refuse_unknown, words
from _rank_made import BASES, SETS, Set, cut, made, write
from _rank_page import RANK, TUNED, page

HERE = Path(__file__).resolve()
NAME = "rank"
TRIAL = 60  # rows of each split
RANKING = {
    "selection",
    "ranking.py",
    "cli",
    "api.py",
    "__init__.py",
}  # files and folders of the package that no fine-tuning depends on
QUICK = {
    "evaluation.quick": True,
    "evaluation.baselines": False,
    "retention.measure": False,
    "evaluation.resamples": 1_000,
}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    for name in THREADS:
        os.environ[name] = str(asked.threads)
    results = Results(NAME, asked, source(), page)
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TUNESMITH_CACHE"] = str(folder / "cache")
        for of in (item for item in SETS if item.name in asked.sets):
            due = due_of(of, asked, results)
            for key in due:
                print(f"{' '.join(str(key[part]) for part in ('set', 'what', 'base', 'seed'))}", flush=True)
            if due and not asked.dry:
                do(of, due, folder, asked, results, failed)
    return results.end(failed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    sets, bases = [item.name for item in SETS], [item.name for item in BASES]
    parser.add_argument("--sets", type=words, default=sets, metavar="A,B")
    parser.add_argument("--bases", type=words, default=bases, metavar="A,B", help="that are fine-tuned; all are ranked")
    parser.add_argument("--seeds", type=numbers, default=[0], metavar="0,1", help="of the fine-tuning")
    parser.add_argument("--trial", action="store_true", help=f"on {TRIAL} rows a split, to see that it runs; not kept")
    parser.add_argument("--threads", type=int, default=1, help="of torch and others (default 1)")
    parser.add_argument("--again", action="store_true", help="do runs again that the results file holds")
    parser.add_argument("--dry", action="store_true", help="say what would run, and end")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data and weights")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of {NAME}.json and {NAME}.md")
    add_stale(parser)
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    asked.rows = TRIAL if asked.trial else 0
    refuse_unknown(parser, "--sets", asked.sets, sets)
    refuse_unknown(parser, "--bases", asked.bases, bases)
    return asked


def source() -> str:
    """Of what a fine-tuning is made of: the package without what ranks, and the rows."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        if not {path.parent.name, path.name} & RANKING:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return fingerprint(digest, HERE.parent, ("_rank_made.py", "_quality/data.py"))


def due_of(of: Set, asked: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """What is to be done on a set: the ranking of all bases at once, then every fine-tuning."""
    tuned = [
        {"set": of.name, "what": TUNED, "base": base.name, "seed": seed}
        for seed in asked.seeds
        for base in BASES
        if base.name in asked.bases
    ]
    # A ranking is cheap, so that it is done anew whenever the package changed.
    keys = [{"set": of.name, "what": RANK, "base": "", "seed": 0, "ranking": source_digest()}, *tuned]
    return [key for key in keys if not results.hold({**key, "threads": asked.threads})]


def do(
    of: Set,
    due: Sequence[Mapping[str, Any]],
    folder: Path,
    asked: argparse.Namespace,
    results: Results,
    failed: list[str],
) -> None:
    from tunesmith.errors import TunesmithError

    table = folder / f"{of.name}-rows"
    write(cut(of, asked.shared, asked.rows), table)
    bases = {base.name: made(base, folder, asked.shared) for base in BASES}
    for key in due:
        begun = Reading.now()
        try:
            found = (
                ranked(of, table, bases)
                if key["what"] == RANK
                else tuned(
                    of, table, bases[key["base"]], key["seed"], folder / f"{of.name}-{key['base']}-{key['seed']}"
                )
            )
        except TunesmithError as error:
            if key["what"] == RANK:
                failed.append(f"{of.name} {key['what']}: {error}")
                continue
            found = {"unfit": str(error)}
        spent = Reading.now().since(begun)
        found |= {"cpu_seconds": round(spent.cpu, 1), "cores_of_others": round(spent.others, 2)}
        results.put({**key, "threads": asked.threads}, found, ("set", "what", "base", "seed"))
        print(f"  {told(found)}; {spent.cpu:.0f} CPU seconds", flush=True)


def ranked(of: Set, table: Path, bases: Mapping[str, Path]) -> dict[str, Any]:
    """What `tunesmith rank` says of all bases, by the names that they have here."""
    from tunesmith.ranking import rank_bases

    found = rank_bases(recipe(of, table, bases["minilm"], 0), [str(folder) for folder in bases.values()])
    names = {str(folder): name for name, folder in bases.items()}
    kept = ("linear", "probe", "depths", "nearest", "logme", "h_score", "cpu_seconds", "cpu_seconds_in_all")
    return {
        "metric": found["metric"],
        "rows": found["rows"],
        "bases": {names[base["name"]]: {score: base[score] for score in kept} for base in found["bases"]},
        "refused": {names[item["name"]]: item["problems"] for item in found["refused"]},
        "alike": [names[name] for name in found["alike"]],
        "warnings": len(found["warnings"]),
    }


def tuned(of: Set, table: Path, base: Path, seed: int, out: Path) -> dict[str, Any]:
    """A full fine-tuning at its defaults, measured on the test rows."""
    from tunesmith import finetune

    run = finetune(str(base), table, "full", task=of.task, settings={**QUICK, **of.settings}, seed=seed, out=out)
    report = run.report
    metric = report["verdict"]["metric"] if "metric" in report["verdict"] else next(iter(report["metrics"]))
    return {"metric": metric, **report["metrics"][metric], "rows_tested": report["rows_tested"]}


def recipe(of: Set, table: Path, base: Path, seed: int) -> Any:
    from tunesmith.recipe import Recipe, set_key

    data = {"path": str(table)}
    plain: dict[str, Any] = {"model": str(base), "data": data, "method": "full", "task": of.task, "seed": seed}
    for key, value in of.settings.items():
        set_key(plain, key, value)
    return Recipe.parse(plain)


def told(found: Mapping[str, Any]) -> str:
    if "unfit" in found:
        return f"does not fit: {found['unfit']}"
    if "bases" in found:
        return ", ".join(f"{name} {of['linear']['value']:.3f}" for name, of in found["bases"].items())
    return f"{found['metric']} {found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


if __name__ == "__main__":
    raise SystemExit(main())
