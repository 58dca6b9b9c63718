"""16 settings of the head on the same rows: what is frozen is computed once on our side, and in every epoch on the other."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _contenders import (
    Contender,
    Facts,
    Job,
    NoFiles,
    PhaseClock,
    TrainerDefaults,
    TrainerTuned,
    make_job,
    whole_network,
)

from tunesmith.assembly import best_parameters, build, keep_frozen, make_run, method_of, resolve_rates
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.phases import Phases
from tunesmith.seeds import seed_of
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train
from tunesmith.training.optim import Masters
from tunesmith.untouched import fit_probe

from .training import WARM_ROWS, in_rounds
from .turns import Plain, scaled
from .works import DEFAULTS, OURS, TUNED, Work

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = (0.0, 0.01, 0.1, 1.0)
EPOCHS = 3
TRAINED = 2  # of the settings by the Trainer, whose time is multiplied: one takes as long as another


@dataclass(frozen=True)
class Setting:
    rate: float
    decay: float


SETTINGS = tuple(Setting(rate, decay) for rate in RATES for decay in DECAYS)


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": what was done, "measured": records}; the Trainer's are of two settings, as of all."""
    contenders = {
        OURS: OneBase(SETTINGS),
        DEFAULTS: OneByOne(TrainerDefaults(), SETTINGS, TRAINED),
        TUNED: OneByOne(TrainerTuned(), SETTINGS, TRAINED),
    }
    job = make_job(asked.data, asked.model, "head", asked.rows, EPOCHS)
    warm = make_job(asked.data, asked.model, "head", min(WARM_ROWS, asked.rows or WARM_ROWS), 1)
    found = in_rounds(work.name, contenders, job, warm, asked.rounds, len(SETTINGS) * job.steps)
    part = len(SETTINGS) / TRAINED
    found["measured"] = [
        record if record["part"] == OURS else {**scaled(record, part), "extrapolated": f"from {TRAINED} of {len(SETTINGS)}"}
        for record in found["measured"]
    ]
    found["job"] |= {"settings": len(SETTINGS), "rates": list(RATES), "weight_decays": list(DECAYS)}
    return found


def with_setting(job: Job, setting: Setting) -> Job:
    training = job.recipe.training.model_copy(update={"head_rate": setting.rate, "weight_decay": setting.decay})
    return replace(job, recipe=job.recipe.model_copy(update={"training": training}))


class OneBase(Contender):
    """One network, its frozen outputs and the fitted head once; then the loop once for each setting, from that head."""

    name = "Tunesmith"

    def __init__(self, settings: Sequence[Setting]) -> None:
        self.settings = settings

    def ready(self, job: Job) -> Callable[[], Facts]:
        backbone = load_backbone(resolve(job.recipe.model))
        return lambda: self.work(job, backbone)[0]

    def work(self, job: Job, backbone: Any) -> tuple[Facts, list[dict[str, Any]]]:
        """The facts, and of each setting what it trained, by name."""
        clock = PhaseClock()
        built = build(job.recipe, job.prepared, job.encoded, backbone, {})
        clock.end("network, method, choice of number format")
        trunk = keep_frozen(job.recipe, job.prepared, job.encoded, backbone, built, {})
        clock.end("frozen outputs")
        for _ in fit_probe(job.recipe, job.prepared, job.encoded, backbone, built, trunk, Phases()):
            pass
        start = {name: value.detach().clone() for name, value in built.masters.tensors.items()}
        clock.end("head fitted first")
        losses, steps, heads = list[float](), 0, []
        for setting in self.settings:
            own = with_setting(job, setting).recipe
            rates, _, _ = resolve_rates(own, job.prepared, backbone, job.rows)
            plan = method_of(own).attach(built.network, rates, seed_of(own.seed, "method"))
            training = built.training.model_copy(update={"head_rate": rates.head, "weight_decay": setting.decay})
            built.network.last.float()  # masters are copies of float32 parameters, which they then lower
            masters = Masters(built.network, plan, training, built.runtime.dtype)
            masters.overwrite(start)
            fresh = replace(built, plan=plan, training=training, masters=masters)
            run = make_run(own, job.prepared, job.encoded, backbone, fresh, trunk, Path("none"), lambda: False, {})
            run.evaluate, run.checkpoints = None, NoFiles(Path("none"))
            losses += [event.loss for event in train(run) if isinstance(event, StepDone)]
            steps += run.state.step
            heads.append(best_parameters(run))
        clock.end("steps of all settings")
        whole_network(job, backbone, heads[0], built.kept_rows)
        clock.end("whole float32 model")
        return Facts(steps, built.runtime.precision, built.trainable, sum(losses) / len(losses), clock.spent), heads


class OneByOne(Contender):
    """A Trainer's own training for each of the first settings; its steps are told as of all of them."""

    def __init__(self, trainer: Contender, settings: Sequence[Setting], count: int) -> None:
        self.name = trainer.name
        self._trainer, self._settings, self._count = trainer, settings, count

    def ready(self, job: Job) -> Callable[[], Facts]:
        works = [self._trainer.ready(with_setting(job, setting)) for setting in self._settings[: self._count]]

        def work() -> Facts:
            found = [one() for one in works]
            times = len(self._settings) / self._count
            steps = round(times * sum(facts.steps for facts in found))
            mean = sum(facts.mean_loss for facts in found) / len(found)
            return Facts(steps, found[0].precision, found[0].trainable, mean)

        return work
