"""From prepared rows and a pretrained base to everything the loop needs, with a reason for every derived value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.findings import Finding
from tunesmith.data.order import Order
from tunesmith.data.packing import PAD
from tunesmith.data.stored import tokens_in
from tunesmith.errors import RecipeError
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evidence.base import CurvePoint, Frozen
from tunesmith.judging import evaluator
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.phases import KNOWN_BEFORE, Phases
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Derived, Recipe, TrainingSpec
from tunesmith.redrawing import redrawn
from tunesmith.retention.holds import General, Hold, general_of
from tunesmith.retention.meter import Meter
from tunesmith.retention.meters import meters_of
from tunesmith.retention.sweep import Sweep
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.settling import settled
from tunesmith.suiting import (
    attention_learns,
    loss_in_parts,
    new_tokens_train,
    packed_by_kernel,
    patience_told,
    scratch_fits,
    two_passes_differ,
)
from tunesmith.tasks.base import Task
from tunesmith.training.compiling import settle_compiled
from tunesmith.training.ledger import resume_command
from tunesmith.training.loop import Anchor, Run
from tunesmith.training.moving import Moving, lasting
from tunesmith.training.optim import Masters
from tunesmith.training.ordering import batches_told, order_of, steps_in
from tunesmith.training.precision import Runtime, choose_runtime
from tunesmith.training.preflight import micro_batches
from tunesmith.training.recomputing import fitting, settle_recomputing
from tunesmith.training.shelf import shelf_of
from tunesmith.training.soup import Ingredients
from tunesmith.training.source import FixedRows, tokens_at_once
from tunesmith.training.state import Checkpoints, State
from tunesmith.training.threads import settle_threads
from tunesmith.training.travel import Sampled, Travel
from tunesmith.training.trunk import Live, Trunk, plan_trunk
from tunesmith.training.varying import KeptVersions, WithVersions, varier
from tunesmith.training.vocabulary import compact_embeddings
from tunesmith.training.windows import Packing, packing_of, place

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tunesmith.folding import Fold
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.repeating import Repeat

VARIED_TIMES = 2  # the epochs of a method, for pictures that are varied (docs/log.md, "Pictures")
VERSIONS_KEY = "task.versions"


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
    redrawn: frozenset[str]  # parameters of the base that begin with random weights
    kept_rows: dict[str, Tensor]  # parameters of which only these rows are in the network: see training/vocabulary.py
    packing: Packing
    meters: list[Meter]  # by which is told what the base forgets
    general: General | None  # what else than its own weights the base is held to
    method: Method  # with nothing left open
    delivered: str = ""  # what is delivered in the place of the best state; "" where that is
    sweep: Sweep | None = None  # the shares of the base's own weights that were tried for the delivered ones
    # What the untouched base gives: its own similarity, and its features with a new head.
    base: tuple[Baseline, ...] = ()
    uncompared: tuple[str, ...] = ()  # why rivals that could be expected are missing
    audit: Sequence[Finding] = ()  # what was found of the rows before training
    unexamined: tuple[str, ...] = ()  # what was not looked at, and why
    ladder: Mapping[str, Any] | None = None  # how the method was chosen, where it was left open
    frozen: Frozen | None = None  # the features that the head was fitted on
    folds: Sequence[Fold] = ()  # what the same recipe gave on the other folds
    repeats: Sequence[Repeat] = ()  # what the same recipe gave from other seeds
    curve: tuple[CurvePoint, ...] = ()  # the method itself on parts of the training rows
    beside: int = 0  # models that were trained beside, to tell what the delivered one is worth
    versions: int | None = None  # in how many each varied row is seen; None: in a new one every epoch
    usual: Rates | None = None  # what the method takes for such a base where nobody asks for other rates
    began: Sampled | None = None  # of what trains, before the first step
    travel: tuple[Travel, ...] = ()  # how far that went


def method_of(recipe: Recipe) -> Method:
    """Of a recipe that leaves it open: rows and base are read as for any method without tokens of its own."""
    if recipe.method == "auto":
        from tunesmith.methods.full import Full

        return Full()
    assert isinstance(recipe.method, Method)
    return recipe.method


def build_network(recipe: Recipe, prepared: Prepared, backbone: Backbone, rates: Rates) -> tuple[Network, Plan]:
    """The float32 network, before any training: the same every time for the same recipe."""
    network = _with_head(recipe, prepared, backbone)
    return network, _with_method(recipe, network, rates)


def _with_head(recipe: Recipe, prepared: Prepared, backbone: Backbone) -> Network:
    seed = seed_of(recipe.seed, "head")
    return prepared.task.head(backbone, prepared.labels, prepared.columns.pair is not None, seed)


def _with_method(recipe: Recipe, network: Network, rates: Rates) -> Plan:
    """Of a recipe whose method leaves nothing open."""
    plan = method_of(recipe).attach(network, rates, seed_of(recipe.seed, "method"))
    plan.check(network)
    attention_learns(recipe, network, plan)
    # Frozen blocks give the same numbers in training and when they are kept, to the bit in float32: they keep filler.
    network.joins = recipe.training.batches == "random" and plan.cut == 0 and not plan.stages
    return plan


def as_pretrained(recipe: Recipe, prepared: Prepared, network: Network) -> Network:
    """The network whose base gives what it was pretrained to give: read once more where the method alters that.

    In float32, in evaluation mode, on the network's own device where half of what is free there holds it, else on the CPU.
    """
    if not method_of(recipe).alters or network.source is None:
        return network

    from tunesmith.models.backbone import load_backbone

    with torch_seed(recipe.seed, "base"):  # as the pipeline reads it
        backbone = load_backbone(network.source, recipe.training.dropout)
    prepared.task.widen(backbone.processor, prepared.texts("train"))
    untouched = _with_head(recipe, prepared, backbone)
    put_beside(untouched, network.sample.device)
    return untouched.eval()


def put_beside(network: Network, device: torch.device) -> None:
    """Moves a network to the device of the one in training where half of what is free there holds it, else to the CPU."""
    import torch

    size = sum(value.nbytes for value in network.parameters())
    roomy = device.type == "cpu" or 2 * size <= torch.cuda.mem_get_info(device)[0]
    network.to(device if roomy else "cpu")


def usual_rates(recipe: Recipe, backbone: Backbone, steps: int) -> Rates:
    """By the method's documented formula for such a base."""
    method, width = method_of(recipe), backbone.rate_width
    return method.static_rates(width, steps) if backbone.static else method.rates(width, steps)


