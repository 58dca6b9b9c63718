"""Finished runs beside each other: on the same test rows, as a statistician would."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.errors import ArtifactError, DataError
from tunesmith.evaluation.groups import groups_tested
from tunesmith.evaluation.intervals import Interval, Pairwise, compare_all
from tunesmith.evaluation.kept_scores import SCORES, read_scores, read_strata
from tunesmith.evaluation.significance import holm, luck
from tunesmith.evidence.folds import pooled
from tunesmith.folding import FOLDER
from tunesmith.predictor import Card
from tunesmith.runs import Run, check_there
from tunesmith.tasks._tokens import TOKEN_METRICS
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1  # of what --json prints; raised when a key changes its meaning or goes away
EXAMPLES = 30  # rows shown on which the runs disagree
SHOWN = 300  # characters of a text
ROWS = Path("predictions") / "test.parquet"


@dataclass(frozen=True)
class Side:
    """One run, as its folder has it."""

    name: str
    report: Mapping[str, Any]
    scores: Scores
    keys: Sequence[str]  # of each test row: the same in two runs where text and target are
    texts: Sequence[str]
    truth: Sequence[str]
    said: Sequence[str]
    labels: tuple[str, ...]
    strata: np.ndarray | None  # of each test row, where they were drawn by class
    tested: int  # rows, whether others have them or not
    folds: tuple[int, int] | None  # of how many the rows are there, and of how many they should be; None without folds


def compare_runs(folders: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """Plain data: the runs' figures on the test rows that all have, and each pair's difference with interval and p.

    Intervals cover what the first run's do, and know as they do whether the rows were drawn by class. p is by McNemar's exact
    test for metrics that count hits, else by permutation, both paired. Both are told alone and corrected for the number of
    pairs: p by Holm ("adjusted"), intervals so that all of them hold at once ("together"; `intervals.compare_all`). Where a
    run kept which test rows are of one group, whole groups are drawn and swapped for all runs. Of runs with folds the rows of
    all folds are compared, in the primary metric alone (`evidence.folds.pooled`).

    Raises ArtifactError for what is no finished run, and DataError where the runs cannot be compared: fewer than two,
    another task's metric or labels, no common row.
    """
    sides = _read(folders)
    _check(sides)
    sides, shared = _on_common_rows(sides)
    first = sides[0]
    confidence = first.report["confidence"]
    resamples = first.report["recipe"]["evaluation"]["resamples"]
    primary = first.scores.primary
    metrics = [name for name in first.scores.metrics if _comparable(name, sides)]
    if primary not in metrics:
        raise DataError(
            f"{primary}: cannot be compared on these rows: the runs count other rows or other tokens, or none of them; "
            "compare runs of one base, measured on the same rows"
        )
    strata = _strata(sides)
    found = compare_all({side.name: side.scores for side in sides}, metrics, resamples, confidence, seed, strata)
    return {
        "schema": SCHEMA,
        "primary": primary,
        "left_out": [name for name in first.scores.metrics if name not in metrics],
        "lower": sorted(first.scores.lower),
        "confidence": confidence,
        "level": found.level,
        "stratified": strata is not None,
        "rows": shared,
        "groups": groups_tested(first.scores),
        "rows_of": {side.name: side.tested for side in sides},
        "folds": {side.name: list(side.folds) for side in sides if side.folds is not None},
        "runs": [_of_run(side, found.metrics[side.name]) for side in sides],
        "pairs": _pairs(sides, found, seed),
        "disagreements": _disagreements(sides),
        "settings": _settings(sides),
    }


def _read(folders: Sequence[Path]) -> list[Side]:
    if len(folders) < 2:
        raise DataError("compare: give two runs or more, such as: tunesmith compare runs/a runs/b")
    problems, sides = [], []
    names = _names(folders)
    for folder, name in zip(folders, names, strict=True):
        try:
            sides.append(_side(folder, name))
        except ArtifactError as error:
            problems += error.problems
    if problems:
        raise ArtifactError(*problems)
    return sides


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with those above them where these are not enough to tell them apart."""
    whole = [folder.resolve() for folder in folders]
    twice = [str(path) for path, count in Counter(whole).items() if count > 1]
    if twice:
        raise DataError(f"{', '.join(twice)}: is named twice; give each run once")
    for depth in itertools.count(1):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("unreachable: whole paths differ")


