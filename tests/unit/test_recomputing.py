"""Activation checkpointing: the same numbers from less memory, and turned on where nothing fits without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, Bench, bench, differences, facts, noted, recipe_for, stopped_when
from tunesmith.errors import ModelError, TrainingError
from tunesmith.recipe import Recipe, TrainingSpec
from tunesmith.training import preflight
from tunesmith.training.footprint import Footprint
from tunesmith.training.ledger import Ledger
from tunesmith.training.loop import set_mode, train
from tunesmith.training.recomputing import settle_recomputing
from tunesmith.unused import unused_settings

Folder = Callable[[str], Path]
MIXED = {"name": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1}


def _trained(recipe: Recipe, folder: Path) -> tuple[Bench, list[dict[str, Any]], int]:
    """Also how often the last block computed while a step was taken."""
    made, calls = bench(recipe, folder), 0
    block = made.run.network.get_submodule(made.run.network.layout.blocks[-1])

    part: Any = next(part for part in block.modules() if not list(part.children()))
    own = part.forward

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += part.training
        return own(*args)

    part.forward = counted  # no hook, which filler is left in for
    return made, facts(train(made.run)), calls


@pytest.mark.parametrize(
    ("family", "method", "more"),
    [
        ("bert", "full", {"training.dropout": 0.2}),
        ("bert", "full", {"training.dropout": 0.2, "training.batches": "random"}),  # filler left out
        ("bert", "full", {"training.dropout": 0.2, "training.precision": "bfloat16"}),  # attention of our own
        ("bert", MIXED, {}),
        ("bert", METHODS["layers"], {"training.dropout": 0.2}),  # the frozen blocks' outputs are kept
        ("bert", METHODS["unfreeze"], {"training.dropout": 0.2}),
        ("bert", METHODS["prefix"], {}),
        ("llama", MIXED, {"task": {"name": "causal_lm"}}),
        ("t5", "full", {"training.dropout": 0.2}),
    ],
)
def test_what_is_computed_twice_is_the_same(
    family: str, method: Any, more: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """To the bit, with dropout: the second pass draws what the first drew."""
    kept, twice = (
        _trained(
            recipe_for(model_folder(family), table_file, method, {**more, "training.checkpointing": way}),
            tmp_path / str(way),
        )
        for way in (False, True)
    )
    assert twice[2] > kept[2] > 0, "activations were not recomputed"
    assert twice[1] == kept[1]
    assert differences(kept[0].tensors(), twice[0].tensors()) == []


def _needed(made: Bench) -> int:
    """Bytes from which the smallest micro-batch fits on a CPU."""
    run = made.run
    source = preflight.FixedRows(run.source.examples, run.source.order, 1, run.source.pad, "cpu")
    set_mode(run.network, run.plan)

    def work(batch: Any) -> None:
        run.task.loss(run.trunk.forward("train", batch), batch).total.backward()
        run.network.zero_grad(set_to_none=True)

    reserved = preflight._reserved_bytes(run.network, source, run.training)
    first = preflight.FixedRows(run.source.examples, run.source.order, 24, run.source.pad, "cpu")
    return reserved + Footprint(work, first.longest()).bytes(1)


@pytest.fixture
def asked(model_folder: Folder, tmp_path: Path) -> Callable[[Any], Recipe]:
    """Long texts on a base whose weights are few, so that most memory is activations."""
    words = "the card of the bank was a good one and it is the best of all that I have " * 3
    table = tmp_path / "long.csv"
    labels = ("yes", "no")
    lines = [f"{words[place % 9 :]},{labels[place % 2]}" for place in range(60)]
    table.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    settings = {"training.micro_batch": "auto", "evaluation.quick": True, "data.leaks": "keep"}

    def made(way: Any) -> Recipe:
        return recipe_for(model_folder("bert"), table, "full", {**settings, "training.checkpointing": way})

    return made


def test_it_is_turned_on_where_nothing_else_fits(
    asked: Callable[[Any], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, needed = (_needed(bench(asked(way), tmp_path / "need")) for way in (False, True))
    assert needed < 0.9 * without, "the control: there is something to be saved"

    def with_free(free: int, way: Any) -> Bench:
        monkeypatch.setattr(preflight, "free_memory", lambda most: free)
        return bench(asked(way), tmp_path / "run")

    for free, way, recomputed in ((without, "auto", False), (without - 1, "auto", True), (1 << 40, True, True)):
        made = with_free(free, way)
        assert made.run.training.checkpointing is made.built.training.checkpointing is recomputed
        block: Any = made.run.network.get_submodule(made.run.network.layout.blocks[0])
        assert block.gradient_checkpointing is recomputed
        said = {item.key: item.why for item in made.built.derived}
        assert ("training.checkpointing" in said) is (recomputed and way == "auto")
    with pytest.raises(TrainingError, match=r"not even 1 row.*set training\.checkpointing=true, a smaller"):
        with_free(without - 1, False)
    with pytest.raises(
        TrainingError, match=r"not even 1 row.*activations computed twice.*set a smaller training\.max_"
    ):
        with_free(needed - 1, "auto")


def test_a_resumed_run_goes_on_as_it_was(
    asked: Callable[[Any], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever memory there is by then; and the delivered weights are those of a run that was never short of it."""
    from tunesmith.pipeline import resume, start

    recipe = asked("auto")
    short = _needed(bench(asked(False), tmp_path / "need")) - 1
    monkeypatch.setattr(preflight, "free_memory", lambda most: short)
    stopped_when(noted("derived"), recipe, tmp_path / "run")
    assert Ledger.open(tmp_path / "run").resolved()["training.checkpointing"] is True
    assert "checkpointing: auto" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    monkeypatch.setattr(preflight, "free_memory", lambda most: 1 << 40)
    lines = [line for event in resume(tmp_path / "run").events() for line in getattr(event, "lines", ())]
    assert "training.checkpointing = True: as its training was begun" in lines
    resolved = (tmp_path / "run" / "resolved.yaml").read_text(encoding="utf-8")
    assert "    checkpointing: true" in resolved
    assert Ledger.open(tmp_path / "run").resolved()["training.checkpointing"] is True

    size = Ledger.open(tmp_path / "run").resolved()["training.micro_batch"]
    ample = asked(False).model_copy(deep=True)
    ample = ample.model_copy(update={"training": ample.training.model_copy(update={"micro_batch": size})})
    for _ in start(ample, tmp_path / "ample").events():
        pass
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("run", "ample")]
    assert weights[0] == weights[1]


def test_what_was_decided_before_holds(asked: Callable[[Any], Recipe], tmp_path: Path) -> None:
    network = bench(asked("auto"), tmp_path).run.network
    spec = TrainingSpec()
    assert spec.checkpointing == "auto"
    assert settle_recomputing(spec, {}, network)[0].checkpointing == "auto"
    assert settle_recomputing(spec, {"training.cache": "Live"}, network)[0].checkpointing is False
    never = spec.model_copy(update={"checkpointing": False})
    assert settle_recomputing(never, {"training.checkpointing": True}, network)[0].checkpointing is False


def test_where_it_cannot_be(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "head"), tmp_path)
    assert not made.run.network.recomputable, "nothing inside the blocks trains"
    recipe = recipe_for(model_folder("bert"), table_file, METHODS["prompt"], {"training.checkpointing": True})
    made = bench(recipe, tmp_path / "one")
    assert any("trains nothing inside" in line for line in unused_settings(recipe, made.prepared, made.built))
    with pytest.raises(ModelError, match="word vectors have no blocks"):
        bench(recipe_for(model_folder("glove"), table_file, "full", {"training.checkpointing": True}), tmp_path / "two")