def resolve_rates(
    recipe: Recipe, prepared: Prepared, backbone: Backbone, rows: int, order: Order | None = None
) -> tuple[Rates, int, list[Derived]]:
    """Peak rates and epochs for `rows` an epoch: as asked, or by the method's documented formula for such a base."""
    asked, method, static = recipe.training, method_of(recipe), backbone.static
    usual = method.static_epochs if static and method.static_epochs is not None else method.epochs
    times = VARIED_TIMES if prepared.task.reads_pictures and _varies(recipe, prepared) else 1
    epochs = times * usual if asked.epochs == "auto" else asked.epochs
    own = usual_rates(recipe, backbone, steps_in(asked, epochs, rows, order))
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
                f"{' on word vectors' if static else ''}{': pictures are varied' if times > 1 else ''}",
            )
        )
    if asked.rate == "auto":
        derived.append(Derived("training.rate", rates.base, own.why))
    if asked.head_rate == "auto":
        derived.append(Derived("training.head_rate", rates.head, own.head_why or own.why))
    return rates, epochs, derived


def build(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    backbone: Backbone,
    earlier: dict[str, Any],
    phases: Phases | None = None,
) -> Built:
    """Network, plan, masters and number format. `earlier` holds a resumed run's own derived values, which are kept.

    What the recipe's method leaves open is found here: see `Built.method`. phases: where the time is told apart that it
    takes to measure what the base knows.
    """
    from tunesmith.models.layout import has_batch_norms

    asked = recipe.training
    if asked.soup == "greedy" and not encoded.examples["validation"]:
        raise RecipeError("training.soup: greedy chooses on validation rows, and there are none; set it to uniform")
    network = _with_head(recipe, prepared, backbone)
    method, found = settled(recipe, prepared, encoded, network, earlier)
    recipe = recipe.model_copy(update={"method": method})
    packing = packing_of(prepared.task, encoded.examples["train"], encoded.limit, network, method_of(recipe).tokens > 0)
    examples = packing.windows or encoded.examples["train"]
    width, rows = backbone.width, prepared.task.epoch_rows(len(examples))
    order = None if asked.batch_size else order_of(prepared.task, examples, prepared.truth("train"), asked, recipe.seed)
    rates, epochs, derived = resolve_rates(recipe, prepared, backbone, rows, order)
    derived += found
    plan = _with_method(recipe, network, rates)
    new_tokens_train(recipe, network, plan, backbone.processor)
    runtime, found = _runtime(asked, plan, earlier, width, has_batch_norms(network))
    threads, said = settle_threads(asked.threads, earlier.get("training.threads"), runtime.device, runtime.dtype, width)
    derived += [*found, *([said] if said else []), *encoded.derived]
    network.to(runtime.device)
    asked, found = settle_recomputing(asked, earlier, network)
    scratch_fits(recipe, network)
    two_passes_differ(recipe, prepared.task, network, plan, encoded)
    derived += [*found, *loss_in_parts(asked, network)]
    derived += patience_told(asked, epochs, bool(encoded.examples["validation"]))
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    untouched = partial(as_pretrained, recipe, prepared, network)
    with (Phases() if phases is None else phases).phase(KNOWN_BEFORE):
        meters = meters_of(recipe, prepared, network, plan, encoded.limit, untouched)
    used = set[int]().union(*(tokens_in(part) for part in encoded.examples.values()))
    if recipe.retention.swept:  # the network in training is read by the meters too
        used |= frozenset[int]().union(*(meter.tokens for meter in meters))
    changes = bool(set(plan.trainable) - network.fresh)
    general = general_of(recipe, prepared, encoded, network, untouched) if changes else None
    if general is not None:
        used |= general.tokens
    kept_rows = {} if asked.embedding_rows == "all" else compact_embeddings(network, plan, used, backbone.processor.pad)
    training = asked.model_copy(
        update={
            "epochs": epochs,
            "rate": rates.base,
            "head_rate": rates.head,
            "precision": runtime.precision,
            "max_length": encoded.limit,
            "device": runtime.device,
            "threads": threads,
        }
    )
    masters = Masters(network, plan, training, runtime.dtype)
    anew = redrawn(recipe, network, plan, share_kept(recipe, prepared.task))
    return Built(
        network=network,
        plan=plan,
        masters=masters,
        runtime=runtime,
        training=training,
        derived=derived,
        trainable=trainable,
        start=_held_to(recipe, prepared, network, masters, anew),
        redrawn=anew,
        kept_rows=kept_rows,
        packing=packing,
        meters=meters,
        general=general,
        method=method,
        usual=usual_rates(recipe, backbone, steps_in(asked, epochs, rows, order)),
    )


