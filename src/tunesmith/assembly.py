"""From prepared rows and a pretrained base to everything the loop needs, with a reason for every derived value."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example, unit_rows, windows
from tunesmith.data.packing import PAD
from tunesmith.data.stored import measures, tokens_in
from tunesmith.errors import RecipeError, did_you_mean
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.infer import infer
from tunesmith.evaluation.intervals import standard_error
from tunesmith.evaluation.verdict import BASE, COSINE, PHRASES
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Derived, Recipe, TrainingSpec
from tunesmith.retention.meter import Meter
from tunesmith.retention.meters import meters_of
from tunesmith.retention.sweep import Sweep
from tunesmith.seeds import seed_of
from tunesmith.tasks.base import OutputTask, Prediction, Task
from tunesmith.training.events import Event, Note
from tunesmith.training.ledger import resume_command
from tunesmith.training.loop import Anchor, Measured, Run
from tunesmith.training.moving import Moving, lasting
from tunesmith.training.optim import Masters
from tunesmith.training.precision import Runtime, choose_runtime
from tunesmith.training.preflight import fitting_micro_batch, halvings
from tunesmith.training.probe import SOFTER, fit_on
from tunesmith.training.source import FixedRows
from tunesmith.training.state import Checkpoints, State
from tunesmith.training.trunk import Live, Trunk, base_features, plan_trunk
from tunesmith.training.varying import KeptVersions, WithVersions, varier
from tunesmith.training.vocabulary import compact_embeddings
from tunesmith.training.windows import Packing, packing_of, place

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor

VARIED_TIMES = 2  # the epochs of a method, for pictures that are varied anew in each (docs/log.md, "Pictures")
MOST_PROBE_ROWS = 50_000  # of a run that keeps nothing: a linear map learns little from more


@dataclass
class Built:
    """The network with the method on it, and the numbers that were derived."""

    network: Network
    plan: Plan
    masters: Masters
    runtime: Runtime
    training: TrainingSpec  # every "auto" resolved
    derived: list[Derived]
    trainable: int  # parameters that may change
    start: dict[str, Tensor]  # what trains of the base as it was before, where anything is held to it; else empty
    kept_rows: dict[str, Tensor]  # parameters of which only these rows are in the network: see training/vocabulary.py
    packing: Packing
    meters: list[Meter]  # by which is told what the base forgets
    sweep: Sweep | None = None  # the shares of the base's own weights that were tried for the delivered ones
    base: tuple[
        Baseline, ...
    ] = ()  # what the untouched base gives: its own similarity, and its features with a new head


def method_of(recipe: Recipe) -> Method:
    assert isinstance(recipe.method, Method)
    return recipe.method


def build_network(recipe: Recipe, prepared: Prepared, backbone: Backbone, rates: Rates) -> tuple[Network, Plan]:
    """The float32 network, before any training: the same every time for the same recipe."""
    network = _with_head(recipe, prepared, backbone)
    return network, _with_method(recipe, network, rates)


def _with_head(recipe: Recipe, prepared: Prepared, backbone: Backbone) -> Network:
    return prepared.task.head(
        backbone, prepared.labels, prepared.columns.pair is not None, seed_of(recipe.seed, "head")
    )


def _with_method(recipe: Recipe, network: Network, rates: Rates) -> Plan:
    plan = method_of(recipe).attach(network, rates, seed_of(recipe.seed, "method"))
    plan.check(network)
    return plan


def resolve_rates(
    recipe: Recipe, prepared: Prepared, backbone: Backbone, rows: int
) -> tuple[Rates, int, list[Derived]]:
    """Peak rates and epochs for `rows` an epoch: as asked, or by the method's documented formula for such a base."""
    asked, method, static = recipe.training, method_of(recipe), backbone.static
    usual = method.static_epochs if static and method.static_epochs is not None else method.epochs
    times = VARIED_TIMES if prepared.task.reads_pictures and _varies(recipe, prepared) else 1
    epochs = times * usual if asked.epochs == "auto" else asked.epochs
    steps = epochs * -(-rows // asked.batch_size)
    width = backbone.rate_width
    own = method.static_rates(width, steps) if static else method.rates(width, steps)
    rates = Rates(
        own.base if asked.rate == "auto" else asked.rate,
        own.head if asked.head_rate == "auto" else asked.head_rate,
        own.why,
    )
    derived = []
    if asked.epochs == "auto":
        derived.append(
            Derived(
                "training.epochs",
                epochs,
                f"{'twice ' if times > 1 else ''}the default of method {method.part_name()}"
                f"{' on word vectors' if static else ''}{': pictures are others in every epoch' if times > 1 else ''}",
            )
        )
    if asked.rate == "auto":
        derived.append(Derived("training.rate", rates.base, own.why))
    if asked.head_rate == "auto":
        derived.append(Derived("training.head_rate", rates.head, own.why))
    return rates, epochs, derived


def build(recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, earlier: dict[str, Any]) -> Built:
    """Network, plan, masters and number format. `earlier` holds a resumed run's own derived values, which are kept."""
    from tunesmith.models.layout import is_batch_norm

    asked = recipe.training
    network = _with_head(recipe, prepared, backbone)
    alone = method_of(recipe).tokens > 0
    packing = packing_of(prepared.task, encoded.examples["train"], encoded.limit, network, alone)
    width, rows = backbone.width, prepared.task.epoch_rows(len(packing.windows or encoded.examples["train"]))
    rates, epochs, derived = resolve_rates(recipe, prepared, backbone, rows)
    plan = _with_method(recipe, network, rates)
    convolutions = any(is_batch_norm(module) for module in network.modules())
    _new_tokens_train(recipe, network, plan, backbone.processor)
    if asked.precision == "auto" and "training.precision" in earlier:
        asked = asked.model_copy(update={"precision": earlier["training.precision"]})
    if asked.device == "auto" and "training.device" in earlier:
        asked = asked.model_copy(update={"device": earlier["training.device"]})
    if plan.single and recipe.training.precision == "bfloat16":
        raise RecipeError(f"training.precision: bfloat16 does not go here: {plan.single}; leave it out")
    if plan.single:
        asked = asked.model_copy(update={"precision": "float32"})
    runtime = choose_runtime(asked, width, convolutions)
    if recipe.training.precision == "auto":
        why = "as before the run was stopped" if "training.precision" in earlier else plan.single or runtime.why
        derived.append(Derived("training.precision", runtime.precision, why))
    if recipe.training.device == "auto":
        derived.append(
            Derived(
                "training.device", runtime.device, f"torch sees {'a' if runtime.device == 'cuda' else 'no'} GPU here"
            )
        )
    derived += encoded.derived
    network.to(runtime.device)
    if asked.checkpointing:
        network.recompute_activations()
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    meters = meters_of(recipe, prepared, network, plan, encoded.limit)
    used = set[int]().union(*(tokens_in(part) for part in encoded.examples.values()))
    if recipe.retention.swept:  # the network in training is read by the meters too
        used |= frozenset[int]().union(*(meter.tokens for meter in meters))
    kept_rows = compact_embeddings(network, plan, used, backbone.processor.pad)
    training = recipe.training.model_copy(
        update={
            "epochs": epochs,
            "rate": rates.base,
            "head_rate": rates.head,
            "precision": runtime.precision,
            "max_length": encoded.limit,
            "device": runtime.device,
        }
    )
    masters = Masters(network, plan, training, runtime.dtype)
    start = {}
    asks = recipe.retention.swept or share_kept(recipe, prepared.task) > 0 or recipe.retention.anchor > 0
    if network.pretrained and asks:
        start = {
            name: value.detach().clone()
            for name, value in masters.tensors.items()
            if name not in network.fresh and method_of(recipe).averaged(name)
        }
    return Built(network, plan, masters, runtime, training, derived, trainable, start, kept_rows, packing, meters)


def share_kept(recipe: Recipe, task: Task) -> float:
    """The share of the base's own weights in the delivered ones, where it is not found by trying."""
    asked = recipe.retention.keep
    return task.kept() if asked is None or asked == "auto" else asked


def _varies(recipe: Recipe, prepared: Prepared) -> bool:
    """Whether training rows are varied."""
    return prepared.task.varies(method_of(recipe).part_name() == "head")


def _new_tokens_train(recipe: Recipe, network: Network, plan: Plan, processor: Processor) -> None:
    """Raises RecipeError where the vocabulary grew and its embeddings stay as they are: new tokens learn nothing."""
    added = processor.added
    if not added:
        return  # a base of pictures has no table of tokens
    table = network.get_submodule(network.layout.body).get_input_embeddings().weight  # type: ignore[operator]
    name = next(name for name, value in network.named_parameters() if value is table)
    if name not in plan.trainable:
        raise RecipeError(
            f"task.new_tokens: method {method_of(recipe).part_name()} leaves the embeddings as they are, so {len(added):,} "
            "new tokens would stay the mean of their pieces; use --method full, or layers with method.embeddings=true, or "
            "leave task.new_tokens out"
        )


def keep_frozen(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built, earlier: dict[str, Any]
) -> Trunk:
    """Computes what is frozen for every row that will be asked for, and says how; a resumed run does as it did."""
    wanted = ["train", "validation"]
    if recipe.evaluation.baselines and method_of(recipe).part_name() == "head":
        wanted.append("test")  # its features are those of the baseline
    splits = {split: encoded.examples[split] for split in wanted}
    cache: str = recipe.training.cache
    if "training.cache" in earlier:
        kept = earlier["training.cache"]
        cache = "off" if kept == Live.__name__ else cache if kept == Moving.__name__ else "memory"
    task, pad, versions = prepared.task, backbone.processor.pad, prepared.task.fixed_versions
    assert isinstance(built.training.epochs, int)
    if not _varies(recipe, prepared) and built.plan.stages and cache != "off":
        trunk: Trunk = (
            Moving(built.network, built.plan, splits, cache, pad)
            if lasting(built.plan, built.training.epochs, cache)
            else Live(built.network, "nothing kept: blocks wake one after another, and no cut lasts long enough")
        )
    elif not _varies(recipe, prepared):
        trunk = plan_trunk(built.network, built.plan, splits, cache, pad)
    elif versions is None:
        trunk = Live(built.network, "nothing kept: rows are varied anew in every epoch")
    else:
        with_versions = WithVersions(splits, task, versions, recipe.seed, pad, backbone.processor)
        trunk = plan_trunk(built.network, built.plan, with_versions, cache, pad)
        trunk = trunk if isinstance(trunk, Live) else KeptVersions(trunk, versions)
    built.derived.append(Derived("training.cache", type(trunk).__name__, trunk.why))
    return trunk


def fit_probe(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built, trunk: Trunk
) -> Iterator[Event]:
    """Fits the head on frozen features, puts it on the network if the recipe says so, and scores it as a baseline."""
    if not built.network.pretrained:
        return  # features of random weights are no start, and no rival
    wanted = recipe.training.probe and not built.plan.started  # a head that goes on from earlier is not fitted anew
    measured = recipe.evaluation.baselines and len(encoded.examples["test"]) > 0
    if measured and prepared.task.untrained:
        built.base = (_untrained(prepared, encoded, built, backbone.processor.pad),)
    if not (wanted or measured) or built.network.output is None:
        return
    import torch

    begun = time.perf_counter()
    network, pad, last = built.network, backbone.processor.pad, built.network.last
    splits = {name: rows for name, rows in encoded.examples.items() if rows and (name != "test" or measured)}
    splits["train"], sources, few = _enough(splits["train"], trunk, recipe.seed)
    features = {split: trunk.features(split, rows, pad) for split, rows in splits.items()}
    fitted = fit_on(prepared.task, last, features, splits)
    seconds = time.perf_counter() - begun
    if measured:
        alone = fitted
        if network.fresh - {
            name for name, value in network.named_parameters() if value is last.weight or value is last.bias
        }:
            # What reaches the last map went through layers that nothing has trained yet: no fair rival.
            features = {split: base_features(network, rows, pad) for split, rows in splits.items()}
            width = features["train"].shape[1]
            alone = fit_on(prepared.task, torch.nn.Linear(width, last.out_features), features, splits)
        labels = prepared.labels

        def predicted(split: str) -> list[Prediction]:
            output = torch.nn.functional.linear(features[split], alone.best.weight, alone.best.bias)
            found = prepared.task.predict(output, unit_rows(splits[split]), labels)
            return prepared.task.whole(found, windows(splits[split]), labels)

        found = predicted("test")
        if "validation" in features:
            held = predicted("validation")
            labels = prepared.task.settle(held, prepared.truth("validation"), labels)
        scores = prepared.task.score(prepared.task.restate(found, labels), prepared.truth("test"), labels)
        took = time.perf_counter() - begun
        probe = Baseline("probe", "frozen features with a new head", scores, took)
        built.base = (*_cosine(prepared, network, features, sources, took), probe)
    said = f"head fitted on frozen features in {seconds:.1f} s: penalty C = {fitted.best.strength:g}, {fitted.why}"
    if wanted:
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        base_trains = any(name not in network.fresh for name in built.plan.trainable)
        start = fitted.start if base_trains else fitted.best
        values = {names[id(last.weight)]: start.weight}
        if start.bias is not None:
            values[names[id(last.bias)]] = start.bias
        built.masters.overwrite(values)
        softer = f"a penalty {fitted.best.strength / start.strength:g} times the best head's (at most {SOFTER:g})"
        why = softer if base_trains else fitted.why
        built.derived.append(Derived("probe.strength", start.strength, why))
        said += f"; training starts from C = {start.strength:g}" if base_trains else ""
    yield Note("probe", (f"{said}{few}",))


def measure_base(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built
) -> Iterator[Event]:
    """What the base says of the test rows before anything trains, and what frequencies alone say of them."""
    network, task, labels, test = built.network, prepared.task, prepared.labels, encoded.examples["test"]
    if not (recipe.evaluation.baselines and task.judges_by_truth and test and network.pretrained):
        return
    truth, device = prepared.truth("test"), built.runtime.device
    begun = time.perf_counter()
    network.eval()
    found, loss = infer(
        lambda batch: network(batch.inputs), task, test, labels, backbone.processor.pad, device,
        prepared.splits.test.place,
    )  # fmt: skip
    scores = task.score(task.answered(found, test, network), truth, labels)
    took = time.perf_counter() - begun
    outputs = max(backbone.module.config.vocab_size, len(backbone.text.tokenizer))
    floors = task.floors(encoded.examples["train"], prepared.truth("train"), test, outputs)
    rivals = [] if network.fresh else [Baseline(BASE, PHRASES[BASE], scores, took)]
    for name, floor in floors.items():
        scores = task.score(floor, truth, labels)
        rivals.append(Baseline(name, PHRASES[name], scores, time.perf_counter() - begun - took))
    built.base = (*built.base, *rivals)
    said = f"the untouched base has loss {loss:.3f} on the test rows ({took:.1f} s)"
    if network.fresh:  # what untrained weights say is no rival, and nothing that could be forgotten
        said += "; its checkpoint lacks the head, so that is what a random one says, and nothing is compared with it"
    yield Note("base", (said,))


def _untrained(prepared: Prepared, encoded: Encoded, built: Built, pad: dict[str, int]) -> Baseline:
    """The network as it is before the first step, on the test rows, by the task's own rules."""
    begun, network, task = time.perf_counter(), built.network.eval(), prepared.task
    found, _ = infer(
        lambda batch: network(batch.inputs), task, encoded.examples["test"], prepared.labels, pad, built.runtime.device
    )
    scores = task.score(found, prepared.truth("test"), prepared.labels)
    return Baseline(task.untrained, PHRASES[task.untrained], scores, time.perf_counter() - begun)


def _enough(examples: Sequence[Example], trunk: Trunk, seed: int) -> tuple[Sequence[Example], Sequence[int], str]:
    """The rows that a head is fitted to, where they stand in the table, and what is to be said of them.

    All, unless they are very many and nothing is kept of them.

    Their features would take more memory than training does, and as long as a third of an epoch.
    """
    if len(examples) <= MOST_PROBE_ROWS or not isinstance(trunk, Live | Moving):
        return examples, measures(examples).sources.tolist(), ""
    rows = sorted(random.Random(seed_of(seed, "probe")).sample(range(len(examples)), MOST_PROBE_ROWS))
    taken = [examples[row] for row in rows]
    said = f"; on {MOST_PROBE_ROWS:,} of the {len(examples):,} training rows"
    return [replace(example, row=place) for place, example in enumerate(taken)], [row.source for row in taken], said


def _cosine(
    prepared: Prepared, network: Network, features: dict[str, Tensor], sources: Sequence[int], seconds: float
) -> tuple[Baseline, ...]:
    """The base's own cosine of two texts, put on the scale of one number by least squares on the training rows."""
    import numpy as np

    task, labels = prepared.task, prepared.labels
    train, test = network.cosine(features["train"]), network.cosine(features["test"])
    if train is None or test is None or len(labels.scale) != 1 or not isinstance(task, OutputTask):
        return ()
    truth = (np.array([prepared.truth("train")[row] for row in sources])[:, 0] - labels.center[0]) / labels.scale[0]
    slope, start = np.polyfit(train.numpy(), truth, 1)
    found = task.predictions((slope * test.numpy() + start)[:, None].tolist(), range(len(test)), labels)
    scores = task.score(found, prepared.truth("test"), labels)
    return (Baseline(COSINE, PHRASES[COSINE], scores, seconds),)


def make_run(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    backbone: Backbone,
    built: Built,
    trunk: Trunk,
    folder: Path,
    stop: Callable[[], bool],
    earlier: dict[str, Any],
) -> Run:
    """What the loop needs. Runs the preflight, so it raises TrainingError when the longest batch does not fit."""
    network, task, pad = built.network, prepared.task, backbone.processor.pad
    examples = encoded.examples["train"]
    packing = built.packing
    if packing.windows is not None and not isinstance(trunk, Live):
        packing = Packing(None, "not packed: what is frozen is kept row by row")
    if packing.windows is not None:
        examples, pad = packing.windows, {**pad, **PAD}
    if packing.said:
        count = None if packing.windows is None else len(packing.windows)
        built.derived.append(Derived("task.packing", count, packing.said))
    read, targets = measures(examples), prepared.truth("train")
    truth = [targets[row] for row in read.sources]
    order = task.order(read.lengths.tolist(), truth, recipe.training.batch_size, recipe.seed)
    kept = isinstance(trunk, KeptVersions)
    varies = _varies(recipe, prepared)
    vary = varier(task, examples, pad, recipe.seed, kept, backbone.processor) if varies else None

    def source_of(size: int) -> FixedRows:
        return FixedRows(examples, order, size, pad, built.runtime.device, vary)

    asked = earlier.get("training.micro_batch", recipe.training.micro_batch)
    sizes = [asked] if isinstance(asked, int) else halvings(recipe.training.batch_size)
    size, why = fitting_micro_batch(network, task, built.plan, trunk, source_of, sizes)
    if recipe.training.micro_batch == "auto":
        built.derived.append(Derived("training.micro_batch", size, why))
    built.training = built.training.model_copy(update={"micro_batch": size})
    return Run(
        network=network,
        task=task,
        plan=built.plan,
        source=source_of(size),
        trunk=trunk,
        masters=built.masters,
        training=built.training,
        anchor=Anchor(built.start, recipe.retention.anchor),
        seed=recipe.seed,
        checkpoints=Checkpoints(folder / "checkpoints"),
        evaluate=evaluator(recipe, prepared, encoded, network, trunk, pad, built.runtime.device),
        place=partial(place, prepared.splits.train, examples, packing.windows),
        stop=stop,
        resume_command=resume_command(folder),
        state=State(),
    )


def evaluator(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    network: Network,
    trunk: Trunk,
    pad: dict[str, int],
    device: str,
) -> Callable[[], Measured] | None:
    """Measures the network as it stands on the validation rows; None where there are none."""
    examples = encoded.examples["validation"]
    if not examples:
        return None
    task, labels = prepared.task, prepared.labels
    asked = None if recipe.evaluation.metric == "auto" else recipe.evaluation.metric

    def evaluate() -> Measured:
        network.eval()
        place = prepared.splits.validation.place
        found, loss = infer(
            lambda batch: trunk.forward("validation", batch), task, examples, labels, pad, device, place
        )
        truth = prepared.truth("validation")
        settled = task.settle(found, truth, labels)
        scores = task.score(task.restate(found, settled), truth, settled)
        metric = scores.primary if asked is None else asked
        if metric not in scores.metrics:
            raise RecipeError(
                f'evaluation.metric: these rows have no metric "{metric}"; {did_you_mean(metric, [*scores.metrics])}'
            )
        value = scores.value(metric)
        rank = -value if metric in scores.lower else value
        return Measured(metric, value, rank, standard_error(scores, metric), loss if loss is not None else 0.0)

    return evaluate


def best_parameters(run: Run) -> dict[str, Tensor]:
    """Float32 values of what trained, of the best checkpoint (the last state where nothing was validated).

    Where only some rows of a parameter are in the network, only those are given: see `Built.kept_rows`. They stay as they
    are whatever the masters become.
    """
    if run.evaluate is None or run.state.carry.best_step == run.state.step:
        tensors = run.masters.export()
    else:
        tensors = run.checkpoints.load_step(run.state.carry.best_step).tensors
    start = "parameter/"
    return {key.removeprefix(start): value.clone() for key, value in tensors.items() if key.startswith(start)}
