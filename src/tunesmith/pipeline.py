"""The composition root: Recipe -> rows -> network -> loop -> artifact -> verdict. The only place where they meet."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ArtifactError, TrainingError, TunesmithError
from tunesmith.files import make_folder, sync_tree, whole_file
from tunesmith.limits import beyond, limit, trained_before
from tunesmith.memory import hand_back, importing, keep_few_kernels
from tunesmith.phases import (
    AUDIT,
    BASE,
    BASELINES,
    BUILDING,
    DELIVERY,
    ENCODING,
    FROZEN,
    MEASURING,
    PREFLIGHT,
    PROBE,
    READING,
)
from tunesmith.recipe import Recipe, TrainingSpec
from tunesmith.seeds import torch_seed
from tunesmith.spending import Spending
from tunesmith.training.events import Evaluated, Event, Finished, Note, StepDone, Stopped, Warned
from tunesmith.training.ledger import Ledger, resume_command, taken

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.climbing import Decision
    from tunesmith.methods.base import Method
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.resolve import Source
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.training.loop import Run as LoopRun


OWN_ROWS = Path("data") / "rows.parquet"  # in a run's folder: the rows that a Python caller gave
OWN_START = Path("start")  # and the files that its method starts from, beside the base
# And what trained in other runs from the same start, to be averaged with what trains in this one.
OTHERS = Path("others")


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
    profile: bool = False  # say what each lever of speed brought, once the run is over
    explain: bool = False  # say how a method is chosen, as it is
    commit: str | None = None  # of a hub base, to begin from; None for the newest
    _decision: Decision | None = None  # what was chosen, where the method was left open
    _spending: Spending = field(default_factory=Spending)

    def events(self) -> Iterator[Event]:
        """Does the work. Each event is in the run's ledger before it is given.

        Raises TunesmithError kinds only, unless Tunesmith itself has a bug.
        """
        keep_few_kernels()
        with importing():
            import torch  # noqa: F401
            from safetensors import SafetensorError

            from tunesmith.training.threads import threads_given_back

        try:
            with threads_given_back():
                yield from self._events()
        except (NotImplementedError, RecursionError):  # kinds of RuntimeError, and nothing that a user can put right
            raise
        except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
            raise self._explained(error) from error

    def _events(self) -> Iterator[Event]:
        with importing():
            from tunesmith.deciding import by_size, climbed
            from tunesmith.manifest import check_same_run, manifest_of
            from tunesmith.models.resolve import kind_of
            from tunesmith.preparing import fitted, prepare_with_base

        phase, asked = self._spending.phases.phase, self.recipe
        _method(self.recipe).check_libraries()
        with phase(READING):
            prepared = prepare_with_base(self.recipe, self.table, self._spending.phases)
            if asked.method == "auto" and (ruled := by_size(asked, prepared)) is not None:
                self.recipe, self._decision = ruled.recipe, ruled
                if ruled.recipe.task != asked.task:
                    prepared = prepare_with_base(self.recipe, self.table, self._spending.phases)
        yield from prepared.notes
        ledger = Ledger.open(self.run) if self.resuming else None
        stored = {} if ledger is None else ledger.manifest()
        base = stored.get("model", {})
        with phase(BASE):
            source, backbone = self._load_base(base["revision"] if base.get("kind") == "hub" else self.commit)
        prepared.task.check_base(source.name, kind_of(source))  # of one from the hub nothing was known before
        found = "file" if source.folder.is_file() else source.kind
        size = f"model: {source.name} ({found}), {_size_of(backbone.module)}"
        model_note = Note("model", (size, *backbone.notes))
        yield model_note
        widened = prepared.task.widen(backbone.processor, prepared.texts("train"))
        if widened:
            yield Note("tokens", (widened,))
        with phase(ENCODING):
            prepared, encoded = fitted(prepared, backbone.processor, self.recipe.training.max_length)
        manifest = manifest_of(anchored(asked), prepared.fingerprints(), source)
        check_same_run(self.run, stored, manifest)
        earlier = {} if ledger is None else ledger.resolved()
        built = None
        if self.recipe.method != "auto":  # refused before there is a folder
            built = self._built(prepared, encoded, backbone, earlier)
        ledger = Ledger.at(self.run) if ledger is None else ledger
        with ledger.in_use():
            if self.resuming:
                self._spending.goes_on_from(ledger.events())
            else:
                self._begin(ledger, asked)
            yield from self._keep_manifest(ledger, stored, manifest)
            for event in itertools.chain(prepared.notes, (model_note,)):
                ledger.append(event)
            if built is None:
                self._decision = yield from climbed(
                    anchored(asked), prepared, encoded, backbone, ledger, self._spending, self.stop, self.explain
                )
                if self._decision is None:
                    return
                paths = {"data": asked.data, "model": asked.model, "retention": asked.retention}
                self.recipe = self._decision.recipe.model_copy(update=paths)  # as they were given
                earlier = earlier or dict(self._decision.earlier)
                built = self._built(prepared, encoded, backbone, earlier)
            # From here on with what was found; the recipe on disk is as it was asked.
            self.recipe = _with_found(self.recipe, built.method)
            for event in self._work(ledger, prepared, encoded, source, backbone, built, earlier):
                if not isinstance(event, StepDone):  # which says itself what it took
                    ledger.append(self._spending.session())
                ledger.append(event)
                yield event

    def _built(self, prepared: Prepared, encoded: Encoded, backbone: Backbone, earlier: dict[str, Any]) -> Built:
        from tunesmith.assembly import build

        with self._spending.phases.phase(BUILDING):
            built = build(self.recipe, prepared, encoded, backbone, earlier, self._spending.phases)
        self._spending.uses(built.runtime.device)
        if built.method.alters:
            backbone.drop_weights()  # the network has its own; kept whole, these would take what it saves
        if self._decision is not None:
            built.derived[:0] = self._decision.derived
            built.ladder = self._decision.told
        return built

    def _explained(self, error: Exception) -> TunesmithError:
        """What the system, or a library, refused: in words, with what to do."""
        from tunesmith.training.preflight import out_of_memory
        from tunesmith.training.state import disk_full

        begun = (self.run / "recipe.yaml").exists()
        again = f"then go on with: {resume_command(self.run)}" if begun else "then start the run again"
        if disk_full(error):
            return TrainingError(
                f"{self.run}: the disk is full; what was saved before is intact; free some space, {again}"
            )
        if out_of_memory(error):
            return TrainingError(
                f"{self.run}: out of memory; what was saved before is intact; free some memory, {again}; or start again "
                f"with a smaller {self.recipe.training.at_once}, training.max_length, or training.cache=off"
            )
        said = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        if isinstance(error, RuntimeError):
            return TrainingError(
                f"{self.run}: the run cannot go on ({reason}); what was saved before is intact; where it comes again, "
                "please report it with its traceback (TUNESMITH_DEBUG=1 shows it)"
            )
        return ArtifactError(f"{self.run}: a file cannot be read or written ({reason}); put it right, {again}")

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
        from tunesmith.assembly import keep_frozen, make_run
        from tunesmith.auditing.running import audited
        from tunesmith.beside import foreseen
        from tunesmith.redrawing import redraw
        from tunesmith.result import rows_to_measure
        from tunesmith.training.loop import restore, train
        from tunesmith.training.state import Checkpoints
        from tunesmith.training.travel import sampled
        from tunesmith.untouched import fit_probe, measure_base
        from tunesmith.unused import unused_cache, unused_settings
        from tunesmith.zero_shot.asking import ask_base

        for finding in encoded.findings:
            yield Warned(finding.message)
        if encoded.remarks:
            yield Note("encoded", encoded.remarks)
        for line in (*built.plan.warnings, *unused_settings(self.recipe, prepared, built)):
            yield Warned(line)
        if built.network.writes and built.network.fresh:
            lacking = ", ".join(sorted(name.removeprefix("model.") for name in built.network.fresh)[:3])
            yield Warned(f"the checkpoint has no {lacking}: it is drawn at random, and trains with the rest")
        trains = f"method: {self.recipe.method_name}, {built.trainable:,} parameters train"
        yield Note("method", (trains, *built.plan.notes))
        phases = self._spending.phases
        with phases.phase(FROZEN):
            trunk = keep_frozen(self.recipe, prepared, encoded, backbone, built, earlier)
        for line in unused_cache(self.recipe, trunk):
            yield Warned(line)
        if not self.stop():
            yield from phases.through(PROBE, fit_probe(self.recipe, prepared, encoded, backbone, built, trunk, phases))
            yield from phases.through(AUDIT, audited(self.recipe, prepared, encoded, backbone, built))
            yield from phases.through(BASELINES, measure_base(self.recipe, prepared, encoded, backbone, built))
            yield from phases.through(BASELINES, ask_base(self.recipe, prepared, encoded, backbone, built))
            if said := redraw(self.recipe, built.network, built.masters, built.redrawn):
                yield Note("redraw", (said,))
        if self.stop():
            saved = Checkpoints(self.run / "checkpoints").steps()  # of an earlier session; none in a new run
            why = "asked to stop before the first step" + (" of this session" if saved else "")
            yield Stopped(max(saved, default=0), why, resume_command(self.run))
            return
        adopted = self._decision is not None and self._decision.folder is not None
        asked = trained_before(self.recipe) if adopted else self.recipe
        with phases.phase(PREFLIGHT):
            run = make_run(asked, prepared, encoded, backbone, built, trunk, self.run, self.stop, earlier)
        yield Note("derived", tuple(f"{item.key} = {item.value}: {item.why}" for item in built.derived))
        ledger.write_resolved(self.recipe.model_copy(update={"training": built.training}), built.derived)
        built.began = sampled(run.masters.tensors)
        if self.resuming or adopted:
            yield from restore(run)
        after, further = rows_to_measure(prepared), foreseen(self.recipe, prepared)
        if adopted:  # it was trained to its end, or to that of what it may take
            run.enough = partial(str, "trained on the way to the choice of its method")
        else:
            limit(self.recipe, run, self._spending, after, len(prepared.splits.validation))
        steps = self._spending.watch(train(run), run, len(prepared.splits.validation), after, further)
        for event in warned_of_rate(steps, built.training):
            if isinstance(event, Finished):
                yield from self._finish(ledger, prepared, encoded, source, built, run, event)
            else:
                yield event

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
        from tunesmith.beside import runs_beside
        from tunesmith.delivery import deliver
        from tunesmith.finishing import finished
        from tunesmith.profiling import profiled
        from tunesmith.result import measure_result
        from tunesmith.training.travel import sampled, travelled

        phases = self._spending.phases
        hand_back()
        trained = sampled(run.masters.tensors)
        try:
            best = best_parameters(run)
        except ArtifactError as error:
            yield Warned(f"{error}; the state after step {run.state.step} is delivered in place of the best one")
            run.state.carry = replace(run.state.carry, best_step=run.state.step)
            best = best_parameters(run)
        with phases.phase(DELIVERY):
            others = sorted((self.run / OTHERS).glob("*.safetensors"))
            best, notes = finished(self.recipe, prepared, encoded, built, run, best, others)
        yield from notes
        assert built.began is not None, "sampled before the first step"
        built.travel = travelled(built.began, trained, sampled(best), run.plan, run.network.fresh)
        with phases.phase(DELIVERY):
            delivered = deliver(self.recipe, prepared, encoded, source, run, best, built, self.run)
        stopped = yield from runs_beside(self._inner, self.recipe, prepared, built, self.run, phases)
        if stopped is not None:
            yield replace(stopped, step=run.state.step, resume=resume_command(self.run))
            return
        measured = measure_result(self.recipe, prepared, encoded, built, delivered, ledger, self._spending)
        yield from phases.through(MEASURING, measured)
        yield from map(Warned, beyond(self.recipe.limits, self._spending))
        if run.soup is not None:
            run.soup.clear()
        shutil.rmtree(self.run / OTHERS, ignore_errors=True)
        if self.profile:
            yield from profiled(self.recipe, prepared, encoded, partial(self._fresh, prepared, source), built, run)
        self.finished = True
        yield replace(end, delivered=built.delivered)

    def _inner(self, recipe: Recipe, folder: Path) -> Session:
        """A run inside this one's folder, stopped with it; gone on with where it was begun before."""

        def stop() -> bool:  # which is asked before every step: this run's counters of electricity begin anew meanwhile
            self._spending.meter.keep_up()
            return self.stop()

        if not (folder / "recipe.yaml").exists():
            return Session(recipe, folder, None, stop)
        if (folder / "report.json").exists():
            return Session(recipe, folder, None, stop, finished=True)
        return resume(folder, stop)

    def _load_base(self, revision: str | None) -> tuple[Source, Backbone]:
        from tunesmith.models.transformers_import import import_transformers

        import_transformers()
        from tunesmith.models.backbone import load_backbone
        from tunesmith.models.resolve import resolve

        source = resolve(self.recipe.model, revision)
        with torch_seed(self.recipe.seed, "base"):  # a pooler that the checkpoint lacks is drawn when it is read
            backbone = load_backbone(source, self.recipe.training.dropout)
        backbone.processor.reserve(_method(self.recipe).tokens)
        return source, backbone

    def _fresh(self, prepared: Prepared, source: Source) -> Backbone:
        """The base once more, as the run read it."""
        _, backbone = self._load_base(source.revision if source.kind == "hub" else None)
        prepared.task.widen(backbone.processor, prepared.texts("train"))
        return backbone

    def _begin(self, ledger: Ledger, asked: Recipe) -> None:
        """Makes the folder, which is this process's alone by now, a run. Raises ArtifactError where it already is one."""
        check_free(self.run, self.recipe, self.table)  # again: another process may have begun since `start`
        self._keep_rows()  # before the recipe that needs them: a run whose rows are not there is no run
        self._keep_start()
        ledger.begin(anchored(asked))
        self.recipe = _with_own_start(self.recipe, self.run)

    def _keep_rows(self) -> None:
        from tunesmith.data.table import table_of, write_exact

        if self.table is None:
            return
        path = self.run / OWN_ROWS
        make_folder(path.parent)
        with whole_file(path) as partial:
            write_exact(table_of(self.table, "rows"), partial)

    def _keep_start(self) -> None:
        """Copies what the method reads beside the base, which may change or go while the run lasts."""
        files = _method(self.recipe).given_files()
        if files:
            make_folder(self.run / OWN_START)
            for path in files:
                shutil.copyfile(path, self.run / OWN_START / path.name)
            sync_tree(self.run / OWN_START)

    def _keep_manifest(self, ledger: Ledger, stored: dict[str, Any], manifest: dict[str, Any]) -> Iterator[Event]:
        """Writes what the run stands on where that is not there: in a new run, or one killed before it was."""
        from tunesmith.training.state import Checkpoints

        if stored:
            return
        if Checkpoints(self.run / "checkpoints").steps():
            said = "is missing, so nothing says whether data and base are still those of the start; it is written anew"
            warned = Warned(f"{self.run / 'manifest.json'}: {said}")
            ledger.append(warned)
            yield warned
        ledger.write_manifest(manifest)