def _runtime(
    asked: TrainingSpec, plan: Plan, earlier: dict[str, Any], width: int, convolutions: bool
) -> tuple[Runtime, list[Derived]]:
    """Number format and device, those of before where a run is resumed, and what of them nobody gave.

    Raises RecipeError where the format does not go with the method.
    """
    given, derived = asked, list[Derived]()
    for key in ("precision", "device"):
        if f"training.{key}" in earlier and asked.model_dump()[key] == "auto":
            asked = asked.model_copy(update={key: earlier[f"training.{key}"]})
    if plan.single and given.precision == "bfloat16":
        raise RecipeError(f"training.precision: bfloat16 does not go here: {plan.single}; leave it out")
    if plan.single:
        asked = asked.model_copy(update={"precision": "float32"})
    runtime = choose_runtime(asked, width, convolutions)
    if given.precision == "auto":
        why = "as its training was begun" if "training.precision" in earlier else plan.single or runtime.why
        derived.append(Derived("training.precision", runtime.precision, why))
    if given.device == "auto":
        seen = "a" if runtime.device == "cuda" else "no"
        derived.append(Derived("training.device", runtime.device, f"torch sees {seen} GPU here"))
    return runtime, derived


def _held_to(
    recipe: Recipe, prepared: Prepared, network: Network, masters: Masters, anew: frozenset[str]
) -> dict[str, Tensor]:
    """What trains of the base as it is before the first step, where anything is to be held to it; else empty."""
    held = max(recipe.retention.anchor, recipe.retention.ewc) > 0
    asks = recipe.retention.swept or share_kept(recipe, prepared.task) > 0 or held
    if not (network.pretrained and asks):
        return {}
    return {
        name: value.detach().clone()
        for name, value in masters.tensors.items()
        if name not in network.fresh and name not in anew and method_of(recipe).averaged(name)
    }