def _side(folder: Path, name: str) -> Side:
    """One run; of one with folds all the rows that these tested, each as the model of its fold says it."""
    check_there(folder)
    report = Run(folder).report
    if not report["metrics"]:
        raise ArtifactError(f"{folder}: was not measured on test rows; hold some out with data.test and train it again")
    card = Card.read(folder / "model")
    if not (folder / SCORES).is_file():
        raise ArtifactError(f"{folder / SCORES}: is not there; a run of an earlier version has to be trained again")
    numbers = [item["fold"] for item in report["evidence"].get("folds", {}).get("folds", ())]
    others = [folder / FOLDER / str(number) for number in numbers]
    parts = [folder, *(other for other in others if (other / SCORES).is_file())]
    read = [read_scores(part / SCORES, lambda columns: card.task.functions(columns, card.labels)) for part in parts]
    scores = pooled(read) if len(read) > 1 else read[0]
    said = _joined([_rows(part / ROWS) for part in parts])
    strata = read_strata(folder / SCORES) if len(parts) == 1 else None
    folds = (len(parts), len(numbers)) if numbers else None
    return Side(name, report, scores, *said, card.labels.names, strata, len(said.keys), folds)


class _Said(NamedTuple):
    """Of each test row; see `Side`."""

    keys: list[str]
    texts: list[str]
    truth: list[str]
    said: list[str]


def _rows(path: Path) -> _Said:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pydict()
    texts = [
        text if pair is None else f"{text}  |  {pair}"
        for text, pair in zip(rows["text"], rows.get("pair", [None] * len(rows["text"])), strict=True)
    ]
    truth = ["" if item is None else str(item) for item in rows["truth"]]
    fixed = ("row", "line", "text", "pair", "truth")
    told = next((key for key in rows if key not in fixed and ":" not in key), None)
    said = [""] * len(texts) if told is None else [str(item) for item in rows[told]]
    return _Said([], texts, truth, said)


def _joined(parts: Sequence[_Said]) -> _Said:
    """All parts one after the other, with keys."""
    texts, truth, said = ([item for part in parts for item in part[place]] for place in (1, 2, 3))
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for pair in zip(texts, truth, strict=True):
        seen[pair] += 1
        keys.append("\x1f".join((*pair, str(seen[pair]))))
    return _Said(keys, texts, truth, said)


def _check(sides: Sequence[Side]) -> None:
    """Raises DataError with everything that keeps the runs from being compared."""
    first, problems = sides[0], []
    for other in sides[1:]:
        if other.scores.primary != first.scores.primary:
            problems.append(
                f"{other.name}: is judged by {other.scores.primary} (task {other.report['task']}), and {first.name} by "
                f"{first.scores.primary} (task {first.report['task']}); compare runs of one task"
            )
        elif other.labels != first.labels:
            problems.append(f"{other.name}: knows other labels than {first.name}; compare runs on the same data")
    if problems:
        raise DataError(*problems)


def _on_common_rows(sides: Sequence[Side]) -> tuple[list[Side], int]:
    """The same sides with the rows that all of them were tested on, in the first one's order."""
    import numpy as np

    common = set(sides[0].keys).intersection(*(side.keys for side in sides[1:]))
    if not common:
        raise DataError(
            "the runs have no test row in common, so nothing can be compared; train them on the same data with the same "
            "seed, or give a test file of its own"
        )
    order = [key for key in sides[0].keys if key in common]
    first = [row for row, key in enumerate(sides[0].keys) if key in common]
    taken = []
    for side in sides:
        place = {key: row for row, key in enumerate(side.keys)}
        rows = [place[key] for key in order]
        taken.append(
            replace(
                side,
                scores=_with_truth(side.scores.take(np.array(rows)), sides[0].scores.take(np.array(first))),
                keys=order,
                texts=[side.texts[row] for row in rows],
                truth=[side.truth[row] for row in rows],
                said=[side.said[row] for row in rows],
                strata=None if side.strata is None else side.strata[rows],
            )
        )
    # Not every run kept the groups of its rows, although the rows are the same.
    groups = next((side.scores.groups for side in taken if side.scores.groups is not None), None)
    return [replace(side, scores=replace(side.scores, groups=groups)) for side in taken], len(order)


def _strata(sides: Sequence[Side]) -> list[int] | None:
    """The class for which each row was drawn; None where some run has other rows: then those shared were not drawn so.

    And where whole groups are drawn, which knows no classes.
    """
    first = sides[0].strata
    whole = all(len(side.keys) == side.tested and side.strata is not None for side in sides)
    return first.tolist() if whole and first is not None and sides[0].scores.groups is None else None


