"""The composition root: Recipe -> rows -> network -> loop -> artifact -> verdict. The only place where they meet."""

from __future__ import annotations

import itertools
import re
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ArtifactError, ModelError, TrainingError, TunesmithError
from tunesmith.recipe import Recipe
from tunesmith.seeds import torch_seed
from tunesmith.training.events import Event, Finished, Note, StepDone, Stopped, Warned
from tunesmith.training.ledger import Ledger, taken

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.resolve import Source
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.training.loop import Run as LoopRun


OWN_ROWS = Path("data") / "rows.parquet"  # in a run's folder: the rows that a Python caller gave


def never() -> bool:
    return False


@dataclass
class Session:
    """One run, being made. Iterate `events()` to make it happen; what has happened is on disk at every moment."""

    recipe: Recipe
    run: Path
    table: Any = None  # rows of a Python caller, kept in the run's own data/ folder
    stop: Callable[[], bool] = never
    resuming: bool = False
    finished: bool = False
    _begun: float = field(default_factory=time.perf_counter)
    _cpu: float = field(default_factory=time.process_time)

    def events(self) -> Iterator[Event]:
        """Does the work. Each event is in the run's ledger before it is given. Raises TunesmithError kinds only."""
        from safetensors import SafetensorError

        from tunesmith.assembly import build
        from tunesmith.manifest import check_same_run, manifest_of
        from tunesmith.models.resolve import local_problems
        from tunesmith.preparing import encode, prepare

        of_model = local_problems(self.recipe.model)
        try:
            prepared = prepare(self.recipe, self.table)
        except TunesmithError as error:  # the model's problems are told with the data's: one mend, not two
            raise type(error)(*error.problems, *of_model) from None
        if of_model:
            raise ModelError(*of_model)
        yield from prepared.notes
        ledger = Ledger.open(self.run) if self.resuming else None
        stored = {} if ledger is None else ledger.manifest()
        base = stored.get("model", {})
        source, backbone = self._load_base(base["revision"] if base.get("kind") == "hub" else None)
        model_note = Note("model", (f"model: {source.name} ({source.kind}), {_size_of(backbone.module)}",))
        yield model_note
        encoded = encode(prepared, backbone.processor, self.recipe.training.max_length)
        manifest = manifest_of(anchored(self.recipe), prepared.fingerprints(), source)
        check_same_run(self.run, stored, manifest)
        try:
            earlier = {} if ledger is None else ledger.resolved()
            built = build(self.recipe, prepared, encoded, backbone, earlier)  # refused before there is a folder
            if ledger is None:
                ledger = self._create()
                ledger.write_manifest(manifest)
            with ledger.in_use():
                for event in itertools.chain(prepared.notes, (model_note,)):
                    ledger.append(event)
                for event in self._work(ledger, prepared, encoded, source, backbone, built, earlier):
                    ledger.append(event)
                    yield event
        except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """A full disk or full memory in words; any other exception as it is."""
        from tunesmith.training.preflight import out_of_memory
        from tunesmith.training.state import disk_full

        again = f"then go on with: tunesmith resume {self.run}"
        if disk_full(error):
            return TrainingError(
                f"{self.run}: the disk is full; what was saved before is intact; free some space, {again}"
            )
        if out_of_memory(error):
            return TrainingError(
                f"{self.run}: out of memory; what was saved before is intact; free some memory, {again}; or start again "
                "with a smaller training.micro_batch, training.max_length, or training.cache=off"
            )
        return error

    def _work(
        self,
        ledger: Ledger,
        prepared: Prepared,
        encoded: Encoded,
        source: Source,
        backbone: Backbone,
        built: Built,
        earlier: dict[str, Any],
    ) -> Iterator[Event]:
        from tunesmith.assembly import fit_probe, keep_frozen, make_run
        from tunesmith.training.loop import train
        from tunesmith.training.state import Checkpoints

        for finding in encoded.findings:
            yield Warned(finding.message)
        for line in built.plan.warnings:
            yield Warned(line)
        trains = f"method: {self.recipe.method.part_name()}, {built.trainable:,} parameters train"
        yield Note("method", (trains, *built.plan.notes))
        trunk = keep_frozen(self.recipe, encoded, backbone, built, earlier)
        if not self.stop():
            yield from fit_probe(self.recipe, prepared, encoded, backbone, built, trunk)
        if self.stop():
            saved = Checkpoints(self.run / "checkpoints").steps()  # of an earlier session; none in a new run
            why = "asked to stop before the first step" + (" of this session" if saved else "")
            yield Stopped(max(saved, default=0), why, f"tunesmith resume {self.run}")
            return
        run = make_run(self.recipe, prepared, encoded, backbone, built, trunk, self.run, self.stop, earlier)
        yield Note("derived", tuple(f"{item.key} = {item.value}: {item.why}" for item in built.derived))
        ledger.write_resolved(self.recipe.model_copy(update={"training": built.training}), built.derived)
        if self.resuming:
            yield from _restore(run)
            self._count_earlier(ledger, run.state.step)
        for event in train(run):
            if isinstance(event, Finished):
                yield from self._finish(ledger, prepared, encoded, source, built, run, event)
            else:
                yield event

    def _count_earlier(self, ledger: Ledger, step: int) -> None:
        """Adds what the steps of earlier sessions took to what this one will say it took."""
        done = {event.step: event for event in ledger.events() if isinstance(event, StepDone) and event.step <= step}
        self._begun -= sum(event.seconds for event in done.values())
        self._cpu -= sum(event.cpu for event in done.values())

    def _finish(
        self,
        ledger: Ledger,
        prepared: Prepared,
        encoded: Encoded,
        source: Source,
        built: Built,
        run: LoopRun,
        end: Finished,
    ) -> Iterator[Event]:
        from tunesmith.assembly import best_parameters
        from tunesmith.delivery import deliver
        from tunesmith.result import Spent, measure_result

        try:
            best = best_parameters(run)
        except ArtifactError as error:
            yield Warned(f"{error}; the state after step {run.state.step} is delivered in place of the best one")
            run.state.carry = replace(run.state.carry, best_step=run.state.step)
            best = best_parameters(run)
        predictor, opens = deliver(self.recipe, prepared, encoded, source, run, best, built.kept_rows, self.run)
        spent = Spent(time.perf_counter() - self._begun, time.process_time() - self._cpu, peak_memory_mb())
        yield from measure_result(self.recipe, prepared, encoded, built, predictor, opens, ledger, spent)
        self.finished = True
        yield end

    def _load_base(self, revision: str | None) -> tuple[Source, Backbone]:
        from tunesmith.models.backbone import load_backbone
        from tunesmith.models.resolve import resolve

        source = resolve(self.recipe.model, revision)
        with torch_seed(self.recipe.seed, "base"):  # a pooler that the checkpoint lacks is drawn when it is read
            return source, load_backbone(source, self.recipe.training.dropout)

    def _create(self) -> Ledger:
        if self.table is not None:  # before the recipe that points to them: a run whose rows are not there is no run
            from tunesmith.data.table import table_of, write_parquet

            path = self.run / OWN_ROWS
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(table_of(self.table, "rows"), path)
        return Ledger.create(self.run, anchored(self.recipe))


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with paths that hold from any folder."""
    path, model = Path(recipe.data.path), Path(recipe.model)
    data = recipe.data.model_copy(update={"path": str(path.resolve())}) if path.exists() else recipe.data
    return recipe.model_copy(update={"data": data, "model": str(model.resolve()) if model.is_dir() else recipe.model})


def start(recipe: Recipe, out: Path | None = None, table: Any = None, stop: Callable[[], bool] = never) -> Session:
    """A new run in `out` (by default a new folder under runs/). Raises ArtifactError when `out` already holds a run."""
    folder = new_folder(recipe) if out is None else out
    if (folder / "recipe.yaml").exists():
        raise taken(folder)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; give --out a folder")
    if table is not None:
        data = recipe.data.model_copy(update={"path": str(folder / OWN_ROWS)})
        recipe = recipe.model_copy(update={"data": data})
    return Session(recipe, folder, table, stop)


def resume(run: Path, stop: Callable[[], bool] = never) -> Session:
    """Goes on with a stopped run from its last whole checkpoint. Raises ArtifactError when it is finished, or no run."""
    recipe = Ledger.open(run).recipe()
    if (run / "report.json").exists():
        raise ArtifactError(f"{run}: this run is finished; use it with: tunesmith predict {run} TEXT")
    if (run / OWN_ROWS).exists() and Path(recipe.data.path).parts[-2:] == OWN_ROWS.parts:
        data = recipe.data.model_copy(update={"path": str(run / OWN_ROWS)})  # wherever the run was moved to
        recipe = recipe.model_copy(update={"data": data})
    return Session(recipe, run, None, stop, resuming=True)


def new_folder(recipe: Recipe) -> Path:
    """runs/<data>-<method>, with the first number that is free where that is taken."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(recipe.data.path).stem).strip("-").lower() or "data"
    method = recipe.method.part_name().rpartition(":")[2].lower()
    for number in itertools.count(1):
        folder = Path("runs") / (f"{stem}-{method}" + (f"-{number}" if number > 1 else ""))
        if not folder.exists():
            return folder
    raise AssertionError("unreachable")


def _restore(run: LoopRun) -> Iterator[Event]:
    run.checkpoints.recover()
    if not run.checkpoints.steps():
        yield Note("resume", ("no checkpoint had been written yet: starting from the first step",))
        return
    state, skipped = run.checkpoints.load()
    for line in skipped:
        yield Warned(line)
    run.masters.restore(state.tensors)
    run.state = state
    yield Note("resume", (f"going on from step {state.step} of {run.steps}",))


def _size_of(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M parameters"


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