def share_kept(recipe: Recipe, task: Task) -> float:
    """The share of the base's own weights in the delivered ones, where it is not found by trying."""
    asked = recipe.retention.keep
    return task.kept() if asked is None or asked == "auto" else asked


def _varies(recipe: Recipe, prepared: Prepared) -> bool:
    """Whether training rows are varied."""
    return prepared.task.varies(method_of(recipe).part_name() == "head")


def _versions(
    recipe: Recipe, prepared: Prepared, plan: Plan, earlier: dict[str, Any]
) -> tuple[int | None, list[Derived]]:
    """In how many versions each varied row is seen, and why where nobody said so; None: in a new one every epoch."""
    if not _varies(recipe, prepared):
        return None, []
    frozen, resumed = plan.cut > 0 and not plan.stages, bool(earlier) and VERSIONS_KEY not in earlier
    asked, found = prepared.task.fixed_versions(False), prepared.task.fixed_versions(frozen and not resumed)
    if found == asked:
        return asked, []
    return found, [Derived(VERSIONS_KEY, found, "what is frozen is computed once for each version of a picture")]


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
        cache = cache if earlier["training.cache"] == Moving.__name__ else "memory"
    built.versions, found = _versions(recipe, prepared, built.plan, earlier)
    built.derived += found
    task, pad, versions = prepared.task, backbone.processor.pad, built.versions
    shelf = shelf_of(recipe.training.cache)
    assert isinstance(built.training.epochs, int)
    if earlier.get("training.cache") == Live.__name__:
        trunk: Trunk = Live(built.network, "nothing kept, as its training was begun")
    elif not _varies(recipe, prepared) and built.plan.stages and cache != "off":
        trunk = (
            Moving(built.network, built.plan, splits, cache, pad, shelf)
            if lasting(built.plan, built.training.epochs, cache)
            else Live(built.network, "nothing kept: blocks wake one after another, and no cut lasts long enough")
        )
    elif not _varies(recipe, prepared):
        trunk = plan_trunk(built.network, built.plan, splits, cache, pad, shelf)
    elif versions is None:
        trunk = Live(built.network, "nothing kept: rows are varied anew in every epoch")
    else:
        with_versions = WithVersions(splits, task, versions, recipe.seed, pad, backbone.processor)
        trunk = plan_trunk(built.network, built.plan, with_versions, cache, pad, shelf)
        trunk = trunk if isinstance(trunk, Live) else KeptVersions(trunk, versions)
    built.derived.append(Derived("training.cache", type(trunk).__name__, trunk.why))
    return trunk


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
    examples, packing = encoded.examples["train"], built.packing
    if packing.windows is not None and not isinstance(trunk, Live):
        packing = Packing(None, "not packed: what is frozen is kept row by row")
    if packing.windows is not None:
        examples, pad = packing.windows, {**pad, **PAD}
    several = packing.windows is not None
    built.training, found = packed_by_kernel(built.training, earlier, network, several, encoded.limit)
    if packing.said:
        count = None if packing.windows is None else len(packing.windows)
        built.derived.append(Derived("task.packing", count, packing.said))
    order, asked = order_of(task, examples, prepared.truth("train"), recipe.training, recipe.seed), recipe.training
    built.derived += batches_told(order, built.training)
    kept = isinstance(trunk, KeptVersions)
    varied = (task, examples, pad, recipe.seed, built.versions, kept, backbone.processor)
    vary = varier(*varied) if _varies(recipe, prepared) else None
    frozen = built.plan.cut >= len(network.layout.blocks)  # nothing of the blocks is kept for a backward pass
    whole = task.joint or built.training.step_in_backward or frozen
    at_once = None if whole else tokens_at_once(built.runtime.device, pad)

    def source_of(size: int) -> FixedRows:
        return FixedRows(examples, order, size, pad, built.runtime.device, vary, at_once)

    sizes = micro_batches(asked, order, earlier.get("training.micro_batch", asked.micro_batch))
    built.training, why, more = fitting(
        network, task, built.plan, trunk, source_of, sizes, built.training, recipe.limits.memory
    )
    size = built.training.micro_batch
    assert isinstance(size, int)
    built.training, compiled = settle_compiled(
        network, task, built.plan, trunk, source_of(size), built.training, earlier
    )
    built.derived += [*found, *more, *compiled]
    if asked.micro_batch == "auto" or source_of(size).divides:
        built.derived.append(Derived("training.micro_batch", size, why))
    return Run(
        network=network,
        task=task,
        plan=built.plan,
        source=source_of(size),
        trunk=trunk,
        masters=built.masters,
        training=built.training,
        anchors=_anchors(recipe, built),
        hold=_hold(recipe, prepared, built, order.usual_rows),
        seed=recipe.seed,
        checkpoints=Checkpoints(folder / "checkpoints"),
        evaluate=evaluator(recipe, prepared, encoded, network, trunk, pad, built.runtime.device),
        soup=None if recipe.training.soup is None else Ingredients(folder / "checkpoints" / "soup"),
        place=partial(place, prepared.splits.train, examples, packing.windows),
        stop=stop,
        resume_command=resume_command(folder),
        state=State(),
    )