def _comparable(metric: str, sides: Sequence[Side]) -> bool:
    """Whether all runs measure it, of the same rows (some), and of the same tokens where it counts tokens."""
    import numpy as np

    if any(metric not in side.scores.metrics for side in sides):
        return False
    first = sides[0].scores
    same = all(
        np.array_equal(first.rows_of.get(metric, True), side.scores.rows_of.get(metric, True)) for side in sides[1:]
    )
    if not same or not len(first.of(metric)["truth"]):
        return False
    tokens = [side.scores.columns.get("tokens") for side in sides]
    if metric in TOKEN_METRICS and metric != "bits_per_byte":
        return all(np.array_equal(tokens[0], one) for one in tokens[1:] if one is not None and tokens[0] is not None)
    return True


def _with_truth(scores: Scores, first: Scores) -> Scores:
    """With the first run's column of truth: the rows are the same, but where only their numbers are told, these differ."""
    return replace(scores, columns={**scores.columns, "truth": first.columns["truth"]})


def _of_run(side: Side, found: Mapping[str, Interval]) -> dict[str, Any]:
    report = side.report
    return {
        "name": side.name,
        **{key: report[key] for key in ("task", "model", "method", "seed")},
        "metrics": {name: asdict(interval) for name, interval in found.items()},
        "cost": report["cost"],
        "curves": report["curves"],
    }


def _pairs(sides: Sequence[Side], found: Pairwise, seed: int) -> list[dict[str, Any]]:
    """Every two runs: the later less the earlier in each metric, more being better whatever the metric.

    There are as many permutations as resamples: with fewer the least p that there can be, times the pairs, is no small one.
    """
    primary, scores = sides[0].scores.primary, {side.name: side.scores for side in sides}
    sides_of = {side.name: side for side in sides}
    ps = {f"{a}\x1f{b}": luck(scores[b], scores[a], primary, found.resamples, seed) for b, a in found.differences}
    adjusted = holm(ps)
    return [
        {
            "from": a,
            "to": b,
            "differing": _differing(sides_of[a], sides_of[b]),
            "p": ps[key],
            "adjusted": adjusted[key],
            "differences": {name: asdict(item.alone) for name, item in of_pair.items()},
            "together": {name: asdict(item.together) for name, item in of_pair.items()},
        }
        for ((b, a), of_pair), key in zip(found.differences.items(), ps, strict=True)
    ]


def _differing(a: Side, b: Side) -> int:
    """Rows with different answers; of runs that say none, with different figures."""
    import numpy as np

    if any(a.said) or any(b.said):
        return sum(map(str.__ne__, a.said, b.said))
    unlike = np.zeros(len(a.keys), dtype=bool)
    for name in a.scores.each.keys() & b.scores.each.keys():
        one, other = (np.asarray(side.scores.each[name]) for side in (a, b))
        unlike |= ~np.isclose(one, other, rtol=0, atol=0, equal_nan=True)
    return int(unlike.sum())


def _disagreements(sides: Sequence[Side]) -> dict[str, Any]:
    """How many rows get different answers, and those on which the runs' own measures of the row are furthest apart."""
    rows = range(len(sides[0].keys))
    differing = [row for row in rows if len({side.said[row] for side in sides}) > 1]
    measure = next(iter(sides[0].scores.each), None)
    apart = _apart(sides, measure)
    chosen = sorted(differing, key=lambda row: (-apart[row], row))[:EXAMPLES]
    return {
        "count": len(differing),
        "measure": measure,
        "examples": [
            {
                "text": sides[0].texts[row][:SHOWN],
                "truth": sides[0].truth[row],
                "said": {side.name: side.said[row] for side in sides},
            }
            for row in chosen
        ],
    }


def _apart(sides: Sequence[Side], measure: str | None) -> np.ndarray:
    """[rows] how far the best and the worst run's measure of a row are from each other; 0 without a measure."""
    import numpy as np

    if measure is None or any(measure not in side.scores.each for side in sides):
        return np.zeros(len(sides[0].keys))
    of_each = np.stack([side.scores.each[measure] for side in sides])
    return np.nan_to_num(of_each.max(axis=0) - of_each.min(axis=0))


def _settings(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """Keys of the recipes, as they were worked out, in which the runs differ."""
    flat = {side.name: _flat(side.report["recipe"]) | _derived(side.report) for side in sides}
    keys = sorted({key for settings in flat.values() for key in settings})
    found = [{"key": key, "values": {name: flat[name].get(key, "") for name in flat}} for key in keys]
    return [item for item in found if len(set(item["values"].values())) > 1]


def _derived(report: Mapping[str, Any]) -> dict[str, str]:
    return {item["key"]: str(item["value"]) for item in report["derived"]}


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found
