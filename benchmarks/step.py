"""Where the time of a training step goes, and how far its matrix products are from what the machine can do. See README.md.

    python benchmarks/step.py [--methods full,lora] [--threads 1] [--rows 1200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _common import DATA, MODEL, RESULTS, environment, environment_lines, table_lines, write_results
from _contenders import BATCH_SIZE, NoFiles, make_job
from _processes import refuse_unknown, words
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.assembly import build, keep_frozen, make_run
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.phases import Phases
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train
from tunesmith.untouched import fit_probe

NAME = "step"
METHODS = ("full", "lora")
WARM = 12  # steps, in which libraries lay out kernels and memory
LARGE = 2048  # rows and columns of the products that show what the machine can do
TIMES = 30  # that a product is timed alone
PRODUCTS = "matrix products of linear maps"
# What torch's operators are there for, by the beginnings of their names; the first that fits.
PARTS: dict[str, tuple[str, ...]] = {
    PRODUCTS: ("mm.", "addmm."),
    "attention": ("bmm.", "baddbmm.", "_softmax", "softmax.", "_scaled_dot_product"),
    "activation": ("gelu", "relu", "silu", "tanh"),
    "norms": ("native_layer_norm",),
    "what is dropped (comparisons; drawing is under the last)": ("ge.",),
    "optimizer, its gradients' norm and its weights' copies": ("_fused_adam", "_foreach"),
    "sums of gradients of biases": ("sum.",),
    "sums and products of two tensors": ("add", "mul", "sub", "div"),
    "copies": ("_to_copy", "clone", "copy_", "cat."),
}
OTHER, REST = "other operators", "outside of operators: Python, autograd, drawing of what is dropped"


@dataclass
class Clock(TorchDispatchMode):
    """Seconds of each operator by its name and the shapes that it is given."""

    spent: dict[tuple[str, tuple[tuple[int, ...], ...]], list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begun = time.perf_counter()
        found = operator(*args, **(kwargs or {}))
        spent = time.perf_counter() - begun
        shapes = tuple(tuple(value.shape) for value in args if isinstance(value, torch.Tensor))
        self.spent[operator.__name__, shapes].append(spent)
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    torch.set_num_threads(asked.threads)
    plain: dict[str, Any] = {
        "schema": 1,
        "environment": environment(),
        "methods": {name: measured(name, asked) for name in asked.methods},
    }
    lines = page(plain)
    write_results(asked.out, NAME, plain, lines)
    print("\n".join(lines))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--methods", type=words, default=list(METHODS), metavar="A,B")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--large", type=int, default=LARGE, help="rows and columns of the largest product that is tried")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with one, seconds by the clock are CPU seconds")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of {NAME}.json and {NAME}.md")
    asked = parser.parse_args(arguments)
    refuse_unknown(parser, "--methods", asked.methods, METHODS)
    return asked


def limit(most: int, dtype: torch.dtype) -> float:
    """The most multiplications and additions, in 10^9 a second, of a product of any size up to `most`."""
    best = 0.0
    for size in (512, 1024, most):
        one, two = (torch.randn(size, size).to(dtype) for _ in range(2))
        best = max(best, 2 * size**3 / alone(lambda a=one, b=two: torch.mm(a, b)) / 1e9)
    return best


def alone(work: Callable[[], object]) -> float:
    """Seconds of one call when it is repeated: the lower quartile."""
    times: list[float] = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.quantiles(times, n=4)[0]


def measured(method: str, asked: argparse.Namespace) -> dict[str, Any]:
    """The steps of one epoch as they are, then of the next one with each operator timed."""
    count = -(-asked.rows // BATCH_SIZE)  # of an epoch
    steps, precision = steps_of(method, asked, 3 + -(-WARM // count))
    for _ in range(WARM):
        next(steps)
    begun = time.perf_counter()
    tokens = [next(steps).tokens for _ in range(count)]
    plain = (time.perf_counter() - begun) / count
    with Clock() as clock:
        next(steps)
        clock.spent.clear()
        for _ in range(count):
            next(steps)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return {
        "limit_gflops": limit(asked.large, dtype),
        "precision": precision,
        "steps": count,
        "tokens": statistics.mean(tokens),
        "ms": 1e3 * plain,
        "parts": parts(clock.spent, count, 1e3 * plain),
        "products": products(clock.spent, count, dtype),
    }


def steps_of(method: str, asked: argparse.Namespace, epochs: int) -> tuple[Iterator[StepDone], str]:
    job = make_job(asked.data, asked.model, method, asked.rows, epochs)
    backbone = load_backbone(resolve(job.recipe.model))
    built = build(job.recipe, job.prepared, job.encoded, backbone, {})
    trunk = keep_frozen(job.recipe, job.prepared, job.encoded, backbone, built, {})
    for _ in fit_probe(job.recipe, job.prepared, job.encoded, backbone, built, trunk, Phases()):
        pass
    run = make_run(job.recipe, job.prepared, job.encoded, backbone, built, trunk, Path("none"), lambda: False, {})
    run.evaluate, run.checkpoints = None, NoFiles(Path("none"))
    torch.set_num_threads(asked.threads)
    return (event for event in train(run) if isinstance(event, StepDone)), built.runtime.precision


def parts(spent: Mapping[Any, Sequence[float]], steps: int, whole: float) -> dict[str, float]:
    """Milliseconds a step by part, most first; what is left of the whole step comes last."""
    found: dict[str, float] = defaultdict(float)
    for (name, _), times in spent.items():
        part = next((part for part, begins in PARTS.items() if name.startswith(begins)), OTHER)
        found[part] += 1e3 * sum(times) / steps
    ordered = dict(sorted(found.items(), key=lambda item: -item[1]))
    return {**ordered, REST: whole - sum(found.values())}


def products(spent: Mapping[Any, Sequence[float]], steps: int, dtype: torch.dtype) -> dict[str, float]:
    """Of all products of linear maps in a step: their arithmetic, and their time within it and each repeated alone."""
    arithmetic = within = by_itself = 0.0
    for (name, shapes), times in spent.items():
        if not name.startswith(PARTS[PRODUCTS]):
            continue
        (rows, inner), (_, columns) = shapes[-2:]
        one, two = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        arithmetic += len(times) * 2 * rows * inner * columns / 1e9
        within += 1e3 * sum(times)
        by_itself += 1e3 * len(times) * alone(lambda a=one, b=two: torch.mm(a, b))
    return {"gflop": arithmetic / steps, "ms": within / steps, "alone_ms": by_itself / steps}


def page(plain: Mapping[str, Any]) -> list[str]:
    lines = ["# Where a training step's time goes", ""]
    for method, found in plain["methods"].items():
        whole, given, most = found["ms"], found["products"], found["limit_gflops"]
        least = 1e3 * given["gflop"] / most
        rows = [[part, f"{ms:.1f}", f"{100 * ms / whole:.0f} %"] for part, ms in found["parts"].items()]
        lines += [
            f"## {method}: {whole:.0f} ms a step of {found['tokens']:.0f} tokens, {found['precision']}",
            "",
            *table_lines(("Part", "ms a step", "Share"), rows),
            "",
            f"- Products: {given['gflop']:.1f} * 10^9 multiplications and additions in {given['ms']:.0f} ms, "
            f"{given['gflop'] / given['ms'] * 1e3:,.0f} * 10^9 a second. Each repeated by itself: {given['alone_ms']:.0f} "
            f"ms. At the rate of this machine's best product ({most:,.0f} * 10^9 a second): {least:.0f} ms.",
            f"- {halving(whole, given, least)}",
            "",
        ]
    return [*lines, *environment_lines(plain["environment"])]


def halving(whole: float, given: Mapping[str, float], least: float) -> str:
    """What it would take to take half the time."""
    rest, half = whole - given["ms"], whole / 2
    if least >= half:
        return f"Half the time, {half:.0f} ms, would take fewer multiplications: they alone take {least:.0f} ms at best."
    fewer = 100 * (1 - (half - least) / rest)
    return (
        f"Half the time, {half:.0f} ms, would take products at that rate ({given['ms'] - least:.0f} ms less) and "
        f"{fewer:.0f} % off all the rest ({rest:.0f} ms now)."
    )


if __name__ == "__main__":
    raise SystemExit(main())
