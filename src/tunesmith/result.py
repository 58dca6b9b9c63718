"""What the run was worth: the delivered model on the test rows, against baselines, with intervals and a verdict."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import __version__
from tunesmith.auditing.running import leaked
from tunesmith.data.findings import Finding
from tunesmith.data.split import strata_of_test
from tunesmith.data.stored import StoredExamples
from tunesmith.data.units import groups_of_rows
from tunesmith.evaluation.advising import told_beside
from tunesmith.evaluation.baselines.base import Baseline, Part, measure_baseline
from tunesmith.evaluation.cost import (
    Cost,
    beside_of,
    carbon_of,
    cost_lines,
    delivered_of,
    energy_of,
    evidence_of,
    money_of,
    phases_of,
)
from tunesmith.evaluation.groups import grouped, groups_tested
from tunesmith.evaluation.intervals import Comparison, compare
from tunesmith.evaluation.kept_scores import RIVALS, write_scores
from tunesmith.evaluation.overfitting import gap_between, overfitting
from tunesmith.evaluation.predictions import write_predictions
from tunesmith.evaluation.report import (
    EvaluationPoint,
    LossPoint,
    Outcome,
    Split,
    build_report,
    write_report,
)
from tunesmith.evaluation.terminal import result_lines, result_table
from tunesmith.evaluation.verdict import PROBE, SCRATCH, Verdict, judge
from tunesmith.evaluation.wording import cut_answers, figures, metric_title, rows_of
from tunesmith.evidence.base import Course, Measured, Subject
from tunesmith.evidence.folds import over_folds
from tunesmith.evidence.gathering import gather
from tunesmith.phases import BASELINES, KNOWN_AFTER, Phases
from tunesmith.preparing import SPLITS
from tunesmith.recipe import Recipe
from tunesmith.retention.sweep import keeps, limiting
from tunesmith.seeds import seed_of
from tunesmith.seen import write_seen
from tunesmith.spending import Spending, joules_of, time_of, times_of
from tunesmith.training.events import Evaluated, Event, Note, StepDone
from tunesmith.training.ledger import Ledger
from tunesmith.unmeasured import advice_note, report_unmeasured

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.delivery import Delivered
    from tunesmith.models.network import Network
    from tunesmith.predictor import Predictor
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.tasks.base import Labels, Prediction, Scores

LOSS = "loss"  # a token, in nats
MOST_COMPARED = 500  # training rows that the model is measured on beside the test rows
NEARNESS = "rouge_l"  # the metric by which written texts are compared with those of rivals


def rows_to_measure(prepared: Prepared) -> int:
    """How many rows the delivered model will predict."""
    test = len(prepared.splits.test)
    return len(prepared.splits.validation) + test + compared_rows(len(prepared.splits.train), test)


def compared_rows(train: int, test: int) -> int:
    """How many training rows the delivered model predicts, to see how much better it is on these."""
    return min(train, test, MOST_COMPARED)


def measure_result(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    built: Built,
    delivered: Delivered,
    ledger: Ledger,
    spending: Spending,
) -> Iterator[Event]:
    """Writes predictions/, report.json and report.html, and gives the verdict."""
    predictor, opens = delivered.predictor, delivered.opens
    run, labels, task = ledger.folder, predictor.card.labels, prepared.task
    write_seen(run, prepared.texts("train"))
    held = _predict_split("validation", prepared, predictor, run, delivered.held)
    test = _predict_split("test", prepared, predictor, run)
    losses, evaluations, best = _curves(ledger)
    best = None if built.delivered else best
    course = _course(built, losses, evaluations, best)
    if test is None:
        cost = _cost(recipe, prepared, built, predictor, spending)
        yield from report_unmeasured(recipe, prepared, encoded, built, ledger, opens, cost, course, held)
        return
    found, scores, truth = test.predictions, test.scores, test.truth
    baselines = baselines_of(recipe, prepared, encoded, built, spending.phases)
    for item in baselines:
        write_scores(run / RIVALS / f"{item.name}.safetensors", item.scores)
    comparison = _compared(recipe, prepared, scores, baselines)
    with spending.phases.phase(KNOWN_AFTER):
        retained = _of_the_model(recipe, prepared, built, delivered, scores, baselines, evaluations)
    subject = _subject(recipe, prepared, built, labels, test, held, baselines, course)
    gathered = gather(subject)
    evidence = [finding for item in gathered.values() for finding in item.findings]
    beside = [line for item in gathered.values() for line in item.said]
    cost = _cost(recipe, prepared, built, predictor, spending)
    verdict = _judged(subject, comparison, cost, _unchanged(built, recipe, len(losses), best))
    outcome = Outcome(
        version=__version__,
        name=run.name,
        task=prepared.task.part_name(),
        pipeline_tag=prepared.task.pipeline_tag,
        model=recipe.model,
        method=recipe.method_name,
        seed=recipe.seed,
        confidence=recipe.evaluation.confidence,
        data=recipe.data.path,
        unexamined=built.unexamined,
        splits=[Split(name, len(prepared.table(name)), prepared.splits.why.get(name, "")) for name in SPLITS],
        scores=scores,
        labels=labels,
        views=task.views,
        worst=task.worst,
        truth_is=task.truth_is,
        mistakes=[task.mistake(item, true, labels) for item, true in zip(found, truth, strict=True)],
        texts=[task.readable(text) for text in prepared.texts("test")],
        places=[prepared.splits.test.place(row) for row in range(len(found))],
        comparison=comparison,
        baselines=baselines,
        uncompared=built.uncompared,
        verdict=verdict,
        cost=cost,
        opens=opens,
        derived=built.derived,
        findings=[*prepared.findings, *encoded.findings, *built.audit, *retained, *evidence],
        evidence={name: item.data for name, item in gathered.items()},
        beside=beside,
        beside_of=[name for name, item in gathered.items() for _ in item.said],
        recipe=ledger.recipe().to_plain(),
        manifest=ledger.manifest(),
        losses=losses,
        evaluations=evaluations,
        best_step=best,
        shares=None if built.sweep is None else asdict(built.sweep),
    )
    report = build_report(outcome)
    write_report(report, run)
    of_model = (finding.message for finding in retained)
    yield Note("verdict", (verdict.paragraph, *of_model, *(line for _, line in told_beside(report))))
    beneath = (*_of_a_sample(scores, len(found)), *_of_one_fold(subject))
    yield Note("result", (*result_lines(report)[2:], *beneath), result_table(report))
    yield from (Note("cost", cost_lines(cost)), Note("model", (f"{run / 'model'} {opens}",)), advice_note(report))


def _of_the_model(
    recipe: Recipe,
    prepared: Prepared,
    built: Built,
    delivered: Delivered,
    scores: Scores,
    baselines: list[Baseline],
    evaluations: list[EvaluationPoint],
) -> list[Finding]:
    """Findings that are told with the verdict."""
    return [
        *_copied(recipe, prepared, scores, baselines),
        *_overfitting(recipe, prepared, delivered.predictor, scores, evaluations),
        *_retained(recipe, built, delivered.whole),
        *_nearer(scores, baselines),
        *_surer(scores, baselines),
        *grouped(scores, prepared.columns.group),
    ]


def _copied(recipe: Recipe, prepared: Prepared, scores: Scores, baselines: list[Baseline]) -> list[Finding]:
    """What copies of training rows do to the score; the probe, which a head alone is as well, is no rival of that method."""
    own = {PROBE} if recipe.method_name == "head" else set()
    return leaked(recipe, prepared, scores, [item for item in baselines if item.name not in own])


def _course(built: Built, losses: list[LossPoint], evaluations: list[EvaluationPoint], best: int | None) -> Course:
    pretrained = built.network.pretrained and not built.redrawn
    return Course(losses, evaluations, built.training, built.usual, built.travel, best, pretrained)


def _subject(
    recipe: Recipe,
    prepared: Prepared,
    built: Built,
    labels: Labels,
    test: Measured,
    held: Measured | None,
    baselines: list[Baseline],
    course: Course,
) -> Subject:
    return Subject(
        recipe=recipe,
        task=prepared.task,
        labels=labels,
        train=prepared.table("train"),
        label=prepared.columns.label,
        test=test,
        validation=held,
        frozen=built.frozen,
        baselines=baselines,
        course=course,
        folds=built.folds,
        repeats=built.repeats,
        curve=built.curve,
        ladder=built.ladder,
        pooled=over_folds(recipe, test.scores, baselines, built.folds),
    )


def _compared(recipe: Recipe, prepared: Prepared, scores: Scores, baselines: list[Baseline]) -> Comparison:
    """Beside the baselines, with intervals that know how the test rows were held out."""
    strata = strata_of_test(prepared.splits, prepared.columns, prepared.target)
    others, chosen = {item.name: item.scores for item in baselines}, recipe.evaluation
    return compare(scores, others, chosen.resamples, chosen.confidence, recipe.seed, strata)


def _judged(subject: Subject, comparison: Comparison, cost: Cost, unchanged: str) -> Verdict:
    """Over all folds, where there are folds."""
    recipe = subject.recipe
    scores = subject.test.scores
    if subject.pooled is not None:
        scores, comparison = subject.pooled.scores, subject.pooled.comparison
    metric, rows = scores.primary, len(scores.columns["truth"])
    return judge(
        metric,
        comparison.metrics[metric],
        comparison.of_baselines(metric),
        comparison.gains,
        comparison.tests,
        cost,
        rows,
        recipe.method_name,
        confidence=recipe.evaluation.confidence,
        counted=metric in scores.shares,
        lower=metric in scores.lower,
        unchanged=unchanged,
        groups=groups_tested(scores),
    )


def _unchanged(built: Built, recipe: Recipe, steps: int, best: int | None) -> str:
    """Why what is delivered is the base as it was before the first step; "" where it is not."""
    if not built.network.pretrained or recipe.training.redraw:
        return ""
    if steps == 0:
        return "no step was done"
    return "no later state was better on the validation rows than the one before the first step" if best == 0 else ""


def _of_one_fold(subject: Subject) -> list[str]:
    """That the table is not what the verdict is over."""
    if subject.pooled is None:
        return []
    own, whole = (len(scores.columns["truth"]) for scores in (subject.test.scores, subject.pooled.scores))
    return [
        f"of the delivered model on its own {rows_of(own, 'test row')}; the verdict is over all {whole:,} rows of the folds"
    ]


def _of_a_sample(scores: Scores, rows: int) -> list[str]:
    """Which metrics are of written texts, and of how many rows."""
    names = ", ".join(metric_title(name) for name in scores.written)
    counts = set(scores.written.values())
    if not counts:
        return []
    going = int(scores.columns["going"].sum()) if "going" in scores.columns else 0
    full = int(scores.columns["full"].sum()) if "full" in scores.columns else 0
    cut = f"; {cut_answers(going, full)}" if going else ""
    return [f"{names}: of the answers written for {max(counts):,} of the {rows:,} test rows{cut}"]


def _retained(recipe: Recipe, built: Built, network: Network | None) -> list[Finding]:
    """What became of what the base knew, and whether a budget is kept; none where nothing was measured before."""
    if network is None:
        return []
    budget, limits = recipe.retention.budget, limiting(built.meters)
    readings = {id(meter): meter.read(network) for meter in built.meters}
    found = [
        Finding("retention", meter.rows, reading.said, (), numbers={"lost": reading.lost})
        for meter, reading in ((meter, readings[id(meter)]) for meter in built.meters)
    ]
    if budget is not None and limits:
        worst = max(limits, key=lambda meter: readings[id(meter)].lost)
        lost = readings[id(worst)].lost
        share = (
            ""
            if built.sweep is None
            else f", with {built.sweep.chosen:g} of the base's own weights in the delivered ones"
        )
        much = f"{worst.loses} is {100 * lost:.3g} %" if lost > 0 else "nothing is lost"
        kept = keeps(lost, budget)
        said = f"the budget of {100 * budget:g} % is {'kept' if kept else 'not kept'}{share}: {much}"
        numbers = {} if kept else {"lost": lost, "budget": budget}
        found.append(Finding("retention" if kept else "unkept", worst.rows, said, (), numbers=numbers))
    return found


def _overfitting(
    recipe: Recipe, prepared: Prepared, predictor: Predictor, tested: Scores, points: list[EvaluationPoint]
) -> list[Finding]:
    """The model on some of the rows that it learned from, beside the test rows, and the course of the validation loss."""
    if recipe.evaluation.quick:
        return []
    texts, truth = prepared.texts("train"), prepared.truth("train")
    count = compared_rows(len(texts), len(prepared.splits.test))
    rows = sorted(random.Random(seed_of(recipe.seed, "overfitting")).sample(range(len(texts)), count))
    known = [truth[row] for row in rows]
    found = predictor.judged([texts[row] for row in rows], known, answers=False)
    trained = predictor.card.task.score(found, known, predictor.card.labels)
    gap = gap_between(trained, tested, recipe.evaluation.confidence) if tested.primary in trained.metrics else None
    said = overfitting(gap, points, sorted(tested.lower))
    return [] if said is None else [said]


def _nearer(scores: Scores, baselines: list[Baseline]) -> list[Finding]:
    """Rivals whose written texts are nearer to those wanted than the model's, whatever the verdict's metric says."""
    if NEARNESS not in scores.written:
        return []
    own, rows = scores.value(NEARNESS), scores.written[NEARNESS]
    said = [
        f"{figures(other)[0]} for {item.what}"
        for item in baselines
        if NEARNESS in item.scores.written and (other := item.scores.value(NEARNESS)) > own
    ]
    if not said:
        return []
    message = (
        f"written texts are further from those wanted than a rival's: {metric_title(NEARNESS)} {figures(own)[0]}, against "
        f"{' and '.join(said)}"
    )
    return [Finding("nearer", rows, message, ())]


def _surer(scores: Scores, baselines: list[Baseline]) -> list[Finding]:
    """Rivals that expect the right tokens more than the model does, where the verdict is about how many are foretold."""
    if LOSS not in scores.lower or scores.primary in scores.lower:
        return []
    own = scores.value(LOSS)
    said = [
        f"{figures(other)[0]} for {item.what}"
        for item in baselines
        if LOSS in item.scores.lower and (other := item.scores.value(LOSS)) < own
    ]
    if not said:
        return []
    message = f"the loss a token is higher than a rival's: {figures(own)[0]}, against {' and '.join(said)}"
    return [Finding("surer", len(next(iter(scores.columns.values()))), message, ())]


def _cost(recipe: Recipe, prepared: Prepared, built: Built, predictor: Predictor, spending: Spending) -> Cost:
    spent = spending.whole()
    times, whole = times_of(spent), time_of(spent)
    energy = energy_of(joules_of(spent), whole.seconds)
    timed = spent.step_seconds
    return Cost(
        whole.seconds,
        whole.cpu_seconds,
        spent.peak_memory_mb,
        trainable=built.trainable,
        total=sum(parameter.numel() for parameter in predictor.network.parameters()),
        rows=len(prepared.splits.train),
        phases=phases_of(times),
        energy=energy,
        co2=carbon_of(energy, recipe.cost),
        money=money_of(whole.seconds, energy, recipe.cost),
        rows_per_second=spent.rows / timed if timed > 0 else None,
        tokens_per_second=spent.tokens / timed if timed > 0 and not prepared.task.reads_pictures else None,
        padding=spending.padded,
        forecast=spending.foretold(),
        evidence=evidence_of(times),
        sessions=len(spending.earlier) + 1,
        peak_gpu_memory_mb=spent.peak_gpu_memory_mb,
        delivered=delivered_of(times),
        beside=beside_of(times, built.beside),
    )


def baselines_of(recipe: Recipe, prepared: Prepared, encoded: Encoded, built: Built, phases: Phases) -> list[Baseline]:
    """The task's cheap rivals, and those of the untouched base; where the recipe wants none, what it asks for by name."""
    if not recipe.evaluation.baselines:
        return [item for item in built.base if item.name == SCRATCH]
    for part in encoded.examples.values():  # the rivals read the texts themselves
        if isinstance(part, StoredExamples):
            part.let_go()
    train, validation, test = (Part(prepared.texts(split), prepared.truth(split)) for split in SPLITS)
    task, labels = prepared.task, prepared.labels
    with phases.phase(BASELINES):
        found = [measure_baseline(name, task, train, validation, test, labels, recipe.seed) for name in task.baselines]
    return [*found, *built.base]


