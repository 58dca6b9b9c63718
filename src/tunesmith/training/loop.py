"""THE loop: a generator of events, for every task and every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch
from tunesmith.errors import ArtifactError, TrainingError
from tunesmith.methods.base import Plan, Stage
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import Task
from tunesmith.training.events import Evaluated, Event, Finished, Note, Saved, StepDone, Stopped, Warned
from tunesmith.training.optim import Masters
from tunesmith.training.schedule import pull_share, warmup_linear
from tunesmith.training.soup import Ingredients
from tunesmith.training.source import Ahead, FixedRows
from tunesmith.training.state import Carry, Checkpoints, State
from tunesmith.training.step import Objective, StepResult, optimizer_step
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

SAVE_EVERY_S = 300.0  # a long epoch still leaves a recent checkpoint behind
MEND = "look at the validation rows, lower training.rate, or set training.precision=float32"
LEAST_FALL = 0.01  # share by which the validation loss must fall to count as progress


@dataclass(frozen=True)
class Measured:
    """One evaluation on the validation rows."""

    metric: str
    value: float
    rank: float  # `value` where more is better, its negative where less is
    error: float  # one standard error of `value`
    loss: float  # mean over the rows


@dataclass(frozen=True)
class Anchor:
    """Values that parameters are pulled back to, by name, and how strongly: see `pull_share` and `Masters.pull_back`."""

    start: Mapping[str, Tensor]
    strength: float
    importance: Mapping[str, Tensor] | None = None  # of each weight; None: all alike


def nothing_said() -> str:
    return ""


@dataclass
class Run:
    """What the loop needs, made by the pipeline. `state` and `masters` are the only parts that change."""

    network: Network
    task: Task
    plan: Plan
    source: FixedRows
    trunk: Trunk
    masters: Masters
    training: TrainingSpec  # with every "auto" resolved
    anchors: tuple[Anchor, ...]
    hold: Callable[[int], Tensor] | None  # step -> what is added to the mean loss of its rows
    seed: int
    checkpoints: Checkpoints
    evaluate: Callable[[], Measured] | None  # None where there are no validation rows
    soup: Ingredients | None  # where the state of every evaluation is kept, to be averaged in the end
    place: Callable[[int], str]  # where a training row stands: "train.csv:12"
    stop: Callable[[], bool]
    resume_command: str
    state: State
    # Why training should end now, for what the run may take; "" where it may go on.
    enough: Callable[[], str] = nothing_said

    @property
    def training_epochs(self) -> int:
        assert isinstance(self.training.epochs, int)
        return self.training.epochs

    @property
    def steps(self) -> int:
        return self.source.order.first(self.training_epochs)


def restore(run: Run) -> Iterator[Event]:
    """Puts a run in the state of its last whole checkpoint, and says where it goes on."""
    run.checkpoints.recover()
    if not run.checkpoints.steps():
        yield Note("resume", ("no checkpoint had been written yet: starting from the first step",))
        return
    state, skipped = run.checkpoints.load()
    for line in skipped:
        yield Warned(line)
    try:
        run.masters.restore(state.tensors)
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{run.checkpoints.folder}: the checkpoint of step {state.step} is not of this run ({error}); put back its "
            "own checkpoints, or start a new run"
        ) from None
    run.state = state
    yield Note("resume", (f"going on from step {state.step} of {run.steps}",))


def train(run: Run) -> Iterator[Event]:
    """From `run.state.step` to the end, or to where it should stop. The last event is Finished or Stopped.

    A non-finite step raises TrainingError after the last good state was saved.
    """
    state, order = run.state, run.source.order
    due, ahead = evaluation_steps(run), Ahead(run.source, run.steps)
    saved_at = time.monotonic()
    why = "all epochs done"
    stage = _enter(run, None) if run.plan.stages else None  # also where no step is left: what follows reads the trunk
    if state.carry.evaluated < 0 or (state.step in due and state.carry.evaluated < state.step):
        yield from _evaluate(run)
        yield _save(run)
    while state.step < run.steps:
        if _out_of_patience(run):
            why = (
                f"{run.training.patience} evaluations without a gain of more than one standard error, or a fall of the "
                f"validation loss by more than {100 * LEAST_FALL:g} % (training.patience)"
            )
            break
        if run.stop():
            yield _save(run)
            yield Stopped(state.step, "asked to stop", run.resume_command)
            return
        if said := run.enough():
            why = said
            if state.carry.evaluated < state.step:
                yield from _evaluate(run)
                yield _save(run)
            break
        begun, cpu = time.perf_counter(), time.process_time()
        if run.plan.stages:
            stage = _enter(run, stage)
        result = _step(run, ahead)
        state.step += 1
        yield StepDone(
            state.step, run.steps, order.progress(state.step), result.loss, result.rate, result.norm, result.rows,
            result.tokens, time.perf_counter() - begun, time.process_time() - cpu,
        )  # fmt: skip
        if run.network.compiled is not None and (said := run.network.compiled.news()):
            yield Warned(f"training.compile: the blocks go on without: {said}")
        if state.step in due:
            yield from _evaluate(run)
        if state.step in due or time.monotonic() - saved_at > SAVE_EVERY_S:
            yield _save(run)
            saved_at = time.monotonic()
    yield Finished(state.step, why, state.carry.best_step if run.evaluate else state.step)


def _enter(run: Run, before: Stage | None) -> Stage:
    """The stage of the next step; where it is another than `before`, what waits in it takes no part in training."""
    stage = run.plan.at(run.state.step / run.steps if run.steps else 1.0)
    if stage is not before:
        parameters = dict(run.network.named_parameters())
        for name in run.plan.trainable:
            parameters[name].requires_grad_(name not in stage.waiting)
        later = [item.start for item in run.plan.stages if item.start > stage.start]
        end = later[0] if later else 1.0
        run.trunk.enter(stage.cut, (end - stage.start) * run.training_epochs)
        run.network.eval()  # until the next step, which gives what has begun to train its mode
    return stage


def _step(run: Run, ahead: Ahead) -> StepResult:
    def forward(batch: Batch) -> Tensor:
        return run.trunk.forward("train", batch)

    if not run.network.training:  # what measures puts it in evaluation mode
        set_mode(run.network, run.plan)
    try:
        result = optimizer_step(
            Objective(run.task, forward, run.training.r_drop),
            ahead.batch(run.state.step),
            run.masters,
            warmup_linear(run.state.step, run.steps, run.training.warmup),
            run.training.clip,
            run.seed,
            run.state.step,
            run.place,
            run.hold,
            lambda: ahead.prepare(run.state.step + 1),
        )
    except TrainingError as error:
        if run.masters.in_backward:  # some parameters have moved already
            raise TrainingError(*error.problems, _kept(run)) from None
        saved = _save(run)
        raise TrainingError(*error.problems, f"the last good state is kept in {saved.path}") from None
    for anchor in run.anchors:
        share = pull_share(run.state.step, run.steps, run.training.warmup, anchor.strength)
        run.masters.pull_back(anchor.start, share, anchor.importance)
    run.masters.follow(run.state.step)
    return result


def set_mode(network: Network, plan: Plan) -> None:
    """Training mode, less what is frozen or waits: what does not learn gets no dropout, and a frozen prefix can be kept.

    Batch norms keep the statistics of pretraining, in trained blocks too: those of a few rows are noise, and a step in
    micro-batches would not equal one in a whole batch.
    """
    from tunesmith.models.layout import is_batch_norm

    network.train()
    for module in network.modules():
        if is_batch_norm(module):
            module.eval()
    layout = network.layout
    for name in (*layout.embeddings, *layout.blocks, *layout.tail):
        part = network.get_submodule(name)
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()
    if not any(name.startswith(f"{layout.body}.") for name in plan.trainable):
        network.get_submodule(layout.body).eval()


def evaluation_steps(run: Run) -> set[int]:
    """After which steps the validation rows are measured, beside before the first."""
    order, times = run.source.order, run.training.evaluations
    points = set[int]()
    for epoch in range(run.training_epochs):
        first, steps = order.first(epoch), order.first(epoch + 1) - order.first(epoch)
        points |= {round(first + steps * index / times) for index in range(1, times + 1)}
    return {point for point in points if point > 0} | {run.steps}


def _evaluate(run: Run) -> Iterator[Event]:
    """Measures on the validation rows, and updates what choosing and stopping remember."""
    state = run.state
    state.carry = replace(state.carry, evaluated=state.step)
    if run.soup is not None and state.step > 0:
        with run.masters.averaged():
            run.soup.add(state.step, run.masters.tensors)
    if run.evaluate is None:
        return
    try:
        with run.masters.averaged():
            found = run.evaluate()
        if found.loss - found.loss != 0.0:  # neither choosing nor patience can go on from it
            raise TrainingError(f"the loss is not finite ({found.loss:g}); {MEND}")
    except TrainingError as error:
        raise TrainingError(
            *(f"step {state.step}, validation: {said}" for said in error.problems), _kept(run)
        ) from None
    state.carry, best = judged(state.carry, found, state.step)
    if state.step < run.plan.whole_from * run.steps:  # what has not begun to train may still bring a gain
        state.carry = replace(state.carry, without_gain=0)
    epoch = run.source.order.progress(state.step)
    yield Evaluated(state.step, run.steps, epoch, found.metric, found.value, found.error, found.loss, best)


def _kept(run: Run) -> str:
    """Which good state there is, where the present one is not: it was not saved."""
    saved = run.checkpoints.steps()
    if not saved:
        return "no state had been saved yet"
    return f"the last good state is kept in {run.checkpoints.folder / f'step-{saved[-1]:08d}'}"


def judged(carry: Carry, found: Measured, step: int) -> tuple[Carry, bool]:
    """The carry after one evaluation, and whether its state is the one to keep.

    One standard error is what the validation rows can tell apart. So the state kept is the latest that is not worse than
    the highest value by more than that: of states that cannot be told apart, the later one has learned at the smaller
    rate (in 4 of 4 runs it was at least as good on the test rows: docs/log.md).

    Against patience counts an evaluation without progress: no gain of more than one standard error over the last such
    gain, and no fall of the loss by `LEAST_FALL` below the lowest. The loss moves before a count of hits can show it: on
    500 validation rows the metric alone stopped 5 of 9 runs whose loss was still falling (docs/log.md).
    """
    keep = carry.best_value is None or found.rank >= carry.best_value - found.error
    if keep:
        highest = found.rank if carry.best_value is None else max(carry.best_value, found.rank)
        carry = replace(carry, best_value=highest, best_step=step)
    gained = carry.reference is None or found.rank > carry.reference + found.error
    fell = carry.lowest_loss is None or found.loss < carry.lowest_loss * (1 - LEAST_FALL)
    if gained:
        carry = replace(carry, reference=found.rank)
    if fell:
        carry = replace(carry, lowest_loss=found.loss)
    return replace(carry, without_gain=0 if gained or fell else carry.without_gain + 1), keep


def _out_of_patience(run: Run) -> bool:
    patience = run.training.patience
    return run.evaluate is not None and patience > 0 and run.state.carry.without_gain >= patience


def _save(run: Run) -> Saved:
    state = run.state
    state.tensors = run.masters.export()
    return Saved(state.step, str(run.checkpoints.save(state)))
