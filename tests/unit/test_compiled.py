"""Compiled blocks: the same numbers, in training alone, under the same names; and what becomes of what cannot be compiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shortruns import METHODS, Bench, bench, facts, recipe_for
from tunesmith.models import compiled
from tunesmith.models.compiled import CompiledBlocks
from tunesmith.recipe import Recipe, TrainingSpec
from tunesmith.training import compiling
from tunesmith.training.compiling import KEY, settle_compiled
from tunesmith.training.events import StepDone, Warned
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
PLAIN = {"training.dropout": 0.0, "training.epochs": 3, "training.compile": True}


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traced alone, and not made into code of its own, which takes seconds for each form of a block."""
    monkeypatch.setattr(compiled, "USUAL", "eager")
    yield
    torch.compiler.reset()


def _run(recipe: Recipe, folder: Path) -> tuple[Bench, list[float]]:
    made = bench(recipe, folder)
    return made, [item["loss"] for item in facts(train(made.run)) if "loss" in item]


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _both(recipe: Recipe, folder: Path) -> tuple[Bench, Bench]:
    """With compiled blocks and without: losses and weights alike, after it was seen that something was compiled."""
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    before = _graphs()
    made, losses = _run(recipe, folder / "compiled")
    assert made.run.training.compile is True and _graphs() > before, "nothing was compiled"
    other, expected = _run(plain, folder / "plain")
    assert len(losses) >= 6 and losses == pytest.approx(expected, rel=1e-5)
    for name, value in other.run.network.state_dict().items():
        torch.testing.assert_close(made.run.network.state_dict()[name], value, atol=2e-5, rtol=2e-4, msg=name)
    return made, other


@pytest.mark.parametrize(
    ("family", "method", "more"),
    [
        ("bert", "full", {}),
        ("bert", "full", {"training.batches": "random"}),  # filler is left out by hooks around the blocks
        ("bert", METHODS["layers"], {}),  # frozen blocks' outputs are handed back in the place of their forwards
        (
            "llama",
            {"name": "lora", "rank": 4, "alpha": 8.0},
            {"training.checkpointing": True, "task": {"name": "causal_lm"}},
        ),
    ],
)
def test_compiled_blocks_learn_the_same(
    family: str, method: Any, more: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    made, other = _both(recipe_for(model_folder(family), table_file, method, {**PLAIN, **more}), tmp_path)
    networks = [part.run.network for part in (made, other)]
    assert list(networks[0].state_dict()) == list(networks[1].state_dict())
    networks[0].eval()
    blocks = [networks[0].get_submodule(name) for name in networks[0].layout.blocks]
    assert not any("forward" in vars(block) for block in blocks), "evaluation is by the blocks' own forwards"
    networks[0].train()
    assert all("forward" in vars(block) for block in blocks)


def test_by_the_usual_backend(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "USUAL", "inductor")
    recipe = recipe_for(model_folder("llama"), table_file, "full", {**PLAIN, "task": {"name": "causal_lm"}})
    _both(recipe, tmp_path)


def test_what_cannot_be_compiled_is_said_and_trains_all_the_same(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "USUAL", broken)
    recipe = recipe_for(model_folder("bert"), table_file, "full", PLAIN)
    made, losses = _run(recipe, tmp_path / "broken")
    assert made.run.training.compile is False and made.run.network.compiled is None
    said = {item.key: item.why for item in made.built.derived}[KEY]
    assert said.startswith("training goes on without: ") and "no compiler here" in said and "\n" not in said
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    assert losses == _run(plain, tmp_path / "plain")[1]


def test_what_fails_later_is_said_once(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "full", {**PLAIN, "training.compile": False}), tmp_path)
    network = made.run.network

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler any more")

    network.compiled = CompiledBlocks([network.get_submodule(name) for name in network.layout.blocks], broken)  # type: ignore[arg-type]
    found = [event.message for event in train(made.run) if isinstance(event, Warned)]
    assert len(found) == 1 and "no compiler any more" in found[0] and found[0].startswith("training.compile: ")


def _learned(value: Any) -> bool:
    """Not the sizes and noise that come out of a part of a block too."""
    return isinstance(value, torch.Tensor) and value.requires_grad


def _wrong_forward(graph: Any, inputs: Any) -> Any:
    return lambda *given: tuple(value * 1.05 if _learned(value) else value for value in graph(*given))


def _wrong_backward(graph: Any, inputs: Any) -> Any:
    def computed(*given: Any) -> Any:
        found = graph(*given)
        for value in filter(_learned, found):
            value.register_hook(lambda gradient: gradient * 1.05)
        return found

    return computed