def _predict_split(
    split: str, prepared: Prepared, predictor: Predictor, run: Path, found: list[Prediction] | None = None
) -> Measured | None:
    """Predicts a split's rows and writes them to predictions/; None where there are no rows.

    `found`: what the predictor has said of them already. Cut texts were counted when the rows were encoded.
    """
    import numpy as np

    table, texts, truth = prepared.table(split), prepared.texts(split), prepared.truth(split)
    if not texts:
        return None
    if found is None:
        found = predictor.judged(texts, truth, answers=split == "test")
    said = predictor.card.task.columns(found, predictor.card.labels)
    names = [prepared.target.name(target) for target in truth]
    path = run / "predictions" / f"{split}.parquet"
    scores = predictor.card.task.score(found, truth, predictor.card.labels)
    groups = groups_of_rows(table, prepared.columns)
    if groups is not None:
        scores = replace(scores, groups=np.array(groups))
    write_predictions(path, table, prepared.columns.texts, names, found, said, scores.each)
    apart = strata_of_test(prepared.splits, prepared.columns, prepared.target) if split == "test" else None
    write_scores(path.with_suffix(".safetensors"), scores, apart)
    return Measured(table, texts, truth, found, scores)


def _curves(ledger: Ledger) -> tuple[list[LossPoint], list[EvaluationPoint], int | None]:
    """From the ledger, the last word on each step: a resumed run may have done some steps twice."""
    losses: dict[int, LossPoint] = {}
    evaluations: dict[int, EvaluationPoint] = {}
    best = None
    for event in ledger.events():
        if isinstance(event, StepDone):
            losses[event.step] = LossPoint(event.step, event.epoch, event.loss, event.rate, event.norm)
        elif isinstance(event, Evaluated):
            evaluations[event.step] = EvaluationPoint(
                event.step, event.epoch, event.metric, event.value, event.loss, event.error
            )
            best = event.step if event.best else best
    return [losses[step] for step in sorted(losses)], [evaluations[step] for step in sorted(evaluations)], best