def warned_of_rate(events: Iterator[Event], training: TrainingSpec) -> Iterator[Event]:
    """The same events, with one warning where the loss is soon plainly above where it began. It changes no training."""
    from tunesmith.evaluation.health import far_above, too_high_already

    losses, before, warned = list[float](), None, False
    for event in events:
        yield event
        if isinstance(event, Evaluated) and event.step == 0:
            before = event.loss
        if isinstance(event, StepDone) and not warned:
            losses.append(event.loss)
            if warned := far_above(losses, before):
                yield Warned(too_high_already(losses, event.step, training))


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with paths that hold from any folder."""
    path, model, method = Path(recipe.data.path), Path(recipe.model), _method(recipe)
    data = recipe.data.model_copy(update={"path": str(path.resolve())}) if path.exists() else recipe.data
    files, keeps = method.given_files(), recipe.retention
    beside = {"probe": keeps.probe, "general": keeps.general}
    there = {key: str(Path(name).resolve()) for key, name in beside.items() if name is not None and Path(name).exists()}
    keeps = keeps.model_copy(update=there)
    return recipe.model_copy(
        update={
            "data": data,
            "retention": keeps,
            "model": str(model.resolve()) if model.exists() else recipe.model,
            "method": method.reading(files[0].parent.resolve()) if files else recipe.method,
        }
    )


def _with_own_start(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with its method reading the files that the run keeps, where it keeps any."""
    own = run / OWN_START
    return recipe.model_copy(update={"method": _method(recipe).reading(own)}) if own.is_dir() else recipe