@pytest.mark.parametrize("wrong", [_wrong_forward, _wrong_backward])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("family", ["bert", "llama"])  # modules of dropout, and a rate that attention is told
def test_what_computes_others_is_refused_with_dropout_too(
    family: str,
    dropout: float,
    wrong: Any,
    model_folder: Folder,
    table_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_for(model_folder(family), table_file, "full", {**PLAIN, "training.dropout": dropout})
    if wrong is _wrong_forward:  # the control: it is the wrong one that is refused
        assert bench(recipe, tmp_path / "right").run.training.compile is True
    monkeypatch.setattr(compiled, "USUAL", wrong)
    made = bench(recipe, tmp_path / "wrong")
    assert made.run.training.compile is False
    said = {item.key: item.why for item in made.built.derived}[KEY]
    assert said.startswith("training goes on without: its losses or gradients are others, by up to ")


def _staged(made: Bench) -> tuple[list[float], list[str]]:
    events = list(train(made.run))
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    return losses, [event.message for event in events if isinstance(event, Warned)]


def test_blocks_that_wake_one_after_another_stay_compiled(
    model_folder: Folder, table_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which asks for more codes than torch keeps by itself, where each is asked for in one more way."""
    from torch._dynamo import config

    recipe = recipe_for(model_folder("bert"), table_file, METHODS["unfreeze"], {**PLAIN, "training.epochs": 6})
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    with config.patch({"cache_size_limit": 2}):  # stands for torch's own 8
        made = bench(recipe, tmp_path / "compiled")
        found, warned = _staged(made)
        assert config.cache_size_limit == 2, "what is torch's own is as it was"
    assert warned == [] and "recompile_limit" not in caplog.text
    assert len(made.run.plan.stages) > 2 and found == pytest.approx(_staged(bench(plain, tmp_path / "p"))[0], rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_where_too_many_codes_are_asked_for_training_goes_on_without(
    checkpointing: bool, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**PLAIN, "training.epochs": 6, "training.checkpointing": checkpointing}
    recipe = recipe_for(model_folder("bert"), table_file, METHODS["unfreeze"], settings)
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    monkeypatch.setattr(compiled, "MOST_FORMS", 3)
    made = bench(recipe, tmp_path / "compiled")
    assert made.run.training.compile is True
    found, warned = _staged(made)
    assert len(warned) == 1 and "torch made 3 codes of a block" in warned[0]
    blocks = [made.run.network.get_submodule(name) for name in made.run.network.layout.blocks]
    made.run.network.train()
    assert not any("forward" in vars(block) for block in blocks)
    assert found == pytest.approx(_staged(bench(plain, tmp_path / "plain"))[0], rel=1e-5)


def test_what_is_attached_inside_of_a_block_later_is_seen(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "full", PLAIN), tmp_path)
    network, calls, found = made.run.network, 0, list[str]()

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    for event in train(made.run):
        if isinstance(event, StepDone) and event.step == 2:
            block = network.get_submodule(network.layout.blocks[0])
            next(part for part in block.modules() if isinstance(part, torch.nn.Linear)).register_forward_hook(count)
            assert calls == 0
        if isinstance(event, StepDone) and event.step == 3:
            assert calls > 0
        if isinstance(event, Warned):
            found.append(event.message)
    assert len(found) == 1 and "something was attached inside of a block" in found[0]


def _settled(made: Bench, earlier: dict[str, Any], spec: TrainingSpec, device: str = "cpu") -> tuple[Any, str]:
    from dataclasses import replace

    run = made.run
    source = replace(run.source, device=device)
    found, derived = settle_compiled(run.network, run.task, run.plan, run.trunk, source, spec, earlier)
    return found.compile, derived[0].why if derived else ""


def test_when_it_is_tried(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "full", {"training.dropout": 0.0}), tmp_path)
    auto = made.run.training.model_copy(update={"compile": "auto"})
    assert TrainingSpec().compile == "auto"
    assert made.run.training.compile is False, "on a CPU it is not taken by itself"
    assert _settled(made, {}, auto) == (False, "")
    assert _settled(made, {KEY: True}, auto) == (True, "as its training was begun")
    assert made.run.network.compiled is not None
    made.run.network.compiled = None

    # A GPU in name alone, whose clock is ours.
    paces = iter([])

    def paced(batches: Any, turn: Any, device: str) -> compiling.Pace:
        return next(paces)

    monkeypatch.setattr(compiling, "_pace", paced)
    numbers: list[list[float]] = []
    monkeypatch.setattr(compiling._Trial, "numbers", lambda trial, draw: numbers.pop(0) if numbers else [1.0, 2.0])
    monkeypatch.setattr(compiling.FixedRows, "batch", lambda self, step: [])
    whole = made.run.source.order.first(2)
    long, same = 2 * compiling.LEAST_S / whole, (1.0, 1.0, 1.0)

    def gpu(plain: compiling.Pace, fast: compiling.Pace, **more: Any) -> tuple[Any, str]:
        nonlocal paces
        paces = iter([plain, fast])
        return _settled(made, {}, auto.model_copy(update=more), "cuda")

    assert gpu(compiling.Pace(0.9 * long / 2, same), compiling.Pace(0.1, same))[0] is False  # a short run
    found, why = gpu(compiling.Pace(long, same), compiling.Pace(long / 1.5, same))
    assert found is True and why == "compiled blocks were 1.50 times as fast"
    found, why = gpu(compiling.Pace(long, same), compiling.Pace(long / 1.05, same))
    assert found is False and "1.05 times" in why
    fast = compiling.Pace(long / 2, (1.0, 1.1, 0.9))  # whose dropout draws others
    numbers[:] = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.02]]
    found, why = gpu(compiling.Pace(long, same), fast)
    assert found is False and "its losses or gradients are others, by up to 1 %" in why
    numbers[:] = [[1.0, 2.0], [1.0, 2.1], [1.0, 2.0]]
    assert gpu(compiling.Pace(long, same), fast) == (False, compiling.UNCOMPARABLE)
    numbers[:] = [[1.0, 2.0], [1.0, 2.1], [1.0, 2.0]]
    assert gpu(compiling.Pace(long, same), fast, compile=True) == (True, f"as asked for; {compiling.UNCOMPARABLE}")
    found, why = gpu(compiling.Pace(long, same), compiling.Pace(long / 2, (1.0, math.nan, 1.0)))
    assert found is False and "not finite" in why
    assert gpu(compiling.Pace(long, same), compiling.Pace(long / 2, same), exact=True) == (False, "")


def test_nothing_to_compile_is_said(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "head", {"training.compile": True}), tmp_path)
    assert {item.key: item.why for item in made.built.derived}[KEY] == "there is no block to train"