def _anchors(recipe: Recipe, built: Built) -> tuple[Anchor, ...]:
    """Of the untouched network, which `built` still holds."""
    asked, found = recipe.retention, []
    if asked.anchor > 0 and built.start:
        found.append(Anchor(built.start, asked.anchor))
    if asked.ewc > 0 and built.start and built.general is not None:
        found.append(Anchor(built.start, asked.ewc, built.general.importance(built.start)))
    return tuple(found)


def _hold(recipe: Recipe, prepared: Prepared, built: Built, rows: float) -> Callable[[int], Tensor] | None:
    asked, general = recipe.retention, built.general
    if general is None or not (asked.distill or asked.replay):
        return None
    if asked.distill:
        general.remember(as_pretrained(recipe, prepared, built.network))
    return Hold(general, asked.distill, asked.replay, rows).loss


def best_parameters(run: Run) -> dict[str, Tensor]:
    """Float32 values of what trained, of the best checkpoint (the last state where nothing was validated).

    Where only some rows of a parameter are in the network, only those are given: see `Built.kept_rows`. They stay as they
    are whatever the masters become.
    """
    if run.evaluate is None or run.state.carry.best_step == run.state.step:
        tensors = run.masters.export()
    else:
        tensors = run.checkpoints.load_step(run.state.carry.best_step).tensors
    start = "average/" if run.masters.averages else "parameter/"
    return {key.removeprefix(start): value.clone() for key, value in tensors.items() if key.startswith(start)}