def _with_found(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with its method's open option, where it has one, as it is in `method`; with its own files to read."""
    asked = _method(recipe)
    if recipe.method == "auto":
        return recipe.model_copy(update={"method": method})
    if not asked.undecided:
        return recipe
    found = {asked.undecided: method.model_dump()[asked.undecided]}
    return recipe.model_copy(update={"method": asked.model_copy(update=found)})


def _method(recipe: Recipe) -> Method:
    from tunesmith.assembly import method_of

    return method_of(recipe)


def start(
    recipe: Recipe,
    out: Path | None = None,
    table: Any = None,
    stop: Callable[[], bool] = never,
    profile: bool = False,
    explain: bool = False,
    commit: str | None = None,
) -> Session:
    """A new run in `out` (by default a new folder under runs/). Raises ArtifactError when `out` already holds a run."""
    folder = new_folder(recipe) if out is None else out
    check_free(folder, recipe, table)
    if table is not None:
        data = recipe.data.model_copy(update={"path": str(folder / OWN_ROWS)})
        recipe = recipe.model_copy(update={"data": data})
    return Session(recipe, folder, table, stop, profile=profile, explain=explain, commit=commit)


def check_free(folder: Path, recipe: Recipe, table: Any) -> None:
    """Raises ArtifactError where a new run would be made in another one's folder, or over files that are there."""
    if (folder / "recipe.yaml").exists():
        raise taken(folder)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; give --out a folder")
    wanted = [OWN_ROWS] if table is not None else []
    wanted += [OWN_START] if _method(recipe).given_files() else []
    there = [str(folder / path) for path in wanted if (folder / path).exists()]
    if there:
        raise ArtifactError(f"{' and '.join(there)}: there already, of no run; move it away, or give another --out")


def resume(run: Path, stop: Callable[[], bool] = never, explain: bool = False) -> Session:
    """Goes on with a stopped run from its last whole checkpoint. Raises ArtifactError when it is finished, or no run."""
    recipe = Ledger.open(run).recipe()
    if (run / "report.json").exists():
        raise ArtifactError(f"{run}: this run is finished; use it with: tunesmith predict {shlex.quote(str(run))} TEXT")
    if (run / OWN_ROWS).exists() and Path(recipe.data.path).parts[-2:] == OWN_ROWS.parts:
        data = recipe.data.model_copy(update={"path": str(run / OWN_ROWS)})  # wherever the run was moved to
        recipe = recipe.model_copy(update={"data": data})
    return Session(_with_own_start(recipe, run), run, None, stop, resuming=True, explain=explain)


def new_folder(recipe: Recipe) -> Path:
    """runs/<data>-<method>, with the first number that is free where that is taken."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(recipe.data.path).stem).strip("-").lower() or "data"
    method = recipe.method_name.rpartition(":")[2].lower()
    for number in itertools.count(1):
        folder = Path("runs") / (f"{stem}-{method}" + (f"-{number}" if number > 1 else ""))
        if not folder.exists():
            return folder
    raise AssertionError("unreachable")


def _size_of(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M parameters"
